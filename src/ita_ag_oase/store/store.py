"""The store as the rest of the agent sees it: coroutines that return once their transaction is on disk."""

import asyncio
import contextlib
import functools
import math
import sqlite3
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TypeVar

from ita_ag_oase.errors import Reason, StoreDamaged, StoreUnavailable, TermEnded
from ita_ag_oase.model import Batch, Claim, Collection, Cursor, Journal, Repair, Saved, Settlement, TakeOver, Term
from ita_ag_oase.store import history, legacy, outbox, registry, repair, saving, terms
from ita_ag_oase.store.database import Database, Work, no_space, translated
from ita_ag_oase.store.lists import Listed, Lists
from ita_ag_oase.store.outbox import BatchLimits
from ita_ag_oase.store.registry import Sizes
from ita_ag_oase.store.reserve import Reserve, free_bytes
from ita_ag_oase.store.saving import SavingLimits
from ita_ag_oase.store.schema import Opener
from ita_ag_oase.text import Text

T = TypeVar("T")

# Once the volume was full, polling goes on when this much more is free.
_MORE_ROOM_BYTES = 1_048_576
# So long it is believed that there was none: what took the space may be gone, and others take what became free.
_FULL_SECONDS = 20.0
# A delivery is not kept waiting for longer than some hundred megabytes take.
_GIVE_BACK_TURNS = 50
# What may change so many pages that it is saved in a transaction of its own.
_LARGE_ANSWER_BYTES = 1_048_576
# What of a transaction may not have reached the WAL or the file yet (SQLite's cache), twice: there and in the file.
_CACHED_BYTES = 4 * 1_048_576


