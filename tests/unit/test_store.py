"""What the store keeps, and what it does when its file cannot."""

import asyncio
import json
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Collection
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from exactly_once import Bench, usable
from ita_ag_oase.errors import Reason, SourceUnreadable, StoreDamaged, StoreUnavailable
from ita_ag_oase.model import Cursor, Event, EventFate, Journal, Saved
from ita_ag_oase.store.access import StoreAccess
from ita_ag_oase.store.database import Database, StoreLock, try_locks
from ita_ag_oase.store.outbox import BatchLimits
from ita_ag_oase.store.saving import SavingLimits
from ita_ag_oase.store.store import Store
from ita_ag_oase.text import Text

START = 1_700_000_000
LIMITS = SavingLimits(group_events=100, group_bytes=60_000, id_retention_seconds=604_800)


@pytest.fixture(params=list(Journal))
async def bench(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    async with Bench(tmp_path, journal=request.param) as bench:
        yield bench


def query(bench: Bench, sql: str) -> list[Any]:
    """Return rows as another program would read them while the agent runs."""
    with closing(sqlite3.connect(bench._path)) as connection:
        return connection.execute(sql).fetchall()


def serial(number: int, text: str, unavailable: str | None = None) -> Event:
    return Event(str(number), True, json.dumps({"text": text}).encode(), unavailable)


async def cursor_of(bench: Bench, name: str) -> Cursor:
    return await bench.store.cursor(bench.rows[name]["EVENT_COLLECTION_SETTINGS_ID"])


class FailingBench(Bench):
    """An agent on a volume that fails to write where a statement begins so."""

    def __init__(self, folder: Path, failing: Collection[str]) -> None:
        super().__init__(folder)
        self._failing = failing

    def _connect(self, *arguments: Any, **options: Any) -> sqlite3.Connection:
        failing = self._failing

        class Connection(sqlite3.Connection):
            def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
                if sql.startswith(tuple(failing)):
                    err = sqlite3.OperationalError("disk I/O error")
                    err.sqlite_errorcode = sqlite3.SQLITE_IOERR_WRITE
                    raise err
                return super().execute(sql, *values)

        return super()._connect(*arguments, factory=Connection, **options)


class TestIds:
    async def test_fates_are_foretold_as_saving_decides_them(self, bench: Bench) -> None:
        wrong = serial(1, "x", "RESPONSE_KEY not found")
        answers = [
            [usable(1), usable(2), usable(1), wrong],
            [usable(number) for number in range(600, 0, -1)],
            [usable(3), serial(2, "y"), wrong, serial(1, "z", "RESPONSE_KEY not found")],
            [serial(3, "y"), wrong, usable(601)],
        ]
        for answer in answers:
            with StoreAccess(bench._path) as access:
                before = Counter(access.fates(bench.rows["n1"]["EVENT_COLLECTION_SETTINGS_ID"], answer))
            saved = await bench.poll("n1", answer)
            assert saved == Saved(before[EventFate.NEW], before[EventFate.KNOWN], before[EventFate.REPEATED])

    async def test_everything_is_new_of_a_setting_that_was_never_seen(self, bench: Bench) -> None:
        with StoreAccess(bench._path) as access:
            assert access.cursor("nowhere") is None
            assert access.fates("nowhere", [usable(1), usable(1)]) == [EventFate.NEW, EventFate.KNOWN]

    async def test_an_id_is_one_event_across_polls_and_restarts(self, bench: Bench) -> None:
        assert await bench.poll("n1", [usable(1), usable(2)]) == Saved(new=2, known=0, repeated=0)
        await bench.restart()
        bench.now += 5
        assert await bench.poll("n1", [usable(1), usable(3), usable(2)]) == Saved(new=1, known=2, repeated=0)

    async def test_an_id_is_one_event_within_an_answer_however_far_apart(self, bench: Bench) -> None:
        listed = [usable(number % 700) for number in range(1_400)]
        assert await bench.poll("n1", listed) == Saved(new=700, known=700, repeated=0)

    async def test_ids_of_other_settings_are_others(self, bench: Bench) -> None:
        await bench.poll("n1", [usable(1)])
        assert await bench.poll("n2", [usable(1)]) == Saved(new=1, known=0, repeated=0)

    async def test_events_without_ids_are_all_new_and_leave_no_trace(self, bench: Bench) -> None:
        for _ in range(2):
            assert await bench.poll("n1", [serial(1, "same"), serial(2, "same")]) == Saved(new=2, known=0, repeated=0)
        assert query(bench, "SELECT count(*) FROM ids") == [(0,)]

    async def test_known_ids_are_written_again_only_once_they_have_aged(self, bench: Bench) -> None:
        listed = [usable(number) for number in range(50)]
        await bench.poll("n1", listed)
        written = [query(bench, "SELECT DISTINCT last_seen FROM ids")]
        for hours in (1, 20, 2):
            bench.now += hours * 3_600
            await bench.poll("n1", listed)
            written.append(query(bench, "SELECT DISTINCT last_seen FROM ids"))
        aged = int(START + 23 * 3_600)
        assert written == [[(START,)], [(START,)], [(START,)], [(aged,)]]

    async def test_ids_are_forgotten_once_no_answer_has_held_them_for_long(self, bench: Bench) -> None:
        await bench.poll("n1", [usable("gone"), usable("stays")])
        bench.now += 604_800 + 100
        await bench.poll("n1", [usable("stays")])
        assert await bench.store.purge(int(bench.now)) == 1
        assert await bench.store.purge(int(bench.now)) == 0
        assert await bench.poll("n1", [usable("stays"), usable("gone")]) == Saved(new=1, known=1, repeated=0)

    async def test_ids_of_a_source_that_is_down_are_not_forgotten(self, bench: Bench) -> None:
        await bench.poll("n1", [usable(1)])
        await bench.store.keep_fact("settings", json.dumps(list(bench.rows.values())).encode())
        bench.now += 10 * 604_800
        await bench.poll("n2", [])
        assert await bench.store.purge(int(bench.now)) == 0
        assert await bench.poll("n1", [usable(1)]) == Saved(new=0, known=1, repeated=0)

    async def test_ids_of_a_setting_that_went_are_forgotten_in_time(self, bench: Bench) -> None:
        await bench.poll("n1", [usable(1)])
        await bench.poll("n2", [usable(1)])
        await bench.store.keep_fact("settings", json.dumps([bench.rows["n2"]]).encode())
        bench.now += 604_800
        assert await bench.store.purge(int(bench.now)) == 0
        bench.now += 1
        assert await bench.store.purge(int(bench.now)) == 1
        assert query(bench, "SELECT s.name FROM ids JOIN settings s ON s.number = setting") == [("n2",)]


class TestUnusable:
    async def test_the_same_unusable_events_are_delivered_once_while_they_last(self, bench: Bench) -> None:
        wrong = [serial(1, "a", "reason"), serial(2, "b", "reason")]
        assert await bench.poll("n1", wrong, moves_cursor=False) == Saved(new=2, known=0, repeated=0)
        await bench.restart()
        assert await bench.poll("n1", wrong, moves_cursor=False) == Saved(new=0, known=0, repeated=2)
        assert await bench.poll("n1", [*wrong, serial(3, "c", "reason")]) == Saved(new=1, known=0, repeated=2)
        assert await bench.poll("n1", [serial(1, "a", "another")]) == Saved(new=1, known=0, repeated=0)

    async def test_they_are_delivered_again_after_an_answer_without_them(self, bench: Bench) -> None:
        wrong = [serial(1, "a", "reason")]
        for expected in (1, 0):
            assert (await bench.poll("n1", wrong)).new == expected
        await bench.poll("n1", [usable(1)])
        assert (await bench.poll("n1", wrong)).new == 1

    async def test_equal_ones_within_an_answer_are_all_delivered(self, bench: Bench) -> None:
        assert (await bench.poll("n1", [serial(1, "a", "reason"), serial(2, "a", "reason")])).new == 2


class TestCursor:
    async def test_it_starts_with_the_first_sight_and_keeps_it(self, bench: Bench) -> None:
        bench.now += 1_000
        await bench.restart()
        assert await cursor_of(bench, "n1") == Cursor(START, None)

    async def test_it_moves_with_every_answer_also_an_empty_one(self, bench: Bench) -> None:
        bench.now += 5
        await bench.poll("n1", [])
        assert await cursor_of(bench, "n1") == Cursor(START + 5, None)

    async def test_it_stays_when_the_answer_was_not_the_expected_one(self, bench: Bench) -> None:
        bench.now += 5
        await bench.poll("n1", [serial(1, "x", "RESPONSE_KEY not found")], moves_cursor=False)
        assert await cursor_of(bench, "n1") == Cursor(START, None)

    async def test_a_portion_moves_its_position_and_only_the_last_one_the_time(self, bench: Bench) -> None:
        bench.now += 5
        await bench.poll("n1", [], moves_cursor=False, position="half")
        assert await cursor_of(bench, "n1") == Cursor(START, None, "half")
        await bench.restart()
        await bench.poll("n1", [], position="whole")
        assert await cursor_of(bench, "n1") == Cursor(START + 5, None, "whole")
        await bench.poll("n1", [])
        assert await cursor_of(bench, "n1") == Cursor(START + 5, None, "whole")

    async def test_it_stays_and_nothing_is_kept_when_saving_fails_half_way(self, bench: Bench) -> None:
        def broken() -> Any:
            yield from (usable(number) for number in range(1_200))
            raise SourceUnreadable(Text("odd"), reason=Reason.EXPRESSION)

        bench.now += 5
        with pytest.raises(SourceUnreadable):
            await bench.poll("n1", broken(), position="beyond")
        assert await cursor_of(bench, "n1") == Cursor(START, None)
        assert query(bench, "SELECT (SELECT count(*) FROM ids), (SELECT count(*) FROM pieces)") == [(0, 0)]
        assert await bench.poll("n1", [usable(1)]) == Saved(new=1, known=0, repeated=0)

    @pytest.mark.parametrize(
        ("polls", "last"),
        [
            pytest.param([["9", "10", "8"]], "10", id="decimal ids compare as numbers"),
            pytest.param([["9", "10", "a8"]], "a8", id="others as text"),
            pytest.param([["9", "10", "x!"]], "x!", id="text after numbers"),
            pytest.param([["5"], ["3"]], "3", id="the newest group counts"),
            pytest.param([["5"], []], "5", id="an empty poll changes nothing"),
            pytest.param([["5"], ["5"]], "5", id="a known one changes nothing"),
            pytest.param([["9" * 40, "1" + "0" * 40]], "1" + "0" * 40, id="beyond 64 bits"),
        ],
    )
    async def test_the_last_event_is_the_one_with_the_greatest_id(
        self, bench: Bench, polls: list[list[str]], last: str
    ) -> None:
        for ids in polls:
            await bench.poll("n1", [usable(event_id) for event_id in ids])
        found = (await cursor_of(bench, "n1")).last_event
        assert found is not None
        assert json.loads(found)["_exastro_oase_event_id"] == last

    async def test_unusable_events_are_never_the_last_one(self, bench: Bench) -> None:
        await bench.poll("n1", [usable(1), Event("99", True, b"{}", "reason")])
        found = (await cursor_of(bench, "n1")).last_event
        assert found is not None
        assert json.loads(found)["id"] == 1


class TestRenaming:
    async def test_a_renamed_setting_keeps_its_cursor_and_delivers_under_its_new_name(self, bench: Bench) -> None:
        await bench.poll("n1", [usable(1)])
        row = bench.rows["n1"]
        setting_id = row["EVENT_COLLECTION_SETTINGS_ID"]
        await bench.store.register(setting_id, "renamed", START + 100)
        bench.exastro.rows[0] = {**row, "EVENT_COLLECTION_SETTINGS_NAME": "renamed"}
        await bench.deliver_all()
        assert await bench.store.cursor(setting_id) == Cursor(START, (await bench.store.cursor(setting_id)).last_event)
        assert bench.arrived("renamed") == ["1"]


class TestRoom:
    async def test_a_full_store_says_so_until_events_are_delivered(self, bench: Bench) -> None:
        bench.store._max_bytes = 300_000
        bench.store.require_room()
        await bench.poll("n1", [usable(number, filler="x" * 1_000) for number in range(400)])
        with pytest.raises(StoreUnavailable) as caught:
            bench.store.require_room()
        assert caught.value.reason is Reason.STORE_FULL
        await bench.deliver_all()
        bench.store.require_room()

    async def test_space_goes_back_to_the_file_system(self, bench: Bench) -> None:
        await bench.poll("n1", [usable(number, filler="x" * 1_000) for number in range(2_000)])
        await bench.deliver_all()
        await bench.store.purge(int(bench.now))
        await bench.close()
        assert bench._path.stat().st_size < 300_000
        await bench.open()

    @pytest.mark.looptime
    async def test_polling_comes_back_where_the_volume_was_not_full_after_all(self, tmp_path: Path) -> None:
        failing = {"INSERT INTO pieces"}
        async with FailingBench(tmp_path, failing) as bench:
            with pytest.raises(StoreUnavailable, match="no space"):
                await bench.poll("n1", [usable(1)])
            # The log was emptied, which may have been enough.
            bench.store.require_room()
            with pytest.raises(StoreUnavailable, match="no space"):
                await bench.poll("n1", [usable(1)])
            failing.clear()
            with pytest.raises(StoreUnavailable, match="no space"):
                bench.store.require_room()
            await asyncio.sleep(60)
            bench.store.require_room()

    async def test_what_was_delivered_is_done_where_its_space_cannot_be_given_back(self, tmp_path: Path) -> None:
        async with FailingBench(tmp_path, {"PRAGMA incremental_vacuum"}) as bench:
            await bench.poll("n1", [usable(number, text="x" * 1_000) for number in range(100)])
            bench.store._reserve.release()
            assert await bench.delivery.deliver_next() is not None


class TestFile:
    async def test_it_is_durable_and_can_be_read_while_the_agent_runs(self, bench: Bench) -> None:
        await bench.poll("n1", [usable(1)])
        assert await bench.query("PRAGMA journal_mode") == [(bench.journal.lower(),)]
        assert await bench.query("PRAGMA synchronous") == [(2,)]
        assert query(bench, "SELECT count(*) FROM groups") == [(1,)]

    async def test_a_newer_schema_is_refused_with_its_number(self, bench: Bench) -> None:
        await bench.close()
        with closing(sqlite3.connect(bench._path)) as connection:
            connection.execute("PRAGMA user_version = 99")
        with pytest.raises(StoreDamaged, match=r"schema 99, this one, .*, knows 5\): run the version that wrote it"):
            await Store(bench._path, LIMITS, storage_max_bytes=1).open()
        with closing(sqlite3.connect(bench._path)) as connection:
            connection.execute("PRAGMA user_version = 5")
        await bench.open()

    async def test_what_is_no_database_is_refused_in_words(self, tmp_path: Path) -> None:
        path = tmp_path / "store.sqlite3"
        path.write_bytes(b"no database" * 1_000)
        with pytest.raises(StoreDamaged, match="is damaged"):
            await Store(path, LIMITS, storage_max_bytes=1).open()

    async def test_a_folder_that_cannot_be_made_is_refused_in_words(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(StoreUnavailable, match="make its folder writable"):
            await Store(tmp_path / "file" / "store.sqlite3", LIMITS, storage_max_bytes=1).open()


class TestDamage:
    async def test_damage_met_while_it_runs_is_told(self, tmp_path: Path) -> None:
        told = asyncio.Event()
        store = Store(tmp_path / "store.sqlite3", LIMITS, storage_max_bytes=1 << 40, on_damage=told.set)
        await store.open()
        with closing(sqlite3.connect(tmp_path / "store.sqlite3")) as connection:
            connection.execute("PRAGMA writable_schema = ON")
            (version,) = connection.execute("PRAGMA schema_version").fetchone()
            connection.execute("UPDATE sqlite_schema SET rootpage = 5000 WHERE name = 'facts'")
            # Tells other connections to read it anew.
            connection.execute(f"PRAGMA schema_version = {version + 1}")
            connection.commit()
        with pytest.raises(StoreDamaged, match="start the agent again"):
            await store.fact("any")
        await told.wait()
        assert isinstance(store.damage, StoreDamaged)
        await asyncio.to_thread(store.close)


class TestDatabase:
    async def test_jobs_that_wait_share_a_transaction_and_a_failed_one_leaves_the_others(self, tmp_path: Path) -> None:
        database = Database(tmp_path / "store.sqlite3")
        await database.open()
        statements: list[str] = []
        await database.run(lambda connection: connection.set_trace_callback(statements.append))

        def keep(name: str, *, fails: bool = False) -> Any:
            def work(connection: sqlite3.Connection) -> str:
                connection.execute("INSERT INTO facts VALUES (?, x'')", (name,))
                if fails:
                    raise ValueError(name)
                return name

            return database.run(work)

        results = await asyncio.gather(keep("a"), keep("b", fails=True), keep("c"), return_exceptions=True)
        names = await database.run(
            lambda connection: connection.execute("SELECT name FROM facts WHERE length(name) = 1").fetchall()
        )
        await asyncio.to_thread(database.close)
        assert [str(result) for result in results] == ["a", "b", "c"]
        assert isinstance(results[1], ValueError)
        assert names == [("a",), ("c",)]
        assert statements.count("COMMIT") < statements.count("SAVEPOINT job")

    async def test_jobs_put_before_the_end_are_done(self, tmp_path: Path) -> None:
        database = Database(tmp_path / "store.sqlite3")
        await database.open()
        job = asyncio.ensure_future(database.run(lambda c: c.execute("INSERT INTO facts VALUES ('a', x'')").rowcount))
        await asyncio.sleep(0)
        await asyncio.to_thread(database.close)
        assert await job == 1

    async def test_a_statement_that_fails_becomes_our_error(self, tmp_path: Path) -> None:
        database = Database(tmp_path / "store.sqlite3")
        await database.open()
        with pytest.raises(StoreUnavailable, match="no such table"):
            await database.run(lambda connection: connection.execute("SELECT * FROM absent"))
        await asyncio.to_thread(database.close)


class TestLock:
    def test_one_holds_it_until_it_is_released(self, tmp_path: Path) -> None:
        first, second = (StoreLock(tmp_path / "deep" / "store.sqlite3") for _ in range(2))
        assert [first.try_acquire(), second.try_acquire(), first.try_acquire()] == [True, False, True]
        first.release()
        assert second.try_acquire()
        second.release()

    def test_a_folder_that_cannot_be_made_is_told_in_words(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(StoreUnavailable, match="cannot be locked"):
            StoreLock(tmp_path / "file" / "store.sqlite3").try_acquire()

    def test_who_only_looks_sees_whether_it_is_taken_and_makes_nothing(self, tmp_path: Path) -> None:
        lock = StoreLock(tmp_path / "store.sqlite3")
        assert (StoreLock(tmp_path / "store.sqlite3").is_taken(), list(tmp_path.iterdir())) == (False, [])
        lock.try_acquire()
        assert StoreLock(tmp_path / "store.sqlite3").is_taken()
        lock.release()
        assert not StoreLock(tmp_path / "store.sqlite3").is_taken()
        assert lock.try_acquire()
        lock.release()

    def test_locks_are_tried_without_leaving_anything_behind(self, tmp_path: Path) -> None:
        assert (try_locks(tmp_path), list(tmp_path.iterdir())) == (True, [])
        (tmp_path / "file").touch()
        with pytest.raises(StoreUnavailable, match="cannot be locked"):
            try_locks(tmp_path / "file")


async def test_a_poll_costs_as_many_statements_for_known_events_as_it_has_chunks(bench: Bench) -> None:
    listed = [usable(number) for number in range(5_000)]
    await bench.poll("n1", listed)
    await bench.deliver_all()
    statements: list[str] = []
    await bench.store._database.run(lambda connection: connection.set_trace_callback(statements.append))
    bench.now += 5
    assert await bench.poll("n1", listed) == Saved(new=0, known=5_000, repeated=0)
    await bench.store._database.run(lambda connection: connection.set_trace_callback(None))
    writing = [sql for sql in statements if sql.startswith(("INSERT", "UPDATE", "DELETE"))]
    assert [sql.split(" = ")[0] for sql in writing] == ["UPDATE settings SET last_fetched_time"]
    assert sum(sql.startswith("SELECT digest") for sql in statements) == 10


async def test_choosing_a_request_looks_at_part_of_a_long_backlog(bench: Bench) -> None:
    for number in range(300):
        bench.now += 5
        await bench.poll("n1", [usable(number)])
    batch = await bench.store.next_batch(BatchLimits(events=10, bytes=65_536, groups=5), int(bench.now))
    assert batch is not None
    assert [group.fetched_time for group in batch.groups] == [START + 5]
    assert await bench.store.waiting_events() == 300
