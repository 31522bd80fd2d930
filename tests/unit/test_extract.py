"""From answers to events: what the cases of the conformance file do not say about ids, keys and reasons."""

import json
from dataclasses import replace
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from examples import SETTING
from ita_ag_oase.errors import Reason, SettingInvalid, SourceUnreadable
from ita_ag_oase.events.extract import Extractor
from ita_ag_oase.model import Payload

NOW_MICROSECONDS = 1_700_000_000_000_000
# A machine with other work is no reason to fail.
UNTIMED = settings(deadline=None)
TEXTS = st.text(st.characters(codec="utf-8"))


class Found(NamedTuple):
    """An event with its JSON decoded."""

    id: str
    is_serial: bool
    value: Any
    unavailable: str | None


def _extracted(body: Any, **columns: Any) -> tuple[list[Found], bool]:
    """Return the events of an answer, and whether it was the expected one."""
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    extraction = Extractor.of(replace(SETTING, **columns)).extract(Payload(text), now_microseconds=NOW_MICROSECONDS)
    events = [
        Found(event.id, event.is_serial, json.loads(bytes(event.raw)), event.unavailable) for event in extraction.events
    ]
    return events, extraction.has_key


def _serial(number: int, value: Any, unavailable: str | None) -> Found:
    return Found(str(NOW_MICROSECONDS + number), True, value, unavailable)


NO_ID = "EVENT_ID_KEY not found"


