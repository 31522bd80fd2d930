"""Keeps the agent's clock steady, with Exastro's clock to decide which of two is right."""

import contextlib
from collections.abc import Callable

import structlog

from ita_ag_oase import clock
from ita_ag_oase.clock import SteadyClock
from ita_ag_oase.errors import StoreDamaged, StoreUnavailable
from ita_ag_oase.store.store import Store

_log = structlog.get_logger()

_FACT = "clock"
_TOLD_FROM_SECONDS = 60.0
# A Date header has whole seconds, and some time passes until it is read.
_NOISE_SECONDS = 5.0


class Timekeeper:
    """Compares the agent's clock with that of Exastro at each answer.

    How far the two are apart is kept in the store, so that a step of the wall clock between two lives is found out.
    When the agent's clock moves, the cursors move with it: they go on to mean the same moments.
    """

    def __init__(
        self, store: Store, *, wall: Callable[[], float] = clock.now, elapsed: Callable[[], float] = clock.elapsed
    ) -> None:
        self.clock = SteadyClock(wall=wall, elapsed=elapsed, on_step=_tell_step)
        self._store = store
        self._has_compared = False
        self._kept: float | None = None
        self._is_told = False

    async def note(self, reference: float) -> None:
        """Compare with Exastro's clock, in epoch seconds. Where the store fails, the next answer will do."""
        # What this answer is about must not be lost.
        with contextlib.suppress(StoreUnavailable, StoreDamaged):
            await self.compare(reference)

    async def compare(self, reference: float) -> None:
        """Compare with Exastro's clock, and move where that speaks for it. Raises the store's errors."""
        if not self._has_compared:
            await self._compare_with_last_life(reference)
        way = self.clock.way_to_wall(reference)
        if way:
            await self._move(way, cursors=way)
            _log.warning("clock_followed", seconds=round(way), action="the cursors moved with the clock")
        difference = self.clock.now() - reference
        await self._keep(difference)
        self._tell(difference)

    async def _compare_with_last_life(self, reference: float) -> None:
        kept = await self._store.fact(_FACT)
        if kept is not None:
            self._kept = float(kept)
            difference = self.clock.now() - reference
            step = difference - self._kept
            if abs(step) > _NOISE_SECONDS and abs(difference) > abs(self._kept):
                _tell_step(step)
                self.clock.move(-step)
            elif abs(step) > _NOISE_SECONDS:
                # It was wrong, and was set right in between.
                await self._move(0.0, cursors=step)
        self._has_compared = True

    async def _move(self, seconds: float, *, cursors: float) -> None:
        # First the clock, so that a poll which began by the old one is not saved behind the cursors' back.
        self.clock.move(seconds)
        try:
            await self._store.shift(round(cursors))
        except BaseException:
            self.clock.move(-seconds)
            raise

    async def _keep(self, difference: float) -> None:
        if self._kept is None or abs(difference - self._kept) > _NOISE_SECONDS / 2:
            await self._store.keep_fact(_FACT, b"%d" % round(difference))
            self._kept = round(difference)

    def _tell(self, difference: float) -> None:
        is_far = abs(difference) >= _TOLD_FROM_SECONDS
        if is_far and not self._is_told:
            _log.warning(
                "clock_differs",
                seconds=round(difference),
                action="events may expire too early or too late, since Exastro's clock is another one: set both by NTP",
            )
        elif self._is_told and not is_far:
            _log.info("clock_agrees", seconds=round(difference))
        self._is_told = is_far


def _tell_step(seconds: float) -> None:
    _log.warning(
        "clock_stepped",
        seconds=round(seconds),
        action="the agent goes on by the time that has passed until Exastro's clock agrees with the new time",
    )
