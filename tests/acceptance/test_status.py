"""The status server of a running agent: the probes through its life, and figures that are what happened."""

import signal
import socket
from collections.abc import Mapping
from typing import Any

import pytest

from ita_ag_oase import __version__
from ita_ag_oase.demo.exastro import DemoExastro
from ita_ag_oase.demo.loopback import Reply
from support import (
    AgentProcess,
    Deploy,
    Deployment,
    Gate,
    ListSource,
    ScriptedSource,
    StatusPage,
    free_port,
    wait_for_all,
)

READY = (200, "ok\n")
UNKNOWN = (503, "the settings are not known yet: Exastro has not told them, and none are kept\n")
IN_USE = (503, "another agent uses the store: this one takes over when that one ends\n")
STOPPING = (503, "the agent is stopping\n")


def _begin(
    deploy: Deploy, exastro: DemoExastro, *names: str, **environment: str
) -> tuple[Deployment, AgentProcess, StatusPage]:
    """Start an agent with a status page; return both, and where more can be started."""
    port = free_port()
    deployment = deploy(exastro, *names, STATUS_PORT=str(port), **environment)
    return deployment, deployment.start(), StatusPage(port)


def _wait_for_metrics(agent: AgentProcess, page: StatusPage, wanted: Mapping[str, float]) -> None:
    """Return once metrics have these values."""
    agent.wait_until(lambda: wanted.items() <= page.metrics.items(), f"{wanted}")


def _wait_for_at_least(agent: AgentProcess, page: StatusPage, wanted: Mapping[str, float]) -> None:
    """Return once metrics have at least these values."""
    agent.wait_until(
        lambda: wanted.keys() <= {name for name, value in page.metrics.items() if value >= wanted.get(name, value + 1)},
        f"at least {wanted}",
    )


class TestProbes:
    def test_an_agent_is_alive_from_the_start_and_ready_after_the_first_polls(self, deploy: Deploy) -> None:
        exastro = DemoExastro()
        gate = Gate()

        def wait_to_answer(_: object) -> Reply:
            gate.hold()
            return Reply(body=b"[]")

        with ScriptedSource("slow", wait_to_answer) as source:
            with exastro:
                exastro.rows.append(source.row)
            _, agent, page = _begin(deploy, exastro, source.name)
            agent.wait_until(lambda: page.ask("/readyz") == UNKNOWN, "it to wait for the settings")
            assert page.ask("/livez") == READY
            with exastro:
                agent.wait_until(lambda: gate.is_reached, "the first poll")
                told = (503, "the first poll of 1 source has not ended yet\n")
                agent.wait_until(lambda: page.ask("/readyz") == told, "it to wait for the first poll")
                gate.open()
                agent.wait_until(lambda: page.ask("/readyz") == READY, "it to be ready")

    def test_neither_a_source_nor_exastro_that_fails_makes_it_unready(self, deploy: Deploy) -> None:
        exastro = DemoExastro()
        with ScriptedSource("broken", lambda _: Reply(status=500)) as source:
            with exastro:
                exastro.rows.append(source.row)
                _, agent, page = _begin(deploy, exastro, source.name)
                agent.wait_for_line("collection_failed")
                agent.wait_until(lambda: page.ask("/readyz") == READY, "it to be ready")
            agent.send(signal.SIGHUP)
            agent.wait_for_line("settings_failed")
            assert (page.ask("/livez"), page.ask("/readyz")) == (READY, READY)

    def test_a_second_agent_on_a_store_is_alive_and_ready_once_it_takes_over(self, deploy: Deploy) -> None:
        with ListSource("alarms", 1) as source, DemoExastro([source.row]) as exastro:
            deployment, first, _ = _begin(deploy, exastro, source.name)
            wait_for_all(first, exastro, source)
            port = free_port()
            second, page = deployment.start(STATUS_PORT=str(port)), StatusPage(port)
            second.wait_for_line("store_in_use")
            second.wait_until(lambda: page.ask("/readyz") == IN_USE, "it to wait for the store")
            assert (page.ask("/livez"), page.status["phase"]) == (READY, "waiting_for_store")
            first.terminate()
            second.wait_until(lambda: page.ask("/readyz") == READY, "it to be ready")

    def test_an_agent_that_ends_is_alive_and_not_ready(self, deploy: Deploy) -> None:
        gate = Gate()
        with ListSource("alarms", 1) as source, DemoExastro([source.row]) as exastro:
            exastro.before_answering = gate.hold
            _, agent, page = _begin(deploy, exastro, source.name)
            agent.wait_until(lambda: gate.is_reached, "the answer to be held")
            agent.send(signal.SIGTERM)
            agent.wait_for_line("agent_stopping")
            assert (page.ask("/readyz"), page.ask("/livez")) == (STOPPING, READY)
            gate.open()
            assert agent.wait(seconds=10) == 0
        assert page.ask("/livez") == (0, "")

    def test_a_port_in_use_is_told_once_and_the_agent_works_without(self, deploy: Deploy) -> None:
        with (
            ListSource("alarms", 1) as source,
            DemoExastro([source.row]) as exastro,
            socket.create_server(("127.0.0.1", 0)) as other,
        ):
            agent = deploy(exastro, source.name, STATUS_PORT=str(other.getsockname()[1])).start()
            wait_for_all(agent, exastro, source)
            agent.wait_for_quiet_poll(source.name)
            (line,) = agent.lines("status_server_failed")
            assert (line["level"], line["reason"]) == ("error", "status_server")
            assert "set STATUS_PORT to a free port" in line["detail"]


