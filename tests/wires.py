"""What stands between a mail client and its server: a relay that counts and cuts, a SOCKS5 proxy, a scripted server."""

import contextlib
import select
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Self


class Listener:
    """Hands every connection to loopback to `answer`, in a thread of its own, while it is entered."""

    def __init__(self, answer: Callable[[socket.socket], None]) -> None:
        self.connections = 0
        self._answer = answer
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._listening.getsockname()[1])

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        _shut(self._listening)
        self._listening.close()
        self.cut_all()
        for thread in self._threads:
            thread.join()

    def cut_all(self) -> None:
        """Break every connection."""
        for each in self._open:
            _shut(each)

    def _start(self, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=work)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                accepted, _ = self._listening.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(accepted)
            self._start(lambda peer=accepted: self._serve(peer))  # type: ignore[misc] # bound now, not when it runs

    def _serve(self, accepted: socket.socket) -> None:
        with accepted, contextlib.suppress(OSError):
            self._answer(accepted)


class Relay(Listener):
    """Passes everything on to a server; notes what was sent to it and how many bytes came back.

    Once `cut_after` further bytes came back, the connection is cut.
    """

    def __init__(self, port: int) -> None:
        super().__init__(self._relay)
        self.sent = b""
        self.received_bytes = 0
        self.cut_after: int | None = None
        self._port = port

    def _relay(self, client: socket.socket) -> None:
        with socket.create_connection(("127.0.0.1", self._port)) as server:
            _join(client, server, self._note_sent, self._note_received)

    def _note_sent(self, data: bytes) -> bool:
        self.sent += data
        return True

    def _note_received(self, data: bytes) -> bool:
        self.received_bytes += len(data)
        if self.cut_after is None:
            return True
        self.cut_after -= len(data)
        return self.cut_after > 0


class TlsRelay(Listener):
    """Takes TLS off and passes everything on to a server; `certificate` is the file of one with its key."""

    def __init__(self, port: int, certificate: Path) -> None:
        super().__init__(self._relay)
        self._port = port
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate)

    def _relay(self, client: socket.socket) -> None:
        with (
            encrypted(client, self._context) as unwrapped,
            socket.create_connection(("127.0.0.1", self._port)) as server,
        ):
            _take_turns(unwrapped, server)


def encrypted(client: socket.socket, context: ssl.SSLContext) -> ssl.SSLSocket:
    """Return a server's end of a connection once its client begins with TLS. Raises OSError where it ends instead."""
    # Of a client that is gone, wrap_socket would leave a socket open.
    if not client.recv(1, socket.MSG_PEEK):
        raise ConnectionResetError
    return context.wrap_socket(client, server_side=True)


class SocksServer(Listener):
    """A SOCKS5 proxy (RFC 1928, RFC 1929) for one user; every name leads to loopback."""

    def __init__(self, username: bytes, password: bytes) -> None:
        super().__init__(self._proxy)
        self.asked: list[tuple[bytes, int]] = []
        self._login = username, password

    def _proxy(self, client: socket.socket) -> None:
        if not self._lets_in(client):
            return
        _exactly(client, 4)
        host = _exactly(client, _exactly(client, 1)[0])
        (port,) = struct.unpack("!H", _exactly(client, 2))
        self.asked.append((host, port))
        with socket.create_connection(("127.0.0.1", port)) as server:
            client.sendall(b"\5\0\0\1\0\0\0\0\0\0")
            _join(client, server, bool, bool)

    def _lets_in(self, client: socket.socket) -> bool:
        _, count = _exactly(client, 2)
        _exactly(client, count)
        client.sendall(b"\5\2")
        _, length = _exactly(client, 2)
        username = _exactly(client, length)
        is_known = (username, _exactly(client, _exactly(client, 1)[0])) == self._login
        client.sendall(b"\1\0" if is_known else b"\1\1")
        return is_known


class ScriptedServer(Listener):
    """Answers the n-th command with the n-th text, in which `TAG` stands for the command's tag; then it is silent."""

    def __init__(self, greeting: str, *answers: str) -> None:
        super().__init__(self._talk)
        self.commands: list[str] = []
        self._greeting = greeting
        self._answers = answers

    def _talk(self, client: socket.socket) -> None:
        client.sendall(self._greeting.encode())
        answers = iter(self._answers)
        with client.makefile("rb") as lines:
            for line in lines:
                tag, _, command = line.decode("latin-1").strip().partition(" ")
                self.commands.append(command)
                client.sendall(next(answers, "").replace("TAG", tag).encode())


def _join(
    client: socket.socket, server: socket.socket, forth: Callable[[bytes], bool], back: Callable[[bytes], bool]
) -> None:
    """Carry bytes both ways until an end closes, or who sees them pass says that it is enough."""
    returning = threading.Thread(target=_carry, args=(server, client, back))
    returning.start()
    _carry(client, server, forth)
    returning.join()


def _take_turns(client: ssl.SSLSocket, server: socket.socket) -> None:
    """Carry bytes both ways in one thread, since OpenSSL takes no reading and writing at once on a connection."""
    while True:
        # What was decrypted already makes no socket readable.
        ready = [client] if client.pending() else select.select([client, server], [], [])[0]
        for source, target in ((client, server), (server, client)):
            if source in ready:
                data = source.recv(65_536)
                if not data:
                    return
                target.sendall(data)


def _carry(source: socket.socket, target: socket.socket, goes_on: Callable[[bytes], bool]) -> None:
    with contextlib.suppress(OSError):
        while (data := source.recv(65_536)) and goes_on(data):
            target.sendall(data)
    _shut(source)
    _shut(target)


def _exactly(peer: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        received = peer.recv(size - len(data))
        if not received:
            raise ConnectionError
        data += received
    return data


def _shut(peer: socket.socket) -> None:
    with contextlib.suppress(OSError):
        peer.shutdown(socket.SHUT_RDWR)
