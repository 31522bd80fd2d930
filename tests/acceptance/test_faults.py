"""Whatever happens to posts, to requests for settings, or to Exastro as a whole: everything arrives once, in order."""

import json
import random

import pytest

from ita_ag_oase.demo.exastro import DemoExastro
from ita_ag_oase.demo.loopback import Request
from support import Deploy, Gate, ListSource, arrived, wait_for_all, wait_for_polls

_PASSING = ("503", "cut", "lost", "html", "498", "499-01803", "401")


@pytest.mark.parametrize("fault", _PASSING)
def test_everything_arrives_once_after_a_fault_that_passes(deploy: Deploy, fault: str) -> None:
    with ListSource("alarms", 12) as source, DemoExastro([source.row]) as exastro:
        # A single 401 would be answered with another token, unseen from outside.
        exastro.faults.extend(["401", "401"] if fault == "401" else [fault])
        agent = deploy(exastro, source.name).start()
        wait_for_all(agent, exastro, source)
        agent.wait_until_delivered()
        assert arrived(exastro, source.name) == source.ids
        assert list(exastro.faults) == []
        told = [line["event"] for line in agent.lines() if line["level"] != "debug" and "delivery" in line["event"]]
        assert told == ["delivery_failed", "delivery_recovered"]


def test_a_request_of_which_half_was_saved_arrives_once(deploy: Deploy) -> None:
    names = ("alarms", "alerts", "problems", "errors")
    gate = Gate()
    halved: list[Request] = []

    def halve_the_first_with_several_groups(request: Request) -> str | None:
        gate.hold()
        if halved or len(json.loads(request.body)["events"]) == 1:
            return None
        halved.append(request)
        return "half"

    sources = [ListSource(name, 5) for name in names]
    with sources[0], sources[1], sources[2], sources[3], DemoExastro([source.row for source in sources]) as exastro:
        agent = deploy(exastro, *names).start()
        wait_for_all(agent, exastro, *sources)
        exastro.before_saving = halve_the_first_with_several_groups
        for source in sources:
            source.add(7)
        # While the first post is held the others' events come together in the next one.
        agent.wait_for_line("collection_finished", count=len(names), new=7)
        gate.open()
        wait_for_all(agent, exastro, *sources)
        agent.wait_until_delivered()
        assert [arrived(exastro, source.name) for source in sources] == [source.ids for source in sources]
        assert len(halved) == 1


def test_a_single_413_has_the_request_sent_in_parts(deploy: Deploy) -> None:
    with ListSource("alarms", 12, text_bytes=20_000) as source, DemoExastro([source.row]) as exastro:
        exastro.faults.append("413")
        agent = deploy(exastro, source.name).start()
        wait_for_all(agent, exastro, source)
        agent.wait_until_delivered()
        assert arrived(exastro, source.name) == source.ids
        assert 2 <= len(exastro.posts[1:]) <= 4


def test_a_lasting_limit_of_the_gateway_is_found_and_kept_to(deploy: Deploy) -> None:
    with (
        ListSource("alarms", 100, text_bytes=300) as source,
        ListSource("alerts", 100, text_bytes=300) as other,
        DemoExastro([source.row, other.row], max_request_bytes=20_000) as exastro,
    ):
        agent = deploy(exastro, source.name, other.name).start()
        wait_for_all(agent, exastro, source, other)
        found_after = len(exastro.posts)
        source.add(100)
        other.add(100)
        wait_for_all(agent, exastro, source, other)
        agent.wait_until_delivered()
        for each in (source, other):
            assert arrived(exastro, each.name) == each.ids
        assert [size for size in exastro.posts[found_after:] if size > 20_000] == []


