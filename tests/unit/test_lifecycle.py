"""The daemon as a whole in one process: built, run, told to stop, taken down."""

import asyncio
import fcntl
import json
import shutil
import sqlite3
import threading
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import fields
from pathlib import Path
from typing import Any
from unittest.mock import ANY
from urllib.parse import parse_qs

import httpx
import pytest
from pytest_httpx import HTTPXMock
from structlog.testing import capture_logs

from ita_ag_oase import __version__
from ita_ag_oase.agent import lifecycle
from ita_ag_oase.agent.leadership import Turn, open_leadership
from ita_ag_oase.agent.lifecycle import Agent
from ita_ag_oase.agent.storage import hold_lock
from ita_ag_oase.environment import load
from ita_ag_oase.errors import ConfigError, StoreDamaged, TermEnded
from ita_ag_oase.exastro.secrets import SecretColumns
from ita_ag_oase.model import Term
from ita_ag_oase.observability.health import Health
from ita_ag_oase.observability.logs import MASK, Redactor
from ita_ag_oase.settings import Settings, Variables
from ita_ag_oase.status import Phase
from ita_ag_oase.store import schema, terms
from ita_ag_oase.store.access import read_term
from ita_ag_oase.store.database import StoreLock
from ita_ag_oase.text import Text
from lease_api import NAME, NAMESPACE, Changed, Shelf
from support import in_english, self_signed

API_SERVER = "10.0.0.1"


class Exastro:
    """Exastro and its sources as the agent's HTTP clients see them."""

    def __init__(self, settings: Settings) -> None:
        self.lease: Callable[[httpx.Request], httpx.Response] = lambda _: httpx.Response(404)
        self.rows: list[dict[str, Any]] = []
        self.listed: list[dict[str, Any]] = []
        self.rotated: str | None = None
        self.before_token: Callable[[], Awaitable[object]] | None = None
        self.before_fetch: Callable[[], Awaitable[object]] | None = None
        self.before_post: Callable[[], Awaitable[object]] | None = None
        self.token_requests: list[dict[str, list[str]]] = []
        self.authorizations: set[str | None] = set()
        self.fetch_times: list[float] = []
        self.poll_times: list[float] = []
        self.post_times: list[float] = []
        self.offered: list[bytes] = []
        self.posts: list[Any] = []
        self.is_renewing = asyncio.Event()
        self.is_posting = asyncio.Event()
        self.has_posted = asyncio.Event()
        self.has_fetched = asyncio.Event()
        self._secrets = SecretColumns(settings.exastro_organization_id, settings.exastro_workspace_id)

    @property
    def event_ids(self) -> list[str]:
        """The ids of all events that were posted and answered."""
        groups = [group for post in self.posts for group in post["events"]]
        return [event["_exastro_oase_event_id"] for group in groups for event in group["event"]]

    async def handle(self, request: httpx.Request) -> httpx.Response:
        if request.url.host == API_SERVER:
            return self.lease(request)
        if request.url.host == "source":
            self.poll_times.append(_time())
            return _as_json(self.listed)
        if request.url.path.endswith("/token"):
            return await self._token(request)
        self.authorizations.add(request.headers.get("Authorization"))
        if request.url.path.endswith("/settings"):
            return await self._settings()
        return await self._post(request)

    async def _token(self, request: httpx.Request) -> httpx.Response:
        self.token_requests.append(parse_qs(request.content.decode()))
        self.is_renewing.set()
        await _maybe(self.before_token)
        return _as_json({"access_token": "access-token", "expires_in": 300, "refresh_token": self.rotated})

    async def _settings(self) -> httpx.Response:
        self.fetch_times.append(_time())
        self.has_fetched.set()
        await _maybe(self.before_fetch)
        return _success([{**row, "AUTH_TOKEN": self._secrets.encrypt("s3cr3t")} for row in self.rows])

    async def _post(self, request: httpx.Request) -> httpx.Response:
        self.offered.append(request.content)
        self.post_times.append(_time())
        self.is_posting.set()
        await _maybe(self.before_post)
        self.posts.append(json.loads(request.content))
        self.has_posted.set()
        return _success([])


