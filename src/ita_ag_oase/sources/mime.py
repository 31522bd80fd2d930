"""The parts of a mail and the fields of their headers, as bytes (RFC 5322, RFC 2045, RFC 2046). Pure.

Nothing here raises, takes more than linear time or nests calls, whatever the bytes are. Python's own parser does all
three: it calls itself for every level, and holds every line against every open boundary.
"""

import binascii
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

# Each level is searched once more for its boundaries.
MAX_DEPTH = 20
MAX_PARTS = 10_000

_FIELDS = (
    b"bcc cc content-disposition content-transfer-encoding content-type date delivered-to from in-reply-to message-id "
    b"received reply-to return-path sender subject to"
)
_NAME = rb"[!-9;-~]++[ \t]*+:"
_IS_FIELD = re.compile(_NAME)
# A field goes on until the next one begins: folded lines need not be indented to be understood.
_FIELD = re.compile(
    rb"^(%b)[ \t]*+:([^\n]*+(?:\n(?!%b)[^\n]*+)*+)" % (_FIELDS.replace(b" ", b"|"), _NAME), re.MULTILINE | re.IGNORECASE
)
_STRAY_LINE = re.compile(rb"^(?!%b|[ \t])" % _NAME, re.MULTILINE)
_EMPTY_LINE = re.compile(rb"^\r?\n", re.MULTILINE)
_MAILBOX_LINE = re.compile(rb">?From [^\n]*\n")
_LINE_BREAKS = re.compile(rb"[\r\n]+")
_PARAMETER = re.compile(rb';\s*+([^=;\s*]++)(\*\d{1,3}+)?+(\*)?+\s*+=\s*+("(?:[^"\\]|\\.)*+"?+|[^;]*+)', re.DOTALL)
_ESCAPED = re.compile(rb'\\(["\\])')
_MEDIA_TYPE = re.compile(r"[^\s/]+/[^\s/]+")
_NOT_BASE64 = bytes(set(range(256)) - set(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/="))
_UU_BEGIN = re.compile(rb"^begin [0-7]{3,4} [^\n]*\n", re.MULTILINE)

Fields = Mapping[str, tuple[bytes, ...]]


class Parameter(NamedTuple):
    """A parameter's value, and the character set it came with (RFC 2231), if any."""

    value: bytes
    charset: str | None = None


@dataclass(frozen=True, slots=True)
class Value:
    """A value with parameters, as Content-Type has: `text` is in lower case, as are the names of parameters."""

    text: str
    parameters: Mapping[str, Parameter]

    def parameter(self, name: str) -> Parameter:
        """Return a parameter, an empty one where there is none of the name."""
        return self.parameters.get(name, Parameter(b""))


@dataclass(frozen=True, slots=True)
class Span:
    """Where something lies in a mail's bytes."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Part:
    """A mail or a part of one: its header, and where its body lies. `depth` is 0 for the whole mail.

    `content_type` is the default (RFC 2045 section 5.2) where the field is missing or holds none.
    """

    fields: Fields
    content_type: Value
    disposition: Value
    body: Span
    depth: int

    @property
    def charset(self) -> str | None:
        """The name of the character set, as it was written."""
        words = self.content_type.parameter("charset").value.split()
        return words[0].decode("ascii", "replace") if words else None


def first(fields: Fields, name: str) -> bytes:
    """Return the first value of a field that is not empty, unfolded; empty where there is none."""
    return next((value for value in fields.get(name, ()) if value), b"")


def read_part(raw: bytes, span: Span, *, default_type: str = "text/plain", depth: int = 0) -> Part:
    """Return what lies in the span as a header and a body; without a header, all is body."""
    header, body = _separated(raw, span)
    mailbox_line = _MAILBOX_LINE.match(raw, header.start, header.end)
    begin = mailbox_line.end() if mailbox_line else header.start
    if begin < header.end and not _IS_FIELD.match(raw, begin, header.end):
        begin, body = header.end, span
    fields = _fields(raw, Span(begin, header.end))
    content_type = _value(first(fields, "content-type"))
    if not _MEDIA_TYPE.fullmatch(content_type.text):
        content_type = Value(default_type, content_type.parameters)
    return Part(fields, content_type, _value(first(fields, "content-disposition")), body, depth)


def _separated(raw: bytes, span: Span) -> tuple[Span, Span]:
    """Return where the header lies and where the body: behind an empty line, else from the first line of no field."""
    empty_line = _EMPTY_LINE.search(raw, span.start, span.end)
    if empty_line is not None:
        return Span(span.start, empty_line.start()), Span(empty_line.end(), span.end)
    stray = _STRAY_LINE.search(raw, span.start, span.end)
    end = stray.start() if stray is not None else span.end
    return Span(span.start, end), Span(end, span.end)


def leaves(raw: bytes, whole: Part) -> Iterator[Part]:
    """Return the parts that hold no parts, in order: at most MAX_PARTS, from at most MAX_DEPTH levels.

    A multipart that is nested deeper, or in which its boundary never comes, is a leaf as it stands. So is an attached
    mail.
    """
    levels = [iter([whole])]
    found = 0
    while levels and found < MAX_PARTS:
        part = next(levels[-1], None)
        if part is None:
            levels.pop()
            continue
        inner = _parts(raw, part)
        head = next(inner, None)
        if head is None:
            found += 1
            yield part
        else:
            levels += [inner, iter([head])]


def transfer_decoded(raw: bytes, part: Part) -> bytes:
    """Return the bytes of a part's body without their Content-Transfer-Encoding; what is not encoded stays."""
    body = raw[part.body.start : part.body.end]
    words = first(part.fields, "content-transfer-encoding").lower().split()
    match words[0].rstrip(b";") if words else b"":
        case b"base64":
            return from_base64(body)
        case b"quoted-printable":
            return binascii.a2b_qp(body)
        case b"x-uuencode" | b"uuencode" | b"x-uue" | b"uue":
            return _from_uuencode(body)
        case _:
            return body


def from_base64(text: bytes) -> bytes:
    """Return the bytes that base64 stands for, up to its first padding; what does not belong to it is passed over."""
    symbols = text.translate(None, _NOT_BASE64).partition(b"=")[0]
    # One symbol alone does not make a byte.
    whole = symbols[:-1] if len(symbols) % 4 == 1 else symbols
    return binascii.a2b_base64(whole + b"=" * (-len(whole) % 4))


def _from_uuencode(text: bytes) -> bytes:
    begin = _UU_BEGIN.search(text)
    if begin is None:
        return text
    decoded = []
    for line in text[begin.end() :].splitlines():
        if line.strip() == b"end":
            break
        decoded.append(_uu_line(line))
    return b"".join(decoded)


def _uu_line(line: bytes) -> bytes:
    if not line:
        return b""
    size = (line[0] - 32) & 63
    # Some encoders append characters, others leave out blanks at the end.
    needed = 1 + (size + 2) // 3 * 4
    try:
        return binascii.a2b_uu(line[:needed])
    except binascii.Error:
        return line


def _fields(raw: bytes, header: Span) -> Fields:
    found: dict[str, list[bytes]] = {}
    for match in _FIELD.finditer(raw, header.start, header.end):
        found.setdefault(match[1].lower().decode(), []).append(_unfolded(match[2]))
    return {name: tuple(values) for name, values in found.items()}


def _unfolded(value: bytes) -> bytes:
    """Return the lines of a value as one, with a single blank for each break and the white space around it."""
    lines = (line.strip(b" \t") for line in _LINE_BREAKS.split(value))
    return b" ".join(line for line in lines if line)


def _parts(raw: bytes, part: Part) -> Iterator[Part]:
    kind, boundary = part.content_type.text, part.content_type.parameter("boundary").value
    if not kind.startswith("multipart/") or not boundary or part.depth >= MAX_DEPTH:
        return
    default_type = "message/rfc822" if kind == "multipart/digest" else "text/plain"
    for span in _divided(raw, part.body, b"--" + boundary):
        yield read_part(raw, span, default_type=default_type, depth=part.depth + 1)


def _divided(raw: bytes, body: Span, delimiter: bytes) -> Iterator[Span]:
    """Return what lies between lines that are the delimiter, without the line break before each (RFC 2046 5.1.1)."""
    start = None
    at = raw.find(delimiter, body.start, body.end)
    while at >= 0:
        line_end = raw.find(b"\n", at, body.end)
        next_line = line_end + 1 if line_end >= 0 else body.end
        if at == body.start or raw[at - 1] == ord("\n"):
            rest = raw[at + len(delimiter) : next_line].strip()
            if rest in (b"", b"--"):
                if start is not None:
                    yield Span(start, _before_line_break(raw, start, at))
                if rest:
                    return
                start = next_line
        # Nothing further in this line can be one: looking at each would take quadratic time.
        at = raw.find(delimiter, next_line, body.end)
    if start is not None:
        yield Span(start, body.end)


def _before_line_break(raw: bytes, start: int, at: int) -> int:
    end = at - 1 if at > start and raw[at - 1 : at] == b"\n" else at
    return end - 1 if end > start and raw[end - 1 : end] == b"\r" else end


def _value(raw: bytes) -> Value:
    text = raw.partition(b";")[0].strip().lower().decode("ascii", "replace")
    plain: dict[str, Parameter] = {}
    pieces: dict[str, dict[int, bytes]] = {}
    for name, number, is_extended, written in _PARAMETER.findall(raw):
        key, value = name.lower().decode("ascii", "replace"), _unquoted(written)
        if number or is_extended:
            # Only an extended piece is percent-encoded; "%" in the others is made to survive the decoding of all.
            piece = value if is_extended else value.replace(b"%", b"%25")
            pieces.setdefault(key, {})[int(number[1:] or 0)] = piece
        else:
            plain.setdefault(key, Parameter(value))
    return Value(text, plain | {name: _joined(numbered) for name, numbered in pieces.items()})


def _unquoted(written: bytes) -> bytes:
    if not written.startswith(b'"'):
        return written.strip()
    return _ESCAPED.sub(rb"\1", written[1:].removesuffix(b'"'))


def _joined(pieces: Mapping[int, bytes]) -> Parameter:
    """Return the pieces of a parameter as one (RFC 2231 sections 3 and 4)."""
    whole = b"".join(pieces[number] for number in sorted(pieces))
    charset, quote, rest = whole.partition(b"'")
    _, second_quote, value = rest.partition(b"'")
    if not quote or not second_quote:
        return Parameter(unquote_to_bytes(whole))
    return Parameter(unquote_to_bytes(value), charset.decode("ascii", "replace"))
