"""The quick ways through an answer find what the plain one does, whatever the JSON."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import plain_reading
from examples import SETTING
from ita_ag_oase.events import extract
from ita_ag_oase.events.extract import Extraction, Extractor
from ita_ag_oase.model import Listing, Payload

FIRST_SERIAL = 1_700_000_000_000_000

_SPACE = st.sampled_from(["", "", " ", "\n\t ", "\r\n"])
_NUMBERS = st.sampled_from(
    [
        *("0", "-0", "-0.0", "7", "1E5", "1e-7", "1.50", "100000000000000000000.0", "0.1e-400", "1e400", "-1e400"),
        *("9223372036854775807", "9223372036854775808", "18446744073709551616", "-9223372036854775809", "1" * 40),
    ]
)
_TEXTS = st.sampled_from(
    [r'""', r'"7"', r'"\ud83d\ude00"', r'"\ud800"', r'"x\udc00"', r'"\/\b\u0000\""', '"ä\u2028𝄞"', '"_exastro_"']
) | st.text().map(lambda text: json.dumps(text.encode(errors="replace").decode()))
_SCALARS = st.sampled_from(["null", "true", "false"]) | _NUMBERS | _TEXTS
# The same key in several spellings, so that some come twice.
_KEYS = st.sampled_from(['"id"', '"id"', r'"i\u0064"', '"a"', '"b"', '"data"', '""']) | _TEXTS


def _array(elements: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.tuples(st.lists(elements, max_size=4), _SPACE).map(
        lambda made: f"[{made[1]}{(',' + made[1]).join(made[0])}]"
    )


def _object(members: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    pairs = st.tuples(_KEYS, _SPACE, members).map(lambda made: f"{made[0]}{made[1]}:{made[1]}{made[2]}")
    return st.tuples(st.lists(pairs, max_size=4), _SPACE).map(lambda made: f"{{{made[1]}{','.join(made[0])}}}")


_VALUES = st.recursive(_SCALARS, lambda inner: _array(inner) | _object(inner), max_leaves=10)
# What most sources send: objects with ids, in a list, perhaps within objects.
_EVENTS = st.tuples(_SCALARS, _object(_VALUES)).map(
    lambda made: f'{{"id": {made[0]}, {made[1][1:-1].strip()}}}'.replace(", }", "}")
)
_LISTS = _array(_EVENTS | _EVENTS | _EVENTS | _VALUES)
_NESTED = _LISTS.map(lambda text: f'{{"a": {{"b": {text}}}, "data": {text}}}')
ANSWERS = st.tuples(st.sampled_from(["", "", "\ufeff"]), _SPACE, _LISTS | _NESTED | _VALUES, _SPACE).map(
    lambda parts: "".join(parts).encode()
)
KEYS = st.sampled_from([None, None, "a.b", "data", "a", "a.b.id"])
ID_KEYS = st.sampled_from(["id", "id", "a.id", "a", None])


def _read(body: bytes | bytearray, **columns: Any) -> Extraction:
    return Extractor.of(replace(SETTING, **columns)).extract(Payload(body), now_microseconds=FIRST_SERIAL)


@given(body=ANSWERS, response_key=KEYS, event_id_key=ID_KEYS, is_list=st.sampled_from([True, True, False]))
@example(body=b'[{"id":1e400},{"id":2}]', response_key=None, event_id_key="id", is_list=True)
@example(body=b'[{"id":-0},{"id":-0.0},{"id":1E5}]', response_key=None, event_id_key="id", is_list=True)
@example(body=b'[{"a":5,"a":{"id":1}}]', response_key=None, event_id_key="a.id", is_list=True)
@example(body=b'[{"a":{"id":1},"a":5}]', response_key=None, event_id_key="a.id", is_list=True)
@example(body=b'[{"id":1,"id":null}]', response_key=None, event_id_key="id", is_list=True)
@example(body=b'[{"id":"\\ud800"},{"id":"\\udc00"}]', response_key=None, event_id_key="id", is_list=True)
@example(body=b"\xef\xbb\xbf [] ", response_key=None, event_id_key="id", is_list=True)
def test_events_are_those_of_the_plain_way(
    body: bytes, response_key: str | None, event_id_key: str | None, is_list: bool
) -> None:
    columns: dict[str, Any] = {"response_key": response_key, "event_id_key": event_id_key, "is_list": is_list}
    plain, has_key = plain_reading.read(body, **columns)
    for given_body in (body, bytearray(body)):
        extraction = _read(given_body, **columns)
        events = list(extraction.events)
        assert [plain_reading.decoded(event, FIRST_SERIAL) for event in events] == plain
        assert extraction.has_key == has_key


@given(body=ANSWERS, response_key=KEYS, event_id_key=ID_KEYS)
def test_events_of_a_long_list_are_those_of_a_short_one(
    body: bytes, response_key: str | None, event_id_key: str | None
) -> None:
    columns: dict[str, Any] = {"response_key": response_key, "event_id_key": event_id_key}
    padded = b" " * (extract.LISTED_BYTES + 1)
    (long, short) = (
        [plain_reading.decoded(event, FIRST_SERIAL) for event in _read(text, **columns).events]
        for text in (body.replace(b"[", b"[" + padded, 1), body)
    )
    assert long == short


class TestListings:
    """An answer whose events tell all their ids at once."""

    @pytest.mark.parametrize(
        ("body", "ids"),
        [
            pytest.param(b'[{"id":1},{"id":"b"}]', ["1", "b"], id="ids"),
            pytest.param(
                b'[{"id":true},{"id":[1,{"x":null}]},{"id":1.50}]', ["True", "[1, {'x': None}]", "1.5"], id="any"
            ),
            pytest.param(b"[]", [], id="none"),
            pytest.param(b'[{"id":1},{}]', None, id="one has none"),
            pytest.param(b'[{"id":1},{"id":null}]', None, id="one is null"),
            pytest.param(b'[{"id":1},null]', None, id="null"),
            pytest.param(b'[{"id":1},5]', None, id="no object"),
            pytest.param(b'[{"id":1},{"id":1e400}]', None, id="a number beyond a double"),
        ],
    )
    def test_which_it_is(self, body: bytes, ids: list[str] | None) -> None:
        events = _read(body).events
        assert (list(events.ids) if isinstance(events, Listing) else None) == ids

    def test_a_part_of_it_is_cut_out_as_it_stands(self) -> None:
        events = _read(b'[{"id":1, "x" : 1.50},{"id":2},{"id":3}]').events
        assert isinstance(events, Listing)
        assert [(event.id, bytes(event.raw)) for event in events.part(0, 2)] == [
            ("1", b'{"id":1, "x" : 1.50}'),
            ("2", b'{"id":2}'),
        ]
        assert list(events) == events.part(0, 3)

    def test_a_list_that_would_take_much_memory_is_none(self) -> None:
        text = b'[{"id":1}%b]'
        kinds = [type(_read(text % (b" " * (extract.LISTED_BYTES + more - len(text) + 2))).events) for more in (0, 1)]
        assert [kind is Listing for kind in kinds] == [True, False]
