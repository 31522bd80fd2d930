"""What the probes, /status.json and the page say, without a server."""

import asyncio
import json
import sqlite3
import threading
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from exactly_once import Bench, usable
from ita_ag_oase.agent.endpoints import Endpoints
from ita_ag_oase.agent.overview import Overview
from ita_ag_oase.clock import SteadyClock
from ita_ag_oase.errors import Reason, SourceUnavailable, StoreUnavailable
from ita_ag_oase.observability.logs import MASK, Redactor
from ita_ag_oase.settings import Settings
from ita_ag_oase.status import Phase
from ita_ag_oase.text import verbatim

SECRET = "s3cr3t-t0ken"
LEAKY = SourceUnavailable(verbatim(f"http://source/?token={SECRET}: no answer"), reason=Reason.TIMEOUT)


class House:
    """The endpoints of an agent with an open store."""

    def __init__(self, bench: Bench, settings: Settings) -> None:
        self.bench = bench
        self.health = bench.health
        self.redactor = Redactor()
        self.overview = Overview(settings, self.health)
        self._routes = Endpoints(settings, self.overview, self.redactor).routes

    async def ask(self, path: str) -> tuple[int, str]:
        """Return status and body of an answer."""
        answer = await self._routes[path]("")
        return answer.status, answer.body.decode()

    async def status(self) -> Any:
        """Return what /status.json tells."""
        return json.loads((await self.ask("/status.json"))[1])


def _settings(folder: Path, **others: Any) -> Settings:
    return Settings(
        exastro_url="http://platform-auth:8000/path",
        exastro_organization_id="org",
        exastro_workspace_id="ws",
        exastro_username="user",
        exastro_password="password",
        event_collection_settings_names=("n1",),
        storagepath=folder,
        **others,
    )


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    settings = _settings(tmp_path)
    bench = Bench(tmp_path)
    bench._path = settings.store_path
    async with bench:
        house = House(bench, settings)
        async with house.overview.over(bench.store, SteadyClock(wall=lambda: bench.now, elapsed=lambda: bench.now)):
            yield house


def _close(house: House) -> None:
    """Let it be as before the store is open."""
    house.overview._figures = house.overview._pulse = None


