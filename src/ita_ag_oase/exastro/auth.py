"""How the agent proves to Exastro who it is (protocol section 1.1)."""

import asyncio
import base64
import contextlib
import hashlib
import json
import re
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import httpx

from ita_ag_oase import clock, transport
from ita_ag_oase.errors import AgentError, ExastroUnavailable, Reason
from ita_ag_oase.text import Text

if TYPE_CHECKING:
    from cryptography.fernet import Fernet

_ANSWER_MAX_BYTES = 1_048_576
_ANSWER_SECONDS = 30.0
_KEPT_TOKEN = "refresh_token"  # noqa: S105 - the name of a fact
# A token is renewed when this much of its life is left, or this part of it where it lives shortly.
_MARGIN_SECONDS = 30.0
_MARGIN_PART = 0.2
_DEFAULT_LIFE_SECONDS = 300.0
# What a header can hold (RFC 9110 section 5.5).
_VISIBLE = re.compile(r"[\x21-\x7e]+")
# A renewal under way may end within this time at the agent's end.
_LAST_RENEWAL_SECONDS = 2.0


class Facts(Protocol):
    """Where a rotated token outlives the process."""

    async def fact(self, name: str) -> bytes | None:
        """Return the bytes kept under a name, or None."""

    async def keep_fact(self, name: str, value: bytes) -> None:
        """Keep bytes under a name."""


class RefreshTokenAuth(httpx.Auth):
    """A bearer token, renewed before it expires, and once when it is answered with 401."""

    def __init__(self, tokens: "AccessTokens") -> None:
        self._tokens = tokens

    async def prepare(self) -> None:
        """See that there is a valid token. Raises ExastroUnavailable where none is to be had."""
        await self._tokens.valid()

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """Send the request with a valid token. Raises ExastroUnavailable where none is to be had."""
        token = await self._tokens.valid()
        request.headers["Authorization"] = f"Bearer {token}"
        response = yield request
        if response.status_code == httpx.codes.UNAUTHORIZED:
            await _drop_body(response)
            request.headers["Authorization"] = f"Bearer {await self._tokens.instead_of(token)}"
            yield request


