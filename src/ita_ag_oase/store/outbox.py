"""The events on their way: which go into the next request, and what becomes of them after it.

Rules that hold at all times, each needed for "none lost, none twice" (protocol section 1.5):

- At most one request's fate is unknown; its groups are marked `in_request` and are sent again unchanged.
- A key, once offered, belongs to its events for good. Keys that were never offered may still move up.
- Within a setting, groups that may have been saved come before those that surely were not.

A group whose bytes the disk has changed is not sent: it is parked, and the rest goes on.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from ita_ag_oase.model import Batch, Group, Outcome, Piece, Settlement
from ita_ag_oase.store import history
from ita_ag_oase.store.pieces import PIECE_COLUMNS, Room, checksum_of, events_in, is_sound, write_piece
from ita_ag_oase.store.saving import KEY_STRIDE
from ita_ag_oase.text import Text

# What is known of a group (`maybe_saved`): surely not saved; may have been saved under its key; never offered itself,
# but the whole it was cut from, whose key is `cut_key`, may have been saved; the same, and it is being offered now.
NOT_SAVED, MAYBE, WHOLE_MAYBE, WHOLE_MAYBE_OFFERED = range(4)
_STATE_WHEN_OFFERED = {
    NOT_SAVED: MAYBE,
    MAYBE: MAYBE,
    WHOLE_MAYBE: WHOLE_MAYBE_OFFERED,
    # Offered before with unknown fate: from now on "already saved" can mean the part alone.
    WHOLE_MAYBE_OFFERED: MAYBE,
}

# Why a group is parked without having been refused.
DAMAGED = Text("its events can no longer be read: the bytes on disk are damaged")

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
    before this offer. Groups that are found damaged are parked and left out of the request, which may so be empty.
    """
    damaged: list[Group] = []
    rows = list(_rows(connection, _SELECT + " WHERE g.in_request = 1" + _ORDER))
    if not rows:
        damaged = _fit_oldest(connection, limits, now)
        rows = _choose(connection, limits)
    if not any(row.in_request and row.maybe_saved for row in rows):
        for row in rows:
            _settle_key(connection, row, now)
        # Under another key, or behind a group that moved up, one was never offered.
        rows = [_with_state(connection, row) for row in rows]
    room = Room(min(sum(row.byte_count for row in rows), limits.bytes))
    found = [(row, _group(connection, row, _sound_pieces(connection, row, room))) for row in rows]
    for group in [group for _, group in found if not group.pieces]:
        park_damaged(connection, group.number, now)
        damaged.append(group)
    sound = [(row, group) for row, group in found if group.pieces]
    _mark_offered(connection, [row for row, _ in sound], now)
    return Batch(tuple(group for _, group in sound), tuple(damaged)) if found or damaged else None


def _mark_offered(connection: sqlite3.Connection, rows: Iterable[_Row], now: int) -> None:
    connection.executemany(
        "UPDATE groups SET in_request = 1, maybe_saved = ?1, offers = offers + 1,"
        " first_offer = coalesce(first_offer, ?2), latest_offer = ?2 WHERE number = ?3",
        [(_STATE_WHEN_OFFERED[row.maybe_saved], now, row.number) for row in rows],
    )


def withdraw(connection: sqlite3.Connection, batch: Batch) -> None:
    """Note that the request surely left no trace at the receiver."""
    connection.executemany(
        "UPDATE groups SET maybe_saved = iif(maybe_saved = ?, ?, iif(?, maybe_saved, ?)) WHERE number = ?",
        [(WHOLE_MAYBE_OFFERED, WHOLE_MAYBE, group.was_offered, NOT_SAVED, group.number) for group in batch.groups],
    )


def dissolve(connection: sqlite3.Connection, batch: Batch) -> None:
    """Note that the request left no trace and shall not be sent in this composition again."""
    withdraw(connection, batch)
    _release(connection, [group.number for group in batch.groups])


