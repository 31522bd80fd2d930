"""Access tokens: asked for once, renewed in time, and no rotated refresh token lost (protocol section 1.1)."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import httpx
import pytest

from ita_ag_oase import clock
from ita_ag_oase.errors import ExastroUnavailable, Reason, StoreUnavailable
from ita_ag_oase.exastro.auth import AccessTokens, Facts, RefreshTokenAuth
from ita_ag_oase.store.saving import SavingLimits
from ita_ag_oase.store.store import Store
from ita_ag_oase.text import Text

TOKEN_URL = "http://exastro/auth/realms/org1/protocol/openid-connect/token"
API_URL = "http://exastro/api"
CONFIGURED = "configured-refresh-token"
REFUSAL = {"error": "invalid_grant", "error_description": "Invalid refresh token"}

Answer = httpx.Response | Exception


def _as_sent(response: httpx.Response) -> httpx.Response:
    """Return an answer whose body is still to be read, as a network would give it."""
    if not response.is_stream_consumed:
        return response
    stream = httpx.ByteStream(response.content)
    return httpx.Response(response.status_code, headers=response.headers, stream=stream)


async def _never() -> None:
    await asyncio.Event().wait()


class Memory:
    """Facts in memory, whose disk can fail."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.fails = False

    async def fact(self, name: str) -> bytes | None:
        self._require_disk()
        return self.values.get(name)

    async def keep_fact(self, name: str, value: bytes) -> None:
        self._require_disk()
        self.values[name] = value

    def _require_disk(self) -> None:
        if self.fails:
            raise StoreUnavailable(Text("no space is left"), reason=Reason.STORE_FULL)


class Realm:
    """A token endpoint and an API that wants its tokens."""

    def __init__(self) -> None:
        self.good = {CONFIGURED}
        self.rotates = False
        self.expires_in: Any = 300
        self.refuses_access_tokens = False
        self.forms: list[dict[str, list[str]]] = []
        self.bearers: list[str] = []
        self.bodies: list[bytes] = []
        self.answers: list[Answer] = []
        self.before_answer: Callable[[], Awaitable[None]] | None = None
        self.issued: list[str] = []

    @property
    def asked_with(self) -> list[str]:
        return [form["refresh_token"][0] for form in self.forms]

    async def handle(self, request: httpx.Request) -> httpx.Response:
        if str(request.url) == TOKEN_URL:
            return _as_sent(await self._token(request))
        self.bearers.append(request.headers["Authorization"])
        self.bodies.append(request.content)
        is_good = self.bearers[-1] == f"Bearer {self.issued[-1]}" and not self.refuses_access_tokens
        return _as_sent(httpx.Response(200 if is_good else 401, json={}))

    async def _token(self, request: httpx.Request) -> httpx.Response:
        assert "Authorization" not in request.headers
        self.forms.append(parse_qs(request.content.decode(), strict_parsing=True))
        if self.answers:
            answer = self.answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer
        if self.asked_with[-1] not in self.good:
            return httpx.Response(400, json=REFUSAL)
        if self.rotates:
            self.good = {f"rotated-refresh-token-{len(self.forms)}"}
        self.issued.append(f"access-token-{len(self.forms)}")
        if self.before_answer is not None:
            await self.before_answer()
        return httpx.Response(200, json=self._grant())

    def _grant(self) -> dict[str, Any]:
        return {
            "access_token": self.issued[-1],
            "expires_in": self.expires_in,
            "refresh_expires_in": 0,
            "refresh_token": next(iter(self.good)),
        }


