"""A world whose time moves only when it is told to, with processes that can be frozen and messages that take their way.

Each process has an event loop of its own: one that is not run is a process that was stopped (SIGSTOP), whose clock goes
on all the same.
"""

import asyncio
import heapq
import itertools
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class World:
    """The time, and what happens at which moment."""

    def __init__(self) -> None:
        self.now = 0.0
        self.processes: list[Process] = []
        self._order = itertools.count()
        self._events: list[tuple[float, int, Callable[[], None]]] = []

    def later(self, seconds: float, what: Callable[[], None]) -> None:
        """Have something happen after a while, whoever is frozen then."""
        heapq.heappush(self._events, (self.now + seconds, next(self._order), what))

    def advance(self, seconds: float, check: Callable[[], None] = lambda: None) -> None:
        """Let time pass, and everything happen that falls into it; `check` is called after each happening."""
        until = self.now + seconds
        while True:
            for process in self.processes:
                process.run_ready()
            check()
            moment = min((self._events[0][0] if self._events else until, *(each.next_due for each in self.processes)))
            if moment > until:
                break
            self.now = max(self.now, moment)
            while self._events and self._events[0][0] <= self.now:
                heapq.heappop(self._events)[2]()
            if moment == until and not self._is_due():
                break
        self.now = until

    def _is_due(self) -> bool:
        is_event_due = bool(self._events) and self._events[0][0] <= self.now
        return is_event_due or any(process.next_due <= self.now for process in self.processes)


class _Loop(asyncio.SelectorEventLoop):
    """A loop that knows the world's time and never waits."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world
        # A timer is due at its very moment.
        self._clock_resolution = 1e-9
        # As if it were about to stop: then it never waits in earnest for what is not due.
        self._stopping = True

    def time(self) -> float:
        return self._world.now


class Process:
    """A process of the world. `run_ready` does what there is to do at this moment."""

    def __init__(self, world: World, work: Callable[["Process"], Coroutine[Any, Any, None]]) -> None:
        self.is_frozen = False
        self._world = world
        self._loop = _Loop(world)
        self._main = self._loop.create_task(work(self))
        world.processes.append(self)

    @property
    def next_due(self) -> float:
        """When it has to do something next; never while it is frozen."""
        if self.is_frozen:
            return float("inf")
        # A timer that was cancelled may be among them, and does nothing.
        timers = self._loop._scheduled  # type: ignore[attr-defined] # asyncio's own
        return float(timers[0].when()) if timers else float("inf")

    @property
    def has_ended(self) -> bool:
        """Whether its work is done."""
        return self._main.done()

    def run_ready(self) -> None:
        """Do what there is to do now, unless it is frozen. Raises what the work raised."""
        if self.is_frozen or not self._has_work():
            return
        asyncio._set_running_loop(self._loop)
        try:
            while self._has_work():
                # As run_forever does, without what it does besides.
                self._loop._run_once()  # type: ignore[attr-defined] # asyncio's own
        finally:
            asyncio._set_running_loop(None)
        if self._main.done() and not self._main.cancelled():
            self._main.result()

    def _has_work(self) -> bool:
        return bool(self._loop._ready) or self.next_due <= self._world.now  # type: ignore[attr-defined] # asyncio's own

    def message(self, what: Callable[[], None]) -> None:
        """Have something happen inside of it, as soon as it runs; one that has ended hears nothing."""
        if not self._loop.is_closed():
            self._loop.call_soon(what)

    def end(self) -> None:
        """Let it be gone, without a word."""
        self._world.processes.remove(self)
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self.is_frozen = False
        self.run_ready()
        self._loop.close()
