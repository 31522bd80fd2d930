"""The demo: no configuration, readable, and it counts what was lost or repeated."""

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import SCRIPT, AgentProcess, StatusPage

_LAST_LINE = re.compile(r"delivered [1-9]\d* events from 4 sources, lost 0, repeated 0")
_ARRIVAL = re.compile(r"^  \d\d:\d\d:\d\d (\S+)", re.MULTILINE)
_STATUS_PORT = re.compile(r"^How the agent is doing: http://127\.0\.0\.1:(\d+)/$", re.MULTILINE)
_LAST_LINE_JA = re.compile(r"収集元 4 件からイベント [1-9]\d* 件を送信しました \(欠落 0 件、重複 0 件\)。")
_STATUS_PORT_JA = re.compile(r"^エージェントの状態: http://127\.0\.0\.1:(\d+)/$", re.MULTILINE)
_SOURCES = {"zabbix-problems", "alertmanager", "flaky-api", "ops-mailbox"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the demo keeps what it needs while it runs."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    return folder


@pytest.fixture
def demo(tmp_path: Path, folder: Path, request: pytest.FixtureRequest) -> Iterator[AgentProcess]:
    """The demo, started with the parameter's arguments and in its language, without any configuration."""
    arguments, language = request.param
    environment = {"PATH": os.defpath, "TMPDIR": str(folder), "LANGUAGE": language}
    process = AgentProcess((*SCRIPT, "demo", *arguments), environment, tmp_path, 1)
    yield process
    process.end()


@pytest.mark.parametrize("demo", [(("--seconds", "6"), "en")], ids=["6 seconds"], indirect=True)
def test_the_demo_delivers_and_ends_by_itself(demo: AgentProcess, folder: Path) -> None:
    assert (demo.wait(), demo.stderr) == (0, "")
    assert _LAST_LINE.fullmatch(demo.stdout.splitlines()[-1])
    assert set(_ARRIVAL.findall(demo.stdout)) == _SOURCES
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("demo", [((), "en")], ids=["without end"], indirect=True)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_the_demo_ends_well_when_it_is_told_to(demo: AgentProcess, number: signal.Signals) -> None:
    demo.wait_until(lambda: set(_ARRIVAL.findall(demo.stdout)) == _SOURCES, "something from each source")
    (port,) = _STATUS_PORT.findall(demo.stdout)
    assert StatusPage(int(port)).ask("/livez") == (200, "ok\n")
    demo.send(number)
    assert (demo.wait(seconds=20), demo.stderr) == (0, "")
    assert _LAST_LINE.fullmatch(demo.stdout.splitlines()[-1])


@pytest.mark.parametrize("demo", [((), "ja")], ids=["Japanese"], indirect=True)
def test_the_demo_and_its_page_speak_the_language_of_the_environment(demo: AgentProcess) -> None:
    demo.wait_until(lambda: set(_ARRIVAL.findall(demo.stdout)) == _SOURCES, "something from each source")
    (port,) = _STATUS_PORT_JA.findall(demo.stdout)
    assert '<html lang="ja">' in StatusPage(int(port)).ask("/")[1]
    demo.send(signal.SIGINT)
    assert (demo.wait(seconds=20), demo.stderr) == (0, "")
    assert _LAST_LINE_JA.fullmatch(demo.stdout.splitlines()[-1])
