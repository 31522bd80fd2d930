"""What a source is, and which one a setting asks for."""

import ssl
from collections.abc import Callable
from datetime import tzinfo
from functools import partial
from typing import Protocol

from ita_ag_oase.errors import Reason, SettingInvalid
from ita_ag_oase.model import (
    CollectionSetting,
    ConnectionMethod,
    Cursor,
    Destination,
    Exchange,
    Payload,
    Portion,
    RequestMethod,
)
from ita_ag_oase.sources.http import HttpClients, HttpSource
from ita_ag_oase.text import Text


class Source(Protocol):
    """Something that can be asked for events."""

    async def fetch(self, cursor: Cursor, now: float) -> Payload | Portion:
        """Return the answer to a poll at `now` (epoch seconds), or the next portion of it.

        Raises SourceUnavailable where asking later may help, SourceRejected and SourceUnreadable where it will not.
        """

    async def close(self) -> None:
        """End what is held open for this source alone."""


class LocatedSource(Source, Protocol):
    """A source that can tell where it is."""

    async def destination(self, cursor: Cursor, now: float) -> Destination:
        """Return where a poll at `now` would go. Raises SourceUnreadable for a template that fails."""


def open_source(
    setting: CollectionSetting,
    clients: HttpClients,
    *,
    make_tls: Callable[[], ssl.SSLContext],
    max_bytes: int,
    zone: tzinfo | None,
    on_exchange: Callable[[Exchange], None] | None = None,
) -> LocatedSource:
    """Return the source of a setting. Raises SettingInvalid for a row that can never be asked with.

    `make_tls` is called for each encrypted connection to a mailbox; HTTP's are those of `clients`. `on_exchange` is
    told of each HTTP request that was sent.
    """
    if setting.connection_method is ConnectionMethod.IMAP_PASSWORD:
        return _open_mailbox(setting, make_tls, max_bytes=max_bytes)
    if setting.request_method not in (RequestMethod.GET, RequestMethod.POST):
        raise SettingInvalid(
            Text("{setting}: REQUEST_METHOD_ID must be GET or POST", setting=setting.name), reason=Reason.SETTING
        )
    return HttpSource(setting, clients, max_bytes=max_bytes, zone=zone, on_exchange=on_exchange)


def _open_mailbox(
    setting: CollectionSetting, make_tls: Callable[[], ssl.SSLContext], *, max_bytes: int
) -> LocatedSource:
    # Here, so that agents without a mailbox do without the memory of what it takes.
    from ita_ag_oase.sources.imap import ImapSource
    from ita_ag_oase.sources.imap_connection import ImapConnection
    from ita_ag_oase.sources.imap_server import server_of

    server = server_of(setting)
    return ImapSource(
        setting.name,
        partial(ImapConnection, server, make_tls, max_bytes=max_bytes),
        mailbox=server.identity,
        destination=server.destination,
        max_bytes=max_bytes,
    )
