"""A real Prometheus Alertmanager is collected from; each time an alert fires it arrives once."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from ita_ag_oase.demo.exastro import DemoExastro
from programs import listening
from recipes import PAGE, recipe, row_at
from support import Deploy, arrived, wait_until

_RECIPE = recipe("Alertmanager")
_NAME = _RECIPE.name
_CONFIGURATION = "route: {receiver: nobody}\nreceivers: [{name: nobody}]\n"


class Alertmanager:
    """A running Alertmanager."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._client = httpx.Client(base_url=url, trust_env=False)

    def close(self) -> None:
        """End the connection."""
        self._client.close()

    def fire(self, *names: str, severity: str = "critical") -> None:
        """Have alerts firing from now on; return once they are listed as such."""
        now = datetime.now(UTC)
        self._post([self._alert(name, now, now + timedelta(hours=1), severity) for name in names])
        wait_until(lambda: set(names) <= self._in_state("active"), f"{names} to be active")

    def resolve(self, name: str) -> None:
        """End an alert now; return once it is listed no longer."""
        now = datetime.now(UTC)
        self._post([self._alert(name, now - timedelta(hours=1), now)])
        wait_until(lambda: name not in {alert["labels"]["alertname"] for alert in self.listed()}, f"{name} to end")

    def silence(self, name: str) -> str:
        """Silence an alert for an hour; return the silence's id once the alert is listed as suppressed."""
        now = datetime.now(UTC)
        silence = {
            "matchers": [{"name": "alertname", "value": name, "isRegex": False, "isEqual": True}],
            "startsAt": now.isoformat(),
            "endsAt": (now + timedelta(hours=1)).isoformat(),
            "createdBy": "operator",
            "comment": "under repair",
        }
        created = self._client.post("/api/v2/silences", json=silence).raise_for_status().json()
        wait_until(lambda: name in self._in_state("suppressed"), f"{name} to be silenced")
        return str(created["silenceID"])

    def end_silence(self, silence_id: str) -> None:
        """End a silence now."""
        self._client.delete(f"/api/v2/silence/{silence_id}").raise_for_status()

    def listed(self) -> list[dict[str, Any]]:
        """Return the alerts as its API lists them."""
        alerts: list[dict[str, Any]] = self._client.get("/api/v2/alerts").raise_for_status().json()
        return alerts

    def ids(self, *names: str) -> list[str]:
        """Return the event ids of the alerts of these names that fire now."""
        by_name = {alert["labels"]["alertname"]: alert for alert in self.listed()}
        return [f"{by_name[name]['fingerprint']}/{by_name[name]['startsAt']}" for name in names]

    def _in_state(self, state: str) -> set[str]:
        return {alert["labels"]["alertname"] for alert in self.listed() if alert["status"]["state"] == state}

    def _post(self, alerts: Sequence[dict[str, Any]]) -> None:
        self._client.post("/api/v2/alerts", json=alerts).raise_for_status()

    @staticmethod
    def _alert(name: str, start: datetime, end: datetime, severity: str = "critical") -> dict[str, Any]:
        return {
            "labels": {"alertname": name, "instance": "web-01", "severity": severity},
            "annotations": {"summary": "日本語の説明"},
            "startsAt": start.isoformat(),
            "endsAt": end.isoformat(),
        }


@pytest.fixture
def alertmanager(tmp_path: Path) -> Iterator[Alertmanager]:
    """An Alertmanager on a free port of loopback. Without the program the test is skipped, or fails where CI is set."""
    (tmp_path / "alertmanager.yml").write_text(_CONFIGURATION)
    command = [
        "prometheus-alertmanager",
        f"--config.file={tmp_path / 'alertmanager.yml'}",
        f"--storage.path={tmp_path / 'alertmanager'}",
        "--cluster.listen-address=",
    ]
    with listening(command, tmp_path) as url, closing(Alertmanager(url)) as running:
        yield running


@pytest.fixture
def row(alertmanager: Alertmanager) -> dict[str, Any]:
    """The setting of the recipe for its alerts."""
    return row_at(alertmanager.url, _RECIPE.columns)


