"""`ita-ag-oase status`: how the agent is doing, by its own words where it runs, else by its store."""

import http.client
import operator
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec

from ita_ag_oase import __version__, clock
from ita_ag_oase.agent.overview import outbox_of, store_of
from ita_ag_oase.commands.console import Colour, Console
from ita_ag_oase.observability.verdict import SOURCE_STATES, Finding, Level, Place, Verdict, judge
from ita_ag_oase.observability.words import age, distance, size
from ita_ag_oase.settings import Settings
from ita_ag_oase.status import (
    ElectionStatus,
    ExastroStatus,
    OutboxStatus,
    Phase,
    SourceState,
    SourceStatus,
    Status,
    StoreStatus,
)
from ita_ag_oase.store.access import StoreAccess
from ita_ag_oase.store.database import StoreLock
from ita_ag_oase.store.figures import Figures
from ita_ag_oase.text import Text, counted, verbatim

# The agent itself waits up to three seconds for its store, and then answers without.
_ANSWER_SECONDS = 5.0
_ANSWER_BYTES = 16_777_216
# Where an agent that listens on all addresses can be asked.
_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - looked up, not listened on

_SHAPES: Mapping[Level, tuple[str, Colour]] = {
    Level.GOOD: ("●", Colour.GOOD),
    Level.WAITING: ("○", Colour.FAINT),
    Level.DOUBTFUL: ("▲", Colour.DOUBTFUL),
    Level.BAD: ("■", Colour.BAD),
}
_HEADINGS = (
    "",
    Text("source"),
    Text("state"),
    Text("last success"),
    Text("lag"),
    Text("waiting"),
    Text("parked"),
    Text("error"),
)
# Which of these, and of what the agent tells, a store tells by itself.
_OF_STORE = operator.itemgetter(1, 4, 5, 6)
_PARTS_OF_STORE = ("outbox", "store", "ledger_imbalance")
_FACTS_OF_STORE = ("name", "lag_seconds", "ledger")
_NOT_KNOWN = Text("not known")
_NOT_ASKED = ExastroStatus(
    url="",
    is_reachable=None,
    last_success=None,
    trouble=None,
    token_until=None,
    settings_fetched=None,
    clock_difference_seconds=None,
)


class Agent(StrEnum):
    """Whether the agent runs: silent is one that was not asked how it is doing, or did not answer."""

    RUNNING = "running"
    SILENT = "silent"
    STOPPED = "stopped"


def show(console: Console, path: Path, settings: Settings | None, *, as_json: bool) -> int:
    """Print how an agent is doing; return 1 where it does not run, or where something needs a person.

    Without `settings` only the store at `path` is looked at.
    """
    told = _ask(settings, path) if settings and settings.status_port else None
    agent = Agent.RUNNING if told else _agent_at(path)
    status = told or _by_store(path, settings)
    verdict = judge(status) if told else _verdict(agent, status, settings)
    if as_json:
        console.json(_facts(console, agent, status, verdict))
    else:
        _print(console, agent, status, verdict)
    return 1 if verdict.level >= Level.DOUBTFUL else 0


def _ask(settings: Settings, path: Path) -> Status | None:
    """Return what the agent tells of itself; None where nothing answers, or something else, or another agent."""
    host = _LOOPBACK.get(settings.status_address, settings.status_address)
    connection = http.client.HTTPConnection(host, settings.status_port, timeout=_ANSWER_SECONDS)
    try:
        connection.request("GET", "/status.json")
        status = msgspec.json.decode(_read(connection.getresponse()), type=Status, dec_hook=_as_text)
    except (OSError, http.client.HTTPException, msgspec.DecodeError, UnicodeDecodeError):
        return None
    finally:
        connection.close()
    is_other = status.store is not None and Path(status.store.path).resolve() != path.resolve()
    return None if is_other else status


def _read(response: http.client.HTTPResponse) -> bytes:
    """Return as much of an answer's body as comes in time and may be held; half of it is no JSON."""
    deadline = time.monotonic() + _ANSWER_SECONDS
    body = bytearray()
    while len(body) <= _ANSWER_BYTES and time.monotonic() < deadline and (part := response.read1(65_536)):
        body += part
    return bytes(body)


def _as_text(_: type, words: object) -> Text:
    return verbatim(str(words))


