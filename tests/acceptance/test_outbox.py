"""What a person does with parked events while the agent works: looked at, kept, sent again once, or dropped."""

import json
from typing import Any

from ita_ag_oase.demo.exastro import DemoExastro
from ita_ag_oase.demo.loopback import Request
from support import AgentProcess, Deploy, Deployment, Gate, ListSource, arrived, wait_for_all


def _json(deployment: Deployment, *arguments: str) -> Any:
    ended = deployment.run(*arguments, "--json")
    assert (ended.returncode, ended.stderr) == (0, "")
    return json.loads(ended.stdout)


def _ledger(deployment: Deployment, name: str) -> dict[str, Any]:
    (ledger,) = [each for each in _json(deployment, "verify")["settings"] if each["setting_name"] == name]
    return {fact: count for fact, count in ledger.items() if count}


def _discard(exastro: DemoExastro, source: ListSource) -> None:
    exastro.rows = [
        {**row, "DISUSE_FLAG": "1"} if row["EVENT_COLLECTION_SETTINGS_NAME"] == source.name else row
        for row in exastro.rows
    ]


def _park_all(agent: AgentProcess, exastro: DemoExastro, source: ListSource) -> str:
    """Discard the source's setting while its first post is held, and return the key of what is parked then."""
    gate = Gate()

    def hold(_: Request) -> None:
        gate.hold()

    exastro.before_saving = hold
    agent.wait_until(lambda: gate.is_reached, "the post to be held")
    _discard(exastro, source)
    gate.open()
    agent.wait_for_line("batch_parked")
    (line,) = agent.lines("batch_parked")
    return f"{line['setting']}@{line['fetched_time']}"


def test_events_of_a_setting_that_came_back_are_sent_again_and_arrive_once(deploy: Deploy) -> None:
    with ListSource("alarms", 12) as source, DemoExastro([source.row]) as exastro:
        deployment = deploy(exastro, source.name)
        agent = deployment.start()
        key = _park_all(agent, exastro, source)
        (parked,) = _json(deployment, "outbox", "list", "--keys")
        assert (parked["key"], parked["state"], parked["events"]) == (key, "parked", 12)
        assert "discarded" in deployment.run("outbox", "list").stdout
        (shown,) = _json(deployment, "outbox", "show", key, "--all")
        assert [each["event"]["id"] for each in shown["shown"]] == list(range(1, 13))
        exported = [json.loads(line) for line in deployment.run("outbox", "export", "-").stdout.splitlines()]
        assert [line["event"] for line in exported] == [each["event"] for each in shown["shown"]]
        exastro.rows = [source.row]
        assert _json(deployment, "outbox", "retry", key) == {"groups": 1, "events": 12}
        wait_for_all(agent, exastro, source)
        agent.wait_until_delivered()
        assert arrived(exastro, source.name) == source.ids
        assert deployment.run("outbox").stdout == "the outbox is empty\n"
        assert _ledger(deployment, source.name)["delivered"] == 12


def test_an_answer_that_gets_lost_after_a_retry_repeats_nothing(deploy: Deploy) -> None:
    with ListSource("alarms", 5) as source, DemoExastro([source.row]) as exastro:
        deployment = deploy(exastro, source.name)
        agent = deployment.start()
        _park_all(agent, exastro, source)
        exastro.rows = [source.row]
        exastro.faults.extend(["lost", "503"])
        _json(deployment, "outbox", "retry", "--setting", source.name)
        wait_for_all(agent, exastro, source)
        agent.wait_until_delivered()
        assert arrived(exastro, source.name) == source.ids
        assert _ledger(deployment, source.name)["already_saved"] == 5


def test_refused_events_are_dropped_and_the_ledger_tells(deploy: Deploy) -> None:
    with ListSource("alarms", 9) as source, DemoExastro([source.row]) as exastro:
        exastro.refuses = lambda event: event["id"] in (2, 5)
        deployment = deploy(exastro, source.name)
        agent = deployment.start()
        agent.wait_for_line("batch_parked", count=2)
        agent.wait_until_delivered()
        first, second = [group["key"] for group in _json(deployment, "outbox", "list", "--keys")]
        unasked = deployment.run("outbox", "drop", first)
        assert (unasked.returncode, unasked.stdout) == (2, "")
        assert _json(deployment, "outbox", "drop", first, "--yes") == {"groups": 1, "events": 1}
        exastro.refuses = lambda _: False
        assert _json(deployment, "outbox", "retry", second) == {"groups": 1, "events": 1}
        source.add(1)
        agent.wait_until(lambda: {(source.name, "5"), (source.name, "10")} <= exastro.counts.keys(), "what was kept")
        agent.wait_until_delivered()
        assert sorted(arrived(exastro, source.name), key=int) == ["1", "3", "4", "5", "6", "7", "8", "9", "10"]
        ledger = _ledger(deployment, source.name)
        assert (ledger["new"], ledger["delivered"], ledger["dropped"]) == (10, 9, 1)


def test_looking_at_a_store_again_and_again_does_not_hinder_the_agent(deploy: Deploy) -> None:
    with ListSource("alarms", 400, text_bytes=2_000) as source, DemoExastro([source.row]) as exastro:
        deployment = deploy(exastro, source.name, BATCH_MAX_EVENTS="20")
        exastro.faults.extend(["lost", "503", "413"])
        agent = deployment.start()
        agent.wait_for_line("batch_sending")
        for action in (["list"], ["list", "--keys"], ["export", "-", "--waiting"]):
            assert deployment.run("outbox", *action).returncode == 0
            assert deployment.run("outbox", "retry", "--setting", source.name).returncode in (0, 1)
            assert _json(deployment, "verify")["findings"] == []
            source.add(20)
        wait_for_all(agent, exastro, source)
        agent.wait_until_delivered()
        assert arrived(exastro, source.name) == source.ids


def test_the_commands_work_when_no_agent_runs(deploy: Deploy) -> None:
    with ListSource("alarms", 3) as source, DemoExastro([source.row]) as exastro:
        deployment = deploy(exastro, source.name)
        first = deployment.start()
        _park_all(first, exastro, source)
        assert first.terminate() == 0
        exastro.rows = [source.row]
        assert _json(deployment, "outbox", "retry", "--reason", "499-01827") == {"groups": 1, "events": 3}
        second = deployment.start()
        wait_for_all(second, exastro, source)
        second.wait_until_delivered()
        assert arrived(exastro, source.name) == source.ids
