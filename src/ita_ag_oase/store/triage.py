"""What a person does with the outbox: look at it, offer parked groups again, drop groups for good.

The daemon may be delivering at the same time; what is in flight is looked at only. A group that is offered again goes
to the end of the queue and gets a new key when its turn comes, so that no key moves that was ever offered. One that an
earlier offer may have saved under its key keeps that key, and goes first, while "already saved" is still conclusive:
nothing of the setting can have been saved under a later key, nothing waits under an earlier one, and Exastro has not
forgotten this one.
"""

import itertools
import sqlite3
from collections.abc import Iterable, Iterator

from ita_ag_oase.model import GroupChoice, GroupKey, GroupState, OutboxGroup, OutboxSummary, Outcome, Tally
from ita_ag_oase.store import history, outbox
from ita_ag_oase.store.database import corrupt
from ita_ag_oase.store.history import STATE
from ita_ag_oase.store.outbox import DAMAGED, MAYBE, NOT_SAVED
from ita_ag_oase.store.pieces import PIECE_COLUMNS

# So long Exastro remembers a key.
_REMEMBERED_SECONDS = 259_200

# As the types that were written, whatever the disk made of them: a person shall see what is left.
_NAME = "CAST(s.name AS TEXT)"
_KEY = "CAST(g.key AS INTEGER)"
_REASON = "CAST(g.parked_reason AS TEXT)"
_PARKED_TIME = "CAST(g.parked_time AS INTEGER)"
_SINCE = "CAST(coalesce(g.parked_time, g.fetched_time, 0) AS INTEGER)"
_EVENTS = "CAST(coalesce(g.event_count, 0) AS INTEGER)"
_BYTES = "CAST(coalesce(g.byte_count, 0) AS INTEGER)"
_FROM = " FROM groups g JOIN settings s ON s.number = g.setting"


def summary(connection: sqlite3.Connection) -> list[OutboxSummary]:
    """Return how much of the outbox is in which state and why, by setting."""
    rows = connection.execute(
        f"SELECT {_NAME} AS name, {STATE} AS state, {_REASON} AS reason, count(*), sum({_EVENTS}), sum({_BYTES}),"
        f" min({_SINCE}){_FROM} GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"
    )
    return [OutboxSummary(name, GroupState(state), *rest) for name, state, *rest in rows]


def chosen(connection: sqlite3.Connection, choice: GroupChoice, number: int | None = None) -> Iterator[OutboxGroup]:
    """Return the groups that are meant, the oldest key first, those without one last. Of `number` only, where given."""
    rows = connection.execute(
        f"SELECT g.number, {_NAME}, {_KEY}, CAST(g.agent_name AS TEXT), {STATE}, {_REASON}, {_PARKED_TIME}, {_SINCE},"
        f" {_EVENTS}, {_BYTES}{_FROM} WHERE coalesce(s.name = ?, 1) AND coalesce(instr({_REASON}, ?), ?)"
        f" AND {'g.number = ?' if number is not None else '? IS NULL'}"
        " ORDER BY g.key IS NULL, g.key, g.poll, g.first_event",
        (choice.setting_name, choice.reason, choice.reason is None, number),
    )
    for number, name, fetched_time, agent_name, state, *rest in rows:
        group = OutboxGroup(number, GroupKey(name, fetched_time), agent_name, GroupState(state), *rest)
        if group.state in choice.states and (not choice.keys or group.key in choice.keys):
            yield group


def pieces(connection: sqlite3.Connection, choice: GroupChoice) -> Iterator[tuple[OutboxGroup, bytes]]:
    """Return the pieces of the groups that are meant, each with its group; an empty one for a group that has none."""
    for group in chosen(connection, choice):
        yield from _pieces(connection, group)


def pieces_of(
    connection: sqlite3.Connection, group: OutboxGroup, choice: GroupChoice
) -> Iterator[tuple[OutboxGroup, bytes]]:
    """Return the pieces of a group that was chosen a while ago; nothing where it is gone, or no longer what it was."""
    if group in chosen(connection, choice, group.number):
        yield from _pieces(connection, group)


