"""Takes over the stock agent's database once (protocol section 2.2): its unsent events, cursors and known ids."""

import json
import sqlite3
from pathlib import Path
from typing import Any

import msgspec

from ita_ag_oase.model import TakeOver
from ita_ag_oase.store import registry
from ita_ag_oase.store.columns import GREATEST_INTEGER
from ita_ag_oase.store.pieces import write_piece
from ita_ag_oase.store.salvage import Salvage, opened_copy
from ita_ag_oase.store.saving import KEY_STRIDE, PIECE_BYTES, digest
from ita_ag_oase.text import verbatim

_DONE = "taken_over"
# Events held in memory at most, of all groups together: those of a group need not stand together in the old file.
_MAX_HELD_BYTES = 1_048_576


def take_over_once(connection: sqlite3.Connection, path: Path, *, agent_name: str, now: int) -> TakeOver | None:
    """Read the stock agent's file into a store that is new; the file stays as it was.

    Whatever cannot be read is left out and counted. None where there is no such file, or the store is not new.
    """
    is_new = connection.execute("SELECT count(*) = 0 FROM settings").fetchone()[0]
    if not is_new or registry.fact(connection, _DONE) is not None:
        return None
    registry.keep_fact(connection, _DONE, b"%d" % now)
    if not path.exists():
        return None
    try:
        with opened_copy(path) as old:
            return _Taking(connection, old, agent_name=agent_name, now=now).all()
    except OSError as err:
        return TakeOver(
            groups=0, events=0, ids=0, cursors=0, unreadable=0, problems=(verbatim(err.strerror or str(err)),)
        )


class _Group:
    """An unsent group that is being read: what is in the store already, and what is not yet."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.events: list[bytes] = []
        self.size = 0


class _Taking:
    def __init__(self, connection: sqlite3.Connection, old: Salvage, *, agent_name: str, now: int) -> None:
        self._connection = connection
        self._old = old
        self._agent_name = agent_name
        self._now = now
        self._settings: dict[str, int] = {}
        self._groups: dict[tuple[int, str], _Group] = {}
        self._held_bytes = 0
        self._ids = 0

    def all(self) -> TakeOver:
        cursors = self._take_cursors()
        unsent = self._unsent_times()
        for name, event_id, event, fetched_time, sent_flag in self._old.rows(
            "events", ("event_collection_settings_name", "id", "event", "fetched_time", "sent_flag")
        ):
            if not isinstance(name, str) or not _is_time(fetched_time):
                self._old.unreadable += 1
                continue
            self._take_id(name, event_id)
            if not sent_flag or (fetched_time, name) in unsent:
                self._take_event(name, fetched_time, event)
        for group in self._groups.values():
            self._write(group)
        return TakeOver(
            groups=len(self._groups),
            events=self._complete_groups(),
            ids=self._ids,
            cursors=cursors,
            unreadable=self._old.unreadable,
            problems=tuple(self._old.problems),
        )

    def _take_cursors(self) -> int:
        count = 0
        for name, time in self._old.rows("last_fetched_time", ("event_collection_settings_name", "last_fetched_time")):
            if isinstance(name, str) and _is_time(time):
                self._setting(name, time)
                count += 1
            else:
                self._old.unreadable += 1
        return count

    def _unsent_times(self) -> set[tuple[int, str]]:
        rows = self._old.rows("sent_timestamp", ("event_collection_settings_name", "fetched_time", "sent_flag"))
        return {(time, name) for name, time, sent_flag in rows if not sent_flag}

    def _setting(self, name: str, last_fetched_time: int | None = None) -> int:
        if name not in self._settings:
            time = self._now if last_fetched_time is None else last_fetched_time
            self._settings[name] = int(
                self._connection.execute(
                    "INSERT INTO settings (id, name, last_fetched_time, last_key) VALUES (NULL, ?, ?, ?)",
                    (name, time, time - KEY_STRIDE),
                ).lastrowid
                or 0
            )
        return self._settings[name]

    def _take_id(self, name: str, event_id: Any) -> None:
        if event_id is None:
            return
        self._ids += self._connection.execute(
            "INSERT OR IGNORE INTO ids (setting, digest, last_seen) VALUES (?, ?, ?)",
            (self._setting(name), digest(str(event_id)), self._now),
        ).rowcount

    def _take_event(self, name: str, fetched_time: int, event: Any) -> None:
        try:
            value = json.loads(event)
        except (TypeError, ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            self._old.unreadable += 1
            return
        encoded = _encoded(value)
        group = self._group(name, fetched_time)
        group.events.append(encoded)
        group.size += len(encoded)
        self._held_bytes += len(encoded)
        if group.size >= PIECE_BYTES:
            self._write(group)
        elif self._held_bytes >= _MAX_HELD_BYTES:
            for one in self._groups.values():
                self._write(one)

    def _group(self, name: str, fetched_time: int) -> _Group:
        if (fetched_time, name) not in self._groups:
            # The stock agent may have sent it without learning its fate.
            number = self._connection.execute(
                "INSERT INTO groups (setting, poll, first_event, agent_name, fetched_time, key, maybe_saved,"
                " event_count, byte_count) VALUES (?1, 0, 0, ?2, ?3, ?3, 1, 0, 0)",
                (self._setting(name), self._agent_name, fetched_time),
            ).lastrowid
            self._groups[fetched_time, name] = _Group(int(number or 0))
        return self._groups[fetched_time, name]

    def _write(self, group: _Group) -> None:
        if group.events:
            write_piece(self._connection, group.number, group.events)
        self._held_bytes -= group.size
        group.events, group.size = [], 0

    def _complete_groups(self) -> int:
        """Bring the groups in order, and count their events; return how many there are."""
        self._connection.executemany(
            "UPDATE groups SET poll = ?, (event_count, byte_count) = (SELECT sum(event_count), sum(length(events) + 1)"
            " FROM pieces WHERE group_number = groups.number) WHERE number = ?",
            [(poll, self._groups[key].number) for poll, key in enumerate(sorted(self._groups), 1)],
        )
        self._connection.execute(
            "UPDATE settings SET (last_key, seen, new) = (SELECT max(settings.last_key, max(g.key)),"
            " sum(g.event_count), sum(g.event_count) FROM groups g WHERE g.setting = settings.number)"
            " WHERE number IN (SELECT setting FROM groups)"
        )
        (events,) = self._connection.execute("SELECT coalesce(sum(event_count), 0) FROM groups").fetchone()
        return int(events)


def _is_time(value: Any) -> bool:
    """Whether a value is one that the store takes for a time, with a key before it."""
    return isinstance(value, int) and KEY_STRIDE <= value <= GREATEST_INTEGER


def _encoded(event: dict[str, Any]) -> bytes:
    """Return an event as JSON; lone surrogates, which UTF-8 has no place for, become U+FFFD."""
    try:
        return msgspec.json.encode(event)
    except UnicodeEncodeError:
        text = json.dumps(event, ensure_ascii=False).encode("utf-16-le", "surrogatepass")
        return msgspec.json.encode(json.loads(text.decode("utf-16-le", "replace")))
