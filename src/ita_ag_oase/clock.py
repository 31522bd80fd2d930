"""The only reader of the wall clock. Durations and schedules use the event loop's monotonic clock instead."""

import re
import time
from datetime import datetime, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError


def now() -> float:
    """Return the seconds since the epoch."""
    return time.time()


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


def local(seconds: float, zone: tzinfo | None) -> datetime:
    """Return `seconds` since the epoch as an aware datetime in `zone` (None: the system's)."""
    return datetime.fromtimestamp(seconds, tz=zone).astimezone(zone)
