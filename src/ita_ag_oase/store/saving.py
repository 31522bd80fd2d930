"""Saves what a poll found: new events, the ids seen and the advanced cursor, in one transaction."""

import itertools
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import msgspec
from typing_extensions import Buffer

from ita_ag_oase.model import Collection, Event, EventFate, Labels, Listing, Saved
from ita_ag_oase.store.lists import Listed, Lists, digest_of_list
from ita_ag_oase.store.pieces import write_piece

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
PIECE_BYTES = 65_536
# Seconds from one key of a setting to the next: at least, and where seconds are unused.
KEY_STRIDE, _KEY_STRIDE_MAX = 3, 10
# An id that is still listed is written again only once this part of the retention time has passed.
_REFRESH_PART = 8

# A join costs half of what IN does, which sorts the digests first.
_REMEMBERED = (
    f"FROM (VALUES {', '.join(('(?)',) * _LOOKUP_SIZE)}) AS given CROSS JOIN ids"
    " ON ids.setting = ? AND ids.digest = given.column1"
)
_LOOKUP = f"SELECT digest, last_seen {_REMEMBERED}"
_COUNT = f"SELECT count(*), min(last_seen) {_REMEMBERED}"


@dataclass(frozen=True, slots=True)
class SavingLimits:
    """Bounds of one group, and how long an id is remembered after it was last seen."""

    group_events: int
    group_bytes: int
    id_retention_seconds: int


def digest(text: str) -> bytes:
    """Return the 16 bytes under which an event id is remembered."""
    return blake2b(text.encode(), digest_size=DIGEST_BYTES).digest()


def save(
    connection: sqlite3.Connection, collection: Collection, limits: SavingLimits, lists: Lists
) -> tuple[Saved, Listed | None]:
    """Save a poll and return what was new in it, and what `lists` is to be told once that is committed.

    Groups get keys that grow strictly: unused seconds since the setting's last key, then seconds beyond the poll's.
    """
    number, last_key, unusable, new = connection.execute(
        "SELECT number, last_key, unusable, new FROM settings WHERE id = ?", (collection.setting_id,)
    ).fetchone()
    filter_ = _Filter(connection, number, collection.labels.fetched_time, unusable, limits.id_retention_seconds, new)
    writer = _GroupWriter(connection, number, collection, limits, new)
    for event in filter_.new_among(collection.events, lists, collection.setting_id):
        writer.add(event)
    writer.finish(last_key)
    saved = Saved(new=writer.count, known=filter_.known, repeated=filter_.repeated)
    _advance(connection, number, collection, saved)
    if writer.last_event is not None:
        connection.execute("UPDATE settings SET last_event = ? WHERE number = ?", (writer.last_event, number))
    if filter_.unusable != unusable:
        connection.execute("UPDATE settings SET unusable = ? WHERE number = ?", (filter_.unusable, number))
    return saved, filter_.listed


def as_delivered(event: Event, labels: Labels) -> bytes:
    """Return the JSON that Exastro gets of an event."""
    return _labelled(event, _label_bytes(labels), has_event_id=labels.has_event_id)


def fates(connection: sqlite3.Connection, setting_id: str, events: Sequence[Event]) -> list[EventFate]:
    """Return what `save` would make of each event of a poll, without saving anything."""
    row = connection.execute("SELECT number, unusable FROM settings WHERE id = ?", (setting_id,)).fetchone()
    number, unusable = row or (None, b"")
    unusable_before = _digests_in(unusable)
    seen: set[bytes] = set()
    found = []
    for batch in _batches(events):
        digests = {event.id: digest(event.id) for event in batch if not event.is_serial}
        seen.update(_look_up(connection, number, list(digests.values())))
        for event in batch:
            if event.is_serial:
                found.append(_fate_of_serial(event, unusable_before))
                continue
            key = digests[event.id]
            found.append(EventFate.KNOWN if key in seen else EventFate.NEW)
            seen.add(key)
    return found


def _fate_of_serial(event: Event, unusable_before: frozenset[bytes]) -> EventFate:
    if event.unavailable is None or _content_digest(event.raw, event.unavailable) not in unusable_before:
        return EventFate.NEW
    return EventFate.REPEATED


def _look_up(connection: sqlite3.Connection, setting: int | None, digests: list[bytes]) -> dict[bytes, int]:
    """Return those of at most 500 digests that are remembered, with the time when each was last seen."""
    return dict(connection.execute(_LOOKUP, _given(setting, digests)))


def _given(setting: int | None, digests: Sequence[bytes]) -> list[object]:
    # A bytearray is bound as it is; for bytes, sqlite3 looks for an adapter each time, which takes longer.
    return [*map(bytearray, digests), *([None] * (_LOOKUP_SIZE - len(digests))), setting]


