"""SIGKILL at any moment loses nothing and repeats nothing, while the sources list everything at each poll and grow."""

import random

import pytest

from ita_ag_oase.demo.exastro import DemoExastro
from support import MOMENTS, AgentProcess, Assassin, Deploy, Deployment, Gate, ListSource, arrived, wait_for_all


@pytest.mark.timeout(300)
def test_killing_over_and_over_at_varied_moments_loses_and_repeats_nothing(deploy: Deploy) -> None:
    random_ = random.Random(1)
    with (
        ListSource("alarms") as source,
        ListSource("problems") as other,
        DemoExastro([source.row, other.row]) as exastro,
    ):
        # A poll is cut into several requests, so that there are several posts to be killed in.
        deployment = deploy(exastro, source.name, other.name, BATCH_MAX_EVENTS="10")
        assassin = Assassin(deployment.start, exastro, lambda: len(source.polls), random.Random(1))
        for moment in random_.sample(MOMENTS, len(MOMENTS)):
            source.add(random_.randint(25, 60))
            other.add(random_.randint(25, 60))
            assassin.strike(moment)
        assert assassin.kills == len(deployment.processes) == 18
        _judge(deployment, exastro, source, other)


def test_killing_in_the_middle_of_saving_a_large_answer_loses_and_repeats_nothing(deploy: Deploy) -> None:
    random_ = random.Random(3)
    with ListSource("alarms") as source, DemoExastro([source.row]) as exastro:
        deployment = deploy(exastro, source.name)
        for part in range(6):
            source.add(6_000)
            agent = deployment.start()
            agent.wait_for_line("settings_applied")
            before = deployment.stored_bytes
            # Up to more than such an answer takes in the store, so that commits and posts are hit, too.
            enough = before + (part + random_.random()) * 500_000
            _wait_until_stored(agent, deployment, enough, exastro, source)
            agent.kill()
        _judge(deployment, exastro, source)


def test_a_restart_under_another_host_name_repeats_nothing(deploy: Deploy) -> None:
    gate = Gate()
    with ListSource("alarms", 20) as source, DemoExastro([source.row]) as exastro:
        exastro.before_answering = gate.hold
        deployment = deploy(exastro, source.name)
        first = deployment.start(HOSTNAME="pod-1")
        first.wait_until(lambda: gate.is_reached, "the answer to be held")
        first.kill()
        gate.open()
        source.add(20)
        second = deployment.start(HOSTNAME="pod-2")
        wait_for_all(second, exastro, source)
        second.wait_for_quiet_poll(source.name)
        assert arrived(exastro, source.name) == source.ids
        assert {event.agent_name for event in exastro.saved[:20]} == {"pod-1"}


def _wait_until_stored(
    agent: AgentProcess, deployment: Deployment, enough: float, exastro: DemoExastro, source: ListSource
) -> None:
    agent.wait_until(
        lambda: deployment.stored_bytes > enough or len(exastro.counts) == len(source.ids),
        "the answer to be saved in part",
    )


def _judge(deployment: Deployment, exastro: DemoExastro, *sources: ListSource) -> None:
    _let_all_pass(exastro)
    agent = deployment.start()
    wait_for_all(agent, exastro, *sources)
    agent.wait_for_quiet_poll(*(source.name for source in sources))
    assert agent.terminate() == 0
    assert [arrived(exastro, source.name) for source in sources] == [source.ids for source in sources]
    assert exastro.repeated == 0


def _let_all_pass(exastro: DemoExastro) -> None:
    exastro.before_saving = lambda _: None
    exastro.before_answering = lambda: None
