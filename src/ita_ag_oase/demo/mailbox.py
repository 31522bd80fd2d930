"""A small IMAP server on loopback with one mailbox that is only read (RFC 3501), without encryption."""

import base64
import binascii
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from socketserver import BaseRequestHandler, StreamRequestHandler
from typing import Self

from ita_ag_oase.demo.loopback import Listener

USERNAME, PASSWORD = "demo-mail-user", "demo-mail-password"
_CAPABILITIES = "IMAP4rev1 AUTH=PLAIN"
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
# The words of a command: quoted, in parentheses, or bare.
_WORD = re.compile(r'"(?:[^"\\]|\\.)*"|[^\s()"]+')
_LITERAL = re.compile(rb"\{(\d+)\+?\}\r?\n$")
_ITEM = re.compile(r"BODY(?:\.PEEK)?\[(?P<section>\w*)\](?:<(?P<start>\d+)\.(?P<size>\d+)>)?|(?P<name>[\w.]+)")


@dataclass(frozen=True)
class StoredMail:
    """A mail as the mailbox has it; `arrived` is in seconds since the epoch."""

    uid: int
    arrived: float
    raw: bytes


class Mailbox:
    """Mails in the order in which they arrived."""

    def __init__(self, name: str = "INBOX", *, uid_validity: int = 1) -> None:
        self.name = name
        self.uid_validity = uid_validity
        self.uid_next = 1
        self._mails: tuple[StoredMail, ...] = ()
        self._lock = threading.Lock()

    @property
    def mails(self) -> tuple[StoredMail, ...]:
        """What is in it now."""
        return self._mails

    def append(self, raw: bytes, arrived: float) -> StoredMail:
        """Put a mail in it; return it with its UID."""
        with self._lock:
            mail = StoredMail(self.uid_next, arrived, raw)
            self.uid_next += 1
            self._mails += (mail,)
        return mail

    def remove(self, uid: int) -> None:
        """Take a mail out of it."""
        with self._lock:
            self._mails = tuple(mail for mail in self._mails if mail.uid != uid)

    def rebuild(self) -> None:
        """Number the mails anew, as a server does that lost its index: another UIDVALIDITY, UIDs from 1."""
        with self._lock:
            self.uid_validity += 1
            self._mails = tuple(StoredMail(uid, mail.arrived, mail.raw) for uid, mail in enumerate(self._mails, 1))
            self.uid_next = len(self._mails) + 1


class MailServer:
    """Serves a mailbox to one user while it is entered, as a Listener does.

    `before_command` is called before each command is looked at, `on_sent` with each mail whose text was sent from its
    beginning. `commands` are the names of the commands that came, in order.
    """

    def __init__(
        self,
        mailbox: Mailbox,
        *,
        username: str = USERNAME,
        password: str = PASSWORD,
        before_command: Callable[[], None] = lambda: None,
        on_sent: Callable[[StoredMail], None] = lambda _: None,
        port: int = 0,
    ) -> None:
        self.mailbox = mailbox
        self.username = username
        self.password = password
        self.before_command = before_command
        self.on_sent = on_sent
        self.commands: list[str] = []
        self._listener = Listener(lambda _: _handler(self), port)

    @property
    def port(self) -> int:
        """Where it listens on 127.0.0.1; known once it was entered."""
        return self._listener.port

    @property
    def url(self) -> str:
        """The server's URL."""
        return f"imap://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._listener.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.__exit__()


class _Refused(Exception):
    """A command that is answered with something else than OK."""


def _handler(server: MailServer) -> type[BaseRequestHandler]:
    class Handler(StreamRequestHandler):
        disable_nagle_algorithm = True
        wbufsize = 65_536

        def handle(self) -> None:
            session = _Session(server, self.rfile.readline, self.rfile.read, self.wfile.write, self.wfile.flush)
            session.run()

    return Handler