def settle(connection: sqlite3.Connection, batch: Batch, settlement: Settlement, now: int) -> None:
    """Carry out what Exastro's answer meant for each group of the request."""
    keys = {group.number: group.fetched_time for group in batch.groups}
    for number in settlement.saved:
        _accept(connection, number, keys[number], now, is_fresh=True)
    for number in settlement.already_saved:
        _accept(connection, number, keys[number], now, is_fresh=False, answer=settlement.answers.get(number))
    # What was refused was not saved by this request: only an earlier one can have done so.
    withdraw(connection, Batch(tuple(group for group in batch.groups if group.number in settlement.parked)))
    for number, reason in settlement.parked.items():
        _park(connection, number, reason, now)
    rest = keys.keys() - settlement.saved - settlement.already_saved - settlement.parked.keys()
    _release(connection, rest)
    for number, taken in settlement.collided.items():
        history.note(connection, [number], Outcome.MOVED, now, settlement.answers.get(number))
        connection.execute("UPDATE groups SET maybe_saved = 0 WHERE number = ?", (number,))
        _move_up(connection, number, taken + 1)


def cut(connection: sqlite3.Connection, number: int, now: int, answer: str | None = None) -> bool:
    """Cut a group of at least two events in two; False, and all is as it was, where they can no longer be read.

    One that was surely not saved is cut in halves; the second gets a key when its turn comes. Of one that may have been
    saved, the first event alone goes ahead, to find out: its key lies before that of the whole where a second is
    unused, so that "already saved" is true of each part also when its answer gets lost. Otherwise it takes the key of
    the whole, and its answer speaks for the rest. `answer` is what was said to the whole, if it was offered.
    """
    key, cut_key, state, settled_key = connection.execute(
        "SELECT g.key, g.cut_key, g.maybe_saved, s.settled_key FROM groups g"
        " JOIN settings s ON s.number = g.setting WHERE g.number = ?",
        (number,),
    ).fetchone()
    kept = _first_part(connection, number, only_first_event=state != NOT_SAVED)
    if kept is None:
        return False
    if answer is not None:
        history.note(connection, [number], Outcome.CUT, now, answer)
    later = connection.execute(
        "INSERT INTO groups (setting, poll, first_event, agent_name, fetched_time, event_count, byte_count, offers,"
        " first_offer, latest_offer, answer) SELECT setting, poll, first_event, agent_name, fetched_time, 0, 0, offers,"
        " first_offer, latest_offer, answer FROM groups WHERE number = ?",
        (number,),
    ).lastrowid
    _move_later_pieces(connection, number, int(later or 0), kept)
    if state == NOT_SAVED:
        marks = [(key, None, state, number), (None, None, state, later)]
    elif key is not None and key - settled_key > 1:
        earlier = max(settled_key, key - _FREE_SECONDS) + 1
        marks = [(earlier, key, WHOLE_MAYBE, number), (key, key, MAYBE, later)]
    else:
        whole = cut_key if key is None else key
        marks = [(key, whole, WHOLE_MAYBE, number), (None, whole, WHOLE_MAYBE, later)]
    connection.executemany("UPDATE groups SET key = ?, cut_key = ?, maybe_saved = ? WHERE number = ?", marks)
    return True


def park_damaged(connection: sqlite3.Connection, number: int, now: int) -> None:
    """Park a group whose bytes the disk has changed, whether or not it may have been saved before."""
    # Here, unlike after an answer, a part that was offered may have been saved by itself.
    connection.execute(
        "UPDATE groups SET maybe_saved = ? WHERE number = ? AND maybe_saved = ?", (MAYBE, number, WHOLE_MAYBE_OFFERED)
    )
    _park(connection, number, str(DAMAGED), now)


def drop(connection: sqlite3.Connection, numbers: Iterable[int], now: int) -> None:
    """Take groups that are not in flight out for good; the ledger counts them as dropped."""
    for number in numbers:
        setting, state = connection.execute(
            "SELECT setting, maybe_saved FROM groups WHERE number = ?", (number,)
        ).fetchone()
        # Otherwise the key never counted, and those of groups before it shall not look settled.
        if state != NOT_SAVED:
            retire_key(connection, number)
        _delete(connection, setting, [number], Outcome.DROPPED, now)


