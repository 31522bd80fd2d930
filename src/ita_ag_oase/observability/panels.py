"""What the status page shows, part by part, before it is laid out: words, figures and moments."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo

from ita_ag_oase import clock
from ita_ag_oase.model import Ledger
from ita_ag_oase.observability.verdict import SOURCE_STATES, Finding, Level, Place, lagging
from ita_ag_oase.observability.words import age, distance, size
from ita_ag_oase.status import (
    ElectionStatus,
    ExastroStatus,
    OutboxStatus,
    Phase,
    SourceStatus,
    Status,
    StoreStatus,
    Trouble,
)
from ita_ag_oase.text import Text, counted, verbatim

# Whatever two clocks differ by less may as well be the way between them.
_NOISE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Moment:
    """A time as a person reads it: how long ago, when by the clock, and for machines (ISO 8601)."""

    distance: Text
    time: str
    iso: str


@dataclass(frozen=True, slots=True)
class Failure:
    """What fails or, where it is not `is_present`, failed last. `course` tells for how long."""

    detail: Text
    course: Text
    latest: Moment | None
    code: str
    is_present: bool


@dataclass(frozen=True, slots=True)
class Count:
    """One of a source's figures. `level` is None where it says nothing about how things are."""

    name: Text
    figure: str
    level: Level | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """A source."""

    name: str
    level: Level
    word: Text
    is_mail: bool
    last_success: Moment | None
    last_event: Moment | None
    lag: Text | None
    counts: tuple[Count, ...]
    failure: Failure | None


@dataclass(frozen=True, slots=True)
class Fact:
    """A line of a panel: words or a moment, None where there is none."""

    name: Text
    value: Text | Moment | None


@dataclass(frozen=True, slots=True)
class Panel:
    """A part of the agent: how it is doing, in a word, and what is known about it.

    `share` is how much of something is used, between 0 and 1.
    """

    place: Place
    title: Text
    level: Level
    word: Text
    facts: tuple[Fact, ...] = ()
    hint: Text | None = None
    failure: Failure | None = None
    share: float | None = None


@dataclass(frozen=True, slots=True)
class Times:
    """The present, and the zone that times are told in; None is the system's."""

    now: float
    zone: tzinfo | None

    @property
    def present(self) -> datetime:
        """The present in the zone."""
        return clock.local(self.now, self.zone)

    def moment(self, seconds: float | None) -> Moment | None:
        """Return a time, with its date unless that is today's; None where there is none."""
        if seconds is None:
            return None
        try:
            then = clock.local(seconds, self.zone)
        except (ValueError, OverflowError, OSError):
            # Such as a token's end that a server made up: no year of the calendar.
            return None
        is_today = then.date() == self.present.date()
        return Moment(
            distance=distance(seconds - self.now),
            time=f"{then:%H:%M:%S}" if is_today else f"{then:%Y-%m-%d %H:%M}",
            iso=then.isoformat(timespec="seconds"),
        )


def rows(sources: Sequence[SourceStatus], times: Times) -> list[Row]:
    """Return the sources, those that fail first, by name."""
    ordered = sorted(sources, key=lambda source: (_ORDER[source.state], source.name))
    return [_row(source, times) for source in ordered]


def panels(status: Status, findings: Sequence[Finding], times: Times) -> tuple[Panel, ...]:
    """Return the parts of the agent, in the order of Place."""
    levels = {finding.place: finding.level for finding in sorted(findings, key=lambda finding: finding.level)}
    return (
        _sources(status, levels.get(Place.SOURCES, Level.GOOD)),
        _outbox(status.outbox, levels.get(Place.OUTBOX, Level.GOOD)),
        _exastro(status.exastro, levels.get(Place.EXASTRO, Level.GOOD), times),
        _store(status.store, levels.get(Place.STORE, Level.GOOD), times),
        _ledger(status, levels.get(Place.LEDGER, Level.GOOD)),
        _agent(status, levels.get(Place.AGENT, Level.GOOD), times),
    )


def _row(source: SourceStatus, times: Times) -> Row:
    level, word = SOURCE_STATES[source.state]
    return Row(
        name=source.name,
        level=level,
        word=word,
        is_mail=source.is_mail,
        last_success=times.moment(source.last_success),
        last_event=times.moment(source.last_event),
        lag=None if source.lag_seconds is None else age(source.lag_seconds),
        counts=(*_since_start(source), *_in_all(source.ledger)),
        failure=_failure(source.trouble, times, is_present=level is Level.BAD),
    )


