"""`ita-ag-oase explain`: the life of one event, for a person who asks where it is."""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ita_ag_oase.commands.console import Colour, Console
from ita_ag_oase.commands.tables import moment
from ita_ag_oase.model import EventLife, GroupRecord, GroupState, Outcome
from ita_ag_oase.store.access import StoreAccess
from ita_ag_oase.text import Text, counted

_NOW: Mapping[GroupState | Outcome, Text] = {
    GroupState.WAITING: Text("it waits for delivery"),
    GroupState.IN_FLIGHT: Text("it is on its way to Exastro, which has not answered yet"),
    GroupState.PARKED: Text("it is parked, and does not reach Exastro until someone has it sent again"),
    Outcome.DELIVERED: Text("Exastro has it"),
    Outcome.ALREADY_SAVED: Text("Exastro has it"),
    Outcome.DROPPED: Text("someone dropped it"),
}
_COLOURS: Mapping[GroupState | Outcome, Colour] = {
    GroupState.PARKED: Colour.BAD,
    Outcome.DROPPED: Colour.BAD,
    Outcome.DELIVERED: Colour.GOOD,
    Outcome.ALREADY_SAVED: Colour.GOOD,
}
_NOT_KNOWN = Text("what became of it is not known")


class _Step(NamedTuple):
    """Something that happened at a time, which may be the present (None)."""

    time: int | None
    text: Text


def explain(console: Console, path: Path, event_id: str, *, setting_name: str | None, as_json: bool) -> int:
    """Print what is known of the events of an id; return 1 where there are none."""
    with StoreAccess(path) as store:
        # People copy the id of a mail with its angle brackets or without.
        lives = store.lives(event_id, setting_name) or store.lives(f"<{event_id}>", setting_name)
    if as_json:
        console.json([_facts(life) for life in lives])
    else:
        for life in lives:
            _print(console, life)
    if not lives:
        console.warn(_unknown(event_id, setting_name))
    return 0 if lives else 1


def _print(console: Console, life: EventLife) -> None:
    state = _state(life)
    text = _NOW.get(state, _NOT_KNOWN) if state else _NOT_KNOWN
    if not life.is_certain:
        text = Text("the agent made this id up, for want of EVENT_ID_KEY: here is all that its poll brought")
    colour = _COLOURS.get(state) if state else None
    console.say(Text("{setting}: {text}", setting=life.setting_name, text=text), colour=colour)
    for step in _steps(life):
        time = Text("now") if step.time is None else moment(step.time, console.zone)
        console.say(Text("  {time}  {text}", time=time, text=step.text))


def _state(life: EventLife) -> GroupState | Outcome | None:
    return life.records[-1].state if life.records and life.is_certain else None


def _steps(life: EventLife) -> list[_Step]:
    """Return what happened to an event, in the order of time."""
    steps = [*_sightings(life)]
    before: GroupRecord | None = None
    for record in life.records:
        steps += _of_group(record, before)
        before = record if life.is_certain else None
    if not life.records:
        steps.append(
            _Step(
                None,
                Text(
                    "nothing more is known: what became of an event is forgotten EVENT_ID_RETENTION_SECONDS after that,"
                    " or sooner where very much comes in, and was never noted of one that the stock agent or an early"
                    " version has delivered"
                ),
            )
        )
    return sorted(steps, key=lambda step: (step.time is None, step.time))


def _sightings(life: EventLife) -> Iterator[_Step]:
    if life.first_poll is not None:
        yield _Step(life.first_poll, Text("the poll started that found it"))
    if life.last_seen is not None and life.last_seen != life.first_poll:
        yield _Step(
            life.last_seen, Text("the source still listed it (noted now and then: it may have done so for longer)")
        )


def _of_group(record: GroupRecord, before: GroupRecord | None) -> Iterator[_Step]:
    offers_before = before.offers if before else 0
    if record.offers and not offers_before:
        yield _Step(record.first_offer, Text("offered to Exastro for the first time, in {group}", group=_group(record)))
    if record.offers > max(offers_before, 1):
        yield _Step(
            record.latest_offer,
            Text("offered again, {count} times in all, in {group}", count=record.offers, group=_group(record)),
        )
    yield from _outcome(record)


