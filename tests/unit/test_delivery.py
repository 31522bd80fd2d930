"""Store and delivery together, against an Exastro that keeps to protocol section 1.5."""

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from exactly_once import Bench, usable
from ita_ag_oase.demo.loopback import Reply, Request
from ita_ag_oase.errors import ExastroUnavailable, TermEnded
from ita_ag_oase.model import Claim, Event
from ita_ag_oase.observability.health import Health
from ita_ag_oase.store.database import Database
from support import in_english


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with Bench(tmp_path) as bench:
        yield bench


async def test_events_arrive_with_their_labels_in_order(bench: Bench) -> None:
    await bench.poll("n1", [usable(1, text="ä\u2028"), Event("77", True, b'{"x":1.50}', "EVENT_ID_KEY not found")])
    await bench.deliver_all()
    common = {
        "_exastro_event_collection_settings_name": "n1",
        "_exastro_event_collection_settings_id": bench.rows["n1"]["EVENT_COLLECTION_SETTINGS_ID"],
        "_exastro_fetched_time": 1_700_000_000,
        "_exastro_end_time": 1_700_000_060,
    }
    assert [event.event for event in bench.exastro.saved] == [
        {"id": 1, "text": "ä\u2028", "_exastro_oase_event_id": "1", **common},
        {
            "x": 1.5,
            "_exastro_oase_event_id": "77",
            **common,
            "_exastro_not_available": "EVENT_ID_KEY not found",
        },
    ]


@pytest.mark.parametrize("raw", [b"{}", b"{ }", b'{"_exastro_oase_event_id":"forged","_exastro_fetched_time":1}'])
async def test_labels_are_the_agents_own(bench: Bench, raw: bytes) -> None:
    await bench.poll("n1", [Event("5", False, raw, None)])
    await bench.deliver_all()
    assert [event.event for event in bench.exastro.saved] == [
        {
            "_exastro_oase_event_id": "5",
            "_exastro_event_collection_settings_name": "n1",
            "_exastro_event_collection_settings_id": bench.rows["n1"]["EVENT_COLLECTION_SETTINGS_ID"],
            "_exastro_fetched_time": 1_700_000_000,
            "_exastro_end_time": 1_700_000_060,
        }
    ]


async def test_settings_travel_together_once_exastro_knows_them(bench: Bench) -> None:
    for number in range(3):
        bench.now += 5
        await bench.poll("n1", [usable(number)])
        await bench.poll("n2", [usable(number)])
        await bench.deliver_all()
    # Two at first, since Exastro's progress for a setting that is new here is not known.
    assert len(bench.exastro.posts) == 2 + 1 + 1
    assert bench.arrived("n1") == bench.arrived("n2") == ["0", "1", "2"]


@pytest.mark.parametrize("fault", ["503", "cut", "lost", "half", "html", "498", "499-01803", "401"])
async def test_one_request_is_sent_unchanged_until_its_fate_is_known(bench: Bench, fault: str) -> None:
    await bench.introduce()
    bodies: list[bytes] = []
    bench.exastro.before_saving = lambda request: bodies.append(request.body)
    for name in ("n1", "n2"):
        await bench.poll(name, [usable(number) for number in range(5)])
    bench.exastro.faults.extend([fault, fault])
    for _ in range(2):
        with pytest.raises(ExastroUnavailable):
            await bench.delivery.deliver_next()
        bench.now += 5
        await bench.poll("n1", [usable(f"later-{bench.now}")])
        await bench.restart("another-pod")
    await bench.deliver_all()
    assert bodies[0] == bodies[1] == bodies[2]
    assert bench.exastro.repeated == 0
    assert bench.arrived("n1") == ["0", "1", "2", "3", "4", "later-1700000010", "later-1700000015"]
    assert bench.arrived("n2") == ["0", "1", "2", "3", "4"]


