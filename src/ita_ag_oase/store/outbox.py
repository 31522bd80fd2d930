"""The events on their way: which go into the next request, and what becomes of them after it.

Rules that hold at all times, each needed for "none lost, none twice" (protocol section 1.5):

- At most one request's fate is unknown; its groups are marked `in_request` and are sent again unchanged.
- A key, once offered, belongs to its events for good. Keys that were never offered may still move up.
- Within a setting, groups that may have been saved come before those that surely were not.
"""

import sqlite3
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from ita_ag_oase.model import Batch, Group, Settlement
from ita_ag_oase.store.saving import KEY_STRIDE, write_piece

# What is known of a group (`maybe_saved`): surely not saved; may have been saved under its key; never offered itself,
# but the whole it was cut from, whose key is `cut_key`, may have been saved; the same, and it is being offered now.
_NOT_SAVED, _MAYBE, _WHOLE_MAYBE, _WHOLE_MAYBE_OFFERED = range(4)
_STATE_WHEN_OFFERED = {
    _NOT_SAVED: _MAYBE,
    _MAYBE: _MAYBE,
    _WHOLE_MAYBE: _WHOLE_MAYBE_OFFERED,
    # Offered before with unknown fate: from now on "already saved" can mean the part alone.
    _WHOLE_MAYBE_OFFERED: _MAYBE,
}

# Exastro forgets progress that is older than 72 hours, so that an older key would not protect from repetition.
# A day leaves two for offering the request again.
_OLDEST_KEY_SECONDS = 86_400
# How far before a key a free one is looked for: not so far that Exastro would not remember it.
_FREE_SECONDS = 8
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
    if not rows:
        return None
    if not any(row.in_request and row.maybe_saved for row in rows):
        for row in rows:
            _settle_key(connection, row, now)
    states = [(_STATE_WHEN_OFFERED[row.maybe_saved], row) for row in rows]
    connection.executemany(
        "UPDATE groups SET in_request = 1, maybe_saved = ? WHERE number = ?",
        [(state, row.number) for state, row in states if not row.in_request or state != row.maybe_saved],
    )
    return Batch(tuple(_group(connection, row) for row in rows))


def withdraw(connection: sqlite3.Connection, batch: Batch) -> None:
    """Note that the request surely left no trace at the receiver."""
    connection.executemany(
        "UPDATE groups SET maybe_saved = iif(maybe_saved = ?, ?, iif(?, maybe_saved, ?)) WHERE number = ?",
        [(_WHOLE_MAYBE_OFFERED, _WHOLE_MAYBE, group.was_offered, _NOT_SAVED, group.number) for group in batch.groups],
    )


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
    """Cut a group of at least two events in two.

    One that was surely not saved is cut in halves; the second gets a key when its turn comes. Of one that may have been
    saved, the first event alone goes ahead, to find out: its key lies before that of the whole where a second is
    unused, so that "already saved" is true of each part whatever happened. Otherwise it takes the key of the whole, and
    its answer speaks for the rest.
    """
    key, cut_key, state, settled_key = connection.execute(
        "SELECT g.key, g.cut_key, g.maybe_saved, s.settled_key FROM groups g"
        " JOIN settings s ON s.number = g.setting WHERE g.number = ?",
        (number,),
    ).fetchone()
    later = connection.execute(
        "INSERT INTO groups (setting, poll, first_event, agent_name, fetched_time, event_count, byte_count)"
        " SELECT setting, poll, first_event, agent_name, fetched_time, 0, 0 FROM groups WHERE number = ?",
        (number,),
    ).lastrowid
    _move_later_pieces(connection, number, int(later or 0), only_first_event=state != _NOT_SAVED)
    if state == _NOT_SAVED:
        marks = [(key, None, state, number), (None, None, state, later)]
    elif key is not None and key - settled_key > 1:
        earlier = key - min(key - settled_key, _FREE_SECONDS) // 2
        marks = [(earlier, None, _MAYBE, number), (key, None, _MAYBE, later)]
    else:
        whole = cut_key if key is None else key
        marks = [(key, whole, _WHOLE_MAYBE, number), (None, whole, _WHOLE_MAYBE, later)]
    connection.executemany("UPDATE groups SET key = ?, cut_key = ?, maybe_saved = ? WHERE number = ?", marks)


