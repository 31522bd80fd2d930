"""Keeps the agent's clock steady, with Exastro's clock to decide which of two is right."""

import asyncio
import contextlib
import functools
import math
from collections.abc import Callable

import msgspec
import structlog

from ita_ag_oase import clock
from ita_ag_oase.clock import SteadyClock
from ita_ag_oase.errors import StoreDamaged, StoreUnavailable, TermEnded
from ita_ag_oase.store.store import Store

_log = structlog.get_logger()

_FACT = "clock"
_TOLD_FROM_SECONDS = 60.0
# A Date header has whole seconds, and some time passes until it is read.
_NOISE_SECONDS = 5.0
_NEWS_SECONDS = 2.0


class _Kept(msgspec.Struct, frozen=True):
    """By how many seconds the agent's clock is ahead: of the time since the machine started, and of Exastro's clock.

    `is_compared` is False while `difference` is that of an earlier start of the machine.
    """

    boot_id: str | None
    offset: float
    difference: float | None
    is_compared: bool = True

    def is_near(self, other: "_Kept") -> bool:
        """Whether the other tells nothing new."""
        differences = (self.difference or 0.0) - (other.difference or 0.0)
        return (
            (self.boot_id, self.is_compared) == (other.boot_id, other.is_compared)
            and (self.difference is None) == (other.difference is None)
            and abs(self.offset - other.offset) < _NEWS_SECONDS
            and abs(differences) < _NEWS_SECONDS
        )


class Timekeeper:
    """Compares the agent's clock with that of Exastro at each answer.

    When the agent's clock moves, the cursors move with it: they go on to mean the same moments. What is known of the
    clocks is kept in the store, so that a step of the wall clock between two lives is found out: by the time that has
    passed since the machine started, and where it was started anew, or is another one, by Exastro's clock.

    `on_difference` is told at each answer by how many seconds the agent's clock is ahead of Exastro's.
    """

    def __init__(
        self,
        store: Store,
        *,
        on_difference: Callable[[float], None],
        wall: Callable[[], float] = clock.now,
        elapsed: Callable[[], float] = clock.elapsed,
        boot_id: str | None = None,
    ) -> None:
        self._make_clock = functools.partial(SteadyClock, wall=wall, elapsed=elapsed, on_step=_tell_step)
        self.clock = self._make_clock()
        self._elapsed = elapsed
        self._store = store
        self._on_difference = on_difference
        self._boot_id = boot_id or clock.boot_id()
        self._has_compared = False
        self._kept: _Kept | None = None
        self._is_told = False
        # Answers come side by side, and none may move the cursors for what another is moving them for.
        self._comparing = asyncio.Lock()

    async def open(self) -> None:
        """Go on from the clock of the last life. Raises the store's errors."""
        with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
            self._kept = msgspec.json.decode(await self._store.fact(_FACT) or b"", type=_Kept)
        if self._kept and self._kept.boot_id == self._boot_id is not None:
            self.clock = self._make_clock(offset=self._kept.offset)
            self.clock.now()
            # Where it did not step, a difference that changed is a step of Exastro's clock.
            self._has_compared = self._kept.is_compared and self.clock.is_wall
        await self._keep(self._kept.difference if self._kept else None)

    async def note(self, reference: float) -> None:
        """Compare with Exastro's clock, in epoch seconds. Where the store fails, the next answer will do."""
        # What this answer is about must not be lost.
        with contextlib.suppress(StoreUnavailable, StoreDamaged, TermEnded):
            await self.compare(reference)

    async def compare(self, reference: float) -> None:
        """Compare with Exastro's clock, and move where that speaks for it. Raises the store's errors."""
        # Who gives up waiting for the answer cannot know whether the cursors have moved by then.
        await asyncio.shield(asyncio.create_task(self._compare(reference - self._elapsed()), name="clock"))

    async def _compare(self, exastro_offset: float) -> None:
        async with self._comparing:
            if not self._has_compared:
                await self._compare_with_last_life(exastro_offset)
            way = self.clock.way_to_wall(exastro_offset + self._elapsed())
            if way:
                await self._move(way, cursors=way, exastro_offset=exastro_offset)
                _log.warning("clock_followed", seconds=round(way))
            difference = self._difference(exastro_offset)
            self._on_difference(difference)
            await self._keep(difference)
            self._tell(difference)

    def _difference(self, exastro_offset: float) -> float:
        self.clock.now()
        return self.clock.offset - exastro_offset

    async def _compare_with_last_life(self, exastro_offset: float) -> None:
        before = self._kept.difference if self._kept else None
        difference = self._difference(exastro_offset)
        step = 0.0 if before is None else difference - before
        is_step = before is not None and abs(step) > _NOISE_SECONDS
        if is_step and abs(difference) > abs(before or 0.0):
            _tell_step(step)
            self.clock.move(-step)
        elif is_step:
            # It was wrong, and was set right in between.
            await self._move(0.0, cursors=step, exastro_offset=exastro_offset)
        self._has_compared = True

    async def _move(self, seconds: float, *, cursors: float, exastro_offset: float) -> None:
        # First the clock, so that a poll which began by the old one is not saved behind the cursors' back.
        self.clock.move(seconds)
        kept = msgspec.structs.replace(self._known(self._difference(exastro_offset)), is_compared=True)
        try:
            # Down, so that a cursor never passes the moment that it stands for.
            await self._store.shift(math.floor(cursors), {_FACT: msgspec.json.encode(kept)})
        except BaseException:
            self.clock.move(-seconds)
            raise
        self._kept = kept

    async def _keep(self, difference: float | None) -> None:
        known = self._known(difference)
        if self._kept is None or not self._kept.is_near(known):
            await self._store.keep_fact(_FACT, msgspec.json.encode(known))
            self._kept = known

    def _known(self, difference: float | None) -> _Kept:
        return _Kept(
            boot_id=self._boot_id,
            offset=self.clock.offset,
            difference=difference,
            is_compared=self._has_compared or difference is None,
        )

    def _tell(self, difference: float) -> None:
        is_far = abs(difference) >= _TOLD_FROM_SECONDS
        if is_far and not self._is_told:
            _log.warning("clock_differs", seconds=round(difference))
        elif self._is_told and not is_far:
            _log.info("clock_agrees", seconds=round(difference))
        self._is_told = is_far


def _tell_step(seconds: float) -> None:
    _log.warning("clock_stepped", seconds=round(seconds))
