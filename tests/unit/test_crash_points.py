"""A kill before and after every SQL statement and every request of a cycle, one by one: nothing lost, nothing twice."""

import contextlib
import dataclasses
import itertools
import json
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from exactly_once import ANSWERED, DEALT_WITH, SENT, Answering, Bench, fast_folder, left_by_a_kill, put_back, usable
from ita_ag_oase import __version__
from ita_ag_oase.delivery import Delivery
from ita_ag_oase.demo.exastro import DemoExastro, SavedEvent
from ita_ag_oase.demo.loopback import Reply, Request
from ita_ag_oase.errors import ExastroUnavailable
from ita_ag_oase.exastro import wire
from ita_ag_oase.model import Batch, Event, Journal, Settlement
from ita_ag_oase.store import repair
from ita_ag_oase.store.outbox import BatchLimits
from stock_agent import make_stock_file, put_group

START = 1_700_000_000
# How many events each source tells in all, and how many of them the stock agent had sent.
TOLD = {"n1": 45, "n2": 22}
SENT_BEFORE = {"n1": 2, "n2": 1}
BAD = 20
LARGE = range(42, 45)
PARTS = 2
ON_ITS_WAY = "request on its way"
AT_THE_END = 1_000


@dataclass(frozen=True)
class Point:
    """All that outlives a kill, and how far the world had come; several instants in a row may have that in common.

    `listed_from` is the first event that sources still list, `token` what the agent had surely kept, and `request` one
    that is on its way.
    """

    instants: tuple[str, ...] = field(compare=False)
    files: Mapping[str, bytes]
    saved: Sequence[SavedEvent]
    progress: Mapping[tuple[str, str], int]
    now: float
    listed_from: int
    token: bytes | None
    request: Request | None = None


@dataclass(frozen=True)
class Outcome:
    """What there is once a killed agent has started again and has delivered everything."""

    arrived: Mapping[str, Sequence[int]]
    parked: Mapping[str, Sequence[int]]
    token: bytes | None
    waiting: int = 0
    integrity: str = "ok"


class Noting(Answering):
    """Adds a point for each request that is on its way."""

    def __init__(self, cycle: "Cycle") -> None:
        super().__init__(cycle.bench.exastro, cycle.note)
        self._points = cycle.points

    def hand_over(self, request: Request) -> Reply:
        self._points.append(dataclasses.replace(self._points[-1], instants=(ON_ITS_WAY,), request=request))
        return super().hand_over(request)


class World:
    """Where agents live: a folder, perhaps with what the stock agent left, and what delivers in it."""

    def __init__(
        self,
        folder: Path,
        *,
        has_stock_file: bool,
        delivery_type: Callable[..., Delivery],
        journal: Journal = Journal.WAL,
    ) -> None:
        self.has_stock_file = has_stock_file
        self.journal = journal
        self._folder = folder
        self._stock_file = folder / "ag_oase_agent"
        self.delivery_type = delivery_type
        self._numbers = itertools.count(1)
        if has_stock_file:
            make_stock_file(self._stock_file, _fill)

    def bench(self, now: float = START, note: Callable[[str], None] | None = None) -> Bench:
        """Return a new agent that has not started yet."""
        folder = self._folder / str(next(self._numbers))
        bench = Bench(folder, tuple(TOLD), batch_events=5, batch_bytes=300_000, now=now, at=note, journal=self.journal)
        bench.delivery_type = self.delivery_type
        bench.exastro.refuses = lambda event: "is_bad" in event
        bench.before_register = lambda store: store.take_over(
            self._stock_file, agent_name="agent-1", now=int(bench.now)
        )
        return bench

    def expected(self, point: Point) -> Outcome:
        """Return what must come of a kill at a point."""
        first = {name: SENT_BEFORE[name] + 1 if self.has_stock_file else 1 for name in TOLD}
        arrived = {name: [*range(first[name], TOLD[name] + 1)] for name in TOLD}
        arrived["n2"].remove(BAD)
        return Outcome(arrived, {"n1": [], "n2": [BAD]}, point.token)

    async def outcome(self, point: Point, late: int = AT_THE_END) -> Outcome:
        """Return what comes of a kill at a point; a request on its way reaches Exastro after so many rounds."""
        bench = self.bench(point.now)
        put_back(point.files, bench._path.parent)
        if self.journal is Journal.TRUNCATE:
            # What a kill leaves half done is no damage.
            assert repair.mend(bench._path, agent_name="agent-1", now=point.now) is None
        bench.exastro.saved = list(point.saved)
        bench.exastro._progress = dict(point.progress)
        async with bench:
            for name, count in TOLD.items():
                await bench.poll(name, _events(name, point.listed_from, count))
            requests = {late: point.request} if point.request else {}
            for round_ in itertools.count():
                _arrive(bench.exastro, requests.pop(round_, None))
                if await bench.delivery.deliver_next() is None:
                    break
            _arrive(bench.exastro, requests.pop(late, None))
            await bench.must_balance()
            seen = await _seen(bench, point)
        shutil.rmtree(bench._path.parent)
        return seen