def _content_digest(raw: Buffer, unavailable: str) -> bytes:
    return blake2b(raw, digest_size=DIGEST_BYTES, key=unavailable.encode()[:64]).digest()


def _digests_in(joined: bytes) -> frozenset[bytes]:
    return frozenset(joined[start : start + DIGEST_BYTES] for start in range(0, len(joined), DIGEST_BYTES))


def _batches(events: Iterable[Event]) -> Iterator[list[Event]]:
    rest = iter(events)
    while batch := list(itertools.islice(rest, _LOOKUP_SIZE)):
        yield batch


def _advance(connection: sqlite3.Connection, number: int, collection: Collection, saved: Saved) -> None:
    connection.execute(
        "UPDATE settings SET last_fetched_time = coalesce(?, last_fetched_time), position = coalesce(?, position),"
        " seen = seen + ?, new = new + ?, known = known + ?, repeated = repeated + ? WHERE number = ?",
        (
            collection.labels.fetched_time if collection.moves_cursor else None,
            collection.position,
            saved.new + saved.known + saved.repeated,
            saved.new,
            saved.known,
            saved.repeated,
            number,
        ),
    )


class _Filter:
    """Lets each event through once: by its id, or, where it is unusable, by its content since the last poll.

    `first_number` is what the first new event counts as among all new ones of the setting.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        setting: int,
        now: int,
        unusable: bytes,
        retention_seconds: int,
        first_number: int,
    ) -> None:
        self.known = 0
        self.repeated = 0
        self._connection = connection
        self._setting = setting
        self._now = now
        self._aged = now - retention_seconds // _REFRESH_PART
        self._next_number = first_number
        self._unusable_before = _digests_in(unusable)
        self._unusable_now: set[bytes] = set()
        self.listed: Listed | None = None

    @property
    def unusable(self) -> bytes:
        """The digests of this poll's unusable events, sorted and joined."""
        return b"".join(sorted(self._unusable_now))

    def new_among(self, events: Iterable[Event], lists: Lists, setting_id: str) -> Iterator[Event]:
        """Return the events not seen before, a batch at a time, and remember their ids before the next is looked at.

        Of a listing, only what may be new is cut out of the answer; `listed` is then what can be noted of it.
        """
        if isinstance(events, Listing):
            return self._new_of_list(events, lists.find(setting_id), lists.version(self._connection))
        return (event for batch in _batches(events) for event in self._new_ones(batch))

    def _new_of_list(self, events: Listing, before: Listed | None, version: tuple[int, int]) -> Iterator[Event]:
        list_digest = digest_of_list(events.ids)
        if before and (before.digest, before.version) == (list_digest, version) and before.last_seen >= self._aged:
            self.listed = before
            self.known = len(events.ids)
            return
        earliest = self._now
        for start in range(0, len(events.ids), _LOOKUP_SIZE):
            ids = events.ids[start : start + _LOOKUP_SIZE]
            count, last_seen = self._count([digest(id_) for id_ in ids])
            if count == len(ids) and last_seen >= self._aged:
                self.known += count
            else:
                yield from self._new_ones(events.part(start, start + len(ids)))
            # Of those that are written again, the others may be hardly younger.
            earliest = min(earliest, max(last_seen, self._aged))
        self.listed = Listed(list_digest, earliest, version)

    def _count(self, digests: list[bytes]) -> tuple[int, int]:
        """Return how many of at most 500 digests are remembered, and the earliest time that is noted with one."""
        count, last_seen = self._connection.execute(_COUNT, _given(self._setting, digests)).fetchone()
        return count, self._now if last_seen is None else last_seen

    def _new_ones(self, events: list[Event]) -> list[Event]:
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
        self._remember(new, digests)
        return new

    def _look_up(self, digests: list[bytes]) -> dict[bytes, int]:
        seen = _look_up(self._connection, self._setting, digests)
        aged = [key for key, last_seen in seen.items() if last_seen < self._aged]
        self._connection.executemany(
            "UPDATE ids SET last_seen = ? WHERE setting = ? AND digest = ?",
            [(self._now, self._setting, bytearray(key)) for key in aged],
        )
        return seen

    def _remember(self, events: list[Event], digests: Mapping[str, bytes]) -> None:
        numbered = enumerate(events, self._next_number)
        self._connection.executemany(
            "INSERT INTO ids (setting, digest, last_seen, first_poll, event_number) VALUES (?1, ?2, ?3, ?3, ?4)",
            [
                (self._setting, bytearray(digests[event.id]), self._now, number)
                for number, event in numbered
                if not event.is_serial
            ],
        )
        self._next_number += len(events)

    def _is_usable_or_changed(self, event: Event) -> bool:
        if event.unavailable is None:
            return True
        content = _content_digest(event.raw, event.unavailable)
        self._unusable_now.add(content)
        if content in self._unusable_before:
            self.repeated += 1
            return False
        return True


