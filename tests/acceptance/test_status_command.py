"""How is the agent doing? The command status beside the real agent, and where it has ended."""

import json
import os
import re
import subprocess

from ita_ag_oase import __version__
from ita_ag_oase.demo.exastro import DemoExastro
from ita_ag_oase.demo.loopback import Reply
from support import MODULE, PATIENCE_SECONDS, Deploy, Deployment, ListSource, ScriptedSource, free_port, wait_for_all


def test_it_tells_whether_the_agent_runs_and_what_its_store_holds(deploy: Deploy) -> None:
    with ListSource("alarms", 3) as source, DemoExastro([source.row]) as exastro:
        exastro.refuses = lambda event: event["id"] == 4
        deployment = deploy(exastro, source.name, STATUS_PORT="0")
        agent = deployment.start()
        wait_for_all(agent, exastro, source)
        agent.wait_until_delivered()
        well = deployment.run("status")
        assert (well.returncode, well.stdout.splitlines()[0], well.stderr) == (
            0,
            "● Running: This is what its store tells.",
            "",
        )
        source.add(1)
        agent.wait_for_line("batch_parked")
        attention = deployment.run("status")
        assert (attention.returncode, attention.stdout.splitlines()[1]) == (
            1,
            "  ▲ 1 event is parked and does not reach Exastro.",
        )
        agent.kill()
        stopped = deployment.run("status", "--json")
        told = json.loads(stopped.stdout)
        (alarms,) = told["sources"]
        assert (stopped.returncode, told["state"], alarms["ledger"]["parked"], told["outbox"]["waiting_events"]) == (
            1,
            "stopped",
            1,
            0,
        )


def test_it_is_told_in_japanese(deploy: Deploy) -> None:
    with ListSource("alarms", 1) as source, DemoExastro([source.row]) as exastro:
        exastro.refuses = lambda _: True
        deployment = deploy(exastro, source.name, LANGUAGE="ja")
        agent = deployment.start()
        agent.wait_for_line("batch_parked")
        agent.kill()
        done = deployment.run("status")
    said = re.sub(r"[\d.]+ [KMG]iB", "SIZE", done.stdout.replace(str(deployment.store_file), "STORE"))
    assert (done.returncode, re.sub(r"\d+ 秒 +", "N 秒  ", said).splitlines(), done.stderr) == (
        1,
        [
            "■ 停止: ストアの内容を表示しています。",
            "  ■ エージェントが稼働していません。",
            "    エージェントを起動してください。それまでの間、イベントは収集元とアウトボックスに残ります。",
            "  ▲ イベント 1 件が保留中で、Exastro に届いていません。",
            "    `ita-ag-oase outbox` で理由を確認できます。原因を取り除いた後、同じコマンドで再送できます。",
            "",
            "収集元  遅延  送信待ち  保留",
            "alarms  N 秒  0     1",
            "",
            "アウトボックス  送信待ち 0 件、保留 1 件",
            "ストア          使用量 SIZE / SIZE、ボリュームの空き SIZE: STORE",
            "収支            一致",
        ],
        "",
    )


def test_a_running_agent_tells_of_itself_in_every_folder(deploy: Deploy) -> None:
    broken = ScriptedSource("broken", lambda _: Reply(status=503))
    with ListSource("alarms", 3) as source, broken, DemoExastro([source.row, broken.row]) as exastro:
        exastro.refuses = lambda event: event["id"] == 3
        deployment = deploy(exastro, source.name, broken.name, STATUS_PORT=str(free_port()), STORAGEPATH="storage")
        agent = deployment.start()
        agent.wait_for_line("batch_parked")
        agent.wait_for_line("collection_failed")
        agent.wait_until_delivered()
        here = deployment.run("status")
        deployment.environment["STORAGEPATH"] = str(deployment.store_file.parents[3])
        elsewhere = deployment.run("status")
        assert [(done.returncode, _steady(done.stdout, deployment)) for done in (here, elsewhere)] == 2 * [
            (
                1,
                [
                    "■ Failing: Something fails and needs attention.",
                    "■ 1 of 2 sources fails: broken",
                    f"{broken.url} answered 503 Service Unavailable: it cannot serve now",
                    "▲ 1 event is parked and does not reach Exastro.",
                    (
                        "`ita-ag-oase outbox` shows them with the reasons. Once the cause is mended, it has them sent "
                        "again."
                    ),
                    "",
                    "source state last success lag waiting parked error",
                    "● alarms working AGE ago AGE 0 1",
                    f"■ broken failing AGE 0 0 {broken.url} answered 503 Service Unavailable: it cannot serve now",
                    "",
                    f"agent {deployment.environment['AGENT_NAME']}, version {__version__}, started AGE ago",
                    f"Exastro {exastro.url}: it answered AGE ago",
                    "outbox 0 events wait, 1 is parked",
                    "store SIZE of SIZE used, SIZE free on the volume: STORE",
                    "ledger it balances",
                ],
            )
        ]


def _steady(told: str, deployment: Deployment) -> list[str]:
    """Return lines without what differs from run to run, and what is aligned by it."""
    told = re.sub(r"\b\d+ (s|min)\b", "AGE", told.replace(str(deployment.store_file), "STORE"))
    return [" ".join(line.split()) for line in re.sub(r"[\d.]+ [KMG]iB", "SIZE", told).splitlines()]


def test_the_store_alone_can_be_named_without_any_configuration(deploy: Deploy) -> None:
    with ListSource("alarms", 3) as source, DemoExastro([source.row]) as exastro:
        deployment = deploy(exastro, source.name)
        agent = deployment.start()
        wait_for_all(agent, exastro, source)
        agent.wait_until_delivered()
        named = subprocess.run(
            [*MODULE, "status", "--store", str(deployment.store_file)],
            env={"PATH": os.defpath},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
        )
        assert (named.returncode, named.stdout.splitlines()[0]) == (0, "● Running: This is what its store tells.")
