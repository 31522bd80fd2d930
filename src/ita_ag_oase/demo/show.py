"""The command `ita-ag-oase demo`: the real agent at work, and whether anything was lost or repeated."""

import asyncio
import contextlib
import shutil
import signal
import socket
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ita_ag_oase import clock
from ita_ag_oase.agent.lifecycle import Agent
from ita_ag_oase.commands.console import Console
from ita_ag_oase.demo.exastro import ORGANIZATION, REFRESH_TOKEN, WORKSPACE, DemoExastro, SavedEvent
from ita_ag_oase.demo.sources import AlertSource, DemoSource, FlakySource, MailSource, ProblemSource
from ita_ag_oase.environment import find_language
from ita_ag_oase.observability.logs import Redactor, configure
from ita_ag_oase.settings import Settings, wants_colours
from ita_ag_oase.text import Text, Told

# How long what was told may still take to arrive once the time is over.
_LAST_SECONDS = 10.0


def show(console: Console, *, seconds: float | None) -> int:
    """Run the demo for so many seconds, or until Ctrl-C; return 0 where nothing was lost or repeated, else 1."""
    redactor = console.redactor
    configure(
        level="WARNING",
        zone=None,
        redactor=redactor,
        translations=console.translations,
        is_readable=True,
        wants_colours=wants_colours(),
    )
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ita-ag-oase-demo-")))
        sources = [stack.enter_context(source) for source in _sources()]
        board = _Board(console, sources)
        exastro = stack.enter_context(DemoExastro([source.row for source in sources], on_saved=board.show))
        settings = _settings(exastro.url, folder, [source.name for source in sources])
        stack.callback(shutil.rmtree, settings.settings_file.parent, ignore_errors=True)
        board.introduce(exastro.url, settings.status_port)
        asyncio.run(_run(settings, redactor, exastro, sources, seconds))
        return board.conclude(exastro)


def _sources() -> tuple[DemoSource, ...]:
    return ProblemSource(1), AlertSource(2), FlakySource(3), MailSource(4)


def _settings(url: str, folder: Path, names: Sequence[str]) -> Settings:
    return Settings(
        exastro_url=url,
        exastro_organization_id=ORGANIZATION,
        exastro_workspace_id=WORKSPACE,
        exastro_refresh_token=REFRESH_TOKEN,
        event_collection_settings_names=tuple(names),
        agent_name=folder.name,
        agent_id="demo-agent",
        storagepath=folder,
        execute_interval=3,
        status_port=_free_port(),
        language=find_language(),
    )


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


async def _run(
    settings: Settings, redactor: Redactor, exastro: DemoExastro, sources: Sequence[DemoSource], seconds: float | None
) -> None:
    agent = Agent(settings, redactor)
    is_over = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, is_over.set)
    running = asyncio.create_task(agent.run(), name="agent")
    ending = asyncio.create_task(is_over.wait(), name="ending")
    await asyncio.wait([running, ending], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    for source in sources:
        source.freeze()
    for _ in range(int(_LAST_SECONDS * 10)):
        if running.done() or not _missing(exastro, sources):
            break
        await asyncio.sleep(0.1)
    agent.stop.set()
    ending.cancel()
    await running


def _missing(exastro: DemoExastro, sources: Sequence[DemoSource]) -> int:
    return sum(not exastro.counts[source.name, event_id] for source in sources for event_id in set(source.told))


class _Board:
    """What the person in front of the screen sees."""

    def __init__(self, console: Console, sources: Sequence[DemoSource]) -> None:
        self._console = console
        self._sources = {source.name: source for source in sources}

    def introduce(self, url: str, status_port: int) -> None:
        self._print(Text("Exastro listens on {url}; the agent polls these every 3 seconds:", url=url))
        for source in self._sources.values():
            self._print(f"  {source.name:<16} {source.url:<24} {self._console.told(source.purpose)}")
        self._print(Text("How the agent is doing: {url}", url=f"http://127.0.0.1:{status_port}/"))
        self._print(Text("What arrives at Exastro:"))

    def show(self, saved: Sequence[SavedEvent]) -> None:
        time = clock.local(clock.now(), None).strftime("%H:%M:%S")
        for event in saved:
            source = self._sources[event.setting_name]
            self._print(f"  {time} {source.name:<16} {self._console.told(source.describe(event.event))}")

    def conclude(self, exastro: DemoExastro) -> int:
        sources = list(self._sources.values())
        lost, repeated = _missing(exastro, sources), exastro.repeated
        heard = {name for name, _ in exastro.counts}
        self._print(
            Text(
                "delivered {events} events from {sources} sources, lost {lost}, repeated {repeated}",
                events=len(exastro.counts),
                sources=len(heard),
                lost=lost,
                repeated=repeated,
            )
        )
        return 1 if lost or repeated else 0

    def _print(self, line: Told | str) -> None:
        self._console.say(line)
        self._console.out.flush()
