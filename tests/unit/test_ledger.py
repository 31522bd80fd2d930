"""What `verify` finds in a store, and that nothing wrong with the file keeps it from saying so."""

import random
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from exactly_once import Bench, usable
from ita_ag_oase.errors import AgentError, StoreDamaged, StoreUnavailable
from ita_ag_oase.model import Ledger, Verification
from ita_ag_oase.store import schema
from ita_ag_oase.store.access import StoreAccess
from ita_ag_oase.store.database import translated

REPORT = "keep a copy of the store and report it as a defect of the agent"
RESTART = "start the agent again, which sets the file aside and saves what can be read"
ONCE_PARKED = "once it is parked, export, retry or drop it with `ita-ag-oase outbox`"

CHECK = f"check the volume; {ONCE_PARKED}"
UNBALANCED = (
    "n1: 3 new events are not the 3 waiting, 0 parked, 4 delivered, 0 already saved, 0 dropped and 0 lost ones: "
    f"{REPORT}"
)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with Bench(tmp_path) as bench:
        yield bench


def verify(bench: Bench) -> Verification:
    with StoreAccess(bench._path) as store:
        return store.verify()


def change(bench: Bench, sql: str) -> None:
    with closing(sqlite3.connect(bench._path, isolation_level=None)) as connection:
        connection.execute(sql)


async def test_a_store_that_is_whole_is_told_with_its_ledgers(bench: Bench) -> None:
    bench.exastro.refuses = lambda event: event["id"] == 2
    await bench.poll("n1", [usable(1), usable(2)])
    await bench.deliver_all()
    await bench.poll("n1", [usable(2), usable(3)])
    none = dict.fromkeys(("known", "repeated", "waiting", "parked", "delivered", "already_saved", "dropped", "lost"), 0)
    assert verify(bench) == Verification(
        ledgers=(
            Ledger("n1", seen=4, new=3, **{**none, "known": 1, "waiting": 1, "parked": 1, "delivered": 1}),
            Ledger("n2", seen=0, new=0, **none),
        ),
        findings=(),
    )


@pytest.mark.parametrize(
    ("damage", "findings"),
    [
        pytest.param(
            "UPDATE settings SET seen = 9 WHERE name = 'n1'",
            [f"n1: 9 events seen are not the 3 new, 0 known and 0 repeated ones: {REPORT}"],
            id="seen",
        ),
        pytest.param(
            "UPDATE settings SET delivered = 4 WHERE name = 'n1'",
            [UNBALANCED],
            id="new",
        ),
        pytest.param("UPDATE settings SET lost = 2, new = 5, seen = 5 WHERE name = 'n1'", [], id="lost is balanced"),
        pytest.param(
            "UPDATE groups SET byte_count = 7",
            [f"n1@1700000000: the group tells of 3 events in 7 bytes, its pieces hold 3 in 693: {RESTART}"],
            id="bytes",
        ),
        pytest.param(
            "UPDATE groups SET key = NULL, byte_count = 7",
            [f"n1@-: the group tells of 3 events in 7 bytes, its pieces hold 3 in 693: {RESTART}"],
            id="without a key",
        ),
        pytest.param(
            "UPDATE pieces SET checksum = checksum + 1",
            [f"n1@1700000000: a piece has changed on disk, its checksum is wrong: {CHECK}"],
            id="checksum",
        ),
        pytest.param("UPDATE pieces SET checksum = NULL", [], id="no checksum"),
        pytest.param(
            "UPDATE pieces SET events = replace(events, ':', ';'), checksum = NULL",
            [f"n1@1700000000: a piece is no JSON: {CHECK}"],
            id="no JSON",
        ),
        pytest.param(
            "UPDATE pieces SET events = replace(events, '_oase_', x'ff' || 'oase_'), checksum = NULL",
            [f"n1@1700000000: a piece is no JSON: {CHECK}"],
            id="no UTF-8",
        ),
        pytest.param(
            "UPDATE pieces SET events = events || ',12', checksum = NULL; UPDATE groups SET byte_count = 696",
            [f"n1@1700000000: a piece tells of 3 events and holds 4, 3 of them objects: {CHECK}"],
            id="more events",
        ),
        pytest.param(
            "DELETE FROM pieces",
            [f"n1@1700000000: the group tells of 3 events in 693 bytes, its pieces hold 0 in 0: {RESTART}"],
            id="no pieces",
        ),
        pytest.param(
            "DELETE FROM groups; UPDATE settings SET dropped = 3 WHERE name = 'n1'",
            [f"1 pieces belong to no group: {RESTART}"],
            id="no group",
        ),
        pytest.param(
            "DELETE FROM settings WHERE name = 'n1'",
            [f"1 groups belong to no setting: {RESTART}"],
            id="no setting",
        ),
    ],
)
async def test_each_thing_that_is_wrong_is_a_sentence(bench: Bench, damage: str, findings: list[str]) -> None:
    await bench.poll("n1", [usable(number) for number in range(3)])
    for sql in damage.split("; "):
        change(bench, sql)
    assert list(map(str, verify(bench).findings)) == findings


