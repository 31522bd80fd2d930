"""The manual's parameters: the rows of the product's manual in its order, and each does what its row says."""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jmespath
import pytest

from chart_files import parameters
from helm import Manifest, Rendering, agent, render
from ita_ag_oase import __version__
from ita_ag_oase.settings import Settings
from manual import KUBERNETES, rows, section

# The rows of the product's manual, in its order. Two of its names are misspelt there: that of AGENT_NAME, and that of
# the last one, which it gives to another chart.
_MANUAL = [
    "ita-ag-oase.agents.image.repository",
    "ita-ag-oase.agents.image.tag",
    "ita-ag-oase.agents.image.pullPolicy",
    "ita-ag-oase.agents.extraEnv.TZ",
    "ita-ag-oase.agents.extraEnv.DEFAULT_LANGUAGE",
    "ita-ag-oase.agents.extraEnv.LANGUAGE",
    "ita-ag-oase.agents.extraEnv.ITERATION",
    "ita-ag-oase.agents.extraEnv.EXECUTE_INTERVAL",
    "ita-ag-oase.agents.extraEnv.LOG_LEVEL",
    "ita-ag-oase.agents.extraEnv.AGENT_NAME",
    "ita-ag-oase.agents.extraEnv.EXASTRO_URL",
    "ita-ag-oase.agents.extraEnv.EXASTRO_ORGANIZATION_ID",
    "ita-ag-oase.agents.extraEnv.EXASTRO_WORKSPACE_ID",
    "ita-ag-oase.agents.extraEnv.EVENT_COLLECTION_SETTINGS_NAMES",
    "ita-ag-oase.agents.secret.EXASTRO_REFRESH_TOKEN",
    "ita-ag-oase.agents.secret.EXASTRO_USERNAME",
    "ita-ag-oase.agents.secret.EXASTRO_PASSWORD",
    "ita-ag-oase.agents.resources.requests.memory",
    "ita-ag-oase.agents.resources.requests.cpu",
    "ita-ag-oase.agents.resources.limits.memory",
    "ita-ag-oase.agents.resources.limits.cpu",
    "ita-ag-oase.nameOverride",
    "ita-ag-oase.persistence.enabled",
    "ita-ag-oase.persistence.reinstall",
    "ita-ag-oase.persistence.accessMode",
    "ita-ag-oase.persistence.size",
    "ita-ag-oase.persistence.volumeType",
    "ita-ag-oase.persistence.storageClass",
    "ita-ag-oase.persistence.matchLabels.name",
]

_TABLES = rows(section(KUBERNETES, "Parameters"))
# Rows of the product's manual have four cells, further ones three.
_ROWS = {row[0].strip("`"): row for row in _TABLES if len(row) == 4}
_FURTHER = [row[0].strip("`") for row in _TABLES if len(row) == 3]

Load = Callable[[Mapping[str, str]], Settings]

_IMAGE = "exastro-it-automation-ag-oase"
_DIGEST = f"sha256:{'0' * 64}"


class Probe(NamedTuple):
    """A value, where it must be found in what is rendered (JMESPath), what must be there, and what else it needs."""

    value: Any
    place: str
    expected: Any
    others: Mapping[str, Any] = {}


class Variable(NamedTuple):
    """A value of a variable, the attribute of the agent's settings that tells of it, and what that must be."""

    value: str
    attribute: str
    expected: Any
    others: Mapping[str, Any] = {}


_PLAIN_USER = {"ita-ag-oase.agents.secret": {"EXASTRO_USERNAME": "user", "EXASTRO_PASSWORD": "password"}}