def _time() -> float:
    return asyncio.get_running_loop().time()


async def _maybe(step: Callable[[], Awaitable[object]] | None) -> None:
    if step is not None:
        await step()


async def _never() -> None:
    await asyncio.Event().wait()


def _as_json(value: Any) -> httpx.Response:
    return httpx.Response(200, stream=httpx.ByteStream(json.dumps(value).encode()))


def _success(data: Any) -> httpx.Response:
    return _as_json({"result": "000-00000", "message": "SUCCESS", "data": data})


def _row(name: str) -> dict[str, Any]:
    return {
        "EVENT_COLLECTION_SETTINGS_ID": f"id of {name}",
        "EVENT_COLLECTION_SETTINGS_NAME": name,
        "CONNECTION_METHOD_ID": "1",
        "REQUEST_METHOD_ID": "1",
        "URL": f"http://source/{name}",
        "RESPONSE_LIST_FLAG": "1",
        "EVENT_ID_KEY": "id",
        "TTL": 60,
    }


MakeSettings = Callable[..., Settings]


@pytest.fixture
def make_settings(tmp_path: Path) -> Iterator[MakeSettings]:
    """Makes the settings of an agent that is alone with its organization."""
    organization = f"test-{uuid.uuid4().hex[:20]}"
    values: dict[str, Any] = {
        # Nothing of them comes from the environment of who runs the tests.
        **{field.name: field.default for field in fields(Variables)},
        "exastro_url": "http://exastro",
        "exastro_organization_id": organization,
        "exastro_workspace_id": "ws1",
        "exastro_username": "user",
        "exastro_password": "passw0rd",
        "event_collection_settings_names": ("n1",),
        "agent_name": "agent",
        "agent_id": "agent-id",
        "storagepath": tmp_path,
        "execute_interval": 3,
        "iteration": 10,
        "status_port": 0,
    }

    def make(**others: Any) -> Settings:
        return load(**{**values, **others})

    yield make
    shutil.rmtree(Path("/tmp") / organization, ignore_errors=True)


@pytest.fixture
def settings(make_settings: MakeSettings) -> Settings:
    return make_settings()


@pytest.fixture
def exastro(settings: Settings, httpx_mock: HTTPXMock) -> Exastro:
    exastro = Exastro(settings)
    httpx_mock.add_callback(exastro.handle, is_reusable=True, is_optional=True)
    return exastro


@pytest.fixture
def _instant_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the loop stand still while the store's thread works, so that looptime lets no time pass meanwhile."""

    def wrap_future(future: Future[Any]) -> asyncio.Future[Any]:
        wait([future], timeout=60)
        return asyncio.futures.wrap_future(future)

    monkeypatch.setattr(asyncio, "wrap_future", wrap_future)


@asynccontextmanager
async def _running(settings: Settings) -> AsyncIterator[Agent]:
    """Run the agent, and see that nothing is left of it afterwards."""
    agent = Agent(settings, Redactor(), elapsed=asyncio.get_running_loop().time)
    task = asyncio.create_task(agent.run())
    try:
        yield agent
    finally:
        agent.stop.set()
        await task
    _assert_nothing_is_left(settings)


def _assert_nothing_is_left(settings: Settings) -> None:
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert [thread.name for thread in threading.enumerate() if thread.name == "store"] == []
    lock = StoreLock(settings.store_path)
    assert lock.try_acquire()
    lock.release()