class Cycle:
    """All that an agent does between its start and its end, a point for each instant."""

    def __init__(self, world: World) -> None:
        self.points: list[Point] = []
        self.bench = world.bench(note=self.note)
        self.bench.answering = Noting(self)
        self._listed_from = 1
        self._token: bytes | None = None
        if world.has_stock_file:
            self._let_a_group_have_arrived()

    def _let_a_group_have_arrived(self) -> None:
        """Have Exastro know a group of which the stock agent did not learn that it was saved."""
        setting_id = self.bench.rows["n1"]["EVENT_COLLECTION_SETTINGS_ID"]
        self.bench.exastro.saved.append(SavedEvent("n1", "agent-1", START - 50, {"id": 3}))
        self.bench.exastro._progress[setting_id, "agent-1"] = START - 50

    def note(self, instant: str) -> None:
        exastro = self.bench.exastro
        point = Point(
            instants=(instant,),
            files=left_by_a_kill(self.bench._path),
            saved=list(exastro.saved),
            progress=dict(exastro._progress),
            now=self.bench.now,
            listed_from=self._listed_from,
            token=self._token,
        )
        if self.points and self.points[-1] == point:
            point = dataclasses.replace(point, instants=(*self.points.pop().instants, instant))
        self.points.append(point)

    async def run(self, *, is_whole: bool = True) -> Sequence[Point]:
        """Return the points of a cycle, or of its first deliveries and a clean end."""
        async with self.bench:
            await self.begin()
            if is_whole:
                await self.go_on()
        self.note("closed")
        return self.points

    async def begin(self) -> None:
        await self.bench.store.keep_fact("settings", json.dumps(list(self.bench.rows.values())).encode())
        await self.poll(n1=12, n2=7)
        await self.deliver()

    async def go_on(self) -> None:
        await self.keep_token()
        # Known events and new ones, in requests of several groups.
        await self.poll(n1=20, n2=15)
        await self.deliver("lost", "half", "498")
        # Too large for the gateway: groups that were surely not saved, and some that may have been.
        await self.poll(n1=30)
        await self.deliver(allowed_bytes=1_500)
        await self.poll(n1=40)
        await self.deliver("lost", rounds=1)
        await self.deliver(allowed_bytes=1_500)
        # One of these is refused.
        await self.poll(n2=22)
        await self.deliver()
        # A group of several pieces, cut between them.
        await self.poll(n1=45)
        await self.deliver(allowed_bytes=150_000)
        await self.forget()

    async def poll(self, **counts: int) -> None:
        self.bench.now += 20
        for name, count in counts.items():
            await self.bench.poll(name, _events(name, self._listed_from, count))

    async def deliver(self, *faults: str, allowed_bytes: int = 1 << 30, rounds: int = 100) -> None:
        self.bench.exastro.faults.extend(faults)
        self.bench.exastro.max_request_bytes = allowed_bytes
        for _ in range(rounds):
            with contextlib.suppress(ExastroUnavailable):
                if await self.bench.delivery.deliver_next() is None:
                    break
        self.bench.exastro.max_request_bytes = 1 << 30

    async def keep_token(self) -> None:
        await self.bench.store.keep_fact("token", b"rotated")
        self._token = b"rotated"

    async def forget(self) -> None:
        """Have the sources list no more what they told first, so that it is forgotten after eight days."""
        self._listed_from = 5
        self.bench.now += 8 * 86_400
        await self.poll(**TOLD)
        assert await self.bench.store.purge(int(self.bench.now)) > 0


