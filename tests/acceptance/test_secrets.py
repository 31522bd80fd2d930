"""No secret is ever shown, at DEBUG and in the worst of circumstances: who fails quotes what it was sent.

Secrets are planted in every place that one can come from, what can fail is made to fail (`quoting.py`), and whatever
can be seen is searched for any part of any secret in every form (`planted.py`).
"""

import contextlib
import itertools
import json
import os
import pty
import re
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from ita_ag_oase.demo.exastro import USERNAME, DemoExastro
from ita_ag_oase.demo.loopback import Reply, Request, as_json
from planted import forms, leaks, odd_secret, web_token
from quoting import COLUMNS, LITERALS, SENT, Outside, quoting_exastro, quoting_outside
from support import MODULE, AgentProcess, Deploy, Deployment, ListSource, StatusPage, free_port, wait_until

# Each runs some seventy commands, which takes 15 s, but much longer beside other work.
pytestmark = pytest.mark.timeout(300)

_REFRESH_TOKEN, _PASSWORD = odd_secret("refresh token"), odd_secret("password")
_HTTP_PROXY, _HTTPS_PROXY = odd_secret("HTTP_PROXY"), odd_secret("HTTPS_PROXY")
_ENVIRONMENT = {
    "EXASTRO_REFRESH_TOKEN": _REFRESH_TOKEN,
    "EXASTRO_PASSWORD": _PASSWORD,
    "HTTP_PROXY": _HTTP_PROXY,
    "HTTPS_PROXY": _HTTPS_PROXY,
}
# What Exastro says of one event after the other: each of these secrets in every form, whole or cut by a limit in turn.
_QUOTED = [
    form
    for secret in (_HTTP_PROXY, *(COLUMNS[name] for name in ("AUTH_TOKEN, long", "PASSWORD", "SECRET_ACCESS_KEY")))
    for name, form in forms(secret)
    if name != "small letters"
]
_ANSWER_CHARACTERS = 256
# Each of them is a request of its own, some hundred.
_REFUSED, _REFUSED_SECONDS = "every event to be refused", 120.0

# Runs commands one after the other in one process, which is quick.
_RUN = """
import json, os, sys
from ita_ag_oase.cli import main
for variables, arguments in json.loads(sys.stdin.read()):
    print("\\n$", *arguments, *variables.values(), flush=True)
    os.environ.update(variables)
    try:
        main(arguments)
    except SystemExit as err:
        assert not err.code
"""


def test_no_secret_is_seen_of_an_agent_with_a_refresh_token(deploy: Deploy, tmp_path: Path) -> None:
    port = free_port()
    issued: dict[str, str] = {}
    with (
        quoting_outside() as outside,
        quoting_exastro() as other,
        ListSource("good", 2 * len(_QUOTED)) as good,
        DemoExastro(
            [*outside.rows, good.row],
            refresh_token=_REFRESH_TOKEN,
            make_token=_tokens(issued),
            token_seconds=2.5,
            rotates_tokens=True,
        ) as exastro,
    ):
        exastro.before_saving = _refusing()
        deployment = deploy(exastro, *_names(outside), "good", **_proxied(outside), STATUS_PORT=str(port))
        _move_into_file(deployment, tmp_path / ".env", "EXASTRO_REFRESH_TOKEN", "HTTPS_PROXY")
        agent = deployment.start()
        agent.wait_until(lambda: len(agent.lines("batch_parked")) == len(good.ids), _REFUSED, seconds=_REFUSED_SECONDS)
        failed = ("collection_failed", "setting_unusable")
        agent.wait_until(lambda: _settings_in(agent.lines(), *failed) >= {*_names(outside)}, "every setting to fail")
        surfaces = {
            **_pages(port),
            **_commands(deployment, [*_LOOKING, *_showing(agent), *_fetching(outside), *_asking(other)]),
            "command line": Path(f"/proc/{agent.pid}/cmdline").read_text(),
        }
        files = {"settings file": deployment.settings_file.read_text(), **_files_of(deployment, "running")}
        assert agent.terminate() == 0
        surfaces |= {"stdout": agent.stdout, "stderr": agent.stderr}
        files |= {**_files_of(deployment, "ended"), **_tables_of(deployment)}
    encrypted = {**_ENVIRONMENT, **COLUMNS, **issued}
    assert leaks({**encrypted, **LITERALS, **SENT}, surfaces) == set()
    assert leaks(encrypted, files) == set()
    assert [name for name, text in surfaces.items() if not text] == ["stderr"]
    assert agent.stdout.count("********") > len(good.ids)


