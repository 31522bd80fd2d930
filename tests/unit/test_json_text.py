"""JSON text as bytes: what sources write is taken as meant, and keys find what JMESPath finds."""

import codecs
import json
import math
from typing import Any

import jmespath
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ita_ag_oase.errors import Reason, SettingInvalid, SourceUnreadable
from ita_ag_oase.events import json_text
from ita_ag_oase.events.json_text import Expression, normalize

# A machine with other work is no reason to fail.
UNTIMED = settings(deadline=None)

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"))
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("abc_") | st.text(), inner, max_size=4),
    max_leaves=12,
)


def _value(text: Any) -> Any:
    return json.loads(bytes(text))


class TestNormalize:
    """Any text that is meant as JSON becomes valid JSON in UTF-8."""

    @UNTIMED
    @given(value=VALUES, indent=st.none() | st.integers(0, 2), ascii_only=st.booleans(), around=st.text(" \t\r\n"))
    def test_valid_json_keeps_its_meaning(self, value: Any, indent: int | None, ascii_only: bool, around: str) -> None:
        text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
        for coding in ("utf-8", "utf-8-sig", "utf-16", "utf-32"):
            found = normalize((around + text + around).encode(coding))
            assert _value(found) == value

    @UNTIMED
    @given(value=VALUES, indent=st.none() | st.integers(0, 2))
    def test_valid_json_in_utf8_is_left_as_it_stands(self, value: Any, indent: int | None) -> None:
        text = json.dumps(value, indent=indent, ensure_ascii=False).encode()
        assert bytes(normalize(b"\n " + text + b"\r\n")) == text
        assert bytes(normalize(bytearray(text))) == text

    @UNTIMED
    @given(body=st.binary() | st.text().map(str.encode), charset=st.none() | st.text())
    def test_whatever_comes_is_json_or_unreadable(self, body: bytes, charset: str | None) -> None:
        try:
            found = normalize(body, charset)
        except SourceUnreadable:
            return
        # Strict: UTF-8, no NaN, no control characters.
        json.loads(bytes(found).decode("utf-8"), parse_constant=pytest.fail)

    @pytest.mark.parametrize(
        ("body", "charset", "value"),
        [
            pytest.param(codecs.BOM_UTF8 + b'{"a":1}', None, {"a": 1}, id="BOM"),
            pytest.param(codecs.BOM_UTF8 + b" [1]", None, [1], id="BOM and blank"),
            pytest.param('"é監"'.encode(), "iso-8859-1", "é監", id="UTF-8 whatever the header says"),
            pytest.param('{"a":"é監"}'.encode("utf-16"), None, {"a": "é監"}, id="UTF-16"),
            pytest.param('{"a":"é監"}'.encode("utf-16"), "iso-8859-1", {"a": "é監"}, id="UTF-16, BOM before header"),
            pytest.param(
                codecs.BOM_UTF16_BE + '["監"]'.encode("utf-16-be"), None, ["監"], id="UTF-16, other byte order"
            ),
            pytest.param('{"a":"é監"}'.encode("utf-16-le"), None, {"a": "é監"}, id="UTF-16 without BOM"),
            pytest.param('{"a":"é監"}'.encode("utf-16-be"), None, {"a": "é監"}, id="UTF-16 without BOM, other order"),
            pytest.param('{"a":"é監"}'.encode("utf-32"), None, {"a": "é監"}, id="UTF-32"),
            pytest.param('{"a":"é監"}'.encode("utf-32-be"), None, {"a": "é監"}, id="UTF-32 without BOM"),
            pytest.param('"é"'.encode("latin-1"), "iso-8859-1", "é", id="ISO 8859-1"),
            pytest.param('"é"'.encode("latin-1"), "ISO_8859-1:1987", "é", id="ISO 8859-1 by its other name"),
            pytest.param('{"k":"監視"}'.encode("shift_jis"), "Shift_JIS", {"k": "監視"}, id="Shift_JIS"),
            pytest.param('{"k":"監視"}'.encode("euc-jp"), "euc-jp", {"k": "監視"}, id="EUC-JP"),
            pytest.param(b'"\x93\xfa"', "windows-1252", "“ú", id="Windows"),
            pytest.param(b'"a\xe9b"', None, "a�b", id="wrong byte, nothing said"),
            pytest.param(b'"a\xe9b"', "utf-8", "a�b", id="wrong byte"),
            pytest.param(b'"a\xe9b"', "no-such-charset", "a�b", id="unknown charset"),
            *(
                pytest.param(b'"a\xe9b"', name, "a�b", id=f"{name} is no charset of text")
                for name in ("hex", "base64", "idna", "undefined", "rot13", "a\0b", "")
            ),
            pytest.param(b'"\xed\xa0\x80"', None, "���", id="half a character in UTF-8"),
            pytest.param(b'"a\nb\tc\x00d\x1f"', None, "a\nb\tc\x00d\x1f", id="control characters"),
            pytest.param(b'"\x7f"', None, "\x7f", id="delete is none"),
            pytest.param(b'{"a\nb":1}', None, {"a\nb": 1}, id="control character in a key"),
            pytest.param(b"NaN", None, "NaN", id="NaN"),
            pytest.param(
                b'{"a":[NaN,Infinity,-Infinity]}', None, {"a": ["NaN", "Infinity", "-Infinity"]}, id="constants"
            ),
            pytest.param(b"[NaN,1e999,-1E400]", None, ["NaN", "1e999", "-1E400"], id="beyond a double, beside NaN"),
            pytest.param(b'"\\ud800"', None, "�", id="lone high surrogate"),
            pytest.param(b'"\\udc00"', None, "�", id="lone low surrogate"),
            pytest.param(b'"\\ud800x\\udc00y"', None, "�x�y", id="surrogates apart"),
            pytest.param(b'"\\udc00\\ud800"', None, "��", id="surrogates in the wrong order"),
            pytest.param(b'"\\ud83d\\ude00\\ud83d"', None, "😀�", id="a pair and a half"),
            pytest.param(b'{"\\ud800":1}', None, {"�": 1}, id="lone surrogate in a key"),
            pytest.param(b'[NaN,"\\ud83d\\ude00"]', None, ["NaN", "😀"], id="a pair, repaired"),
            pytest.param(
                b"[NaN,123456789012345678901234567890]", None, ["NaN", 123456789012345678901234567890], id="long"
            ),
        ],
    )
    def test_what_is_meant_as_json_is_taken_so(self, body: bytes, charset: str | None, value: Any) -> None:
        found = normalize(body, charset)
        assert _value(found) == value
        # What is made of it must be valid to strict readers, too.
        assert msgspec.json.decode(found) == value

    def test_a_number_beyond_a_double_is_left_as_it_stands(self) -> None:
        assert bytes(normalize(b'{"a":1e999}')) == b'{"a":1e999}'

    def test_a_number_of_many_digits_is_left_as_it_stands(self) -> None:
        assert bytes(normalize(b"9" * 5_000)) == b"9" * 5_000

    def test_deep_nesting_is_read_as_far_as_others_can_read_it(self) -> None:
        body = b"[" * 500 + b"]" * 500
        assert bytes(normalize(body)) == body

    @pytest.mark.parametrize(
        "body",
        [
            pytest.param(b"", id="nothing"),
            pytest.param(b" \n", id="white space"),
            pytest.param(codecs.BOM_UTF8, id="BOM alone"),
            pytest.param(codecs.BOM_UTF16_LE, id="BOM of UTF-16 alone"),
            pytest.param(b"<!DOCTYPE html><html><body>Sign in</body></html>", id="HTML"),
            pytest.param(b"<?xml version='1.0'?><a/>", id="XML"),
            pytest.param(b"OK", id="a word"),
            pytest.param(b"{'a': 1}", id="single quotes"),
            pytest.param(b"{a: 1}", id="no quotes"),
            pytest.param(b'{"a": 1,}', id="comma behind"),
            pytest.param(b'{"a": 1', id="cut"),
            pytest.param(b'"a', id="cut in a text"),
            pytest.param(b"[1 2]", id="no comma"),
            pytest.param(b"[1]\n[2]", id="several values"),
            pytest.param(b"[1]x", id="something behind"),
            pytest.param(b"01", id="zero before"),
            pytest.param(b"+1", id="plus"),
            pytest.param(b".5", id="no digit before the point"),
            pytest.param(b"0x10", id="hexadecimal"),
            pytest.param(b'"\\q"', id="unknown escape"),
            pytest.param(b'"\\u12"', id="short escape"),
            pytest.param(b"// note\n1", id="comment"),
            pytest.param(b"True", id="Python"),
            pytest.param("\u3000[]".encode(), id="wide blank"),
            pytest.param(b"\x00\x01\x02", id="binary"),
            pytest.param(b"\xff\xfe{\x00", id="cut in UTF-16"),
            pytest.param(b"[" * 100_000 + b"]" * 100_000, id="very deep"),
            pytest.param(b'{"a":' * 100_000, id="very deep and cut"),
            pytest.param(b"[NaN," + b"9" * 5_000 + b"]", id="repaired, with a very long number"),
        ],
    )
    def test_what_is_no_json_is_unreadable_and_not_repeated(self, body: bytes) -> None:
        with pytest.raises(SourceUnreadable, match=r"^the answer is no JSON \(.{1,100}\)$") as caught:
            normalize(body)
        assert caught.value.reason is Reason.NOT_JSON
        assert "html" not in str(caught.value)


