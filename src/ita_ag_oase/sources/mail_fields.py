"""What stands in a mail's fields, as text: words in other character sets, addresses, dates. Pure.

Python's own header parser breaks characters that were cut in two between words, and raises on some input (`From: a@`).
"""

import binascii
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.utils import mktime_tz, parsedate_tz

from ita_ag_oase.sources.charsets import TextDecoder
from ita_ag_oase.sources.mime import from_base64

# RFC 2047 section 2; a language may follow the character set (RFC 2231 section 5). Blanks inside are none, but written.
_WORD = re.compile(r"=\?([^?*\s]{1,60})(?:\*[^?\s]{0,60})?\?([bq])\?([^?]*+)\?=", re.IGNORECASE)
# What an address list is made of (RFC 5322 section 3.4): a comma within a word, quotes or brackets ends nothing.
_TOKEN = re.compile(
    r'=\?[^?\s]{1,121}\?[bqBQ]\?[^?]*+\?=|"(?:[^"\\]|\\.)*+"?+|<[^>]*+>?+|\[[^\]]*+\]?+|[^"<\[(,:;=]++|.', re.DOTALL
)
_COMMENT_MARK = re.compile(r"\\.|[()]", re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
# Some thousand words or addresses; a megabyte of them takes seconds.
MAX_FIELD_CHARACTERS = 262_144
_DATE_CHARACTERS = 200
# The years 1 to 9999: Exastro cannot store more digits than 64 bits hold, and would refuse other events with this one.
_FIRST_SECOND, _LAST_SECOND = -62_135_596_800, 253_402_300_799
# The only zone by name that old Japanese systems write, and that RFC 5322 does not know.
_JAPAN = re.compile(r"(?<!\()\bJST\b")


def decode_words(text: str, decoder: TextDecoder) -> str:
    """Return text with its encoded words decoded (RFC 2047), but not beyond MAX_FIELD_CHARACTERS.

    Neighbours of one character set are decoded together, since mailers cut characters in two. White space between
    words is none.
    """
    pieces: list[str] = []
    run: list[bytes] = []
    charset, end = "", 0
    for word in _WORD.finditer(text, 0, MAX_FIELD_CHARACTERS):
        gap = text[end : word.start()]
        is_apart = not end or bool(gap.strip())
        if is_apart or word[1].lower() != charset:
            pieces += [decoder.decode(b"".join(run), charset), gap if is_apart else ""]
            charset, run = word[1].lower(), []
        run.append(_word_bytes(word[2].lower(), word[3]))
        end = word.end()
    return "".join([*pieces, decoder.decode(b"".join(run), charset), text[end:]])


def _word_bytes(encoding: str, encoded: str) -> bytes:
    # Characters beyond ASCII do not belong here; they are kept as what they most likely were.
    raw = encoded.encode()
    return from_base64(raw) if encoding == "b" else binascii.a2b_qp(raw, header=True)


def decode_addresses(text: str, decoder: TextDecoder) -> str:
    """Return an address list as `"Name"<box@host>` or `box@host`, joined by commas.

    A name in a comment counts as one. Of a group the members are left, or its name where it has none. What is no
    address stays as it is written, and so does what follows the first MAX_FIELD_CHARACTERS.
    """
    read, rest = text[:MAX_FIELD_CHARACTERS], text[MAX_FIELD_CHARACTERS:]
    return ",".join(address.text(decoder) for address in _addresses(read) if not address.is_empty) + rest


@dataclass(slots=True)
class _Address:
    """One address of a list, as far as it was read."""

    group: str = ""
    words: list[str] = field(default_factory=list)
    box: str | None = None
    comment: str = ""

    @property
    def is_empty(self) -> bool:
        return not (self.group or self.box is not None or self.comment or "".join(self.words).strip())

    def text(self, decoder: TextDecoder) -> str:
        comment = decode_words(self.comment, decoder).strip()
        if self.box is None:
            written = decode_words("".join(self.words), decoder).strip() or self.group
            return f'"{comment}"<{written}>' if comment and written else written or comment
        name = decode_words("".join(map(_unquoted, self.words)), decoder).strip() or comment
        return f'"{name}"<{self.box}>' if name else self.box or "<>"


def _addresses(text: str) -> Iterator[_Address]:
    address = _Address()
    for token in _tokens(text):
        match token[0]:
            case "," | ";":
                yield address
                address = _Address()
            case ":" if address.box is None:
                address = _Address(group=f"{''.join(address.words).strip()}:;")
            case "<" if address.box is None:
                address.group, address.box = "", _box(token)
            case "(":
                address.comment = address.comment or _ESCAPED.sub(r"\1", token[1:].removesuffix(")"))
            case _:
                address.words.append(token)
    yield address


def _tokens(text: str) -> Iterator[str]:
    at = 0
    while token := _TOKEN.match(text, at):
        end = _comment_end(text, at) if token[0] == "(" else token.end()
        yield text[at:end]
        at = end


def _comment_end(text: str, start: int) -> int:
    depth = 0
    for mark in _COMMENT_MARK.finditer(text, start):
        depth += {"(": 1, ")": -1}.get(mark[0], 0)
        if depth == 0:
            return mark.end()
    return len(text)


def _unquoted(word: str) -> str:
    if not word.startswith('"'):
        return word
    return _ESCAPED.sub(r"\1", word[1:].removesuffix('"'))


def _box(written: str) -> str:
    """Return what stands in angle brackets, without a route before it (RFC 5322 section 4.4)."""
    box = "".join(written[1:].removesuffix(">").split())
    return box.partition(":")[2] if box.startswith("@") else box


def read_date(text: str) -> int | None:
    """Return the seconds since the epoch that a date stands for (RFC 5322 section 3.3); None for what is none.

    A date without a zone, or with an unknown one, is in UTC.
    """
    try:
        parsed = parsedate_tz(_JAPAN.sub("+0900", text[:_DATE_CHARACTERS]))
        seconds = None if parsed is None else mktime_tz(parsed)
    except (ValueError, TypeError, IndexError, OverflowError):
        # The month after the year, 31 February, a zone of a thousand digits.
        return None
    return seconds if seconds is not None and _FIRST_SECOND <= seconds <= _LAST_SECOND else None
