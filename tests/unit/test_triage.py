"""The outbox in a person's hands: what retry and drop do to keys and to the exactly-once rules."""

import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from exactly_once import Bench, usable
from ita_ag_oase.errors import ExastroUnavailable, StoreUnavailable
from ita_ag_oase.model import GroupChoice, GroupKey, GroupState, OutboxGroup, OutboxSummary, Tally
from ita_ag_oase.store.access import StoreAccess

START = 1_700_000_000
EVERYTHING = GroupChoice()
PARKED = GroupChoice(frozenset({GroupState.PARKED}))
PARKED_ONE = GroupChoice(PARKED.states, frozenset({GroupKey("n1", 100)}))
WITH_WAITING = GroupChoice(frozenset({GroupState.PARKED, GroupState.WAITING}))
DISCARDED = "499-01827: the event collection setting is discarded"


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with Bench(tmp_path) as bench:
        await bench.introduce()
        yield bench


@pytest.fixture
async def empty(tmp_path: Path) -> AsyncIterator[Bench]:
    async with Bench(tmp_path) as bench:
        yield bench


def discard(bench: Bench, *names: str) -> None:
    bench.exastro.rows = [{**row, "DISUSE_FLAG": "1"} if name in names else row for name, row in bench.rows.items()]


def retry(bench: Bench, choice: GroupChoice = PARKED) -> Tally:
    with StoreAccess(bench._path) as store:
        return store.retry(choice, int(bench.now))


def drop(bench: Bench, choice: GroupChoice = PARKED, among: frozenset[OutboxGroup] | None = None) -> Tally:
    with StoreAccess(bench._path) as store:
        return store.drop(choice, int(bench.now), among=among)


def groups(bench: Bench, choice: GroupChoice = EVERYTHING) -> list[OutboxGroup]:
    with StoreAccess(bench._path) as store:
        return store.groups(choice)


def findings(bench: Bench) -> tuple[str, ...]:
    with StoreAccess(bench._path) as store:
        return tuple(map(str, store.verify().findings))


async def park(bench: Bench, name: str, events: Sequence[int | str], *, first_faults: Sequence[str] = ()) -> None:
    """Poll events of a setting that is discarded for a moment, after faults that left their fate unknown."""
    await bench.poll(name, [usable(event) for event in events])
    bench.exastro.faults.extend(first_faults)
    for _ in first_faults:
        with pytest.raises(ExastroUnavailable):
            await bench.deliver_all()
    discard(bench, name)
    await bench.deliver_all()
    discard(bench)
    bench.now += 5


def fetched_times(body: bytes) -> dict[str, int]:
    return {str(event["id"]): group["fetched_time"] for group in json.loads(body)["events"] for event in group["event"]}