def test_new_alerts_arrive_once_and_firing_ones_are_not_repeated(
    deploy: Deploy, alertmanager: Alertmanager, row: dict[str, Any]
) -> None:
    with DemoExastro([row]) as exastro:
        alertmanager.fire("DiskFull", "HighLoad")
        agent = deploy(exastro, _NAME).start()
        agent.wait_until(lambda: len(exastro.counts) == 2, "the alerts")
        alertmanager.fire("NoAnswer")
        agent.wait_until(lambda: len(exastro.counts) == 3, "the new alert")
        agent.wait_for_quiet_poll(_NAME)
        assert sorted(arrived(exastro, _NAME)) == sorted(alertmanager.ids("DiskFull", "HighLoad", "NoAnswer"))


def test_an_alert_arrives_as_it_was_listed(deploy: Deploy, alertmanager: Alertmanager, row: dict[str, Any]) -> None:
    with DemoExastro([row]) as exastro:
        alertmanager.fire("DiskFull")
        (listed,) = alertmanager.listed()
        agent = deploy(exastro, _NAME).start()
        agent.wait_until(lambda: exastro.saved, "the alert")
        (event,) = [saved.event for saved in exastro.saved]
        fetched_time = event["_exastro_fetched_time"]
        assert dict(event) == {
            **listed,
            "_exastro_oase_event_id": f"{listed['fingerprint']}/{listed['startsAt']}",
            "_exastro_event_collection_settings_name": _NAME,
            "_exastro_event_collection_settings_id": row["EVENT_COLLECTION_SETTINGS_ID"],
            "_exastro_fetched_time": fetched_time,
            "_exastro_end_time": fetched_time + 3_600,
        }


def test_an_alert_that_is_resolved_and_fires_again_is_a_new_event(
    deploy: Deploy, alertmanager: Alertmanager, row: dict[str, Any]
) -> None:
    with DemoExastro([row]) as exastro:
        alertmanager.fire("DiskFull", "HighLoad")
        first = alertmanager.ids("DiskFull", "HighLoad")
        agent = deploy(exastro, _NAME).start()
        agent.wait_until(lambda: len(exastro.counts) == 2, "the alerts")
        alertmanager.resolve("DiskFull")
        alertmanager.fire("DiskFull")
        again = alertmanager.ids("DiskFull")
        agent.wait_until(lambda: len(exastro.counts) == 3, "the alert that fires again")
        agent.wait_for_quiet_poll(_NAME)
        assert sorted(arrived(exastro, _NAME)[:2]) == sorted(first)
        assert arrived(exastro, _NAME)[2:] == again
        assert again[0].partition("/")[0] == first[0].partition("/")[0]


def test_a_silenced_alert_arrives_when_its_silence_ends(
    deploy: Deploy, alertmanager: Alertmanager, row: dict[str, Any]
) -> None:
    with DemoExastro([row]) as exastro:
        alertmanager.fire("DiskFull", "HighLoad")
        silence = alertmanager.silence("DiskFull")
        agent = deploy(exastro, _NAME).start()
        agent.wait_until(lambda: exastro.counts, "the alert that is not silenced")
        agent.wait_for_quiet_poll(_NAME)
        assert arrived(exastro, _NAME) == alertmanager.ids("HighLoad")
        alertmanager.end_silence(silence)
        agent.wait_until(lambda: len(exastro.counts) == 2, "the alert that was silenced")
        assert arrived(exastro, _NAME) == alertmanager.ids("HighLoad", "DiskFull")


def test_alerts_are_narrowed_as_the_page_says(deploy: Deploy, alertmanager: Alertmanager, row: dict[str, Any]) -> None:
    parameter = '{"filter": ["severity=\\"critical\\""], "silenced": false}'
    assert f"`{parameter}`" in PAGE.read_text("utf-8")
    with DemoExastro([{**row, "PARAMETER": parameter}]) as exastro:
        alertmanager.fire("HighLoad", severity="warning")
        alertmanager.fire("DiskFull")
        agent = deploy(exastro, _NAME).start()
        agent.wait_until(lambda: exastro.counts, "the critical alert")
        agent.wait_for_quiet_poll(_NAME)
        assert arrived(exastro, _NAME) == alertmanager.ids("DiskFull")
