"""What the store of an agent holds, for commands that must change nothing in it; there may be no store."""

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

from ita_ag_oase.agent.roster import Row, rows_in
from ita_ag_oase.model import Cursor, Event, EventFate
from ita_ag_oase.store.access import StoreAccess
from ita_ag_oase.store.registry import KNOWN_ROWS


class Kept:
    """A store that an agent may be using, or the place where there is none yet.

    All methods raise StoreUnavailable and StoreDamaged. `has_lost_a_fact` tells that one could not be kept.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.has_lost_a_fact = False

    @property
    def is_there(self) -> bool:
        """Whether there is a store."""
        return os.path.exists(self._path)  # noqa: PTH110 - False, too, where the folder cannot be looked into

    def cursor(self, setting_id: str) -> Cursor | None:
        """Return how far a setting has been collected; None where it was never seen."""
        if not self.is_there:
            return None
        with StoreAccess(self._path) as store:
            return store.cursor(setting_id)

    def fates(self, setting_id: str, events: Sequence[Event]) -> list[EventFate]:
        """Return what would become of each event of a poll; without a store, all would be new."""
        if not self.is_there:
            return [EventFate.NEW] * len(events)
        with StoreAccess(self._path) as store:
            return store.fates(setting_id, events)

    def rows(self) -> list[Row]:
        """Return the rows of settings that Exastro told last."""
        if not self.is_there:
            return []
        with StoreAccess(self._path) as store:
            return rows_in(store.fact(KNOWN_ROWS) or b"[]")

    async def fact(self, name: str) -> bytes | None:
        """Return the bytes kept under a name, or None."""
        return await asyncio.to_thread(self._fact, name) if self.is_there else None

    async def keep_fact(self, name: str, value: bytes) -> None:
        """Keep bytes under a name; no store is made for that."""
        self.has_lost_a_fact = True
        await asyncio.to_thread(self._keep_fact, name, value)
        self.has_lost_a_fact = False

    def _fact(self, name: str) -> bytes | None:
        with StoreAccess(self._path) as store:
            return store.fact(name)

    def _keep_fact(self, name: str, value: bytes) -> None:
        with StoreAccess(self._path) as store:
            store.keep_fact(name, value)
