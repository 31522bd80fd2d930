"""The right to the store, and the store itself: mended where it is damaged, with what the stock agent left."""

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import structlog

from ita_ag_oase import clock
from ita_ag_oase.agent.schedule import wait_for
from ita_ag_oase.errors import StoreDamaged, StoreUnavailable
from ita_ag_oase.model import Claim, Journal, Term
from ita_ag_oase.settings import Settings
from ita_ag_oase.store.access import read_term
from ita_ag_oase.store.database import StoreLock
from ita_ag_oase.store.outbox import ENVELOPE_BYTES
from ita_ag_oase.store.saving import SavingLimits
from ita_ag_oase.store.store import Store
from ita_ag_oase.store.volume import fitting_journal, network_volume

_log = structlog.get_logger()
T = TypeVar("T")

_LOCK_WAIT_SECONDS = 1.0


@asynccontextmanager
async def hold_lock(
    store_path: Path, stop: asyncio.Event, *, on_wait: Callable[[], None], claim: Claim | None = None
) -> AsyncIterator[bool]:
    """Wait until no other agent uses a store, and keep others away meanwhile; False where `stop` was set before.

    `on_wait` is called where another one does. With a claim, an agent whose term has ended by the same guard is not
    waited for: it may be frozen with the lock in its hands, and the claim's number keeps it from writing. The lock is
    taken then as soon as it is free.
    Raises StoreUnavailable where the folder cannot be written.
    """
    lock = StoreLock(store_path)
    taking: asyncio.Task[None] | None = None
    try:
        is_ours = await _acquire(lock, store_path, stop, on_wait, claim)
        if is_ours and not lock.is_ours:
            taking = asyncio.create_task(_take_when_free(lock), name="lock")
        yield is_ours
    finally:
        if taking is not None:
            taking.cancel()
            await asyncio.wait([taking])
        lock.release()


async def _acquire(
    lock: StoreLock, store_path: Path, stop: asyncio.Event, on_wait: Callable[[], None], claim: Claim | None
) -> bool:
    has_told = False
    while not stop.is_set():
        if lock.try_acquire():
            _tell_of_weak_locks(lock, store_path)
            return True
        if claim is not None and (former := await _read_term(store_path)) and is_over(former, claim):
            _log.warning("store_left_locked", path=str(store_path), holder=former.holder, term=former.number)
            return True
        if not has_told:
            _log.warning("store_in_use", path=str(store_path))
            on_wait()
            has_told = True
        await wait_for(stop, _LOCK_WAIT_SECONDS)
    return False


def is_over(term: Term, claim: Claim) -> bool:
    """Whether a claim itself tells that the stored term has ended, whoever still has the lock on the store.

    Only where both rest on one Lease: of two agents under different guards, or none, neither knows what the other does.
    """
    return bool(claim.guard) and term.guard == claim.guard and claim.number is not None and term.number < claim.number


async def _read_term(store_path: Path) -> Term | None:
    # Where it cannot be read now, the lock is waited for, and the next turn asks again.
    with contextlib.suppress(StoreUnavailable, StoreDamaged):
        return await asyncio.to_thread(read_term, store_path)
    return None


async def _take_when_free(lock: StoreLock) -> None:
    while True:
        await asyncio.sleep(_LOCK_WAIT_SECONDS)
        with contextlib.suppress(StoreUnavailable):
            if lock.try_acquire():
                return


def _tell_of_weak_locks(lock: StoreLock, store_path: Path) -> None:
    if not lock.excludes_others():
        _log.error("store_lock_ineffective", path=str(store_path))
    volume = network_volume(store_path)
    if volume is not None:
        _log.warning("store_on_network", path=str(store_path), **dataclasses.asdict(volume))


@asynccontextmanager
async def open_store(
    settings: Settings,
    *,
    on_damage: Callable[[], None],
    on_term_ended: Callable[[], None],
    claim: Claim | None = None,
    is_at_work: Callable[[], bool] = lambda: True,
) -> AsyncIterator[Store]:
    """Open the store and begin a term in it: that of a claim, or the next one by the right of the lock alone.

    `on_damage` is called where it is found damaged later, `on_term_ended` where another agent has begun a later term;
    `is_at_work` is asked before a damaged file is replaced. Raises StoreUnavailable, StoreDamaged, TermEnded.
    """
    limits = SavingLimits(
        group_events=settings.batch_max_events,
        group_bytes=settings.batch_max_bytes - ENVELOPE_BYTES,
        id_retention_seconds=settings.event_id_retention_seconds,
    )
    store = Store(
        settings.store_path,
        limits,
        storage_max_bytes=settings.storage_max_bytes,
        on_damage=on_damage,
        on_term_ended=on_term_ended,
        journal=journal_of(settings),
    )
    await _mend(store, settings, is_at_work)
    try:
        await store.open()
        await store.begin_term(claim or Claim(settings.agent_identity), int(clock.now()))
        await _take_over(store, settings)
        yield store
    finally:
        await _to_the_end(asyncio.to_thread(store.close))


def journal_of(settings: Settings) -> Journal:
    """Return the journal that STORE_JOURNAL names, or else the one that fits the volume."""
    named = settings.store_journal
    return fitting_journal(settings.store_path) if named == "auto" else Journal(named.upper())


async def _mend(store: Store, settings: Settings, is_at_work: Callable[[], bool]) -> None:
    repair = await _to_the_end(store.mend(agent_name=settings.agent_identity, now=clock.now(), is_at_work=is_at_work))
    if repair is not None:
        _log.error("store_repaired", code="AGT-10027", path=str(settings.store_path), **dataclasses.asdict(repair))


async def _take_over(store: Store, settings: Settings) -> None:
    path = settings.stock_store_path
    taken = await store.take_over(path, agent_name=settings.agent_identity, now=int(clock.now()))
    if taken is not None:
        tell = _log.warning if taken.unreadable or taken.problems else _log.info
        tell("stock_store_taken_over", path=str(path), **dataclasses.asdict(taken))


async def _to_the_end(work: Coroutine[Any, Any, T]) -> T:
    """Return what work in a thread returns; who is cancelled meanwhile still waits for its end, which comes anyway.

    Left alone, a thread that closes the store may never begin, and one that mends it goes on beside the next turn.
    """
    task = asyncio.create_task(work, name="store to the end")
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise
