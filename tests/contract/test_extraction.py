"""The stock agent's decision table, as data: every case of extraction.jsonl (protocol section 2.6)."""

import json
from pathlib import Path
from typing import Any

import pytest

import plain_reading
from ita_ag_oase.events.extract import Extractor
from ita_ag_oase.events.json_text import Expression
from ita_ag_oase.model import Payload

CASES = [json.loads(line) for line in Path(__file__).with_name("extraction.jsonl").read_text().splitlines()]


def _extractor(case: dict[str, Any]) -> Extractor:
    return Extractor(
        response_key=Expression(case["response_key"], column="RESPONSE_KEY") if case["response_key"] else None,
        event_id_key=Expression(case["event_id_key"], column="EVENT_ID_KEY") if case["event_id_key"] else None,
        is_list=case["response_list_flag"] == "1",
    )


def _events(case: dict[str, Any], body: bytes) -> list[dict[str, Any]]:
    found = []
    seen = set(case["known_ids"])
    for event in _extractor(case).extract(Payload(body), now_microseconds=1).events:
        if not event.is_serial and event.id in seen:
            continue
        if not event.is_serial:
            seen.add(event.id)
        labels = {"_exastro_oase_event_id": "<serial>" if event.is_serial else event.id}
        if event.unavailable:
            labels["_exastro_not_available"] = event.unavailable
        found.append({**json.loads(bytes(event.raw)), **labels})
    return found


def test_there_are_hundreds_of_cases() -> None:
    assert len(CASES) == 690


@pytest.mark.parametrize("number", range(0, 690, 69))
def test_events_are_those_of_the_stock_agent(number: int) -> None:
    for case in CASES[number : number + 69]:
        assert _events(case, json.dumps(case["response"]).encode()) == case["events"], case


@pytest.mark.parametrize("number", range(0, 690, 69))
def test_white_space_and_repaired_text_make_no_difference(number: int) -> None:
    for case in CASES[number : number + 69]:
        spaced = json.dumps(case["response"], indent=2).encode()
        assert _events(case, b" \r\n" + spaced + b"\n") == case["events"], case
        # In UTF-16 the answer goes the way of what must be repaired.
        assert _events(case, spaced.decode().encode("utf-16")) == case["events"], case


@pytest.mark.parametrize("number", range(0, 690, 69))
def test_the_plain_way_makes_the_same_events(number: int) -> None:
    for case in CASES[number : number + 69]:
        found, _ = plain_reading.read(
            json.dumps(case["response"]).encode(),
            response_key=case["response_key"],
            event_id_key=case["event_id_key"],
            is_list=case["response_list_flag"] == "1",
        )
        own = [
            plain_reading.decoded(event, 1)
            for event in _extractor(case)
            .extract(Payload(json.dumps(case["response"]).encode()), now_microseconds=1)
            .events
        ]
        assert own == found, case
