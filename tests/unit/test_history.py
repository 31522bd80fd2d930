"""What can be told of an event afterwards: in every way in which a group can end, and for as long as that is kept."""

import functools
import json
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing
from pathlib import Path

import pytest

from exactly_once import Bench, usable
from ita_ag_oase.delivery import Delivery
from ita_ag_oase.errors import ExastroUnavailable, StoreDamaged
from ita_ag_oase.model import Event, EventLife, GroupChoice, GroupState, Outcome
from ita_ag_oase.store import history
from ita_ag_oase.store.access import StoreAccess
from ita_ag_oase.store.outbox import DAMAGED
from stock_agent import make_stock_file, put_group

START = 1_700_000_000
RETENTION = 604_800
SERIAL = START * 1_000_000

# State, key and poll by seconds since the start, place, events, offers, and how the answer begins.
Told = tuple[GroupState | Outcome, int | None, int, int | None, int, int, str | None]


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with Bench(tmp_path) as bench:
        await bench.introduce()
        yield bench


def lives(bench: Bench, event_id: str | int, setting_name: str | None = None) -> list[EventLife]:
    with StoreAccess(bench._path) as store:
        return store.lives(str(event_id), setting_name)


def life(bench: Bench, event_id: str | int, setting_name: str | None = None) -> EventLife:
    (found,) = lives(bench, event_id, setting_name)
    return found


def told(found: EventLife, *, answer_characters: int = 9) -> list[Told]:
    return [
        (
            record.state,
            None if record.key.fetched_time is None else record.key.fetched_time - START,
            record.fetched_time - START,
            record.place,
            record.event_count,
            record.offers,
            record.answer and record.answer[:answer_characters],
        )
        for record in found.records
    ]


async def fail(bench: Bench, *faults: str) -> None:
    """Have the next requests meet faults, five seconds after each other."""
    for fault in faults:
        bench.exastro.faults.append(fault)
        with pytest.raises(ExastroUnavailable):
            await bench.deliver_all()
        bench.now += 5


def discard(bench: Bench, *names: str) -> None:
    bench.exastro.rows = [{**row, "DISUSE_FLAG": "1"} if name in names else row for name, row in bench.rows.items()]


async def wait(_: Bench) -> None:
    """Leave the events where they are."""


async def deliver(bench: Bench) -> None:
    await bench.deliver_all()


async def lose_the_answer(bench: Bench) -> None:
    await fail(bench, "lost")
    await bench.deliver_all()


async def fail_twice(bench: Bench) -> None:
    await fail(bench, "503", "cut")


async def be_turned_away(bench: Bench) -> None:
    await fail(bench, "498")


async def collide(bench: Bench) -> None:
    bench.exastro._progress[bench.rows["n1"]["EVENT_COLLECTION_SETTINGS_ID"], "agent-1"] = START + 50
    await bench.deliver_all()


async def be_too_large(bench: Bench) -> None:
    bench.exastro.max_request_bytes = 550
    await bench.deliver_all()


async def be_refused(bench: Bench) -> None:
    bench.exastro.refuses = lambda event: event["id"] == 2
    await bench.deliver_all()


async def park(bench: Bench) -> None:
    discard(bench, "n1")
    await bench.deliver_all()
    discard(bench)
    bench.now += 5


async def retry(bench: Bench) -> None:
    await park(bench)
    with StoreAccess(bench._path) as store:
        store.retry(GroupChoice(), int(bench.now))
    await bench.deliver_all()


async def drop_what_is_parked(bench: Bench) -> None:
    await park(bench)
    await drop(bench)


async def drop(bench: Bench) -> None:
    with StoreAccess(bench._path) as store:
        store.drop(GroupChoice(), int(bench.now))


