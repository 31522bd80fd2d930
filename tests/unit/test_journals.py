"""The store with and without a WAL: how it changes over, and who waits for whom."""

import asyncio
import contextlib
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from exactly_once import Bench, left_by_a_kill, put_back, usable
from ita_ag_oase.errors import Reason, StoreUnavailable
from ita_ag_oase.model import GroupChoice, Journal
from ita_ag_oase.store import repair, schema
from ita_ag_oase.store.access import StoreAccess
from ita_ag_oase.store.database import Database

NOW = 1_700_000_000
CHANGES = [(Journal.WAL, Journal.TRUNCATE), (Journal.TRUNCATE, Journal.WAL)]


def names_beside(path: Path) -> set[str]:
    """Return how the names of the store's files end, without those of files that are empty."""
    found = (file for file in path.parent.glob(f"{path.name}-*") if file.stat().st_size)
    return {file.name.removeprefix(path.name) for file in found}


@contextlib.contextmanager
def read(path: Path) -> Iterator[sqlite3.Connection]:
    """Have another program be in the middle of reading."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN")
        connection.execute("SELECT count(*) FROM groups").fetchone()
        yield connection


@pytest.mark.parametrize(("before", "after"), CHANGES)
async def test_a_store_that_changes_over_keeps_everything(tmp_path: Path, before: Journal, after: Journal) -> None:
    bench = Bench(tmp_path, journal=before)
    for journal, number in ((before, 1), (after, 2), (before, 3)):
        bench.journal = journal
        async with bench:
            bench.now += 5
            await bench.poll("n1", [usable(number)])
            assert await bench.query("PRAGMA journal_mode") == [(journal.lower(),)]
            assert names_beside(bench._path) == ({"-wal", "-shm"} if journal is Journal.WAL else set())
        assert names_beside(bench._path) == set()
    async with bench:
        await bench.deliver_all()
    assert bench.arrived("n1") == ["1", "2", "3"]


@pytest.mark.parametrize(("before", "after"), CHANGES)
async def test_what_a_kill_left_is_kept_by_who_changes_over(tmp_path: Path, before: Journal, after: Journal) -> None:
    left: list[dict[str, bytes]] = []

    def keep(statement: str) -> None:
        if statement == "COMMIT":
            left.append(left_by_a_kill(bench._path))

    bench = Bench(tmp_path / "before", journal=before, at=keep)
    async with bench:
        await bench.poll("n1", [usable(1)])
        await bench.poll("n1", [usable(number, text="x" * 9_000) for number in range(2, 10)])
    # Before the second poll was committed, and with some of it in the files.
    assert [*left[-1]] == ["store.sqlite3", "store.sqlite3-wal" if before is Journal.WAL else "store.sqlite3-journal"]
    later = Bench(tmp_path / "after", journal=after)
    put_back(left[-1], later._path.parent)
    assert repair.mend(later._path, agent_name="agent-1", now=NOW) is None
    async with later:
        assert await later.query("PRAGMA integrity_check") == [("ok",)]
        await later.deliver_all()
        assert names_beside(later._path) <= {"-wal", "-shm"}
    assert later.arrived("n1") == ["1"]


async def test_who_leaves_the_wal_waits_for_others_that_have_the_file_open(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite3"
    schema.connect(path).close()
    reader = sqlite3.connect(path, check_same_thread=False)
    reader.execute("SELECT count(*) FROM groups").fetchone()
    tries: list[str] = []

    class Connection(sqlite3.Connection):
        def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
            if sql == "PRAGMA journal_mode = TRUNCATE":
                tries.append(sql)
                if len(tries) == 2:
                    reader.close()
            return super().execute(sql, *values)

    def connect(*arguments: Any, **options: Any) -> sqlite3.Connection:
        return sqlite3.connect(*arguments, factory=Connection, **options)

    database = Database(path, journal=Journal.TRUNCATE, opener=connect)
    await database.open()
    assert len(tries) == 2
    assert await database.run(lambda c: c.execute("PRAGMA journal_mode").fetchone()) == ("truncate",)
    await asyncio.to_thread(database.close)


async def test_without_a_wal_a_reader_holds_up_a_commit_and_nothing_is_lost(tmp_path: Path) -> None:
    async with Bench(tmp_path, journal=Journal.TRUNCATE) as bench:
        await bench.query("PRAGMA busy_timeout = 0")
        with read(bench._path):
            with pytest.raises(StoreUnavailable) as caught:
                await bench.poll("n1", [usable(1)])
            assert caught.value.reason is Reason.STORE_LOCKED
        await bench.poll("n1", [usable(1)])
        await bench.deliver_all()
        assert (bench.arrived("n1"), bench.exastro.repeated) == (["1"], 0)


async def test_without_a_wal_a_commit_waits_for_a_reader_that_ends_in_time(tmp_path: Path) -> None:
    async with Bench(tmp_path, journal=Journal.TRUNCATE) as bench:
        with read(bench._path) as reader:
            saving = asyncio.create_task(bench.poll("n1", [usable(1)]))
            done, _ = await asyncio.wait([saving], timeout=0.05)
            assert done == set()
            reader.execute("ROLLBACK")
            assert (await saving).new == 1


@pytest.mark.parametrize("journal", list(Journal))
async def test_an_export_that_takes_its_time_keeps_nobody_from_writing(tmp_path: Path, journal: Journal) -> None:
    async with Bench(tmp_path, journal=journal, batch_events=1) as bench:
        await bench.query("PRAGMA busy_timeout = 0")
        await bench.poll("n1", [usable(number) for number in range(3)])
        with StoreAccess(bench._path) as access, closing(access.pieces(GroupChoice())) as pieces:
            first = next(pieces)
            assert await bench.delivery.deliver_next() == 1
            await bench.poll("n1", [usable(9)])
            rest = list(pieces)
        assert (first[0].event_count, len(rest)) == (1, 2)


async def test_without_a_wal_an_export_leaves_out_what_is_gone_when_its_turn_comes(tmp_path: Path) -> None:
    async with Bench(tmp_path, journal=Journal.TRUNCATE, batch_events=1) as bench:
        await bench.poll("n1", [usable(number) for number in range(3)])
        with StoreAccess(bench._path) as access, closing(access.pieces(GroupChoice())) as pieces:
            exported = [next(pieces)[1]]
            await bench.deliver_all()
            # These get the numbers of those that are gone.
            await bench.poll("n2", [usable(number) for number in range(3)])
            exported += [events for _, events in pieces]
        assert len(exported) == 1


def test_the_very_first_transaction_that_a_kill_cut_off_is_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite3"
    left: list[dict[str, bytes]] = []

    def keep(_: str) -> None:
        left.append(left_by_a_kill(path))

    def connect(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = sqlite3.connect(*arguments, **options)
        connection.execute("PRAGMA cache_size = 1")
        connection.set_trace_callback(keep)
        return connection

    schema.connect(path, journal_mode=Journal.TRUNCATE, opener=connect).close()
    points = [files for files in left if files[path.name] and path.name + "-journal" in files]
    assert points
    for number, files in enumerate(points):
        folder = tmp_path / str(number)
        put_back(files, folder)
        assert repair.mend(folder / path.name, agent_name="agent-1", now=NOW) is None
        schema.connect(folder / path.name, journal_mode=Journal.TRUNCATE).close()
