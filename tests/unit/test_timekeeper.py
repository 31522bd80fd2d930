"""The agent's clock, Exastro's, and what moves when they disagree."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import TypeVar

import pytest
from structlog.testing import capture_logs

from exactly_once import Bench, usable
from ita_ag_oase.agent.timekeeper import Timekeeper
from ita_ag_oase.errors import Reason, StoreUnavailable
from ita_ag_oase.store.database import Database, Work

T = TypeVar("T")

START = 1_700_000_000.0


class World:
    """The wall clock, the true time, and an agent whose lives follow each other."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.true = self.wall = START
        self.begin()

    def begin(self) -> None:
        """Start a life."""
        self.keeper = Timekeeper(self.bench.store, wall=lambda: self.wall, elapsed=lambda: self.true)

    def go(self, seconds: float) -> None:
        """Let time pass."""
        self.true += seconds
        self.wall += seconds

    async def meet(self, exastro_ahead: float = 0.0) -> float:
        """Let Exastro answer; return how far the agent's clock is ahead of the true time then."""
        await self.keeper.note(self.true + exastro_ahead)
        return self.keeper.clock.now() - self.true

    async def cursor(self) -> float:
        """Return how far the cursor of a setting is from the start."""
        cursor = await self.bench.store.cursor(self.bench.rows["n1"]["EVENT_COLLECTION_SETTINGS_ID"])
        return cursor.last_fetched_time - START


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with Bench(tmp_path, now=START) as bench:
        yield World(bench)


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
    world.begin()
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


@pytest.mark.parametrize("step", [7_200, -7_200, 30])
async def test_a_step_between_two_lives_is_not_followed(world: World, step: float) -> None:
    await world.meet()
    world.wall += step
    world.begin()
    with capture_logs() as logs:
        assert await world.meet() == 0.0
    assert [(line["event"], line["seconds"]) for line in logs] == [("clock_stepped", step)]
    world.go(10)
    world.wall -= step
    assert await world.meet() == 0.0


async def test_a_clock_that_was_set_right_between_two_lives_takes_the_cursors_along(world: World) -> None:
    world.wall += 7_200
    world.begin()
    await world.meet()
    world.bench.now = world.wall
    await world.bench.poll("n1", [])
    world.wall -= 7_200
    world.begin()
    assert await world.meet() == 0.0
    assert await world.cursor() == 0.0
    world.begin()
    await world.meet()
    assert await world.cursor() == 0.0


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
        world.begin()
        assert await world.meet(exastro_ahead=-late) == 0.0
    assert await world.cursor() == 0.0


async def test_a_store_that_fails_changes_nothing_and_costs_no_answer(world: World, tmp_path: Path) -> None:
    await world.meet()
    world.wall += 7_200
    world.keeper.clock.now()
    working = world.bench.store._database

    class Full(Database):
        async def run(self, _: Work[T]) -> T:
            raise StoreUnavailable("full", reason=Reason.STORE_FULL)

    world.bench.store._database = Full(tmp_path / "another")
    assert await world.meet(exastro_ahead=7_200) == 0.0
    world.bench.store._database = working
    assert await world.meet(exastro_ahead=7_200) == 7_200
