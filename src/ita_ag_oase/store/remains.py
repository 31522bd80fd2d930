"""What is left of a store that may be damaged."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from ita_ag_oase.store import columns, pages, schema
from ita_ag_oase.store.database import NO_SPACE
from ita_ag_oase.store.salvage import connect_to_damaged
from ita_ag_oase.text import Text, verbatim

# What reading damage raises; the words of an error may be damaged text themselves.
DAMAGED = (sqlite3.DatabaseError, UnicodeDecodeError)
# How many columns of a table may have come with later versions; rows from before lack them.
_LATER_COLUMNS = 3

Row = tuple[Any, ...]


class Remains:
    """Hands out rows by SQL, as far as that goes, and then from whatever page still holds some.

    Rows from pages may be those of other tables. `problems` says what stood in the way, `damaged_tables` where. Raises
    sqlite3.OperationalError where the volume has no space to read.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path
        self.problems: list[Text] = []
        self.damaged_tables: list[str] = []
        try:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except DAMAGED as err:
            self._note(err)

    def rows(self, table: str) -> Iterator[Row]:
        """Return each row of a table once; the first column is the rowid. What later versions added may be null."""
        seen: set[int] = set()
        try:
            for row in self._connection.execute(f"SELECT {self._present(table)} FROM {table}"):  # noqa: S608
                seen.add(row[0])
                yield row
        except DAMAGED as err:
            self._note(err, table)
        else:
            return
        count = len(columns.names(table))
        for rowid, row in pages.table_rows(self._path):
            if rowid not in seen and 0 <= count - len(row) <= _LATER_COLUMNS:
                yield (rowid, *row[1:], *[None] * (count - len(row)))

    def keyed_rows(self, table: str) -> Iterator[Row]:
        """Return the rows of a table without rowids, perhaps more than once."""
        try:
            yield from self._connection.execute(f"SELECT {', '.join(columns.names(table))} FROM {table}")  # noqa: S608
        except DAMAGED as err:
            self._note(err, table)
            yield from (row for row in pages.keyed_rows(self._path) if len(row) == len(columns.names(table)))

    def _present(self, table: str) -> str:
        present = {row[1] for row in schema.columns(self._connection).get(table, [])}
        return ", ".join(name if name in present else f"NULL AS {name}" for name in columns.names(table))

    def _note(self, err: Exception, table: str | None = None) -> None:
        if getattr(err, "sqlite_errorcode", None) in NO_SPACE:
            # Reading takes some space, too, and what is in the WAL would pass for lost.
            raise err
        problem = verbatim(str(err))
        if problem not in self.problems:
            self.problems.append(problem)
        if table:
            self.damaged_tables.append(table)


@contextmanager
def opened(path: Path) -> Iterator[Remains]:
    """Open what is left of a store. The file is changed: what is in its WAL goes into its pages."""
    with closing(connect_to_damaged(path)) as connection:
        yield Remains(connection, path)
