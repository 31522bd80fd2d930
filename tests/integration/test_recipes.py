"""The recipes of the page about sources, asked with as the agent asks, of tools that keep to their manuals."""

import json
from collections.abc import AsyncIterator, Callable
from datetime import UTC
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from structlog.testing import capture_logs

from ita_ag_oase.clock import SteadyClock
from ita_ag_oase.collection import Collector
from ita_ag_oase.demo.exastro import ORGANIZATION, WORKSPACE, setting_row
from ita_ag_oase.demo.mailbox import PASSWORD, USERNAME, Mailbox, MailServer
from ita_ag_oase.errors import Reason, SourceRejected
from ita_ag_oase.exastro import wire
from ita_ag_oase.exastro.secrets import SecretColumns
from ita_ag_oase.model import Settlement
from ita_ag_oase.observability.health import Health
from ita_ag_oase.sources.http import HttpClients
from ita_ag_oase.sources.source import open_source
from ita_ag_oase.store.outbox import BatchLimits
from ita_ag_oase.store.saving import SavingLimits
from ita_ag_oase.store.store import Store
from ita_ag_oase.transport import Proxies, tls_context
from recipes import PAGE, Recipe, recipe, row_at
from tools import TOKEN, Alerts, RestApi, Tool, Zabbix

# The poll of the page's examples, and how long before it the agent has first seen the setting.
POLL = 1_767_225_600
INTERVAL = 10
LIMITS = BatchLimits(events=1_000, bytes=1_000_000, groups=100)
SECRETS = SecretColumns(ORGANIZATION, WORKSPACE)
TLS = tls_context(verify=True, ca_file=None)

PROBLEMS, PROBLEMS_6_0 = recipe("Zabbix 7.0: problems"), recipe("Zabbix 6.0: problems")
EVENTS = recipe("Zabbix: hosts and recoveries")
ALERTMANAGER, GRAFANA, PROMETHEUS = recipe("Alertmanager"), recipe("Grafana"), recipe("Prometheus")
REST_API = recipe("Any REST API")
REFUSAL = recipe("When Zabbix refuses")
FILTERS = frozenset({"active", "silenced", "inhibited"})


class Polls:
    """Polls one setting the way the agent does, at moments of the test's choosing."""

    def __init__(self, store: Store, clients: HttpClients) -> None:
        self._store = store
        self._clients = clients
        self._now = float(POLL - INTERVAL)
        self._collector: Collector

    async def begin(self, tool: Tool, columns: dict[str, str | None]) -> None:
        """Take up the setting of a recipe, with the tool in place of the page's host."""
        await self.begin_with(row_at(tool.url, columns, AUTH_TOKEN=TOKEN))

    async def begin_with(self, row: dict[str, Any]) -> None:
        """Take up a row with its secrets in clear."""
        encrypted = {**row, **{column: SECRETS.encrypt(row[column]) for column in wire.SECRET_COLUMNS}}
        setting = wire.setting_of(encrypted, SECRETS)
        await self._store.register(setting.id, setting.name, int(self._now))
        source = open_source(setting, self._clients, make_tls=lambda: TLS, max_bytes=1_000_000, zone=UTC)
        clock = SteadyClock(wall=lambda: self._now, elapsed=lambda: self._now)
        self._collector = Collector(setting, source, self._store, clock, Health(now=clock.now), agent_name="agent")

    async def poll(self) -> list[dict[str, Any]]:
        """Poll an interval later and return the events that go to Exastro."""
        self._now += INTERVAL
        await self._collector.collect()
        batch = await self._store.next_batch(LIMITS, int(self._now))
        if batch is None:
            return []
        events = [json.loads(b"[" + b",".join(group.pieces) + b"]") for group in batch.groups]
        settlement = Settlement(saved=frozenset(group.number for group in batch.groups))
        await self._store.settle(batch, settlement, int(self._now))
        return [event for group in events for event in group]

    async def close(self) -> None:
        """End what the source holds open."""
        await self._collector.close()


