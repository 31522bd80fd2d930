"""What is left of a store that may be damaged."""

import contextlib
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
# How many columns of a table came with later versions; rows from before lack them.
_LATER_COLUMNS = {"settings": 3, "groups": 5, "pieces": 1, "ids": 2}

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
        if self._is_of_later_version(table):
            return
        seen: set[int] = set()
        try:
            for row in self._connection.execute(f"SELECT {self._present(table)} FROM {table}"):  # noqa: S608
                seen.add(row[0])
                yield row
        except DAMAGED as err:
            self._note(err, table)
        else:
            return
        for rowid, row in pages.table_rows(self._path):
            if rowid not in seen and (filled := _filled(table, row)):
                yield (rowid, *filled[1:])

    def keyed_rows(self, table: str) -> Iterator[Row]:
        """Return the rows of a table without rowids, perhaps more than once; what later versions added may be null."""
        try:
            yield from self._connection.execute(f"SELECT {self._present(table)} FROM {table}")  # noqa: S608
        except DAMAGED as err:
            self._note(err, table)
            yield from filter(None, (_filled(table, row) for row in pages.keyed_rows(self._path)))

    def _is_of_later_version(self, table: str) -> bool:
        with contextlib.suppress(*DAMAGED):
            tables = schema.columns(self._connection)
            return bool(tables) and table not in tables
        return False

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


def _filled(table: str, row: Row) -> Row | None:
    """Return a row from a page with null for each column that it was written without; None where it is another's."""
    missing = len(columns.names(table)) - len(row)
    return (*row, *[None] * missing) if 0 <= missing <= _LATER_COLUMNS.get(table, 0) else None


@contextmanager
def opened(path: Path) -> Iterator[Remains]:
    """Open what is left of a store. The file is changed: what is in its WAL goes into its pages."""
    with closing(connect_to_damaged(path)) as connection:
        yield Remains(connection, path)
