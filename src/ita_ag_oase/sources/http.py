"""HTTP sources: a request from the rendered columns of a setting, and its answer read within bounds."""

import asyncio
import json
import ssl
from datetime import tzinfo
from typing import Any
from urllib.parse import urlencode

import httpx

from ita_ag_oase import clock, transport
from ita_ag_oase.errors import AgentError, Reason, SettingInvalid, SourceRejected, SourceUnavailable, SourceUnreadable
from ita_ag_oase.model import CollectionSetting, Cursor, Payload, RequestMethod
from ita_ag_oase.sources.http_auth import auth_of
from ita_ag_oase.sources.templates import Template, TemplateNames

CONNECT_SECONDS = 12.0
READ_SECONDS = 30.0
# A source that trickles forever must end, too.
TOTAL_SECONDS = 120.0
MAX_REDIRECTS = 5

# What httpx decides by itself, whatever REQUEST_HEADER says.
_OWN_HEADERS = frozenset({"accept-encoding", "connection", "content-length", "transfer-encoding"})
# What may travel to another host: nothing that could be a credential.
_HARMLESS_HEADERS = frozenset({"accept", "accept-encoding", "accept-language", "connection", "user-agent"})


class HttpClients:
    """The kept-alive connections of all HTTP sources: one pool, and one more for each proxy that a setting names."""

    def __init__(self, *, tls: ssl.SSLContext, proxies: transport.Proxies, transport_: Any = None) -> None:
        self._tls = tls
        self._proxies = proxies
        self._transport = transport_
        self._clients: dict[str | None, httpx.AsyncClient] = {}

    def choose(self, url: httpx.URL, own_proxy: str | None) -> httpx.AsyncClient:
        """Return the client for a URL: through the setting's own proxy, else as the environment says."""
        proxy = own_proxy or self._proxies.choose(url)
        if proxy not in self._clients:
            self._clients[proxy] = httpx.AsyncClient(
                verify=self._tls,
                proxy=proxy,
                transport=self._transport,
                trust_env=False,
                follow_redirects=False,
                timeout=httpx.Timeout(READ_SECONDS, connect=CONNECT_SECONDS, pool=None),
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=100, keepalive_expiry=90),
                headers={"Accept": "application/json, */*;q=0.5", "Accept-Encoding": transport.ACCEPTED_ENCODING},
            )
        return self._clients[proxy]

    async def close(self) -> None:
        """Close all connections."""
        for client in self._clients.values():
            await client.aclose()


class HttpSource:
    """One setting's HTTP source. Raises SettingInvalid for a row that can never be asked with."""

    def __init__(
        self, setting: CollectionSetting, clients: HttpClients, *, max_bytes: int, zone: tzinfo | None
    ) -> None:
        self._setting = setting
        self._clients = clients
        self._max_bytes = max_bytes
        self._zone = zone
        self._auth = auth_of(setting, clock.now)
        self._url = Template(setting.url, column="URL")
        self._header = Template(setting.request_header, column="REQUEST_HEADER") if setting.request_header else None
        self._parameter = Template(setting.parameter, column="PARAMETER") if setting.parameter else None
        self._proxy = _proxy_of(setting)

    async def fetch(self, cursor: Cursor, now: float) -> Payload:
        """Return the source's answer for a poll that starts at `now` (epoch seconds).

        Raises SourceUnavailable (no answer, 5xx, 429), SourceRejected (other statuses, a redirect to another host) and
        SourceUnreadable (a template that fails, an answer beyond the bound).
        """
        templates = [template for template in (self._url, self._header, self._parameter) if template]
        names = TemplateNames(
            cursor,
            self._setting.row,
            last_fetched=clock.local(cursor.last_fetched_time, self._zone),
            current=clock.local(now, self._zone),
        )
        if any(template.may_take_long for template in templates):
            request = await asyncio.to_thread(self._build, names)
        else:
            request = self._build(names)
        try:
            async with asyncio.timeout(TOTAL_SECONDS):
                return await self._send(request)
        except (httpx.TransportError, TimeoutError) as err:
            reason, words = transport.explain(err)
            raise SourceUnavailable(f"{self._place(request.url)}: {words}", reason=reason) from err

    def _build(self, names: TemplateNames) -> httpx.Request:
        headers = _headers(self._header.render(names)) if self._header else {}
        parameter = _json("PARAMETER", self._parameter.render(names)) if self._parameter else None
        try:
            url = httpx.URL(self._url.render(names).strip())
        except httpx.InvalidURL as err:
            raise SourceUnreadable(f"URL is none ({err})", reason=Reason.PARAMETER) from err
        if url.scheme not in ("http", "https") or not url.host:
            raise SourceUnreadable("URL must begin with http:// or https:// and a host", reason=Reason.PARAMETER)
        client = self._clients.choose(url, self._proxy)
        if self._setting.request_method is RequestMethod.GET:
            return client.build_request("GET", _with_query(url, parameter), headers=headers)
        headers.setdefault("content-type", "application/json")
        body = b"" if parameter is None else json.dumps(parameter, ensure_ascii=False).encode("utf-8", "replace")
        return client.build_request("POST", url, headers=headers, content=body)

    async def _send(self, request: httpx.Request) -> Payload:
        auth: httpx.Auth | None = self._auth
        for _ in range(MAX_REDIRECTS + 1):
            client = self._clients.choose(request.url, self._proxy)
            response = await client.send(request, stream=True, auth=auth)
            try:
                following = response.next_request
                if following is None:
                    return await self._read(response)
                if not _is_same_host(request.url, following.url):
                    _strip(following, request)
                    auth = None
                request = following
            finally:
                await response.aclose()
        raise SourceRejected(
            f"{self._place(request.url)}: more than {MAX_REDIRECTS} redirects: write the final URL",
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
                f"{place}: the answer is larger than {self._max_bytes} bytes: ask for less with PARAMETER, "
                "or raise RESPONSE_MAX_BYTES",
                reason=Reason.TOO_LARGE,
            ) from err
        except transport.AnswerUnreadable as err:
            raise SourceUnreadable(f"{place}: the answer cannot be read: {err}", reason=Reason.NOT_JSON) from err
        return Payload(body, response.charset_encoding)

    @staticmethod
    def _place(url: httpx.URL) -> str:
        """Where the request went, without user, path and query, any of which may hold a secret."""
        return f"{url.scheme}://{url.netloc.decode('ascii')}"


