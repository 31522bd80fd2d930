"""The checks of one setting end in time, whatever its source does."""

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from ita_ag_oase.commands.findings import Check, Finding, State
from ita_ag_oase.commands.kept import Kept
from ita_ag_oase.commands.source_check import SETTING_SECONDS, Workbench, check_setting
from ita_ag_oase.demo.exastro import setting_row
from ita_ag_oase.errors import Reason, SourceUnreadable
from ita_ag_oase.exastro.secrets import SecretColumns
from ita_ag_oase.model import CollectionSetting, Cursor, Destination, Exchange, Payload
from ita_ag_oase.text import Text


class Source:
    """A source that never tells where it is, or does not know."""

    def __init__(self, error: SourceUnreadable | None) -> None:
        self._error = error
        self.is_closed = False

    async def destination(self, cursor: Cursor, now: float) -> Destination:
        if self._error is not None:
            raise self._error
        await asyncio.Event().wait()
        raise AssertionError

    async def fetch(self, cursor: Cursor, now: float) -> Payload:
        raise AssertionError

    async def close(self) -> None:
        self.is_closed = True


def _bench(folder: Path, source: Source) -> Workbench:
    def make_source(setting: CollectionSetting, *, on_exchange: Callable[[Exchange], None] | None = None) -> Source:
        return source

    return Workbench(
        make_source=make_source,
        secrets=SecretColumns("org", "ws"),
        kept=Kept(folder / "none.sqlite3"),
        tls=ssl.create_default_context(),
        agent_name="agent",
        on_secret=lambda _: None,
    )


_USABLE = Finding(Check.SETTING, "n1", State.OK, Text("its row can be used"))


@pytest.mark.looptime
async def test_a_source_that_hangs_is_given_up_and_closed(tmp_path: Path) -> None:
    source = Source(None)
    found = await check_setting("n1", setting_row("n1", "http://source.test/"), _bench(tmp_path, source))
    late = Text("it was not done within {seconds:.0f} s", seconds=SETTING_SECONDS)
    assert found == [_USABLE, Finding(Check.POLL, "n1", State.FAILED, late, Text("check how its source is doing"))]
    assert asyncio.get_running_loop().time() == pytest.approx(SETTING_SECONDS)
    assert source.is_closed


async def test_what_cannot_be_asked_for_is_told_and_closed(tmp_path: Path) -> None:
    error = SourceUnreadable(Text("PARAMETER is wrong"), reason=Reason.PARAMETER)
    source = Source(error)
    found = await check_setting("n1", setting_row("n1", "http://source.test/"), _bench(tmp_path, source))
    assert found == [
        _USABLE,
        Finding(Check.TEMPLATE, "n1", State.FAILED, Text("{error}", error=error)),
        Finding(Check.POLL, "n1", State.SKIPPED, Text("a poll and its events")),
    ]
    assert source.is_closed
