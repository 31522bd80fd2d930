"""The page about availability and growth: its values files are what it says, its numbers are those of their sources."""

import json
import re
import shlex
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes_validate.utils import all_versions, validate

from helm import CHART, NAMESPACE, RELEASE, Cluster, Manifest, Rendering, refusal, render, run
from ita_ag_oase.observability.metrics import INSTRUMENTS
from ita_ag_oase.settings import Settings, Variables
from manual import (
    AVAILABILITY,
    KUBERNETES,
    NFS_VOLUME,
    PATTERNS,
    ROOT,
    commands,
    files,
    rows,
    section,
)

Load = Callable[[Mapping[str, str]], Settings]

_PAGE = AVAILABILITY.read_text(encoding="utf-8")
_FILES = files(AVAILABILITY)
_STORE_OF_ONE_NODE = ["agents-in-one-pod", "agents-in-pods-of-their-own", "doubled-tools", "several-sources"]
_each_pattern = pytest.mark.parametrize("path", PATTERNS, ids=lambda path: path.stem)


def _values(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def _pattern(name: str) -> Rendering:
    return render(_values(AVAILABILITY.parent / "examples" / f"{name}.yaml"))


def _modes(rendering: Rendering) -> list[list[str]]:
    return [claim["spec"]["accessModes"] for claim in rendering.all("PersistentVolumeClaim")]


@_each_pattern
def test_a_values_file_lacks_nothing_but_the_users_own_values(path: Path, cluster: Cluster) -> None:
    assert cluster.warnings(_values(path)) == []


@_each_pattern
def test_the_agents_accept_the_variables_of_a_values_file(path: Path, load_from: Load) -> None:
    rendering = render(_values(path))
    # What the election needs is not known to every agent.
    given = [_without_election(rendering.variables(container)) for container in rendering.containers.values()]
    assert [load_from(variables).adjustments for variables in given] == [()] * len(given)


def _without_election(variables: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in variables.items() if name != "LEADER_ELECTION"}


@_each_pattern
def test_kubernetes_accepts_every_object_of_a_values_file(path: Path) -> None:
    for found in render(_values(path)).objects:
        validate(found, all_versions()[0], strict=True)


@_each_pattern
def test_the_page_links_a_values_file_and_shows_what_matters_of_it(path: Path) -> None:
    name = f"examples/{path.name}"
    assert f"]({name})" in _PAGE
    (shown,) = _FILES[name]
    assert _is_part(yaml.safe_load(shown), _values(path))


def _is_part(part: Any, whole: Any) -> bool:
    """Whether all of a value is in another one, too; of lists, each element in the one at its place."""
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(
            key in whole and _is_part(value, whole[key]) for key, value in part.items()
        )
    if isinstance(part, list):
        return len(part) == len(whole) and all(map(_is_part, part, whole))
    return bool(part == whole)


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ({"a": [{"b": 1}]}, True),
        ({"a": [{"b": 2}]}, False),
        ({"a": [{"b": 1}, {"b": 1}]}, False),
        ({"c": 1}, False),
        ({"a": {"b": 1}}, False),
    ],
)
def test_a_part_is_known_from_what_is_none(part: Any, expected: bool) -> None:
    assert _is_part(part, {"a": [{"b": 1, "c": 2}], "d": 3}) is expected


@pytest.mark.parametrize("name", _STORE_OF_ONE_NODE)
def test_what_is_recommended_is_one_pod_for_each_store_on_a_volume_of_one_node(name: str) -> None:
    rendering = _pattern(name)
    assert {found["spec"].get("replicas") for found in rendering.all("Deployment")} == {None}
    assert {mode for modes in _modes(rendering) for mode in modes} == {"ReadWriteOnce"}


@pytest.mark.parametrize("path", PATTERNS, ids=lambda path: path.stem)
def test_no_setting_belongs_to_two_agents(path: Path) -> None:
    rendering = render(_values(path))
    names = [
        name
        for container in rendering.containers.values()
        for name in rendering.variables(container)["EVENT_COLLECTION_SETTINGS_NAMES"].split(",")
    ]
    assert len(names) == len(set(names))


