"""What this chart offers besides: several agents, secrets elsewhere, monitoring, networks, nodes."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from helm import CHART, Manifest, Rendering, Values, agent, agents, others, render
from support import do_without

_RULES = CHART.parent / "docs" / "prometheus" / "rules.yaml"
_CASES = Path(__file__).parents[1] / "integration" / "prometheus_rules_test.yaml"
_THREE = agents(
    agent("a"), agent("b"), agent("c"), metrics={"podMonitor": {"enabled": True}}, networkPolicy={"enabled": True}
)


def _only(rendering: Rendering) -> Manifest:
    (container,) = rendering.containers.values()
    return container


def _mount(container: Manifest, name: str) -> Manifest:
    (found,) = (mount for mount in container["volumeMounts"] if mount["name"] == name)
    return dict(found)


def _volume(pod: Manifest, name: str) -> Manifest:
    (found,) = (volume for volume in pod["volumes"] if volume["name"] == name)
    return dict(found)


def test_each_agent_of_a_pod_has_a_port_of_its_own() -> None:
    rendering = render(_THREE)
    containers = rendering.containers.values()
    assert [rendering.variables(container)["STATUS_PORT"] for container in containers] == ["9879", "9880", "9881"]
    assert [container["ports"] for container in containers] == [
        [{"name": f"status-{index}", "containerPort": 9879 + index}] for index in range(3)
    ]


def test_each_agent_of_a_pod_is_watched_at_its_own_port() -> None:
    watched = [
        {container[f"{kind}Probe"]["httpGet"]["port"] for kind in ("startup", "liveness", "readiness")}
        for container in render(_THREE).containers.values()
    ]
    assert watched == [{"status-0"}, {"status-1"}, {"status-2"}]


def test_each_agent_of_a_pod_is_measured() -> None:
    assert render(_THREE).one("PodMonitor")["spec"] == {
        "selector": {
            "matchLabels": {"app.kubernetes.io/name": "ita-ag-oase", "app.kubernetes.io/instance": "exastro-agent"}
        },
        "podMetricsEndpoints": [
            {"port": f"status-{index}", "path": "/metrics", "interval": "30s"} for index in range(3)
        ],
    }


def test_the_status_page_of_each_agent_can_be_reached_through_the_policy() -> None:
    spec = render(_THREE).one("NetworkPolicy")["spec"]
    assert (spec["policyTypes"], spec["ingress"]) == (
        ["Ingress"],
        [{"ports": [{"port": port}]} for port in (9879, 9880, 9881)],
    )


def test_each_agent_is_checked_by_a_pod_of_its_own(option: Values) -> None:
    rendering = render(agents(agent("a"), agent("b"), agent("c"), **option))
    pods = rendering.all("Pod")
    assert [pod["metadata"]["name"] for pod in pods] == [f"check-ita-ag-oase-{name}" for name in "abc"]
    assert [rendering.variables(pod["spec"]["containers"][0])["AGENT_NAME"] for pod in pods] == ["a", "b", "c"]


def test_the_check_runs_as_the_agent_does(option: Values) -> None:
    given = agent(existingSecret="mine", resources={"limits": {"memory": "64Mi"}})
    rendering = render(agents(given, caBundle={"configMap": "authorities"}, **option))
    agents_own, checks = _only(rendering), rendering.one("Pod")["spec"]
    (check,) = checks["containers"]
    assert check["args"] == ["check"]
    same = ("image", "imagePullPolicy", "envFrom", "securityContext", "resources", "volumeMounts")
    assert {key: check[key] for key in same} == {key: agents_own[key] for key in same}
    assert checks["volumes"] == rendering.pod["volumes"]


def test_the_check_is_a_test_and_no_pod_of_the_deployment(option: Values) -> None:
    rendering = render(others(**option))
    metadata = rendering.one("Pod")["metadata"]
    assert metadata["annotations"] == {"helm.sh/hook": "test", "helm.sh/hook-delete-policy": "before-hook-creation"}
    assert metadata["labels"]["app.kubernetes.io/name"] == "ita-ag-oase-check"
    assert rendering.one("Pod")["spec"]["restartPolicy"] == "Never"


_PORTS: list[Any] = [
    pytest.param({"STATUS_PORT": 8080}, [{"name": "status-0", "containerPort": 8080}], id="another-port"),
    pytest.param({"STATUS_PORT": ""}, [{"name": "status-0", "containerPort": 9879}], id="empty"),
    pytest.param({"STATUS_PORT": "0"}, None, id="off"),
    pytest.param({"STATUS_ADDRESS": "127.0.0.1"}, None, id="loopback"),
    pytest.param({"STATUS_ADDRESS": "::1"}, None, id="loopback-6"),
    pytest.param({"STATUS_ADDRESS": "::"}, [{"name": "status-0", "containerPort": 9879}], id="all-6"),
]


@pytest.mark.parametrize(("variables", "ports"), _PORTS)
def test_an_agent_is_watched_where_its_status_page_is(variables: Values, ports: object, option: Values) -> None:
    rendering = render(agents(agent(extraEnv=variables), metrics={"podMonitor": {"enabled": True}}, **option))
    container = _only(rendering)
    assert container.get("ports") == ports
    assert ("livenessProbe" in container, len(rendering.all("PodMonitor"))) == ((True, 1) if ports else (False, 0))


def test_probes_can_be_switched_off(option: Values) -> None:
    container = _only(render(others(probes={"enabled": False}, **option)))
    assert [key for key in container if key.endswith("Probe")] == []
    assert container["ports"] == [{"name": "status-0", "containerPort": 9879}]


_TAGS = [
    ("", True),
    ("2.7.1", True),
    ("v2.7.1", True),
    ("2.7.1-ours.3", True),
    ("2.10.0", True),
    ("3.0.0", True),
    ("2.7.0", False),
    ("2.3.0", False),
    ("alpha.4ccca4.20240124-110529", False),
    ("latest", False),
    (2.7, False),
]


@pytest.mark.parametrize(("tag", "is_watched"), _TAGS)
def test_what_may_be_the_stock_agent_is_not_watched(tag: object, *, is_watched: bool) -> None:
    container = _only(render(agents(agent(image={"tag": tag}))))
    assert container["image"] == f"docker.io/exastro/exastro-it-automation-ag-oase:{tag or '2.7.1'}"
    assert ("livenessProbe" in container) == is_watched


_DIGEST = f"sha256:{'0' * 64}"
_IMAGES: list[Any] = [
    ({}, {}, "docker.io/exastro/exastro-it-automation-ag-oase:2.7.1"),
    ({"registry": "r.test", "organization": "o", "package": "p"}, {}, "r.test/o/p-ag-oase:2.7.1"),
    ({}, {"repository": "r.test/agent", "tag": "2.8.0"}, "r.test/agent:2.8.0"),
    ({}, {"digest": _DIGEST}, f"docker.io/exastro/exastro-it-automation-ag-oase@{_DIGEST}"),
]


@pytest.mark.parametrize(("everywhere", "own", "image"), _IMAGES, ids=["default", "global", "own", "digest"])
def test_the_image_is_named(everywhere: Values, own: Values, image: str, option: Values) -> None:
    values = agents(agent(image=own), **option) | {"global": {"agentGlobalDefinition": {"image": everywhere}}}
    assert _only(render(values))["image"] == image


def test_variables_come_from_secrets_of_ones_own_too(option: Values) -> None:
    given = agent(existingSecret="mine")
    rendering = render(agents(given, extraEnvFrom=[{"configMapRef": {"name": "proxies"}}], **option))
    assert _only(rendering)["envFrom"] == [
        {"configMapRef": {"name": "params-ita-ag-oase-a"}},
        {"secretRef": {"name": "secret-ita-ag-oase-a"}},
        {"secretRef": {"name": "mine"}},
        {"configMapRef": {"name": "proxies"}},
    ]


def test_a_secret_can_be_a_file(option: Values) -> None:
    variable = "EXASTRO_REFRESH_TOKEN_FILE"
    rendering = render(agents(agent(secretFiles={variable: {"secret": "mine", "key": "token"}}), **option))
    container = _only(rendering)
    assert rendering.variables(container)[variable] == f"/etc/exastro/secrets/{variable}"
    assert _mount(container, "secrets-0") == {
        "name": "secrets-0",
        "mountPath": "/etc/exastro/secrets",
        "readOnly": True,
    }
    item = {"key": "token", "path": variable}
    assert _volume(rendering.pod, "secrets-0")["projected"] == {
        "sources": [{"secret": {"name": "mine", "items": [item]}}]
    }


_BUNDLES: list[Any] = [
    pytest.param({"configMap": "c"}, {"configMap": {"name": "c"}}, "ca.crt", id="config-map"),
    pytest.param({"secret": "s", "key": "k"}, {"secret": {"secretName": "s"}}, "k", id="secret"),
]


@pytest.mark.parametrize(("bundle", "source", "key"), _BUNDLES)
def test_authorities_are_trusted_for_exastro_and_for_sources(
    bundle: Values, source: Values, key: str, option: Values
) -> None:
    rendering = render(others(caBundle=bundle, **option))
    container = _only(rendering)
    variables = rendering.variables(container)
    assert {variables["EXASTRO_CA_FILE"], variables["SOURCE_CA_FILE"]} == {"/etc/exastro/ca/ca.crt"}
    assert _mount(container, "ca-bundle")["mountPath"] == "/etc/exastro/ca"
    ((kind, named),) = source.items()
    expected = {kind: {**named, "items": [{"key": key, "path": "ca.crt"}]}, "name": "ca-bundle"}
    assert _volume(rendering.pod, "ca-bundle") == expected


def test_what_is_written_for_an_agent_stands_before_what_the_chart_adds(option: Values) -> None:
    own = {"AGENT_ID": "mine", "EXASTRO_CA_FILE": "/mine.pem", "STATUS_ADDRESS": "10.0.0.1"}
    rendering = render(agents(agent(extraEnv=own), caBundle={"secret": "s"}, **option))
    assert own.items() <= rendering.variables(_only(rendering)).items()


_TAINTS = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
_SOON = [{"key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 60} for taint in _TAINTS]
_OTHER = {"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}
_OWN = {"key": _TAINTS[0], "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}
_ALL = {"operator": "Exists"}
_TOLERATIONS: list[Any] = [
    pytest.param({}, _SOON, id="default"),
    pytest.param({"tolerations": [_OTHER]}, [_OTHER, *_SOON], id="another-taint"),
    pytest.param({"tolerations": [_OWN]}, [_OWN, _SOON[1]], id="told-for-one"),
    pytest.param({"tolerations": [_ALL]}, [_ALL], id="all-taints"),
    pytest.param({"nodeFailureSeconds": None}, [], id="as-the-cluster-says"),
]


@pytest.mark.parametrize(("given", "expected"), _TOLERATIONS)
def test_the_pod_leaves_a_failed_node_soon(given: Values, expected: object, option: Values) -> None:
    assert render(others(**given, **option)).pod["tolerations"] == expected


_PASSED_ON: list[Any] = [
    ("priorityClassName", "high"),
    ("nodeSelector", {"disk": "ssd"}),
    ("affinity", {"nodeAffinity": {"x": "y"}}),
    ("topologySpreadConstraints", [{"maxSkew": 1}]),
    ("imagePullSecrets", [{"name": "pull"}]),
    ("automountServiceAccountToken", True),
    ("enableServiceLinks", True),
    ("terminationGracePeriodSeconds", 90),
]


@pytest.mark.parametrize(("name", "value"), _PASSED_ON, ids=[name for name, _ in _PASSED_ON])
def test_a_value_is_passed_on_to_the_pod(name: str, value: object) -> None:
    assert render(others(**{name: value})).pod[name] == value


def test_labels_and_annotations_are_added_to_the_pod() -> None:
    labels = {"team": "ops", "app.kubernetes.io/name": "refused"}
    metadata = render(others(podLabels=labels, podAnnotations={"note": "x"})).template["metadata"]
    assert metadata["labels"] == {
        "team": "ops",
        "app.kubernetes.io/name": "ita-ag-oase",
        "app.kubernetes.io/instance": "exastro-agent",
    }
    assert metadata["annotations"].keys() == {"checksum/variables", "note"}


def test_volumes_of_ones_own_are_mounted_into_every_agent(option: Values) -> None:
    volume, mount = {"name": "mine", "emptyDir": {}}, {"name": "mine", "mountPath": "/mine"}
    rendering = render(agents(agent("a"), agent("b"), extraVolumes=[volume], extraVolumeMounts=[mount], **option))
    assert [volume in pod["volumes"] for pod in rendering.pods.values()] == [True] * len(rendering.pods)
    assert [mount in container["volumeMounts"] for container in rendering.containers.values()] == [True, True]


def test_objects_of_ones_own_are_rendered(option: Values) -> None:
    of_map = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "{{ .Release.Name }}-a"}}
    of_text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: '{{ .Release.Name }}-b'}"
    names = render(others(extraObjects=[of_map, of_text], **option)).names
    assert {"ConfigMap/exastro-agent-a", "ConfigMap/exastro-agent-b"} <= set(names)


_BUDGETS: list[Any] = [
    pytest.param({"replicas": 2, "podDisruptionBudget": {"maxUnavailable": 1}}, 1, id="two-pods"),
    pytest.param({"replicas": 1, "podDisruptionBudget": {"maxUnavailable": 1}}, 0, id="one-pod"),
    pytest.param({"podDisruptionBudget": {"maxUnavailable": 1}}, 0, id="unset"),
    pytest.param({"replicas": 2}, 0, id="no-budget"),
]


@pytest.mark.parametrize(("given", "count"), _BUDGETS)
def test_a_disruption_budget_is_made_for_several_pods_only(given: Values, count: int) -> None:
    assert len(render(others(**given)).all("PodDisruptionBudget")) == count


def test_replicas_are_rendered_where_they_are_given(option: Values) -> None:
    assert render(others(replicas=0, **option)).one("Deployment")["spec"]["replicas"] == 0


def test_a_policy_can_say_who_may_come_and_where_agents_may_go(option: Values) -> None:
    peers = [{"podSelector": {"matchLabels": {"app": "prometheus"}}}]
    egress = [{"ports": [{"port": 443}]}]
    spec = render(others(networkPolicy={"enabled": True, "ingressFrom": peers, "egress": egress}, **option)).one(
        "NetworkPolicy"
    )["spec"]
    assert spec == {
        "podSelector": {
            "matchLabels": {"app.kubernetes.io/instance": "exastro-agent"},
            "matchExpressions": [
                {
                    "key": "app.kubernetes.io/name",
                    "operator": "In",
                    "values": ["ita-ag-oase", "ita-ag-oase-check"],
                }
            ],
        },
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"ports": [{"port": 9879}], "from": peers}],
        "egress": egress,
    }


def test_a_selector_of_a_new_claim_stands_before_the_old_way(option: Values) -> None:
    selector = {"matchLabels": {"release": "stable"}}
    old = {"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "c", "operator": "Exists"}]}
    claims = [
        render(others(persistence=given, **option)).one("PersistentVolumeClaim")["spec"].get("selector")
        for given in (old | {"selector": selector}, old, {"matchLabels": {"a": "b"}})
    ]
    assert claims == [selector, old, None]


_CLASSES = [("-", {"storageClassName": ""}), ("", {}), (None, {}), ("fast", {"storageClassName": "fast"})]


@pytest.mark.parametrize(("given", "expected"), _CLASSES)
def test_the_storage_class_is_as_odd_as_it_was(given: str | None, expected: Values, option: Values) -> None:
    spec = render(others(persistence={"storageClass": given}, **option)).one("PersistentVolumeClaim")["spec"]
    assert {key: value for key, value in spec.items() if key == "storageClassName"} == expected


def _of_the_release(file: Path) -> str:
    """Return a file about the job of the documents as one about the job that the release's PodMonitor makes."""
    return file.read_text(encoding="utf-8").replace('job="oase-agent"', 'job="exastro/ita-ag-oase"')