def _since_start(source: SourceStatus) -> tuple[Count, ...]:
    return (
        Count(Text("New"), _figure(source.new_events)),
        Count(Text("Known"), _figure(source.known_events)),
        _warning(Text("Unusable"), source.unusable_events),
    )


def _in_all(ledger: Ledger | None) -> tuple[Count, ...]:
    names = Text("Delivered"), Text("Waiting"), Text("Parked")
    if ledger is None:
        return tuple(Count(name, "–") for name in names)
    delivered, waiting, parked = names
    return (
        Count(delivered, _figure(ledger.delivered + ledger.already_saved)),
        Count(waiting, _figure(ledger.waiting)),
        _warning(parked, ledger.parked),
    )


def _figure(count: int) -> str:
    return f"{count:,}"


def _warning(name: Text, count: int) -> Count:
    return Count(name, _figure(count), Level.DOUBTFUL if count else None)


def _failure(trouble: Trouble | None, times: Times, *, is_present: bool) -> Failure | None:
    if trouble is None:
        return None
    course = counted(
        "{count:,} failure within {age}",
        "{count:,} failures in a row within {age}",
        count=trouble.failures,
        age=age((times.now if is_present else trouble.latest) - trouble.since),
    )
    return Failure(trouble.detail, course, times.moment(trouble.latest), trouble.code, is_present=is_present)


def _sources(status: Status, level: Level) -> Panel:
    own, word = _sources_in_words([SOURCE_STATES[source.state][0] for source in status.sources], len(lagging(status)))
    return Panel(Place.SOURCES, Text("Sources"), max(own, level), word)


def _sources_in_words(levels: Sequence[Level], late: int) -> tuple[Level, Text]:
    total = len(levels)
    if not levels:
        return Level.WAITING, Text("none")
    if failing := levels.count(Level.BAD):
        text = counted("{count:,} of {total:,} fails", "{count:,} of {total:,} fail", count=failing, total=total)
        return Level.BAD, text
    if late:
        return Level.DOUBTFUL, counted(
            "{count:,} of {total:,} lags", "{count:,} of {total:,} lag", count=late, total=total
        )
    if waiting := levels.count(Level.WAITING):
        text = counted("{count:,} of {total:,} waits", "{count:,} of {total:,} wait", count=waiting, total=total)
        return Level.WAITING, text
    return Level.GOOD, counted("{count:,} works", "{count:,} work", count=total)


def _outbox(outbox: OutboxStatus | None, level: Level) -> Panel:
    title = Text("Outbox")
    if outbox is None:
        return Panel(Place.OUTBOX, title, max(level, Level.WAITING), Text("not known"))
    waiting = Text(
        "{amount}, {size}",
        amount=_amount(outbox.waiting_events, outbox.waiting_groups),
        size=size(outbox.waiting_bytes),
    )
    facts = (
        Fact(Text("Waiting"), waiting if outbox.waiting_groups else None),
        Fact(Text("Longest wait"), None if outbox.oldest_age_seconds is None else age(outbox.oldest_age_seconds)),
        Fact(Text("Delivery takes"), _drain(outbox) if outbox.waiting_groups else None),
        Fact(Text("Parked"), _amount(outbox.parked_events, outbox.parked_groups) if outbox.parked_groups else None),
    )
    hint = Text("`ita-ag-oase outbox` shows what is parked and why. It can send it again or drop it.")
    return Panel(Place.OUTBOX, title, level, _outbox_word(outbox), facts, hint if outbox.parked_groups else None)


def _outbox_word(outbox: OutboxStatus) -> Text:
    if outbox.parked_events:
        return counted("{count:,} parked", "{count:,} parked", count=outbox.parked_events)
    if outbox.waiting_events:
        return counted("{count:,} waiting", "{count:,} waiting", count=outbox.waiting_events)
    return Text("empty")


def _amount(events: int, groups: int) -> Text:
    return Text(
        "{events} in {groups}",
        events=counted("{count:,} event", "{count:,} events", count=events),
        groups=counted("{count:,} group", "{count:,} groups", count=groups),
    )


def _drain(outbox: OutboxStatus) -> Text:
    if outbox.drain_seconds is None:
        return Text("not known yet")
    return Text("about {age}, at the present rate", age=age(outbox.drain_seconds))


def _exastro(exastro: ExastroStatus, level: Level, times: Times) -> Panel:
    own, word = _REACHABLE[exastro.is_reachable]
    facts = (
        Fact(Text("Address"), verbatim(exastro.url)),
        Fact(Text("Last answer"), times.moment(exastro.last_success)),
        Fact(Text("Settings fetched"), times.moment(exastro.settings_fetched)),
        Fact(Text("Access token ends"), times.moment(exastro.token_until)),
        Fact(Text("Agent's clock"), _clock(exastro.clock_difference_seconds)),
    )
    failure = _failure(exastro.trouble, times, is_present=exastro.is_reachable is False)
    return Panel(Place.EXASTRO, Text("Exastro"), max(own, level), word, facts, failure=failure)