async def _until(condition: Callable[[], object]) -> None:
    """Return once the condition holds. Raises AssertionError where it does not for long."""
    for _ in range(10_000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not happen")


async def test_events_go_from_source_to_exastro(settings: Settings, exastro: Exastro) -> None:
    exastro.rows, exastro.listed = [_row("n1")], [{"id": 1}, {"id": "b"}]
    async with _running(settings):
        await exastro.has_posted.wait()
    assert exastro.event_ids == ["1", "b"]
    ((group,),) = [post["events"] for post in exastro.posts]
    assert group.pop("fetched_time") >= group.pop("event")[0]["_exastro_fetched_time"]
    assert group == {"event_collection_settings_id": "id of n1", "agent": {"name": "agent-id", "version": __version__}}
    assert exastro.authorizations == {"Basic dXNlcjpwYXNzdzByZA=="}


async def test_refresh_token_wins_over_user_and_password(make_settings: MakeSettings, exastro: Exastro) -> None:
    settings = make_settings(exastro_refresh_token="refresh-token")
    async with _running(settings):
        await exastro.has_fetched.wait()
    assert exastro.token_requests == [
        {
            "client_id": [f"_{settings.exastro_organization_id}-api"],
            "grant_type": ["refresh_token"],
            "refresh_token": ["refresh-token"],
        }
    ]
    assert exastro.authorizations == {"Bearer access-token"}


async def test_start_and_end_are_told(settings: Settings, exastro: Exastro) -> None:
    exastro.rows = [_row("n1")]
    with capture_logs() as logs:
        async with _running(settings):
            await _until(lambda: "settings_applied" in [line["event"] for line in logs])
    assert [line for line in logs if line["log_level"] != "debug"] == [
        {
            "log_level": "info",
            "event": "agent_started",
            "version": __version__,
            "exastro": "http://exastro",
            "agent": "agent-id",
            "settings": ("n1",),
            "interval_seconds": 3,
            "store": str(settings.store_path),
            "waiting_events": 0,
        },
        {"log_level": "info", "event": "settings_applied", "polled": ["n1"], "started": 1, "stopped": 0},
        {"log_level": "info", "event": "agent_stopping"},
        {"log_level": "info", "event": "agent_stopped"},
    ]


async def test_unverified_connections_are_told(make_settings: MakeSettings, exastro: Exastro) -> None:
    with capture_logs() as logs:
        async with _running(make_settings(exastro_tls_verify=False, source_tls_verify=False)):
            await exastro.has_fetched.wait()
    warning = {"log_level": "warning", "event": "tls_not_verified"}
    assert [line for line in logs if line["log_level"] == "warning"] == [
        {**warning, "variable": "EXASTRO_TLS_VERIFY"},
        {**warning, "variable": "SOURCE_TLS_VERIFY"},
    ]


async def test_configured_secrets_are_masked_from_the_start(make_settings: MakeSettings) -> None:
    redactor = Redactor()
    agent = Agent(make_settings(exastro_refresh_token="refresh-token"), redactor)
    agent.stop.set()
    await agent.run()
    assert redactor.redact("passw0rd refresh-token") == f"{MASK} {MASK}"


@pytest.mark.looptime
@pytest.mark.usefixtures("_instant_store")
async def test_settings_are_fetched_anew_after_iteration_intervals(settings: Settings, exastro: Exastro) -> None:
    async with _running(settings):
        await asyncio.sleep(100)
    gaps = [later - earlier for earlier, later in zip(exastro.fetch_times, exastro.fetch_times[1:], strict=False)]
    assert gaps == pytest.approx([30.0, 30.0, 30.0])


@pytest.mark.looptime
@pytest.mark.usefixtures("_instant_store")
async def test_settings_are_fetched_at_once_when_asked(settings: Settings, exastro: Exastro) -> None:
    async with _running(settings) as agent:
        for count in (1, 2, 3):
            await asyncio.sleep(4)
            assert len(exastro.fetch_times) == count
            agent.refresh.set()
            await asyncio.sleep(0.1)
            assert len(exastro.fetch_times) == count + 1


@pytest.mark.looptime
@pytest.mark.usefixtures("_instant_store")
async def test_settings_are_fetched_within_an_interval_when_their_file_was_deleted(
    settings: Settings, exastro: Exastro
) -> None:
    async with _running(settings):
        await asyncio.sleep(4)
        settings.settings_file.unlink()
        await asyncio.sleep(3)
        assert len(exastro.fetch_times) == 2
        await asyncio.sleep(10)
    assert (len(exastro.fetch_times), settings.settings_file.exists()) == (2, True)


@pytest.mark.looptime
@pytest.mark.usefixtures("_instant_store")
async def test_asking_while_settings_are_fetched_has_them_fetched_again(settings: Settings, exastro: Exastro) -> None:
    may_answer = asyncio.Event()
    exastro.before_fetch = may_answer.wait
    async with _running(settings) as agent:
        await exastro.has_fetched.wait()
        agent.refresh.set()
        may_answer.set()
        await asyncio.sleep(5)
    assert len(exastro.fetch_times) == 2


@pytest.mark.looptime
@pytest.mark.usefixtures("_instant_store")
async def test_new_events_are_delivered_without_waiting_for_the_next_round(
    settings: Settings, exastro: Exastro
) -> None:
    exastro.rows, exastro.listed = [_row("n1")], [{"id": 1}]

    async def take_a_second() -> None:
        await asyncio.sleep(1)

    # So that the polls come a second after the rounds of delivery.
    exastro.before_fetch = take_a_second
    async with _running(settings):
        await exastro.has_posted.wait()
    assert exastro.post_times == pytest.approx(exastro.poll_times)


@pytest.mark.looptime
@pytest.mark.usefixtures("_instant_store")
async def test_request_in_flight_may_end_after_the_signal(settings: Settings, exastro: Exastro) -> None:
    async def take_four_seconds() -> None:
        await asyncio.sleep(4)

    exastro.rows, exastro.listed = [_row("n1")], [{"id": 1}]
    exastro.before_post = take_four_seconds
    async with _running(settings) as agent:
        await exastro.is_posting.wait()
        told_at = _time()
        agent.stop.set()
    assert _time() - told_at == pytest.approx(4)
    assert exastro.event_ids == ["1"]
    async with _running(settings):
        await asyncio.sleep(10)
    assert exastro.event_ids == ["1"]


@pytest.mark.looptime
@pytest.mark.usefixtures("_instant_store")
async def test_request_that_does_not_end_is_abandoned_and_sent_again_unchanged_at_the_next_start(
    settings: Settings, exastro: Exastro
) -> None:
    exastro.rows, exastro.listed = [_row("n1")], [{"id": 1}]
    exastro.before_post = _never
    async with _running(settings) as agent:
        await exastro.is_posting.wait()
        told_at = _time()
        agent.stop.set()
    assert _time() - told_at == pytest.approx(5)
    exastro.before_post = None
    async with _running(settings):
        await exastro.has_posted.wait()
    assert exastro.offered[0] == exastro.offered[1]
    assert exastro.event_ids == ["1"]


@pytest.mark.looptime
@pytest.mark.usefixtures("_instant_store")
async def test_agent_ends_at_once_while_it_waits_for_exastro_to_come_back(settings: Settings, exastro: Exastro) -> None:
    async def break_down() -> None:
        raise httpx.ReadError("reset")

    exastro.before_fetch = break_down
    async with _running(settings) as agent:
        # Within the wait of 32 seconds.
        await asyncio.sleep(40)
        told_at = _time()
        agent.stop.set()
    assert (_time(), len(exastro.fetch_times)) == (told_at, 7)


@pytest.mark.looptime
@pytest.mark.usefixtures("_instant_store")
async def test_renewal_of_a_token_may_end_after_the_signal(make_settings: MakeSettings, exastro: Exastro) -> None:
    async def take_a_second() -> None:
        await asyncio.sleep(1)

    settings = make_settings(exastro_refresh_token="refresh-token")
    exastro.before_token, exastro.rotated = take_a_second, "rotated-token"
    async with _running(settings) as agent:
        await exastro.is_renewing.wait()
        agent.stop.set()
    exastro.before_token = None
    async with _running(settings):
        await exastro.has_fetched.wait()
    assert [form["refresh_token"] for form in exastro.token_requests] == [["refresh-token"], ["rotated-token"]]


async def test_nothing_is_left_of_an_agent_that_is_cancelled(settings: Settings, exastro: Exastro) -> None:
    exastro.rows, exastro.listed = [_row("n1")], [{"id": 1}]
    exastro.before_post = _never
    task = asyncio.create_task(Agent(settings, Redactor()).run())
    await exastro.is_posting.wait()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    _assert_nothing_is_left(settings)


@pytest.mark.parametrize(
    ("field", "variable"), [("exastro_ca_file", "EXASTRO_CA_FILE"), ("source_ca_file", "SOURCE_CA_FILE")]
)
async def test_nothing_is_left_of_an_agent_that_cannot_start(
    make_settings: MakeSettings, tmp_path: Path, field: str, variable: str
) -> None:
    no_certificate = tmp_path / "ca.pem"
    no_certificate.write_text("no certificate")
    settings = make_settings(**{field: no_certificate})
    with pytest.raises(ConfigError) as caught:
        await Agent(settings, Redactor()).run()
    problem = Text("{file} holds no certificate; write the path of a PEM file", file=no_certificate)
    assert caught.value.problems == [(variable, problem)]
    _assert_nothing_is_left(settings)


async def test_locks_that_do_not_work_are_told(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    with capture_logs() as logs:
        async with _running(settings):
            await _until(lambda: any(line["event"] == "agent_started" for line in logs))
    (told,) = (line for line in logs if line["log_level"] == "error")
    assert told["event"] == "store_lock_ineffective"
    assert told["path"] == str(settings.store_path)


async def test_a_store_that_is_found_damaged_ends_the_agent_with_what_to_do(settings: Settings) -> None:
    agent = Agent(settings, Redactor())
    running = asyncio.create_task(agent.run())
    with capture_logs() as logs:
        await _until(lambda: any(line["event"] == "agent_started" for line in logs))
        _damage(settings.store_path)
        agent._news.set()
        with pytest.raises(StoreDamaged, match="start the agent again"):
            await running
    _assert_nothing_is_left(settings)
    with capture_logs() as logs:
        async with _running(settings):
            await _until(lambda: any(line["event"] == "agent_started" for line in logs))
    assert [line["event"] for line in logs if line["log_level"] == "error"] == ["store_repaired"]


async def test_an_agent_whose_store_another_one_has_taken_ends_and_says_so(settings: Settings) -> None:
    agent = Agent(settings, Redactor())
    running = asyncio.create_task(agent.run())
    with capture_logs() as logs:
        await _until(lambda: any(line["event"] == "agent_started" for line in logs))
        _begin_another_term(settings.store_path)
        agent._news.set()
        with pytest.raises(TermEnded, match="term 1 of this agent has ended: other has begun term 2"):
            await running
    _assert_nothing_is_left(settings)


def _begin_another_term(store: Path) -> None:
    with closing(sqlite3.connect(store)) as connection, connection:
        connection.execute("UPDATE terms SET number = 2, holder = 'other'")


def _damage(store: Path) -> None:
    with closing(sqlite3.connect(store)) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        (version,) = connection.execute("PRAGMA schema_version").fetchone()
        connection.execute("UPDATE sqlite_schema SET rootpage = 5000 WHERE name = 'groups'")
        # Tells other connections to read it anew.
        connection.execute(f"PRAGMA schema_version = {version + 1}")
        connection.commit()


async def test_a_store_of_a_newer_version_ends_the_start(settings: Settings) -> None:
    settings.store_path.parent.mkdir(parents=True)
    with closing(sqlite3.connect(settings.store_path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(StoreDamaged, match="run the version that wrote it"):
        await Agent(settings, Redactor()).run()
    _assert_nothing_is_left(settings)


@pytest.mark.looptime
async def test_second_agent_on_a_store_waits_says_so_and_takes_over(settings: Settings) -> None:
    first = StoreLock(settings.store_path)
    assert first.try_acquire()
    began = _time()
    waits: list[float] = []
    async with AsyncExitStack() as stack:
        with capture_logs() as logs:
            holding = hold_lock(settings.store_path, asyncio.Event(), on_wait=lambda: waits.append(_time()))
            waiting = asyncio.create_task(stack.enter_async_context(holding))
            await asyncio.sleep(100)
            assert not waiting.done()
            first.release()
            await asyncio.sleep(2)
        assert (waiting.result(), waits) == (True, [began])
        assert not first.try_acquire()
    assert in_english(logs) == [
        {
            "log_level": "warning",
            "event": "store_in_use",
            "path": str(settings.store_path),
        }
    ]
    assert first.try_acquire()
    first.release()


@pytest.mark.looptime
async def test_second_agent_on_a_store_can_be_stopped_while_it_waits(settings: Settings) -> None:
    first = StoreLock(settings.store_path)
    assert first.try_acquire()
    agent = Agent(settings, Redactor())
    running = asyncio.create_task(agent.run())
    await asyncio.sleep(10.5)
    told_at = _time()
    agent.stop.set()
    await running
    assert (_time(), settings.store_path.exists()) == (told_at, False)
    first.release()


def test_adjusted_values_are_told_with_what_was_given_and_what_is_used(make_settings: MakeSettings) -> None:
    with capture_logs() as logs:
        lifecycle.tell_adjustments(make_settings(iteration=500, execute_interval=1, tz="Nowhere/City"))
    moved = {"log_level": "warning", "event": "value_adjusted"}
    assert in_english(logs) == [
        {**moved, "variable": "EXECUTE_INTERVAL", "given": 1, "used": 3},
        {**moved, "variable": "ITERATION", "given": 500, "used": 120},
        {
            "log_level": "warning",
            "event": "time_zone_unknown",
            "variable": "TZ",
            "given": "Nowhere/City",
            "used": "the system's own",
        },
    ]


def test_nothing_is_told_where_nothing_was_adjusted(make_settings: MakeSettings) -> None:
    with capture_logs() as logs:
        lifecycle.tell_adjustments(make_settings(tz="Asia/Tokyo"))
    assert logs == []


class TestElection:
    """An agent that works only while it holds the Lease."""

    @pytest.fixture
    def lease(self, exastro: Exastro) -> Shelf:
        """The Lease, which the agent's HTTP client finds at an API server."""
        shelf = Shelf()

        def answer(request: httpx.Request) -> httpx.Response:
            try:
                document = json.loads(request.content) if request.method == "PUT" else None
                return _as_json(shelf.write(document, "agent") if document else shelf.read())
            except Changed:
                return httpx.Response(409, stream=httpx.ByteStream(b"{}"))

        exastro.lease = answer
        return shelf

    @pytest.fixture
    def settings(self, make_settings: MakeSettings, tmp_path: Path) -> Settings:
        folder = tmp_path / "credentials"
        folder.mkdir()
        (folder / "token").write_text("token")
        (folder / "ca.crt").write_bytes(self_signed(tmp_path).read_bytes())
        return make_settings(
            leader_election="lease",
            lease_name=NAME,
            lease_namespace=NAMESPACE,
            lease_credentials=folder,
            kubernetes_service_host=API_SERVER,
            pod_name="pod-1",
        )

    @staticmethod
    def _held_by(shelf: Shelf, holder: str) -> None:
        spec = {"holderIdentity": holder, "leaseDurationSeconds": 15, "leaseTransitions": 7}
        shelf.put_back({**shelf.read(), "spec": spec})

    @pytest.mark.looptime
    @pytest.mark.usefixtures("_instant_store")
    async def test_one_that_stands_by_opens_no_store_and_asks_nobody(
        self, lease: Shelf, settings: Settings, exastro: Exastro
    ) -> None:
        self._held_by(lease, "other")
        agent = Agent(settings, Redactor(), elapsed=_time)
        task = asyncio.create_task(agent.run())
        await asyncio.sleep(10)
        assert (settings.store_path.exists(), exastro.fetch_times, lease.writes) == (False, [], [])
        assert agent._health.election is not None
        assert (agent._health.phase, agent._health.election.holder) == (Phase.STANDBY, "other")
        agent.stop.set()
        await task
        assert lease.writes == []

    @pytest.mark.looptime
    @pytest.mark.usefixtures("_instant_store")
    async def test_turns_come_and_go_in_one_process(self, lease: Shelf, settings: Settings, exastro: Exastro) -> None:
        exastro.rows, exastro.listed = [_row("n1")], [{"id": 1}]
        with capture_logs() as logs:
            async with _running(settings) as agent:
                await exastro.has_posted.wait()
                self._held_by(lease, "other")
                await asyncio.sleep(3)
                assert agent._health.phase is Phase.STANDBY
                polls, exastro.listed = len(exastro.poll_times), [{"id": 2}]
                await asyncio.sleep(10)
                assert len(exastro.poll_times) == polls
                exastro.has_posted.clear()
                await exastro.has_posted.wait()
        assert exastro.event_ids == ["1", "2"]
        told = [line for line in in_english(logs) if line["event"].startswith(("leader", "standby", "agent"))]
        assert [line["event"] for line in told] == [
            "standby_started",
            "leadership_won",
            "agent_started",
            "leadership_lost",
            "leadership_won",
            "agent_started",
            "agent_stopping",
            "leadership_released",
            "agent_stopped",
        ]
        facts = {"lease": f"{NAMESPACE}/{NAME}", "term": 1, "detail": "the Lease is held by other"}
        assert told[3] == {"event": "leadership_lost", "log_level": "warning", **facts}
        assert lease.holder == ""

    @pytest.mark.looptime
    @pytest.mark.usefixtures("_instant_store")
    async def test_the_lease_is_given_back_once_the_store_is_closed(
        self, lease: Shelf, settings: Settings, exastro: Exastro
    ) -> None:
        exastro.rows, exastro.listed = [_row("n1")], [{"id": 1}]
        exastro.before_post = _never
        async with _running(settings) as agent:
            await exastro.is_posting.wait()
            agent.stop.set()
            # As long as a request may take to end.
            await asyncio.sleep(4)
            assert lease.holder.startswith("pod-1_")
        assert lease.holder == ""

    @pytest.mark.looptime
    @pytest.mark.usefixtures("_instant_store")
    async def test_a_post_under_way_is_broken_off_where_the_term_ends(
        self, lease: Shelf, settings: Settings, exastro: Exastro
    ) -> None:
        exastro.rows, exastro.listed = [_row("n1")], [{"id": 1}]
        exastro.before_post = _never
        async with _running(settings) as agent:
            await exastro.is_posting.wait()
            self._held_by(lease, "other")
            await asyncio.sleep(2)
            assert agent._health.phase is Phase.STANDBY
            assert read_term(settings.store_path) == Term(1, ANY, f"{NAMESPACE}/{NAME}", ANY)
        assert exastro.posts == []

    @pytest.mark.looptime
    @pytest.mark.usefixtures("_instant_store")
    async def test_one_that_slept_beyond_its_term_asks_exastro_for_nothing_when_it_wakes(
        self, lease: Shelf, settings: Settings, exastro: Exastro
    ) -> None:
        slept = [0.0]
        loop = asyncio.get_running_loop()
        agent = Agent(settings, Redactor(), elapsed=lambda: loop.time() + slept[0])
        task = asyncio.create_task(agent.run())
        await exastro.has_fetched.wait()
        await asyncio.sleep(0.1)
        fetches = list(exastro.fetch_times)
        exastro.lease = lambda _: httpx.Response(500, stream=httpx.ByteStream(b"{}"))
        slept[0] = 3_600.0
        # Due at once, while the next renewal, at which the end of the term is noticed, is not.
        agent.refresh.set()
        await asyncio.sleep(0.5)
        assert (agent._health.phase, exastro.fetch_times) == (Phase.RUNNING, fetches)
        await asyncio.sleep(2)
        assert (agent._health.phase, exastro.fetch_times) == (Phase.STANDBY, fetches)
        agent.stop.set()
        await task

    @pytest.mark.looptime
    @pytest.mark.usefixtures("_instant_store")
    async def test_a_store_that_another_term_has_begun_in_ends_the_turn(
        self, lease: Shelf, settings: Settings, exastro: Exastro
    ) -> None:
        with capture_logs() as logs:
            async with _running(settings):
                await exastro.has_fetched.wait()
                with closing(sqlite3.connect(settings.store_path)) as other, other:
                    other.execute("UPDATE terms SET number = 9, holder = 'other'")
                await _until(lambda: "leadership_lost" in [line["event"] for line in logs])
                await asyncio.sleep(10)
                # Or two with different Leases would take the store from each other all the time.
                assert lease.holder == ""
                await _until(lambda: [line["event"] for line in logs].count("agent_started") == 2)
        (lost,) = [line for line in in_english(logs) if line["event"] == "leadership_lost"]
        assert lost["detail"] == "another agent has begun a later term in the store"
        # Above the one that the store knows.
        assert [line["term"] for line in logs if line["event"] == "leadership_won"] == [1, 10]

    @pytest.mark.looptime
    @pytest.mark.usefixtures("_instant_store")
    @pytest.mark.parametrize(("guard", "seconds"), [(f"{NAMESPACE}/{NAME}", 15), ("", 0), ("monitoring/another", 0)])
    async def test_a_lease_without_a_term_that_the_store_has_is_left_to_who_may_lead_by_it(
        self, lease: Shelf, settings: Settings, exastro: Exastro, guard: str, seconds: int
    ) -> None:
        settings.store_path.parent.mkdir(parents=True)
        with closing(schema.connect(settings.store_path)) as connection, schema.transaction(connection):
            terms.write(connection, Term(3, "other", guard, 0))
        async with _running(settings):
            await exastro.has_fetched.wait()
            assert _time() == pytest.approx(seconds, abs=1)
            assert read_term(settings.store_path) == Term(4, ANY, f"{NAMESPACE}/{NAME}", ANY)

    @pytest.mark.looptime
    async def test_work_that_is_broken_off_for_a_later_term_has_no_right_any_more(
        self, lease: Shelf, settings: Settings
    ) -> None:
        stop = asyncio.Event()
        rights: list[bool] = []

        async def work(turn: Turn) -> None:
            rights.append(turn.is_at_work())
            if len(rights) > 1:
                stop.set()
                return
            turn.on_term_ended()
            try:
                await _never()
            finally:
                rights.append(turn.is_at_work())

        async with open_leadership(settings, Health(), _time) as leadership:
            assert await leadership.take_turns(work, stop) is None
        assert (rights, lease.holder) == ([True, False, True], "")

    @pytest.mark.looptime
    @pytest.mark.usefixtures("_instant_store")
    async def test_a_store_that_cannot_be_used_is_left_to_others_for_a_while(
        self, lease: Shelf, settings: Settings, exastro: Exastro
    ) -> None:
        settings.store_path.parent.parent.mkdir(parents=True)
        settings.store_path.parent.write_text("no folder")
        with capture_logs() as logs:
            async with _running_without_store(settings):
                await _until(lambda: "leadership_lost" in [line["event"] for line in logs])
                await asyncio.sleep(10)
                assert lease.holder == ""
                settings.store_path.parent.unlink()
                await exastro.has_fetched.wait()
        assert [line["term"] for line in logs if line["event"] == "leadership_won"] == [1, 2]


@asynccontextmanager
async def _running_without_store(settings: Settings) -> AsyncIterator[None]:
    agent = Agent(settings, Redactor(), elapsed=asyncio.get_running_loop().time)
    task = asyncio.create_task(agent.run())
    yield
    agent.stop.set()
    await task
