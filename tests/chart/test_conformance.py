"""Users' values files against what the stock chart makes of them: an upgrade may add, and must not change."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from helm import Cluster, Manifest, Rendering, Values, refusal, render

_FOLDER = Path(__file__).parent / "conformance"
_CASES = sorted(path.stem for path in (_FOLDER / "values").glob("*.yaml"))

# What is added to what the stock chart makes.
_ADDED_VARIABLES = {"AGENT_ID", "STATUS_ADDRESS", "STATUS_PORT"}
_ELECTION = {"LEADER_ELECTION", "LEASE_NAME", "LEASE_NAMESPACE", "POD_NAME"}
_ADDED_SECURITY = {"capabilities"}


def _values(case: str) -> Any:
    return yaml.safe_load((_FOLDER / "values" / f"{case}.yaml").read_text(encoding="utf-8"))


def _expected(case: str) -> Any:
    return json.loads((_FOLDER / "expected" / f"{case}.json").read_text(encoding="utf-8"))


def _without(found: Manifest, added: set[str]) -> Manifest:
    return {key: value for key, value in found.items() if key not in added}


def _mounts(pod: Manifest, container: Manifest) -> dict[str, str | None]:
    claims = {volume["name"]: volume.get("persistentVolumeClaim", {}).get("claimName") for volume in pod["volumes"]}
    return {mount["mountPath"]: claims[mount["name"]] for mount in container["volumeMounts"]}


def _facts(rendering: Rendering) -> Manifest:
    """Return what the expected files tell about a rendering, without what this chart adds."""
    deployment = rendering.one("Deployment")
    containers = _containers(rendering)
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


def _containers(rendering: Rendering) -> Manifest:
    return {
        container["name"]: {
            "env": _without(rendering.variables(container), _ADDED_VARIABLES | _ELECTION),
            "mounts": _mounts(pod, container),
            "resources": container["resources"],
            "securityContext": _without(container["securityContext"], _ADDED_SECURITY),
        }
        for pod in rendering.pods.values()
        for container in pod["containers"]
    }


def _spread(containers: Manifest) -> Manifest:
    """Return the containers as they are with a claim for each."""
    return {
        name: found | {"mounts": {path: f"pvc-{name}" if claim else None for path, claim in found["mounts"].items()}}
        for name, found in containers.items()
    }


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


def _with(option: Values, values: Any) -> Any:
    return values | {"ita-ag-oase": values["ita-ag-oase"] | option}


_KEPT = [case for case in _CASES if case != "30-no-persistence"]
_OF_STANDBY = ("Lease", "PodDisruptionBudget", "Role", "RoleBinding", "ServiceAccount")


@pytest.mark.parametrize("case", _KEPT)
def test_agents_of_a_values_file_stay_what_they_are_in_every_option(case: str, option: Values) -> None:
    expected = _expected(case)["deployment"]["containers"]
    is_spread = option.get("layout") == "pod-per-agent"
    assert _containers(render(_with(option, _values(case)))) == (_spread(expected) if is_spread else expected)


@pytest.mark.parametrize("case", _KEPT)
def test_high_availability_adds_objects_and_pods_and_changes_nothing_else(case: str) -> None:
    expected = _expected(case)
    name = expected["deployment"]["name"]
    leases = [f"Lease/{found}" for found in expected["deployment"]["containers"]]
    added = [*leases, *(f"{kind}/{name}" for kind in _OF_STANDBY if kind != "Lease")]
    assert _facts(render(_with({"highAvailability": {"enabled": True}}, _values(case)))) == expected | {
        "objects": sorted([*expected["objects"], *added]),
        "deployment": expected["deployment"] | {"replicas": 2},
    }


@pytest.mark.parametrize("case", _CASES)
def test_a_pod_for_each_agent_divides_deployment_and_claim_and_changes_nothing_else(case: str) -> None:
    expected = _expected(case)
    agents = list(expected["deployment"]["containers"])
    rendering = render(_with({"layout": "pod-per-agent"}, _values(case)))
    divided = [f"{kind}/{prefix}{name}" for name in agents for kind, prefix in _divided(expected)]
    kept = [name for name in expected["objects"] if not name.startswith(("Deployment/", "PersistentVolumeClaim/"))]
    assert [name for name in rendering.names if not name.startswith("Pod/check-")] == sorted([*kept, *divided])
    specs = [claim["spec"] for claim in rendering.all("PersistentVolumeClaim")]
    assert specs == ([expected["pvc"]["spec"]] * len(agents) if "pvc" in expected else [])


def _divided(expected: Manifest) -> list[tuple[str, str]]:
    return [("Deployment", ""), *([("PersistentVolumeClaim", "pvc-")] if "pvc" in expected else [])]


def test_high_availability_without_a_volume_is_refused() -> None:
    assert refusal(_with({"highAvailability": {"enabled": True}}, _values("30-no-persistence"))) == (
        "ita-ag-oase.highAvailability needs a volume, from which the next pod goes on: turn "
        "ita-ag-oase.persistence.enabled on"
    )


@pytest.mark.parametrize("case", _KEPT)
def test_reused_values_of_a_stock_release_come_out_as_its_values_file_in_every_option(
    case: str, option: Values, cluster: Cluster
) -> None:
    defaults = _values("00-full-copy-of-old-defaults")
    given = _with(option, _values(case))
    assert _containers(cluster.upgrade(defaults=defaults, given=given)) == _containers(render(given))
