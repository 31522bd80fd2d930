"""What is kept of events once they have left the outbox, and what can be told of one by its id.

An id is remembered with its poll and with its number among all new events of the setting. Groups, and what the history
has of those that are gone, know which numbers they hold; so an event costs nothing beyond its id.
"""

import itertools
import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import msgspec

from ita_ag_oase.model import EventLife, GroupKey, GroupRecord, GroupState, Outcome
from ita_ag_oase.store.database import corrupt
from ita_ag_oase.store.pieces import PIECE_COLUMNS, origins_in
from ita_ag_oase.store.saving import digest

_ANSWER_CHARACTERS = 256
# A row takes about 100 bytes: 20 MB in a large store, and in a small one hardly more than an eighth of it.
_MOST_ROWS, _ROW_BYTES, _PART = 200_000, 128, 8
# A count of microseconds since the epoch, such as one of this century.
_SERIAL_ID = re.compile(r"[0-9]{16}", re.ASCII)
_MICROSECONDS = 1_000_000
_STATES: Mapping[str, GroupState | Outcome] = {str(state): state for state in (*GroupState, *Outcome)}

# How a group stands in the outbox.
STATE = (
    f"CASE WHEN g.parked_reason IS NOT NULL THEN '{GroupState.PARKED}' WHEN g.in_request = 1"
    f" THEN '{GroupState.IN_FLIGHT}' ELSE '{GroupState.WAITING}' END"
)
_GONE = (
    "SELECT key, agent_name, fetched_time, event_count, first_event, offers, first_offer, latest_offer, outcome,"
    " ended, answer FROM history h WHERE setting = :setting AND fetched_time BETWEEN :since AND :poll"
    " AND coalesce(:number BETWEEN first_event AND first_event + event_count - 1, 1) ORDER BY h.number"
)
_PRESENT = (
    "SELECT key, agent_name, fetched_time, event_count, first_event, offers, first_offer, latest_offer,"  # noqa: S608 - our own names
    f" {STATE}, parked_time, coalesce(parked_reason, answer)"
    " FROM groups g WHERE setting = :setting AND fetched_time BETWEEN :since AND :poll"
    " AND coalesce(:number BETWEEN first_event AND first_event + event_count - 1, 1) AND coalesce(g.number = :group, 1)"
    " ORDER BY g.poll, g.first_event"
)


class _Setting(NamedTuple):
    number: int
    id: str | None
    name: str


class _Sighting(NamedTuple):
    """What is remembered with an id; all is unknown where there is none."""

    first_poll: int | None = None
    number: int | None = None
    last_seen: int | None = None


class _Place(NamedTuple):
    """Where an event is: its poll, its number among the new ones of the setting, and its group in the outbox."""

    poll: int
    number: int
    group: int | None = None


def note(
    connection: sqlite3.Connection, numbers: Iterable[int], outcome: Outcome, now: int, answer: str | None = None
) -> None:
    """Note what becomes of groups, which must still be as they were, in the transaction that does it.

    `answer` is what Exastro said; without it, the reason why they were parked is kept.
    """
    connection.executemany(
        "INSERT INTO history (setting, agent_name, key, fetched_time, first_event, event_count, offers, first_offer,"
        " latest_offer, ended, outcome, answer) SELECT setting, agent_name, key, fetched_time, first_event,"
        " event_count, offers, first_offer, latest_offer, ?, ?, coalesce(?, parked_reason) FROM groups"
        " WHERE number = ?",
        [(now, outcome, answer and answer[:_ANSWER_CHARACTERS], number) for number in numbers],
    )


def note_answer(connection: sqlite3.Connection, numbers: Iterable[int], answer: str) -> None:
    """Note what became of the latest offer of groups that stay in the outbox."""
    connection.executemany(
        "UPDATE groups SET answer = ? WHERE number = ?", [(answer[:_ANSWER_CHARACTERS], number) for number in numbers]
    )