class Office:
    """An HTTP client with the authentication under test."""

    def __init__(self, realm: Realm, facts: Facts, configured: str = CONFIGURED) -> None:
        self.secrets: list[str] = []
        self.expiries: list[float] = []
        self.client = httpx.AsyncClient(transport=httpx.MockTransport(realm.handle))
        self.tokens = AccessTokens(
            self.client,
            token_url=TOKEN_URL,
            client_id="_org1-api",
            refresh_token=configured,
            facts=facts,
            on_secret=self.secrets.append,
            on_expiry=self.expiries.append,
        )
        self.auth = RefreshTokenAuth(self.tokens)

    async def post(self, content: bytes = b"{}") -> int:
        return (await self.client.post(API_URL, content=content, auth=self.auth)).status_code

    async def failure(self) -> ExastroUnavailable:
        with pytest.raises(ExastroUnavailable) as caught:
            await self.post()
        return caught.value


@asynccontextmanager
async def _office(realm: Realm, facts: Facts | None = None, configured: str = CONFIGURED) -> AsyncIterator[Office]:
    office = Office(realm, facts or Memory(), configured)
    async with office.client:
        yield office
        await office.tokens.close()


@asynccontextmanager
async def _store(path: Path) -> AsyncIterator[Store]:
    limits = SavingLimits(group_events=100, group_bytes=100_000, id_retention_seconds=86_400)
    store = Store(path / "store.sqlite3", limits, storage_max_bytes=1 << 30)
    await store.open()
    try:
        yield store
    finally:
        store.close()


def _bytes_below(path: Path) -> bytes:
    return b"".join(file.read_bytes() for file in path.iterdir())


@pytest.fixture
def realm() -> Realm:
    return Realm()


async def test_token_is_asked_for_as_the_realm_wants_it(realm: Realm) -> None:
    async with _office(realm) as office:
        assert await office.post() == 200
    assert realm.forms == [{"client_id": ["_org1-api"], "grant_type": ["refresh_token"], "refresh_token": [CONFIGURED]}]
    assert realm.bearers == ["Bearer access-token-1"]


async def test_requests_at_the_same_time_share_one_token(realm: Realm) -> None:
    async with _office(realm) as office:
        assert await asyncio.gather(*(office.post() for _ in range(20))) == [200] * 20
    assert realm.asked_with == [CONFIGURED]
    assert realm.bearers == ["Bearer access-token-1"] * 20


async def test_the_end_of_each_token_is_told(realm: Realm) -> None:
    began = clock.now()
    async with _office(realm) as office:
        await office.post()
    (expiry,) = office.expiries
    assert began + 300 <= expiry <= clock.now() + 300


async def test_every_token_is_told_to_be_secret(realm: Realm) -> None:
    realm.rotates = True
    async with _office(realm) as office:
        await office.post()
    assert set(office.secrets) == {CONFIGURED, "rotated-refresh-token-1", "access-token-1"}


@pytest.mark.looptime
@pytest.mark.parametrize(
    ("expires_in", "good_until"),
    [
        (300, 270.0),
        (4, 3.2),
        (60, 48.0),
        (86_400, 86_370.0),
        (0.5, 0.4),
        (None, 270.0),
        (0, 270.0),
        (-5, 270.0),
        ("300", 270.0),
        ([], 270.0),
    ],
    ids=str,
)
async def test_token_is_renewed_before_it_expires(realm: Realm, expires_in: Any, good_until: float) -> None:
    realm.expires_in = expires_in
    async with _office(realm) as office:
        await office.post()
        await asyncio.sleep(good_until - 0.01)
        await office.post()
        await asyncio.sleep(0.01)
        await office.post()
    assert realm.bearers == [f"Bearer access-token-{number}" for number in (1, 1, 2)]


@pytest.mark.looptime
async def test_life_of_a_token_counts_from_the_question(realm: Realm) -> None:
    async def take_long() -> None:
        await asyncio.sleep(10)

    realm.before_answer = take_long
    async with _office(realm) as office:
        await office.post()
        await asyncio.sleep(259.9)
        await office.post()
        await asyncio.sleep(0.2)
        await office.post()
    assert realm.bearers == [f"Bearer access-token-{number}" for number in (1, 1, 2)]


