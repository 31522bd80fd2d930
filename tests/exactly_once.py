"""A store, a delivery and the demo's Exastro in one process, without a socket between them."""

import asyncio
import json
import sqlite3
import tempfile
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import httpx

from ita_ag_oase.delivery import Delivery
from ita_ag_oase.demo.exastro import ORGANIZATION, PASSWORD, USERNAME, WORKSPACE, DemoExastro, setting_row
from ita_ag_oase.demo.loopback import Reply, Request
from ita_ag_oase.exastro.client import ExastroClient
from ita_ag_oase.model import Collection, Event, Journal, Labels, Saved, TakeOver
from ita_ag_oase.observability.health import Health
from ita_ag_oase.store.outbox import ENVELOPE_BYTES
from ita_ag_oase.store.saving import SavingLimits
from ita_ag_oase.store.store import Store

SENT, DEALT_WITH, ANSWERED = "request sent", "request dealt with", "request answered"
BASE_URL = f"http://exastro.test/api/{ORGANIZATION}/workspaces/{WORKSPACE}"


def settings_of(names: Iterable[str]) -> list[dict[str, Any]]:
    """Return rows of settings with these names."""
    return [setting_row(name, "http://source.test/") for name in names]


def usable(event_id: str | int, **fields: Any) -> Event:
    """Return an event as extraction makes it where the source has ids."""
    raw = json.dumps({"id": event_id, **fields}).encode()
    return Event(str(event_id), False, raw, None)


def left_by_a_kill(store: Path) -> dict[str, bytes]:
    """Return the files of a store as they are now, by their names; what is in shared memory only is gone."""
    files = (store, *(store.with_name(store.name + suffix) for suffix in ("-wal", "-journal")))
    return {file.name: file.read_bytes() for file in files if file.exists()}


def put_back(files: Mapping[str, bytes], folder: Path) -> None:
    """Write the files of a store to a new folder."""
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def fast_folder() -> Path:
    """Return a new folder, in memory where the system has a place for that."""
    memory = Path("/dev/shm")
    return Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None))


class Answering(httpx.AsyncBaseTransport):
    """Hands requests to a DemoExastro; one that is cut becomes a broken connection.

    `at` is told each instant: a request is sent, dealt with, and its answer is read.
    """

    def __init__(self, exastro: DemoExastro, at: Callable[[str], None] = lambda _: None) -> None:
        self.exastro = exastro
        self._at = at

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        asked = Request(request.method, request.url.path, "", headers, await request.aread())
        self._at(SENT)
        reply = self.hand_over(asked)
        self._at(DEALT_WITH)
        if reply.is_cut:
            raise httpx.ReadError("cut", request=request)
        headers = {"content-type": reply.content_type}
        return httpx.Response(reply.status, headers=headers, stream=_Answer(reply.body, self._at))

    def hand_over(self, request: Request) -> Reply:
        """Return what Exastro answers."""
        return self.exastro._handle(request)


class _Answer(httpx.ByteStream):
    def __init__(self, body: bytes, at: Callable[[str], None]) -> None:
        super().__init__(body)
        self._at = at

    async def aclose(self) -> None:
        self._at(ANSWERED)


class Bench:
    """An agent's second half and its store, driven step by step; `now` is the wall clock it sees.

    `at`, where there is one, is told each instant at which a kill could make a difference: before each SQL statement,
    and round each request.
    """

    def __init__(
        self,
        folder: Path,
        names: Sequence[str] = ("n1", "n2"),
        *,
        batch_events: int = 100,
        batch_bytes: int = 65_536,
        now: float = 1_700_000_000,
        at: Callable[[str], None] | None = None,
        journal: Journal = Journal.WAL,
    ) -> None:
        self.now = now
        self.journal = journal
        self.exastro_ahead_seconds = 0.0
        self.agent_name = "agent-1"
        self.rows = {row["EVENT_COLLECTION_SETTINGS_NAME"]: row for row in settings_of(names)}
        self.exastro = DemoExastro(list(self.rows.values()), now=lambda: self.now + self.exastro_ahead_seconds)
        self.answering = Answering(self.exastro, at or (lambda _: None))
        self.delivery_type: Callable[..., Delivery] = Delivery
        self.before_register: Callable[[Store], Awaitable[TakeOver | None]] | None = None
        self.taken_over: TakeOver | None = None
        self._path = folder / "store" / "store.sqlite3"
        self._at = at
        self._batch_events = batch_events
        self._batch_bytes = batch_bytes

    async def open(self) -> None:
        """Start the agent: open the store, know the settings."""
        limits = SavingLimits(
            group_events=self._batch_events,
            group_bytes=self._batch_bytes - ENVELOPE_BYTES,
            id_retention_seconds=604_800,
        )
        self.store = Store(self._path, limits, storage_max_bytes=1 << 40, journal=self.journal, opener=self._connect)
        await self.store.open()
        if self.before_register:
            self.taken_over = await self.before_register(self.store)
        self.http = httpx.AsyncClient(transport=self.answering)
        client = ExastroClient(self.http, httpx.BasicAuth(USERNAME, PASSWORD), base_url=BASE_URL)
        self.health = Health(now=lambda: self.now)
        self.delivery = self.delivery_type(
            self.store,
            client,
            self.health,
            max_events=self._batch_events,
            max_bytes=self._batch_bytes,
            now=lambda: self.now,
        )
        for name, row in self.rows.items():
            await self.store.register(row["EVENT_COLLECTION_SETTINGS_ID"], name, int(self.now))

    def _connect(self, *arguments: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = sqlite3.connect(*arguments, **options)
        if self._at is not None:
            # Changes reach the files before they are committed, and move from one to the other often.
            connection.execute("PRAGMA cache_size = 1")
            connection.execute("PRAGMA wal_autocheckpoint = 20")
            connection.set_trace_callback(self._at)
        return connection

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

    async def query(self, sql: str) -> list[Any]:
        """Return rows as the store's own connection reads them."""
        return await self.store._database.run(lambda connection: connection.execute(sql).fetchall())

    async def parked(self) -> dict[str, list[Any]]:
        """Return the values of `id` in the events that are parked, by their settings' ids."""
        found: dict[str, list[Any]] = defaultdict(list)
        for setting_id, events in await self.query(
            "SELECT s.id, p.events FROM groups g JOIN settings s ON s.number = g.setting"
            " JOIN pieces p ON p.group_number = g.number WHERE g.parked_reason IS NOT NULL ORDER BY g.poll, p.id"
        ):
            found[setting_id] += [event["id"] for event in json.loads(b"[%b]" % events)]
        return found

    async def must_balance(self) -> None:
        """Raise AssertionError where the ledger does not balance, or a group differs from its pieces."""
        ledger = await self.query(
            "SELECT seen - new - known - repeated, new - delivered - already_saved - dropped - lost"
            " - (SELECT coalesce(sum(event_count), 0) FROM groups g WHERE g.setting = s.number) FROM settings s"
        )
        assert set(ledger) <= {(0, 0)}, ledger
        groups = await self.query(
            "SELECT g.event_count - sum(p.event_count), g.byte_count - sum(length(p.events) + 1)"
            " FROM groups g LEFT JOIN pieces p ON p.group_number = g.number GROUP BY g.number"
        )
        assert set(groups) <= {(0, 0)}, groups
        (orphans,) = await self.query(
            "SELECT count(*) FROM pieces WHERE group_number NOT IN (SELECT number FROM groups)"
        )
        assert orphans == (0,)