def _fill(connection: sqlite3.Connection) -> None:
    put_group(connection, "n1", START - 60, [1, 2], sent=1)
    put_group(connection, "n2", START - 55, [1], sent=1)
    put_group(connection, "n1", START - 50, [3], sent=0)
    put_group(connection, "n2", START - 45, [2, 3], sent=0)
    put_group(connection, "n1", START - 40, [4, 5, 6], sent=0)
    connection.executemany("INSERT INTO last_fetched_time VALUES (?, ?)", [("n1", START - 40), ("n2", START - 45)])


def _events(name: str, first: int, last: int) -> list[Event]:
    return [usable(number, **_odd(name, number)) for number in range(first, last + 1)]


def _odd(name: str, number: int) -> dict[str, object]:
    if name == "n1" and number in LARGE:
        return {"filler": "x" * 70_000}
    return {"is_bad": True} if name == "n2" and number == BAD else {}


def _kind(instant: str) -> str:
    """Return the first word of a statement, or the name of another instant."""
    lines = [line for line in instant.splitlines() if line and not line.startswith("--")]
    return instant if instant.startswith("request") else lines[0].split()[0]


def _arrive(exastro: DemoExastro, request: Request | None) -> None:
    if request is not None:
        exastro._handle(request)


async def _seen(bench: Bench, point: Point) -> Outcome:
    ((integrity,),) = await bench.query("PRAGMA integrity_check")
    parked = await bench.parked()
    return Outcome(
        arrived={name: [event.event["id"] for event in bench.exastro.events_of(name)] for name in TOLD},
        parked={name: parked[row["EVENT_COLLECTION_SETTINGS_ID"]] for name, row in bench.rows.items()},
        # One that was not surely kept may be there or not.
        token=await bench.store.fact("token") if point.token else None,
        waiting=await bench.store.waiting_events(),
        integrity=integrity,
    )


@pytest.fixture
def folder() -> Iterator[Path]:
    folder = fast_folder()
    yield folder
    shutil.rmtree(folder)


async def _wrong(world: World, points: Sequence[Point], late: int = AT_THE_END) -> list[tuple[str, Outcome]]:
    """Return the points, by their first instants, from which something else comes than must come."""
    outcomes = [(point, await world.outcome(point, late)) for point in points]
    return [(point.instants[0], outcome) for point, outcome in outcomes if outcome != world.expected(point)]


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("has_stock_file", [False, True], ids=["new", "after the stock agent"])
async def test_a_kill_at_any_instant_loses_and_repeats_nothing(folder: Path, has_stock_file: bool, part: int) -> None:
    world = World(folder, has_stock_file=has_stock_file, delivery_type=Delivery)
    points = await Cycle(world).run()
    assert await _wrong(world, points[part::PARTS]) == []


