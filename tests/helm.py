"""What tests of the chart stand on: helm as a program, and what it renders, as values to compare.

Nothing here asserts; a rendering that fails where it should not raises AssertionError with helm's words.
"""

import base64
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from ita_ag_oase.demo.loopback import LoopbackServer, Reply, Request, as_json
from kubernetes_api import KubernetesApi, kubernetes_api

CHART = Path(__file__).parents[1] / "chart"
AGENT_CHART = CHART / "charts" / "ita-ag-oase"
RELEASE = "exastro-agent"
NAMESPACE = "exastro"

_HELM = str(Path(sys.executable).with_name("helm"))

Values = Mapping[str, Any]
Manifest = dict[str, Any]

# The ways to install the agents: one pod for all, or one for each; without pods that stand by, or with them.
OPTIONS: dict[str, Values] = {
    "one-pod": {},
    "pod-per-agent": {"layout": "pod-per-agent"},
    "high-availability": {"highAvailability": {"enabled": True}},
    "pod-per-agent-high-availability": {"layout": "pod-per-agent", "highAvailability": {"enabled": True}},
}


class Outcome(NamedTuple):
    """How helm ended."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Rendering:
    """The objects of a rendering, in helm's order."""

    objects: tuple[Manifest, ...]

    @property
    def names(self) -> list[str]:
        """Kind and name of each object, sorted."""
        return sorted(f"{found['kind']}/{found['metadata']['name']}" for found in self.objects)

    def all(self, kind: str) -> list[Manifest]:
        """The objects of a kind."""
        return [found for found in self.objects if found["kind"] == kind]

    def one(self, kind: str) -> Manifest:
        """The one object of a kind; AssertionError where there are none or several."""
        found = self.all(kind)
        if len(found) != 1:
            raise AssertionError(f"{len(found)} objects are a {kind} among {self.names}")
        return found[0]

    @property
    def template(self) -> Manifest:
        """The pod template of the Deployment."""
        template: Manifest = self.one("Deployment")["spec"]["template"]
        return template

    @property
    def pod(self) -> Manifest:
        """The spec of the Deployment's pods."""
        spec: Manifest = self.template["spec"]
        return spec

    @property
    def pods(self) -> dict[str, Manifest]:
        """The specs of the pods, by the names of their Deployments."""
        return {found["metadata"]["name"]: found["spec"]["template"]["spec"] for found in self.all("Deployment")}

    @property
    def containers(self) -> dict[str, Manifest]:
        """The agents' containers, by name, those of all Deployments."""
        return {container["name"]: container for pod in self.pods.values() for container in pod["containers"]}

    def variables(self, container: Manifest) -> dict[str, str]:
        """The variables that a container gets from objects of the release; later ones win."""
        found: dict[str, str] = {}
        for source in container["envFrom"]:
            found |= self._data(source)
        return found | {given["name"]: _value(given) for given in container.get("env", [])}

    def _data(self, source: Mapping[str, Any]) -> dict[str, str]:
        name = source.get("configMapRef", source.get("secretRef"))["name"]
        kind = "ConfigMap" if "configMapRef" in source else "Secret"
        data = next((found["data"] or {} for found in self.all(kind) if found["metadata"]["name"] == name), {})
        return data if kind == "ConfigMap" else {key: _decoded(value) for key, value in data.items()}


def _value(given: Mapping[str, Any]) -> str:
    """Return a variable's value; of one that the pod knows itself, where it stands there."""
    value: str = given["value"] if "value" in given else given["valueFrom"]["fieldRef"]["fieldPath"]
    return value


def _decoded(value: str) -> str:
    return base64.b64decode(value).decode()


def run(
    arguments: Sequence[str], *, values: Values | None = None, environment: Mapping[str, str] | None = None
) -> Outcome:
    """Return how helm ended, with these values as the user's file."""
    with_values = ("--values", "-") if values is not None else ()
    ended = subprocess.run(
        [_HELM, *arguments, *with_values],
        input=json.dumps(values, ensure_ascii=False),
        capture_output=True,
        text=True,
        env={"HOME": "/nonexistent", **(environment or {})},
        timeout=60,
    )
    return Outcome(ended.returncode, ended.stdout, ended.stderr)


@cache
def _template(chart: Path, values: str) -> Outcome:
    return run(["template", RELEASE, str(chart), "--namespace", NAMESPACE], values=json.loads(values))


def template(values: Values, *, chart: Path = CHART) -> Outcome:
    """Return how `helm template` ended; the same values are rendered once."""
    return _template(chart, json.dumps(values))


def render(values: Values, *, chart: Path = CHART) -> Rendering:
    """Return what helm makes of the values."""
    return _rendering(template(values, chart=chart))


def refusal(values: Values) -> str:
    """Return the sentence with which the chart refuses the values; AssertionError where it does not."""
    ended = template(values)
    if not ended.code:
        raise AssertionError("the values were rendered")
    return ended.err.strip().removesuffix("Use --debug flag to render out invalid YAML").strip().splitlines()[-1]


def agents(*given: Values, **others: Any) -> dict[str, Any]:
    """Return values with these agents, and others of the agent's chart."""
    return {"ita-ag-oase": {"agents": list(given), **others}}