class TestRetry:
    async def test_retried_groups_arrive_once_behind_what_waits(self, bench: Bench) -> None:
        await park(bench, "n1", [1, 2])
        await park(bench, "n1", [3])
        await bench.poll("n1", [usable(4)])
        assert retry(bench) == Tally(groups=2, events=3)
        await bench.poll("n1", [usable(5)])
        await bench.deliver_all()
        assert bench.arrived("n1") == ["4", "1", "2", "3", "5"]
        assert (bench.exastro.repeated, groups(bench), findings(bench)) == (0, [], ())

    @pytest.mark.parametrize("fault", ["503", "lost"])
    async def test_the_key_of_a_request_in_flight_does_not_move(self, bench: Bench, fault: str) -> None:
        bodies: list[bytes] = []
        bench.exastro.before_saving = lambda request: bodies.append(request.body)
        await park(bench, "n1", [1])
        await bench.poll("n1", [usable(2)])
        bench.exastro.faults.append(fault)
        with pytest.raises(ExastroUnavailable):
            await bench.deliver_all()
        assert retry(bench) == Tally(groups=1, events=1)
        await bench.deliver_all()
        assert bodies[1] == bodies[2]
        assert (bench.arrived("n1"), bench.exastro.repeated) == (["2", "1"], 0)

    async def test_what_was_refused_at_its_first_offer_is_known_not_to_be_saved(self, bench: Bench) -> None:
        bodies: list[bytes] = []
        bench.exastro.before_saving = lambda request: bodies.append(request.body)
        await park(bench, "n1", [1])
        retry(bench)
        await bench.deliver_all()
        first, second = (fetched_times(body)["1"] for body in bodies)
        assert second > first

    @pytest.mark.parametrize(("fault", "meant"), [("lost", "already_saved"), ("503", "delivered")])
    async def test_a_group_that_may_have_been_saved_keeps_its_key_so_that_exastro_can_tell(
        self, bench: Bench, fault: str, meant: str
    ) -> None:
        await park(bench, "n1", [1], first_faults=[fault])
        await bench.poll("n1", [usable(2)])
        retry(bench)
        await bench.deliver_all()
        assert (bench.arrived("n1"), bench.exastro.repeated) == (["1", "2"], 0)
        with StoreAccess(bench._path) as store:
            (ledger, _) = store.verify().ledgers
        assert (getattr(ledger, meant), ledger.is_balanced) == (3 if meant == "delivered" else 1, True)

    async def test_several_that_go_first_leave_a_store_that_passes_for_sound(self, bench: Bench) -> None:
        for name in ("n1", "n2"):
            await park(bench, name, [1, 2], first_faults=["lost"])
        await bench.poll("n1", [usable(3)])
        assert retry(bench) == Tally(groups=2, events=4)
        await bench.restart()
        assert await bench.store.mend(agent_name="agent-1", now=bench.now) is None
        await bench.deliver_all()
        assert (bench.arrived("n1"), bench.arrived("n2"), bench.exastro.repeated) == (["1", "2", "3"], ["1", "2"], 0)

    async def test_it_gets_a_new_key_once_a_later_one_of_the_setting_was_saved(self, bench: Bench) -> None:
        # It was not saved, and "already saved" would now be said of the later one's key.
        await park(bench, "n1", [1], first_faults=["503"])
        await bench.poll("n1", [usable(2)])
        await bench.deliver_all()
        retry(bench)
        await bench.deliver_all()
        assert bench.arrived("n1") == ["2", "1"]

    async def test_it_gets_a_new_key_while_a_later_one_may_have_been_saved(self, bench: Bench) -> None:
        await park(bench, "n1", [1], first_faults=["503"])
        await bench.poll("n1", [usable(2)])
        bench.exastro.faults.append("lost")
        with pytest.raises(ExastroUnavailable):
            await bench.deliver_all()
        retry(bench)
        await bench.deliver_all()
        assert (bench.arrived("n1"), bench.exastro.repeated) == (["2", "1"], 0)

    @pytest.mark.parametrize("first_faults", [[], ["503"]], ids=["surely not saved", "may have been saved"])
    async def test_after_days_it_gets_a_key_that_protects_from_repetition(
        self, bench: Bench, first_faults: list[str]
    ) -> None:
        await park(bench, "n1", [1], first_faults=first_faults)
        bench.now += 80 * 3_600
        retry(bench)
        bench.exastro.faults.extend(["lost", "lost"])
        for _ in range(2):
            with pytest.raises(ExastroUnavailable):
                await bench.deliver_all()
        await bench.deliver_all()
        assert (bench.arrived("n1"), bench.exastro.repeated) == (["1"], 0)

    async def test_a_group_that_is_refused_again_is_parked_again(self, bench: Bench) -> None:
        bench.exastro.refuses = lambda event: event["id"] == 1
        await bench.poll("n1", [usable(1)])
        await bench.deliver_all()
        for _ in range(2):
            assert retry(bench) == Tally(groups=1, events=1)
            await bench.deliver_all()
        assert [group.state for group in groups(bench)] == [GroupState.PARKED]
        assert (bench.arrived("n1"), findings(bench)) == ([], ())

    async def test_what_is_not_parked_is_left_alone(self, bench: Bench) -> None:
        await bench.poll("n1", [usable(1)])
        before = groups(bench)
        assert retry(bench, EVERYTHING) == Tally(groups=0, events=0)
        assert groups(bench) == before

    async def test_damaged_bytes_are_sent_as_they_are_once_someone_wants_it(self, bench: Bench) -> None:
        await bench.poll("n1", [usable(1, text="old")])
        with StoreAccess(bench._path) as store:
            store._connection.execute("UPDATE pieces SET events = replace(events, 'old', 'new')")
        await bench.deliver_all()
        assert bench.arrived("n1") == []
        retry(bench)
        await bench.deliver_all()
        assert [event.event["text"] for event in bench.exastro.saved] == ["new"]


