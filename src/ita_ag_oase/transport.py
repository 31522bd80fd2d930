"""What the agent's HTTP clients share: certificates, proxies, bounded answers, Retry-After, errors in words."""

import ipaddress
import re
import ssl
import zlib
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from pathlib import Path

import certifi
import httpx

from ita_ag_oase import __version__
from ita_ag_oase.errors import Reason, system_words
from ita_ag_oase.text import Text, shorten

# The only coding that is asked for, since it can be undone a piece at a time within a bound.
ACCEPTED_ENCODING = "gzip"
# By which the logs of Exastro and of sources tell the agent from others (RFC 9110 section 10.1.5).
USER_AGENT = f"ita-ag-oase/{__version__}"
_RETRY_AFTER_MAX_SECONDS = 3_600.0
_STEP_BYTES = 262_144
# Characters of the other side's own words in a message.
_WORDS = 200


class AnswerTooLarge(Exception):
    """An answer went on past the bound."""


class AnswerUnreadable(Exception):
    """An answer is coded in a way that was not asked for, or badly."""

    def __init__(self, text: Text) -> None:
        super().__init__(str(text))
        self.text = text


def tls_context(*, verify: bool, ca_file: Path | None) -> ssl.SSLContext:
    """Return a context that trusts the system's authorities, certifi's, and those in `ca_file` (PEM).

    Raises OSError (ssl.SSLError) for a file without a certificate.
    """
    context = ssl.create_default_context()
    # From Python 3.13 on, this refuses authorities whose certificates lack an extension, as many private ones do.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.load_verify_locations(certifi.where())
    if ca_file is not None:
        context.load_verify_locations(ca_file)
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def no_tls() -> ssl.SSLContext:
    """Return a context for connections that are not encrypted: it trusts nobody, and costs next to nothing."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@dataclass(frozen=True, slots=True)
class Proxies:
    """The environment's proxies, as HTTP_PROXY, HTTPS_PROXY and NO_PROXY name them."""

    http: str | None
    https: str | None
    no_proxy: str | None

    def choose(self, url: httpx.URL) -> str | None:
        """Return the URL of the proxy for a request, or None for a direct one.

        NO_PROXY lists, separated by commas or blanks, hosts (which cover their subdomains), domains with a leading dot
        or `*.`, addresses and networks such as 10.0.0.0/8, each with or without a port, or `*` for all.
        """
        proxy = self.https if url.scheme == "https" else self.http
        entries = re.split(r"[,\s]+", self.no_proxy or "")
        if not proxy or any(_is_covered(url, entry) for entry in entries if entry):
            return None
        return proxy if "://" in proxy else f"http://{proxy}"


def _is_covered(url: httpx.URL, entry: str) -> bool:
    if entry == "*":
        return True
    host = url.host.lower().rstrip(".")
    name, colon, port = entry.rpartition(":")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        domain = entry.lower().removeprefix("*").strip(".")
        is_covered = host == domain or host.endswith(f".{domain}")
    else:
        is_covered = _holds(entry, address)
    if is_covered or not colon or not port.isdecimal():
        return is_covered
    is_port = int(port) == (url.port or {"http": 80, "https": 443}.get(url.scheme))
    return is_port and _is_covered(url, name)


