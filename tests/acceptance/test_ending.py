"""SIGTERM ends the agent soon and well, and a second agent on the same store waits for the first to end."""

import signal

import pytest

from ita_ag_oase.demo.exastro import DemoExastro
from ita_ag_oase.demo.loopback import Reply
from support import AgentProcess, Deploy, Gate, ListSource, ScriptedSource, arrived, wait_for_all, wait_for_polls


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_an_idle_agent_ends_with_0(deploy: Deploy, number: signal.Signals) -> None:
    with ListSource("alarms", 1) as source, DemoExastro([source.row]) as exastro:
        agent = deploy(exastro, source.name).start()
        wait_for_all(agent, exastro, source)
        agent.send(number)
        assert agent.wait(seconds=10) == 0
        assert [line["event"] for line in agent.lines()][-1] == "agent_stopped"


def test_an_agent_whose_post_is_held_ends_with_0_and_the_next_one_repeats_nothing(deploy: Deploy) -> None:
    gate = Gate()
    with ListSource("alarms", 5) as source, DemoExastro([source.row]) as exastro:
        deployment = deploy(exastro, source.name)
        exastro.before_answering = gate.hold
        first = deployment.start()
        first.wait_until(lambda: gate.is_reached, "the answer to be held")
        assert first.terminate(seconds=10) == 0
        gate.open()
        source.add(5)
        wait_for_all(deployment.start(), exastro, source)
        assert arrived(exastro, source.name) == source.ids


def test_a_post_in_flight_may_end_after_sigterm(deploy: Deploy) -> None:
    gate = Gate()
    with ListSource("alarms", 5) as source, DemoExastro([source.row]) as exastro:
        exastro.before_answering = gate.hold
        agent = deploy(exastro, source.name).start()
        agent.wait_until(lambda: gate.is_reached, "the answer to be held")
        agent.send(signal.SIGTERM)
        agent.wait_for_line("agent_stopping")
        gate.open()
        assert agent.wait(seconds=10) == 0
        assert [line["events"] for line in agent.lines("batch_delivered")] == [5]


def test_an_agent_ends_with_0_while_a_source_hangs(deploy: Deploy) -> None:
    with (
        ScriptedSource("hanging", lambda _: Reply(hang_seconds=100)) as source,
        DemoExastro([source.row]) as exastro,
    ):
        agent = deploy(exastro, source.name).start()
        wait_for_polls(agent, source, 1)
        assert agent.terminate(seconds=10) == 0


def test_an_agent_ends_with_0_while_exastro_is_down(deploy: Deploy) -> None:
    exastro = DemoExastro()
    with exastro:
        pass
    agent = deploy(exastro, "alarms").start()
    agent.wait_for_line("settings_failed")
    assert agent.terminate(seconds=10) == 0


def test_an_agent_ends_with_0_while_it_waits_for_the_store(deploy: Deploy) -> None:
    with ListSource("alarms", 1) as source, DemoExastro([source.row]) as exastro:
        deployment = deploy(exastro, source.name)
        first = deployment.start()
        wait_for_all(first, exastro, source)
        second = deployment.start()
        second.wait_for_line("store_in_use")
        assert second.terminate(seconds=10) == 0
        assert first.is_running


def _kill(agent: AgentProcess) -> None:
    agent.kill()


def _terminate(agent: AgentProcess) -> None:
    assert agent.terminate() == 0


@pytest.mark.parametrize("end", [_terminate, _kill], ids=["SIGTERM", "SIGKILL"])
def test_a_second_agent_says_that_it_waits_and_takes_over_when_the_first_ends(deploy: Deploy, end: object) -> None:
    assert callable(end)
    with ListSource("alarms", 3) as source, DemoExastro([source.row]) as exastro:
        deployment = deploy(exastro, source.name)
        first = deployment.start()
        wait_for_all(first, exastro, source)
        second = deployment.start()
        second.wait_for_line("store_in_use", level="warning")
        end(first)
        source.add(3)
        second.wait_for_line("agent_started")
        wait_for_all(second, exastro, source)
        second.wait_until_delivered()
        assert arrived(exastro, source.name) == source.ids
        assert len(second.lines("store_in_use")) == 1
