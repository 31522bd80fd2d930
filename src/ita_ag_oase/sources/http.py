"""HTTP sources: a request from the rendered columns of a setting, and its answer read within bounds."""

import asyncio
import json
import re
import ssl
import zlib
from collections.abc import Callable
from datetime import tzinfo
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any
from urllib.parse import quote, urlencode

import httpx

from ita_ag_oase import clock, transport
from ita_ag_oase.direct import DirectTransport
from ita_ag_oase.errors import AgentError, Reason, SettingInvalid, SourceRejected, SourceUnavailable, SourceUnreadable
from ita_ag_oase.model import CollectionSetting, Cursor, Destination, Exchange, Payload, RequestMethod
from ita_ag_oase.sources.http_auth import auth_of
from ita_ag_oase.sources.templates import Template, TemplateNames
from ita_ag_oase.text import Text, shorten

CONNECT_SECONDS = 12.0
READ_SECONDS = 30.0
# A source that trickles forever must end, too.
TOTAL_SECONDS = 120.0
MAX_REDIRECTS = 5
# For each request through a proxy, httpcore looks at every connection of its pool: in one for 1,000 sources that are
# slow at the same time, that alone takes longer than they leave.
POOLS = 16

# What httpx decides by itself, whatever REQUEST_HEADER says.
_OWN_HEADERS = frozenset({"accept-encoding", "connection", "content-length", "transfer-encoding"})
# What may travel to another host: nothing that could be a credential.
_HARMLESS_HEADERS = frozenset({b"accept", b"accept-encoding", b"accept-language", b"connection", b"user-agent"})

# A header's name and value (RFC 9110 sections 5.1 and 5.5).
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
# What a query holds as it stands; all else is percent-encoded.
_NOT_IN_QUERY = re.compile(r"[^\x21\x22\x24-\x7e]+")
_PORT_MAX = 65_535


class HttpClients:
    """The kept-alive connections of all HTTP sources, those through a proxy in POOLS pools for each.

    `make_tls` is called for each pool of encrypted ones.
    """

    def __init__(
        self, *, make_tls: Callable[[], ssl.SSLContext], proxies: transport.Proxies, transport_: Any = None
    ) -> None:
        self._make_tls = make_tls
        self._proxies = proxies
        self._transport = transport_
        self._clients: dict[tuple[str | None, int, bool], httpx.AsyncClient] = {}

    def choose(self, url: httpx.URL, own_proxy: str | None, pool: int = 0) -> httpx.AsyncClient:
        """Return the client for a URL: through the setting's own proxy, else as the environment says.

        Of those through a proxy it is that of the given pool.
        """
        proxy = self.proxy_for(url, own_proxy)
        is_encrypted = url.scheme == "https"
        pool = pool if proxy else 0
        key = proxy, pool, is_encrypted
        if key not in self._clients:
            tls = self._make_tls() if is_encrypted else transport.no_tls()
            self._clients[key] = httpx.AsyncClient(
                verify=tls,
                proxy=proxy,
                transport=self._transport or (None if proxy else DirectTransport(tls)),
                trust_env=False,
                follow_redirects=False,
                # Settings share connections, but one's session is none of the other's business.
                cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
                timeout=httpx.Timeout(READ_SECONDS, connect=CONNECT_SECONDS, pool=None),
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=100, keepalive_expiry=90),
                headers={
                    "Accept": "application/json, */*;q=0.5",
                    "Accept-Encoding": transport.ACCEPTED_ENCODING,
                    "User-Agent": transport.USER_AGENT,
                },
            )
        return self._clients[key]

    def proxy_for(self, url: httpx.URL, own_proxy: str | None) -> str | None:
        """Return the URL of the proxy for a URL, None for a direct connection."""
        return own_proxy or self._proxies.choose(url)

    async def close(self) -> None:
        """Close all connections."""
        for client in self._clients.values():
            await client.aclose()


def pool_of(setting_id: str) -> int:
    """Return the pool that a setting's requests go through."""
    return zlib.crc32(setting_id.encode()) % POOLS


