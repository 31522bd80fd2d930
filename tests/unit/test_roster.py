"""Which settings are polled: started, stopped and left alone as Exastro's rows say."""

import asyncio
import base64
import json
import os
import stat
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
from structlog.testing import capture_logs

from ita_ag_oase import clock
from ita_ag_oase.agent.roster import Roster, refresh_code
from ita_ag_oase.collection import Collector
from ita_ag_oase.errors import (
    ExastroRejected,
    ExastroUnavailable,
    Reason,
    SettingInvalid,
    SourceUnavailable,
    StoreDamaged,
    StoreUnavailable,
)
from ita_ag_oase.exastro.client import ExastroClient
from ita_ag_oase.exastro.secrets import SecretColumns
from ita_ag_oase.model import CollectionSetting, Saved
from ita_ag_oase.observability.health import Health
from ita_ag_oase.store.database import Database, Work
from ita_ag_oase.store.registry import KNOWN_ROWS
from ita_ag_oase.store.saving import SavingLimits
from ita_ag_oase.store.store import Store
from ita_ag_oase.text import Text, verbatim
from support import in_english

T = TypeVar("T")

SECRETS = SecretColumns("org1", "ws1")
NAMES = ("n1", "n2", "n3")
ACTION = "Exastro has no such event collection setting: check the name, or restore it"


class InstantDatabase(Database):
    """A database whose thread is waited for at once, so that no loop time passes meanwhile."""

    async def run(self, work: Work[T], *, alone: bool = False) -> T:
        await asyncio.sleep(0)
        future: Future[T] = Future()
        self._jobs.put((work, future, alone))
        return future.result(timeout=60)


class Poller(Collector):
    """Notes when it polls, and does what it is told."""

    def __init__(self, setting: CollectionSetting, house: "House") -> None:
        self.setting = setting
        self._house = house

    async def collect(self) -> Saved:
        self._house.polls.append((self.setting.name, round(asyncio.get_running_loop().time(), 6)))
        try:
            await asyncio.sleep(self._house.poll_seconds)
        finally:
            await asyncio.sleep(self._house.seconds_to_stop)
        if self._house.poll_error is not None:
            raise self._house.poll_error
        return Saved(new=self._house.new_events, known=0, repeated=0)

    async def close(self) -> None:
        self._house.closed.append(self.setting.name)


class House:
    """A roster with all that it needs; `rows` are Exastro's, with secrets in clear."""

    def __init__(self, store: Store, settings_file: Path) -> None:
        self.rows: list[dict[str, Any]] = []
        self.is_down = False
        self.while_fetching: Callable[[], object] = lambda: None
        self.asked: list[Any] = []
        self.polls: list[tuple[str, float]] = []
        self.closed: list[str] = []
        self.poll_seconds = 0.0
        self.seconds_to_stop = 0.0
        self.poll_error: Exception | None = None
        self.new_events = 0
        self.news = 0
        self.secrets: list[str] = []
        self.made: list[CollectionSetting] = []
        self.unusable_for_sources: set[str] = set()
        self.file = settings_file
        self.store = store
        self.http = httpx.AsyncClient(transport=httpx.MockTransport(self._exastro))
        self.health = Health()
        self.roster = self.new_roster()

    def new_roster(self, names: tuple[str, ...] = NAMES) -> Roster:
        return Roster(
            client=ExastroClient(self.http, httpx.Auth(), base_url="http://exastro/api"),
            store=self.store,
            now=clock.now,
            secrets=SECRETS,
            names=names,
            interval_seconds=5.0,
            settings_file=self.file,
            make_collector=self._make,
            health=self.health,
            on_secret=self.secrets.append,
            on_news=self._note_news,
        )

    async def poll_for(self, seconds: float) -> list[tuple[str, float]]:
        """Return who polled since the last call and within the next seconds, and how long after now."""
        start = asyncio.get_running_loop().time()
        await asyncio.sleep(seconds)
        polls = [(name, round(time - start, 6)) for name, time in self.polls]
        self.polls.clear()
        return polls

    async def break_registration_of(self, name: str) -> None:
        trigger = f"CREATE TRIGGER broken BEFORE INSERT ON settings WHEN new.name = '{name}'"
        await self.execute(f"{trigger} BEGIN SELECT RAISE(ABORT, 'broken'); END")

    async def execute(self, statement: str) -> None:
        await self.store._database.run(lambda connection: connection.execute(statement).close())

    async def _exastro(self, request: httpx.Request) -> httpx.Response:
        if self.is_down:
            raise httpx.ConnectError("refused")
        self.asked.append(json.loads(request.content))
        self.while_fetching()
        rows = [{**row, "AUTH_TOKEN": SECRETS.encrypt(row["AUTH_TOKEN"])} for row in self.rows]
        body = json.dumps({"result": "000-00000", "message": "SUCCESS", "data": rows}).encode()
        return httpx.Response(200, stream=httpx.ByteStream(body))

    def _make(self, setting: CollectionSetting) -> Collector:
        if setting.name in self.unusable_for_sources:
            raise SettingInvalid(verbatim(f"{setting.name}: USERNAME is empty"), reason=Reason.SETTING)
        self.made.append(setting)
        return Poller(setting, self)

    def _note_news(self) -> None:
        self.news += 1


