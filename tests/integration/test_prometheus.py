"""A real Prometheus is collected from; each alert arrives once, when it fires."""

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from ita_ag_oase.demo.exastro import DemoExastro
from programs import listening
from recipes import recipe, row_at
from support import Deploy, arrived, wait_until

_RECIPE = recipe("Prometheus")
_NAME = _RECIPE.name
_CONFIGURATION = "global: {evaluation_interval: 1s}\nrule_files: [rules.json]\n"


class Prometheus:
    """A running Prometheus that evaluates its rules every second."""

    def __init__(self, url: str, rules: Path) -> None:
        self.url = url
        self._rules = rules
        self._client = httpx.Client(base_url=url, trust_env=False)

    def close(self) -> None:
        """End the connection."""
        self._client.close()

    def have(self, **alerts: str) -> None:
        """Have these alerts, each firing after it was pending for so long; return once all are listed."""
        rules = [{"alert": name, "expr": "vector(1)", "for": time} for name, time in alerts.items()]
        self._rules.write_text(json.dumps({"groups": [{"name": "test", "rules": rules}]}))
        self._client.post("/-/reload").raise_for_status()
        wait_until(lambda: {alert["labels"]["alertname"] for alert in self.listed()} == alerts.keys(), f"{alerts}")

    def listed(self) -> list[dict[str, Any]]:
        """Return the alerts as its API lists them."""
        alerts: list[dict[str, Any]] = self._client.get("/api/v1/alerts").raise_for_status().json()["data"]["alerts"]
        return alerts

    def event_id(self, name: str) -> str:
        """Return the event id of an alert."""
        (alert,) = [alert for alert in self.listed() if alert["labels"]["alertname"] == name]
        return f"{json.dumps(alert['labels'], separators=(',', ':'))}/{alert['activeAt']}"


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[Prometheus]:
    (tmp_path / "prometheus.yml").write_text(_CONFIGURATION)
    command = [
        "prometheus",
        f"--config.file={tmp_path / 'prometheus.yml'}",
        f"--storage.tsdb.path={tmp_path / 'prometheus'}",
        "--web.enable-lifecycle",
    ]
    with listening(command, tmp_path) as url, closing(Prometheus(url, tmp_path / "rules.json")) as running:
        yield running


def test_alerts_arrive_once_when_they_fire(deploy: Deploy, prometheus: Prometheus) -> None:
    with DemoExastro([row_at(prometheus.url, _RECIPE.columns)]) as exastro:
        prometheus.have(DiskFull="0s", HighLoad="1h")
        agent = deploy(exastro, _NAME).start()
        agent.wait_until(lambda: exastro.counts, "the firing alert")
        prometheus.have(DiskFull="0s", HighLoad="1h", NoAnswer="0s")
        agent.wait_until(lambda: len(exastro.counts) == 2, "the alert that fires later")
        agent.wait_for_quiet_poll(_NAME)
        assert arrived(exastro, _NAME) == [prometheus.event_id("DiskFull"), prometheus.event_id("NoAnswer")]