async def test_a_kill_in_the_middle_of_a_change_loses_and_repeats_nothing_on_a_shared_volume(folder: Path) -> None:
    world = World(folder, has_stock_file=False, delivery_type=Delivery, journal=Journal.TRUNCATE)
    points = [point for point in await Cycle(world).run() if any("journal" in name for name in point.files)]
    # Between two changes the file is what it is with a WAL, where each instant has been tried.
    changed = {point.files["store.sqlite3"]: point for point in points if all(point.files.values())}
    assert len(changed) > 200
    # Some of them, since each takes a tenth of a second; all were tried when this was written.
    assert await _wrong(world, [*changed.values()][::5]) == []


@pytest.mark.parametrize("late", [0, 1, AT_THE_END], ids=["at once", "after a round", "at the end"])
@pytest.mark.parametrize("has_stock_file", [False, True], ids=["new", "after the stock agent"])
async def test_a_request_that_arrives_after_the_restart_repeats_nothing(
    folder: Path, has_stock_file: bool, late: int
) -> None:
    world = World(folder, has_stock_file=has_stock_file, delivery_type=Delivery)
    points = [point for point in await Cycle(world).run() if point.request]
    assert len(points) >= 25
    assert await _wrong(world, points, late) == []


async def test_every_statement_and_request_of_a_whole_cycle_is_an_instant(folder: Path) -> None:
    points = await Cycle(World(folder, has_stock_file=False, delivery_type=Delivery)).run()
    instants = [instant for point in points for instant in point.instants]
    counts = Counter(_kind(instant) for instant in instants)
    least = {
        "CREATE": 9,
        "BEGIN": 70,
        "SAVEPOINT": 70,
        "INSERT": 100,
        "UPDATE": 200,
        "DELETE": 35,
        "COMMIT": 70,
        SENT: 25,
        ON_ITS_WAY: 25,
        DEALT_WITH: 25,
        ANSWERED: 20,
        "closed": 1,
    }
    assert {kind: min(count, counts[kind]) for kind, count in least.items()} == least
    assert len(instants) > 1_000
    # Each commit makes a state of its own, and so do changes that reach the files before it.
    assert len({tuple(point.files.items()) for point in points}) > counts["COMMIT"] * 2


class DeletingFirst(Delivery):
    """Has a group deleted before it is posted."""

    async def deliver_next(self) -> int | None:
        batch = await _next_batch(self)
        if batch is None:
            return None
        saved = frozenset(group.number for group in batch.groups)
        await self._store.settle(batch, Settlement(saved=saved), int(self._now()))
        await self._client.post_events(wire.body_of(batch, __version__))
        return batch.event_count


class ForgettingWhatItOffered(Delivery):
    """Takes a request whose fate is unknown for one that was never sent."""

    async def deliver_next(self) -> int | None:
        batch = await _next_batch(self)
        if batch is None:
            return None
        taken = {group.number: group.fetched_time for group in batch.groups if group.was_offered}
        if taken:
            await self._store.settle(batch, Settlement(collided=taken), int(self._now()))
        return await super().deliver_next()


async def _next_batch(delivery: Delivery) -> Batch | None:
    return await delivery._store.next_batch(BatchLimits(events=5, bytes=300_000, groups=1), int(delivery._now()))


async def test_a_delivery_that_deletes_first_is_found_out_as_losing(folder: Path) -> None:
    world = World(folder, has_stock_file=False, delivery_type=DeletingFirst)
    points = await Cycle(world).run(is_whole=False)
    world.delivery_type = Delivery
    wrong = await _wrong(world, points)
    assert wrong[0][1].arrived["n1"] == [*range(6, TOLD["n1"] + 1)]


async def test_a_delivery_that_forgets_what_it_offered_is_found_out_as_repeating(folder: Path) -> None:
    world = World(folder, has_stock_file=False, delivery_type=ForgettingWhatItOffered)
    wrong = await _wrong(world, await Cycle(world).run(is_whole=False))
    assert wrong[0][0] == DEALT_WITH
    assert wrong[0][1].arrived["n1"] == [*range(1, 6), *range(1, TOLD["n1"] + 1)]
