"""The store as the rest of the agent sees it: coroutines that return once their transaction is on disk."""

import sqlite3
from pathlib import Path

from ita_ag_oase.errors import Reason, StoreUnavailable
from ita_ag_oase.model import Batch, Collection, Cursor, Saved, Settlement, TakeOver
from ita_ag_oase.store import legacy, outbox, registry, saving
from ita_ag_oase.store.database import Connect, Database
from ita_ag_oase.store.outbox import BatchLimits
from ita_ag_oase.store.saving import SavingLimits


class Store:
    """Events on their way, remembered ids, cursors and the last known settings of one agent.

    Every coroutine raises StoreUnavailable where the disk is full, locked or fails, and StoreDamaged where the file is.
    `connect` is called as sqlite3.connect would be.
    """

    def __init__(
        self, path: Path, limits: SavingLimits, *, storage_max_bytes: int, connect: Connect = sqlite3.connect
    ) -> None:
        self._database = Database(path, connect=connect)
        self._limits = limits
        self._max_bytes = storage_max_bytes
        self._used_bytes = 0

    async def open(self) -> None:
        """Open the file, making or migrating it where needed."""
        await self._database.open()
        self._used_bytes = await self._database.run(registry.used_bytes)

    def close(self) -> None:
        """Close the file after what waits to be written."""
        self._database.close()

    def require_room(self) -> None:
        """Raise StoreUnavailable while the store holds as much as it may."""
        if self._used_bytes >= self._max_bytes:
            raise StoreUnavailable(
                f"the store holds {self._used_bytes} bytes of at most {self._max_bytes}: polling pauses until events "
                "are delivered; raise STORAGE_MAX_BYTES where the volume has room",
                reason=Reason.STORE_FULL,
            )

    async def take_over(self, path: Path, *, agent_name: str, now: int) -> TakeOver | None:
        """Read the stock agent's database into a store that is new; None where there is none, or this is not new."""
        return await self._database.run(
            lambda connection: legacy.take_over_once(connection, path, agent_name=agent_name, now=now)
        )

    async def register(self, setting_id: str, name: str, now: int) -> None:
        """See that a setting is known; a new one starts with `now` (epoch seconds) as its last fetched time."""
        await self._database.run(lambda connection: registry.register(connection, setting_id, name, now))

    async def cursor(self, setting_id: str) -> Cursor:
        """Return how far a registered setting has been collected."""
        return await self._database.run(lambda connection: registry.cursor(connection, setting_id))

    async def save(self, collection: Collection) -> Saved:
        """Save a poll's new events, all ids it held and the advanced cursor, in one transaction.

        `collection.events` is consumed in the store's thread; what it raises is raised here, and nothing is saved.
        """
        saved, self._used_bytes = await self._database.run(
            lambda connection: (saving.save(connection, collection, self._limits), registry.used_bytes(connection))
        )
        return saved

    async def next_batch(self, limits: BatchLimits, now: int) -> Batch | None:
        """Return the groups of the next request, marked as offered; None if nothing waits."""
        return await self._database.run(lambda connection: outbox.next_batch(connection, limits, now))

    async def withdraw(self, batch: Batch) -> None:
        """Note that a request surely left no trace at the receiver; the same request comes next."""
        await self._database.run(lambda connection: outbox.withdraw(connection, batch))

    async def dissolve(self, batch: Batch) -> None:
        """Note that a request left no trace and shall be put together anew."""
        await self._database.run(lambda connection: outbox.dissolve(connection, batch))

    async def cut(self, batch: Batch) -> None:
        """Dissolve a request of one group and cut that group, of two events at least, in halves."""

        def work(connection: sqlite3.Connection) -> None:
            outbox.dissolve(connection, batch)
            outbox.cut(connection, batch.groups[0].number)

        await self._database.run(work)

    async def settle(self, batch: Batch, settlement: Settlement, now: int) -> None:
        """Carry out what Exastro's answer meant for each group of a request."""

        def work(connection: sqlite3.Connection) -> int:
            outbox.settle(connection, batch, settlement, now)
            return registry.used_bytes(connection)

        self._used_bytes = await self._database.run(work)

    async def fact(self, name: str) -> bytes | None:
        """Return the bytes kept under a name, or None."""
        return await self._database.run(lambda connection: registry.fact(connection, name))

    async def keep_fact(self, name: str, value: bytes) -> None:
        """Keep bytes under a name, in place of those from before."""
        await self._database.run(lambda connection: registry.keep_fact(connection, name, value))

    async def purge(self, now: int) -> int:
        """Forget what no response has held for long; return how many ids. Repeat until it returns 0."""
        retention = self._limits.id_retention_seconds
        return await self._database.run(lambda connection: registry.purge(connection, retention, now))

    async def waiting_events(self) -> int:
        """Return how many events wait for delivery."""
        return await self._database.run(registry.waiting_events)
