"""Pieces of groups: how one is written, whether its bytes are still those, and which events they hold."""

import sqlite3
import zlib
from collections.abc import Sequence

import msgspec

# What is read of a piece, as the types it was written with, also where the disk has changed one of them.
PIECE_COLUMNS = "CAST(coalesce(event_count, 0) AS INTEGER), CAST(coalesce(events, x'') AS BLOB), checksum"


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
