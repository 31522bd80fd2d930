"""Mistakes in the configuration: all of them at once, in words, exit code 2."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from support import MODULE, PATIENCE_SECONDS, SCRIPT

_GOOD = {
    "EXASTRO_URL": "http://127.0.0.1:9",
    "EXASTRO_ORGANIZATION_ID": "org",
    "EXASTRO_WORKSPACE_ID": "ws",
    "EVENT_COLLECTION_SETTINGS_NAMES": "alarms",
    "EXASTRO_REFRESH_TOKEN": "token",
}
_WRONG = {
    "EXASTRO_URL": "exastro.example:8000",
    "EXASTRO_ORGANIZATION_ID": "my org",
    "EXASTRO_WORKSPACE_ID": "ws/1",
    "EVENT_COLLECTION_SETTINGS_NAMES": " , ",
    "EXASTRO_REFRESH_TOKEN_FILE": "/nowhere/token",
    "EXASTRO_TLS_VERIFY": "perhaps",
    "EXASTRO_CA_FILE": "/nowhere/ca.pem",
    "SOURCE_TLS_VERIFY": "2",
    "SOURCE_CA_FILE": "/nowhere/ca.pem",
    "AGENT_NAME": "a/b",
    "EXECUTE_INTERVAL": "soon",
    "ITERATION": "1.5",
    "LOG_LEVEL": "LOUD",
    "BATCH_MAX_EVENTS": "many",
    "BATCH_MAX_BYTES": "4MB",
}


def _run(folder: Path, command: tuple[str, ...], environment: Mapping[str, str]) -> tuple[int, str, list[str]]:
    """Return exit code, stdout, and the lines of stderr."""
    done = subprocess.run(
        command,
        env={"PATH": os.defpath, "STORAGEPATH": str(folder / "storage"), **environment},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
    )
    return done.returncode, done.stdout, done.stderr.splitlines()


@pytest.mark.parametrize("command", [MODULE, SCRIPT], ids=["module", "script"])
def test_without_any_configuration_every_required_variable_is_named(tmp_path: Path, command: tuple[str, ...]) -> None:
    code, stdout, complaints = _run(tmp_path, command, {})
    assert (code, stdout) == (2, "")
    assert [complaint.split()[0] for complaint in complaints] == list(_GOOD)


def test_all_mistakes_are_named_at_once(tmp_path: Path) -> None:
    code, stdout, complaints = _run(tmp_path, MODULE, _WRONG)
    assert (code, stdout) == (2, "")
    assert sorted(complaint.split()[0] for complaint in complaints) == sorted(_WRONG)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("EXASTRO_REFRESH_TOKEN", ""),
        ("EXASTRO_URL", ""),
        ("AGENT_NAME", "line\nend"),
        ("AGENT_NAME", "x" * 250),
        ("EXASTRO_CA_FILE", os.devnull),
        ("SOURCE_CA_FILE", os.devnull),
    ],
    ids=lambda text: repr(text[:20]),
)
def test_a_single_mistake_is_named_alone(tmp_path: Path, variable: str, value: str) -> None:
    code, stdout, complaints = _run(tmp_path, MODULE, {**_GOOD, variable: value})
    assert code == 2
    assert "Traceback" not in stdout
    assert [complaint.split()[0].rstrip(":,") for complaint in complaints] == [variable]


def test_an_empty_secret_file_is_named(tmp_path: Path) -> None:
    without = {name: value for name, value in _GOOD.items() if name != "EXASTRO_REFRESH_TOKEN"}
    code, stdout, complaints = _run(tmp_path, MODULE, {**without, "EXASTRO_REFRESH_TOKEN_FILE": os.devnull})
    assert (code, stdout) == (2, "")
    assert [complaint for complaint in complaints if "EXASTRO_REFRESH_TOKEN_FILE" not in complaint] == []
    assert complaints != []


@pytest.mark.parametrize("arguments", [("--nonsense",), ("dance",), ("demo", "--seconds", "0")], ids=" ".join)
def test_a_wrong_call_is_answered_with_the_usage(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    code, stdout, complaints = _run(tmp_path, (*SCRIPT, *arguments), _GOOD)
    assert (code, stdout) == (2, "")
    assert complaints[0].startswith("usage: ita-ag-oase")


def test_a_file_can_hold_the_configuration_and_its_mistakes_are_named_likewise(tmp_path: Path) -> None:
    lines = [f"{name}={value}" for name, value in {**_GOOD, "EXECUTE_INTERVAL": "soon"}.items()]
    (tmp_path / "agent.env").write_text("\n".join(lines))
    code, stdout, complaints = _run(tmp_path, MODULE, {"ENVFILEPATH": str(tmp_path / "agent.env")})
    assert (code, stdout) == (2, "")
    assert [complaint.split()[0] for complaint in complaints] == ["EXECUTE_INTERVAL"]