async def test_requests_stay_within_events_and_bytes(tmp_path: Path) -> None:
    async with Bench(tmp_path, batch_events=30, batch_bytes=65_536) as bench:
        await bench.poll("n1", [usable(number, filler="x" * 200) for number in range(100)])
        bench.now += 5
        await bench.poll("n1", [usable(number, filler="x" * 5_000) for number in range(100, 140)])
        await bench.deliver_all()
    assert bench.arrived("n1") == [str(number) for number in range(140)]
    assert max(bench.exastro.posts) <= 65_536
    sizes = [
        len([event for event in bench.exastro.saved if event.fetched_time == key])
        for key in sorted({event.fetched_time for event in bench.exastro.saved})
    ]
    assert max(sizes) <= 30


async def test_an_event_larger_than_a_request_travels_alone(bench: Bench) -> None:
    await bench.poll("n1", [usable(1), usable(2, filler="x" * 200_000), usable(3)])
    await bench.deliver_all()
    assert bench.arrived("n1") == ["1", "2", "3"]


async def test_keys_take_unused_seconds_before_the_poll_and_never_fall(bench: Bench) -> None:
    bench.now += 100
    await bench.poll("n1", [usable(number) for number in range(250)])
    bench.now += 1
    await bench.poll("n1", [usable(number) for number in range(250, 500)])
    bench.now -= 3_600
    await bench.poll("n1", [usable(500)])
    await bench.deliver_all()
    keys = list(dict.fromkeys(event.fetched_time - 1_700_000_000 for event in bench.exastro.saved))
    assert keys == [80, 90, 100, 103, 106, 109, 112]
    labels = list(dict.fromkeys(event.event["_exastro_fetched_time"] - 1_700_000_000 for event in bench.exastro.saved))
    assert labels == [100, 101, -3_499]


