"""Measures of what happens again and again. They take the same room however much they have seen."""

import itertools
from bisect import bisect_left
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

_SLICE_SECONDS = 30.0
_SLICES = 10


@dataclass(frozen=True, slots=True)
class Distribution:
    """How values are distributed: how many were at most as great as each bound, and at last how many there were.

    `total` is their sum.
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float


class Histogram:
    """Counts values by their size."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self._total = 0.0

    def add(self, value: float) -> None:
        """Count a value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._total += value

    @property
    def distribution(self) -> Distribution:
        """What was counted so far."""
        return Distribution(self._bounds, tuple(itertools.accumulate(self._counts)), self._total)


class Throughput:
    """How much gets done in a second of work, over the last five minutes."""

    def __init__(self) -> None:
        # When a slice of time began, the amount done in it, and the seconds worked.
        self._slices: deque[tuple[float, float, float]] = deque(maxlen=_SLICES)

    def add(self, amount: float, seconds: float, *, now: float) -> None:
        """Note an amount that was done, and how long it took; `now` is any clock's time that only grows."""
        if self._slices and now - self._slices[-1][0] < _SLICE_SECONDS:
            began, earlier_amount, earlier_seconds = self._slices.pop()
            self._slices.append((began, earlier_amount + amount, earlier_seconds + seconds))
        else:
            self._slices.append((now, amount, seconds))

    def per_second(self, *, now: float) -> float | None:
        """Return the amount per second of work; None where nothing was done lately."""
        recent = [each for each in self._slices if now - each[0] < _SLICE_SECONDS * _SLICES]
        amount = sum(amount for _, amount, _ in recent)
        seconds = sum(seconds for _, _, seconds in recent)
        return amount / seconds if amount and seconds else None
