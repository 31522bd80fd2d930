"""One setting, once: what is asked, what is saved, and when the cursor moves (protocol sections 2.3, 2.4 and 2.6)."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from ita_ag_oase.clock import SteadyClock
from ita_ag_oase.collection import MAX_PORTIONS, Collector
from ita_ag_oase.errors import (
    AgentError,
    Reason,
    SettingInvalid,
    SourceRejected,
    SourceUnavailable,
    SourceUnreadable,
    StoreUnavailable,
)
from ita_ag_oase.model import (
    CollectionSetting,
    ConnectionMethod,
    Cursor,
    Event,
    Payload,
    Portion,
    RequestMethod,
    Saved,
    Settlement,
)
from ita_ag_oase.observability.health import Health
from ita_ag_oase.sources.http import HttpClients, HttpSource
from ita_ag_oase.store.outbox import BatchLimits
from ita_ag_oase.store.saving import SavingLimits
from ita_ag_oase.store.store import Store
from ita_ag_oase.text import Text
from ita_ag_oase.transport import Proxies, tls_context

START = 1_704_034_800
LIMITS = BatchLimits(events=1_000, bytes=1_000_000, groups=100)


class Clock:
    """What the wall clock shows."""

    def __init__(self) -> None:
        self.now = float(START)

    def __call__(self) -> float:
        return self.now


class Script:
    """A source that says what it is told: a value as JSON, bytes as they stand, a portion, or an error."""

    def __init__(self, clock: Clock) -> None:
        self.answers: list[Any] = []
        self.asked: list[tuple[Cursor, float]] = []
        self.takes_seconds = 0.0
        self.is_closed = False
        self._clock = clock

    async def fetch(self, cursor: Cursor, now: float) -> Payload | Portion:
        self.asked.append((cursor, now))
        self._clock.now += self.takes_seconds
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, Portion):
            return answer
        return Payload(answer if isinstance(answer, bytes) else json.dumps(answer).encode())

    async def close(self) -> None:
        self.is_closed = True


class Desk:
    """A collector with its source, its store and the clock."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self.store = store
        self.clock = clock
        # Time passes as the clock shows it.
        self.steady = SteadyClock(wall=clock, elapsed=clock)
        self.source = Script(clock)
        self.health = Health(now=clock)

    async def begin(self, **columns: Any) -> Collector:
        """Return the collector of a setting that is first seen now."""
        setting = _setting(**columns)
        await self.store.register(setting.id, setting.name, int(self.clock.now))
        return Collector(setting, self.source, self.store, self.steady, self.health, agent_name="agent")

    async def poll(self, collector: Collector, answer: Any, *, after: float = 10.0) -> Saved | type[Exception]:
        """Poll some seconds later, and return what was saved or how it failed."""
        self.clock.now += after
        self.source.answers.append(answer)
        try:
            return await collector.collect()
        except AgentError as err:
            return type(err)

    async def cursor_time(self) -> int:
        """Return the seconds from the start to the last fetched time."""
        return (await self.store.cursor("id-1")).last_fetched_time - START

    async def execute(self, statement: str) -> None:
        await self.store._database.run(lambda connection: connection.execute(statement).close())

    async def delivered(self) -> list[tuple[int, list[Any]]]:
        """Return the groups on their way, by their keys' seconds from the start, and take them as delivered."""
        found = []
        while (batch := await self.store.next_batch(LIMITS, int(self.clock.now))) is not None:
            for group in batch.groups:
                assert (group.setting_id, group.agent_name) == ("id-1", "agent")
                found.append((group.fetched_time - START, json.loads(b"[" + b",".join(group.pieces) + b"]")))
            settlement = Settlement(saved=frozenset(group.number for group in batch.groups))
            await self.store.settle(batch, settlement, int(self.clock.now))
        return found


