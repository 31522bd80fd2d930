"""The status server's HTTP on a real connection: what it answers, what it refuses, and who cannot hold it up."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Mapping
from http import HTTPStatus

import h11
import pytest

from ita_ag_oase.errors import Reason, StatusServerFailed
from ita_ag_oase.observability import status_server
from ita_ag_oase.observability.status_server import Answer, StatusServer
from support import do_without, free_port

HOST = b"Host: localhost\r\n\r\n"
COMMON = {
    "content-type": "text/plain; charset=utf-8",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "connection": "close",
}


class Visitors:
    """A server with a few routes, and who asks it."""

    def __init__(self, **limits: float) -> None:
        self.port = free_port()
        self.accepted: list[str] = []
        self.waiting: asyncio.Queue[None] = asyncio.Queue()
        self.may_end = asyncio.Event()
        self.server = StatusServer({"/": self._greet, "/wait": self._wait, "/large": self._tell_much}, **limits)

    async def ask(self, request: bytes) -> tuple[int, Mapping[str, str], bytes]:
        """Return status, headers and body of the answer."""
        return _parsed(request, await self.exchange(request))

    async def exchange(self, request: bytes) -> bytes:
        """Return all bytes up to the end of the connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        with contextlib.closing(writer):
            writer.write(request)
            async with asyncio.timeout(20):
                return await reader.read()

    async def _greet(self, accept: str) -> Answer:
        self.accepted.append(accept)
        return Answer("gut: こんにちは\n".encode(), {"Cache-Control": "max-age=1", "X-Own": "yes"})

    async def _wait(self, _: str) -> Answer:
        self.waiting.put_nowait(None)
        await self.may_end.wait()
        return Answer(b"at last")

    async def _tell_much(self, _: str) -> Answer:
        return Answer(b"x" * 10_000_000)


def _parsed(request: bytes, answer: bytes) -> tuple[int, Mapping[str, str], bytes]:
    client = h11.Connection(h11.CLIENT)
    # What it parses depends on the method alone; what was sent may be none that h11 would send.
    method = "HEAD" if request.startswith(b"HEAD") else "GET"
    client.send(h11.Request(method=method, target="/", headers=[("Host", "localhost")]))
    client.send(h11.EndOfMessage())
    client.receive_data(answer)
    client.receive_data(b"")
    response = client.next_event()
    assert isinstance(response, h11.Response)
    body = b""
    while isinstance(event := client.next_event(), h11.Data):
        body += event.data
    assert isinstance(event, h11.EndOfMessage)
    headers = {name.decode(): value.decode() for name, value in response.headers}
    return response.status_code, headers, body


@contextlib.asynccontextmanager
async def _served(**limits: float) -> AsyncIterator[Visitors]:
    visitors = Visitors(**limits)
    await visitors.server.open("127.0.0.1", visitors.port)
    yield visitors
    await visitors.server.close()


@pytest.fixture
async def visitors() -> AsyncIterator[Visitors]:
    async with _served() as visitors:
        yield visitors


async def test_get_gets_what_the_route_says_over_the_common_headers(visitors: Visitors) -> None:
    body = "gut: こんにちは\n".encode()
    assert await visitors.ask(b"GET /?verbose=1 HTTP/1.1\r\nAccept: text/plain\r\n" + HOST) == (
        200,
        {**COMMON, "cache-control": "max-age=1", "x-own": "yes", "content-length": str(len(body))},
        body,
    )
    assert visitors.accepted == ["text/plain"]


async def test_head_gets_the_same_without_the_body(visitors: Visitors) -> None:
    got, asked = [await visitors.ask(b"%b / HTTP/1.1\r\n" % method + HOST) for method in (b"GET", b"HEAD")]
    assert asked == (got[0], got[1], b"")


async def test_a_large_answer_arrives_whole(visitors: Visitors) -> None:
    status, headers, body = await visitors.ask(b"GET /large HTTP/1.1\r\n" + HOST)
    assert (status, headers["content-length"], len(body)) == (200, "10000000", 10_000_000)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /nowhere HTTP/1.1\r\n" + HOST, 404),
        (b"GET /../ HTTP/1.1\r\n" + HOST, 404),
        (b"GET http://[/ HTTP/1.1\r\n" + HOST, 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nno header\r\n" + HOST, 400),
        (b"GET /\r\n" + HOST, 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 20_000, 431),
        (b"GET / HTTP/1.1\r\nContent-Length: 3\r\n" + HOST + b"abc", 413),
        (b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n" + HOST, 413),
    ],
    ids=[
        "no such page",
        "out of the tree",
        "no URL",
        "no host",
        "no header",
        "no version",
        "TLS",
        "endless head",
        "body",
        "chunked body",
    ],
)
async def test_what_cannot_be_answered_is_refused_with_the_common_headers(
    visitors: Visitors, request_: bytes, status: int
) -> None:
    body = f"{HTTPStatus(status).phrase}\n".encode()
    assert await visitors.ask(request_) == (status, {**COMMON, "content-length": str(len(body))}, body)
    assert visitors.accepted == []