# A group under test has the key 100; the columns are key, cut_key, in_request, maybe_saved and whether it is parked.
Other = tuple[int | None, int | None, int, int, bool]


async def arrange(bench: Bench, maybe_saved: int, settled_key: int, others: Sequence[Other]) -> None:
    """Give the setting n1 a parked group with the key 100, and others before and behind it."""

    def work(connection: Any) -> None:
        connection.execute("UPDATE settings SET settled_key = ?, last_key = 900 WHERE name = 'n1'", (settled_key,))
        insert = (
            "INSERT INTO groups (setting, poll, first_event, agent_name, event_count, byte_count, number, key, cut_key,"
            " in_request, maybe_saved, parked_reason) VALUES (1, ?, 0, 'agent-1', 1, 3, ?, ?, ?, ?, ?, ?)"
        )
        connection.execute(insert, (5, 1, 100, None, 0, maybe_saved, "refused"))
        for number, (key, cut_key, in_request, state, is_parked) in enumerate(others, 2):
            reason = "refused" if is_parked else None
            connection.execute(insert, (number + 10, number, key, cut_key, in_request, state, reason))

    await bench.store._database.run(work)


async def row(bench: Bench, sql: str) -> Any:
    return await bench.store._database.run(lambda connection: connection.execute(sql).fetchone())


class TestKeyAtRetry:
    @pytest.mark.parametrize(
        ("maybe_saved", "settled_key", "others", "is_kept"),
        [
            pytest.param(1, 100, [], True, id="may have been saved, nothing else"),
            pytest.param(1, 100, [(110, None, 0, 0, False)], True, id="what waits behind it surely was not saved"),
            pytest.param(1, 100, [(None, None, 0, 0, False)], True, id="a part without a key waits"),
            pytest.param(1, 100, [(90, None, 0, 1, True)], True, id="an earlier key is parked"),
            pytest.param(0, 100, [], False, id="surely not saved"),
            pytest.param(2, 100, [], False, id="only the whole may have been saved"),
            pytest.param(1, 110, [], False, id="a later key is settled"),
            pytest.param(1, 100, [(110, None, 0, 1, False)], False, id="a later one may have been saved"),
            pytest.param(1, 100, [(110, None, 1, 0, False)], False, id="a later one is in flight"),
            pytest.param(1, 100, [(90, None, 0, 0, False)], False, id="an earlier key waits"),
            pytest.param(1, 100, [(90, None, 1, 1, False)], False, id="an earlier key is in flight"),
            pytest.param(1, 100, [(None, 110, 0, 2, False)], False, id="a later whole may have been saved"),
            pytest.param(1, 100, [(110, 110, 0, 2, True)], False, id="the same, and a part of it is parked"),
        ],
    )
    async def test_a_key_is_kept_only_where_already_saved_is_conclusive(
        self, empty: Bench, maybe_saved: int, settled_key: int, others: list[Other], is_kept: bool
    ) -> None:
        empty.now = 200
        await arrange(empty, maybe_saved, settled_key, others)
        before = await row(
            empty, "SELECT group_concat(number || poll || coalesce(key, '')) FROM groups WHERE number > 1"
        )
        assert retry(empty, PARKED_ONE) == Tally(groups=1, events=1)
        first, last = await row(empty, "SELECT min(poll), max(poll) FROM groups WHERE parked_reason IS NULL")
        assert await row(empty, "SELECT key, cut_key, maybe_saved, poll, parked_time FROM groups WHERE number = 1") == (
            (100, None, 1, first, None) if is_kept else (None, None, 0, last, None)
        )
        after = await row(
            empty, "SELECT group_concat(number || poll || coalesce(key, '')) FROM groups WHERE number > 1"
        )
        assert after == before

    async def test_a_key_that_exastro_has_forgotten_is_not_kept(self, empty: Bench) -> None:
        empty.now = 100 + 259_200
        await arrange(empty, 1, 100, [])
        retry(empty)
        assert await row(empty, "SELECT key FROM groups") == (None,)

    @pytest.mark.parametrize(
        ("others", "settled_key"),
        [
            pytest.param([(None, 100, 0, 2, False)], 50, id="is left to a part that waits"),
            pytest.param([(None, 99, 0, 2, False)], 100, id="is done with once the last part has another"),
        ],
    )
    async def test_the_key_of_a_whole_that_may_have_been_saved(
        self, empty: Bench, others: list[Other], settled_key: int
    ) -> None:
        await arrange(empty, 2, 50, others)
        await empty.store._database.run(lambda c: c.execute("UPDATE groups SET cut_key = 100 WHERE number = 1"))
        retry(empty, PARKED_ONE)
        assert await row(empty, "SELECT settled_key FROM settings WHERE name = 'n1'") == (settled_key,)