def _first_part(connection: sqlite3.Connection, number: int, *, only_first_event: bool) -> tuple[int, int] | None:
    """Return the first and the last id of the pieces that make a group's first part, cutting a piece where needed.

    None where that piece cannot be read any more, or does not hold what it should.
    """
    pieces = connection.execute(
        "SELECT id, length(events) FROM pieces WHERE group_number = ? ORDER BY id", (number,)
    ).fetchall()
    if len(pieces) > 1 and not only_first_event:
        return pieces[0][0], pieces[_middle([size for _, size in pieces]) - 1][0]
    return _cut_piece(connection, pieces[0][0], len(pieces), only_first_event=only_first_event) if pieces else None


def _cut_piece(
    connection: sqlite3.Connection, piece: int, piece_count: int, *, only_first_event: bool
) -> tuple[int, int] | None:
    """Take the first events out of a piece into a new one, and return the new one's id as first and last."""
    group_number, event_count, events, checksum = connection.execute(
        f"SELECT group_number, {PIECE_COLUMNS} FROM pieces WHERE id = ?",  # noqa: S608 - our own names
        (piece,),
    ).fetchone()
    raws = events_in(events) if is_sound(events, checksum) else None
    if not raws or len(raws) != event_count or len(raws) == piece_count == 1:
        return None
    count = 1 if only_first_event else _middle([len(raw) for raw in raws])
    taken = write_piece(connection, group_number, raws[:count])
    rest = b",".join(raws[count:])
    if rest:
        connection.execute(
            "UPDATE pieces SET event_count = ?, events = ?, checksum = ? WHERE id = ?",
            (len(raws) - count, rest, checksum_of(rest), piece),
        )
    else:
        connection.execute("DELETE FROM pieces WHERE id = ?", (piece,))
    return taken, taken