def _row(name: str, **columns: Any) -> dict[str, Any]:
    return {
        "EVENT_COLLECTION_SETTINGS_ID": f"id of {name}",
        "EVENT_COLLECTION_SETTINGS_NAME": name,
        "CONNECTION_METHOD_ID": "1",
        "REQUEST_METHOD_ID": "1",
        "URL": f"http://source/{name}",
        "AUTH_TOKEN": f"s3cr3t of {name}",
        "RESPONSE_LIST_FLAG": "1",
        "TTL": 3_600,
        **columns,
    }


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    limits = SavingLimits(group_events=100, group_bytes=100_000, id_retention_seconds=86_400)
    store = Store(tmp_path / "store.sqlite3", limits, storage_max_bytes=1 << 30)
    store._database = InstantDatabase(tmp_path / "store.sqlite3")
    await store.open()
    house = House(store, tmp_path / "tmp" / "org1" / "settings.json")
    yield house
    await house.roster.close()
    await house.http.aclose()
    store.close()


def _applied(*polled: str, started: int, stopped: int) -> dict[str, Any]:
    return {
        "log_level": "info",
        "event": "settings_applied",
        "polled": list(polled),
        "started": started,
        "stopped": stopped,
    }


def _unusable(name: str, detail: str) -> dict[str, Any]:
    return {
        "log_level": "error",
        "event": "setting_unusable",
        "code": "AGT-10001",
        "setting": name,
        "detail": detail,
    }


FETCHING = {"log_level": "debug", "event": "settings_fetching", "code": "AGT-10008"}


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.looptime
async def test_first_polls_are_spread_by_milliseconds_and_then_come_at_a_fixed_rate(house: House) -> None:
    house.rows = [_row(name) for name in NAMES]
    with capture_logs() as logs:
        await house.roster.refresh()
    first = [("n1", 0.0), ("n2", 0.01), ("n3", 0.02)]
    assert await house.poll_for(9) == [*first, *((name, time + 5) for name, time in first)]
    assert house.asked == [{"event_collection_settings_names": list(NAMES)}]
    assert in_english(logs) == [FETCHING, _applied(*NAMES, started=3, stopped=0)]


@pytest.mark.looptime
async def test_slow_source_does_not_hold_up_another_one(house: House) -> None:
    house.rows = [_row("n1"), _row("n2")]
    house.poll_seconds = 12.0
    await house.roster.refresh()
    assert await house.poll_for(16) == [("n1", 0.0), ("n2", 0.01), ("n1", 15.0), ("n2", 15.01)]


@pytest.mark.looptime
async def test_gone_settings_end_new_ones_start_and_unchanged_ones_go_on(house: House) -> None:
    house.rows = [_row("n1"), _row("n2")]
    await house.roster.refresh()
    await house.poll_for(7)
    house.rows = [_row("n2"), _row("n3")]
    with capture_logs() as logs:
        await house.roster.refresh()
    assert await house.poll_for(6) == [("n3", 0.0), ("n2", 3.01), ("n3", 5.0)]
    assert [setting.name for setting in house.made] == ["n1", "n2", "n3"]
    assert in_english(logs) == [FETCHING, _unusable("n1", ACTION), _applied("n2", "n3", started=1, stopped=1)]


@pytest.mark.looptime
async def test_unchanged_setting_is_left_alone_though_its_secret_comes_encrypted_anew(house: House) -> None:
    house.rows = [_row(name) for name in NAMES]
    house.poll_seconds = 8.0
    await house.roster.refresh()
    await house.poll_for(6)
    with capture_logs() as logs:
        await house.roster.refresh()
    assert (logs, len(house.made)) == ([FETCHING], 3)
    # The polls that were under way end, and the next ones come when they are due.
    assert await house.poll_for(6) == [("n1", 4.0), ("n2", 4.01), ("n3", 4.02)]