class TestTooLarge:
    async def test_groups_are_cut_until_they_pass_and_the_size_is_remembered(self, tmp_path: Path) -> None:
        async with Bench(tmp_path, batch_events=1_000, batch_bytes=400_000) as bench:
            bench.exastro.max_request_bytes = 30_000
            refused = 0
            for number in range(3):
                bench.now += 5
                await bench.poll("n1", [usable(f"{number}-{event}", filler="x" * 200) for event in range(400)])
                await bench.poll("n2", [usable(f"{number}-{event}") for event in range(3)])
                await bench.deliver_all()
                if number == 0:
                    refused = sum(size > 30_000 for size in bench.exastro.posts)
            assert refused > 0
            assert sum(size > 30_000 for size in bench.exastro.posts) == refused
        assert bench.arrived("n1") == [f"{number}-{event}" for number in range(3) for event in range(400)]
        assert bench.arrived("n2") == [f"{number}-{event}" for number in range(3) for event in range(3)]
        assert bench.exastro.repeated == 0

    @pytest.mark.parametrize("before", [["lost"], ["cut"], ["lost", "503"], ["lost", "413", "lost"]])
    async def test_a_cut_after_an_answer_that_got_lost_repeats_nothing(self, tmp_path: Path, before: list[str]) -> None:
        async with Bench(tmp_path, batch_events=1_000, batch_bytes=400_000) as bench:
            await bench.poll("n1", [usable(number) for number in range(200)])
            bench.now += 1
            await bench.poll("n1", [usable(number) for number in range(200, 400)])
            bench.exastro.faults.extend(before)
            for _ in range(20):
                if not bench.exastro.faults:
                    bench.exastro.max_request_bytes = 5_000
                try:
                    await bench.deliver_all()
                    break
                except ExastroUnavailable:
                    await bench.restart()
        assert bench.arrived("n1") == [str(number) for number in range(400)]
        assert bench.exastro.repeated == 0

    @pytest.mark.parametrize("between", range(1, 8))
    async def test_two_answers_lost_around_a_fall_of_the_gateways_limit_repeat_nothing(
        self, tmp_path: Path, between: int
    ) -> None:
        async with Bench(tmp_path, batch_events=20) as bench:
            await bench.introduce()
            await bench.poll("n1", [usable(number, filler="x" * 600) for number in range(20)])
            faults: Iterator[str | None] = iter(["lost", *[None] * between, "lost"])
            bench.exastro.before_saving = lambda _: next(faults, None)
            # The faults come before it, so that the first request passes.
            bench.exastro.max_request_bytes = 8_000
            for _ in range(2):
                with contextlib.suppress(ExastroUnavailable):
                    await bench.deliver_all()
            await bench.deliver_all()
        assert bench.arrived("n1") == [str(number) for number in range(20)]

    async def test_a_rest_under_another_key_that_is_taken_moves_on_and_is_not_lost(self, tmp_path: Path) -> None:
        async with Bench(tmp_path, batch_events=20) as bench:
            await bench.introduce()
            await bench.poll("n1", [usable(number, filler="x" * 600) for number in range(20)])
            # Of each event that goes ahead the first answer gets lost, and the second tells nothing about the whole.
            faults: Iterator[str | None] = iter(["503", None, *["lost", None] * 5])
            bench.exastro.before_saving = lambda _: next(faults, None)
            bench.exastro.max_request_bytes = 8_000
            for _ in range(6):
                with pytest.raises(ExastroUnavailable):
                    await bench.deliver_all()
            bench.exastro._progress = {key: int(bench.now) + 50 for key in bench.exastro._progress}
            await bench.deliver_all()
        assert bench.arrived("n1") == [str(number) for number in range(20)]

    async def test_what_is_too_large_only_once_arrives_all_the_same(self, bench: Bench) -> None:
        await bench.introduce()
        await bench.poll("n1", [usable(1)])
        bench.exastro.faults.append("413")
        with pytest.raises(ExastroUnavailable):
            await bench.deliver_all()
        await bench.deliver_all()
        assert bench.arrived("n1") == ["1"]

    async def test_an_answer_lost_again_while_a_group_is_cut_loses_nothing(self, tmp_path: Path) -> None:
        async with Bench(tmp_path, batch_events=1_000, batch_bytes=400_000) as bench:
            for number in range(3):
                bench.now += 5
                await bench.poll("n1", [usable(f"{number}-{event}") for event in range(100)])
            bench.exastro.faults.extend(["503", "503"])
            for _ in range(2):
                with pytest.raises(ExastroUnavailable):
                    await bench.deliver_all()
            bench.exastro.max_request_bytes = 5_000
            for _ in range(60):
                bench.exastro.faults.append("lost")
                try:
                    await bench.deliver_all()
                    break
                except ExastroUnavailable:
                    await bench.restart()
            bench.exastro.faults.clear()
            await bench.deliver_all()
        assert bench.arrived("n1") == [f"{number}-{event}" for number in range(3) for event in range(100)]
        assert bench.exastro.repeated == 0

    async def test_a_single_event_that_is_too_large_is_parked_and_the_rest_goes_on(self, tmp_path: Path) -> None:
        async with Bench(tmp_path, batch_events=1_000, batch_bytes=400_000) as bench:
            bench.exastro.max_request_bytes = 30_000
            events = [usable(number, filler="x" * (40_000 if number == 7 else 100)) for number in range(20)]
            await bench.poll("n1", events)
            await bench.poll("n2", [usable("other")])
            with capture_logs() as logs:
                await bench.deliver_all()
        assert bench.arrived("n1") == [str(number) for number in range(20) if number != 7]
        assert bench.arrived("n2") == ["other"]
        parked = [line for line in logs if line["event"] == "batch_parked"]
        assert [(line["setting"], line["events"], line["code"], line["log_level"]) for line in parked] == [
            ("n1", 1, "AGT-10020", "error")
        ]