def most_rows(storage_max_bytes: int) -> int:
    """Return how many rows are kept in a store that may be so large."""
    return min(_MOST_ROWS, storage_max_bytes // _PART // _ROW_BYTES)


def purge(connection: sqlite3.Connection, *, before: int, most: int, step: int) -> int:
    """Forget what ended before a time, and the oldest rows beyond `most`, up to `step` rows; return how many."""
    return connection.execute(
        "DELETE FROM history WHERE number IN (SELECT number FROM (SELECT number, ended FROM history"
        " ORDER BY number LIMIT :step) WHERE ended < :before OR number <= (SELECT max(number) FROM history) - :most)",
        {"before": before, "most": most, "step": step},
    ).rowcount


def lives(connection: sqlite3.Connection, event_id: str, setting_name: str | None) -> list[EventLife]:
    """Return what is known of the events of an id, one for each setting that has seen it, by name.

    An id that the agent made up is found in the outbox or, after that, by the time of its poll that it tells.
    """
    seen = dict(_seen(connection, event_id, setting_name))
    held: dict[_Setting, _Place] = {}
    if not seen or any(sighting.number is None for sighting in seen.values()):
        held = dict(_held(connection, event_id, setting_name))
    found = [
        _life(connection, setting, seen.get(setting, _Sighting()), held.get(setting))
        for setting in sorted({**seen, **held}, key=lambda setting: (setting.name, setting.number))
    ]
    return found or list(_of_poll(connection, event_id, setting_name))


def _seen(
    connection: sqlite3.Connection, event_id: str, setting_name: str | None
) -> Iterator[tuple[_Setting, _Sighting]]:
    rows = connection.execute(
        "SELECT s.number, s.id, s.name, i.first_poll, i.event_number, i.last_seen FROM settings s"
        " JOIN ids i ON i.setting = s.number AND i.digest = ? WHERE coalesce(s.name = ?, 1)",
        (digest(event_id), setting_name),
    )
    for *setting, first_poll, number, last_seen in rows:
        yield _Setting(*setting), _Sighting(first_poll, number, last_seen)


def _held(connection: sqlite3.Connection, event_id: str, setting_name: str | None) -> Iterator[tuple[_Setting, _Place]]:
    """Return where in the outbox an event is, having looked into every piece."""
    hits = connection.execute(
        "SELECT s.number, s.id, s.name, g.number, g.fetched_time, g.first_event, p.id FROM pieces p"
        " JOIN groups g ON g.number = p.group_number JOIN settings s ON s.number = g.setting"
        " WHERE instr(p.events, ?) AND coalesce(s.name = ?, 1)",
        (msgspec.json.encode(event_id), setting_name),
    )
    for number, setting_id, name, group, poll, first_event, piece in hits:
        place = _place_in(connection, piece, event_id)
        if place is not None:
            yield _Setting(number, setting_id, name), _Place(poll, first_event + place, group)


def _place_in(connection: sqlite3.Connection, piece: int, event_id: str) -> int | None:
    """Return which event of its group the one of a piece is, counted from 0; None where the id stands elsewhere."""
    (before,) = connection.execute(
        "SELECT coalesce(sum(b.event_count), 0) FROM pieces b JOIN pieces p ON p.group_number = b.group_number"
        " WHERE p.id = ? AND b.id < p.id",
        (piece,),
    ).fetchone()
    _, events, _ = connection.execute(f"SELECT {PIECE_COLUMNS} FROM pieces WHERE id = ?", (piece,)).fetchone()  # noqa: S608
    for place, origin in enumerate(origins_in(events), before):
        if origin.event_id == event_id:
            return int(place)
    return None


def _life(connection: sqlite3.Connection, setting: _Setting, seen: _Sighting, held: _Place | None) -> EventLife:
    place = held
    if seen.first_poll is not None and seen.number is not None:
        place = _Place(seen.first_poll, seen.number)
    records = tuple(_records(connection, setting, place.poll, place)) if place else ()
    return EventLife(setting.id, setting.name, place.poll if place else seen.first_poll, seen.last_seen, records)


def _of_poll(connection: sqlite3.Connection, event_id: str, setting_name: str | None) -> Iterator[EventLife]:
    """Return what became of the polls at the time that an id made up by the agent tells."""
    if not _SERIAL_ID.fullmatch(event_id):
        return
    second = int(event_id) // _MICROSECONDS
    settings = connection.execute(
        "SELECT number, id, name FROM settings WHERE coalesce(name = ?, 1) ORDER BY name, number", (setting_name,)
    )
    for setting in map(_Setting._make, settings):
        records = tuple(_records(connection, setting, second, None))
        if records:
            yield EventLife(setting.id, setting.name, records[0].fetched_time, None, records, is_certain=False)


def _records(
    connection: sqlite3.Connection, setting: _Setting, poll: int, place: _Place | None
) -> Iterator[GroupRecord]:
    """Return what is known of the groups of an event, or without its place, of a poll."""
    given = {
        "setting": setting.number,
        "poll": poll,
        # The ids of a poll count up from its moment, and may reach the next second.
        "since": poll if place else poll - 1,
        "number": place.number if place else None,
        "group": place.group if place else None,
    }
    rows = itertools.chain(connection.execute(_GONE, given), connection.execute(_PRESENT, given))
    for (
        key,
        agent_name,
        fetched_time,
        count,
        first_event,
        offers,
        first_offer,
        latest_offer,
        state,
        time,
        answer,
    ) in rows:
        yield GroupRecord(
            key=GroupKey(setting.name, key),
            agent_name=agent_name,
            fetched_time=fetched_time,
            event_count=count,
            place=place.number - first_event + 1 if place else None,
            offers=offers,
            first_offer=first_offer,
            latest_offer=latest_offer,
            state=_known_state(state),
            time=time,
            answer=answer,
        )


def _known_state(text: str) -> GroupState | Outcome:
    if text not in _STATES:
        raise corrupt(f"{text!r} is nothing that becomes of a group")
    return _STATES[text]
