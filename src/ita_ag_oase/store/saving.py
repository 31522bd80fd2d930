"""Saves what a poll found: new events, the ids seen and the advanced cursor, in one transaction."""

import hashlib
import itertools
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import msgspec

from ita_ag_oase.model import Collection, Event, Labels, Saved

DIGEST_BYTES = 16
_LABEL_NAMES = frozenset(
    {
        "_exastro_oase_event_id",
        "_exastro_event_collection_settings_name",
        "_exastro_event_collection_settings_id",
        "_exastro_fetched_time",
        "_exastro_end_time",
        "_exastro_not_available",
    }
)
_LOOKUP_SIZE = 500
# An id that is still listed is written again only once this part of the retention time has passed.
_REFRESH_PART = 8

_LOOKUP = f"SELECT digest, last_seen FROM ids WHERE setting = ? AND digest IN ({', '.join('?' * _LOOKUP_SIZE)})"  # noqa: S608


@dataclass(frozen=True, slots=True)
class SavingLimits:
    """Bounds of one group, and how long an id is remembered after it was last seen."""

    group_events: int
    group_bytes: int
    id_retention_seconds: int


def digest(text: str) -> bytes:
    """Return the 16 bytes under which an event id is remembered."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=DIGEST_BYTES).digest()


def save(connection: sqlite3.Connection, collection: Collection, limits: SavingLimits) -> Saved:
    """Save a poll and return what was new in it.

    Groups get keys that grow strictly: unused seconds since the setting's last key, then seconds beyond the poll's.
    """
    number, last_key, unusable = connection.execute(
        "SELECT number, last_key, unusable FROM settings WHERE id = ?", (collection.setting_id,)
    ).fetchone()
    filter_ = _Filter(connection, number, collection.labels.fetched_time, unusable, limits.id_retention_seconds)
    writer = _GroupWriter(connection, number, collection, limits)
    for chunk in _chunks(collection.events):
        for event in filter_.new_ones(chunk):
            writer.add(event)
    writer.finish(last_key)
    _advance(connection, number, collection, writer.last_event)
    if filter_.unusable != unusable:
        connection.execute("UPDATE settings SET unusable = ? WHERE number = ?", (filter_.unusable, number))
    return Saved(new=writer.count, known=filter_.known, repeated=filter_.repeated)


def _chunks(events: Iterable[Event]) -> Iterator[list[Event]]:
    rest = iter(events)
    while chunk := list(itertools.islice(rest, _LOOKUP_SIZE)):
        yield chunk


def _advance(connection: sqlite3.Connection, number: int, collection: Collection, last_event: bytes | None) -> None:
    if collection.moves_cursor:
        connection.execute(
            "UPDATE settings SET last_fetched_time = ? WHERE number = ?", (collection.labels.fetched_time, number)
        )
    if last_event is not None:
        connection.execute("UPDATE settings SET last_event = ? WHERE number = ?", (last_event, number))


class _Filter:
    """Lets each event through once: by its id, or, where it is unusable, by its content since the last poll."""

    def __init__(
        self, connection: sqlite3.Connection, setting: int, now: int, unusable: bytes, retention_seconds: int
    ) -> None:
        self.known = 0
        self.repeated = 0
        self._connection = connection
        self._setting = setting
        self._now = now
        self._aged = now - retention_seconds // _REFRESH_PART
        self._unusable_before = frozenset(
            unusable[start : start + DIGEST_BYTES] for start in range(0, len(unusable), DIGEST_BYTES)
        )
        self._unusable_now: set[bytes] = set()

    @property
    def unusable(self) -> bytes:
        """The digests of this poll's unusable events, sorted and joined."""
        return b"".join(sorted(self._unusable_now))

    def new_ones(self, events: list[Event]) -> list[Event]:
        """Return the events not seen before and remember their ids. At most 500 events at a time."""
        digests = {event.id: digest(event.id) for event in events if not event.is_serial}
        seen = self._look_up(list(digests.values())) if digests else {}
        new = []
        for event in events:
            if event.is_serial:
                if self._is_usable_or_changed(event):
                    new.append(event)
            elif (key := digests[event.id]) in seen:
                self.known += 1
            else:
                seen[key] = self._now
                new.append(event)
        self._remember([digests[event.id] for event in new if not event.is_serial])
        return new

    def _look_up(self, digests: list[bytes]) -> dict[bytes, int]:
        padding = [None] * (_LOOKUP_SIZE - len(digests))
        seen = dict(self._connection.execute(_LOOKUP, (self._setting, *digests, *padding)))
        aged = [key for key, last_seen in seen.items() if last_seen < self._aged]
        self._connection.executemany(
            "UPDATE ids SET last_seen = ? WHERE setting = ? AND digest = ?",
            [(self._now, self._setting, key) for key in aged],
        )
        return seen

    def _remember(self, digests: list[bytes]) -> None:
        self._connection.executemany(
            "INSERT INTO ids (setting, digest, last_seen) VALUES (?, ?, ?)",
            [(self._setting, key, self._now) for key in digests],
        )

    def _is_usable_or_changed(self, event: Event) -> bool:
        if event.unavailable is None:
            return True
        content = hashlib.blake2b(event.raw, digest_size=DIGEST_BYTES, key=event.unavailable.encode()[:64]).digest()
        self._unusable_now.add(content)
        if content in self._unusable_before:
            self.repeated += 1
            return False
        return True