@pytest.mark.parametrize(
    "faults",
    [
        ("lost", "413"),
        ("lost", "400"),
        ("503", "413", "lost"),
        ("cut", "400", "lost"),
        ("413", "lost", "413", "503"),
        ("400", "lost", "cut", "413"),
    ],
    ids="-".join,
)
def test_a_request_that_is_refused_while_its_fate_is_unknown_arrives_once(
    deploy: Deploy, faults: tuple[str, ...]
) -> None:
    with (
        ListSource("alarms", 24, text_bytes=20_000) as source,
        ListSource("alerts", 24, text_bytes=20_000) as other,
        DemoExastro([source.row, other.row]) as exastro,
    ):
        exastro.faults.extend(faults)
        agent = deploy(exastro, source.name, other.name).start()
        wait_for_all(agent, exastro, source, other)
        agent.wait_until_delivered()
        for each in (source, other):
            assert arrived(exastro, each.name) == each.ids
        assert list(exastro.faults) == []


def test_everything_arrives_once_while_faults_of_all_kinds_alternate(deploy: Deploy) -> None:
    random_ = random.Random(1)
    kinds = (*_PASSING, "half", "413")
    # Between two faults a request passes, or the waits after failures would add up.
    turns = [turn for fault in random_.sample(kinds, len(kinds)) for turn in (fault, None)]
    with (
        ListSource("alarms", 100, text_bytes=2_000) as source,
        ListSource("alerts", 100, text_bytes=2_000) as other,
        DemoExastro([source.row, other.row]) as exastro,
    ):
        exastro.before_saving = lambda _: turns.pop(0) if turns else None
        agent = deploy(exastro, source.name, other.name, BATCH_MAX_EVENTS="20").start()
        wait_for_all(agent, exastro, source, other)
        agent.wait_until_delivered()
        for each in (source, other):
            assert arrived(exastro, each.name) == each.ids
        assert turns == []


@pytest.mark.parametrize("fault", ["503", "cut", "html", "498", "401"])
def test_settings_are_fetched_again_after_a_fault(deploy: Deploy, fault: str) -> None:
    with ListSource("alarms", 3) as source, DemoExastro([source.row]) as exastro:
        exastro.settings_faults.extend([fault] * 2)
        agent = deploy(exastro, source.name).start()
        wait_for_all(agent, exastro, source)
        assert arrived(exastro, source.name) == source.ids
        assert list(exastro.settings_faults) == []


def test_the_known_settings_serve_while_exastro_is_down_at_start(deploy: Deploy) -> None:
    with ListSource("alarms", 4) as source:
        exastro = DemoExastro()
        with exastro:
            exastro.rows.append(source.row)
            deployment = deploy(exastro, source.name)
            first = deployment.start()
            wait_for_all(first, exastro, source)
            first.terminate()
        polls = len(source.polls)
        source.add(4)
        second = deployment.start()
        wait_for_polls(second, source, polls + 1)
        second.wait_for_line("collection_finished", setting=source.name, new=4)
        assert arrived(exastro, source.name) == source.ids[:4]
        with exastro:
            wait_for_all(second, exastro, source)
            second.wait_until_delivered()
            second.wait_for_line("settings_recovered")
            assert arrived(exastro, source.name) == source.ids


def test_an_agent_without_known_settings_waits_for_exastro_to_come_up(deploy: Deploy) -> None:
    exastro = DemoExastro()
    with ListSource("alarms", 4) as source:
        with exastro:
            exastro.rows.append(source.row)
        agent = deploy(exastro, source.name).start()
        agent.wait_for_line("settings_failed")
        with exastro:
            wait_for_all(agent, exastro, source)
            assert arrived(exastro, source.name) == source.ids


def test_exastro_that_goes_down_and_comes_back_gets_everything_once(deploy: Deploy) -> None:
    exastro = DemoExastro()
    with ListSource("alarms", 4) as source:
        with exastro:
            exastro.rows.append(source.row)
            agent = deploy(exastro, source.name).start()
            wait_for_all(agent, exastro, source)
        source.add(4)
        agent.wait_for_line("delivery_failed")
        with exastro:
            wait_for_all(agent, exastro, source)
            agent.wait_until_delivered()
            assert arrived(exastro, source.name) == source.ids