class HttpSource:
    """One setting's HTTP source. Raises SettingInvalid for a row that can never be asked with.

    `on_exchange` is told of each request once it was sent, and of those that redirects lead to.
    """

    def __init__(
        self,
        setting: CollectionSetting,
        clients: HttpClients,
        *,
        max_bytes: int,
        zone: tzinfo | None,
        on_exchange: Callable[[Exchange], None] | None = None,
    ) -> None:
        self._setting = setting
        self._on_exchange = on_exchange
        self._clients = clients
        self._max_bytes = max_bytes
        self._zone = zone
        self._auth = auth_of(setting, clock.now)
        self._url = Template(setting.url, column="URL")
        self._header = Template(setting.request_header, column="REQUEST_HEADER") if setting.request_header else None
        self._parameter = Template(setting.parameter, column="PARAMETER") if setting.parameter else None
        self._proxy = _proxy_of(setting)
        self._pool = pool_of(setting.id)

    async def fetch(self, cursor: Cursor, now: float) -> Payload:
        """Return the source's answer for a poll that starts at `now` (epoch seconds).

        Raises SourceUnavailable (no answer, 5xx, 429), SourceRejected (other statuses, a redirect to another host) and
        SourceUnreadable (a template that fails, an answer beyond the bound).
        """
        request = await self._request(cursor, now)
        try:
            async with asyncio.timeout(TOTAL_SECONDS):
                return await self._send(request)
        except (httpx.TransportError, TimeoutError) as err:
            reason, words = transport.explain(err)
            raise SourceUnavailable(
                Text("{place}: {words}", place=self._place(request.url), words=words), reason=reason
            ) from err
        except (httpx.InvalidURL, UnicodeError) as err:
            raise SourceRejected(
                Text("{place} redirects to what is no URL: write the final URL", place=self._place(request.url)),
                reason=Reason.REDIRECT,
            ) from err

    async def destination(self, cursor: Cursor, now: float) -> Destination:
        """Return where `fetch` would send its first request. Raises SourceUnreadable for a template that fails."""
        url = (await self._request(cursor, now)).url
        is_encrypted = url.scheme == "https"
        return Destination(
            host=url.host,
            port=url.port or (443 if is_encrypted else 80),
            is_encrypted=is_encrypted,
            proxy=self._clients.proxy_for(url, self._proxy),
        )

    async def close(self) -> None:
        """Do nothing: the connections are shared, and closed with the clients."""

    async def _request(self, cursor: Cursor, now: float) -> httpx.Request:
        templates = [template for template in (self._url, self._header, self._parameter) if template]
        names = TemplateNames(
            cursor,
            self._setting.row,
            last_fetched=clock.local(cursor.last_fetched_time, self._zone),
            current=clock.local(now, self._zone),
        )
        if any(template.may_take_long for template in templates):
            return await asyncio.to_thread(self._build, names)
        return self._build(names)

    def _build(self, names: TemplateNames) -> httpx.Request:
        headers = _headers(self._header.render(names) if self._header else "")
        parameter = _json("PARAMETER", self._parameter.render(names)) if self._parameter else None
        url = _url(self._url.render(names))
        client = self._clients.choose(url, self._proxy, self._pool)
        if self._setting.request_method is RequestMethod.GET:
            return client.build_request("GET", _with_query(url, parameter), headers=headers)
        headers.setdefault("content-type", "application/json")
        body = b"" if parameter is None else json.dumps(parameter, ensure_ascii=False).encode("utf-8", "replace")
        return client.build_request("POST", url, headers=headers, content=body)

    async def _send(self, request: httpx.Request) -> Payload:
        auth = self._auth
        cookies = httpx.Cookies()
        for _ in range(MAX_REDIRECTS + 1):
            client = self._clients.choose(request.url, self._proxy, self._pool)
            response = None
            try:
                response = await client.send(request, stream=True, auth=auth)
            finally:
                if self._on_exchange is not None:
                    self._on_exchange(_exchange(request, response))
            try:
                following = response.next_request
                if following is None:
                    return await self._read(response)
                _check_redirect(following.url, request)
                if _is_same_host(request.url, following.url):
                    cookies.extract_cookies(response)
                    cookies.set_cookie_header(following)
                else:
                    _strip(following)
                    auth = None
                    cookies.clear()
                request = following
            finally:
                await response.aclose()
        raise SourceRejected(
            Text(
                "{place}: more than {limit} redirects: write the final URL",
                place=self._place(request.url),
                limit=MAX_REDIRECTS,
            ),
            reason=Reason.REDIRECT,
        )

    async def _read(self, response: httpx.Response) -> Payload:
        place = self._place(response.request.url)
        if not response.is_success:
            raise _refusal(place, response)
        try:
            body = await transport.read_bounded(response, self._max_bytes)
        except transport.AnswerTooLarge as err:
            raise SourceUnreadable(
                Text(
                    "{place}: the answer is larger than {limit} bytes: ask for less with PARAMETER, or raise "
                    "RESPONSE_MAX_BYTES",
                    place=place,
                    limit=self._max_bytes,
                ),
                reason=Reason.TOO_LARGE,
            ) from err
        except transport.AnswerUnreadable as err:
            raise SourceUnreadable(
                Text("{place}: the answer cannot be read: {error}", place=place, error=err.text), reason=Reason.NOT_JSON
            ) from err
        return Payload(body, response.charset_encoding)

    @staticmethod
    def _place(url: httpx.URL) -> str:
        """Where the request went, without user, path and query, any of which may hold a secret."""
        return f"{url.scheme}://{url.netloc.decode('ascii')}"


