"""A store that begins with what the stock agent left in its own file."""

import shutil
import sqlite3
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from exactly_once import Bench, usable
from ita_ag_oase.model import Cursor, Saved, TakeOver
from ita_ag_oase.store import repair
from stock_agent import make_stock_file, put_group

START = 1_700_000_000


def usual(connection: sqlite3.Connection) -> None:
    """Write two sent groups and three unsent ones of two settings."""
    put_group(connection, "n1", START - 60, ["1", "2"], sent=1)
    put_group(connection, "n1", START - 50, ["3"], sent=0)
    put_group(connection, "n2", START - 45, ["1"], sent=0)
    put_group(connection, "n1", START - 40, ["4", None, "5"], sent=0)
    put_group(connection, "n2", START - 70, ["0"], sent=1)
    # The stock agent writes a time twice where two polls fall into one second.
    connection.execute("INSERT INTO sent_timestamp VALUES ('n1', ?, 0)", (START - 40,))
    connection.execute("INSERT INTO last_fetched_time VALUES ('n1', ?)", (START - 40,))
    connection.execute("INSERT INTO last_fetched_time VALUES ('n2', ?)", (START - 30,))


@pytest.fixture
def stock_file(tmp_path: Path) -> Path:
    return tmp_path / "store" / "ag_oase_agent"


async def begin(tmp_path: Path, stock_file: Path) -> tuple[Bench, TakeOver | None]:
    """Start an agent beside the stock agent's file; its store takes over before settings are known."""
    bench = Bench(tmp_path)
    bench.before_register = lambda store: store.take_over(stock_file, agent_name="agent-1", now=int(bench.now))
    await bench.open()
    return bench, bench.taken_over


def snapshot(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name.startswith("ag_oase")}


@pytest.mark.parametrize("journal_mode", ["delete", "wal"])
async def test_unsent_groups_arrive_once_with_their_times_and_the_file_stays(
    tmp_path: Path, stock_file: Path, journal_mode: str
) -> None:
    make_stock_file(stock_file, usual, journal_mode=journal_mode)
    before = snapshot(stock_file.parent)
    bench, taken = await begin(tmp_path, stock_file)
    await bench.deliver_all()
    await bench.close()
    assert taken == TakeOver(groups=3, events=5, ids=7, cursors=2, unreadable=0, problems=())
    assert [(saved.setting_name, saved.fetched_time - START, saved.event["id"]) for saved in bench.exastro.saved] == [
        ("n1", -50, "3"),
        ("n2", -45, "1"),
        ("n1", -40, "4"),
        ("n1", -40, None),
        ("n1", -40, "5"),
    ]
    assert snapshot(stock_file.parent) == before


async def test_a_hot_journal_is_rolled_back_in_the_copy_alone(tmp_path: Path, stock_file: Path) -> None:
    template = tmp_path / "template"
    make_stock_file(template, _large)
    stock_file.parent.mkdir(parents=True)
    with closing(sqlite3.connect(template, isolation_level=None)) as connection:
        # With hardly any cache, changes reach the file before they are committed.
        connection.execute("PRAGMA cache_size = 1")
        connection.execute("BEGIN")
        connection.execute("UPDATE events SET event = '{}', sent_flag = 1")
        connection.execute("UPDATE sent_timestamp SET sent_flag = 1")
        shutil.copyfile(template, stock_file)
        shutil.copyfile(f"{template}-journal", f"{stock_file}-journal")
        connection.execute("ROLLBACK")
    before = snapshot(stock_file.parent)
    assert template.read_bytes() != before["ag_oase_agent"]
    bench, taken = await begin(tmp_path, stock_file)
    await bench.close()
    assert taken == TakeOver(groups=200, events=1_000, ids=1_000, cursors=0, unreadable=0, problems=())
    assert snapshot(stock_file.parent) == before