def test_several_sources_are_polled_by_one_agent() -> None:
    rendering = _pattern("several-sources")
    (container,) = rendering.containers.values()
    assert rendering.variables(container)["EVENT_COLLECTION_SETTINGS_NAMES"].count(",") == 2


def test_agents_in_one_pod_share_the_pod_and_the_volume() -> None:
    rendering = _pattern("agents-in-one-pod")
    assert (len(rendering.pods), len(rendering.containers), len(_modes(rendering))) == (1, 2, 1)


def test_agents_in_pods_of_their_own_share_neither() -> None:
    rendering = _pattern("agents-in-pods-of-their-own")
    assert (len(rendering.pods), len(rendering.containers), len(_modes(rendering))) == (2, 2, 2)


def test_active_and_standby_are_two_pods_on_two_nodes_with_one_store_and_a_lease() -> None:
    rendering = _pattern("active-standby")
    assert rendering.one("Deployment")["spec"]["replicas"] == 2
    assert _modes(rendering) == [["ReadWriteMany"]]
    assert _apart(rendering.pod) == ["kubernetes.io/hostname"]
    assert rendering.one("PodDisruptionBudget")["spec"]["minAvailable"] == 1
    assert rendering.one("Lease")["metadata"]["name"] == "ita-ag-oase-oase-agent"


def test_doubled_agents_share_no_node() -> None:
    rendering = _pattern("doubled-tools")
    labels = [found["spec"]["template"]["metadata"]["labels"] for found in rendering.all("Deployment")]
    (terms,) = [{json.dumps(_terms(pod)) for pod in rendering.pods.values()}]
    (term,) = json.loads(terms.pop())
    assert terms == set()
    assert term["topologyKey"] == "kubernetes.io/hostname"
    assert [label.items() >= term["labelSelector"]["matchLabels"].items() for label in labels] == [True, True]


def _terms(pod: Manifest) -> list[Manifest]:
    terms: list[Manifest] = pod["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    return terms


def _apart(pod: Manifest) -> list[str]:
    return [term["topologyKey"] for term in _terms(pod)]


def test_standby_on_the_recommended_volume_is_refused() -> None:
    values = _values(AVAILABILITY.parent / "examples" / "several-sources.yaml")["ita-ag-oase"]
    on = {"highAvailability": {"enabled": True}}
    assert "persistence.accessMode is ReadWriteOnce" in refusal({"ita-ag-oase": values | on})


def test_the_volume_on_nfs_is_one_that_the_claim_takes_and_is_mounted_as_the_page_says() -> None:
    volume = _values(NFS_VOLUME)
    validate(volume, all_versions()[0], strict=True)
    values = _values(AVAILABILITY.parent / "examples" / "active-standby.yaml")
    values["ita-ag-oase"]["persistence"]["storageClass"] = "-"
    claim = render(values).one("PersistentVolumeClaim")
    assert volume["spec"]["claimRef"] == {"name": claim["metadata"]["name"], "namespace": NAMESPACE}
    assert volume["spec"]["accessModes"] == claim["spec"]["accessModes"]
    assert volume["spec"]["capacity"] == claim["spec"]["resources"]["requests"]
    assert volume["spec"].get("storageClassName", "") == claim["spec"]["storageClassName"]
    assert volume["spec"]["mountOptions"] == ["nfsvers=4.2", "hard"]
    assert f"examples/{NFS_VOLUME.name}" in section(AVAILABILITY, "Mount NFS")


def test_the_volume_of_compose_is_that_of_its_service_and_is_mounted_as_the_page_says() -> None:
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
    (shown,) = _FILES["compose.override.yaml"]
    volumes = yaml.safe_load(shown)["volumes"]
    assert volumes.keys() == compose["volumes"].keys()
    (options,) = [volume["driver_opts"] for volume in volumes.values()]
    assert options["o"].split(",") == ["addr=your-nfs-server", "nfsvers=4.2", "hard"]


def test_the_page_turns_the_alerts_on() -> None:
    (added,) = [yaml.safe_load(text) for text in _FILES["exastro-agent.yaml"]]
    values = _values(AVAILABILITY.parent / "examples" / "active-standby.yaml")
    rendering = render({"ita-ag-oase": values["ita-ag-oase"] | added["ita-ag-oase"]})
    alerts = {rule["alert"] for group in rendering.one("PrometheusRule")["spec"]["groups"] for rule in group["rules"]}
    assert len(rendering.all("PodMonitor")) == 1
    named = set(re.findall(r"\bOase\w+", _PAGE))
    assert {"OaseNobodyLeads", "OaseSeveralLead", "OaseLeaseFailing"} <= named <= alerts


def test_the_metrics_that_the_page_names_are_there() -> None:
    named = set(re.findall(r"\boase_agent_\w+", _PAGE))
    assert {"oase_agent_leader", "oase_agent_lease_working"} <= named <= {metric.name for metric in INSTRUMENTS}


_DEFAULTS = {name.strip("`"): default for name, default, _ in rows(section(AVAILABILITY, "Where the times come from"))}


def test_the_times_of_the_chart_are_its_defaults() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))["ita-ag-oase"]
    liveness = values["probes"]["liveness"]
    assert {name.partition(".")[2]: _DEFAULTS[name] for name in _DEFAULTS if name.startswith("ita-ag-oase.")} == {
        "nodeFailureSeconds": f"{values['nodeFailureSeconds']} s",
        "probes.liveness": f"{liveness['periodSeconds']} s, {liveness['failureThreshold']} times",
        "terminationGracePeriodSeconds": f"{values['terminationGracePeriodSeconds']} s",
    }


