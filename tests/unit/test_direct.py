"""HTTP/1.1 straight to a host, against real sockets on loopback."""

import asyncio
import itertools
import json
import random
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import httpx
import pytest

from ita_ag_oase import direct, transport
from ita_ag_oase.direct import DirectTransport
from support import self_signed

TLS = transport.tls_context(verify=True, ca_file=None)
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Host:
    """A server, and what arrived at it; a request is answered by the next of `answers`, the last again and again.

    An answer of several parts is sent in as many steps; `ends` closes the connection after each answer.
    """

    def __init__(self, answers: Sequence[Sequence[bytes]], *, ends: bool = False) -> None:
        self.requests: list[bytes] = []
        self.connections = 0
        self.ended = asyncio.Event()
        self._answers = answers
        self._ends = ends

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.ended.clear()
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                answer = self._answers[min(len(self.requests), len(self._answers) - 1)]
                self.requests.append(head + await _body(head, reader))
                for part in answer:
                    writer.write(part)
                    await writer.drain()
                if self._ends:
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            self.ended.set()


async def _body(head: bytes, reader: asyncio.StreamReader) -> bytes:
    lines = head.lower().split(b"\r\n")
    if b"transfer-encoding: chunked" in lines:
        return await reader.readuntil(b"\r\n0\r\n\r\n")
    lengths = [int(line.partition(b":")[2]) for line in lines if line.startswith(b"content-length:")]
    return await reader.readexactly(sum(lengths))


@asynccontextmanager
async def _at(serve: Serve, context: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    serving: set[asyncio.Task[None]] = set()

    async def noted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)
        await serve(reader, writer)
        with suppress(ConnectionError, ssl.SSLError):
            await writer.wait_closed()

    server = await asyncio.start_server(noted, "127.0.0.1", 0, ssl=context)
    async with server, AsyncExitStack() as stack:
        # Once the clients are gone, the connections end by themselves.
        stack.push_async_callback(lambda: asyncio.gather(*serving))
        yield f"{'https' if context else 'http'}://127.0.0.1:{server.sockets[0].getsockname()[1]}/"


@asynccontextmanager
async def _client(tls: ssl.SSLContext = TLS) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=DirectTransport(tls), timeout=20, trust_env=False) as client:
        yield client


def _plain(body: bytes, *lines: bytes, status: bytes = b"200 OK") -> bytes:
    return b"\r\n".join((b"HTTP/1.1 " + status, *lines, b"Content-Length: %d" % len(body), b"", body))


BODY = bytes(range(256)) * 20