def _agent_at(path: Path) -> Agent:
    return Agent.SILENT if StoreLock(path).is_held() else Agent.STOPPED


def _by_store(path: Path, settings: Settings | None) -> Status:
    """Return what can be told without the agent; nothing of it is about Exastro."""
    now = clock.now()
    with StoreAccess(path) as store:
        figures = store.figures()
    return Status(
        version=__version__,
        agent=settings.agent_identity if settings else "",
        workspace=settings.exastro_workspace_id if settings else "",
        phase=Phase.RUNNING,
        is_ready=False,
        started=now,
        now=now,
        interval_seconds=float(settings.execute_interval) if settings else 0.0,
        sources=tuple(_source(name, figures, now) for name in sorted(figures.read_until)),
        exastro=_NOT_ASKED,
        outbox=outbox_of(figures, now, lambda _: None),
        store=store_of(figures, path, _most_bytes(settings)),
        ledger_imbalance=figures.imbalance,
    )


def _most_bytes(settings: Settings | None) -> int:
    return settings.storage_max_bytes if settings else Settings.storage_max_bytes


def _source(name: str, figures: Figures, now: float) -> SourceStatus:
    return SourceStatus(
        name=name,
        is_mail=False,
        state=SourceState.WAITING,
        lag_seconds=max(now - figures.read_until[name], 0.0),
        ledger=figures.ledgers.get(name),
    )


def _verdict(agent: Agent, status: Status, settings: Settings | None) -> Verdict:
    """Return the verdict on an agent that does not tell of itself."""
    if agent is Agent.STOPPED and status.outbox:
        # What waits does so for want of an agent.
        status = replace(status, outbox=replace(status.outbox, oldest_age_seconds=None))
    findings = judge(status).findings
    if agent is Agent.STOPPED:
        action = Text("Start it. Until then events wait where they are: in their sources, and in the outbox.")
        stopped = Finding(Place.AGENT, Level.BAD, Text("The agent does not run."), (action,))
        return Verdict(Level.BAD, Text("Stopped"), Text("This is what its store tells."), (stopped, *findings))
    if settings and settings.status_port:
        text = Text(
            "The agent runs, but does not tell how it is doing at port {port} of {address}.",
            port=settings.status_port,
            address=settings.status_address,
        )
        action = Text("Give this command the STATUS_ADDRESS and STATUS_PORT of the agent, whose log says if they fail.")
        findings = (Finding(Place.AGENT, Level.DOUBTFUL, text, (action,)), *findings)
    level = max((finding.level for finding in findings), default=Level.GOOD)
    return Verdict(level, Text("Running"), Text("This is what its store tells."), findings)


def _print(console: Console, agent: Agent, status: Status, verdict: Verdict) -> None:
    shape, colour = _SHAPES[verdict.level]
    console.say(Text("{shape} {word}: {text}", shape=shape, word=verdict.word, text=verdict.text), colour=colour)
    for finding in verdict.findings:
        _print_finding(console, finding)
    if status.sources:
        console.say()
        _print_sources(console, agent, status)
    # Its headings are the empty line before it.
    console.table(("", ""), list(_parts(agent, status)))


def _print_sources(console: Console, agent: Agent, status: Status) -> None:
    sources = sorted(status.sources, key=lambda source: source.name)
    rows = [_row(source, status.now) for source in sources]
    if agent is Agent.RUNNING:
        console.table(_HEADINGS, rows, [_SHAPES[SOURCE_STATES[source.state][0]][1] for source in sources])
    else:
        console.table(_OF_STORE(_HEADINGS), [_OF_STORE(row) for row in rows])


def _print_finding(console: Console, finding: Finding) -> None:
    shape, colour = _SHAPES[finding.level]
    text = finding.text
    if finding.names:
        text = Text("{text} {names}", text=text, names=", ".join(finding.names))
    console.say(Text("  {shape} {text}", shape=shape, text=text), colour=colour)
    for detail in finding.details:
        console.say(Text("    {detail}", detail=detail))


def _row(source: SourceStatus, now: float) -> tuple[Text | str | int, ...]:
    level, word = SOURCE_STATES[source.state]
    return (
        _SHAPES[level][0],
        source.name,
        word,
        _ago(source.last_success, now),
        "" if source.lag_seconds is None else age(source.lag_seconds),
        source.ledger.waiting if source.ledger else "",
        source.ledger.parked if source.ledger else "",
        source.trouble.detail if source.trouble and level is Level.BAD else "",
    )


