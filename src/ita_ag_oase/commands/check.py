"""`ita-ag-oase check`: whether an agent with this configuration could do its work. It sends no event, saves nothing."""

import asyncio
import sys
from collections.abc import Sequence

from ita_ag_oase import clock
from ita_ag_oase.agent.connections import exastro_tls, open_sources, source_tls
from ita_ag_oase.agent.roster import Row
from ita_ag_oase.commands.console import Console
from ita_ag_oase.commands.election_check import check_election
from ita_ag_oase.commands.exastro_check import ExastroCheck
from ita_ag_oase.commands.findings import Check, Finding, Report, State
from ita_ag_oase.commands.kept import Kept
from ita_ag_oase.commands.source_check import Workbench, check_setting
from ita_ag_oase.commands.store_check import check_store
from ita_ag_oase.environment import load
from ita_ag_oase.errors import AgentError, ConfigError
from ita_ag_oase.exastro import wire
from ita_ag_oase.exastro.secrets import SecretColumns
from ita_ag_oase.observability.logs import configure
from ita_ag_oase.settings import RANGES, Settings
from ita_ag_oase.text import Text

# All of Exastro is looked at within this time.
_EXASTRO_SECONDS = 20.0
# Settings are checked side by side, so many at once, and all of them within this time.
_SETTINGS_AT_ONCE = 8
_SETTINGS_SECONDS = 40.0


def check(console: Console, names: Sequence[str], *, as_json: bool) -> int:
    """Print what is found; return 1 where something has failed, else 0. Without names, all settings are looked at."""
    report = Report(console, as_json=as_json)
    configure(level="ERROR", zone=None, redactor=console.redactor, stream=sys.stderr)
    settings = _load(report, console)
    if settings is None:
        for check_, message in ((Check.STORE, Text("the store")), (Check.RIGHTS, Text("Exastro and the settings"))):
            report.add(Finding(check_, Text("the rest"), State.SKIPPED, message))
        return report.finish()
    asyncio.run(_check(settings, report, console, names))
    return report.finish()


def _load(report: Report, console: Console) -> Settings | None:
    """Report on the configuration and return it; None where it has mistakes."""
    try:
        settings = load()
        for secret in settings.secrets:
            console.redactor.add(secret)
        # A CA file is read here for the first time.
        exastro_tls(settings)
        source_tls(settings)
    except ConfigError as err:
        for variable, what_to_do in err.problems:
            report.add(Finding(Check.CONFIGURATION, variable, State.FAILED, Text("{problem}", problem=what_to_do)))
        return None
    _report_adjustments(settings, report)
    names = ", ".join(settings.event_collection_settings_names)
    message = Text("it can be used; the settings are {names}", names=names)
    report.add(Finding(Check.CONFIGURATION, Text("configuration"), State.OK, message))
    return settings


def _report_adjustments(settings: Settings, report: Report) -> None:
    for variable, given, used in settings.adjustments:
        smallest, greatest = RANGES[variable.lower()]
        message = Text("{given} is out of range, {used} is used", given=given, used=used)
        action = Text("write a number from {smallest} to {greatest}", smallest=smallest, greatest=greatest)
        report.add(Finding(Check.CONFIGURATION, variable, State.WARNING, message, action))
    if clock.is_unknown_zone(settings.tz):
        message = Text("{given!r} is no time zone that is known, the system's is used", given=settings.tz)
        action = Text("write one such as Asia/Tokyo")
        report.add(Finding(Check.CONFIGURATION, "TZ", State.WARNING, message, action))


async def _check(settings: Settings, report: Report, console: Console, names: Sequence[str]) -> None:
    # In a thread, since a volume on a network may let it wait.
    report.add(*await asyncio.to_thread(lambda: list(check_store(settings))))
    if settings.has_election:
        report.add(await check_election(settings))
    kept = Kept(settings.store_path)
    wanted: Sequence[str] = tuple(dict.fromkeys(names)) or settings.event_collection_settings_names
    exastro = ExastroCheck(settings, kept, report, console.redactor.add)
    rows = await _fetch_rows(exastro, report, wanted)
    if rows is None:
        rows = _known(kept, report)
        wanted = _among(rows, wanted, report)
    by_name = {wire.name_of(row): row for row in rows}
    await _check_settings(settings, report, console, wanted, by_name)
    exastro.report_clock()


async def _fetch_rows(exastro: ExastroCheck, report: Report, names: Sequence[str]) -> Sequence[Row] | None:
    try:
        async with asyncio.timeout(_EXASTRO_SECONDS):
            return await exastro.fetch_rows(names)
    except TimeoutError:
        message = Text("it was not done within {seconds:.0f} s", seconds=_EXASTRO_SECONDS)
        action = Text("check how Exastro and what lies before it are doing")
        report.add(Finding(Check.RIGHTS, "Exastro", State.FAILED, message, action))
        return None


def _known(kept: Kept, report: Report) -> Sequence[Row]:
    """Return the rows that Exastro told last, to go on with."""
    try:
        rows = kept.rows()
    except AgentError:
        # The store is told of elsewhere.
        rows = []
    if rows:
        message = Text("they cannot be fetched now: those that Exastro told last are looked at")
        report.add(Finding(Check.SETTING, Text("settings"), State.WARNING, message))
    return rows


def _among(rows: Sequence[Row], names: Sequence[str], report: Report) -> Sequence[str]:
    """Return the names of settings whose rows there are, having told of the others."""
    there = {wire.name_of(row) for row in rows}
    for name in names:
        if name not in there:
            report.add(Finding(Check.SETTING, name, State.SKIPPED, Text("the setting and its source")))
    return [name for name in names if name in there]


async def _check_settings(
    settings: Settings, report: Report, console: Console, names: Sequence[str], rows: dict[str, Row]
) -> None:
    slots = asyncio.Semaphore(_SETTINGS_AT_ONCE)
    async with open_sources(settings) as make_source:
        bench = Workbench(
            make_source=make_source,
            secrets=SecretColumns(settings.exastro_organization_id, settings.exastro_workspace_id),
            kept=Kept(settings.store_path),
            tls=source_tls(settings),
            agent_name=settings.agent_identity,
            on_secret=console.redactor.add,
        )

        async def check_one(name: str) -> list[Finding]:
            async with slots:
                return await check_setting(name, rows.get(name), bench)

        tasks = {name: asyncio.create_task(check_one(name), name=f"check {name}") for name in names}
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _SETTINGS_SECONDS
        for name, task in tasks.items():
            await asyncio.wait([task], timeout=max(deadline - loop.time(), 0.0))
            if name not in settings.event_collection_settings_names:
                report.add(_not_collected(name))
            report.add(*(task.result() if task.done() else [_out_of_time(name)]))
        await _end([task for task in tasks.values() if not task.done()])


async def _end(tasks: Sequence[asyncio.Task[list[Finding]]]) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)


def _not_collected(name: str) -> Finding:
    message = Text("the agent does not collect it")
    action = Text("add it to EVENT_COLLECTION_SETTINGS_NAMES")
    return Finding(Check.CONFIGURATION, name, State.WARNING, message, action)


def _out_of_time(name: str) -> Finding:
    message = Text("the time of all settings was over: check it alone")
    return Finding(Check.SETTING, name, State.SKIPPED, message)