class TestAnswers:
    """How the body of an answer is told from what follows it."""

    @pytest.mark.parametrize(
        ("parts", "ends", "body", "connections"),
        [
            pytest.param([_plain(BODY)], False, BODY, 1, id="a length"),
            pytest.param([_plain(b"")], False, b"", 1, id="nothing"),
            pytest.param([_plain(BODY)[:30], _plain(BODY)[30:99], _plain(BODY)[99:]], False, BODY, 1, id="in parts"),
            pytest.param([_plain(BODY, b"Connection: close")], False, BODY, 2, id="a length, and to be closed"),
            pytest.param(
                [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n"],
                False,
                b"abcde",
                1,
                id="chunks",
            ),
            pytest.param([b"HTTP/1.1 200 OK\r\n\r\n", b"to the ", b"end"], True, b"to the end", 2, id="until the end"),
            pytest.param([_plain(b"x").replace(b"1.1", b"1.0")], True, b"x", 2, id="HTTP/1.0"),
            pytest.param([b"HTTP/1.1 204 No Content\r\n\r\n"], False, b"", 1, id="204"),
            pytest.param([b"HTTP/1.1 100 Continue\r\n\r\n", _plain(b"x")], False, b"x", 1, id="100 before it"),
            pytest.param([b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + _plain(b"x")], False, b"x", 1, id="103"),
        ],
    )
    async def test_a_body_is_read_to_its_end_and_the_connection_used_again(
        self, parts: list[bytes], ends: bool, body: bytes, connections: int
    ) -> None:
        host = Host([parts], ends=ends)
        async with _at(host.serve) as url, _client() as client:
            assert [(await client.get(url)).content for _ in range(2)] == [body, body]
        assert (len(host.requests), host.connections) == (2, connections)

    async def test_status_and_headers_are_those_of_the_answer(self) -> None:
        host = Host([[_plain(b"", b"X-One: 1", b"X-one: 2", status=b"404 Not There")]])
        async with _at(host.serve) as url, _client() as client:
            answer = await client.get(url)
        assert (answer.status_code, answer.reason_phrase, answer.http_version) == (404, "Not There", "HTTP/1.1")
        assert answer.headers.get_list("x-one") == ["1", "2"]

    async def test_a_large_body_comes_in_portions(self) -> None:
        body = b"0123456789" * 300_000
        async with _at(Host([[_plain(body)]]).serve) as url, _client() as client, client.stream("GET", url) as answer:
            portions = [bytes(portion) async for portion in answer.aiter_raw()]
        assert b"".join(portions) == body
        assert len(portions) <= len(body) // 262_144 + 2

    @pytest.mark.parametrize(
        "answer",
        [
            pytest.param(b"", id="nothing"),
            pytest.param(b"HTTP/1.1 200 OK\r\nContent-Le", id="half a head"),
            pytest.param(_plain(BODY)[:-1], id="a byte too few"),
            pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", id="half a chunk"),
            pytest.param(b"nonsense\r\n\r\n", id="no HTTP"),
            pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx", id="two lengths"),
            pytest.param(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 200_000, id="an endless head"),
        ],
    )
    async def test_what_is_no_whole_answer_is_none(self, answer: bytes) -> None:
        async with _at(Host([[answer]], ends=True).serve) as url, _client() as client:
            with pytest.raises(httpx.RemoteProtocolError):
                await client.get(url)

    @pytest.mark.parametrize("seed", range(20))
    async def test_however_an_answer_is_cut_it_is_the_same(self, seed: int) -> None:
        chance = random.Random(seed)
        body = chance.randbytes(chance.choice([0, 1, 2_000]))
        chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if body else b"0\r\n\r\n"
        chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks
        for whole in (_plain(body), chunked):
            cuts = sorted(chance.randrange(len(whole)) for _ in range(5))
            parts = [whole[start:end] for start, end in itertools.pairwise([0, *cuts, len(whole)])]
            async with _at(Host([parts]).serve) as url, _client() as client:
                assert [(await client.get(url)).content for _ in range(2)] == [body, body]
            async with _at(Host([parts], ends=True).serve) as url, _client() as client:
                assert (await client.get(url)).content == body


class TestRequests:
    """What is sent."""

    async def test_a_request_is_sent_as_it_is(self) -> None:
        host = Host([[_plain(b"")]])
        async with _at(host.serve) as url, _client() as client:
            for name in client.headers:
                del client.headers[name]
            client.headers["X-Own"] = "1"
            await client.get(f"{url}a%20b?c=d#e")
            await client.post(url, content=b"body")
        place = url.removeprefix("http://").removesuffix("/").encode()
        assert host.requests == [
            b"GET /a%%20b?c=d HTTP/1.1\r\nHost: %b\r\nX-Own: 1\r\n\r\n" % place,
            b"POST / HTTP/1.1\r\nHost: %b\r\nX-Own: 1\r\nContent-Length: 4\r\n\r\nbody" % place,
        ]

    async def test_a_large_body_is_sent_whole_as_it_is_made(self) -> None:
        host = Host([[_plain(b"")]])
        pieces = [b"%06d," % number * 10_000 for number in range(100)]

        async def make() -> AsyncIterator[bytes]:
            for piece in pieces:
                yield piece

        length = {"Content-Length": str(sum(map(len, pieces)))}
        async with _at(host.serve) as url, _client() as client:
            await client.post(url, content=make(), headers=length)
        assert host.requests[0].partition(b"\r\n\r\n")[2] == b"".join(pieces)

    async def test_who_answers_before_it_has_all_and_closes_is_heard(self) -> None:
        async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(_plain(b"too large", b"Connection: close", status=b"413 Content Too Large"))
            writer.write_eof()
            # A reset instead could overtake the answer.
            while await reader.read(65_536):
                pass
            writer.close()

        async with _at(refuse) as url, _client() as client:
            answer = await client.post(url, content=b"x" * 20_000_000)
        assert (answer.status_code, answer.content) == (413, b"too large")

    async def test_who_answers_without_a_length_is_heard_though_the_rest_of_the_request_cannot_be_sent(self) -> None:
        async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 413 Content Too Large\r\n\r\ntoo large")
            writer.write_eof()
            await has_answer.wait()
            writer.transport.abort()
            has_reset.set()

        has_answer, has_reset = asyncio.Event(), asyncio.Event()
        async with _at(refuse) as url, _client() as client:
            try:
                async with client.stream("POST", url, content=b"x" * 20_000_000) as answer:
                    has_answer.set()
                    await has_reset.wait()
                    # The end of it is noticed in one turn of the loop, and dealt with in the next.
                    for _ in range(5):
                        await asyncio.sleep(0)
                    assert (answer.status_code, await answer.aread()) == (413, b"too large")
            finally:
                has_answer.set()

    async def test_a_body_that_fails_ends_the_connection_and_nothing_is_taken_for_whole(self) -> None:
        host = Host([[_plain(b"")]])

        async def make() -> AsyncIterator[bytes]:
            yield b"x" * 100_000
            raise RuntimeError

        async with _at(host.serve) as url, _client() as client:
            with pytest.raises(RuntimeError):
                await client.post(url, content=make(), headers={"Content-Length": "200000"})
        assert host.requests == []

    async def test_a_header_that_http_does_not_allow_is_not_sent(self) -> None:
        host = Host([[_plain(b"")]])
        async with _at(host.serve) as url, _client() as client:
            with pytest.raises(httpx.LocalProtocolError):
                await client.get(url, headers={"X": "a\nb"})
        assert host.requests == []

    async def test_another_scheme_is_refused(self) -> None:
        async with _client() as client:
            with pytest.raises(httpx.UnsupportedProtocol):
                await client.get("ftp://127.0.0.1/")


class TestConnections:
    """Which are kept, and which are not."""

    async def test_as_many_are_open_as_requests_are_under_way(self) -> None:
        may_answer = asyncio.Event()
        host = Host([[_plain(b"")]])

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await may_answer.wait()
            await host.serve(reader, writer)

        async with _at(serve) as url, _client() as client:
            asking = [asyncio.create_task(client.get(url)) for _ in range(3)]
            await asyncio.sleep(0)
            may_answer.set()
            await asyncio.gather(*asking)
            await client.get(url)
        assert (host.connections, len(host.requests)) == (3, 4)

    async def test_one_whose_answer_is_not_read_is_closed(self) -> None:
        host = Host([[_plain(b"x" * 5_000_000)], [_plain(b"")]])
        async with _at(host.serve) as url, _client() as client:
            async with client.stream("GET", url):
                pass
            await client.get(url)
        assert (host.connections, len(host.requests)) == (2, 2)

    async def test_one_that_the_host_closes_meanwhile_is_not_used_again(self) -> None:
        host = Host([[_plain(b"")]], ends=True)
        async with _at(host.serve) as url, _client() as client:
            for _ in range(3):
                await client.get(url)
                await host.ended.wait()
                # The end of it is noticed in one turn of the loop, and dealt with in the next.
                for _ in range(5):
                    await asyncio.sleep(0)
        assert host.connections == 3

    async def test_one_that_says_what_nobody_asked_for_is_not_used_again(self) -> None:
        host = Host([[_plain(b"1") + _plain(b"2")], [_plain(b"3")]])
        async with _at(host.serve) as url, _client() as client:
            assert [(await client.get(url)).content for _ in range(2)] == [b"1", b"3"]
        assert host.connections == 2

    @pytest.mark.parametrize(
        ("head", "method"),
        [
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "GET"),
            (b"HTTP/1.1 204 No Content\r\n\r\n", "GET"),
            (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", "GET"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "HEAD"),
        ],
        ids=["chunks", "204", "304", "HEAD"],
    )
    async def test_one_that_says_more_behind_an_answer_without_a_counted_body_is_not_used_again(
        self, head: bytes, method: str
    ) -> None:
        host = Host([[head + b"HTTP/1.1 200 OK\r\nContent-Le"], [_plain(b"")]])
        async with _at(host.serve) as url, _client() as client:
            await client.request(method, url)
            await client.get(url)
        assert host.connections == 2

    async def test_all_are_closed_in_the_end(self) -> None:
        host = Host([[_plain(b"")]])
        async with _at(host.serve) as url:
            async with _client() as client:
                await client.get(url)
                assert not host.ended.is_set()
            await host.ended.wait()

    @pytest.mark.looptime
    async def test_one_that_nobody_needs_is_closed_after_a_while(self) -> None:
        own = DirectTransport(TLS)
        async with _at(Host([[_plain(b"")]]).serve) as url, httpx.AsyncClient(transport=own) as client:
            await client.get(url)
            await asyncio.sleep(direct.KEPT_SECONDS - 1)
            assert sum(map(len, own._kept.values())) == 1
            await asyncio.sleep(direct.KEPT_SECONDS)
            assert own._kept == {}

    async def test_a_cancelled_request_ends_its_connection(self) -> None:
        asked = asyncio.Event()

        async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            asked.set()
            assert await reader.read() == b""
            writer.close()
            ended.set()

        ended = asyncio.Event()
        async with _at(never) as url, _client() as client:
            asking = asyncio.create_task(client.get(url))
            await asked.wait()
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            await ended.wait()


class TestFailures:
    """No connection, silence, and connections that break."""

    async def test_a_port_where_nobody_listens(self) -> None:
        async with _at(Host([]).serve) as url:
            pass
        async with _client() as client:
            with pytest.raises(httpx.ConnectError) as caught:
                await client.get(url)
        assert str(transport.explain(caught.value)[1]) == (
            "no connection (Connection refused): check the host, the port and the network"
        )

    async def test_a_host_of_several_addresses_none_of_which_listens(self) -> None:
        async with _at(Host([]).serve) as url:
            pass
        async with _client() as client:
            with pytest.raises(httpx.ConnectError) as caught:
                await client.get(url.replace("127.0.0.1", "localhost"))
        assert "Connection refused" in str(transport.explain(caught.value)[1])

    @pytest.mark.parametrize("host", ["nobody.invalid", "a" * 70 + ".invalid"])
    async def test_a_name_that_nobody_has(self, host: str) -> None:
        async with _client() as client:
            with pytest.raises(httpx.ConnectError):
                await client.get(f"http://{host}/")

    @pytest.mark.looptime
    @pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 OK\r\n", _plain(BODY)[:-1]], ids=["all", "head", "body"])
    async def test_silence_is_not_waited_for_longer_than_agreed(self, sent: bytes) -> None:
        stays, started = asyncio.Event(), asyncio.get_running_loop().time()

        async def fall_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(sent)
            await stays.wait()
            writer.close()

        async with _at(fall_silent) as url, _client() as client:
            with pytest.raises(httpx.ReadTimeout):
                await client.get(url)
            assert asyncio.get_running_loop().time() - started == pytest.approx(20, abs=1)
            stays.set()

    @pytest.mark.looptime
    async def test_what_takes_long_but_is_never_silent_is_read(self) -> None:
        async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            for byte in range(len(answer)):
                writer.write(answer[byte : byte + 1])
                await asyncio.sleep(10)
            writer.close()

        answer = _plain(b"0123456789")
        async with _at(trickle) as url, _client() as client:
            assert (await client.get(url)).content == b"0123456789"

    @pytest.mark.looptime
    async def test_a_host_that_takes_nothing_is_not_waited_for_longer_than_agreed(self) -> None:
        stays = asyncio.Event()

        async def take_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await stays.wait()
            writer.transport.abort()

        async with _at(take_nothing) as url, _client() as client:
            with pytest.raises(httpx.WriteTimeout):
                await client.post(url, content=b"x" * 50_000_000)
            stays.set()

    async def test_a_connection_that_breaks_in_the_answer(self) -> None:
        async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(_plain(BODY)[:-1])
            await writer.drain()
            writer.transport.get_extra_info("socket").setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")
            writer.transport.abort()

        async with _at(reset) as url, _client() as client:
            with pytest.raises(httpx.TransportError) as caught:
                await client.get(url)
        assert isinstance(caught.value, httpx.ReadError | httpx.RemoteProtocolError)


class TestTls:
    """The same within TLS."""

    @pytest.fixture
    def certificate(self, tmp_path: Path) -> Path:
        return self_signed(tmp_path)

    @pytest.fixture
    def context(self, certificate: Path) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        context.set_alpn_protocols(["h2", "http/1.1"])
        return context

    async def test_a_large_answer_is_read_and_the_connection_used_again(
        self, certificate: Path, context: ssl.SSLContext
    ) -> None:
        body = json.dumps(list(range(400_000))).encode()
        host, tls = Host([[_plain(body)]]), transport.tls_context(verify=True, ca_file=certificate)
        async with _at(host.serve, context) as url, _client(tls) as client:
            assert [(await client.get(url)).content == body for _ in range(2)] == [True, True]
        assert host.connections == 1

    async def test_a_certificate_that_nobody_vouches_for_is_refused(self, context: ssl.SSLContext) -> None:
        host = Host([[_plain(b"")]])
        async with _at(host.serve, context) as url, _client() as client:
            with pytest.raises(httpx.ConnectError) as caught:
                await client.get(url)
        assert isinstance(caught.value.__cause__, ssl.SSLCertVerificationError)
        assert host.requests == []

    async def test_http_is_what_is_spoken(self, certificate: Path, context: ssl.SSLContext) -> None:
        chosen: list[str | None] = []

        async def note(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            chosen.append(writer.get_extra_info("ssl_object").selected_alpn_protocol())
            await Host([[_plain(b"")]]).serve(reader, writer)

        tls = transport.tls_context(verify=True, ca_file=certificate)
        async with _at(note, context) as url, _client(tls) as client:
            await client.get(url)
        assert chosen == ["http/1.1"]

    @pytest.mark.parametrize("kilobytes", range(850, 1_300, 50))
    async def test_an_answer_is_whole_where_its_end_comes_while_nothing_is_received(
        self, certificate: Path, context: ssl.SSLContext, kilobytes: int
    ) -> None:
        body = random.Random(kilobytes).randbytes(kilobytes * 1_000)

        async def close_at_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + body)
            # As many servers do: without TLS's own word for the end, and without waiting for that of the other side.
            writer.transport._ssl_protocol._transport.close()  # type: ignore[attr-defined]

        tls = transport.tls_context(verify=True, ca_file=certificate)
        async with _at(close_at_once, context) as url, _client(tls) as client, client.stream("GET", url) as answer:
            received = bytearray()
            portions = answer.aiter_raw()
            while True:
                for _ in range(50):
                    await asyncio.sleep(0)
                received += (portion := await anext(portions, b""))
                if not portion:
                    break
        assert received == body

    async def test_one_that_breaks_while_it_is_kept_is_not_used_again(
        self, certificate: Path, context: ssl.SSLContext
    ) -> None:
        async def break_it(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(_plain(b""))
            await may_break.wait()
            writer.get_extra_info("socket").setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")
            writer.transport.abort()

        may_break = asyncio.Event()
        own = DirectTransport(transport.tls_context(verify=True, ca_file=certificate))
        async with _at(break_it, context) as url, httpx.AsyncClient(transport=own) as client:
            await client.get(url)
            ((connection,),) = own._kept.values()
            may_break.set()
            asked = [connection.is_quiet]
            while not connection.is_over:
                # In each turn of the loop.
                await asyncio.sleep(0)
                asked.append(connection.is_quiet)
        assert (asked[0], asked[-1]) == (True, False)

    @pytest.mark.looptime
    async def test_a_host_that_never_takes_up_tls_has_got_no_byte_of_the_request(self) -> None:
        taken: list[bytes] = []

        async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            taken.append(await reader.read())
            writer.close()

        async with _at(say_nothing) as url, _client() as client:
            with pytest.raises(httpx.ConnectTimeout):
                await client.get(url.replace("http:", "https:"))
        assert [(said[:1], b"GET" in said) for said in taken] == [(b"\x16", False)]
