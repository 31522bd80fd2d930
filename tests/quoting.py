"""Settings with a secret in every place there is, and the sources, proxies and mail servers that quote all they get."""

import base64
import html
import itertools
import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote

from ita_ag_oase.demo.exastro import setting_row
from ita_ag_oase.demo.loopback import LoopbackServer, Reply, Request, as_html, as_json
from planted import odd_secret
from wires import Listener, SocksServer

_SHORT = "Zq7~"
# Exastro delivers these encrypted, so that they are in clear in no file either.
COLUMNS: Mapping[str, str] = {
    "AUTH_TOKEN": odd_secret("AUTH_TOKEN", is_ascii=True),
    "AUTH_TOKEN, long": odd_secret("long AUTH_TOKEN", 600, is_ascii=True),
    "AUTH_TOKEN, two lines": f"{odd_secret('first line')}\n{odd_secret('second line')}",
    "PASSWORD": odd_secret("PASSWORD"),
    "PASSWORD, short": _SHORT,
    "PASSWORD, short, as Basic sends it": f"oper:{_SHORT}",
    "PASSWORD, mail": odd_secret("mail", 250, is_ascii=True),
    "SECRET_ACCESS_KEY": base64.b64encode(odd_secret("SECRET_ACCESS_KEY").encode()).decode(),
    "SECRET_ACCESS_KEY, wrong": odd_secret("wrong SECRET_ACCESS_KEY"),
}
# These are in clear in a row, and so in its copies. In ASCII, since all secrets with a Japanese letter have its code in
# common, and that is long enough to be found.
LITERALS: Mapping[str, str] = {
    "PROXY": odd_secret("PROXY", is_ascii=True),
    "PROXY, SOCKS": odd_secret("SOCKS", is_ascii=True),
    "URL, user": odd_secret("user of the URL", is_ascii=True),
    "URL, query": odd_secret("query of the URL", is_ascii=True),
    "REQUEST_HEADER, X-Api-Key": odd_secret("X-Api-Key", is_ascii=True),
    "REQUEST_HEADER, Authorization": odd_secret("Authorization", is_ascii=True),
    "PARAMETER, auth": odd_secret("auth", is_ascii=True),
}
# These come from a source.
SENT: Mapping[str, str] = {
    "cookie": base64.b64encode(odd_secret("cookie").encode()).decode(),
    "Location, query": odd_secret("query of the Location"),
    "Location, fragment": odd_secret("fragment of the Location"),
}
_OWN_TOKEN = "{{ EXASTRO_EVENT_COLLECTION_SETTING.AUTH_TOKEN }}"


