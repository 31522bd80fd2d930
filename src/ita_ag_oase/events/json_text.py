"""JSON text as bytes: read as little of it as the rules need, and leave the rest as it arrived."""

import codecs
import json
import math
import re
from typing import Any

import jmespath
import msgspec
from jmespath.exceptions import JMESPathError, JMESPathTypeError
from typing_extensions import Buffer

from ita_ag_oase.errors import Reason, SettingInvalid, SourceUnreadable
from ita_ag_oase.text import Text

_PLAIN_KEYS = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")
_CHUNK_BYTES = 65_536
_elements = msgspec.json.Decoder(list[msgspec.Raw])
_whole = msgspec.json.Decoder(msgspec.Raw)


def normalize(body: bytes | bytearray, charset: str | None = None) -> Buffer:
    """Return the JSON value in `body` as valid JSON in UTF-8 (RFC 8259), without white space around it.

    What many sources write although JSON does not allow it is taken as meant: other character sets (the byte order
    mark, the zeros in UTF-16 and UTF-32, or `charset` tells which), NaN and infinite numbers (as their names), control
    characters in strings, lone surrogates (U+FFFD). Raises SourceUnreadable for what is no JSON at all.
    """
    try:
        if body.isascii() or _is_utf8(body):
            return _whole.decode(body.removeprefix(codecs.BOM_UTF8) if body[:1] == b"\xef" else body)
    except (msgspec.DecodeError, RecursionError):
        pass
    return _repaired(decoded(body, charset))


def decoded(body: bytes | bytearray, charset: str | None) -> str:
    """Return an answer as text; what is no text in its character set becomes U+FFFD."""
    wide = json.detect_encoding(bytes(body[:4]))
    if not wide.startswith("utf-8"):
        return body.decode(wide, "replace")
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError:
        pass
    try:
        return body.decode(charset or "utf-8", "replace")
    except (LookupError, ValueError):
        return body.decode("utf-8", "replace")


def elements(array: Buffer) -> list[msgspec.Raw]:
    """Return the elements of a JSON array as slices of its text."""
    return _elements.decode(array)


def decode(text: Buffer) -> Any:
    """Return a JSON value as Python objects. Raises SourceUnreadable for a number of more than 4,300 digits."""
    try:
        return msgspec.json.decode(text)
    except msgspec.ValidationError:
        # A number beyond the range of a double, or of very many digits.
        pass
    try:
        return json.loads(bytes(text), parse_float=_finite)
    except ValueError as err:
        raise SourceUnreadable(
            Text("the answer holds a number that is too long ({error})", error=str(err)[:50]), reason=Reason.NOT_JSON
        ) from err


def encode(value: Any) -> bytes:
    """Return Python objects as JSON text."""
    return msgspec.json.encode(value)