class _GroupWriter:
    """Labels events, joins them into groups within the limits, and writes them piece by piece."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        setting: int,
        collection: Collection,
        limits: SavingLimits,
        first_number: int,
    ) -> None:
        self.count = 0
        self._connection = connection
        self._setting = setting
        self._agent_name = collection.agent_name
        self._fetched_time = collection.labels.fetched_time
        self._labels = _label_bytes(collection.labels)
        self._has_event_id = collection.labels.has_event_id
        self._limits = limits
        self._first_number = first_number
        self._groups: list[int] = []
        self._group_events = self._group_bytes = 0
        self._piece: list[bytes] = []
        self._piece_bytes = 0
        self._greatest = _Greatest()

    @property
    def last_event(self) -> bytes | None:
        """The usable event with the greatest id, labels included; None if there was none."""
        return self._greatest.event

    def add(self, event: Event) -> None:
        """Append an event, starting a new group where the present one is full."""
        labelled = _labelled(event, self._labels, has_event_id=self._has_event_id)
        if not self._groups or self._is_full(len(labelled)):
            self._start_group()
        self._piece.append(labelled)
        self._piece_bytes += len(labelled) + 1
        self._group_bytes += len(labelled) + 1
        self._group_events += 1
        self.count += 1
        if self._piece_bytes >= PIECE_BYTES:
            self._write_piece()
        if event.unavailable is None:
            self._greatest.offer(event.id, labelled)

    def finish(self, last_key: int) -> None:
        """Complete the last group and give all of them their keys, the first being greater than `last_key`."""
        if not self._groups:
            return
        self._end_group()
        # Spread over the unused seconds, and never without one between two keys: what cutting a group needs.
        unused = (self._fetched_time - last_key) // len(self._groups)
        stride = min(max(KEY_STRIDE, unused), _KEY_STRIDE_MAX)
        greatest = max(self._fetched_time, last_key + len(self._groups) * KEY_STRIDE)
        keys = range(greatest - (len(self._groups) - 1) * stride, greatest + 1, stride)
        self._connection.executemany("UPDATE groups SET key = ? WHERE number = ?", zip(keys, self._groups, strict=True))
        self._connection.execute("UPDATE settings SET last_key = ? WHERE number = ?", (greatest, self._setting))

    def _is_full(self, more_bytes: int) -> bool:
        limits = self._limits
        return self._group_events == limits.group_events or self._group_bytes + more_bytes > limits.group_bytes

    def _start_group(self) -> None:
        if self._groups:
            self._end_group()
        number = self._connection.execute(
            "INSERT INTO groups (setting, poll, first_event, agent_name, fetched_time, event_count, byte_count)"
            " VALUES (?, coalesce((SELECT poll FROM groups WHERE number = ?),"
            " (SELECT coalesce(max(poll), 0) + 1 FROM groups WHERE parked_reason IS NULL)), ?, ?, ?, 0, 0)",
            (
                self._setting,
                self._groups[0] if self._groups else None,
                self._first_number + self.count,
                self._agent_name,
                self._fetched_time,
            ),
        ).lastrowid
        self._groups.append(number or 0)
        self._group_events = self._group_bytes = 0

    def _end_group(self) -> None:
        if self._piece:
            self._write_piece()
        self._connection.execute(
            "UPDATE groups SET event_count = ?, byte_count = ? WHERE number = ?",
            (self._group_events, self._group_bytes, self._groups[-1]),
        )

    def _write_piece(self) -> None:
        write_piece(self._connection, self._groups[-1], self._piece)
        self._piece.clear()
        self._piece_bytes = 0


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
    return msgspec.json.encode(
        {
            "_exastro_event_collection_settings_name": labels.setting_name,
            "_exastro_event_collection_settings_id": labels.setting_id,
            "_exastro_fetched_time": labels.fetched_time,
            "_exastro_end_time": labels.end_time,
        }
    )[1:-1]


def _labelled(event: Event, labels: bytes, *, has_event_id: bool) -> bytes:
    """Return the event's JSON object with its labels appended; names that are labels belong to the agent alone."""
    raw = bytes(event.raw)
    if b'"_exastro_' in raw:
        raw = _without_labels(raw)
    opened = raw[:-1].rstrip()
    start = b"" if opened == b"{" else b","
    id_ = b'"_exastro_oase_event_id":%b,' % msgspec.json.encode(event.id) if has_event_id else b""
    reason = (
        b"" if event.unavailable is None else b',"_exastro_not_available":' + msgspec.json.encode(event.unavailable)
    )
    return b"%b%b%b%b%b}" % (opened, start, id_, labels, reason)


def _without_labels(raw: bytes) -> bytes:
    members = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    return msgspec.json.encode({name: member for name, member in members.items() if name not in _LABEL_NAMES})
