"""Sources of alarms, alike enough to what operators run: they answer in the same form, and one of them fails."""

import itertools
import json
import random
import threading
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.header import Header
from email.message import EmailMessage, Message
from email.mime.text import MIMEText
from email.utils import formatdate
from typing import Any, Self

from ita_ag_oase import clock
from ita_ag_oase.demo.exastro import setting_row
from ita_ag_oase.demo.loopback import LoopbackServer, Reply, Request, as_html, as_json
from ita_ag_oase.demo.mailbox import PASSWORD, USERNAME, Mailbox, MailServer, StoredMail
from ita_ag_oase.text import Text

_HOSTS = ("web-01", "web-02", "db-01", "batch-01", "gw-01")
_WHAT = ("CPU load is high", "disk is 90% full", "no answer to ping", "too many open files", "replication lags")
_TOKEN = "demo-api-token"  # noqa: S105 - opens the demo only


class DemoSource:
    """A source that makes an alarm every so often while it is entered, and counts which ones it has told."""

    name = ""
    purpose: Text
    _every_seconds = 1.0

    def __init__(self, seed: int = 0) -> None:
        self.told: set[str] = set()
        self._random = random.Random(seed)
        self._alarms: list[dict[str, Any]] = []
        self._numbers = itertools.count(1)
        self._next_at = time.monotonic()
        self._is_frozen = False
        self._lock = threading.Lock()
        self._server: LoopbackServer | MailServer = LoopbackServer(self._handle)

    @property
    def url(self) -> str:
        """Where it can be asked, without a path."""
        return self._server.url

    @property
    def row(self) -> dict[str, Any]:
        """The event collection setting that fits."""
        raise NotImplementedError

    def freeze(self) -> None:
        """Make no more alarms."""
        with self._lock:
            self._is_frozen = True

    def describe(self, event: Mapping[str, Any]) -> Text:
        """Return an event in a few words."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        self._server.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.__exit__()

    def _handle(self, request: Request) -> Reply:
        with self._lock:
            self._raise_alarms()
            return self._answer(request)

    def _raise_alarms(self) -> None:
        while not self._is_frozen and self._next_at <= time.monotonic():
            self._alarms.append(self._alarm(next(self._numbers)))
            self._next_at += self._every_seconds * self._random.uniform(0.5, 1.5)

    def _alarm(self, number: int) -> dict[str, Any]:
        raise NotImplementedError

    def _answer(self, request: Request) -> Reply:
        raise NotImplementedError

    def _what(self) -> tuple[str, str]:
        return self._random.choice(_HOSTS), self._random.choice(_WHAT)


class ProblemSource(DemoSource):
    """Lists its open problems through JSON-RPC, the same ones again at every poll until they are solved."""

    name = "zabbix-problems"
    purpose = Text("Lists its open problems through JSON-RPC, the same ones again at every poll until they are solved.")
    _every_seconds = 0.7

    @property
    def row(self) -> dict[str, Any]:
        call = {
            "jsonrpc": "2.0",
            "method": "problem.get",
            "params": {"recent": True, "sortfield": ["eventid"]},
            "id": 1,
        }
        return setting_row(
            self.name,
            f"{self.url}/api_jsonrpc.php",
            CONNECTION_METHOD_ID="1",
            AUTH_TOKEN=_TOKEN,
            REQUEST_METHOD_ID="2",
            REQUEST_HEADER='{"Content-Type": "application/json-rpc"}',
            PARAMETER=json.dumps(call),
            RESPONSE_KEY="result",
            EVENT_ID_KEY="eventid",
        )

    def describe(self, event: Mapping[str, Any]) -> Text:
        return Text(
            "#{id} {name} (severity {severity})",
            id=event["eventid"],
            name=event["name"],
            severity=event["severity"],
        )

    def _alarm(self, number: int) -> dict[str, Any]:
        host, what = self._what()
        return {
            "eventid": str(10_000 + number),
            "name": f"{what} on {host}",
            "severity": str(self._random.randint(1, 5)),
            "clock": str(int(clock.now())),
            "acknowledged": "0",
            "r_eventid": "0",
        }

    def _answer(self, request: Request) -> Reply:
        if request.headers.get("authorization") != f"Bearer {_TOKEN}":
            error = {"code": -32602, "message": "Invalid params.", "data": "Not authorized."}
            return as_json({"jsonrpc": "2.0", "error": error, "id": 1})
        open_ones = self._alarms[-40:]
        ids = {alarm["eventid"] for alarm in open_ones}
        return as_json({"jsonrpc": "2.0", "result": open_ones, "id": 1}, on_sent=lambda: self.told.update(ids))


class AlertSource(DemoSource):
    """Lists its firing alerts; one is told from another by fingerprint and start."""

    name = "alertmanager"
    purpose = Text("Lists its firing alerts; one is told from another by fingerprint and start.")
    _every_seconds = 1.1

    @property
    def row(self) -> dict[str, Any]:
        return setting_row(
            self.name,
            f"{self.url}/api/v2/alerts",
            PARAMETER='{"active": true}',
            EVENT_ID_KEY="join('/', [fingerprint, startsAt])",
        )

    def describe(self, event: Mapping[str, Any]) -> Text:
        labels = event["labels"]
        return Text(
            "{alert} on {host} since {time}",
            alert=labels["alertname"],
            host=labels["instance"],
            time=event["startsAt"][11:19],
        )

    def _alarm(self, number: int) -> dict[str, Any]:
        host, what = self._what()
        return {
            "fingerprint": f"{self._random.getrandbits(64):016x}",
            "startsAt": datetime.fromtimestamp(clock.now(), UTC).isoformat(timespec="milliseconds"),
            "labels": {"alertname": what.title().replace(" ", ""), "instance": host, "number": str(number)},
            "annotations": {"summary": f"{what} on {host}"},
            "status": {"state": "active", "silencedBy": [], "inhibitedBy": []},
        }

    def _answer(self, request: Request) -> Reply:
        firing = self._alarms[-25:]
        ids = {f"{alarm['fingerprint']}/{alarm['startsAt']}" for alarm in firing}
        return as_json(firing, on_sent=lambda: self.told.update(ids))


class FlakySource(DemoSource):
    """A REST API that fails at every second poll: 503, a broken connection, a page of HTML."""

    name = "flaky-api"
    purpose = Text("A REST API that fails at every second poll: 503, a broken connection, a page of HTML.")
    _every_seconds = 1.5

    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed)
        self._failures: Iterator[Reply | None] = itertools.cycle(
            [None, as_html("Service Unavailable", 503), None, Reply(is_cut=True), None, as_html("Please log in", 200)]
        )

    @property
    def row(self) -> dict[str, Any]:
        return setting_row(self.name, f"{self.url}/v1/alarms", RESPONSE_KEY="data.items", EVENT_ID_KEY="id")

    def describe(self, event: Mapping[str, Any]) -> Text:
        return Text("alarm {id}: {what}", id=event["id"], what=event["text"])

    def _alarm(self, number: int) -> dict[str, Any]:
        host, what = self._what()
        return {"id": number, "text": f"{what} on {host}", "at": int(clock.now())}

    def _answer(self, request: Request) -> Reply:
        failure = next(self._failures)
        if failure is not None:
            return failure
        ids = {str(alarm["id"]) for alarm in self._alarms}
        return as_json({"data": {"items": list(self._alarms)}}, on_sent=lambda: self.told.update(ids))


class MailSource(DemoSource):
    """Gets a mail for each alarm: plain, Japanese, or HTML with a file attached."""

    name = "ops-mailbox"
    purpose = Text("Gets a mail for each alarm: plain, Japanese, or HTML with a file attached.")
    _every_seconds = 1.3

    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed)
        self._mailbox = Mailbox()
        self._server = self._mails = MailServer(self._mailbox, before_command=self._receive, on_sent=self._tell)

    @property
    def row(self) -> dict[str, Any]:
        return setting_row(
            self.name,
            "127.0.0.1",
            CONNECTION_METHOD_ID="4",
            REQUEST_METHOD_ID="5",
            PORT=self._mails.port,
            USERNAME=USERNAME,
            PASSWORD=PASSWORD,
            MAILBOXNAME=self._mailbox.name,
        )

    def describe(self, event: Mapping[str, Any]) -> Text:
        return Text("{subject} (from {sender})", subject=event["subject"], sender=event["from"])

    def _receive(self) -> None:
        with self._lock:
            self._raise_alarms()

    def _tell(self, mail: StoredMail) -> None:
        self.told.add(self._alarms[mail.uid - 1]["message_id"])

    def _alarm(self, number: int) -> dict[str, Any]:
        host, what = self._what()
        mail = _MAILS[number % len(_MAILS)](f"{what} on {host}")
        mail["Message-ID"] = message_id = f"<{number}.{self._random.getrandbits(64):016x}@{host}.example>"
        mail["Date"] = formatdate(clock.now())
        mail["From"] = f"Watch <watch@{host}.example>"
        mail["To"] = "ops@example.com"
        self._mailbox.append(mail.as_bytes(policy=mail.policy.clone(linesep="\r\n")), clock.now())
        return {"message_id": message_id}


def _plain_mail(text: str) -> Message:
    mail = EmailMessage()
    mail["Subject"] = text
    mail.set_content(f"{text}\n")
    return mail


def _japanese_mail(text: str) -> Message:
    mail = MIMEText(f"監視サーバが障害を検知しました。\n{text}\n", "plain", "iso-2022-jp")
    mail["Subject"] = Header(f"【障害】{text}", "iso-2022-jp").encode()
    return mail


def _mail_with_file(text: str) -> Message:
    mail = EmailMessage()
    mail["Subject"] = f"【状況】{text}"
    mail.set_content(f"{text}\n")
    mail.add_alternative(f"<p>{text}</p>\n", subtype="html")
    mail.add_attachment(f"what\r\n{text}\r\n", subtype="csv", filename="状況.csv")
    return mail


_MAILS = (_plain_mail, _japanese_mail, _mail_with_file)