async def test_a_poll_during_which_the_clock_was_set_is_not_saved(desk: Desk) -> None:
    collector = await desk.begin(event_id_key="id")
    asked = desk.source.asked

    class Setting(Script):
        async def fetch(self, cursor: Cursor, now: float) -> Payload | Portion:
            desk.steady.move(60.0)
            return await super().fetch(cursor, now)

    collector._source = Setting(desk.clock)
    collector._source.answers = [[{"id": 1}]]
    with pytest.raises(StoreUnavailable, match="the clock was set during the poll"):
        await collector.collect()
    assert asked == []
    assert await desk.store.waiting_events() == 0


def _setting(**columns: Any) -> CollectionSetting:
    values: dict[str, Any] = {
        "id": "id-1",
        "name": "n1",
        "connection_method": ConnectionMethod.NONE,
        "request_method": RequestMethod.GET,
        "url": "http://source/api",
        "port": None,
        "request_header": None,
        "parameter": None,
        "proxy": None,
        "auth_token": "",
        "username": None,
        "password": "",
        "access_key_id": None,
        "secret_access_key": "",
        "mailbox": None,
        "response_key": "items",
        "is_list": True,
        "event_id_key": "id",
        "ttl_seconds": 60,
        "row": {"EVENT_COLLECTION_SETTINGS_NAME": "n1", "NOTE": "seen by templates"},
    }
    return CollectionSetting(**{**values, **columns})


def _event(fetched: int, event_id: str, unavailable: str | None = None, **members: Any) -> dict[str, Any]:
    """Return an event as it is delivered: fetched so many seconds after the start."""
    event = {
        **members,
        "_exastro_oase_event_id": event_id,
        "_exastro_event_collection_settings_name": "n1",
        "_exastro_event_collection_settings_id": "id-1",
        "_exastro_fetched_time": START + fetched,
        "_exastro_end_time": START + fetched + 60,
    }
    return event if unavailable is None else {**event, "_exastro_not_available": unavailable}


def _serial(fetched: int, number: int = 0) -> str:
    return str((START + fetched) * 1_000_000 + number)


def _items(*ids: Any) -> dict[str, Any]:
    return {"items": [{"id": event_id} for event_id in ids]}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "time", clock)
    return clock


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    limits = SavingLimits(group_events=100, group_bytes=100_000, id_retention_seconds=86_400)
    store = Store(tmp_path / "store.sqlite3", limits, storage_max_bytes=1 << 30)
    await store.open()
    yield store
    store.close()


@pytest.fixture
def desk(store: Store, clock: Clock) -> Desk:
    return Desk(store, clock)


async def test_new_events_are_saved_once_labelled_under_the_time_at_which_the_poll_started(desk: Desk) -> None:
    collector = await desk.begin()
    desk.source.takes_seconds = 7.5
    assert await desk.poll(collector, _items(1, "b")) == Saved(new=2, known=0, repeated=0)
    assert await desk.poll(collector, _items("b", 3)) == Saved(new=1, known=1, repeated=0)
    assert await desk.delivered() == [
        (10, [_event(10, "1", id=1), _event(10, "b", id="b")]),
        (27, [_event(27, "3", id=3)]),
    ]


async def test_setting_is_first_asked_from_the_time_at_which_it_was_seen(desk: Desk) -> None:
    collector = await desk.begin()
    await desk.poll(collector, _items())
    assert desk.source.asked == [(Cursor(START, None), START + 10.0)]


CURSOR: dict[str, tuple[dict[str, Any], Any, int]] = {
    "new events": ({}, _items(1), 10),
    "nothing listed": ({}, _items(), 10),
    "empty list as the answer": ({}, [], 10),
    "known events alone": ({}, _items("known"), 10),
    "an event without id": ({}, {"items": [{}]}, 10),
    "no object in the list": ({}, {"items": [7]}, 10),
    "no list": ({}, {"items": {"id": 1}}, 10),
    "a list where none is expected": ({"is_list": False}, _items(1), 10),
    "a scalar": ({}, {"items": "text"}, 10),
    "no response key set": ({"response_key": None}, [{"id": 1}], 10),
    "response key not found": ({}, {"error": "no right"}, 0),
    "response key null": ({}, {"items": None}, 0),
    "response key not found in a list": ({}, [{"error": "no right"}], 0),
    "response key not found in a text": ({}, "error", 0),
    "no json": ({}, b"<html>", 0),
    "empty answer": ({}, b"", 0),
    "expression that cannot take the answer": ({"response_key": "sort(items)"}, {"items": [1, "a"]}, 0),
    "source down": ({}, SourceUnavailable(Text("x"), reason=Reason.TIMEOUT), 0),
    "source refuses": ({}, SourceRejected(Text("x"), reason=Reason.UNAUTHORIZED), 0),
    "template fails": ({}, SourceUnreadable(Text("x"), reason=Reason.TEMPLATE), 0),
}