def _exchange(request: httpx.Request, response: httpx.Response | None) -> Exchange:
    return Exchange(
        method=request.method,
        url=str(request.url),
        headers=tuple(request.headers.multi_items()),
        # One that a redirect leads to was not read yet.
        body=request.read(),
        status=response.status_code if response is not None else None,
        content_type=response.headers.get("content-type") if response is not None else None,
    )


def _proxy_of(setting: CollectionSetting) -> str | None:
    if not setting.proxy:
        return None
    text = setting.proxy.strip()
    try:
        proxy = httpx.URL(text if "://" in text else f"http://{text}")
    except httpx.InvalidURL:
        proxy = httpx.URL()
    if not _is_http(proxy):
        raise SettingInvalid(
            Text(
                "{setting}: PROXY is no URL of an HTTP proxy: write one such as http://proxy:8080", setting=setting.name
            ),
            reason=Reason.SETTING,
        )
    return str(proxy)


def _url(text: str) -> httpx.URL:
    try:
        url = httpx.URL(text.strip())
    except httpx.InvalidURL:
        # Its text may hold a part of a password.
        raise SourceUnreadable(
            Text(
                "URL is none: check its host, its port, and that a password in it is percent-encoded",
            ),
            reason=Reason.PARAMETER,
        ) from None
    if not _is_http(url):
        raise SourceUnreadable(
            Text("URL must begin with http:// or https://, a host and perhaps a port"), reason=Reason.PARAMETER
        )
    return url


def _is_http(url: httpx.URL) -> bool:
    try:
        has_host = bool(url.host)
    except UnicodeError:
        # It is written as DNS has names of other scripts (xn--), and stands for none.
        return False
    return url.scheme in ("http", "https") and has_host and (url.port or 0) <= _PORT_MAX


def _json(column: str, text: str) -> Any:
    """Return the value of a rendered column; a column of which nothing is left says nothing."""
    if not text.strip():
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as err:
        raise SourceUnreadable(
            Text(
                "{column} is no JSON once its template is rendered ({error}): mend it in Exastro",
                column=column,
                error=str(err)[:100],
            ),
            reason=Reason.PARAMETER,
        ) from err


def _headers(text: str) -> httpx.Headers:
    headers = _json("REQUEST_HEADER", text)
    if headers is None:
        return httpx.Headers()
    if not isinstance(headers, dict):
        raise SourceUnreadable(Text("REQUEST_HEADER is no JSON object: mend it in Exastro"), reason=Reason.PARAMETER)
    kept = dict(_header(name.strip(), value) for name, value in headers.items())
    return httpx.Headers([(name.encode(), value) for name, value in kept.items() if name not in _OWN_HEADERS])