def test_no_secret_is_seen_of_an_agent_with_a_password_on_a_terminal(deploy: Deploy, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(_PASSWORD)
    with (
        quoting_outside() as outside,
        quoting_exastro() as other,
        ListSource("good", 2 * len(_QUOTED)) as good,
        DemoExastro([*outside.rows, good.row], password=_PASSWORD) as exastro,
    ):
        exastro.before_saving = _refusing()
        login = {"EXASTRO_REFRESH_TOKEN": "", "EXASTRO_USERNAME": USERNAME, "EXASTRO_PASSWORD_FILE": str(file)}
        deployment = deploy(exastro, *_names(outside), "good", **_proxied(outside), **login)
        with _terminal(deployment) as shown:
            wait_until(
                lambda: shown().count("batch_parked") >= len(good.ids),
                _REFUSED,
                seconds=_REFUSED_SECONDS,
                last_words=shown,
            )
            wait_until(
                lambda: {*re.findall(r"setting=([\w-]+)", shown())} >= {*_names(outside)}, "every setting to fail"
            )
        surfaces = {"terminal": shown(), **_commands(deployment, [*_fetching(outside), *_ECHO, *_asking(other)])}
        files = _files_of(deployment, "ended")
    encrypted = {**_ENVIRONMENT, **COLUMNS}
    assert leaks({**encrypted, **LITERALS, **SENT}, surfaces) == set()
    assert leaks(encrypted, files) == set()
    assert surfaces["terminal"].count("********") > len(good.ids)


Command = tuple[Mapping[str, str], Sequence[str]]

_LOOKING: list[Command] = [
    ({}, command.split())
    for command in (
        "check",
        "check --json",
        "status",
        "status --json",
        "explain 1",
        "explain 7 --json",
        "outbox list",
        "outbox list --keys --json",
        "outbox export --setting good -",
        "verify",
        "verify --json",
        "demo --seconds 1",
        "--help",
        "fetch --help",
    )
]
_ECHO: list[Command] = [({}, ["fetch", "echo"]), ({}, ["fetch", "--json", "echo"])]


def _showing(agent: AgentProcess) -> list[Command]:
    """Return commands that show a group that is parked."""
    key = "good@{fetched_time}".format_map(agent.lines("batch_parked")[0])
    return [({}, ["outbox", "show", key]), ({}, ["outbox", "show", "--json", key])]


def _names(outside: Outside) -> list[str]:
    """Return the names of the settings that fail."""
    return [row["EVENT_COLLECTION_SETTINGS_NAME"] for row in outside.rows if row["URL"] != f"{outside.source}/echo"]


def _fetching(outside: Outside) -> list[Command]:
    names = _names(outside)
    return [
        *(({}, ["fetch", "--known", name]) for name in names),
        *(({}, ["fetch", "--known", "--json", name]) for name in names),
    ]


def _asking(exastro: str) -> list[Command]:
    """Return commands that ask what answers in place of Exastro."""
    return [({"EXASTRO_URL": f"{exastro}{status}"}, ["check", "refused"]) for status in (200, 400, 401, 500)]


def _proxied(outside: Outside) -> dict[str, str]:
    return {
        "HTTP_PROXY": outside.proxy.replace("//", f"//oper:{quote(_HTTP_PROXY, safe='')}@"),
        "HTTPS_PROXY": outside.tunnel.replace("//", f"//oper:{quote(_HTTPS_PROXY, safe='')}@"),
        "NO_PROXY": "127.0.0.1",
    }


def _move_into_file(deployment: Deployment, file: Path, *names: str) -> None:
    """Have variables come from a .env file."""

    def line(name: str, value: str) -> str:
        quoted = value.replace("\\", "\\\\").replace("'", "\\'")
        return f"{name}='{quoted}'\n"

    file.write_text("".join(line(name, deployment.environment.pop(name)) for name in names))
    deployment.environment["ENVFILEPATH"] = str(file)


def _tokens(issued: dict[str, str]) -> Callable[[], str]:
    """Return what makes tokens: refresh and access tokens in turn, some of which look like nothing that is known."""
    numbers = itertools.count(1)

    def make() -> str:
        number = next(numbers)
        token = odd_secret(f"token {number}", is_ascii=True) if number % 3 else web_token(f"token {number}")
        # Its head is the same in all of them, and no secret.
        issued[f"token {number}"] = token.partition(".")[2] or token
        return token

    return make


def _refusing() -> Callable[[Request], Reply | None]:
    """Return what refuses every event alone, with an answer that quotes a secret or the request's own."""
    failures = iter([500, 503])
    answers = itertools.count()

    def refuse(request: Request) -> Reply:
        authorization = request.headers["authorization"]
        if status := next(failures, None):
            return as_json({"result": f"{status}-00001", "message": "." * 200 + authorization}, status)
        events = [event for group in json.loads(request.body)["events"] for event in group["event"]]
        number = next(answers) if len(events) == 1 else 0
        quoted = _QUOTED[number // 2 % len(_QUOTED)]
        cut = "." * max(_ANSWER_CHARACTERS - len(quoted) // 2, 20) if number % 2 else ""
        return as_json({"result": "400-00002", "message": f"{cut}{quoted} {authorization}"}, 400)

    return refuse


def _settings_in(lines: Sequence[Mapping[str, Any]], *events: str) -> set[str]:
    return {line["setting"] for line in lines if line["event"] in events}


def _pages(port: int) -> dict[str, str]:
    page = StatusPage(port)
    return {path: page.ask(path)[1] for path in ("/", "/still", "/status.json", "/metrics", "/livez", "/readyz")}


def _commands(deployment: Deployment, commands: Sequence[Command]) -> dict[str, str]:
    """Return what commands print, by how they are called."""
    done = subprocess.run(
        [sys.executable, "-c", _RUN],
        env=deployment.environment,
        input=json.dumps(commands),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=200,
        check=True,
    )
    printed = dict(part.partition("\n")[::2] for part in done.stdout.split("\n$ ")[1:])
    assert list(printed) == [" ".join((*arguments, *variables.values())) for variables, arguments in commands]
    return printed


def _files_of(deployment: Deployment, when: str) -> dict[str, str]:
    """Return the store's files, the log of its transactions among them."""
    files = deployment.store_file.parent.glob(f"{deployment.store_file.name}*")
    return {f"{file.suffix} {when}": file.read_bytes().rstrip(b"\0").decode(errors="replace") for file in files}


def _tables_of(deployment: Deployment) -> dict[str, str]:
    """Return the tables of the store, whose values its file may hold in pieces."""
    with closing(sqlite3.connect(deployment.store_file)) as connection:
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {f"table {name}": _values_of(connection.execute(f"SELECT * FROM {name}")) for name in names}


def _values_of(rows: Iterator[Sequence[Any]]) -> str:
    values = itertools.chain.from_iterable(rows)
    return "\n".join(value.decode(errors="replace") if isinstance(value, bytes) else str(value) for value in values)


@contextmanager
def _terminal(deployment: Deployment) -> Iterator[Callable[[], str]]:
    """Run the agent on a terminal meanwhile; yield what tells what is shown there."""
    ours, its = pty.openpty()
    shown = bytearray()

    def read() -> None:
        # Reading fails once nobody has the other end any more.
        with contextlib.suppress(OSError):
            while data := os.read(ours, 65_536):
                shown.extend(data)

    environment = {**deployment.environment, "NO_COLOR": "1"}
    process = subprocess.Popen(MODULE, env=environment, stdin=subprocess.DEVNULL, stdout=its, stderr=its)
    os.close(its)
    reading = threading.Thread(target=read)
    reading.start()
    try:
        yield lambda: shown.decode(errors="replace")
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()
        reading.join()
        os.close(ours)
