"""The command check: each way a deployment can be wrong is told in a line, with what to change; nothing is saved."""

import datetime as dt
import json
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from ita_ag_oase import clock
from ita_ag_oase.demo import mailbox
from ita_ag_oase.demo.exastro import PASSWORD, USERNAME, DemoExastro, setting_row
from ita_ag_oase.demo.loopback import LoopbackServer, Reply, Request, as_html, as_json
from ita_ag_oase.demo.mailbox import Mailbox, MailServer
from ita_ag_oase.store.reserve import Reserve
from support import Deploy, Deployment, ListSource, ScriptedSource, arrived, deliver_once, self_signed, wait_for_all
from wires import TlsRelay

# Little enough for any machine that runs tests to have.
_ROOM = {"STORAGE_MAX_BYTES": "16777216"}
_SKIPPED = (
    "not checked  Exastro: authentication",
    "not checked  Exastro: the right to the settings",
    "not checked  alarms: the setting and its source",
    "not checked  Exastro: the clock, since Exastro's is not known",
)
_NO_SETTINGS = _SKIPPED[2]
_NO_CLOCK = _SKIPPED[3]


@pytest.fixture
def source() -> Iterator[ListSource]:
    with ListSource("alarms", 3) as source:
        yield source


@pytest.fixture
def exastro(source: ListSource) -> Iterator[DemoExastro]:
    with DemoExastro([source.row]) as exastro:
        yield exastro


def _lines(done: subprocess.CompletedProcess[str], **places: str) -> list[str]:
    """Return what was printed, with names in place of what is another at each run."""
    assert done.stderr == ""
    text = done.stdout
    for name, place in places.items():
        text = text.replace(place, name)
    return text.splitlines()


def _not_ok(lines: Sequence[str]) -> list[str]:
    """Return the lines that tell of something, without the sums at the end."""
    return [line for line in lines[:-1] if not line.startswith("ok ")]


def _place(url: str) -> str:
    return url.partition("//")[2]


def _places(deployment: Deployment, exastro: DemoExastro, source: ListSource) -> dict[str, str]:
    """Return what is another at each run, by name: the store's file before the folder that it is in."""
    return {
        "STORE": str(deployment.store_file),
        "EXASTRO": _place(exastro.url),
        "SOURCE": _place(source.url),
        "FOLDER": str(deployment.store_file.parents[4]),
    }


