"""JSON text as bytes: read as little of it as the rules need, and leave the rest as it arrived."""

import codecs
import json
import math
import re
from typing import Any

import jmespath
import msgspec
from jmespath.exceptions import JMESPathError
from typing_extensions import Buffer

from ita_ag_oase.errors import Reason, SettingInvalid, SourceUnreadable

_PLAIN_KEYS = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")
_CHUNK_BYTES = 65_536
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_elements = msgspec.json.Decoder(list[msgspec.Raw])
_whole = msgspec.json.Decoder(msgspec.Raw)


def normalize(body: bytes | bytearray, charset: str | None = None) -> Buffer:
    """Return the JSON value in `body` as valid JSON in UTF-8 (RFC 8259), without white space around it.

    What many sources write although JSON does not allow it is taken as meant: other character sets (the byte order mark
    or `charset` tells which), NaN and infinite numbers (as their names), control characters in strings, lone surrogates
    (U+FFFD). Raises SourceUnreadable for what is no JSON at all.
    """
    try:
        if body.isascii() or _is_utf8(body):
            return _whole.decode(body.removeprefix(codecs.BOM_UTF8) if body[:1] == b"\xef" else body)
    except (msgspec.DecodeError, RecursionError):
        pass
    return _repaired(_decoded(body, charset))


def elements(array: Buffer) -> list[msgspec.Raw]:
    """Return the elements of a JSON array as slices of its text."""
    return _elements.decode(array)


def decode(text: Buffer) -> Any:
    """Return a JSON value as Python objects."""
    try:
        return msgspec.json.decode(text)
    except msgspec.ValidationError:
        # A number beyond the range of a double.
        return json.loads(bytes(text))


def encode(value: Any) -> bytes:
    """Return Python objects as JSON text."""
    return msgspec.json.encode(value)


class Expression:
    """A JMESPath, compiled once; plain keys (`a.b`) are followed without decoding what they pass by.

    Raises SettingInvalid for what is no JMESPath, naming the column.
    """

    def __init__(self, text: str, *, column: str) -> None:
        self._is_identity = text.strip() == "@"
        self._keys = text.split(".") if _PLAIN_KEYS.fullmatch(text) else None
        try:
            self._compiled = jmespath.compile(text)
        except JMESPathError as err:
            raise SettingInvalid(
                f"{column} {text!r} is no JMESPath ({str(err).splitlines()[0]}): write one such as data.items",
                reason=Reason.EXPRESSION,
            ) from err

    def find(self, text: Buffer) -> Buffer | None:
        """Return the JSON of the value in `text`, or None where there is nothing or null (but `@` finds a null answer).

        Raises SourceUnreadable where a function of the expression cannot take the value it gets.
        """
        if self._is_identity:
            return text
        if self._keys is None:
            value = self._evaluate(decode(text))
            return None if value is None else encode(value)
        for key in self._keys:
            member = _members.decode(text).get(key) if first_byte(text) == b"{" else None
            if member is None:
                return None
            text = member
        return None if first_byte(text) == b"n" else text

    def value(self, text: Buffer) -> Any:
        """Return the decoded value in the JSON `text`, or None. Raises as `find` does."""
        if self._keys is None:
            return self._evaluate(decode(text))
        found = self.find(text)
        return None if found is None else decode(found)

    def _evaluate(self, value: Any) -> Any:
        try:
            return self._compiled.search(value)
        except JMESPathError as err:
            raise SourceUnreadable(
                f"the expression cannot be applied to the answer ({str(err).splitlines()[0]})", reason=Reason.EXPRESSION
            ) from err


def first_byte(text: Buffer) -> bytes:
    """Return the first byte of JSON text, which tells the kind of its value."""
    return bytes(memoryview(text)[:1])


def is_empty_object(text: Buffer) -> bool:
    """Whether the JSON object has no members."""
    return not bytes(text)[1:-1].strip()


def _is_utf8(body: bytes | bytearray) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")()
    view = memoryview(body)
    try:
        for start in range(0, len(view), _CHUNK_BYTES):
            decoder.decode(view[start : start + _CHUNK_BYTES])
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


def _decoded(body: bytes | bytearray, charset: str | None) -> str:
    if body.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return body.decode("utf-16", "replace")
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError:
        pass
    try:
        return body.decode(charset or "utf-8", "replace")
    except LookupError:
        return body.decode("utf-8", "replace")


def _repaired(text: str) -> bytes:
    try:
        value = json.loads(text, strict=False, parse_constant=str, parse_float=_finite)
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    except (ValueError, RecursionError) as err:
        raise SourceUnreadable(f"the answer is no JSON ({str(err)[:100]})", reason=Reason.NOT_JSON) from err
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").encode()


def _finite(text: str) -> float | str:
    number = float(text)
    return number if math.isfinite(number) else text