def test_the_times_of_the_election_are_the_defaults_of_the_agent() -> None:
    defaults = {field.name.upper(): field.default for field in fields(Variables)}
    told = {name: _seconds(name) for name in _DEFAULTS if name.startswith("LEASE_")}
    assert told == {name: defaults[name] for name in ("LEASE_SECONDS", "LEASE_RENEW_SECONDS", "LEASE_RETRY_SECONDS")}


def test_the_times_that_the_page_adds_up_are_sums_of_the_defaults() -> None:
    survived = section(AVAILABILITY, "What each survives")
    assert _seconds("LEASE_SECONDS") + _seconds("LEASE_RETRY_SECONDS") == 17
    assert "Up to 17 s" in survived
    node = _seconds("node-monitor-grace-period") + _seconds("ita-ag-oase.nodeFailureSeconds")
    assert round((node + 6 * 60) / 60) == 8
    assert "About 8 min: 50 s + 60 s + up to 6 min" in survived
    assert round(node / 60) == 2
    assert "about 2 min" in survived


def _seconds(name: str) -> int:
    return int(_DEFAULTS[name].removesuffix(" s"))


_NUMBER = re.compile(r"[\d,.]+")


def _number(cell: str) -> float:
    found = _NUMBER.match(cell)
    assert found is not None
    return float(found[0].replace(",", ""))


_FIGURES = {
    (scenario, figure): agent
    for scenario, figure, agent, *_ in rows(section(ROOT / "docs" / "performance.md", "Figures"))
}
_BOUNDS = {
    (scenario, figure): bound for scenario, figure, bound, _ in rows(section(AVAILABILITY, "What one agent carries"))
}


@pytest.mark.parametrize("figure", _BOUNDS, ids=" ".join)
def test_a_bound_of_the_page_holds_for_the_measured_figure(figure: tuple[str, str]) -> None:
    measured, bound = _FIGURES[figure], _BOUNDS[figure]
    assert measured.partition(" ")[2] == bound.partition(" ")[2]
    assert _number(measured) <= _number(bound)