class TestMetrics:
    def test_of_an_agent_that_is_well(self, deploy: Deploy) -> None:
        with ListSource("alarms", 3) as source, DemoExastro([source.row]) as exastro:
            _, agent, page = _begin(deploy, exastro, source.name)
            wait_for_all(agent, exastro, source)
            agent.wait_for_quiet_poll(source.name)
            _wait_for_metrics(
                agent,
                page,
                {
                    "ready": 1,
                    "source_up alarms": 1,
                    "events_collected_total new alarms": 3,
                    "events_settled_total delivered": 3,
                    "outbox_events waiting": 0,
                    "outbox_events parked": 0,
                    "deliveries_total succeeded": 1,
                    "delivery_size_bytes_count": 1,
                    "settings_refreshes_total succeeded": 1,
                    "exastro_up": 1,
                    "store_working": 1,
                    "ledger_imbalance_events": 0,
                },
            )
            _wait_for_at_least(
                agent,
                page,
                {
                    "polls_total succeeded alarms": 2,
                    "events_collected_total known alarms": 3,
                },
            )
            metrics = page.metrics
            assert 0 <= metrics["source_lag_seconds alarms"] < 30
            assert -30 < metrics["clock_difference_seconds"] < 30
            assert metrics["token_expiry_timestamp_seconds"] > metrics["source_last_success_timestamp_seconds alarms"]
            assert 0 < metrics["store_used_bytes"] < metrics["store_disk_free_bytes"]

    def test_of_a_source_that_fails(self, deploy: Deploy) -> None:
        with (
            ListSource("alarms", 1) as source,
            ScriptedSource("broken", lambda _: Reply(status=500)) as broken,
            DemoExastro([source.row, broken.row]) as exastro,
        ):
            _, agent, page = _begin(deploy, exastro, source.name, broken.name, "unknown")
            _wait_for_at_least(
                agent,
                page,
                {
                    "polls_total http_status broken": 2,
                    "polls_skipped_total broken": 1,
                },
            )
            _wait_for_metrics(
                agent,
                page,
                {
                    "source_up alarms": 1,
                    "source_up broken": 0,
                    "source_up unknown": 0,
                    "polls_total succeeded broken": 0,
                },
            )
            assert "source_last_success_timestamp_seconds broken" not in page.metrics

    def test_of_a_backlog_while_exastro_is_down(self, deploy: Deploy) -> None:
        exastro = DemoExastro()
        with ListSource("alarms", 3) as source:
            with exastro:
                exastro.rows.append(source.row)
                _, agent, page = _begin(deploy, exastro, source.name)
                wait_for_all(agent, exastro, source)
                agent.wait_until_delivered()
            source.add(4)
            _wait_for_metrics(
                agent,
                page,
                {
                    "exastro_up": 0,
                    "outbox_events waiting": 4,
                    "outbox_groups waiting": 1,
                },
            )
            _wait_for_at_least(
                agent,
                page,
                {
                    "deliveries_total unreachable": 1,
                    "outbox_bytes": 1,
                    "outbox_oldest_age_seconds": 1,
                },
            )
            assert "outbox_drain_seconds" not in page.metrics
            with exastro:
                _wait_for_metrics(
                    agent,
                    page,
                    {
                        "exastro_up": 1,
                        "outbox_events waiting": 0,
                        "events_settled_total delivered": 7,
                    },
                )

    def test_of_events_that_are_parked(self, deploy: Deploy) -> None:
        with ListSource("alarms", 3) as source, DemoExastro([source.row]) as exastro:
            exastro.refuses = lambda event: event["id"] == 2
            _, agent, page = _begin(deploy, exastro, source.name)
            agent.wait_for_line("batch_parked")
            agent.wait_until_delivered()
            _wait_for_metrics(
                agent,
                page,
                {
                    "outbox_events parked": 1,
                    "outbox_groups parked": 1,
                    "outbox_events waiting": 0,
                    "events_settled_total parked": 1,
                    "events_settled_total delivered": 2,
                    "ledger_imbalance_events": 0,
                },
            )
            refused = {name: value for name, value in page.metrics.items() if name.startswith("messages_refused")}
            assert list(refused.values()) == [1.0]


