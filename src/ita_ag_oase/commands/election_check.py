"""What `check` finds out about the Lease of the election, without taking it."""

import contextlib

from ita_ag_oase.agent.leadership import lease_api
from ita_ag_oase.agent.lease import Lease, LeaseApi
from ita_ag_oase.commands.findings import Check, Finding, State
from ita_ag_oase.errors import AgentError, LeaseChanged
from ita_ag_oase.settings import Settings
from ita_ag_oase.text import Text

_SUBJECT = Text("Lease")


async def check_election(settings: Settings) -> Finding:
    """Return whether the Lease can be read and written. It is written as it is, which changes nothing."""
    api = lease_api(settings)
    try:
        lease = await _read_and_write(api)
    except AgentError as err:
        return Finding(Check.ELECTION, _SUBJECT, State.FAILED, Text("{error}", error=err))
    finally:
        await api.close()
    return Finding(Check.ELECTION, _SUBJECT, State.OK, _in_words(settings.lease, lease))


async def _read_and_write(api: LeaseApi) -> Lease:
    lease = await api.read()
    # Its holder may have been quicker; who may not write at all is told something else.
    with contextlib.suppress(LeaseChanged):
        await api.write(lease.document)
    return lease


def _in_words(name: str, lease: Lease) -> Text:
    if not lease.holder:
        return Text("{lease} can be read and written; nobody holds it now", lease=name)
    return Text("{lease} can be read and written; {holder} holds it now", lease=name, holder=lease.holder)