async def damage(bench: Bench) -> None:
    with StoreAccess(bench._path) as store:
        store._connection.execute("UPDATE pieces SET events = x'7b7b'")
    await bench.deliver_all()


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        (wait, [(GroupState.WAITING, 5, 5, 2, 2, 0, None)]),
        (fail_twice, [(GroupState.IN_FLIGHT, 5, 5, 2, 2, 2, "Exastro: ")]),
        (be_turned_away, [(GroupState.IN_FLIGHT, 5, 5, 2, 2, 1, "Exastro a")]),
        (deliver, [(Outcome.DELIVERED, 5, 5, 2, 2, 1, None)]),
        (lose_the_answer, [(Outcome.ALREADY_SAVED, 5, 5, 2, 2, 2, "499-01818")]),
        (collide, [(Outcome.MOVED, 5, 5, 2, 2, 1, "499-01818"), (Outcome.DELIVERED, 51, 5, 2, 2, 2, None)]),
        (be_too_large, [(Outcome.CUT, 5, 5, 2, 2, 1, "the reque"), (Outcome.DELIVERED, 8, 5, 1, 1, 2, None)]),
        (be_refused, [(Outcome.CUT, 5, 5, 2, 2, 1, "Exastro a"), (GroupState.PARKED, 8, 5, 1, 1, 2, "Exastro a")]),
        (park, [(GroupState.PARKED, 5, 5, 2, 2, 1, "499-01827")]),
        (retry, [(Outcome.RETRIED, 5, 5, 2, 2, 1, "499-01827"), (Outcome.DELIVERED, 8, 5, 2, 2, 2, None)]),
        (drop_what_is_parked, [(Outcome.DROPPED, 5, 5, 2, 2, 1, "499-01827")]),
        (drop, [(Outcome.DROPPED, 5, 5, 2, 2, 0, None)]),
        (damage, [(GroupState.PARKED, 5, 5, 2, 2, 0, str(DAMAGED)[:9])]),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
async def test_however_a_group_ends_it_can_be_told(
    bench: Bench, end: Callable[[Bench], Awaitable[None]], expected: list[Told]
) -> None:
    await bench.poll("n1", [usable(1), usable(2)])
    await end(bench)
    assert told(life(bench, 2)) == expected


async def test_times_are_those_of_the_poll_the_offers_and_the_end(bench: Bench) -> None:
    await bench.poll("n1", [usable(1)])
    bench.now += 1
    await fail(bench, "503", "lost")
    await bench.deliver_all()
    found = life(bench, 1)
    (record,) = found.records
    assert (found.setting_name, found.first_poll, found.last_seen) == ("n1", START + 5, START + 5)
    assert (record.first_offer, record.latest_offer, record.time) == (START + 6, START + 16, START + 16)
    assert (str(record.key), record.agent_name) == (f"n1@{START + 5}", "agent-1")


