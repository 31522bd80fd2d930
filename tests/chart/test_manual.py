"""The manual for Kubernetes: its examples render and are what it says, and its commands run or name what there is."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes_validate.utils import all_versions, validate

from helm import CHART, NAMESPACE, RELEASE, Cluster, Manifest, Rendering, agent, agents, refusal, render
from ita_ag_oase.demo.loopback import LoopbackServer, Reply, Request
from ita_ag_oase.settings import Settings
from manual import KUBERNETES, commands, examples, files, section
from support import MODULE

Load = Callable[[Mapping[str, str]], Settings]

# The product's manual, section by section, in the words of this one.
_STEPS = [
    *("Introduction", "Features", "Prerequisites"),
    *("Preparation", "Register the Helm chart", "Fetch the default values"),
    *("Set up the agent", "Parameters", "Example: one agent", "Persistent volume"),
    *("Install", "Create the persistent volumes", "Install the chart"),
    *("Update", "Prepare the update", "Update the agent", "Stop the service", "Run the update"),
    *("Start the service again", "Check the update"),
    *("Uninstall", "Prepare to uninstall", "Uninstall the agent", "Run the uninstallation"),
    *("Delete the persistent volume", "Delete the data"),
]
_FILES = files(KUBERNETES)
_VALUES = [
    ("Example: one agent", 0),
    ("Example: several agents in one pod", 0),
    ("Example: a pod for each agent", 0),
    ("Example: several agents in releases of their own", 0),
    ("Example: several agents in releases of their own", 1),
    ("Example: active and standby", 0),
    ("Secrets that exist already", 0),
    ("Secrets that exist already", 1),
    ("Proxies", 0),
]


def _example(heading: str, number: int = 0) -> Any:
    """Return one of a section's YAML examples."""
    found = [example.text for example in examples(section(KUBERNETES, heading)) if example.language == "yaml"]
    return yaml.safe_load(found[number])


def _only(rendering: Rendering) -> Manifest:
    (container,) = rendering.containers.values()
    return container


@pytest.mark.parametrize(("heading", "number"), _VALUES)
def test_an_example_lacks_nothing_but_the_users_own_values(heading: str, number: int, cluster: Cluster) -> None:
    assert cluster.warnings(_example(heading, number)) == []


@pytest.mark.parametrize(("heading", "number"), [case for case in _VALUES if case[0] != "Secrets that exist already"])
def test_the_agent_accepts_the_variables_of_an_example(heading: str, number: int, load_from: Load) -> None:
    rendering = render(_example(heading, number))
    loaded = [load_from(rendering.variables(container)) for container in rendering.containers.values()]
    assert [settings.adjustments for settings in loaded] == [()] * len(loaded)


def test_one_agent_is_one_container_on_one_volume() -> None:
    rendering = render(_example("Example: one agent"))
    assert rendering.names == [
        "ConfigMap/params-ita-ag-oase-oase-agent",
        "Deployment/ita-ag-oase",
        "PersistentVolumeClaim/pvc-ita-ag-oase",
        "Pod/check-ita-ag-oase-oase-agent",
        "Secret/secret-ita-ag-oase-oase-agent",
    ]
    assert list(rendering.containers) == ["ita-ag-oase-oase-agent"]


def test_several_agents_in_one_pod_have_their_own_containers_and_ports() -> None:
    rendering = render(_example("Example: several agents in one pod"))
    ports = {name: container["ports"][0]["containerPort"] for name, container in rendering.containers.items()}
    assert ports == {"ita-ag-oase-oase-agent-1": 9879, "ita-ag-oase-oase-agent-2": 9880}
    assert len(rendering.all("PersistentVolumeClaim")) == 1


def test_a_pod_for_each_agent_is_a_deployment_and_a_claim_for_each() -> None:
    rendering = render(_example("Example: a pod for each agent"))
    text = section(KUBERNETES, "Example: a pod for each agent")
    sizes = {
        claim["metadata"]["name"]: claim["spec"]["resources"]["requests"]["storage"]
        for claim in rendering.all("PersistentVolumeClaim")
    }
    assert sizes == {"pvc-ita-ag-oase-oase-agent-1": "10Gi", "pvc-ita-ag-oase-oase-agent-2": "20Gi"}
    assert [name for name in (*rendering.pods, *sizes) if f"`{name}`" not in text] == []


