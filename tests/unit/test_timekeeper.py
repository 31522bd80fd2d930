"""The agent's clock, Exastro's, and what moves when they disagree."""

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TypeVar

import pytest
from structlog.testing import capture_logs

from exactly_once import Bench, usable
from ita_ag_oase.agent.timekeeper import Timekeeper
from ita_ag_oase.errors import Reason, StoreUnavailable
from ita_ag_oase.store.database import Database, Work
from ita_ag_oase.text import Text

T = TypeVar("T")

START = 1_700_000_000.0


class World:
    """The wall clock, the true time, and an agent whose lives follow each other."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.true = self.wall = START
        self.boots = 1

    async def begin(self, *, elsewhere: bool = True) -> None:
        """Start a life: on another machine, or on the same one."""
        self.boots += elsewhere
        self.keeper = Timekeeper(
            self.bench.store,
            on_difference=self.bench.health.clock_compared,
            wall=lambda: self.wall,
            elapsed=lambda: self.true,
            boot_id=str(self.boots),
        )
        await self.keeper.open()

    def go(self, seconds: float) -> None:
        """Let time pass."""
        self.true += seconds
        self.wall += seconds

    async def meet(self, exastro_ahead: float = 0.0) -> float:
        """Let Exastro answer; return how far the agent's clock is ahead of the true time then."""
        await self.keeper.note(self.true + exastro_ahead)
        return self.keeper.clock.now() - self.true

    async def poll_by_a_wrong_clock_that_is_set_right(self) -> None:
        """Poll while the clock is two hours ahead; then start a life with a clock that is right."""
        self.wall += 7_200
        await self.begin()
        await self.meet()
        self.bench.now = self.wall
        await self.bench.poll("n1", [])
        self.wall -= 7_200
        await self.begin()

    async def cursor(self) -> float:
        """Return how far the cursor of a setting is from the start."""
        cursor = await self.bench.store.cursor(self.bench.rows["n1"]["EVENT_COLLECTION_SETTINGS_ID"])
        return cursor.last_fetched_time - START


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with Bench(tmp_path, now=START) as bench:
        world = World(bench)
        await world.begin()
        yield world


async def test_a_step_that_exastro_knows_nothing_of_is_never_followed(world: World) -> None:
    assert await world.meet() == 0.0
    world.wall += 7_200
    world.go(10)
    assert [await world.meet(), await world.meet(), await world.cursor()] == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("wrong", [7_200, -7_200])
async def test_a_clock_that_is_set_right_is_followed_and_the_cursors_go_on_to_mean_the_same(
    world: World, wrong: float
) -> None:
    world.wall += wrong
    await world.begin()
    assert await world.meet() == wrong
    world.bench.now = world.wall
    await world.bench.poll("n1", [usable(1)])
    world.wall -= wrong
    world.go(10)
    with capture_logs() as logs:
        assert await world.meet() == 0.0
    assert await world.cursor() == 0.0
    assert [(line["event"], line["seconds"]) for line in logs] == [
        ("clock_stepped", -wrong),
        ("clock_followed", -wrong),
        ("clock_agrees", 0),
    ]
    seen = await world.bench.store._database.run(lambda c: c.execute("SELECT last_seen FROM ids").fetchall())
    assert seen == [(int(START),)]


async def test_each_comparison_is_told(world: World) -> None:
    told: list[float | None] = []
    for exastro_ahead in (0.0, 30.0, -90.0):
        await world.meet(exastro_ahead)
        told.append(world.bench.health.exastro("http://exastro").clock_difference_seconds)
    assert told == [0.0, -30.0, 90.0]


@pytest.mark.parametrize("step", [7_200, -7_200, 30])
async def test_a_step_between_two_lives_is_not_followed(world: World, step: float) -> None:
    await world.meet()
    world.wall += step
    await world.begin()
    with capture_logs() as logs:
        assert await world.meet() == 0.0
    assert [(line["event"], line["seconds"]) for line in logs] == [("clock_stepped", step)]
    world.go(10)
    world.wall -= step
    assert await world.meet() == 0.0


@pytest.mark.parametrize("step", [7_200, -7_200, 3])
async def test_a_step_between_two_lives_on_one_machine_is_known_without_exastro(world: World, step: float) -> None:
    world.go(10)
    world.wall += step
    with capture_logs() as logs:
        await world.begin(elsewhere=False)
    assert world.keeper.clock.now() == world.true
    assert [(line["event"], line["seconds"]) for line in logs] == [("clock_stepped", step)]
    world.go(10)
    await world.begin(elsewhere=False)
    assert world.keeper.clock.now() == world.true
    assert await world.meet(exastro_ahead=step) == step
    assert await world.cursor() == step
    await world.begin(elsewhere=False)
    assert await world.meet(exastro_ahead=step) == step
    assert await world.cursor() == step