async def test_cursors_go_on_and_all_ids_are_known(tmp_path: Path, stock_file: Path) -> None:
    make_stock_file(stock_file, usual)
    bench, _ = await begin(tmp_path, stock_file)
    cursors = [await bench.store.cursor(row["EVENT_COLLECTION_SETTINGS_ID"]) for row in bench.rows.values()]
    saved = await bench.poll("n1", [usable(number) for number in range(1, 8)])
    await bench.deliver_all()
    await bench.close()
    assert cursors == [Cursor(START - 40, None), Cursor(START - 30, None)]
    assert saved == Saved(new=2, known=5, repeated=0)
    assert bench.arrived("n1")[-2:] == ["6", "7"]


async def test_a_group_that_exastro_has_already_is_not_repeated(tmp_path: Path, stock_file: Path) -> None:
    make_stock_file(stock_file, usual)
    bench, _ = await begin(tmp_path, stock_file)
    # The stock agent had sent the first group under this agent's name, and learned nothing of it.
    bench.exastro._progress[bench.rows["n1"]["EVENT_COLLECTION_SETTINGS_ID"], "agent-1"] = START - 50
    await bench.deliver_all()
    await bench.close()
    assert [saved.event["id"] for saved in bench.exastro.saved if saved.setting_name == "n1"] == ["4", None, "5"]


async def test_it_is_taken_over_once(tmp_path: Path, stock_file: Path) -> None:
    make_stock_file(stock_file, usual)
    bench, _ = await begin(tmp_path, stock_file)
    await bench.deliver_all()
    await bench.restart()
    await bench.deliver_all()
    await bench.close()
    assert bench.taken_over is None
    assert len(bench.exastro.saved) == 5


async def test_without_a_file_nothing_is_said(tmp_path: Path, stock_file: Path) -> None:
    bench, taken = await begin(tmp_path, stock_file)
    await bench.close()
    assert taken is None


