"""The tables of the store: made and migrated by numbered scripts, told apart by `user_version`."""

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import msgspec

from ita_ag_oase import __version__
from ita_ag_oase.errors import Reason, StoreDamaged, StoreUnavailable
from ita_ag_oase.store.pages import PAGE_BYTES
from ita_ag_oase.text import Text

Opener = Callable[..., sqlite3.Connection]

# Under this name stands the number of the schema and the version of the agent that made it.
MAKER = "schema"
_LOCK_TIMEOUT_SECONDS = 10
_LEAVING_WAL_STEP_SECONDS = 0.1
_LEAVING_WAL_TRIES = 100


class Maker(msgspec.Struct):
    """Which schema a store has, and which version of the agent gave it that."""

    schema: int
    agent: str


def connect(path: Path, *, journal_mode: str = "WAL", opener: Opener = sqlite3.connect) -> sqlite3.Connection:
    """Return a connection to a store whose tables are up to date; the file is made where there is none.

    `opener` is called as sqlite3.connect would be. Raises sqlite3.Error, OSError, and StoreDamaged for one that a newer
    version wrote.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = opener(path, timeout=_LOCK_TIMEOUT_SECONDS, isolation_level=None)
    try:
        # These work only before the first table exists; later they are harmless.
        connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        _set_journal(connection, journal_mode)
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA journal_size_limit = 16777216")
        connection.execute("PRAGMA temp_store = MEMORY")
        _migrate(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _set_journal(connection: sqlite3.Connection, mode: str) -> None:
    """Have a store make its changes safe in a certain way from now on, whatever it did before.

    A kill in between leaves the one or the other.
    """
    (before,) = connection.execute("PRAGMA journal_mode").fetchone()
    left = _LEAVING_WAL_TRIES if before == "wal" else 1
    while True:
        try:
            connection.execute(f"PRAGMA journal_mode = {mode}")
        except sqlite3.OperationalError as err:
            left -= 1
            if err.sqlite_errorcode != sqlite3.SQLITE_BUSY or not left:
                raise
            # To leave the WAL SQLite must have the file alone, and does not wait for that itself.
            time.sleep(_LEAVING_WAL_STEP_SECONDS)
        else:
            return


def connect_to_existing(path: Path) -> sqlite3.Connection:
    """Return another connection to a store, which its agent may be using.

    Raises sqlite3.Error, OSError, StoreUnavailable where there is none or an older version wrote it, and StoreDamaged
    for one that a newer version wrote.
    """
    connection = _connect_to_any(path)
    try:
        _require_newest(connection, path)
    except BaseException:
        connection.close()
        raise
    # A damaged file can hold text that is no UTF-8, and shall be shown all the same.
    connection.text_factory = lambda text: text.decode(errors="replace")
    return connection


def is_older(path: Path) -> bool:
    """Whether an older version wrote a store. Raises sqlite3.Error, and StoreUnavailable where there is none."""
    with closing(_connect_to_any(path)) as connection:
        return version(connection) < newest()


@contextmanager
def looked_into(path: Path, *, wait_seconds: float) -> Iterator[sqlite3.Connection]:
    """Yield a connection to an existing store of whatever version, which waits so long for a lock."""
    with closing(_connect_to_any(path, wait_seconds)) as connection:
        yield connection


def _connect_to_any(path: Path, timeout: float = _LOCK_TIMEOUT_SECONDS) -> sqlite3.Connection:
    if not path.is_file():
        raise StoreUnavailable(
            Text("no store at {path}: look for the file in STORAGEPATH, and name it with --store", path=path),
            reason=Reason.STORE_FAILED,
        )
    address = f"{path.absolute().as_uri()}?mode=rw"
    return sqlite3.connect(address, uri=True, timeout=timeout, isolation_level=None)


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Commit what is done inside, or roll it back where an exception passes."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def version(connection: sqlite3.Connection) -> int:
    """Return the number in the file's header; 0 for a file without tables."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def maker(connection: sqlite3.Connection) -> Maker | None:
    """Return who made the tables; None in a store of an early version, or where it cannot be told."""
    try:
        row = connection.execute("SELECT value FROM facts WHERE name = ?", (MAKER,)).fetchone()
        return msgspec.json.decode(row[0], type=Maker) if row else None
    except (sqlite3.OperationalError, msgspec.DecodeError, UnicodeDecodeError, TypeError):
        return None


def columns(connection: sqlite3.Connection) -> dict[str, list[tuple[Any, ...]]]:
    """Return the columns of each table but SQLite's own, as SQLite describes them; the name comes second."""
    # A person who looks into the store leaves such a table easily, by ANALYZE or PRAGMA optimize.
    own = r"name LIKE 'sqlite\_%' ESCAPE '\'"
    tables = connection.execute(f"SELECT name FROM sqlite_schema WHERE type = 'table' AND NOT {own}").fetchall()  # noqa: S608
    return {name: connection.execute(f'PRAGMA table_info("{name}")').fetchall() for (name,) in tables}


def intended_columns(number: int) -> dict[str, list[tuple[Any, ...]]]:
    """Return what `columns` does for a sound store of a schema."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        for script in _scripts()[:number]:
            connection.executescript(script.read_text(encoding="utf-8"))
        return columns(connection)


def newest() -> int:
    """Return the number of the schema that this version of the agent makes."""
    return len(_scripts())


def _scripts() -> list[Traversable]:
    folder = resources.files("ita_ag_oase.store") / "migrations"
    return sorted((entry for entry in folder.iterdir() if entry.name.endswith(".sql")), key=lambda entry: entry.name)


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    scripts = _scripts()
    present = version(connection)
    if present > len(scripts):
        raise _too_new(connection, path, present)
    for number, script in enumerate(scripts[present:], present + 1):
        with transaction(connection):
            for statement in _statements(script.read_text(encoding="utf-8")):
                connection.execute(statement)
            connection.execute(
                "INSERT OR REPLACE INTO facts (name, value) VALUES (?, ?)",
                (MAKER, msgspec.json.encode(Maker(schema=number, agent=__version__))),
            )
            connection.execute(f"PRAGMA user_version = {number}")


def _require_newest(connection: sqlite3.Connection, path: Path) -> None:
    present = version(connection)
    if present > newest():
        raise _too_new(connection, path, present)
    if present < newest():
        raise StoreUnavailable(
            Text(
                "{path} was written by an older version of the agent (schema {present}, this one knows "
                "{known}): start this version's agent once, which renews it",
                path=path,
                present=present,
                known=newest(),
            ),
            reason=Reason.STORE_FAILED,
        )


def _too_new(connection: sqlite3.Connection, path: Path, present: int) -> StoreDamaged:
    made_by = maker(connection)
    needed = Text("the version that wrote it")
    if made_by and made_by.schema == present:
        needed = Text("version {version} or later", version=made_by.agent)
    return StoreDamaged(
        Text(
            "{path} was written by a newer version of the agent (schema {present}, this one, {version}, "
            "knows {known}): run {needed}, or move the file away",
            path=path,
            present=present,
            version=__version__,
            known=newest(),
            needed=needed,
        ),
        reason=Reason.STORE_DAMAGED,
    )


def _statements(script: str) -> Iterator[str]:
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
