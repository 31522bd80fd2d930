"""The agent's metrics in the words of Prometheus, made anew at each scrape from what is known at that moment."""

import platform
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.process_collector import ProcessCollector

from ita_ag_oase.observability.health import Counts
from ita_ag_oase.observability.measures import Distribution
from ita_ag_oase.status import ElectionStatus, OutboxStatus, SourceState, SourceStatus, Status, StoreStatus

Labels = tuple[str, ...]
# The values of a metric's labels, and its value.
Sample = tuple[Labels, float | Distribution | None]


class Known(NamedTuple):
    """All that is known at the moment of a scrape."""

    status: Status
    counts: Counts


class Instrument(NamedTuple):
    """One metric. `samples` finds its values; those that are None are left out."""

    name: str
    kind: str
    labels: Labels
    help: str
    samples: Callable[[Known], Iterable[Sample]]


def exposition(known: Known, accept: str) -> tuple[bytes, str]:
    """Return all metrics in the format that fits an Accept header best, and the format's content type."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(known))
    ProcessCollector(registry=registry)
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


class _Collector:
    """What prometheus_client asks for metrics."""

    def __init__(self, known: Known) -> None:
        self._known = known

    def collect(self) -> Iterator[Metric]:
        for instrument in INSTRUMENTS:
            yield _family(instrument, self._known)


def _family(instrument: Instrument, known: Known) -> Metric:
    metric = Metric(instrument.name.removesuffix("_total"), instrument.help, instrument.kind)
    for values, value in instrument.samples(known):
        labels = dict(zip(instrument.labels, values, strict=True))
        for suffix, more_labels, number in _numbers(value):
            metric.add_sample(instrument.name + suffix, {**labels, **more_labels}, number)
    return metric


def _numbers(value: float | Distribution | None) -> Iterator[tuple[str, dict[str, str], float]]:
    """Return the numbers that make a value, each with what its name ends in and with further labels."""
    if isinstance(value, Distribution):
        bounds = [*map(str, value.bounds), "+Inf"]
        yield from (("_bucket", {"le": bound}, count) for bound, count in zip(bounds, value.counts, strict=True))
        yield "_count", {}, value.counts[-1]
        yield "_sum", {}, value.total
    elif value is not None:
        yield "", {}, value


def _only(value: Callable[[Known], float | Distribution | None]) -> Callable[[Known], Iterable[Sample]]:
    """Return the samples of a metric without labels."""
    return lambda known: [((), value(known))]


def _of_store(value: Callable[[StoreStatus], float | None]) -> Callable[[Known], Iterable[Sample]]:
    return _only(lambda known: value(known.status.store) if known.status.store else None)


def _of_election(value: Callable[[ElectionStatus], float]) -> Callable[[Known], Iterable[Sample]]:
    def samples(known: Known) -> Iterable[Sample]:
        election = known.status.election
        return [((election.lease,), value(election))] if election else []

    return samples


def _of_outbox(value: Callable[[OutboxStatus], float | None]) -> Callable[[Known], Iterable[Sample]]:
    return _only(lambda known: value(known.status.outbox) if known.status.outbox else None)


def _by_state(
    waiting: Callable[[OutboxStatus], int], parked: Callable[[OutboxStatus], int]
) -> Callable[[Known], Iterable[Sample]]:
    def samples(known: Known) -> Iterable[Sample]:
        outbox = known.status.outbox
        return [(("waiting",), waiting(outbox)), (("parked",), parked(outbox))] if outbox else []

    return samples


def _by_source(value: Callable[[SourceStatus], float | None]) -> Callable[[Known], Iterable[Sample]]:
    return lambda known: [((source.name,), value(source)) for source in known.status.sources]


def _is_up(source: SourceStatus) -> float | None:
    return None if source.state is SourceState.WAITING else source.state is SourceState.WORKING


def _polls(known: Known) -> Iterable[Sample]:
    for name, source in known.counts.sources.items():
        yield from (((name, outcome), count) for outcome, count in source.polls.items())


def _collected_events(known: Known) -> Iterable[Sample]:
    for name, source in known.counts.sources.items():
        yield from (((name, fate), count) for fate, count in source.events.items())


def _counted(counts: Callable[[Counts], Mapping[str, int]]) -> Callable[[Known], Iterable[Sample]]:
    return lambda known: [((value,), count) for value, count in counts(known.counts).items()]


def _build(known: Known) -> Iterable[Sample]:
    return [((known.status.version, platform.python_version()), 1)]


INSTRUMENTS = (
    Instrument("oase_agent_build_info", "gauge", ("version", "python"), "1, with the versions as labels.", _build),
    Instrument(
        "oase_agent_ready",
        "gauge",
        (),
        "1 while the agent is at work or stands by in an election, 0 while it starts, stops, or waits for its store.",
        _only(lambda known: known.status.is_ready),
    ),
    Instrument(
        "oase_agent_leader",
        "gauge",
        ("lease",),
        "1 while the agent leads, 0 while it stands by; absent without an election.",
        _of_election(lambda election: election.is_leader),
    ),
    Instrument(
        "oase_agent_lease_working",
        "gauge",
        ("lease",),
        "1 while the Lease can be read and written, else 0; absent without an election.",
        _of_election(lambda election: election.is_working),
    ),
    Instrument("oase_agent_polls_total", "counter", ("setting", "outcome"), "Polls that ended, by outcome.", _polls),
    Instrument(
        "oase_agent_poll_seconds_total",
        "counter",
        ("setting",),
        "Seconds that the polls of a source took together.",
        lambda known: [((name,), source.poll_seconds) for name, source in known.counts.sources.items()],
    ),
    Instrument(
        "oase_agent_poll_duration_seconds",
        "histogram",
        (),
        "How long polls took, those of all sources.",
        _only(lambda known: known.counts.poll_seconds),
    ),
    Instrument(
        "oase_agent_polls_skipped_total",
        "counter",
        ("setting",),
        "Turns to poll that were left out, since the one before took too long or failed.",
        lambda known: [((name,), source.skipped_polls) for name, source in known.counts.sources.items()],
    ),
    Instrument(
        "oase_agent_source_up",
        "gauge",
        ("setting",),
        "1 where the last poll succeeded, 0 where it failed or the setting cannot be used.",
        _by_source(_is_up),
    ),
    Instrument(
        "oase_agent_source_last_success_timestamp_seconds",
        "gauge",
        ("setting",),
        "When a poll succeeded last.",
        _by_source(lambda source: source.last_success),
    ),
    Instrument(
        "oase_agent_source_last_event_timestamp_seconds",
        "gauge",
        ("setting",),
        "When a poll brought a new event last.",
        _by_source(lambda source: source.last_event),
    ),
    Instrument(
        "oase_agent_source_lag_seconds",
        "gauge",
        ("setting",),
        "How long ago the time was up to which a source has been read.",
        _by_source(lambda source: source.lag_seconds),
    ),
    Instrument(
        "oase_agent_events_collected_total",
        "counter",
        ("setting", "fate"),
        "Events of polls: new, unusable (new, too), known, or repeated (unusable as in the poll before).",
        _collected_events,
    ),
    Instrument(
        "oase_agent_events_settled_total",
        "counter",
        ("fate",),
        "Events that left the queue: delivered, already_saved (by an earlier request), or parked.",
        _counted(lambda counts: counts.settled_events),
    ),
    Instrument(
        "oase_agent_outbox_groups",
        "gauge",
        ("state",),
        "Groups in the outbox: waiting or parked.",
        _by_state(lambda outbox: outbox.waiting_groups, lambda outbox: outbox.parked_groups),
    ),
    Instrument(
        "oase_agent_outbox_events",
        "gauge",
        ("state",),
        "Events in the outbox: waiting or parked.",
        _by_state(lambda outbox: outbox.waiting_events, lambda outbox: outbox.parked_events),
    ),
    Instrument(
        "oase_agent_outbox_bytes",
        "gauge",
        (),
        "Bytes that wait for delivery.",
        _of_outbox(lambda outbox: outbox.waiting_bytes),
    ),
    Instrument(
        "oase_agent_outbox_oldest_age_seconds",
        "gauge",
        (),
        "How long ago the oldest waiting event was collected, 0 where none waits.",
        _of_outbox(lambda outbox: outbox.oldest_age_seconds or 0.0),
    ),
    Instrument(
        "oase_agent_outbox_drain_seconds",
        "gauge",
        (),
        "How long what waits takes at the rate of the last minutes; absent where that is not known.",
        _of_outbox(lambda outbox: outbox.drain_seconds),
    ),
    Instrument(
        "oase_agent_deliveries_total",
        "counter",
        ("outcome",),
        "Requests with events to Exastro that ended, by outcome.",
        _counted(lambda counts: counts.requests),
    ),
    Instrument(
        "oase_agent_delivery_duration_seconds",
        "histogram",
        (),
        "How long requests with events took.",
        _only(lambda known: known.counts.request_seconds),
    ),
    Instrument(
        "oase_agent_delivery_size_bytes",
        "histogram",
        (),
        "How large requests with events were.",
        _only(lambda known: known.counts.request_bytes),
    ),
    Instrument(
        "oase_agent_messages_refused_total",
        "counter",
        ("code",),
        "Groups that were parked, by the code in Exastro's message; other where there is none.",
        _counted(lambda counts: counts.refused_codes),
    ),
    Instrument(
        "oase_agent_exastro_up",
        "gauge",
        (),
        "1 where Exastro answered last as it should, 0 where it could not be reached or refused the agent.",
        _only(lambda known: known.status.exastro.is_reachable),
    ),
    Instrument(
        "oase_agent_exastro_last_success_timestamp_seconds",
        "gauge",
        (),
        "When Exastro answered a request last as it should.",
        _only(lambda known: known.status.exastro.last_success),
    ),
    Instrument(
        "oase_agent_token_expiry_timestamp_seconds",
        "gauge",
        (),
        "When the access token ends; absent without one.",
        _only(lambda known: known.status.exastro.token_until),
    ),
    Instrument(
        "oase_agent_settings_refreshes_total",
        "counter",
        ("outcome",),
        "Fetches of the settings that ended, by outcome.",
        _counted(lambda counts: counts.settings_fetches),
    ),
    Instrument(
        "oase_agent_settings_last_refresh_timestamp_seconds",
        "gauge",
        (),
        "When the settings were fetched last.",
        _only(lambda known: known.status.exastro.settings_fetched),
    ),
    Instrument(
        "oase_agent_clock_difference_seconds",
        "gauge",
        (),
        "How far the agent's clock is ahead of Exastro's.",
        _only(lambda known: known.status.exastro.clock_difference_seconds),
    ),
    Instrument(
        "oase_agent_store_working",
        "gauge",
        (),
        "1 while the store does its work, 0 while it is full, locked, or fails.",
        _of_store(lambda store: store.is_working),
    ),
    Instrument(
        "oase_agent_store_used_bytes",
        "gauge",
        (),
        "Bytes of the store that hold something.",
        _of_store(lambda store: store.used_bytes),
    ),
    Instrument(
        "oase_agent_store_max_bytes",
        "gauge",
        (),
        "STORAGE_MAX_BYTES, above which polling pauses.",
        _of_store(lambda store: store.max_bytes),
    ),
    Instrument(
        "oase_agent_store_disk_free_bytes",
        "gauge",
        (),
        "Free bytes of the store's volume.",
        _of_store(lambda store: store.disk_free_bytes),
    ),
    Instrument(
        "oase_agent_ledger_imbalance_events",
        "gauge",
        (),
        "By how many events the ledgers do not balance: always 0, unless the agent has a defect or the disk a fault.",
        _only(lambda known: known.status.ledger_imbalance),
    ),
)