class Expression:
    """A JMESPath, compiled once; plain keys (`a.b`) are followed without decoding what they pass by.

    Raises SettingInvalid for what is no JMESPath, naming the column.
    """

    def __init__(self, text: str, *, column: str) -> None:
        self._column = column
        self._is_identity = text.strip() == "@"
        try:
            self._compiled = jmespath.compile(text)
            self._plain = _PlainKeys(text.split(".")) if _PLAIN_KEYS.fullmatch(text) else None
        except (JMESPathError, RecursionError) as err:
            raise SettingInvalid(
                Text(
                    "{column} {given!r} is no JMESPath ({error}): write one such as data.items",
                    column=column,
                    given=text[:200],
                    error=_first_line(err),
                ),
                reason=Reason.EXPRESSION,
            ) from err

    def find(self, text: Buffer) -> Buffer | None:
        """Return the JSON of the value in `text`, or None where there is nothing or null (but `@` finds a null answer).

        Raises SourceUnreadable where a function of the expression cannot take the value it gets.
        """
        if self._is_identity:
            return text
        if self._plain is not None:
            try:
                found = self._plain.slice_of(text)
            except msgspec.ValidationError:
                return None
            return None if found is None or first_byte(found) == b"n" else found
        value = self._evaluate(decode(text))
        try:
            return None if value is None else encode(value)
        except (TypeError, ValueError) as err:
            raise self._inapplicable(err) from err

    def value(self, text: Buffer) -> Any:
        """Return the decoded value in the JSON `text`, or None, also where a function cannot take what it gets.

        Raises SourceUnreadable where the expression can be applied to nothing, an unknown function in it say.
        """
        if self._plain is not None:
            try:
                return self._plain.value_of(text)
            except msgspec.ValidationError:
                # Some step is no object, or a number is beyond what a double holds.
                pass
        try:
            return self._evaluate(decode(text))
        except SourceUnreadable as err:
            if isinstance(err.__cause__, JMESPathTypeError):
                return None
            raise

    def values(self, array: Buffer) -> list[Any] | None:
        """Return what `value` does for each element of a JSON array, where that can be told at once; None otherwise.

        It can be for plain keys and elements that are objects in which those can be followed.
        """
        if self._plain is None:
            return None
        try:
            return self._plain.values_of(array)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None

    def _evaluate(self, value: Any) -> Any:
        try:
            return self._compiled.search(value)
        # Some functions fail with what Python raises: contains('text', `1`), ceil of an infinite number.
        except (JMESPathError, ArithmeticError, TypeError, ValueError, RecursionError) as err:
            raise self._inapplicable(err) from err

    def _inapplicable(self, err: Exception) -> SourceUnreadable:
        return SourceUnreadable(
            Text("{column} cannot be applied to the answer ({error})", column=self._column, error=_complaint(err)),
            reason=Reason.EXPRESSION,
        )


class _PlainKeys:
    """Follows keys through objects, skipping all else without decoding it.

    Both methods return None where a key is missing, and raise msgspec.ValidationError where a step is no object.
    """

    def __init__(self, keys: list[str]) -> None:
        self._slices = msgspec.json.Decoder(_steps(keys, msgspec.Raw, msgspec.Raw(b"null")) | None)
        step: Any = _steps(keys, Any, None)
        self._values = msgspec.json.Decoder(step | None)
        self._lists: msgspec.json.Decoder[list[Any]] = msgspec.json.Decoder(list[step])
        self._further = range(len(keys) - 1)

    def slice_of(self, text: Buffer) -> msgspec.Raw | None:
        """Return the slice of `text` that is the value."""
        found: msgspec.Raw | None = self._last(self._slices.decode(text))
        return found

    def value_of(self, text: Buffer) -> Any:
        """Return the decoded value."""
        return self._last(self._values.decode(text))

    def values_of(self, array: Buffer) -> list[Any]:
        """Return the decoded value of each element of a JSON array, each of which must be an object."""
        return [self._last(step) for step in self._lists.decode(array)]

    def _last(self, step: Any) -> Any:
        for _ in self._further:
            if step is None:
                return None
            step = step.member
        return None if step is None else step.member


def _steps(keys: list[str], last: Any, missing: Any) -> Any:
    """Return the type of an object in which the keys lead to a value of the last type."""
    kind, default = last, missing
    for key in reversed(keys[1:]):
        kind = msgspec.defstruct("Step", [("member", kind, default)], rename={"member": key}, gc=False) | None
        default = None
    return msgspec.defstruct("Step", [("member", kind, default)], rename={"member": keys[0]}, gc=False)


def _first_line(err: Exception) -> str:
    # The further lines of some errors draw the whole expression.
    return (str(err).splitlines() or [err.__class__.__name__])[0][:200]


def _complaint(err: Exception) -> str:
    """Return what is wrong with an expression, without the value in the answer that some errors quote."""
    if not isinstance(err, JMESPathTypeError):
        return _first_line(err)
    expected = ", ".join(map(str, err.expected_types))
    return f"{err.function_name}() takes {expected}, not {err.actual_type}"


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


def _repaired(text: str) -> bytes:
    try:
        value = json.loads(text, strict=False, parse_constant=str, parse_float=_finite)
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    except (ValueError, RecursionError) as err:
        raise SourceUnreadable(
            Text("the answer is no JSON ({error})", error=str(err)[:100]), reason=Reason.NOT_JSON
        ) from err
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").encode()


def _finite(text: str) -> float | str:
    number = float(text)
    return number if math.isfinite(number) else text
