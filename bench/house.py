"""An Exastro and any number of sources on loopback that do as little as they can, in one thread beside the bench.

The Exastro keeps no books: it counts the events of a request by a member that each has. Whether all arrive, and each
once, is shown by the tests.
"""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

from ita_ag_oase.demo.exastro import ORGANIZATION, REFRESH_TOKEN, WORKSPACE, setting_row
from ita_ag_oase.exastro.secrets import SecretColumns

EVENT_BYTES = 500
# A member that each event of a source has, and that no label is named.
_MARK = b'"eventid"'
_API = f"/api/{ORGANIZATION}/workspaces/{WORKSPACE}/oase_agent"
POST_PATH = f"{_API}/events"
_SETTINGS_PATH = f"{_API}/event_collection/settings"
_TOKEN_PATH = f"/auth/realms/{ORGANIZATION}/protocol/openid-connect/token"
_SECRET_COLUMNS = ("AUTH_TOKEN", "PASSWORD", "SECRET_ACCESS_KEY")
_READ_BYTES = 1_048_576


@dataclass(frozen=True)
class Poll:
    """A request to a source: when, and how much CPU time the program had used by then."""

    source: str
    at: float
    cpu_seconds: float


@dataclass(frozen=True)
class Post:
    """A request with events that was accepted: when it had arrived and when it was answered."""

    arrived: float
    answered: float
    size: int
    events: int


class House:
    """Serves while it is entered. `answer` makes the body for a source's name and the number of its poll, from 0 on.

    `cpu_seconds` is asked at each poll. While `is_down`, Exastro answers posts with 503.
    """

    def __init__(
        self, names: Sequence[str], answer: Callable[[str, int], bytes], *, answer_after_seconds: float = 0.0
    ) -> None:
        self.polls: list[Poll] = []
        self.posts: list[Post] = []
        self.is_down = False
        self.cpu_seconds: Callable[[], float] = lambda: 0.0
        self._names = names
        self._answer = answer
        self._answer_after_seconds = answer_after_seconds
        self._counts = dict.fromkeys(names, 0)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="house")

    def __enter__(self) -> Self:
        self._thread.start()
        starting = asyncio.start_server(self._serve, "127.0.0.1", limit=_READ_BYTES)
        self._server = asyncio.run_coroutine_threadsafe(starting, self._loop).result()
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        self._rows = self._settings()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def events(self) -> int:
        """How many events were accepted."""
        return sum(post.events for post in self.posts)

    def environment(self) -> dict[str, str]:
        """Return what lets an agent work here."""
        return {
            "EXASTRO_URL": self.url,
            "EXASTRO_ORGANIZATION_ID": ORGANIZATION,
            "EXASTRO_WORKSPACE_ID": WORKSPACE,
            "EXASTRO_REFRESH_TOKEN": REFRESH_TOKEN,
            "EVENT_COLLECTION_SETTINGS_NAMES": ",".join(self._names),
        }

    async def _end(self) -> None:
        self._server.close()
        serving = asyncio.all_tasks() - {asyncio.current_task()}
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)

    def _settings(self) -> bytes:
        secrets = SecretColumns(ORGANIZATION, WORKSPACE)
        nothing = {column: secrets.encrypt("") for column in _SECRET_COLUMNS}
        rows = [
            {**setting_row(name, f"{self.url}/{name}", RESPONSE_LIST_FLAG="1", EVENT_ID_KEY="eventid"), **nothing}
            for name in self._names
        ]
        return _success(rows)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                body = await reader.readexactly(_content_length(head))
                status, answer = await self._handle(head.split(b" ", 2)[1].decode(), body)
                writer.write(_HEAD % (status, len(answer)) + answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            # The program has ended, or closes what it does not need.
            pass
        finally:
            writer.close()

    async def _handle(self, path: str, body: bytes) -> tuple[bytes, bytes]:
        if path == POST_PATH:
            return self._take(body)
        if path == _SETTINGS_PATH:
            return b"200 OK", self._rows
        if path == _TOKEN_PATH:
            return b"200 OK", _TOKEN
        return b"200 OK", await self._poll(path.removeprefix("/"))

    def _take(self, body: bytes) -> tuple[bytes, bytes]:
        if self.is_down:
            return b"503 Service Unavailable", b"{}"
        arrived = time.monotonic()
        count = body.count(_MARK)
        self.posts.append(Post(arrived, time.monotonic(), len(body), count))
        return b"200 OK", _success([])

    async def _poll(self, name: str) -> bytes:
        self.polls.append(Poll(name, time.monotonic(), self.cpu_seconds()))
        number = self._counts[name]
        self._counts[name] += 1
        if self._answer_after_seconds:
            await asyncio.sleep(self._answer_after_seconds)
        return self._answer(name, number)


def events(start: int, count: int) -> bytes:
    """Return a source's answer: a list of events of about 500 bytes, with ids from `start` on."""
    return b"[%b]" % b", ".join(_event(number) for number in range(start, start + count))


def _event(number: int) -> bytes:
    head = (
        f'{{"eventid": "{number}", "name": "CPU load is high on host-{number % 997:04}", "severity": "3", '
        f'"clock": "1700000000", "acknowledged": "0", "tags": [{{"tag": "service", "value": "shop-{number % 13}"}}, '
        '{"tag": "scope", "value": "performance"}], "opdata": "'
    )
    return head.ljust(EVENT_BYTES - 2, "x").encode() + b'"}'


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


def _success(data: object) -> bytes:
    return json.dumps({"result": "000-00000", "message": "SUCCESS", "data": data}).encode()


_HEAD = b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
_TOKEN = json.dumps({"access_token": "bench", "expires_in": 3_600, "token_type": "Bearer"}).encode()
