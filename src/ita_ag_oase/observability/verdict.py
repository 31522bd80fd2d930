"""Whether all is well with an agent and, where it is not, what is wrong and what to do about it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum

from ita_ag_oase.observability.words import age, size
from ita_ag_oase.status import Phase, SourceState, SourceStatus, Status, StoreStatus
from ita_ag_oase.text import Text, counted

# A burst of events, or an update of Exastro, may well take some minutes.
_OLD_SECONDS = 600.0
# Of sources that are polled more rarely, so many turns may pass instead.
_LAG_SECONDS, _LAG_TURNS = 900.0, 3
# The agent itself speaks of a difference from here on (agent/timekeeper.py).
_CLOCK_SECONDS = 60.0
_NEARLY_FULL = 0.9


class Level(IntEnum):
    """How bad it is, the worst last."""

    GOOD = 0
    WAITING = 1
    DOUBTFUL = 2
    BAD = 3

    def __str__(self) -> str:
        """Return it as style sheets and programs know it."""
        return self.name.lower()


# In the order in which sources are listed, and what they are said to be.
SOURCE_STATES: Mapping[SourceState, tuple[Level, Text]] = {
    SourceState.FAILING: (Level.BAD, Text("failing")),
    SourceState.UNUSABLE: (Level.BAD, Text("unusable")),
    SourceState.WAITING: (Level.WAITING, Text("pending")),
    SourceState.WORKING: (Level.GOOD, Text("working")),
}


class Place(StrEnum):
    """The parts of an agent that can be well or not."""

    SOURCES = "sources"
    OUTBOX = "outbox"
    EXASTRO = "exastro"
    STORE = "store"
    LEDGER = "ledger"
    AGENT = "agent"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong: in one sentence, and what is known about it or can be done.

    `names` are the sources that it is about.
    """

    place: Place
    level: Level
    text: Text
    details: tuple[Text, ...] = ()
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether all is well, in a word and a sentence, and everything that is wrong, the worst first."""

    level: Level
    word: Text
    text: Text
    findings: tuple[Finding, ...]


def judge(status: Status) -> Verdict:
    """Return the verdict on an agent."""
    found = [
        *_of_sources(status),
        *_of_exastro(status),
        *_of_store(status),
        *_of_outbox(status),
        *_of_ledger(status),
        *_of_election(status),
    ]
    findings = tuple(sorted(found, key=lambda finding: -finding.level))
    worst = max((finding.level for finding in findings), default=Level.GOOD)
    if worst is Level.BAD:
        return Verdict(worst, Text("Failing"), Text("Something fails and needs attention."), findings)
    if status.phase is not Phase.RUNNING or not status.is_ready:
        return Verdict(max(worst, Level.WAITING), *_before_and_after(status), findings)
    if worst is Level.DOUBTFUL:
        text = Text("The agent works, but something needs attention.")
        return Verdict(worst, Text("Attention"), text, findings)
    text = counted(
        "All is well: the source works, and its events reach Exastro.",
        "All is well: all {count:,} sources work, and their events reach Exastro.",
        count=len(status.sources),
    )
    return Verdict(Level.GOOD, Text("Working"), text, ())


def _before_and_after(status: Status) -> tuple[Text, Text]:
    """Return a word and a sentence for an agent that does not do all of its work."""
    if status.phase is Phase.STOPPING:
        return Text("Stopping"), Text("The agent is shutting down.")
    if status.phase is Phase.STANDBY:
        return Text("Standing by"), _who_leads(status)
    if status.phase is Phase.WAITING_FOR_STORE:
        return Text("Standing by"), Text("Another agent uses the store. This one starts when that one has ended.")
    return Text("Starting"), Text("The agent is starting: not every source has been polled yet.")


def _who_leads(status: Status) -> Text:
    holder = status.election.holder if status.election else None
    if holder is None:
        return Text("This agent works once it leads. None is seen to lead now.")
    return Text("{holder} leads. This agent takes over when that one has ended.", holder=holder)


def _of_sources(status: Status) -> Iterator[Finding]:
    if status.phase is Phase.RUNNING and status.is_ready and not status.sources:
        text = Text("No source is polled.")
        action = Text("Name settings in EVENT_COLLECTION_SETTINGS_NAMES that Exastro has and that are not discarded.")
        yield Finding(Place.SOURCES, Level.BAD, text, (action,))
    total = len(status.sources)
    if unusable := _in_state(status.sources, SourceState.UNUSABLE):
        text = counted(
            "{count:,} of {total:,} settings cannot be used:",
            "{count:,} of {total:,} settings cannot be used:",
            count=len(unusable),
            total=total,
        )
        yield _of_some(unusable, text)
    if failing := _in_state(status.sources, SourceState.FAILING):
        text = counted(
            "{count:,} of {total:,} sources fails:",
            "{count:,} of {total:,} sources fail:",
            count=len(failing),
            total=total,
        )
        yield _of_some(failing, text)
    if late := lagging(status):
        text = counted(
            "{count:,} of {total:,} sources lags behind:",
            "{count:,} of {total:,} sources lag behind:",
            count=len(late),
            total=total,
        )
        action = Text(
            "Polls do not fail, and yet come no further: they take very long, or the answers lack what RESPONSE_KEY "
            "names. `ita-ag-oase check` tells which."
        )
        yield Finding(Place.SOURCES, Level.DOUBTFUL, text, (action,), tuple(source.name for source in late))


def lagging(status: Status) -> list[SourceStatus]:
    """Return the sources, by name, whose polls do not fail, and that have not been read up to a recent time."""
    most = max(_LAG_SECONDS, _LAG_TURNS * status.interval_seconds)
    working = _in_state(status.sources, SourceState.WORKING)
    return [source for source in working if source.lag_seconds is not None and source.lag_seconds >= most]


def _in_state(sources: Iterable[SourceStatus], state: SourceState) -> list[SourceStatus]:
    return sorted((source for source in sources if source.state is state), key=lambda source: source.name)


def _of_some(sources: Sequence[SourceStatus], text: Text) -> Finding:
    """Return a finding about sources. What one of them says is told here, too; of several it would be too much."""
    troubles = [source.trouble.detail for source in sources if source.trouble]
    names = tuple(source.name for source in sources)
    return Finding(Place.SOURCES, Level.BAD, text, tuple(troubles) if len(sources) == 1 else (), names)


def _of_exastro(status: Status) -> Iterator[Finding]:
    exastro = status.exastro
    if exastro.is_reachable is False:
        details = (exastro.trouble.detail,) if exastro.trouble else ()
        yield Finding(Place.EXASTRO, Level.BAD, Text("Exastro cannot be reached, or refuses the agent."), details)
    difference = exastro.clock_difference_seconds or 0.0
    if abs(difference) >= _CLOCK_SECONDS:
        ahead = Text("The agent's clock is {age} ahead of Exastro's.", age=age(difference))
        behind = Text("The agent's clock is {age} behind Exastro's.", age=age(-difference))
        action = Text("Have both machines set their clocks by the same time servers.")
        yield Finding(Place.EXASTRO, Level.DOUBTFUL, ahead if difference > 0 else behind, (action,))


def _of_store(status: Status) -> Iterator[Finding]:
    store = status.store
    if store is None:
        if status.phase is Phase.RUNNING:
            action = Text("The log says why; `ita-ag-oase verify` checks all of it.")
            yield Finding(Place.STORE, Level.BAD, Text("The store cannot be read."), (action,))
    elif not store.is_working:
        details = (store.trouble.detail,) if store.trouble else ()
        yield Finding(Place.STORE, Level.BAD, Text("The store does not work. Polling pauses."), details)
    elif full := _nearly_full(store):
        yield full


def _nearly_full(store: StoreStatus) -> Finding | None:
    """Return a warning where there is little room: at the limit, polling pauses."""
    if store.used_bytes >= _NEARLY_FULL * store.max_bytes:
        text = Text(
            "The store is nearly full: {used} of {limit}.", used=size(store.used_bytes), limit=size(store.max_bytes)
        )
        action = Text("Have events delivered or dropped, or raise STORAGE_MAX_BYTES: when it is full, polling pauses.")
        return Finding(Place.STORE, Level.DOUBTFUL, text, (action,))
    if store.disk_free_bytes < (1 - _NEARLY_FULL) * store.max_bytes:
        text = Text("The store's volume is nearly full: {free} free.", free=size(store.disk_free_bytes))
        action = Text("Make room on the volume: when it is full, polling pauses.")
        return Finding(Place.STORE, Level.DOUBTFUL, text, (action,))
    return None


def _of_outbox(status: Status) -> Iterator[Finding]:
    outbox = status.outbox
    if outbox is None:
        return
    if outbox.parked_events:
        text = counted(
            "{count:,} event is parked and does not reach Exastro.",
            "{count:,} events are parked and do not reach Exastro.",
            count=outbox.parked_events,
        )
        action = Text(
            "`ita-ag-oase outbox` shows them with the reasons. Once the cause is mended, it has them sent again."
        )
        yield Finding(Place.OUTBOX, Level.DOUBTFUL, text, (action,))
    waited = outbox.oldest_age_seconds or 0.0
    if waited >= _OLD_SECONDS:
        text = Text("Events have been waiting for delivery for {age}.", age=age(waited))
        away = Text("They are kept, and delivered once Exastro can be reached.")
        slow = Text("Exastro takes them more slowly than they come, or answers with errors: the log tells which.")
        detail = away if status.exastro.is_reachable is False else slow
        yield Finding(Place.OUTBOX, Level.DOUBTFUL, text, (detail,))


def _of_ledger(status: Status) -> Iterator[Finding]:
    if status.ledger_imbalance:
        text = counted(
            "The ledger does not balance: what became of {count:,} event is not known.",
            "The ledger does not balance: what became of {count:,} events is not known.",
            count=abs(status.ledger_imbalance),
        )
        action = Text("`ita-ag-oase verify` tells of which setting. Keep a copy of the store, and report it.")
        yield Finding(Place.LEDGER, Level.BAD, text, (action,))


def _of_election(status: Status) -> Iterator[Finding]:
    election = status.election
    if election is None or election.is_working:
        return
    details = (election.trouble.detail,) if election.trouble else ()
    if election.is_leader:
        text = Text("The Lease cannot be renewed: this agent stops working soon.")
        yield Finding(Place.AGENT, Level.DOUBTFUL, text, details)
    else:
        text = Text("The Lease cannot be read or written: this agent cannot take over.")
        yield Finding(Place.AGENT, Level.BAD, text, details)
