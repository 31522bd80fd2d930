"""What log events mean in words: every event has them, and the documents tell of each."""

import dataclasses
import re
import string
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from emitted import Emitted, emitted
from ita_ag_oase import collection
from ita_ag_oase.agent.election import lease_code
from ita_ag_oase.agent.roster import refresh_code
from ita_ag_oase.agent.schedule import collection_code, delivery_code, mail_code
from ita_ag_oase.errors import (
    AgentError,
    ExastroUnavailable,
    Reason,
    SourceUnavailable,
    StoreDamaged,
    StoreUnavailable,
)
from ita_ag_oase.model import Repair, TakeOver
from ita_ag_oase.observability.messages import MESSAGES
from ita_ag_oase.settings import Adjustment
from ita_ag_oase.store.volume import NetworkVolume
from ita_ag_oase.text import Text

ROOT = Path(__file__).parents[2]
EMITTED = emitted()

# What is given as the fields of a value.
_FIELDS = {
    "store_repaired": {field.name for field in dataclasses.fields(Repair)},
    "stock_store_taken_over": {field.name for field in dataclasses.fields(TakeOver)},
    "store_on_network": {field.name for field in dataclasses.fields(NetworkVolume)},
    "value_adjusted": set(Adjustment._fields),
}

_CODES_OF: dict[str, tuple[Callable[[Exception], str], ...]] = {
    "collection_failed": (collection_code, mail_code),
    "delivery_failed": (delivery_code,),
    "lease_failed": (lease_code,),
    "purge_failed": (lambda _: "AGT-10027",),
    "settings_failed": (refresh_code,),
}


def _errors() -> Iterator[Exception]:
    yield ValueError()
    kinds: tuple[type[AgentError], ...] = (SourceUnavailable, ExastroUnavailable, StoreUnavailable, StoreDamaged)
    for reason in Reason:
        yield from (kind(Text("Exastro answered {said}", said="499"), reason=reason) for kind in kinds)
        yield from (kind(Text("no answer"), reason=reason) for kind in kinds)


def _codes(event: Emitted) -> set[str]:
    if event.event in _CODES_OF:
        return {code_of(err) for code_of in _CODES_OF[event.event] for err in _errors()}
    if event.event == "events_unusable":
        return set(collection._CODES.values())
    return {event.code or ""}


def test_every_event_has_words_and_no_words_are_left_over() -> None:
    events = {event.event for event in EMITTED}
    assert (events - MESSAGES.keys(), MESSAGES.keys() - events) == (set(), set())


@pytest.mark.parametrize("event", EMITTED, ids=[f"{event.event} {event.place}" for event in EMITTED])
def test_the_facts_of_a_message_are_given_wherever_it_is_logged(event: Emitted) -> None:
    message = MESSAGES[event.event]
    named = {name for _, name, _, _ in string.Formatter().parse(message.text.template) if name}
    assert (None in event.facts) == (event.event in _FIELDS)
    assert named - event.facts - _FIELDS.get(event.event, set()) == set()
    assert message.action is None or message.action.facts == {}


def test_no_event_is_logged_with_words_of_its_own() -> None:
    assert [event for event in EMITTED if event.facts & {"action", "message"}] == []


def _rows(document: str) -> list[list[str]]:
    lines = (ROOT / document).read_text(encoding="utf-8").splitlines()
    cells = [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return cells[2:]


DOCUMENTS = pytest.mark.parametrize("document", ["docs/messages.md", "docs/ja/messages.md"])


@DOCUMENTS
def test_the_documents_have_each_event_with_each_of_its_codes_and_its_levels(document: str) -> None:
    written = {
        (code, event, *re.findall(r"\w+", re.sub("または|or ", " ", levels)))
        for code, event, levels, *_ in _rows(document)
    }
    assert written == {(code, event.event, *event.levels) for event in EMITTED for code in _codes(event)}


@DOCUMENTS
def test_the_documents_are_in_order_and_say_what_each_event_means(document: str) -> None:
    rows = _rows(document)
    assert rows == sorted(rows, key=lambda row: (row[0] == "", row[0], row[1]))
    assert [row for row in rows if not row[3]] == []


def test_both_documents_say_for_the_same_events_what_to_do() -> None:
    english, japanese = (
        {(code, event): bool(action) for code, event, _, _, action in _rows(document)}
        for document in ("docs/messages.md", "docs/ja/messages.md")
    )
    assert english == japanese
