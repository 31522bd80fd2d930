"""A connection to a mailbox: socket, proxy, encryption, login, and the few commands that reading takes.

The only module that knows imapclient and python-socks. It is imported once a setting names a mailbox.
"""

import contextlib
import imaplib
import re
import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date, datetime
from typing import Any

from imapclient import IMAPClient
from imapclient.exceptions import CapabilityError, IMAPClientAbortError, IMAPClientError, LoginError, ProtocolError
from python_socks import ProxyError, ProxyType
from python_socks.sync import Proxy

from ita_ag_oase import transport
from ita_ag_oase.errors import Reason, SourceRejected, SourceUnavailable, SourceUnreadable
from ita_ag_oase.model import RequestMethod
from ita_ag_oase.sources.imap import Examined, Listed
from ita_ag_oase.sources.imap_server import Server
from ita_ag_oase.text import Text, shorten

CONNECT_SECONDS = 12.0
# Without a byte, at any command.
READ_SECONDS = 30.0
# Characters of a server's own words in a message.
_WORDS = 200
# Of the lines that answer one command, whatever hostile servers say: the longest one that a library takes, and others.
_LINES_BYTES = 4_194_304

# What imaplib and imapclient stumble over an answer with that is no IMAP.
_GARBLED = (ValueError, TypeError, LookupError, AttributeError, RecursionError)

# What LOGIN takes without quotes (RFC 3501, ATOM-CHAR); imaplib quotes the password alone.
_ATOM = re.compile(r"[^\x00-\x20(){%*\"\\\]\x7f-\U0010ffff]+")
_PRINTABLE = re.compile(r"[\x20-\x7e]*")
# What imaplib writes of a line that it did not expect, which can be one of a mail.
_QUOTE = re.compile(r"(?:(?<=unexpected response: )|(?<=unterminated line: )).*", re.DOTALL)