async def test_token_can_be_asked_for_before_the_first_request(realm: Realm) -> None:
    async with _office(realm) as office:
        await office.auth.prepare()
        assert (len(realm.forms), realm.bearers) == (1, [])
        assert await office.post() == 200
    assert len(realm.forms) == 1


async def test_refused_token_is_renewed_and_the_same_request_sent_again(realm: Realm) -> None:
    async with _office(realm) as office:
        await office.post()
        realm.issued.append("revoked everything before")
        assert await office.post(b'{"whole": "body"}') == 200
    assert realm.bearers[1:] == ["Bearer access-token-1", "Bearer access-token-2"]
    assert realm.bodies[1:] == [b'{"whole": "body"}'] * 2


async def test_refused_token_is_renewed_once_and_not_twice(realm: Realm) -> None:
    realm.refuses_access_tokens = True
    async with _office(realm) as office:
        assert await office.post() == 401
    assert realm.bearers == ["Bearer access-token-1", "Bearer access-token-2"]
    assert len(realm.forms) == 2


async def test_requests_that_are_refused_together_share_one_renewal(realm: Realm) -> None:
    async with _office(realm) as office:
        await office.post()
        realm.issued.append("revoked everything before")
        assert await asyncio.gather(*(office.post() for _ in range(10))) == [200] * 10
    assert len(realm.forms) == 2


async def test_failed_renewal_does_not_send_others_without_a_token(realm: Realm) -> None:
    async with _office(realm) as office:
        await office.post()
        realm.issued.append("revoked everything before")
        realm.answers = [httpx.Response(503)] * 2
        results = await asyncio.gather(*(office.post() for _ in range(5)), return_exceptions=True)
    assert [type(result) for result in results] == [ExastroUnavailable] * 5
    assert set(realm.bearers) == {"Bearer access-token-1"}


async def test_token_that_is_refused_after_a_failed_renewal_is_renewed_too(realm: Realm) -> None:
    async with _office(realm) as office:
        token = await office.tokens.valid()
        realm.answers = [httpx.Response(503)]
        with pytest.raises(ExastroUnavailable):
            await office.tokens.instead_of(token)
        assert await office.tokens.instead_of(token) == "access-token-3"


async def test_refused_answer_without_end_is_not_read(realm: Realm) -> None:
    class Endless(httpx.AsyncByteStream):
        sent = 0
        is_closed = False

        async def __aiter__(self) -> AsyncIterator[bytes]:
            while self.sent < 1 << 28:
                self.sent += 1 << 20
                yield bytes(1 << 20)

        async def aclose(self) -> None:
            self.is_closed = True

    stream = Endless()

    async def handle(request: httpx.Request) -> httpx.Response:
        response = await realm.handle(request)
        return httpx.Response(401, stream=stream) if response.status_code == 401 else response

    async with _office(realm) as office:
        await office.post()
        realm.issued.append("revoked everything before")
        office.client._transport = httpx.MockTransport(handle)
        assert await office.post() == 200
    assert (stream.sent, stream.is_closed) == (0, True)


async def test_refused_answer_in_a_broken_coding_does_not_matter(realm: Realm) -> None:
    async def handle(request: httpx.Request) -> httpx.Response:
        response = await realm.handle(request)
        if response.status_code != 401:
            return response
        return httpx.Response(401, headers={"Content-Encoding": "gzip"}, stream=httpx.ByteStream(b"no gzip"))

    async with _office(realm) as office:
        await office.post()
        realm.issued.append("revoked everything before")
        office.client._transport = httpx.MockTransport(handle)
        assert await office.post() == 200


async def test_rotated_refresh_token_is_used_for_the_next_renewal(realm: Realm) -> None:
    realm.rotates = True
    async with _office(realm) as office:
        for _ in range(3):
            await office.post()
            realm.issued.append("revoked everything before")
    assert realm.asked_with == [CONFIGURED, "rotated-refresh-token-1", "rotated-refresh-token-2"]