@dataclass(frozen=True)
class Outside:
    """Where the servers are; `rows` are settings that all fail, but for `echo`, whose events quote the request."""

    source: str
    proxy: str
    tunnel: str
    mail_port: int
    socks: str

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The event collection settings, each named after what is special about it."""
        return [setting_row(name, url, **columns) for name, url, columns in self._settings()]

    def _settings(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        yield from self._with_columns()
        yield from self._with_literals()
        yield from self._with_templates()
        yield from self._with_mailboxes()

    def _with_columns(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        bearer = {"CONNECTION_METHOD_ID": "1", "AUTH_TOKEN": COLUMNS["AUTH_TOKEN"]}
        long = {**bearer, "AUTH_TOKEN": COLUMNS["AUTH_TOKEN, long"]}
        basic = {"CONNECTION_METHOD_ID": "2", "USERNAME": "oper", "PASSWORD": COLUMNS["PASSWORD"]}
        shared = {"CONNECTION_METHOD_ID": "3", "ACCESS_KEY_ID": "me"}
        yield "echo", f"{self.source}/echo", {**basic, "RESPONSE_LIST_FLAG": "0"}
        for name in ("refused", "page", "coded", "encoding"):
            yield name, f"{self.source}/{name}", bearer
        for name in ("cut", "broken"):
            yield name, f"{self.source}/{name}", long
        yield "basic", f"{self.source}/page", basic
        yield "failed", f"{self.source}/failed", {**basic, "PASSWORD": _SHORT}
        yield "key", f"{self.source}/refused", {**shared, "SECRET_ACCESS_KEY": COLUMNS["SECRET_ACCESS_KEY"]}
        yield "wrong-key", self.source, {**shared, "SECRET_ACCESS_KEY": COLUMNS["SECRET_ACCESS_KEY, wrong"]}
        yield "two-lines", self.source, {**bearer, "AUTH_TOKEN": COLUMNS["AUTH_TOKEN, two lines"]}

    def _with_literals(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        user, query, proxy = (quote(LITERALS[name], safe="") for name in ("URL, user", "URL, query", "PROXY"))
        headers = {
            "X-Api-Key": LITERALS["REQUEST_HEADER, X-Api-Key"],
            "Authorization": f"Token {LITERALS['REQUEST_HEADER, Authorization']}",
        }
        body = json.dumps({"auth": LITERALS["PARAMETER, auth"], "params": {}})
        post = {"REQUEST_METHOD_ID": "2", "REQUEST_HEADER": json.dumps(headers), "PARAMETER": body}
        yield "moved", f"{self.source}/moved", {**post, "RESPONSE_KEY": "abs(said)"}
        yield "literals", f"{self.source}/page", post
        yield "user", f"{self.source.replace('//', f'//oper:{user}@')}/page?token={query}", {}
        yield "no-url", f"http://oper:{user}@source.test:port/?token={query}", {}
        yield "proxy", "http://source.test/", {"PROXY": self.proxy.replace("//", f"//oper:{proxy}@")}
        yield "tunnel", "https://source.test/", {"PROXY": self.tunnel.replace("//", f"//oper:{proxy}@")}
        yield "no-proxy", "http://source.test/", {"PROXY": f"ftp://oper:{proxy}@127.0.0.1"}
        yield "http-proxy", "http://proxied.test/", {}
        yield "https-proxy", "https://proxied.test/", {}

    def _with_templates(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        url, own = f"{self.source}/page", {"AUTH_TOKEN": COLUMNS["AUTH_TOKEN, long"]}
        yield "query", f"{url}?token={_OWN_TOKEN}", own
        yield (
            "header",
            url,
            {**own, "REQUEST_HEADER": "{ {{ EXASTRO_EVENT_COLLECTION_SETTING.AUTH_TOKEN|tojson }}: 1 }"},
        )
        yield "template", url, {**own, "PARAMETER": "{{ {}[EXASTRO_EVENT_COLLECTION_SETTING.AUTH_TOKEN].x }}"}
        yield "parameter", url, {**own, "PARAMETER": f'{{"token": "{_OWN_TOKEN}'}

    def _with_mailboxes(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        mail = {"CONNECTION_METHOD_ID": "4", "REQUEST_METHOD_ID": "5", "PORT": self.mail_port, "USERNAME": "oper"}
        socks = f"oper:{quote(LITERALS['PROXY, SOCKS'], safe='')}@{self.socks}"
        yield "mail", "127.0.0.1", {**mail, "PASSWORD": COLUMNS["PASSWORD, mail"]}
        yield "mail-plain", "127.0.0.1", {**mail, "PASSWORD": COLUMNS["PASSWORD"]}
        yield "socks", "127.0.0.1", {**mail, "PASSWORD": _SHORT, "PROXY": socks}
        yield "no-socks", "127.0.0.1", {**mail, "PASSWORD": _SHORT, "PROXY": f"http://{socks}"}


@contextmanager
def quoting_outside() -> Iterator[Outside]:
    """Yield where the servers are, which are there meanwhile."""
    with ExitStack() as stack:
        source, proxy = (stack.enter_context(LoopbackServer(_answer)) for _ in range(2))
        tunnel = stack.enter_context(Listener(_refuse_tunnel))
        mail = stack.enter_context(Listener(_refuse_login))
        socks = stack.enter_context(SocksServer(b"oper", b"another"))
        yield Outside(
            source=source.url,
            proxy=proxy.url,
            tunnel=f"http://127.0.0.1:{tunnel.port}",
            mail_port=mail.port,
            socks=f"127.0.0.1:{socks.port}",
        )


@contextmanager
def quoting_exastro() -> Iterator[str]:
    """Yield the URL of what answers in place of Exastro meanwhile; it ends with a slash for the status to follow."""

    def answer(request: Request) -> Reply:
        status, told = int(request.path.split("/")[1]), told_by(request)
        return as_json({"result": f"{status}-00001", "message": told, "error_description": told}, status)

    with LoopbackServer(answer) as server:
        yield f"{server.url}/"


def told_by(request: Request) -> str:
    """Return all that a request says, and in clear what Basic authentication encodes and what is percent-encoded."""
    header = request.headers.get("authorization") or request.headers.get("proxy-authorization") or ""
    body = request.body.decode()
    said = f"{header} {request.query} {body} {dict(request.headers)}"
    return f"{_login_in(header)} {unquote(request.query)} {unquote(body)} {said}"


def _login_in(header: str) -> str:
    scheme, _, value = header.partition(" ")
    return base64.b64decode(value).decode() if scheme == "Basic" else ""


def _answer(request: Request) -> Reply:
    told = told_by(request)
    if request.path == "/moved":
        query, fragment = (quote(SENT[f"Location, {part}"], safe="") for part in ("query", "fragment"))
        location = f"/expression?access_token={query}#id_token={fragment}"
        return Reply(307, headers={"Location": location, "Set-Cookie": f"id={SENT['cookie']}; Path=/"})
    encoding = request.headers.get("authorization", "")
    replies = {
        "/echo": as_json({"id": 1, "said": told, "coded": base64.b64encode(told.encode()).decode()}),
        "/refused": Reply(401, told.encode(), headers={"WWW-Authenticate": quote(told)}),
        "/failed": as_json({"error": told}, 500),
        "/expression": as_json({"said": told}),
        "/page": as_html(html.escape(told), 200),
        "/cut": as_html("." * 100 + told, 200),
        "/coded": Reply(200, base64.b64encode(told.encode())),
        "/encoding": Reply(200, headers={"Content-Encoding": encoding}),
        "/broken": Reply(is_cut=True),
    }
    return replies.get(request.path) or as_html(told, 407)


def _lines_of(client: socket.socket) -> Iterator[str]:
    with client.makefile("rb") as lines:
        for line in lines:
            yield line.decode().rstrip("\r\n")


def _refuse_tunnel(client: socket.socket) -> None:
    """Refuse as a proxy does that quotes the login in the first line of its answer."""
    for line in itertools.takewhile(bool, _lines_of(client)):
        if line.lower().startswith("proxy-authorization"):
            header = line.partition(": ")[2]
            client.sendall(f"HTTP/1.1 407 No way for {_login_in(header)} by {header}\r\n\r\n".encode())


def _refuse_login(client: socket.socket) -> None:
    """Refuse as a mail server does that quotes the whole command, and in clear what AUTHENTICATE encodes."""
    client.sendall(b"* OK ready\r\n")
    tag = ""
    for line in _lines_of(client):
        if line.endswith("CAPABILITY"):
            client.sendall(f"* CAPABILITY IMAP4rev1 AUTH=PLAIN\r\n{line.split()[0]} OK done\r\n".encode())
        elif line.endswith("AUTHENTICATE PLAIN"):
            tag = line.split()[0]
            client.sendall(b"+ \r\n")
        else:
            clear = base64.b64decode(line).decode().replace("\0", " ") if tag else ""
            client.sendall(f"{tag or line.split()[0]} NO {clear} {line}\r\n".encode())