class Store:
    """Events on their way, remembered ids, cursors and the last known settings of one agent.

    Every coroutine raises StoreUnavailable where the disk is full, locked or fails, and StoreDamaged where the file is.
    In the latter case `damage` is set and `on_damage` called: only `mend`, at the next start, can help. Once a term was
    begun, they raise TermEnded after its end: then `term_ended` is set and `on_term_ended` called, once. `journal` is
    how changes are made safe, and `opener` what opens the file.
    """

    def __init__(
        self,
        path: Path,
        limits: SavingLimits,
        *,
        storage_max_bytes: int,
        on_damage: Callable[[], None] = lambda: None,
        on_term_ended: Callable[[], None] = lambda: None,
        journal: Journal = Journal.WAL,
        opener: Opener = sqlite3.connect,
    ) -> None:
        self._path = path
        self._make_database = functools.partial(
            Database,
            path,
            on_damage=self._note_damage,
            on_term_ended=self._note_end,
            journal=journal,
            opener=opener,
        )
        self._database = self._make_database()
        self._loop: asyncio.AbstractEventLoop
        self._on_damage = on_damage
        self._on_term_ended = on_term_ended
        self.damage: StoreDamaged | None = None
        self.term_ended: TermEnded | None = None
        self._limits = limits
        self._max_bytes = storage_max_bytes
        self._sizes = Sizes(used_bytes=0, free_bytes=0)
        self._reserve = Reserve(path)
        self._lists = Lists()
        self._room_when_full: int | None = None
        self._full_until = 0.0
        # When the log was emptied because there was no space, and no save has worked since; None otherwise.
        self._log_emptied_at: float | None = None

    async def mend(
        self, *, agent_name: str, now: float, is_at_work: Callable[[], bool] = lambda: True
    ) -> Repair | None:
        """Set a damaged file aside and save what can be read into a new one; None where there is nothing to mend.

        To be called before `open`. Groups that must be made anew get `agent_name`; `now` is in epoch seconds. Raises
        TermEnded, with the file as it was, where `is_at_work` denies that it is this agent's turn.
        """

        def work() -> Repair | None:
            with translated(self._path):
                return repair.mend(self._path, agent_name=agent_name, now=now, is_at_work=is_at_work)

        return await self._in_need(lambda: asyncio.to_thread(work))

    async def open(self) -> None:
        """Open the file, making or migrating it where needed."""
        self._loop = asyncio.get_running_loop()
        try:
            await self._database.open()
        except StoreUnavailable as err:
            if err.reason is not Reason.STORE_FULL or not self._reserve.release():
                raise
            self._database = self._make_database()
            await self._database.open()
        self._sizes = await self._database.run(registry.sizes)
        with translated(self._path):
            self._reserve.hold()

    def _note_damage(self, err: StoreDamaged) -> None:
        self.damage = err
        self._loop.call_soon_threadsafe(self._on_damage)

    def _note_end(self, err: TermEnded) -> None:
        self.term_ended = err
        self._loop.call_soon_threadsafe(self._on_term_ended)

    async def begin_term(self, claim: Claim, now: int) -> Term:
        """Begin the term of an agent, the first thing after `open`; `now` is in epoch seconds.

        A claim without a number, by the lock alone, gets the next one. Raises TermEnded where the store knows that
        number, or a greater one, already.
        """
        return await self._in_need(lambda: self._database.begin_term(claim, now))

    async def term(self) -> Term | None:
        """Return the latest term that was begun in this store; None before the first."""
        return await self._run(terms.stored)

    def close(self) -> None:
        """Close the file after what waits to be written."""
        self._database.close()

    def require_room(self) -> None:
        """Raise StoreUnavailable while the store holds as much as it may, or its volume has no space for more."""
        if self._sizes.used_bytes >= self._max_bytes:
            raise StoreUnavailable(
                Text(
                    "the store holds {used} bytes of at most {limit}: polling pauses until events are delivered; "
                    "raise STORAGE_MAX_BYTES where the volume has room",
                    used=self._sizes.used_bytes,
                    limit=self._max_bytes,
                ),
                reason=Reason.STORE_FULL,
            )
        with translated(self._path):
            room = free_bytes(self._path) + self._sizes.free_bytes
            was_full = self._room_when_full is not None and self._loop.time() < self._full_until
            has_no_more = was_full and room < (self._room_when_full or 0) + _MORE_ROOM_BYTES
            if has_no_more or not self._reserve.hold():
                raise no_space(self._path)
        self._room_when_full = None

    async def take_over(self, path: Path, *, agent_name: str, now: int) -> TakeOver | None:
        """Read the stock agent's database into a store that is new; None where there is none, or this is not new."""
        return await self._database.run(
            lambda connection: legacy.take_over_once(connection, path, agent_name=agent_name, now=now)
        )

    async def register(self, setting_id: str, name: str, now: int) -> None:
        """See that a setting is known; a new one starts with `now` (epoch seconds) as its last fetched time."""
        await self._run(lambda connection: registry.register(connection, setting_id, name, now))

    async def cursor(self, setting_id: str) -> Cursor:
        """Return how far a registered setting has been collected."""
        return await self._database.run(lambda connection: registry.cursor(connection, setting_id))

    async def save(self, collection: Collection) -> Saved:
        """Save a poll's new events, all ids it held and the advanced cursor, in one transaction.

        `collection.events` is consumed in the store's thread; what it raises is raised here, and nothing is saved.
        """
        started = self._loop.time()
        try:
            saved, self._sizes, listed = await self._database.run(
                lambda connection: self._save(connection, collection),
                alone=collection.answer_bytes >= _LARGE_ANSWER_BYTES,
            )
        except StoreUnavailable as err:
            if err.reason is Reason.STORE_FULL and self._room_when_full is None:
                await self._make_room(started)
            raise
        self._log_emptied_at = None
        self._lists.note(collection.setting_id, listed)
        return saved

    async def _make_room(self, started: float) -> None:
        """Give back what space the store does not need; have polling pause where that was not enough for a save.

        `started` is when the save began that found no space.
        """
        if self._log_emptied_at is None:
            # Others that find no space meanwhile need not wait for more than this.
            self._log_emptied_at = math.inf
            await self._give_space_back()
            self._log_emptied_at = self._loop.time()
        elif started >= self._log_emptied_at:
            with translated(self._path):
                self._room_when_full = free_bytes(self._path) + self._sizes.free_bytes
                self._full_until = self._loop.time() + _FULL_SECONDS
            # By the end of the pause there may be more to give back.
            self._log_emptied_at = None

    async def _give_space_back(self) -> None:
        # What was done before stands, whatever becomes of this.
        with contextlib.suppress(StoreUnavailable):
            # First, since even to give pages back takes room in the log.
            await self._in_need(self._database.empty_log)
            for _ in range(_GIVE_BACK_TURNS):
                self._sizes = await self._database.run(_after_giving_back)
                if not self._sizes.free_bytes:
                    break
            await self._in_need(self._database.empty_log)

    def _save(self, connection: sqlite3.Connection, collection: Collection) -> tuple[Saved, Sizes, Listed | None]:
        if not self._reserve.is_held:
            # Delivery has come to need it since the poll began: what is free now is not for new events.
            raise no_space(self._path)
        saved, listed = saving.save(connection, collection, self._limits, self._lists)
        sizes = registry.sizes(connection)
        # The WAL can be emptied, and used again, only where the file can grow by what is in it. With the other journal
        # this is what the file has still to grow by at the commit.
        growth = sizes.used_bytes + sizes.free_bytes - self._path.stat().st_size
        if growth + _CACHED_BYTES > free_bytes(self._path):
            raise no_space(self._path)
        return saved, sizes, listed

    async def next_batch(self, limits: BatchLimits, now: int) -> Batch | None:
        """Return the groups of the next request, marked as offered; None if nothing waits."""
        # Here as well, since a command may have dropped what filled the store while polling pauses.
        batch, self._sizes = await self._run(
            lambda connection: (outbox.next_batch(connection, limits, now), registry.sizes(connection))
        )
        return batch

    async def note_answer(self, batch: Batch, answer: str) -> None:
        """Note what was said to a request that will come again."""
        await self._run(lambda connection: history.note_answer(connection, batch.numbers, answer))

    async def withdraw(self, batch: Batch, answer: str) -> None:
        """Note that a request surely left no trace at the receiver, and why; the same request comes next."""

        def work(connection: sqlite3.Connection) -> None:
            history.note_answer(connection, batch.numbers, answer)
            outbox.withdraw(connection, batch)

        await self._run(work)

    async def dissolve(self, batch: Batch, answer: str) -> None:
        """Note that a request left no trace, and why, and shall be put together anew."""

        def work(connection: sqlite3.Connection) -> None:
            history.note_answer(connection, batch.numbers, answer)
            outbox.dissolve(connection, batch)

        await self._run(work)

    async def cut(self, batch: Batch, now: int, answer: str) -> bool:
        """Dissolve a request of one group and cut that group, of two events at least, in halves.

        False where its events can no longer be read; then the group is parked. `answer` is why it is cut.
        """

        def work(connection: sqlite3.Connection) -> bool:
            number = batch.groups[0].number
            outbox.dissolve(connection, batch)
            is_cut = outbox.cut(connection, number, now, answer)
            if not is_cut:
                outbox.park_damaged(connection, number, now)
            return is_cut

        return await self._run(work)

    async def settle(self, batch: Batch, settlement: Settlement, now: int) -> None:
        """Carry out what Exastro's answer meant for each group of a request."""

        def work(connection: sqlite3.Connection) -> Sizes:
            outbox.settle(connection, batch, settlement, now)
            return registry.sizes(connection)

        self._sizes = await self._run(work)
        if self._room_when_full is not None or not self._reserve.is_held:
            # Polling waits for the space.
            await self._give_space_back()

    async def fact(self, name: str) -> bytes | None:
        """Return the bytes kept under a name, or None."""
        return await self._run(lambda connection: registry.fact(connection, name))

    async def keep_fact(self, name: str, value: bytes) -> None:
        """Keep bytes under a name, in place of those from before."""
        await self._run(lambda connection: registry.keep_fact(connection, name, value))

    async def shift(self, seconds: int, facts: Mapping[str, bytes]) -> None:
        """Move the cursors and what else was noted by a clock that was moved, and keep facts about that with it."""

        def work(connection: sqlite3.Connection) -> None:
            self._lists.invalidate()
            registry.shift(connection, seconds)
            for name, value in facts.items():
                registry.keep_fact(connection, name, value)

        await self._run(work)

    async def purge(self, now: int) -> int:
        """Forget ids that no response has held for long, and what became of events long ago.

        Return how many rows; repeat until there are none.
        """
        limits = registry.Retention(self._limits.id_retention_seconds, history.most_rows(self._max_bytes))

        def work(connection: sqlite3.Connection) -> int:
            self._lists.invalidate()
            return registry.purge(connection, limits, now)

        return await self._run(work)

    async def answer(self) -> None:
        """Return once the thread that writes has come to it: that it is at work."""
        await self._database.run(lambda _: None)

    async def waiting_events(self) -> int:
        """Return how many events wait for delivery."""
        return await self._run(registry.waiting_events)

    async def _run(self, work: Work[T]) -> T:
        return await self._in_need(lambda: self._database.run(work))

    async def _in_need(self, call: Callable[[], Awaitable[T]]) -> T:
        """Call once more with the reserve given free, where no space is left."""
        try:
            return await call()
        except StoreUnavailable as err:
            if err.reason is not Reason.STORE_FULL or not self._reserve.release():
                raise
        return await call()


def _after_giving_back(connection: sqlite3.Connection) -> Sizes:
    registry.give_space_back(connection)
    return registry.sizes(connection)
