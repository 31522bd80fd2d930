"""A store, a delivery and the demo's Exastro in one process, without a socket between them."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Self

import httpx

from ita_ag_oase.delivery import Delivery
from ita_ag_oase.demo.exastro import ORGANIZATION, PASSWORD, USERNAME, WORKSPACE, DemoExastro, setting_row
from ita_ag_oase.demo.loopback import Request
from ita_ag_oase.exastro.client import ExastroClient
from ita_ag_oase.model import Collection, Event, Labels, Saved, TakeOver
from ita_ag_oase.store.outbox import ENVELOPE_BYTES
from ita_ag_oase.store.saving import SavingLimits
from ita_ag_oase.store.store import Store

BASE_URL = f"http://exastro.test/api/{ORGANIZATION}/workspaces/{WORKSPACE}"


def settings_of(names: Iterable[str]) -> list[dict[str, Any]]:
    """Return rows of settings with these names."""
    return [setting_row(name, "http://source.test/") for name in names]


def usable(event_id: str | int, **fields: Any) -> Event:
    """Return an event as extraction makes it where the source has ids."""
    raw = json.dumps({"id": event_id, **fields}).encode()
    return Event(str(event_id), False, raw, None)


class Answering(httpx.AsyncBaseTransport):
    """Hands requests to a DemoExastro; one that is cut becomes a broken connection."""

    def __init__(self, exastro: DemoExastro) -> None:
        self._exastro = exastro

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        asked = Request(request.method, request.url.path, "", headers, await request.aread())
        reply = self._exastro._handle(asked)
        if reply.is_cut:
            raise httpx.ReadError("cut", request=request)
        headers = {"content-type": reply.content_type}
        return httpx.Response(reply.status, headers=headers, stream=httpx.ByteStream(reply.body))


class Bench:
    """An agent's second half and its store, driven step by step; `now` is the wall clock it sees."""

    def __init__(
        self,
        folder: Path,
        names: Sequence[str] = ("n1", "n2"),
        *,
        batch_events: int = 100,
        batch_bytes: int = 65_536,
        now: float = 1_700_000_000,
    ) -> None:
        self.now = now
        self.agent_name = "agent-1"
        self.rows = {row["EVENT_COLLECTION_SETTINGS_NAME"]: row for row in settings_of(names)}
        self.exastro = DemoExastro(list(self.rows.values()), now=lambda: self.now)
        self.before_register: Callable[[Store], Awaitable[TakeOver | None]] | None = None
        self.taken_over: TakeOver | None = None
        self._path = folder / "store" / "store.sqlite3"
        self._batch_events = batch_events
        self._batch_bytes = batch_bytes

    async def open(self) -> None:
        """Start the agent: open the store, know the settings."""
        limits = SavingLimits(
            group_events=self._batch_events,
            group_bytes=self._batch_bytes - ENVELOPE_BYTES,
            id_retention_seconds=604_800,
        )
        self.store = Store(self._path, limits, storage_max_bytes=1 << 40)
        await self.store.open()
        if self.before_register:
            self.taken_over = await self.before_register(self.store)
        self.http = httpx.AsyncClient(transport=Answering(self.exastro))
        client = ExastroClient(self.http, httpx.BasicAuth(USERNAME, PASSWORD), base_url=BASE_URL)
        self.delivery = Delivery(
            self.store, client, max_events=self._batch_events, max_bytes=self._batch_bytes, now=lambda: self.now
        )
        for name, row in self.rows.items():
            await self.store.register(row["EVENT_COLLECTION_SETTINGS_ID"], name, int(self.now))

    async def close(self) -> None:
        """End the agent; what is in the store stays."""
        await self.http.aclose()
        await asyncio.to_thread(self.store.close)

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def restart(self, agent_name: str | None = None) -> None:
        """End the agent and start it again, perhaps under another name."""
        await self.close()
        self.agent_name = agent_name or self.agent_name
        await self.open()

    async def poll(
        self, name: str, events: Iterable[Event], *, moves_cursor: bool = True, position: str | None = None
    ) -> Saved:
        """Save events as a poll of a setting at `now` would."""
        setting_id = self.rows[name]["EVENT_COLLECTION_SETTINGS_ID"]
        labels = Labels(setting_id, name, int(self.now), int(self.now) + 60)
        return await self.store.save(Collection(setting_id, self.agent_name, labels, events, moves_cursor, position))

    async def introduce(self) -> None:
        """Let Exastro's progress for every setting be known, and forget what that took."""
        for name in self.rows:
            await self.poll(name, [usable("first")])
        await self.deliver_all()
        self.now += 5
        self.exastro.saved.clear()
        self.exastro.counts.clear()
        self.exastro.posts.clear()

    async def deliver_all(self, rounds: int = 500) -> None:
        """Deliver until nothing waits; an error of the round ends it."""
        for _ in range(rounds):
            if await self.delivery.deliver_next() is None:
                return
        raise AssertionError(f"still something to deliver after {rounds} rounds")

    def arrived(self, name: str) -> list[str]:
        """Return the ids of a setting's saved events, in the order in which Exastro saved them."""
        return [
            str(event.event["_exastro_oase_event_id"]) for event in self.exastro.saved if event.setting_name == name
        ]
