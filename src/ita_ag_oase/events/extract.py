"""From a source's answer to its events: the decision table of protocol section 2.6."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import msgspec
from typing_extensions import Buffer

from ita_ag_oase.events import json_text
from ita_ag_oase.events.identity import EventIds
from ita_ag_oase.events.json_text import Expression, first_byte
from ita_ag_oase.model import CollectionSetting, Event, Listing, Payload

# The wording is part of the contract: users' rules match on it.
KEY_NOT_FOUND = "RESPONSE_KEY not found"
NO_CONTAINER = "RESPONSE_KEY value is Invalid.(not Object and not List)"
NO_OBJECT = "event format is Invalid.(not Object)"
IS_A_LIST = "RESPONSE_LIST_FLAG is incorrect.(List Type)"
IS_NO_LIST = "RESPONSE_LIST_FLAG is incorrect.(Not List Type)"
ID_NOT_FOUND = "EVENT_ID_KEY not found"

_OBJECT, _ARRAY = b"{", b"["
# Of a larger list, the ids all at once would take more memory than looking at each event once more takes time.
LISTED_BYTES = 4_194_304


class Extraction(NamedTuple):
    """The events of an answer, made as they are asked for.

    `has_key` is False where RESPONSE_KEY found nothing: the answer was not the expected one.
    """

    events: Iterable[Event]
    has_key: bool


@dataclass(frozen=True, slots=True)
class Extractor:
    """How one setting's answers become events."""

    response_key: Expression | None
    event_id_key: Expression | None
    is_list: bool

    @classmethod
    def of(cls, setting: CollectionSetting) -> "Extractor":
        """Return the extractor of a setting. Raises SettingInvalid for a key that is no JMESPath."""
        return cls(
            response_key=Expression(setting.response_key, column="RESPONSE_KEY") if setting.response_key else None,
            event_id_key=Expression(setting.event_id_key, column="EVENT_ID_KEY") if setting.event_id_key else None,
            is_list=setting.is_list,
        )

    def extract(self, payload: Payload, *, now_microseconds: int) -> Extraction:
        """Return the events of an answer; serial ids count up from `now_microseconds`.

        Raises SourceUnreadable for an answer that is no JSON, or that an expression cannot be applied to.
        """
        answer = json_text.normalize(payload.body, payload.charset)
        ids = EventIds(self.event_id_key, now_microseconds)
        value = self.response_key.find(answer) if self.response_key else answer
        if value is None:
            return self._without_key(answer, ids)
        return Extraction(self._of_value(answer, value, ids), has_key=True)

    def _without_key(self, answer: Buffer, ids: EventIds) -> Extraction:
        elements = json_text.elements(answer) if first_byte(answer) == _ARRAY else None
        if elements == []:
            return Extraction(iter(()), has_key=True)
        if elements and self.is_list:
            events = (ids.serial(_as_object(element), KEY_NOT_FOUND) for element in elements)
            return Extraction(events, has_key=False)
        return Extraction(iter((ids.serial(_as_object(answer), KEY_NOT_FOUND),)), has_key=False)

    def _of_value(self, answer: Buffer, value: Buffer, ids: EventIds) -> Iterable[Event]:
        kind = first_byte(value)
        if not self.is_list and bytes(value) == b'""':
            return iter(())
        if kind == _ARRAY:
            return self._of_list(answer, value, ids)
        if kind == _OBJECT:
            return self._of_object(value, ids)
        reason = NO_OBJECT if first_byte(answer) not in (_OBJECT, _ARRAY) else NO_CONTAINER
        return iter((ids.serial(_as_object(answer), reason),))

    def _of_list(self, answer: Buffer, value: Buffer, ids: EventIds) -> Iterable[Event]:
        if self.is_list:
            listed = ids.listed(value) if len(memoryview(value)) <= LISTED_BYTES else None
            if listed is not None:
                return Listing(listed, partial(json_text.elements, value))
            return _of_elements(json_text.elements(value), ids)
        reason = IS_A_LIST if first_byte(answer) == _OBJECT else NO_OBJECT
        return iter((ids.serial(_as_object(answer), reason),))

    def _of_object(self, value: Buffer, ids: EventIds) -> Iterator[Event]:
        if self.is_list:
            return iter((ids.serial(value, IS_NO_LIST),))
        if json_text.is_empty_object(value):
            return iter(())
        return iter((ids.identified(value, ID_NOT_FOUND),))


def _of_elements(elements: list[msgspec.Raw], ids: EventIds) -> Iterator[Event]:
    object_start = _OBJECT[0]
    for element in elements:
        if memoryview(element)[0] == object_start:
            yield ids.identified(element, ID_NOT_FOUND)
        else:
            yield ids.serial(_as_object(element), NO_OBJECT)


def _as_object(value: Buffer) -> Buffer:
    """Return the value itself where it is an object, else an object around it."""
    if first_byte(value) != _OBJECT:
        return b'{"_exastro_raw_data":%b}' % bytes(value)
    return value
