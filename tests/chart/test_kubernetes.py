"""Rendered objects against Kubernetes' own rules: its schemas, version by version, and its Pod Security Standards."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml
from kubernetes_validate.utils import ValidationError, all_versions, validate

from chart_files import SHAPES
from helm import OPTIONS, Manifest, agent, agents, others, render

_EVERYTHING: dict[str, Any] = agents(
    agent(
        "a",
        existingSecret="mine",
        secretFiles={"EXASTRO_PASSWORD_FILE": {"secret": "mine", "key": "password"}},
        resources={"limits": {"memory": "64Mi"}},
    ),
    agent("b"),
    replicas=2,
    podDisruptionBudget={"maxUnavailable": 1},
    networkPolicy={"enabled": True, "egress": [{}]},
    serviceAccount={"create": True, "annotations": {"a": "b"}},
    persistence={"selector": {"matchLabels": {"a": "b"}}},
    caBundle={"configMap": "authorities"},
    priorityClassName="high",
    nodeSelector={"disk": "ssd"},
    topologySpreadConstraints=[{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}],
    imagePullSecrets=[{"name": "pull"}],
)
_RENDERINGS: dict[str, Any] = {
    **{shape.stem: yaml.safe_load(shape.read_text(encoding="utf-8")) for shape in SHAPES},
    "no-persistence": others(persistence={"enabled": False}, updateStrategy={"type": "Recreate"}),
    **{f"everything-{name}": {"ita-ag-oase": _EVERYTHING["ita-ag-oase"] | option} for name, option in OPTIONS.items()},
}

# The chart is for Kubernetes 1.23; these are the versions from the oldest on for which there are schemas.
_VERSIONS = list(dict.fromkeys(all_versions()))


@pytest.mark.parametrize("version", _VERSIONS)
def test_kubernetes_accepts_every_object(version: str) -> None:
    # One of each kind, but for the Deployment, which differs most.
    deployments = [render(values).all("Deployment")[0] for values in _RENDERINGS.values()]
    everything = render(_RENDERINGS["everything-pod-per-agent-high-availability"]).objects
    others_of_a_kind = {found["kind"]: found for found in everything if found["kind"] != "Deployment"}
    for found in (*deployments, *others_of_a_kind.values()):
        validate(found, version, strict=True)


def test_the_schemas_refuse_what_is_no_field() -> None:
    deployment = copy.deepcopy(render(others()).one("Deployment"))
    deployment["spec"]["template"]["spec"]["typo"] = 1
    with pytest.raises(ValidationError):
        validate(deployment, _VERSIONS[0], strict=True)


_VOLUME_KINDS = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
_SECCOMP = ("RuntimeDefault", "Localhost")


def _breaches(pod: Manifest) -> set[str]:
    """Return the rules of the standard "restricted" that a pod breaks (Kubernetes: Pod Security Standards)."""
    context = pod.get("securityContext") or {}
    of_containers = [
        f"{name} ({container['name']})"
        for container in [*pod.get("initContainers", []), *pod["containers"]]
        for name in _container_breaches(container, context)
    ]
    return {*_pod_breaches(pod, context), *of_containers}


def _pod_breaches(pod: Manifest, context: Manifest) -> Iterator[str]:
    if any(pod.get(name) for name in ("hostNetwork", "hostPID", "hostIPC")):
        yield "host namespaces"
    if any(volume.keys() - {"name"} - _VOLUME_KINDS for volume in pod.get("volumes", [])):
        yield "volume kinds"
    if context.get("runAsUser") == 0:
        yield "user of the pod"
    if context.get("sysctls"):
        yield "sysctls"
    if context.get("seLinuxOptions") or context.get("windowsOptions") or context.get("appArmorProfile"):
        yield "options of the pod"


def _container_breaches(container: Manifest, of_pod: Manifest) -> Iterator[str]:
    context = container.get("securityContext") or {}
    capabilities = context.get("capabilities") or {}
    if context.get("privileged"):
        yield "privileged"
    if context.get("allowPrivilegeEscalation") is not False:
        yield "privilege escalation"
    if "ALL" not in capabilities.get("drop", []) or set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}:
        yield "capabilities"
    if context.get("runAsNonRoot", of_pod.get("runAsNonRoot")) is not True:
        yield "not as root"
    if context.get("runAsUser") == 0:
        yield "user"
    if (context.get("seccompProfile") or of_pod.get("seccompProfile") or {}).get("type") not in _SECCOMP:
        yield "seccomp"
    if context.get("procMount", "Default") != "Default":
        yield "proc mount"
    if any(port.get("hostPort") for port in container.get("ports", [])):
        yield "host ports"
    if context.get("seLinuxOptions") or context.get("windowsOptions") or context.get("appArmorProfile"):
        yield "options"


def _pods(values: Any) -> list[Manifest]:
    rendering = render(values)
    return [*rendering.pods.values(), *(pod["spec"] for pod in rendering.all("Pod"))]


def _without_the_first_step(values: Any) -> Any:
    own = values["ita-ag-oase"] | {"volumePermissions": {"enabled": False}}
    return values | {"ita-ag-oase": own}


@pytest.mark.parametrize("name", _RENDERINGS)
def test_pods_keep_to_the_restricted_standard_without_the_first_step(name: str) -> None:
    assert [_breaches(pod) for pod in _pods(_without_the_first_step(_RENDERINGS[name]))] == [
        set() for _ in _pods(_RENDERINGS[name])
    ]


def test_the_first_step_breaks_what_it_must_and_nothing_else() -> None:
    assert _breaches(_pods(others())[0]) == {
        "capabilities (volume-permissions)",
        "not as root (volume-permissions)",
        "user (volume-permissions)",
    }


def _context(**given: Any) -> Callable[[Manifest], None]:
    return lambda pod: pod["containers"][0]["securityContext"].update(given)


def _of_pod(**given: Any) -> Callable[[Manifest], None]:
    return lambda pod: pod.update(given)


_WAYS_TO_BREAK: list[Any] = [
    (_of_pod(hostNetwork=True), "host namespaces"),
    (_of_pod(hostPID=True), "host namespaces"),
    (_of_pod(hostIPC=True), "host namespaces"),
    (_of_pod(volumes=[{"name": "x", "hostPath": {"path": "/"}}]), "volume kinds"),
    (_of_pod(securityContext={"runAsUser": 0, "seccompProfile": {"type": "RuntimeDefault"}}), "user of the pod"),
    (_of_pod(securityContext={"sysctls": [{}], "seccompProfile": {"type": "RuntimeDefault"}}), "sysctls"),
    (
        _of_pod(securityContext={"seLinuxOptions": {"a": "b"}, "seccompProfile": {"type": "Localhost"}}),
        "options of the pod",
    ),
    (_of_pod(securityContext={}), "seccomp (ita-ag-oase-a)"),
    (_context(privileged=True), "privileged (ita-ag-oase-a)"),
    (_context(allowPrivilegeEscalation=True), "privilege escalation (ita-ag-oase-a)"),
    (_context(capabilities={"drop": ["NET_RAW"]}), "capabilities (ita-ag-oase-a)"),
    (_context(capabilities={"drop": ["ALL"], "add": ["SYS_ADMIN"]}), "capabilities (ita-ag-oase-a)"),
    (_context(runAsNonRoot=False), "not as root (ita-ag-oase-a)"),
    (_context(runAsUser=0), "user (ita-ag-oase-a)"),
    (_context(seccompProfile={"type": "Unconfined"}), "seccomp (ita-ag-oase-a)"),
    (_context(procMount="Unmasked"), "proc mount (ita-ag-oase-a)"),
    (_context(appArmorProfile={"type": "Unconfined"}), "options (ita-ag-oase-a)"),
    (lambda pod: pod["containers"][0].update(ports=[{"hostPort": 80}]), "host ports (ita-ag-oase-a)"),
]


@pytest.mark.parametrize(("break_it", "breach"), _WAYS_TO_BREAK)
def test_a_breach_of_the_standard_is_seen(break_it: Callable[[Manifest], None], breach: str) -> None:
    pod = copy.deepcopy(_pods(_without_the_first_step(others()))[0])
    break_it(pod)
    assert _breaches(pod) == {breach}
