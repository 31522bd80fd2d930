"""The command: what it accepts, what it prints, and its exit codes."""

import asyncio
import json
import logging
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
from pytest_httpx import HTTPXMock

from ita_ag_oase import __version__
from ita_ag_oase.cli import main
from ita_ag_oase.settings import VARIABLES
from ita_ag_oase.store import schema
from ita_ag_oase.store.database import StoreLock

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@pytest.fixture(autouse=True)
def _undone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Undo what the command sets up for a whole process: signals, logging and the language."""
    monkeypatch.setenv("LANGUAGE", "en")
    handlers = [signal.getsignal(number) for number in SIGNALS]
    root = logging.getLogger()
    log_handlers, root.handlers = root.handlers, []
    level = root.level
    # looptime asks for a loop in every test; one it had to make would be forgotten unclosed by asyncio.run().
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    asyncio.set_event_loop(None)
    loop.close()
    for number, handler in zip(SIGNALS, handlers, strict=True):
        signal.signal(number, handler)
    root.handlers = log_handlers
    root.setLevel(level)
    for name in ("httpx", "httpcore", "hpack"):
        logging.getLogger(name).setLevel(logging.NOTSET)
    structlog.reset_defaults()


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[pytest.MonkeyPatch]:
    """An environment in which the agent is configured, and nothing else of who runs the tests."""
    organization = f"test-{uuid.uuid4().hex[:20]}"
    for name in ("ENVFILEPATH", *(name.upper() for name in VARIABLES)):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.chdir(tmp_path)
    values = {
        "EXASTRO_URL": "http://exastro",
        "STATUS_PORT": "0",
        "EXASTRO_ORGANIZATION_ID": organization,
        "EXASTRO_WORKSPACE_ID": "ws1",
        "EXASTRO_USERNAME": "user",
        "EXASTRO_PASSWORD": "passw0rd",
        "EVENT_COLLECTION_SETTINGS_NAMES": "n1",
        "STORAGEPATH": str(tmp_path / "storage"),
        "AGENT_NAME": "agent",
        "EXECUTE_INTERVAL": "3",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    yield monkeypatch
    shutil.rmtree(Path("/tmp") / organization, ignore_errors=True)


def _said(capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    said = capsys.readouterr()
    return said.out, said.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--version"], f"ita-ag-oase {__version__}\n"),
        (["--help"], "docs/configuration.md"),
        (["demo", "-h"], "--seconds N"),
    ],
    ids=["version", "help", "help of demo"],
)
def test_questions_about_the_command_are_answered(
    capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    out, err = _said(capsys)
    assert (ended.value.code, words in out, err) == (0, True, "")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["fly"], "argument COMMAND: invalid choice: 'fly'"),
        (["run", "--seconds", "3"], "unrecognized arguments: --seconds 3"),
        (["--seconds", "3"], "argument COMMAND: invalid choice: '3'"),
        (["demo", "--seconds"], "argument --seconds: expected one argument"),
        *(
            (
                ["demo", f"--seconds={given}"],
                f"argument --seconds: {given!r} is not a number more than 0 and at most 86400",
            )
            for given in ("0", "-5", "soon", "nan", "inf", "86401", "")
        ),
        (["verify", "--keys"], "unrecognized arguments: --keys"),
        (["outbox", "fly"], "argument ACTION: invalid choice: 'fly'"),
        (["outbox", "retry"], "outbox retry: name the groups by KEY, --setting NAME or --reason TEXT"),
        (["outbox", "drop", "--yes"], "outbox drop: name the groups by KEY, --setting NAME or --reason TEXT"),
        (["outbox", "show"], "the following arguments are required: KEY"),
        (["outbox", "show", "n1"], "argument KEY: 'n1' is no key: write SETTING@FETCHED_TIME"),
        (["outbox", "retry", "n1@-"], "argument KEY: 'n1@-' is no key: write SETTING@FETCHED_TIME"),
        (["outbox", "drop", "@17"], "argument KEY: '@17' is no key: write SETTING@FETCHED_TIME"),
        (["outbox", "export"], "the following arguments are required: FILE"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_call_is_refused_with_code_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str], complaint: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    out, err = _said(capsys)
    assert (ended.value.code, out, complaint in err) == (2, "", True)


@pytest.mark.parametrize("arguments", [[], ["run"]], ids=["no command", "run"])
def test_bad_configuration_ends_with_code_2_and_every_mistake_at_once(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    environment.delenv("EXASTRO_URL")
    environment.setenv("EXECUTE_INTERVAL", "often")
    assert main(arguments) == 2
    out, err = _said(capsys)
    assert out == ""
    assert err.splitlines() == [
        "EXASTRO_URL is missing; write the URL of Exastro, such as http://platform-auth:8000",
        "EXECUTE_INTERVAL is 'often'; write a whole number",
    ]


@pytest.mark.parametrize("variable", ["EXASTRO_CA_FILE", "SOURCE_CA_FILE"])
def test_file_without_a_certificate_ends_with_code_2(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, variable: str
) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("no certificate")
    environment.setenv(variable, str(file))
    assert main(["run"]) == 2
    assert _said(capsys)[1] == f"{variable} {file} holds no certificate; write the path of a PEM file\n"


def test_store_that_cannot_be_made_ends_with_code_1(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    environment.setenv("STORAGEPATH", str(tmp_path / "file" / "below"))
    assert main(["run"]) == 1
    _, err = _said(capsys)
    assert err.startswith(f"the agent cannot go on: {tmp_path}/file/below/")
    assert "(Not a directory): make " in err
    assert err.count("\n") == 1


def test_a_store_of_a_newer_version_ends_with_code_1(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    environment.setenv("EXASTRO_ORGANIZATION_ID", "org1")
    store = tmp_path / "storage/org1/ws1/sqlite/ag_oase_agent.sqlite3"
    store.parent.mkdir(parents=True)
    with closing(sqlite3.connect(store)) as connection:
        connection.execute("PRAGMA user_version = 99")
    assert main(["run"]) == 1
    assert _said(capsys)[1] == (
        f"the agent cannot go on: {store} was written by a newer version of the agent (schema 99, this one,"
        f" {__version__}, knows {schema.newest()}): run the version that wrote it, or move the file away\n"
    )


def test_secrets_do_not_show_in_what_is_printed(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "passw0rd").write_text("")
    environment.setenv("STORAGEPATH", str(tmp_path / "passw0rd"))
    environment.setenv("TZ", "passw0rd")
    assert main(["run"]) == 1
    out, err = _said(capsys)
    assert (json.loads(out)["given"], "********/" in err) == ("********", True)
    assert "passw0rd" not in out + err


_IN_JAPANESE = pytest.mark.parametrize(
    "given", [{"LANGUAGE": "ja"}, {"LANGUAGE": "fr", "DEFAULT_LANGUAGE": "ja"}, {"ENVFILEPATH": "ja.env"}], ids=str
)


def _speak(environment: pytest.MonkeyPatch, given: dict[str, str]) -> None:
    """Have commands speak the language that is given in the environment, or in a file there."""
    Path("ja.env").write_text("LANGUAGE=ja\n", encoding="utf-8")
    for name, value in given.items():
        environment.setenv(name, value)


class TestJapanese:
    """Commands in the language that the configuration names."""

    @_IN_JAPANESE
    def test_a_bad_call_is_refused(
        self, environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], given: dict[str, str]
    ) -> None:
        _speak(environment, given)
        with pytest.raises(SystemExit) as ended:
            main(["run", "--seconds", "3"])
        out, err = _said(capsys)
        assert (ended.value.code, out) == (2, "")
        assert err.splitlines() == [
            "使用法: ita-ag-oase [-h] [--version] COMMAND ...",
            "ita-ag-oase: エラー: 認識できない引数です: --seconds 3",
        ]

    @_IN_JAPANESE
    def test_a_bad_configuration_is_told(
        self, environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], given: dict[str, str]
    ) -> None:
        _speak(environment, given)
        environment.delenv("EXASTRO_URL")
        environment.setenv("EXECUTE_INTERVAL", "often")
        assert main(["run"]) == 2
        assert _said(capsys)[1].splitlines() == [
            "EXASTRO_URL: 指定されていません。http://platform-auth:8000 のような Exastro の URL を指定してください。",
            "EXECUTE_INTERVAL: 値 'often' は使用できません。整数を指定してください。",
        ]

    def test_the_help_of_a_command_is_told(
        self, environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        environment.setenv("LANGUAGE", "ja")
        environment.setenv("COLUMNS", "100")
        with pytest.raises(SystemExit):
            main(["verify", "--help"])
        assert _said(capsys)[0].splitlines() == [
            "使用法: ita-ag-oase verify [-h] [--store PATH] [--json]",
            "",
            "オプション:",
            "  -h, --help    このヘルプを表示して終了する",
            "  --store PATH  ストアのファイル (省略時は設定に従う)",
            "  --json        JSON で出力する",
        ]

    def test_what_keeps_a_command_from_its_work_is_told(
        self, environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        environment.setenv("LANGUAGE", "ja")
        assert main(["verify", "--store", str(tmp_path / "none")]) == 1
        assert _said(capsys) == (
            "",
            f"{tmp_path}/none にストアがありません。STORAGEPATH でファイルを探し、--store で指定してください。\n",
        )

    def test_the_log_is_told(
        self, environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], httpx_mock: HTTPXMock
    ) -> None:
        environment.setenv("LANGUAGE", "ja")
        httpx_mock.add_callback(Exastro(signal.SIGTERM).handle, is_reusable=True)
        assert main(["run"]) == 0
        last = json.loads(_said(capsys)[0].splitlines()[-1])
        assert (last["event"], last["message"]) == ("agent_stopped", "エージェントが停止しました。")


class Exastro:
    """Sends the process a signal when the settings are fetched, then answers."""

    def __init__(self, *numbers: signal.Signals) -> None:
        self.fetches = 0
        self._numbers = list(numbers)

    def handle(self, request: httpx.Request) -> httpx.Response:
        self.fetches += 1
        signal.raise_signal(self._numbers.pop(0))
        body = json.dumps({"result": "000-00000", "message": "SUCCESS", "data": []}).encode()
        return httpx.Response(200, stream=httpx.ByteStream(body))


@pytest.mark.parametrize(
    "numbers",
    [(signal.SIGTERM,), (signal.SIGINT,), (signal.SIGHUP, signal.SIGHUP, signal.SIGTERM)],
    ids=["SIGTERM", "SIGINT", "SIGHUP twice, then SIGTERM"],
)
def test_signals_are_heeded_and_the_end_has_code_0(
    environment: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    httpx_mock: HTTPXMock,
    numbers: tuple[signal.Signals, ...],
) -> None:
    exastro = Exastro(*numbers)
    httpx_mock.add_callback(exastro.handle, is_reusable=True)
    assert main(["run"]) == 0
    out, err = _said(capsys)
    lines: list[dict[str, Any]] = [json.loads(line) for line in out.splitlines()]
    assert [lines[0]["event"], lines[-1]["event"], err] == ["agent_started", "agent_stopped", ""]
    assert exastro.fetches == len(numbers)


def test_values_out_of_range_are_told_in_the_log(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], httpx_mock: HTTPXMock
) -> None:
    environment.setenv("ITERATION", "500")
    httpx_mock.add_callback(Exastro(signal.SIGTERM).handle, is_reusable=True)
    assert main(["run"]) == 0
    first = json.loads(_said(capsys)[0].splitlines()[0])
    del first["time"]
    assert first == {
        "level": "warning",
        "event": "value_adjusted",
        "message": "ITERATION is 500, which is out of range; 120 is used",
        "action": "write a value within the range",
        "variable": "ITERATION",
        "given": 500,
        "used": 120,
    }


def test_signal_before_the_agent_listens_ends_with_code_0(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--version"])
    with pytest.raises(SystemExit) as ended:
        signal.raise_signal(signal.SIGTERM)
    assert ended.value.code == 0


def test_agent_that_waits_for_another_one_ends_with_code_0(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    environment.setenv("EXASTRO_ORGANIZATION_ID", "org1")
    lock = StoreLock(tmp_path / "storage/org1/ws1/sqlite/ag_oase_agent.sqlite3")
    assert lock.try_acquire()
    said: list[str] = []

    class Out:
        """A place for log lines that ends the agent after each one."""

        def write(self, text: str) -> None:
            said.append(text)
            signal.raise_signal(signal.SIGTERM)

        def flush(self) -> None: ...

        def isatty(self) -> bool:
            return False

    environment.setattr(sys, "stdout", Out())
    assert main(["run"]) == 0
    lock.release()
    assert [json.loads(text)["event"] for text in "".join(said).splitlines()] == ["store_in_use", "agent_stopped"]


def test_a_connection_that_breaks_does_not_end_a_command(tmp_path: Path) -> None:
    main(["verify", "--store", str(tmp_path / "none")])
    assert signal.getsignal(signal.SIGPIPE) is signal.SIG_IGN


def test_a_reader_that_is_gone_ends_a_command_without_a_word() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "ita_ag_oase", "check", "--json"]
    ended = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, timeout=60)
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (-signal.SIGPIPE, b"")


def test_module_stands_for_the_command() -> None:
    command = [sys.executable, "-m", "ita_ag_oase", "--version"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, f"ita-ag-oase {__version__}\n", "")
