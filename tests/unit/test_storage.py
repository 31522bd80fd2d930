"""The right to the store, also where a former leader is frozen with the lock in its hands."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from ita_ag_oase.agent.storage import hold_lock, is_over, journal_of
from ita_ag_oase.environment import load
from ita_ag_oase.model import Claim, Journal, Term
from ita_ag_oase.store.database import Database, StoreLock

NOW = 1_700_000_000
LEASE = "ns/agent"

RULES = [
    pytest.param(Term(5, "pod-1", LEASE, NOW), Claim("pod-2", LEASE, 6), True, id="the Lease has gone on"),
    pytest.param(Term(5, "pod-1", LEASE, NOW), Claim("pod-2", LEASE, 5), False, id="the same number"),
    pytest.param(Term(5, "pod-1", LEASE, NOW), Claim("pod-2", LEASE, 4), False, id="an earlier number"),
    pytest.param(Term(5, "pod-1", "ns/other", NOW), Claim("pod-2", LEASE, 6), False, id="another Lease"),
    pytest.param(Term(5, "agent", "", NOW), Claim("pod-2", LEASE, 6), False, id="an agent by the lock alone"),
    pytest.param(Term(5, "agent", "", NOW), Claim("agent"), False, id="both by the lock alone"),
    pytest.param(Term(5, "pod-1", LEASE, NOW), Claim("agent"), False, id="by the lock alone after a Lease"),
]


@pytest.mark.parametrize(("term", "claim", "is_ended"), RULES)
def test_only_a_claim_by_the_same_lease_tells_that_a_term_is_over(term: Term, claim: Claim, is_ended: bool) -> None:
    assert is_over(term, claim) == is_ended


@pytest.mark.parametrize(
    ("named", "journal"),
    [("auto", Journal.WAL), ("wal", Journal.WAL), ("truncate", Journal.TRUNCATE), (" Truncate", Journal.TRUNCATE)],
)
def test_the_journal_is_the_one_that_is_named_or_else_fits_the_volume(
    tmp_path: Path, named: str, journal: Journal
) -> None:
    settings = load(
        exastro_url="http://exastro",
        exastro_organization_id="org1",
        exastro_workspace_id="ws1",
        event_collection_settings_names="n1",
        exastro_refresh_token="token",
        storagepath=tmp_path,
        store_journal=named,
    )
    assert journal_of(settings) == journal


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.sqlite3"


@asynccontextmanager
async def in_use(path: Path, *terms: Claim) -> AsyncIterator[StoreLock]:
    """Yield the lock of another agent on a store in which these terms have begun."""
    lock = StoreLock(path)
    assert lock.try_acquire()
    for claim in terms:
        database = Database(path)
        await database.open()
        await database.begin_term(claim, NOW)
        await asyncio.to_thread(database.close)
    yield lock
    lock.release()


async def test_a_former_leader_that_keeps_the_lock_is_not_waited_for(path: Path) -> None:
    waits: list[None] = []
    async with in_use(path, Claim("pod-1", LEASE, 5)):
        with capture_logs() as logs:
            claim = Claim("pod-2", LEASE, 6)
            async with hold_lock(path, asyncio.Event(), on_wait=lambda: waits.append(None), claim=claim) as is_ours:
                assert (is_ours, waits) == (True, [])
    assert logs == [
        {"log_level": "warning", "event": "store_left_locked", "path": str(path), "holder": "pod-1", "term": 5}
    ]


@pytest.mark.parametrize(
    "terms",
    [
        pytest.param((), id="no term"),
        pytest.param((Claim("agent"),), id="an agent without a Lease"),
        pytest.param((Claim("pod-1", "ns/other", 5),), id="another Lease"),
        pytest.param((Claim("pod-3", LEASE, 7),), id="a later term"),
    ],
)
async def test_any_other_holder_of_the_lock_is_waited_for(path: Path, terms: tuple[Claim, ...]) -> None:
    is_waiting = asyncio.Event()
    stop = asyncio.Event()
    async with in_use(path, *terms):
        holding = hold_lock(path, stop, on_wait=is_waiting.set, claim=Claim("pod-2", LEASE, 6))
        entering = asyncio.create_task(holding.__aenter__())
        await is_waiting.wait()
        stop.set()
        assert await entering is False
        await holding.__aexit__(None, None, None)


async def test_a_damaged_store_whose_term_cannot_be_read_is_waited_for(path: Path) -> None:
    is_waiting = asyncio.Event()
    stop = asyncio.Event()
    await asyncio.to_thread(path.write_bytes, b"no database" * 1_000)
    async with in_use(path):
        holding = hold_lock(path, stop, on_wait=is_waiting.set, claim=Claim("pod-2", LEASE, 6))
        entering = asyncio.create_task(holding.__aenter__())
        await is_waiting.wait()
        stop.set()
        assert await entering is False
        await holding.__aexit__(None, None, None)


@pytest.mark.looptime
async def test_the_lock_is_taken_once_the_former_leader_gives_it_up(path: Path) -> None:
    async with in_use(path, Claim("pod-1", LEASE, 5)) as former:
        claim = Claim("pod-2", LEASE, 6)
        async with hold_lock(path, asyncio.Event(), on_wait=lambda: None, claim=claim):
            former.release()
            assert StoreLock(path).is_taken() is False
            await asyncio.sleep(2)
            assert StoreLock(path).is_taken() is True
        assert StoreLock(path).is_taken() is False