_VARIABLES: dict[str, Variable] = {
    "extraEnv.TZ": Variable("America/Lima", "tz", "America/Lima"),
    "extraEnv.DEFAULT_LANGUAGE": Variable(
        "en", "message_language", "en", {"ita-ag-oase.agents.extraEnv.LANGUAGE": "fr"}
    ),
    "extraEnv.LANGUAGE": Variable("ja", "message_language", "ja"),
    "extraEnv.ITERATION": Variable("500", "iteration", 120),
    "extraEnv.EXECUTE_INTERVAL": Variable("2", "execute_interval", 3),
    "extraEnv.LOG_LEVEL": Variable("DEBUG", "log_level", "DEBUG"),
    "extraEnv.AGENT_NAME": Variable("probe", "store_path.name", "ag_oase_probe.sqlite3"),
    "extraEnv.EXASTRO_URL": Variable("https://probe:8443", "exastro_url", "https://probe:8443"),
    "extraEnv.EXASTRO_ORGANIZATION_ID": Variable("probe", "exastro_organization_id", "probe"),
    "extraEnv.EXASTRO_WORKSPACE_ID": Variable("probe", "exastro_workspace_id", "probe"),
    "extraEnv.EVENT_COLLECTION_SETTINGS_NAMES": Variable("a, b", "event_collection_settings_names", ("a", "b")),
    "secret.EXASTRO_REFRESH_TOKEN": Variable("probe", "refresh_token", "probe"),
    "secret.EXASTRO_USERNAME": Variable("probe", "exastro_username", "probe", _PLAIN_USER),
    "secret.EXASTRO_PASSWORD": Variable("probe", "password", "probe", _PLAIN_USER),
}