class ImapConnection:
    """A connection as `sources.imap.Connection` describes it; made without a word to the server."""

    def __init__(self, server: Server, make_tls: Callable[[], ssl.SSLContext], *, max_bytes: int) -> None:
        self._server = server
        self._make_tls = make_tls
        self._max_bytes = max_bytes
        self._client: IMAPClient | None = None
        # A second handle on the same connection: whoever closes it down reaches it through TLS, too.
        self._wire: socket.socket | None = None
        self._is_aborted = False

    def open(self) -> None:
        """Connect, encrypt, log in."""
        connected = self._connect()
        connected.settimeout(READ_SECONDS)
        self._wire = connected.dup()
        if self._is_aborted:
            self.abort()
        with self._translated():
            self._client = self._greet(connected)
            if self._server.security is RequestMethod.IMAP_STARTTLS:
                self._start_tls(self._client)
            self._log_in(self._client)

    def _connect(self) -> socket.socket:
        server, proxy = self._server, self._server.proxy
        try:
            if proxy is None:
                return socket.create_connection((server.host, server.port), CONNECT_SECONDS)
            through = Proxy(ProxyType.SOCKS5, proxy.host, proxy.port, proxy.username, proxy.password, rdns=True)
            return through.connect(server.host, server.port, timeout=CONNECT_SECONDS)
        except OSError as err:
            raise self._unavailable(err, Text("no connection")) from err
        except ProxyError as err:
            raise SourceUnavailable(
                Text("{place}: the proxy refused ({error}): check PROXY", place=server.place, error=_words(err)),
                reason=Reason.UNREACHABLE,
            ) from err

    def _greet(self, connected: socket.socket) -> IMAPClient:
        server = self._server
        try:
            if server.security is RequestMethod.IMAP_TLS:
                connected = self._make_tls().wrap_socket(connected, server_hostname=server.host)
            return _Client(connected, server, max_literal=self._max_bytes)
        except IMAPClientError as err:
            connected.close()
            raise SourceUnavailable(
                Text(
                    "{place} does not take connections now ({error}): check the host and the port",
                    place=server.place,
                    error=_words(err),
                ),
                reason=Reason.UNREACHABLE,
            ) from None
        except BaseException:
            connected.close()
            raise

    def _start_tls(self, client: IMAPClient) -> None:
        try:
            client.starttls(self._make_tls())
        except CapabilityError as err:
            raise SourceRejected(
                Text(
                    "{place} does not offer STARTTLS, and nothing is sent in plain text: choose TLS in the setting, "
                    "or have the server offer it",
                    place=self._server.place,
                ),
                reason=Reason.TLS,
            ) from err

    def _log_in(self, client: IMAPClient) -> None:
        server = self._server
        if client.has_capability("LOGINDISABLED"):
            raise SourceRejected(
                Text(
                    "{place} takes no password without encryption: choose TLS or STARTTLS in the setting",
                    place=server.place,
                ),
                reason=Reason.TLS,
            )
        is_simple = _ATOM.fullmatch(server.username) and _PRINTABLE.fullmatch(server.password)
        try:
            if is_simple:
                client.login(server.username, server.password)
            else:
                client.plain_login(server.username, server.password)
        except LoginError as err:
            if isinstance(err.__context__, IMAPClientAbortError):
                raise err.__context__ from None
            raise SourceRejected(
                Text(
                    "{place} refused the login ({error}): check USERNAME and PASSWORD of the setting",
                    place=server.place,
                    error=_words(err),
                ),
                reason=Reason.UNAUTHORIZED,
            ) from None

    def examine(self) -> Examined:
        """Choose the mailbox, for reading only, and return its state."""
        server = self._server
        try:
            with self._translated():
                answer = self._used.select_folder(server.mailbox, readonly=True)
        except SourceRejected as err:
            raise SourceRejected(
                Text(
                    "{error}: check MAILBOXNAME ({mailbox!r}) and the user's rights",
                    error=err.text,
                    mailbox=server.mailbox,
                ),
                reason=Reason.MAILBOX,
            ) from None
        if not answer.get(b"UIDVALIDITY") or not answer.get(b"UIDNEXT"):
            raise SourceRejected(
                Text(
                    "{place} gives the mails in {mailbox!r} no lasting UIDs: another server is needed",
                    place=server.place,
                    mailbox=server.mailbox,
                ),
                reason=Reason.MAILBOX,
            )
        return Examined(answer[b"UIDVALIDITY"], answer[b"UIDNEXT"])

    def search(self, first: int, last: int) -> list[int]:
        """Return the UIDs of the mails in a range, both ends included, in order."""
        with self._translated():
            found = self._used.search(["UID", f"{first}:{last}"])
        return sorted(uid for uid in found if first <= uid <= last)

    def search_since(self, day: date) -> list[int]:
        """Return the UIDs of the mails that arrived on a day of the server's calendar or later, in order."""
        with self._translated():
            return sorted(self._used.search(["SINCE", day]))

    def list_mails(self, uids: Sequence[int]) -> list[Listed]:
        """Return those of the mails that are still there, in order."""
        with self._translated():
            found = self._used.fetch(uids, ["INTERNALDATE", "RFC822.SIZE"])
            return [
                Listed(uid, _seconds(found[uid].get(b"INTERNALDATE")), int(found[uid].get(b"RFC822.SIZE") or 0))
                for uid in uids
                if uid in found
            ]

    def fetch(self, uid: int) -> bytes | None:
        """Return a mail, cut at the bound, without marking it as seen; None where it is no longer there."""
        try:
            with self._translated():
                found = self._used.fetch([uid], [f"BODY.PEEK[]<0.{self._max_bytes}>"])
        except SourceRejected as err:
            # How some servers say that a mail went meanwhile (RFC 5530 section 3).
            if "[EXPUNGEISSUED]" in str(err):
                return None
            raise
        mail = found.get(uid, {})
        # Some servers leave the origin out where they send the whole.
        body = mail.get(b"BODY[]<0>", mail.get(b"BODY[]"))
        return body[: self._max_bytes] if isinstance(body, bytes) else None

    def logout(self) -> None:
        """Say goodbye and close; what goes wrong meanwhile is of no interest."""
        if self._client is not None:
            with contextlib.suppress(OSError, IMAPClientError, *_GARBLED):
                self._client.logout()
        self.close()

    def close(self) -> None:
        """Close without a word."""
        client, wire = self._client, self._wire
        self._client = self._wire = None
        if client is not None:
            with contextlib.suppress(OSError):
                client.shutdown()
        if wire is not None:
            wire.close()

    def abort(self) -> None:
        """Have whoever waits for the server fail at once; may be called from any thread."""
        self._is_aborted = True
        wire = self._wire
        if wire is not None:
            with contextlib.suppress(OSError):
                wire.shutdown(socket.SHUT_RDWR)

    @property
    def _used(self) -> IMAPClient:
        if self._client is None:
            raise SourceUnavailable(
                Text("{place}: the connection is closed", place=self._server.place), reason=Reason.UNREACHABLE
            )
        return self._client

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn what a command fails with into our errors, without what a library quotes: that may be a mail."""
        place = self._server.place
        try:
            yield
        except OSError as err:
            raise self._unavailable(err, Text("the connection broke")) from err
        except IMAPClientAbortError as err:
            raise SourceUnavailable(
                Text(
                    "{place}: the connection broke ({error}): check the server and the network",
                    place=place,
                    error=_words(err, _QUOTE),
                ),
                reason=Reason.UNREACHABLE,
            ) from None
        except (ProtocolError, *_GARBLED) as err:
            raise SourceUnreadable(
                Text(
                    "{place} answered what is no IMAP ({error}): check the host and the port",
                    place=place,
                    error=type(err).__name__,
                ),
                reason=Reason.NOT_IMAP,
            ) from None
        except IMAPClientError as err:
            raise SourceRejected(
                Text("{place} refused ({error})", place=place, error=_words(err, _QUOTE)), reason=Reason.NOT_IMAP
            ) from None

    def _unavailable(self, err: OSError, what: Text) -> SourceUnavailable:
        place = self._server.place
        if isinstance(err, TimeoutError):
            words = Text("no answer in time: check the host, the port and what lies between")
            return SourceUnavailable(Text("{place}: {words}", place=place, words=words), reason=Reason.TIMEOUT)
        if isinstance(err, ssl.SSLError):
            words = transport.explain_tls(err, check=Text("the request method and the port"))
            return SourceUnavailable(Text("{place}: {words}", place=place, words=words), reason=Reason.TLS)
        words = Text(
            "{what} ({error}): check the host, the port and the network", what=what, error=err.strerror or str(err)
        )
        return SourceUnavailable(Text("{place}: {words}", place=place, words=words), reason=Reason.UNREACHABLE)


class _Client(IMAPClient):
    """An IMAPClient on a socket that was connected before."""

    def __init__(self, connected: socket.socket, server: Server, *, max_literal: int) -> None:
        self._protocol = _Protocol(connected, server, max_literal=max_literal)
        super().__init__(server.host, server.port, ssl=False, timeout=READ_SECONDS)
        self.normalise_times = False
        # Else each line, a whole mail too, would be written out for a log that nobody keeps.
        self._protocol.debug = 0

    def _create_IMAP4(self) -> imaplib.IMAP4:  # noqa: N802 - imapclient's name
        return self._protocol


class _Protocol(imaplib.IMAP4):
    """The protocol on a socket that was connected before, with a bound on what one answer may hold."""

    def __init__(self, connected: socket.socket, server: Server, *, max_literal: int) -> None:
        self._connected = connected
        self._max_literal = max_literal
        self._expect_answer()
        super().__init__(server.host, server.port)

    def _create_socket(self, timeout: float | None) -> socket.socket:
        return self._connected

    def _expect_answer(self) -> None:
        self._lines_left, self._literals_left = _LINES_BYTES, self._max_literal

    def send(self, data: Any) -> None:
        self._expect_answer()
        super().send(data)

    def readline(self) -> bytes:
        line = super().readline()
        self._lines_left -= len(line)
        if self._lines_left < 0:
            raise self.abort(f"one answer is longer than {_LINES_BYTES} bytes")
        return line

    def read(self, size: int) -> bytes:
        if size > self._literals_left:
            raise self.abort(f"{size} bytes announced, {self._literals_left} asked for")
        self._literals_left -= size
        return super().read(size)


def _seconds(arrival: Any) -> float | None:
    try:
        return arrival.timestamp() if isinstance(arrival, datetime) else None
    except (ValueError, OverflowError):
        # An offset of more than a day, or a year that no clock shows.
        return None


def _words(err: BaseException, left_out: re.Pattern[str] | None = None) -> str:
    """Return the beginning of what a server or a library said; some of imaplib's errors hold bytes."""
    words = re.sub(r"^b'(.*)'$", r"\1", str(err), flags=re.DOTALL)
    return shorten(left_out.sub("...", words) if left_out else words, _WORDS)
