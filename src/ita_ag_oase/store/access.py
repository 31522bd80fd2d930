"""A second way into a store, for commands: it works while the daemon does, and when no daemon runs."""

import sqlite3
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from ita_ag_oase.model import (
    Cursor,
    Event,
    EventFate,
    EventLife,
    GroupChoice,
    OutboxGroup,
    OutboxSummary,
    Tally,
    Term,
    Verification,
)
from ita_ag_oase.store import figures, history, ledger, registry, saving, schema, terms, triage
from ita_ag_oase.store.database import translated
from ita_ag_oase.store.figures import Figures
from ita_ag_oase.store.registry import Sizes
from ita_ag_oase.store.schema import connect_to_existing, transaction

# So long a look at the term waits for a lock on the file: whoever wants to know asks again.
_LOOK_SECONDS = 1.0


def is_older(path: Path) -> bool:
    """Whether an older version of the agent wrote a store. Raises as StoreAccess does."""
    with translated(path):
        return schema.is_older(path)


def read_term(path: Path) -> Term | None:
    """Return the latest term begun in a store, which an agent may be using; None where it knows none, or is not there.

    Raises as StoreAccess does.
    """
    with translated(path):
        if not path.exists():
            return None
    with translated(path), schema.looked_into(path, wait_seconds=_LOOK_SECONDS) as connection:
        # The table is not there before version 5 of the schema.
        return terms.stored(connection) if "terms" in schema.columns(connection) else None


class StoreAccess:
    """An existing store, open while it is entered.

    Entering and every method raise StoreUnavailable where the file is missing, locked for long or fails, and
    StoreDamaged where it is damaged or a newer version's.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> Self:
        with translated(self._path):
            self._connection = connect_to_existing(self._path)
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def verify(self) -> Verification:
        """Return what is wrong with the store, and the ledgers as far as they can be read."""
        with self._snapshot() as connection:
            return ledger.verify(connection, self._path)

    def figures(self) -> Figures:
        """Return what the store holds, in figures."""
        with self._snapshot() as connection:
            return figures.figures(connection, self._path)

    def summary(self) -> list[OutboxSummary]:
        """Return how much of the outbox is in which state and why, by setting."""
        with self._snapshot() as connection:
            return triage.summary(connection)

    def groups(self, choice: GroupChoice) -> list[OutboxGroup]:
        """Return the groups that are meant, the oldest key first, those without one last."""
        with self._snapshot() as connection:
            return list(triage.chosen(connection, choice))

    def pieces(self, choice: GroupChoice) -> Generator[tuple[OutboxGroup, bytes], None, None]:
        """Return the pieces of the groups that are meant one by one, all as they are at the first.

        Without a WAL, where a reader keeps the agent from writing, as each is when its turn comes, without those that
        are gone or another by then.
        """
        if self._has_wal():
            with self._snapshot() as connection:
                yield from triage.pieces(connection, choice)
            return
        for group in self.groups(choice):
            with self._snapshot() as connection:
                found = list(triage.pieces_of(connection, group, choice))
            yield from found

    def retry(self, choice: GroupChoice, now: int) -> Tally:
        """Have parked groups offered again; return how many. The daemon finds them within EXECUTE_INTERVAL."""
        with translated(self._path), transaction(self._connection):
            return triage.retry(self._connection, choice, now)

    def drop(self, choice: GroupChoice, now: int, *, among: frozenset[OutboxGroup] | None = None) -> Tally:
        """Take groups out for good, but none in flight, and where `among` is given only those that are still so.

        Not by number, since a new group gets that of one that is gone.
        """
        with translated(self._path), transaction(self._connection):
            return triage.drop(self._connection, choice, now, among)

    def lives(self, event_id: str, setting_name: str | None = None) -> list[EventLife]:
        """Return what is known of the events of an id, one for each setting that has seen it."""
        with self._snapshot() as connection:
            return history.lives(connection, event_id, setting_name)

    def fact(self, name: str) -> bytes | None:
        """Return the bytes kept under a name, or None."""
        with self._snapshot() as connection:
            return registry.fact(connection, name)

    def keep_fact(self, name: str, value: bytes) -> None:
        """Keep bytes under a name, in place of those from before."""
        with translated(self._path), transaction(self._connection):
            registry.keep_fact(self._connection, name, value)

    def cursor(self, setting_id: str) -> Cursor | None:
        """Return how far a setting has been collected; None for one that was never seen."""
        with self._snapshot() as connection:
            return registry.find_cursor(connection, setting_id)

    def fates(self, setting_id: str, events: Sequence[Event]) -> list[EventFate]:
        """Return what would become of each event of a poll, were it saved now."""
        with self._snapshot() as connection:
            return saving.fates(connection, setting_id, events)

    def sizes(self) -> Sizes:
        """Return how much of the file is in use and how much is not."""
        with self._snapshot() as connection:
            return registry.sizes(connection)

    def _has_wal(self) -> bool:
        with translated(self._path):
            return bool(self._connection.execute("PRAGMA journal_mode").fetchone() == ("wal",))

    @contextmanager
    def _snapshot(self) -> Iterator[sqlite3.Connection]:
        with translated(self._path):
            self._connection.execute("BEGIN")
            try:
                yield self._connection
            finally:
                self._connection.execute("ROLLBACK")
