"""HTTP sources: what is sent, where it may be sent on to, and what each answer means."""

import asyncio
import gzip
import json
import re
import ssl
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

import examples
from ita_ag_oase import clock, transport
from ita_ag_oase.errors import AgentError, Reason, SettingInvalid, SourceRejected, SourceUnavailable, SourceUnreadable
from ita_ag_oase.model import ConnectionMethod, Cursor, Destination, Exchange, Payload, RequestMethod
from ita_ag_oase.sources.http import (
    CONNECT_SECONDS,
    MAX_REDIRECTS,
    POOLS,
    READ_SECONDS,
    TOTAL_SECONDS,
    HttpClients,
    HttpSource,
    pool_of,
)
from ita_ag_oase.sources.imap import ImapSource
from ita_ag_oase.sources.source import open_source
from support import self_signed

LAST = 1_700_000_000
MAX_BYTES = 1_000
SETTING = replace(
    examples.SETTING, url="http://source.test/events", event_id_key=None, row={"AUTH_TOKEN": "hidden-in-row"}
)
BEARER: dict[str, Any] = {"connection_method": ConnectionMethod.BEARER, "auth_token": "hidden-token"}
POST: dict[str, Any] = {"request_method": RequestMethod.POST}

Handler = Callable[[httpx.Request], httpx.Response]
TLS = transport.tls_context(verify=True, ca_file=None)


