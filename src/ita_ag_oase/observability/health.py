"""How the agent is doing: collection, delivery and the agent tell it here, and who shows it asks here."""

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from ita_ag_oase import clock
from ita_ag_oase.errors import AgentError, ExastroRejected, Reason, StoreDamaged, StoreUnavailable
from ita_ag_oase.model import Batch, Saved, Settlement
from ita_ag_oase.observability.measures import Distribution, Histogram, Throughput
from ita_ag_oase.status import ElectionStatus, ExastroStatus, Phase, SourceState, SourceStatus, Trouble
from ita_ag_oase.text import Text, shorten

SUCCEEDED = "succeeded"
UNEXPECTED = "unexpected"
OTHER = "other"

_POLL_BOUNDS_SECONDS = (0.1, 0.5, 1.0, 5.0, 15.0, 60.0)
_REQUEST_BOUNDS_SECONDS = (0.1, 0.5, 1.0, 5.0, 30.0, 120.0)
_REQUEST_BOUNDS_BYTES = (1_000.0, 10_000.0, 100_000.0, 1_000_000.0, 10_000_000.0)
# Codes come from Exastro: more kinds than it has are not told apart.
_MOST_CODES = 50


@dataclass(frozen=True, slots=True)
class SourceCounts:
    """What was counted of one setting's source since it is known. `events` are by fate, `polls` by outcome."""

    polls: Mapping[str, int]
    poll_seconds: float
    skipped_polls: int
    events: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Counts:
    """What was counted since the process started, by setting or by outcome.

    An outcome is `succeeded`, one of errors.Reason, or `unexpected`.
    """

    sources: Mapping[str, SourceCounts]
    poll_seconds: Distribution
    requests: Mapping[str, int]
    request_seconds: Distribution
    request_bytes: Distribution
    settled_events: Mapping[str, int]
    refused_codes: Mapping[str, int]
    settings_fetches: Mapping[str, int]


class _Failure:
    """The failures in a row of one thing: those that last, or the last ones that were."""

    def __init__(self) -> None:
        self.trouble: Trouble | None = None
        self.is_present = False

    def note(self, code: str, reason: str, detail: Text, now: float) -> None:
        row = self.trouble if self.is_present else None
        self.trouble = Trouble(
            code=code,
            reason=reason,
            detail=detail,
            since=row.since if row else now,
            latest=now,
            failures=row.failures + 1 if row else 1,
        )
        self.is_present = True

    def note_error(self, err: Exception, code: str, now: float) -> None:
        self.note(code, reason_of(err), _detail(err), now)

    def end(self) -> None:
        self.is_present = False

    @property
    def latest(self) -> float:
        return self.trouble.latest if self.trouble else 0.0