def _no_database(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_bytes(b"this is no database " * 500)


def _empty(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_bytes(b"")


def _folder(path: Path) -> None:
    path.mkdir(parents=True)


@pytest.mark.parametrize("make", [_no_database, _folder], ids=["no database", "a folder"])
async def test_what_cannot_be_read_at_all_is_told_and_the_agent_starts(
    tmp_path: Path, stock_file: Path, make: Callable[[Path], None]
) -> None:
    make(stock_file)
    bench, taken = await begin(tmp_path, stock_file)
    assert (await bench.poll("n1", [usable(1)])).new == 1
    await bench.close()
    assert taken is not None
    assert (taken.groups, taken.events, taken.ids, taken.cursors) == (0, 0, 0, 0)
    assert taken.problems


async def test_an_empty_file_holds_nothing(tmp_path: Path, stock_file: Path) -> None:
    _empty(stock_file)
    bench, taken = await begin(tmp_path, stock_file)
    await bench.close()
    assert taken is not None
    assert (taken.events, taken.unreadable) == (0, 0)


def _odd(connection: sqlite3.Connection) -> None:
    usual(connection)
    rows: list[tuple[Any, ...]] = [
        ("n1", "8", "{broken", START - 40, 0),
        ("n1", "9", "[1]", START - 40, 0),
        (None, "10", "{}", START - 40, 0),
        ("n1", "11", '{"x": NaN}', "soon", 0),
        ("n1", "12", "{}", -1, 0),
        ("n1", "13", "{}", 1 << 60, 0),
    ]
    connection.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?)", rows)
    connection.executemany("INSERT INTO last_fetched_time VALUES (?, ?)", [("n3", 0), ("n4", 1 << 60)])


async def test_rows_that_make_no_sense_are_counted_and_the_rest_arrives(tmp_path: Path, stock_file: Path) -> None:
    make_stock_file(stock_file, _odd)
    bench, taken = await begin(tmp_path, stock_file)
    await bench.deliver_all()
    await bench.close()
    assert taken is not None
    assert (taken.groups, taken.events, taken.unreadable) == (3, 5, 8)
    assert len(bench.exastro.saved) == 5
    assert repair.mend(bench._path, agent_name="agent-1", now=START) is None


def _scattered(connection: sqlite3.Connection) -> None:
    for part in range(30):
        for time in range(START - 90, START):
            put_group(connection, "n1", time, [f"{time}-{part}-{'x' * 1_000}"], sent=0)


async def test_the_memory_it_takes_does_not_follow_the_backlog(tmp_path: Path, stock_file: Path) -> None:
    make_stock_file(stock_file, _scattered)
    tracemalloc.start()
    bench, taken = await begin(tmp_path, stock_file)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    await bench.deliver_all()
    await bench.close()
    assert taken is not None
    assert (taken.groups, taken.events) == (90, 2_700)
    # The file has more than 6 MB.
    assert peak < 4_000_000
    times = [int(saved.event["_exastro_oase_event_id"].split("-")[0]) for saved in bench.exastro.saved]
    assert times == sorted(times)
    assert len(times) == 2_700


def _break_root(path: Path, table: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        (root,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()
    page = 4_096
    whole = bytearray(path.read_bytes())
    whole[(root - 1) * page : root * page] = bytes(page)
    path.write_bytes(whole)


async def test_an_event_with_what_utf8_cannot_hold_arrives_with_that_replaced(tmp_path: Path, stock_file: Path) -> None:
    def fill(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO events VALUES ('n1', '1', '{\"id\": \"\\ud800x\"}', ?, 0)", (START - 50,))

    make_stock_file(stock_file, fill)
    bench, taken = await begin(tmp_path, stock_file)
    bench.now = START
    await bench.deliver_all()
    await bench.close()
    assert taken == TakeOver(groups=1, events=1, ids=1, cursors=0, unreadable=0, problems=())
    assert [saved.event["id"] for saved in bench.exastro.saved] == ["\ufffdx"]


async def test_a_large_file_with_a_broken_root_is_given_up_soon(tmp_path: Path, stock_file: Path) -> None:
    make_stock_file(stock_file, _large)
    _break_root(stock_file, "events")
    bench, taken = await begin(tmp_path, stock_file)
    await bench.close()
    assert taken is not None
    assert taken.events == 0
    assert str(taken.problems[-1]) == "too much is damaged: the rest is left out"
    assert taken.unreadable < 20_000


@pytest.mark.timeout(30)
async def test_a_rowid_that_the_disk_made_huge_does_not_keep_the_agent_from_starting(
    tmp_path: Path, stock_file: Path
) -> None:
    def huge(connection: sqlite3.Connection) -> None:
        usual(connection)
        connection.execute("UPDATE events SET rowid = 1 << 61 WHERE rowid = (SELECT max(rowid) - 1 FROM events)")
        connection.execute("UPDATE events SET rowid = 1 << 62 WHERE rowid = (SELECT min(rowid) FROM events)")

    make_stock_file(stock_file, huge)
    bench, taken = await begin(tmp_path, stock_file)
    await bench.deliver_all()
    await bench.close()
    assert taken == TakeOver(groups=3, events=5, ids=7, cursors=2, unreadable=0, problems=())


def _large(connection: sqlite3.Connection) -> None:
    for number in range(200):
        put_group(connection, "n1", START - 1_000 + number, [f"{number}-{part}" for part in range(5)], sent=0)


def _damages(path: Path) -> Iterator[bytes]:
    whole = path.read_bytes()
    page = 4_096
    for number in range(1, len(whole) // page, 3):
        yield whole[: number * page] + bytes(page) + whole[(number + 1) * page :]


async def test_a_damaged_page_costs_what_was_on_it(tmp_path: Path, stock_file: Path) -> None:
    make_stock_file(stock_file, _large)
    for number, damaged in enumerate(_damages(stock_file)):
        folder = tmp_path / str(number)
        file = folder / "store" / "ag_oase_agent"
        file.parent.mkdir(parents=True)
        file.write_bytes(damaged)
        bench, taken = await begin(folder, file)
        waiting = await bench.store.waiting_events()
        await bench.close()
        assert taken is not None
        assert taken.problems
        assert waiting == taken.events
        assert file.read_bytes() == damaged
