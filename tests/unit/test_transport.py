"""What the HTTP clients share: certificates, proxies, bounded answers, Retry-After, errors in words."""

import asyncio
import datetime as dt
import gzip
import ipaddress
import socket
import ssl
import time
import zlib
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from ita_ag_oase import transport
from ita_ag_oase.errors import Reason
from ita_ag_oase.transport import AnswerTooLarge, AnswerUnreadable, Proxies, explain, read_bounded, retry_after_seconds

NOW = 1_700_000_000.0
# A machine with other work is no reason to fail.
UNTIMED = settings(deadline=None)


class TestProxies:
    """HTTP_PROXY, HTTPS_PROXY and NO_PROXY."""

    @pytest.mark.parametrize(
        ("http", "https", "url", "chosen"),
        [
            pytest.param("http://p:1", "http://q:2", "http://h/", "http://p:1", id="http"),
            pytest.param("http://p:1", "http://q:2", "https://h/", "http://q:2", id="https"),
            pytest.param("http://p:1", None, "https://h/", None, id="none for https"),
            pytest.param(None, "http://q:2", "http://h/", None, id="none for http"),
            pytest.param("p:1", "https://q", "http://h/", "http://p:1", id="without scheme"),
        ],
    )
    def test_the_scheme_of_the_request_decides(
        self, http: str | None, https: str | None, url: str, chosen: str | None
    ) -> None:
        assert Proxies(http=http, https=https, no_proxy=None).choose(httpx.URL(url)) == chosen

    @pytest.mark.parametrize(
        ("no_proxy", "url", "is_direct"),
        [
            pytest.param("", "http://example.com", False, id="empty"),
            pytest.param(" , ,", "http://example.com", False, id="empty entries"),
            pytest.param("*", "http://example.com", True, id="star covers all"),
            pytest.param("a,*", "http://[::1]", True, id="star among others"),
            pytest.param("*:8080", "http://example.com:8080", True, id="star with port"),
            pytest.param("*:8080", "http://example.com", False, id="star with another port"),
            pytest.param("example.com", "http://example.com", True, id="host"),
            pytest.param("Example.COM", "http://eXample.com", True, id="upper case"),
            pytest.param("example.com", "http://example.com.", True, id="dot at the host's end"),
            pytest.param("example.com.", "http://example.com", True, id="dot at the entry's end"),
            pytest.param("example.com", "http://api.example.com", True, id="host covers subdomains"),
            pytest.param("example.com", "http://a.b.example.com", True, id="and theirs"),
            pytest.param(".example.com", "http://api.example.com", True, id="leading dot"),
            pytest.param(".example.com", "http://example.com", True, id="leading dot covers the domain"),
            pytest.param("*.example.com", "http://api.example.com", True, id="star and dot"),
            pytest.param("example.com", "http://myexample.com", False, id="no substring: longer name"),
            pytest.param("example.com", "http://example.com.evil.net", False, id="no substring: continued"),
            pytest.param("example.com", "http://example.co", False, id="no substring: shorter name"),
            pytest.param("api.example.com", "http://example.com", False, id="a host does not cover its domain"),
            pytest.param("local", "http://localhost", False, id="no beginning"),
            pytest.param("com", "http://example.com", True, id="top-level domain"),
            pytest.param("a, example.com ,b", "http://example.com", True, id="blanks around"),
            pytest.param("a example.com\tb", "http://example.com", True, id="separated by blanks"),
            pytest.param("example.com:8080", "http://example.com:8080", True, id="port"),
            pytest.param("example.com:8080", "http://api.example.com:8080", True, id="port, subdomain"),
            pytest.param("example.com:8080", "http://example.com", False, id="another port"),
            pytest.param("example.com:80", "http://example.com", True, id="port of http"),
            pytest.param("example.com:443", "https://example.com", True, id="port of https"),
            pytest.param("example.com:80", "https://example.com", False, id="port of the other scheme"),
            pytest.param("example.com", "http://example.com:8080", True, id="without port covers all ports"),
            pytest.param("example.com:²", "http://example.com:2", False, id="no port at all"),
            pytest.param("10.0.0.1", "http://10.0.0.1:9093", True, id="IPv4"),
            pytest.param("10.0.0.1", "http://10.0.0.11", False, id="IPv4, no substring"),
            pytest.param("10.0.0.1", "http://110.0.0.1", False, id="IPv4, no end"),
            pytest.param("0.0.1", "http://10.0.0.1", False, id="IPv4 is no domain"),
            pytest.param("10.0.0.1:9093", "http://10.0.0.1:9093", True, id="IPv4 with port"),
            pytest.param("10.0.0.1:9093", "http://10.0.0.1", False, id="IPv4 with another port"),
            pytest.param("10.0.0.0/8", "http://10.200.3.4", True, id="network"),
            pytest.param("10.1.2.3/8", "http://10.200.3.4", True, id="network with host bits"),
            pytest.param("10.0.0.0/8", "http://11.0.0.1", False, id="outside the network"),
            pytest.param("10.0.0.0/8:9093", "http://10.200.3.4:9093", True, id="network with port"),
            pytest.param("10.0.0.0/8:9093", "http://10.200.3.4", False, id="network with another port"),
            pytest.param("10.0.0.0/8", "http://ten.example.com", False, id="network and a name"),
            pytest.param("0.0.0.0/0", "http://[::1]", False, id="IPv4 network and IPv6"),
            pytest.param("::1", "http://[::1]", True, id="IPv6"),
            pytest.param("[::1]", "http://[::1]", True, id="IPv6 in brackets"),
            pytest.param("0:0:0:0:0:0:0:1", "http://[::1]", True, id="IPv6 written otherwise"),
            pytest.param("[::1]:8080", "http://[::1]:8080", True, id="IPv6 with port"),
            pytest.param("[::1]:8080", "http://[::1]", False, id="IPv6 with another port"),
            pytest.param("fd00::/8", "http://[fd12::5]", True, id="IPv6 network"),
            pytest.param("fd00::/8", "http://[fe80::5]", False, id="outside the IPv6 network"),
            pytest.param("fd00::/8,::1", "http://example.com", False, id="IPv6 and a name"),
            pytest.param(".", "http://example.com", False, id="dot alone"),
            pytest.param("*.", "http://example.com.", False, id="star and dot alone"),
            pytest.param("http://example.com", "http://example.com", False, id="a URL is no entry"),
        ],
    )
    def test_no_proxy_is_matched_by_host_and_network(self, no_proxy: str, url: str, is_direct: bool) -> None:
        proxies = Proxies(http="http://p", https="http://p", no_proxy=no_proxy)
        assert proxies.choose(httpx.URL(url)) == (None if is_direct else "http://p")

    @UNTIMED
    @given(no_proxy=st.text(), host=st.sampled_from(["h.example", "10.0.0.1", "[::1]", "h.example:8080"]))
    def test_no_text_of_no_proxy_is_an_error(self, no_proxy: str, host: str) -> None:
        chosen = Proxies(http="http://p", https=None, no_proxy=no_proxy).choose(httpx.URL(f"http://{host}"))
        assert chosen in (None, "http://p")