@pytest.mark.parametrize(("columns", "answer", "moved"), CURSOR.values(), ids=CURSOR)
async def test_cursor_moves_with_each_answer_that_was_the_expected_one(
    desk: Desk, columns: dict[str, Any], answer: Any, moved: int
) -> None:
    known = await desk.begin()
    await desk.poll(known, _items("known"), after=0.0)
    await desk.poll(await desk.begin(**columns), answer)
    assert await desk.cursor_time() == moved


async def test_cursor_ids_and_events_stay_as_they_were_when_saving_fails(desk: Desk) -> None:
    collector = await desk.begin()
    await desk.execute("CREATE TRIGGER broken BEFORE UPDATE ON settings BEGIN SELECT RAISE(ABORT, 'broken'); END")
    assert await desk.poll(collector, _items(1, 2)) is StoreUnavailable
    await desk.execute("DROP TRIGGER broken")
    assert (await desk.cursor_time(), await desk.delivered()) == (0, [])
    assert await desk.poll(collector, _items(1, 2)) == Saved(new=2, known=0, repeated=0)


async def test_failed_poll_is_asked_again_from_the_same_time(desk: Desk) -> None:
    collector = await desk.begin()
    await desk.poll(collector, _items(1))
    await desk.poll(collector, SourceUnavailable(Text("x"), reason=Reason.TIMEOUT))
    await desk.poll(collector, {"error": 1})
    await desk.poll(collector, _items())
    await desk.poll(collector, _items())
    assert [cursor.last_fetched_time - START for cursor, _ in desk.source.asked] == [0, 10, 10, 10, 40]


async def test_cursor_is_read_from_the_store_at_each_poll(desk: Desk) -> None:
    collector = await desk.begin()
    await desk.poll(collector, _items(1))
    other = await desk.begin()
    await desk.poll(other, _items(2))
    await desk.poll(collector, _items())
    cursor, _ = desk.source.asked[-1]
    assert (cursor.last_fetched_time - START, json.loads(cursor.last_event or b"")) == (20, _event(20, "2", id=2))


def _portion(*names: str, position: str, has_more: bool = False) -> Portion:
    events = [Event(name, False, json.dumps({"name": name}).encode(), None) for name in names]
    return Portion(events, position, has_more)


def _mail(fetched: int, name: str) -> dict[str, Any]:
    labelled = _event(fetched, "", name=name)
    del labelled["_exastro_oase_event_id"]
    return labelled


async def test_portions_are_saved_one_by_one_until_there_is_no_more(desk: Desk) -> None:
    collector = await desk.begin()
    desk.source.answers = [_portion("a", "b", position="1", has_more=True), _portion("b", "c", position="2")]
    desk.clock.now += 10
    assert await collector.collect() == Saved(new=3, known=1, repeated=0)
    assert [(cursor.position, now - START) for cursor, now in desk.source.asked] == [(None, 10), ("1", 10)]
    assert await desk.delivered() == [(10, [_mail(10, "a"), _mail(10, "b")]), (13, [_mail(10, "c")])]
    cursor = await desk.store.cursor("id-1")
    assert (cursor.last_fetched_time - START, cursor.position) == (10, "2")