@pytest.fixture
async def polls(tmp_path: Path) -> AsyncIterator[Polls]:
    limits = SavingLimits(group_events=1_000, group_bytes=1_000_000, id_retention_seconds=604_800)
    store = Store(tmp_path / "store", limits, storage_max_bytes=1 << 30)
    await store.open()
    clients = HttpClients(make_tls=lambda: TLS, proxies=Proxies(None, None, None))
    polls = Polls(store, clients)
    yield polls
    await polls.close()
    await clients.close()
    store.close()


def _labelled(element: dict[str, Any], sample: dict[str, Any], event_id: str, **more: str) -> dict[str, Any]:
    """Return an element of an answer as Exastro gets it, with the labels of the sample."""
    labels = {name: value for name, value in sample.items() if name.startswith("_exastro_")}
    return {**element, **labels, "_exastro_oase_event_id": event_id, **more}


def _zabbix(version: str) -> Zabbix:
    """Return a Zabbix with what the page shows: a problem, and the same one with its recovery as events."""
    zabbix = Zabbix(version)
    (problem,) = PROBLEMS.answer["result"]
    zabbix.problems = [problem]
    zabbix.events = list(EVENTS.answer["result"])
    return zabbix


def _alerts(recipe_: Recipe, *, filters: frozenset[str] = FILTERS, has_token: bool = False) -> Alerts:
    tool = Alerts(urlsplit(str(recipe_.columns["URL"])).path, filters=filters, has_token=has_token)
    tool.answer = recipe_.answer
    return tool


def _rest_api() -> RestApi:
    api = RestApi()
    api.alarms = list(REST_API.answer["data"]["alarms"])
    return api


def _without_cause(event: dict[str, Any]) -> dict[str, Any]:
    """Return an event as a Zabbix gives it that does not know causes and symptoms, before 6.4."""
    return {name: value for name, value in event.items() if name != "cause_eventid"}


PROBLEMS_6_0_COLUMNS = {**PROBLEMS.columns, **PROBLEMS_6_0.columns}
EVENTS_6_0_COLUMNS = {
    **EVENTS.columns,
    "CONNECTION_METHOD_ID": "5",
    "PARAMETER": EVENTS.templates[0].replace('  "id"', EVENTS.templates[1] + '  "id"'),
}
BOTH_EVENTS = [_labelled(EVENTS.answer["result"][0], EVENTS.event, "1245463"), EVENTS.event]