def _proxy_of(setting: CollectionSetting) -> str | None:
    if not setting.proxy:
        return None
    proxy = setting.proxy if "://" in setting.proxy else f"http://{setting.proxy}"
    try:
        httpx.Proxy(proxy)
    except (ValueError, httpx.InvalidURL) as err:
        raise SettingInvalid(
            f"{setting.name}: PROXY is no URL of an HTTP proxy: write one such as http://proxy:8080",
            reason=Reason.SETTING,
        ) from err
    return proxy


def _json(column: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as err:
        raise SourceUnreadable(
            f"{column} is no JSON once its template is rendered ({str(err)[:100]}): mend it in Exastro",
            reason=Reason.PARAMETER,
        ) from err


def _headers(text: str) -> dict[str, str]:
    headers = _json("REQUEST_HEADER", text)
    if headers is None:
        return {}
    if not isinstance(headers, dict):
        raise SourceUnreadable("REQUEST_HEADER is no JSON object: mend it in Exastro", reason=Reason.PARAMETER)
    kept = {name.strip().lower(): _header_value(name, value) for name, value in headers.items()}
    return {name: value for name, value in kept.items() if name not in _OWN_HEADERS}


def _header_value(name: str, value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    if not name.strip().isascii() or any(character in name + text for character in "\r\n\0"):
        raise SourceUnreadable(
            f"REQUEST_HEADER {name[:40]!r} holds what no header can: mend it in Exastro", reason=Reason.PARAMETER
        )
    return text


def _with_query(url: httpx.URL, parameter: Any) -> httpx.URL:
    """Return the URL with the parameter behind the query it has: an object's members, or a text as it stands."""
    if parameter is None or parameter in ("", {}):
        return url
    if isinstance(parameter, dict):
        query = urlencode([pair for name, value in parameter.items() for pair in _pairs(name, value)])
    elif isinstance(parameter, str):
        query = parameter.lstrip("?")
    else:
        raise SourceUnreadable(
            "PARAMETER is neither a JSON object nor a text: mend it in Exastro", reason=Reason.PARAMETER
        )
    before = url.query.decode("ascii")
    return url.copy_with(query=f"{before}&{query}".strip("&").encode("utf-8"))


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


def _strip(request: httpx.Request, former: httpx.Request) -> None:
    """Take everything that could be a credential out of a request to another host."""
    if request.method != "GET" or former.method != "GET":
        raise SourceRejected(
            f"{former.url.scheme}://{former.url.host} redirects a POST to another host ({request.url.host}): "
            "write that URL",
            reason=Reason.REDIRECT,
        )
    kept = {name: value for name, value in request.headers.items() if name in _HARMLESS_HEADERS}
    request.headers = httpx.Headers({**kept, "host": request.url.netloc.decode("ascii")})


def _refusal(place: str, response: httpx.Response) -> AgentError:
    status = response.status_code
    words = f"{place} answered {status} {response.reason_phrase}".rstrip()
    if status == httpx.codes.TOO_MANY_REQUESTS or response.is_server_error:
        reason = Reason.THROTTLED if status == httpx.codes.TOO_MANY_REQUESTS else Reason.HTTP_STATUS
        wait = transport.retry_after_seconds(response, clock.now())
        return SourceUnavailable(f"{words}: it cannot serve now", reason=reason, retry_after_seconds=wait)
    if status in (401, 403, 407):
        return SourceRejected(f"{words}: check the credentials of the setting", reason=Reason.UNAUTHORIZED)
    return SourceRejected(f"{words}: check the URL and the parameter of the setting", reason=Reason.HTTP_STATUS)
