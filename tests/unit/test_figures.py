"""A store in figures."""

import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from exactly_once import Bench, usable
from ita_ag_oase.model import Ledger
from ita_ag_oase.store.access import StoreAccess
from ita_ag_oase.store.figures import Amount, Figures

START = 1_700_000_000
EMPTY = Ledger("n2", 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with Bench(tmp_path) as bench:
        yield bench


def _figures(bench: Bench) -> Figures:
    """Return the figures without those that are the disk's own."""
    with StoreAccess(bench._path) as store:
        figures = store.figures()
    assert 0 < figures.used_bytes < figures.disk_free_bytes
    return dataclasses.replace(figures, used_bytes=0, disk_free_bytes=0)


async def test_a_store_that_is_new_holds_nothing(bench: Bench) -> None:
    nothing = Amount(groups=0, events=0, bytes=0, oldest=None)
    assert _figures(bench) == Figures(
        waiting=nothing,
        parked=nothing,
        ledgers={"n1": dataclasses.replace(EMPTY, setting_name="n1"), "n2": EMPTY},
        read_until={"n1": START, "n2": START},
        imbalance=0,
        used_bytes=0,
        disk_free_bytes=0,
    )


async def test_what_waits_and_what_is_parked_is_told_apart(bench: Bench) -> None:
    bench.exastro.refuses = lambda event: event["id"] == 2
    await bench.poll("n1", [usable(1), usable(2)])
    await bench.deliver_all()
    for later, name in ((10, "n1"), (20, "n2")):
        bench.now = START + later
        await bench.poll(name, [usable("x"), usable("y")])
    ((waiting,),) = await bench.query("SELECT sum(byte_count) FROM groups WHERE parked_reason IS NULL")
    ((parked,),) = await bench.query("SELECT sum(byte_count) FROM groups WHERE parked_reason IS NOT NULL")
    figures = _figures(bench)
    assert (figures.waiting, figures.parked) == (Amount(2, 4, waiting, START + 10), Amount(1, 1, parked, START))
    assert figures.read_until == {"n1": START + 10, "n2": START + 20}
    assert figures.ledgers == {
        "n1": Ledger("n1", 4, 4, 0, 0, waiting=2, parked=1, delivered=1, already_saved=0, dropped=0, lost=0),
        "n2": Ledger("n2", 2, 2, 0, 0, waiting=2, parked=0, delivered=0, already_saved=0, dropped=0, lost=0),
    }


async def test_the_imbalance_is_that_of_all_ledgers_on_both_sides(bench: Bench) -> None:
    await bench.poll("n1", [usable(1)])
    await bench.query("UPDATE settings SET seen = seen + 3, delivered = delivered + 2 WHERE name = 'n1'")
    await bench.query("UPDATE settings SET seen = seen - 1 WHERE name = 'n2'")
    assert _figures(bench).imbalance == 3 + 2 + 1


async def test_settings_of_one_name_count_as_one(bench: Bench) -> None:
    await bench.poll("n1", [usable(1)])
    bench.now += 60
    await bench.store.register("another id", "n1", int(bench.now))
    await bench.query("UPDATE settings SET seen = 7, known = 7 WHERE id = 'another id'")
    figures = _figures(bench)
    assert figures.ledgers["n1"] == Ledger("n1", 8, 1, 7, 0, 1, 0, 0, 0, 0, 0)
    assert figures.read_until["n1"] == START + 60


async def test_the_figures_are_read_while_the_agent_writes(bench: Bench) -> None:
    with StoreAccess(bench._path) as store:
        before = store.figures()
        await bench.poll("n1", [usable(1)])
        assert (before.waiting.events, store.figures().waiting.events) == (0, 1)


async def test_the_time_it_takes_does_not_grow_with_the_number_of_settings_times_groups(bench: Bench) -> None:
    with StoreAccess(bench._path) as store:
        statements: list[str] = []
        store._connection.set_trace_callback(statements.append)
        store.figures()
        store._connection.set_trace_callback(None)
        plans = [
            row[3]
            for statement in statements
            if statement.startswith("SELECT")
            for row in store._connection.execute(f"EXPLAIN QUERY PLAN {statement}")
        ]
    assert [plan for plan in plans if "CORRELATED" in plan] == []
    assert len([plan for plan in plans if plan == "SCAN groups"]) == 2
