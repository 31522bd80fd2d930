"""A pod for each agent: what each has of its own, what it is called, and how a release goes over to it and back."""

import re
from typing import Any

import pytest

from helm import Manifest, Namespace, Rendering, Values, agent, agents, others, refusal, render

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_SPREAD: dict[str, Any] = {"layout": "pod-per-agent"}


def _of_three(**others: Any) -> Rendering:
    return render(agents(agent("a"), agent("b"), agent("c"), **_SPREAD, **others))


def _names(rendering: Rendering, kind: str) -> list[str]:
    return [found["metadata"]["name"] for found in rendering.all(kind)]


def _claim(pod: Manifest) -> str:
    (name,) = (found["persistentVolumeClaim"]["claimName"] for found in pod["volumes"] if found["name"] == "storage")
    return str(name)


@pytest.mark.parametrize("layout", ["one-pod", "", None])
def test_all_agents_are_in_one_pod_unless_told_otherwise(layout: str | None) -> None:
    given = (agent("a"), agent("b"))
    assert render(agents(*given, layout=layout)).objects == render(agents(*given)).objects


def test_a_layout_that_there_is_not_is_refused() -> None:
    assert refusal(others(layout="pod-per-node")) == (
        '- layout: layout must be one of the following: "one-pod", "pod-per-agent", "", null'
    )


def test_each_agent_has_a_deployment_and_a_claim() -> None:
    rendering = _of_three()
    assert {name: [found["name"] for found in pod["containers"]] for name, pod in rendering.pods.items()} == {
        f"ita-ag-oase-{name}": [f"ita-ag-oase-{name}"] for name in "abc"
    }
    assert [_claim(pod) for pod in rendering.pods.values()] == [f"pvc-ita-ag-oase-{name}" for name in "abc"]
    assert _names(rendering, "PersistentVolumeClaim") == [f"pvc-ita-ag-oase-{name}" for name in "abc"]


def test_each_deployment_finds_its_own_pods_alone() -> None:
    found = {
        deployment["metadata"]["name"]: (
            deployment["spec"]["selector"]["matchLabels"],
            deployment["spec"]["template"]["metadata"]["labels"],
        )
        for deployment in _of_three().all("Deployment")
    }
    expected = {
        name: {
            "app.kubernetes.io/name": "ita-ag-oase",
            "app.kubernetes.io/instance": "exastro-agent",
            "app.kubernetes.io/component": name,
        }
        for name in ("ita-ag-oase-a", "ita-ag-oase-b", "ita-ag-oase-c")
    }
    assert found == {name: (labels, labels) for name, labels in expected.items()}


