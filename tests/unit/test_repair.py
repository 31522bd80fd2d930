"""A damaged store: set aside at the next start, saved as far as it can be read, and what was lost is asked for anew."""

import asyncio
import collections
import random
import shutil
import sqlite3
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from exactly_once import Bench, usable
from ita_ag_oase.errors import ExastroUnavailable, StoreDamaged
from ita_ag_oase.model import Cursor, Repair
from ita_ag_oase.store import pages, repair, schema
from ita_ag_oase.store.remains import Remains
from ita_ag_oase.store.saving import digest
from ita_ag_oase.text import Text

PAGE = 4_096
NAMES = ("n1", "n2")
TEXT = "x" * 150
EVENTS_IN_FLIGHT = 20
REFUSED = {(name, "120") for name in NAMES}
Damage = Callable[[bytes], Iterator[tuple[str, bytes]]]


@dataclass(frozen=True)
class Scene:
    """A store between two lives of an agent, what its sources have told so far, and what Exastro has."""

    store: bytes
    told: Mapping[str, tuple[str, ...]]
    exastro: Any
    now: float


@dataclass(frozen=True)
class Outcome:
    """What came of a start with a damaged store. `forgotten`: ids that were known before and not after."""

    repair: Repair | None
    missing: frozenset[tuple[str, str]]
    parked: int
    repeated: int
    forgotten: int


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    made = tmp_path_factory.mktemp("repair")
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def scene(folder: Path) -> Iterator[Scene]:
    loop = asyncio.new_event_loop()
    yield loop.run_until_complete(make_scene(folder))
    loop.close()


async def make_scene(folder: Path) -> Scene:
    """Have some events delivered, two parked, a request in flight, and others waiting."""
    bench = Bench(folder, NAMES, batch_events=EVENTS_IN_FLIGHT)
    bench.exastro.refuses = lambda event: event["is_bad"]
    told: dict[str, list[str]] = {name: [] for name in NAMES}
    async with bench:

        async def poll(count: int, *, is_first_bad: bool = False) -> None:
            for name in NAMES:
                ids = [str(len(told[name]) + number) for number in range(count)]
                told[name] += ids
                events = [usable(it, text=TEXT, is_bad=is_first_bad and it == ids[0]) for it in ids]
                await bench.poll(name, events)
                bench.now += 5

        for _ in range(3):
            await poll(40)
        await bench.deliver_all()
        await poll(40, is_first_bad=True)
        await bench.deliver_all()
        await poll(40)
        await poll(40)
        await bench.delivery.deliver_next()
        bench.exastro.faults.append("lost")
        with pytest.raises(ExastroUnavailable):
            await bench.delivery.deliver_next()
        await poll(50)
    ids = {name: tuple(ids) for name, ids in told.items()}
    return Scene(bench._path.read_bytes(), ids, bench.exastro, bench.now)


def lay(scene: Scene, store: bytes, folder: Path) -> Bench:
    """Return an agent that is about to start with a store, beside an Exastro that knows what that of the scene does."""
    bench = Bench(folder, NAMES, batch_events=EVENTS_IN_FLIGHT, now=scene.now)
    bench.exastro.refuses = scene.exastro.refuses
    bench.exastro.saved = list(scene.exastro.saved)
    bench.exastro.counts = collections.Counter(scene.exastro.counts)
    bench.exastro._progress = dict(scene.exastro._progress)
    bench._path.parent.mkdir(parents=True)
    bench._path.write_bytes(store)
    return bench


async def start_with(scene: Scene, store: bytes, folder: Path) -> Outcome:
    """Start an agent on a store, let its sources tell everything once more, and deliver until nothing waits."""
    bench = lay(scene, store, folder)
    repaired = repair.mend(bench._path, agent_name="agent-1", now=bench.now)
    async with bench:
        known = set(await rows(bench, "SELECT name, digest FROM ids JOIN settings ON number = setting"))
        forgotten = sum((name, digest(it)) not in known for name in NAMES for it in scene.told[name])
        for name in NAMES:
            await bench.poll(name, [usable(it, text=TEXT, is_bad=False) for it in scene.told[name]])
            bench.now += 5
        await bench.deliver_all()
        parked = sum(row[0] for row in await rows(bench, "SELECT event_count FROM groups"))
        assert await rows(bench, UNBALANCED) == []
        assert await rows(bench, "PRAGMA integrity_check") == [("ok",)]
    told = {(name, event_id) for name in NAMES for event_id in scene.told[name]}
    missing = frozenset(told - bench.exastro.counts.keys())
    shutil.rmtree(folder)
    return Outcome(repaired, missing, parked, bench.exastro.repeated, forgotten)