async def test_a_poll_of_portions_without_end_ends_and_the_next_one_goes_on(desk: Desk) -> None:
    collector = await desk.begin()
    desk.source.answers = [_portion(position=str(number), has_more=True) for number in range(MAX_PORTIONS)]
    desk.source.answers.append(_portion("a", position="the last"))
    desk.clock.now += 10
    assert await collector.collect() == Saved(new=0, known=0, repeated=0)
    assert (await desk.store.cursor("id-1")).last_fetched_time == START
    assert await collector.collect() == Saved(new=1, known=0, repeated=0)
    assert (await desk.store.cursor("id-1")).position == "the last"


async def test_portions_before_one_that_fails_are_kept_and_the_time_stays(desk: Desk) -> None:
    collector = await desk.begin()
    desk.source.answers = [_portion("a", position="1", has_more=True)]
    assert await desk.poll(collector, SourceUnavailable(Text("x"), reason=Reason.TIMEOUT)) is SourceUnavailable
    cursor = await desk.store.cursor("id-1")
    assert (cursor.last_fetched_time - START, cursor.position) == (0, "1")
    assert await desk.poll(collector, _portion("a", "b", position="2")) == Saved(new=1, known=1, repeated=0)


async def test_what_a_poll_brings_is_counted_as_it_is_saved(desk: Desk) -> None:
    desk.health.source_started("n1", is_mail=False)
    collector = await desk.begin(event_id_key="id")
    for events in ([{"id": 1}, {"id": 2}, {"none": 3}], [{"id": 1}, {"id": 2}, {"none": 3}, {"id": 4}]):
        await desk.poll(collector, {"items": events})
    desk.source.answers = [_portion("a", position="1", has_more=True)]
    assert await desk.poll(collector, SourceUnavailable(Text("x"), reason=Reason.TIMEOUT)) is SourceUnavailable
    assert desk.health.counts.sources["n1"].events == {"new": 4, "unusable": 1, "known": 2, "repeated": 1}


async def test_source_is_closed_with_its_collector(desk: Desk) -> None:
    collector = await desk.begin()
    await collector.close()
    assert desk.source.is_closed


async def test_same_unusable_answer_is_not_delivered_again(desk: Desk) -> None:
    collector = await desk.begin()
    first, second = {"error": "no right"}, {"error": "too busy"}
    found = [await desk.poll(collector, answer) for answer in (first, first, second, second, first)]
    assert found == [Saved(new=new, known=0, repeated=1 - new) for new in (1, 0, 1, 0, 1)]
    reason = "RESPONSE_KEY not found"
    assert await desk.delivered() == [
        (10, [_event(10, _serial(10), reason, **first)]),
        (30, [_event(30, _serial(30), reason, **second)]),
        (50, [_event(50, _serial(50), reason, **first)]),
    ]


async def test_unusable_answer_is_delivered_again_after_a_good_one(desk: Desk) -> None:
    collector = await desk.begin()
    answers = ({"error": 1}, _items(), {"error": 1})
    assert [await desk.poll(collector, answer) for answer in answers] == [
        Saved(new=new, known=0, repeated=0) for new in (1, 0, 1)
    ]


async def test_events_without_id_are_new_each_time_with_serials_of_their_own(desk: Desk) -> None:
    collector = await desk.begin(event_id_key=None)
    await desk.poll(collector, {"items": [{"a": 1}, {"a": 1}]})
    await desk.poll(collector, {"items": [{"a": 1}]})
    assert await desk.delivered() == [
        (10, [_event(10, _serial(10), a=1), _event(10, _serial(10, 1), a=1)]),
        (20, [_event(20, _serial(20), a=1)]),
    ]


async def test_keys_grow_though_the_clock_steps_back_or_stands_still(desk: Desk) -> None:
    collector = await desk.begin()
    for number, after in enumerate((10.0, 0.0, 0.4, -8.0, 20.0)):
        await desk.poll(collector, _items(number), after=after)
    groups = await desk.delivered()
    keys = [key for key, _ in groups]
    assert (len(keys), keys) == (5, sorted(set(keys)))
    # The events' own time stays that of their poll.
    assert [event["_exastro_fetched_time"] - START for _, (event,) in groups] == [10, 10, 10, 2, 22]