def _move_later_pieces(connection: sqlite3.Connection, number: int, later: int, *, only_first_event: bool) -> None:
    """Give the later part of a group's pieces to another group, cutting a piece where needed."""
    pieces = connection.execute(
        "SELECT id, length(events), event_count FROM pieces WHERE group_number = ? ORDER BY id", (number,)
    ).fetchall()
    if only_first_event or len(pieces) == 1:
        kept = _cut_first_piece(connection, pieces[0][0], only_first_event=only_first_event)
        connection.execute("UPDATE pieces SET group_number = ? WHERE group_number = ?", (later, number))
        connection.execute("UPDATE pieces SET group_number = ? WHERE id = ?", (number, kept))
    else:
        last_kept = pieces[_middle([size for _, size, _ in pieces]) - 1][0]
        connection.execute(
            "UPDATE pieces SET group_number = ? WHERE group_number = ? AND id > ?", (later, number, last_kept)
        )
    connection.executemany(
        "UPDATE groups SET (event_count, byte_count) = (SELECT sum(event_count), sum(length(events) + 1) FROM pieces"
        " WHERE group_number = groups.number) WHERE number = ?",
        [(number,), (later,)],
    )
    connection.execute(
        "UPDATE groups SET first_event = first_event + (SELECT event_count FROM groups WHERE number = ?)"
        " WHERE number = ?",
        (number, later),
    )


def _cut_first_piece(connection: sqlite3.Connection, piece: int, *, only_first_event: bool) -> int:
    """Take the first events out of a piece and return the id of a new piece that holds them."""
    group_number, events = connection.execute(
        "SELECT group_number, events FROM pieces WHERE id = ?", (piece,)
    ).fetchone()
    raws = msgspec.json.decode(b"[%b]" % events, type=list[msgspec.Raw])
    count = 1 if only_first_event else _middle([len(memoryview(raw)) for raw in raws])
    taken = write_piece(connection, group_number, [bytes(raw) for raw in raws[:count]])
    rest = b",".join(map(bytes, raws[count:]))
    if rest:
        connection.execute(
            "UPDATE pieces SET event_count = ?, events = ?, checksum = ? WHERE id = ?",
            (len(raws) - count, rest, zlib.crc32(rest), piece),
        )
    else:
        connection.execute("DELETE FROM pieces WHERE id = ?", (piece,))
    return taken


def _middle(sizes: list[int]) -> int:
    """Return how many of at least two sizes make about half of their sum, at least one and not all."""
    half, total = sum(sizes) / 2, 0
    for count, size in enumerate(sizes[:-1], 1):
        total += size
        if total >= half:
            return count
    return len(sizes) - 1


def _rows(connection: sqlite3.Connection, query: str) -> Iterator[_Row]:
    return map(_Row._make, connection.execute(query))


