"""Which ids the latest answer of each setting listed: most answers list the same ones again."""

import sqlite3
from collections.abc import Sequence
from hashlib import blake2b
from typing import NamedTuple

import msgspec

_DIGEST_BYTES = 16


class Listed(NamedTuple):
    """A list of ids by its digest, the earliest time at which one of them was noted as seen, and the ids' version."""

    digest: bytes
    last_seen: int
    version: tuple[int, int]


class Lists:
    """What is known of each setting's latest answer: which ids it listed, in which order, and that all are remembered.

    An answer that lists the same, which is what most sources do most of the time, needs no further look.
    """

    def __init__(self) -> None:
        self._noted: dict[str, Listed] = {}
        self._changes = 0

    def note(self, setting_id: str, listed: Listed | None) -> None:
        """Note what an answer listed; to be called once that was committed. None where nothing is known of it."""
        if listed is None:
            self._noted.pop(setting_id, None)
        else:
            self._noted[setting_id] = listed

    def invalidate(self) -> None:
        """Forget all, since remembered ids are changed in another way than by `save`; in the thread that does it."""
        self._changes += 1

    def version(self, connection: sqlite3.Connection) -> tuple[int, int]:
        """Return what changes when ids do in another way than by `save`, also through another connection."""
        (changes_of_others,) = connection.execute("PRAGMA data_version").fetchone()
        return self._changes, changes_of_others

    def find(self, setting_id: str) -> Listed | None:
        """Return what is noted of a setting, whatever its version."""
        return self._noted.get(setting_id)


def digest_of_list(ids: Sequence[str]) -> bytes:
    """Return the 16 bytes by which a list of ids, in its order, is known again."""
    return blake2b(msgspec.json.encode(ids), digest_size=_DIGEST_BYTES).digest()