class _Body(httpx.AsyncByteStream):
    """A body that comes from a network: read once, as it is."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self.is_closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._body

    async def aclose(self) -> None:
        self.is_closed = True


def _answer(status: int = 200, body: bytes = b"[]", headers: Mapping[str, str] | None = None) -> httpx.Response:
    return httpx.Response(status, headers=headers, stream=_Body(body))


def _moved(to: str, status: int = 302, **headers: str) -> httpx.Response:
    return _answer(
        status, b"moved", {"Location": to, **{name.replace("_", "-"): text for name, text in headers.items()}}
    )


class Source:
    """An HTTP source with a handler in place of the network; `requests` are those that were sent."""

    def __init__(self, handler: Handler | None = None) -> None:
        self.requests: list[httpx.Request] = []
        self._handler = handler or (lambda _: _answer())
        proxies = transport.Proxies(http=None, https=None, no_proxy=None)
        self.clients = HttpClients(make_tls=lambda: TLS, proxies=proxies, transport_=httpx.MockTransport(self._handle))

    def _handle(self, request: httpx.Request) -> httpx.Response:
        # Its headers may be changed when it is sent on.
        self.requests.append(
            httpx.Request(request.method, request.url, headers=request.headers.raw, content=request.content)
        )
        return self._handler(request)

    def of(self, *, on_exchange: Callable[[Exchange], None] | None = None, **columns: Any) -> HttpSource:
        """Return the source of a setting with these columns."""
        setting, zone = replace(SETTING, **columns), clock.zone("Asia/Tokyo")
        return HttpSource(setting, self.clients, max_bytes=MAX_BYTES, zone=zone, on_exchange=on_exchange)

    async def fetch(self, cursor: Cursor | None = None, **columns: Any) -> Payload:
        try:
            return await self.of(**columns).fetch(cursor or Cursor(LAST, None), LAST + 5.5)
        finally:
            await self.clients.close()


async def _sent(**columns: Any) -> httpx.Request:
    source = Source()
    await source.fetch(**columns)
    (request,) = source.requests
    return request


def _own_headers(request: httpx.Request) -> dict[str, str]:
    """Return the headers of a request without those that each has."""
    usual = ("host", "accept", "accept-encoding", "connection", "user-agent")
    return {name: value for name, value in request.headers.items() if name not in usual}


async def _error(handler: Handler | None = None, **columns: Any) -> AgentError:
    with pytest.raises(AgentError) as caught:
        await Source(handler).fetch(**columns)
    return caught.value


NO_QUERY = "PARAMETER is neither a JSON object nor a text: mend it in Exastro"
NO_HTTP = "URL must begin with http:// or https://, a host and perhaps a port"
NO_URL = "URL is none: check its host, its port, and that a password in it is percent-encoded"
FAILS = "fails (UndefinedError: 'missing' is undefined)"


def _no_json(column: str, why: str) -> str:
    return f"{column} is no JSON once its template is rendered ({why}…): mend it in Exastro"


async def _exchanges(handler: Handler, **columns: Any) -> list[Exchange]:
    """Return what is told of a poll that may fail."""
    told: list[Exchange] = []
    source = Source(handler)
    with suppress(AgentError):
        await source.fetch(on_exchange=told.append, **columns)
    return told


class TestExchanges:
    """What a listener is told."""

    async def test_a_request_is_told_as_it_was_sent_with_the_head_of_its_answer(self) -> None:
        (told,) = await _exchanges(
            lambda _: _answer(200, b"{}", {"Content-Type": "application/json"}),
            connection_method=ConnectionMethod.BEARER,
            auth_token="secret",
            request_method=RequestMethod.POST,
            request_header='{"X-Own": "1"}',
            parameter='{"a": 1}',
        )
        headers = dict(told.headers)
        assert (headers["authorization"], headers["x-own"]) == ("Bearer secret", "1")
        assert replace(told, headers=()) == Exchange(
            "POST", "http://source.test/events", (), b'{"a": 1}', 200, "application/json"
        )

    async def test_each_redirect_is_told_and_none_has_credentials_for_another_host(self) -> None:
        def handle(request: httpx.Request) -> httpx.Response:
            return _answer() if request.url.host == "other.test" else _moved("http://other.test/")

        told = await _exchanges(handle, connection_method=ConnectionMethod.BEARER, auth_token="secret")
        assert [(one.url, one.status, "authorization" in dict(one.headers)) for one in told] == [
            ("http://source.test/events", 302, True),
            ("http://other.test/", 200, False),
        ]

    async def test_a_body_that_is_sent_on_is_told_each_time(self) -> None:
        def handle(request: httpx.Request) -> httpx.Response:
            return _answer() if request.url.path == "/there" else _moved("/there", 307)

        told = await _exchanges(handle, request_method=RequestMethod.POST, parameter='{"a": 1}')
        assert [(one.method, one.status, one.body) for one in told] == [
            ("POST", 307, b'{"a": 1}'),
            ("POST", 200, b'{"a": 1}'),
        ]

    async def test_a_request_without_an_answer_is_told_too(self) -> None:
        def refuse(request: httpx.Request) -> httpx.Response:
            raise httpx.ConnectError("refused", request=request)

        told = await _exchanges(refuse, connection_method=ConnectionMethod.BEARER, auth_token="secret")
        assert [(one.status, one.content_type, dict(one.headers)["authorization"]) for one in told] == [
            (None, None, "Bearer secret")
        ]


class TestDestination:
    """Where a poll would go."""

    @pytest.mark.parametrize(
        ("url", "proxy", "destination"),
        [
            ("http://source.test/a", None, Destination("source.test", 80, is_encrypted=False)),
            ("https://source.test/a", None, Destination("source.test", 443, is_encrypted=True)),
            ("http://[::1]:9200/a", None, Destination("::1", 9200, is_encrypted=False)),
            (
                "https://source.test:8443/{{ EXASTRO_LAST_FETCHED_TIMESTAMP }}",
                "proxy.test:3128",
                Destination("source.test", 8443, is_encrypted=True, proxy="http://proxy.test:3128"),
            ),
        ],
        ids=["http", "https", "address", "template and proxy"],
    )
    async def test_it_is_that_of_the_rendered_url(self, url: str, proxy: str | None, destination: Destination) -> None:
        source = Source()
        found = source.of(url=url, proxy=proxy)
        assert await found.destination(Cursor(LAST, None), LAST + 5.5) == destination
        assert source.requests == []
        await source.clients.close()


class TestRequest:
    """URL, headers, query and body."""

    async def test_a_get_asks_for_json_in_a_coding_that_can_be_bounded(self) -> None:
        request = await _sent()
        assert (request.method, str(request.url), request.content) == ("GET", "http://source.test/events", b"")
        assert {**request.headers, "user-agent": "any"} == {
            "host": "source.test",
            "accept": "application/json, */*;q=0.5",
            "accept-encoding": "gzip",
            "connection": "keep-alive",
            "user-agent": "any",
        }

    @pytest.mark.parametrize(
        ("parameter", "query"),
        [
            pytest.param(None, "", id="none"),
            pytest.param("null", "", id="null"),
            pytest.param("{}", "", id="empty object"),
            pytest.param('""', "", id="empty text"),
            pytest.param(" \n", "", id="nothing left"),
            pytest.param("{% if EXASTRO_LAST_FETCHED_EVENT_IS_EXIST %}{}{% endif %}", "", id="nothing rendered"),
            pytest.param('{"a": "b", "c": "d"}', "a=b&c=d", id="object"),
            pytest.param('{"a": 1, "b": 1.5, "c": -1e3}', "a=1&b=1.5&c=-1000.0", id="numbers"),
            pytest.param('{"a": true, "b": false}', "a=true&b=false", id="bools"),
            pytest.param('{"a": null, "b": 1}', "b=1", id="null member"),
            pytest.param('{"a": null}', "", id="null member alone"),
            pytest.param('{"a": [1, "x", null, true, [2]]}', "a=1&a=x&a=true&a=2", id="list member"),
            pytest.param('{"a": []}', "", id="empty list member"),
            pytest.param('{"a": {"b": [1]}}', "a=%7B%22b%22%3A+%5B1%5D%7D", id="object member"),
            pytest.param('{"a b": "é &=+#%/"}', "a+b=%C3%A9+%26%3D%2B%23%25%2F", id="encoded"),
            pytest.param('{"a": ""}', "a=", id="empty member"),
            pytest.param('{"a": "\\ud800"}', "a=%3F", id="half a character"),
            pytest.param('"a=1&b"', "a=1&b", id="text as it stands"),
            pytest.param('"?a=1&"', "a=1", id="text with question mark"),
            pytest.param('"a=%41%2B+b&c=#x"', "a=%41%2B+b&c=%23x", id="text that is encoded"),
            pytest.param('"a=é b\\n"', "a=%C3%A9%20b", id="text that is not"),
            pytest.param('"a=\\ud800"', "a=%3F", id="text with half a character"),
        ],
    )
    @pytest.mark.parametrize("before", ["", "?x=1&y=%2B+z"])
    async def test_a_get_sends_the_parameter_as_query_behind_that_of_the_url(
        self, parameter: str | None, query: str, before: str
    ) -> None:
        request = await _sent(url=f"http://source.test/e{before}", parameter=parameter)
        parts = [part for part in (before[1:], query) if part]
        assert request.url.query.decode() == "&".join(parts)
        assert _own_headers(request) == {}

    @pytest.mark.parametrize(
        ("parameter", "body"),
        [
            pytest.param(None, b"", id="none"),
            pytest.param("null", b"", id="null"),
            pytest.param(" ", b"", id="nothing left"),
            pytest.param("{}", b"{}", id="empty object"),
            pytest.param('{"a": [1, null, "é"]}', '{"a": [1, null, "é"]}'.encode(), id="object"),
            pytest.param("[1]", b"[1]", id="list"),
            pytest.param('"text"', b'"text"', id="text"),
            pytest.param("0", b"0", id="number"),
            pytest.param("123456789012345678901234567890", b"123456789012345678901234567890", id="long number"),
            pytest.param('"\\ud800"', b'"?"', id="half a character"),
        ],
    )
    async def test_a_post_sends_the_parameter_as_json_body(self, parameter: str | None, body: bytes) -> None:
        request = await _sent(**POST, url="http://source.test/e?x=1", parameter=parameter)
        assert (request.method, str(request.url), request.content) == ("POST", "http://source.test/e?x=1", body)
        assert _own_headers(request) == {"content-type": "application/json", "content-length": str(len(body))}

    @pytest.mark.parametrize("name", ["Content-Type", "content-type", " CONTENT-TYPE "])
    async def test_a_post_keeps_the_user_s_content_type(self, name: str) -> None:
        request = await _sent(**POST, request_header=json.dumps({name: "application/json-rpc"}), parameter="{}")
        assert request.headers.get_list("content-type") == ["application/json-rpc"]

    @pytest.mark.parametrize(
        ("header", "sent"),
        [
            pytest.param("", {}, id="nothing"),
            pytest.param("null", {}, id="null"),
            pytest.param("{}", {}, id="empty"),
            pytest.param('{"X-Key": "a", "x-other": "b:c"}', {"x-key": "a", "x-other": "b:c"}, id="texts"),
            pytest.param('{"X-Key": " a b "}', {"x-key": "a b"}, id="blanks around"),
            pytest.param('{"X-Key": ""}', {"x-key": ""}, id="empty text"),
            pytest.param('{"A": 1, "B": true, "C": [1]}', {"a": "1", "b": "true", "c": "[1]"}, id="others"),
            pytest.param('{"X-Key": "a", "x-key": "b"}', {"x-key": "b"}, id="twice: the last one"),
            pytest.param('{"Accept": "text/x", "User-Agent": "u", "Host": "h"}', {}, id="the usual ones"),
            pytest.param('{"Content-Length": "9", "Transfer-Encoding": "chunked"}', {}, id="the body's are ours"),
            pytest.param('{"Accept-Encoding": "br", "CONNECTION": "close"}', {}, id="the connection's, too"),
            pytest.param('{"Authorization": "Basic abc"}', {"authorization": "Basic abc"}, id="authorization"),
        ],
    )
    async def test_headers_of_the_user_are_sent(self, header: str, sent: dict[str, str]) -> None:
        request = await _sent(request_header=header)
        assert _own_headers(request) == sent
        assert (request.headers["accept-encoding"], request.headers["connection"]) == ("gzip", "keep-alive")

    async def test_headers_of_the_user_replace_the_usual_ones(self) -> None:
        request = await _sent(request_header='{"ACCEPT": "text/x", "user-agent": "u", "Host": "virtual.test"}')
        assert [request.headers.get_list(name) for name in ("accept", "user-agent", "host")] == [
            ["text/x"],
            ["u"],
            ["virtual.test"],
        ]

    async def test_a_header_beyond_ascii_is_sent_in_latin_1(self) -> None:
        request = await _sent(request_header='{"X-User": "Jos\\u00e9"}')
        assert dict(request.headers.raw)[b"x-user"] == "José".encode("latin-1")

    @pytest.mark.parametrize(
        "header",
        [
            {"X-Key": "hidden\r\nX-Other: b"},
            {"X-Key": "hidden\n"},
            {"X-Key": "hidden\0"},
            {"X-Key": "hidden\x7f"},
            {"X-Key": "hidden監視"},
            {"X-Key": "hidden\ud800"},
            {"X Key": "hidden"},
            {"X:Key": "hidden"},
            {"X-Schlüssel": "hidden"},
            {"X-Key\r\nX-Other": "hidden"},
            {"": "hidden"},
        ],
        ids=ascii,
    )
    async def test_what_no_header_can_hold_is_refused_without_its_value(self, header: dict[str, str]) -> None:
        err = await _error(request_header=json.dumps(header))
        (name,) = header
        assert type(err) is SourceUnreadable
        assert str(err) == f"REQUEST_HEADER {name!r} holds what no header can: mend it in Exastro"

    async def test_the_name_of_what_no_header_can_hold_is_cut(self) -> None:
        err = await _error(request_header=json.dumps({"x " * 99: ""}))
        assert str(err) == f"REQUEST_HEADER {('x ' * 20)[:39] + '…'!r} holds what no header can: mend it in Exastro"
        assert err.reason is Reason.PARAMETER

    @pytest.mark.parametrize(
        ("columns", "problem"),
        [
            ({"request_header": "[]"}, "REQUEST_HEADER is no JSON object: mend it in Exastro"),
            ({"request_header": '"a"'}, "REQUEST_HEADER is no JSON object: mend it in Exastro"),
            ({"request_header": "{'a': 'hidden'}"}, _no_json("REQUEST_HEADER", "Expecting property name enclosed")),
            ({"parameter": '{"a": "hidden}'}, _no_json("PARAMETER", "Unterminated string starting at")),
            ({"parameter": "[" * 99_999}, _no_json("PARAMETER", "maximum recursion depth exceeded")),
            *(({"parameter": parameter}, NO_QUERY) for parameter in ("[]", '[["a", 1]]', "0", "7", "true", "false")),
            (
                {"parameter": json.dumps({"a": "hidden" * 20_000})},
                "PARAMETER is too long for a URL: ask for less, or send it with POST",
            ),
            ({"parameter": "{{ missing.x }}"}, f"the template in PARAMETER {FAILS}"),
            ({"request_header": "{{ missing.x }}"}, f"the template in REQUEST_HEADER {FAILS}"),
            ({"url": "{{ missing.x }}"}, f"the template in URL {FAILS}"),
            *(
                ({"url": url}, NO_HTTP)
                for url in ("", "{{ missing }}", "source.test/x", "/x", "ftp://h/x", "http:///x")
            ),
            *(
                ({"url": url}, NO_HTTP)
                for url in ("file:///etc/passwd", "http://?x", "http://h:65536/", "h:80/x", "http://xn--a/")
            ),
            *(({"url": url}, NO_URL) for url in ("http://h:port", "http://user:hid/den@h", "http://256.1.1.1/")),
            *(
                ({"url": url}, NO_URL)
                for url in ("http://[::1", "http://h/\tx", "http://☃", "http://h/" + "x" * 70_000)
            ),
        ],
        ids=lambda value: ascii(value)[:50],
    )
    async def test_what_cannot_be_sent_is_told_with_its_column(self, columns: dict[str, Any], problem: str) -> None:
        err = await _error(**columns)
        assert type(err) is SourceUnreadable
        assert err.reason in (Reason.PARAMETER, Reason.TEMPLATE)
        assert re.fullmatch(re.escape(problem).replace("…", ".*"), str(err))
        assert "hid" not in str(err)

    async def test_all_columns_are_rendered_for_the_poll(self) -> None:
        request = await _sent(
            cursor=Cursor(LAST, b'{"id": "7"}'),
            url="http://{{ 'source' }}.test/{{ EXASTRO_LAST_FETCHED_EVENT.id }} ",
            request_header='{"X-Since": "{{ EXASTRO_LAST_FETCHED_YY_MM_DD }}"}',
            parameter='{"now": "{{ EXASTRO_CURRENT_TIME }}", "ids": [{% for i in range(2) %}{{ i }},{% endfor %}9]}',
        )
        assert str(request.url) == ("http://source.test/7?now=2023-11-15+07%3A13%3A25.500000&ids=0&ids=1&ids=9")
        assert _own_headers(request) == {"x-since": "2023/11/15 07:13:20"}

    async def test_rendering_that_could_take_long_lets_others_go_on(self) -> None:
        turns = 0

        async def turn() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0)
                turns += 1

        other = asyncio.create_task(turn(), name="other")
        await _sent(url="http://source.test/{% for i in range(30000) %}{% endfor %}")
        other.cancel()
        assert turns > 10

    @pytest.mark.parametrize(
        ("url", "authorization"),
        [
            pytest.param("http://source.test/", None, id="none"),
            pytest.param("http://user:p%40ss@source.test/", "Basic dXNlcjpwQHNz", id="in the URL"),
        ],
    )
    async def test_a_user_in_the_url_is_sent_where_the_setting_has_no_method(
        self, url: str, authorization: str | None
    ) -> None:
        request = await _sent(url=url)
        assert request.headers.get("authorization") == authorization

    @pytest.mark.parametrize(
        ("columns", "authorization"),
        [
            pytest.param(BEARER, "Bearer hidden-token", id="bearer"),
            pytest.param(
                {"connection_method": ConnectionMethod.BASIC, "username": "u", "password": "p"},
                "Basic dTpw",
                id="basic",
            ),
        ],
    )
    async def test_the_setting_s_method_stands_before_header_and_url(
        self, columns: dict[str, Any], authorization: str
    ) -> None:
        request = await _sent(url="http://a:b@source.test/", request_header='{"authorization": "other"}', **columns)
        assert request.headers.get_list("authorization") == [authorization]


class TestAnswer:
    """What an answer is taken for."""

    @pytest.mark.parametrize(
        ("answer", "payload"),
        [
            pytest.param(_answer(200, b"[1]"), Payload(b"[1]"), id="plain"),
            pytest.param(_answer(201, b"{}"), Payload(b"{}"), id="201"),
            pytest.param(_answer(204, b""), Payload(b""), id="204"),
            pytest.param(_answer(200, b"<html>"), Payload(b"<html>"), id="what it is made of is for others to say"),
            pytest.param(
                _answer(200, b"\xe9", {"Content-Type": "application/json; charset=ISO-8859-1"}),
                Payload(b"\xe9", "iso-8859-1"),
                id="charset",
            ),
            pytest.param(
                _answer(200, b"x", {"Content-Type": 'text/plain; charset="no-such"; x'}),
                Payload(b"x", "no-such"),
                id="unknown charset",
            ),
            pytest.param(_answer(200, b"x", {"Content-Type": ";;=charset"}), Payload(b"x"), id="broken content type"),
            pytest.param(
                _answer(200, gzip.compress(b"[]"), {"Content-Encoding": "gzip"}), Payload(b"[]"), id="compressed"
            ),
            pytest.param(_answer(200, b"x" * MAX_BYTES), Payload(b"x" * MAX_BYTES), id="as large as may be"),
        ],
    )
    async def test_a_2xx_is_the_answer(self, answer: httpx.Response, payload: Payload) -> None:
        assert await Source(lambda _: answer).fetch() == payload

    @pytest.mark.parametrize(
        ("answer", "kind", "reason", "words"),
        [
            *(
                pytest.param(
                    _answer(status),
                    SourceRejected,
                    Reason.UNAUTHORIZED,
                    f"http://source.test answered {status} {phrase}: check the credentials of the setting",
                    id=str(status),
                )
                for status, phrase in (
                    (401, "Unauthorized"),
                    (403, "Forbidden"),
                    (407, "Proxy Authentication Required"),
                )
            ),
            *(
                pytest.param(
                    _answer(status),
                    SourceRejected,
                    Reason.HTTP_STATUS,
                    f"http://source.test answered {status} {phrase}: check the URL and the parameter of the setting",
                    id=str(status),
                )
                for status, phrase in (
                    (300, "Multiple Choices"),
                    (304, "Not Modified"),
                    (400, "Bad Request"),
                    (404, "Not Found"),
                    (405, "Method Not Allowed"),
                    (408, "Request Timeout"),
                    (410, "Gone"),
                    (413, "Request Entity Too Large"),
                    (418, "I'm a teapot"),
                )
            ),
            *(
                pytest.param(
                    _answer(status),
                    SourceUnavailable,
                    Reason.HTTP_STATUS,
                    f"http://source.test answered {status} {phrase}: it cannot serve now",
                    id=str(status),
                )
                for status, phrase in (
                    (500, "Internal Server Error"),
                    (502, "Bad Gateway"),
                    (503, "Service Unavailable"),
                    (504, "Gateway Timeout"),
                    (507, "Insufficient Storage"),
                )
            ),
            pytest.param(
                _answer(429),
                SourceUnavailable,
                Reason.THROTTLED,
                "http://source.test answered 429 Too Many Requests: it cannot serve now",
                id="429",
            ),
            pytest.param(
                _answer(599),
                SourceUnavailable,
                Reason.HTTP_STATUS,
                "http://source.test answered 599: it cannot serve now",
                id="599",
            ),
            pytest.param(
                httpx.Response(401, extensions={"reason_phrase": b"No hidden-token"}),
                SourceRejected,
                Reason.UNAUTHORIZED,
                "http://source.test answered 401 Unauthorized: check the credentials of the setting",
                id="401 that quotes what it was sent",
            ),
            pytest.param(
                _answer(302),
                SourceRejected,
                Reason.HTTP_STATUS,
                "http://source.test answered 302 Found: check the URL and the parameter of the setting",
                id="302 without location",
            ),
            pytest.param(
                _answer(200, b"x" * (MAX_BYTES + 1)),
                SourceUnreadable,
                Reason.TOO_LARGE,
                "http://source.test: the answer is larger than 1000 bytes: ask for less with PARAMETER, "
                "or raise RESPONSE_MAX_BYTES",
                id="too large",
            ),
            pytest.param(
                _answer(200, gzip.compress(bytes(9_999_999)), {"Content-Encoding": "gzip"}),
                SourceUnreadable,
                Reason.TOO_LARGE,
                "http://source.test: the answer is larger than 1000 bytes: ask for less with PARAMETER, "
                "or raise RESPONSE_MAX_BYTES",
                id="too large once decompressed",
            ),
            pytest.param(
                _answer(200, b"x", {"Content-Encoding": "br"}),
                SourceUnreadable,
                Reason.NOT_JSON,
                "http://source.test: the answer cannot be read: it is coded as 'br', which was not asked for",
                id="unasked coding",
            ),
            pytest.param(
                _answer(200, b"no gzip", {"Content-Encoding": "gzip"}),
                SourceUnreadable,
                Reason.NOT_JSON,
                "http://source.test: the answer cannot be read: its compression is broken",
                id="broken coding",
            ),
        ],
    )
    async def test_all_else_is_a_failed_poll(
        self, answer: httpx.Response, kind: type[AgentError], reason: Reason, words: str
    ) -> None:
        err = await _error(lambda _: answer)
        assert (type(err), err.reason, str(err)) == (kind, reason, words)

    @pytest.mark.parametrize("status", [429, 500, 503])
    @pytest.mark.parametrize(
        ("value", "seconds"),
        [(None, None), ("7", 7.0), ("99999", 3_600.0), ("soon", None), ("Sun, 06 Nov 1994 08:49:37 GMT", 0.0)],
    )
    async def test_the_source_s_wish_to_wait_is_passed_on(
        self, status: int, value: str | None, seconds: float | None
    ) -> None:
        headers = {} if value is None else {"Retry-After": value}
        err = await _error(lambda _: _answer(status, b"", headers))
        assert isinstance(err, SourceUnavailable)
        assert err.retry_after_seconds == seconds

    @pytest.mark.parametrize(
        ("raised", "reason", "words"),
        [
            pytest.param(
                httpx.ConnectTimeout("hidden"),
                Reason.TIMEOUT,
                "no connection in time: check the host, the port and what lies between",
                id="no connection",
            ),
            pytest.param(
                httpx.ReadTimeout("hidden"),
                Reason.TIMEOUT,
                "no answer in time: check the host, the port and what lies between",
                id="no answer",
            ),
            pytest.param(
                httpx.ConnectError("refused"),
                Reason.UNREACHABLE,
                "no connection (refused): check the host, the port and the network",
                id="refused",
            ),
            pytest.param(
                httpx.RemoteProtocolError("Server disconnected"),
                Reason.UNREACHABLE,
                "the connection broke (Server disconnected): check the host and the network",
                id="broken",
            ),
            pytest.param(
                httpx.ProxyError("403 Forbidden"),
                Reason.UNREACHABLE,
                "the proxy refused (403 Forbidden): check the proxy",
                id="proxy",
            ),
        ],
    )
    async def test_no_answer_is_a_source_that_cannot_serve(
        self, raised: httpx.TransportError, reason: Reason, words: str
    ) -> None:
        def fail(_: httpx.Request) -> httpx.Response:
            raise raised

        err = await _error(fail)
        assert (type(err), err.reason, str(err)) == (SourceUnavailable, reason, f"http://source.test: {words}")

    @pytest.mark.parametrize(
        "answer",
        [
            _answer(200),
            _answer(404, b"not found"),
            _answer(503, b"busy"),
            _answer(200, b"x" * 9_999),
            _answer(200, b"x", {"Content-Encoding": "br"}),
            _moved("/events"),
            _moved("ftp://source.test/"),
        ],
        ids=["read", "refused", "busy", "too large", "unreadable", "moved", "moved away"],
    )
    async def test_every_answer_gives_its_connection_back(self, answer: httpx.Response) -> None:
        body = answer.stream
        assert isinstance(body, _Body)
        with suppress(AgentError):
            await Source(lambda _: httpx.Response(answer.status_code, headers=answer.headers, stream=body)).fetch()
        assert body.is_closed

    @pytest.mark.looptime
    async def test_a_source_that_trickles_for_ever_ends(self) -> None:
        class Trickle(httpx.AsyncByteStream):
            async def __aiter__(self) -> AsyncIterator[bytes]:
                while True:
                    await asyncio.sleep(1)
                    yield b" "

        begin = asyncio.get_running_loop().time()
        err = await _error(lambda _: httpx.Response(200, stream=Trickle()))
        assert (type(err), err.reason) == (SourceUnavailable, Reason.TIMEOUT)
        assert asyncio.get_running_loop().time() - begin == pytest.approx(TOTAL_SECONDS, abs=1)

    async def test_no_error_shows_a_secret_or_the_query(self) -> None:
        columns = {
            **BEARER,
            "url": "http://u:hidden@source.test/hidden?hidden=1",
            "request_header": '{"X-Key": "hidden"}',
            "parameter": '{"k": "hidden"}',
        }

        def fail(request: httpx.Request) -> httpx.Response:
            raise httpx.ReadTimeout(str(request.url))

        answers: list[Handler] = [
            fail,
            lambda _: _answer(404, b"hidden"),
            lambda _: _answer(503, b"hidden"),
            lambda _: _answer(200, b"hidden" * MAX_BYTES),
            lambda _: _answer(200, b"hidden", {"Content-Encoding": "gzip"}),
            lambda _: _moved("/hidden?hidden"),
            lambda _: _moved("ftp://source.test/hidden"),
        ]
        for handler in answers:
            assert "hidden" not in str(await _error(handler, **columns))


class TestRedirects:
    """Redirects are followed; credentials never go to another host."""

    SECRETS = '{"X-Api-Key": "k", "Cookie": "c=1", "Authorization": "other", "Accept": "text/x", "User-Agent": "u"}'

    async def _followed(self, first: Handler, **columns: Any) -> list[httpx.Request]:
        def handle(request: httpx.Request) -> httpx.Response:
            return first(request) if request.url.path == "/events" else _answer()

        source = Source(handle)
        await source.fetch(**{**BEARER, "request_header": self.SECRETS, **columns})
        return source.requests

    @pytest.mark.parametrize(
        ("url", "location"),
        [
            pytest.param("http://source.test/events", "/new?x=1", id="path"),
            pytest.param("http://source.test/events", "http://source.test/new?x=1", id="same host"),
            pytest.param(
                "http://source.test/events", "http://SOURCE.test:80/new?x=1", id="same host written otherwise"
            ),
            pytest.param("http://source.test/events", "https://source.test/new?x=1", id="upgrade to https"),
            pytest.param("https://source.test:443/events", "//source.test/new?x=1", id="same scheme"),
            pytest.param("http://source.test:8080/events", "http://source.test:8080/new?x=1", id="same port"),
        ],
    )
    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    async def test_credentials_stay_on_the_same_host(self, url: str, location: str, status: int) -> None:
        _, second = await self._followed(lambda _: _moved(location, status), url=url)
        assert (second.method, second.url.path, second.url.query) == ("GET", "/new", b"x=1")
        assert _own_headers(second) == {"x-api-key": "k", "authorization": "Bearer hidden-token"}
        assert second.headers["host"] == second.url.netloc.decode()

    @pytest.mark.parametrize(
        ("url", "location"),
        [
            pytest.param("http://source.test/events", "http://other.test/new", id="other host"),
            pytest.param("http://source.test/events", "http://sub.source.test/new", id="subdomain"),
            pytest.param("http://source.test/events", "http://source.test:8080/new", id="other port"),
            pytest.param("https://source.test/events", "http://source.test/new", id="downgrade to http"),
            pytest.param("http://source.test/events", "https://other.test/new", id="upgrade, other host"),
            pytest.param("http://source.test:8080/events", "https://source.test:8443/new", id="upgrade, other port"),
        ],
    )
    @pytest.mark.parametrize(
        "method",
        [
            pytest.param(BEARER, id="bearer"),
            pytest.param({"connection_method": ConnectionMethod.BASIC, "username": "u", "password": "p"}, id="basic"),
            pytest.param(
                {
                    "connection_method": ConnectionMethod.SHARED_KEY,
                    "access_key_id": "a",
                    "secret_access_key": "aGlkZGVu",
                },
                id="shared key",
            ),
            pytest.param({"connection_method": ConnectionMethod.NONE}, id="header alone"),
        ],
    )
    async def test_nothing_of_the_user_goes_to_another_host(
        self, url: str, location: str, method: dict[str, Any]
    ) -> None:
        _, second = await self._followed(
            lambda _: _moved(location, set_cookie="s=1; Domain=source.test"), url=url, **method
        )
        assert str(second.url) == location
        assert {**second.headers, "connection": "any"} == {
            "host": second.url.netloc.decode(),
            "accept": "text/x",
            "accept-encoding": "gzip",
            "connection": "any",
            "user-agent": "u",
        }

    async def test_a_user_in_the_url_stays_there(self) -> None:
        requests = await self._followed(
            lambda _: _moved("http://other.test/new"),
            url="http://u:p@source.test/events",
            connection_method=ConnectionMethod.NONE,
            request_header=None,
        )
        assert [request.headers.get("authorization") for request in requests] == ["Basic dTpw", None]

    async def test_credentials_that_were_left_behind_do_not_come_back(self) -> None:
        def handle(request: httpx.Request) -> httpx.Response:
            places = {"/events": "http://other.test/b", "/b": "http://source.test/c"}
            location = places.get(request.url.path)
            return _moved(location) if location else _answer()

        source = Source(handle)
        await source.fetch(**BEARER, request_header='{"X-Api-Key": "k"}')
        assert [_own_headers(request) for request in source.requests] == [
            {"x-api-key": "k", "authorization": "Bearer hidden-token"},
            {},
            {},
        ]

    @pytest.mark.parametrize(
        ("status", "method", "body"),
        [
            (301, "GET", b""),
            (302, "GET", b""),
            (303, "GET", b""),
            (307, "POST", b'{"a": 1}'),
            (308, "POST", b'{"a": 1}'),
        ],
    )
    async def test_a_post_is_followed_on_the_same_host(self, status: int, method: str, body: bytes) -> None:
        _, second = await self._followed(lambda _: _moved("/new", status), **POST, parameter='{"a": 1}')
        assert (second.method, second.content) == (method, body)

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    async def test_a_post_is_not_sent_to_another_host(self, status: int) -> None:
        source = Source(lambda _: _moved("https://other.test/new?hidden", status))
        with pytest.raises(SourceRejected) as caught:
            await source.fetch(**POST, parameter='{"a": 1}')
        assert str(caught.value) == ("http://source.test redirects a POST to another host (other.test): write that URL")
        assert caught.value.reason is Reason.REDIRECT
        assert len(source.requests) == 1

    @pytest.mark.parametrize(
        "location",
        [
            "ftp://source.test/x",
            "file:///etc/passwd",
            "javascript:x",
            "ws://source.test/",
            "http:x",
            "http://xn--a.test/",
        ],
    )
    async def test_only_http_is_followed(self, location: str) -> None:
        source = Source(lambda _: _moved(location))
        with pytest.raises(SourceRejected) as caught:
            await source.fetch()
        assert str(caught.value) == "http://source.test redirects to what is no URL: write the final URL"
        assert len(source.requests) == 1

    async def test_a_location_that_is_no_url_is_a_broken_answer(self) -> None:
        err = await _error(lambda _: _moved("http://other.test:port/"))
        assert (type(err), err.reason) == (SourceUnavailable, Reason.UNREACHABLE)

    @pytest.mark.parametrize(("redirects", "is_answer"), [(MAX_REDIRECTS, True), (MAX_REDIRECTS + 1, False)])
    async def test_five_redirects_are_followed_and_no_more(self, redirects: int, is_answer: bool) -> None:
        def handle(request: httpx.Request) -> httpx.Response:
            number = int(request.url.params.get("n", "0"))
            return _answer() if number == redirects else _moved(f"/events?n={number + 1}")

        source = Source(handle)
        if is_answer:
            assert await source.fetch() == Payload(b"[]")
        else:
            with pytest.raises(SourceRejected) as caught:
                await source.fetch()
            assert str(caught.value) == "http://source.test: more than 5 redirects: write the final URL"
            assert caught.value.reason is Reason.REDIRECT
        assert len(source.requests) == MAX_REDIRECTS + 1

    async def test_shared_key_is_signed_anew_for_the_new_path(self) -> None:
        _, second = await self._followed(
            lambda _: _moved("/new"),
            connection_method=ConnectionMethod.SHARED_KEY,
            access_key_id="a",
            secret_access_key="aGlkZGVu",
            request_header=None,
        )
        fresh = await _sent(
            url="http://source.test/new",
            connection_method=ConnectionMethod.SHARED_KEY,
            access_key_id="a",
            secret_access_key="aGlkZGVu",
        )
        if second.headers["x-ms-date"] == fresh.headers["x-ms-date"]:
            assert second.headers["authorization"] == fresh.headers["authorization"]
        assert second.headers.get_list("authorization")[0].startswith("SharedKeyLite a:")


class TestCookies:
    """A session belongs to one poll of one setting."""

    async def test_a_cookie_is_kept_along_redirects_of_one_host(self) -> None:
        def handle(request: httpx.Request) -> httpx.Response:
            return _moved("/in", set_cookie="s=1; Path=/") if request.url.path == "/events" else _answer()

        source = Source(handle)
        await source.fetch()
        assert [request.headers.get("cookie") for request in source.requests] == [None, "s=1"]

    async def test_a_cookie_of_a_common_domain_is_not_sent_to_another_host(self) -> None:
        places = {
            "/events": "http://a.corp.test/in",
            "/in": "http://b.corp.test/one",
            "/one": "http://b.corp.test/two",
        }

        def handle(request: httpx.Request) -> httpx.Response:
            location = places.get(request.url.path)
            return (
                _moved(location, set_cookie="s=1; Domain=corp.test; Path=/")
                if location == places["/events"]
                else (_moved(location) if location else _answer())
            )

        source = Source(handle)
        await source.fetch(url="http://a.corp.test/events")
        assert [(request.url.path, request.headers.get("cookie")) for request in source.requests] == [
            ("/events", None),
            ("/in", "s=1"),
            ("/one", None),
            ("/two", None),
        ]

    async def test_a_cookie_of_one_poll_is_not_sent_with_another(self) -> None:
        source = Source(lambda _: _answer(headers={"Set-Cookie": "session=of-the-first; Path=/"}))
        first, second = (
            HttpSource(replace(SETTING, name=name), source.clients, max_bytes=MAX_BYTES, zone=None) for name in "ab"
        )
        for asked in (first, second, first):
            await asked.fetch(Cursor(LAST, None), LAST)
        await source.clients.close()
        assert [request.headers.get("cookie") for request in source.requests] == [None, None, None]


class TestClients:
    """Some pools of connections for all settings, and as many for each proxy."""

    @pytest.fixture
    async def clients(self) -> AsyncIterator[HttpClients]:
        proxies = transport.Proxies(http="http://env:1", https=None, no_proxy="direct.test")
        clients = HttpClients(make_tls=lambda: TLS, proxies=proxies)
        yield clients
        await clients.close()

    async def test_settings_share_a_client_by_proxy_and_by_encryption(self, clients: HttpClients) -> None:
        direct = clients.choose(httpx.URL("http://direct.test/a"), None)
        assert clients.choose(httpx.URL("http://direct.test/b"), None) is direct
        encrypted = clients.choose(httpx.URL("https://other.test/"), None)
        assert encrypted is not direct
        assert clients.choose(httpx.URL("https://direct.test/"), None) is encrypted
        by_environment = clients.choose(httpx.URL("http://other.test/"), None)
        assert by_environment is not direct
        assert clients.choose(httpx.URL("http://another.test/"), None) is by_environment
        own = clients.choose(httpx.URL("http://direct.test/"), "http://own:1")
        assert own not in (direct, by_environment)
        assert clients.choose(httpx.URL("https://other.test/"), "http://own:1") not in (own, encrypted)
        assert clients.choose(httpx.URL("http://other.test/"), "http://own:1") is own

    async def test_pools_share_no_client(self, clients: HttpClients) -> None:
        chosen = [
            clients.choose(httpx.URL("http://h/"), proxy, pool) for proxy in (None, "http://p:1") for pool in (0, 1)
        ]
        assert len(set(map(id, chosen))) == len(chosen)

    def test_a_thousand_settings_are_spread_over_the_pools(self) -> None:
        pools = Counter(pool_of(str(uuid.uuid5(uuid.NAMESPACE_URL, str(number)))) for number in range(1_000))
        assert sorted(pools) == list(range(POOLS))
        assert max(pools.values()) < 2 * 1_000 / POOLS

    async def test_each_source_uses_the_pool_of_its_setting_for_a_proxy(self) -> None:
        clients = HttpClients(make_tls=lambda: TLS, proxies=transport.Proxies(http=None, https=None, no_proxy=None))
        async with _loopback(lambda _: _http(b"[]")) as (place, _):
            for id_, proxy in (("a", place), ("b", place), ("a", place), ("a", None)):
                setting = replace(SETTING, id=id_, url=f"http://{place}/", proxy=proxy)
                await HttpSource(setting, clients, max_bytes=MAX_BYTES, zone=None).fetch(Cursor(LAST, None), LAST)
            used = set(clients._clients)
            await clients.close()
        assert used == {
            (f"http://{place}", pool_of("a"), False),
            (f"http://{place}", pool_of("b"), False),
            (None, 0, False),
        }

    def test_certificates_are_read_for_what_is_encrypted_alone(self) -> None:
        made: list[ssl.SSLContext] = []

        def make_tls() -> ssl.SSLContext:
            made.append(TLS)
            return TLS

        clients = HttpClients(make_tls=make_tls, proxies=transport.Proxies(http=None, https=None, no_proxy=None))
        plain = clients.choose(httpx.URL("http://h/"), None)
        assert made == []
        assert clients.choose(httpx.URL("https://h/"), None) is not plain
        assert made == [TLS]

    async def test_time_limits_are_those_of_the_protocol(self, clients: HttpClients) -> None:
        timeout = clients.choose(httpx.URL("http://h/"), None).timeout
        assert (timeout.connect, timeout.read) == (CONNECT_SECONDS, READ_SECONDS) == (12.0, 30.0)

    async def test_no_client_is_open_once_all_are_closed(self, clients: HttpClients) -> None:
        chosen = [clients.choose(httpx.URL("https://h/"), proxy) for proxy in (None, "http://a:1", "http://b:1")]
        await clients.close()
        assert [client.is_closed for client in chosen] == [True, True, True]

    @pytest.mark.parametrize(
        "proxy",
        [
            "socks5://u:hidden@p:1",
            "ftp://u:hidden@p",
            "http://",
            "http://u:hidden@",
            "http://p:99999",
            "://",
            " ",
            "http://p\n1",
        ],
    )
    async def test_a_proxy_that_cannot_be_used_makes_the_setting_invalid(self, proxy: str) -> None:
        err = await _error(proxy=proxy)
        assert (type(err), err.reason) == (SettingInvalid, Reason.SETTING)
        assert str(err) == "n1: PROXY is no URL of an HTTP proxy: write one such as http://proxy:8080"


@asynccontextmanager
async def _loopback(
    answers: Callable[[bytes], bytes], context: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[str, list[bytes]]]:
    """Serve on loopback; yields host and port, and the heads of the requests."""
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                heads.append(head)
                writer.write(answers(head))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server:
        yield "127.0.0.1:{1}".format(*server.sockets[0].getsockname()), heads


def _http(body: bytes, status: str = "200 OK") -> bytes:
    return b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (status.encode(), len(body), body)


class TestNetwork:
    """The same against real sockets on loopback."""

    async def test_connections_are_kept_alive(self) -> None:
        proxies = transport.Proxies(http=None, https=None, no_proxy=None)
        clients = HttpClients(make_tls=lambda: TLS, proxies=proxies)
        async with _loopback(lambda _: _http(b"[1]")) as (place, heads):
            source = HttpSource(replace(SETTING, url=f"http://{place}/"), clients, max_bytes=MAX_BYTES, zone=None)
            for _ in range(3):
                assert await source.fetch(Cursor(LAST, None), LAST) == Payload(b"[1]")
            await clients.close()
        assert len(heads) == 3

    @pytest.mark.parametrize("own", [True, False], ids=["PROXY", "HTTP_PROXY"])
    async def test_a_proxy_is_asked_for_the_whole_url(self, own: bool) -> None:
        async with _loopback(lambda _: _http(b"[2]")) as (place, heads):
            proxies = transport.Proxies(http=None if own else place, https=None, no_proxy=None)
            clients = HttpClients(make_tls=lambda: TLS, proxies=proxies)
            setting = replace(SETTING, proxy=f"http://u:p@{place}" if own else None)
            source = HttpSource(setting, clients, max_bytes=MAX_BYTES, zone=None)
            assert await source.fetch(Cursor(LAST, None), LAST) == Payload(b"[2]")
            await clients.close()
        (head,) = heads
        assert head.startswith(b"GET http://source.test/events HTTP/1.1\r\n")
        assert (b"Proxy-Authorization: Basic dTpw\r\n" in head) is own

    async def test_the_environment_is_read_by_the_settings_alone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
        monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
        clients = HttpClients(make_tls=lambda: TLS, proxies=transport.Proxies(http=None, https=None, no_proxy=None))
        async with _loopback(lambda _: _http(b"[]")) as (place, _):
            source = HttpSource(replace(SETTING, url=f"http://{place}/"), clients, max_bytes=MAX_BYTES, zone=None)
            assert await source.fetch(Cursor(LAST, None), LAST) == Payload(b"[]")
            await clients.close()

    async def test_the_certificate_of_a_source_is_verified(self, tmp_path: Path) -> None:
        certificate = self_signed(tmp_path)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        results: list[object] = []
        async with _loopback(lambda _: _http(b"[]"), context) as (place, _):
            for ca_file in (None, certificate):
                clients = HttpClients(
                    make_tls=partial(transport.tls_context, verify=True, ca_file=ca_file),
                    proxies=transport.Proxies(http=None, https=None, no_proxy=None),
                )
                source = HttpSource(replace(SETTING, url=f"https://{place}/"), clients, max_bytes=MAX_BYTES, zone=None)
                try:
                    results.append(await source.fetch(Cursor(LAST, None), LAST))
                except SourceUnavailable as err:
                    results.append(err.reason)
                await clients.close()
        assert results == [Reason.TLS, Payload(b"[]")]

    async def test_a_cut_answer_is_a_broken_connection(self) -> None:
        clients = HttpClients(make_tls=lambda: TLS, proxies=transport.Proxies(http=None, https=None, no_proxy=None))

        async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n[1")
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(cut, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            source = HttpSource(
                replace(SETTING, url=f"http://127.0.0.1:{port}/?hidden"), clients, max_bytes=MAX_BYTES, zone=None
            )
            with pytest.raises(SourceUnavailable, match="the connection broke") as caught:
                await source.fetch(Cursor(LAST, None), LAST)
            await clients.close()
        assert "hidden" not in str(caught.value)

    async def test_a_port_where_nobody_listens_is_unreachable(self) -> None:
        server = await asyncio.start_server(lambda _, __: None, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        server.close()
        await server.wait_closed()
        clients = HttpClients(make_tls=lambda: TLS, proxies=transport.Proxies(http=None, https=None, no_proxy=None))
        source = HttpSource(replace(SETTING, url=f"http://127.0.0.1:{port}/"), clients, max_bytes=MAX_BYTES, zone=None)
        with pytest.raises(SourceUnavailable) as caught:
            await source.fetch(Cursor(LAST, None), LAST)
        await clients.close()
        assert caught.value.reason is Reason.UNREACHABLE
        assert str(caught.value).endswith(": check the host, the port and the network")


def _no_tls() -> ssl.SSLContext:
    raise AssertionError


class TestOpenSource:
    """Which source a setting asks for."""

    @staticmethod
    def _open(**columns: Any) -> object:
        return open_source(
            replace(SETTING, **columns), Source().clients, make_tls=_no_tls, max_bytes=MAX_BYTES, zone=None
        )

    @pytest.mark.parametrize("request_method", [RequestMethod.GET, RequestMethod.POST])
    @pytest.mark.parametrize(
        "connection_method",
        [
            ConnectionMethod.BEARER,
            ConnectionMethod.BASIC,
            ConnectionMethod.SHARED_KEY,
            ConnectionMethod.NONE,
        ],
    )
    def test_the_methods_of_http_make_an_http_source(
        self, connection_method: ConnectionMethod, request_method: RequestMethod
    ) -> None:
        columns = {"auth_token": "t", "username": "u", "access_key_id": "a", "secret_access_key": "aGlkZGVu"}
        source = self._open(connection_method=connection_method, request_method=request_method, **columns)
        assert isinstance(source, HttpSource)

    def test_a_mailbox_makes_a_mail_source(self) -> None:
        columns = {"url": "imap.test", "username": "u", "request_method": RequestMethod.IMAP_TLS}
        source = self._open(connection_method=ConnectionMethod.IMAP_PASSWORD, **columns)
        assert isinstance(source, ImapSource)

    @pytest.mark.parametrize(
        "request_method", [RequestMethod.IMAP_TLS, RequestMethod.IMAP_STARTTLS, RequestMethod.IMAP_PLAIN]
    )
    def test_a_method_of_mail_is_none_of_http(self, request_method: RequestMethod) -> None:
        with pytest.raises(SettingInvalid, match=r"^n1: REQUEST_METHOD_ID must be GET or POST$"):
            self._open(request_method=request_method)

    @pytest.mark.parametrize("column", ["url", "request_header", "parameter"])
    def test_a_broken_template_makes_the_setting_invalid(self, column: str) -> None:
        with pytest.raises(SettingInvalid, match=f"^{column.upper()} is no template"):
            self._open(**{column: "{{"})
