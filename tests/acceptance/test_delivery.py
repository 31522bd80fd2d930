"""Events go from sources to Exastro, with each way of authentication and with tokens that live shortly."""

import json
from pathlib import Path

import pytest

from ita_ag_oase.demo.exastro import PASSWORD, USERNAME, DemoExastro
from support import MODULE, SCRIPT, Deploy, ListSource, arrived, wait_for_all

_BY_PASSWORD = {"EXASTRO_REFRESH_TOKEN": "", "EXASTRO_USERNAME": USERNAME, "EXASTRO_PASSWORD": PASSWORD}


@pytest.mark.parametrize("command", [SCRIPT, (*SCRIPT, "run"), MODULE], ids=["script", "script run", "module"])
def test_each_way_to_start_the_agent_delivers(deploy: Deploy, command: tuple[str, ...]) -> None:
    with ListSource("alarms", 1) as source, DemoExastro([source.row]) as exastro:
        wait_for_all(deploy(exastro, source.name).start(command), exastro, source)
        assert arrived(exastro, source.name) == source.ids


def test_events_arrive_once_and_in_order_with_a_refresh_token(deploy: Deploy) -> None:
    with ListSource("alarms", 30) as source, DemoExastro([source.row]) as exastro:
        agent = deploy(exastro, source.name).start(SCRIPT)
        wait_for_all(agent, exastro, source)
        source.add(20)
        wait_for_all(agent, exastro, source)
        agent.wait_for_quiet_poll(source.name)
        assert arrived(exastro, source.name) == source.ids
        assert exastro.unauthorized == 0


def test_events_arrive_once_with_user_and_password(deploy: Deploy) -> None:
    with ListSource("alarms", 5) as source, DemoExastro([source.row]) as exastro:
        agent = deploy(exastro, source.name, **_BY_PASSWORD).start()
        wait_for_all(agent, exastro, source)
        agent.wait_until_delivered()
        assert arrived(exastro, source.name) == source.ids
        assert (exastro.tokens_issued, exastro.unauthorized) == (0, 0)


def test_the_refresh_token_comes_from_its_file(deploy: Deploy, tmp_path: Path) -> None:
    with ListSource("alarms", 1) as source, DemoExastro([source.row]) as exastro:
        deployment = deploy(exastro, source.name, EXASTRO_REFRESH_TOKEN_FILE=str(tmp_path / "token"))
        (tmp_path / "token").write_text(deployment.environment.pop("EXASTRO_REFRESH_TOKEN") + "\n")
        wait_for_all(deployment.start(), exastro, source)
        assert arrived(exastro, source.name) == source.ids


def test_the_refresh_token_wins_where_both_ways_are_configured(deploy: Deploy) -> None:
    with ListSource("alarms", 1) as source, DemoExastro([source.row]) as exastro:
        agent = deploy(exastro, source.name, EXASTRO_USERNAME="nobody", EXASTRO_PASSWORD="wrong").start()
        wait_for_all(agent, exastro, source)
        assert (exastro.tokens_issued, exastro.unauthorized) == (1, 0)


def test_events_carry_their_labels_and_nothing_else_is_changed(deploy: Deploy) -> None:
    with ListSource("alarms", 2, TTL=90) as source, DemoExastro([source.row]) as exastro:
        agent = deploy(exastro, source.name, AGENT_ID="agent of the test", HOSTNAME="a pod").start()
        wait_for_all(agent, exastro, source)
        saved = exastro.events_of(source.name)
        fetched_time = saved[0].event["_exastro_fetched_time"]
        assert [dict(event.event) for event in saved] == [
            {
                "id": number,
                "text": "x" * 20,
                "_exastro_oase_event_id": str(number),
                "_exastro_event_collection_settings_name": "alarms",
                "_exastro_event_collection_settings_id": source.row["EVENT_COLLECTION_SETTINGS_ID"],
                "_exastro_fetched_time": fetched_time,
                "_exastro_end_time": fetched_time + 90,
            }
            for number in (1, 2)
        ]
        assert {(event.agent_name, event.fetched_time) for event in saved} == {("agent of the test", fetched_time)}