class _GroupWriter:
    """Labels events, joins them into groups within the limits, and writes each group when it is full."""

    def __init__(
        self, connection: sqlite3.Connection, setting: int, collection: Collection, limits: SavingLimits
    ) -> None:
        self.count = 0
        self._connection = connection
        self._setting = setting
        self._agent_name = collection.agent_name
        self._fetched_time = collection.labels.fetched_time
        self._labels = _label_bytes(collection.labels)
        self._limits = limits
        self._events: list[bytes] = []
        self._bytes = 0
        self._groups: list[int] = []
        self._poll = 0
        self._greatest = _Greatest()

    @property
    def last_event(self) -> bytes | None:
        """The usable event with the greatest id, labels included; None if there was none."""
        return self._greatest.event

    def add(self, event: Event) -> None:
        """Append an event, starting a new group where the present one is full."""
        labelled = _labelled(event, self._labels)
        if self._events and (
            len(self._events) == self._limits.group_events or self._bytes + len(labelled) + 1 > self._limits.group_bytes
        ):
            self._flush()
        self._events.append(labelled)
        self._bytes += len(labelled) + 1
        self.count += 1
        if event.unavailable is None:
            self._greatest.offer(event.id, labelled)

    def finish(self, last_key: int) -> None:
        """Write the last group and give all of them their keys, the first being greater than `last_key`."""
        if self._events:
            self._flush()
        if not self._groups:
            return
        first = max(last_key + 1, self._fetched_time - len(self._groups) + 1)
        keys = enumerate(self._groups, first)
        self._connection.executemany("UPDATE groups SET key = ? WHERE number = ?", keys)
        greatest = first + len(self._groups) - 1
        self._connection.execute("UPDATE settings SET last_key = ? WHERE number = ?", (greatest, self._setting))

    def _flush(self) -> None:
        body = b",".join(self._events)
        if not self._poll:
            self._poll = self._connection.execute(
                "SELECT coalesce(max(poll), 0) + 1 FROM groups WHERE parked_reason IS NULL"
            ).fetchone()[0]
        number = self._connection.execute(
            "INSERT INTO groups (setting, poll, first_event, agent_name, event_count, byte_count)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (
                self._setting,
                self._poll,
                self.count - len(self._events),
                self._agent_name,
                len(self._events),
                len(body),
            ),
        ).lastrowid
        self._connection.execute("INSERT INTO bodies (number, events) VALUES (?, ?)", (number, body))
        self._groups.append(number or 0)
        self._events.clear()
        self._bytes = 0


class _Greatest:
    """The event with the greatest id; ids are compared as numbers where all are decimal, else as text."""

    def __init__(self) -> None:
        self._all_decimal = True
        self._by_number: tuple[int, bytes] | None = None
        self._by_text: tuple[str, bytes] | None = None

    @property
    def event(self) -> bytes | None:
        found = self._by_number if self._all_decimal else self._by_text
        return found[1] if found else None

    def offer(self, event_id: str, event: bytes) -> None:
        if self._by_text is None or event_id > self._by_text[0]:
            self._by_text = (event_id, event)
        # Longer digits than any id has would only cost time to convert.
        if self._all_decimal and event_id.isascii() and event_id.isdigit() and len(event_id) < 100:
            number = int(event_id)
            if self._by_number is None or number > self._by_number[0]:
                self._by_number = (number, event)
        else:
            self._all_decimal = False


def _label_bytes(labels: Labels) -> bytes:
    return (
        b",%b"
        % msgspec.json.encode(
            {
                "_exastro_event_collection_settings_name": labels.setting_name,
                "_exastro_event_collection_settings_id": labels.setting_id,
                "_exastro_fetched_time": labels.fetched_time,
                "_exastro_end_time": labels.end_time,
            }
        )[1:-1]
    )


def _labelled(event: Event, labels: bytes) -> bytes:
    """Return the event's JSON object with its labels appended; names that are labels belong to the agent alone."""
    raw = bytes(event.raw)
    if b'"_exastro_' in raw:
        raw = _without_labels(raw)
    opened = raw[:-1].rstrip()
    start = b"" if opened == b"{" else b","
    id_ = msgspec.json.encode(event.id)
    reason = (
        b"" if event.unavailable is None else b',"_exastro_not_available":' + msgspec.json.encode(event.unavailable)
    )
    return b'%b%b"_exastro_oase_event_id":%b%b%b}' % (opened, start, id_, labels, reason)


def _without_labels(raw: bytes) -> bytes:
    members = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    return msgspec.json.encode({name: member for name, member in members.items() if name not in _LABEL_NAMES})
