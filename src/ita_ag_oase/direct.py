"""HTTP/1.1 straight to a host: what httpx sends through where no proxy lies between.

An answer passes through memory in few steps, and a small one takes little time.
"""

import asyncio
import os
import re
import select
import ssl
from collections.abc import AsyncIterator, Mapping
from typing import Any, NamedTuple

import h11
import httpx

# How long a connection without a request is kept, and how many of those to one host.
KEPT_SECONDS = 90.0
KEPT_CONNECTIONS = 100
_RECEIVE_BYTES = 131_072
# What one record of TLS holds at most (RFC 8446 section 5.1).
_RECORD_BYTES = 16_384
# An answer is handed on in portions of about so much; nothing is received while twice as much waits.
_PORTION_BYTES = 262_144
_WRITE_BYTES = 65_536
_HEAD_BYTES = 102_400
# So long after one address of a host was tried, the next is, at the same time (RFC 8305 section 8).
_NEXT_ADDRESS_SECONDS = 0.25
_ERROR_NUMBER = re.compile(r"\[Errno (\d+)\]")


class _Origin(NamedTuple):
    scheme: str
    host: str
    port: int


class DirectTransport(httpx.AsyncBaseTransport):
    """Connections to any number of hosts, kept alive between requests.

    Raises what httpx's own transport does: httpx.ConnectError and ConnectTimeout where no byte of the request was sent.
    """

    def __init__(self, tls: ssl.SSLContext) -> None:
        tls.set_alpn_protocols(["http/1.1"])
        self._tls = tls
        self._kept: dict[_Origin, list[_Connection]] = {}
        self._sweep: asyncio.TimerHandle | None = None
        # One for all: the event loop has each connection take out at once what it puts in.
        self._received = memoryview(bytearray(_RECEIVE_BYTES))

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request and return the answer once its head has arrived; closing it frees the connection."""
        origin = _origin(request.url)
        timeouts: Mapping[str, float | None] = request.extensions.get("timeout", {})
        connection = self._take(origin) or await self._connect(origin, timeouts.get("connect"))
        exchange = _Exchange(connection, timeouts)
        try:
            head = await exchange.send(request)
        except BaseException:
            connection.abort()
            raise
        return httpx.Response(
            head.status_code,
            headers=head.headers.raw_items(),
            stream=_Body(self, origin, exchange, head, request.method),
            extensions={"http_version": b"HTTP/" + head.http_version, "reason_phrase": head.reason},
        )

    def keep(self, origin: _Origin, connection: "_Connection") -> None:
        """Take back a connection whose last answer has been read whole."""
        kept = self._kept.setdefault(origin, [])
        if len(kept) == KEPT_CONNECTIONS or not connection.is_quiet:
            connection.abort()
            return
        connection.kept_since = connection.loop.time()
        kept.append(connection)
        if self._sweep is None:
            self._sweep = connection.loop.call_later(KEPT_SECONDS, self._close_aged, connection.loop)

    async def aclose(self) -> None:
        """Close the connections that are kept."""
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        for connection in (connection for kept in self._kept.values() for connection in kept):
            connection.abort()
        self._kept.clear()
        # They are closed in the loop's next turn.
        await asyncio.sleep(0)

    def _take(self, origin: _Origin) -> "_Connection | None":
        kept = self._kept.get(origin, [])
        while kept:
            connection = kept.pop()
            if connection.is_quiet:
                return connection
            connection.abort()
        return None

    def _close_aged(self, loop: asyncio.AbstractEventLoop) -> None:
        self._sweep = None
        earliest = loop.time() - KEPT_SECONDS
        for origin, kept in list(self._kept.items()):
            # They are taken from the end, so that those in front are the ones that nobody needs.
            while kept and (kept[0].kept_since <= earliest or not kept[0].is_quiet):
                kept.pop(0).abort()
            if not kept:
                del self._kept[origin]
        if self._kept:
            self._sweep = loop.call_later(KEPT_SECONDS / 2, self._close_aged, loop)

    async def _connect(self, origin: _Origin, seconds: float | None) -> "_Connection":
        loop = asyncio.get_running_loop()
        is_encrypted = origin.scheme == "https"
        try:
            async with asyncio.timeout(seconds):
                _, connection = await loop.create_connection(
                    lambda: _Connection(loop, self._received),
                    origin.host,
                    origin.port,
                    ssl=self._tls if is_encrypted else None,
                    server_hostname=origin.host if is_encrypted else None,
                    happy_eyeballs_delay=_NEXT_ADDRESS_SECONDS,
                )
        except TimeoutError as err:
            raise httpx.ConnectTimeout(str(err)) from err
        except (OSError, UnicodeError) as err:
            raise httpx.ConnectError(str(err)) from _with_number(err)
        return connection


class _Connection(asyncio.BufferedProtocol):
    """A connection to a host, and what was received from it and not taken yet."""

    def __init__(self, loop: asyncio.AbstractEventLoop, received: memoryview) -> None:
        self.loop = loop
        self.kept_since = 0.0
        # Whether nothing more can come, and why, if it is not the other side's wish.
        self.is_over = False
        self.error: Exception | None = None
        self._transport: Any = None
        self._received = self._offered = received
        self._waiting = bytearray()
        self._heard = 0.0
        self._is_paused = False
        self._wanted = 0
        self._arrival: asyncio.Future[None] | None = None
        self._is_full = False
        self._room: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        self._transport = transport

    def get_buffer(self, sizehint: int) -> memoryview:
        """See asyncio."""
        # With TLS, all that waits must find room, which is so much and a record: what is left over is thrown away where
        # the other side has closed the connection meanwhile.
        needed = sizehint + _RECORD_BYTES
        self._offered = self._received if needed <= len(self._received) else memoryview(bytearray(needed))
        return self._offered

    def buffer_updated(self, nbytes: int) -> None:
        """See asyncio."""
        self._waiting += self._offered[:nbytes]
        self._offered = self._received
        self._heard = self.loop.time()
        if len(self._waiting) >= self._wanted:
            _set(self._arrival)
        if len(self._waiting) >= 2 * _PORTION_BYTES and not self._is_paused:
            self._is_paused = True
            self._transport.pause_reading()

    def eof_received(self) -> None:
        """See asyncio, which closes the connection."""
        self._end(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        self._end(exc)

    def pause_writing(self) -> None:
        """See asyncio."""
        self._is_full = True

    def resume_writing(self) -> None:
        """See asyncio."""
        self._is_full = False
        _set(self._room)

    @property
    def is_quiet(self) -> bool:
        """Whether it can be used again: it is open, and nothing came that nobody asked for, also not its end."""
        # That TLS is closing is known a turn of the loop before its end is told.
        if self.is_over or self._waiting or self._transport.is_closing():
            return False
        # The event loop may not have come to it yet.
        arrivals = select.poll()
        arrivals.register(self._transport.get_extra_info("socket"), select.POLLIN)
        return not arrivals.poll(0)

    def abort(self) -> None:
        """Close it at once."""
        self._transport.abort()

    def take(self, most: int) -> bytearray:
        """Return what was received, up to so many bytes."""
        if len(self._waiting) <= most:
            taken, self._waiting = self._waiting, bytearray()
        else:
            taken = self._waiting[:most]
            del self._waiting[:most]
        if self._is_paused and not self.is_over:
            self._is_paused = False
            self._transport.resume_reading()
        return taken

    def put_back(self, taken: bytes) -> None:
        """Have what was taken be what comes next."""
        self._waiting[:0] = taken

    async def receive(self, wanted: int, seconds: float | None) -> None:
        """Wait until so many bytes were received, at most a portion, or nothing more can come.

        Raises httpx.ReadTimeout where nothing at all came for so many seconds.
        """
        if len(self._waiting) >= wanted or self.is_over:
            return
        self._wanted, self._arrival, self._heard = wanted, self.loop.create_future(), self.loop.time()
        timer = None if seconds is None else _Silence(self, self._arrival, seconds)
        try:
            await self._arrival
        finally:
            self._arrival = None
            if timer is not None:
                timer.cancel()

    async def write(self, data: bytes, seconds: float | None) -> bool:
        """Send bytes, and wait while those from before are more than can be sent now; False where it is over.

        Raises httpx.WriteTimeout where that takes longer than so many seconds.
        """
        if self.is_over:
            return False
        self._transport.write(data)
        if not self._is_full:
            return True
        self._room = self.loop.create_future()
        try:
            async with asyncio.timeout(seconds):
                await self._room
        except TimeoutError as err:
            raise httpx.WriteTimeout(str(err)) from err
        finally:
            self._room = None
        return not self.is_over

    def silent_seconds(self) -> float:
        """Return for how long nothing was received, of the time that it was waited for."""
        return self.loop.time() - self._heard

    def _end(self, error: Exception | None) -> None:
        if not self.is_over:
            # What fails after the end, such as to send the rest of a request, takes nothing from what came before.
            self.error = error
        self.is_over = True
        _set(self._arrival)
        _set(self._room)


class _Silence:
    """Ends a wait where a connection is silent for too long; set anew only when it runs out, which is rare."""

    def __init__(self, connection: _Connection, arrival: asyncio.Future[None], seconds: float) -> None:
        self._connection = connection
        self._arrival = arrival
        self._seconds = seconds
        self._timer = connection.loop.call_later(seconds, self._check)

    def cancel(self) -> None:
        """Let it wait on."""
        self._timer.cancel()

    def _check(self) -> None:
        left = self._seconds - self._connection.silent_seconds()
        if left > 0:
            self._timer = self._connection.loop.call_later(left, self._check)
        elif not self._arrival.done():
            self._arrival.set_exception(httpx.ReadTimeout(""))


class _Exchange:
    """One request and its answer on a connection."""

    def __init__(self, connection: _Connection, timeouts: Mapping[str, float | None]) -> None:
        self.connection = connection
        self.read_seconds = timeouts.get("read")
        self._write_seconds = timeouts.get("write")
        self._protocol = h11.Connection(h11.CLIENT, max_incomplete_event_size=_HEAD_BYTES)

    async def send(self, request: httpx.Request) -> h11.Response | h11.InformationalResponse:
        """Send a request and return the head of the answer; who answers before it has all of the request, is heard."""
        try:
            head = h11.Request(method=request.method, target=request.url.raw_path, headers=request.headers.raw)
            await self._write(request, head)
        except h11.LocalProtocolError as err:
            raise httpx.LocalProtocolError(str(err)) from err
        while True:
            event = await self.next_event()
            if isinstance(event, h11.Response):
                return event
            if isinstance(event, h11.InformationalResponse) and event.status_code == httpx.codes.SWITCHING_PROTOCOLS:
                return event

    async def _write(self, request: httpx.Request, head: h11.Request) -> None:
        assert isinstance(request.stream, httpx.AsyncByteStream)  # noqa: S101 - what a client of this kind makes
        waiting = self._protocol.send(head) or b""
        async for piece in request.stream:
            waiting += self._protocol.send(h11.Data(data=piece)) or b""
            if len(waiting) >= _WRITE_BYTES:
                if not await self.connection.write(waiting, self._write_seconds):
                    return
                waiting = b""
        waiting += self._protocol.send(h11.EndOfMessage()) or b""
        if waiting:
            await self.connection.write(waiting, self._write_seconds)

    async def next_event(self) -> h11.Event | type[h11.PAUSED]:
        """Return what comes next of the answer."""
        while True:
            try:
                event = self._protocol.next_event()
                if event is not h11.NEED_DATA:
                    return event  # type: ignore[return-value]  # mypy does not see what is left
                await self.connection.receive(1, self.read_seconds)
                received = self.connection.take(_PORTION_BYTES)
                if not received:
                    self._check_end()
                self._protocol.receive_data(bytes(received))
            except h11.RemoteProtocolError as err:
                raise httpx.RemoteProtocolError(str(err)) from err

    def _check_end(self) -> None:
        if self.connection.error is not None:
            raise httpx.ReadError(str(self.connection.error)) from self.connection.error
        if self._protocol.their_state is h11.SEND_RESPONSE:
            raise httpx.RemoteProtocolError("Server disconnected without sending a response.")

    async def plain_body(self, length: int) -> AsyncIterator[bytearray]:
        """Return the portions of a body of known length, past the protocol, which would copy each twice."""
        self.connection.put_back(self._protocol.trailing_data[0])
        left = length
        while left:
            await self.connection.receive(min(left, _PORTION_BYTES), self.read_seconds)
            received = self.connection.take(left)
            if not received:
                self._check_end()
                raise httpx.RemoteProtocolError(f"the answer ended after {length - left} of {length} bytes")
            left -= len(received)
            yield received

    @property
    def is_whole(self) -> bool:
        """Whether all of the request was sent and the connection may be used again once the answer has been read."""
        return self._protocol.our_state is h11.DONE

    @property
    def is_done(self) -> bool:
        """Whether the protocol has seen the end of the answer, too, and nothing behind it."""
        return self.is_whole and self._protocol.their_state is h11.DONE and not self._protocol.trailing_data[0]


class _Body(httpx.AsyncByteStream):
    """The body of an answer, read once."""

    def __init__(
        self,
        transport: DirectTransport,
        origin: _Origin,
        exchange: _Exchange,
        head: h11.Response | h11.InformationalResponse,
        method: str,
    ) -> None:
        self._transport = transport
        self._origin = origin
        self._exchange: _Exchange | None = exchange
        self._length = _plain_length(head, method)
        self._is_read = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Return its portions."""
        exchange = self._exchange
        if exchange is None:
            return
        if self._length is not None:
            async for portion in exchange.plain_body(self._length):
                # Who reads them needs no more of it than that it is a buffer.
                yield portion  # type: ignore[misc]
            self._is_read = exchange.is_whole
            return
        while isinstance(event := await exchange.next_event(), h11.Data):
            yield bytes(event.data)
        self._is_read = exchange.is_done

    async def aclose(self) -> None:
        """Free the connection; one whose answer was not read to its end is closed."""
        exchange, self._exchange = self._exchange, None
        if exchange is None:
            return
        if self._is_read:
            self._transport.keep(self._origin, exchange.connection)
        else:
            exchange.connection.abort()


def _origin(url: httpx.URL) -> _Origin:
    if url.scheme not in ("http", "https"):
        raise httpx.UnsupportedProtocol("the URL begins with neither http:// nor https://")
    return _Origin(url.scheme, url.raw_host.decode("ascii"), url.port or (443 if url.scheme == "https" else 80))


def _plain_length(head: h11.Response | h11.InformationalResponse, method: str) -> int | None:
    """Return the length of a body that consists of nothing else (RFC 9112 section 6.3), None for any other."""
    headers = dict(head.headers)
    has_none = method == "HEAD" or head.status_code in (204, 304) or head.status_code < httpx.codes.OK
    if has_none or b"transfer-encoding" in headers or b"content-length" not in headers:
        return None
    return int(headers[b"content-length"])


def _set(future: asyncio.Future[None] | None) -> None:
    if future is not None and not future.done():
        future.set_result(None)


def _with_number(err: Exception) -> Exception:
    """Return the last of the errors in one that names several, for several addresses of a host; else the error."""
    numbers = _ERROR_NUMBER.findall(str(err)) if isinstance(err, OSError) and err.errno is None else []
    return OSError(int(numbers[-1]), os.strerror(int(numbers[-1]))) if numbers else err