def test_an_event_that_cannot_be_used_arrives_once_with_the_reason(deploy: Deploy) -> None:
    with (
        ListSource("alarms", 1, RESPONSE_KEY="nowhere") as source,
        ListSource("others", 1) as other,
        DemoExastro([source.row, other.row]) as exastro,
    ):
        agent = deploy(exastro, source.name, other.name).start()
        agent.wait_for_quiet_poll(source.name, other.name)
        (saved,) = exastro.events_of(source.name)
        assert saved.event["items"] == [{"id": 1, "text": "x" * 20}]
        assert saved.event["_exastro_not_available"] == "RESPONSE_KEY not found"
        assert arrived(exastro, other.name) == other.ids


def test_the_last_event_reaches_the_template_of_the_next_poll_also_after_a_restart(deploy: Deploy) -> None:
    template = (
        "{% if EXASTRO_LAST_FETCHED_EVENT_IS_EXIST %}"
        '{"from": "{{ EXASTRO_LAST_FETCHED_EVENT.id|int + 1 }}"}{% else %}{"from": "start"}{% endif %}'
    )
    with ListSource("alarms", 4, PARAMETER=template) as source, DemoExastro([source.row]) as exastro:
        deployment = deploy(exastro, source.name)
        first = deployment.start()
        wait_for_all(first, exastro, source)
        first.terminate()
        assert source.requests.pop(0).query == "from=start"
        source.requests.clear()
        source.add(1)
        wait_for_all(deployment.start(), exastro, source)
        assert source.requests[0].query == "from=5"


def test_a_token_that_lives_shortly_is_renewed_before_it_expires(deploy: Deploy) -> None:
    # Shorter than the time between two polls, so that each needs a token of its own.
    with ListSource("alarms", 3) as source, DemoExastro([source.row], token_seconds=2.5) as exastro:
        agent = deploy(exastro, source.name).start()
        for _ in range(2):
            wait_for_all(agent, exastro, source)
            source.add(3)
        wait_for_all(agent, exastro, source)
        assert arrived(exastro, source.name) == source.ids
        assert exastro.tokens_issued >= 3
        assert exastro.unauthorized == 0


def test_a_token_that_is_revoked_is_replaced_once_it_is_refused(deploy: Deploy) -> None:
    with ListSource("alarms", 3) as source, DemoExastro([source.row]) as exastro:
        agent = deploy(exastro, source.name).start()
        wait_for_all(agent, exastro, source)
        exastro.revoke_access_tokens()
        source.add(3)
        wait_for_all(agent, exastro, source)
        assert arrived(exastro, source.name) == source.ids
        assert (exastro.tokens_issued, exastro.unauthorized) == (2, 1)
        assert agent.lines("delivery_failed") == []


def test_a_rotated_refresh_token_outlives_the_agent(deploy: Deploy) -> None:
    with (
        ListSource("alarms", 3) as source,
        DemoExastro([source.row], token_seconds=2.5, rotates_tokens=True) as exastro,
    ):
        deployment = deploy(exastro, source.name)
        first = deployment.start()
        wait_for_all(first, exastro, source)
        source.add(3)
        wait_for_all(first, exastro, source)
        first.kill()
        issued_before = exastro.tokens_issued
        source.add(3)
        second = deployment.start()
        wait_for_all(second, exastro, source)
        assert arrived(exastro, source.name) == source.ids
        # The configured token stopped being good with the first renewal.
        assert exastro.tokens_issued > issued_before >= 2
        assert second.lines("settings_failed") + second.lines("delivery_failed") == []


def test_every_line_on_stdout_is_json_with_a_time_a_level_and_an_event(deploy: Deploy) -> None:
    with ListSource("alarms", 1) as source, DemoExastro([source.row]) as exastro:
        agent = deploy(exastro, source.name).start()
        wait_for_all(agent, exastro, source)
        agent.wait_until_delivered()
        assert agent.terminate() == 0
        lines = [json.loads(line) for line in agent.stdout.splitlines()]
        assert [line for line in lines if not {"time", "level", "event"} <= line.keys()] == []
        assert [line["event"] for line in lines if line["level"] != "debug"] == [
            "agent_started",
            "settings_applied",
            "collection_finished",
            "batch_delivered",
            "agent_stopping",
            "agent_stopped",
        ]