def _outcome(record: GroupRecord) -> Iterator[_Step]:
    if record.state is GroupState.WAITING and not record.offers:
        yield _Step(None, Text("waits for delivery, in {group}", group=_group(record)))
        return
    if record.state in (GroupState.WAITING, GroupState.IN_FLIGHT) and record.answer:
        yield _Step(record.latest_offer, Text("this came of it: {answer}", answer=record.answer))
    texts = _WITH_ANSWER if record.answer else _WITHOUT_ANSWER
    yield _Step(record.time, texts[record.state].about(answer=record.answer))


_WITHOUT_ANSWER: Mapping[GroupState | Outcome, Text] = {
    GroupState.WAITING: Text("waits for the next request"),
    GroupState.IN_FLIGHT: Text("the request is sent, and sent again, until Exastro tells what became of it"),
    GroupState.PARKED: Text("it was parked"),
    Outcome.DELIVERED: Text("Exastro answered that it saved it"),
    Outcome.ALREADY_SAVED: Text("Exastro answered that it has it already, from an offer whose answer was lost"),
    Outcome.DROPPED: Text("someone dropped it, by `ita-ag-oase outbox drop`"),
    Outcome.MOVED: Text("Exastro had something else under this key already: the group goes on under a later one"),
    Outcome.CUT: Text("its group was cut in two"),
    Outcome.RETRIED: Text("someone had it sent again, by `ita-ag-oase outbox retry`"),
}
_WITH_ANSWER: Mapping[GroupState | Outcome, Text] = {
    **_WITHOUT_ANSWER,
    GroupState.PARKED: Text(
        "parked, since Exastro will not have it or it cannot be read: {answer}. `ita-ag-oase outbox` shows, retries or"
        " drops it"
    ),
    Outcome.ALREADY_SAVED: Text(
        "Exastro answered that it has it already, from an offer whose answer was lost: {answer}"
    ),
    Outcome.DROPPED: Text("someone dropped it, by `ita-ag-oase outbox drop`; it had been parked: {answer}"),
    Outcome.MOVED: Text(
        "Exastro had something else under this key already: the group goes on under a later one. It answered: {answer}"
    ),
    Outcome.CUT: Text("its group was cut in two: {answer}"),
    Outcome.RETRIED: Text("someone had it sent again, by `ita-ag-oase outbox retry`; it had been parked: {answer}"),
}


def _group(record: GroupRecord) -> Text:
    if record.place is None:
        return counted(
            "the group {key} of {count} event, under the agent name {agent}",
            "the group {key} of {count} events, under the agent name {agent}",
            count=record.event_count,
            key=record.key,
            agent=record.agent_name,
        )
    return Text(
        "the group {key} as event {place} of {count}, under the agent name {agent}",
        key=record.key,
        place=record.place,
        count=record.event_count,
        agent=record.agent_name,
    )


def _unknown(event_id: str, setting_name: str | None) -> Text:
    hint = Text(
        "It was never collected, or is forgotten since no answer has listed it for EVENT_ID_RETENTION_SECONDS. Give the"
        " id as the source writes it, the event's _exastro_oase_event_id, or a mail's Message-ID."
    )
    if setting_name is None:
        return Text("nothing is known of an event {id}. {hint}", id=event_id, hint=hint)
    return Text(
        "nothing is known of an event {id} of the setting {setting}. {hint}",
        id=event_id,
        setting=setting_name,
        hint=hint,
    )


def _facts(life: EventLife) -> dict[str, Any]:
    return {
        "setting": life.setting_name,
        "setting_id": life.setting_id,
        "state": _state(life),
        "first_poll": life.first_poll,
        "last_seen": life.last_seen,
        "is_certain": life.is_certain,
        "groups": [dataclasses.asdict(record) | {"key": str(record.key)} for record in life.records],
    }