def test_what_follows_from_the_bounds_is_worked_out_right() -> None:
    text = section(AVAILABILITY, "What one agent carries")
    assert _number(_BOUNDS["`crowd`", "cores"]) / (1_000 / 10) == 5e-3
    assert _number(_BOUNDS["`static`", "CPU per poll"]) / 5_000 == 4e-3
    assert "polls per second × 5 ms + known events per second × 4 µs + new events per second × 30 µs" in text
    assert _BOUNDS["`bulk`", "CPU per event"] == "30 µs"


def test_an_answer_takes_no_more_than_four_times_its_size() -> None:
    answer = 20_000 * 500 / 2**20
    assert _number(_FIGURES["`bulk`", "peak"]) <= _number(_BOUNDS["`idle`", "resident"]) + 4 * answer


@pytest.mark.parametrize("size", rows(section(AVAILABILITY, "Memory and CPU to set")), ids=lambda size: size[0])
def test_requests_and_limits_cover_what_the_bounds_make(size: list[str]) -> None:
    sources, events, cpu, memory, limit = size
    millicores = _number(sources) / 10 * 5 + _number(events) * 30e-3
    assert millicores <= _number(cpu.strip("`")) <= 2 * millicores
    at_rest = "`crowd`", "peak"
    assert _number(_FIGURES[at_rest if _number(sources) > 50 else ("`idle`", "resident")]) <= _number(memory.strip("`"))
    assert _number(_BOUNDS["`idle`", "resident"]) + 4 * 32 + 40 <= _number(limit.strip("`"))


_COMMANDS = [*commands(AVAILABILITY, "kubectl"), *commands(AVAILABILITY, "helm")]


def test_commands_are_about_the_release_and_its_objects() -> None:
    text = "\n".join(_COMMANDS)
    rendering = _pattern("active-standby")
    assert {f"{RELEASE} ./chart"} == set(re.findall(r"helm upgrade (\S+ \S+)", text))
    assert set(re.findall(r"get lease (\w\S*)", text)) == {rendering.one("Lease")["metadata"]["name"]}
    assert {*re.findall(r"pod/(\S+)", text), *re.findall(r"delete pod (\w\S*)", text)} == {"oase-agent-move"}
    labels = ",".join(f"{name}={value}" for name, value in rendering.template["metadata"]["labels"].items())
    assert {frozenset(given.split(",")) for given in re.findall(r"--selector (\S+)", text)} == {
        frozenset(labels.split(","))
    }


def test_commands_name_the_namespace_where_there_is_one() -> None:
    without = [command for command in _COMMANDS if f"--namespace {NAMESPACE}" not in command]
    assert [command.split()[1] for command in without] == ["apply", "drain", "apply"]


def test_files_that_are_applied_are_those_of_the_examples_and_of_the_manual_for_kubernetes() -> None:
    applied = [name for command in _COMMANDS for name in re.findall(r"apply -f (\S+)", command)]
    assert applied == [NFS_VOLUME.name, "oase-agent-move.yaml"]
    assert "oase-agent-move.yaml" in files(KUBERNETES)


def test_the_commands_of_helm_run(cluster: Cluster) -> None:
    cluster.hold_release(defaults={}, given={})
    path = str(AVAILABILITY.parent / "examples" / "agents-in-pods-of-their-own.yaml")
    replaced = {"./chart": str(CHART), "exastro-agent.yaml": path}
    for command in commands(AVAILABILITY, "helm"):
        arguments = [replaced.get(word, word) for word in shlex.split(command)[1:]]
        ended = run([*arguments, "--dry-run=client"], environment=cluster.environment)
        assert (ended.code, ended.err) == (0, "")


def test_the_pod_that_works_is_found_in_the_name_of_the_holder() -> None:
    (deleted,) = [command for command in commands(AVAILABILITY, "kubectl") if "LEADER%" in command]
    pod = "ita-ag-oase-66cb7669c6-m2q8c"
    told = subprocess.run(
        ["sh", "-c", deleted.replace("kubectl", "echo", 1)],
        env={"LEADER": f"{pod}_0a1b2c3d"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout == f"delete pod {pod} --namespace {NAMESPACE}\n"