def _pieces(connection: sqlite3.Connection, group: OutboxGroup) -> Iterator[tuple[OutboxGroup, bytes]]:
    query = f"SELECT {PIECE_COLUMNS} FROM pieces WHERE group_number = ? ORDER BY id"  # noqa: S608 - our own names
    rows = connection.execute(query, (group.number,))
    for _, events, _ in itertools.chain([rows.fetchone() or (0, b"", None)], rows):
        yield group, events


def retry(connection: sqlite3.Connection, choice: GroupChoice, now: int) -> Tally:
    """Have parked groups offered again, whatever else `choice.states` names; return how many."""
    groups = [group for group in chosen(connection, choice) if group.state is GroupState.PARKED]
    _require_rows(connection, groups)
    history.note(connection, [group.number for group in groups], Outcome.RETRIED, now)
    for group in groups:
        if group.reason == str(DAMAGED):
            # Whoever retries it wants it sent as it is.
            connection.execute("UPDATE pieces SET checksum = NULL WHERE group_number = ?", (group.number,))
        if _is_conclusive(connection, group.number, now):
            _put_first(connection, group.number)
        else:
            _put_last(connection, group.number)
    return _tally(groups)


def drop(connection: sqlite3.Connection, choice: GroupChoice, now: int, among: frozenset[OutboxGroup] | None) -> Tally:
    """Take groups out for good, but none in flight; return how many. `among` leaves out all but these, if unchanged."""
    groups = [
        group
        for group in chosen(connection, choice)
        if group.state is not GroupState.IN_FLIGHT and (among is None or group in among)
    ]
    _require_rows(connection, groups)
    outbox.drop(connection, [group.number for group in groups], now)
    return _tally(groups)


def _require_rows(connection: sqlite3.Connection, groups: Iterable[OutboxGroup]) -> None:
    """Raise sqlite3.DatabaseError where a group that was read is not found by its number, so that no work is done."""
    for group in groups:
        if connection.execute("SELECT 1 FROM groups WHERE number = ?", (group.number,)).fetchone() is None:
            raise corrupt(f"{group.key} is not found by its number")


def _is_conclusive(connection: sqlite3.Connection, number: int, now: int) -> bool:
    """Whether Exastro's word that it has a parked group's key can only mean that it has these very events."""
    row = connection.execute(
        f"SELECT 1{_FROM} WHERE g.number = ? AND g.maybe_saved = {MAYBE} AND g.key = s.settled_key AND g.key > ?"  # noqa: S608
        " AND NOT EXISTS (SELECT 1 FROM groups o WHERE o.setting = g.setting AND o.number != g.number"
        " AND iif(o.parked_reason IS NULL,"
        f" o.in_request = 1 OR o.maybe_saved != {NOT_SAVED} OR o.key < g.key,"
        f" o.maybe_saved != {NOT_SAVED} AND coalesce(o.key, o.cut_key) > g.key))",
        (number, now - _REMEMBERED_SECONDS),
    ).fetchone()
    return row is not None


def _put_first(connection: sqlite3.Connection, number: int) -> None:
    (first,) = connection.execute("SELECT coalesce(min(poll), 1) FROM groups WHERE parked_reason IS NULL").fetchone()
    if first == 0:
        # A number below zero would pass for damage.
        connection.execute("UPDATE groups SET poll = poll + 1 WHERE parked_reason IS NULL")
    connection.execute(
        "UPDATE groups SET parked_reason = NULL, parked_time = NULL, cut_key = NULL, poll = ? WHERE number = ?",
        (max(first - 1, 0), number),
    )


def _put_last(connection: sqlite3.Connection, number: int) -> None:
    outbox.retire_key(connection, number)
    connection.execute(
        "UPDATE groups SET parked_reason = NULL, parked_time = NULL, key = NULL, cut_key = NULL, maybe_saved = ?,"
        " poll = (SELECT coalesce(max(poll), 0) + 1 FROM groups WHERE parked_reason IS NULL) WHERE number = ?",
        (NOT_SAVED, number),
    )


def _tally(groups: Iterable[OutboxGroup]) -> Tally:
    counts = [group.event_count for group in groups]
    return Tally(groups=len(counts), events=sum(counts))
