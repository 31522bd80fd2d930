"""The configuration, read in a process of its own: what arrives of it, and what becomes of the agent without it."""

import errno
import json
import os
import signal
import subprocess
import sys
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


def _open_where_read(fifo: Path) -> int | None:
    """Open a named pipe to write to it and return its descriptor, or None where nobody has it open to read it."""
    try:
        return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
    except OSError as err:
        if err.errno != errno.ENXIO:
            raise
        return None


def test_a_child_that_was_killed_is_told_in_a_sentence(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "token")
    language, told, _ = _read(
        tmp_path,
        meanwhile="os.kill(reader._child[0], signal.SIGKILL)",
        EXASTRO_REFRESH_TOKEN_FILE=str(tmp_path / "token"),
    )
    assert (language, told) == ("en", _ENDED.format(-9))


def test_a_child_whose_agent_was_killed_ends_without_a_word(tmp_path: Path) -> None:
    done = _run(_READ.format(before="", meanwhile="os.kill(os.getpid(), signal.SIGKILL)"), tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGKILL, "", "")


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
    fifo = tmp_path / "token"
    os.mkfifo(fifo)
    environment = {"PATH": os.defpath, **_REQUIRED, "EXASTRO_REFRESH_TOKEN_FILE": str(fifo)}
    ends: list[int] = []

    def is_read() -> bool:
        end = _open_where_read(fifo)
        # While it stays open, who reads waits for the rest.
        ends.extend([] if end is None else [end])
        return end is not None

    with subprocess.Popen(MODULE, env=environment, cwd=tmp_path, stdout=subprocess.PIPE) as agent:
        wait_until(is_read, "the file to be read")
        agent.send_signal(signal.SIGTERM)
        assert agent.wait(PATIENCE_SECONDS) == 0
    assert _open_where_read(fifo) is None
    os.close(*ends)
