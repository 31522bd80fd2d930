"""The wall clock that the agent sees: true, or moved by libfaketime while the agent runs."""

import random
import sys
from pathlib import Path

_MINUTE, _HOUR, _DAY = 60, 3_600, 86_400
# The greatest jump of each kind, in seconds.
_REACHES = (_HOUR, _DAY, 6 * _DAY, 100 * _DAY)
_TRUE_AGAIN_PART = 0.4
_EVERY_SECONDS = (2.0, 10.0)
_SHARED_MEMORY = Path("/dev/shm")


def library() -> Path | None:
    """Return libfaketime as Debian's package installs it; None where it is missing."""
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")) if sys.platform == "linux" else []
    return found[0] if found else None


class WallClock:
    """A clock for agents that are started with its `environment`; it can jump while they run.

    The monotonic clocks stay true: CLOCK_MONOTONIC, CLOCK_BOOTTIME, and what timeouts are counted by.
    """

    def __init__(self, library: Path, folder: Path, random_: random.Random) -> None:
        self.jumps = 0
        self._library = library
        self._file = folder / "offset"
        self._random = random_
        self._offset = 0
        self._write()

    @property
    def environment(self) -> dict[str, str]:
        """The variables that show this clock to a process (README of libfaketime 0.9.10, section 4)."""
        return {
            "LD_PRELOAD": str(self._library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            # Left to itself it bends waits by the monotonic clock, so that threads spin where they wait for each other.
            "FAKETIME_FORCE_MONOTONIC_FIX": "0",
            "NO_FAKE_STAT": "1",
        }

    def jump(self) -> float:
        """Move the clock by minutes, hours, days or a few months from the true time, or back to it.

        Return after how many seconds to do so again.
        """
        is_true_again = self._offset != 0 and self._random.random() < _TRUE_AGAIN_PART
        reach = self._random.choice(_REACHES)
        self.move_to(0 if is_true_again else self._random.choice((-1, 1)) * self._random.randint(_MINUTE, reach))
        return self._random.uniform(*_EVERY_SECONDS)

    def move_to(self, offset_seconds: int) -> None:
        """Let the clock be so far from the true time; 0 is the true time."""
        if offset_seconds != self._offset:
            self.jumps += 1
            self._offset = offset_seconds
            self._write()

    def _write(self) -> None:
        # Replaced as a whole: a process that reads half of it would see yet another time.
        new = self._file.with_suffix(".new")
        new.write_text(f"{self._offset:+d}\n")
        new.replace(self._file)


def sweep(pid: int) -> None:
    """Remove the shared memory that a killed process leaves: the next one with its number could not start."""
    for name in (f"faketime_shm_{pid}", f"sem.faketime_sem_{pid}"):
        (_SHARED_MEMORY / name).unlink(missing_ok=True)