class _Source:
    """What is known of one setting's source."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_mail = False
        self.state = SourceState.WAITING
        self.last_poll: float | None = None
        self.last_success: float | None = None
        self.last_event: float | None = None
        self.failure = _Failure()
        self.poll_began = 0.0
        # With a zero each, or rates would begin with the second time.
        self.polls = Counter({SUCCEEDED: 0})
        self.poll_seconds = 0.0
        self.skipped_polls = 0
        self.events = Counter(dict.fromkeys(("new", "unusable", "known", "repeated"), 0))

    @property
    def status(self) -> SourceStatus:
        return SourceStatus(
            name=self.name,
            is_mail=self.is_mail,
            state=self.state,
            last_poll=self.last_poll,
            last_success=self.last_success,
            last_event=self.last_event,
            trouble=self.failure.trouble,
            new_events=self.events["new"],
            known_events=self.events["known"],
            unusable_events=self.events["unusable"],
        )

    @property
    def counts(self) -> SourceCounts:
        return SourceCounts(dict(self.polls), self.poll_seconds, self.skipped_polls, dict(self.events))


class Health:
    """What happened so far, and how things stand. To be used in the event loop's thread alone.

    `now` tells epoch seconds, `elapsed` seconds that no setting of the time changes. What is told of a setting that is
    not known is passed over, so that nothing is kept of one that is gone.
    """

    def __init__(self, *, now: Callable[[], float] = clock.now, elapsed: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._elapsed = elapsed
        self.started = now()
        self.phase = Phase.STARTING
        self._sources: dict[str, _Source] = {}
        self._has_settings = False
        self._are_first_polls_done = False
        self._poll_seconds = Histogram(_POLL_BOUNDS_SECONDS)
        self._requests = Counter({SUCCEEDED: 0})
        self._request_seconds = Histogram(_REQUEST_BOUNDS_SECONDS)
        self._request_bytes = Histogram(_REQUEST_BOUNDS_BYTES)
        self._throughput = Throughput()
        self._settled_events = Counter(dict.fromkeys(("delivered", "already_saved", "parked"), 0))
        self._refused_codes: Counter[str] = Counter()
        self._settings_fetches = Counter({SUCCEEDED: 0})
        self._settings_fetched: float | None = None
        self._settings_failure = _Failure()
        self._delivery_failure = _Failure()
        self._store_failure = _Failure()
        self._exastro_success: float | None = None
        self._token_until: float | None = None
        self._clock_difference: float | None = None
        self._lease: str | None = None
        self._identity = ""
        self._holder: str | None = None
        self._holder_since: float | None = None
        self._term: int | None = None
        self._lease_failure = _Failure()

    def source_started(self, name: str, *, is_mail: bool) -> None:
        """Note that a setting can be used, and its source is polled from now on."""
        source = self._sources.setdefault(name, _Source(name))
        source.is_mail = is_mail
        if source.state is SourceState.UNUSABLE:
            source.failure.end()
            source.state = SourceState.WAITING

    def source_unusable(self, name: str, why: Text) -> None:
        """Note that a setting cannot be used, so that its source is not polled."""
        source = self._sources.setdefault(name, _Source(name))
        if source.state is not SourceState.UNUSABLE:
            source.failure.end()
        source.failure.note("AGT-10001", Reason.SETTING, why, self._now())
        source.state = SourceState.UNUSABLE

    def keep_sources(self, names: Collection[str]) -> None:
        """Note that these are all the settings there are: the others are gone."""
        self._has_settings = True
        for name in self._sources.keys() - set(names):
            del self._sources[name]
        self._note_first_polls()

    def poll_started(self, name: str) -> None:
        """Note that a source is asked."""
        if source := self._sources.get(name):
            source.last_poll = self._now()
            source.poll_began = self._elapsed()

    def poll_succeeded(self, name: str) -> None:
        """Note that a poll has ended well."""
        if source := self._sources.get(name):
            self._end_poll(source, SUCCEEDED)
            source.last_success = self._now()
            source.state = SourceState.WORKING
            source.failure.end()
            self._note_first_polls()

    def poll_failed(self, name: str, err: Exception, code: str) -> None:
        """Note that a poll has failed, and with which message code."""
        if _is_of_store(err):
            self.store_failed(err, code)
        if source := self._sources.get(name):
            self._end_poll(source, reason_of(err))
            source.state = SourceState.FAILING
            source.failure.note_error(err, code, self._now())
            self._note_first_polls()

    def polls_skipped(self, name: str, count: int) -> None:
        """Note that turns to poll were left out."""
        if source := self._sources.get(name):
            source.skipped_polls += count

    def _end_poll(self, source: _Source, outcome: str) -> None:
        seconds = self._elapsed() - source.poll_began
        source.polls[outcome] += 1
        source.poll_seconds += seconds
        self._poll_seconds.add(seconds)

    def _note_first_polls(self) -> None:
        self._are_first_polls_done = self._are_first_polls_done or self.unfinished_first_polls == 0

    def events_saved(self, name: str, saved: Saved, *, unusable: int) -> None:
        """Note what a poll brought, now that it is saved; `unusable` counts repeated ones, too."""
        self._store_failure.end()
        if source := self._sources.get(name):
            new_unusable = max(unusable - saved.repeated, 0)
            source.events.update(
                {
                    "new": saved.new - new_unusable,
                    "unusable": new_unusable,
                    "known": saved.known,
                    "repeated": saved.repeated,
                }
            )
            if saved.new:
                source.last_event = self._now()

    @contextmanager
    def posting(self, size_bytes: int) -> Iterator[None]:
        """Note a request to Exastro that is made inside, and how it ends; one that is cancelled does not count."""
        began = self._elapsed()
        try:
            yield
        except AgentError as err:
            self._end_request(reason_of(err), size_bytes, self._elapsed() - began)
            if isinstance(err, ExastroRejected):
                self._note_answer()
            raise
        self._end_request(SUCCEEDED, size_bytes, self._elapsed() - began)
        self._note_answer()

    def _end_request(self, outcome: str, size_bytes: int, seconds: float) -> None:
        self._requests[outcome] += 1
        self._request_seconds.add(seconds)
        self._request_bytes.add(size_bytes)
        self._throughput.add(0, seconds, now=self._elapsed())

    def batch_settled(self, batch: Batch, settlement: Settlement) -> None:
        """Note which groups Exastro has now."""
        for fate, numbers in (("delivered", settlement.saved), ("already_saved", settlement.already_saved)):
            events = sum(group.event_count for group in batch.groups if group.number in numbers)
            if events:
                self._settled_events[fate] += events
                self._throughput.add(events, 0.0, now=self._elapsed())

    def group_parked(self, event_count: int, code: str | None) -> None:
        """Note that a group was parked, and for which code in Exastro's message, if any."""
        self._settled_events["parked"] += event_count
        is_told_apart = code in self._refused_codes or len(self._refused_codes) < _MOST_CODES
        self._refused_codes[code if code and is_told_apart else OTHER] += 1

    def delivery_succeeded(self) -> None:
        """Note that a round of delivery has ended well."""
        self._delivery_failure.end()
        self.store_worked()

    def delivery_failed(self, err: Exception, code: str) -> None:
        """Note that a round of delivery has failed, and with which message code."""
        if _is_of_store(err):
            self.store_failed(err, code)
        else:
            self._delivery_failure.note_error(err, code, self._now())

    def settings_fetched(self) -> None:
        """Note that the settings were fetched."""
        self._settings_fetches[SUCCEEDED] += 1
        self._settings_fetched = self._now()
        self._settings_failure.end()
        self._note_answer()

    def settings_failed(self, err: Exception, code: str) -> None:
        """Note that the settings could not be fetched or applied, and with which message code."""
        self._settings_fetches[reason_of(err)] += 1
        if _is_of_store(err):
            self.store_failed(err, code)
        else:
            self._settings_failure.note_error(err, code, self._now())

    def token_renewed(self, until: float) -> None:
        """Note when the new access token ends, in epoch seconds."""
        self._token_until = until

    def clock_compared(self, difference_seconds: float) -> None:
        """Note how far the agent's clock is ahead of Exastro's."""
        self._clock_difference = difference_seconds

    def store_failed(self, err: Exception, code: str) -> None:
        """Note that the store does not do its work."""
        self._store_failure.note_error(err, code, self._now())

    def store_worked(self) -> None:
        """Note that the store did something else than saving a poll."""
        trouble = self._store_failure.trouble
        # Where it has no room for polls, the rest goes on.
        if trouble and trouble.reason != Reason.STORE_FULL:
            self._store_failure.end()

    def stand_by(self) -> None:
        """Note that the agent waits for its turn: nothing is known of sources, Exastro and store meanwhile."""
        self.phase = Phase.STANDBY
        self._sources.clear()
        self._has_settings = self._are_first_polls_done = False
        self._settings_failure, self._delivery_failure, self._store_failure = _Failure(), _Failure(), _Failure()
        self._exastro_success = self._settings_fetched = self._token_until = self._clock_difference = None

    def election_joined(self, lease: str, identity: str) -> None:
        """Note by which Lease, as `namespace/name`, and under which name the agent takes part in an election."""
        self._lease, self._identity = lease, identity

    def holder_seen(self, holder: str) -> None:
        """Note who is seen to hold the Lease from now on; empty for nobody."""
        self._holder, self._holder_since = holder or None, self._now()

    def term_begun(self, number: int) -> None:
        """Note that the agent leads."""
        self._term = number

    def term_ended(self) -> None:
        """Note that it does not any more."""
        self._term = None

    def lease_failed(self, err: Exception, code: str) -> None:
        """Note that the Lease cannot be read or written."""
        self._lease_failure.note_error(err, code, self._now())

    def lease_worked(self) -> None:
        """Note that it can."""
        self._lease_failure.end()

    @property
    def election(self) -> ElectionStatus | None:
        """The election as the agent knows it; None where it takes part in none."""
        if self._lease is None:
            return None
        return ElectionStatus(
            lease=self._lease,
            identity=self._identity,
            holder=self._holder,
            since=self._holder_since,
            term=self._term,
            trouble=self._lease_failure.trouble,
            is_working=not self._lease_failure.is_present,
        )

    def _note_answer(self) -> None:
        self._exastro_success = self._now()

    @property
    def unfinished_first_polls(self) -> int | None:
        """How many sources have not been polled to an end yet; None while the settings are not known."""
        if not self._has_settings:
            return None
        return sum(source.state is SourceState.WAITING for source in self._sources.values())

    @property
    def is_ready(self) -> bool:
        """Whether the agent is at work: it knows the settings, and each source was polled, well or not.

        A setting that comes later does not change that. One that stands by is as ready as it is meant to be.
        """
        return self.phase is Phase.STANDBY or (self.phase is Phase.RUNNING and self._are_first_polls_done)

    @property
    def sources(self) -> tuple[SourceStatus, ...]:
        """The known settings' sources by name, without what only the store knows."""
        return tuple(self._sources[name].status for name in sorted(self._sources))

    def exastro(self, url: str) -> ExastroStatus:
        """Return how Exastro is doing, which is at a URL."""
        # What lasts counts, whatever failed later and works again.
        failure = max(self._settings_failure, self._delivery_failure, key=lambda each: (each.is_present, each.latest))
        has_answered = self._exastro_success is not None
        return ExastroStatus(
            url=url,
            is_reachable=not failure.is_present if failure.trouble or has_answered else None,
            last_success=self._exastro_success,
            trouble=failure.trouble,
            token_until=self._token_until,
            settings_fetched=self._settings_fetched,
            clock_difference_seconds=self._clock_difference,
        )

    @property
    def store_trouble(self) -> Trouble | None:
        """What keeps the store from its work, or did last."""
        return self._store_failure.trouble

    @property
    def is_store_working(self) -> bool:
        """Whether that is over."""
        return not self._store_failure.is_present

    def drain_seconds(self, waiting_events: int) -> float | None:
        """Return how long so many events take at the rate of the last minutes; None where that is not known."""
        if not waiting_events:
            return 0.0
        rate = None if self._delivery_failure.is_present else self._throughput.per_second(now=self._elapsed())
        return waiting_events / rate if rate else None

    @property
    def counts(self) -> Counts:
        """What was counted so far."""
        return Counts(
            sources={name: source.counts for name, source in sorted(self._sources.items())},
            poll_seconds=self._poll_seconds.distribution,
            requests=dict(self._requests),
            request_seconds=self._request_seconds.distribution,
            request_bytes=self._request_bytes.distribution,
            settled_events=dict(self._settled_events),
            refused_codes=dict(self._refused_codes),
            settings_fetches=dict(self._settings_fetches),
        )


def reason_of(err: Exception) -> str:
    """Return why something failed: one of errors.Reason, or `unexpected`."""
    return str(err.reason) if isinstance(err, AgentError) else UNEXPECTED


def _is_of_store(err: Exception) -> bool:
    # A poll during which the clock was set comes again, and the store has nothing to do with it.
    return isinstance(err, StoreDamaged) or (isinstance(err, StoreUnavailable) and err.reason is not Reason.CLOCK)


def _detail(err: Exception) -> Text:
    if isinstance(err, AgentError):
        return err.text
    return Text(
        "an unexpected error: {error}; the log has more, report it as a defect of the agent",
        error=shorten(repr(err), 256),
    )