@pytest.mark.looptime
@pytest.mark.parametrize(
    "columns",
    [{"URL": "http://elsewhere"}, {"AUTH_TOKEN": "another"}, {"NOTE": "seen by templates"}, {"TTL": 60}],
    ids=["url", "secret", "note", "ttl"],
)
async def test_changed_setting_is_started_anew(house: House, columns: dict[str, Any]) -> None:
    house.rows = [_row("n1"), _row("n2"), _row("n3")]
    await house.roster.refresh()
    await house.poll_for(2)
    house.rows[1].update(columns)
    with capture_logs() as logs:
        await house.roster.refresh()
    assert await house.poll_for(3.5) == [("n2", 0.0), ("n1", 3.0), ("n3", 3.02)]
    assert in_english(logs) == [FETCHING, _applied(*NAMES, started=1, stopped=1)]
    for column, value in columns.items():
        assert house.made[-1].row[column] == value


@pytest.mark.looptime
async def test_renamed_setting_is_polled_under_its_new_name_alone(house: House) -> None:
    house.rows = [_row("n1")]
    await house.roster.refresh()
    await house.poll_for(1)
    await house.execute("UPDATE settings SET last_fetched_time = 5")
    house.rows = [_row("n2", EVENT_COLLECTION_SETTINGS_ID="id of n1")]
    await house.roster.refresh()
    assert await house.poll_for(1) == [("n2", 0.0)]
    assert (await house.store.cursor("id of n1")).last_fetched_time == 5


@pytest.mark.looptime
async def test_new_setting_starts_with_now_as_its_last_fetched_time(house: House) -> None:
    house.rows = [_row("n1")]
    before = int(clock.now())
    await house.roster.refresh()
    assert before <= (await house.store.cursor("id of n1")).last_fetched_time <= clock.now()


@pytest.mark.looptime
async def test_unknown_name_is_told_once_and_again_after_it_was_there(house: House) -> None:
    house.rows = [_row("n1"), _row("n3")]
    with capture_logs() as logs:
        await house.roster.refresh()
        await house.roster.refresh()
        house.rows.append(_row("n2"))
        await house.roster.refresh()
        house.rows.pop()
        await house.roster.refresh()
    assert in_english(logs) == [
        FETCHING,
        _unusable("n2", ACTION),
        _applied("n1", "n3", started=2, stopped=0),
        FETCHING,
        FETCHING,
        _applied("n1", "n2", "n3", started=1, stopped=0),
        FETCHING,
        _unusable("n2", ACTION),
        _applied("n1", "n3", started=0, stopped=1),
    ]


@pytest.mark.looptime
async def test_row_that_cannot_be_used_leaves_the_others_running(house: House) -> None:
    house.rows = [_row("n1"), _row("n2", TTL="soon"), _row("n3")]
    house.unusable_for_sources = {"n3"}
    with capture_logs() as logs:
        await house.roster.refresh()
        await house.roster.refresh()
    assert await house.poll_for(1) == [("n1", 0.0)]
    assert in_english(logs) == [
        FETCHING,
        _unusable("n2", "n2: TTL is 'soon', no whole number from 0 to 2147483647: mend it in Exastro"),
        _unusable("n3", "n3: USERNAME is empty"),
        _applied("n1", started=1, stopped=0),
        FETCHING,
    ]
    house.rows[1]["TTL"] = 60
    house.unusable_for_sources = set()
    await house.roster.refresh()
    assert await house.poll_for(1) == [("n2", 0.0), ("n3", 0.01)]


@pytest.mark.looptime
async def test_setting_whose_row_was_spoilt_ends(house: House) -> None:
    house.rows = [_row("n1"), _row("n2")]
    await house.roster.refresh()
    await house.poll_for(1)
    house.rows[0]["REQUEST_METHOD_ID"] = "7"
    await house.roster.refresh()
    assert await house.poll_for(5) == [("n2", 4.01)]


