"""How much is written, asked and held, and by what it grows: nothing here is timed."""

import asyncio
import gc
import mmap
import sqlite3
import threading
import tracemalloc
import weakref
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from exactly_once import Bench
from examples import SETTING
from ita_ag_oase.collection import collection_of
from ita_ag_oase.delivery import Delivery
from ita_ag_oase.errors import StoreUnavailable
from ita_ag_oase.events.extract import LISTED_BYTES, Extractor
from ita_ag_oase.exastro.client import ExastroClient
from ita_ag_oase.model import Payload, Saved
from ita_ag_oase.observability.health import Health
from ita_ag_oase.store.outbox import ENVELOPE_BYTES
from ita_ag_oase.store.saving import SavingLimits
from ita_ag_oase.store.store import Store

START = 1_700_000_000
RETENTION_SECONDS = 604_800
# Of a list of ids, so many are looked up by one statement.
LOOKUP_SIZE = 500
BATCH_EVENTS, BATCH_BYTES = 10_000, 4_000_000


class Desk:
    """A store that a source is polled into; `statements` are those of the store's connection, where it is traced."""

    def __init__(self, folder: Path, *, is_traced: bool) -> None:
        self.statements: list[str] = []
        self._is_traced = is_traced
        limits = SavingLimits(BATCH_EVENTS, BATCH_BYTES - ENVELOPE_BYTES, RETENTION_SECONDS)
        self.store = Store(folder / "store.sqlite3", limits, storage_max_bytes=1 << 40, opener=self._connect)
        self._connection: sqlite3.Connection
        self._extractor = Extractor.of(SETTING)
        self._now = START

    def _connect(self, *arguments: Any, **options: Any) -> sqlite3.Connection:
        # It is read in the store's thread alone, but closed by whoever is last.
        self._connection = sqlite3.connect(*arguments, **{**options, "check_same_thread": False})
        if self._is_traced:
            self._connection.set_trace_callback(self.statements.append)
        return self._connection

    async def poll(self, body: bytes | bytearray, *, after: int = 10) -> Saved:
        self._now += after
        found = collection_of(SETTING, self._extractor, Payload(body), self._now, agent_name="agent")
        return await self.store.save(found)

    async def cost(self, body: bytes, *, after: int = 10) -> tuple[Saved, int, int]:
        """Poll, and return what was saved, how many statements that took and how many rows were written."""
        self.statements.clear()
        before = self._connection.total_changes
        saved = await self.poll(body, after=after)
        return saved, len(self.statements), self._connection.total_changes - before


@asynccontextmanager
async def _open(folder: Path, *, is_traced: bool = False) -> AsyncIterator[Desk]:
    desk = Desk(folder, is_traced=is_traced)
    await desk.store.open()
    await desk.store.register(SETTING.id, SETTING.name, START)
    try:
        yield desk
    finally:
        desk.store.close()


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with _open(tmp_path, is_traced=True) as desk:
        yield desk


def _events(numbers: range, size: int = 40) -> bytes:
    return b"[%b]" % b",".join(b'{"id":"%07d","x":"%b"}' % (number, b"x" * (size - 22)) for number in numbers)


