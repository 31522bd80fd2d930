"""Pieces of groups: how one is written, whether its bytes are still those, and which events they hold."""

import mmap
import sqlite3
import zlib
from collections.abc import Sequence
from typing import Any

import msgspec

from ita_ag_oase.model import Piece

# What is read of a piece, as the types it was written with, also where the disk has changed one of them.
PIECE_COLUMNS = "CAST(coalesce(event_count, 0) AS INTEGER), CAST(coalesce(events, x'') AS BLOB), checksum"


class Origin(msgspec.Struct):
    """Where an event came from, by its labels; a mail has its own id only."""

    id: str | None = msgspec.field(name="_exastro_oase_event_id", default=None)
    message_id: Any = None
    setting_id: str | None = msgspec.field(name="_exastro_event_collection_settings_id", default=None)
    setting_name: str | None = msgspec.field(name="_exastro_event_collection_settings_name", default=None)
    fetched_time: int = msgspec.field(name="_exastro_fetched_time", default=0)

    @property
    def event_id(self) -> Any:
        """The id under which the event was remembered, if it is a text."""
        return self.id or self.message_id


class Room:
    """Memory for the pieces of a request, which the system has back as soon as the last of them is let go of.

    What is allocated piece by piece in the store's thread is used again, but given back rarely.
    """

    def __init__(self, size: int) -> None:
        self._memory = memoryview(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)) if size else None
        self._used = 0

    def hold(self, events: bytes) -> Piece:
        """Return the same bytes in this memory, or as they are where that has no room for them."""
        end = self._used + len(events)
        if self._memory is None or end > len(self._memory):
            return events
        place = self._memory[self._used : end]
        place[:] = events
        self._used = end
        return place.toreadonly()


_origins = msgspec.json.Decoder(list[Origin])


def write_piece(connection: sqlite3.Connection, group_number: int, events: Sequence[bytes]) -> int:
    """Append a piece to a group, with a checksum by which a disk that changes its bytes is found out; return its id."""
    joined = b",".join(events)
    return int(
        connection.execute(
            "INSERT INTO pieces (group_number, event_count, events, checksum) VALUES (?, ?, ?, ?)",
            (group_number, len(events), joined, checksum_of(joined)),
        ).lastrowid
        or 0
    )


def checksum_of(events: bytes) -> int:
    """Return the CRC-32 that is kept with a piece's bytes."""
    return zlib.crc32(events)


def is_sound(events: bytes, checksum: int | None) -> bool:
    """Whether a piece holds the bytes that were written; without a checksum nothing is known against it."""
    return checksum is None or checksum_of(events) == checksum


def events_in(events: bytes) -> list[bytes] | None:
    """Return each event of a piece as its JSON text; None where the piece is no JSON any more."""
    try:
        # The JSON decoder passes over strings without looking at their bytes.
        events.decode()
        return [bytes(raw) for raw in msgspec.json.decode(b"[%b]" % events, type=list[msgspec.Raw])]
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError):
        return None


def origins_in(events: bytes) -> list[Origin]:
    """Return where each event of a piece came from; nothing for bytes that can no longer be read."""
    try:
        return _origins.decode(b"[%b]" % events)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return []
