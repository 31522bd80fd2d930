"""What a user gets who moves settings to another agent: as the page about growth says, with its own commands."""

import json
import re
import shlex
import subprocess
import sys
from urllib.parse import parse_qs

import pytest

from ita_ag_oase import clock
from ita_ag_oase.demo.exastro import DemoExastro
from ita_ag_oase.demo.loopback import Reply, Request
from manual import AVAILABILITY, commands
from support import (
    AgentProcess,
    Deploy,
    Deployment,
    Gate,
    ListSource,
    ScriptedSource,
    arrived,
    wait_for_all,
    wait_until,
)

_INSIDE = [command.partition(" -- ")[2].strip() for command in commands(AVAILABILITY, "kubectl")]


class _TimedSource(ScriptedSource):
    """Is asked for what was made since a time."""

    def __init__(self) -> None:
        parameter = '{"time_from": "{{ EXASTRO_LAST_FETCHED_TIMESTAMP }}"}'
        super().__init__("timed", self._since, PARAMETER=parameter, RESPONSE_KEY="items", EVENT_ID_KEY="id")
        self._times: list[int] = []

    @property
    def ids(self) -> list[str]:
        """The ids of its events, in order."""
        return [str(number) for number in range(1, len(self._times) + 1)]

    def add(self) -> None:
        """Have an event that is made now."""
        self._times.append(int(clock.now()))

    def wait_for_another_second(self) -> None:
        """Return once who asks from now on is not told of the events so far."""
        wait_until(lambda: int(clock.now()) > self._times[-1], "the next second")

    def _since(self, request: Request) -> Reply:
        since = int(parse_qs(request.query)["time_from"][0])
        found = [{"id": number} for number, made in enumerate(self._times, start=1) if made >= since]
        return Reply(body=json.dumps({"items": found}).encode())


def _wait_for_timed(agent: AgentProcess, exastro: DemoExastro, source: _TimedSource) -> None:
    agent.wait_until(lambda: set(arrived(exastro, source.name)) == set(source.ids), "what is asked for by time")


def _sorted(exastro: DemoExastro, setting_name: str) -> list[str]:
    return sorted(arrived(exastro, setting_name), key=int)


def _copy(old: Deployment, new: Deployment) -> None:
    """Copy the store, and drop from the copy what waits, by the commands of the page."""
    names = {"oase-agent-1": old.environment["AGENT_NAME"], "oase-agent-2": new.environment["AGENT_NAME"]}
    folders = {"/before": old.environment["STORAGEPATH"], "/now": new.environment["STORAGEPATH"]}
    (program,) = [text for text in _INSIDE if text.startswith("python -c ")]
    subprocess.run([sys.executable, "-c", _replaced(shlex.split(program)[2], names | folders)], check=True, timeout=60)
    for setting in old.environment["EVENT_COLLECTION_SETTINGS_NAMES"].split(","):
        given = re.sub(r"/now/\S+", str(new.store_file), _drops()[0].replace("your-setting-1", setting))
        # 1 where there was nothing.
        assert new.run(*shlex.split(given)[1:]).returncode in (0, 1)


def _drops() -> list[str]:
    return [text for text in _INSIDE if text.startswith("ita-ag-oase outbox drop")]


def _replaced(text: str, words: dict[str, str]) -> str:
    for word, other in words.items():
        assert "'" not in other
        text = text.replace(word, other)
    return text


def test_the_page_drops_what_waits_of_each_setting_that_the_old_agent_had() -> None:
    assert [re.findall(r"--setting (\S+)", text) for text in _drops()] == [["your-setting-1"], ["your-setting-2"]]


def test_settings_that_move_with_a_copy_of_the_store_lose_and_repeat_nothing(deploy: Deploy) -> None:
    gate = Gate()
    with (
        ListSource("kept", 3) as kept,
        ListSource("moved", 3) as moved,
        _TimedSource() as timed,
        DemoExastro([kept.row, moved.row, timed.row]) as exastro,
    ):
        old = deploy(exastro, "kept", "moved", "timed", AGENT_ID="old")
        new = deploy(exastro, "moved", "timed", AGENT_ID="new")
        first = old.start()
        wait_for_all(first, exastro, kept, moved)
        exastro.before_answering = gate.hold
        # It ends with a request that is saved and not answered, and with more that waits behind it.
        for source in (kept, moved):
            source.add(2)
        first.wait_until(lambda: gate.is_reached, "the answer to be held")
        for source in (kept, moved):
            source.add(2)
        timed.add()
        first.wait_for_quiet_poll("kept", "moved")
        assert first.terminate(seconds=20) == 0
        gate.open()
        _copy(old, new)
        for source in (kept, moved):
            source.add(2)
        timed.add()
        going_on = old.start(EVENT_COLLECTION_SETTINGS_NAMES="kept")
        beginning = new.start()
        wait_for_all(beginning, exastro, kept, moved)
        _wait_for_timed(beginning, exastro, timed)
        going_on.wait_for_quiet_poll("kept")
        beginning.wait_for_quiet_poll("moved", "timed")
        for agent in (going_on, beginning):
            agent.wait_until_delivered()
        assert [_sorted(exastro, source.name) for source in (kept, moved, timed)] == [kept.ids, moved.ids, timed.ids]


def test_a_copy_leaves_the_store_alone_that_the_new_agent_has_already(deploy: Deploy) -> None:
    old, new = (deploy(DemoExastro(), "kept", AGENT_ID=name) for name in ("old", "new"))
    for deployment in (old, new):
        deployment.store_file.parent.mkdir(parents=True)
        deployment.store_file.write_bytes(deployment.environment["AGENT_ID"].encode())
    with pytest.raises(subprocess.CalledProcessError):
        _copy(old, new)
    assert new.store_file.read_bytes() == b"new"


def test_without_a_copy_what_is_open_comes_once_more_and_what_came_in_between_with_the_old_agent_alone(
    deploy: Deploy,
) -> None:
    with (
        ListSource("moved", 2) as moved,
        _TimedSource() as timed,
        DemoExastro([moved.row, timed.row]) as exastro,
    ):
        old = deploy(exastro, "moved", "timed", AGENT_ID="old")
        first = old.start()
        first.wait_for_quiet_poll("timed")
        timed.add()
        _wait_for_timed(first, exastro, timed)
        wait_for_all(first, exastro, moved)
        assert first.terminate() == 0
        timed.add()
        timed.wait_for_another_second()
        second = deploy(exastro, "moved", "timed", AGENT_ID="new").start()
        second.wait_for_quiet_poll("moved", "timed")
        second.wait_until_delivered()
        assert _sorted(exastro, "moved") == ["1", "1", "2", "2"]
        assert arrived(exastro, "timed") == ["1"]
        assert second.terminate() == 0
        # It goes on from where it left off.
        _wait_for_timed(old.start(), exastro, timed)
        assert arrived(exastro, "timed") == timed.ids


def test_while_two_agents_poll_a_setting_its_events_arrive_twice(deploy: Deploy) -> None:
    with _TimedSource() as timed, DemoExastro([timed.row]) as exastro:
        agents = [deploy(exastro, "timed", AGENT_ID=name).start() for name in ("old", "new")]
        for agent in agents:
            agent.wait_for_quiet_poll("timed")
        timed.add()
        for agent in agents:
            agent.wait_for_line("batch_delivered")
        assert arrived(exastro, "timed") == ["1", "1"]