def _ago(time_: float | None, now: float) -> Text | str:
    return "" if time_ is None else distance(min(time_ - now, 0.0))


def _parts(agent: Agent, status: Status) -> Iterator[tuple[Text, Text]]:
    if agent is Agent.RUNNING:
        yield Text("agent"), _agent_in_words(status)
        if status.election:
            yield Text("election"), _election_in_words(status.election, status.now)
        yield Text("Exastro"), _exastro_in_words(status.exastro, status.now)
    yield Text("outbox"), _outbox_in_words(status.outbox) if status.outbox else _NOT_KNOWN
    yield Text("store"), _store_in_words(status.store) if status.store else _NOT_KNOWN
    yield Text("ledger"), _ledger_in_words(status.ledger_imbalance)


def _agent_in_words(status: Status) -> Text:
    return Text(
        "{agent}, version {version}, started {distance}",
        agent=status.agent,
        version=status.version,
        distance=distance(status.started - status.now),
    )


def _election_in_words(election: ElectionStatus, now: float) -> Text:
    if election.is_leader:
        return Text(
            "this agent leads: it holds the Lease {lease}, term {term}", lease=election.lease, term=election.term
        )
    if election.holder is None:
        return Text("this agent stands by, and nobody is seen to hold the Lease {lease}", lease=election.lease)
    return Text(
        "this agent stands by; {holder} holds the Lease {lease}, as was seen first {distance}",
        holder=election.holder,
        lease=election.lease,
        distance=distance(min((election.since or now) - now, 0.0)),
    )


def _exastro_in_words(exastro: ExastroStatus, now: float) -> Text:
    if exastro.is_reachable is None:
        return Text("{url}: it has not answered yet", url=exastro.url)
    if not exastro.is_reachable:
        return Text("{url}: it cannot be reached, or refuses the agent", url=exastro.url)
    latest = distance(min((exastro.last_success or now) - now, 0.0))
    return Text("{url}: it answered {distance}", url=exastro.url, distance=latest)


def _outbox_in_words(outbox: OutboxStatus) -> Text:
    waiting = counted("{count:,} event waits", "{count:,} events wait", count=outbox.waiting_events)
    parked = counted("{count:,} is parked", "{count:,} are parked", count=outbox.parked_events)
    if outbox.oldest_age_seconds is None:
        return Text("{waiting}, {parked}", waiting=waiting, parked=parked)
    return Text(
        "{waiting} ({size}, the oldest for {age}), {parked}",
        waiting=waiting,
        size=size(outbox.waiting_bytes),
        age=age(outbox.oldest_age_seconds),
        parked=parked,
    )


def _store_in_words(store: StoreStatus) -> Text:
    return Text(
        "{used} of {limit} used, {free} free on the volume: {path}",
        used=size(store.used_bytes),
        limit=size(store.max_bytes),
        free=size(store.disk_free_bytes),
        path=store.path,
    )


def _ledger_in_words(imbalance: int | None) -> Text:
    if imbalance is None:
        return _NOT_KNOWN
    if imbalance == 0:
        return Text("it balances")
    return counted("it is out by {count:,} event", "it is out by {count:,} events", count=abs(imbalance))


def _facts(console: Console, agent: Agent, status: Status, verdict: Verdict) -> dict[str, Any]:
    """Return the parts of /status.json that are known, with the verdict."""
    known = msgspec.to_builtins(status, enc_hook=console.told)
    if agent is not Agent.RUNNING:
        sources = [{fact: source[fact] for fact in _FACTS_OF_STORE} for source in known["sources"]]
        known = {part: known[part] for part in _PARTS_OF_STORE} | {"sources": sources}
    findings = [_facts_of_finding(console, finding) for finding in verdict.findings]
    return {"state": agent, "level": str(verdict.level), "findings": findings, **known}


def _facts_of_finding(console: Console, finding: Finding) -> dict[str, Any]:
    return {
        "place": finding.place,
        "level": str(finding.level),
        "text": console.told(finding.text),
        "details": [console.told(detail) for detail in finding.details],
        "names": finding.names,
    }