def test_active_and_standby_are_two_pods_of_one_store() -> None:
    rendering = render(_example("Example: active and standby"))
    assert rendering.one("Deployment")["spec"]["replicas"] == 2
    assert rendering.one("PersistentVolumeClaim")["spec"]["accessModes"] == ["ReadWriteMany"]


@pytest.mark.parametrize("heading", ["Persistent volume", "Example: a pod for each agent"])
def test_standby_with_the_volume_of_another_example_is_refused(heading: str) -> None:
    persistence = _example(heading)["ita-ag-oase"]["persistence"]
    values = _example("Example: active and standby")["ita-ag-oase"] | {"persistence": persistence}
    assert "persistence.accessMode is ReadWriteOnce" in refusal({"ita-ag-oase": values})


def test_agents_that_move_go_on_with_the_claim_that_they_had() -> None:
    values = _example("Example: several agents in one pod")["ita-ag-oase"]
    before = render({"ita-ag-oase": values})
    after = render({"ita-ag-oase": values | _example("Move to a pod for each agent")["ita-ag-oase"]})
    assert [pod["volumes"][0] for pod in after.pods.values()] == before.pod["volumes"][:1] * 2
    assert after.all("PersistentVolumeClaim") == []


def test_the_pod_that_copies_reaches_the_claims_of_both_layouts() -> None:
    pod = yaml.safe_load(_FILES["oase-agent-move.yaml"][0])
    used = [volume["persistentVolumeClaim"]["claimName"] for volume in pod["spec"]["volumes"]]
    layouts = ("Example: one agent", "Example: a pod for each agent")
    made = [render(_example(heading)).all("PersistentVolumeClaim")[0]["metadata"]["name"] for heading in layouts]
    assert used == made


def test_several_agents_in_releases_of_their_own_share_no_object() -> None:
    heading = "Example: several agents in releases of their own"
    first, second = (render(_example(heading, number)) for number in range(2))
    assert set(first.names) & set(second.names) == set()
    claims = [rendering.one("PersistentVolumeClaim")["metadata"]["name"] for rendering in (first, second)]
    assert claims == ["pvc-ita-ag-oase-1", "pvc-ita-ag-oase-2"]


def test_a_storage_class_makes_the_volume() -> None:
    given = _example("Persistent volume", 0)
    claim = render(agents(agent(), **given["ita-ag-oase"])).one("PersistentVolumeClaim")
    assert claim["spec"] == {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "2Gi"}},
        "storageClassName": "your-storage-class",
    }


def test_the_volume_of_the_example_is_one_that_the_claim_takes() -> None:
    volume = _example("Persistent volume", 1)
    claim = render(_example("Example: one agent")).one("PersistentVolumeClaim")
    assert volume["spec"]["claimRef"] == {"name": claim["metadata"]["name"], "namespace": NAMESPACE}
    assert volume["spec"]["accessModes"] == claim["spec"]["accessModes"]
    assert volume["spec"]["capacity"] == claim["spec"]["resources"]["requests"]
    assert volume["spec"].get("storageClassName", "") == claim["spec"]["storageClassName"]


def test_a_secret_that_exists_becomes_variables() -> None:
    container = _only(render(_example("Secrets that exist already", 0)))
    assert container["envFrom"][-1] == {"secretRef": {"name": "oase-agent-token"}}


def test_a_secret_that_exists_becomes_a_file() -> None:
    rendering = render(_example("Secrets that exist already", 1))
    assert rendering.variables(_only(rendering))["EXASTRO_REFRESH_TOKEN_FILE"] == (
        "/etc/exastro/secrets/EXASTRO_REFRESH_TOKEN_FILE"
    )
    (volume,) = [volume for volume in rendering.pod["volumes"] if "projected" in volume]
    assert volume["projected"]["sources"][0]["secret"]["name"] == "oase-agent-token"
    assert volume["projected"]["sources"][0]["secret"]["items"][0]["key"] == "EXASTRO_REFRESH_TOKEN"