_PROBES: dict[str, Probe] = {
    "global.agentGlobalDefinition.image.registry": Probe(
        "registry.example", "container.image", f"registry.example/exastro/{_IMAGE}:{__version__}"
    ),
    "global.agentGlobalDefinition.image.organization": Probe(
        "probe", "container.image", f"docker.io/probe/{_IMAGE}:{__version__}"
    ),
    "global.agentGlobalDefinition.image.package": Probe(
        "probe", "container.image", f"docker.io/exastro/probe-ag-oase:{__version__}"
    ),
    "agents.image.repository": Probe(
        "registry.example/probe", "container.image", f"registry.example/probe:{__version__}"
    ),
    "agents.image.tag": Probe("9.9.9", "container.image", f"docker.io/exastro/{_IMAGE}:9.9.9"),
    "agents.image.digest": Probe(_DIGEST, "container.image", f"docker.io/exastro/{_IMAGE}@{_DIGEST}"),
    "agents.image.pullPolicy": Probe("Always", "container.imagePullPolicy", "Always"),
    "agents.existingSecret": Probe("probe", "container.envFrom[-1].secretRef.name", "probe"),
    "agents.secretFiles": Probe(
        {"EXASTRO_PASSWORD_FILE": {"secret": "probe", "key": "password"}},
        "pod.volumes[?name=='secrets-0'].projected.sources[0].secret.name | [0]",
        "probe",
    ),
    "agents.resources.requests.memory": Probe("96Mi", "container.resources.requests.memory", "96Mi"),
    "agents.resources.requests.cpu": Probe("50m", "container.resources.requests.cpu", "50m"),
    "agents.resources.limits.memory": Probe("256Mi", "container.resources.limits.memory", "256Mi"),
    "agents.resources.limits.cpu": Probe("500m", "container.resources.limits.cpu", "500m"),
    "agents.persistence": Probe(
        {"size": "7Gi"},
        "PersistentVolumeClaim.spec.resources.requests.storage",
        "7Gi",
        {"ita-ag-oase.layout": "pod-per-agent"},
    ),
    "layout": Probe(
        "pod-per-agent",
        "[Deployment.metadata.name, PersistentVolumeClaim.metadata.name]",
        ["ita-ag-oase-a", "pvc-ita-ag-oase-a"],
    ),
    "highAvailability.enabled": Probe(
        True,
        "[Deployment.spec.replicas, Lease.metadata.name, pod.automountServiceAccountToken]",
        [2, "ita-ag-oase-a", True],
    ),
    "nameOverride": Probe(
        "probe",
        "[Deployment.metadata.name, container.name, PersistentVolumeClaim.metadata.name]",
        ["probe", "probe-a", "pvc-probe"],
    ),
    "replicas": Probe(0, "Deployment.spec.replicas", 0),
    "updateStrategy": Probe({"type": "Recreate"}, "Deployment.spec.strategy", {"type": "Recreate"}),
    "terminationGracePeriodSeconds": Probe(7, "pod.terminationGracePeriodSeconds", 7),
    "imagePullSecrets": Probe([{"name": "probe"}], "pod.imagePullSecrets", [{"name": "probe"}]),
    "persistence.enabled": Probe(False, "pod.volumes[?name=='storage'].emptyDir | [0]", {"sizeLimit": "10Gi"}),
    "persistence.accessMode": Probe("ReadWriteOnce", "PersistentVolumeClaim.spec.accessModes", ["ReadWriteOnce"]),
    "persistence.size": Probe("2Gi", "PersistentVolumeClaim.spec.resources.requests.storage", "2Gi"),
    "persistence.storageClass": Probe("probe", "PersistentVolumeClaim.spec.storageClassName", "probe"),
    "persistence.volumeName": Probe("probe", "PersistentVolumeClaim.spec.volumeName", "probe"),
    "persistence.matchLabels.name": Probe(
        "probe",
        "PersistentVolumeClaim.spec.selector.matchLabels",
        {"name": "probe"},
        {"ita-ag-oase.persistence.matchExpressions": [{"key": "a", "operator": "Exists"}]},
    ),
    "persistence.matchExpressions": Probe(
        [{"key": "a", "operator": "Exists"}],
        "PersistentVolumeClaim.spec.selector.matchExpressions",
        [{"key": "a", "operator": "Exists"}],
        {"ita-ag-oase.persistence.matchLabels": {"name": "probe"}},
    ),
    "persistence.selector": Probe(
        {"matchLabels": {"a": "probe"}}, "PersistentVolumeClaim.spec.selector", {"matchLabels": {"a": "probe"}}
    ),
    "persistence.existingClaim": Probe(
        "probe",
        "[PersistentVolumeClaim, pod.volumes[?name=='storage'].persistentVolumeClaim.claimName | [0]]",
        [None, "probe"],
    ),
    "persistence.annotations": Probe({"a": "probe"}, "PersistentVolumeClaim.metadata.annotations.a", "probe"),
    "persistence.keep": Probe(False, "PersistentVolumeClaim.metadata.annotations", None),
    "persistence.mountPath.storage": Probe(
        "/probe",
        "[container.volumeMounts[?name=='storage'].mountPath | [0], variables.STORAGEPATH]",
        ["/probe", "/probe"],
    ),
    "persistence.mountPath.homeDir": Probe(
        "/probe", "container.volumeMounts[?name=='home-0'].mountPath | [0]", "/probe"
    ),
    "persistence.mountPath.tmp": Probe("/probe", "container.volumeMounts[?name=='tmp-0'].mountPath | [0]", "/probe"),
    "volumePermissions.enabled": Probe(False, "pod.initContainers", None),
    "volumePermissions.resources": Probe(
        {"requests": {"cpu": "7m"}}, "pod.initContainers[0].resources.requests.cpu", "7m"
    ),
    "scratch.tmpSizeLimit": Probe("7Mi", "pod.volumes[?name=='tmp-0'].emptyDir.sizeLimit | [0]", "7Mi"),
    "scratch.homeSizeLimit": Probe("7Mi", "pod.volumes[?name=='home-0'].emptyDir.sizeLimit | [0]", "7Mi"),
    "caBundle.configMap": Probe("probe", "pod.volumes[?name=='ca-bundle'].configMap.name | [0]", "probe"),
    "caBundle.secret": Probe("probe", "pod.volumes[?name=='ca-bundle'].secret.secretName | [0]", "probe"),
    "caBundle.key": Probe(
        "probe.pem",
        "pod.volumes[?name=='ca-bundle'].configMap.items[0].key | [0]",
        "probe.pem",
        {"ita-ag-oase.caBundle.configMap": "authorities"},
    ),
    "probes.enabled": Probe(False, "[container.startupProbe, container.livenessProbe]", [None, None]),
    "probes.startup": Probe({"failureThreshold": 7}, "container.startupProbe.failureThreshold", 7),
    "probes.liveness": Probe({"failureThreshold": 7}, "container.livenessProbe.failureThreshold", 7),
    "probes.readiness": Probe({"failureThreshold": 7}, "container.readinessProbe.failureThreshold", 7),
    "metrics.podMonitor.enabled": Probe(True, "PodMonitor.spec.podMetricsEndpoints[0].path", "/metrics"),
    "metrics.podMonitor.interval": Probe(
        "7s",
        "PodMonitor.spec.podMetricsEndpoints[0].interval",
        "7s",
        {"ita-ag-oase.metrics.podMonitor.enabled": True},
    ),
    "metrics.podMonitor.labels": Probe(
        {"a": "probe"}, "PodMonitor.metadata.labels.a", "probe", {"ita-ag-oase.metrics.podMonitor.enabled": True}
    ),
    "metrics.prometheusRule.enabled": Probe(True, "PrometheusRule.spec.groups[0].rules[0].alert", "OaseAgentDown"),
    "metrics.prometheusRule.labels": Probe(
        {"a": "probe"},
        "PrometheusRule.metadata.labels.a",
        "probe",
        {"ita-ag-oase.metrics.prometheusRule.enabled": True},
    ),
    "metrics.prometheusRule.groups": Probe(
        [{"name": "probe", "rules": []}],
        "PrometheusRule.spec.groups[-1].name",
        "probe",
        {"ita-ag-oase.metrics.prometheusRule.enabled": True},
    ),
    "networkPolicy.enabled": Probe(True, "NetworkPolicy.spec.ingress", [{"ports": [{"port": 9879}]}]),
    "networkPolicy.ingressFrom": Probe(
        [{"podSelector": {}}],
        "NetworkPolicy.spec.ingress[0].from",
        [{"podSelector": {}}],
        {"ita-ag-oase.networkPolicy.enabled": True},
    ),
    "networkPolicy.egress": Probe(
        [{"ports": [{"port": 443}]}],
        "NetworkPolicy.spec.egress",
        [{"ports": [{"port": 443}]}],
        {"ita-ag-oase.networkPolicy.enabled": True},
    ),
    "podDisruptionBudget": Probe(
        {"maxUnavailable": 1}, "PodDisruptionBudget.spec.maxUnavailable", 1, {"ita-ag-oase.replicas": 2}
    ),
    "serviceAccount.create": Probe(
        True, "[ServiceAccount.metadata.name, pod.serviceAccountName]", ["ita-ag-oase", "ita-ag-oase"]
    ),
    "serviceAccount.annotations": Probe(
        {"a": "probe"}, "ServiceAccount.metadata.annotations.a", "probe", {"ita-ag-oase.serviceAccount.create": True}
    ),
    "serviceAccount.name": Probe("probe", "pod.serviceAccountName", "probe"),
    "automountServiceAccountToken": Probe(True, "pod.automountServiceAccountToken", True),
    "enableServiceLinks": Probe(True, "pod.enableServiceLinks", True),
    "podAnnotations": Probe({"a": "probe"}, "Deployment.spec.template.metadata.annotations.a", "probe"),
    "podLabels": Probe({"a": "probe"}, "Deployment.spec.template.metadata.labels.a", "probe"),
    "podSecurityContext": Probe({"fsGroup": 7}, "pod.securityContext.fsGroup", 7),
    "securityContext": Probe({"runAsUser": 7}, "container.securityContext.runAsUser", 7),
    "priorityClassName": Probe("probe", "pod.priorityClassName", "probe"),
    "nodeSelector": Probe({"a": "probe"}, "pod.nodeSelector", {"a": "probe"}),
    "tolerations": Probe([{"key": "probe"}], "pod.tolerations[0]", {"key": "probe"}),
    "nodeFailureSeconds": Probe(7, "pod.tolerations[].tolerationSeconds", [7, 7]),
    "affinity": Probe({"podAntiAffinity": {}}, "pod.affinity", {"podAntiAffinity": {}}),
    "topologySpreadConstraints": Probe([{"maxSkew": 7}], "pod.topologySpreadConstraints", [{"maxSkew": 7}]),
    "extraEnvFrom": Probe(
        [{"configMapRef": {"name": "probe"}}], "container.envFrom[-1]", {"configMapRef": {"name": "probe"}}
    ),
    "extraVolumes": Probe([{"name": "probe", "emptyDir": {}}], "pod.volumes[?name=='probe'].emptyDir | [0]", {}),
    "extraVolumeMounts": Probe(
        [{"name": "probe", "mountPath": "/probe"}],
        "container.volumeMounts[?name=='probe'].mountPath | [0]",
        "/probe",
    ),
    "extraObjects": Probe(
        [{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "probe"}}], "Service.metadata.name", "probe"
    ),
}