@pytest.mark.parametrize("kept", [b"damaged", b'{"boot_id":"\xff","offset":1.0,"difference":null}'])
async def test_what_is_kept_of_the_clocks_and_cannot_be_read_is_left_out(world: World, kept: bytes) -> None:
    await world.bench.store.keep_fact("clock", kept)
    await world.begin(elsewhere=False)
    assert await world.meet() == 0.0


async def test_a_clock_that_was_set_right_between_two_lives_takes_the_cursors_along(world: World) -> None:
    await world.poll_by_a_wrong_clock_that_is_set_right()
    assert await world.meet() == 0.0
    assert await world.cursor() == 0.0
    await world.begin()
    await world.meet()
    assert await world.cursor() == 0.0


async def test_cursors_move_once_however_many_answers_tell_that_the_clock_was_set_right(world: World) -> None:
    await world.poll_by_a_wrong_clock_that_is_set_right()
    await asyncio.gather(world.meet(), world.meet())
    assert await world.cursor() == 0.0


async def test_cursors_move_once_where_the_answer_is_given_up_meanwhile(world: World) -> None:
    await world.meet()
    world.wall += 7_200
    may_go_on = threading.Event()
    busy = asyncio.create_task(world.bench.store._database.run(lambda _: may_go_on.wait()))
    answer = asyncio.create_task(world.meet(exastro_ahead=7_200))
    for _ in range(5):
        await asyncio.sleep(0)
    may_go_on.set()
    await busy
    answer.cancel()
    await asyncio.wait([answer])
    assert await world.meet(exastro_ahead=7_200) == 7_200
    assert await world.cursor() == 7_200


@pytest.mark.parametrize(("before", "after"), [(0, 7_200), (0, -7_200), (7_200, 0)])
async def test_exastros_clock_that_was_set_between_two_lives_on_one_machine_moves_nothing(
    world: World, before: float, after: float
) -> None:
    await world.meet(exastro_ahead=before)
    await world.begin(elsewhere=False)
    assert await world.meet(exastro_ahead=after) == 0.0
    assert await world.cursor() == 0.0


async def test_what_waits_is_settled_by_the_clock_that_was_set_right(world: World) -> None:
    await world.bench.poll("n1", [usable(1)])
    await world.bench.store.shift(-7_200, {})
    await world.bench.deliver_all()
    settled = await world.bench.store._database.run(
        lambda connection: connection.execute("SELECT settled_time FROM settings WHERE name = 'n1'").fetchall()
    )
    assert settled == [(int(START) - 7_200,)]


async def test_a_step_is_known_also_after_a_life_that_exastro_never_answered(world: World) -> None:
    await world.meet()
    world.wall += 7_200
    await world.begin()
    await world.begin(elsewhere=False)
    assert await world.meet() == 0.0
    assert await world.cursor() == 0.0


async def test_a_cursor_never_passes_the_moment_that_it_stands_for(world: World) -> None:
    world.wall += 3.6
    await world.meet(exastro_ahead=3.6)
    assert await world.cursor() == 3.0


async def test_a_difference_that_stays_is_told_once_and_changes_nothing(world: World) -> None:
    with capture_logs() as logs:
        for ahead in (59.0, 61.0, 90.0, 61.0, 10.0, -60.0):
            world.go(10)
            await world.meet(exastro_ahead=ahead)
    assert [(line["event"], line["seconds"], line["log_level"]) for line in logs] == [
        ("clock_differs", -61, "warning"),
        ("clock_agrees", -10, "info"),
        ("clock_differs", 60, "warning"),
    ]
    assert await world.cursor() == 0.0


async def test_a_date_of_whole_seconds_moves_nothing(world: World) -> None:
    for late in (0.0, 0.9, 1.9, 3.0):
        world.go(10)
        await world.begin()
        assert await world.meet(exastro_ahead=-late) == 0.0
    assert await world.cursor() == 0.0


async def test_a_store_that_fails_changes_nothing_and_costs_no_answer(world: World, tmp_path: Path) -> None:
    await world.meet()
    world.wall += 7_200
    world.keeper.clock.now()
    working = world.bench.store._database

    class Full(Database):
        async def run(self, _: Work[T], *, alone: bool = False) -> T:
            raise StoreUnavailable(Text("full"), reason=Reason.STORE_FULL)

    world.bench.store._database = Full(tmp_path / "another")
    assert await world.meet(exastro_ahead=7_200) == 0.0
    world.bench.store._database = working
    assert await world.meet(exastro_ahead=7_200) == 7_200