def test_the_rules_are_those_of_the_documents_and_ones_own(option: Values) -> None:
    own = {"name": "own", "rules": [{"record": "x", "expr": "up"}]}
    spec = render(others(metrics={"prometheusRule": {"enabled": True, "groups": [own]}}, **option)).one(
        "PrometheusRule"
    )["spec"]
    assert spec["groups"] == [*yaml.safe_load(_of_the_release(_RULES))["groups"], own]


def test_the_rules_are_about_agents_of_the_release(tmp_path: Path) -> None:
    promtool = shutil.which("promtool") or do_without("promtool is not installed: install the package prometheus")
    spec = render(others(metrics={"prometheusRule": {"enabled": True}})).one("PrometheusRule")["spec"]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")
    cases = _of_the_release(_CASES).replace("../../docs/prometheus/rules.yaml", "rules.yaml")
    (tmp_path / "cases.yaml").write_text(cases, encoding="utf-8")
    tested = subprocess.run([promtool, "test", "rules", tmp_path / "cases.yaml"], capture_output=True, text=True)
    assert (tested.returncode, "SUCCESS" in tested.stdout) == (0, True), tested.stdout + tested.stderr


def test_a_release_whose_values_lack_all_that_is_new_renders(tmp_path: Path, option: Values) -> None:
    chart = shutil.copytree(CHART, tmp_path / "chart")
    old = Path(__file__).parent / "conformance" / "values" / "00-full-copy-of-old-defaults.yaml"
    values = yaml.safe_load(old.read_text(encoding="utf-8"))
    values["ita-ag-oase"] |= option
    (chart / "values.yaml").write_text("{}", encoding="utf-8")
    (chart / "charts" / "ita-ag-oase" / "values.yaml").write_text("{}", encoding="utf-8")
    assert render(values, chart=chart).names == render(values).names
