"""Checks a store: SQLite's own check, the ledger of each setting, and the bytes of every piece."""

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

from ita_ag_oase.errors import StoreDamaged
from ita_ag_oase.model import GroupKey, Ledger, Verification
from ita_ag_oase.store.database import translated
from ita_ag_oase.store.pieces import PIECE_COLUMNS, events_in, is_sound

# As many lines of SQLite's own check as a person can use.
_MAX_PROBLEMS = 10

_LEDGER_COLUMNS = ("seen", "new", "known", "repeated", "delivered", "already_saved", "dropped", "lost")
_RESTART = "start the agent again, which sets the file aside and saves what can be read"
_REPORT = "keep a copy of the store and report it as a defect of the agent"
_ONCE_PARKED = "once it is parked, export, retry or drop it with `ita-ag-oase outbox`"


def verify(connection: sqlite3.Connection, path: Path) -> Verification:
    """Return what is wrong with a store, and its ledgers as far as they can be read; `path` is for messages.

    Raises StoreUnavailable where the file cannot be read for another reason than damage.
    """
    found: list[Ledger] = []

    def balances(connection: sqlite3.Connection) -> Iterator[str]:
        for ledger in ledgers(connection):
            found.append(ledger)
            yield from _imbalances(ledger)

    checks = (_integrity, balances, _groups_alone, _counts, _pieces)
    findings = [finding for check in checks for finding in _until_damage(connection, path, check)]
    return Verification(tuple(found), tuple(dict.fromkeys(findings)))


def _until_damage(
    connection: sqlite3.Connection, path: Path, check: Callable[[sqlite3.Connection], Iterator[str]]
) -> Iterator[str]:
    try:
        with translated(path):
            yield from check(connection)
    except StoreDamaged as err:
        yield f"the file is damaged ({err.__cause__}): {_RESTART}"


def _integrity(connection: sqlite3.Connection) -> Iterator[str]:
    for (text,) in connection.execute(f"PRAGMA integrity_check({_MAX_PROBLEMS})"):
        if text != "ok":
            yield f"the file is damaged ({'; '.join(text.splitlines())}): {_RESTART}"


def ledgers(connection: sqlite3.Connection) -> Iterator[Ledger]:
    """Return the ledger of each setting ever seen, by name."""
    # Numbers whatever the disk made of them, so that they can be compared.
    counts = ", ".join(f"CAST(coalesce({column}, 0) AS INTEGER) AS {column}" for column in _LEDGER_COLUMNS)
    # One pass over the groups, since there may be as many settings as groups.
    held = (
        "SELECT setting, sum(iif(parked_reason IS NULL, event_count, 0)) AS waiting,"
        " sum(iif(parked_reason IS NULL, 0, event_count)) AS parked FROM groups GROUP BY setting"
    )
    query = (
        "SELECT CAST(name AS TEXT) AS setting_name, coalesce(waiting, 0) AS waiting, coalesce(parked, 0) AS parked,"  # noqa: S608
        f" {counts} FROM settings LEFT JOIN ({held}) held ON held.setting = settings.number ORDER BY name, number"
    )
    rows = connection.execute(query)
    names = [column[0] for column in rows.description]
    for row in rows:
        yield Ledger(**dict(zip(names, row, strict=True)))


def _imbalances(ledger: Ledger) -> Iterator[str]:
    if not ledger.is_seen_balanced:
        yield (
            f"{ledger.setting_name}: {ledger.seen} events seen are not the {ledger.new} new, {ledger.known} known and "
            f"{ledger.repeated} repeated ones: {_REPORT}"
        )
    if not ledger.is_new_balanced:
        yield (
            f"{ledger.setting_name}: {ledger.new} new events are not the {ledger.waiting} waiting, {ledger.parked} "
            f"parked, {ledger.delivered} delivered, {ledger.already_saved} already saved, {ledger.dropped} dropped and "
            f"{ledger.lost} lost ones: {_REPORT}"
        )


def _groups_alone(connection: sqlite3.Connection) -> Iterator[str]:
    for what, table, column, owner in (
        ("groups belong to no setting", "groups", "setting", "settings"),
        ("pieces belong to no group", "pieces", "group_number", "groups"),
    ):
        query = f"SELECT count(*) FROM {table} WHERE {column} NOT IN (SELECT number FROM {owner})"  # noqa: S608
        (count,) = connection.execute(query).fetchone()
        if count:
            yield f"{count} {what}: {_RESTART}"


def _counts(connection: sqlite3.Connection) -> Iterator[str]:
    rows = connection.execute(
        "SELECT g.number, g.event_count, g.byte_count, coalesce(p.event_count, 0) AS events,"
        " coalesce(p.byte_count, 0) AS bytes FROM groups g LEFT JOIN (SELECT group_number,"
        " sum(event_count) AS event_count, sum(length(CAST(events AS BLOB)) + 1) AS byte_count"
        " FROM pieces GROUP BY group_number) p ON p.group_number = g.number"
        " WHERE g.event_count IS NOT events OR g.byte_count IS NOT bytes ORDER BY g.number"
    )
    for number, event_count, byte_count, events, bytes_ in rows.fetchall():
        yield (
            f"{_key(connection, number)}: the group tells of {event_count} events in {byte_count} bytes, its pieces "
            f"hold {events} in {bytes_}: {_RESTART}"
        )


def _pieces(connection: sqlite3.Connection) -> Iterator[str]:
    rows = connection.execute(f"SELECT group_number, {PIECE_COLUMNS} FROM pieces ORDER BY id")  # noqa: S608
    for group, event_count, events, checksum in rows:
        problem = _problem(event_count, events, checksum)
        if problem:
            yield f"{_key(connection, group)}: {problem}: check the volume; {_ONCE_PARKED}"


def _problem(event_count: int, events: bytes, checksum: int | None) -> str | None:
    if not is_sound(events, checksum):
        return "a piece has changed on disk, its checksum is wrong"
    found = events_in(events)
    if found is None:
        return "a piece is no JSON"
    objects = sum(event.startswith(b"{") for event in found)
    if objects != event_count or len(found) != event_count:
        return f"a piece tells of {event_count} events and holds {len(found)}, {objects} of them objects"
    return None


def _key(connection: sqlite3.Connection, group: int) -> GroupKey:
    row = connection.execute(
        "SELECT s.name, g.key FROM groups g JOIN settings s ON s.number = g.setting WHERE g.number = ?", (group,)
    ).fetchone()
    return GroupKey(*row) if row else GroupKey(f"group {group}", None)