def _group(connection: sqlite3.Connection, row: _Row) -> Group:
    (key,) = connection.execute("SELECT key FROM groups WHERE number = ?", (row.number,)).fetchone()
    pieces = connection.execute("SELECT events FROM pieces WHERE group_number = ? ORDER BY id", (row.number,))
    return Group(
        number=row.number,
        setting_id=row.setting_id,
        setting_name=row.setting_name,
        agent_name=row.agent_name,
        fetched_time=key,
        event_count=row.event_count,
        pieces=tuple(piece for (piece,) in pieces),
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
        if not row.is_known:
            # Whether its key is taken must be clear from the answer, whatever the words: it travels alone.
            if not chosen:
                return [row]
            held.add(row.setting)
        # A part of a cut group gets its key only when the part before it is settled.
        if row.setting in held or (row.key is None and row.setting in seen):
            held.add(row.setting)
            continue
        events += row.event_count
        size += _request_bytes(row)
        if chosen and (len(chosen) == limits.groups or not _fits(events, size, limits)):
            break
        chosen.append(row)
        seen.add(row.setting)
    return chosen


def _settle_key(connection: sqlite3.Connection, row: _Row, now: int) -> None:
    """See that a group which goes into a request has a key, and one that is young enough where that can be chosen."""
    oldest = now - _OLDEST_KEY_SECONDS
    if row.maybe_saved in (_WHOLE_MAYBE, _WHOLE_MAYBE_OFFERED) and row.key is None:
        (cut_key, settled_key) = connection.execute(
            "SELECT g.cut_key, s.settled_key FROM groups g JOIN settings s ON s.number = g.setting WHERE g.number = ?",
            (row.number,),
        ).fetchone()
        if cut_key > settled_key:
            connection.execute("UPDATE groups SET key = cut_key WHERE number = ?", (row.number,))
        else:
            # The part before it was saved, and it cannot be known with which request: rather twice than not at all.
            _move_up(connection, row.number, 0)
    elif row.maybe_saved == _NOT_SAVED and (row.key is None or row.key < oldest):
        _move_up(connection, row.number, 0 if row.key is None else oldest)


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
    key = max(smallest, settled_key + KEY_STRIDE, before + KEY_STRIDE)
    connection.execute("UPDATE groups SET key = ?, cut_key = NULL, maybe_saved = 0 WHERE number = ?", (key, number))
    behind = connection.execute(
        "SELECT number, key FROM groups WHERE setting = ? AND (poll, first_event) > (?, ?) AND parked_reason IS NULL"
        " AND key IS NOT NULL ORDER BY poll, first_event",
        (setting, poll, first_event),
    )
    moved = []
    for follower, its_key in behind:
        if its_key >= key + KEY_STRIDE:
            break
        key += KEY_STRIDE
        moved.append((key, follower))
    # Under its new key a group was never offered.
    connection.executemany("UPDATE groups SET key = ?, maybe_saved = 0 WHERE number = ?", moved)
    connection.execute("UPDATE settings SET last_key = ? WHERE number = ?", (max(key, last_key), setting))


def _accept(connection: sqlite3.Connection, number: int, key: int, *, is_fresh: bool) -> None:
    setting, agent_name, fetched_time, state = connection.execute(
        "SELECT setting, agent_name, fetched_time, maybe_saved FROM groups WHERE number = ?", (number,)
    ).fetchone()
    connection.execute(
        "UPDATE settings SET settled_key = max(settled_key, ?), settled_time = max(settled_time, ?), saved_as = ?"
        " WHERE number = ?",
        (key, fetched_time, agent_name, setting),
    )
    if is_fresh:
        _delete(connection, setting, [number], counted_as="delivered")
        # Exastro's progress stood before this key, so nothing behind it can have been saved.
        connection.execute(
            "UPDATE groups SET maybe_saved = 0 WHERE setting = ? AND parked_reason IS NULL AND in_request = 0",
            (setting,),
        )
        return
    saved = [number]
    if state == _WHOLE_MAYBE_OFFERED:
        # It was never saved by itself, so the whole had been, and with it the other parts.
        parts = connection.execute(
            "SELECT number FROM groups WHERE setting = ? AND parked_reason IS NULL AND cut_key = ? AND number != ?",
            (setting, key, number),
        )
        saved += [part for (part,) in parts]
    _delete(connection, setting, saved, counted_as="already_saved")


def _park(connection: sqlite3.Connection, number: int, reason: str, now: int) -> None:
    connection.execute(
        "UPDATE groups SET parked_reason = ?, parked_time = ?, in_request = 0 WHERE number = ?", (reason, now, number)
    )
    # A key that surely never counted is left to the parts behind it, for which the whole's fate is still open.
    connection.execute(
        "UPDATE settings SET settled_key = max(settled_key, g.key) FROM (SELECT setting, key FROM groups"
        " WHERE number = ? AND maybe_saved NOT IN (?, ?)) AS g WHERE settings.number = g.setting",
        (number, _WHOLE_MAYBE, _WHOLE_MAYBE_OFFERED),
    )


def _release(connection: sqlite3.Connection, numbers: Iterable[int]) -> None:
    connection.executemany("UPDATE groups SET in_request = 0 WHERE number = ?", [(number,) for number in numbers])


def _delete(connection: sqlite3.Connection, setting: int, numbers: Iterable[int], *, counted_as: str) -> None:
    """Delete groups of a setting, adding their events to a column of the ledger."""
    values = [(number,) for number in numbers]
    connection.executemany(
        f"UPDATE settings SET {counted_as} = {counted_as} + (SELECT event_count FROM groups WHERE number = ?)"  # noqa: S608
        " WHERE number = ?",
        [(number, setting) for (number,) in values],
    )
    connection.executemany("DELETE FROM pieces WHERE group_number = ?", values)
    connection.executemany("DELETE FROM groups WHERE number = ?", values)