@pytest.mark.looptime
async def test_row_that_is_not_for_agents_is_dropped_silently(house: House) -> None:
    house.rows = [_row("n1"), _row("n2", CONNECTION_METHOD_ID="99", URL=None), _row("n3", CONNECTION_METHOD_ID=99)]
    with capture_logs() as logs:
        await house.roster.refresh()
    assert await house.poll_for(1) == [("n1", 0.0)]
    assert in_english(logs) == [FETCHING, _applied("n1", started=1, stopped=0)]


@pytest.mark.looptime
async def test_the_health_knows_the_settings_that_there_are_and_how_they_do(house: House) -> None:
    house.rows = [_row("n1"), _row("n2", TTL="soon")]
    await house.roster.refresh()
    assert _states(house) == {"n1": "waiting", "n2": "unusable", "n3": "unusable"}
    await house.poll_for(1)
    house.rows = [_row("n1"), _row("n2"), _row("n3")]
    await house.roster.refresh()
    assert _states(house) == {"n1": "working", "n2": "waiting", "n3": "waiting"}
    house.poll_error = SourceUnavailable(Text("no answer"), reason=Reason.TIMEOUT)
    await house.poll_for(6)
    assert _states(house) == {"n1": "failing", "n2": "failing", "n3": "failing"}
    house.rows[1]["CONNECTION_METHOD_ID"] = "99"
    await house.roster.refresh()
    assert _states(house) == {"n1": "failing", "n3": "failing"}


def _states(house: House) -> dict[str, str]:
    return {source.name: source.state for source in house.health.sources}


@pytest.mark.looptime
async def test_a_setting_that_could_not_be_used_and_is_no_longer_for_agents_is_gone(house: House) -> None:
    house.rows = [_row("n1", TTL="soon"), _row("n2"), _row("n3")]
    await house.roster.refresh()
    house.rows[0]["CONNECTION_METHOD_ID"] = "99"
    await house.roster.refresh()
    assert [source.name for source in house.health.sources] == ["n2", "n3"]


@pytest.mark.looptime
async def test_polls_are_counted_with_their_outcome_and_with_turns_left_out(house: House) -> None:
    house.rows = [_row("n1")]
    house.poll_seconds = 7.0
    await house.roster.refresh()
    await house.poll_for(9)
    house.poll_error = SourceUnavailable(Text("no answer"), reason=Reason.TIMEOUT)
    await house.poll_for(10)
    counts = house.health.counts.sources["n1"]
    assert (counts.polls, counts.skipped_polls) == ({"succeeded": 1, "timeout": 1}, 2)


@pytest.mark.looptime
async def test_known_settings_serve_at_start_while_exastro_is_down(house: House) -> None:
    house.rows = [_row("n1"), _row("n2")]
    await house.roster.refresh()
    await house.roster.close()
    house.is_down = True
    later = house.new_roster(("n2", "n3"))
    with capture_logs() as logs:
        await later.start_with_known()
        with pytest.raises(ExastroUnavailable):
            await later.refresh()
    assert await house.poll_for(6) == [("n2", 0.0), ("n2", 5.0)]
    await later.close()
    assert in_english(logs) == [
        {"log_level": "info", "event": "settings_known", "settings": 1},
        _applied("n2", started=1, stopped=0),
        FETCHING,
    ]


@pytest.mark.parametrize("damaged", [b'[{"a', b'["\xff"]', b"[5]", b"5"])
async def test_known_settings_that_the_disk_has_changed_do_not_keep_the_agent_from_starting(
    house: House, damaged: bytes
) -> None:
    await house.store.keep_fact(KNOWN_ROWS, damaged)
    await house.roster.start_with_known()


@pytest.mark.looptime
async def test_known_settings_that_exastro_confirms_go_on(house: House) -> None:
    house.rows = [_row("n1")]
    await house.roster.refresh()
    await house.roster.close()
    later = house.new_roster(("n1",))
    await later.start_with_known()
    await house.poll_for(2)
    await later.refresh()
    assert await house.poll_for(4) == [("n1", 3.0)]
    await later.close()


@pytest.mark.looptime
async def test_nothing_is_polled_at_the_very_first_start_without_exastro(house: House) -> None:
    with capture_logs() as logs:
        await house.roster.start_with_known()
    assert (await house.poll_for(10), logs) == ([], [])


@pytest.mark.looptime
async def test_settings_in_use_go_on_while_exastro_is_down(house: House) -> None:
    house.rows = [_row("n1")]
    await house.roster.refresh()
    house.is_down = True
    with pytest.raises(ExastroUnavailable):
        await house.roster.refresh()
    assert await house.poll_for(6) == [("n1", 0.0), ("n1", 5.0)]


