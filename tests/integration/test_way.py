"""The way to a host: through proxies, to mail servers, and to what answers something else."""

import contextlib
import datetime as dt
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from ita_ag_oase import transport
from ita_ag_oase.commands.findings import Check, State
from ita_ag_oase.commands.way import Fields, check_way
from ita_ag_oase.model import Destination
from support import self_signed
from wires import Listener, TlsRelay, encrypted

_FIELDS = Fields("URL", "PROXY", "SOURCE_CA_FILE", "SOURCE_TLS_VERIFY")


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    return self_signed(tmp_path, days=100)


@pytest.fixture
def tls(certificate: Path) -> ssl.SSLContext:
    return transport.tls_context(verify=True, ca_file=certificate)


@pytest.fixture
def server(certificate: Path) -> Iterator[Destination]:
    """Something that speaks TLS, and never a word within it."""
    with Listener(_listen) as silent, TlsRelay(silent.port, certificate) as relay:
        yield Destination("127.0.0.1", relay.port, is_encrypted=True)


def _listen(peer: socket.socket) -> None:
    peer.recv(1)


class Proxy(Listener):
    """An HTTP proxy that leads to loopback, or gives another answer; `asked` is what came before that."""

    def __init__(self, reply: bytes = b"HTTP/1.1 200 OK\r\nVia: proxy\r\n\r\n") -> None:
        super().__init__(self._proxy)
        self.asked: list[bytes] = []
        self._reply = reply

    def _proxy(self, client: socket.socket) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            received = client.recv(1)
            if not received:
                return
            head += received
        self.asked.append(head)
        port = int(head.split(b" ")[1].rpartition(b":")[2])
        client.sendall(self._reply)
        if b" 200 " not in self._reply:
            return
        with socket.create_connection(("127.0.0.1", port)) as server, contextlib.suppress(OSError):
            # A handshake is a question, an answer, and a question.
            server.sendall(client.recv(65_536))
            client.sendall(server.recv(65_536))
            client.recv(65_536)


@contextmanager
def _mail_server(certificate: Path, *lines: bytes) -> Iterator[int]:
    """Yield the port of a server that says a line, and one more for each that it hears, then goes on in TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    def talk(client: socket.socket) -> None:
        for number, line in enumerate(lines):
            if number:
                client.recv(1_000)
            client.sendall(line)
        with encrypted(client, context) as peer:
            peer.recv(1)

    with Listener(talk) as listener:
        yield listener.port


async def _found(destination: Destination, tls: ssl.SSLContext) -> list[tuple[Check, State, str, str]]:
    return [
        (one.check, one.state, str(one.message), str(one.action or ""))
        async for one in check_way("n1", destination, tls, _FIELDS)
    ]


def _valid() -> tuple[Check, State, str, str]:
    day = (dt.datetime.now(dt.UTC) + dt.timedelta(days=100)).date().isoformat()
    return Check.TLS, State.OK, f"its certificate is valid until {day}", ""


def _takes(port: int) -> tuple[Check, State, str, str]:
    return Check.CONNECTION, State.OK, f"127.0.0.1:{port} takes connections", ""


async def test_a_name_is_resolved_and_a_certificate_read(server: Destination, tls: ssl.SSLContext) -> None:
    name, connection, found = await _found(replace(server, host="localhost"), tls)
    assert (name[:2], "the name localhost resolves to " in name[2]) == ((Check.NAME, State.OK), True)
    assert connection[:2] == (Check.CONNECTION, State.OK)
    # It is one for the address alone.
    assert (found[1], found[3]) == (State.FAILED, "write the host that the certificate is for in URL")


async def test_a_certificate_is_read_through_a_proxy(server: Destination, tls: ssl.SSLContext) -> None:
    with Proxy() as proxy:
        found = await _found(replace(server, proxy=f"http://me:a%20b@127.0.0.1:{proxy.port}"), tls)
        assert found == [_takes(proxy.port), _valid()]
        head = f"CONNECT 127.0.0.1:{server.port} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n"
        assert proxy.asked == [f"{head}Proxy-Authorization: Basic bWU6YSBi\r\n\r\n".encode()]


async def test_a_proxy_that_refuses_is_told(server: Destination, tls: ssl.SSLContext) -> None:
    with Proxy(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n") as proxy:
        found = await _found(replace(server, proxy=f"http://127.0.0.1:{proxy.port}"), tls)
        why = "HTTP/1.1 407 Proxy Authentication Required"
        message = f"the proxy refused the way to 127.0.0.1:{server.port} ({why})"
        assert found == [_takes(proxy.port), (Check.TLS, State.FAILED, message, "check PROXY")]


async def test_a_certificate_behind_a_socks_proxy_is_not_looked_at(server: Destination, tls: ssl.SSLContext) -> None:
    with Listener(lambda _: None) as proxy:
        found = await _found(replace(server, proxy=f"socks5://127.0.0.1:{proxy.port}"), tls)
        message = "the certificate behind this kind of proxy is not looked at"
        assert found == [_takes(proxy.port), (Check.TLS, State.SKIPPED, message, "")]


async def test_a_mail_server_changes_over_to_tls(certificate: Path, tls: ssl.SSLContext) -> None:
    with _mail_server(certificate, b"* OK ready\r\n", b"a OK begin\r\n") as port:
        found = await _found(Destination("127.0.0.1", port, is_encrypted=False, starts_tls=True), tls)
        assert found == [_takes(port), _valid()]


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ((b"* OK ready\r\n", b"a NO not here\r\n"), "a NO not here"),
        ((b"* BYE too many\r\n",), "* BYE too many"),
        ((b"SSH-2.0-server\r\n",), "SSH-2.0-server"),
    ],
    ids=["refused", "bye", "another protocol"],
)
async def test_a_server_that_does_not_change_over_is_told(
    certificate: Path, tls: ssl.SSLContext, lines: tuple[bytes, ...], why: str
) -> None:
    with _mail_server(certificate, *lines) as port:
        found = await _found(Destination("127.0.0.1", port, is_encrypted=False, starts_tls=True), tls)
        message = f"127.0.0.1:{port} does not change over to TLS ({why})"
        assert found == [_takes(port), (Check.TLS, State.FAILED, message, "check URL")]


async def test_nothing_is_sent_where_a_certificate_is_not_accepted(tmp_path: Path, tls: ssl.SSLContext) -> None:
    heard: list[bytes] = []

    def note(peer: socket.socket) -> None:
        heard.append(peer.recv(1_000))

    with ExitStack() as stack:
        silent = stack.enter_context(Listener(note))
        other = self_signed(tmp_path, name="another.pem")
        relay = stack.enter_context(TlsRelay(silent.port, other))
        (_, found) = await _found(Destination("127.0.0.1", relay.port, is_encrypted=True), tls)
    assert (found[1], found[3]) == (State.FAILED, "name the authority's certificate in SOURCE_CA_FILE")
    assert set(heard) <= {b""}


@pytest.mark.looptime
async def test_a_server_without_a_word_is_given_up(certificate: Path, tls: ssl.SSLContext) -> None:
    with _mail_server(certificate) as port:
        found = await _found(Destination("127.0.0.1", port, is_encrypted=False, starts_tls=True), tls)
        message = f"no TLS at 127.0.0.1:{port} (no answer in time)"
        action = "check the port, and whether TLS is meant, in URL"
        assert found == [_takes(port), (Check.TLS, State.FAILED, message, action)]
