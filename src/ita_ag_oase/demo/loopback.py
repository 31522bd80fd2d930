"""Servers on loopback, on top of the standard library's: what listens, and an HTTP server that can also misbehave."""

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from socketserver import BaseRequestHandler, ThreadingTCPServer
from typing import Any, Self
from urllib.parse import urlsplit

from ita_ag_oase import clock


@dataclass(frozen=True)
class Request:
    """What was asked: `body` is whole, header names are in lower case."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Reply:
    """What to answer.

    `pieces` are sent one by one instead of `body`. `is_cut` closes the connection without an answer; `hang_seconds` is
    waited before anything is sent. `on_sent` is called once all is written.
    """

    status: int = 200
    body: bytes = b""
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)
    pieces: Iterator[bytes] | None = None
    is_cut: bool = False
    hang_seconds: float = 0.0
    on_sent: Callable[[], None] = lambda: None


def as_json(value: Any, status: int = 200, *, on_sent: Callable[[], None] = lambda: None) -> Reply:
    """Return a reply of JSON."""
    return Reply(status=status, body=json.dumps(value).encode(), on_sent=on_sent)


def as_html(text: str, status: int) -> Reply:
    """Return a reply as a gateway would give it."""
    return Reply(status=status, body=f"<html><body>{text}</body></html>".encode(), content_type="text/html")


class Listener:
    """Accepts connections on a free port of 127.0.0.1, a thread for each, while it is entered.

    `handler_for` makes the class that serves a connection; the event it gets is set once the end has come. Entered
    again, it comes back on the same port. Leaving it breaks the connections that are open.
    """

    def __init__(self, handler_for: Callable[[threading.Event], type[BaseRequestHandler]], port: int = 0) -> None:
        self._handler_for = handler_for
        self.port = port

    def __enter__(self) -> Self:
        self._is_ending = threading.Event()
        self._server = _Server(("127.0.0.1", self.port), self._handler_for(self._is_ending))
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_ending.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._server.break_connections()


class LoopbackServer:
    """Serves `handle` over HTTP while it is entered, as a Listener does; `now` is its clock, in epoch seconds."""

    def __init__(
        self, handle: Callable[[Request], Reply], port: int = 0, *, now: Callable[[], float] = clock.now
    ) -> None:
        self._listener = Listener(lambda is_ending: _handler(handle, is_ending, now), port)

    @property
    def url(self) -> str:
        """The server's URL, without a path; known once it was entered."""
        return f"http://127.0.0.1:{self._listener.port}"

    def __enter__(self) -> Self:
        self._listener.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.__exit__()


class _Server(ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], handler: type[BaseRequestHandler]) -> None:
        super().__init__(address, handler)
        self._open: set[Any] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def break_connections(self) -> None:
        """End what was kept alive, or is being answered."""
        for connection in tuple(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of connections that the other side broke: here they are part of the play."""


def _handler(
    handle: Callable[[Request], Reply], is_ending: threading.Event, now: Callable[[], float]
) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = 65_536

        def _serve(self) -> None:
            parts = urlsplit(self.path)
            length = int(self.headers.get("content-length") or 0)
            headers = {name.lower(): value for name, value in self.headers.items()}
            request = Request(self.command, parts.path, parts.query, headers, self.rfile.read(length))
            self._send(handle(request))

        do_GET = do_POST = do_PUT = _serve  # noqa: N815 - the names that the base class looks for

        def _send(self, reply: Reply) -> None:
            if reply.hang_seconds and is_ending.wait(reply.hang_seconds):
                reply = Reply(is_cut=True)
            if reply.is_cut:
                self.close_connection = True
                return
            self.send_response_only(reply.status)
            self.send_header("Date", self.date_time_string(now()))
            self.send_header("Content-Type", reply.content_type)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            if reply.pieces is None:
                self.send_header("Content-Length", str(len(reply.body)))
                self.end_headers()
                self.wfile.write(reply.body)
            else:
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                for piece in reply.pieces:
                    self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                self.wfile.write(b"0\r\n\r\n")
            self.wfile.flush()
            reply.on_sent()

        def log_message(self, *_: Any) -> None:
            """Keep quiet: what is worth seeing is shown elsewhere."""

    return Handler