class TestDrop:
    async def test_dropped_groups_are_gone_and_counted(self, bench: Bench) -> None:
        await park(bench, "n1", [1, 2])
        await park(bench, "n2", [3])
        assert drop(bench, GroupChoice(PARKED.states, setting_name="n1")) == Tally(groups=1, events=2)
        with StoreAccess(bench._path) as store:
            found = store.verify()
        assert [(ledger.setting_name, ledger.dropped, ledger.parked) for ledger in found.ledgers] == [
            ("n1", 2, 0),
            ("n2", 0, 1),
        ]
        assert found.findings == ()
        await bench.poll("n1", [usable(1), usable(4)])
        await bench.deliver_all()
        assert bench.arrived("n1") == ["4"]

    async def test_waiting_ones_are_dropped_on_demand_but_none_in_flight(self, bench: Bench) -> None:
        await bench.poll("n1", [usable(1)])
        bench.exastro.faults.append("503")
        with pytest.raises(ExastroUnavailable):
            await bench.deliver_all()
        bench.now += 5
        await bench.poll("n1", [usable(2)])
        assert drop(bench) == Tally(groups=0, events=0)
        assert drop(bench, EVERYTHING) == Tally(groups=1, events=1)
        await bench.deliver_all()
        assert (bench.arrived("n1"), findings(bench)) == (["1"], ())

    async def test_only_what_was_asked_about_is_dropped(self, bench: Bench) -> None:
        await park(bench, "n1", [1])
        asked_about = frozenset(groups(bench))
        await park(bench, "n1", [2])
        assert drop(bench, among=asked_about) == Tally(groups=1, events=1)
        assert [group.key for group in groups(bench)] == [GroupKey("n1", START + 10)]

    async def test_a_group_that_came_in_the_place_of_one_that_was_asked_about_is_not_dropped(
        self, bench: Bench
    ) -> None:
        await bench.poll("n1", [usable(1)])
        asked_about = frozenset(groups(bench))
        await bench.deliver_all()
        bench.now += 5
        await bench.poll("n1", [usable(2)])
        # SQLite gives a number again.
        assert {group.number for group in groups(bench)} == {group.number for group in asked_about}
        assert drop(bench, WITH_WAITING, among=asked_about) == Tally(groups=0, events=0)
        assert [group.key for group in groups(bench)] == [GroupKey("n1", START + 10)]

    @pytest.mark.parametrize(
        ("maybe_saved", "others", "settled_key"),
        [
            pytest.param(0, [], 50, id="surely not saved"),
            pytest.param(1, [], 100, id="may have been saved"),
            pytest.param(2, [(None, 100, 0, 2, False)], 50, id="only the whole, and another part is left"),
            pytest.param(2, [], 100, id="only the whole, and it was the last part"),
            pytest.param(3, [(None, 100, 0, 2, False)], 100, id="the whole, or the part alone"),
        ],
    )
    async def test_the_key_of_a_dropped_group_is_done_with_where_it_may_have_counted(
        self, empty: Bench, maybe_saved: int, others: list[Other], settled_key: int
    ) -> None:
        await arrange(empty, maybe_saved, 50, others)
        await empty.store._database.run(
            lambda c: c.execute("UPDATE groups SET parked_reason = NULL, cut_key = 100 WHERE number = 1")
        )
        assert drop(empty, GroupChoice(WITH_WAITING.states, frozenset({GroupKey("n1", 100)}))) == Tally(1, 1)
        assert await row(empty, "SELECT settled_key, dropped FROM settings WHERE name = 'n1'") == (settled_key, 1)

    async def test_a_store_that_was_full_has_room_again_without_a_delivery(self, bench: Bench) -> None:
        bench.store._max_bytes = 300_000
        bench.exastro.refuses = lambda _: True
        await bench.poll("n1", [usable(number, filler="x" * 30_000) for number in range(10)])
        await bench.deliver_all()
        with pytest.raises(StoreUnavailable):
            bench.store.require_room()
        drop(bench)
        await bench.deliver_all()
        bench.store.require_room()


