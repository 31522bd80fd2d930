"""Finds out at start whether the store is damaged; a damaged one is set aside, and a new one gets what can be read."""

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from ita_ag_oase.model import Repair
from ita_ag_oase.store import columns, schema, terms
from ita_ag_oase.store.pages import PAGE_BYTES
from ita_ag_oase.store.rebuild import rebuild
from ita_ag_oase.store.remains import DAMAGED, opened
from ita_ag_oase.store.salvage import SIDE_FILES, as_text, connect_to_damaged, copied, copy_prefix
from ita_ag_oase.text import Text, verbatim

_MAGIC = b"SQLite format 3\0"
_NEWEST_FORMAT, _NEWEST_SCHEMA_FORMAT = 2, 4
_WITHOUT_SETTING = "SELECT EXISTS (SELECT 1 FROM groups WHERE setting NOT IN (SELECT number FROM settings))"
_WITHOUT_GROUP = "SELECT EXISTS (SELECT 1 FROM pieces WHERE group_number NOT IN (SELECT number FROM groups))"
_WITHOUT_PIECES = (
    "SELECT EXISTS (SELECT 1 FROM groups WHERE (event_count, byte_count) IS NOT (SELECT sum(event_count),"
    " sum(length(events) + 1) FROM pieces WHERE group_number = groups.number))"
)
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def mend(path: Path, *, agent_name: str, now: float, is_at_work: Callable[[], bool] = lambda: True) -> Repair | None:
    """Return what was saved of a damaged store; None where it is sound, or not there.

    A kill at any moment leaves either the damaged store, to be mended at the next start, or the new one. Raises OSError
    or sqlite3.Error where that cannot be done, for want of space, say, and TermEnded where `is_at_work` denies, before
    anything is changed or again before a file changes its name, that it is this agent's turn.
    """
    _require_turn(path, is_at_work)
    _finish(path)
    for leftover in path.parent.glob(f"{copy_prefix(path)}*"):
        shutil.rmtree(leftover)
    if not path.exists() or (damage := _damage(path)) is None:
        return None
    examined = path.stat().st_ino
    fresh = _beside(path, ".salvaging")
    _remove(fresh)
    repair = Repair()
    # With a journal instead of a WAL it is one file, which can change its name.
    with closing(schema.connect(fresh, journal_mode="DELETE")) as new:
        if path.is_file():
            with copied(path) as copy:
                _make_readable(copy, fresh)
                with opened(copy) as old, schema.transaction(new):
                    repair = rebuild(old, new, agent_name=agent_name, now=int(now))
    # Whoever was stopped here for long may have been passed over, and another agent have mended the store.
    _require_turn(path, is_at_work)
    if path.stat().st_ino != examined:
        raise terms.lost(path)
    fresh.replace(_beside(path, ".salvaged"))
    aside = _set_aside(path, now)
    _finish(path)
    return replace(repair, damage=damage, set_aside=str(aside))


def _require_turn(path: Path, is_at_work: Callable[[], bool]) -> None:
    if not is_at_work():
        raise terms.lost(path)