KEYS = st.lists(st.sampled_from(["a", "b", "c", "_", "ab", "a_1"]), min_size=1, max_size=4).map(".".join)


class TestFind:
    """An expression finds in JSON text what JMESPath finds in the decoded value."""

    @UNTIMED
    @given(keys=KEYS, value=VALUES)
    def test_plain_keys_find_what_jmespath_finds(self, keys: str, value: Any) -> None:
        expression = Expression(keys, column="RESPONSE_KEY")
        expected = jmespath.search(keys, value)
        text = normalize(json.dumps(value).encode())
        found = expression.find(text)
        assert (None if found is None else _value(found)) == expected
        assert expression.value(text) == expected

    @UNTIMED
    @given(keys=KEYS, inner=VALUES, beside=VALUES, spaces=st.text(" \n", max_size=3))
    def test_plain_keys_find_what_is_there(self, keys: str, inner: Any, beside: Any, spaces: str) -> None:
        value = inner
        for key in reversed(keys.split(".")):
            value = {"other": beside, key: value, "z": beside}
        text = json.dumps(value, separators=(f"{spaces},{spaces}", f"{spaces}:{spaces}")).encode()
        expression = Expression(keys, column="RESPONSE_KEY")
        found = expression.find(text)
        assert (None if found is None else _value(found)) == inner
        assert expression.value(text) == inner

    @pytest.mark.parametrize(
        ("expression", "text", "found"),
        [
            pytest.param("@", b"[1]", b"[1]", id="the answer itself"),
            pytest.param(" @ ", b"[1]", b"[1]", id="the answer itself, with blanks"),
            pytest.param("@", b"null", b"null", id="the answer itself: null"),
            pytest.param("a", b'{"a":[1, 2]}', b"[1, 2]", id="as it stands"),
            pytest.param("a", b'{"a":1e999}', b"1e999", id="beyond a double"),
            pytest.param("a", b'{"a":' + b"9" * 5_000 + b"}", b"9" * 5_000, id="many digits"),
            pytest.param("a", b'{"a":null}', None, id="null"),
            pytest.param("a", b'{"a":"null"}', b'"null"', id="the word"),
            pytest.param("a", b"{}", None, id="missing"),
            pytest.param("a", b"[]", None, id="a list"),
            pytest.param("a.b", b'{"a":1}', None, id="a scalar on the way"),
            pytest.param("a.b", b'{"a":null}', None, id="null on the way"),
            pytest.param("a", b'{"A":1}', None, id="another case"),
            pytest.param("a", b'{"\\u0061":1}', b"1", id="key that is escaped"),
            pytest.param('"a b"', b'{"a b":1}', b"1", id="quoted key"),
            pytest.param('"監視".a', '{"監視":{"a":1}}'.encode(), b"1", id="Japanese key"),
            pytest.param("a[0].b", b'{"a":[{"b":1}]}', b"1", id="index"),
            pytest.param("a[*].b", b'{"a":[{"b":1},{}]}', b"[1]", id="projection"),
            pytest.param("a[?b > `1`]", b'{"a":[{"b":1},{"b":2}]}', b'[{"b":2}]', id="filter"),
            pytest.param("a[?b == 'x'] | [0]", b'{"a":[{"b":"x"}]}', b'{"b":"x"}', id="pipe"),
            pytest.param("values(a)", b'{"a":{"x":{"b":1}}}', b'[{"b":1}]', id="function"),
            pytest.param("[a, b]", b'{"a":1}', b"[1,null]", id="list of several"),
            pytest.param("a[]", b'{"a":[1e999, 1.5]}', b'["1e999",1.5]', id="beyond a double, calculated"),
            pytest.param("a[0]", b'{"a":[12345678901234567890123]}', b"12345678901234567890123", id="long number"),
        ],
    )
    def test_an_expression_finds(self, expression: str, text: bytes, found: bytes | None) -> None:
        result = Expression(expression, column="RESPONSE_KEY").find(text)
        assert (None if result is None else bytes(result)) == found

    @pytest.mark.parametrize(
        ("expression", "text", "why"),
        [
            ("no_such_function(a)", b"{}", "Unknown function: no_such_function()"),
            ("join(a)", b"{}", "Expected 2 arguments for function join(), received 1"),
            ("abs(a)", b'{"a":"x"}', "abs() takes number, not string)"),
            ("a[::0]", b'{"a":[1]}', "slice step cannot be zero"),
            ("contains(a, `1`)", b'{"a":"x"}', "'in <string>' requires string as left operand, not int"),
            ("ceil(to_number(a))", b'{"a":"1e999"}', "cannot convert float infinity to integer"),
            ("&a", b"{}", "Encoding objects of type _Expression is unsupported"),
        ],
    )
    def test_an_expression_that_cannot_be_applied_fails_the_poll(self, expression: str, text: bytes, why: str) -> None:
        with pytest.raises(SourceUnreadable) as caught:
            Expression(expression, column="RESPONSE_KEY").find(text)
        assert str(caught.value).startswith(f"RESPONSE_KEY cannot be applied to the answer ({why}")
        assert caught.value.reason is Reason.EXPRESSION

    def test_a_number_too_long_to_calculate_with_fails_the_poll(self) -> None:
        with pytest.raises(SourceUnreadable, match=r"^the answer holds a number that is too long \(") as caught:
            Expression("a[0]", column="RESPONSE_KEY").find(b'{"a":[' + b"9" * 5_000 + b"]}")
        assert caught.value.reason is Reason.NOT_JSON


