"""The command fetch: one poll is shown as the agent would make it, without secrets; nothing is saved."""

import json
import re
import time
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from ita_ag_oase import __version__
from ita_ag_oase.demo import mailbox
from ita_ag_oase.demo.exastro import DemoExastro, setting_row
from ita_ag_oase.demo.loopback import Reply, Request, as_html, as_json
from ita_ag_oase.demo.mailbox import Mailbox, MailServer
from support import Deploy, Deployment, ListSource, ScriptedSource, deliver_once

_REQUEST = (
    "  GET http://SOURCE/events",
    "  host: SOURCE",
    "  connection: keep-alive",
    "  accept: application/json, */*;q=0.5",
    "  accept-encoding: gzip",
    f"  user-agent: ita-ag-oase/{__version__}",
    "  authorization: ********",
)


@pytest.fixture
def source() -> Iterator[ListSource]:
    with ListSource("alarms", 2, CONNECTION_METHOD_ID="1", AUTH_TOKEN="planted-secret") as source:
        yield source


@pytest.fixture
def exastro(source: ListSource) -> Iterator[DemoExastro]:
    with DemoExastro([source.row]) as exastro:
        yield exastro


def _lines(text: str, source: ScriptedSource) -> list[str]:
    """Return what was printed, with names in place of what is another at each run."""
    text = text.replace(source.url.partition("//")[2], "SOURCE").replace(_id_of(source), "ID")
    text = re.sub(r"last fetched time: \d+ \(.*\)", "last fetched time: N (T)", text)
    text = re.sub(r'(_time": )\d+', r"\1N", text)
    return re.sub(r"in \d+\.\d+ s", "in N s", text).splitlines()


def _id_of(source: ScriptedSource) -> str:
    return str(source.row["EVENT_COLLECTION_SETTINGS_ID"])


def _json(deployment: Deployment, *arguments: str, code: int = 0) -> dict[str, Any]:
    done = deployment.run("fetch", "--json", *arguments)
    assert (done.returncode, done.stderr) == (code, "")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_request_answer_and_events_are_shown(deploy: Deploy, exastro: DemoExastro, source: ListSource) -> None:
    done = deploy(exastro, source.name).run("fetch", source.name, "--events", "1")
    assert (done.returncode, done.stderr, _lines(done.stdout, source)) == (
        0,
        "",
        [
            "setting alarms, as Exastro has it now",
            "last fetched time: N (T)",
            "",
            "request",
            *_REQUEST,
            "",
            "answer",
            "  200 application/json",
            "  97 bytes in N s",
            "  RESPONSE_KEY 'items' leads to a list of 2",
            "",
            "2 events: 2 new, 0 known; 0 unusable, 0 of them as at the last poll",
            "",
            "event 1: new",
            "{",
            '  "id": 1,',
            '  "text": "xxxxxxxxxxxxxxxxxxxx",',
            '  "_exastro_oase_event_id": "1",',
            '  "_exastro_event_collection_settings_name": "alarms",',
            '  "_exastro_event_collection_settings_id": "ID",',
            '  "_exastro_fetched_time": N,',
            '  "_exastro_end_time": N',
            "}",
        ],
    )
    assert source.requests[0].headers["authorization"] == "Bearer planted-secret"


def test_it_is_shown_in_japanese(deploy: Deploy, exastro: DemoExastro, source: ListSource) -> None:
    exastro.rows[:] = [{**source.row, "RESPONSE_KEY": "nothing"}]
    done = deploy(exastro, source.name, LANGUAGE="ja").run("fetch", source.name, "--events", "1")
    lines = [re.sub(r"時刻: .*|\d+\.\d+ 秒", "N", line) for line in _lines(done.stdout, source)]
    assert (done.returncode, done.stderr, lines[: lines.index("{")]) == (
        0,
        "",
        [
            "イベント収集設定 alarms (Exastro の現在の内容)",
            "最終取得N",
            "",
            "リクエスト",
            *_REQUEST,
            "",
            "応答",
            "  200 application/json",
            "  97 バイト (N)",
            "  応答に RESPONSE_KEY 'nothing' の値がありません。",
            "",
            "イベント 1 件: 新規 1 件、既知 0 件。使用不可 1 件 (うち前回と同じもの 0 件)",
            "",
            "イベント 1: 新規",
            "使用不可: RESPONSE_KEY not found [対処] RESPONSE_KEY に、イベントのある位置を指定してください。",
        ],
    )