def test_the_status_is_told_as_json(deploy: Deploy) -> None:
    with (
        ListSource("alarms", 3) as source,
        ScriptedSource("broken", lambda _: Reply(status=500)) as broken,
        DemoExastro([source.row, broken.row]) as exastro,
    ):
        deployment, agent, page = _begin(deploy, exastro, source.name, broken.name, AGENT_ID="agent-1")
        wait_for_all(agent, exastro, source)
        agent.wait_for_line("collection_failed", setting=broken.name)
        agent.wait_for_quiet_poll(source.name)
        agent.wait_until(lambda: _delivered(page) == 3, "the store to tell that all was delivered")
        status = page.status
        counts = status["sources"][0]
        assert _without_moments(status) == {
            "version": __version__,
            "agent": "agent-1",
            "workspace": "demo-ws",
            "phase": "running",
            "is_ready": True,
            "started": True,
            "now": True,
            "interval_seconds": 3,
            "sources": [
                {
                    "name": "alarms",
                    "is_mail": False,
                    "state": "working",
                    "last_poll": True,
                    "last_success": True,
                    "last_event": True,
                    "trouble": None,
                    "lag_seconds": True,
                    "new_events": 3,
                    "known_events": counts["known_events"],
                    "unusable_events": 0,
                    "ledger": {
                        **dict.fromkeys(("repeated", "waiting", "parked", "already_saved", "dropped", "lost"), 0),
                        "setting_name": "alarms",
                        "seen": counts["ledger"]["known"] + 3,
                        "new": 3,
                        "known": counts["ledger"]["known"],
                        "delivered": 3,
                    },
                },
                {
                    "name": "broken",
                    "is_mail": False,
                    "state": "failing",
                    "last_poll": True,
                    "last_success": None,
                    "last_event": None,
                    "trouble": {
                        "code": "AGT-10029",
                        "reason": "http_status",
                        "detail": status["sources"][1]["trouble"]["detail"],
                        "since": True,
                        "latest": True,
                        "failures": status["sources"][1]["trouble"]["failures"],
                    },
                    "lag_seconds": True,
                    "new_events": 0,
                    "known_events": 0,
                    "unusable_events": 0,
                    "ledger": {
                        "setting_name": "broken",
                        **dict.fromkeys(("seen", "new", "known", "repeated", "waiting", "parked"), 0),
                        **dict.fromkeys(("delivered", "already_saved", "dropped", "lost"), 0),
                    },
                },
            ],
            "exastro": {
                "url": exastro.url,
                "is_reachable": True,
                "last_success": True,
                "trouble": None,
                "token_until": True,
                "settings_fetched": True,
                "clock_difference_seconds": True,
            },
            "outbox": {
                "waiting_groups": 0,
                "waiting_events": 0,
                "waiting_bytes": 0,
                "oldest_age_seconds": None,
                "parked_groups": 0,
                "parked_events": 0,
                "drain_seconds": 0.0,
            },
            "store": {
                "path": str(deployment.store_file),
                "used_bytes": True,
                "max_bytes": 1_073_741_824,
                "disk_free_bytes": True,
                "trouble": None,
                "is_working": True,
            },
            "ledger_imbalance": 0,
            "election": None,
        }
        assert "500" in status["sources"][1]["trouble"]["detail"]
        assert status["sources"][1]["trouble"]["failures"] >= 1
        assert counts["known_events"] >= 3


def _delivered(page: StatusPage) -> int:
    """Return how many events of the first source were delivered, as its ledger tells; -1 before that can be known."""
    sources = page.status["sources"]
    return sources[0]["ledger"]["delivered"] if sources and sources[0]["ledger"] else -1


_MOMENTS = frozenset(
    {
        "started",
        "now",
        "last_poll",
        "last_success",
        "last_event",
        "lag_seconds",
        "since",
        "latest",
        "token_until",
        "settings_fetched",
        "clock_difference_seconds",
        "used_bytes",
        "disk_free_bytes",
    }
)


def _without_moments(value: Any) -> Any:
    """Return a value of JSON in which True stands for each number that is another one each time."""
    if isinstance(value, list):
        return [_without_moments(element) for element in value]
    if not isinstance(value, dict):
        return value
    return {
        name: True if name in _MOMENTS and isinstance(member, int | float) else _without_moments(member)
        for name, member in value.items()
    }


@pytest.mark.parametrize("path", ["/", "/still"])
def test_the_page_is_there(deploy: Deploy, path: str) -> None:
    with DemoExastro() as exastro:
        _, agent, page = _begin(deploy, exastro, "alarms")
        agent.wait_until(lambda: page.ask(path)[0] == 200, "the page")
        assert "<h1" in page.ask(path)[1]