async def test_known_settings_lie_in_the_store_with_their_secrets_encrypted(house: House) -> None:
    house.rows = [_row("n1", NOTE="監視")]
    await house.roster.refresh()
    (row,) = json.loads(await house.store.fact("settings") or b"")
    assert SECRETS.decrypt(row.pop("AUTH_TOKEN"), column="AUTH_TOKEN") == "s3cr3t of n1"
    assert {**row, "AUTH_TOKEN": "s3cr3t of n1"} == house.rows[0]


async def test_settings_file_holds_the_rows_with_their_secrets_encrypted(house: House) -> None:
    house.rows = [_row("n1"), _row("n2", NOTE="監視")]
    await house.roster.refresh()
    text = house.file.read_text(encoding="utf-8")
    rows = json.loads(text)
    assert [(row["EVENT_COLLECTION_SETTINGS_NAME"], row.get("NOTE")) for row in rows] == [("n1", None), ("n2", "監視")]
    assert "s3cr3t" not in text
    assert all(len(base64.b64decode(row["AUTH_TOKEN"])) == 32 for row in rows)


async def test_settings_file_can_be_read_by_this_user_alone(house: House) -> None:
    # The key of the secrets is made of the ids of organization and workspace, which are in the path.
    mask = os.umask(0)
    try:
        await house.roster.refresh()
    finally:
        os.umask(mask)
    assert (_mode(house.file), _mode(house.file.parent)) == (0o600, 0o700)


async def test_file_that_was_put_there_meanwhile_does_not_lend_its_mode(house: House) -> None:
    def put() -> None:
        house.file.parent.mkdir(parents=True)
        house.file.write_text("something else")
        house.file.chmod(0o666)

    house.while_fetching = put
    await house.roster.refresh()
    assert (_mode(house.file), house.file.read_text()) == (0o600, "[]")


