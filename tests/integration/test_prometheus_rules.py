"""The alerting rules against Prometheus's own tool, and against the metrics that there are."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from ita_ag_oase.observability.metrics import INSTRUMENTS
from support import do_without

ROOT = Path(__file__).parents[2]
RULES = ROOT / "docs" / "prometheus" / "rules.yaml"
CASES = ROOT / "tests" / "integration" / "prometheus_rules_test.yaml"


@pytest.mark.parametrize(
    "arguments", [("check", "rules", str(RULES)), ("test", "rules", str(CASES))], ids=["check", "test"]
)
def test_promtool_has_nothing_against_the_rules(arguments: tuple[str, ...]) -> None:
    if shutil.which("promtool") is None:
        do_without("promtool is not installed: it comes with the Debian package prometheus")
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=60)
    assert (done.returncode, "SUCCESS" in done.stdout) == (0, True), done.stdout + done.stderr


@pytest.mark.parametrize("file", [RULES, CASES], ids=lambda file: file.name)
def test_every_metric_that_is_named_is_one_of_the_agents(file: Path) -> None:
    named = set(re.findall(r"\boase_agent_\w+", file.read_text(encoding="utf-8")))
    assert named - {instrument.name for instrument in INSTRUMENTS} == set()


def test_every_metric_that_is_asked_for_is_of_the_job() -> None:
    (group,) = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    expressions = "\n".join(rule["expr"] for rule in group["rules"])
    metrics = re.findall(r"\b(?:oase_agent_\w+|up)\b(?!\{job=\"oase-agent\")", expressions)
    assert metrics == []


def test_every_alert_is_tried_and_says_what_is_wrong_and_what_to_do() -> None:
    rules, cases = RULES.read_text(encoding="utf-8"), CASES.read_text(encoding="utf-8")
    alerts = re.findall(r"- alert: (\w+)", rules)
    assert set(alerts) == set(re.findall(r'alertname="(\w+)"', cases))
    assert [rules.count(f"          {part}: ") for part in ("summary", "description")] == [len(alerts)] * 2