class _Session:
    """One connection, from the greeting to LOGOUT."""

    def __init__(
        self,
        server: MailServer,
        read_line: Callable[[], bytes],
        read: Callable[[int], bytes],
        write: Callable[[bytes], object],
        flush: Callable[[], None],
    ) -> None:
        self._server = server
        self._mailbox = server.mailbox
        self._read_line, self._read = read_line, read
        self._write, self._flush = write, flush
        self._is_authenticated = self._is_selected = self._is_over = False
        self._sent: list[StoredMail] = []
        self._commands: Mapping[str, Callable[[str], str]] = {
            "CAPABILITY": self._capability,
            "NOOP": self._noop,
            "LOGIN": self._login,
            "AUTHENTICATE": self._authenticate,
            "SELECT": lambda arguments: self._select(arguments, "READ-WRITE"),
            "EXAMINE": lambda arguments: self._select(arguments, "READ-ONLY"),
            "UID SEARCH": self._search,
            "UID FETCH": self._fetch,
            "LOGOUT": self._logout,
        }

    def run(self) -> None:
        """Answer commands until the client or the connection ends."""
        self._say(f"* OK [CAPABILITY {_CAPABILITIES}] demo mailbox")
        while not self._is_over and (line := self._command()) is not None:
            self._server.before_command()
            tag, _, rest = line.partition(" ")
            name, _, arguments = rest.partition(" ")
            if name.upper() == "UID":
                second, _, arguments = arguments.partition(" ")
                name = f"{name} {second}"
            self._server.commands.append(name.upper())
            self._say(f"{tag} {self._answer(name.upper(), arguments)}")
            while self._sent:
                self._server.on_sent(self._sent.pop())

    def _answer(self, name: str, arguments: str) -> str:
        command = self._commands.get(name)
        if command is None:
            return "BAD unknown command"
        try:
            return f"OK {command(arguments)}"
        except _Refused as err:
            return str(err)

    def _command(self) -> str | None:
        """Return a command with its literals as quoted words; None at the end of the connection."""
        line = self._read_line()
        whole = b""
        while literal := _LITERAL.search(line):
            if not literal[0].startswith(b"{" + literal[1] + b"+"):
                self._say("+ go on")
            text = self._read(int(literal[1]))
            whole += line[: literal.start()] + _quoted(text)
            line = self._read_line()
        return (whole + line).decode("utf-8", "replace").strip("\r\n") if line else None

    def _say(self, line: str) -> None:
        self._write(line.encode() + b"\r\n")
        self._flush()

    def _capability(self, _: str) -> str:
        self._say(f"* CAPABILITY {_CAPABILITIES}")
        return "CAPABILITY done"

    def _noop(self, _: str) -> str:
        if self._is_selected:
            self._say(f"* {len(self._mailbox.mails)} EXISTS")
        return "NOOP done"

    def _logout(self, _: str) -> str:
        self._is_over = True
        self._say("* BYE until next time")
        return "LOGOUT done"

    def _login(self, arguments: str) -> str:
        return self._admit(_words(arguments))

    def _authenticate(self, arguments: str) -> str:
        if arguments.upper() != "PLAIN":
            raise _Refused("NO only PLAIN is known")
        self._say("+ ")
        try:
            secret = base64.b64decode(self._read_line())
        except binascii.Error:
            raise _Refused("BAD no base64") from None
        return self._admit(secret.decode("utf-8", "replace").split("\0")[1:])

    def _admit(self, given: list[str]) -> str:
        if given != [self._server.username, self._server.password]:
            raise _Refused("NO [AUTHENTICATIONFAILED] wrong user or password")
        self._is_authenticated = True
        return "welcome"

    def _select(self, arguments: str, access: str) -> str:
        if not self._is_authenticated:
            raise _Refused("NO log in first")
        (name,) = _words(arguments) or [""]
        self._is_selected = name.upper() == self._mailbox.name.upper()
        if not self._is_selected:
            raise _Refused("NO [NONEXISTENT] no such mailbox")
        for line in (
            "FLAGS ()",
            f"{len(self._mailbox.mails)} EXISTS",
            "0 RECENT",
            f"OK [UIDVALIDITY {self._mailbox.uid_validity}] valid",
            f"OK [UIDNEXT {self._mailbox.uid_next}] next",
            "OK [PERMANENTFLAGS ()] nothing is marked",
        ):
            self._say(f"* {line}")
        return f"[{access}] done"

    def _search(self, arguments: str) -> str:
        found = self._selected()
        words = iter(_words(arguments.upper()))
        for word in words:
            match word:
                case "ALL":
                    continue
                case "UID":
                    found = _in_set(found, next(words, ""))
                case "SINCE":
                    first_day = _day(next(words, ""))
                    found = [mail for mail in found if datetime.fromtimestamp(mail.arrived, UTC).date() >= first_day]
                case _:
                    raise _Refused("BAD unknown criterion")
        self._say(" ".join(["* SEARCH", *(str(mail.uid) for mail in found)]))
        return "SEARCH done"

    def _fetch(self, arguments: str) -> str:
        numbers, _, rest = arguments.partition(" ")
        mails = self._selected()
        items = [item for item in _ITEM.finditer(rest.upper()) if item["name"] != "UID"]
        for mail in _in_set(mails, numbers):
            answers = [b"UID %d" % mail.uid, *(self._item(mail, item) for item in items)]
            self._write(b"* %d FETCH (%b)\r\n" % (mails.index(mail) + 1, b" ".join(answers)))
        return "FETCH done"

    def _item(self, mail: StoredMail, item: re.Match[str]) -> bytes:
        match item["name"]:
            case "FLAGS":
                return b"FLAGS ()"
            case "RFC822.SIZE":
                return b"RFC822.SIZE %d" % len(mail.raw)
            case "INTERNALDATE":
                return f'INTERNALDATE "{_date_time(mail.arrived)}"'.encode()
            case None:
                return self._body(mail, item)
            case _:
                raise _Refused("BAD unknown item")

    def _body(self, mail: StoredMail, item: re.Match[str]) -> bytes:
        header, empty_line, text = mail.raw.partition(b"\r\n\r\n")
        sections = {"": mail.raw, "HEADER": header + empty_line, "TEXT": text}
        if item["section"] not in sections:
            raise _Refused("BAD unknown section")
        octets = sections[item["section"]]
        origin = b""
        if item["start"]:
            start = int(item["start"])
            origin, octets = b"<%d>" % start, octets[start : start + int(item["size"])]
        if not item["section"] and origin in (b"", b"<0>"):
            self._sent.append(mail)
        return b"BODY[%b]%b {%d}\r\n%b" % (item["section"].encode(), origin, len(octets), octets)

    def _selected(self) -> list[StoredMail]:
        if not self._is_selected:
            raise _Refused("BAD select a mailbox first")
        return list(self._mailbox.mails)


