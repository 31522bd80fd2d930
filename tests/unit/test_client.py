"""What each answer of Exastro means (protocol sections 1.2 and 1.5)."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import httpx
import pytest

from ita_ag_oase.errors import ExastroRejected, ExastroUnavailable, Reason
from ita_ag_oase.exastro.client import ExastroClient

BASE_URL = "http://exastro/api/org1/workspaces/ws1"
HTML = b"<html><body>Please log in</body></html>"

Handler = Callable[[httpx.Request], Coroutine[None, None, httpx.Response]]


class Outcome(NamedTuple):
    """What became of a post, in full."""

    kind: type[Exception] | None
    reason: Reason | None = None
    is_unprocessed: bool = False
    retry_after_seconds: float | None = None
    messages: list[str] | None = None


SAVED = Outcome(None, messages=[])
REFUSED = Outcome(ExastroRejected, Reason.REFUSED)
TOO_LARGE = Outcome(ExastroRejected, Reason.TOO_LARGE)
STRANGE = Outcome(ExastroUnavailable, Reason.NOT_EXASTRO)
STRANGE_BEFORE = Outcome(ExastroUnavailable, Reason.NOT_EXASTRO, is_unprocessed=True)
LATER = Outcome(ExastroUnavailable, Reason.HTTP_STATUS)
LATER_BEFORE = Outcome(ExastroUnavailable, Reason.HTTP_STATUS, is_unprocessed=True)
MAINTENANCE = Outcome(ExastroUnavailable, Reason.MAINTENANCE, is_unprocessed=True)
UNAUTHORIZED = Outcome(ExastroUnavailable, Reason.UNAUTHORIZED, is_unprocessed=True)


def _answer(result: Any, **members: Any) -> bytes:
    return json.dumps({"result": result, "message": "words", "ts": "2026-01-01T00:00:00.000Z", **members}).encode()


def _messages(*messages: str) -> Outcome:
    return Outcome(None, messages=list(messages))


@asynccontextmanager
async def _client(handle: Handler, auth: httpx.Auth | None = None) -> AsyncIterator[ExastroClient]:
    async with httpx.AsyncClient(transport=httpx.MockTransport(handle)) as client:
        yield ExastroClient(client, auth or httpx.Auth(), base_url=BASE_URL)


def _always(status: int, body: bytes, **headers: str) -> Handler:
    async def handle(_: httpx.Request) -> httpx.Response:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return httpx.Response(status, headers=names, stream=httpx.ByteStream(body))

    return handle


def _never_with(err: Exception) -> Handler:
    async def handle(_: httpx.Request) -> httpx.Response:
        raise err

    return handle


async def _post(handle: Handler) -> tuple[Outcome, str]:
    async with _client(handle) as client:
        try:
            return Outcome(None, messages=await client.post_events((b"{}",))), ""
        except ExastroUnavailable as err:
            return Outcome(type(err), err.reason, err.is_unprocessed, err.retry_after_seconds), str(err)
        except ExastroRejected as err:
            return Outcome(type(err), err.reason), str(err)


ANSWERS: dict[str, tuple[int, bytes, Outcome]] = {
    "saved": (200, _answer("000-00000", data=[]), SAVED),
    "saved, as older releases say it": (200, _answer("000-00000", data=""), SAVED),
    "saved, without data": (200, _answer("000-00000"), SAVED),
    "saved, data null": (200, _answer("000-00000", data=None), SAVED),
    "saved but for some": (200, _answer("000-00000", data=["499-01818: a", "b"]), _messages("499-01818: a", "b")),
    "messages that are objects": (
        200,
        _answer("000-00000", data=[{"a": "499-01827"}]),
        _messages("{'a': '499-01827'}"),
    ),
    "saved, with a byte order mark": (200, b"\xef\xbb\xbf" + _answer("000-00000", data=[]), SAVED),
    "success with an error's status": (500, _answer("000-00000", data=[]), LATER),
    "413 in html": (413, HTML, TOO_LARGE),
    "413 in json": (413, _answer("413-00001"), TOO_LARGE),
    "413 without a body": (413, b"", TOO_LARGE),
    "400 by code": (400, _answer("400-00002"), REFUSED),
    "400 by code alone": (200, _answer("400-00002"), REFUSED),
    "400 in html": (400, HTML, STRANGE),
    "499-01801": (499, _answer("499-01801"), REFUSED),
    "499-01802": (499, _answer("499-01802"), REFUSED),
    "499-01803": (499, _answer("499-01803"), LATER),
    "another 499": (499, _answer("499-00201"), LATER),
    "499 without a code": (499, HTML, STRANGE),
    "maintenance": (498, _answer("498-00004"), MAINTENANCE),
    "999-99999": (500, _answer("999-99999"), LATER),
    "500-00001": (500, _answer("500-00001"), LATER),
    "401 by code": (401, _answer("401-00001"), UNAUTHORIZED),
    "401 in html": (401, HTML, UNAUTHORIZED),
    "403 by code": (403, _answer("403-00001"), UNAUTHORIZED),
    "403 in html": (403, HTML, UNAUTHORIZED),
    "404 by code": (404, _answer("404-00001"), LATER_BEFORE),
    "404 in html": (404, HTML, STRANGE_BEFORE),
    "405 in html": (405, HTML, STRANGE_BEFORE),
    "407 in html": (407, HTML, STRANGE_BEFORE),
    "429 in html": (429, HTML, STRANGE),
    "500 in html": (500, HTML, STRANGE),
    "502 in html": (502, HTML, STRANGE),
    "503 in html": (503, HTML, STRANGE),
    "504 in html": (504, HTML, STRANGE),
    "redirect to a login": (302, HTML, STRANGE),
    "html with 200": (200, HTML, STRANGE),
    "nothing with 200": (200, b"", STRANGE),
    "no content": (204, b"", STRANGE),
    "json without result": (200, b'{"data": []}', STRANGE),
    "result null": (200, _answer(None, data=[]), STRANGE),
    "result a number": (200, _answer(0, data=[]), STRANGE),
    "json list": (200, b"[]", STRANGE),
    "json text": (200, b'"000-00000"', STRANGE),
    "json null": (200, b"null", STRANGE),
    "broken json": (200, _answer("000-00000", data=[])[:-1], STRANGE),
    "too deep json": (200, b"[" * 100_000, STRANGE),
    "no utf-8": (200, b'{"result": "000-00000\xff"}', STRANGE),
}


@pytest.mark.parametrize(("status", "body", "outcome"), ANSWERS.values(), ids=ANSWERS)
async def test_answer_is_judged_by_its_result_before_its_status(status: int, body: bytes, outcome: Outcome) -> None:
    found, _ = await _post(_always(status, body, Content_Type="text/html"))
    assert found == outcome


@pytest.mark.parametrize(
    ("err", "outcome"),
    [
        (httpx.ConnectError("x"), Outcome(ExastroUnavailable, Reason.UNREACHABLE, is_unprocessed=True)),
        (httpx.ConnectTimeout("x"), Outcome(ExastroUnavailable, Reason.TIMEOUT, is_unprocessed=True)),
        (httpx.ProxyError("x"), Outcome(ExastroUnavailable, Reason.UNREACHABLE, is_unprocessed=True)),
        (httpx.ReadError("x"), Outcome(ExastroUnavailable, Reason.UNREACHABLE)),
        (httpx.WriteError("x"), Outcome(ExastroUnavailable, Reason.UNREACHABLE)),
        (httpx.RemoteProtocolError("x"), Outcome(ExastroUnavailable, Reason.UNREACHABLE)),
        (httpx.ReadTimeout("x"), Outcome(ExastroUnavailable, Reason.TIMEOUT)),
        (httpx.WriteTimeout("x"), Outcome(ExastroUnavailable, Reason.TIMEOUT)),
        (TimeoutError(), Outcome(ExastroUnavailable, Reason.TIMEOUT)),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_only_a_connection_that_never_was_leaves_surely_no_trace(err: Exception, outcome: Outcome) -> None:
    found, _ = await _post(_never_with(err))
    assert found == outcome


async def test_answer_that_breaks_off_leaves_the_fate_unknown() -> None:
    class Broken(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield b'{"result": "000-'
            raise httpx.ReadError("reset")

    async def handle(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, stream=Broken())

    found, message = await _post(handle)
    assert found == Outcome(ExastroUnavailable, Reason.UNREACHABLE)
    assert message == "Exastro: the connection broke (reset): check the host and the network"


@pytest.mark.parametrize(
    ("status", "body", "outcome"),
    [
        (503, HTML, STRANGE._replace(retry_after_seconds=17.0)),
        (429, HTML, STRANGE._replace(retry_after_seconds=17.0)),
        (498, _answer("498-00004"), MAINTENANCE._replace(retry_after_seconds=17.0)),
        (499, _answer("499-01803"), LATER._replace(retry_after_seconds=17.0)),
    ],
    ids=["503", "429", "maintenance", "499-01803"],
)
async def test_wish_to_be_asked_later_is_passed_on(status: int, body: bytes, outcome: Outcome) -> None:
    found, _ = await _post(_always(status, body, Retry_After="17"))
    assert found == outcome


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (413, HTML, "the request is larger than Exastro's gateway allows (413)"),
        (400, _answer("400-00002"), "Exastro answered 400 400-00002 words"),
        (499, b'{"result": "499-01802"}', "Exastro answered 499 499-01802"),
        (499, _answer("499-01803"), "Exastro answered 499 499-01803 words: it cannot serve now"),
        (498, _answer("498-00004"), "Exastro answered 498 498-00004 words: it is under maintenance"),
        (
            403,
            _answer("403-00001"),
            ("Exastro answered 403 403-00001 words: check the credentials and the user's right to the agent's menus"),
        ),
        (
            200,
            HTML,
            (
                "Exastro was expected, but something else answered with status 200: "
                "check EXASTRO_URL, the gateway in front of Exastro, and its state"
            ),
        ),
    ],
    ids=["413", "400", "499-01802", "499-01803", "maintenance", "403", "html"],
)
async def test_failure_says_what_was_answered_and_what_to_do(status: int, body: bytes, message: str) -> None:
    assert (await _post(_always(status, body)))[1] == message


async def test_long_message_is_cut_at_256_characters() -> None:
    body = json.dumps({"result": "400-00002", "message": "x" * 10_000}).encode()
    assert (await _post(_always(400, body)))[1] == "Exastro answered 400 400-00002 " + "x" * 255 + "…"


async def test_compressed_answer_is_read() -> None:
    body = gzip.compress(_answer("000-00000", data=["499-01818: a"]))
    assert (await _post(_always(200, body, Content_Encoding="gzip")))[0] == _messages("499-01818: a")


@pytest.mark.parametrize("coding", ["gzip", "br", "deflate"])
async def test_answer_in_a_coding_that_cannot_be_read_is_not_exastros(coding: str) -> None:
    assert (await _post(_always(200, b"not so coded", Content_Encoding=coding)))[0] == STRANGE


@pytest.mark.parametrize("coding", ["identity", "gzip"])
async def test_answer_without_end_is_given_up(coding: str) -> None:
    piece = bytes(1 << 20)
    sent = 0
    closed = []

    class Endless(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            nonlocal sent
            while sent < 1 << 30:
                sent += len(piece)
                yield piece if coding == "identity" else gzip.compress(piece * 8, compresslevel=1)

        async def aclose(self) -> None:
            closed.append(True)

    async def handle(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"Content-Encoding": coding}, stream=Endless())

    found, _ = await _post(handle)
    assert found == STRANGE
    assert sent <= 17 << 20
    assert closed == [True]


@pytest.mark.looptime
@pytest.mark.parametrize(("call", "seconds"), [("post", 612), ("settings", 72)])
async def test_exastro_that_never_answers_is_given_up(call: str, seconds: int) -> None:
    async def handle(_: httpx.Request) -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError

    async with _client(handle) as client:
        with pytest.raises(ExastroUnavailable) as caught:
            await (client.post_events((b"{}",)) if call == "post" else client.fetch_settings(["n1"]))
    assert asyncio.get_running_loop().time() == seconds
    assert (caught.value.reason, caught.value.is_unprocessed) == (Reason.TIMEOUT, False)


@pytest.mark.looptime
async def test_answer_that_drips_is_given_up() -> None:
    class Dripping(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            while True:
                await asyncio.sleep(20)
                yield b" "

    async def handle(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, stream=Dripping())

    found, _ = await _post(handle)
    assert found == Outcome(ExastroUnavailable, Reason.TIMEOUT)
    assert asyncio.get_running_loop().time() == 612


async def test_cancellation_is_no_failure_of_exastros() -> None:
    is_asked = asyncio.Event()

    async def handle(_: httpx.Request) -> httpx.Response:
        is_asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    task = asyncio.create_task(_post(handle))
    await is_asked.wait()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


class Recorder:
    """Answers like Exastro and keeps what was asked."""

    def __init__(self, *statuses: int, data: Any = ()) -> None:
        self.requests: list[httpx.Request] = []
        self._statuses = list(statuses)
        self._data = data

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        status = self._statuses.pop(0) if self._statuses else 200
        body = _answer("000-00000" if status == 200 else "401-00001", data=self._data)
        return httpx.Response(status, stream=httpx.ByteStream(body))


async def test_events_are_posted_as_the_protocol_says() -> None:
    recorder = Recorder()
    async with _client(recorder, httpx.BasicAuth("user", "pässword")) as client:
        await client.post_events((b'{"events"', b":", b"[]}"))
    (request,) = recorder.requests
    assert (request.method, str(request.url)) == ("POST", f"{BASE_URL}/oase_agent/events")
    assert request.content == b'{"events":[]}'
    names = ("Content-Type", "Content-Length", "Transfer-Encoding", "Authorization")
    assert [request.headers.get(name) for name in names] == [
        "application/json",
        "13",
        None,
        "Basic dXNlcjpww6Rzc3dvcmQ=",
    ]
    assert request.extensions["timeout"] == {"connect": 12.0, "read": 600.0, "write": 600.0, "pool": 600.0}


async def test_pieces_of_a_body_are_sent_again_after_a_401() -> None:
    class Twice(httpx.Auth):
        async def async_auth_flow(self, request: httpx.Request) -> Any:
            response = yield request
            if response.status_code == 401:
                yield request

    bodies: list[bytes] = []
    recorder = Recorder(401)

    async def handle(request: httpx.Request) -> httpx.Response:
        # As a real transport does: the stream is consumed, and nothing is left in the request.
        bodies.append(b"".join([piece async for piece in request.stream]))  # type: ignore[union-attr]  # async here
        return await recorder(request)

    class Transport(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            return await handle(request)

    async with httpx.AsyncClient(transport=Transport()) as client:
        await ExastroClient(client, Twice(), base_url=BASE_URL).post_events((b"[", b"1", b"]"))
    assert bodies == [b"[1]", b"[1]"]


async def test_settings_are_asked_for_by_their_names() -> None:
    rows = [{"EVENT_COLLECTION_SETTINGS_NAME": "n1", "ANYTHING": {"else": [1]}}, {}]
    recorder = Recorder(data=rows)
    async with _client(recorder) as client:
        assert await client.fetch_settings(("n1", '監視 "1"')) == rows
    (request,) = recorder.requests
    assert (request.method, str(request.url)) == ("POST", f"{BASE_URL}/oase_agent/event_collection/settings")
    assert json.loads(request.content) == {"event_collection_settings_names": ["n1", '監視 "1"']}
    assert request.extensions["timeout"] == {"connect": 12.0, "read": 60.0, "write": 60.0, "pool": 60.0}


@pytest.mark.parametrize("data", [None, "", {}, "rows", [[]], [None], [{}, "row"]], ids=repr)
async def test_answer_without_a_list_of_rows_is_no_answer_about_settings(data: Any) -> None:
    async with _client(Recorder(data=data)) as client:
        with pytest.raises(ExastroUnavailable, match=r"^Exastro answered without a list of settings$") as caught:
            await client.fetch_settings(["n1"])
    assert caught.value.reason is Reason.NOT_EXASTRO


async def test_no_setting_found_is_an_answer() -> None:
    async with _client(Recorder(data=[])) as client:
        assert await client.fetch_settings(["n1"]) == []
