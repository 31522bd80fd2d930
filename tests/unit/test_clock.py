"""A clock that does not follow the wall clock's steps by itself."""

import time

import pytest

from ita_ag_oase import clock
from ita_ag_oase.clock import SteadyClock


class Times:
    """What the wall clock shows, and how much time has really passed."""

    def __init__(self) -> None:
        self.wall = 1_700_000_000.0
        self.passed = 50.0
        self.steps: list[float] = []
        self.steady = SteadyClock(wall=lambda: self.wall, elapsed=lambda: self.passed, on_step=self.steps.append)

    def go(self, seconds: float) -> float:
        """Let time pass and return what the steady clock shows then."""
        self.wall += seconds
        self.passed += seconds
        return self.steady.now()


@pytest.fixture
def times() -> Times:
    return Times()


def test_it_is_the_wall_clock_while_that_does_not_step(times: Times) -> None:
    assert [times.go(10), times.go(86_400), times.go(0.5)] == [1_700_000_010.0, 1_700_086_410.0, 1_700_086_410.5]
    assert (times.steps, times.steady.moves) == ([], 0)


@pytest.mark.parametrize("step", [2.0, -2.0, 3_600.0, -7_200.0, 90 * 86_400.0], ids=str)
def test_a_step_is_told_and_not_followed(times: Times, step: float) -> None:
    times.go(10)
    times.wall += step
    assert [times.go(5), times.go(5)] == [1_700_000_015.0, 1_700_000_020.0]
    assert times.steps == [step]


def test_less_than_a_step_is_followed(times: Times) -> None:
    times.wall += 1.5
    assert times.go(0) == 1_700_000_001.5
    assert times.steps == []


def test_steps_that_cancel_each_other_leave_the_wall_clock(times: Times) -> None:
    times.wall += 3_600
    times.go(5)
    times.wall -= 3_600
    assert times.go(5) == times.wall
    assert times.steady.way_to_wall(times.wall - 100) == 0.0


@pytest.mark.parametrize(
    ("reference", "way"),
    [
        pytest.param(1_700_003_600.0, 3_600.0, id="as the wall clock"),
        pytest.param(1_700_003_000.0, 3_600.0, id="nearer to the wall clock"),
        pytest.param(1_700_000_000.0, 0.0, id="as this clock"),
        pytest.param(1_700_000_600.0, 0.0, id="nearer to this clock"),
        pytest.param(1_800_000_000.0, 3_600.0, id="far from both"),
    ],
)
def test_another_clock_decides_which_is_right(times: Times, reference: float, way: float) -> None:
    times.wall += 3_600
    assert times.steady.way_to_wall(reference) == way


def test_moving_all_the_way_makes_it_the_wall_clock_again(times: Times) -> None:
    times.wall += 3_600
    times.steady.move(times.steady.way_to_wall(times.wall))
    assert (times.steady.now(), times.steady.moves) == (times.wall, 1)


def test_time_passes_alike_on_the_real_clocks() -> None:
    started, monotonic = clock.elapsed(), time.monotonic()
    assert 0 <= clock.elapsed() - started <= time.monotonic() - monotonic + 1