class TestLooking:
    async def test_groups_are_told_with_state_reason_and_age(self, bench: Bench) -> None:
        await park(bench, "n1", [1, 2])
        await bench.poll("n2", [usable(3)])
        bench.exastro.faults.append("503")
        with pytest.raises(ExastroUnavailable):
            await bench.deliver_all()
        await bench.poll("n2", [usable(4)])
        reason = f"{DISCARDED} ({bench.rows['n1']['EVENT_COLLECTION_SETTINGS_ID']})"
        parked, in_flight, waiting = groups(bench)
        assert (parked.key, parked.state, parked.reason, parked.parked_time, parked.since, parked.event_count) == (
            GroupKey("n1", START + 5),
            GroupState.PARKED,
            reason,
            START + 5,
            START + 5,
            2,
        )
        assert (in_flight.key, in_flight.state, in_flight.since) == (
            GroupKey("n2", START + 10),
            GroupState.IN_FLIGHT,
            START + 10,
        )
        assert (waiting.key, waiting.state, waiting.agent_name) == (
            GroupKey("n2", START + 13),
            GroupState.WAITING,
            "agent-1",
        )
        with StoreAccess(bench._path) as store:
            found = store.summary()
        assert found == [
            OutboxSummary("n1", GroupState.PARKED, reason, 1, 2, parked.byte_count, START + 5),
            OutboxSummary("n2", GroupState.IN_FLIGHT, None, 1, 1, in_flight.byte_count, START + 10),
            OutboxSummary("n2", GroupState.WAITING, None, 1, 1, waiting.byte_count, START + 10),
        ]

    @pytest.mark.parametrize(
        ("choice", "chosen"),
        [
            pytest.param(EVERYTHING, [1, 2, 3], id="all"),
            pytest.param(PARKED, [1, 2], id="a state"),
            pytest.param(GroupChoice(setting_name="n1"), [1, 3], id="a setting"),
            pytest.param(GroupChoice(setting_name="n"), [], id="part of a name is none"),
            pytest.param(GroupChoice(reason="too large"), [2], id="part of a reason"),
            pytest.param(GroupChoice(reason="", setting_name="n1"), [1], id="any reason"),
            pytest.param(GroupChoice(keys=frozenset({GroupKey("n1", 100), GroupKey("n2", 110)})), [1, 2], id="keys"),
            pytest.param(GroupChoice(keys=frozenset({GroupKey("n2", 100)})), [], id="another setting's key"),
            pytest.param(PARKED_ONE, [1], id="together they narrow"),
        ],
    )
    async def test_groups_are_chosen_by_all_that_is_given(
        self, empty: Bench, choice: GroupChoice, chosen: list[int]
    ) -> None:
        await arrange(empty, 0, 100, [(110, None, 0, 0, True), (None, None, 0, 0, False)])
        await empty.store._database.run(
            lambda c: c.execute("UPDATE groups SET setting = 2, parked_reason = '413: too large' WHERE number = 2")
        )
        assert [group.number for group in groups(empty, choice)] == chosen

    async def test_pieces_are_read_one_by_one_as_they_were_at_the_first(self, bench: Bench) -> None:
        await bench.poll("n1", [usable(number, filler="x" * 40_000) for number in range(6)])
        with StoreAccess(bench._path) as store:
            pieces = store.pieces(EVERYTHING)
            read = [next(pieces)]
            await bench.deliver_all()
            read += pieces
        numbers = [event["id"] for _, piece in read for event in json.loads(b"[%b]" % piece)]
        assert (numbers, bench.arrived("n1")) == (list(range(6)), [str(number) for number in range(6)])

    async def test_a_group_without_pieces_comes_with_an_empty_one(self, empty: Bench) -> None:
        await arrange(empty, 0, 100, [])
        (group,) = groups(empty)
        with StoreAccess(empty._path) as store:
            assert list(store.pieces(EVERYTHING)) == [(group, b"")]
