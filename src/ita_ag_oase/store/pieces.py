"""What can be said of a piece by looking at its bytes: whether they are those that were written, and which events."""

import zlib

import msgspec

# What is read of a piece, as the types it was written with, also where the disk has changed one of them.
PIECE_COLUMNS = "CAST(coalesce(event_count, 0) AS INTEGER), CAST(coalesce(events, x'') AS BLOB), checksum"


def is_sound(events: bytes, checksum: int | None) -> bool:
    """Whether a piece holds the bytes that were written; without a checksum nothing is known against it."""
    return checksum is None or zlib.crc32(events) == checksum


def events_in(events: bytes) -> list[bytes] | None:
    """Return each event of a piece as its JSON text; None where the piece is no JSON any more."""
    try:
        # The JSON decoder passes over strings without looking at their bytes.
        events.decode()
        return [bytes(raw) for raw in msgspec.json.decode(b"[%b]" % events, type=list[msgspec.Raw])]
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError):
        return None
