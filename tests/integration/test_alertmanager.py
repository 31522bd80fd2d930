"""A real Prometheus Alertmanager is collected from; each time an alert fires it arrives once."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from ita_ag_oase.demo.exastro import DemoExastro, setting_row
from support import Deploy, arrived, do_without, wait_until

_NAME = "alertmanager"
_CONFIGURATION = "route: {receiver: nobody}\nreceivers: [{name: nobody}]\n"
_LISTENING = re.compile(r'msg="Listening on" address=(\S+)')


class Alertmanager:
    """A running Alertmanager."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._client = httpx.Client(base_url=url, trust_env=False)

    def close(self) -> None:
        """End the connection."""
        self._client.close()

    def is_ready(self) -> bool:
        """Whether it answers yet."""
        try:
            return self._client.get("/-/ready").is_success
        except httpx.TransportError:
            return False

    def fire(self, *names: str) -> None:
        """Have alerts firing from now on; return once they are listed as such."""
        now = datetime.now(UTC)
        self._post([self._alert(name, now, now + timedelta(hours=1)) for name in names])
        wait_until(lambda: set(names) <= self._active(), f"{names} to be active")

    def resolve(self, name: str) -> None:
        """End an alert now; return once it is listed no longer."""
        now = datetime.now(UTC)
        self._post([self._alert(name, now - timedelta(hours=1), now)])
        wait_until(lambda: name not in {alert["labels"]["alertname"] for alert in self.listed()}, f"{name} to end")

    def listed(self) -> list[dict[str, Any]]:
        """Return the alerts as its API lists them."""
        alerts: list[dict[str, Any]] = self._client.get("/api/v2/alerts").raise_for_status().json()
        return alerts

    def ids(self, *names: str) -> list[str]:
        """Return the event ids of the alerts of these names that fire now."""
        by_name = {alert["labels"]["alertname"]: alert for alert in self.listed()}
        return [f"{by_name[name]['fingerprint']}/{by_name[name]['startsAt']}" for name in names]

    def _active(self) -> set[str]:
        return {alert["labels"]["alertname"] for alert in self.listed() if alert["status"]["state"] == "active"}

    def _post(self, alerts: Sequence[dict[str, Any]]) -> None:
        self._client.post("/api/v2/alerts", json=alerts).raise_for_status()

    @staticmethod
    def _alert(name: str, start: datetime, end: datetime) -> dict[str, Any]:
        return {
            "labels": {"alertname": name, "instance": "web-01", "severity": "critical"},
            "annotations": {"summary": "日本語の説明"},
            "startsAt": start.isoformat(),
            "endsAt": end.isoformat(),
        }


@pytest.fixture
def alertmanager(tmp_path: Path) -> Iterator[Alertmanager]:
    """An Alertmanager on a free port of loopback. Without the program the test is skipped, or fails where CI is set."""
    (tmp_path / "alertmanager.yml").write_text(_CONFIGURATION)
    log = tmp_path / "alertmanager.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [
                _program(),
                f"--config.file={tmp_path / 'alertmanager.yml'}",
                f"--storage.path={tmp_path / 'alertmanager'}",
                "--web.listen-address=127.0.0.1:0",
                "--cluster.listen-address=",
            ],
            cwd=tmp_path,
            env={"PATH": os.defpath},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )
    try:
        wait_until(lambda: _LISTENING.search(log.read_text()), "the port of Alertmanager", last_words=log.read_text)
        (address,) = _LISTENING.findall(log.read_text())
        with closing(Alertmanager(f"http://{address}")) as running:
            wait_until(running.is_ready, "Alertmanager", last_words=log.read_text)
            yield running
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def row(alertmanager: Alertmanager) -> dict[str, Any]:
    """The event collection setting for its alerts."""
    return setting_row(
        _NAME, f"{alertmanager.url}/api/v2/alerts", EVENT_ID_KEY="join('/', [fingerprint, startsAt])", TTL=600
    )


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
            "_exastro_end_time": fetched_time + 600,
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


def _program() -> str:
    program = shutil.which("prometheus-alertmanager")
    if program is None:
        do_without("prometheus-alertmanager is not installed (the Debian package of that name)")
    return program
