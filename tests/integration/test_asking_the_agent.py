"""The command status against what answers at STATUS_PORT: an agent in any state, another one, or something else."""

import io
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

import statuses
from exactly_once import Bench
from ita_ag_oase.commands.console import Console
from ita_ag_oase.commands.status import show
from ita_ag_oase.demo.loopback import LoopbackServer, Reply, Request
from ita_ag_oase.observability.language import translations
from ita_ag_oase.observability.logs import Redactor
from ita_ag_oase.settings import Settings
from ita_ag_oase.status import Status
from ita_ag_oase.store.database import StoreLock

Ask = Callable[..., tuple[int, list[str]]]


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Path]:
    """The store that the configuration names, while its agent runs."""
    async with Bench(tmp_path) as bench:
        lock = StoreLock(bench._path)
        lock.try_acquire()
        yield bench._path
        lock.release()


@pytest.fixture
def ask(store: Path) -> Ask:
    """Run the command against what answers so, and return its exit code and lines."""

    def ask(answer: Callable[[Request], Reply], *, as_json: bool = False, **variables: Any) -> tuple[int, list[str]]:
        out = io.StringIO()
        with LoopbackServer(answer) as server:
            settings = Settings(
                exastro_url="http://exastro.test",
                exastro_organization_id="org",
                exastro_workspace_id="ws",
                event_collection_settings_names=("n1",),
                exastro_refresh_token="token",
                **{"status_port": int(server.url.rpartition(":")[2]), **variables},
            )
            console = Console(translations("en"), Redactor(), out=out)
            code = show(console, store, settings, as_json=as_json)
        return code, out.getvalue().splitlines()

    return ask


def telling(status: Status, path: Path | None = None) -> Callable[[Request], Reply]:
    """Return what an agent answers that is in a state, and uses the store at a path."""
    if path is not None and status.store is not None:
        status = replace(status, store=replace(status.store, path=str(path)))
    body = msgspec.json.encode(status, enc_hook=str)
    return lambda request: Reply(body=body) if request.path == "/status.json" else Reply(status=404)


def test_a_healthy_agent_is_an_overview_and_code_0(ask: Ask, store: Path) -> None:
    assert ask(telling(statuses.HEALTHY, store)) == (
        0,
        [
            "● Working: All is well: all 5 sources work, and their events reach Exastro.",
            "",
            "   source                     state    last success  lag  waiting  parked  error",
            "●  Alertmanager               working  4 s ago       4 s        0       0",
            "●  CloudWatch ap-northeast-1  working  4 s ago       4 s        0       0",
            "●  Grafana                    working  4 s ago       4 s        0       0",
            "●  Zabbix production          working  4 s ago       4 s        0       0",
            "●  障害通知メール             working  4 s ago       4 s        0       0",
            "",
            "agent    oase-agent-tokyo-1, version 2.7.1, started 12 d ago",
            "Exastro  http://platform-auth:8000: it answered 3 s ago",
            "outbox   0 events wait, 0 are parked",
            f"store    39.3 MiB of 1.0 GiB used, 8.3 GiB free on the volume: {store}",
            "ledger   it balances",
        ],
    )


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (statuses.SOURCE_FAILING, 1, "■ Failing: Something fails and needs attention."),
        (statuses.EXASTRO_DOWN, 1, "■ Failing: Something fails and needs attention."),
        (statuses.BACKLOG, 1, "▲ Attention: The agent works, but something needs attention."),
        (statuses.PARKED, 1, "▲ Attention: The agent works, but something needs attention."),
        (statuses.MIXED, 1, "■ Failing: Something fails and needs attention."),
        (statuses.STARTING, 0, "○ Starting: The agent is starting: not every source has been polled yet."),
    ],
    ids=["source failing", "Exastro down", "backlog", "parked", "mixed", "starting"],
)
def test_the_code_tells_whether_a_person_is_needed(
    ask: Ask, store: Path, status: Status, code: int, expected: str
) -> None:
    found, lines = ask(telling(status, store))
    assert (found, lines[0]) == (code, expected)


def test_what_fails_is_told_with_what_to_do(ask: Ask, store: Path) -> None:
    _, lines = ask(telling(statuses.SOURCE_FAILING, store))
    assert lines[1] == "  ■ 1 of 5 sources fails: Zabbix production"
    (row,) = [line for line in lines if line.startswith("■  Zabbix production")]
    assert row.endswith("failing  23 min ago    23 min        0       0  " + str(statuses.REFUSED.detail))


def test_json_tells_what_the_agent_does_with_the_verdict(ask: Ask, store: Path) -> None:
    status = statuses.EXASTRO_DOWN
    code, (line,) = ask(telling(status, store), as_json=True)
    told = json.loads(line)
    findings = [(finding["place"], finding["text"]) for finding in told["findings"]]
    assert (code, told["state"], told["level"], findings[0], told["exastro"]["trouble"]["detail"]) == (
        1,
        "running",
        "bad",
        ("exastro", "Exastro cannot be reached, or refuses the agent."),
        str(statuses.UNREACHABLE.detail),
    )


def test_an_agent_that_listens_on_all_addresses_is_asked_on_loopback(ask: Ask, store: Path) -> None:
    assert ask(telling(statuses.HEALTHY, store), status_address="0.0.0.0")[0] == 0


@pytest.mark.parametrize(
    "answer",
    [
        telling(statuses.HEALTHY),
        lambda _: Reply(body=b"<html>", content_type="text/html"),
        lambda _: Reply(body=b'{"version": "1"}'),
        lambda _: Reply(body=b"\xff\xfe"),
        lambda _: Reply(is_cut=True),
        lambda _: Reply(pieces=iter([b"x" * 1_048_576] * 20)),
    ],
    ids=["another agent", "HTML", "another JSON", "no text", "nothing", "too much"],
)
def test_what_is_no_answer_of_the_agent_is_told_and_the_store_read(
    ask: Ask, store: Path, answer: Callable[[Request], Reply]
) -> None:
    code, lines = ask(answer)
    assert (code, lines[0]) == (1, "▲ Running: This is what its store tells.")
    assert "The agent runs, but does not tell how it is doing at port" in lines[1]
    assert lines[-2].endswith(str(store))


def test_an_agent_without_a_status_page_is_not_asked(ask: Ask) -> None:
    requests: list[Request] = []

    def note(request: Request) -> Reply:
        requests.append(request)
        return Reply()

    code, lines = ask(note, status_port=0)
    assert (code, lines[0], requests) == (0, "● Running: This is what its store tells.", [])
