"""Exastro's API: fetch settings, post events, and what each answer means (protocol section 1.2)."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, NamedTuple

import httpx

from ita_ag_oase import clock, transport
from ita_ag_oase.errors import ExastroRejected, ExastroUnavailable, Reason, TermEnded
from ita_ag_oase.exastro.auth import RefreshTokenAuth
from ita_ag_oase.exastro.wire import SUCCESS
from ita_ag_oase.text import Text, shorten

CONNECT_SECONDS = 12.0
# A post can take minutes at the receiver.
ANSWER_SECONDS = 600.0
SETTINGS_SECONDS = 60.0
_ANSWER_MAX_BYTES = 16_777_216
_QUOTED_CHARACTERS = 256

# Refused for what the request holds, and surely not saved.
_CONTENT_REFUSED = ("499-01801", "499-01802")
# Nothing was looked at.
_UNPROCESSED_STATUSES = frozenset({401, 403, 404, 405, 407, 498})


class _Answer(NamedTuple):
    status: int
    result: str | None
    message: str
    data: Any
    retry_after_seconds: float | None


def require_turn(is_at_work: Callable[[], bool]) -> None:
    """Raise TermEnded where it is another agent's turn to speak with Exastro."""
    if not is_at_work():
        raise TermEnded(
            Text("the term of this agent has ended: it sends nothing to Exastro any more"), reason=Reason.TERM_ENDED
        )


class ExastroClient:
    """One workspace's API.

    Every call raises ExastroUnavailable where the same request may succeed later, and ExastroRejected where Exastro
    refuses what the request holds; nothing of a rejected request was saved.
    """

    def __init__(self, client: httpx.AsyncClient, auth: httpx.Auth, *, base_url: str) -> None:
        self._client = client
        self._auth = auth
        self._settings_url = f"{base_url}/oase_agent/event_collection/settings"
        self._events_url = f"{base_url}/oase_agent/events"

    async def authenticate(self) -> None:
        """See that there is a token, where requests carry one."""
        if isinstance(self._auth, RefreshTokenAuth):
            await self._auth.prepare()

    async def fetch_settings(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """Return the rows of the settings of these names, as Exastro sent them; unknown names are absent."""
        body = json.dumps({"event_collection_settings_names": list(names)}).encode()
        answer = await self._post(self._settings_url, (body,), SETTINGS_SECONDS)
        rows = answer.data
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise ExastroUnavailable(Text("Exastro answered without a list of settings"), reason=Reason.NOT_EXASTRO)
        return rows

    async def post_events(
        self, body: Sequence[bytes], *, before_sending: Callable[[], None] = lambda: None
    ) -> list[str]:
        """Send a body that comes in pieces; return the messages about groups that were not saved, if any.

        Also ExastroRejected with Reason.TOO_LARGE where the request is larger than something on the way allows. What
        `before_sending` raises, which is called before each piece, is raised here; the request is cut off then, and
        Exastro has never seen it whole.
        """
        answer = await self._post(self._events_url, body, ANSWER_SECONDS, before_sending)
        return [str(message) for message in answer.data] if isinstance(answer.data, list) else []

    async def _post(
        self,
        url: str,
        body: Sequence[bytes],
        answer_seconds: float,
        before_sending: Callable[[], None] = lambda: None,
    ) -> _Answer:
        timeout = httpx.Timeout(answer_seconds, connect=CONNECT_SECONDS)
        headers = {"Content-Type": "application/json", "Content-Length": str(sum(map(len, body)))}
        content = _Pieces(body, before_sending)
        request = self._client.build_request("POST", url, content=content, headers=headers, timeout=timeout)
        try:
            async with asyncio.timeout(answer_seconds + CONNECT_SECONDS):
                response = await self._client.send(request, stream=True, auth=self._auth)
                try:
                    return _judge(await _read(response))
                finally:
                    await response.aclose()
        except (httpx.TransportError, TimeoutError) as err:
            reason, words = transport.explain(err)
            is_unprocessed = isinstance(err, httpx.ConnectError | httpx.ConnectTimeout | httpx.ProxyError)
            raise ExastroUnavailable(
                Text("Exastro: {words}", words=words), reason=reason, is_unprocessed=is_unprocessed
            ) from err


class _Pieces(httpx.AsyncByteStream):
    """A body that is never whole in memory, and can be sent again after a 401."""

    def __init__(self, pieces: Sequence[bytes], before_sending: Callable[[], None]) -> None:
        self._pieces = pieces
        self._before_sending = before_sending

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            # As near to the socket as can be: after the wait for a token and for a connection.
            self._before_sending()
            yield piece


async def _read(response: httpx.Response) -> _Answer:
    try:
        body = await transport.read_bounded(response, _ANSWER_MAX_BYTES)
        value = json.loads(body)
    except (transport.AnswerTooLarge, transport.AnswerUnreadable, ValueError, RecursionError):
        value = None
    answer: Mapping[str, Any] = value if isinstance(value, dict) else {}
    result = answer.get("result")
    return _Answer(
        status=response.status_code,
        result=result if isinstance(result, str) else None,
        message=shorten(str(answer.get("message", "")), _QUOTED_CHARACTERS),
        data=answer.get("data"),
        retry_after_seconds=transport.retry_after_seconds(response, clock.now()),
    )


def _judge(answer: _Answer) -> _Answer:
    """Return a successful answer. By `result` where there is one, since the status alone says too little."""
    if answer.status == httpx.codes.REQUEST_ENTITY_TOO_LARGE:
        raise ExastroRejected(
            Text("the request is larger than Exastro's gateway allows (413)"), reason=Reason.TOO_LARGE
        )
    if answer.result is None:
        raise _unavailable(
            answer, Text("Exastro was expected, but something else answered with status {status}", status=answer.status)
        )
    if answer.result == SUCCESS and answer.status < httpx.codes.BAD_REQUEST:
        return answer
    said = f"{answer.status} {answer.result} {answer.message}".rstrip()
    words = Text("Exastro answered {said}", said=said)
    if answer.result in _CONTENT_REFUSED or answer.result.startswith("400-"):
        raise ExastroRejected(words, reason=Reason.REFUSED)
    raise _unavailable(answer, words)


def _unavailable(answer: _Answer, words: Text) -> ExastroUnavailable:
    status = answer.status
    if status in (401, 403):
        reason, advice = Reason.UNAUTHORIZED, Text("check the credentials and the user's right to the agent's menus")
    elif answer.result is None:
        reason, advice = Reason.NOT_EXASTRO, Text("check EXASTRO_URL, the gateway in front of Exastro, and its state")
    elif answer.result.startswith("498-"):
        reason, advice = Reason.MAINTENANCE, Text("it is under maintenance")
    else:
        reason, advice = Reason.HTTP_STATUS, Text("it cannot serve now")
    return ExastroUnavailable(
        Text("{words}: {advice}", words=words, advice=advice),
        reason=reason,
        retry_after_seconds=answer.retry_after_seconds,
        is_unprocessed=status in _UNPROCESSED_STATUSES,
        status=status,
    )
