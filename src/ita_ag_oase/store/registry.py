"""The settings ever seen with their cursors, the last known rows, and what is forgotten when its time is over."""

import sqlite3
from dataclasses import dataclass

import msgspec

from ita_ag_oase.model import Cursor
from ita_ag_oase.store import history
from ita_ag_oase.store.saving import KEY_STRIDE

# Under this name the rows that Exastro sent last are kept, as a JSON list.
KNOWN_ROWS = "settings"

# Under these names stands which setting has which number, once more than in its row, in case that one is damaged.
_NUMBER = "setting/"

# Ids deleted, and pages given back to the file system, in one transaction at most.
_PURGE_ROWS = 20_000
# Times by the agent's clock; what is told of an event stays in its order, and its poll the one of its group.
_SHIFTED = {
    "settings": ("last_fetched_time", "settled_time"),
    "groups": ("fetched_time", "first_offer", "latest_offer", "parked_time"),
    "ids": ("last_seen", "first_poll"),
    "history": ("fetched_time", "first_offer", "latest_offer", "ended"),
}
_VACUUM_PAGES = 1_000


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes of the file that hold something, and that could."""

    used_bytes: int
    free_bytes: int


@dataclass(frozen=True, slots=True)
class Retention:
    """How long is remembered what no answer holds any more and what is done with, and how many rows of the latter."""

    seconds: int
    history_rows: int


def register(connection: sqlite3.Connection, setting_id: str, name: str, now: int) -> None:
    """See that a setting has a row: a new one starts with `now` as last fetched time, a known one may be renamed.

    One that was taken over from the stock agent is known by its name only, and gets its id here.
    """
    connection.execute(
        "UPDATE settings SET id = ? WHERE name = ? AND id IS NULL AND NOT EXISTS (SELECT 1 FROM settings WHERE id = ?)",
        (setting_id, name, setting_id),
    )
    connection.execute(
        "INSERT INTO settings (id, name, last_fetched_time, last_key) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (id) DO UPDATE SET name = excluded.name WHERE name != excluded.name",
        (setting_id, name, now, now - KEY_STRIDE),
    )
    (number,) = connection.execute("SELECT number FROM settings WHERE id = ?", (setting_id,)).fetchone()
    identity = msgspec.json.encode((setting_id, name))
    if fact(connection, f"{_NUMBER}{number}") != identity:
        keep_fact(connection, f"{_NUMBER}{number}", identity)


def identity_in(fact_name: str, value: bytes) -> tuple[int, str, str] | None:
    """Return the number, id and name of a setting that a fact tells; None for any other fact."""
    number = fact_name.removeprefix(_NUMBER)
    if not fact_name.startswith(_NUMBER) or not number.isdecimal():
        return None
    try:
        setting_id, name = msgspec.json.decode(value, type=tuple[str, str])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return int(number), setting_id, name


def cursor(connection: sqlite3.Connection, setting_id: str) -> Cursor:
    """Return how far a registered setting has been collected."""
    found = find_cursor(connection, setting_id)
    if found is None:
        raise LookupError(f"setting {setting_id} was never registered")
    return found


def find_cursor(connection: sqlite3.Connection, setting_id: str) -> Cursor | None:
    """Return how far a setting has been collected; None for one that was never registered."""
    row = connection.execute(
        "SELECT last_fetched_time, last_event, position FROM settings WHERE id = ?", (setting_id,)
    ).fetchone()
    return Cursor(last_fetched_time=row[0], last_event=row[1], position=row[2]) if row else None


def fact(connection: sqlite3.Connection, name: str) -> bytes | None:
    """Return the bytes kept under a name, or None."""
    row = connection.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
    return row[0] if row else None


def keep_fact(connection: sqlite3.Connection, name: str, value: bytes) -> None:
    """Keep bytes under a name, in place of those from before."""
    connection.execute("INSERT OR REPLACE INTO facts (name, value) VALUES (?, ?)", (name, value))


def shift(connection: sqlite3.Connection, seconds: int) -> None:
    """Move cursors and other times that were noted, since the clock by which that was done was moved."""
    for table, names in _SHIFTED.items():
        moved = ", ".join(f"{name} = max(0, {name} + ?1)" for name in names)
        connection.execute(f"UPDATE {table} SET {moved}", (seconds,))  # noqa: S608 - our own names


def purge(connection: sqlite3.Connection, retention: Retention, now: int) -> int:
    """Forget what the retention says of ids and history, and give free pages back; return how many rows.

    For ids the time counts up to the setting's last successful poll, so that a source which is down for long forgets
    nothing; for a setting that is no longer among the known ones, up to now.
    """
    known = (
        "SELECT json_extract(r.value, '$.EVENT_COLLECTION_SETTINGS_ID')"
        " FROM facts, json_each(CAST(facts.value AS TEXT)) AS r WHERE facts.name = ?"
    )
    deleted = connection.execute(
        "DELETE FROM ids WHERE (setting, digest) IN (SELECT i.setting, i.digest FROM ids i JOIN settings s"  # noqa: S608
        f" ON s.number = i.setting WHERE i.last_seen < iif(s.id IN ({known}), s.last_fetched_time, ?) - ? LIMIT ?)",
        (KNOWN_ROWS, now, retention.seconds, _PURGE_ROWS),
    ).rowcount
    deleted += history.purge(connection, before=now - retention.seconds, most=retention.history_rows, step=_PURGE_ROWS)
    give_space_back(connection)
    return deleted


def give_space_back(connection: sqlite3.Connection) -> None:
    """Give unused pages back to the file system, a bounded number of them."""
    (free,) = connection.execute("PRAGMA freelist_count").fetchone()
    # One by one: the sqlite3 module takes only the first step of a statement without columns.
    for _ in range(min(free, _VACUUM_PAGES)):
        connection.execute("PRAGMA incremental_vacuum(1)")


def sizes(connection: sqlite3.Connection) -> Sizes:
    """Return how much of the file is in use and how much is not."""
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    (free,) = connection.execute("PRAGMA freelist_count").fetchone()
    (size,) = connection.execute("PRAGMA page_size").fetchone()
    return Sizes(used_bytes=(pages - free) * size, free_bytes=free * size)


def waiting_events(connection: sqlite3.Connection) -> int:
    """Return how many events wait for delivery."""
    (count,) = connection.execute(
        "SELECT coalesce(sum(event_count), 0) FROM groups WHERE parked_reason IS NULL"
    ).fetchone()
    return int(count)