async def test_a_piece_of_a_group_that_is_gone_is_named_by_number(bench: Bench) -> None:
    await bench.poll("n1", [usable(1)])
    change(bench, "UPDATE pieces SET checksum = 1, group_number = 44")
    assert f"group 44@-: a piece has changed on disk, its checksum is wrong: {CHECK}" in map(
        str, verify(bench).findings
    )


async def test_a_torn_file_is_told_with_what_can_still_be_read(bench: Bench) -> None:
    await bench.poll("n1", [usable(number, filler="x" * 900) for number in range(200)])
    await bench.close()
    content = bytearray(bench._path.read_bytes())
    root = _root_page(bench._path, "pieces") - 1
    content[root * 4_096 : (root + 1) * 4_096] = b"\xaa" * 4_096
    bench._path.write_bytes(content)
    found = verify(bench)
    assert [(ledger.setting_name, ledger.waiting) for ledger in found.ledgers] == [("n1", 200), ("n2", 0)]
    findings = [str(finding) for finding in found.findings]
    assert findings[0].startswith("the file is damaged (")
    assert findings[0].endswith(f"): {RESTART}")
    assert f"the file is damaged (database disk image is malformed): {RESTART}" in findings
    bench._path.unlink()
    await bench.open()


def _root_page(path: Path, table: str) -> int:
    with closing(sqlite3.connect(path)) as connection:
        (page,) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (table,)).fetchone()
    return int(page)


@pytest.mark.parametrize("seed", range(40))
async def test_no_damage_at_all_raises_anything_but_our_errors(bench: Bench, seed: int) -> None:
    random_ = random.Random(seed)
    await bench.poll("n1", [usable(number, filler="x" * 300) for number in range(30)])
    await bench.close()
    sound = bench._path.read_bytes()
    content = bytearray(sound)
    for _ in range(random_.choice([1, 5, 50])):
        content[random_.randrange(len(content))] ^= 1 << random_.randrange(8)
    bench._path.write_bytes(content)
    told = str(bench._path)
    try:
        verify(bench)
    except AgentError as err:
        told = str(err)
    assert str(bench._path) in told
    bench._path.write_bytes(sound)
    await bench.open()


@pytest.mark.parametrize(
    ("version", "error", "words"),
    [
        (
            1,
            StoreUnavailable,
            f"older version of the agent (schema 1, this one knows {schema.newest()}): start this version's agent once",
        ),
        (99, StoreDamaged, "was written by a newer version of the agent (schema 99, this one, "),
    ],
    ids=["older", "newer"],
)
async def test_a_store_of_another_version_is_refused(
    bench: Bench, version: int, error: type[AgentError], words: str
) -> None:
    change(bench, f"PRAGMA user_version = {version}")
    with pytest.raises(error) as caught:
        verify(bench)
    assert words in str(caught.value)
    change(bench, f"PRAGMA user_version = {schema.newest()}")


def test_a_file_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite3"
    with pytest.raises(StoreUnavailable) as caught:
        StoreAccess(path).__enter__()
    assert str(caught.value) == f"no store at {path}: look for the file in STORAGEPATH, and name it with --store"
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite3"
    path.write_bytes(b"no database" * 1_000)
    with pytest.raises(StoreDamaged, match="is damaged"):
        StoreAccess(path).__enter__()


@pytest.mark.parametrize(
    ("address", "how"),
    [
        ("{path}?mode=ro", "attempt to write a readonly database"),
        ("{path}/none", "unable to open database file"),
    ],
    ids=["read-only", "cannot be opened"],
)
async def test_what_cannot_be_written_is_told_as_that(bench: Bench, address: str, how: str) -> None:
    file = f"file:{address.format(path=bench._path)}"
    with (
        pytest.raises(StoreUnavailable) as caught,
        translated(bench._path),
        closing(sqlite3.connect(file, uri=True)) as connection,
    ):
        connection.execute("PRAGMA user_version = 7")
    assert str(caught.value) == (
        f"{bench._path} cannot be opened to read and write ({how}): make it and its folder writable for this user"
    )