class TestRefused:
    async def test_refused_events_are_narrowed_down_and_parked(self, bench: Bench) -> None:
        bench.exastro.refuses = lambda event: event["id"] in (13, 14, 77)
        for name in ("n1", "n2"):
            await bench.poll(name, [usable(number) for number in range(90)])
        await bench.deliver_all()
        expected = [str(number) for number in range(90) if number not in (13, 14, 77)]
        assert bench.arrived("n1") == expected
        assert bench.arrived("n2") == expected
        assert bench.exastro.repeated == 0

    async def test_refused_events_among_many_groups_cost_few_requests(self, tmp_path: Path) -> None:
        names = [f"n{number}" for number in range(64)]
        async with Bench(tmp_path, names) as bench:
            await bench.introduce()
            bench.exastro.refuses = lambda event: event["id"] == "bad"
            for name in names:
                await bench.poll(name, [usable("bad" if name == "n40" else "good")])
            await bench.deliver_all()
        assert sum(bench.exastro.counts.values()) == 63
        assert len(bench.exastro.posts) < 30

    @pytest.mark.parametrize("how", ["unknown", "discarded"])
    async def test_groups_of_a_setting_that_went_are_parked(self, bench: Bench, how: str) -> None:
        for number in range(2):
            bench.now += 5
            await bench.poll("n1", [usable(number), usable(f"{number}b")])
            await bench.poll("n2", [usable(number)])
        if how == "unknown":
            bench.exastro.rows = [row for row in bench.exastro.rows if row is not bench.rows["n1"]]
        else:
            bench.exastro.rows[0] = {**bench.rows["n1"], "DISUSE_FLAG": "1"}
        with capture_logs() as logs:
            await bench.deliver_all()
        assert bench.arrived("n2") == ["0", "1"]
        assert bench.arrived("n1") == []
        assert [(line["setting"], line["events"]) for line in logs if line["event"] == "batch_parked"] == [
            ("n1", 2)
        ] * 2

    async def test_saved_groups_are_not_parked_with_those_of_a_setting_that_went(self, bench: Bench) -> None:
        await bench.poll("n1", [usable(1)])
        await bench.poll("n2", [usable(1)])
        bench.exastro.faults.append("lost")
        with pytest.raises(ExastroUnavailable):
            await bench.delivery.deliver_next()
        # Now n1 is saved but the agent does not know, and n2's groups can never be.
        bench.exastro.rows = [bench.rows["n1"]]
        bench.exastro.saved = [event for event in bench.exastro.saved if event.setting_name == "n1"]
        with capture_logs() as logs:
            await bench.deliver_all()
        assert [line["setting"] for line in logs if line["event"] == "batch_parked"] == ["n2"]
        assert bench.exastro.repeated == 0


class TestKeysThatAreTaken:
    async def test_a_new_store_finds_its_way_past_what_exastro_has(self, bench: Bench) -> None:
        bench.now += 5_000
        await bench.poll("n1", [usable("before")])
        await bench.deliver_all()
        await bench.close()
        bench._path.unlink()
        bench.now -= 5_000
        await bench.open()
        for number in range(3):
            bench.now += 5
            await bench.poll("n1", [usable(number)])
        await bench.deliver_all()
        assert bench.arrived("n1") == ["before", "0", "1", "2"]

    async def test_it_does_so_where_the_message_tells_no_time(self, bench: Bench) -> None:
        bench.exastro._progress[bench.rows["n1"]["EVENT_COLLECTION_SETTINGS_ID"], "agent-1"] = 1_700_003_600
        save = bench.exastro._save

        def save_silently(body: Any) -> Any:
            reply, saved = save(body)
            answer = json.loads(reply.body)
            answer["data"] = [message.split(",")[0] + ")" for message in answer["data"]]
            return Reply(body=json.dumps(answer).encode()), saved

        bench.exastro._save = save_silently  # type: ignore[method-assign]
        for number in range(3):
            bench.now += 5
            await bench.poll("n1", [usable(number)])
        await bench.deliver_all()
        assert bench.arrived("n1") == ["0", "1", "2"]
        assert len(bench.exastro.posts) < 20

    async def test_a_message_without_any_name_does_not_pass_for_an_earlier_save(self, bench: Bench) -> None:
        bench.exastro._progress[bench.rows["n1"]["EVENT_COLLECTION_SETTINGS_ID"], "agent-1"] = 1_700_003_600
        save = bench.exastro._save

        def save_unclearly(body: Any) -> Any:
            reply, saved = save(body)
            answer = json.loads(reply.body)
            answer["data"] = ["499-01818" for _ in answer["data"]]
            return Reply(body=json.dumps(answer).encode()), saved

        bench.exastro._save = save_unclearly  # type: ignore[method-assign]
        for name in ("n1", "n2"):
            await bench.poll(name, [usable(1)])
        await bench.deliver_all()
        assert bench.arrived("n1") == bench.arrived("n2") == ["1"]

    async def test_a_key_grows_young_again_while_exastro_is_out_of_reach(self, bench: Bench) -> None:
        await bench.poll("n1", [usable(1)])
        bench.exastro.faults.extend(["498", "lost", "lost"])
        for hours in (0, 80, 0):
            bench.now += hours * 3_600
            with pytest.raises(ExastroUnavailable):
                await bench.deliver_all()
        await bench.deliver_all()
        assert bench.arrived("n1") == ["1"]

    async def test_a_key_too_old_to_be_remembered_is_replaced_before_its_first_offer(self, bench: Bench) -> None:
        for number in range(3):
            await bench.poll("n1", [usable(number)])
            bench.now += 5
        bench.now += 80 * 3_600
        bench.exastro.faults.extend(["lost", "lost", "lost"])
        for _ in range(3):
            with pytest.raises(ExastroUnavailable):
                await bench.deliver_all()
        await bench.deliver_all()
        assert bench.arrived("n1") == ["0", "1", "2"]
        assert {event.event["_exastro_fetched_time"] for event in bench.exastro.saved} == {
            1_700_000_000,
            1_700_000_005,
            1_700_000_010,
        }


