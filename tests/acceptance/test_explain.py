"""Where is my event? The real agent among faults, and what the command explain tells of each event."""

import json
import re
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from ita_ag_oase.demo.exastro import DemoExastro
from support import Deploy, Deployment, ListSource, wait_for_all

_TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")


def _explain(deployment: Deployment, *arguments: str) -> list[dict[str, Any]]:
    ended = deployment.run("explain", *arguments, "--json")
    assert (ended.returncode, ended.stderr) == (0, "")
    found: list[dict[str, Any]] = json.loads(ended.stdout)
    return found


def _states(deployment: Deployment, event_id: str) -> list[str]:
    """Return what became of the groups of an event of the only setting, in order."""
    (life,) = _explain(deployment, event_id)
    return [group["state"] for group in life["groups"]]


def test_every_event_is_told_from_its_poll_to_what_became_of_it(deploy: Deploy) -> None:
    with ListSource("alarms", 5) as source, DemoExastro([source.row]) as exastro:
        exastro.refuses = lambda event: event["id"] in (8, 9)
        exastro.faults.append("lost")
        deployment = deploy(exastro, source.name)
        agent = deployment.start()
        wait_for_all(agent, exastro, source)
        agent.wait_until_delivered()
        source.add(5)
        agent.wait_for_line("batch_parked", count=2)
        agent.wait_until_delivered()
        assert _states(deployment, "5") == ["already_saved"]
        assert _states(deployment, "7")[-1] == "delivered"
        assert [_states(deployment, event_id)[-1] for event_id in ("8", "9")] == ["parked", "parked"]
        (life,) = _explain(deployment, "9")
        assert life["groups"][-1]["answer"].startswith("Exastro answered 400 400-00002")
        key = life["groups"][-1]["key"]
        assert deployment.run("outbox", "drop", key, "--yes").returncode == 0
        assert _states(deployment, "9")[-1] == "dropped"
        exastro.refuses = lambda _: False
        assert deployment.run("outbox", "retry", "--setting", source.name).returncode == 0
        agent.wait_until(lambda: (source.name, "8") in exastro.counts, "the event that was sent again")
        agent.wait_until_delivered()
        assert _states(deployment, "8")[-2:] == ["retried", "delivered"]


def test_times_are_those_of_the_zone_in_the_configuration(deploy: Deploy, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("TZ=Asia/Tokyo\n", encoding="utf-8")
    with ListSource("alarms", 1) as source, DemoExastro([source.row]) as exastro:
        exastro.refuses = lambda _: True
        deployment = deploy(exastro, source.name, ENVFILEPATH=str(tmp_path / ".env"))
        deployment.start().wait_for_line("batch_parked")
    (life,) = _explain(deployment, "1")
    seconds, key = life["first_poll"], life["groups"][-1]["key"]
    told = f"{datetime.fromtimestamp(seconds, ZoneInfo('Asia/Tokyo')):%Y-%m-%d %H:%M:%S}"
    assert f"  {told}  the poll started that found it" in deployment.run("explain", "1").stdout.splitlines()
    assert f"fetched time  {seconds} ({told})" in deployment.run("outbox", "show", key).stdout.splitlines()


def test_it_is_told_while_exastro_is_away_and_after_the_agent_has_ended(deploy: Deploy) -> None:
    with ListSource("alarms", 3) as source, DemoExastro([source.row]) as exastro:
        deployment = deploy(exastro, source.name)
        agent = deployment.start()
        wait_for_all(agent, exastro, source)
        agent.wait_until_delivered()
        exastro.faults.extend(["503"] * 100)
        source.add(1)
        agent.wait_for_line("delivery_failed")
        (life,) = _explain(deployment, "4")
        assert (life["state"], life["groups"][-1]["answer"][:20]) == ("in flight", "Exastro was expected")
        assert agent.terminate() == 0
        told = deployment.run("explain", "4").stdout.splitlines()
        assert told[0] == "alarms: it is on its way to Exastro, which has not answered yet"
        assert _states(deployment, "1") == ["delivered"]


def test_it_is_told_in_japanese(deploy: Deploy) -> None:
    with ListSource("alarms", 2) as source, DemoExastro([source.row]) as exastro:
        deployment = deploy(exastro, source.name, LANGUAGE="ja", AGENT_ID="agent-1")
        agent = deployment.start()
        wait_for_all(agent, exastro, source)
        agent.wait_until_delivered()
        assert agent.terminate() == 0
        (life,) = _explain(deployment, "2")
        told = deployment.run("explain", "2")
        unknown = deployment.run("explain", "3", "--setting", "alarms")
    key = life["groups"][0]["key"]
    assert (told.returncode, _TIME.sub("TIME", told.stdout).splitlines(), told.stderr) == (
        0,
        [
            "alarms: Exastro に届いています。",
            "  TIME  ポーリングを開始し、このイベントを検出しました。",
            f"  TIME  Exastro に初めて送信しました (グループ {key} のイベント 2 件中 2 件目、エージェント名 agent-1)。",
            "  TIME  Exastro から、保存したという応答がありました。",
        ],
        "",
    )
    assert (unknown.returncode, unknown.stdout, unknown.stderr) == (
        1,
        "",
        (
            "イベント収集設定 alarms に、ID 3 のイベントの記録はありません。収集していないか、"
            "EVENT_ID_RETENTION_SECONDS の間どの応答にも含まれなかったため、記録が削除されています。"
            "収集元が付けた ID、_exastro_oase_event_id、メールの Message-ID のいずれかを指定してください。\n"
        ),
    )


def test_an_event_without_an_id_of_its_own_is_told_by_the_moment_of_its_poll(deploy: Deploy) -> None:
    with ListSource("alarms", 2, EVENT_ID_KEY=None) as source, DemoExastro([source.row]) as exastro:
        deployment = deploy(exastro, source.name)
        agent = deployment.start()
        agent.wait_until(lambda: len(exastro.saved) >= 2, "the events at Exastro")
        agent.wait_until_delivered()
        saved = exastro.saved[1]
        (life,) = _explain(deployment, str(saved.event["_exastro_oase_event_id"]))
        assert (life["is_certain"], life["first_poll"]) == (False, saved.event["_exastro_fetched_time"])
        assert [group["state"] for group in life["groups"]] == ["delivered"]


def test_an_id_of_two_settings_is_told_of_both_and_an_unknown_one_of_none(deploy: Deploy) -> None:
    with (
        ListSource("alarms", 1) as source,
        ListSource("alerts", 1) as other,
        DemoExastro([source.row, other.row]) as exastro,
    ):
        deployment = deploy(exastro, source.name, other.name)
        agent = deployment.start()
        wait_for_all(agent, exastro, source, other)
        agent.wait_until_delivered()
        assert [life["setting"] for life in _explain(deployment, "1")] == ["alarms", "alerts"]
        assert [life["setting"] for life in _explain(deployment, "1", "--setting", "alerts")] == ["alerts"]
        unknown = deployment.run("explain", "no such event")
        assert (unknown.returncode, unknown.stdout) == (1, "")
        assert unknown.stderr.startswith("nothing is known of an event no such event. It was never collected, or")
