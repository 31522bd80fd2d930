"""The metrics as Prometheus reads them."""

import gc
import tracemalloc
from collections.abc import Iterable, Mapping
from typing import Any

import pytest
from prometheus_client import parser
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics import parser as openmetrics_parser

from ita_ag_oase.errors import Reason, SourceUnavailable
from ita_ag_oase.model import Batch, Group, Saved, Settlement
from ita_ag_oase.observability.health import Health
from ita_ag_oase.observability.metrics import INSTRUMENTS, Instrument, Known, exposition
from ita_ag_oase.status import (
    ExastroStatus,
    OutboxStatus,
    Phase,
    SourceState,
    SourceStatus,
    Status,
    StoreStatus,
)
from ita_ag_oase.text import Text
from statuses import STATES

NAMES = ["alarms", 'with "quotes"', "back\\slash", "two\nlines", "{braces}=,", "日本語の設定", "🚨", " ", "\r\t", "\\n"]
TIMEOUT = SourceUnavailable(Text("no answer"), reason=Reason.TIMEOUT)

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


def _known(health: Health, **others: Any) -> Known:
    values: dict[str, Any] = {
        "version": "2.7.1",
        "agent": "agent",
        "workspace": "ws1",
        "phase": health.phase,
        "is_ready": health.is_ready,
        "started": 1_000.0,
        "now": 2_000.0,
        "interval_seconds": 5.0,
        "sources": health.sources,
        "exastro": health.exastro("http://exastro"),
        "outbox": None,
        "store": None,
        "ledger_imbalance": None,
    }
    return Known(Status(**{**values, **others}), health.counts)


def _families(known: Known) -> list[Metric]:
    body, content_type = exposition(known, "")
    assert content_type == "text/plain; version=0.0.4; charset=utf-8"
    return list(parser.text_string_to_metric_families(body.decode()))


def _open_families(known: Known) -> list[Metric]:
    body, content_type = exposition(known, "application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text; version=1.0.0; charset=utf-8")
    read: Any = openmetrics_parser.text_string_to_metric_families
    return list(read(body.decode()))


