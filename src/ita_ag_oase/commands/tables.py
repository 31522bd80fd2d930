"""Plain text for people: aligned tables, and times."""

import unicodedata
from collections.abc import Sequence
from datetime import tzinfo

from ita_ag_oase import clock


def table(headings: Sequence[str], rows: Sequence[Sequence[str | int]]) -> str:
    """Return aligned lines without one at the end: text to the left, numbers to the right, missing or not."""
    cells = [[printable(str(cell)) for cell in row] for row in rows]
    widths = [max(map(_width, column)) for column in zip(headings, *cells, strict=True)]
    right = [_is_of_numbers([row[place] for row in rows]) for place in range(len(headings))]
    lines = [
        "  ".join(
            _padded(cell, width, to_right=to_right) for cell, width, to_right in zip(line, widths, right, strict=True)
        )
        for line in (headings, *cells)
    ]
    return "\n".join(line.rstrip() for line in lines)


def _is_of_numbers(column: Sequence[str | int]) -> bool:
    present = [cell for cell in column if cell != ""]
    return bool(present) and all(isinstance(cell, int) for cell in present)


def pairs(facts: Sequence[tuple[str, str]]) -> str:
    """Return names and what they stand for as aligned lines without one at the end."""
    width = max((_width(name) for name, _ in facts), default=0)
    return "\n".join(f"{_padded(name, width, to_right=False)}  {printable(told)}" for name, told in facts)


def to_width(text: str, width: int) -> str:
    """Return text with blanks behind it, so that it takes this many columns at least."""
    return _padded(text, width, to_right=False)


def moment(seconds: int, zone: tzinfo | None) -> str:
    """Return a time as clocks in a zone tell it (None: the system's); one that is in no calendar as it is."""
    try:
        return f"{clock.local(seconds, zone):%Y-%m-%d %H:%M:%S}"
    except (ValueError, OverflowError, OSError):
        # Of a damaged file, or of a stock agent's store.
        return str(seconds)


def printable(text: str) -> str:
    """Return text that stays on its line and does nothing to a terminal."""
    return "".join(character if _is_harmless(character) else "\ufffd" for character in text)


def _is_harmless(character: str) -> bool:
    # Python takes every space but the ASCII one for unprintable, also the wide one of Japanese names.
    return character.isprintable() or unicodedata.category(character) == "Zs"


def _width(text: str) -> int:
    """Return how many columns of a terminal a text takes: East Asian characters take two, marks on others none."""
    return sum(map(_character_width, text))


def _character_width(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _padded(text: str, width: int, *, to_right: bool) -> str:
    padding = " " * (width - _width(text))
    return padding + text if to_right else text + padding