class _Pieces(httpx.AsyncByteStream):
    """A body that arrives in pieces; `given_out` tells how many were asked for."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = pieces
        self.given_out = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            self.given_out += 1
            yield piece


def _answer(body: bytes | Iterable[bytes], coding: str | None = None) -> httpx.Response:
    headers = {} if coding is None else {"Content-Encoding": coding}
    return httpx.Response(200, headers=headers, stream=_Pieces([body] if isinstance(body, bytes) else body))


def _in_pieces(body: bytes, size: int) -> list[bytes]:
    return [body[start : start + size] for start in range(0, len(body), size)]


class TestReadBounded:
    """An answer's body: decompressed, and of a bounded size."""

    @pytest.mark.parametrize("size", [1, 7, 1_000_000])
    @pytest.mark.parametrize(
        ("body", "coding", "text"),
        [
            pytest.param(b'{"a": 1}', None, b'{"a": 1}', id="plain"),
            pytest.param(b"", None, b"", id="empty"),
            pytest.param(b"text", "identity", b"text", id="identity"),
            pytest.param(b"text", "", b"text", id="empty coding"),
            pytest.param(gzip.compress(b"text" * 99), "gzip", b"text" * 99, id="gzip"),
            pytest.param(gzip.compress(b"text"), " GZip ", b"text", id="upper case, blanks"),
            pytest.param(gzip.compress(b"text"), "x-gzip", b"text", id="x-gzip"),
            pytest.param(gzip.compress(b""), "gzip", b"", id="gzip of nothing"),
            pytest.param(b"", "gzip", b"", id="no gzip at all"),
            pytest.param(gzip.compress(b"one ") + gzip.compress(b"two"), "gzip", b"one two", id="two members"),
            pytest.param(gzip.compress(b"") * 9 + gzip.compress(b"x"), "gzip", b"x", id="empty members"),
        ],
    )
    async def test_a_body_is_read_whole(self, body: bytes, coding: str | None, text: bytes, size: int) -> None:
        assert bytes(await read_bounded(_answer(_in_pieces(body, size), coding), 1_000)) == text

    async def test_zeros_behind_a_member_are_padding(self) -> None:
        assert bytes(await read_bounded(_answer(gzip.compress(b"text") + bytes(99), "gzip"), 1_000)) == b"text"

    @pytest.mark.parametrize("size", [1, 999, 1_000, 1_000_000])
    @pytest.mark.parametrize("coding", [None, "gzip"])
    @pytest.mark.parametrize(("length", "is_read"), [(0, True), (999, True), (1_000, True), (1_001, False)])
    async def test_the_bound_is_exact(self, length: int, is_read: bool, coding: str | None, size: int) -> None:
        body = b"x" * length if coding is None else gzip.compress(b"x" * length)
        answer = _answer(_in_pieces(body, size), coding)
        if is_read:
            assert len(await read_bounded(answer, 1_000)) == length
        else:
            with pytest.raises(AnswerTooLarge):
                await read_bounded(answer, 1_000)

    async def test_an_endless_body_is_not_read_to_its_end(self) -> None:
        stream = _Pieces(b"x" * 100 for _ in range(1_000_000))
        with pytest.raises(AnswerTooLarge):
            await read_bounded(httpx.Response(200, stream=stream), 1_000)
        assert stream.given_out == 11

    async def test_a_gzip_bomb_is_not_inflated(self, monkeypatch: pytest.MonkeyPatch) -> None:
        # 100 MiB of zeros in about 100 kB, three times.
        packer = zlib.compressobj(9, wbits=31)
        bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(100)) + packer.flush()
        made: list[int] = []

        class Counting:
            """The real decompressor, counting what it makes."""

            def __init__(self, wbits: int) -> None:
                self._real = inflater(wbits=wbits)

            def decompress(self, data: bytes, max_length: int) -> bytes:
                text = self._real.decompress(data, max_length)
                made.append(len(text))
                return text

            def __getattr__(self, name: str) -> object:
                return getattr(self._real, name)

        inflater = zlib.decompressobj
        monkeypatch.setattr(zlib, "decompressobj", Counting)
        stream = _Pieces([bomb, bomb, bomb])
        with pytest.raises(AnswerTooLarge):
            await read_bounded(httpx.Response(200, headers={"Content-Encoding": "gzip"}, stream=stream), 3_000_000)
        assert len(bomb) < 1 << 20
        assert sum(made) == 3_000_001
        # Never much at once beside the body.
        assert max(made) <= 1 << 20
        assert stream.given_out == 1

    @pytest.mark.parametrize("coding", ["deflate", "br", "zstd", "compress", "gzip, gzip", "identity, gzip", "other"])
    async def test_a_coding_that_was_not_asked_for_is_refused(self, coding: str) -> None:
        with pytest.raises(AnswerUnreadable, match="which was not asked for"):
            await read_bounded(_answer(b"text", coding), 1_000)

    async def test_the_name_of_a_coding_is_cut(self) -> None:
        with pytest.raises(AnswerUnreadable) as caught:
            await read_bounded(_answer(b"", "x" * 9_000), 1_000)
        assert str(caught.value) == f"it is coded as {'x' * 19 + '…'!r}, which was not asked for"

    async def test_the_name_of_a_coding_is_told_as_it_came_so_that_a_secret_in_it_is_known(self) -> None:
        with pytest.raises(AnswerUnreadable, match=r"^it is coded as 'Bearer SeCrEt', "):
            await read_bounded(_answer(b"", "Bearer SeCrEt"), 1_000)

    @pytest.mark.parametrize(
        ("body", "why"),
        [
            pytest.param(b'{"a": 1}', "its compression is broken", id="not compressed at all"),
            pytest.param(gzip.compress(b"text")[:-6] + b"broken", "its compression is broken", id="wrong checksum"),
            pytest.param(gzip.compress(b"text") + b"more", "its compression is broken", id="something behind"),
            pytest.param(zlib.compress(b"text"), "its compression is broken", id="zlib's own form"),
            pytest.param(gzip.compress(b"12345")[:-9], "its compressed text ends too early", id="cut"),
            pytest.param(gzip.compress(b"text")[:4], "its compressed text ends too early", id="cut in the head"),
        ],
    )
    @pytest.mark.parametrize("size", [1, 1_000])
    async def test_a_broken_body_is_not_taken_for_a_whole_one(self, body: bytes, why: str, size: int) -> None:
        with pytest.raises(AnswerUnreadable) as caught:
            await read_bounded(_answer(_in_pieces(body, size), "gzip"), 1_000)
        assert str(caught.value) == why


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        pytest.param(None, None, id="none"),
        pytest.param("", None, id="empty"),
        pytest.param("0", 0.0, id="at once"),
        pytest.param("120", 120.0, id="seconds"),
        pytest.param(" 120 ", 120.0, id="blanks around"),
        pytest.param("86400", 3_600.0, id="no more than an hour"),
        pytest.param("9" * 5_000, 3_600.0, id="very many digits"),
        pytest.param("-5", None, id="negative"),
        pytest.param("1.5", None, id="no whole number"),
        pytest.param("soon", None, id="garbage"),
        pytest.param("²", None, id="a digit that is none"),
        pytest.param("Tue, 14 Nov 2023 22:13:50 GMT", 30.0, id="date"),
        pytest.param("Tuesday, 14-Nov-23 22:13:50 GMT", 30.0, id="date as of RFC 850"),
        pytest.param("Tue, 14 Nov 2023 22:13:50 -0000", 30.0, id="date without zone"),
        pytest.param("Wed, 15 Nov 2023 07:13:50 +0900", 30.0, id="date of another zone"),
        pytest.param("Tue, 14 Nov 2023 22:13:20 GMT", 0.0, id="date: now"),
        pytest.param("Sun, 06 Nov 1994 08:49:37 GMT", 0.0, id="date: long ago"),
        pytest.param("Fri, 31 Dec 9999 23:59:59 GMT", 3_600.0, id="date: far away"),
        pytest.param("Fri, 31 Dec 99999999999 23:59:59 GMT", None, id="date: no year"),
        pytest.param("Tue, 14 Nov 2023 25:61:61 GMT", None, id="date: no time"),
    ],
)
def test_retry_after_is_read_as_seconds_or_date(value: str | None, seconds: float | None) -> None:
    headers = [] if value is None else [(b"Retry-After", value.encode("utf-8"))]
    assert retry_after_seconds(httpx.Response(503, headers=headers), NOW) == seconds