async def test_rotated_refresh_token_outlives_the_process_encrypted(realm: Realm, tmp_path: Path) -> None:
    realm.rotates = True
    async with _store(tmp_path) as store, _office(realm, store) as office:
        await office.post()
        on_disk = _bytes_below(tmp_path)
    on_disk += _bytes_below(tmp_path)
    assert b"refresh_token" in on_disk
    assert [secret for secret in office.secrets if secret.encode() in on_disk] == []
    async with _store(tmp_path) as store, _office(realm, store) as office:
        assert await office.post() == 200
    assert realm.asked_with == [CONFIGURED, "rotated-refresh-token-1"]


async def test_refresh_token_that_stays_the_same_is_not_written(realm: Realm) -> None:
    facts = Memory()
    async with _office(realm, facts) as office:
        await office.post()
    assert facts.values == {}


async def test_newly_configured_refresh_token_makes_the_kept_one_void(realm: Realm) -> None:
    facts = Memory()
    realm.rotates = True
    async with _office(realm, facts) as office:
        await office.post()
    realm.good = {"issued anew", *realm.good}
    async with _office(realm, facts, "issued anew") as office:
        assert await office.post() == 200
    assert realm.asked_with == [CONFIGURED, "issued anew"]


async def test_configured_refresh_token_is_tried_where_the_kept_one_is_refused(realm: Realm) -> None:
    facts = Memory()
    realm.rotates = True
    async with _office(realm, facts) as office:
        await office.post()
    realm.good, realm.rotates = {CONFIGURED}, False
    async with _office(realm, facts) as office:
        assert await office.post() == 200
    async with _office(realm, facts) as office:
        assert await office.post() == 200
    # The kept one is forgotten once the configured one has proved good.
    assert realm.asked_with == [CONFIGURED, "rotated-refresh-token-1", CONFIGURED, CONFIGURED]


async def test_rotated_refresh_token_is_tried_again_after_everything_was_refused_for_a_while(realm: Realm) -> None:
    realm.rotates = True
    async with _office(realm) as office:
        await office.post()
        realm.issued.append("revoked everything before")
        realm.answers = [httpx.Response(401, json={"error": "unauthorized_client"}) for _ in range(2)]
        assert (await office.failure()).reason is Reason.UNAUTHORIZED
        assert await office.post() == 200
    assert realm.asked_with == [CONFIGURED, "rotated-refresh-token-1", CONFIGURED, "rotated-refresh-token-1"]


async def test_refresh_token_that_another_process_rotated_is_looked_up_where_it_was_kept(realm: Realm) -> None:
    facts = Memory()
    realm.rotates = True
    async with _office(realm, facts) as agent:
        await agent.post()
        async with _office(realm, facts) as command:
            assert await command.post() == 200
        assert await agent.post() == 200
    async with _office(realm, facts) as following:
        assert await following.post() == 200
    assert realm.asked_with == [
        CONFIGURED,
        "rotated-refresh-token-1",
        # The agent's access token was refused, and so was the refresh token that it knew of.
        "rotated-refresh-token-1",
        "rotated-refresh-token-2",
        "rotated-refresh-token-4",
    ]


async def test_configured_refresh_token_that_another_process_used_up_is_followed_to_the_kept_one(realm: Realm) -> None:
    facts = Memory()
    async with _office(realm, facts) as agent:
        await agent.post()
        realm.rotates = True
        async with _office(realm, facts) as command:
            assert await command.post() == 200
        assert await agent.post() == 200
    assert realm.asked_with == [CONFIGURED, CONFIGURED, CONFIGURED, "rotated-refresh-token-2"]


async def test_kept_refresh_token_is_not_asked_for_again_where_it_was_refused(realm: Realm) -> None:
    facts = Memory()
    realm.rotates = True
    async with _office(realm, facts) as office:
        await office.post()
        realm.issued.append("revoked everything before")
        realm.good = set()
        assert str(await office.failure()) == REFUSED
    assert realm.asked_with == [CONFIGURED, "rotated-refresh-token-1", CONFIGURED]