def _series(families: Iterable[Metric]) -> Series:
    """Return the agent's own series with labels, without buckets."""
    return {
        (sample.name.removeprefix("oase_agent_"), frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
        if sample.name.startswith("oase_agent_") and "le" not in sample.labels
    }


def _s(name: str, value: float, **labels: str) -> Mapping[tuple[str, frozenset[tuple[str, str]]], float]:
    return {(name, frozenset(labels.items())): value}


def _health() -> Health:
    time = iter(range(1_000, 2_000))
    health = Health(now=lambda: float(next(time)), elapsed=lambda: 0.0)
    health.phase = Phase.RUNNING
    health.source_started("alarms", is_mail=False)
    health.keep_sources(["alarms"])
    return health


def test_all_that_is_known_is_told_and_nothing_else() -> None:
    health = _health()
    health.poll_started("alarms")
    health.poll_failed("alarms", TIMEOUT, "AGT-10029")
    health.events_saved("alarms", Saved(new=5, known=3, repeated=1), unusable=2)
    health.polls_skipped("alarms", 4)
    with health.posting(2_000):
        pass
    group = Group(1, "id", "alarms", "agent", 1_000, 5, (b"{}",), was_offered=False)
    health.batch_settled(Batch((group,)), Settlement(saved=frozenset({1})))
    health.group_parked(7, "499-01827")
    health.settings_failed(TIMEOUT, "AGT-00004")
    source = SourceStatus(
        "alarms", False, SourceState.FAILING, last_success=1_700.5, last_event=1_600.0, lag_seconds=299.5
    )
    known = _known(
        health,
        sources=(source,),
        exastro=ExastroStatus("http://exastro", False, 1_900.0, None, 2_300.0, 1_950.0, -2.5),
        outbox=OutboxStatus(2, 30, 4_000, 60.5, 1, 7, 12.0),
        store=StoreStatus("/store", 5_000, 16_000_000, 90_000, None, is_working=False),
        ledger_imbalance=3,
    )
    build = next(labels for name, labels in _series(_families(known)) if name == "build_info")
    assert _series(_families(known)) == {
        ("build_info", build): 1.0,
        **_s("ready", 1),
        **_s("polls_total", 0, setting="alarms", outcome="succeeded"),
        **_s("polls_total", 1, setting="alarms", outcome="timeout"),
        **_s("poll_seconds_total", 0, setting="alarms"),
        **_s("poll_duration_seconds_count", 1),
        **_s("poll_duration_seconds_sum", 0),
        **_s("polls_skipped_total", 4, setting="alarms"),
        **_s("source_up", 0, setting="alarms"),
        **_s("source_last_success_timestamp_seconds", 1_700.5, setting="alarms"),
        **_s("source_last_event_timestamp_seconds", 1_600, setting="alarms"),
        **_s("source_lag_seconds", 299.5, setting="alarms"),
        **_s("events_collected_total", 4, setting="alarms", fate="new"),
        **_s("events_collected_total", 1, setting="alarms", fate="unusable"),
        **_s("events_collected_total", 3, setting="alarms", fate="known"),
        **_s("events_collected_total", 1, setting="alarms", fate="repeated"),
        **_s("events_settled_total", 5, fate="delivered"),
        **_s("events_settled_total", 0, fate="already_saved"),
        **_s("events_settled_total", 7, fate="parked"),
        **_s("outbox_groups", 2, state="waiting"),
        **_s("outbox_groups", 1, state="parked"),
        **_s("outbox_events", 30, state="waiting"),
        **_s("outbox_events", 7, state="parked"),
        **_s("outbox_bytes", 4_000),
        **_s("outbox_oldest_age_seconds", 60.5),
        **_s("outbox_drain_seconds", 12),
        **_s("deliveries_total", 1, outcome="succeeded"),
        **_s("delivery_duration_seconds_count", 1),
        **_s("delivery_duration_seconds_sum", 0),
        **_s("delivery_size_bytes_count", 1),
        **_s("delivery_size_bytes_sum", 2_000),
        **_s("messages_refused_total", 1, code="499-01827"),
        **_s("exastro_up", 0),
        **_s("exastro_last_success_timestamp_seconds", 1_900),
        **_s("token_expiry_timestamp_seconds", 2_300),
        **_s("settings_refreshes_total", 0, outcome="succeeded"),
        **_s("settings_refreshes_total", 1, outcome="timeout"),
        **_s("settings_last_refresh_timestamp_seconds", 1_950),
        **_s("clock_difference_seconds", -2.5),
        **_s("store_working", 0),
        **_s("store_used_bytes", 5_000),
        **_s("store_max_bytes", 16_000_000),
        **_s("store_disk_free_bytes", 90_000),
        **_s("ledger_imbalance_events", 3),
    }


def test_what_is_not_known_is_left_out() -> None:
    known = _known(Health())
    told = {name for name, _ in _series(_families(known))}
    assert {name for name in told if "_duration_" not in name and "_size_" not in name} == {
        "build_info",
        "ready",
        "events_settled_total",
        "deliveries_total",
        "settings_refreshes_total",
    }


def test_buckets_hold_what_is_at_most_so_much() -> None:
    health = _health()
    with health.posting(100_000):
        pass
    (family,) = [family for family in _families(_known(health)) if family.name == "oase_agent_delivery_size_bytes"]
    buckets = {sample.labels["le"]: sample.value for sample in family.samples if "le" in sample.labels}
    assert buckets == {"1000.0": 0, "10000.0": 0, "100000.0": 1, "1000000.0": 1, "10000000.0": 1, "+Inf": 1}


def test_the_process_tells_of_itself() -> None:
    names = {family.name for family in _families(_known(_health()))}
    assert {"process_cpu_seconds", "process_resident_memory_bytes", "process_open_fds"} <= names
    assert {name for name in names if name.startswith("python_")} == set()


def test_names_of_settings_may_hold_any_character() -> None:
    health = Health()
    for name in NAMES:
        health.source_started(name, is_mail=False)
    series = _series(_families(_known(health)))
    skipped = [dict(labels)["setting"] for name, labels in series if name == "polls_skipped_total"]
    assert sorted(skipped) == sorted(NAMES)


def test_openmetrics_is_spoken_where_it_is_asked_for() -> None:
    assert _series(_open_families(_known(_health()))) == _series(_families(_known(_health())))


@pytest.mark.parametrize("status", STATES.values(), ids=STATES)
def test_every_state_is_read_alike_in_both_formats(status: Status) -> None:
    known = Known(status, Health().counts)
    series = _series(_open_families(known))
    assert series == _series(_families(known))
    assert {labels for name, labels in series if name == "source_lag_seconds"} == {
        frozenset({("setting", source.name)}) for source in status.sources if source.lag_seconds is not None
    }


@pytest.mark.parametrize("instrument", INSTRUMENTS, ids=lambda instrument: instrument.name)
def test_a_counter_is_named_as_one_and_all_names_begin_alike(instrument: Instrument) -> None:
    is_named_as_counter = instrument.name.endswith("_total")
    assert (instrument.name.startswith("oase_agent_"), is_named_as_counter) == (True, instrument.kind == "counter")


def _rename_all(health: Health, round_: int) -> None:
    names = [f"setting {number} of round {round_}" for number in range(100)]
    for name in names:
        health.source_started(name, is_mail=False)
        health.poll_started(name)
        health.poll_failed(name, TIMEOUT, "AGT-10029")
        health.events_saved(name, Saved(new=1, known=1, repeated=0), unusable=1)
    health.keep_sources(names)


def _kept_bytes() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


def test_settings_that_come_and_go_leave_no_series_and_no_memory_behind() -> None:
    health = Health()
    _rename_all(health, 0)
    first = _series(_families(_known(health)))
    tracemalloc.start()
    try:
        _rename_all(health, 1)
        before = _kept_bytes()
        for round_ in range(2, 101):
            _rename_all(health, round_)
        grown = _kept_bytes() - before
    finally:
        tracemalloc.stop()
    last = _series(_families(_known(health)))
    named = {dict(labels)["setting"] for _, labels in last if "setting" in dict(labels)}
    assert (len(last), named) == (len(first), {f"setting {number} of round 100" for number in range(100)})
    # What a hundred settings take is more than that.
    assert grown < 50_000