async def test_requests_and_what_became_of_events_are_counted(bench: Bench) -> None:
    await bench.introduce()
    bench.health = bench.delivery._health = Health()
    bench.exastro.refuses = lambda event: event["id"] == "bad"
    await bench.poll("n1", [usable(1), usable(2)])
    bench.exastro.faults.extend(["503", "lost"])
    for _ in range(2):
        with pytest.raises(ExastroUnavailable):
            await bench.delivery.deliver_next()
    await bench.deliver_all()
    bench.now += 5
    await bench.poll("n2", [usable("bad"), usable("good")])
    await bench.deliver_all()
    counts = bench.health.counts
    assert counts.settled_events == {"delivered": 1, "already_saved": 2, "parked": 1}
    assert counts.refused_codes == {"400-00002": 1}
    assert counts.requests == {"succeeded": 2, "not_exastro": 1, "unreachable": 1, "refused": 2}
    assert counts.request_bytes.counts[-1] == counts.request_seconds.counts[-1] == 6


async def test_a_message_that_names_no_setting_is_asked_about_group_by_group(bench: Bench) -> None:
    await bench.introduce()
    await bench.poll("n1", [usable(1)])
    await bench.poll("n2", [usable(1)])
    # The request was saved for n2 only, and the message says neither of which setting nor why.
    bench.exastro.rows = [{**bench.rows["n1"], "DISUSE_FLAG": "1"}, bench.rows["n2"]]
    save = bench.exastro._save
    posts: list[int] = []

    def save_unclearly(body: Any) -> Any:
        posts.append(len(body["events"]))
        reply, saved = save(body)
        answer = json.loads(reply.body)
        answer["data"] = ["499-01818" if "01818" in message else "499-01827" for message in answer["data"]]
        return Reply(body=json.dumps(answer).encode()), saved

    bench.exastro._save = save_unclearly  # type: ignore[method-assign]
    with capture_logs() as logs:
        await bench.deliver_all()
    assert posts == [2, 1, 1]
    assert bench.arrived("n2") == ["1"]
    assert [line["setting"] for line in logs if line["event"] == "batch_parked"] == ["n1"]
    assert bench.exastro.repeated == 0


