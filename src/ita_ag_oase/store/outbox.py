"""The events on their way: which go into the next request, and what becomes of them after it.

Rules that hold at all times, each needed for "none lost, none twice" (protocol section 1.5):

- At most one request's fate is unknown; its groups are marked `in_request` and are sent again unchanged.
- A key, once offered, belongs to its events for good. Keys that were never offered may still move up.
- Within a setting, groups that may have been saved (`maybe_saved`) come before those that surely were not.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from ita_ag_oase.model import Batch, Group, Settlement

# Exastro forgets progress that is older than 72 hours, so that an older key would not protect from repetition.
# A day leaves two for offering the request again.
_OLDEST_KEY_SECONDS = 86_400
# How many groups are looked at for one request.
_LOOK_AHEAD = 2_000
# What surrounds the events of a group in a request, at most: names, version, brackets.
ENVELOPE_BYTES = 2_048


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """Bounds of one request."""

    events: int
    bytes: int
    groups: int


class _Row(NamedTuple):
    number: int
    setting: int
    setting_id: str | None
    setting_name: str
    agent_name: str
    key: int | None
    event_count: int
    byte_count: int
    maybe_saved: int
    is_known: int
    in_request: int


_SELECT = (
    "SELECT g.number, g.setting, s.id, s.name, g.agent_name, g.key, g.event_count, g.byte_count, g.maybe_saved,"
    " s.saved_as IS g.agent_name, g.in_request FROM groups g JOIN settings s ON s.number = g.setting"
)
_ORDER = " ORDER BY g.poll, g.first_event"
_WAITING = _SELECT + " WHERE g.parked_reason IS NULL" + _ORDER


def next_batch(connection: sqlite3.Connection, limits: BatchLimits, now: int) -> Batch | None:
    """Return the groups of the next request and mark them as offered; None if nothing waits.

    While the fate of a request is unknown, that very request comes again. `Group.was_offered` tells the state from
    before this offer.
    """
    rows = list(_rows(connection, _SELECT + " WHERE g.in_request = 1" + _ORDER))
    if not rows:
        _fit_oldest(connection, limits)
        rows = _choose(connection, limits)
        for row in rows:
            _settle_key(connection, row, now)
    if not rows:
        return None
    fresh = [(row.number,) for row in rows if not (row.in_request and row.maybe_saved)]
    connection.executemany("UPDATE groups SET in_request = 1, maybe_saved = 1 WHERE number = ?", fresh)
    return Batch(tuple(_group(connection, row) for row in rows))


def withdraw(connection: sqlite3.Connection, batch: Batch) -> None:
    """Note that the request surely left no trace at the receiver."""
    never_seen = [(group.number,) for group in batch.groups if not group.was_offered]
    connection.executemany("UPDATE groups SET maybe_saved = 0 WHERE number = ?", never_seen)


def dissolve(connection: sqlite3.Connection, batch: Batch) -> None:
    """Note that the request left no trace and shall not be sent in this composition again."""
    withdraw(connection, batch)
    _release(connection, [group.number for group in batch.groups])


def settle(connection: sqlite3.Connection, batch: Batch, settlement: Settlement, now: int) -> None:
    """Carry out what Exastro's answer meant for each group of the request."""
    keys = {group.number: group.fetched_time for group in batch.groups}
    for number in settlement.saved:
        _accept(connection, number, keys[number], is_fresh=True)
    for number in settlement.already_saved:
        _accept(connection, number, keys[number], is_fresh=False)
    for number, reason in settlement.parked.items():
        _park(connection, number, reason, now)
    rest = keys.keys() - settlement.saved - settlement.already_saved - settlement.parked.keys()
    _release(connection, rest)
    for number, taken in settlement.collided.items():
        connection.execute("UPDATE groups SET maybe_saved = 0 WHERE number = ?", (number,))
        _move_up(connection, number, taken + 1)


