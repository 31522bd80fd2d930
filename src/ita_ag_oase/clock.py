"""The only reader of the wall clock. Durations and schedules use the event loop's monotonic clock instead."""

import re
import time
from collections.abc import Callable
from datetime import datetime, tzinfo
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError


def now() -> float:
    """Return the seconds since the epoch."""
    return time.time()


def elapsed() -> float:
    """Return seconds from a fixed moment, also those that the machine slept; no setting of the time changes them."""
    # Not everywhere: elsewhere a sleep looks like a step of the wall clock.
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def boot_id() -> str | None:
    """Return what tells this start of the machine from others, during which `elapsed` goes on; None where unknown."""
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return None


class SteadyClock:
    """The wall clock without its steps: one is not followed until another clock speaks for it.

    `on_step` gets the seconds of each step when it is noticed. `offset` is that of an earlier clock to go on from.
    """

    def __init__(
        self,
        *,
        wall: Callable[[], float] = now,
        elapsed: Callable[[], float] = elapsed,
        on_step: Callable[[float], None] = lambda _: None,
        offset: float | None = None,
    ) -> None:
        self._wall = wall
        self._elapsed = elapsed
        self._on_step = on_step
        self._wall_offset = wall() - elapsed() if offset is None else offset
        # What must be added to the wall clock.
        self._correction = 0.0
        self.moves = 0

    @property
    def offset(self) -> float:
        """What this clock is ahead of `elapsed`: the same while neither it nor the machine is set anew."""
        return self._wall_offset + self._correction

    @property
    def is_wall(self) -> bool:
        """Whether this clock is the wall clock: no step is left out."""
        return abs(self._correction) < _STEP_SECONDS

    def now(self) -> float:
        """Return the seconds since the epoch."""
        wall = self._wall()
        offset = wall - self._elapsed()
        step = offset - self._wall_offset
        self._wall_offset = offset
        if abs(step) >= _STEP_SECONDS:
            self._correction -= step
            self._on_step(step)
        return wall + self._correction

    def way_to_wall(self, reference: float) -> float:
        """Return how far this clock must move to be the wall clock, where that is nearer to another clock; else 0."""
        here = self.now()
        wall = here - self._correction
        return -self._correction if abs(wall - reference) <= abs(here - reference) else 0.0

    def move(self, seconds: float) -> None:
        """Move this clock against the wall clock. `moves` counts how often that was done."""
        self._correction += seconds
        self.moves += 1


_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

# Less is followed at once: leap seconds, and what the two readings of a look are apart.
_STEP_SECONDS = 2.0

# POSIX.1-2017 section 8.3, as far as it takes to tell it from a misspelt name.
_POSIX_ZONE = re.compile(r"(<[\w+-]+>|[A-Za-z]{3,})[+-]?\d{1,2}(:\d\d){0,2}((<[\w+-]+>|[A-Za-z]{3,}).*)?")


def is_posix_zone(name: str) -> bool:
    """Whether a value of TZ has the POSIX form, such as JST-9 or CET-1CEST, which the system understands by itself."""
    return _POSIX_ZONE.fullmatch(name) is not None


def zone(name: str | None) -> tzinfo | None:
    """Return the time zone called `name` (TZ's usual form, `Asia/Tokyo`), or None for the system's own.

    A POSIX form (`JST-9`) is the system's to understand, so that it gives None too.
    """
    if not name:
        return None
    try:
        return ZoneInfo(name.removeprefix(":"))
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None


def is_unknown_zone(name: str | None) -> bool:
    """Whether a value of TZ names no zone, so that the system's own counts and a person should know."""
    return name is not None and name != "" and zone(name) is None and not is_posix_zone(name)


def local(seconds: float, zone: tzinfo | None) -> datetime:
    """Return `seconds` since the epoch as an aware datetime in `zone` (None: the system's)."""
    return datetime.fromtimestamp(seconds, tz=zone).astimezone(zone)