def test_a_date_without_zone_is_not_of_the_machine_s_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        response = httpx.Response(503, headers={"Retry-After": "Tue, 14 Nov 2023 22:13:50 -0000"})
        assert retry_after_seconds(response, NOW) == 30.0
    finally:
        monkeypatch.undo()
        time.tzset()


_DATE_PARTS = (
    *(
        "Tue,",
        "14",
        "Nov",
        "2023",
        "22:13:50",
        "GMT",
        "-0000",
        "+9999",
        "99999999999",
        "0",
        ",",
        "25:61:61",
        "é",
        "1.5",
    ),
    *("31", "Feb", "9999", "-2359", "(", '"', ":", "12:"),
)


@UNTIMED
@given(st.lists(st.sampled_from(_DATE_PARTS), max_size=9).map(" ".join) | st.text(st.characters(codec="latin-1")))
def test_no_retry_after_is_an_error(value: str) -> None:
    response = httpx.Response(503, headers=[(b"Retry-After", value.encode("latin-1"))])
    seconds = retry_after_seconds(response, NOW)
    assert seconds is None or 0.0 <= seconds <= 3_600.0


def _caused(err: httpx.TransportError, cause: Exception) -> httpx.TransportError:
    err.__cause__ = RuntimeError("in between")
    err.__cause__.__context__ = cause
    return err