async def test_link_in_place_of_the_settings_file_is_not_followed(house: House, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("dear")
    house.file.parent.mkdir(parents=True)
    house.while_fetching = lambda: house.file.symlink_to(victim)
    await house.roster.refresh()
    assert (victim.read_text(), house.file.is_symlink(), house.file.read_text()) == ("dear", False, "[]")


async def test_deleted_settings_file_is_noticed_until_settings_are_fetched_again(house: House) -> None:
    noticed = [house.roster.was_file_deleted()]
    await house.roster.refresh()
    noticed.append(house.roster.was_file_deleted())
    house.file.unlink()
    noticed.append(house.roster.was_file_deleted())
    noticed.append(house.roster.was_file_deleted())
    await house.roster.refresh()
    noticed.append(house.roster.was_file_deleted())
    assert noticed == [False, False, True, True, False]


async def test_settings_file_is_removed_before_settings_are_fetched(house: House) -> None:
    await house.roster.refresh()
    house.is_down = True
    with pytest.raises(ExastroUnavailable):
        await house.roster.refresh()
    assert (house.file.exists(), house.roster.was_file_deleted()) == (False, False)


async def test_folder_that_cannot_be_made_costs_only_the_settings_file(house: House, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    house.file = tmp_path / "file" / "below" / "settings.json"
    house.rows = [_row("n1")]
    roster = house.new_roster(("n1",))
    with capture_logs() as logs:
        await roster.refresh()
    await roster.close()
    assert not roster.was_file_deleted()
    told = {"log_level": "debug", "path": str(house.file)}
    assert in_english(logs) == [
        FETCHING,
        {**told, "event": "settings_file_kept", "detail": f"[Errno 20] Not a directory: {str(house.file)!r}"},
        _applied("n1", started=1, stopped=0),
        {**told, "event": "settings_file_missing", "detail": f"[Errno 20] Not a directory: {str(house.file.parent)!r}"},
    ]


async def test_every_secret_is_told_before_it_is_used(house: House) -> None:
    house.rows = [_row("n1"), _row("n2", AUTH_TOKEN="")]
    await house.roster.refresh()
    assert house.secrets == ["s3cr3t of n1"]


@pytest.mark.looptime
@pytest.mark.parametrize(("new", "news"), [(0, 0), (3, 2)], ids=["nothing new", "new events"])
async def test_polls_with_new_events_are_told(house: House, new: int, news: int) -> None:
    house.rows = [_row("n1")]
    house.new_events = new
    await house.roster.refresh()
    await house.poll_for(6)
    assert house.news == news


MAIL = {"CONNECTION_METHOD_ID": "4", "REQUEST_METHOD_ID": "3", "URL": "imap.test"}


@pytest.mark.looptime
@pytest.mark.parametrize(
    ("columns", "code"), [pytest.param({}, "AGT-10029", id="HTTP"), pytest.param(MAIL, "AGT-10028", id="mail")]
)
async def test_failed_polls_are_told_with_their_setting_and_code(
    house: House, columns: dict[str, str], code: str
) -> None:
    house.rows = [_row("n1", **columns)]
    house.poll_error = SourceUnavailable(Text("no answer"), reason=Reason.TIMEOUT)
    await house.roster.refresh()
    with capture_logs() as logs:
        await house.poll_for(1)
        house.poll_error = None
        await asyncio.sleep(5)
    assert in_english(logs) == [
        {
            "log_level": "warning",
            "event": "collection_failed",
            "code": code,
            "setting": "n1",
            "reason": "timeout",
            "detail": "no answer",
            "failures": 1,
        },
        {"log_level": "info", "event": "collection_recovered", "setting": "n1", "failures": 1},
    ]


@pytest.mark.looptime
async def test_close_ends_all_polling_in_the_middle_of_it(house: House) -> None:
    house.rows = [_row(name) for name in NAMES]
    house.poll_seconds = 1_000.0
    await house.roster.refresh()
    await house.poll_for(1)
    await house.roster.close()
    assert (asyncio.all_tasks(), sorted(house.closed)) == ({asyncio.current_task()}, sorted(NAMES))
    await house.roster.close()


@pytest.mark.looptime
async def test_what_a_setting_held_open_is_closed_when_it_goes(house: House) -> None:
    house.rows = [_row("n1"), _row("n2")]
    await house.roster.refresh()
    await house.poll_for(1)
    house.rows = [_row("n2")]
    await house.roster.refresh()
    assert house.closed == ["n1"]


@pytest.mark.looptime
async def test_polls_that_take_time_to_end_are_not_forgotten_by_a_cancelled_refresh(house: House) -> None:
    house.rows = [_row("n1"), _row("n2")]
    house.poll_seconds, house.seconds_to_stop = 1_000.0, 10.0
    await house.roster.refresh()
    await house.poll_for(1)
    house.rows = []
    refreshing = asyncio.create_task(house.roster.refresh())
    await house.poll_for(1)
    refreshing.cancel()
    await asyncio.wait([refreshing])
    await house.roster.close()
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.looptime
async def test_store_that_fails_half_way_leaves_started_settings_under_control(house: House) -> None:
    house.rows = [_row(name) for name in NAMES]
    await house.break_registration_of("n2")
    with pytest.raises(StoreUnavailable):
        await house.roster.refresh()
    await house.poll_for(1)
    await house.execute("DROP TRIGGER broken")
    await house.roster.refresh()
    # n1 keeps its turns; the others begin now.
    assert await house.poll_for(5.5) == [("n2", 0.0), ("n3", 0.01), ("n1", 4.0), ("n2", 5.0), ("n3", 5.01)]
    await house.roster.close()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_row_with_half_a_character_does_not_spoil_all_settings(house: House) -> None:
    house.rows = [_row("n1", NOTE="\ud800"), _row("n2")]
    await house.roster.refresh()
    await asyncio.sleep(0)
    assert [setting.row.get("NOTE") for setting in house.made] == ["\ud800", None]


@pytest.mark.parametrize(
    ("err", "code"),
    [
        (ExastroUnavailable(Text("Exastro answered 499 499-00201: x"), reason=Reason.HTTP_STATUS), "AGT-10010"),
        (ExastroRejected(Text("Exastro answered 400 400-00002"), reason=Reason.REFUSED), "AGT-10010"),
        (ExastroUnavailable(Text("Exastro: no connection"), reason=Reason.UNREACHABLE), "AGT-00004"),
        (StoreUnavailable(Text("no space is left"), reason=Reason.STORE_FULL), "AGT-10027"),
        (StoreDamaged(Text("damaged"), reason=Reason.STORE_DAMAGED), "AGT-10027"),
        (ValueError("Exastro answered"), "AGT-00004"),
    ],
    ids=["later", "refused", "unreachable", "store full", "store damaged", "unexpected"],
)
def test_failed_fetch_has_the_code_of_its_event(err: Exception, code: str) -> None:
    assert refresh_code(err) == code