async def test_full_store_is_not_filled_further_and_the_source_not_asked(tmp_path: Path, clock: Clock) -> None:
    limits = SavingLimits(group_events=100, group_bytes=100_000, id_retention_seconds=86_400)
    store = Store(tmp_path / "full.sqlite3", limits, storage_max_bytes=1)
    await store.open()
    try:
        desk = Desk(store, clock)
        assert await desk.poll(await desk.begin(), _items(1)) is StoreUnavailable
        assert desk.source.asked == []
    finally:
        store.close()


async def test_poll_that_is_cancelled_leaves_everything_as_it_was(desk: Desk) -> None:
    is_asked = asyncio.Event()

    class Hanging:
        async def fetch(self, cursor: Cursor, now: float) -> Payload:
            is_asked.set()
            await asyncio.Event().wait()
            raise AssertionError

        async def close(self) -> None: ...

    await desk.begin()
    task = asyncio.create_task(
        Collector(_setting(), Hanging(), desk.store, desk.steady, desk.health, agent_name="agent").collect()
    )
    await is_asked.wait()
    task.cancel()
    await asyncio.wait([task])
    assert (task.cancelled(), await desk.cursor_time(), await desk.delivered()) == (True, 0, [])


@pytest.mark.parametrize("column", ["response_key", "event_id_key"])
async def test_key_that_is_no_jmespath_is_refused_before_anything_is_asked(desk: Desk, column: str) -> None:
    with pytest.raises(SettingInvalid, match=f"^{column.upper()} 'a b' is no JMESPath"):
        await desk.begin(**{column: "a b"})


def _http_source(setting: CollectionSetting, handle: Callable[[httpx.Request], httpx.Response]) -> HttpSource:
    clients = HttpClients(
        make_tls=partial(tls_context, verify=True, ca_file=None),
        proxies=Proxies(None, None, None),
        transport_=httpx.MockTransport(handle),
    )
    return HttpSource(setting, clients, max_bytes=1_000_000, zone=UTC)


async def test_names_of_templates_follow_the_store(desk: Desk) -> None:
    setting = _setting(
        url="http://source/{{ EXASTRO_EVENT_COLLECTION_SETTING.NOTE|urlencode }}",
        parameter=(
            '{"since": {{ EXASTRO_LAST_FETCHED_TIMESTAMP }}, "text": "{{ EXASTRO_LAST_FETCHED_TIME }}",'
            ' "ymd": "{{ EXASTRO_LAST_FETCHED_YY_MM_DD }}", "dmy": "{{ EXASTRO_LAST_FETCHED_DD_MM_YY }}",'
            ' "now": "{{ EXASTRO_CURRENT_TIME }}",'
            ' {% if EXASTRO_LAST_FETCHED_EVENT_IS_EXIST %}"from": "{{ EXASTRO_LAST_FETCHED_EVENT.id|int + 1 }}",'
            ' "of": {{ EXASTRO_LAST_FETCHED_EVENT._exastro_fetched_time }}'
            ' {% else %}"all": true{% endif %}}'
        ),
    )
    asked: list[tuple[str, dict[str, str]]] = []
    answers = [_items(9, 10), _items(), {"error": 1}, _items(3), _items()]

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append((request.url.path, dict(request.url.params)))
        return httpx.Response(200, stream=httpx.ByteStream(json.dumps(answers.pop(0)).encode()))

    await desk.begin()
    collector = Collector(
        setting, _http_source(setting, handle), desk.store, desk.steady, desk.health, agent_name="agent"
    )
    for _ in range(5):
        desk.clock.now += 10
        await collector.collect()

    def names(since: int, now: int, **others: str) -> tuple[str, dict[str, str]]:
        return "/seen by templates", {
            "since": str(START + since),
            "text": f"2023-12-31 15:00:{since:02}",
            "ymd": f"2023/12/31 15:00:{since:02}",
            "dmy": f"31/12/23 15:00:{since:02}",
            "now": f"2023-12-31 15:00:{now}",
            **others,
        }

    assert asked == [
        names(0, 10, all="true"),
        names(10, 20, **{"from": "11", "of": str(START + 10)}),
        names(20, 30, **{"from": "11", "of": str(START + 10)}),
        # The answer without RESPONSE_KEY moved nothing.
        names(20, 40, **{"from": "11", "of": str(START + 10)}),
        names(40, 50, **{"from": "4", "of": str(START + 40)}),
    ]


