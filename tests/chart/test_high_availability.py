"""Pods that stand by: what they may do, where they are, what they go on with, and what is not there without them."""

from typing import Any

import pytest

from helm import OPTIONS, Cluster, Manifest, Namespace, Values, agent, agents, others, refusal, render

_ON: dict[str, Any] = {"highAvailability": {"enabled": True}}
_SPREAD: dict[str, Any] = {"layout": "pod-per-agent"}
_WITHOUT = {name: option for name, option in OPTIONS.items() if "highAvailability" not in option}
_SELECTOR = {"app.kubernetes.io/name": "ita-ag-oase", "app.kubernetes.io/instance": "exastro-agent"}


def _of(found: Manifest) -> Manifest:
    """Return an object without what all objects of the release have."""
    metadata = {key: value for key, value in found["metadata"].items() if key != "labels"}
    return found | {"metadata": metadata}


def _role(name: str, leases: list[str]) -> Manifest:
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": {"name": name},
        "rules": [
            {
                "apiGroups": ["coordination.k8s.io"],
                "resources": ["leases"],
                "resourceNames": leases,
                "verbs": ["get", "update"],
            }
        ],
    }


def _binding(name: str, account: str) -> Manifest:
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": "exastro"}],
    }


def test_the_role_allows_to_get_and_update_the_leases_of_the_agents_and_nothing_else() -> None:
    rendering = render(agents(agent("a"), agent("b"), **_ON))
    rights = [_of(found) for found in rendering.objects if found["apiVersion"].startswith("rbac.")]
    assert rights == [
        _role("ita-ag-oase", ["ita-ag-oase-a", "ita-ag-oase-b"]),
        _binding("ita-ag-oase", "ita-ag-oase"),
    ]


def test_an_agent_in_a_pod_of_its_own_may_not_touch_the_lease_of_another() -> None:
    rendering = render(agents(agent("a"), agent("b"), **_ON, **_SPREAD))
    rights = [_of(found) for found in rendering.objects if found["apiVersion"].startswith("rbac.")]
    names = ("ita-ag-oase-a", "ita-ag-oase-b")
    assert rights == [*(_role(name, [name]) for name in names), *(_binding(name, name) for name in names)]
    assert [(name, pod["serviceAccountName"]) for name, pod in rendering.pods.items()] == [
        (name, name) for name in names
    ]


@pytest.mark.parametrize("option", _WITHOUT.values(), ids=_WITHOUT)
def test_without_it_there_is_no_right_no_account_no_token_and_no_election(option: Values) -> None:
    rendering = render(agents(agent("a"), agent("b"), **option))
    assert {found["kind"] for found in rendering.objects} == {
        "ConfigMap",
        "Deployment",
        "PersistentVolumeClaim",
        "Pod",
        "Secret",
    }
    pods = [*rendering.pods.values(), *(pod["spec"] for pod in rendering.all("Pod"))]
    assert {(pod["serviceAccountName"], pod["automountServiceAccountToken"]) for pod in pods} == {("default", False)}
    assert [container["name"] for pod in pods for container in pod["containers"] if "env" in container] == []


@pytest.mark.parametrize("given", [None, {}, {"enabled": False}, {"enabled": None}])
def test_it_is_off_unless_it_is_turned_on(given: Values | None) -> None:
    assert render(others(highAvailability=given)).objects == render(others()).objects


