"""What was wrong with the stock chart, fault by fault, and what comes out now."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from helm import AGENT_CHART, Rendering, Values, agent, agents, others, refusal, render

_TEXTS = [
    pytest.param('"12345678"', '"12345678"', id="quotes"),
    pytest.param("@dmin", "@dmin", id="at-sign"),
    pytest.param("a{{b}}c", "a{{b}}c", id="braces"),
    pytest.param("it's: #1 <&> \\n", "it's: #1 <&> \\n", id="signs-of-yaml"),
    pytest.param(" two\nlines \n", " two\nlines \n", id="white-space"),
    pytest.param("パスワード😀", "パスワード😀", id="japanese"),
    pytest.param("0123", "0123", id="leading-zero"),
    pytest.param(12345678, "12345678", id="number"),
    pytest.param(1234567890, "1234567890", id="large-number"),
    pytest.param(9007199254740991, "9007199254740991", id="largest-number"),
    pytest.param(0.25, "0.25", id="fraction"),
    pytest.param(-1, "-1", id="negative"),
    pytest.param(True, "true", id="true"),
    pytest.param(False, "false", id="false"),
    pytest.param("", "", id="empty"),
    pytest.param(None, "", id="null"),
]


def _single(values: Values) -> tuple[Rendering, dict[str, Any]]:
    """Return a rendering with its one container."""
    rendering = render(values)
    (container,) = rendering.containers.values()
    return rendering, container


@pytest.mark.parametrize(("value", "text"), _TEXTS)
@pytest.mark.parametrize("kind", ["extraEnv", "secret"])
def test_a_value_arrives_to_the_letter(kind: str, value: object, text: str) -> None:
    rendering, container = _single(agents({"extraEnv": {"AGENT_NAME": "a"}} | {kind: {"AGENT_NAME": "a", "X": value}}))
    assert rendering.variables(container)["X"] == text


@pytest.mark.parametrize("kind", ["extraEnv", "secret"])
def test_values_arrive_to_the_letter_in_every_option(kind: str, option: Values) -> None:
    given = {f"X{number}": case.values[0] for number, case in enumerate(_TEXTS)}
    rendering, container = _single(agents({"extraEnv": {"AGENT_NAME": "a"}} | {kind: given}, **option))
    variables = rendering.variables(container)
    assert [variables[name] for name in given] == [case.values[1] for case in _TEXTS]


@pytest.mark.parametrize("kind", ["extraEnv", "secret"])
def test_a_number_that_helm_cannot_read_is_refused(kind: str, option: Values) -> None:
    assert refusal(agents({"extraEnv": {"AGENT_NAME": "a"}} | {kind: {"X": 2**53 + 2}}, **option)) == (
        f"ita-ag-oase.agents[0].{kind}.X is a number of more digits than Helm can read: write it in quotes"
    )


@pytest.mark.parametrize("left_out", ["image", "extraEnv", "secret", "resources"])
@pytest.mark.parametrize("is_null", [False, True], ids=["absent", "null"])
def test_an_agent_may_leave_out(left_out: str, option: Values, *, is_null: bool) -> None:
    given = {"image": {}, "resources": {}, **agent()}
    given = given | {left_out: None} if is_null else {key: value for key, value in given.items() if key != left_out}
    assert len(render(agents(given, **option)).containers) == 1


@pytest.mark.parametrize("given", [[], None], ids=["empty", "null"])
def test_no_agent_is_refused(given: object, option: Values) -> None:
    assert refusal({"ita-ag-oase": {"agents": given}}) == (
        "ita-ag-oase.agents names no agent: write at least one, with extraEnv and secret, as `helm show values` shows "
        "it"
    )


@pytest.fixture(name="volume")
def _volume(tmp_path: Path) -> Path:
    """Return a volume with a store, as a file system of its own has it."""
    (tmp_path / "volume" / "org").mkdir(parents=True)
    (tmp_path / "volume" / "org" / "store").touch()
    (tmp_path / "volume" / "lost+found" / "below").mkdir(parents=True)
    return tmp_path / "volume"


def _first_step(volume: Path, *, is_denied: bool) -> "subprocess.CompletedProcess[str]":
    """Return how the first step ends where chown is denied, or not; it prints what it is called with."""
    (step,) = render(others()).pod["initContainers"]
    *command, mounted = step["command"]
    assert mounted == "/storage"
    chown = volume.parent / "chown"
    chown.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@"\nexit {int(is_denied)}\n', encoding="utf-8")
    chown.chmod(0o755)
    environment = {"PATH": f"{volume.parent}:/usr/bin:/bin"}
    return subprocess.run([*command, str(volume)], capture_output=True, text=True, env=environment, timeout=60)


def test_the_first_step_gives_the_volume_and_all_of_the_agents_in_it_to_the_agent(volume: Path) -> None:
    ended = _first_step(volume, is_denied=False)
    called = ended.stdout.splitlines()
    assert (ended.returncode, ended.stderr, called[:2]) == (0, "", ["-h", "1000:1000"])
    assert sorted(called[2:]) == [str(volume), f"{volume}/org", f"{volume}/org/store"]


def test_the_first_step_ends_well_where_the_owner_cannot_be_changed(volume: Path) -> None:
    ended = _first_step(volume, is_denied=True)
    assert (ended.returncode, ended.stderr) == (
        0,
        f"{volume} could not be given to 1000:1000: where the agent cannot write, do so by hand\n",
    )


def test_the_first_step_uses_the_agents_image_and_one_capability(option: Values) -> None:
    pod = render(others(initContainerImage={"repository": "example.test/ubi8/ubi-init"}, **option)).pod
    (step,) = pod["initContainers"]
    assert step["image"] == pod["containers"][0]["image"]
    assert step["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"add": ["CHOWN"], "drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
        "runAsGroup": 0,
        "runAsNonRoot": False,
        "runAsUser": 0,
    }
    assert step["resources"] == {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "64Mi"}}


def test_the_first_step_can_be_switched_off(option: Values) -> None:
    assert "initContainers" not in render(others(volumePermissions={"enabled": False}, **option)).pod


def test_a_rollout_ends_the_old_pod_before_it_starts_the_new_one(option: Values) -> None:
    assert render(others(**option)).one("Deployment")["spec"]["strategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1},
    }


def test_a_rollout_can_be_set_to_recreate(option: Values) -> None:
    rendering = render(others(updateStrategy={"type": "Recreate"}, **option))
    assert rendering.one("Deployment")["spec"]["strategy"] == {"type": "Recreate"}


@pytest.mark.parametrize("kind", ["extraEnv", "secret"])
def test_a_changed_variable_changes_the_pod(kind: str, option: Values) -> None:
    before, after = (render(agents(agent() | {kind: {"X": value}}, **option)).template for value in ("1", "2"))
    checksums = [template["metadata"]["annotations"].pop("checksum/variables") for template in (before, after)]
    assert before == after
    assert checksums[0] != checksums[1]


def test_an_agent_is_watched_from_its_start(option: Values) -> None:
    _, container = _single(others(**option))
    status = "status-0"
    assert container["ports"] == [{"name": status, "containerPort": 9879}]
    assert {kind: container[f"{kind}Probe"] for kind in ("startup", "liveness", "readiness")} == {
        "startup": {
            "httpGet": {"path": "/livez", "port": status},
            "periodSeconds": 5,
            "timeoutSeconds": 5,
            "failureThreshold": 120,
        },
        "liveness": {
            "httpGet": {"path": "/livez", "port": status},
            "periodSeconds": 20,
            "timeoutSeconds": 10,
            "failureThreshold": 6,
        },
        "readiness": {
            "httpGet": {"path": "/readyz", "port": status},
            "periodSeconds": 10,
            "timeoutSeconds": 10,
            "failureThreshold": 3,
        },
    }


def test_uninstalling_keeps_the_claim(option: Values) -> None:
    claim = render(others(**option)).one("PersistentVolumeClaim")
    assert claim["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}


def test_uninstalling_takes_the_claim_along_where_that_is_wanted(option: Values) -> None:
    claim = render(others(persistence={"keep": False}, **option)).one("PersistentVolumeClaim")
    assert "annotations" not in claim["metadata"]


_ACCOUNTS = [
    pytest.param({"create": True}, ["ita-ag-oase"], "ita-ag-oase", id="made"),
    pytest.param({"create": "true"}, ["ita-ag-oase"], "ita-ag-oase", id="made-by-a-text"),
    pytest.param({"create": True, "name": "mine"}, ["mine"], "mine", id="made-under-a-name"),
    pytest.param({"create": False, "name": "mine"}, [], "mine", id="there-already"),
    pytest.param({"create": False}, [], "default", id="none"),
    pytest.param({"create": "false"}, [], "default", id="none-by-a-text"),
    pytest.param(None, [], "default", id="null"),
]


@pytest.mark.parametrize(("given", "made", "used"), _ACCOUNTS)
def test_a_service_account_is_made_and_used(given: Values | None, made: list[str], used: str) -> None:
    rendering = render(others(serviceAccount=given))
    assert [account["metadata"]["name"] for account in rendering.all("ServiceAccount")] == made
    assert rendering.pod["serviceAccountName"] == used


def test_the_store_follows_the_volume(option: Values) -> None:
    rendering, container = _single(others(persistence={"mountPath": {"storage": "/data"}}, **option))
    assert rendering.variables(container)["STORAGEPATH"] == "/data"
    assert {"name": "storage", "mountPath": "/data"} in container["volumeMounts"]
    assert rendering.pod["initContainers"][0]["command"][-1] == "/data"


@pytest.mark.parametrize("path", ["/data", "/storage2"])
def test_a_store_that_is_not_on_the_volume_is_refused(path: str, option: Values) -> None:
    assert refusal(agents(agent(extraEnv={"STORAGEPATH": path}), **option)) == (
        f"STORAGEPATH of ita-ag-oase.agents[0] is {path}, but the volume is mounted at /storage: leave STORAGEPATH "
        "out, or write the same path in ita-ag-oase.persistence.mountPath.storage"
    )


_STORES: list[Any] = [
    pytest.param("/storage", {}, id="the-volume"),
    pytest.param("/storage/", {}, id="with-a-slash"),
    pytest.param("/storage/below", {}, id="below"),
    pytest.param("/data", {"extraVolumeMounts": [{"name": "mine", "mountPath": "/data"}]}, id="a-volume-of-ones-own"),
]


@pytest.mark.parametrize(("path", "given"), _STORES)
def test_a_store_may_be_anywhere_on_a_volume(path: str, given: Values, option: Values) -> None:
    rendering = render(agents(agent(extraEnv={"STORAGEPATH": path}), **given, **option))
    assert rendering.variables(rendering.pod["containers"][0])["STORAGEPATH"] == path


_OBJECTS = [
    "affinity",
    "caBundle",
    "ingress",
    "initContainerImage",
    "metrics",
    "networkPolicy",
    "nodeSelector",
    "podAnnotations",
    "podDisruptionBudget",
    "podSecurityContext",
    "probes",
    "scratch",
    "securityContext",
    "service",
    "serviceAccount",
    "tolerations",
    "updateStrategy",
    "volumePermissions",
]


@pytest.mark.parametrize("name", _OBJECTS)
def test_an_object_may_be_null(name: str) -> None:
    assert render(others(**{name: None})).one("Deployment")["metadata"]["name"] == "ita-ag-oase"


def test_all_objects_may_be_null_in_every_option(option: Values) -> None:
    assert list(render(others(**dict.fromkeys(_OBJECTS), **option)).containers) == ["ita-ag-oase-a"]


def test_persistence_that_is_null_is_none() -> None:
    assert render(others(persistence=None)).all("PersistentVolumeClaim") == []


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("IfNotPresent", "IfNotPresent"),
        ("Always", "Always"),
        ("None", "Never"),
        ("Never", "Never"),
        ("", "IfNotPresent"),
    ],
)
def test_pull_policy_none_means_never(given: str, used: str, option: Values) -> None:
    pod = render(agents(agent(image={"pullPolicy": given}), **option)).pod
    assert [container["imagePullPolicy"] for container in (*pod["initContainers"], *pod["containers"])] == [used, used]


def test_the_pod_has_no_rights_that_it_does_not_use() -> None:
    rendering, container = _single(others())
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert {
        key: rendering.pod[key] for key in ("securityContext", "automountServiceAccountToken", "enableServiceLinks")
    } == {
        "securityContext": {
            "fsGroup": 1000,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
    }


def test_agents_of_a_pod_share_the_volume_alone() -> None:
    rendering = render(agents(agent("a"), agent("b")))
    first, second = (
        {mount["name"] for mount in container["volumeMounts"]} for container in rendering.containers.values()
    )
    assert first & second == {"storage"}


def test_what_an_agent_may_write_beside_its_volume_is_bounded() -> None:
    volumes = {volume["name"]: volume for volume in render(others(persistence={"enabled": False})).pod["volumes"]}
    assert volumes == {
        "storage": {"name": "storage", "emptyDir": {"sizeLimit": "10Gi"}},
        "home-0": {"name": "home-0", "emptyDir": {"sizeLimit": "16Mi"}},
        "tmp-0": {"name": "tmp-0", "emptyDir": {"sizeLimit": "256Mi"}},
    }


@pytest.mark.parametrize("name", ["probes", "metrics", "networkPolicy", "volumePermissions", "caBundle", "scratch"])
def test_a_typing_mistake_in_a_new_object_is_refused(name: str, option: Values) -> None:
    assert refusal(others(**{name: {"typo": 1}}, **option)) == f"- {name}: Additional property typo is not allowed"


def test_there_are_notes_a_schema_a_readme_and_a_test() -> None:
    chart = AGENT_CHART.parents[1]
    schema = json.loads((AGENT_CHART / "values.schema.json").read_text(encoding="utf-8"))
    assert schema["type"] == "object"
    assert (chart / "README.md").exists()
    assert (chart / "templates" / "NOTES.txt").exists()
    assert len(render(others()).all("Pod")) == 1


def test_the_agents_identity_stays_through_a_restart(option: Values) -> None:
    rendering = render(agents(agent("a"), agent("b"), **option))
    assert [rendering.variables(container)["AGENT_ID"] for container in rendering.containers.values()] == [
        "ita-ag-oase-a.exastro",
        "ita-ag-oase-b.exastro",
    ]


def test_without_a_volume_each_pod_is_an_agent_of_its_own() -> None:
    rendering, container = _single(others(persistence={"enabled": False}))
    assert "AGENT_ID" not in rendering.variables(container)