def _finished(level: str, new: int, known: int = 0, repeated: int = 0) -> dict[str, Any]:
    facts = {"setting": "n1", "new": new, "known": known, "repeated": repeated}
    return {"log_level": level, "event": "collection_finished", "code": "AGT-10012", **facts}


def _unusable(code: str, detail: str, events: int = 1) -> dict[str, Any]:
    return {
        "log_level": "warning",
        "event": "events_unusable",
        "code": code,
        "setting": "n1",
        "events": events,
        "detail": detail,
    }


STARTED = {"log_level": "debug", "event": "collection_started", "code": "AGT-10011", "setting": "n1"}


async def test_collection_with_news_is_one_line_and_others_are_none_of_importance(desk: Desk) -> None:
    collector = await desk.begin()
    with capture_logs() as logs:
        for answer in (_items(1, 2), _items(1, 2), _items()):
            await desk.poll(collector, answer)
    assert logs == [
        STARTED,
        _finished("info", 2),
        STARTED,
        _finished("debug", 0, known=2),
        STARTED,
        _finished("debug", 0),
    ]


UNUSABLE: dict[str, tuple[dict[str, Any], Any, str, str, int]] = {
    "no response key": ({}, {"error": 1}, "AGT-10002", "RESPONSE_KEY not found", 1),
    "no list": ({}, {"items": {"id": 1}}, "AGT-10003", "RESPONSE_LIST_FLAG is incorrect.(Not List Type)", 1),
    "no id": ({}, {"items": [{"a": 1}, {"a": 2}]}, "AGT-10030", "EVENT_ID_KEY not found", 2),
    "no objects": ({}, {"items": [1, 2, 3]}, "AGT-10031", "event format is Invalid.(not Object)", 3),
    "scalar": ({}, {"items": 1}, "AGT-10031", "RESPONSE_KEY value is Invalid.(not Object and not List)", 1),
    "list": ({"is_list": False}, _items(1), "AGT-10031", "RESPONSE_LIST_FLAG is incorrect.(List Type)", 1),
}


@pytest.mark.parametrize(("columns", "answer", "code", "detail", "events"), UNUSABLE.values(), ids=UNUSABLE)
async def test_unusable_events_are_told_with_their_code(
    desk: Desk, columns: dict[str, Any], answer: Any, code: str, detail: str, events: int
) -> None:
    collector = await desk.begin(**columns)
    with capture_logs() as logs:
        await desk.poll(collector, answer)
    assert logs == [STARTED, _finished("info", events), _unusable(code, detail, events)]


async def test_unusable_events_are_told_when_they_come_up_and_not_while_they_last(desk: Desk) -> None:
    collector = await desk.begin()
    answers = [{"error": 1}, {"error": 1}, {"error": 2}, {"items": [{}, 7]}, {"items": [7]}, _items(), {"error": 2}]
    with capture_logs() as logs:
        for answer in answers:
            await desk.poll(collector, answer)
    key, no_id = _unusable("AGT-10002", "RESPONSE_KEY not found"), _unusable("AGT-10030", "EVENT_ID_KEY not found")
    no_object = _unusable("AGT-10031", "event format is Invalid.(not Object)")
    assert [line for line in logs if line["log_level"] == "warning"] == [key, no_id, no_object, key]


async def test_failed_poll_is_logged_by_who_repeats_it(desk: Desk) -> None:
    collector = await desk.begin()
    with capture_logs() as logs:
        assert await desk.poll(collector, b"<html>") is SourceUnreadable
    assert logs == [STARTED]