class TestLivez:
    async def test_an_agent_whose_store_answers_is_alive(self, house: House) -> None:
        assert await house.ask("/livez") == (200, "ok\n")

    async def test_so_is_one_without_an_open_store(self, house: House) -> None:
        _close(house)
        assert await house.ask("/livez") == (200, "ok\n")

    async def test_so_is_one_whose_store_answers_with_an_error(self, house: House) -> None:
        await house.bench.query("PRAGMA busy_timeout = 0")
        with closing(sqlite3.connect(house.bench._path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreUnavailable, match="locked by another program"):
                await house.bench.store.answer()
            assert await house.ask("/livez") == (200, "ok\n")

    @pytest.mark.looptime
    async def test_one_whose_store_is_silent_for_a_minute_is_not_until_it_answers(self, house: House) -> None:
        may_go_on = threading.Event()
        busy = asyncio.create_task(house.bench.store._database.run(lambda _: may_go_on.wait(60)))
        await asyncio.sleep(0)
        assert await house.ask("/livez") == (200, "ok\n")
        await asyncio.sleep(60)
        told = (503, "the store has not answered for 61 seconds: check its volume\n")
        assert await house.ask("/livez") == told
        may_go_on.set()
        await busy
        assert house.overview._pulse is not None
        assert house.overview._pulse._asking is not None
        await house.overview._pulse._asking
        assert await house.ask("/livez") == (200, "ok\n")


class TestReadyz:
    @pytest.mark.parametrize(
        ("phase", "told"),
        [
            (Phase.STARTING, "the agent is starting\n"),
            (
                Phase.WAITING_FOR_STORE,
                "another agent uses the store: this one takes over when that one ends\n",
            ),
            (Phase.RUNNING, "the settings are not known yet: Exastro has not told them, and none are kept\n"),
            (Phase.STOPPING, "the agent is stopping\n"),
        ],
        ids=str,
    )
    async def test_it_says_what_is_waited_for(self, house: House, phase: Phase, told: str) -> None:
        house.health.phase = phase
        assert await house.ask("/readyz") == (503, told)

    async def test_it_says_how_many_first_polls_are_missing_until_none_is(self, house: House) -> None:
        house.health.phase = Phase.RUNNING
        for name in ("n1", "n2"):
            house.health.source_started(name, is_mail=False)
        house.health.keep_sources(["n1", "n2"])
        told = [await house.ask("/readyz")]
        for name in ("n1", "n2"):
            house.health.poll_succeeded(name)
            told.append(await house.ask("/readyz"))
        assert told == [
            (503, "the first polls of 2 sources have not ended yet\n"),
            (503, "the first poll of 1 source has not ended yet\n"),
            (200, "ok\n"),
        ]

    async def test_one_that_stands_by_is_ready_and_both_say_which_part_they_have(self, house: House) -> None:
        house.health.election_joined("ns/lease", "a_1")
        house.health.stand_by()
        told = [await house.ask("/readyz")]
        house.health.term_begun(1)
        house.health.phase = Phase.STARTING
        told.append(await house.ask("/readyz"))
        house.health.phase = Phase.RUNNING
        house.health.keep_sources([])
        told.append(await house.ask("/readyz"))
        assert told == [(200, "ok: standby\n"), (503, "the agent is starting\n"), (200, "ok: leader\n")]


class TestStatus:
    async def test_the_election_is_told_without_secrets(self, house: House) -> None:
        house.redactor.add(SECRET)
        house.health.election_joined("ns/lease", "a_1")
        house.health.holder_seen("b_2")
        house.health.lease_failed(LEAKY, "AGT-10001")
        election = (await house.status())["election"]
        assert election.pop("since") == election["trouble"]["since"] == election["trouble"].pop("latest")
        assert election == {
            "lease": "ns/lease",
            "identity": "a_1",
            "holder": "b_2",
            "term": None,
            "trouble": {
                "code": "AGT-10001",
                "reason": "timeout",
                "detail": f"http://source/?token={MASK}: no answer",
                "since": house.bench.now,
                "failures": 1,
            },
            "is_working": False,
        }

    async def test_ages_are_those_of_the_agents_own_clock(self, house: House) -> None:
        house.health.source_started("n1", is_mail=False)
        await house.bench.poll("n1", [usable(1)])
        house.bench.now += 90
        status = await house.status()
        assert status["outbox"]["oldest_age_seconds"] == 90.0
        assert [source["lag_seconds"] for source in status["sources"]] == [90.0]

    async def test_it_is_read_anew_after_a_few_seconds_only(
        self, house: House, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        time = asyncio.get_running_loop().time
        waiting = [(await house.status())["outbox"]["waiting_events"]]
        await house.bench.poll("n1", [usable(1)])
        for seconds in (4.0, 6.0):
            monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda seconds=seconds: time() + seconds)
            waiting.append((await house.status())["outbox"]["waiting_events"])
        assert waiting == [0, 0, 1]

    async def test_without_a_store_it_tells_the_rest(self, house: House) -> None:
        _close(house)
        status = await house.status()
        assert (status["outbox"], status["store"], status["ledger_imbalance"]) == (None, None, None)

    async def test_the_url_of_exastro_is_told_without_its_path(self, house: House) -> None:
        assert (await house.status())["exastro"]["url"] == "http://platform-auth:8000"

    @pytest.mark.parametrize("path", ["/status.json", "/", "/still", "/metrics"])
    async def test_no_secret_is_told(self, house: House, path: str) -> None:
        house.redactor.add(SECRET)
        house.health.source_started("n1", is_mail=False)
        house.health.poll_failed("n1", LEAKY, "AGT-10029")
        house.health.settings_failed(LEAKY, "AGT-00004")
        house.health.store_failed(LEAKY, "AGT-10027")
        assert SECRET not in (await house.ask(path))[1]

    async def test_what_failed_is_told_without_its_secrets(self, house: House) -> None:
        house.redactor.add(SECRET)
        house.health.store_failed(LEAKY, "AGT-10027")
        assert (await house.status())["store"]["trouble"]["detail"] == f"http://source/?token={MASK}: no answer"
