"""The settings ever seen with their cursors, the last known rows, and what is forgotten when its time is over."""

import sqlite3

from ita_ag_oase.model import Cursor

# Ids deleted, and pages given back to the file system, in one transaction at most.
_PURGE_ROWS = 20_000
_VACUUM_PAGES = 2_000


def register(connection: sqlite3.Connection, setting_id: str, name: str, now: int) -> None:
    """See that a setting has a row: a new one starts with `now` as last fetched time, a known one may be renamed."""
    connection.execute(
        "INSERT INTO settings (id, name, last_fetched_time, last_key) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (id) DO UPDATE SET name = excluded.name WHERE name != excluded.name",
        (setting_id, name, now, now - 1),
    )


def cursor(connection: sqlite3.Connection, setting_id: str) -> Cursor:
    """Return how far a registered setting has been collected."""
    last_fetched_time, last_event = connection.execute(
        "SELECT last_fetched_time, last_event FROM settings WHERE id = ?", (setting_id,)
    ).fetchone()
    return Cursor(last_fetched_time=last_fetched_time, last_event=last_event)


def fact(connection: sqlite3.Connection, name: str) -> bytes | None:
    """Return the bytes kept under a name, or None."""
    row = connection.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
    return row[0] if row else None


def keep_fact(connection: sqlite3.Connection, name: str, value: bytes) -> None:
    """Keep bytes under a name, in place of those from before."""
    connection.execute("INSERT OR REPLACE INTO facts (name, value) VALUES (?, ?)", (name, value))


def purge(connection: sqlite3.Connection, retention_seconds: int) -> int:
    """Forget ids that no response has held for the retention time and give free pages back; return how many ids.

    The time counts up to the setting's last successful poll, so that a source which is down for long forgets nothing.
    """
    deleted = connection.execute(
        "DELETE FROM ids WHERE (setting, digest) IN (SELECT i.setting, i.digest FROM ids i JOIN settings s"
        " ON s.number = i.setting WHERE i.last_seen < s.last_fetched_time - ? LIMIT ?)",
        (retention_seconds, _PURGE_ROWS),
    ).rowcount
    connection.execute(f"PRAGMA incremental_vacuum({_VACUUM_PAGES})").fetchall()
    return deleted


def used_bytes(connection: sqlite3.Connection) -> int:
    """Return the size of all pages in use."""
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    (free,) = connection.execute("PRAGMA freelist_count").fetchone()
    (size,) = connection.execute("PRAGMA page_size").fetchone()
    return int((pages - free) * size)


def waiting_events(connection: sqlite3.Connection) -> int:
    """Return how many events wait for delivery."""
    (count,) = connection.execute(
        "SELECT coalesce(sum(event_count), 0) FROM groups WHERE parked_reason IS NULL"
    ).fetchone()
    return int(count)