def _move_later_pieces(connection: sqlite3.Connection, number: int, later: int, kept: tuple[int, int]) -> None:
    """Give all pieces of a group but those kept to another group, and count both anew."""
    connection.execute(
        "UPDATE pieces SET group_number = ? WHERE group_number = ? AND id NOT BETWEEN ? AND ?", (later, number, *kept)
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


def _with_state(connection: sqlite3.Connection, row: _Row) -> _Row:
    (state,) = connection.execute("SELECT maybe_saved FROM groups WHERE number = ?", (row.number,)).fetchone()
    return row._replace(maybe_saved=state)


def _sound_pieces(connection: sqlite3.Connection, row: _Row, room: Room) -> tuple[Piece, ...]:
    """Return the pieces of a group; none where the disk has changed one, or they are not as many events as it has."""
    found = connection.execute(
        f"SELECT {PIECE_COLUMNS} FROM pieces WHERE group_number = ? ORDER BY id",  # noqa: S608 - our own names
        (row.number,),
    )
    pieces: list[Piece] = []
    total = 0
    for count, events, checksum in found:
        if not is_sound(events, checksum):
            return ()
        pieces.append(room.hold(events))
        total += count
    return tuple(pieces) if total == row.event_count else ()


def _group(connection: sqlite3.Connection, row: _Row, pieces: tuple[Piece, ...]) -> Group:
    (key,) = connection.execute("SELECT key FROM groups WHERE number = ?", (row.number,)).fetchone()
    return Group(
        number=row.number,
        setting_id=row.setting_id,
        setting_name=row.setting_name,
        agent_name=row.agent_name,
        fetched_time=key,
        event_count=row.event_count,
        pieces=pieces,
        was_offered=bool(row.maybe_saved),
    )


def _fit_oldest(connection: sqlite3.Connection, limits: BatchLimits, now: int) -> list[Group]:
    """Cut the oldest group until it fits into a request, or is a single event.

    One that cannot be read for it is parked, and the next one is the oldest. Return those.
    """
    damaged: list[Group] = []
    while True:
        oldest = next(_rows(connection, _WAITING + " LIMIT 1"), None)
        if oldest is None or oldest.event_count == 1 or _fits(oldest.event_count, _request_bytes(oldest), limits):
            return damaged
        if not cut(connection, oldest.number, now):
            _settle_key(connection, oldest, now)
            damaged.append(_group(connection, oldest, ()))
            park_damaged(connection, oldest.number, now)


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
    if row.maybe_saved in (WHOLE_MAYBE, WHOLE_MAYBE_OFFERED) and row.key is None:
        (cut_key, settled_key) = connection.execute(
            "SELECT g.cut_key, s.settled_key FROM groups g JOIN settings s ON s.number = g.setting WHERE g.number = ?",
            (row.number,),
        ).fetchone()
        if cut_key > settled_key:
            connection.execute("UPDATE groups SET key = cut_key WHERE number = ?", (row.number,))
        else:
            # The part before it was saved, and it cannot be known with which request: rather twice than not at all.
            _move_up(connection, row.number, 0)
    elif row.maybe_saved == NOT_SAVED and (row.key is None or row.key < oldest):
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


def _accept(
    connection: sqlite3.Connection, number: int, key: int, now: int, *, is_fresh: bool, answer: str | None = None
) -> None:
    setting, agent_name, fetched_time, cut_key, state = connection.execute(
        "SELECT setting, agent_name, fetched_time, cut_key, maybe_saved FROM groups WHERE number = ?", (number,)
    ).fetchone()
    # It was never saved by itself, so the whole had been, under its own key.
    was_whole_saved = state == WHOLE_MAYBE_OFFERED and not is_fresh
    key = cut_key if was_whole_saved else key
    connection.execute(
        "UPDATE settings SET settled_key = max(settled_key, ?), settled_time = max(settled_time, ?), saved_as = ?"
        " WHERE number = ?",
        (key, fetched_time, agent_name, setting),
    )
    if is_fresh:
        _delete(connection, setting, [number], Outcome.DELIVERED, now)
        # Exastro's progress stood before this key, so nothing behind it can have been saved.
        connection.execute(
            "UPDATE groups SET maybe_saved = 0 WHERE setting = ? AND parked_reason IS NULL AND in_request = 0",
            (setting,),
        )
        return
    saved = [number]
    if was_whole_saved:
        # And with it the other parts; those of the same request have answers of their own.
        parts = connection.execute(
            "SELECT number FROM groups WHERE setting = ? AND parked_reason IS NULL AND cut_key = ? AND in_request = 0",
            (setting, key),
        )
        saved += [part for (part,) in parts]
    _delete(connection, setting, saved, Outcome.ALREADY_SAVED, now, answer)


def _park(connection: sqlite3.Connection, number: int, reason: str, now: int) -> None:
    connection.execute(
        "UPDATE groups SET parked_reason = ?, parked_time = ?, in_request = 0 WHERE number = ?", (reason, now, number)
    )
    retire_key(connection, number)


def retire_key(connection: sqlite3.Connection, number: int) -> None:
    """See that no group of the setting gets the key of one that goes out of the queue, if it may have counted."""
    # A key that surely never counted is left to the other parts, for which the whole's fate is still open.
    connection.execute(
        "UPDATE settings SET settled_key = max(settled_key, gone.key) FROM"
        " (SELECT setting, coalesce(key, cut_key) AS key FROM groups g WHERE number = ? AND (maybe_saved != ?"
        " OR NOT EXISTS (SELECT 1 FROM groups part WHERE part.setting = g.setting AND part.cut_key = g.cut_key"
        " AND part.number != g.number))) AS gone WHERE settings.number = gone.setting AND gone.key IS NOT NULL",
        (number, WHOLE_MAYBE),
    )


def _release(connection: sqlite3.Connection, numbers: Iterable[int]) -> None:
    connection.executemany("UPDATE groups SET in_request = 0 WHERE number = ?", [(number,) for number in numbers])


def _delete(
    connection: sqlite3.Connection,
    setting: int,
    numbers: Iterable[int],
    outcome: Outcome,
    now: int,
    answer: str | None = None,
) -> None:
    """Delete groups of a setting, adding their events to the outcome's column of the ledger, and note that."""
    values = [(number,) for number in numbers]
    history.note(connection, [number for (number,) in values], outcome, now, answer)
    connection.executemany(
        f"UPDATE settings SET {outcome} = {outcome} + (SELECT event_count FROM groups WHERE number = ?)"  # noqa: S608
        " WHERE number = ?",
        [(number, setting) for (number,) in values],
    )
    connection.executemany("DELETE FROM pieces WHERE group_number = ?", values)
    connection.executemany("DELETE FROM groups WHERE number = ?", values)