def _holds(network: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    try:
        return address in ipaddress.ip_network(network.strip("[]"), strict=False)
    except ValueError:
        return False


async def read_bounded(response: httpx.Response, max_bytes: int) -> bytearray:
    """Return a streamed answer's body, decompressed, of at most `max_bytes`.

    Raises AnswerTooLarge as soon as it is more, however little was received, and AnswerUnreadable for another coding
    than gzip, or where the compressed text is broken or ends too early.
    """
    given = response.headers.get("content-encoding", "identity").strip()
    encoding = given.lower()
    if encoding not in ("identity", "gzip", "x-gzip", ""):
        raise AnswerUnreadable(
            Text("it is coded as {encoding!r}, which was not asked for", encoding=shorten(given, 20))
        )
    body = bytearray()
    inflate = _Gunzip(max_bytes) if "gzip" in encoding else None
    async for received in response.aiter_raw():
        if inflate is None:
            body += received
        else:
            inflate.feed(received, body)
        if len(body) > max_bytes:
            raise AnswerTooLarge
    if inflate is not None and inflate.is_within_member:
        raise AnswerUnreadable(Text("its compressed text ends too early"))
    return body


class _Gunzip:
    """Decompresses gzip (RFC 1952), several members in a row included, never far beyond the bound."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._member = zlib.decompressobj(wbits=31)
        self.is_within_member = False

    def feed(self, data: bytes, body: bytearray) -> None:
        try:
            while data and len(body) <= self._max_bytes:
                # In steps, or a bomb would be held twice for a moment: by zlib and in the body.
                body += self._member.decompress(data, min(_STEP_BYTES, self._max_bytes + 1 - len(body)))
                data = self._member.unconsumed_tail
                self.is_within_member = not self._member.eof
                if self._member.eof:
                    data = self._member.unused_data.lstrip(b"\0")
                    self._member = zlib.decompressobj(wbits=31)
        except zlib.error as err:
            raise AnswerUnreadable(Text("its compression is broken")) from err


def retry_after_seconds(response: httpx.Response, now: float) -> float | None:
    """Return the Retry-After of an answer (RFC 9110 section 10.2.3) in seconds from `now`, at most an hour."""
    value = response.headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        seconds = float(value[:9])
    else:
        wished = _epoch_seconds(value)
        if wished is None:
            return None
        seconds = wished - now
    return min(max(seconds, 0.0), _RETRY_AFTER_MAX_SECONDS)


def date_seconds(response: httpx.Response) -> float | None:
    """Return the Date of a success in epoch seconds; None where there is none, or a cache kept the answer."""
    if not response.is_success or "age" in response.headers:
        return None
    return _epoch_seconds(response.headers.get("date", ""))


def _epoch_seconds(http_date: str) -> float | None:
    try:
        date = parsedate_to_datetime(http_date)
    except (ValueError, OverflowError):
        return None
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()


def explain(err: httpx.TransportError | TimeoutError) -> tuple[Reason, Text]:
    """Return why a request got no answer: a reason, and words that say what to do."""
    if isinstance(err, TimeoutError | httpx.TimeoutException):
        if isinstance(err, httpx.ConnectTimeout):
            return Reason.TIMEOUT, Text("no connection in time: check the host, the port and what lies between")
        return Reason.TIMEOUT, Text("no answer in time: check the host, the port and what lies between")
    if isinstance(err, httpx.LocalProtocolError):
        # Its text quotes the header, which may be a secret.
        return Reason.PARAMETER, Text("the request holds what HTTP does not allow: check its headers and credentials")
    causes = _causes(err)
    for cause in causes:
        if isinstance(cause, ssl.SSLError):
            return Reason.TLS, explain_tls(cause, check=Text("the scheme and the port"))
    if isinstance(err, httpx.ProxyError):
        return Reason.UNREACHABLE, Text("the proxy refused ({error}): check the proxy", error=shorten(str(err), _WORDS))
    if isinstance(err, httpx.ConnectError):
        words = _last_words(causes)
        return Reason.UNREACHABLE, Text(
            "no connection ({error}): check the host, the port and the network", error=words
        )
    words = shorten(str(err), _WORDS) or err.__class__.__name__
    return Reason.UNREACHABLE, Text("the connection broke ({error}): check the host and the network", error=words)


def explain_tls(err: ssl.SSLError, *, check: Text) -> Text:
    """Return why there is no TLS connection, in words that say what to do."""
    if isinstance(err, ssl.SSLCertVerificationError):
        return Text(
            "its certificate is not trusted ({error}): name its authority as a CA file", error=err.verify_message
        )
    return Text("no TLS connection ({error}): check {check}", error=err.reason or str(err), check=check)


def _causes(err: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    current: BaseException | None = err
    while current is not None and current not in found:
        found.append(current)
        current = current.__cause__ or current.__context__
    return found


def _last_words(causes: list[BaseException]) -> str:
    for cause in reversed(causes):
        if isinstance(cause, OSError) and cause.strerror:
            return system_words(cause)
    return str(causes[0]) or causes[0].__class__.__name__