_TIMEOUT_WORDS = "in time: check the host, the port and what lies between"


@pytest.mark.parametrize(
    ("err", "reason", "words"),
    [
        pytest.param(TimeoutError(), Reason.TIMEOUT, f"no answer {_TIMEOUT_WORDS}", id="in all"),
        pytest.param(httpx.ReadTimeout("x"), Reason.TIMEOUT, f"no answer {_TIMEOUT_WORDS}", id="read"),
        pytest.param(httpx.WriteTimeout("x"), Reason.TIMEOUT, f"no answer {_TIMEOUT_WORDS}", id="write"),
        pytest.param(httpx.ConnectTimeout("x"), Reason.TIMEOUT, f"no connection {_TIMEOUT_WORDS}", id="connect"),
        pytest.param(
            _caused(httpx.ConnectError("all failed"), OSError(111, "Connection refused")),
            Reason.UNREACHABLE,
            "no connection (Connection refused): check the host, the port and the network",
            id="refused",
        ),
        pytest.param(
            _caused(httpx.ConnectError("all failed"), OSError(111, "Connect call failed ('127.0.0.1', 8000)")),
            Reason.UNREACHABLE,
            "no connection (Connection refused): check the host, the port and the network",
            id="refused, as asyncio tells it",
        ),
        pytest.param(
            _caused(httpx.ConnectError("all failed"), socket.gaierror(-2, "Name or service not known")),
            Reason.UNREACHABLE,
            "no connection (Name or service not known): check the host, the port and the network",
            id="name unknown",
        ),
        pytest.param(
            httpx.ConnectError("all attempts failed"),
            Reason.UNREACHABLE,
            "no connection (all attempts failed): check the host, the port and the network",
            id="connect, cause unknown",
        ),
        pytest.param(
            httpx.ConnectError(""),
            Reason.UNREACHABLE,
            "no connection (ConnectError): check the host, the port and the network",
            id="connect, without words",
        ),
        pytest.param(
            httpx.ProxyError("407 Proxy Authentication Required"),
            Reason.UNREACHABLE,
            "the proxy refused (407 Proxy Authentication Required): check the proxy",
            id="proxy",
        ),
        pytest.param(
            httpx.RemoteProtocolError("Server disconnected"),
            Reason.UNREACHABLE,
            "the connection broke (Server disconnected): check the host and the network",
            id="broken",
        ),
        pytest.param(
            httpx.ReadError(""),
            Reason.UNREACHABLE,
            "the connection broke (ReadError): check the host and the network",
            id="broken, without words",
        ),
        pytest.param(
            httpx.RemoteProtocolError("y" * 9_000),
            Reason.UNREACHABLE,
            f"the connection broke ({'y' * 199}…): check the host and the network",
            id="words of the other side are cut",
        ),
        pytest.param(
            httpx.LocalProtocolError("Illegal header value b'Bearer hidden\\n'"),
            Reason.PARAMETER,
            "the request holds what HTTP does not allow: check its headers and credentials",
            id="a header is not repeated",
        ),
    ],
)
def test_a_failure_is_explained(err: httpx.TransportError | TimeoutError, reason: Reason, words: str) -> None:
    told, text = explain(err)
    assert (told, str(text)) == (reason, words)