UNBALANCED = (
    "SELECT name FROM settings s WHERE seen != new + known + repeated OR new != delivered + already_saved + dropped"
    " + lost + (SELECT coalesce(sum(event_count), 0) FROM groups g WHERE g.setting = s.number)"
)


async def rows(bench: Bench, query: str) -> list[Any]:
    return await bench.store._database.run(lambda connection: connection.execute(query).fetchall())


def judge(outcome: Outcome, case: str) -> None:
    """Nothing may be lost that Exastro had not refused; what comes twice, since its id is gone, is told."""
    assert len(outcome.missing - REFUSED) <= outcome.parked, f"{case}: lost"
    damaged = set(outcome.repair.damaged_tables) if outcome.repair else set()
    in_flight = EVENTS_IN_FLIGHT if damaged & {"groups", "pieces"} else 0
    assert outcome.repeated <= outcome.forgotten + in_flight, f"{case}: repeated"
    # A remembered id that is another one since a bit was flipped looks like any other.
    assert outcome.repeated <= 1 or outcome.repair, f"{case}: not told"


def zeroed_pages(store: bytes) -> Iterator[tuple[str, bytes]]:
    for start in range(0, len(store), PAGE):
        yield f"page {start // PAGE}", store[:start] + bytes(PAGE) + store[start + PAGE :]


def truncated_at_pages(store: bytes) -> Iterator[tuple[str, bytes]]:
    for end in range(0, len(store), PAGE):
        yield f"before page {end // PAGE}", store[:end]


