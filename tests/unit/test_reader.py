"""The configuration, read in a process of its own: what arrives of it, and what becomes of the agent without it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support import MODULE, PATIENCE_SECONDS, wait_until

_REQUIRED = {
    "EXASTRO_URL": "http://platform-auth:8000",
    "EXASTRO_ORGANIZATION_ID": "org",
    "EXASTRO_WORKSPACE_ID": "ws",
    "EVENT_COLLECTION_SETTINGS_NAMES": "n1",
    "EXASTRO_REFRESH_TOKEN": "hidden",
    "LANGUAGE": "ja",
}
# A process of its own each time: whether it can fork depends on what else it does.
_READ = """
import json, os, signal, sys, threading
from ita_ag_oase.errors import AgentError, ConfigError
from ita_ag_oase.reader import Reader
{before}
with Reader() as reader:
    {meanwhile}
    configuration = reader.configuration()
try:
    found = repr(configuration.settings())
    found += " " + configuration.settings().refresh_token
except ConfigError as err:
    found = [[variable, str(text)] for variable, text in err.problems]
except AgentError as err:
    found = str(err)
is_read_here = "pydantic" in sys.modules
from ita_ag_oase import environment
if isinstance(found, str) and found.startswith("Settings("):
    assert found == repr(environment.load()) + " " + environment.load().refresh_token
    found = "as here"
print(json.dumps([configuration.language, found, is_read_here]))
"""
_ENDED = (
    "the process that reads the configuration ended before it was done (exit code {}): where that is -9, the system "
    "has ended it, so raise the memory limit"
)
_AS_HERE = ["ja", "as here", False]
_READ_HERE = ["ja", "as here", True]


def _run(script: str, folder: Path, **variables: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", script],
        env={"PATH": os.defpath, **_REQUIRED, **variables},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
    )


def _read(folder: Path, *, before: str = "", meanwhile: str = "pass", **variables: str) -> Any:
    """Return the language, what was read, and whether that was done in the process itself."""
    done = _run(_READ.format(before=before, meanwhile=meanwhile), folder, **variables)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def test_what_arrives_is_what_is_read_without_a_child_and_pydantic_stays_out(tmp_path: Path) -> None:
    assert _read(tmp_path, EXECUTE_INTERVAL="1", STORAGEPATH="/data") == _AS_HERE


def test_every_mistake_arrives(tmp_path: Path) -> None:
    assert _read(tmp_path, EXASTRO_URL="", ITERATION="often", STATUS_ADDRESS="nowhere") == [
        "ja",
        [
            ["EXASTRO_URL", "is missing; write the URL of Exastro, such as http://platform-auth:8000"],
            ["ITERATION", "is 'often'; write a whole number"],
            [
                "STATUS_ADDRESS",
                "is 'nowhere'; write an address of this machine, such as 127.0.0.1, 0.0.0.0 or ::",
            ],
        ],
        False,
    ]


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        pytest.param("signal.signal(signal.SIGCHLD, signal.SIG_IGN)", _AS_HERE, id="children are forgotten"),
        pytest.param("threading.Thread(target=threading.Event().wait, daemon=True).start()", _READ_HERE, id="threads"),
        pytest.param("del os.fork", _READ_HERE, id="no fork on this system"),
        pytest.param("def fork(): raise BlockingIOError\nos.fork = fork", _READ_HERE, id="no room for a process"),
    ],
)
def test_the_configuration_is_read_whatever_the_surroundings(
    tmp_path: Path, before: str, expected: list[object]
) -> None:
    assert _read(tmp_path, before=before) == expected


@contextmanager
def _held_up(folder: Path) -> Iterator[tuple[str, Callable[[], int]]]:
    """Yield the path of a file whose reader waits for its end, and what waits for a reader and returns the other end.

    A write fails once nobody reads it any more.
    """
    path = folder / "token"
    os.mkfifo(path)
    opened: list[int] = []

    def is_read() -> bool:
        try:
            opened.append(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
        except OSError:
            return False
        return True

    def other_end() -> int:
        wait_until(is_read, "the file to be read")
        return opened[-1]

    try:
        yield str(path), other_end
    finally:
        for descriptor in opened:
            os.close(descriptor)


def test_a_child_that_was_killed_is_told_in_a_sentence(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "token")
    language, told, _ = _read(
        tmp_path,
        meanwhile="os.kill(reader._child[0], signal.SIGKILL)",
        EXASTRO_REFRESH_TOKEN_FILE=str(tmp_path / "token"),
    )
    assert (language, told) == ("en", _ENDED.format(-9))


def test_a_mistake_of_ours_in_the_child_ends_the_agent_with_code_1_and_is_shown(tmp_path: Path) -> None:
    script = """
import sys
from ita_ag_oase.cli import main
sys.modules["ita_ag_oase.environment"] = None
sys.exit(main(["run"]))
"""
    done = _run(script, tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Traceback")
    assert done.stderr.splitlines()[-1] == f"the agent cannot go on: {_ENDED.format(1)}"


def test_an_agent_that_is_stopped_while_its_configuration_is_read_leaves_no_process(tmp_path: Path) -> None:
    with _held_up(tmp_path) as (path, other_end):
        environment = {"PATH": os.defpath, **_REQUIRED, "EXASTRO_REFRESH_TOKEN_FILE": path}
        with subprocess.Popen(MODULE, env=environment, cwd=tmp_path, stdout=subprocess.PIPE) as agent:
            descriptor = other_end()
            agent.send_signal(signal.SIGTERM)
            assert agent.wait(PATIENCE_SECONDS) == 0
        with pytest.raises(BrokenPipeError):
            os.write(descriptor, b"token")
