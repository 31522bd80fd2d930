"""What a source is, and which one a setting asks for."""

from datetime import tzinfo
from typing import Protocol

from ita_ag_oase.errors import Reason, SettingInvalid
from ita_ag_oase.model import CollectionSetting, ConnectionMethod, Cursor, Payload, RequestMethod
from ita_ag_oase.sources.http import HttpClients, HttpSource


class Source(Protocol):
    """Something that can be asked for events."""

    async def fetch(self, cursor: Cursor, now: float) -> Payload:
        """Return the answer to a poll at `now` (epoch seconds).

        Raises SourceUnavailable where asking later may help, SourceRejected and SourceUnreadable where it will not.
        """


def open_source(setting: CollectionSetting, clients: HttpClients, *, max_bytes: int, zone: tzinfo | None) -> Source:
    """Return the source of a setting. Raises SettingInvalid for a row that can never be asked with."""
    if setting.connection_method is ConnectionMethod.IMAP_PASSWORD:
        raise SettingInvalid(
            f"{setting.name}: mailboxes are not collected by this version of the agent", reason=Reason.SETTING
        )
    if setting.request_method not in (RequestMethod.GET, RequestMethod.POST):
        raise SettingInvalid(f"{setting.name}: REQUEST_METHOD_ID must be GET or POST", reason=Reason.SETTING)
    return HttpSource(setting, clients, max_bytes=max_bytes, zone=zone)