def test_a_private_authority_is_trusted_for_exastro_and_sources() -> None:
    rendering = render(agents(agent(), **_example("Certificates of a private authority")["ita-ag-oase"]))
    variables = rendering.variables(_only(rendering))
    assert [variables["EXASTRO_CA_FILE"], variables["SOURCE_CA_FILE"]] == ["/etc/exastro/ca/ca.crt"] * 2
    (volume,) = [volume for volume in rendering.pod["volumes"] if "configMap" in volume]
    assert volume["configMap"] == {"name": "private-ca", "items": [{"key": "ca.crt", "path": "ca.crt"}]}


@pytest.mark.parametrize(
    ("variable", "attribute", "expected"),
    [
        ("EXASTRO_TLS_VERIFY", "exastro_tls_verify", False),
        ("SOURCE_TLS_VERIFY", "source_tls_verify", False),
        ("AGENT_ID", "agent_identity", "pod-1"),
    ],
)
def test_the_old_behaviour_can_be_had_by_a_variable(
    variable: str, attribute: str, expected: object, load_from: Load
) -> None:
    (given,) = re.findall(rf'`{variable}: "(.*?)"`', section(KUBERNETES, "What changes"))
    rendering = render(agents(agent(extraEnv={variable: given})))
    loaded = load_from({**rendering.variables(_only(rendering)), "HOSTNAME": "pod-1"})
    assert getattr(loaded, attribute) == expected


_OBJECTS = ["pv-ita-ag-oase.yaml", "oase-agent-storage.yaml", "oase-agent-move.yaml"]


@pytest.mark.parametrize("name", _OBJECTS)
def test_kubernetes_accepts_an_object_of_the_page(name: str) -> None:
    (text,) = _FILES[name]
    validate(yaml.safe_load(text), all_versions()[0], strict=True)