@pytest.mark.parametrize("layout", ["one-pod", "pod-per-agent"])
def test_each_agent_has_an_empty_lease_of_its_own(layout: str) -> None:
    rendering = render(agents(agent("a"), agent("b"), **_ON, layout=layout))
    assert [_of(found) for found in rendering.all("Lease")] == [
        {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": f"ita-ag-oase-{name}"}}
        for name in "ab"
    ]


@pytest.mark.parametrize("layout", ["one-pod", "pod-per-agent"])
def test_each_agent_stands_for_the_lease_of_its_name_as_the_pod_that_it_is_in(layout: str) -> None:
    rendering = render(agents(agent("a"), agent("b"), **_ON, layout=layout))
    assert {name: container["env"] for name, container in rendering.containers.items()} == {
        name: [
            {"name": "LEADER_ELECTION", "value": "lease"},
            {"name": "LEASE_NAME", "value": name},
            {"name": "LEASE_NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
            {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        ]
        for name in ("ita-ag-oase-a", "ita-ag-oase-b")
    }


def test_the_check_asks_for_the_lease_as_the_agent_does() -> None:
    rendering = render(others(**_ON))
    check = rendering.one("Pod")["spec"]
    (container,) = check["containers"]
    assert container["env"] == rendering.pod["containers"][0]["env"]
    same = ("serviceAccountName", "automountServiceAccountToken")
    assert [check[key] for key in same] == [rendering.pod[key] for key in same] == ["ita-ag-oase", True]


def test_the_token_is_for_the_agents_pods_and_for_no_other_pod_of_the_account() -> None:
    account = render(others(**_ON)).one("ServiceAccount")
    assert _of(account) == {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": "ita-ag-oase"},
        "automountServiceAccountToken": False,
    }


_ACCOUNTS: list[Any] = [
    pytest.param({"create": False}, {}, ["ita-ag-oase"], "ita-ag-oase", id="made-in-any-case"),
    pytest.param({"create": True}, {}, ["ita-ag-oase"], "ita-ag-oase", id="made"),
    pytest.param({"create": True, "name": "mine"}, {}, ["mine"], "mine", id="made-under-a-name"),
    pytest.param({"create": False, "name": "mine"}, {}, [], "mine", id="there-already"),
    pytest.param({"create": True}, _SPREAD, ["ita-ag-oase-a"], "ita-ag-oase-a", id="made-for-each-agent"),
    pytest.param({"create": True, "name": "mine"}, _SPREAD, ["mine"], "mine", id="one-under-a-name-for-all-agents"),
]


@pytest.mark.parametrize(("account", "layout", "made", "used"), _ACCOUNTS)
def test_the_right_is_that_of_the_account_that_is_used(
    account: Values, layout: Values, made: list[str], used: str
) -> None:
    rendering = render(others(**_ON, **layout, serviceAccount=account))
    assert [found["metadata"]["name"] for found in rendering.all("ServiceAccount")] == made
    (pod,) = rendering.pods.values()
    assert pod["serviceAccountName"] == used
    assert [subject["name"] for subject in rendering.one("RoleBinding")["subjects"]] == [used]


def test_an_account_under_a_name_is_made_once_for_all_agents() -> None:
    account = {"create": True, "name": "mine", "annotations": {"a": "b"}}
    (made,) = render(agents(agent("a"), agent("b"), **_ON, **_SPREAD, serviceAccount=account)).all("ServiceAccount")
    assert (made["metadata"]["name"], made["metadata"]["annotations"]) == ("mine", {"a": "b"})


def test_there_are_two_pods_that_share_no_node() -> None:
    spec = render(others(**_ON)).one("Deployment")["spec"]
    apart = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": _SELECTOR}}
    assert spec["replicas"] == 2
    assert spec["template"]["spec"]["affinity"] == {
        "podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [apart]}
    }


def test_pods_of_different_agents_may_share_a_node() -> None:
    pods = render(agents(agent("a"), agent("b"), **_ON, **_SPREAD)).pods
    terms = [
        pod["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"] for pod in pods.values()
    ]
    assert [term["labelSelector"]["matchLabels"] for (term,) in terms] == [
        _SELECTOR | {"app.kubernetes.io/component": name} for name in pods
    ]


def test_what_is_written_about_neighbours_holds_besides() -> None:
    own = {"topologyKey": "zone", "labelSelector": {"matchLabels": {"a": "b"}}}
    soft = [{"weight": 1, "podAffinityTerm": own}]
    given = {
        "nodeAffinity": {"x": "y"},
        "podAntiAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": [own],
            "preferredDuringSchedulingIgnoredDuringExecution": soft,
        },
    }
    apart = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": _SELECTOR}}
    assert render(others(**_ON, affinity=given)).pod["affinity"] == {
        "nodeAffinity": {"x": "y"},
        "podAntiAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": [own, apart],
            "preferredDuringSchedulingIgnoredDuringExecution": soft,
        },
    }


@pytest.mark.parametrize("layout", ["one-pod", "pod-per-agent"])
def test_one_pod_of_each_deployment_is_left_where_nodes_are_emptied(layout: str) -> None:
    rendering = render(agents(agent("a"), agent("b"), **_ON, layout=layout))
    selectors = {found["metadata"]["name"]: found["spec"]["selector"] for found in rendering.all("Deployment")}
    assert {found["metadata"]["name"]: found["spec"] for found in rendering.all("PodDisruptionBudget")} == {
        name: {"selector": selector, "minAvailable": 1} for name, selector in selectors.items()
    }


def test_a_budget_of_ones_own_stands_before_the_charts() -> None:
    rendering = render(others(**_ON, podDisruptionBudget={"maxUnavailable": 1}))
    assert rendering.one("PodDisruptionBudget")["spec"] == {
        "selector": {"matchLabels": _SELECTOR},
        "maxUnavailable": 1,
    }


@pytest.mark.parametrize(("replicas", "budgets"), [(0, 0), (1, 0), (2, 1), (3, 1)])
def test_another_number_of_pods_can_be_had(replicas: int, budgets: int) -> None:
    rendering = render(others(**_ON, replicas=replicas))
    assert rendering.one("Deployment")["spec"]["replicas"] == replicas
    assert len(rendering.all("PodDisruptionBudget")) == budgets


def test_a_rollout_replaces_one_pod_after_the_other_without_a_third_node() -> None:
    assert render(others(**_ON)).one("Deployment")["spec"]["strategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1},
    }


@pytest.mark.parametrize("mode", ["ReadWriteOnce", "ReadWriteOncePod", "ReadOnlyMany"])
@pytest.mark.parametrize("layout", ["one-pod", "pod-per-agent"])
def test_a_volume_of_one_node_is_refused(mode: str, layout: str) -> None:
    of = " of ita-ag-oase.agents[0]" if layout == "pod-per-agent" else ""
    assert refusal(others(**_ON, layout=layout, persistence={"accessMode": mode})) == (
        "ita-ag-oase.highAvailability needs a volume that two nodes can use at once, and persistence.accessMode"
        f"{of} is {mode}: write ReadWriteMany and a storage class that has such volumes, or name a claim that has one "
        "in persistence.existingClaim"
    )


def test_a_volume_of_one_node_is_refused_for_one_of_the_agents_too() -> None:
    given = (agent("a"), agent("b", persistence={"accessMode": "ReadWriteOnce"}))
    assert "of ita-ag-oase.agents[1] is ReadWriteOnce" in refusal(agents(*given, **_ON, **_SPREAD))


def test_an_agent_that_may_not_wait_for_another_is_refused() -> None:
    assert refusal(agents(agent("a"), agent("b", image={"repository": "mine", "tag": "2.3.0"}), **_ON)) == (
        "ita-ag-oase.highAvailability needs agents that wait for each other, and whether mine:2.3.0 of "
        "ita-ag-oase.agents[1] is this agent (2.7.1 or later) cannot be told from its tag: leave image.tag empty, or "
        "write such a version"
    )


def test_a_typing_mistake_is_refused() -> None:
    assert refusal(others(highAvailability={"replicas": 3})) == (
        "- highAvailability: Additional property replicas is not allowed"
    )


_TOLD: list[Any] = [
    pytest.param(
        {"persistence": {"existingClaim": "mine"}},
        (
            "highAvailability: whether two nodes can use the claim mine at once cannot be told from here: its access "
            "mode must be ReadWriteMany."
        ),
        id="claim",
    ),
    pytest.param(
        {"replicas": 1},
        "replicas is 1, so that no pod stands by: leave it out, or turn highAvailability.enabled off.",
        id="one-pod",
    ),
    pytest.param(
        {"updateStrategy": {"type": "Recreate"}},
        "updateStrategy.type is Recreate, so that an update ends all pods at once: leave it out, so that one goes on.",
        id="recreate",
    ),
    pytest.param(
        {"networkPolicy": {"enabled": True, "egress": [{"ports": [{"port": 443}]}]}},
        (
            "networkPolicy.egress: with highAvailability the agents go to the Kubernetes API, too: let them, or none "
            "of them will work."
        ),
        id="egress",
    ),
]


@pytest.mark.parametrize(("given", "told"), _TOLD)
def test_what_keeps_a_pod_from_taking_over_is_told(given: Values, told: str, cluster: Cluster) -> None:
    assert cluster.warnings(others(**_ON, **given)) == [f"ita-ag-oase.{told}"]
    assert f"ita-ag-oase.{told}" not in cluster.warnings(others(**given))


def test_a_claim_of_several_agents_is_told_of_once(cluster: Cluster) -> None:
    given = agents(agent("a"), agent("b"), **_ON, **_SPREAD, persistence={"existingClaim": "mine"})
    assert len(cluster.warnings(given)) == 1


@pytest.mark.parametrize("kind", ["extraEnv", "secret"])
@pytest.mark.parametrize("variable", ["LEADER_ELECTION", "LEASE_NAME", "LEASE_NAMESPACE", "POD_NAME"])
def test_a_variable_of_the_election_cannot_leave_the_agents_without_their_right(
    variable: str, kind: str, cluster: Cluster
) -> None:
    given = agent()
    given = given | {kind: given[kind] | {variable: "mine"}}
    rendering = render(agents(given, **_ON))
    (container,) = rendering.containers.values()
    assert rendering.variables(container)[variable] != "mine"
    assert cluster.warnings(agents(given, **_ON)) == [
        f"ita-ag-oase.agents[0]: {variable} has no effect with highAvailability, which sets it itself: leave it out."
    ]
    assert cluster.warnings(agents(given)) == []


def test_an_upgrade_leaves_a_lease_to_who_holds_it(namespace: Namespace) -> None:
    namespace.install(others(**_ON))
    lease = namespace.api.objects["Lease/ita-ag-oase-a"]
    held = {"holderIdentity": "ita-ag-oase-1", "leaseDurationSeconds": 15, "leaseTransitions": 7, "renewTime": "now"}
    lease["spec"] = held
    lease["metadata"]["labels"]["helm.sh/chart"] = "ita-ag-oase-2.9.9"
    assert namespace.upgrade(others(**_ON, podLabels={"a": "b"})).err == ""
    patches = [change.sent for change in namespace.api.changes if change.name == "Lease/ita-ag-oase-a"]
    assert patches == [{"metadata": {"labels": {"helm.sh/chart": "ita-ag-oase-3.0.0"}}}]
    assert namespace.api.objects["Lease/ita-ag-oase-a"]["spec"] == held


@pytest.mark.parametrize("layout", ["one-pod", "pod-per-agent"])
def test_turning_it_on_beside_a_pod_that_takes_no_part_is_refused(layout: str, namespace: Namespace) -> None:
    namespace.install(others(layout=layout))
    name = "ita-ag-oase" if layout == "one-pod" else "ita-ag-oase-a"
    namespace.api.objects[f"Deployment/{name}"]["spec"]["replicas"] = 1
    ended = namespace.upgrade(others(layout=layout, **_ON))
    assert ended.err.strip().splitlines()[-1] == (
        f"the pods of deployment {name}, without highAvailability, would be at work beside the new ones: run `kubectl "
        f"scale deployment {name} --namespace exastro --replicas=0`, wait until they are gone, and upgrade then"
    )
    assert (ended.code, namespace.api.changes) == (1, [])


def test_turning_it_on_starts_a_release_that_was_stopped_with_two_pods(namespace: Namespace) -> None:
    namespace.install(others())
    deployment = "Deployment/ita-ag-oase"
    namespace.api.objects[deployment]["spec"]["replicas"] = 0
    assert namespace.upgrade(others(**_ON)).err == ""
    assert namespace.api.objects[deployment]["spec"]["replicas"] == 2
    assert [change.name for change in namespace.api.changes if change.method == "POST"] == [
        "PodDisruptionBudget/ita-ag-oase",
        "ServiceAccount/ita-ag-oase",
        "Role/ita-ag-oase",
        "RoleBinding/ita-ag-oase",
        "Lease/ita-ag-oase-a",
    ]


def test_turning_it_off_takes_rights_and_leases_away_and_leaves_the_claim(namespace: Namespace) -> None:
    namespace.install(others(**_ON))
    assert namespace.upgrade(others()).err == ""
    assert sorted(change.name for change in namespace.api.changes if change.method == "DELETE") == [
        "Lease/ita-ag-oase-a",
        "PodDisruptionBudget/ita-ag-oase",
        "Role/ita-ag-oase",
        "RoleBinding/ita-ag-oase",
        "ServiceAccount/ita-ag-oase",
    ]
    assert "replicas" not in namespace.api.objects["Deployment/ita-ag-oase"]["spec"]