class AccessTokens:
    """Access tokens from the realm's token endpoint (OpenID Connect Core 1.0 section 12), one request at a time.

    A rotated refresh token replaces the configured one and is kept, encrypted under it: whoever configures a new token
    makes the kept one void. `on_expiry` is told when a new access token ends, in epoch seconds.
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
        *,
        token_url: str,
        client_id: str,
        refresh_token: str,
        facts: Facts,
        on_secret: Callable[[str], None],
        on_expiry: Callable[[float], None],
    ) -> None:
        self._client = client
        self._token_url = token_url
        self._client_id = client_id
        self._configured = refresh_token
        self._rotated: str | None = None
        self._has_looked = False
        self._is_kept = True
        self._facts = facts
        self._on_secret = on_secret
        self._on_expiry = on_expiry
        self._renewal: asyncio.Task[str] | None = None
        self._access_token: str | None = None
        self._renew_at = 0.0

    async def valid(self) -> str:
        """Return a token with some life left. Raises ExastroUnavailable where none is to be had."""
        if self._access_token is None or asyncio.get_running_loop().time() >= self._renew_at:
            return await self._renewed()
        if not self._is_kept:
            await self._keep()
        return self._access_token

    async def instead_of(self, refused: str) -> str:
        """Return another token than the one that was refused. Raises ExastroUnavailable where none is to be had."""
        if self._access_token is None or self._access_token == refused:
            return await self._renewed()
        return self._access_token

    async def close(self) -> None:
        """Let a renewal that is under way end, within a bound: only its answer may hold a good refresh token."""
        if self._renewal is not None:
            await asyncio.wait([self._renewal], timeout=_LAST_RENEWAL_SECONDS)
            self._renewal.cancel()

    async def _renewed(self) -> str:
        # A task of its own, so that a rotated token is not lost with a caller that is cancelled.
        if self._renewal is None or self._renewal.done():
            self._renewal = asyncio.create_task(self._renew(), name="renew access token")
        return await asyncio.shield(self._renewal)

    async def _renew(self) -> str:
        self._access_token = None
        if not self._has_looked:
            self._rotated, self._has_looked = await self._kept(), True
        refused: list[str] = []
        while (refresh_token := await self._candidate(refused)) is not None:
            answer = await self._exchange(refresh_token)
            if answer is not None:
                await self._rotate(refresh_token, answer.get("refresh_token"))
                return str(answer["access_token"])
            refused.append(refresh_token)
        raise ExastroUnavailable(
            Text("Exastro refused the refresh token: issue a new one and set EXASTRO_REFRESH_TOKEN"),
            reason=Reason.UNAUTHORIZED,
            is_unprocessed=True,
        )

    async def _candidate(self, refused: Sequence[str]) -> str | None:
        """Return the refresh token to try next; None where all were refused."""
        if self._rotated and self._rotated not in refused:
            return self._rotated
        # Another process with the same store, such as the command `check`, may have rotated it meanwhile.
        kept = await self._kept() if refused else None
        if kept and kept not in refused:
            self._rotated, self._is_kept = kept, True
            return kept
        return self._configured if self._configured not in refused else None

    async def _kept(self) -> str | None:
        try:
            data = await self._facts.fact(_KEPT_TOKEN)
            return self._opened(data) if data else None
        except AgentError as err:
            raise ExastroUnavailable(
                Text("the kept refresh token of Exastro cannot be read: {error}", error=err.text),
                reason=err.reason,
                is_unprocessed=True,
            ) from err

    def _opened(self, data: bytes) -> str | None:
        from cryptography.fernet import InvalidToken

        try:
            return self._cipher().decrypt(data).decode()
        except InvalidToken:
            return None

    def _cipher(self) -> "Fernet":
        # Few realms rotate tokens, and cryptography takes 8 MiB.
        from cryptography.fernet import Fernet

        return Fernet(base64.urlsafe_b64encode(hashlib.sha256(self._configured.encode()).digest()))

    async def _rotate(self, used: str, following: Any) -> None:
        good = following if isinstance(following, str) and following else used
        self._on_secret(good)
        rotated = None if good == self._configured else good
        if rotated != self._rotated:
            self._rotated, self._is_kept = rotated, False
            await self._keep()

    async def _keep(self) -> None:
        data = self._cipher().encrypt(self._rotated.encode()) if self._rotated else b""
        # Where it cannot be kept now, the next request tries again.
        with contextlib.suppress(AgentError):
            await self._facts.keep_fact(_KEPT_TOKEN, data)
            self._is_kept = True

    async def _exchange(self, refresh_token: str) -> dict[str, Any] | None:
        """Return the endpoint's answer after noting the access token in it; None where the refresh token is refused."""
        self._on_secret(refresh_token)
        started = asyncio.get_running_loop().time()
        form = {"client_id": self._client_id, "grant_type": "refresh_token", "refresh_token": refresh_token}
        request = self._client.build_request("POST", self._token_url, data=form, timeout=_ANSWER_SECONDS)
        status, answer = await self._ask(request)
        if status in (400, 401) and "error" in answer:
            return None
        token = answer.get("access_token")
        if status != httpx.codes.OK or not isinstance(token, str) or not _VISIBLE.fullmatch(token):
            raise ExastroUnavailable(
                Text(
                    "the token endpoint of Exastro answered {status} without a token: check EXASTRO_URL and "
                    "EXASTRO_ORGANIZATION_ID",
                    status=status,
                ),
                reason=Reason.NOT_EXASTRO,
                is_unprocessed=True,
            )
        self._on_secret(token)
        life = _seconds(answer.get("expires_in"))
        self._renew_at = started + life - min(_MARGIN_SECONDS, life * _MARGIN_PART)
        self._access_token = token
        self._on_expiry(clock.now() + started + life - asyncio.get_running_loop().time())
        return answer

    async def _ask(self, request: httpx.Request) -> tuple[int, dict[str, Any]]:
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                response = await self._client.send(request, stream=True, auth=None)
                try:
                    answer = _object(await transport.read_bounded(response, _ANSWER_MAX_BYTES))
                except (transport.AnswerTooLarge, transport.AnswerUnreadable):
                    answer = {}
                finally:
                    await response.aclose()
        except (httpx.TransportError, TimeoutError) as err:
            reason, words = transport.explain(err)
            raise ExastroUnavailable(
                Text("the token endpoint of Exastro: {words}", words=words), reason=reason, is_unprocessed=True
            ) from err
        if response.is_server_error or response.status_code == httpx.codes.TOO_MANY_REQUESTS:
            raise ExastroUnavailable(
                Text(
                    "the token endpoint of Exastro answered {status}: it cannot serve now", status=response.status_code
                ),
                reason=Reason.HTTP_STATUS,
                retry_after_seconds=transport.retry_after_seconds(response, clock.now()),
                is_unprocessed=True,
            )
        return response.status_code, answer


async def _drop_body(response: httpx.Response) -> None:
    """See that httpx does not read the body of an answer before the request is sent again, however long it is."""
    stream = response.stream
    if isinstance(stream, httpx.AsyncByteStream):
        response.stream = httpx.ByteStream(b"")
        await stream.aclose()


def _object(body: bytearray) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _seconds(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and value > 0 else _DEFAULT_LIFE_SECONDS
