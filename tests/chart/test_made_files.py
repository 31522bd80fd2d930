"""Files that are made from others are up to date, and the chart is one that helm accepts and packs."""

import json
from pathlib import Path

import pytest
import yaml

from chart_files import made, parameters, undescribed
from helm import AGENT_CHART, CHART, run
from ita_ag_oase import __version__

_ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("path", made(), ids=lambda path: path.relative_to(_ROOT).as_posix())
def test_a_made_file_is_what_make_chart_golden_writes(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == made()[path]


def test_every_value_is_described() -> None:
    assert undescribed() == []


def test_no_value_is_described_twice() -> None:
    paths = [parameter.path for parameter in parameters()]
    assert sorted(set(paths)) == sorted(paths)


def test_values_of_the_whole_chart_are_those_of_the_agents_chart() -> None:
    whole = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    assert whole["ita-ag-oase"] == yaml.safe_load((AGENT_CHART / "values.yaml").read_text(encoding="utf-8"))


def test_both_charts_are_of_the_version_that_installs_this_program() -> None:
    charts = [yaml.safe_load((folder / "Chart.yaml").read_text(encoding="utf-8")) for folder in (CHART, AGENT_CHART)]
    assert [(chart["name"], chart["version"], chart["appVersion"]) for chart in charts] == [
        ("exastro-agent", "3.0.0", __version__),
        ("ita-ag-oase", "3.0.0", __version__),
    ]


def test_the_whole_chart_depends_on_the_agents_chart_as_it_is() -> None:
    whole = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    assert whole["dependencies"] == [{"name": "ita-ag-oase", "version": "3.0.0"}]


def test_helm_lint_finds_nothing() -> None:
    ended = run(["lint", "--strict", "--with-subcharts", str(CHART)])
    assert (ended.code, ended.out.count("[WARNING]"), ended.out.count("[ERROR]")) == (0, 0, 0)


def test_helm_shows_the_values_that_users_copy() -> None:
    assert (
        run(["show", "values", str(CHART)]).out.rstrip() == (CHART / "values.yaml").read_text(encoding="utf-8").rstrip()
    )


def test_the_chart_packs_and_the_package_renders(tmp_path: Path) -> None:
    run(["package", str(CHART), "--destination", str(tmp_path)])
    packed = run(["template", "exastro-agent", str(tmp_path / "exastro-agent-3.0.0.tgz")])
    assert (packed.code, packed.out) == (0, run(["template", "exastro-agent", str(CHART)]).out)


def test_every_value_has_a_place_in_the_schema() -> None:
    schema = json.loads((AGENT_CHART / "values.schema.json").read_text(encoding="utf-8"))["properties"]
    values = yaml.safe_load((AGENT_CHART / "values.yaml").read_text(encoding="utf-8"))
    assert values.keys() - schema.keys() == set()
