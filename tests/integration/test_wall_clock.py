"""The clock that a soak shows to the agent jumps, and nothing else of time does."""

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ita_ag_oase import clock
from soak.wall_clock import WallClock, library, sweep

_DAY = 86_400
# Says at each line that it gets: the wall clock, two monotonic ones, and how long a wait of 0.05 s took.
_PROGRAM = """
import asyncio, sys, time

async def waited():
    start = time.monotonic()
    try:
        async with asyncio.timeout(0.05):
            await asyncio.Event().wait()
    except TimeoutError:
        return time.monotonic() - start

for _ in sys.stdin:
    clocks = time.time(), time.monotonic(), time.clock_gettime(time.CLOCK_BOOTTIME)
    print(*clocks, asyncio.run(waited()), flush=True)
"""


@pytest.fixture
def wall_clock(tmp_path: Path) -> WallClock:
    """A clock that shows the true time. Without libfaketime the test is skipped, or fails where CI is set."""
    found = library()
    if found is None:
        missing = "libfaketime is not installed (the Debian package of that name)"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    return WallClock(found, tmp_path, random.Random(1))


@pytest.fixture
def ask(wall_clock: WallClock) -> Iterator[Callable[[], list[float]]]:
    """Return what asks a running process that sees the clock."""
    process = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM],
        env=wall_clock.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin
    assert process.stdout
    asked, answers = process.stdin, process.stdout

    def ask() -> list[float]:
        asked.write("\n")
        asked.flush()
        return [float(word) for word in answers.readline().split()]

    try:
        yield ask
    finally:
        process.kill()
        process.communicate()
        sweep(process.pid)


@pytest.mark.parametrize("offset_seconds", [0, 90, -90, _DAY, -_DAY, 100 * _DAY, -100 * _DAY])
def test_a_jump_moves_the_wall_clock_of_a_running_process_alone(
    wall_clock: WallClock, ask: Callable[[], list[float]], offset_seconds: int
) -> None:
    ask()
    wall_clock.move_to(offset_seconds)
    before = (clock.now(), time.monotonic(), time.clock_gettime(time.CLOCK_BOOTTIME))
    wall, monotonic, boottime, waited = ask()
    after = (clock.now(), time.monotonic(), time.clock_gettime(time.CLOCK_BOOTTIME))
    # An offset is kept to the microsecond.
    assert before[0] - 0.001 <= wall - offset_seconds <= after[0] + 0.001
    assert before[1] <= monotonic <= after[1]
    assert before[2] <= boottime <= after[2]
    assert 0.05 <= waited <= after[1] - before[1]