@pytest.mark.parametrize("method", [b"POST", b"PUT", b"DELETE", b"OPTIONS", b"TRACE", b"get"])
@pytest.mark.parametrize("body", [b"", b"x=1"], ids=["without a body", "with a body"])
async def test_other_methods_are_refused_with_those_that_are_allowed(
    visitors: Visitors, method: bytes, body: bytes
) -> None:
    head = b"%b / HTTP/1.1\r\nContent-Length: %d\r\n" % (method, len(body))
    status, headers, body = await visitors.ask(head + HOST + body)
    assert (status, headers, body) == (
        405,
        {**COMMON, "allow": "GET, HEAD", "content-length": "19"},
        b"Method Not Allowed\n",
    )


async def test_no_header_tells_what_serves(visitors: Visitors) -> None:
    assert b"\r\nserver:" not in (await visitors.exchange(b"GET / HTTP/1.1\r\n" + HOST)).lower()


async def test_a_connection_has_one_answer(visitors: Visitors) -> None:
    answer = await visitors.exchange((b"GET / HTTP/1.1\r\n" + HOST) * 3)
    assert answer.count(b"HTTP/1.1 200") == 1


async def test_who_is_silent_is_left_after_a_while() -> None:
    async with _served(head_seconds=0.05) as visitors:
        assert await visitors.exchange(b"GET / HTTP/1.1\r\n") == b""


async def test_who_leaves_before_asking_gets_nothing(visitors: Visitors) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", visitors.port)
    with contextlib.closing(writer):
        writer.write_eof()
        assert await reader.read() == b""


async def test_an_answer_that_takes_too_long_is_given_up() -> None:
    async with _served(answer_seconds=0.05) as visitors:
        assert await visitors.exchange(b"GET /wait HTTP/1.1\r\n" + HOST) == b""


async def test_only_so_many_are_served_at_once_and_others_once_they_are_gone(visitors: Visitors) -> None:
    asking = [
        asyncio.create_task(visitors.exchange(b"GET /wait HTTP/1.1\r\n" + HOST))
        for _ in range(status_server.MOST_CONNECTIONS)
    ]
    for _ in asking:
        await visitors.waiting.get()
    with contextlib.suppress(ConnectionError):
        assert await visitors.exchange(b"GET / HTTP/1.1\r\n" + HOST) == b""
    visitors.may_end.set()
    assert [answer.endswith(b"at last") for answer in await asyncio.gather(*asking)] == [True] * len(asking)
    assert (await visitors.ask(b"GET / HTTP/1.1\r\n" + HOST))[0] == 200


async def test_the_end_waits_for_nobody() -> None:
    async with _served() as visitors:
        asking = asyncio.create_task(visitors.exchange(b"GET /wait HTTP/1.1\r\n" + HOST))
        await visitors.waiting.get()
    with contextlib.suppress(ConnectionError):
        assert await asking == b""
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", visitors.port)


async def test_all_addresses_are_those_of_ipv4_too() -> None:
    if not socket.has_dualstack_ipv6():
        do_without("this machine has no IPv6")
    visitors = Visitors()
    await visitors.server.open("::", visitors.port)
    for address in ("127.0.0.1", "::1"):
        _, writer = await asyncio.open_connection(address, visitors.port)
        writer.close()
    await visitors.server.close()


async def test_a_port_in_use_is_told_with_the_variable_to_change(visitors: Visitors) -> None:
    with pytest.raises(StatusServerFailed) as caught:
        await StatusServer({}).open("127.0.0.1", visitors.port)
    assert (caught.value.reason, str(caught.value)) == (
        Reason.STATUS_SERVER,
        (
            f"the status page cannot listen on port {visitors.port} of 127.0.0.1 (Address already in use): set "
            "STATUS_PORT to a free port, or to 0 to go without, and STATUS_ADDRESS to an address of this machine"
        ),
    )


async def test_an_address_of_another_machine_is_told_with_the_variable_to_change() -> None:
    with pytest.raises(StatusServerFailed, match="STATUS_ADDRESS to an address of this machine"):
        await StatusServer({}).open("192.0.2.1", free_port())