class TestDamage:
    """The disk changed bytes of a piece; what is sent is what was saved, or nothing."""

    @staticmethod
    async def change(bench: Bench, sql: str) -> None:
        await bench.store._database.run(lambda connection: connection.execute(sql))

    @staticmethod
    async def ledger(bench: Bench, name: str) -> Any:
        """Return new, delivered, already saved and parked events of a setting."""
        query = (
            "SELECT new, delivered, already_saved, (SELECT coalesce(sum(event_count), 0) FROM groups"
            " WHERE setting = s.number AND parked_reason IS NOT NULL) FROM settings s WHERE name = ?"
        )
        return await bench.store._database.run(lambda connection: connection.execute(query, (name,)).fetchone())

    @pytest.mark.parametrize(
        "damage",
        [
            pytest.param("UPDATE pieces SET events = replace(events, '\"id\": 1', '\"id\": 2')", id="still JSON"),
            pytest.param("UPDATE pieces SET events = substr(events, 2)", id="no JSON"),
            pytest.param("UPDATE pieces SET event_count = 3", id="another count"),
            pytest.param("DELETE FROM pieces", id="missing"),
        ],
    )
    async def test_a_group_that_changed_on_disk_is_parked_and_the_rest_goes_on(self, bench: Bench, damage: str) -> None:
        await bench.introduce()
        await bench.poll("n1", [usable(1)])
        await self.change(bench, damage)
        await bench.poll("n2", [usable(1)])
        with capture_logs() as logs:
            await bench.deliver_all()
        assert (bench.arrived("n1"), bench.arrived("n2")) == ([], ["1"])
        assert [line for line in in_english(logs) if line["event"] == "batch_parked"] == [
            {
                "event": "batch_parked",
                "log_level": "error",
                "code": "AGT-10020",
                "setting": "n1",
                "fetched_time": 1_700_000_005,
                "events": 1,
                "detail": "its events can no longer be read: the bytes on disk are damaged",
            }
        ]
        assert await self.ledger(bench, "n1") == (2, 1, 0, 1)

    async def test_bytes_that_became_text_are_sent_as_they_are(self, bench: Bench) -> None:
        await bench.poll("n1", [usable(1)])
        await self.change(bench, "UPDATE pieces SET events = CAST(events AS TEXT), event_count = '1'")
        await bench.deliver_all()
        assert bench.arrived("n1") == ["1"]

    async def test_it_is_left_out_of_a_request_whose_fate_is_unknown(self, bench: Bench) -> None:
        await bench.introduce()
        await bench.poll("n1", [usable(1)])
        await bench.poll("n2", [usable(1)])
        bench.exastro.faults.append("lost")
        with pytest.raises(ExastroUnavailable):
            await bench.deliver_all()
        await self.change(bench, "UPDATE pieces SET checksum = 7 WHERE id = (SELECT min(id) FROM pieces)")
        await bench.deliver_all()
        assert (bench.arrived("n1"), bench.arrived("n2"), bench.exastro.repeated) == (["1"], ["1"], 0)
        assert await self.ledger(bench, "n1") == (2, 1, 0, 1)
        assert await self.ledger(bench, "n2") == (2, 1, 1, 0)

    async def test_bytes_without_a_checksum_that_exastro_refuses_are_parked_in_the_end(self, bench: Bench) -> None:
        await bench.introduce()
        await bench.poll("n1", [usable(1), usable(2)])
        await self.change(bench, "UPDATE pieces SET events = substr(events, 2), checksum = NULL")
        await bench.poll("n2", [usable(1)])
        with capture_logs() as logs:
            await bench.deliver_all()
        assert (bench.arrived("n1"), bench.arrived("n2")) == ([], ["1"])
        assert [(line["setting"], line["events"]) for line in logs if line["event"] == "batch_parked"] == [("n1", 2)]
        assert await self.ledger(bench, "n1") == (3, 1, 0, 2)

    async def test_a_group_too_large_to_be_sent_whole_is_parked_where_it_cannot_be_cut(self, tmp_path: Path) -> None:
        async with Bench(tmp_path, batch_events=100) as bench:
            await bench.poll("n1", [usable(number) for number in range(50)])
            await self.change(bench, "UPDATE pieces SET checksum = 7")
            await bench.poll("n2", [usable(1)])
            await bench.close()
            bench._batch_events = 10
            await bench.open()
            with capture_logs() as logs:
                await bench.deliver_all()
            assert (bench.arrived("n1"), bench.arrived("n2")) == ([], ["1"])
            assert [
                (line["setting"], line["fetched_time"], line["events"])
                for line in logs
                if line["event"] == "batch_parked"
            ] == [("n1", 1_700_000_000, 50)]

    async def test_parts_cut_before_the_damage_was_found_are_delivered(self, tmp_path: Path) -> None:
        async with Bench(tmp_path, batch_events=1_000, batch_bytes=400_000) as bench:
            await bench.poll("n1", [usable(number, filler="x" * 1_000) for number in range(200)])
            await self.change(bench, "UPDATE pieces SET checksum = 7 WHERE id = (SELECT max(id) FROM pieces)")
            (damaged,) = await bench.store._database.run(
                lambda connection: connection.execute(
                    "SELECT event_count FROM pieces ORDER BY id DESC LIMIT 1"
                ).fetchone()
            )
            await bench.close()
            bench._batch_bytes = 100_000
            await bench.open()
            await bench.deliver_all()
            assert bench.arrived("n1") == [str(number) for number in range(200 - damaged)]
            assert await self.ledger(bench, "n1") == (200, 200 - damaged, 0, damaged)