_WITHOUT_EFFECT: dict[str, Any] = {
    "global.agentGlobalDefinition.name": "probe",
    "global.agentGlobalDefinition.enabled": False,
    "persistence.reinstall": True,
    "persistence.volumeType": "AKS",
}


def _path(name: str) -> str:
    if name.startswith(("extraEnv.", "secret.")):
        return f"ita-ag-oase.agents.{name}"
    return name if name.startswith("global.") else f"ita-ag-oase.{name}"


def _values(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return values with one agent that lacks nothing, and at each path what is given; an agent's stand in the list."""
    own = agent()
    values: dict[str, Any] = {"ita-ag-oase": {"agents": [own]}}
    for path, value in given.items():
        *steps, last = path.removeprefix("ita-ag-oase.agents.").split(".")
        place = own if path.startswith("ita-ag-oase.agents.") else values
        for step in steps:
            place = place.setdefault(step, {})
        place[last] = value
    return values


def _document(rendering: Rendering) -> Manifest:
    """Return what is rendered, by kind, with the agent's pod, its container, and its variables."""
    (container,) = rendering.containers.values()
    kinds = {found["kind"]: found for found in rendering.objects if not found["metadata"]["name"].startswith("check-")}
    return kinds | {"pod": rendering.pod, "container": container, "variables": rendering.variables(container)}


def test_the_rows_are_those_of_the_products_manual_in_its_order() -> None:
    assert list(_ROWS) == _MANUAL


def test_what_the_chart_has_besides_has_a_row_too() -> None:
    paths = [parameter.path.replace("[]", "") for parameter in parameters()]
    own = [path for path in paths if any(f"{row}.".startswith(f"{path}.") for row in _MANUAL)]
    assert [path for path in paths if path not in own] == _FURTHER


def test_every_row_is_tried() -> None:
    tried = [_path(name) for name in (*_VARIABLES, *_PROBES, *_WITHOUT_EFFECT)]
    assert sorted(tried) == sorted([*_MANUAL, *_FURTHER])


def _default(path: str) -> str:
    """Return a parameter's default as the table writes it."""
    defaults = {parameter.path.replace("[]", ""): parameter.default for parameter in parameters()}
    default = defaults.get(path)
    if default is None:
        return "unset"
    value = json.loads(default)
    return value if isinstance(value, str) and value else default


@pytest.mark.parametrize("path", _MANUAL)
def test_the_default_of_a_row_is_that_of_the_values(path: str) -> None:
    cell = _ROWS[path][3]
    found = re.match(r"`([^`]+)`|unset", cell)
    assert found is not None
    assert (found[1] or found[0]) == _default(path)


@pytest.mark.parametrize("name", _VARIABLES)
def test_a_variable_reaches_the_agent_and_is_used(name: str, load_from: Load) -> None:
    probe = _VARIABLES[name]
    document = _document(render(_values({**probe.others, _path(name): probe.value})))
    used: Any = load_from(document["variables"])
    for attribute in probe.attribute.split("."):
        used = getattr(used, attribute)
    assert (document["variables"][name.rpartition(".")[2]], used) == (probe.value, probe.expected)


@pytest.mark.parametrize("name", _PROBES)
def test_a_value_reaches_its_place(name: str) -> None:
    probe = _PROBES[name]
    before = _document(render(_values(probe.others)))
    after = _document(render(_values({**probe.others, _path(name): probe.value})))
    assert jmespath.search(probe.place, after) == probe.expected
    assert jmespath.search(probe.place, before) != probe.expected


@pytest.mark.parametrize("name", _WITHOUT_EFFECT)
def test_a_value_without_effect_changes_nothing(name: str) -> None:
    assert render(_values({_path(name): _WITHOUT_EFFECT[name]})).objects == render(_values({})).objects


def test_default_language_does_not_hold_where_language_is_one_of_the_two(load_from: Load) -> None:
    values = _values({_path("extraEnv.LANGUAGE"): "en", _path("extraEnv.DEFAULT_LANGUAGE"): "ja"})
    assert load_from(_document(render(values))["variables"]).message_language == "en"