def _header(name: str, value: Any) -> tuple[str, bytes]:
    text = (value if isinstance(value, str) else json.dumps(value)).strip(" ")
    if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(text):
        raise SourceUnreadable(
            Text("REQUEST_HEADER {name!r} holds what no header can: mend it in Exastro", name=shorten(name, 40)),
            reason=Reason.PARAMETER,
        )
    return name.lower(), text.encode("latin-1")


def _with_query(url: httpx.URL, parameter: Any) -> httpx.URL:
    """Return the URL with the parameter behind the query it has: an object's members, or a text as it stands."""
    if parameter is None or parameter in ("", {}):
        return url
    if isinstance(parameter, dict):
        pairs = [pair for name, value in parameter.items() for pair in _pairs(name, value)]
        query = urlencode(pairs, errors="replace")
    elif isinstance(parameter, str):
        query = _NOT_IN_QUERY.sub(lambda part: quote(part[0], errors="replace"), parameter.strip().lstrip("?"))
    else:
        raise SourceUnreadable(
            Text("PARAMETER is neither a JSON object nor a text: mend it in Exastro"), reason=Reason.PARAMETER
        )
    before = url.query.decode("ascii")
    try:
        return url.copy_with(query=f"{before}&{query}".strip("&").encode("ascii"))
    except httpx.InvalidURL:
        raise SourceUnreadable(
            Text("PARAMETER is too long for a URL: ask for less, or send it with POST"), reason=Reason.PARAMETER
        ) from None


def _pairs(name: str, value: Any) -> list[tuple[str, str]]:
    if isinstance(value, list):
        return [pair for element in value for pair in _pairs(name, element)]
    if value is None:
        return []
    return [(name, value if isinstance(value, str) else json.dumps(value))]


def _is_same_host(url: httpx.URL, other: httpx.URL) -> bool:
    if (url.scheme, url.host, url.port) == (other.scheme, other.host, other.port):
        return True
    is_upgrade = (url.scheme, other.scheme) == ("http", "https")
    return is_upgrade and url.host == other.host and url.port is None and other.port is None


def _check_redirect(url: httpx.URL, former: httpx.Request) -> None:
    if not _is_http(url):
        raise SourceRejected(
            Text(
                "{scheme}://{host} redirects to what is no URL: write the final URL",
                scheme=former.url.scheme,
                host=former.url.host,
            ),
            reason=Reason.REDIRECT,
        )
    if former.method != "GET" and not _is_same_host(former.url, url):
        raise SourceRejected(
            Text(
                "{scheme}://{host} redirects a POST to another host ({other}): write that URL",
                scheme=former.url.scheme,
                host=former.url.host,
                other=url.host,
            ),
            reason=Reason.REDIRECT,
        )


def _strip(request: httpx.Request) -> None:
    """Take everything that could be a credential out of a request to another host."""
    kept = [pair for pair in request.headers.raw if pair[0].lower() in _HARMLESS_HEADERS]
    request.headers = httpx.Headers([(b"Host", request.url.netloc), *kept])


def _refusal(place: str, response: httpx.Response) -> AgentError:
    status = response.status_code
    # Not the source's own phrase, which may hold anything.
    phrase = httpx.codes.get_reason_phrase(status)
    words = Text("{place} answered {status}", place=place, status=f"{status} {phrase}".rstrip())
    if status == httpx.codes.TOO_MANY_REQUESTS or response.is_server_error:
        reason = Reason.THROTTLED if status == httpx.codes.TOO_MANY_REQUESTS else Reason.HTTP_STATUS
        wait = transport.retry_after_seconds(response, clock.now())
        return SourceUnavailable(
            Text("{words}: it cannot serve now", words=words), reason=reason, retry_after_seconds=wait
        )
    if status in (401, 403, 407):
        return SourceRejected(
            Text("{words}: check the credentials of the setting", words=words), reason=Reason.UNAUTHORIZED
        )
    return SourceRejected(
        Text("{words}: check the URL and the parameter of the setting", words=words), reason=Reason.HTTP_STATUS
    )