class TestTerm:
    """The agent's term ends: what it still holds in its hands is not posted, and nothing is noted of it."""

    @staticmethod
    async def groups(bench: Bench) -> Any:
        return await bench.query("SELECT in_request, maybe_saved, answer FROM groups")

    @pytest.mark.parametrize("questions", range(8))
    async def test_nothing_arrives_once_it_has_ended_however_late(self, bench: Bench, questions: int) -> None:
        await bench.introduce()
        await bench.poll("n1", [usable(1)])
        # A turn is asked for before the batch is taken, and before each of the five pieces of the request.
        answers = [True] * questions + [False] * 10
        bench.delivery._is_at_work = lambda: answers.pop(0)
        if questions < 6:
            with pytest.raises(TermEnded, match="it sends nothing to Exastro"):
                await bench.deliver_all()
            assert (bench.arrived("n1"), len(bench.exastro.posts)) == ([], 0)
            assert await self.groups(bench) == [(1, 1, None) if questions else (0, 0, None)]
            bench.delivery._is_at_work = lambda: True
            await bench.deliver_all()
        else:
            assert await bench.delivery.deliver_next() == 1
        assert bench.arrived("n1") == ["1"]
        assert bench.exastro.repeated == 0

    async def test_no_batch_is_taken_once_another_term_has_begun(self, bench: Bench) -> None:
        await bench.introduce()
        await bench.store.begin_term(Claim("pod-1", "ns/agent", 1), 0)
        await bench.poll("n1", [usable(1)])
        later = Database(bench._path)
        await later.open()
        await later.begin_term(Claim("pod-2", "ns/agent", 2), 0)
        with pytest.raises(TermEnded, match="pod-2 has begun term 2"):
            await bench.delivery.deliver_next()
        assert bench.exastro.posts == []
        await asyncio.to_thread(later.close)

    async def test_an_answer_that_comes_after_its_end_is_not_noted_and_the_request_comes_again(
        self, bench: Bench
    ) -> None:
        await bench.introduce()
        await bench.store.begin_term(Claim("pod-1", "ns/agent", 1), 0)
        await bench.poll("n1", [usable(1)])

        def pass_over(_: Request) -> None:
            with closing(sqlite3.connect(bench._path)) as connection, connection:
                connection.execute("UPDATE terms SET number = 2")

        bench.exastro.before_saving = pass_over
        with pytest.raises(TermEnded):
            await bench.delivery.deliver_next()
        bench.exastro.before_saving = lambda _: None
        await bench.restart()
        await bench.deliver_all()
        assert (bench.arrived("n1"), bench.exastro.repeated) == (["1"], 0)