def _unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _state(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Return the content and the time of every file below a folder."""
    return {
        str(file.relative_to(folder)): (file.read_bytes(), file.stat().st_mtime_ns)
        for file in folder.rglob("*")
        if file.is_file()
    }


class TestHealthy:
    """A deployment with nothing wrong."""

    def test_each_check_is_a_line_and_the_order_is_fixed(
        self, deploy: Deploy, exastro: DemoExastro, source: ListSource
    ) -> None:
        deployment = deploy(exastro, source.name, **_ROOM)
        done = deployment.run("check")
        assert (done.returncode, _lines(done, **_places(deployment, exastro, source))) == (
            0,
            [
                "ok           configuration: it can be used; the settings are alarms",
                "ok           store: FOLDER can be written, and locks work",
                "ok           store: there is none at STORE yet",
                "ok           store: its volume has room for the 16 MiB it may grow to",
                "ok           Exastro: EXASTRO takes connections",
                "ok           Exastro: the refresh token is accepted",
                "ok           Exastro: the settings can be fetched",
                "ok           alarms: its row can be used",
                "ok           alarms: its templates render",
                "ok           alarms: SOURCE takes connections",
                "ok           alarms: a poll is answered with 200 and 140 bytes",
                "ok           alarms: RESPONSE_KEY 'items' is found",
                "ok           alarms: EVENT_ID_KEY 'id' is found in all events",
                "ok           alarms: 3 events, 3 of them new",
                "ok           Exastro: this machine's clock and Exastro's agree",
                "15 ok, 0 to be warned of, 0 failed, 0 not checked",
            ],
        )
        assert list(deployment.store_file.parents[4].iterdir()) == []

    def test_it_is_told_in_japanese(self, deploy: Deploy, exastro: DemoExastro, source: ListSource) -> None:
        deployment = deploy(exastro, source.name, **_ROOM, LANGUAGE="ja")
        exastro.rows[:] = [{**source.row, "RESPONSE_KEY": "nothing"}]
        done = deployment.run("check", source.name, "mails")
        assert (done.returncode, _lines(done, **_places(deployment, exastro, source))) == (
            1,
            [
                "正常         設定: 問題ありません。収集対象のイベント収集設定は alarms です。",
                "正常         ストア: FOLDER に書き込み可能で、ロックも機能します。",
                "正常         ストア: STORE はまだ作成されていません。",
                "正常         ストア: ボリュームに、ストアの上限 16 MiB までの空きがあります。",
                "正常         Exastro: EXASTRO に接続できました。",
                "正常         Exastro: リフレッシュトークンで認証できました。",
                "正常         Exastro: イベント収集設定を取得できました。",
                "正常         alarms: 設定内容は使用可能です。",
                "正常         alarms: テンプレートを展開できました。",
                "正常         alarms: SOURCE に接続できました。",
                "正常         alarms: ポーリングに応答がありました (ステータス 200、140 バイト)。",
                (
                    "エラー       alarms: 応答に RESPONSE_KEY 'nothing' の値がありません。 [対処] RESPONSE_KEY に、"
                    "イベントのある位置を指定してください。"
                ),
                "正常         alarms: イベントが 1 件あり、新規は 1 件です。",
                (
                    "警告         mails: エージェントの収集対象ではありません。 [対処] 収集する場合は "
                    "EVENT_COLLECTION_SETTINGS_NAMES に追加してください。"
                ),
                (
                    "エラー       mails: このイベント収集設定は Exastro にないか、廃止されています。 [対処] "
                    "EVENT_COLLECTION_SETTINGS_NAMES を確認するか、Exastro の画面で復活させてください。"
                ),
                "正常         Exastro: このマシンの時計は Exastro の時計と一致しています。",
                "正常 13 件、警告 1 件、エラー 2 件、未確認 0 件",
            ],
        )

    def test_json_is_a_list_of_objects(self, deploy: Deploy, exastro: DemoExastro, source: ListSource) -> None:
        done = deploy(exastro, source.name, "gone", **_ROOM).run("check", "--json", "gone")
        found = json.loads(done.stdout)
        assert (done.returncode, done.stderr) == (1, "")
        assert [(one["check"], one["state"]) for one in found] == [
            ("configuration", "ok"),
            ("store", "ok"),
            ("store", "ok"),
            ("store", "ok"),
            ("connection", "ok"),
            ("authentication", "ok"),
            ("rights", "ok"),
            ("setting", "failed"),
            ("clock", "ok"),
        ]
        assert found[7] == {
            "check": "setting",
            "subject": "gone",
            "state": "failed",
            "message": "Exastro has no such event collection setting, or it is discarded",
            "action": "check EVENT_COLLECTION_SETTINGS_NAMES, or restore the setting in Exastro",
        }

    def test_nothing_is_saved_and_nothing_sent(self, deploy: Deploy, exastro: DemoExastro, source: ListSource) -> None:
        deployment = deploy(exastro, source.name, **_ROOM)
        deliver_once(deployment, exastro, source)
        source.add(2)
        folder = deployment.store_file.parent
        before, posts, settings = _state(folder), len(exastro.posts), deployment.settings_file.stat()
        done = deployment.run("check")
        assert "ok           alarms: 5 events, 2 of them new" in _lines(done)
        assert (done.returncode, _state(folder), len(exastro.posts)) == (0, before, posts)
        assert deployment.settings_file.stat() == settings

    def test_an_agent_goes_on_beside_it(self, deploy: Deploy, exastro: DemoExastro, source: ListSource) -> None:
        deployment = deploy(exastro, source.name, **_ROOM)
        agent = deployment.start()
        wait_for_all(agent, exastro, source)
        done = deployment.run("check")
        store = f"ok           store: {deployment.store_file} can be read; an agent uses it now"
        assert (done.returncode, store in _lines(done)) == (0, True)
        source.add(2)
        wait_for_all(agent, exastro, source)
        agent.wait_until_delivered()
        assert (arrived(exastro, source.name), agent.lines(level="error")) == (source.ids, [])


class TestRotation:
    """A realm that gives another refresh token in exchange for each."""

    def test_an_agent_beside_it_is_not_locked_out(self, deploy: Deploy, source: ListSource) -> None:
        with DemoExastro([source.row], rotates_tokens=True) as exastro:
            deployment = deploy(exastro, source.name, **_ROOM)
            agent = deployment.start()
            wait_for_all(agent, exastro, source)
            assert deployment.run("check").returncode == 0
            exastro.revoke_access_tokens()
            source.add(2)
            wait_for_all(agent, exastro, source)
            assert (agent.terminate(), agent.lines(reason="unauthorized")) == (0, [])

    def test_the_agent_after_it_starts_with_the_token_that_was_kept(self, deploy: Deploy, source: ListSource) -> None:
        with DemoExastro([source.row], rotates_tokens=True) as exastro:
            deployment = deploy(exastro, source.name, **_ROOM)
            deliver_once(deployment, exastro, source)
            assert deployment.run("check").returncode == 0
            source.add(2)
            deliver_once(deployment, exastro, source)
            assert arrived(exastro, source.name) == source.ids

    def test_a_token_that_cannot_be_kept_is_warned_of(self, deploy: Deploy, source: ListSource) -> None:
        with DemoExastro([source.row], rotates_tokens=True) as exastro:
            done = deploy(exastro, source.name, **_ROOM).run("check")
        assert (done.returncode, _not_ok(_lines(done))) == (
            0,
            [
                (
                    "warning      Exastro: Exastro gave another refresh token in exchange, and there is no store that "
                    "could keep it: the configured one may be used up -- where the agent is refused, issue a new "
                    "token, set EXASTRO_REFRESH_TOKEN, and start the agent first"
                )
            ],
        )


_ROLE = (
    "have the user given a role with the menus of the OASE agent in the workspace demo-ws, or check "
    "EXASTRO_WORKSPACE_ID"
)
_DOING = "check EXASTRO_URL, and how Exastro and what lies before it are doing"
_BY_PASSWORD = {"EXASTRO_REFRESH_TOKEN": "", "EXASTRO_USERNAME": USERNAME, "EXASTRO_PASSWORD": PASSWORD}
_RIGHTS_ADVICE = "check the credentials and the user's right to the agent's menus"
_NAME_SERVER = "and this machine's name server"

_WRONG_ENVIRONMENTS: dict[str, tuple[dict[str, str], list[str]]] = {
    "a host that does not resolve": (
        {"EXASTRO_URL": "http://exastro.invalid:8000"},
        [
            (
                "failed       Exastro: the name exastro.invalid does not resolve (…) -- check the host in EXASTRO_URL, "
                f"{_NAME_SERVER}"
            ),
            *_SKIPPED,
        ],
    ),
    "a port where nobody listens": (
        {"EXASTRO_URL": "http://NOBODY"},
        [
            (
                "failed       Exastro: no connection to NOBODY (…) -- check host and port in EXASTRO_URL, and "
                "that nothing on the way blocks them"
            ),
            *_SKIPPED,
        ],
    ),
    "https to an http port": (
        {"EXASTRO_URL": "https://EXASTRO"},
        [
            "failed       Exastro: no TLS at EXASTRO (…) -- check the port, and whether TLS is meant, in EXASTRO_URL",
            *_SKIPPED,
        ],
    ),
    "a proxy that does not resolve": (
        {"HTTP_PROXY": "http://proxy.invalid:3128", "NO_PROXY": "SOURCE"},
        [
            (
                "failed       Exastro: the name proxy.invalid does not resolve (…) -- check the host in HTTP_PROXY, "
                f"{_NAME_SERVER}"
            ),
            *_SKIPPED,
        ],
    ),
    "a proxy where nobody listens": (
        {"HTTP_PROXY": "NOBODY", "NO_PROXY": "SOURCE"},
        [
            (
                "failed       Exastro: no connection to NOBODY (…) -- check host and port in HTTP_PROXY, and "
                "that nothing on the way blocks them"
            ),
            *_SKIPPED,
        ],
    ),
    "another organization": (
        {"EXASTRO_ORGANIZATION_ID": "other"},
        [
            (
                "failed       Exastro: the token endpoint of Exastro answered 401 without a token: check EXASTRO_URL "
                "and EXASTRO_ORGANIZATION_ID"
            ),
            *_SKIPPED[1:],
        ],
    ),
    "another workspace": (
        {"EXASTRO_WORKSPACE_ID": "other"},
        [
            (
                "failed       Exastro: Exastro was expected, but something else answered with status 404: check "
                "EXASTRO_URL, the gateway in front of Exastro, and its state -- check EXASTRO_ORGANIZATION_ID, "
                "EXASTRO_WORKSPACE_ID and the path in EXASTRO_URL"
            ),
            _NO_SETTINGS,
        ],
    ),
    "a wrong token": (
        {"EXASTRO_REFRESH_TOKEN": "wrong-token"},
        [
            (
                "failed       Exastro: Exastro refused the refresh token: issue a new one and set "
                "EXASTRO_REFRESH_TOKEN -- check EXASTRO_REFRESH_TOKEN or the file in EXASTRO_REFRESH_TOKEN_FILE"
            ),
            *_SKIPPED[1:],
        ],
    ),
    "a wrong password": (
        {**_BY_PASSWORD, "EXASTRO_PASSWORD": "wrong-password"},
        [
            (
                f"failed       Exastro: Exastro answered 401 401-00001 not authenticated: {_RIGHTS_ADVICE} -- check "
                "EXASTRO_USERNAME and EXASTRO_PASSWORD, and that user's role in the workspace demo-ws"
            ),
            *_SKIPPED[2:],
        ],
    ),
    "names that Exastro does not know": (
        {"EVENT_COLLECTION_SETTINGS_NAMES": "alarms,Alarms"},
        [
            (
                "failed       Alarms: Exastro has no such event collection setting, or it is discarded -- check "
                "EVENT_COLLECTION_SETTINGS_NAMES, or restore the setting in Exastro"
            )
        ],
    ),
}


@pytest.mark.parametrize(("changes", "expected"), _WRONG_ENVIRONMENTS.values(), ids=_WRONG_ENVIRONMENTS)
def test_what_is_wrong_in_the_environment_is_named(
    deploy: Deploy, exastro: DemoExastro, source: ListSource, changes: Mapping[str, str], expected: list[str]
) -> None:
    places = {"EXASTRO": _place(exastro.url), "NOBODY": f"127.0.0.1:{_unused_port()}", "SOURCE": _place(source.url)}
    environment = {
        name: re.sub("EXASTRO$|NOBODY|SOURCE", lambda found: places[found[0]], value) for name, value in changes.items()
    }
    done = deploy(exastro, source.name, **{**_ROOM, **environment}).run("check")
    # What a system says of a failure is its own.
    lines = [re.sub(r"(resolve|NOBODY|at EXASTRO) \(.*?\) --", r"\1 (…) --", line) for line in _lines(done, **places)]
    assert (done.returncode, _not_ok(lines)) == (1, expected)


def test_the_other_way_to_authenticate_is_told_as_well(
    deploy: Deploy, exastro: DemoExastro, source: ListSource
) -> None:
    done = deploy(exastro, source.name, **_ROOM, **_BY_PASSWORD).run("check")
    assert (done.returncode, _not_ok(_lines(done))) == (0, [])
    assert "ok           Exastro: user name and password are accepted" in _lines(done)


class TestConfiguration:
    """What the configuration itself is wrong in."""

    def test_all_mistakes_are_named_and_the_rest_is_not_checked(self, deploy: Deploy, exastro: DemoExastro) -> None:
        wrong = {"EXASTRO_URL": "exastro:8000", "EXASTRO_WORKSPACE_ID": "", "EXECUTE_INTERVAL": "soon"}
        done = deploy(exastro, "alarms", **wrong).run("check")
        assert (done.returncode, _lines(done)) == (
            1,
            [
                "failed       EXASTRO_URL: is no URL; write one such as http://platform-auth:8000",
                "failed       EXASTRO_WORKSPACE_ID: is missing; write the id of the workspace as Exastro shows it",
                "failed       EXECUTE_INTERVAL: is 'soon'; write a whole number",
                "not checked  the rest: the store",
                "not checked  the rest: Exastro and the settings",
                "0 ok, 0 to be warned of, 3 failed, 2 not checked",
            ],
        )

    def test_a_ca_file_without_a_certificate_is_named(self, deploy: Deploy, exastro: DemoExastro) -> None:
        done = deploy(exastro, "alarms", SOURCE_CA_FILE=os.devnull).run("check")
        assert (done.returncode, _not_ok(_lines(done))[0]) == (
            1,
            "failed       SOURCE_CA_FILE: /dev/null holds no certificate; write the path of a PEM file",
        )

    def test_what_is_adjusted_is_warned_of(self, deploy: Deploy, exastro: DemoExastro, source: ListSource) -> None:
        odd = {"EXECUTE_INTERVAL": "1", "ITERATION": "500", "TZ": "Mars/Olympus"}
        done = deploy(exastro, source.name, **_ROOM, **odd).run("check")
        assert (done.returncode, _not_ok(_lines(done))) == (
            0,
            [
                "warning      EXECUTE_INTERVAL: 1 is out of range, 3 is used -- write a number from 3 to 86390",
                "warning      ITERATION: 500 is out of range, 120 is used -- write a number from 10 to 120",
                (
                    "warning      TZ: 'Mars/Olympus' is no time zone that is known, the system's is used -- write "
                    "one such as Asia/Tokyo"
                ),
            ],
        )

    def test_a_setting_that_is_not_configured_can_be_looked_at(
        self, deploy: Deploy, exastro: DemoExastro, source: ListSource
    ) -> None:
        done = deploy(exastro, "another", **_ROOM).run("check", source.name)
        assert (done.returncode, _not_ok(_lines(done))) == (
            0,
            ["warning      alarms: the agent does not collect it -- add it to EVENT_COLLECTION_SETTINGS_NAMES"],
        )


class TestCertificates:
    """TLS to Exastro, through a relay that takes it off."""

    @pytest.fixture
    def check(
        self, deploy: Deploy, exastro: DemoExastro, source: ListSource, tmp_path: Path
    ) -> Callable[..., tuple[int, list[str]]]:
        def check(*, scheme: str = "https", trusts: bool = True, **certificate: Any) -> tuple[int, list[str]]:
            file = self_signed(tmp_path, **certificate)
            trust = {"EXASTRO_CA_FILE": str(file)} if trusts else {}
            with TlsRelay(int(exastro.url.rpartition(":")[2]), file) as relay:
                place = f"127.0.0.1:{relay.port}"
                changes = {**_ROOM, **trust, "EXASTRO_URL": f"{scheme}://{place}"}
                done = deploy(exastro, source.name, **changes).run("check")
            return done.returncode, _lines(done, EXASTRO=place)

        return check

    def test_a_good_one_is_told_with_its_last_day(self, check: Callable[..., tuple[int, list[str]]]) -> None:
        code, lines = check(days=100)
        line = f"ok           Exastro: its certificate is valid until {_day(100)}"
        assert (code, line in lines, _not_ok(lines)) == (0, True, [])

    def test_one_that_ends_soon_is_warned_of(self, check: Callable[..., tuple[int, list[str]]]) -> None:
        code, lines = check(days=12)
        assert (code, _not_ok(lines)) == (
            0,
            [
                (
                    f"warning      Exastro: its certificate is valid until {_day(12)}, for 11 days more -- have it "
                    "renewed in time"
                )
            ],
        )

    @pytest.mark.parametrize(
        ("certificate", "why", "address", "day", "action"),
        [
            (
                {"trusts": False},
                "self-signed certificate",
                "127.0.0.1",
                1,
                "name the authority's certificate in EXASTRO_CA_FILE",
            ),
            (
                {"days": -3},
                "certificate has expired",
                "127.0.0.1",
                -3,
                "have it renewed, and check this machine's clock",
            ),
            (
                {"address": "127.0.0.2"},
                "IP address mismatch, certificate is not valid for '127.0.0.1'.",
                "127.0.0.2",
                1,
                "write the host that the certificate is for in EXASTRO_URL",
            ),
        ],
        ids=["untrusted", "expired", "another host"],
    )
    def test_one_that_is_not_accepted_is_told_with_what_it_says(
        self,
        check: Callable[..., tuple[int, list[str]]],
        certificate: Mapping[str, Any],
        why: str,
        address: str,
        day: int,
        action: str,
    ) -> None:
        code, lines = check(**certificate)
        assert (code, _not_ok(lines)) == (
            1,
            [
                (
                    f"failed       Exastro: its certificate is not accepted ({why}); it is for {address}, issued by "
                    f"source.test, valid until {_day(day)} -- {action}"
                ),
                *_SKIPPED,
            ],
        )

    def test_http_to_an_https_port_is_a_broken_connection(self, check: Callable[..., tuple[int, list[str]]]) -> None:
        code, lines = check(scheme="http")
        told = [re.sub(r"\(.*?\)", "(…)", line) for line in _not_ok(lines)]
        assert (code, told) == (
            1,
            [
                (
                    "failed       Exastro: the token endpoint of Exastro: the connection broke (…): check the host "
                    f"and the network -- {_DOING}"
                ),
                *_SKIPPED[1:],
            ],
        )

    def test_verification_that_is_off_is_warned_of(
        self, deploy: Deploy, exastro: DemoExastro, source: ListSource, tmp_path: Path
    ) -> None:
        with TlsRelay(int(exastro.url.rpartition(":")[2]), self_signed(tmp_path, days=100)) as relay:
            changes = {**_ROOM, "EXASTRO_URL": f"https://127.0.0.1:{relay.port}", "EXASTRO_TLS_VERIFY": "false"}
            done = deploy(exastro, source.name, **changes).run("check")
        assert (done.returncode, _not_ok(_lines(done))) == (
            0,
            [
                (
                    f"warning      Exastro: its certificate is valid until {_day(100)}, but EXASTRO_TLS_VERIFY is "
                    "off, so that anyone could read along -- turn EXASTRO_TLS_VERIFY on, and name the authority in "
                    "EXASTRO_CA_FILE"
                )
            ],
        )


def _day(days: int) -> str:
    return (dt.datetime.now(dt.UTC) + dt.timedelta(days=days)).date().isoformat()


def _refusal(status: int, result: str, message: str) -> Reply:
    return as_json({"result": result, "message": message, "ts": ""}, status)


def _exastro_that(answer: Reply) -> LoopbackServer:
    """Return an Exastro that gives tokens to everyone, and an answer to everything else."""

    def handle(request: Request) -> Reply:
        if request.path.startswith("/auth/"):
            return as_json({"access_token": "any", "expires_in": 300})
        return answer

    return LoopbackServer(handle)


_SOMETHING_ELSE = "check EXASTRO_URL, the gateway in front of Exastro, and its state"


@pytest.mark.parametrize(
    ("answer", "message", "action"),
    [
        (
            _refusal(401, "401-00001", "no right"),
            f"Exastro answered 401 401-00001 no right: {_RIGHTS_ADVICE}",
            _ROLE,
        ),
        (
            _refusal(403, "403-00001", "no right"),
            f"Exastro answered 403 403-00001 no right: {_RIGHTS_ADVICE}",
            _ROLE,
        ),
        (
            as_html("Please log in", 200),
            f"Exastro was expected, but something else answered with status 200: {_SOMETHING_ELSE}",
            _DOING,
        ),
        (
            as_html("Bad Gateway", 502),
            f"Exastro was expected, but something else answered with status 502: {_SOMETHING_ELSE}",
            _DOING,
        ),
        (
            _refusal(498, "498-00004", "under maintenance"),
            "Exastro answered 498 498-00004 under maintenance: it is under maintenance",
            "check again when that is over",
        ),
        (
            as_json({"result": "000-00000", "message": "SUCCESS", "data": None}),
            "Exastro answered without a list of settings",
            _DOING,
        ),
    ],
    ids=["401", "403", "login page", "bad gateway", "maintenance", "no list"],
)
def test_what_exastro_says_to_the_request_for_settings_is_told_apart(
    deploy: Deploy, exastro: DemoExastro, answer: Reply, message: str, action: str
) -> None:
    with _exastro_that(answer) as other:
        done = deploy(exastro, "alarms", **_ROOM, EXASTRO_URL=other.url).run("check")
    told = [f"failed       Exastro: {message} -- {action}", _NO_SETTINGS]
    assert (done.returncode, [line for line in _not_ok(_lines(done)) if line != _NO_CLOCK]) == (1, told)


def test_a_clock_that_is_minutes_off_is_warned_of(deploy: Deploy, source: ListSource) -> None:
    with DemoExastro([source.row], now=lambda: clock.now() + 300) as exastro:
        done = deploy(exastro, source.name, **_ROOM).run("check")
    told = [re.sub(r"\d+ s", "N s", line) for line in _not_ok(_lines(done))]
    assert (done.returncode, told) == (
        0,
        [
            (
                "warning      Exastro: this machine's clock is N s behind Exastro's -- set both by NTP: events may "
                "expire too early or too late"
            )
        ],
    )


def test_settings_that_cannot_be_fetched_are_looked_at_as_they_were(
    deploy: Deploy, exastro: DemoExastro, source: ListSource
) -> None:
    deployment = deploy(exastro, source.name, **_ROOM)
    deliver_once(deployment, exastro, source)
    exastro.settings_faults.append("503")
    done = deployment.run("check")
    assert (done.returncode, _not_ok(_lines(done))[1:]) == (
        1,
        ["warning      settings: they cannot be fetched now: those that Exastro told last are looked at"],
    )
    assert "ok           alarms: 3 events, 0 of them new" in _lines(done)


class TestStore:
    """What can be wrong with the store."""

    def test_a_folder_that_is_a_file_is_named(
        self, deploy: Deploy, exastro: DemoExastro, source: ListSource, tmp_path: Path
    ) -> None:
        (tmp_path / "file").touch()
        done = deploy(exastro, source.name, **_ROOM, STORAGEPATH=str(tmp_path / "file")).run("check")
        told = [re.sub(r"\.probe-\d+", ".probe-N", line) for line in _lines(done, FILE=str(tmp_path / "file"))]
        assert (done.returncode, _not_ok(told)) == (
            1,
            [
                (
                    "failed       store: FILE/.probe-N.lock cannot be locked (File exists): make FILE writable for "
                    "this user, on a file system with working locks -- make FILE a folder that this user can write, "
                    "or name another in STORAGEPATH"
                )
            ],
        )

    def test_a_damaged_one_is_named(self, deploy: Deploy, exastro: DemoExastro, source: ListSource) -> None:
        deployment = deploy(exastro, source.name, **_ROOM)
        deployment.store_file.parent.mkdir(parents=True)
        deployment.store_file.write_bytes(b"no database at all, but some text of a length" * 100)
        done = deployment.run("check")
        damaged = (
            "STORE is damaged (file is not a database): start the agent again, which sets the file aside and saves "
            "what can be read"
        )
        assert (done.returncode, _not_ok(_lines(done, STORE=str(deployment.store_file)))) == (
            1,
            [
                f"failed       store: {damaged}",
                (
                    f"failed       Exastro: the kept refresh token of Exastro cannot be read: {damaged} -- mend the "
                    "store first"
                ),
                *_SKIPPED[1:],
            ],
        )

    def test_a_volume_that_is_small_is_warned_of_and_a_full_one_fails(
        self, deploy: Deploy, exastro: DemoExastro, source: ListSource, volume: Path
    ) -> None:
        deployment = deploy(exastro, source.name, STORAGEPATH=str(volume))
        small = deployment.run("check")
        (volume / "filler").write_bytes(bytes(20 * 1_048_576))
        full = deployment.run("check")
        assert [(done.returncode, _not_ok(_lines(done))) for done in (small, full)] == [
            (
                0,
                [
                    (
                        "warning      store: its volume has 24 MiB left, but it may grow to 1024 MiB -- enlarge the "
                        "volume or lower STORAGE_MAX_BYTES; polling pauses where either is full"
                    )
                ],
            ),
            (
                1,
                [
                    (
                        "failed       store: its volume has 4 MiB left, less than polling takes -- free some, "
                        "enlarge the volume, or name a folder of another one in STORAGEPATH"
                    )
                ],
            ),
        ]

    def test_what_is_set_aside_for_delivery_is_no_room_for_polls(
        self, deploy: Deploy, exastro: DemoExastro, source: ListSource, volume: Path
    ) -> None:
        deployment = deploy(exastro, source.name, STORAGEPATH=str(volume))
        deployment.store_file.parent.mkdir(parents=True)
        assert Reserve(deployment.store_file).hold()
        (volume / "filler").write_bytes(bytes(shutil.disk_usage(volume).free - 65_536))
        done = deployment.run("check")
        assert (done.returncode, _not_ok(_lines(done))) == (
            1,
            [
                (
                    "failed       store: its volume has 0 MiB left, less than polling takes -- free some, enlarge the "
                    "volume, or name a folder of another one in STORAGEPATH"
                )
            ],
        )


def _answer(request: Request) -> Reply:
    """Return what the source at a path answers."""
    replies: dict[str, Callable[[], Reply]] = {
        "/list": lambda: as_json({"items": [{"id": 1}, {"id": 2}], "one": {"id": 3}, "text": "x"}),
        "/html": lambda: as_html("Please log in", 200),
        "/401": lambda: as_json({}, 401),
        "/404": lambda: as_html("Not Found", 404),
        "/503": lambda: as_json({}, 503),
        "/elsewhere": lambda: Reply(status=302, headers={"Location": "ftp://files/"}),
        "/large": lambda: Reply(body=b'["' + b"x" * 70_000 + b'"]'),
        "/mixed": lambda: as_json([{"id": 1}, 2, {"no": 3}]),
    }
    return replies[request.path]()


_ADDRESS = "look at URL, PARAMETER"
_WRONG_SETTINGS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "elsewhere": (
        {"CONNECTION_METHOD_ID": "99"},
        [
            (
                "warning      elsewhere: its CONNECTION_METHOD_ID says that no agent collects it -- choose another "
                "CONNECTION_METHOD_ID, or take it out of EVENT_COLLECTION_SETTINGS_NAMES"
            )
        ],
    ),
    "secret": (
        {"CONNECTION_METHOD_ID": "1", "AUTH_TOKEN": "bm90IGVuY3J5cHRlZA=="},
        [
            (
                "failed       secret: AUTH_TOKEN cannot be decrypted: check that EXASTRO_ORGANIZATION_ID and "
                "EXASTRO_WORKSPACE_ID are right, then enter the secret in Exastro anew"
            )
        ],
    ),
    "method": (
        {"REQUEST_METHOD_ID": "3"},
        ["failed       method: method: REQUEST_METHOD_ID is '3', not one of 1, 2: mend it in Exastro"],
    ),
    "token": (
        {"CONNECTION_METHOD_ID": "1"},
        ["failed       token: token: AUTH_TOKEN is empty: fill it in in Exastro"],
    ),
    "template": (
        {"PARAMETER": '{"a": "{{ b }"}'},
        ["failed       template: PARAMETER is no template (unexpected '}'): mend it in Exastro"],
    ),
    "rendering": (
        {"REQUEST_HEADER": '{"a": "{{ nothing.more }}"}'},
        [
            "failed       rendering: the template in REQUEST_HEADER fails (UndefinedError: 'nothing' is undefined)",
            "not checked  rendering: a poll and its events",
        ],
    ),
    "parameter": (
        {"PARAMETER": '{"a": '},
        [
            (
                "failed       parameter: PARAMETER is no JSON once its template is rendered (Expecting value: line 1 "
                "column 7 (char 6)): mend it in Exastro"
            ),
            "not checked  parameter: a poll and its events",
        ],
    ),
    "expression": (
        {"RESPONSE_KEY": "items["},
        ["failed       expression: …"],
    ),
    "unresolved": (
        {"URL": "http://source.invalid/"},
        [
            (
                "failed       unresolved: the name source.invalid does not resolve (…) -- check the host in URL, and "
                "this machine's name server"
            ),
            "not checked  unresolved: a poll and its events",
        ],
    ),
    "closed": (
        {"URL": "http://NOBODY/"},
        [
            (
                "failed       closed: no connection to NOBODY (…) -- check host and port in URL, and that nothing on "
                "the way blocks them"
            ),
            "not checked  closed: a poll and its events",
        ],
    ),
    "encrypted": (
        {"URL": "https://SOURCE/list"},
        [
            "failed       encrypted: no TLS at SOURCE (…) -- check the port, and whether TLS is meant, in URL",
            "not checked  encrypted: a poll and its events",
        ],
    ),
    "proxied": (
        {"PROXY": "http://proxy.invalid:8080"},
        [
            (
                "failed       proxied: the name proxy.invalid does not resolve (…) -- check the host in PROXY, and "
                "this machine's name server"
            ),
            "not checked  proxied: a poll and its events",
        ],
    ),
    "unauthorized": (
        {"URL": "http://SOURCE/401"},
        [
            (
                "failed       unauthorized: http://SOURCE answered 401 Unauthorized: check the credentials of the "
                "setting -- look at CONNECTION_METHOD_ID, REQUEST_HEADER"
            )
        ],
    ),
    "missing": (
        {"URL": "http://SOURCE/404"},
        [
            (
                "failed       missing: http://SOURCE answered 404 Not Found: check the URL and the parameter of the "
                f"setting -- {_ADDRESS}"
            )
        ],
    ),
    "unavailable": (
        {"URL": "http://SOURCE/503"},
        [
            (
                "failed       unavailable: http://SOURCE answered 503 Service Unavailable: it cannot serve now -- "
                "check how its source is doing"
            )
        ],
    ),
    "redirect": (
        {"URL": "http://SOURCE/elsewhere"},
        ["failed       redirect: http://127.0.0.1 redirects to what is no URL: write the final URL -- look at URL"],
    ),
    "html": (
        {"URL": "http://SOURCE/html"},
        [
            (
                "failed       html: the answer is no JSON (Expecting value: line 1 column 1 (char 0)) -- look at URL, "
                "PARAMETER, REQUEST_HEADER"
            )
        ],
    ),
    "large": (
        {"URL": "http://SOURCE/large"},
        [
            (
                "failed       large: http://SOURCE: the answer is larger than 65536 bytes: ask for less with "
                "PARAMETER, or raise RESPONSE_MAX_BYTES -- look at PARAMETER, RESPONSE_MAX_BYTES"
            )
        ],
    ),
    "key": (
        {"RESPONSE_KEY": "alarms"},
        [
            (
                "failed       key: RESPONSE_KEY 'alarms' finds nothing in the answer -- write where the events are in "
                "RESPONSE_KEY"
            )
        ],
    ),
    "flag": (
        {"RESPONSE_KEY": "items", "RESPONSE_LIST_FLAG": "0"},
        [
            (
                "failed       flag: 1 event is unusable: RESPONSE_LIST_FLAG is incorrect.(List Type) -- choose the "
                "other value in RESPONSE_LIST_FLAG, or another RESPONSE_KEY"
            )
        ],
    ),
    "no flag": (
        {"RESPONSE_KEY": "one"},
        [
            (
                "failed       no flag: 1 event is unusable: RESPONSE_LIST_FLAG is incorrect.(Not List Type) -- "
                "choose the other value in RESPONSE_LIST_FLAG, or another RESPONSE_KEY"
            )
        ],
    ),
    "scalar": (
        {"RESPONSE_KEY": "text"},
        [
            (
                "failed       scalar: 1 event is unusable: RESPONSE_KEY value is Invalid.(not Object and not List) "
                "-- write in RESPONSE_KEY where there is an object, or a list of objects with RESPONSE_LIST_FLAG"
            )
        ],
    ),
    "ids": (
        {"RESPONSE_KEY": "items", "EVENT_ID_KEY": "number"},
        [
            (
                "failed       ids: EVENT_ID_KEY 'number' finds nothing in 2 of 2 events -- write what identifies an "
                "event in EVENT_ID_KEY"
            )
        ],
    ),
    "login": (
        {
            "CONNECTION_METHOD_ID": "4",
            "REQUEST_METHOD_ID": "5",
            "URL": "127.0.0.1",
            "PORT": "MAIL",
            "USERNAME": "nobody",
        },
        [
            (
                "failed       login: 127.0.0.1:MAIL refused the login (…): check USERNAME and PASSWORD of the setting "
                "-- look at USERNAME, PASSWORD"
            )
        ],
    ),
    "mail over tls": (
        {
            "CONNECTION_METHOD_ID": "4",
            "REQUEST_METHOD_ID": "3",
            "URL": "127.0.0.1",
            "PORT": "MAIL",
            "USERNAME": "nobody",
        },
        [
            (
                "failed       mail over tls: no TLS at 127.0.0.1:MAIL (…) -- check the port, and whether TLS is "
                "meant, in URL, PORT and REQUEST_METHOD_ID"
            ),
            "not checked  mail over tls: a poll and its events",
        ],
    ),
    "mail with starttls": (
        {
            "CONNECTION_METHOD_ID": "4",
            "REQUEST_METHOD_ID": "4",
            "URL": "127.0.0.1",
            "PORT": "MAIL",
            "USERNAME": "nobody",
        },
        [
            (
                "failed       mail with starttls: 127.0.0.1:MAIL does not change over to TLS (…) -- check URL, PORT "
                "and REQUEST_METHOD_ID"
            ),
            "not checked  mail with starttls: a poll and its events",
        ],
    ),
    "good": ({"RESPONSE_KEY": "items", "EVENT_ID_KEY": "id"}, []),
}


def test_what_is_wrong_with_settings_is_told_in_the_order_of_their_names(deploy: Deploy, exastro: DemoExastro) -> None:
    with LoopbackServer(_answer) as sources, MailServer(Mailbox()) as mails:
        places = {"SOURCE": _place(sources.url), "NOBODY": f"127.0.0.1:{_unused_port()}", "MAIL": str(mails.port)}
        rows = [_row(name, columns, places) for name, (columns, _) in _WRONG_SETTINGS.items()]
        with _exastro_that(as_json({"result": "000-00000", "message": "SUCCESS", "data": rows})) as other:
            changes = {**_ROOM, "EXASTRO_URL": other.url, "RESPONSE_MAX_BYTES": "65536"}
            done = deploy(exastro, *_WRONG_SETTINGS, **changes).run("check")
    pattern = r"(resolve|NOBODY|SOURCE|MAIL|the login|to TLS) \(.*?\)( --|:)"
    lines = [re.sub(pattern, r"\1 (…)\2", line) for line in _lines(done, **places)]
    lines = [re.sub(r"(expression:) .*", r"\1 …", line) for line in lines]
    assert (done.returncode, _not_ok(lines)) == (1, [line for _, told in _WRONG_SETTINGS.values() for line in told])


def _row(name: str, columns: Mapping[str, Any], places: Mapping[str, str]) -> dict[str, Any]:
    def with_places(value: Any) -> Any:
        return re.sub("SOURCE|NOBODY|MAIL", lambda found: places[found[0]], value) if isinstance(value, str) else value

    return {
        **setting_row(name, f"http://{places['SOURCE']}/list"),
        **{column: with_places(value) for column, value in columns.items()},
    }


def test_discarded_settings_and_missing_mailboxes_are_told(deploy: Deploy, exastro: DemoExastro) -> None:
    with MailServer(Mailbox("Alerts")) as mails:
        login = {
            "CONNECTION_METHOD_ID": "4",
            "REQUEST_METHOD_ID": "5",
            "PORT": mails.port,
            "USERNAME": mailbox.USERNAME,
            "PASSWORD": mailbox.PASSWORD,
        }
        exastro.rows += [
            setting_row("discarded", "http://127.0.0.1/", DISUSE_FLAG="1"),
            setting_row("inbox", "127.0.0.1", **login),
            setting_row("alerts", "127.0.0.1", **login, MAILBOXNAME="Alerts"),
        ]
        done = deploy(exastro, "discarded", "inbox", "alerts", **_ROOM).run("check")
    lines = [re.sub(r"refused \(.*?\):", "refused (…):", line) for line in _lines(done, PORT=str(mails.port))]
    assert (done.returncode, _not_ok(lines)) == (
        1,
        [
            (
                "failed       discarded: Exastro has no such event collection setting, or it is discarded -- check "
                "EVENT_COLLECTION_SETTINGS_NAMES, or restore the setting in Exastro"
            ),
            (
                "failed       inbox: 127.0.0.1:PORT refused (…): check MAILBOXNAME ('INBOX') and the user's rights "
                "-- look at MAILBOXNAME"
            ),
        ],
    )
    assert "ok           alerts: the login works, and the mailbox Alerts is there" in lines


def test_secrets_are_shown_nowhere(deploy: Deploy, exastro: DemoExastro) -> None:
    def quoting(request: Request) -> Reply:
        return as_html(str(request.headers), 200)

    with ScriptedSource("quoting", quoting, CONNECTION_METHOD_ID="1", AUTH_TOKEN="planted-secret") as source:
        exastro.rows.append({**source.row, "URL": f"{source.url}/?key=planted-secret"})
        deployment = deploy(exastro, source.name, **_ROOM)
        said = [deployment.run(*command) for command in (("check",), ("check", "--json"))]
    assert [done.returncode for done in said] == [1, 1]
    assert [done for done in said if "planted-secret" in done.stdout + done.stderr] == []
