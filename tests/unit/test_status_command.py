"""The command status where no agent answers: what the store tells, and whether an agent runs."""

import io
import json
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from exactly_once import Bench, usable
from ita_ag_oase import clock
from ita_ag_oase.commands.console import Console
from ita_ag_oase.commands.status import show
from ita_ag_oase.errors import StoreUnavailable
from ita_ag_oase.observability.language import translations
from ita_ag_oase.observability.logs import Redactor
from ita_ag_oase.store.access import StoreAccess
from ita_ag_oase.store.database import StoreLock


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """An agent of two hours ago: one event of n1 waits, three of n2 are parked."""
    async with Bench(tmp_path, now=clock.now() - 7_205) as bench:
        await bench.introduce()
        await bench.poll("n2", [usable(number) for number in range(3)])
        bench.exastro.rows = [bench.rows["n1"], {**bench.rows["n2"], "DISUSE_FLAG": "1"}]
        await bench.deliver_all()
        await bench.poll("n1", [usable(1)])
        yield bench


@pytest.fixture
def running(bench: Bench) -> Iterator[None]:
    """The right to the store, as a running agent has it."""
    lock = StoreLock(bench._path)
    assert lock.try_acquire()
    yield
    lock.release()


def ask(bench: Bench, *, as_json: bool = False) -> tuple[int, str]:
    out = io.StringIO()
    code = show(Console(translations("en"), Redactor(), out=out), bench._path, None, as_json=as_json)
    return code, re.sub(r"[\d.]+ [KG]iB", "SIZE", out.getvalue())


async def test_a_stopped_agent_is_told_first_and_then_what_its_store_holds(bench: Bench) -> None:
    code, out = ask(bench)
    assert (code, out.splitlines()) == (
        1,
        [
            "■ Stopped: This is what its store tells.",
            "  ■ The agent does not run.",
            "    Start it. Until then events wait where they are: in their sources, and in the outbox.",
            "  ▲ 3 events are parked and do not reach Exastro.",
            "    `ita-ag-oase outbox` shows them with the reasons. Once the cause is mended, it has them sent again.",
            "",
            "source  lag  waiting  parked",
            "n1      2 h        1       0",
            "n2      2 h        0       3",
            "",
            "outbox  1 event waits (231 B, the oldest for 2 h), 3 are parked",
            f"store   SIZE of SIZE used, SIZE free on the volume: {bench._path}",
            "ledger  it balances",
        ],
    )


async def test_a_running_agent_that_was_not_asked_is_judged_by_its_store(bench: Bench, running: None) -> None:
    code, out = ask(bench)
    assert (code, out.splitlines()[:2]) == (
        1,
        ["▲ Running: This is what its store tells.", "  ▲ 3 events are parked and do not reach Exastro."],
    )
    assert "  ▲ Events have been waiting for delivery for 2 h." in out.splitlines()


async def test_all_is_well_where_an_agent_runs_and_nothing_is_amiss(tmp_path: Path) -> None:
    async with Bench(tmp_path, now=clock.now()) as bench:
        lock = StoreLock(bench._path)
        lock.try_acquire()
        code, out = ask(bench)
        lock.release()
    assert (code, out.splitlines()[0]) == (0, "● Running: This is what its store tells.")


async def test_a_ledger_that_does_not_balance_is_told(bench: Bench, running: None) -> None:
    with StoreAccess(bench._path) as store:
        store._connection.execute("UPDATE settings SET seen = seen + 1 WHERE name = 'n1'")
    code, out = ask(bench)
    assert (code, out.splitlines()[0], out.splitlines()[-1]) == (
        1,
        "■ Running: This is what its store tells.",
        "ledger  it is out by 1 event",
    )


async def test_json_tells_the_same(bench: Bench) -> None:
    code, out = ask(bench, as_json=True)
    told = json.loads(out)
    findings = [(finding["place"], finding["level"]) for finding in told["findings"]]
    sources = [(source["name"], source["ledger"]["waiting"], len(source)) for source in told["sources"]]
    assert (code, told["state"], told["level"], findings, sources, told["ledger_imbalance"], told.keys()) == (
        1,
        "stopped",
        "bad",
        [("agent", "bad"), ("outbox", "doubtful")],
        [("n1", 1, 3), ("n2", 0, 3)],
        0,
        {"state", "level", "findings", "sources", "outbox", "store", "ledger_imbalance"},
    )


async def test_it_takes_the_right_to_the_store_from_nobody(bench: Bench) -> None:
    ask(bench)
    assert StoreLock(bench._path).is_held() is False
    assert not bench._path.with_name(f"{bench._path.name}.lock").exists()


async def test_a_store_that_is_not_there_is_told_in_words(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match=r"no store at .*name it with --store"):
        show(Console(translations("en"), Redactor()), tmp_path / "none.sqlite3", None, as_json=False)