class TestKnownEvents:
    """What a poll costs that brings nothing new."""

    @pytest.mark.parametrize("count", [0, 1, 10, 501, 5_000])
    async def test_the_same_list_again_takes_a_few_statements_and_writes_the_ledger_alone(
        self, desk: Desk, count: int
    ) -> None:
        body = _events(range(count))
        await desk.poll(body)
        for _ in range(2):
            saved, statements, rows = await desk.cost(body)
            assert (saved, rows) == (Saved(0, count, 0), 1)
            assert statements <= 20

    @pytest.mark.parametrize("count", [10, 501, 5_000])
    async def test_another_order_takes_a_statement_for_each_500_and_writes_the_ledger_alone(
        self, desk: Desk, count: int
    ) -> None:
        await desk.poll(_events(range(count)))
        saved, statements, rows = await desk.cost(_events(range(count)[::-1]))
        assert (saved, rows) == (Saved(0, count, 0), 1)
        assert statements <= 20 + -(-count // LOOKUP_SIZE)

    async def test_a_list_that_is_not_read_at_once_takes_a_few_statements_for_each_500(self, desk: Desk) -> None:
        count = 3_000
        body = _events(range(count), size=LISTED_BYTES // count + 100)
        await desk.poll(body)
        saved, statements, rows = await desk.cost(body)
        assert (saved, rows) == (Saved(0, count, 0), 1)
        assert statements <= 20 + 2 * count // LOOKUP_SIZE

    async def test_one_new_event_among_many_writes_what_one_alone_does(self, desk: Desk) -> None:
        await desk.poll(_events(range(5_000)))
        saved, _, among_many = await desk.cost(_events(range(1, 5_001)))
        alone, _, rows = await desk.cost(_events(range(9_000, 9_001)))
        assert (saved, alone) == (Saved(1, 4_999, 0), Saved(1, 0, 0))
        assert among_many == rows

    async def test_ids_are_written_again_in_time_and_only_then(self, desk: Desk) -> None:
        body = _events(range(1_200))
        await desk.poll(body)
        part = RETENTION_SECONDS // 8
        written = [(await desk.cost(body, after=after))[2] for after in (part, 1, 1, part - 1, 1)]
        assert written == [1, 1201, 1, 1, 1201]

    async def test_of_a_list_that_grew_the_older_ids_are_written_again_first(self, desk: Desk) -> None:
        part = RETENTION_SECONDS // 8
        await desk.poll(_events(range(600)))
        body = _events(range(1_200))
        await desk.poll(body, after=1_000)
        written = [(await desk.cost(body, after=after))[2] for after in (part - 1_000, 1, 1, 998, 1)]
        assert written == [1, 601, 1, 1, 601]


class TestRememberedLists:
    """That the same list is known is believed only while it is true."""

    async def test_what_another_connection_takes_out_is_new_again(self, desk: Desk, tmp_path: Path) -> None:
        body = _events(range(3))
        await desk.poll(body)
        assert await desk.poll(body) == Saved(0, 3, 0)
        other = sqlite3.connect(tmp_path / "store.sqlite3")
        other.execute("DELETE FROM ids")
        other.commit()
        other.close()
        assert await desk.poll(body) == Saved(3, 0, 0)

    async def test_what_the_store_itself_forgets_is_new_again(self, desk: Desk) -> None:
        body = _events(range(3))
        await desk.poll(body)
        assert await desk.poll(body) == Saved(0, 3, 0)
        # Ids that were seen long before the clock was moved.
        await desk.store.shift(-2 * RETENTION_SECONDS, {})
        await desk.poll(b"[]")
        assert await desk.store.purge(desk._now) == 3
        assert await desk.poll(body) == Saved(3, 0, 0)

    async def test_a_list_that_was_not_saved_is_not_known(self, desk: Desk) -> None:
        body = _events(range(3))

        found = collection_of(SETTING, desk._extractor, Payload(body), START + 5, agent_name="agent")
        # What a group must have, so that the whole poll is rolled back.
        with pytest.raises(StoreUnavailable):
            await desk.store.save(replace(found, agent_name=None))  # type: ignore[arg-type]
        assert await desk.poll(body) == Saved(3, 0, 0)


@contextmanager
def _traced() -> Iterator[list[int]]:
    """Yield a list that is given the peak of what Python allocates meanwhile, in bytes."""
    peaks: list[int] = []
    gc.collect()
    tracemalloc.start()
    try:
        yield peaks
        peaks.append(tracemalloc.get_traced_memory()[1])
    finally:
        tracemalloc.stop()


class TestMemory:
    """By how much the peak grows with each event, apart from the answer itself."""

    async def _peak(self, folder: Path, count: int, size: int) -> int:
        async with _open(folder) as desk:
            body = bytearray(_events(range(count), size=size))
            with _traced() as peaks:
                assert (await desk.poll(body)).new == count
        return peaks[0]

    async def test_of_a_large_answer_an_event_takes_a_slice(self, tmp_path: Path) -> None:
        few, many = 10_000, 20_000
        peaks = [await self._peak(tmp_path / str(count), count, size=500) for count in (few, many)]
        assert few * 500 > LISTED_BYTES
        assert (peaks[1] - peaks[0]) / (many - few) <= 100

    async def test_of_a_small_one_an_event_takes_its_id_and_a_slice(self, tmp_path: Path) -> None:
        few, many = 10_000, 20_000
        peaks = [await self._peak(tmp_path / str(count), count, size=100) for count in (few, many)]
        assert many * 101 < LISTED_BYTES
        assert (peaks[1] - peaks[0]) / (many - few) <= 300

    async def test_an_answer_is_let_go_of_once_it_is_saved(self, desk: Desk) -> None:
        class Body(bytearray):
            pass

        body, is_gone = Body(_events(range(100))), threading.Event()
        weakref.finalize(body, is_gone.set)
        gc.disable()
        try:
            await desk.poll(body)
            del body
            assert await asyncio.to_thread(is_gone.wait, 30)
        finally:
            gc.enable()


class Drain(httpx.AsyncBaseTransport):
    """An Exastro that takes everything; it notes requests, and how many of those from before are still in memory."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.events: list[int] = []
        self.held: list[int] = []
        self._rooms: list[weakref.ref[Any]] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        assert isinstance(request.stream, httpx.AsyncByteStream)
        self.held.append(sum(room() is not None for room in self._rooms))
        size = events = 0
        async for piece in request.stream:
            size += len(piece)
            events += bytes(piece).count(b'"_exastro_oase_event_id"')
            room = memoryview(piece).obj
            if isinstance(room, mmap.mmap):
                self._rooms.append(weakref.ref(room))
            del piece, room
        self.sizes.append(size)
        self.events.append(events)
        return httpx.Response(200, stream=httpx.ByteStream(b'{"result":"000-00000","message":"SUCCESS","data":[]}'))


class TestBacklog:
    """What delivering costs, however much waits."""

    async def _drain(self, folder: Path, count: int) -> tuple[Drain, int]:
        async with _open(folder) as desk:
            for start in range(0, count, 5_000):
                await desk.poll(_events(range(start, start + 5_000), size=500))
            drain = Drain()
            async with httpx.AsyncClient(transport=drain) as http:
                client = ExastroClient(http, httpx.BasicAuth("u", "p"), base_url="http://exastro")
                delivery = Delivery(
                    desk.store,
                    client,
                    Health(now=lambda: START),
                    max_events=BATCH_EVENTS,
                    max_bytes=BATCH_BYTES,
                    now=lambda: START,
                )
                gc.disable()
                try:
                    with _traced() as peaks:
                        while await delivery.deliver_next() is not None:
                            pass
                finally:
                    gc.enable()
        return drain, peaks[0]

    async def test_a_large_one_takes_the_memory_of_a_small_one(self, tmp_path: Path) -> None:
        (small, small_peak), (large, large_peak) = [
            await self._drain(tmp_path / str(count), count) for count in (10_000, 50_000)
        ]
        assert (sum(small.events), sum(large.events)) == (10_000, 50_000)
        # As the collector of garbage is off, something of each of eight more requests may be left.
        assert large_peak - small_peak <= 8 * 12_000
        # Nothing of a request is left when the next one is sent, not even for the collector of garbage.
        assert set(large.held) == {0}

    async def test_each_request_is_bounded(self, tmp_path: Path) -> None:
        drain, _ = await self._drain(tmp_path / "backlog", 15_000)
        assert max(drain.sizes) <= BATCH_BYTES
        assert max(drain.events) <= BATCH_EVENTS
        assert len(drain.sizes) <= 2 * sum(drain.sizes) // BATCH_BYTES + 2

    async def test_requests_hold_as_many_events_as_they_may(self, tmp_path: Path) -> None:
        async with Bench(tmp_path, batch_events=50) as bench:
            await bench.introduce()
            desk_events = Extractor.of(SETTING).extract(Payload(_events(range(220))), now_microseconds=1)
            await bench.poll("n1", desk_events.events)
            await bench.deliver_all()
            assert bench.arrived("n1") == [f"{number:07}" for number in range(220)]
            assert len(bench.exastro.posts) == 5