class TestValue:
    """The decoded value, as EVENT_ID_KEY asks for it."""

    @pytest.mark.parametrize(
        ("expression", "text", "value"),
        [
            pytest.param("a", b'{"a":"x"}', "x", id="text"),
            pytest.param("a", b'{"a":1e999}', "1e999", id="beyond a double"),
            pytest.param("a", b'{"a":12345678901234567890123}', 12345678901234567890123, id="long number"),
            pytest.param("a.b", b'{"a":[1]}', None, id="no object on the way"),
            pytest.param("join('/', [a, b])", b'{"a":"x","b":"y"}', "x/y", id="function"),
            pytest.param("join('/', [a, b])", b'{"a":"x"}', None, id="function, something missing"),
            pytest.param("join('/', [a, b])", b'{"a":"x","b":1}', None, id="function, wrong type"),
            pytest.param("to_number(a)", b'{"a":"x"}', None, id="no number"),
            pytest.param("a || b", b'{"b":2}', 2, id="either"),
            pytest.param("[a, b]", b'{"a":1}', [1, None], id="several"),
        ],
    )
    def test_a_value_is_found_or_not(self, expression: str, text: bytes, value: Any) -> None:
        assert Expression(expression, column="EVENT_ID_KEY").value(text) == value

    @pytest.mark.parametrize("expression", ["no_such_function(a)", "join(a)", "a[::0]"])
    def test_an_expression_that_fits_nothing_fails_the_poll(self, expression: str) -> None:
        with pytest.raises(SourceUnreadable, match=r"^EVENT_ID_KEY cannot be applied to the answer"):
            Expression(expression, column="EVENT_ID_KEY").value(b'{"a":[1]}')


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "a.", ".a", "a b", "a..b", "a[", "foo(", "`1", "'a", "1a", "監視", "a-b", "\ud800", "\0"),
        *("(" * 9_999, "!" * 9_999 + "a", "a." * 9_999 + "a"),
    ],
    ids=lambda text: ascii(text)[:20],
)
def test_what_is_no_jmespath_makes_the_setting_invalid(text: str) -> None:
    with pytest.raises(
        SettingInvalid, match=r"^EVENT_ID_KEY .* is no JMESPath \(.*\): write one such as data\.items$"
    ) as caught:
        Expression(text, column="EVENT_ID_KEY")
    assert caught.value.reason is Reason.EXPRESSION
    assert len(str(caught.value)) < 500


def test_elements_are_slices_of_the_text() -> None:
    assert [bytes(element) for element in json_text.elements(b'[ 1e2 , {"a" : 1},"x",[ ],null ]')] == [
        b"1e2",
        b'{"a" : 1}',
        b'"x"',
        b"[ ]",
        b"null",
    ]


@UNTIMED
@given(VALUES)
def test_decode_undoes_encode(value: Any) -> None:
    assert json_text.decode(json_text.encode(value)) == value


def test_decode_reads_zeros_with_their_sign() -> None:
    assert math.copysign(1, json_text.decode(b"-0.0")) == -1


@pytest.mark.parametrize(
    ("text", "is_empty"), [(b"{}", True), (b"{ \n}", True), (b'{"":0}', False), (b'{ "a": {} }', False)]
)
def test_an_object_without_members_is_empty(text: bytes, is_empty: bool) -> None:
    assert json_text.is_empty_object(text) is is_empty