async def test_rotated_refresh_token_is_not_lost_with_a_cancelled_request(realm: Realm) -> None:
    facts = Memory()
    is_asked, may_answer = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        is_asked.set()
        await may_answer.wait()

    realm.rotates, realm.before_answer = True, hold
    async with _office(realm, facts) as office:
        request = asyncio.create_task(office.post())
        await is_asked.wait()
        request.cancel()
        await asyncio.wait([request])
        may_answer.set()
    realm.before_answer = None
    async with _office(realm, facts) as office:
        assert await office.post() == 200
    assert (request.cancelled(), realm.asked_with) == (True, [CONFIGURED, "rotated-refresh-token-1"])


async def test_request_after_a_cancelled_one_joins_its_renewal(realm: Realm) -> None:
    is_asked, may_answer = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        is_asked.set()
        await may_answer.wait()

    realm.rotates, realm.before_answer = True, hold
    async with _office(realm) as office:
        request = asyncio.create_task(office.post())
        await is_asked.wait()
        request.cancel()
        following = asyncio.create_task(office.post())
        await asyncio.wait([request])
        may_answer.set()
        assert await following == 200
    assert realm.asked_with == [CONFIGURED]


@pytest.mark.looptime
async def test_close_waits_for_a_renewal_no_longer_than_two_seconds(realm: Realm) -> None:
    realm.before_answer = _never
    office = Office(realm, Memory())
    async with office.client:
        request = asyncio.create_task(office.post())
        await asyncio.sleep(1)
        request.cancel()
        await office.tokens.close()
        assert asyncio.get_running_loop().time() == 3
        await asyncio.sleep(0.1)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_full_disk_keeps_a_rotated_refresh_token_for_the_next_request(realm: Realm) -> None:
    facts = Memory()
    realm.rotates = True
    async with _office(realm, facts) as office:
        await office.post()
        realm.issued.append("revoked everything before")
        facts.fails = True
        assert [await office.post(), await office.post()] == [200, 200]
        facts.fails = False
        assert await office.post() == 200
    async with _office(realm, facts) as office:
        assert await office.post() == 200
    assert realm.asked_with == [CONFIGURED, "rotated-refresh-token-1", "rotated-refresh-token-2"]


async def test_store_that_cannot_be_read_sends_nothing(realm: Realm) -> None:
    facts = Memory()
    facts.fails = True
    async with _office(realm, facts) as office:
        failure = await office.failure()
        assert (str(failure), failure.reason, failure.is_unprocessed) == (
            "the kept refresh token of Exastro cannot be read: no space is left",
            Reason.STORE_FULL,
            True,
        )
        facts.fails = False
        assert await office.post() == 200
    assert realm.asked_with == [CONFIGURED]


UNREACHABLE = "the token endpoint of Exastro: no connection (refused): check the host, the port and the network"
NO_TOKEN = "without a token: check EXASTRO_URL and EXASTRO_ORGANIZATION_ID"
REFUSED = "Exastro refused the refresh token: issue a new one and set EXASTRO_REFRESH_TOKEN"


