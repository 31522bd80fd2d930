"""Changed settings take effect when the settings file is deleted and on SIGHUP; whoever is not concerned goes on."""

import itertools
import signal
from collections.abc import Callable

import pytest

from ita_ag_oase.demo.exastro import DemoExastro
from support import AgentProcess, Deploy, Deployment, ListSource, arrived, wait_for_all, wait_for_polls


def _delete_the_file(deployment: Deployment, _: AgentProcess) -> None:
    deployment.settings_file.unlink()


def _send_sighup(_: Deployment, agent: AgentProcess) -> None:
    agent.send(signal.SIGHUP)


_REFRESH = pytest.mark.parametrize("refresh", [_delete_the_file, _send_sighup], ids=["file deleted", "SIGHUP"])


@_REFRESH
def test_new_changed_and_gone_settings_take_effect(
    deploy: Deploy, refresh: Callable[[Deployment, AgentProcess], None]
) -> None:
    with (
        ListSource("kept", 1) as kept,
        ListSource("changed", 1) as changed,
        ListSource("changed", 3) as changed_to,
        ListSource("gone", 1) as gone,
        ListSource("added", 2) as added,
        DemoExastro([kept.row, changed.row, gone.row]) as exastro,
    ):
        # Far more than this test takes: nothing but the refresh brings the new settings.
        deployment = deploy(exastro, "kept", "changed", "gone", "added", ITERATION="120")
        agent = deployment.start()
        wait_for_all(agent, exastro, kept, changed, gone)
        agent.wait_until(deployment.settings_file.exists, "the settings file")
        exastro.rows = [kept.row, changed_to.row, added.row]
        refresh(deployment, agent)
        wait_for_all(agent, exastro, kept, changed_to, added)
        agent.wait_until(deployment.settings_file.exists, "the settings file again")
        left, left_gone = len(changed.polls), len(gone.polls)
        kept.add(1)
        wait_for_all(agent, exastro, kept)
        # By its second poll the others would have had theirs.
        wait_for_polls(agent, added, 2)
        assert exastro.fetches == 2
        assert (len(changed.polls), len(gone.polls)) == (left, left_gone)
        assert [arrived(exastro, name) for name in ("kept", "changed", "gone", "added")] == [
            kept.ids,
            changed_to.ids,
            gone.ids,
            added.ids,
        ]
        assert [gap for gap in _gaps(kept.polls) if not 1.5 < gap < 4.5] == []


def test_a_name_that_exastro_does_not_know_is_told_once(deploy: Deploy) -> None:
    with ListSource("alarms", 1) as source, DemoExastro([source.row]) as exastro:
        agent = deploy(exastro, "alarms", "unheard-of").start()
        wait_for_all(agent, exastro, source)
        fetches = exastro.fetches
        agent.send(signal.SIGHUP)
        agent.wait_until(lambda: exastro.fetches > fetches, "the settings to be fetched again")
        agent.wait_for_quiet_poll(source.name)
        assert [line["setting"] for line in agent.lines("setting_unusable")] == ["unheard-of"]


def _gaps(polls: list[float]) -> list[float]:
    return [later - earlier for earlier, later in itertools.pairwise(polls)]