def cut(connection: sqlite3.Connection, number: int) -> None:
    """Cut a group of at least two events in halves of about the same size.

    The first half keeps the key; the second gets one when its turn comes, since only then is it known whether the
    whole had been saved by an earlier offer.
    """
    (events,) = connection.execute("SELECT events FROM bodies WHERE number = ?", (number,)).fetchone()
    raws = msgspec.json.decode(b"[%b]" % events, type=list[msgspec.Raw])
    middle = _middle([len(memoryview(raw)) for raw in raws])
    halves = [b",".join(map(bytes, part)) for part in (raws[:middle], raws[middle:])]
    later = connection.execute(
        "INSERT INTO groups"
        " (setting, poll, first_event, agent_name, key, cut_key, maybe_saved, event_count, byte_count)"
        " SELECT setting, poll, first_event + ?, agent_name, NULL, coalesce(key, cut_key), maybe_saved, ?, ?"
        " FROM groups WHERE number = ?",
        (middle, len(raws) - middle, len(halves[1]), number),
    ).lastrowid
    connection.execute("INSERT INTO bodies (number, events) VALUES (?, ?)", (later, halves[1]))
    connection.execute(
        "UPDATE groups SET event_count = ?, byte_count = ? WHERE number = ?", (middle, len(halves[0]), number)
    )
    connection.execute("UPDATE bodies SET events = ? WHERE number = ?", (halves[0], number))


def _middle(sizes: list[int]) -> int:
    half, total = sum(sizes) / 2, 0
    for count, size in enumerate(sizes[:-1], 1):
        total += size
        if total >= half:
            return count
    return max(1, len(sizes) - 1)


def _rows(connection: sqlite3.Connection, query: str) -> Iterator[_Row]:
    return map(_Row._make, connection.execute(query))


def _group(connection: sqlite3.Connection, row: _Row) -> Group:
    key, events = connection.execute(
        "SELECT g.key, b.events FROM groups g JOIN bodies b USING (number) WHERE number = ?", (row.number,)
    ).fetchone()
    return Group(
        number=row.number,
        setting_id=row.setting_id,
        setting_name=row.setting_name,
        agent_name=row.agent_name,
        fetched_time=key,
        event_count=row.event_count,
        events=events,
        was_offered=bool(row.maybe_saved),
    )


def _fit_oldest(connection: sqlite3.Connection, limits: BatchLimits) -> None:
    """Cut the oldest group until it fits into a request, or is a single event."""
    while True:
        oldest = next(_rows(connection, _WAITING + " LIMIT 1"), None)
        if oldest is None or oldest.event_count == 1 or _fits(oldest.event_count, _request_bytes(oldest), limits):
            return
        cut(connection, oldest.number)


def _request_bytes(row: _Row) -> int:
    return row.byte_count + ENVELOPE_BYTES


def _fits(events: int, size: int, limits: BatchLimits) -> bool:
    return events <= limits.events and size <= limits.bytes


def _choose(connection: sqlite3.Connection, limits: BatchLimits) -> list[_Row]:
    chosen: list[_Row] = []
    seen: set[int] = set()
    held: set[int] = set()
    events = size = 0
    for row in _rows(connection, f"{_WAITING} LIMIT {_LOOK_AHEAD}"):
        if row.setting in held or (row.setting in seen and _must_come_first(row)):
            held.add(row.setting)
            continue
        events += row.event_count
        size += _request_bytes(row)
        if chosen and (len(chosen) == limits.groups or not _fits(events, size, limits)):
            break
        chosen.append(row)
        seen.add(row.setting)
    return chosen


def _must_come_first(row: _Row) -> bool:
    """Whether the group cannot share a request with an earlier one of its setting.

    A part of a cut group gets its key when the part before it is settled. Where Exastro's progress is unknown, a first
    group that collides must not be overtaken by a second.
    """
    return row.key is None or not row.is_known