@pytest.mark.parametrize(
    ("answer", "message", "reason", "retry_after"),
    [
        (httpx.Response(400, json=REFUSAL), REFUSED, Reason.UNAUTHORIZED, None),
        (httpx.Response(401, json={"error": "invalid_client"}), REFUSED, Reason.UNAUTHORIZED, None),
        (httpx.Response(400, html="Bad Request"), f"answered 400 {NO_TOKEN}", Reason.NOT_EXASTRO, None),
        (httpx.Response(404, json={"error": "Realm does not exist"}), f"404 {NO_TOKEN}", Reason.NOT_EXASTRO, None),
        (httpx.Response(200, html="Please log in"), f"answered 200 {NO_TOKEN}", Reason.NOT_EXASTRO, None),
        (httpx.Response(200, content=b""), f"answered 200 {NO_TOKEN}", Reason.NOT_EXASTRO, None),
        (httpx.Response(200, json=["access_token"]), f"answered 200 {NO_TOKEN}", Reason.NOT_EXASTRO, None),
        (httpx.Response(200, json={"access_token": None}), f"answered 200 {NO_TOKEN}", Reason.NOT_EXASTRO, None),
        (httpx.Response(200, json={"access_token": ""}), f"answered 200 {NO_TOKEN}", Reason.NOT_EXASTRO, None),
        (httpx.Response(200, json={"access_token": "a\nb"}), f"answered 200 {NO_TOKEN}", Reason.NOT_EXASTRO, None),
        (httpx.Response(200, content=b"[" * 100_000), f"answered 200 {NO_TOKEN}", Reason.NOT_EXASTRO, None),
        (httpx.Response(200, content=b" " * 2_000_000), f"answered 200 {NO_TOKEN}", Reason.NOT_EXASTRO, None),
        (
            httpx.Response(200, headers={"Content-Encoding": "br"}, stream=httpx.ByteStream(b"{}")),
            f"answered 200 {NO_TOKEN}",
            Reason.NOT_EXASTRO,
            None,
        ),
        (httpx.Response(302, headers={"Location": "/login"}), f"302 {NO_TOKEN}", Reason.NOT_EXASTRO, None),
        (httpx.Response(503, html="x"), "answered 503: it cannot serve now", Reason.HTTP_STATUS, None),
        (
            httpx.Response(503, headers={"Retry-After": "7"}),
            "answered 503: it cannot serve now",
            Reason.HTTP_STATUS,
            7.0,
        ),
        (httpx.Response(429, headers={"Retry-After": "9"}), "answered 429: it", Reason.HTTP_STATUS, 9.0),
        (httpx.Response(500, json={"error": "unknown_error"}), "answered 500: it", Reason.HTTP_STATUS, None),
        (httpx.ConnectError("refused"), UNREACHABLE, Reason.UNREACHABLE, None),
        (httpx.ReadError("reset"), "the connection broke (reset)", Reason.UNREACHABLE, None),
        (httpx.ConnectTimeout("x"), "no connection in time", Reason.TIMEOUT, None),
        (httpx.ReadTimeout("x"), "no answer in time", Reason.TIMEOUT, None),
    ],
    ids=[
        "invalid grant",
        "invalid client",
        "html 400",
        "no realm",
        "html 200",
        "empty",
        "no object",
        "null",
        "empty token",
        "token that no header can hold",
        "deep",
        "long",
        "coded",
        "redirect",
        "html 503",
        "503 with wait",
        "429 with wait",
        "json 500",
        "refused",
        "reset",
        "connect timeout",
        "read timeout",
    ],
)
async def test_answer_without_a_token_sends_nothing_and_says_what_to_do(
    realm: Realm, answer: Answer, message: str, reason: Reason, retry_after: float | None
) -> None:
    realm.answers = [answer]
    async with _office(realm) as office:
        failure = await office.failure()
        assert message in str(failure)
        assert (failure.reason, failure.retry_after_seconds) == (reason, retry_after)
        assert failure.is_unprocessed
        assert [secret for secret in (CONFIGURED, "a\nb") if secret in str(failure)] == []
        assert realm.bearers == []
        assert await office.post() == 200


@pytest.mark.looptime
async def test_token_endpoint_that_hangs_is_given_up_after_30_seconds(realm: Realm) -> None:
    realm.before_answer = _never
    async with _office(realm) as office:
        failure = await office.failure()
        assert asyncio.get_running_loop().time() == 30
    assert (failure.reason, failure.is_unprocessed) == (Reason.TIMEOUT, True)


async def test_damaged_fact_counts_as_none(realm: Realm) -> None:
    facts = Memory()
    facts.values["refresh_token"] = json.dumps("not encrypted").encode()
    async with _office(realm, facts) as office:
        assert await office.post() == 200
    assert realm.asked_with == [CONFIGURED]