def test_events_are_those_that_the_agent_delivers(deploy: Deploy, exastro: DemoExastro, source: ListSource) -> None:
    deployment = deploy(exastro, source.name)
    shown = _json(deployment, source.name)
    deliver_once(deployment, exastro, source)
    times = {"_exastro_fetched_time": 0, "_exastro_end_time": 3_600}
    delivered = [dict(event.event) for event in exastro.events_of(source.name)]
    assert [event["event"] | times for event in shown["events"]] == [event | times for event in delivered]


def test_nothing_is_saved_and_what_is_known_is_told(deploy: Deploy, exastro: DemoExastro, source: ListSource) -> None:
    deployment = deploy(exastro, source.name)
    deliver_once(deployment, exastro, source)
    source.add(1)
    folder = deployment.store_file.parent
    before = {file: file.read_bytes() for file in folder.iterdir()}
    shown = [_json(deployment, source.name) for _ in range(2)]
    assert [[event["fate"] for event in one["events"]] for one in shown] == [["known", "known", "new"]] * 2
    assert shown[0]["counts"] == {"count": 3, "new": 1, "known": 2, "repeated": 0, "unusable": 0}
    assert {file: file.read_bytes() for file in folder.iterdir()} == before
    assert len(exastro.posts) == 1


_TEMPLATE = (
    '{"from": "{{ EXASTRO_LAST_FETCHED_TIMESTAMP }}", "at": "{{ EXASTRO_LAST_FETCHED_YY_MM_DD }}",'
    ' "last": "{{ EXASTRO_LAST_FETCHED_EVENT.id }}", "by": "{{ EXASTRO_EVENT_COLLECTION_SETTING.TTL }}"}'
)


def test_templates_see_what_they_see_in_the_agent(deploy: Deploy) -> None:
    with (
        ListSource(
            "alarms", 2, REQUEST_METHOD_ID="2", PARAMETER=_TEMPLATE.replace("_EVENT.id", "_EVENT_IS_EXIST")
        ) as one,
        DemoExastro([one.row]) as exastro,
    ):
        deployment = deploy(exastro, one.name, TZ="Asia/Tokyo")
        deliver_once(deployment, exastro, one)
        exastro.rows[:] = [{**one.row, "PARAMETER": _TEMPLATE}]
        fetched = _json(deployment, one.name)
        since = _json(deployment, one.name, "--since", "2026-01-31T09:00")
    last = fetched["last_fetched_time"]
    assert [request["body"] for request in (*fetched["requests"], *since["requests"])] == [
        {"from": str(last), "at": _tokyo(last), "last": "2", "by": "3600"},
        {"from": "1769817600", "at": "2026/01/31 09:00:00", "last": "2", "by": "3600"},
    ]
    assert [json.loads(request.body) for request in one.requests[-2:]] == [
        request["body"] for request in (*fetched["requests"], *since["requests"])
    ]


def _tokyo(seconds: int) -> str:
    return time.strftime("%Y/%m/%d %H:%M:%S", time.gmtime(seconds + 9 * 3_600))


