"""Reads what can be read of an SQLite file that may be damaged, without changing it."""

import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from ita_ag_oase.text import Text, verbatim

SIDE_FILES = ("-journal", "-wal", "-shm")
# How many rows are looked for, for each page of a file that does not tell any more how many there are.
_ROWS_PER_PAGE = 512
# A file where this many look-ups fail has little left to save, and the agent is waited for.
_MAX_FAILURES = 20_000
_STEP_ROWS = 256
# After so many rowids without a row the next row is asked for: where the disk changed a rowid, it may be any number.
_WIDEST_GAP = 1_000_000


class Salvage:
    """Hands out what can be read. `unreadable` counts rowids that could not, whether or not a row was there."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.unreadable = 0
        self.problems: list[Text] = []
        self._failures = 0

    def rows(self, table: str, columns: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        """Return the readable rows of a table in the order of their rowids; a missing table has none."""
        names = ", ".join(columns)
        query = f"SELECT {names} FROM {table} WHERE rowid BETWEEN ? AND ? ORDER BY rowid"  # noqa: S608 - our own names
        last = self._last_rowid(table)
        first, gap = 1, 0
        while first <= last and self._failures < _MAX_FAILURES:
            found = self._between(query, first, min(first + _STEP_ROWS - 1, last))
            yield from found
            first, gap = first + _STEP_ROWS, 0 if found else gap + _STEP_ROWS
            if gap >= _WIDEST_GAP:
                first, gap = self._next_rowid(table, first, last), 0

    def _next_rowid(self, table: str, first: int, last: int) -> int:
        query = f"SELECT coalesce(min(rowid), ?) FROM {table} WHERE rowid >= ?"  # noqa: S608 - our own names
        try:
            return int(self._connection.execute(query, (min(last, (1 << 63) - 2) + 1, first)).fetchone()[0])
        except sqlite3.DatabaseError as err:
            self._note(verbatim(str(err)))
        # Such gaps cost much more time than a failure.
        self._failures += _MAX_FAILURES // 10
        return first

    def _between(self, query: str, first: int, last: int) -> list[tuple[Any, ...]]:
        try:
            return self._connection.execute(query, (first, last)).fetchall()
        except sqlite3.DatabaseError as err:
            self._note(verbatim(str(err)))
        self._failures += 1
        if self._failures >= _MAX_FAILURES:
            self._note(Text("too much is damaged: the rest is left out"))
            return []
        if first == last:
            self.unreadable += 1
            return []
        middle = (first + last) // 2
        return self._between(query, first, middle) + self._between(query, middle + 1, last)

    def _last_rowid(self, table: str) -> int:
        try:
            return int(self._connection.execute(f"SELECT coalesce(max(rowid), 0) FROM {table}").fetchone()[0])  # noqa: S608
        except sqlite3.DatabaseError as err:
            self._note(verbatim(str(err)))
            if isinstance(err, sqlite3.OperationalError) and "no such table" in str(err):
                return 0
        try:
            return int(self._connection.execute("PRAGMA page_count").fetchone()[0]) * _ROWS_PER_PAGE
        except sqlite3.DatabaseError as err:
            self._note(verbatim(str(err)))
            return 0

    def _note(self, problem: Text) -> None:
        if problem not in self.problems:
            self.problems.append(problem)


def copy_prefix(path: Path) -> str:
    """Return how the names of folders with copies of a file begin; who is killed leaves such a folder behind."""
    return f".salvage-{path.name}-"


@contextmanager
def copied(path: Path) -> Iterator[Path]:
    """Copy a database together with the journal or WAL beside it, so that the original stays as it is.

    Raises OSError where the file cannot be copied.
    """
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=copy_prefix(path)) as folder:
        copy = Path(folder) / path.name
        shutil.copyfile(path, copy)
        for suffix in SIDE_FILES:
            beside = path.with_name(path.name + suffix)
            if beside.exists():
                shutil.copyfile(beside, copy.with_name(copy.name + suffix))
        yield copy


@contextmanager
def opened_copy(path: Path) -> Iterator[Salvage]:
    """Open a copy of a database. Raises OSError where the file cannot be copied."""
    with copied(path) as copy, closing(connect_to_damaged(copy)) as connection:
        yield Salvage(connection)


def connect_to_damaged(path: Path) -> sqlite3.Connection:
    """Return a connection that also reads a file which is shorter than its header says, and text that is no text."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.text_factory = as_text
    connection.execute("PRAGMA writable_schema = ON")
    return connection


def as_text(data: bytes) -> str:
    """Return text as it is kept in a file that may be damaged."""
    return data.decode("utf-8", "replace")