class _Certificate:
    """A certificate made for this test, and its key."""

    def __init__(self, folder: Path, *, host: str, days: int = 1, issuer: "_Certificate | None" = None) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"test {folder.name}")])
        moment = dt.datetime.now(dt.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(self._name)
            .issuer_name(issuer._name if issuer else self._name)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(moment - dt.timedelta(days=2))
            .not_valid_after(moment + dt.timedelta(days=days))
            .add_extension(_alternative_name(host), critical=False)
            .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        )
        certificate = builder.sign(issuer._key if issuer else self._key, hashes.SHA256())
        self.path = folder / "certificate.pem"
        self.path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        self._key_path = folder / "key.pem"
        self._key_path.write_bytes(
            self._key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )

    def server_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.path, self._key_path)
        return context


def _alternative_name(host: str) -> x509.SubjectAlternativeName:
    try:
        return x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(host))])
    except ValueError:
        return x509.SubjectAlternativeName([x509.DNSName(host)])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "server"
    path.mkdir()
    return path


@asynccontextmanager
async def _server(context: ssl.SSLContext | None) -> AsyncIterator[int]:
    """Answer every request on loopback with 200, without TLS as soon as anything comes; yields the port."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n" if context else b"\x16")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def _ask(url: str, *, verify: bool, ca_file: Path | None) -> int | tuple[Reason, str]:
    """Return the status of an answer, or why there was none."""
    context = transport.tls_context(verify=verify, ca_file=ca_file)
    async with httpx.AsyncClient(verify=context, trust_env=False, timeout=5.0) as client:
        try:
            return (await client.get(url)).status_code
        except httpx.TransportError as err:
            reason, text = explain(err)
            return reason, str(text)


class TestTls:
    """Certificates are verified against the system's authorities and one's own."""

    async def test_a_certificate_of_an_unknown_authority_is_refused(self, folder: Path) -> None:
        async with _server(_Certificate(folder, host="127.0.0.1").server_context()) as port:
            found = await _ask(f"https://127.0.0.1:{port}", verify=True, ca_file=None)
        assert found == (
            Reason.TLS,
            "its certificate is not trusted (self-signed certificate): name its authority as a CA file",
        )

    async def test_a_certificate_in_the_ca_file_is_trusted(self, folder: Path) -> None:
        certificate = _Certificate(folder, host="127.0.0.1")
        async with _server(certificate.server_context()) as port:
            assert await _ask(f"https://127.0.0.1:{port}", verify=True, ca_file=certificate.path) == 200

    async def test_a_certificate_signed_by_the_authority_in_the_ca_file_is_trusted(
        self, folder: Path, tmp_path: Path
    ) -> None:
        authority = _Certificate(tmp_path, host="authority.test")
        async with _server(_Certificate(folder, host="127.0.0.1", issuer=authority).server_context()) as port:
            assert await _ask(f"https://127.0.0.1:{port}", verify=True, ca_file=authority.path) == 200

    async def test_a_certificate_of_another_host_is_refused(self, folder: Path) -> None:
        certificate = _Certificate(folder, host="other.test")
        async with _server(certificate.server_context()) as port:
            found = await _ask(f"https://127.0.0.1:{port}", verify=True, ca_file=certificate.path)
        assert isinstance(found, tuple)
        assert found[0] is Reason.TLS
        assert "IP address mismatch" in found[1]

    async def test_an_expired_certificate_is_refused(self, folder: Path) -> None:
        certificate = _Certificate(folder, host="127.0.0.1", days=-1)
        async with _server(certificate.server_context()) as port:
            found = await _ask(f"https://127.0.0.1:{port}", verify=True, ca_file=certificate.path)
        assert found == (
            Reason.TLS,
            "its certificate is not trusted (certificate has expired): name its authority as a CA file",
        )

    async def test_without_verification_any_certificate_will_do(self, folder: Path) -> None:
        certificate = _Certificate(folder, host="other.test", days=-1)
        async with _server(certificate.server_context()) as port:
            assert await _ask(f"https://127.0.0.1:{port}", verify=False, ca_file=None) == 200

    async def test_a_server_without_tls_is_told(self) -> None:
        async with _server(None) as port:
            found = await _ask(f"https://127.0.0.1:{port}", verify=True, ca_file=None)
        assert found == (Reason.TLS, "no TLS connection (WRONG_VERSION_NUMBER): check the scheme and the port")

    @pytest.mark.parametrize("content", [b"", b"no certificate", b"\xff\xfe"])
    def test_a_ca_file_without_certificate_is_an_error(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "ca.pem"
        path.write_bytes(content)
        with pytest.raises(OSError, match=r"."):
            transport.tls_context(verify=True, ca_file=path)

    def test_public_authorities_are_trusted_where_the_system_knows_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SSL_CERT_FILE", "/nowhere")
        monkeypatch.setenv("SSL_CERT_DIR", "/nowhere")
        assert len(transport.tls_context(verify=True, ca_file=None).get_ca_certs()) > 50

    def test_public_authorities_are_trusted_beside_one_s_own(self, folder: Path) -> None:
        certificate = _Certificate(folder, host="127.0.0.1")
        without = transport.tls_context(verify=True, ca_file=None).get_ca_certs()
        with_own = transport.tls_context(verify=True, ca_file=certificate.path).get_ca_certs()
        assert len(without) > 50
        assert len(with_own) == len(without) + 1