def test_the_pod_that_reaches_the_volume_runs_as_the_agent_does() -> None:
    pod = yaml.safe_load(_FILES["oase-agent-storage.yaml"][0])
    rendering = render(_example("Example: one agent"))
    (container,) = pod["spec"]["containers"]
    assert container["image"] == _only(rendering)["image"]
    assert container["volumeMounts"] == [_only(rendering)["volumeMounts"][0]]
    assert pod["spec"]["volumes"] == rendering.pod["volumes"][:1]
    assert pod["spec"]["securityContext"].items() >= {"runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 1000}.items()


class _Workplace:
    """A folder as a user of the page has it, with a repository and a cluster that answer on loopback."""

    def __init__(self, folder: Path, cluster: Cluster) -> None:
        shutil.copytree(CHART, folder / "chart")
        for name, texts in _FILES.items():
            (folder / name).write_text(texts[0], encoding="utf-8")
        self._folder = folder
        self._cluster = cluster

    def run(self, command: str, repository_url: str) -> "subprocess.CompletedProcess[str]":
        environment = {
            **self._cluster.environment,
            "HOME": str(self._folder),
            "PATH": f"{Path(sys.executable).parent}:{os.defpath}",
            "REPOSITORY_URL": repository_url,
        }
        return subprocess.run(
            ["sh", "-c", command], cwd=self._folder, env=environment, capture_output=True, text=True, timeout=60
        )

    def answer(self, request: Request) -> Reply:
        """Return a file of the repository."""
        return Reply(body=(self._folder / request.path.lstrip("/")).read_bytes())


@pytest.fixture(name="workplace")
def _workplace(tmp_path: Path, cluster: Cluster) -> _Workplace:
    (tmp_path / "work").mkdir()
    cluster.hold_release(defaults={}, given={}, revisions=2)
    return _Workplace(tmp_path / "work", cluster)


def _harmless(command: str) -> str:
    """Return a command of helm that asks for everything and changes nothing in the cluster."""
    return f"{command} --dry-run" if re.match(r"helm (install|upgrade|rollback|uninstall) ", command) else command


def test_every_helm_command_runs(workplace: _Workplace) -> None:
    run = [_harmless(command) for command in commands(KUBERNETES, "helm") if not command.startswith("helm test ")]
    with LoopbackServer(workplace.answer) as repository:
        ended = [(command, workplace.run(command, repository.url)) for command in run]
    assert [(command, found.stderr) for command, found in ended if found.returncode] == []
    (shown,) = [found.stdout for command, found in ended if command == "helm search repo exastro"]
    (expected,) = [text for _, text in examples(section(KUBERNETES, "Prepare the update")) if "APP VERSION" in text]
    assert [line.split() for line in shown.splitlines()] == [line.split() for line in expected.splitlines()]


def test_the_release_that_is_tested_has_tests() -> None:
    (command,) = [command for command in commands(KUBERNETES, "helm") if command.startswith("helm test ")]
    assert command == f"helm test {RELEASE} --namespace {NAMESPACE} --logs"
    hooks = [
        pod["metadata"]["annotations"]["helm.sh/hook"] for pod in render(_example("Example: one agent")).all("Pod")
    ]
    assert hooks == ["test"]


_KUBECTL = commands(KUBERNETES, "kubectl")
_KINDS = {
    "deploy": "Deployment",
    "deployment": "Deployment",
    "lease": "Lease",
    "pod": "Pod",
    "pv": "PersistentVolume",
    "pvc": "PersistentVolumeClaim",
}


def _objects() -> set[tuple[str, str]]:
    """Return kind and name of what the page installs."""
    shown = [yaml.safe_load(_FILES[name][0]) for name in _OBJECTS]
    installed = [render(_example(f"Example: {shape}")).objects for shape in ("one agent", "active and standby")]
    found = [*(one for objects in installed for one in objects), *shown]
    return {(one["kind"], one["metadata"]["name"]) for one in found}


def test_kubectl_is_asked_for_objects_that_there_are() -> None:
    kinds = "|".join(_KINDS)
    named = {
        (_KINDS[kind], name)
        for command in _KUBECTL
        for kind, name in re.findall(rf"\b({kinds})[ /]([a-z][\w-]*)", command)
    }
    assert named - _objects() == set()
    assert {kind for kind, _ in named} == set(_KINDS.values())


def test_kubectl_is_asked_in_the_namespace_of_the_release() -> None:
    without = [command for command in _KUBECTL if f"--namespace {NAMESPACE}" not in command]
    assert [command for command in without if not re.search(r"\b(pv|apply -f \S+)\b", command)] == []


def test_kubectl_is_told_containers_labels_and_ports_that_there_are() -> None:
    rendering = render(_example("Example: one agent"))
    text = "\n".join(_KUBECTL)
    assert set(re.findall(r"--container (\S+)", text)) == set(rendering.containers)
    labels = ",".join(f"{name}={value}" for name, value in rendering.template["metadata"]["labels"].items())
    selectors = {frozenset(given.split(",")) for given in re.findall(r"--selector (\S+)", text)}
    assert selectors == {frozenset(labels.split(","))}
    port = _only(rendering)["ports"][0]["containerPort"]
    assert re.findall(r"\b\d+:\d+\b", text) == [f"{port}:{port}"]


def test_kubectl_applies_files_that_the_page_shows_or_has_written() -> None:
    applied = {name for command in _KUBECTL for name in re.findall(r"apply -f (\S+)", command)}
    likewise = {"pv-ita-ag-oase-1.yaml", "pv-ita-ag-oase-2.yaml"}
    assert applied == {name for name in _FILES if not name.startswith("exastro-agent")} | likewise


def test_secrets_and_authorities_are_made_under_the_names_that_values_use() -> None:
    made = [re.findall(r"create (?:secret generic|configmap) (\S+) .*--from-file=(\S+?)=", text) for text in _KUBECTL]
    assert [name for found in made for name in found] == [
        ("oase-agent-token", "EXASTRO_REFRESH_TOKEN"),
        ("private-ca", "ca.crt"),
    ]


def test_the_agents_own_commands_are_known() -> None:
    inside = [command.partition(" -- ")[2].split() for command in _KUBECTL]
    (command,) = {" ".join(words) for words in inside if words[:1] == ["ita-ag-oase"]}
    ended = subprocess.run([*MODULE, *command.split()[1:], "--help"], capture_output=True, timeout=60)
    assert ended.returncode == 0


def test_the_steps_are_those_of_the_products_manual_in_its_order() -> None:
    headings = re.findall(r"^##+ (.*)$", KUBERNETES.read_text(encoding="utf-8"), re.MULTILINE)
    assert [heading for heading in headings if heading in _STEPS] == _STEPS