def test_labels_of_ones_own_do_not_take_the_place_of_those_that_pods_are_found_by() -> None:
    (deployment,) = render(others(**_SPREAD, podLabels={"app.kubernetes.io/component": "mine"})).all("Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == labels


_NAMES: list[Any] = [
    pytest.param({}, ["oase-agent"], ["ita-ag-oase-oase-agent"], id="plain"),
    pytest.param({}, [""], ["ita-ag-oase-6ab2dbca"], id="the-name-of-the-other-layouts-deployment"),
    pytest.param({}, ["check"], ["ita-ag-oase-check"], id="the-name-of-the-check"),
    pytest.param({"nameOverride": "n" * 63}, ["a"], [f"{'n' * 54}-73dcf996"], id="no-room-for-the-agent"),
    pytest.param({}, ["Agent", "my_agent"], ["ita-ag-oase-agent-11b39c93", "ita-ag-oase-my-agent-e72c1a7c"], id="odd"),
    pytest.param(
        {},
        ["a" * 60, "a" * 61],
        [f"ita-ag-oase-{'a' * 42}-11ee3912", f"ita-ag-oase-{'a' * 42}-35d5fc17"],
        id="alike-once-cut",
    ),
]


@pytest.mark.parametrize(("given", "agent_names", "expected"), _NAMES)
def test_a_deployment_is_called_as_its_agent(given: Values, agent_names: list[str], expected: list[str]) -> None:
    rendering = render(agents(*(agent(name) for name in agent_names), **_SPREAD, **given))
    claims = _names(rendering, "PersistentVolumeClaim")
    assert list(rendering.pods) == expected
    assert len(set(claims)) == len(expected)
    assert [name for name in (*expected, *claims) if not _LABEL.fullmatch(name)] == []
    assert [_claim(pod) for pod in rendering.pods.values()] == claims


@pytest.mark.parametrize("name", ["", "a", "check", "n" * 60, "My_Agent"])
def test_no_deployment_has_the_name_of_the_other_layouts(name: str) -> None:
    one, spread = (render(agents(agent(name), layout=layout)) for layout in ("one-pod", "pod-per-agent"))
    assert one.pods.keys() & spread.pods.keys() == set()


def test_an_agent_keeps_its_container_its_variables_and_its_identity_in_the_other_layout() -> None:
    given = (agent("a"), agent("b"))
    one, spread = (render(agents(*given, layout=layout)) for layout in ("one-pod", "pod-per-agent"))
    variables = [
        {name: rendering.variables(container) | {"STATUS_PORT": ""} for name, container in rendering.containers.items()}
        for rendering in (one, spread)
    ]
    assert variables[0] == variables[1]


def test_a_changed_variable_starts_its_agent_alone_anew() -> None:
    before, after = (
        render(agents(agent("a"), agent("b", extraEnv={"LOG_LEVEL": level}), **_SPREAD)) for level in ("INFO", "DEBUG")
    )
    changed = [old != new for old, new in zip(before.all("Deployment"), after.all("Deployment"), strict=True)]
    assert changed == [False, True]


def test_each_agent_has_the_first_port_and_volumes_of_its_own() -> None:
    rendering = _of_three()
    found = rendering.containers.values()
    assert [rendering.variables(container)["STATUS_PORT"] for container in found] == ["9879"] * 3
    assert [container["ports"] for container in found] == [[{"name": "status-0", "containerPort": 9879}]] * 3
    volumes = [[volume["name"] for volume in pod["volumes"]] for pod in rendering.pods.values()]
    assert volumes == [["storage", "home-0", "tmp-0"]] * 3


def test_all_agents_are_measured_under_the_job_that_the_rules_are_about() -> None:
    rendering = _of_three(metrics={"podMonitor": {"enabled": True}})
    assert rendering.one("PodMonitor")["metadata"]["name"] == "ita-ag-oase"
    assert rendering.one("PodMonitor")["spec"] == {
        "selector": {
            "matchLabels": {"app.kubernetes.io/name": "ita-ag-oase", "app.kubernetes.io/instance": "exastro-agent"}
        },
        "podMetricsEndpoints": [{"port": "status-0", "path": "/metrics", "interval": "30s"}],
    }


def test_one_policy_is_about_all_agents() -> None:
    given = (agent("a"), agent("b"), agent("c", extraEnv={"STATUS_PORT": "8080"}))
    spec = render(agents(*given, **_SPREAD, networkPolicy={"enabled": True})).one("NetworkPolicy")["spec"]
    assert spec == {
        "podSelector": {
            "matchLabels": {"app.kubernetes.io/instance": "exastro-agent"},
            "matchExpressions": [
                {"key": "app.kubernetes.io/name", "operator": "In", "values": ["ita-ag-oase", "ita-ag-oase-check"]}
            ],
        },
        "policyTypes": ["Ingress"],
        "ingress": [{"ports": [{"port": 9879}]}, {"ports": [{"port": 8080}]}],
    }


def test_each_deployment_of_several_pods_has_a_budget() -> None:
    rendering = _of_three(replicas=2, podDisruptionBudget={"maxUnavailable": 1})
    selectors = {found["metadata"]["name"]: found["spec"]["selector"] for found in rendering.all("Deployment")}
    assert {found["metadata"]["name"]: found["spec"] for found in rendering.all("PodDisruptionBudget")} == {
        name: {"selector": selector, "maxUnavailable": 1} for name, selector in selectors.items()
    }


def test_each_check_goes_where_its_agent_is_and_sees_its_volume() -> None:
    rendering = _of_three()
    selectors = [found["spec"]["selector"] for found in rendering.all("Deployment")]
    found = [
        pod["spec"]["affinity"]["podAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"][0]["podAffinityTerm"]
        for pod in rendering.all("Pod")
    ]
    assert [term["labelSelector"] for term in found] == selectors
    assert [_claim(pod["spec"]) for pod in rendering.all("Pod")] == _names(rendering, "PersistentVolumeClaim")


_OWN: list[Any] = [
    ({"size": "20Gi"}, {"resources": {"requests": {"storage": "20Gi"}}}),
    ({"storageClass": ""}, {"storageClassName": None}),
    ({"storageClass": "fast"}, {"storageClassName": "fast"}),
    ({"accessMode": "ReadWriteOnce"}, {"accessModes": ["ReadWriteOnce"]}),
    ({"volumeName": "pv-b"}, {"volumeName": "pv-b"}),
    ({"selector": {"matchLabels": {"a": "b"}}}, {"selector": {"matchLabels": {"a": "b"}}}),
]


@pytest.mark.parametrize(("own", "expected"), _OWN, ids="-".join)
def test_what_is_written_for_an_agents_claim_stands_before_what_is_written_for_all(own: Values, expected: Any) -> None:
    first, second = render(agents(agent("a"), agent("b", persistence=own), **_SPREAD)).all("PersistentVolumeClaim")
    assert second["spec"] == {key: value for key, value in (first["spec"] | expected).items() if value is not None}


def test_a_claim_that_exists_is_used_and_not_made() -> None:
    given = (agent("a"), agent("b", persistence={"existingClaim": "of-b"}))
    rendering = render(agents(*given, **_SPREAD, persistence={"existingClaim": "of-all"}))
    assert _names(rendering, "PersistentVolumeClaim") == []
    assert [_claim(pod) for pod in rendering.pods.values()] == ["of-all", "of-b"]


def test_a_claim_that_exists_is_used_by_all_agents_of_one_pod() -> None:
    rendering = render(others(persistence={"existingClaim": "of-all"}))
    assert (_names(rendering, "PersistentVolumeClaim"), _claim(rendering.pod)) == ([], "of-all")


def test_one_volume_for_two_claims_is_refused() -> None:
    given = agents(agent("a"), agent("b"), **_SPREAD, persistence={"volumeName": "pv"})
    assert refusal(given) == (
        'with ita-ag-oase.layout pod-per-agent each agent has a volume of its own, and "pv" would be that of two: '
        "write another volumeName for each, in ita-ag-oase.agents[].persistence"
    )


def test_a_typing_mistake_about_an_agents_claim_is_refused() -> None:
    assert refusal(agents(agent(persistence={"typo": 1}), **_SPREAD)) == (
        "- agents.0.persistence: Additional property typo is not allowed"
    )


def _stop(namespace: Namespace) -> None:
    """Have no pods, as after `kubectl scale --replicas=0`."""
    for name, found in namespace.api.objects.items():
        if name.startswith("Deployment/"):
            found["spec"]["replicas"] = 0


_THERE_AND_BACK = [("one-pod", "pod-per-agent", "ita-ag-oase"), ("pod-per-agent", "one-pod", "ita-ag-oase-a")]


@pytest.mark.parametrize(("before", "after", "running"), _THERE_AND_BACK)
def test_another_layout_beside_pods_that_run_is_refused(
    before: str, after: str, running: str, namespace: Namespace
) -> None:
    namespace.install(others(layout=before))
    namespace.api.objects[f"Deployment/{running}"]["spec"]["replicas"] = 1
    ended = namespace.upgrade(others(layout=after))
    assert ended.err.strip().splitlines()[-1] == (
        f"the pods of deployment {running}, of another layout, would be at work beside the new ones: run "
        f"`kubectl scale deployment {running} --namespace exastro --replicas=0`, wait until they are gone, and upgrade "
        "then"
    )
    assert (ended.code, namespace.api.changes) == (1, [])


@pytest.mark.parametrize(("before", "after", "running"), _THERE_AND_BACK)
def test_a_release_that_is_stopped_goes_over_and_leaves_its_claims(
    before: str, after: str, running: str, namespace: Namespace
) -> None:
    namespace.install(others(layout=before))
    _stop(namespace)
    assert namespace.upgrade(others(layout=after)).err == ""
    (gone, come) = ("ita-ag-oase", "ita-ag-oase-a") if before == "one-pod" else ("ita-ag-oase-a", "ita-ag-oase")
    assert [(change.method, change.name) for change in namespace.api.changes if change.method != "PATCH"] == [
        ("POST", f"PersistentVolumeClaim/pvc-{come}"),
        ("POST", f"Deployment/{come}"),
        ("DELETE", f"Deployment/{gone}"),
    ]
    assert running == gone


def test_a_release_that_goes_over_can_go_on_with_the_claim_that_it_has(namespace: Namespace) -> None:
    namespace.install(agents(agent("a"), agent("b")))
    _stop(namespace)
    goes_on = {"existingClaim": "pvc-ita-ag-oase"}
    ended = namespace.upgrade(agents(agent("a"), agent("b"), **_SPREAD, persistence=goes_on))
    claims = [name for name in namespace.api.objects if name.startswith("PersistentVolumeClaim/")]
    assert (ended.err, claims) == ("", ["PersistentVolumeClaim/pvc-ita-ag-oase"])
    pods = [namespace.api.objects[f"Deployment/ita-ag-oase-{name}"]["spec"]["template"]["spec"] for name in "ab"]
    assert [_claim(pod) for pod in pods] == ["pvc-ita-ag-oase"] * 2


def test_a_deployment_of_another_release_keeps_nobody_from_upgrading(namespace: Namespace) -> None:
    namespace.install(others(**_SPREAD))
    labels = {"app.kubernetes.io/instance": "another-release"}
    namespace.api.objects["Deployment/ita-ag-oase"] = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "ita-ag-oase", "labels": labels},
        "spec": {"replicas": 1, "template": {"spec": {"containers": []}}},
    }
    assert namespace.upgrade(others(**_SPREAD)).err == ""
