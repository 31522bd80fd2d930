"""Where a command tells a person something: in the person's language, without secrets, with colours on a terminal."""

import itertools
import sys
from collections.abc import Sequence
from datetime import tzinfo
from enum import Enum
from typing import Any, TextIO

import msgspec

from ita_ag_oase.commands.tables import pairs, printable, table
from ita_ag_oase.observability.logs import Redactor
from ita_ag_oase.text import Told, Translations


class Colour(Enum):
    """What a colour means; the value is the terminal's code for it (ECMA-48, SGR)."""

    GOOD = "32"
    BAD = "31"
    DOUBTFUL = "33"
    FAINT = "2"


class Console:
    """The two streams of a command. Without `has_colours`, they are those of a terminal only.

    `zone` is that of the times it tells: the system's (None), until the configuration is known.
    """

    def __init__(
        self,
        translations: Translations,
        redactor: Redactor,
        *,
        out: TextIO | None = None,
        err: TextIO | None = None,
        has_colours: bool | None = None,
    ) -> None:
        self.translations = translations
        self.redactor = redactor
        self.zone: tzinfo | None = None
        self._out = out
        self._err = err
        self._has_colours = has_colours

    @property
    def out(self) -> TextIO:
        """The stream of what was asked for."""
        return self._out or sys.stdout

    @property
    def err(self) -> TextIO:
        """The stream of what went wrong."""
        return self._err or sys.stderr

    def told(self, what: Told | str) -> str:
        """Return a text in the person's language, or others' words as they are, without secrets."""
        text = what.told(self.translations) if isinstance(what, Told) else what
        return self.redactor.redact(text)

    def say(self, what: Told | str = "", *, colour: Colour | None = None) -> None:
        """Print lines on stdout."""
        print(self.painted(self._lines(what), colour), file=self.out)

    def say_behind(self, mark: str, what: Told | str) -> None:
        """Print lines on stdout behind a mark, which may be painted."""
        print(f"{mark}{self._lines(what)}", file=self.out)

    def warn(self, what: Told | str) -> None:
        """Print lines on stderr."""
        print(self._lines(what), file=self.err)

    def table(
        self,
        headings: Sequence[Told | str],
        rows: Sequence[Sequence[Told | str | int]],
        colours: Sequence[Colour | None] = (),
    ) -> None:
        """Print an aligned table, its rows in these colours."""
        cells = [[cell if isinstance(cell, int) else self.told(cell) for cell in row] for row in rows]
        lines = table([self.told(heading) for heading in headings], cells).split("\n")
        for line, colour in itertools.zip_longest(lines, (None, *colours)):
            print(self.painted(line, colour), file=self.out)

    def pairs(self, facts: Sequence[tuple[Told | str, Told | str]]) -> None:
        """Print facts under each other, each behind its name."""
        print(pairs([(self.told(name), self.told(fact)) for name, fact in facts]), file=self.out)

    def json(self, value: Any) -> None:
        """Print a value as JSON on one line."""
        print(msgspec.json.encode(self.redactor.redact_value(value)).decode(), file=self.out)

    def painted(self, text: str, colour: Colour | None) -> str:
        """Return text in a colour where the stream shows colours."""
        if colour is None or not self._shows_colours():
            return text
        return f"\x1b[{colour.value}m{text}\x1b[0m"

    def _shows_colours(self) -> bool:
        return self.out.isatty() if self._has_colours is None else self._has_colours

    def _lines(self, what: Told | str) -> str:
        return "\n".join(printable(line) for line in self.told(what).split("\n"))