def agent(name: str = "a", **others: Any) -> dict[str, Any]:
    """Return an agent of a name that lacks nothing."""
    variables = {
        "AGENT_NAME": name,
        "EXASTRO_URL": "http://exastro:8000",
        "EXASTRO_ORGANIZATION_ID": "org1",
        "EXASTRO_WORKSPACE_ID": "ws1",
        "EVENT_COLLECTION_SETTINGS_NAMES": "alarms",
        **others.pop("extraEnv", {}),
    }
    return {"extraEnv": variables, "secret": {"EXASTRO_REFRESH_TOKEN": "token"}, **others}


def others(**given: Any) -> dict[str, Any]:
    """Return values of the agent's chart, with one agent that lacks nothing."""
    return agents(agent(), **given)


class Cluster:
    """A Kubernetes API that says which version it is and nothing else; releases stand in a file."""

    def __init__(self, url: str, folder: Path) -> None:
        self._releases = folder / "releases.json"
        self._releases.write_text("[]", encoding="utf-8")
        self.environment = {
            "KUBECONFIG": str(_access_file(url, folder)),
            "HELM_DRIVER": "memory",
            "HELM_MEMORY_DRIVER_DATA": str(self._releases),
        }

    def notes(self, values: Values) -> str:
        """Return what a user is told after an installation with these values."""
        told = json.loads(self._dry_run(["install", RELEASE, str(CHART), "--output", "json"], values).out)
        notes: str = told["info"]["notes"]
        return notes

    def warnings(self, values: Values) -> list[str]:
        """Return what the user is warned about."""
        return [line.removeprefix("- ") for line in self.notes(values).splitlines() if line.startswith("- ")]

    def upgrade(self, *, defaults: Values, given: Values) -> Rendering:
        """Return what `helm upgrade --reuse-values` makes of a release of a chart that had these defaults."""
        self.hold_release(defaults=defaults, given=given)
        told = self._dry_run(["upgrade", RELEASE, str(CHART), "--reuse-values", "--output", "json"], {})
        return _rendering(Outcome(0, json.loads(told.out)["manifest"], ""))

    def hold_release(self, *, defaults: Values, given: Values, revisions: int = 1) -> None:
        """Let there be a release of a chart that had these defaults, so many times; the last revision is in use."""
        releases = [
            {
                "name": RELEASE,
                "namespace": NAMESPACE,
                "version": number,
                "info": {"status": "deployed" if number == revisions else "superseded"},
                "chart": {"metadata": {"name": RELEASE, "version": "2.7.3", "apiVersion": "v2"}, "values": defaults},
                "config": given,
            }
            for number in range(1, revisions + 1)
        ]
        self._releases.write_text(json.dumps(releases), encoding="utf-8")

    def _dry_run(self, arguments: Sequence[str], values: Values) -> Outcome:
        command = [*arguments, "--namespace", NAMESPACE, "--dry-run=client"]
        ended = run(command, values=values, environment=self.environment)
        if ended.code:
            raise AssertionError(ended.err)
        return ended


class Namespace:
    """A namespace of a Kubernetes API on loopback, in which helm installs and upgrades a release."""

    def __init__(self, api: KubernetesApi, folder: Path) -> None:
        self.api = api
        self._environment = {"KUBECONFIG": str(_access_file(api.url, folder))}

    def install(self, values: Values) -> None:
        """Install a release with these values; AssertionError where that fails."""
        ended = self._run("install", values)
        if ended.code:
            raise AssertionError(ended.err)
        self.api.changes.clear()

    def upgrade(self, values: Values, *arguments: str) -> Outcome:
        """Return how the upgrade to these values ends."""
        return self._run("upgrade", values, *arguments)

    def _run(self, verb: str, values: Values, *arguments: str) -> Outcome:
        # Whether objects are valid is tested by itself.
        command = [verb, RELEASE, str(CHART), "--namespace", NAMESPACE, "--disable-openapi-validation", *arguments]
        return run(command, values=values, environment=self._environment)


@contextmanager
def namespace(folder: Path) -> Iterator[Namespace]:
    """An empty namespace on loopback."""
    with kubernetes_api() as api:
        yield Namespace(api, folder)


@contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """A cluster on loopback, as far as helm asks for one before it renders."""
    with LoopbackServer(_answer) as server:
        yield Cluster(server.url, folder)


def _answer(request: Request) -> Reply:
    answers: dict[str, object] = {
        "/version": {"major": "1", "minor": "23", "gitVersion": "v1.23.0"},
        "/api": {"kind": "APIVersions", "versions": ["v1"]},
        "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": []},
        "/api/v1": {"kind": "APIResourceList", "groupVersion": "v1", "resources": []},
    }
    return as_json(answers[request.path])


def _access_file(url: str, folder: Path) -> Path:
    access = folder / "kubeconfig.json"
    access.write_text(json.dumps(_access(url)), encoding="utf-8")
    return access


def _access(url: str) -> dict[str, object]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "loopback", "cluster": {"server": url}}],
        "contexts": [{"name": "loopback", "context": {"cluster": "loopback", "user": "nobody"}}],
        "users": [{"name": "nobody", "user": {}}],
        "current-context": "loopback",
    }


def _rendering(ended: Outcome) -> Rendering:
    if ended.code:
        raise AssertionError(ended.err)
    return Rendering(tuple(found for found in yaml.safe_load_all(ended.out) if found))