async def test_what_is_told_of_an_id_that_stays_listed_is_when_it_was_new(bench: Bench) -> None:
    await bench.poll("n1", [usable(1)])
    await bench.deliver_all()
    bench.now += RETENTION // 4
    await bench.poll("n1", [usable(1), usable(2)])
    found = life(bench, 1)
    assert (found.first_poll, found.last_seen) == (START + 5, START + 5 + RETENTION // 4)
    assert [record.state for record in found.records] == [Outcome.DELIVERED]


async def test_portions_of_one_poll_are_told_apart(bench: Bench) -> None:
    await bench.poll("n1", [usable("a"), usable("b")], moves_cursor=False, position="1")
    await bench.deliver_all()
    await bench.poll("n1", [usable("c"), usable("d")], position="2")
    assert [record.state for record in life(bench, "b").records] == [Outcome.DELIVERED]
    assert [record.state for record in life(bench, "d").records] == [GroupState.WAITING]


async def test_each_setting_that_has_an_event_of_the_id_is_told_unless_one_is_named(bench: Bench) -> None:
    await bench.poll("n1", [usable(1)])
    await bench.poll("n2", [usable(2), usable(1)])
    assert [(found.setting_name, found.records[0].place) for found in lives(bench, 1)] == [("n1", 1), ("n2", 2)]
    assert [found.setting_name for found in lives(bench, 1, "n2")] == ["n2"]


@pytest.mark.parametrize("event_id", ["unknown", str(SERIAL - 60_000_000), "1" * 400])
async def test_nothing_is_told_of_what_was_never_seen(bench: Bench, event_id: str) -> None:
    await bench.poll("n1", [usable(1)])
    assert lives(bench, event_id) == []


class TestIdsMadeByTheAgent:
    @pytest.fixture
    async def bench(self, bench: Bench) -> Bench:
        """An agent that found three events without ids in one second, and moved on."""
        events = [Event(str(SERIAL + 5_400_000 + number), True, b'{"text": "x"}', None) for number in range(3)]
        await bench.poll("n1", events)
        bench.now += 5
        return bench

    async def test_one_is_found_in_the_outbox(self, bench: Bench) -> None:
        found = life(bench, SERIAL + 5_400_001)
        assert (found.first_poll, found.last_seen, found.is_certain) == (START + 5, None, True)
        assert told(found) == [(GroupState.WAITING, 5, 5, 2, 3, 0, None)]

    async def test_one_that_left_is_told_by_its_poll(self, bench: Bench) -> None:
        await bench.deliver_all()
        found = life(bench, SERIAL + 5_400_001)
        assert (found.setting_name, found.first_poll, found.is_certain) == ("n1", START + 5, False)
        assert told(found) == [(Outcome.DELIVERED, 5, 5, None, 3, 1, None)]

    async def test_one_that_counts_into_the_next_second_is_told_by_its_poll(self, bench: Bench) -> None:
        await bench.deliver_all()
        assert life(bench, SERIAL + 6_000_001).first_poll == START + 5

    async def test_an_id_that_stands_elsewhere_in_an_event_is_none(self, bench: Bench) -> None:
        raw = json.dumps({"id": "7", "parent": "8"}).encode()
        await bench.poll("n1", [Event("7", False, raw, None)])
        assert lives(bench, 8) == []


async def test_a_mail_is_found_by_its_message_id(bench: Bench) -> None:
    mail = Event("<1@mail>", False, b'{"message_id": "<1@mail>", "subject": "x"}', None)
    await bench.poll("n1", [usable(1), mail])
    # As in a store whose ids were noted by an earlier version.
    await bench.query("UPDATE ids SET first_poll = NULL, event_number = NULL")
    found = life(bench, "<1@mail>")
    assert (found.first_poll, told(found)) == (START + 5, [(GroupState.WAITING, 5, 5, 2, 2, 0, None)])


class TestStoresFromBefore:
    async def test_what_the_stock_agent_sent_is_only_known_as_seen(self, tmp_path: Path) -> None:
        def fill(connection: sqlite3.Connection) -> None:
            put_group(connection, "n1", START - 60, ["1"], sent=1)
            put_group(connection, "n1", START - 50, ["2", "3"], sent=0)

        make_stock_file(tmp_path / "stock", fill)
        bench = Bench(tmp_path)
        bench.before_register = lambda store: store.take_over(
            tmp_path / "stock", agent_name="agent-1", now=int(bench.now)
        )
        async with bench:
            found = [life(bench, 1), life(bench, 3)]
        assert [(each.first_poll, each.last_seen) for each in found] == [(None, START), (START - 50, START)]
        assert [told(each) for each in found] == [[], [(GroupState.WAITING, -50, -50, 2, 2, 0, None)]]

    async def test_a_store_of_the_third_schema_goes_on(self, bench: Bench) -> None:
        await bench.poll("n1", [usable(1), usable(2)])
        await bench.close()
        with closing(sqlite3.connect(bench._path)) as connection:
            connection.executescript(
                "ALTER TABLE groups DROP COLUMN answer; ALTER TABLE groups DROP COLUMN latest_offer;"
                "ALTER TABLE groups DROP COLUMN first_offer; ALTER TABLE groups DROP COLUMN offers;"
                "ALTER TABLE ids DROP COLUMN event_number; ALTER TABLE ids DROP COLUMN first_poll;"
                "DROP TABLE history; DROP TABLE terms; UPDATE groups SET first_event = 0; PRAGMA user_version = 3;"
                'UPDATE facts SET value = CAST(\'{"schema":3,"agent":"2"}\' AS BLOB) WHERE name = \'schema\''
            )
        await bench.open()
        assert await bench.store.mend(agent_name="agent-1", now=bench.now) is None
        assert told(life(bench, 2)) == [(GroupState.WAITING, 5, 5, 2, 2, 0, None)]
        await bench.poll("n1", [usable(3)])
        await bench.deliver_all()
        assert told(life(bench, 2)) == []
        assert told(life(bench, 3)) == [(Outcome.DELIVERED, 8, 5, 1, 1, 1, None)]


class TestDamage:
    async def mend(self, bench: Bench, script: str = "") -> None:
        await bench.close()
        with closing(sqlite3.connect(bench._path)) as connection:
            connection.executescript(script)
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        bench._path.write_bytes(bytes(100) + bench._path.read_bytes()[100:])
        assert await bench.store.mend(agent_name="agent-1", now=bench.now) is not None
        await bench.open()

    async def test_what_became_of_events_is_saved_with_them(self, bench: Bench) -> None:
        await bench.poll("n1", [usable(1), usable(2)])
        await fail(bench, "503", "lost")
        await bench.deliver_all()
        await bench.poll("n1", [usable(3), usable(4)])
        await fail(bench, "503")
        before = [life(bench, 2), life(bench, 4)]
        await self.mend(bench)
        assert [life(bench, 2), life(bench, 4)] == before

    async def test_an_event_whose_group_was_made_anew_is_found_there(self, bench: Bench) -> None:
        await bench.poll("n1", [usable(1), usable(2)])
        await self.mend(bench, "DELETE FROM groups")
        assert told(life(bench, 2)) == [(GroupState.WAITING, None, 5, 2, 2, 0, None)]
        await bench.deliver_all()
        found = life(bench, 2)
        assert (found.first_poll, told(found)) == (START + 5, [])

    async def test_an_event_whose_group_lost_a_part_is_found_where_it_is_now(self, tmp_path: Path) -> None:
        async with Bench(tmp_path, batch_bytes=1_000_000) as bench:
            await bench.poll("n1", [usable(number, text="x" * 70_000) for number in range(3)])
            await self.mend(bench, "DELETE FROM pieces WHERE id = (SELECT min(id) FROM pieces)")
            assert told(life(bench, 2)) == [(GroupState.WAITING, 0, 0, 2, 2, 0, None)]

    async def test_a_word_that_the_disk_changed_is_told_as_damage(self, bench: Bench) -> None:
        await bench.query("UPDATE history SET outcome = 'delivered!'")
        with pytest.raises(StoreDamaged, match="'delivered!' is nothing that becomes of a group"):
            lives(bench, "first")


async def test_a_clock_that_is_followed_moves_what_is_told_with_it(bench: Bench) -> None:
    await bench.poll("n1", [usable(1)])
    await bench.deliver_all()
    await bench.poll("n1", [usable(2)])
    await fail(bench, "503")
    await bench.store.shift(-7_200, {})
    for event_id in (1, 2):
        found = life(bench, event_id)
        (record,) = found.records
        times = (found.first_poll, found.last_seen, record.fetched_time, record.first_offer, record.latest_offer)
        assert times == (START + 5 - 7_200,) * 5
    assert life(bench, 1).records[0].time == START + 5 - 7_200


class TestRetention:
    async def deliver_one_by_one(self, bench: Bench, count: int) -> None:
        for number in range(count):
            await bench.poll("n1", [usable(number)])
            await bench.deliver_all()
            bench.now += 5

    async def test_what_became_of_an_event_is_forgotten_with_time(self, bench: Bench) -> None:
        await self.deliver_one_by_one(bench, 2)
        bench.now = START + 5 + RETENTION
        # What introduced the settings, ids and all.
        assert await bench.store.purge(int(bench.now)) == 4
        assert told(life(bench, 0)) == [(Outcome.DELIVERED, 5, 5, 1, 1, 1, None)]
        bench.now += 1
        await bench.poll("n1", [usable(0), usable(1)])
        assert await bench.store.purge(int(bench.now)) == 1
        assert await bench.store.purge(int(bench.now)) == 0
        assert [told(life(bench, number)) for number in (0, 1)] == [
            [],
            [(Outcome.DELIVERED, 10, 10, 1, 1, 1, None)],
        ]

    async def test_no_more_is_kept_than_there_is_room_for(self, bench: Bench) -> None:
        await self.deliver_one_by_one(bench, 6)

        def purge(connection: sqlite3.Connection) -> list[int]:
            return [history.purge(connection, before=0, most=3, step=2) for _ in range(4)]

        assert await bench.store._database.run(purge) == [2, 2, 1, 0]
        assert [len(told(life(bench, number))) for number in range(6)] == [0, 0, 0, 1, 1, 1]

    @pytest.mark.parametrize(("storage_bytes", "rows"), [(1 << 30, 200_000), (1 << 40, 200_000), (16_777_216, 16_384)])
    def test_a_small_store_keeps_less(self, storage_bytes: int, rows: int) -> None:
        assert history.most_rows(storage_bytes) == rows


async def test_a_store_that_cannot_note_an_answer_does_not_hide_what_happened(bench: Bench) -> None:
    await bench.poll("n1", [usable(1)])
    with StoreAccess(bench._path) as store:
        store._connection.execute(
            "CREATE TRIGGER full BEFORE UPDATE OF answer ON groups BEGIN SELECT RAISE(ABORT, 'no'); END"
        )
    await fail(bench, "503")
    assert told(life(bench, 1)) == [(GroupState.IN_FLIGHT, 5, 5, 1, 1, 1, None)]


async def test_secrets_in_what_exastro_says_are_not_kept(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.delivery_type = functools.partial(Delivery, redact=lambda text: text.replace("something", "********"))
    async with bench:
        await bench.poll("n1", [usable(1)])
        await fail(bench, "503")
        assert told(life(bench, 1), answer_characters=35) == [
            (GroupState.IN_FLIGHT, 0, 0, 1, 1, 1, "Exastro was expected, but ******** ")
        ]