def _damage(path: Path) -> Text | None:
    """Return what is wrong with a file, or None."""
    if not path.is_file():
        return Text("it is no file")
    if _undo_half_done(path) and not path.stat().st_size:
        # The very first transaction was not committed.
        return None
    if not _has_sound_header(path):
        return Text("its header is damaged, or it is no database")
    try:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.text_factory = as_text
            return _finding(connection)
    except sqlite3.DatabaseError as err:
        if getattr(err, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF not in _DAMAGE:
            raise
        return verbatim(str(err))
    except UnicodeDecodeError:
        # What SQLite says of damage may hold damaged text itself.
        return Text("its text is damaged")


def _undo_half_done(path: Path) -> bool:
    """Whether a kill in the middle of a commit left a journal: then SQLite undoes that, before anyone looks."""
    journal = _beside(path, "-journal")
    if not journal.is_file() or not journal.stat().st_size:
        return False
    # What stands in the way is met again when the file is looked at.
    with contextlib.suppress(sqlite3.DatabaseError), closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    return True


def _finding(connection: sqlite3.Connection) -> Text | None:
    made_by, version = schema.maker(connection), schema.version(connection)
    if made_by and made_by.schema == version > schema.newest():
        # Whatever is wrong with it: mended by this version, it would lose what only the newer one knows of.
        return None
    (finding,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    if finding != "ok":
        return verbatim(str(finding))
    if made_by and made_by.schema != version:
        return Text(
            "its header says schema {header}, its content schema {content}", header=version, content=made_by.schema
        )
    if version > schema.newest():
        return None
    tables = schema.columns(connection)
    if tables != schema.intended_columns(max(version, 0)):
        return Text("its tables are not those that the agent made")
    for table in sorted(tables):
        query = columns.unfit_query(table, {row[1] for row in tables[table]})
        if connection.execute(query).fetchone()[0]:
            return Text("a row of {table} holds what the agent never wrote there", table=table)
    for query in (_WITHOUT_SETTING, _WITHOUT_GROUP, _WITHOUT_PIECES) if tables else ():
        if connection.execute(query).fetchone()[0]:
            return Text("rows that belong to others stand without them")
    return None


def _has_sound_header(path: Path) -> bool:
    """Whether a file begins as SQLite and this agent write it ("Database File Format", section 1.3)."""
    with path.open("rb") as file:
        header = file.read(100)
    return (
        header.startswith(_MAGIC)
        and header[16:18] == PAGE_BYTES.to_bytes(2, "big")
        and max(header[18:20]) <= _NEWEST_FORMAT
        and header[20:24] == bytes((0, 64, 32, 32))
        and int.from_bytes(header[44:48], "big") <= _NEWEST_SCHEMA_FORMAT
        and int.from_bytes(header[56:60], "big") <= 1
    )


def _make_readable(copy: Path, fresh: Path) -> None:
    """Cut a broken page off the end of a copy; where its first page is damaged, give it that of a fresh store.

    The tables lie at the same pages in every store, since all are made by the same scripts in the same order.
    """
    pages = copy.stat().st_size // PAGE_BYTES
    os.truncate(copy, pages * PAGE_BYTES)
    if _has_sound_header(copy) and _knows_tables(copy):
        return
    first_page = bytearray(fresh.read_bytes()[:PAGE_BYTES])
    # "Database File Format", section 1.3: the size in pages, then the first page and the length of the free list.
    first_page[28:40] = pages.to_bytes(4, "big") + bytes(8)
    with copy.open("r+b") as file:
        file.write(first_page)


def _knows_tables(path: Path) -> bool:
    try:
        with closing(connect_to_damaged(path)) as connection:
            return schema.columns(connection) == schema.intended_columns(schema.version(connection))
    except DAMAGED:
        return False


def _set_aside(path: Path, now: float) -> Path:
    """Give a damaged store and the files beside it another name and return that."""
    aside = _beside(path, f".damaged-{datetime.fromtimestamp(now, UTC):%Y%m%dT%H%M%SZ}")
    number = 1
    while aside.exists():
        number += 1
        aside = aside.with_name(f"{aside.name.split('~')[0]}~{number}")
    path.rename(aside)
    for suffix in SIDE_FILES:
        if _beside(path, suffix).exists():
            _beside(path, suffix).rename(_beside(aside, suffix))
    return aside


def _finish(path: Path) -> None:
    """Put a complete new store in the place of the damaged one, where that is out of the way."""
    salvaged = _beside(path, ".salvaged")
    if salvaged.exists() and not path.exists():
        for suffix in SIDE_FILES:
            _beside(path, suffix).unlink(missing_ok=True)
        salvaged.rename(path)
    _remove(salvaged)


def _remove(path: Path) -> None:
    for suffix in ("", *SIDE_FILES):
        _beside(path, suffix).unlink(missing_ok=True)


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)