def test_redirects_and_credentials_of_any_name_are_shown_hidden(deploy: Deploy) -> None:
    def answer(request: Request) -> Reply:
        if request.path == "/there":
            return as_json([])
        return Reply(status=307, headers={"Location": "/there?apikey=a&page=2"})

    header = '{"X-Api-Key": "one", "X-Session": "two", "X-Page": "{{ EXASTRO_EVENT_COLLECTION_SETTING.PASSWORD }}"}'
    columns = {"REQUEST_METHOD_ID": "2", "REQUEST_HEADER": header, "PASSWORD": "planted-secret"}
    body = '{"auth": "three", "params": {"password": "four", "host": "five", "note": "planted-secret"}}'
    with (
        ScriptedSource("alarms", answer, **columns, PARAMETER=body) as source,
        DemoExastro([{**source.row, "URL": f"{source.url}/here?token=six&page=1"}]) as exastro,
    ):
        shown = _json(deploy(exastro, source.name), source.name)
    hidden = {"auth": "********", "params": {"password": "********", "host": "five", "note": "********"}}
    assert [(one["method"], one["url"], one["status"], one["body"]) for one in shown["requests"]] == [
        ("POST", f"{source.url}/here?token=********&page=1", 307, hidden),
        ("POST", f"{source.url}/there?apikey=********&page=2", 200, hidden),
    ]
    headers = [one["headers"] for one in shown["requests"]]
    assert [(one["x-api-key"], one["x-session"], one["x-page"]) for one in headers] == [("********",) * 3] * 2


def test_a_poll_that_fails_is_shown_with_its_request(deploy: Deploy) -> None:
    with (
        ScriptedSource("alarms", lambda _: as_html("Please log in", 200)) as source,
        DemoExastro([source.row]) as exastro,
    ):
        done = deploy(exastro, source.name).run("fetch", source.name)
        exastro.rows[:] = [{**source.row, "URL": "http://127.0.0.1:1/"}]
        refused = _json(deploy(exastro, source.name), source.name, code=1)
    assert (done.returncode, done.stderr, _lines(done.stdout, source)[10:]) == (
        1,
        "",
        [
            "",
            "answer",
            "  200 text/html",
            "  39 bytes in N s",
            "  it begins with '<html><body>Please log in</body></html>'",
            "failed: the answer is no JSON (Expecting value: line 1 column 1 (char 0))",
        ],
    )
    assert (refused["requests"][0]["url"], refused["requests"][0]["status"], refused["events"]) == (
        "http://127.0.0.1:1/",
        None,
        [],
    )
    assert refused["error"].startswith("http://127.0.0.1:1: no connection (")


def test_unusable_events_are_shown_with_the_reason_and_what_to_do(deploy: Deploy) -> None:
    with (
        ListSource("alarms", 2, RESPONSE_KEY="nothing") as source,
        DemoExastro([source.row]) as exastro,
    ):
        lines = deploy(exastro, source.name).run("fetch", source.name).stdout.splitlines()
    assert "  RESPONSE_KEY 'nothing' leads nowhere" in lines
    assert lines[lines.index("event 1: new") - 2 :][:4] == [
        "1 event: 1 new, 0 known; 1 unusable, 0 of them as at the last poll",
        "",
        "event 1: new",
        "unusable: RESPONSE_KEY not found -- write where the events are in RESPONSE_KEY",
    ]


