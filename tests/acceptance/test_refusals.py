"""What Exastro refuses for good is parked in the store, as little of it as possible, and the rest goes on."""

from collections.abc import Callable

import pytest

from ita_ag_oase.demo.exastro import DemoExastro
from ita_ag_oase.demo.loopback import Request
from support import AgentProcess, Deploy, Gate, ListSource, arrived, wait_for_all


def _parked(agent: AgentProcess) -> list[tuple[str, int]]:
    return [(line["setting"], line["events"]) for line in agent.lines("batch_parked")]


def test_events_that_exastro_refuses_are_narrowed_down_and_the_rest_arrives_once(deploy: Deploy) -> None:
    refused = ["1", "17", "18", "40"]
    with (
        ListSource("alarms", 40) as source,
        ListSource("alerts", 10) as other,
        DemoExastro([source.row, other.row]) as exastro,
    ):
        exastro.refuses = lambda event: "alarms" in event.values() and event["_exastro_oase_event_id"] in refused
        agent = deploy(exastro, source.name, other.name).start()
        agent.wait_for_line("batch_parked", count=len(refused))
        wait_for_all(agent, exastro, other)
        source.add(5)
        agent.wait_until(lambda: (source.name, "45") in exastro.counts, "what came after the refused events")
        agent.wait_until_delivered()
        assert arrived(exastro, source.name) == [event_id for event_id in source.ids if event_id not in refused]
        assert arrived(exastro, other.name) == other.ids
        assert _parked(agent) == [(source.name, 1)] * len(refused)


def test_a_refused_event_stays_parked_after_a_restart(deploy: Deploy) -> None:
    with ListSource("alarms", 3) as source, DemoExastro([source.row]) as exastro:
        exastro.refuses = lambda event: event["id"] == 2
        deployment = deploy(exastro, source.name)
        first = deployment.start()
        first.wait_for_line("batch_parked")
        first.kill()
        source.add(3)
        second = deployment.start()
        second.wait_until(lambda: (source.name, "6") in exastro.counts, "what came after the refused event")
        second.wait_until_delivered()
        assert arrived(exastro, source.name) == ["1", "3", "4", "5", "6"]
        assert _parked(second) == []


def _discard(exastro: DemoExastro, name: str) -> None:
    exastro.rows = [
        {**row, "DISUSE_FLAG": "1"} if row["EVENT_COLLECTION_SETTINGS_NAME"] == name else row for row in exastro.rows
    ]


def _remove(exastro: DemoExastro, name: str) -> None:
    exastro.rows = [row for row in exastro.rows if row["EVENT_COLLECTION_SETTINGS_NAME"] != name]


_TAKE_AWAY = pytest.mark.parametrize("take_away", [_discard, _remove], ids=["discarded", "removed"])


@_TAKE_AWAY
def test_a_setting_taken_away_between_poll_and_post_is_parked(
    deploy: Deploy, take_away: Callable[[DemoExastro, str], None]
) -> None:
    with (
        ListSource("alarms", 3) as source,
        ListSource("alerts") as other,
        DemoExastro([source.row, other.row]) as exastro,
    ):
        gate = _hold_posts(exastro)
        agent = deploy(exastro, source.name, other.name).start()
        agent.wait_until(lambda: gate.is_reached, "the post to be held")
        take_away(exastro, source.name)
        gate.open()
        agent.wait_for_line("batch_parked")
        other.add(2)
        wait_for_all(agent, exastro, other)
        assert _parked(agent) == [(source.name, 3)]
        assert (arrived(exastro, source.name), arrived(exastro, other.name)) == ([], other.ids)


@_TAKE_AWAY
def test_what_travels_with_a_setting_taken_away_arrives(
    deploy: Deploy, take_away: Callable[[DemoExastro, str], None]
) -> None:
    with (
        ListSource("alarms", 3) as source,
        ListSource("alerts", 3) as other,
        DemoExastro([source.row, other.row]) as exastro,
    ):
        agent = deploy(exastro, source.name, other.name).start()
        wait_for_all(agent, exastro, source, other)
        gate = _hold_posts(exastro)
        source.add(4)
        other.add(4)
        agent.wait_for_line("collection_finished", count=2, new=4)
        take_away(exastro, source.name)
        gate.open()
        agent.wait_for_line("batch_parked")
        wait_for_all(agent, exastro, other)
        assert _parked(agent) == [(source.name, 4)]
        assert (arrived(exastro, source.name), arrived(exastro, other.name)) == (source.ids[:3], other.ids)


def _hold_posts(exastro: DemoExastro) -> Gate:
    gate = Gate()

    def hold(_: Request) -> None:
        gate.hold()

    exastro.before_saving = hold
    return gate
