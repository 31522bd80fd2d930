"""A small HTTP server for those who look after the agent: it tells and changes nothing.

Each connection gets one answer. How long a request may take and how large it may be is bounded, since anyone who
reaches the port may ask.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import urlsplit

import h11

from ita_ag_oase.errors import Reason, StatusServerFailed, system_words
from ita_ag_oase.text import Text

PLAIN = "text/plain; charset=utf-8"
# Where the status page stands still, relative to the page that refreshes itself.
STILL_PATH = "still"

_HEAD_BYTES = 16_384
MOST_CONNECTIONS = 64
_READ_BYTES = 65_536

# What every answer says, unless it says something else.
_HEADERS = {
    "Content-Type": PLAIN,
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Connection": "close",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """What a route answers with; `headers` stand before those that every answer has."""

    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    status: HTTPStatus = HTTPStatus.OK


# Gets the request's Accept header, which may be empty.
Route = Callable[[str], Awaitable[Answer]]


class StatusServer:
    """Answers GET and HEAD for the paths of its routes.

    A request must have arrived within `head_seconds`, and the answer been taken within `answer_seconds` more.
    """

    def __init__(self, routes: Mapping[str, Route], *, head_seconds: float = 5.0, answer_seconds: float = 30.0) -> None:
        self._routes = routes
        self._head_seconds = head_seconds
        self._answer_seconds = answer_seconds
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def open(self, address: str, port: int) -> None:
        """Begin to listen. Raises StatusServerFailed where the address or the port cannot be had."""
        # A socket of IPv6 is for that alone where asyncio makes it.
        addresses = ("::", "0.0.0.0") if address == "::" else address  # noqa: S104 - what was asked for
        try:
            self._server = await asyncio.start_server(self._accept, addresses, port)
        except OSError as err:
            raise StatusServerFailed(
                Text(
                    "the status page cannot listen on port {port} of {address} ({problem}): set STATUS_PORT to a free "
                    "port, or to 0 to go without, and STATUS_ADDRESS to an address of this machine",
                    port=port,
                    address=address,
                    problem=system_words(err),
                ),
                reason=Reason.STATUS_SERVER,
            ) from err

    async def close(self) -> None:
        """End listening and what is being answered."""
        if self._server is None:
            return
        self._server.close()
        for task in self._connections:
            task.cancel()
        if self._connections:
            await asyncio.wait(self._connections)
        await self._server.wait_closed()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._connections) >= MOST_CONNECTIONS:
            writer.close()
            return
        task = asyncio.create_task(self._serve(reader, writer), name="status request")
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            # Who goes away or is too slow gets no answer.
            with contextlib.suppress(OSError, TimeoutError):
                await self._converse(reader, writer)
        finally:
            writer.transport.abort()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=_HEAD_BYTES)
        is_head = False
        async with asyncio.timeout(self._head_seconds) as limit:
            try:
                request = await _next_request(connection, reader)
            except h11.RemoteProtocolError as err:
                answer = _failed(HTTPStatus(err.error_status_hint))
            else:
                if request is None:
                    return
                limit.reschedule(asyncio.get_running_loop().time() + self._answer_seconds)
                answer, is_head = await self._answer(request), request.method == b"HEAD"
            await _send(connection, writer, answer, is_head=is_head)

    async def _answer(self, request: h11.Request) -> Answer:
        if request.method not in (b"GET", b"HEAD"):
            return _failed(HTTPStatus.METHOD_NOT_ALLOWED, {"Allow": "GET, HEAD"})
        headers = {name: value.decode("latin-1") for name, value in request.headers}
        if b"transfer-encoding" in headers or headers.get(b"content-length", "0") != "0":
            return _failed(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        try:
            route = self._routes.get(urlsplit(request.target.decode("ascii")).path)
        except ValueError:
            return _failed(HTTPStatus.BAD_REQUEST)
        if route is None:
            return _failed(HTTPStatus.NOT_FOUND)
        return await route(headers.get(b"accept", ""))


async def _next_request(connection: h11.Connection, reader: asyncio.StreamReader) -> h11.Request | None:
    """Return the request once its head has arrived; None where none comes. Raises h11.RemoteProtocolError."""
    while (event := connection.next_event()) is h11.NEED_DATA:
        connection.receive_data(await reader.read(_READ_BYTES))
    return event if isinstance(event, h11.Request) else None


async def _send(connection: h11.Connection, writer: asyncio.StreamWriter, answer: Answer, *, is_head: bool) -> None:
    headers = {**_HEADERS, **answer.headers, "Content-Length": str(len(answer.body))}
    response = h11.Response(status_code=answer.status, headers=list(headers.items()), reason=answer.status.phrase)
    writer.write(connection.send(response) or b"")
    if not is_head:
        writer.write(connection.send(h11.Data(data=answer.body)) or b"")
    writer.write(connection.send(h11.EndOfMessage()) or b"")
    await writer.drain()
    writer.close()
    await writer.wait_closed()


def _failed(status: HTTPStatus, headers: Mapping[str, str] | None = None) -> Answer:
    return Answer(f"{status.phrase}\n".encode(), headers or {}, status)