def _clock(difference: float | None) -> Text:
    if difference is None:
        return Text("not compared yet")
    if abs(difference) < _NOISE_SECONDS:
        return Text("agrees with Exastro's")
    if difference > 0:
        return Text("{age} ahead of Exastro's", age=age(difference))
    return Text("{age} behind Exastro's", age=age(-difference))


def _store(store: StoreStatus | None, level: Level, times: Times) -> Panel:
    title = Text("Store")
    if store is None:
        return Panel(Place.STORE, title, max(level, Level.WAITING), Text("not open"))
    share = store.used_bytes / store.max_bytes
    used = Text("{used} of {limit}", used=size(store.used_bytes), limit=size(store.max_bytes))
    facts = (
        Fact(Text("Used"), used),
        Fact(Text("Free on the volume"), verbatim(size(store.disk_free_bytes))),
        Fact(Text("File"), verbatim(store.path)),
    )
    word = Text("{share:.0%} used", share=share) if store.is_working else Text("not working")
    failure = _failure(store.trouble, times, is_present=not store.is_working)
    return Panel(Place.STORE, title, level, word, facts, failure=failure, share=min(share, 1.0))


def _ledger(status: Status, level: Level) -> Panel:
    title = Text("Ledger")
    imbalance = status.ledger_imbalance
    if imbalance is None:
        return Panel(Place.LEDGER, title, Level.WAITING, Text("not known"))
    ledgers = [source.ledger for source in status.sources if source.ledger]
    facts = (
        Fact(Text("Collected"), _sum(ledger.new for ledger in ledgers)),
        Fact(Text("Delivered"), _sum(ledger.delivered + ledger.already_saved for ledger in ledgers)),
        Fact(Text("Dropped by a person"), _sum(ledger.dropped for ledger in ledgers)),
        Fact(Text("Lost with a damaged store"), _sum(ledger.lost for ledger in ledgers)),
    )
    word = counted("off by {count:,}", "off by {count:,}", count=abs(imbalance)) if imbalance else Text("balances")
    return Panel(Place.LEDGER, title, level, word, facts)


def _sum(counts: Iterable[int]) -> Text:
    return verbatim(_figure(sum(counts)))


def _agent(status: Status, level: Level, times: Times) -> Panel:
    facts = (
        Fact(Text("Name"), verbatim(status.agent)),
        Fact(Text("Workspace"), verbatim(status.workspace)),
        Fact(Text("Version"), verbatim(status.version)),
        Fact(Text("Started"), times.moment(status.started)),
        Fact(Text("Polls every"), age(status.interval_seconds)),
        *_election(status.election, times),
    )
    own, word = _PHASES[status.phase]
    failure = _lease_failure(status.election, times)
    return Panel(Place.AGENT, Text("Agent"), max(own, level), word, facts, failure=failure)


def _election(election: ElectionStatus | None, times: Times) -> tuple[Fact, ...]:
    if election is None:
        return ()
    role = Text("leads, term {term}", term=election.term) if election.is_leader else Text("stands by")
    return (
        Fact(Text("Lease"), verbatim(election.lease)),
        Fact(Text("In the election"), Text("{identity}: {role}", identity=election.identity, role=role)),
        Fact(Text("Leader"), verbatim(election.holder) if election.holder else None),
        Fact(Text("Seen since"), times.moment(election.since) if election.holder else None),
    )


def _lease_failure(election: ElectionStatus | None, times: Times) -> Failure | None:
    if election is None or election.is_working:
        return None
    return _failure(election.trouble, times, is_present=True)


_PHASES = {
    Phase.STARTING: (Level.WAITING, Text("starting")),
    Phase.STANDBY: (Level.WAITING, Text("standing by")),
    Phase.WAITING_FOR_STORE: (Level.WAITING, Text("waiting for the store")),
    Phase.RUNNING: (Level.GOOD, Text("running")),
    Phase.STOPPING: (Level.WAITING, Text("stopping")),
}
_ORDER = {state: place for place, state in enumerate(SOURCE_STATES)}
_REACHABLE = {
    None: (Level.WAITING, Text("not asked yet")),
    True: (Level.GOOD, Text("reachable")),
    False: (Level.BAD, Text("not reachable")),
}
