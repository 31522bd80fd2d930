"""Terms: who may write into a store, and that nobody else does."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from exactly_once import Bench, usable
from ita_ag_oase.errors import Reason, StoreUnavailable, TermEnded
from ita_ag_oase.model import Claim, GroupChoice, Term
from ita_ag_oase.store import repair, schema, terms
from ita_ag_oase.store.access import StoreAccess, read_term
from ita_ag_oase.store.database import Database
from ita_ag_oase.store.saving import SavingLimits
from ita_ag_oase.store.store import Store

LEASE = "ns/agent"
NOW = 1_700_000_000
LIMITS = SavingLimits(group_events=10, group_bytes=60_000, id_retention_seconds=604_800)
FIFTH = Term(5, "pod-1", LEASE, NOW)


def keep(name: str) -> Any:
    return lambda connection: connection.execute("INSERT INTO facts VALUES (?, x'')", (name,)).rowcount


def kept(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        return [name for (name,) in connection.execute("SELECT name FROM facts WHERE length(name) = 1")]


async def opened(path: Path, told: list[TermEnded] | None = None) -> Database:
    database = Database(path, on_term_ended=(told if told is not None else []).append)
    await database.open()
    return database


def put_another_in_place_of(path: Path) -> None:
    path.rename(path.with_name("aside"))
    path.write_bytes(b"another")


async def close(*databases: Database | Store) -> None:
    for database in databases:
        await asyncio.to_thread(database.close)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.sqlite3"


class TestFence:
    async def test_nothing_that_waits_is_written_once_a_later_term_has_begun(self, path: Path) -> None:
        told: list[TermEnded] = []
        former, later = await opened(path, told), await opened(path)
        await former.begin_term(Claim("pod-1", LEASE, 1), NOW)
        assert await former.run(keep("a")) == 1
        await later.begin_term(Claim("pod-2", LEASE, 2), NOW)
        refused = await asyncio.gather(*(former.run(keep(name)) for name in "bcd"), return_exceptions=True)
        assert await later.run(keep("e")) == 1
        assert (kept(path), [type(err) for err in refused]) == (["a", "e"], [TermEnded] * 3)
        (err,) = told
        assert str(err) == (
            "term 1 of this agent has ended: pod-2 has begun term 2, and nothing is written or posted by this one any"
            " more"
        )
        await close(former, later)

    async def test_a_term_that_has_ended_does_not_come_back(self, path: Path) -> None:
        told: list[TermEnded] = []
        database = await opened(path, told)
        await database.begin_term(Claim("pod-1", LEASE, 1), NOW)
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("UPDATE terms SET number = 2")
            connection.commit()
            with pytest.raises(TermEnded):
                await database.run(keep("a"))
            connection.execute("UPDATE terms SET number = 1")
            connection.commit()
        for refused in (database.run(keep("b")), database.empty_log(), database.begin_term(Claim("x", LEASE, 9), NOW)):
            with pytest.raises(TermEnded, match="term 1 of this agent has ended"):
                await refused
        assert (kept(path), len(told)) == ([], 1)
        await close(database)

    async def test_the_term_is_looked_at_in_the_transaction_that_writes(self, path: Path) -> None:
        database = await opened(path)
        await database.begin_term(Claim("pod-1", LEASE, 1), NOW)
        statements: list[str] = []
        await database.run(lambda connection: connection.set_trace_callback(statements.append))
        statements.clear()
        await database.run(keep("a"))
        assert statements == [
            "BEGIN IMMEDIATE",
            "SELECT max(number) FROM terms",
            "SAVEPOINT job",
            "INSERT INTO facts VALUES ('a', x'')",
            "RELEASE job",
            "COMMIT",
        ]
        await close(database)

    async def test_an_agent_by_the_lock_alone_is_kept_out_as_well(self, path: Path) -> None:
        former, later = await opened(path), await opened(path)
        begun = [await database.begin_term(Claim("agent"), NOW) for database in (former, later)]
        with pytest.raises(TermEnded):
            await former.run(keep("a"))
        assert [term.number for term in begun] == [1, 2]
        await close(former, later)

    @pytest.mark.parametrize(
        "claim", [Claim("pod-1", LEASE, 5), Claim("agent")], ids=["by a Lease", "by the lock alone"]
    )
    async def test_what_has_come_in_the_place_of_the_file_is_another_agents(self, path: Path, claim: Claim) -> None:
        database = await opened(path)
        await database.begin_term(claim, NOW)
        put_another_in_place_of(path)
        if claim.guard:
            with pytest.raises(TermEnded, match=r"store\.sqlite3 is for another one to write"):
                await database.run(keep("a"))
        else:
            assert await database.run(keep("a")) == 1
        await close(database)

    async def test_the_store_tells_the_end_once_and_refuses_what_comes_after(self, path: Path) -> None:
        told: list[None] = []
        ended = asyncio.Event()

        def tell() -> None:
            told.append(None)
            ended.set()

        store = Store(path, LIMITS, storage_max_bytes=1 << 30, on_term_ended=tell)
        other = Store(path, LIMITS, storage_max_bytes=1 << 30)
        await store.open()
        await other.open()
        await store.begin_term(Claim("pod-1", LEASE, 5), NOW)
        assert await other.term() == FIFTH
        await other.begin_term(Claim("pod-2", LEASE, 6), NOW)
        for _ in range(2):
            with pytest.raises(TermEnded):
                await store.register("id", "n1", NOW)
        await ended.wait()
        assert (len(told), store.term_ended is not None, other.term_ended) == (1, True, None)
        await close(store, other)

    async def test_a_person_may_still_retry_what_is_parked(self, tmp_path: Path) -> None:
        async with Bench(tmp_path) as bench:
            await bench.store.begin_term(Claim("pod-1", LEASE, 5), NOW)
            bench.exastro.refuses = lambda _: True
            await bench.poll("n1", [usable(1)])
            await bench.deliver_all()
            bench.exastro.refuses = lambda _: False
            with StoreAccess(bench._path) as access:
                assert access.retry(GroupChoice(), NOW).events == 1
            await bench.deliver_all()
            assert bench.arrived("n1") == ["1"]


CLAIMS = [
    pytest.param(Claim("pod-2", LEASE, 6), Term(6, "pod-2", LEASE, NOW), id="the next of the Lease"),
    pytest.param(Claim("pod-2", LEASE, 50), Term(50, "pod-2", LEASE, NOW), id="a later one of the Lease"),
    pytest.param(Claim("pod-1", LEASE, 5), Term(5, "pod-1", LEASE, NOW), id="its own once more"),
    pytest.param(Claim("pod-2", LEASE, 5), None, id="the same number of another holder"),
    pytest.param(Claim("pod-1", "ns/other", 5), None, id="the same number of another Lease"),
    pytest.param(Claim("pod-2", LEASE, 4), None, id="an earlier one"),
    pytest.param(Claim("pod-2", "ns/other", 1), None, id="an earlier one of another Lease"),
    pytest.param(Claim("agent"), Term(6, "agent", "", NOW), id="by the lock alone"),
]


class TestNumbers:
    @pytest.mark.parametrize(("claim", "term"), CLAIMS)
    async def test_the_number_only_grows(self, path: Path, claim: Claim, term: Term | None) -> None:
        first = await opened(path)
        await first.begin_term(Claim("pod-1", LEASE, 5), NOW)
        second = await opened(path)
        if term is None:
            with pytest.raises(TermEnded) as caught:
                await second.begin_term(claim, NOW)
            assert caught.value.reason is Reason.TERM_ENDED
            with pytest.raises(TermEnded):
                await second.run(keep("a"))
        else:
            assert await second.begin_term(claim, NOW) == term
        assert read_term(path) == (term or FIFTH)
        await close(first, second)

    async def test_the_first_term_by_the_lock_alone_has_number_1(self, path: Path) -> None:
        database = await opened(path)
        assert await database.begin_term(Claim("agent"), NOW) == Term(1, "agent", "", NOW)
        await close(database)

    async def test_a_term_that_cannot_be_written_has_not_begun(self, path: Path) -> None:
        database = await opened(path)
        await database.run(lambda connection: connection.execute("DROP TABLE terms"))
        with pytest.raises(StoreUnavailable):
            await database.begin_term(Claim("pod-1", LEASE, 5), NOW)
        assert await database.run(keep("a")) == 1
        await close(database)


class TestReading:
    def test_a_store_that_is_not_there_has_none_and_is_not_made(self, path: Path) -> None:
        assert (read_term(path), path.exists()) == (None, False)

    def test_a_store_that_cannot_be_looked_for_is_unavailable(self, tmp_path: Path) -> None:
        # As where a volume has gone stale, or a folder on the way is another user's.
        with pytest.raises(StoreUnavailable, match="File name too long"):
            read_term(tmp_path / ("x" * 300) / "store.sqlite3")

    def test_a_store_without_a_term_has_none(self, path: Path) -> None:
        schema.connect(path).close()
        assert read_term(path) is None

    def test_a_store_of_an_earlier_version_has_none(self, path: Path) -> None:
        with closing(schema.connect(path)) as connection:
            connection.executescript("DROP TABLE terms; PRAGMA user_version = 4")
        assert read_term(path) is None

    async def test_it_is_read_beside_the_agent_that_writes(self, path: Path) -> None:
        database = await opened(path)
        await database.begin_term(Claim("pod-1", LEASE, 5), NOW)
        assert read_term(path) == FIFTH
        await close(database)


class TestMending:
    @pytest.mark.parametrize(
        "damage",
        [
            "UPDATE terms SET begun = 'x'",
            "UPDATE terms SET number = 3; UPDATE settings SET seen = x'00'",
            "DELETE FROM facts WHERE name = 'term'; UPDATE settings SET seen = x'00'",
            "UPDATE facts SET value = CAST('[5,1,2' AS BLOB) WHERE name = 'term'; UPDATE settings SET seen = x'00'",
        ],
        ids=["damaged row", "lower row", "no copy", "damaged copy"],
    )
    async def test_the_number_does_not_fall(self, tmp_path: Path, damage: str) -> None:
        async with Bench(tmp_path) as bench:
            await bench.store.begin_term(Claim("pod-1", LEASE, 5), NOW)
        with closing(sqlite3.connect(bench._path)) as connection:
            connection.executescript(damage)
        assert repair.mend(bench._path, agent_name="agent-1", now=NOW) is not None
        assert read_term(bench._path) == FIFTH
        with closing(sqlite3.connect(bench._path)) as connection:
            assert terms.copy_in(connection) == FIFTH

    @pytest.mark.parametrize("answers", [[False], [True, False]], ids=["before it begins", "before the files change"])
    def test_who_has_been_passed_over_leaves_a_damaged_file_alone(self, path: Path, answers: list[bool]) -> None:
        path.write_bytes(b"damaged")
        with pytest.raises(TermEnded):
            repair.mend(path, agent_name="agent-1", now=NOW, is_at_work=lambda: answers.pop(0))
        assert path.read_bytes() == b"damaged"
        assert [file.name for file in path.parent.iterdir() if "damaged" in file.name] == []

    def test_a_file_that_another_agent_has_mended_meanwhile_is_left_alone(self, path: Path) -> None:
        path.write_bytes(b"damaged")
        asked: list[None] = []

        def mend_at_second_question() -> bool:
            asked.append(None)
            if len(asked) == 2:
                put_another_in_place_of(path)
            return True

        with pytest.raises(TermEnded):
            repair.mend(path, agent_name="agent-1", now=NOW, is_at_work=mend_at_second_question)
        assert path.read_bytes() == b"another"