class TestIds:
    """The id of an event is the value at EVENT_ID_KEY as Python's str() writes it."""

    @pytest.mark.parametrize(
        ("text", "id_"),
        [
            pytest.param(b'"a"', "a", id="text"),
            pytest.param(b'""', "", id="empty text"),
            pytest.param(b'" a "', " a ", id="text with blanks"),
            pytest.param(b'"\\u76e3\\n\\ud83d\\ude00"', "監\n😀", id="escaped text"),
            pytest.param(b'"1.0"', "1.0", id="text of a number"),
            pytest.param(b"7", "7", id="number"),
            pytest.param(b"-7", "-7", id="negative"),
            pytest.param(b"0", "0", id="zero"),
            pytest.param(b"-0", "0", id="minus zero"),
            pytest.param(b"9223372036854775808", "9223372036854775808", id="beyond 63 bits"),
            pytest.param(b"18446744073709551616", "18446744073709551616", id="beyond 64 bits"),
            pytest.param(b"-18446744073709551617", "-18446744073709551617", id="beyond 64 bits, negative"),
            pytest.param(b"123456789012345678901234567890", "123456789012345678901234567890", id="30 digits"),
            pytest.param(b"1" * 400, "1" * 400, id="400 digits"),
            pytest.param(b"1.0", "1.0", id="float"),
            pytest.param(b"1.10", "1.1", id="float, zero behind"),
            pytest.param(b"-0.0", "-0.0", id="float, minus zero"),
            pytest.param(b"1e3", "1000.0", id="exponent"),
            pytest.param(b"1E22", "1e+22", id="exponent, great"),
            pytest.param(b"1e-7", "1e-07", id="exponent, small"),
            pytest.param(b"0.1", "0.1", id="tenth"),
            pytest.param(b"1e-400", "0.0", id="too small"),
            pytest.param(b"9007199254740993.0", "9007199254740992.0", id="float beyond its digits"),
            pytest.param(b"true", "True", id="true"),
            pytest.param(b"false", "False", id="false"),
            pytest.param(b"[]", "[]", id="empty list"),
            pytest.param(b'[1,"a",null,true,[2.0]]', "[1, 'a', None, True, [2.0]]", id="list"),
            pytest.param(b"{}", "{}", id="empty object"),
            pytest.param(b'{"k":"v","l":{"m":null}}', "{'k': 'v', 'l': {'m': None}}", id="object"),
            pytest.param(b'["it\'s","\\""]', "[\"it's\", '\"']", id="quotes"),
            pytest.param('["監"]'.encode(), "['監']", id="Japanese in a list"),
        ],
    )
    @pytest.mark.parametrize("key", ["id", "data.id", "[data][0].id", "max_by([data], &`1`).id"])
    def test_an_id_is_written_as_python_does(self, text: bytes, id_: str, key: str) -> None:
        body = b'[{"id":%b,"data":{"id":%b}}]' % (text, text)
        value = json.loads(text)
        assert _extracted(body, event_id_key=key) == (
            [Found(id_, False, {"id": value, "data": {"id": value}}, None)],
            True,
        )

    @UNTIMED
    @given(
        st.recursive(
            st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
            max_leaves=5,
        )
    )
    def test_any_id_is_what_str_makes_of_it(self, value: Any) -> None:
        events, _ = _extracted([{"id": value}])
        assert [event.id for event in events] == [str(value)]

    def test_an_id_beyond_a_double_tells_it_from_others(self) -> None:
        body = b'[{"id":1e999},{"id":2e999}]'
        extraction = Extractor.of(SETTING).extract(Payload(body), now_microseconds=1)
        assert [event.id for event in extraction.events] == ["1e999", "2e999"]

    def test_events_of_one_id_are_all_told(self) -> None:
        # Which of them is new is for the store to say.
        events, _ = _extracted([{"id": 1}, {"id": "1"}, {"id": 1.0}])
        assert [(event.id, event.is_serial) for event in events] == [("1", False), ("1", False), ("1.0", False)]

    @pytest.mark.parametrize(
        "event",
        [{}, {"id": None}, {"ID": 1}, {"other": {"id": 1}}],
        ids=["empty", "null", "other case", "elsewhere"],
    )
    def test_an_event_without_id_is_delivered_with_the_reason(self, event: dict[str, Any]) -> None:
        assert _extracted([{"id": 1}, event, {"id": 2}]) == (
            [Found("1", False, {"id": 1}, None), _serial(0, event, NO_ID), Found("2", False, {"id": 2}, None)],
            True,
        )

    def test_serial_ids_are_unique_and_grow(self) -> None:
        events, _ = _extracted([{}] * 3_000, event_id_key=None)
        assert [event.id for event in events] == [str(NOW_MICROSECONDS + number) for number in range(3_000)]
        assert {event.unavailable for event in events} == {None}

    @pytest.mark.parametrize(
        ("key", "event", "id_"),
        [
            pytest.param(
                "join('/', [fingerprint, startsAt])", {"fingerprint": "a1", "startsAt": "T"}, "a1/T", id="join"
            ),
            pytest.param("join('-', [host, to_string(id)])", {"host": "h", "id": 7}, "h-7", id="join and to_string"),
            pytest.param("[host, id]", {"host": "h", "id": 7}, "['h', 7]", id="list"),
            pytest.param("{h: host}", {"host": "h"}, "{'h': 'h'}", id="object"),
            pytest.param("labels.alertname", {"labels": {"alertname": "A"}}, "A", id="within"),
            pytest.param('labels."alert name"', {"labels": {"alert name": "A"}}, "A", id="quoted"),
            pytest.param("id || uuid", {"uuid": "u"}, "u", id="one or the other"),
            pytest.param("length(parts)", {"parts": [1, 2]}, "2", id="number of a function"),
            pytest.param("'fixed'", {}, "fixed", id="literal"),
            pytest.param("@", {"a": 1}, "{'a': 1}", id="the whole event"),
        ],
    )
    def test_an_id_may_be_calculated(self, key: str, event: dict[str, Any], id_: str) -> None:
        assert _extracted([event], event_id_key=key) == ([Found(id_, False, event, None)], True)

    @pytest.mark.parametrize(
        "event",
        [{"fingerprint": "b2"}, {"fingerprint": "b2", "startsAt": 5}, {}],
        ids=["missing", "other type", "empty"],
    )
    def test_one_event_that_no_id_can_be_calculated_for_does_not_lose_the_others(self, event: dict[str, Any]) -> None:
        good = {"fingerprint": "a1", "startsAt": "T"}
        assert _extracted([good, event, good], event_id_key="join('/', [fingerprint, startsAt])") == (
            [Found("a1/T", False, good, None), _serial(0, event, NO_ID), Found("a1/T", False, good, None)],
            True,
        )

    @pytest.mark.parametrize("key", ["no_such_function(id)", "join(id)", "id[::0]"])
    def test_an_id_key_that_can_never_be_applied_fails_the_poll(self, key: str) -> None:
        with pytest.raises(SourceUnreadable, match=r"^EVENT_ID_KEY cannot be applied to the answer \(") as caught:
            _extracted([{"id": [1]}], event_id_key=key)
        assert caught.value.reason is Reason.EXPRESSION


