"""Users' values files against what the stock chart makes of them: an upgrade may add, and must not change."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from helm import Cluster, Manifest, Rendering, render

_FOLDER = Path(__file__).parent / "conformance"
_CASES = sorted(path.stem for path in (_FOLDER / "values").glob("*.yaml"))

# What is added to what the stock chart makes.
_ADDED_VARIABLES = {"AGENT_ID", "STATUS_ADDRESS", "STATUS_PORT"}
_ADDED_SECURITY = {"capabilities"}


def _values(case: str) -> Any:
    return yaml.safe_load((_FOLDER / "values" / f"{case}.yaml").read_text(encoding="utf-8"))


def _expected(case: str) -> Any:
    return json.loads((_FOLDER / "expected" / f"{case}.json").read_text(encoding="utf-8"))


def _without(found: Manifest, added: set[str]) -> Manifest:
    return {key: value for key, value in found.items() if key not in added}


def _mounts(rendering: Rendering, container: Manifest) -> dict[str, str | None]:
    claims = {
        volume["name"]: volume.get("persistentVolumeClaim", {}).get("claimName") for volume in rendering.pod["volumes"]
    }
    return {mount["mountPath"]: claims[mount["name"]] for mount in container["volumeMounts"]}


def _facts(rendering: Rendering) -> Manifest:
    """Return what the expected files tell about a rendering, without what this chart adds."""
    deployment = rendering.one("Deployment")
    containers = {
        name: {
            "env": _without(rendering.variables(container), _ADDED_VARIABLES),
            "mounts": _mounts(rendering, container),
            "resources": container["resources"],
            "securityContext": _without(container["securityContext"], _ADDED_SECURITY),
        }
        for name, container in rendering.containers.items()
    }
    facts = {
        "objects": [name for name in rendering.names if not name.startswith("Pod/check-")],
        "deployment": {
            "name": deployment["metadata"]["name"],
            "replicas": deployment["spec"].get("replicas"),
            "selector": deployment["spec"]["selector"]["matchLabels"],
            "containers": containers,
        },
    }
    claims = [
        {"name": claim["metadata"]["name"], "spec": claim["spec"]} for claim in rendering.all("PersistentVolumeClaim")
    ]
    return facts | ({"pvc": claims[0]} if claims else {})


@pytest.mark.parametrize("case", _CASES)
def test_a_values_file_comes_out_as_from_the_stock_chart(case: str) -> None:
    assert _facts(render(_values(case))) == _expected(case)


@pytest.mark.parametrize("case", [case for case in _CASES if case != "30-no-persistence"])
def test_what_is_added_to_the_variables_is_known(case: str) -> None:
    rendering = render(_values(case))
    expected = _expected(case)["deployment"]["containers"]
    added = [
        rendering.variables(container).keys() - expected[name]["env"]
        for name, container in rendering.containers.items()
    ]
    assert added == [_ADDED_VARIABLES] * len(expected)


@pytest.mark.parametrize("case", _CASES)
def test_reused_values_of_a_stock_release_come_out_as_its_values_file(case: str, cluster: Cluster) -> None:
    defaults = _values("00-full-copy-of-old-defaults")
    assert _facts(cluster.upgrade(defaults=defaults, given=_values(case))) == _expected(case)


def test_reused_values_of_a_stock_release_get_what_this_chart_adds(cluster: Cluster) -> None:
    defaults = _values("00-full-copy-of-old-defaults")
    rendering = cluster.upgrade(defaults=defaults, given={})
    assert rendering.template == render(defaults).template