def truncated_in_pages(store: bytes) -> Iterator[tuple[str, bytes]]:
    for end in range(PAGE // 3, len(store), PAGE):
        yield f"in page {end // PAGE}", store[:end]


def flipped_in_pages(store: bytes) -> Iterator[tuple[str, bytes]]:
    """One bit in what tells how a page is laid out, and two anywhere in it, for each page."""
    random_ = random.Random(1)
    for start in range(0, len(store), PAGE):
        for offset in (random_.choice((0, 1, 3, 4, 5, 6, 8, 9)), random_.randrange(PAGE), random_.randrange(PAGE)):
            at, bit = start + offset, 1 << random_.randrange(8)
            yield f"page {start // PAGE}, byte {offset}", store[:at] + bytes([store[at] ^ bit]) + store[at + 1 :]


def flipped_in_header(store: bytes) -> Iterator[tuple[str, bytes]]:
    for at in range(100):
        yield f"byte {at}", store[:at] + bytes([store[at] ^ 0xFF]) + store[at + 1 :]


def zeroed_header(store: bytes) -> Iterator[tuple[str, bytes]]:
    yield "header", bytes(100) + store[100:]


def no_database(store: bytes) -> Iterator[tuple[str, bytes]]:
    yield "text", b"this is no database " * 2_000


DAMAGES = (
    zeroed_pages,
    truncated_at_pages,
    truncated_in_pages,
    flipped_in_pages,
    flipped_in_header,
    zeroed_header,
    no_database,
)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
async def test_whatever_is_damaged_the_agent_goes_on_and_nothing_is_lost(
    scene: Scene, damage: Damage, tmp_path: Path
) -> None:
    for case, store in damage(scene.store):
        judge(await start_with(scene, store, tmp_path / "life"), case)


async def test_a_sound_store_is_left_as_it_is(scene: Scene, tmp_path: Path) -> None:
    outcome = await start_with(scene, scene.store, tmp_path / "life")
    assert (outcome.repair, outcome.repeated, outcome.forgotten) == (None, 0, 0)
    assert len(outcome.missing) == outcome.parked == 2


async def test_what_was_done_is_told(scene: Scene, tmp_path: Path) -> None:
    bench = lay(scene, bytes(100) + scene.store[100:], tmp_path)
    told = repair.mend(bench._path, agent_name="agent-1", now=1_700_000_000)
    aside = bench._path.with_name("store.sqlite3.damaged-20231114T221320Z")
    assert told == Repair(
        settings=2,
        groups=15,
        events=242,
        ids=580,
        damage=Text("its header is damaged, or it is no database"),
        set_aside=str(aside),
    )
    assert aside.read_bytes() == bytes(100) + scene.store[100:]
    assert sorted(bench._path.parent.iterdir()) == [bench._path, aside]
    assert repair.mend(bench._path, agent_name="agent-1", now=1_700_000_000) is None


async def test_an_earlier_damaged_store_is_not_written_over(scene: Scene, tmp_path: Path) -> None:
    bench = lay(scene, b"first", tmp_path)
    repair.mend(bench._path, agent_name="agent-1", now=0)
    bench._path.write_bytes(b"second")
    repair.mend(bench._path, agent_name="agent-1", now=0)
    assert [file.read_bytes() for file in sorted(bench._path.parent.glob("*.damaged-*"))] == [b"first", b"second"]


async def test_a_folder_in_the_place_of_the_store_is_set_aside(scene: Scene, tmp_path: Path) -> None:
    bench = lay(scene, b"", tmp_path)
    bench._path.unlink()
    (bench._path / "inside").mkdir(parents=True)
    told = repair.mend(bench._path, agent_name="agent-1", now=0)
    assert told == Repair(damage=Text("it is no file"), set_aside=f"{bench._path}.damaged-19700101T000000Z")
    assert [file.name for file in bench._path.parent.glob("*/*")] == ["inside"]
    async with bench:
        assert (await bench.poll("n1", [usable(1)])).new == 1


async def test_what_a_kill_left_in_the_wal_is_saved_too(scene: Scene, tmp_path: Path) -> None:
    bench = lay(scene, scene.store, tmp_path / "first")
    async with bench:
        await bench.poll("n1", [usable("in the wal", is_bad=False)])
        killed = lay(scene, bytes(100) + bench._path.read_bytes()[100:], tmp_path / "second")
        wal = bench._path.with_name(f"{bench._path.name}-wal")
        shutil.copyfile(wal, killed._path.with_name(wal.name))
    told = repair.mend(killed._path, agent_name="agent-1", now=0)
    assert told is not None
    assert told.events == 243


@pytest.mark.parametrize("step", range(1, 5))
async def test_a_kill_while_it_is_mended_costs_nothing(scene: Scene, tmp_path: Path, step: int) -> None:
    """The names under which the stores lie after each step of the exchange."""
    bench = lay(scene, bytes(100) + scene.store[100:], tmp_path)
    repair.mend(bench._path, agent_name="agent-1", now=0)
    leave_as_after(step, bench._path)
    told = repair.mend(bench._path, agent_name="agent-1", now=0)
    assert (told is not None) == (step < 3)
    names = [file.name for file in sorted(bench._path.parent.iterdir())]
    assert names == ["store.sqlite3", "store.sqlite3.damaged-19700101T000000Z"]
    async with bench:
        assert await rows(bench, "SELECT sum(event_count) FROM groups") == [(242,)]


def leave_as_after(step: int, path: Path) -> None:
    (aside,) = path.parent.glob("*.damaged-*")
    new, old = path.read_bytes(), aside.read_bytes()
    if step == 1:
        path.write_bytes(old)
        Path(f"{path}.salvaging").write_bytes(new[: len(new) // 2])
        (path.parent / f".salvage-{path.name}-x").mkdir()
        aside.unlink()
    elif step == 2:
        path.write_bytes(old)
        Path(f"{path}.salvaged").write_bytes(new)
        aside.unlink()
    elif step == 3:
        path.rename(f"{path}.salvaged")
        Path(f"{path}-wal").write_bytes(b"of the damaged store")


async def test_a_store_of_the_first_schema_is_saved_as_well(scene: Scene, tmp_path: Path) -> None:
    bench = lay(scene, scene.store, tmp_path)
    with closing(sqlite3.connect(bench._path)) as connection:
        connection.executescript(
            "ALTER TABLE pieces DROP COLUMN checksum; ALTER TABLE settings DROP COLUMN lost;"
            "ALTER TABLE settings DROP COLUMN position;"
            "ALTER TABLE groups DROP COLUMN answer; ALTER TABLE groups DROP COLUMN latest_offer;"
            "ALTER TABLE groups DROP COLUMN first_offer; ALTER TABLE groups DROP COLUMN offers;"
            "ALTER TABLE ids DROP COLUMN event_number; ALTER TABLE ids DROP COLUMN first_poll; DROP TABLE history;"
            "DROP TABLE terms;"
            "ALTER TABLE settings DROP COLUMN settled_time; ALTER TABLE groups DROP COLUMN fetched_time;"
            "DELETE FROM facts WHERE name = 'schema'; PRAGMA user_version = 1"
        )
    bench._path.write_bytes(bench._path.read_bytes()[: -2 * PAGE])
    told = repair.mend(bench._path, agent_name="agent-1", now=scene.now)
    assert told is not None
    assert (told.settings, told.groups) == (2, 14)
    assert {"history", "terms"} & {*told.damaged_tables} == set()
    async with bench:
        await bench.deliver_all()


def test_a_store_that_cannot_be_copied_is_left_alone(scene: Scene, tmp_path: Path) -> None:
    bench = lay(scene, b"damaged", tmp_path)
    blocked = Path(f"{bench._path}.salvaging")
    blocked.mkdir()
    with pytest.raises(OSError, match="directory"):
        repair.mend(bench._path, agent_name="agent-1", now=0)
    assert bench._path.read_bytes() == b"damaged"


async def test_the_cursor_of_a_setting_that_lost_events_goes_back(scene: Scene, tmp_path: Path) -> None:
    bench = lay(scene, scene.store, tmp_path)
    with closing(sqlite3.connect(bench._path)) as connection:
        connection.execute("UPDATE settings SET position = 'far'")
        connection.execute("DELETE FROM pieces WHERE group_number = (SELECT max(number) FROM groups)")
        connection.commit()
    told = repair.mend(bench._path, agent_name="agent-1", now=scene.now)
    assert told is not None
    assert (str(told.damage), told.lost) == ("rows that belong to others stand without them", 10)
    async with bench:
        cursors = [await bench.store.cursor(row["EVENT_COLLECTION_SETTINGS_ID"]) for row in bench.rows.values()]
    assert cursors[1] == Cursor(last_fetched_time=1_700_000_035, last_event=None, position=None)
    assert (cursors[0].last_event is None, cursors[0].position) == (False, "far")


def changed(scene: Scene, folder: Path, script: str) -> Bench:
    """Return an agent that is about to start with the store of the scene, changed by SQL."""
    bench = lay(scene, scene.store, folder)
    with closing(sqlite3.connect(bench._path)) as connection:
        connection.executescript(script)
    return bench


ANOTHER_OF_ITS_NAME = (
    "INSERT INTO settings (number, id, name, last_fetched_time, last_key) VALUES (3, 'new', 'n1', 1700000000, 0);"
    "INSERT INTO facts VALUES ('setting/3', CAST('[\"new\",\"n1\"]' AS BLOB));"
)
RENAMED = (
    "UPDATE settings SET name = 'later' WHERE number = 1;"
    "UPDATE facts SET value = CAST(replace(value, '\"n1\"', '\"later\"') AS BLOB) WHERE name = 'setting/1';"
)


@pytest.mark.parametrize("names", [ANOTHER_OF_ITS_NAME, RENAMED], ids=["another of its name", "renamed"])
@pytest.mark.parametrize(
    "damage", ["UPDATE ids SET last_seen = -1 WHERE setting = 2", "DELETE FROM groups WHERE setting = 1"]
)
async def test_settings_whose_names_changed_do_not_keep_a_damaged_store_from_being_mended(
    scene: Scene, tmp_path: Path, names: str, damage: str
) -> None:
    bench = changed(scene, tmp_path, names)
    events = "SELECT setting, sum(event_count) FROM groups GROUP BY setting"
    with closing(sqlite3.connect(bench._path)) as connection:
        held = connection.execute(events).fetchall()
        connection.executescript(damage)
    told = repair.mend(bench._path, agent_name="agent-1", now=scene.now)
    assert told is not None
    with closing(sqlite3.connect(bench._path)) as connection:
        assert connection.execute(events).fetchall() == held


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE facts SET value = 5 WHERE name = 'schema'",
        "DELETE FROM facts WHERE name = 'schema'; PRAGMA user_version = 0",
        "DELETE FROM facts WHERE name = 'schema'; PRAGMA user_version = -1",
    ],
    ids=["no text", "no number", "a number below zero"],
)
async def test_damage_to_what_tells_the_schema_does_not_keep_the_agent_from_starting(
    scene: Scene, tmp_path: Path, damage: str
) -> None:
    bench = changed(scene, tmp_path, damage)
    told = repair.mend(bench._path, agent_name="agent-1", now=scene.now)
    assert told is not None
    assert (told.groups, told.lost) == (15, 0)
    async with bench:
        await bench.deliver_all()


@pytest.mark.parametrize("script", ["ANALYZE", "PRAGMA optimize = 0x10002"])
async def test_a_store_that_a_person_has_analyzed_is_left_as_it_is(scene: Scene, tmp_path: Path, script: str) -> None:
    bench = changed(scene, tmp_path, script)
    assert repair.mend(bench._path, agent_name="agent-1", now=scene.now) is None


async def test_pages_have_the_size_that_a_sound_store_has_to_have_whatever_sqlite_prefers(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite3"

    def prefer_larger(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = sqlite3.connect(*arguments, **options)
        connection.execute("PRAGMA page_size = 8192")
        return connection

    schema.connect(path, opener=prefer_larger).close()
    assert repair.mend(path, agent_name="agent-1", now=0) is None


def test_pages_that_follow_each_other_in_a_circle_do_not_use_up_the_memory(tmp_path: Path) -> None:
    size, local = 1 << 29, 512
    cell = bytes((0x82, 0x80, 0x80, 0x80, 0, 1)) + bytes(local) + bytes((0, 0, 0, 4))
    leaf = bytes((0x0D, 0, 0, 0, 1, 0, 0, 0, 0, 50)).ljust(50, b"\0") + cell
    path = tmp_path / "store.sqlite3"
    path.write_bytes(bytes(2 * PAGE) + leaf.ljust(PAGE, b"\0") + bytes((0, 0, 0, 4)).ljust(PAGE, b"\0"))
    tracemalloc.start()
    assert list(pages.table_rows(path)) == []
    (_, peak_bytes) = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < size / 100


async def test_a_damaged_store_of_a_newer_version_is_left_to_that_version(scene: Scene, tmp_path: Path) -> None:
    newer = (
        'UPDATE facts SET value = CAST(\'{"schema":99,"agent":"9.0"}\' AS BLOB) WHERE name = \'schema\';'
        "PRAGMA user_version = 99"
    )
    bench = changed(scene, tmp_path, newer)
    whole = bench._path.read_bytes()
    damaged = whole[: -2 * PAGE] + bytes(2 * PAGE)
    bench._path.write_bytes(damaged)
    assert repair.mend(bench._path, agent_name="agent-1", now=scene.now) is None
    with pytest.raises(StoreDamaged, match=r"newer version .* version 9\.0 or later"):
        await bench.open()
    await asyncio.to_thread(bench.store.close)
    assert bench._path.read_bytes()[PAGE:] == damaged[PAGE:]


def test_a_volume_too_full_to_read_from_does_not_pass_for_damage(tmp_path: Path) -> None:
    class Full(sqlite3.Connection):
        def execute(self, *_: Any) -> sqlite3.Cursor:
            err = sqlite3.OperationalError("disk I/O error")
            err.sqlite_errorcode = sqlite3.SQLITE_IOERR_SHMSIZE
            raise err

    path = tmp_path / "store.sqlite3"
    path.touch()
    with closing(Full(path)) as connection, pytest.raises(sqlite3.OperationalError):
        Remains(connection, path)
