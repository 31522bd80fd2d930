"""The way to a host, step by step: its name, a connection, and the certificate at the other end. Nothing is asked."""

import asyncio
import base64
import contextlib
import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import SplitResult, unquote, urlsplit

from cryptography import x509
from cryptography.x509.oid import NameOID

from ita_ag_oase import clock
from ita_ag_oase.commands.findings import Check, Finding, State
from ita_ag_oase.errors import system_words
from ita_ag_oase.model import Destination
from ita_ag_oase.text import Text, counted, shorten

# For one step of the way; the agent itself waits somewhat longer.
STEP_SECONDS = 10.0
_WARNED_DAYS = 14
_DAY_SECONDS = 86_400
_ANSWER_LINES = 100
# Characters of others' own words in a message.
_WORDS = 200

# OpenSSL's numbers of what can be wrong with a certificate (openssl-verification-options(1)).
_EXPIRED = frozenset({9, 10})
_OTHER_HOST = frozenset({62, 64})


@dataclass(frozen=True, slots=True)
class Fields:
    """What decides on the way: the names of the variables, or of the setting's columns, for people."""

    address: Text | str
    proxy: Text | str
    ca_file: str
    verify: str


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a certificate says: who issued it, for which hosts, and up to when (epoch seconds)."""

    issuer: str
    hosts: str
    until: float

    @property
    def day(self) -> str:
        """The last day, in UTC."""
        return datetime.fromtimestamp(self.until, UTC).date().isoformat()

    @property
    def days_left(self) -> int:
        """How many whole days are left; negative once it has expired."""
        return int((self.until - clock.now()) // _DAY_SECONDS)


class NoWay(Exception):
    """The other side did not take part in what leads to encryption."""

    def __init__(self, text: Text) -> None:
        super().__init__(str(text))
        self.text = text


async def check_way(
    subject: Text | str, destination: Destination, tls: ssl.SSLContext, fields: Fields
) -> AsyncIterator[Finding]:
    """Yield what is found on the way, up to the first step that fails."""
    first = _first_stop(destination)
    field = fields.proxy if destination.proxy else fields.address
    for step in (_check_name, _check_connection):
        found = await step(subject, first, field)
        if found is not None:
            yield found
            if found.state is State.FAILED:
                return
    if destination.is_encrypted or destination.starts_tls:
        yield await _check_tls(subject, destination, tls, fields)


def _first_stop(destination: Destination) -> tuple[str, int]:
    """Return host and port that are connected to: those of the proxy where there is one."""
    if not destination.proxy:
        return destination.host, destination.port
    proxy = urlsplit(destination.proxy)
    default = {"https": 443, "socks5": 1_080, "socks5h": 1_080}.get(proxy.scheme, 80)
    return proxy.hostname or "", proxy.port or default


async def _check_name(subject: Text | str, stop: tuple[str, int], field: Text | str) -> Finding | None:
    host, port = stop
    if _is_address(host):
        return None
    try:
        async with asyncio.timeout(STEP_SECONDS):
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as err:
        message = Text("the name {host} does not resolve ({why})", host=host, why=_why(err))
        action = Text("check the host in {field}, and this machine's name server", field=field)
        return Finding(Check.NAME, subject, State.FAILED, message, action)
    addresses = ", ".join(sorted({str(entry[4][0]) for entry in found}))
    message = Text("the name {host} resolves to {addresses}", host=host, addresses=addresses)
    return Finding(Check.NAME, subject, State.OK, message)


async def _check_connection(subject: Text | str, stop: tuple[str, int], field: Text | str) -> Finding:
    host, port = stop
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        async with asyncio.timeout(STEP_SECONDS), _connected(host, port):
            pass
    except OSError as err:
        message = Text("no connection to {place} ({why})", place=place, why=_why(err))
        action = Text("check host and port in {field}, and that nothing on the way blocks them", field=field)
        return Finding(Check.CONNECTION, subject, State.FAILED, message, action)
    return Finding(Check.CONNECTION, subject, State.OK, Text("{place} takes connections", place=place))


def _why(err: OSError | ValueError) -> Text | str:
    if isinstance(err, TimeoutError):
        return Text("no answer in time")
    return shorten(system_words(err) if isinstance(err, OSError) else str(err), _WORDS)


async def _check_tls(subject: Text | str, destination: Destination, tls: ssl.SSLContext, fields: Fields) -> Finding:
    if destination.proxy and urlsplit(destination.proxy).scheme != "http":
        message = Text("the certificate behind this kind of proxy is not looked at")
        return Finding(Check.TLS, subject, State.SKIPPED, message)
    try:
        certificate = await _certificate(destination, tls)
    except ssl.SSLCertVerificationError as err:
        return await _untrusted(subject, destination, err, fields)
    except NoWay as err:
        action = Text("check {field}", field=fields.proxy if destination.proxy else fields.address)
        return Finding(Check.TLS, subject, State.FAILED, err.text, action)
    except (OSError, ValueError) as err:
        why = err.reason if isinstance(err, ssl.SSLError) and err.reason else _why(err)
        message = Text("no TLS at {place} ({why})", place=destination.place, why=why)
        action = Text("check the port, and whether TLS is meant, in {field}", field=fields.address)
        return Finding(Check.TLS, subject, State.FAILED, message, action)
    return _judged(subject, certificate, fields, is_verified=tls.verify_mode is not ssl.CERT_NONE)


def _judged(subject: Text | str, certificate: Certificate, fields: Fields, *, is_verified: bool) -> Finding:
    until = Text("its certificate is valid until {day}", day=certificate.day)
    if not is_verified:
        message = Text("{until}, but {field} is off, so that anyone could read along", until=until, field=fields.verify)
        action = Text(
            "turn {field} on, and name the authority in {ca_file}", field=fields.verify, ca_file=fields.ca_file
        )
        return Finding(Check.TLS, subject, State.WARNING, message, action)
    if certificate.days_left < _WARNED_DAYS:
        left = counted("{count} day", "{count} days", count=certificate.days_left)
        message = Text("its certificate is valid until {day}, for {left} more", day=certificate.day, left=left)
        return Finding(Check.TLS, subject, State.WARNING, message, Text("have it renewed in time"))
    return Finding(Check.TLS, subject, State.OK, until)


async def _untrusted(
    subject: Text | str, destination: Destination, err: ssl.SSLCertVerificationError, fields: Fields
) -> Finding:
    # To read what it says, and for nothing else: the connection ends before anything is sent.
    unverified = ssl.create_default_context()
    unverified.check_hostname = False
    unverified.verify_mode = ssl.CERT_NONE
    message = Text("its certificate is not accepted ({why})", why=err.verify_message)
    action = Text("name the authority's certificate in {field}", field=fields.ca_file)
    with contextlib.suppress(OSError, ValueError, NoWay):
        found = await _certificate(destination, unverified)
        message = Text(
            "its certificate is not accepted ({why}); it is for {hosts}, issued by {issuer}, valid until {day}",
            why=err.verify_message,
            hosts=found.hosts,
            issuer=found.issuer,
            day=found.day,
        )
    if err.verify_code in _EXPIRED:
        action = Text("have it renewed, and check this machine's clock")
    if err.verify_code in _OTHER_HOST:
        action = Text("write the host that the certificate is for in {field}", field=fields.address)
    return Finding(Check.TLS, subject, State.FAILED, message, action)


async def _certificate(destination: Destination, tls: ssl.SSLContext) -> Certificate:
    """Return what the certificate at a destination says. Raises OSError (ssl.SSLError), NoWay."""
    async with asyncio.timeout(STEP_SECONDS), _connected(*_first_stop(destination)) as (reader, writer):
        if destination.proxy:
            await _ask_proxy(destination, urlsplit(destination.proxy), reader, writer)
        if destination.starts_tls:
            await _ask_for_tls(destination, reader, writer)
        await writer.start_tls(tls, server_hostname=destination.host)
        der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    return _read_certificate(der)


@asynccontextmanager
async def _connected(host: str, port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        # The loop closes the connection at its next turn.
        await asyncio.sleep(0)


async def _ask_proxy(
    destination: Destination, proxy: SplitResult, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Have a proxy connect to the destination (RFC 9110 section 9.3.6)."""
    lines = [f"CONNECT {destination.place} HTTP/1.1", f"Host: {destination.place}"]
    if proxy.username:
        user = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
        lines.append(f"Proxy-Authorization: Basic {base64.b64encode(user.encode()).decode()}")
    writer.write("\r\n".join([*lines, "", ""]).encode())
    status = (await reader.readline()).decode("latin-1").strip()
    if status.split(" ")[1:2] != ["200"]:
        raise NoWay(
            Text("the proxy refused the way to {place} ({why})", place=destination.place, why=shorten(status, _WORDS))
        )
    for _ in range(_ANSWER_LINES):
        if await reader.readline() in (b"\r\n", b"\n", b""):
            return


async def _ask_for_tls(destination: Destination, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Have a mail server change over to TLS (RFC 3501 section 6.2.1)."""
    greeting = await reader.readline()
    writer.write(b"a STARTTLS\r\n")
    answer = await reader.readline() if greeting.startswith(b"* OK") else greeting
    if not answer.upper().startswith(b"A OK"):
        why = shorten(answer.decode("latin-1").strip(), _WORDS)
        raise NoWay(Text("{place} does not change over to TLS ({why})", place=destination.place, why=why))


def _read_certificate(der: bytes) -> Certificate:
    certificate = x509.load_der_x509_certificate(der)
    return Certificate(
        issuer=_name(certificate.issuer),
        hosts=_hosts(certificate) or _name(certificate.subject),
        until=certificate.not_valid_after_utc.timestamp(),
    )


def _name(name: x509.Name) -> str:
    common = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(common[0].value) if common else name.rfc4514_string()


def _hosts(certificate: x509.Certificate) -> str:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return ""
    return ", ".join([*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))])


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
