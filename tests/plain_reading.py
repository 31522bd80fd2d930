"""The decision table of protocol section 2.6 in the plainest words: all of an answer is decoded, and looked at."""

import json
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import jmespath
from jmespath.exceptions import JMESPathTypeError

from ita_ag_oase.model import Event


class Found(NamedTuple):
    """An event with its JSON decoded; one with a serial id has its number in the poll, None until that is known."""

    id: str | int | None
    value: Any
    unavailable: str | None


def read(body: bytes, *, response_key: str | None, event_id_key: str | None, is_list: bool) -> tuple[list[Found], bool]:
    """Return the events of an answer, and whether it was the expected one."""
    answer = value_of(body.decode("utf-8-sig"))
    response_key = response_key or None
    value = jmespath.search(response_key, answer) if response_key else answer
    # Of a null answer, `@` finds that.
    if response_key not in (None, "@") and value is None:
        events, has_key = list(_without_key(answer, is_list=is_list)), answer == []
    else:
        events, has_key = list(_of_value(answer, value, event_id_key, is_list=is_list)), True
    serials = iter(range(len(events)))
    return [event if event.id is not None else event._replace(id=next(serials)) for event in events], has_key


def value_of(text: str) -> Any:
    """Return a JSON value; numbers that are none are texts, and lone surrogates are U+FFFD."""
    return _without_surrogates(json.loads(text, strict=False, parse_constant=str, parse_float=_finite))


def decoded(event: Event, first_serial: int) -> Found:
    """Return an event of the agent's as one of this reader."""
    value = value_of(bytes(event.raw).decode())
    return Found(int(event.id) - first_serial if event.is_serial else event.id, value, event.unavailable)


def _without_key(answer: Any, *, is_list: bool) -> Iterator[Found]:
    if isinstance(answer, list) and (is_list or not answer):
        yield from (Found(None, _as_object(element), "RESPONSE_KEY not found") for element in answer)
    else:
        yield Found(None, _as_object(answer), "RESPONSE_KEY not found")


def _of_value(answer: Any, value: Any, event_id_key: str | None, *, is_list: bool) -> Iterator[Found]:
    if isinstance(value, list) and is_list:
        for element in value:
            if isinstance(element, dict):
                yield _identified(element, event_id_key)
            else:
                yield Found(None, _as_object(element), "event format is Invalid.(not Object)")
    elif isinstance(value, list):
        reason = "RESPONSE_LIST_FLAG is incorrect.(List Type)"
        is_object = isinstance(answer, dict)
        yield Found(None, _as_object(answer), reason if is_object else "event format is Invalid.(not Object)")
    elif isinstance(value, dict) and is_list:
        yield Found(None, value, "RESPONSE_LIST_FLAG is incorrect.(Not List Type)")
    elif isinstance(value, dict):
        yield from [_identified(value, event_id_key)] if value else []
    elif is_list or value != "":
        reason = "RESPONSE_KEY value is Invalid.(not Object and not List)"
        is_inside = isinstance(answer, dict | list)
        yield Found(None, _as_object(answer), reason if is_inside else "event format is Invalid.(not Object)")


def _identified(value: dict[str, Any], event_id_key: str | None) -> Found:
    if event_id_key is None:
        return Found(None, value, None)
    try:
        found = jmespath.search(event_id_key, value)
    except JMESPathTypeError:
        found = None
    return Found(None, value, "EVENT_ID_KEY not found") if found is None else Found(str(found), value, None)


def _as_object(value: Any) -> Any:
    return value if isinstance(value, dict) else {"_exastro_raw_data": value}


def _finite(text: str) -> float | str:
    number = float(text)
    return number if math.isfinite(number) else text


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, list):
        return [_without_surrogates(element) for element in value]
    if isinstance(value, dict):
        return {_without_surrogates(name): _without_surrogates(member) for name, member in value.items()}
    return value
