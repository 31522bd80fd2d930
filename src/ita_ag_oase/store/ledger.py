"""Checks a store: SQLite's own check, the ledger of each setting, and the bytes of every piece."""

import dataclasses
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

from ita_ag_oase.errors import StoreDamaged
from ita_ag_oase.model import GroupKey, Ledger, Verification
from ita_ag_oase.store.database import translated
from ita_ag_oase.store.pieces import PIECE_COLUMNS, events_in, is_sound
from ita_ag_oase.text import Text

# As many lines of SQLite's own check as a person can use.
_MAX_PROBLEMS = 10

_LEDGER_COLUMNS = ("seen", "new", "known", "repeated", "delivered", "already_saved", "dropped", "lost")
_RESTART = Text("start the agent again, which sets the file aside and saves what can be read")
_REPORT = Text("keep a copy of the store and report it as a defect of the agent")


def verify(connection: sqlite3.Connection, path: Path) -> Verification:
    """Return what is wrong with a store, and its ledgers as far as they can be read; `path` is for messages.

    Raises StoreUnavailable where the file cannot be read for another reason than damage.
    """
    found: list[Ledger] = []

    def balances(connection: sqlite3.Connection) -> Iterator[Text]:
        for ledger in ledgers(connection):
            found.append(ledger)
            yield from _imbalances(ledger)

    checks = (_integrity, balances, _groups_alone, _counts, _pieces)
    findings = [finding for check in checks for finding in _until_damage(connection, path, check)]
    return Verification(tuple(found), tuple(dict.fromkeys(findings)))


def _until_damage(
    connection: sqlite3.Connection, path: Path, check: Callable[[sqlite3.Connection], Iterator[Text]]
) -> Iterator[Text]:
    try:
        with translated(path):
            yield from check(connection)
    except StoreDamaged as err:
        yield _damaged(str(err.__cause__))


def _integrity(connection: sqlite3.Connection) -> Iterator[Text]:
    for (text,) in connection.execute(f"PRAGMA integrity_check({_MAX_PROBLEMS})"):
        if text != "ok":
            yield _damaged("; ".join(text.splitlines()))


def _damaged(error: str) -> Text:
    return Text("the file is damaged ({error}): {what_to_do}", error=error, what_to_do=_RESTART)


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


def _imbalances(ledger: Ledger) -> Iterator[Text]:
    if not ledger.is_seen_balanced:
        yield Text(
            "{setting_name}: {seen} events seen are not the {new} new, {known} known and {repeated} repeated ones: "
            "{what_to_do}",
            **dataclasses.asdict(ledger),
            what_to_do=_REPORT,
        )
    if not ledger.is_new_balanced:
        yield Text(
            "{setting_name}: {new} new events are not the {waiting} waiting, {parked} parked, {delivered} delivered, "
            "{already_saved} already saved, {dropped} dropped and {lost} lost ones: {what_to_do}",
            **dataclasses.asdict(ledger),
            what_to_do=_REPORT,
        )


def _groups_alone(connection: sqlite3.Connection) -> Iterator[Text]:
    for what, table, column, owner in (
        (Text("{count} groups belong to no setting: {what_to_do}"), "groups", "setting", "settings"),
        (Text("{count} pieces belong to no group: {what_to_do}"), "pieces", "group_number", "groups"),
    ):
        query = f"SELECT count(*) FROM {table} WHERE {column} NOT IN (SELECT number FROM {owner})"  # noqa: S608
        (count,) = connection.execute(query).fetchone()
        if count:
            yield what.about(count=count, what_to_do=_RESTART)


def _counts(connection: sqlite3.Connection) -> Iterator[Text]:
    rows = connection.execute(
        "SELECT g.number, g.event_count, g.byte_count, coalesce(p.event_count, 0) AS events,"
        " coalesce(p.byte_count, 0) AS bytes FROM groups g LEFT JOIN (SELECT group_number,"
        " sum(event_count) AS event_count, sum(length(CAST(events AS BLOB)) + 1) AS byte_count"
        " FROM pieces GROUP BY group_number) p ON p.group_number = g.number"
        " WHERE g.event_count IS NOT events OR g.byte_count IS NOT bytes ORDER BY g.number"
    )
    for number, event_count, byte_count, events, bytes_ in rows.fetchall():
        yield Text(
            "{key}: the group tells of {told_events} events in {told_bytes} bytes, its pieces hold {events} in "
            "{bytes}: {what_to_do}",
            key=_key(connection, number),
            told_events=event_count,
            told_bytes=byte_count,
            events=events,
            bytes=bytes_,
            what_to_do=_RESTART,
        )


def _pieces(connection: sqlite3.Connection) -> Iterator[Text]:
    rows = connection.execute(f"SELECT group_number, {PIECE_COLUMNS} FROM pieces ORDER BY id")  # noqa: S608
    for group, event_count, events, checksum in rows:
        problem = _problem(event_count, events, checksum)
        if problem:
            yield Text(
                "{key}: {problem}: check the volume; once it is parked, export, retry or drop it with "
                "`ita-ag-oase outbox`",
                key=_key(connection, group),
                problem=problem,
            )


def _problem(event_count: int, events: bytes, checksum: int | None) -> Text | None:
    if not is_sound(events, checksum):
        return Text("a piece has changed on disk, its checksum is wrong")
    found = events_in(events)
    if found is None:
        return Text("a piece is no JSON")
    objects = sum(event.startswith(b"{") for event in found)
    if objects != event_count or len(found) != event_count:
        return Text(
            "a piece tells of {told_events} events and holds {events}, {objects} of them objects",
            told_events=event_count,
            events=len(found),
            objects=objects,
        )
    return None


def _key(connection: sqlite3.Connection, group: int) -> GroupKey:
    row = connection.execute(
        "SELECT s.name, g.key FROM groups g JOIN settings s ON s.number = g.setting WHERE g.number = ?", (group,)
    ).fetchone()
    return GroupKey(*row) if row else GroupKey(f"group {group}", None)
