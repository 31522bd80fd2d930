"""All that is known of the running agent at one moment: what it tells of itself, and what its store holds."""

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

from ita_ag_oase import __version__, clock
from ita_ag_oase.clock import SteadyClock
from ita_ag_oase.errors import AgentError
from ita_ag_oase.observability.health import Counts, Health
from ita_ag_oase.settings import Settings
from ita_ag_oase.status import OutboxStatus, SourceStatus, Status, StoreStatus
from ita_ag_oase.store.access import StoreAccess
from ita_ag_oase.store.figures import Figures
from ita_ag_oase.store.store import Store

# So long the store's figures are good enough: they take longer the more waits.
_GOOD_SECONDS = 5.0
# So long who asks for the figures waits for them.
_PATIENCE_SECONDS = 3.0
# So long a probe waits for the store. Kubernetes gives a probe one second.
_PROBE_SECONDS = 0.5


class Overview:
    """Puts together what there is to know. Nothing is read before someone asks."""

    def __init__(self, settings: Settings, health: Health) -> None:
        self.health = health
        self._settings = settings
        self._steady: SteadyClock | None = None
        self._figures: _FiguresOfStore | None = None
        self._pulse: _Pulse | None = None

    @asynccontextmanager
    async def over(self, store: Store, steady: SteadyClock) -> AsyncIterator[None]:
        """Look at an open store, too, and tell ages by the agent's own clock."""
        figures, pulse = _FiguresOfStore(self._settings.store_path), _Pulse(store)
        self._steady, self._figures, self._pulse = steady, figures, pulse
        try:
            yield
        finally:
            self._figures = self._pulse = None
            await figures.close()
            await pulse.close()

    async def status(self) -> Status:
        """Return what is known now, in the words in which it was told."""
        settings, health = self._settings, self.health
        figures = await self._figures.read() if self._figures else None
        now = self._steady.now() if self._steady else clock.now()
        url = urlsplit(settings.exastro_url)
        return Status(
            version=__version__,
            agent=settings.agent_identity,
            workspace=settings.exastro_workspace_id,
            phase=health.phase,
            is_ready=health.is_ready,
            started=health.started,
            now=clock.now(),
            interval_seconds=settings.execute_interval,
            sources=tuple(_with_figures(source, figures, now) for source in health.sources),
            exastro=health.exastro(f"{url.scheme}://{url.netloc}"),
            outbox=outbox_of(figures, now, health.drain_seconds) if figures else None,
            store=self._store(figures) if figures else None,
            ledger_imbalance=figures.imbalance if figures else None,
            election=health.election,
        )

    @property
    def counts(self) -> Counts:
        """What was counted since the process started."""
        return self.health.counts

    async def store_silence_seconds(self) -> float:
        """Return for how long the store has not answered; 0 where it does, or where none is open."""
        return await self._pulse.silence_seconds() if self._pulse else 0.0

    def _store(self, figures: Figures) -> StoreStatus:
        store = store_of(figures, self._settings.store_path, self._settings.storage_max_bytes)
        return dataclasses.replace(store, trouble=self.health.store_trouble, is_working=self.health.is_store_working)


def outbox_of(figures: Figures, now: float, drain_seconds: Callable[[int], float | None]) -> OutboxStatus:
    """Return the outbox as the figures have it; `drain_seconds` tells how long so many events take to be delivered."""
    waiting, parked = figures.waiting, figures.parked
    return OutboxStatus(
        waiting_groups=waiting.groups,
        waiting_events=waiting.events,
        waiting_bytes=waiting.bytes,
        oldest_age_seconds=None if waiting.oldest is None else max(now - waiting.oldest, 0.0),
        parked_groups=parked.groups,
        parked_events=parked.events,
        drain_seconds=drain_seconds(waiting.events),
    )


def store_of(figures: Figures, path: Path, max_bytes: int) -> StoreStatus:
    """Return the store as the figures have it, with a path that means the same in every folder."""
    return StoreStatus(
        path=str(path.absolute()),
        used_bytes=figures.used_bytes,
        max_bytes=max_bytes,
        disk_free_bytes=figures.disk_free_bytes,
        trouble=None,
    )


class _FiguresOfStore:
    """The figures of a store, read beside it, so that nobody waits who collects or delivers."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._reading: asyncio.Task[Figures | None] | None = None
        self._good_until = 0.0

    async def read(self) -> Figures | None:
        """Return figures that are a few seconds old at most; None where they cannot be had, or not soon."""
        loop = asyncio.get_running_loop()
        if self._reading is None or (self._reading.done() and loop.time() >= self._good_until):
            self._reading = asyncio.create_task(asyncio.to_thread(_figures_at, self._path), name="store figures")
            self._good_until = loop.time() + _GOOD_SECONDS
        await asyncio.wait([self._reading], timeout=_PATIENCE_SECONDS)
        return self._reading.result() if self._reading.done() else None

    async def close(self) -> None:
        """Wait for the end of what is being read, which nothing can cut short."""
        if self._reading is not None:
            await asyncio.wait([self._reading])


class _Pulse:
    """Finds out whether a store's thread still answers."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._asking: asyncio.Task[None] | None = None
        self._asked_at = 0.0

    async def silence_seconds(self) -> float:
        loop = asyncio.get_running_loop()
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask(), name="store pulse")
            self._asked_at = loop.time()
        await asyncio.wait([self._asking], timeout=_PROBE_SECONDS)
        return 0.0 if self._asking.done() else loop.time() - self._asked_at

    async def close(self) -> None:
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait([self._asking])

    async def _ask(self) -> None:
        # One that answers with an error is at work.
        with contextlib.suppress(AgentError):
            await self._store.answer()


def _figures_at(path: Path) -> Figures | None:
    try:
        with StoreAccess(path) as access:
            return access.figures()
    except AgentError:
        return None


def _with_figures(source: SourceStatus, figures: Figures | None, now: float) -> SourceStatus:
    read_until = figures.read_until.get(source.name) if figures else None
    return dataclasses.replace(
        source,
        lag_seconds=None if read_until is None else max(now - read_until, 0.0),
        ledger=figures.ledgers.get(source.name) if figures else None,
    )