def _settle_key(connection: sqlite3.Connection, row: _Row, now: int) -> None:
    """See that a group which goes into a request has a key, and one that is young enough where that can be chosen."""
    oldest = now - _OLDEST_KEY_SECONDS
    if row.maybe_saved:
        connection.execute("UPDATE groups SET key = coalesce(key, cut_key) WHERE number = ?", (row.number,))
    elif row.key is None:
        _move_up(connection, row.number, 0)
    elif row.key < oldest:
        _move_up(connection, row.number, oldest)


def _move_up(connection: sqlite3.Connection, number: int, smallest: int) -> None:
    """Give a group that was never saved a key of at least `smallest`, moving up those behind it where they collide."""
    setting, poll, first_event, settled_key, last_key = connection.execute(
        "SELECT g.setting, g.poll, g.first_event, s.settled_key, s.last_key"
        " FROM groups g JOIN settings s ON s.number = g.setting WHERE g.number = ?",
        (number,),
    ).fetchone()
    (before,) = connection.execute(
        "SELECT coalesce(max(key), 0) FROM groups WHERE setting = ? AND (poll, first_event) < (?, ?)"
        " AND parked_reason IS NULL",
        (setting, poll, first_event),
    ).fetchone()
    key = max(smallest, settled_key + 1, before + 1)
    connection.execute("UPDATE groups SET key = ?, cut_key = NULL WHERE number = ?", (key, number))
    behind = connection.execute(
        "SELECT number, key FROM groups WHERE setting = ? AND (poll, first_event) > (?, ?) AND parked_reason IS NULL"
        " AND key IS NOT NULL ORDER BY poll, first_event",
        (setting, poll, first_event),
    )
    moved = []
    for follower, its_key in behind:
        if its_key > key:
            break
        key += 1
        moved.append((key, follower))
    # Under its new key a group was never offered.
    connection.executemany("UPDATE groups SET key = ?, maybe_saved = 0 WHERE number = ?", moved)
    connection.execute("UPDATE settings SET last_key = ? WHERE number = ?", (max(key, last_key), setting))


def _accept(connection: sqlite3.Connection, number: int, key: int, *, is_fresh: bool) -> None:
    setting, agent_name = connection.execute(
        "SELECT setting, agent_name FROM groups WHERE number = ?", (number,)
    ).fetchone()
    _delete(connection, [number])
    connection.execute(
        "UPDATE settings SET settled_key = max(settled_key, ?), saved_as = ? WHERE number = ?",
        (key, agent_name, setting),
    )
    if is_fresh:
        # Exastro's progress stood before this key, so nothing behind it can have been saved.
        connection.execute(
            "UPDATE groups SET maybe_saved = 0 WHERE setting = ? AND parked_reason IS NULL AND in_request = 0",
            (setting,),
        )
        return
    # The whole had been saved under this key, so its later parts had been too.
    parts = connection.execute(
        "SELECT number FROM groups WHERE setting = ? AND parked_reason IS NULL AND cut_key = ? AND maybe_saved = 1",
        (setting, key),
    ).fetchall()
    _delete(connection, [part for (part,) in parts])


def _park(connection: sqlite3.Connection, number: int, reason: str, now: int) -> None:
    connection.execute(
        "UPDATE groups SET parked_reason = ?, parked_time = ?, in_request = 0 WHERE number = ?", (reason, now, number)
    )
    connection.execute(
        "UPDATE settings SET settled_key = max(settled_key, g.key) FROM (SELECT setting, key FROM groups"
        " WHERE number = ?) AS g WHERE settings.number = g.setting",
        (number,),
    )


def _release(connection: sqlite3.Connection, numbers: Iterable[int]) -> None:
    connection.executemany("UPDATE groups SET in_request = 0 WHERE number = ?", [(number,) for number in numbers])


def _delete(connection: sqlite3.Connection, numbers: Iterable[int]) -> None:
    values = [(number,) for number in numbers]
    connection.executemany("DELETE FROM bodies WHERE number = ?", values)
    connection.executemany("DELETE FROM groups WHERE number = ?", values)