class TestAnswers:
    """Answers as sources write them."""

    @pytest.mark.parametrize(
        ("column", "text"), [("response_key", "a..b"), ("event_id_key", "a["), ("response_key", "監視")]
    )
    def test_a_key_that_is_no_jmespath_makes_the_setting_invalid(self, column: str, text: str) -> None:
        with pytest.raises(SettingInvalid, match=rf"^{column.upper()} ") as caught:
            _extracted([], **{column: text})
        assert caught.value.reason is Reason.EXPRESSION

    @pytest.mark.parametrize("key", [None, ""], ids=["null", "empty"])
    def test_an_empty_key_is_none(self, key: str | None) -> None:
        assert _extracted([{"id": 1}], response_key=key, event_id_key=key) == ([_serial(0, {"id": 1}, None)], True)

    @pytest.mark.parametrize("body", [b"", b"<html>login</html>", b"{", b"OK"])
    def test_what_is_no_json_fails_the_poll(self, body: bytes) -> None:
        with pytest.raises(SourceUnreadable, match=r"^the answer is no JSON") as caught:
            _extracted(body)
        assert caught.value.reason is Reason.NOT_JSON

    def test_an_error_of_zabbix_is_no_expected_answer(self) -> None:
        body = {"jsonrpc": "2.0", "error": {"code": -32602, "data": "Session terminated"}, "id": 1}
        assert _extracted(body, response_key="result") == ([_serial(0, body, "RESPONSE_KEY not found")], False)

    def test_an_empty_result_is_the_expected_answer(self) -> None:
        assert _extracted({"result": []}, response_key="result") == ([], True)

    def test_an_event_is_left_as_it_stands(self) -> None:
        body = b'{"result": [ {"id" : 1.10, "big":12345678901234567890123, "e":1e999, "u":"\\u76e3"} ]}'
        extraction = Extractor.of(replace(SETTING, response_key="result")).extract(Payload(body), now_microseconds=1)
        (event,) = extraction.events
        assert (event.id, bytes(event.raw)) == (
            "1.1",
            b'{"id" : 1.10, "big":12345678901234567890123, "e":1e999, "u":"\\u76e3"}',
        )

    @pytest.mark.parametrize(
        ("body", "charset"),
        [
            pytest.param('[{"id":"監"}]'.encode("utf-16"), None, id="UTF-16"),
            pytest.param('[{"id":"監"}]'.encode("shift_jis"), "shift_jis", id="Shift_JIS"),
            pytest.param('\ufeff[{"id":"監"}]'.encode(), None, id="BOM"),
        ],
    )
    def test_other_character_sets_make_the_same_events(self, body: bytes, charset: str | None) -> None:
        extraction = Extractor.of(SETTING).extract(Payload(bytearray(body), charset), now_microseconds=1)
        assert [(event.id, json.loads(bytes(event.raw))) for event in extraction.events] == [("監", {"id": "監"})]

    def test_what_json_does_not_allow_makes_usable_events(self) -> None:
        assert _extracted(b'[{"id":NaN,"t":"a\nb"},{"id":"\\ud800"}]') == (
            [Found("NaN", False, {"id": "NaN", "t": "a\nb"}, None), Found("\ufffd", False, {"id": "\ufffd"}, None)],
            True,
        )

    @pytest.mark.parametrize("element", [1, "x", None, True, [], [1], [[{"id": 1}]]])
    def test_an_element_that_is_no_object_is_wrapped(self, element: Any) -> None:
        assert _extracted([{"id": 1}, element]) == (
            [
                Found("1", False, {"id": 1}, None),
                _serial(0, {"_exastro_raw_data": element}, "event format is Invalid.(not Object)"),
            ],
            True,
        )

    def test_events_are_made_as_they_are_asked_for(self) -> None:
        extraction = Extractor.of(SETTING).extract(
            Payload(json.dumps([{"id": number} for number in range(3)]).encode()), now_microseconds=1
        )
        events = iter(extraction.events)
        assert next(events).id == "0"
        assert [event.id for event in events] == ["1", "2"]

    def test_an_extractor_can_be_used_again(self) -> None:
        extractor = Extractor.of(SETTING)
        for _ in range(2):
            extraction = extractor.extract(Payload(b'[{"id":1},{}]'), now_microseconds=5)
            assert [event.id for event in extraction.events] == ["1", "5"]