# A tool, the columns of a recipe for it, and what the first poll delivers.
Case = tuple[Callable[[], Tool], dict[str, str | None], list[dict[str, Any]]]
CASES: dict[str, Case] = {
    "problems-6.0": (lambda: _zabbix("6.0"), PROBLEMS_6_0_COLUMNS, [_without_cause(PROBLEMS.event)]),
    "problems-7.0": (lambda: _zabbix("7.0"), PROBLEMS.columns, [PROBLEMS.event]),
    "problems-7.2": (lambda: _zabbix("7.2"), PROBLEMS.columns, [PROBLEMS.event]),
    "events-6.0": (lambda: _zabbix("6.0"), EVENTS_6_0_COLUMNS, [_without_cause(event) for event in BOTH_EVENTS]),
    "events-7.0": (lambda: _zabbix("7.0"), EVENTS.columns, BOTH_EVENTS),
    "events-7.2": (lambda: _zabbix("7.2"), EVENTS.columns, BOTH_EVENTS),
    "alertmanager": (lambda: _alerts(ALERTMANAGER), ALERTMANAGER.columns, [ALERTMANAGER.event]),
    "grafana": (lambda: _alerts(GRAFANA, has_token=True), GRAFANA.columns, [GRAFANA.event]),
    "prometheus": (lambda: _alerts(PROMETHEUS, filters=frozenset()), PROMETHEUS.columns, [PROMETHEUS.event]),
    "rest-api": (_rest_api, REST_API.columns, [REST_API.event]),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
async def test_a_recipe_brings_the_events_of_the_page_and_brings_them_once(polls: Polls, case: Case) -> None:
    make_tool, columns, events = case
    with make_tool() as tool:
        await polls.begin(tool, columns)
        assert [await polls.poll(), await polls.poll()] == [events, []]


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_texts_of_a_recipe_fit_into_the_fields(case: Case) -> None:
    _, columns, _ = case
    sizes = {name: len((columns.get(name) or "").encode()) for name in ("PARAMETER", "RESPONSE_KEY", "EVENT_ID_KEY")}
    assert {name: size for name, size in sizes.items() if size > 255} == {}


@pytest.mark.parametrize(
    ("version", "columns", "refusal"),
    [
        ("6.0", PROBLEMS.columns, "Not authorized."),
        ("7.2", PROBLEMS_6_0_COLUMNS, 'Invalid parameter "/": unexpected parameter "auth".'),
    ],
    ids=["7.0-for-6.0", "6.0-for-7.2"],
)
async def test_the_recipe_for_another_version_is_refused(
    polls: Polls, version: str, columns: dict[str, str | None], refusal: str
) -> None:
    with _zabbix(version) as zabbix:
        await polls.begin(zabbix, columns)
        (event,) = await polls.poll()
        assert event["error"]["data"] == refusal


async def test_zabbix_is_asked_for_events_from_ten_minutes_before_the_last_poll(polls: Polls) -> None:
    with _zabbix("7.0") as zabbix:
        await polls.begin(zabbix, EVENTS.columns)
        await polls.poll()
        await polls.poll()
        await polls.poll()
        asked = [int(params["time_from"]) for params in zabbix.asked]
        assert asked == [POLL - INTERVAL - 600, POLL - 600, POLL + INTERVAL - 600]


async def test_an_event_that_zabbix_learns_of_late_arrives(polls: Polls) -> None:
    late = {**EVENTS.answer["result"][0], "eventid": "1245480", "clock": str(POLL - 500)}
    with _zabbix("7.0") as zabbix:
        await polls.begin(zabbix, EVENTS.columns)
        await polls.poll()
        zabbix.events.append(late)
        assert await polls.poll() == [
            _labelled(late, EVENTS.event, "1245480")
            | {"_exastro_fetched_time": POLL + INTERVAL, "_exastro_end_time": POLL + INTERVAL + 3_600}
        ]


async def test_a_problem_that_comes_and_goes_between_two_polls_arrives(polls: Polls) -> None:
    (problem,) = PROBLEMS.answer["result"]
    with _zabbix("7.0") as zabbix:
        zabbix.problems = [{**problem, "r_eventid": "1245470", "r_clock": "1767225590"}]
        await polls.begin(zabbix, PROBLEMS.columns)
        assert [event["eventid"] for event in await polls.poll()] == ["1245463"]


async def test_a_recovery_is_an_event_of_its_own_with_the_key_for_that(polls: Polls) -> None:
    key = "join('/', [eventid, r_eventid])"
    assert f"`{key}`" in PAGE.read_text("utf-8")
    (problem,) = PROBLEMS.answer["result"]
    with _zabbix("7.0") as zabbix:
        await polls.begin(zabbix, {**PROBLEMS.columns, "EVENT_ID_KEY": key})
        (first,) = await polls.poll()
        zabbix.problems = [{**problem, "r_eventid": "1245470", "r_clock": "1767225590"}]
        (second,) = await polls.poll()
        assert await polls.poll() == []
        ids = [event["_exastro_oase_event_id"] for event in (first, second)]
        assert ids == ["1245463/0", "1245463/1245470"]


async def test_a_refused_token_is_told_once_and_nothing_is_missed_meanwhile(polls: Polls) -> None:
    (refusal,) = REFUSAL.examples
    with _zabbix("7.0") as zabbix:
        zabbix.token = "another"
        await polls.begin(zabbix, EVENTS.columns)
        with capture_logs() as logs:
            delivered = [await polls.poll() for _ in range(3)]
        zabbix.token = TOKEN
        recovered = await polls.poll()
        asked = [int(params["time_from"]) for params in zabbix.asked]
    told = _labelled(refusal, EVENTS.event, str(POLL * 1_000_000), _exastro_not_available="RESPONSE_KEY not found")
    assert delivered == [[told], [], []]
    assert [line["detail"] for line in logs if line["event"] == "events_unusable"] == ["RESPONSE_KEY not found"]
    assert [event["eventid"] for event in recovered] == ["1245463", "1245470"]
    assert asked == [POLL - INTERVAL - 600]


async def test_an_alert_of_prometheus_arrives_when_it_fires(polls: Polls) -> None:
    firing, pending = PROMETHEUS.answer["data"]["alerts"]
    with _alerts(PROMETHEUS, filters=frozenset()) as prometheus:
        prometheus.answer = {"status": "success", "data": {"alerts": [pending]}}
        await polls.begin(prometheus, PROMETHEUS.columns)
        assert await polls.poll() == []
        prometheus.answer = {"status": "success", "data": {"alerts": [firing, {**pending, "state": "firing"}]}}
        assert [event["labels"]["alertname"] for event in await polls.poll()] == ["DiskFull", "HighLoad"]


async def test_an_alert_of_grafana_that_fires_anew_arrives_anew(polls: Polls) -> None:
    (alert,) = GRAFANA.answer
    with _alerts(GRAFANA, has_token=True) as grafana:
        await polls.begin(grafana, GRAFANA.columns)
        await polls.poll()
        grafana.answer = []
        await polls.poll()
        grafana.answer = [{**alert, "startsAt": "2026-01-01T00:00:15.000Z"}]
        assert [event["startsAt"] for event in await polls.poll()] == ["2026-01-01T00:00:15.000Z"]


async def test_a_token_that_grafana_does_not_know_fails_the_poll(polls: Polls) -> None:
    with _alerts(GRAFANA, has_token=True) as grafana:
        grafana.token = "another"
        await polls.begin(grafana, GRAFANA.columns)
        with pytest.raises(SourceRejected, match="answered 401") as caught:
            await polls.poll()
        assert caught.value.reason is Reason.UNAUTHORIZED


async def test_pages_of_a_rest_api_are_read_one_by_one(polls: Polls) -> None:
    (alarm,) = REST_API.answer["data"]["alarms"]
    with _rest_api() as api:
        api.alarms = [{**alarm, "id": number, "at": POLL} for number in (8, 9, 10, 11, 12)]
        await polls.begin(api, REST_API.columns)
        pages = [[event["id"] for event in await polls.poll()] for _ in range(4)]
        assert pages == [[8, 9], [10, 11], [12], []]
        asked = [{name: value for name, value in query.items() if name in ("from", "after")} for query in api.asked]
        assert asked == [{"from": str(POLL - INTERVAL)}, {"after": "9"}, {"after": "11"}, {"after": "12"}]


# The mail behind the event of the page.
MAIL = b"""\
Return-Path: <bounce@example.jp>
Delivered-To: ops@example.jp
Date: Mon, 01 Jan 2024 09:00:00 +0900
Message-ID: <1@example.jp>
From: Zabbix <zabbix@example.jp>
To: ops@example.jp, Second <second@example.jp>
Subject: [PROBLEM] disk full

web-01
"""


async def test_a_mail_arrives_as_the_page_shows_it(polls: Polls) -> None:
    (event,) = recipe("A mailbox").examples
    mailbox = Mailbox()
    with MailServer(mailbox) as server:
        columns = {"CONNECTION_METHOD_ID": "4", "REQUEST_METHOD_ID": "5", "PORT": server.port, "USERNAME": USERNAME}
        await polls.begin_with(setting_row("mailbox", "127.0.0.1", **columns, PASSWORD=PASSWORD))
        mailbox.append(MAIL.replace(b"\n", b"\r\n"), POLL)
        (arrived,) = await polls.poll()
        assert {name: value for name, value in arrived.items() if not name.startswith("_exastro_")} == event
        assert await polls.poll() == []