def _quoted(text: bytes) -> bytes:
    return b'"%b"' % re.sub(rb'(["\\])', rb"\\\1", text)


def _words(text: str) -> list[str]:
    found = _WORD.findall(text)
    return [re.sub(r"\\(.)", r"\1", word[1:-1]) if word.startswith('"') else word for word in found]


def _in_set(mails: Iterable[StoredMail], numbers: str) -> list[StoredMail]:
    """Return the mails with these UIDs; `*` is the greatest, and a range may run backwards."""
    mails = list(mails)
    greatest = mails[-1].uid if mails else 0
    wanted: list[range] = []
    for part in numbers.split(","):
        if not re.fullmatch(r"(\d+|\*)(:(\d+|\*))?", part):
            raise _Refused("BAD no set of numbers")
        ends = sorted(greatest if end == "*" else int(end) for end in part.split(":"))
        wanted.append(range(ends[0], ends[-1] + 1))
    return [mail for mail in mails if any(mail.uid in numbers for numbers in wanted)]


def _day(text: str) -> date:
    day, _, rest = text.partition("-")
    month, _, year = rest.partition("-")
    try:
        return date(int(year), _MONTHS.index(month.title()) + 1, int(day))
    except ValueError:
        raise _Refused("BAD no date") from None


def _date_time(seconds: float) -> str:
    # Not strftime: its names of months are the locale's.
    moment = datetime.fromtimestamp(seconds, UTC)
    return f"{moment.day:2d}-{_MONTHS[moment.month - 1]}-{moment:%Y %H:%M:%S} +0000"
