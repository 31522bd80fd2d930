"""The right to the store, and the store itself: mended where it is damaged, with what the stock agent left."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import structlog

from ita_ag_oase import clock
from ita_ag_oase.agent.schedule import wait_for
from ita_ag_oase.settings import Settings
from ita_ag_oase.store.database import StoreLock
from ita_ag_oase.store.outbox import ENVELOPE_BYTES
from ita_ag_oase.store.saving import SavingLimits
from ita_ag_oase.store.store import Store
from ita_ag_oase.store.volume import network_volume

_log = structlog.get_logger()

_LOCK_WAIT_SECONDS = 1.0


@asynccontextmanager
async def hold_lock(store_path: Path, stop: asyncio.Event, *, on_wait: Callable[[], None]) -> AsyncIterator[bool]:
    """Wait until no other agent uses a store, and keep others away meanwhile; False where `stop` was set before.

    `on_wait` is called where another one does.
    Raises StoreUnavailable where the folder cannot be written.
    """
    lock = StoreLock(store_path)
    try:
        yield await _acquire(lock, store_path, stop, on_wait)
    finally:
        lock.release()


async def _acquire(lock: StoreLock, store_path: Path, stop: asyncio.Event, on_wait: Callable[[], None]) -> bool:
    has_told = False
    while not stop.is_set():
        if lock.try_acquire():
            _tell_of_weak_locks(lock, store_path)
            return True
        if not has_told:
            _log.warning("store_in_use", path=str(store_path))
            on_wait()
            has_told = True
        await wait_for(stop, _LOCK_WAIT_SECONDS)
    return False


def _tell_of_weak_locks(lock: StoreLock, store_path: Path) -> None:
    if not lock.excludes_others():
        _log.error("store_lock_ineffective", path=str(store_path))
    volume = network_volume(store_path)
    if volume is not None:
        _log.warning("store_on_network", path=str(store_path), **dataclasses.asdict(volume))


@asynccontextmanager
async def open_store(settings: Settings, *, on_damage: Callable[[], None]) -> AsyncIterator[Store]:
    """Open the store; `on_damage` is called where it is found damaged later. Raises StoreUnavailable, StoreDamaged."""
    limits = SavingLimits(
        group_events=settings.batch_max_events,
        group_bytes=settings.batch_max_bytes - ENVELOPE_BYTES,
        id_retention_seconds=settings.event_id_retention_seconds,
    )
    store = Store(settings.store_path, limits, storage_max_bytes=settings.storage_max_bytes, on_damage=on_damage)
    await _mend(store, settings)
    try:
        await store.open()
        await _take_over(store, settings)
        yield store
    finally:
        await asyncio.to_thread(store.close)


async def _mend(store: Store, settings: Settings) -> None:
    repair = await store.mend(agent_name=settings.agent_identity, now=clock.now())
    if repair is not None:
        _log.error("store_repaired", code="AGT-10027", path=str(settings.store_path), **dataclasses.asdict(repair))


async def _take_over(store: Store, settings: Settings) -> None:
    path = settings.stock_store_path
    taken = await store.take_over(path, agent_name=settings.agent_identity, now=int(clock.now()))
    if taken is not None:
        tell = _log.warning if taken.unreadable or taken.problems else _log.info
        tell("stock_store_taken_over", path=str(path), **dataclasses.asdict(taken))
