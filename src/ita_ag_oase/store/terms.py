"""Terms: whose turn it is to write into the store. Each has a number, and the numbers only grow."""

import contextlib
import sqlite3
from pathlib import Path

import msgspec

from ita_ag_oase.errors import Reason, TermEnded
from ita_ag_oase.model import Claim, Term
from ita_ag_oase.store import columns
from ita_ag_oase.text import Text

Identity = tuple[int, int]

# Under this name the term stands once more, in case that the table is damaged: its number must not fall.
_COPY = "term"


def stored(connection: sqlite3.Connection) -> Term | None:
    """Return the latest term that was begun; None before the first."""
    row = connection.execute("SELECT number, holder, guard, begun FROM terms ORDER BY number DESC LIMIT 1").fetchone()
    return Term(*row) if row else None


def begin(connection: sqlite3.Connection, claim: Claim, now: int) -> Term:
    """Write a new term in the place of the one before, and return it.

    Without a number of its own it gets the next one. Raises TermEnded where its number is not greater than the stored
    one; but the same holder may begin its term once more.
    """
    before = stored(connection)
    if before and claim.number is not None and not is_open_to(claim, before):
        raise _passed_over(claim.number, before)
    number = claim.number if claim.number is not None else before.number + 1 if before else 1
    term = Term(number=number, holder=claim.holder, guard=claim.guard, begun=now)
    write(connection, term)
    return term


def is_open_to(claim: Claim, term: Term) -> bool:
    """Whether a claim with a number may follow the stored term."""
    is_same = (claim.number, claim.holder, claim.guard) == (term.number, term.holder, term.guard)
    return is_same or (claim.number is not None and claim.number > term.number)


def write(connection: sqlite3.Connection, term: Term) -> None:
    """Have this term alone stand in the store."""
    connection.execute("DELETE FROM terms")
    values = (term.number, term.holder, term.guard, term.begun)
    connection.execute("INSERT INTO terms (number, holder, guard, begun) VALUES (?, ?, ?, ?)", values)
    connection.execute("INSERT OR REPLACE INTO facts (name, value) VALUES (?, ?)", (_COPY, msgspec.json.encode(values)))


def copy_in(connection: sqlite3.Connection) -> Term | None:
    """Return the term as the facts tell it; None where they do not."""
    kept = connection.execute("SELECT value FROM facts WHERE name = ?", (_COPY,)).fetchone()
    with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
        row = msgspec.json.decode(kept[0] if kept else b"", type=tuple[int, str, str, int])
        if columns.fits("terms", row):
            return Term(*row)
    return None


class Fence:
    """Keeps out of a store who had a term there before the present one. `file` is the one that was opened."""

    def __init__(self, path: Path, term: Term, file: Identity | None) -> None:
        self._path = path
        self._number = term.number
        # With the lock alone nobody mends the file beside us.
        self._file = file if term.guard else None

    def check(self, connection: sqlite3.Connection) -> None:
        """Raise TermEnded where another term has begun, here or in a file that has come in the place of this one.

        To be called inside the transaction that writes.
        """
        row = connection.execute("SELECT max(number) FROM terms").fetchone()
        if row[0] != self._number:
            after = stored(connection)
            raise _passed_over(self._number, after) if after else lost(self._path)
        # By its name: to open and close the file would give SQLite's locks on it free (fcntl(2)).
        if self._file is not None and identity(self._path) != self._file:
            raise lost(self._path)


def identity(path: Path) -> Identity | None:
    """Return what tells a file from another one that comes in its place; None where there is none."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _passed_over(number: int, after: Term) -> TermEnded:
    return TermEnded(
        Text(
            "term {number} of this agent has ended: {holder} has begun term {later}, and nothing is written or posted "
            "by this one any more",
            number=number,
            holder=after.holder,
            later=after.number,
        ),
        reason=Reason.TERM_ENDED,
    )


def lost(path: Path) -> TermEnded:
    """Return what says that a file is another agent's business now."""
    return TermEnded(
        Text(
            "the term of this agent has ended, and {path} is for another one to write: nothing is written",
            path=path,
        ),
        reason=Reason.TERM_ENDED,
    )