def test_without_exastro_the_setting_is_taken_as_it_was_told_last(
    deploy: Deploy, exastro: DemoExastro, source: ListSource
) -> None:
    deployment = deploy(exastro, source.name)
    deliver_once(deployment, exastro, source)
    assert _json(deployment, source.name)["from"] == "exastro"
    assert _json(deployment, source.name, "--known")["from"] == "store"
    exastro.settings_faults.append("503")
    done = deployment.run("fetch", source.name)
    assert (done.returncode, done.stdout.splitlines()[0], done.stderr) == (
        0,
        "setting alarms, as Exastro told it last",
        (
            "Exastro was expected, but something else answered with status 503: check EXASTRO_URL, the gateway in "
            "front of Exastro, and its state -- the setting is taken as Exastro told it last\n"
        ),
    )


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (
            ("nothing",),
            1,
            "nothing: there is no such event collection setting: check the name, or restore it in Exastro",
        ),
        (
            ("alarms", "--since", "soon"),
            2,
            "'soon' is no time: write epoch seconds, or a time such as 2026-01-31T09:00",
        ),
        (("alarms", "--events", "some"), 2, "'some' is no whole number of 0 or more"),
        ((), 2, "the following arguments are required: NAME"),
    ],
    ids=["unknown", "no time", "no number", "no name"],
)
def test_what_cannot_be_shown_is_told(
    deploy: Deploy, exastro: DemoExastro, source: ListSource, arguments: tuple[str, ...], code: int, complaint: str
) -> None:
    done = deploy(exastro, source.name).run("fetch", *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.splitlines()[-1].endswith(complaint)


def test_a_rotated_token_is_kept_where_there_is_a_store(deploy: Deploy, source: ListSource) -> None:
    with DemoExastro([source.row], rotates_tokens=True) as exastro:
        deployment = deploy(exastro, source.name)
        deliver_once(deployment, exastro, source)
        assert [deployment.run("fetch", source.name).stderr for _ in range(2)] == ["", ""]
    with DemoExastro([source.row], rotates_tokens=True) as exastro:
        done = deploy(exastro, source.name).run("fetch", source.name)
    assert (done.returncode, done.stderr.split(":")[0]) == (
        0,
        "Exastro gave another refresh token in exchange, and there is no store that could keep it",
    )


def test_a_mailbox_is_told_in_words(deploy: Deploy, exastro: DemoExastro) -> None:
    with MailServer(Mailbox()) as mails:
        raw = f"Date: {formatdate(1_700_000_000)}\r\nMessage-ID: <1@test>\r\nSubject: disk full\r\n\r\nhello\r\n"
        mails.mailbox.append(raw.encode(), time.time() - 60)
        columns = {"CONNECTION_METHOD_ID": "4", "REQUEST_METHOD_ID": "5", "PORT": mails.port}
        login = {"USERNAME": mailbox.USERNAME, "PASSWORD": mailbox.PASSWORD}
        exastro.rows.append(setting_row("mails", "127.0.0.1", **columns, **login))
        deployment = deploy(exastro, "mails")
        none = deployment.run("fetch", "mails")
        shown = _json(deployment, "mails", "--since", str(int(time.time()) - 3_600))
        exastro.rows[-1] = {**exastro.rows[-1], "PASSWORD": "another-password"}
        refused = deployment.run("fetch", "mails")
    request = [
        "request",
        f"  connect to 127.0.0.1:{mails.port} in plain text",
        f"  log in as {mailbox.USERNAME}",
        "  open the mailbox INBOX for reading only",
        "  fetch the mails that have arrived, without marking them",
    ]
    assert none.stdout.splitlines()[3:] == [
        *request,
        "",
        "0 events: 0 new, 0 known; 0 unusable, 0 of them as at the last poll",
    ]
    assert [(one["fate"], one["event"]["subject"]) for one in shown["events"]] == [("new", "disk full")]
    *before, last = refused.stdout.splitlines()[3:]
    assert (refused.returncode, before) == (1, request)
    assert last.startswith(f"failed: 127.0.0.1:{mails.port} refused the login (")
    assert mails.commands.count("FETCH") + mails.commands.count("UID FETCH") > 0


def test_secrets_are_shown_nowhere(deploy: Deploy) -> None:
    def quoting(request: Request) -> Reply:
        return as_json({"said": str(request.headers), "query": request.query})

    columns = {"CONNECTION_METHOD_ID": "2", "USERNAME": "user", "PASSWORD": "planted-secret", "RESPONSE_LIST_FLAG": "0"}
    with ScriptedSource("quoting", quoting, **columns) as source, DemoExastro() as exastro:
        exastro.rows.append({**source.row, "URL": f"{source.url}/?about=planted-secret"})
        deployment = deploy(exastro, source.name)
        said = [deployment.run("fetch", *command, "quoting") for command in ((), ("--json",))]
    assert [done.returncode for done in said] == [0, 0]
    # The user and the password as Basic sends them.
    secrets = ("planted-secret", "dXNlcjpwbGFudGVkLXNlY3JldA", "cGxhbnRlZC1zZWNyZXQ")
    assert [secret for secret in secrets for done in said if secret in done.stdout + done.stderr] == []


def test_store_is_not_made_where_there_is_none(
    deploy: Deploy, exastro: DemoExastro, source: ListSource, tmp_path: Path
) -> None:
    assert deploy(exastro, source.name, STORAGEPATH=str(tmp_path / "none")).run("fetch", source.name).returncode == 0
    assert not (tmp_path / "none").exists()
