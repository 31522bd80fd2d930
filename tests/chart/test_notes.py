"""What a user is told after an installation: what to run next, and what does not work as it is written."""

from typing import Any

import pytest
import yaml

from chart_files import parameters
from helm import AGENT_CHART, OPTIONS, Cluster, Values, agent, agents, others

_UNUSED: list[Any] = [
    ({"fullnameOverride": "x"}, "fullnameOverride has no effect: write nameOverride."),
    ({"service": {"type": "ClusterIP"}}, "service has no effect: the agent needs none."),
    (
        {"ingress": {"enabled": True}},
        "ingress.enabled has no effect: use kubectl port-forward to see the status page.",
    ),
    ({"persistence": {"reinstall": True}}, "persistence.reinstall has no effect: delete the volume's data by hand."),
    ({"persistence": {"volumeType": "AKS"}}, "persistence.volumeType has no effect: write persistence.storageClass."),
    (
        {"persistence": {"mountPath": {"pid": {"path": "/x"}}}},
        "persistence.mountPath.pid has no effect: leave it out.",
    ),
    (
        {"persistence": {"mountPath": {"socket": {"path": "/x"}}}},
        "persistence.mountPath.socket has no effect: leave it out.",
    ),
    (
        {"initContainerImage": {"repository": "example.test/mine"}},
        (
            "initContainerImage has no effect: the first step uses the image of the first agent; "
            "volumePermissions.enabled turns it off."
        ),
    ),
]


@pytest.mark.parametrize(("given", "told"), _UNUSED, ids=[told.partition(" ")[0] for _, told in _UNUSED])
def test_a_value_without_effect_is_told(given: Values, told: str, cluster: Cluster) -> None:
    assert cluster.warnings(others(**given)) == [f"ita-ag-oase.{told}"]


_UNUSED_GLOBALS = [
    ({"enabled": False}, "global.agentGlobalDefinition.enabled has no effect: run kubectl scale to stop the agents."),
    ({"name": "x"}, "global.agentGlobalDefinition.name has no effect: write nameOverride."),
]


@pytest.mark.parametrize(("given", "told"), _UNUSED_GLOBALS, ids=["enabled", "name"])
def test_a_global_value_without_effect_is_told(given: Values, told: str, cluster: Cluster) -> None:
    assert cluster.warnings(others() | {"global": {"agentGlobalDefinition": given}}) == [told]


_UNKNOWN = "is not known and has no effect: the chart's README lists what there is."
_TYPOS: list[Any] = [
    (others(replica=1), f"ita-ag-oase.replica {_UNKNOWN}"),
    (others(persistence={"storageclass": "x"}), f"ita-ag-oase.persistence.storageclass {_UNKNOWN}"),
    (others(serviceAccount={"nmae": "x"}), f"ita-ag-oase.serviceAccount.nmae {_UNKNOWN}"),
    (agents(agent(extraenv={})), f"ita-ag-oase.agents[0].extraenv {_UNKNOWN}"),
    (agents(agent(image={"tags": "x"})), f"ita-ag-oase.agents[0].image.tags {_UNKNOWN}"),
    (
        others() | {"agents": []},
        "agents is not known and has no effect: the agent's values stand below ita-ag-oase.",
    ),
]


@pytest.mark.parametrize(("values", "told"), _TYPOS, ids=[told.partition(" ")[0] for _, told in _TYPOS])
def test_a_typing_mistake_is_told(values: Values, told: str, cluster: Cluster) -> None:
    assert cluster.warnings(values) == [told]


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("EXASTRO_REFRESH_TOKEN", "change-this-token"),
        ("EXASTRO_REFRESH_TOKEN", "exastro_refresh_token"),
        ("EXASTRO_PASSWORD", "sample-password"),
    ],
)
def test_a_secret_of_the_examples_is_told(variable: str, value: str, cluster: Cluster) -> None:
    given = agent() | {"secret": {"EXASTRO_REFRESH_TOKEN": "token", variable: value}}
    assert cluster.warnings(agents(given)) == [
        f"ita-ag-oase.agents[0]: {variable} is still the example: write your own in secret."
    ]


_CANNOT_WORK: list[Any] = [
    pytest.param(
        {
            "AGENT_NAME": "a",
            "EXASTRO_URL": "http://exastro",
            "EXASTRO_ORGANIZATION_ID": "o",
            "EXASTRO_WORKSPACE_ID": "w",
        },
        {"EXASTRO_REFRESH_TOKEN": "token"},
        "the agent does not start without EVENT_COLLECTION_SETTINGS_NAMES: write it in extraEnv.",
        id="no-settings",
    ),
    pytest.param(
        {"AGENT_NAME": "a"},
        {"EXASTRO_REFRESH_TOKEN": "token"},
        "the agent does not start without EXASTRO_URL, EXASTRO_ORGANIZATION_ID, EXASTRO_WORKSPACE_ID, "
        "EVENT_COLLECTION_SETTINGS_NAMES: write it in extraEnv.",
        id="nothing",
    ),
    pytest.param(
        agent()["extraEnv"],
        {"EXASTRO_USERNAME": "u"},
        "there is no way to authenticate: write EXASTRO_REFRESH_TOKEN (or EXASTRO_USERNAME and EXASTRO_PASSWORD) in "
        "secret, or name a Secret of yours in existingSecret.",
        id="no-password",
    ),
    pytest.param(
        agent()["extraEnv"],
        {"EXASTRO_USERNAME": "u", "EXASTRO_PASSWORD": 123},
        "EXASTRO_PASSWORD in secret is written without quotes, so leading zeros and the like are lost: write it in "
        "quotes.",
        id="number-as-password",
    ),
    pytest.param(
        agent()["extraEnv"] | {"STATUS_PORT": "0"},
        {"EXASTRO_REFRESH_TOKEN": "token"},
        "its status page is off or cannot be reached from outside, so nothing watches it: leave STATUS_PORT and "
        "STATUS_ADDRESS out of extraEnv.",
        id="no-status-page",
    ),
]


@pytest.mark.parametrize(("variables", "secret", "told"), _CANNOT_WORK)
def test_what_cannot_work_is_told_with_the_remedy(
    variables: Values, secret: Values, told: str, cluster: Cluster
) -> None:
    warnings = cluster.warnings(agents({"extraEnv": variables, "secret": secret}))
    assert warnings == [f"ita-ag-oase.agents[0]: {told}"]


_COMPLETE: list[Any] = [
    pytest.param(agents(agent()), id="token"),
    pytest.param(agents(agent() | {"secret": {"EXASTRO_USERNAME": "u", "EXASTRO_PASSWORD": "p"}}), id="password"),
    pytest.param(agents(agent() | {"secret": None, "existingSecret": "mine"}), id="secret-of-ones-own"),
    pytest.param(
        agents(agent() | {"secret": None, "secretFiles": {"EXASTRO_REFRESH_TOKEN_FILE": {"secret": "s", "key": "k"}}}),
        id="file",
    ),
    pytest.param(agents(agent() | {"secret": None}, extraEnvFrom=[{"secretRef": {"name": "mine"}}]), id="elsewhere"),
]


@pytest.mark.parametrize("values", _COMPLETE)
def test_nothing_is_told_where_nothing_is_wrong(values: Values, option: Values, cluster: Cluster) -> None:
    assert cluster.warnings({"ita-ag-oase": values["ita-ag-oase"] | option}) == []


def test_a_tag_that_may_be_another_program_is_told(cluster: Cluster) -> None:
    (warning,) = cluster.warnings(agents(agent(image={"repository": "mine", "tag": "2.3.0"})))
    assert warning == (
        "ita-ag-oase.agents[0]: whether mine:2.3.0 is this agent (2.7.1 or later) cannot be told from its tag, so "
        "nothing watches it: leave image.tag empty, or write such a version."
    )


def test_a_status_port_that_is_taken_is_told(cluster: Cluster) -> None:
    given = (agent("a"), agent("b", extraEnv={"STATUS_PORT": 9879}))
    assert cluster.warnings(agents(*given)) == [
        "ita-ag-oase.agents[1]: another agent of the pod has STATUS_PORT 9879 too: write another number."
    ]


def test_a_status_port_may_be_that_of_an_agent_in_another_pod(cluster: Cluster) -> None:
    given = (agent("a"), agent("b", extraEnv={"STATUS_PORT": 9879}))
    assert cluster.warnings(agents(*given, layout="pod-per-agent")) == []


def test_a_claim_of_an_agents_own_in_a_shared_pod_is_told(cluster: Cluster) -> None:
    assert cluster.warnings(agents(agent(persistence={"size": "1Gi"}))) == [
        (
            "ita-ag-oase.agents[0].persistence has no effect, since the agents share a pod and its volume: write "
            "persistence, or layout pod-per-agent."
        )
    ]


def test_rules_without_what_they_look_at_are_told(cluster: Cluster) -> None:
    assert cluster.warnings(others(metrics={"prometheusRule": {"enabled": True}})) == [
        (
            "ita-ag-oase.metrics.prometheusRule is on without metrics.podMonitor, so its alert OaseAgentDown fires "
            "for ever: turn metrics.podMonitor.enabled on."
        )
    ]


_STORAGE: list[Any] = [
    (
        {"persistence": {"enabled": False}},
        (
            "persistence.enabled is off: events that wait for delivery are lost with the pod. Turn it on, except "
            "for trying out."
        ),
    ),
    (
        {"persistence": {"matchLabels": {"release": "stable"}}},
        (
            "persistence.matchLabels and matchExpressions are heeded only together, since an existing claim cannot be "
            "changed: for a new claim write persistence.selector, or use claimRef in the volume or "
            "persistence.volumeName."
        ),
    ),
    (
        {"replicas": 2},
        (
            "replicas is more than 1: one pod works, the others wait for its store. To have one stand by on another "
            "node, turn highAvailability.enabled on; to share the work, divide the settings among several agents."
        ),
    ),
]


@pytest.mark.parametrize(("given", "told"), _STORAGE, ids=["no-volume", "labels-alone", "replicas"])
def test_what_surprises_about_the_store_is_told(given: Values, told: str, cluster: Cluster) -> None:
    assert cluster.warnings(others(**given)) == [f"ita-ag-oase.{told}"]


def test_what_to_run_next_is_told(cluster: Cluster) -> None:
    assert cluster.notes(agents(agent("a"), agent("b"))).strip() == (
        "OASE agent 2.7.1: deployment ita-ag-oase with 2 agents.\n"
        "\n"
        "Is it running?\n"
        "  kubectl get pods --namespace exastro --selector "
        "app.kubernetes.io/instance=exastro-agent,app.kubernetes.io/name=ita-ag-oase\n"
        "Can it reach Exastro and its sources?\n"
        "  helm test exastro-agent --namespace exastro --logs\n"
        "What does it say?\n"
        "  kubectl logs --namespace exastro deployment/ita-ag-oase --container ita-ag-oase-a\n"
        "  kubectl logs --namespace exastro deployment/ita-ag-oase --container ita-ag-oase-b\n"
        "The status page of ita-ag-oase-a, at http://127.0.0.1:9879/:\n"
        "  kubectl port-forward --namespace exastro deployment/ita-ag-oase 9879:9879\n"
        "The status page of ita-ag-oase-b, at http://127.0.0.1:9880/:\n"
        "  kubectl port-forward --namespace exastro deployment/ita-ag-oase 9880:9880"
    )


_NEXT = {
    "pod-per-agent": (
        "OASE agent 2.7.1: 2 deployments with an agent each.\n"
        "\n"
        "Is it running?\n"
        "  kubectl get pods --namespace exastro --selector "
        "app.kubernetes.io/instance=exastro-agent,app.kubernetes.io/name=ita-ag-oase\n"
        "Can it reach Exastro and its sources?\n"
        "  helm test exastro-agent --namespace exastro --logs\n"
        "What does it say?\n"
        "  kubectl logs --namespace exastro deployment/ita-ag-oase-a --container ita-ag-oase-a\n"
        "  kubectl logs --namespace exastro deployment/ita-ag-oase-b --container ita-ag-oase-b\n"
        "The status page of ita-ag-oase-a, at http://127.0.0.1:9879/:\n"
        "  kubectl port-forward --namespace exastro deployment/ita-ag-oase-a 9879:9879\n"
        "The status page of ita-ag-oase-b, at http://127.0.0.1:9879/:\n"
        "  kubectl port-forward --namespace exastro deployment/ita-ag-oase-b 9879:9879"
    ),
    "high-availability": (
        "OASE agent 2.7.1: deployment ita-ag-oase with 2 agents, each at work in one of 2 pods.\n"
        "\n"
        "Is it running?\n"
        "  kubectl get pods --namespace exastro --selector "
        "app.kubernetes.io/instance=exastro-agent,app.kubernetes.io/name=ita-ag-oase\n"
        "Which pod works?\n"
        "  kubectl get lease --namespace exastro ita-ag-oase-a\n"
        "  kubectl get lease --namespace exastro ita-ag-oase-b\n"
        "Can it reach Exastro and its sources?\n"
        "  helm test exastro-agent --namespace exastro --logs\n"
        "What does it say?\n"
        "  kubectl logs --namespace exastro --selector "
        "app.kubernetes.io/instance=exastro-agent,app.kubernetes.io/name=ita-ag-oase "
        "--container ita-ag-oase-a --prefix --tail 100\n"
        "  kubectl logs --namespace exastro --selector "
        "app.kubernetes.io/instance=exastro-agent,app.kubernetes.io/name=ita-ag-oase "
        "--container ita-ag-oase-b --prefix --tail 100\n"
        "The status page of ita-ag-oase-a, at http://127.0.0.1:9879/:\n"
        "  kubectl port-forward --namespace exastro deployment/ita-ag-oase 9879:9879\n"
        "The status page of ita-ag-oase-b, at http://127.0.0.1:9880/:\n"
        "  kubectl port-forward --namespace exastro deployment/ita-ag-oase 9880:9880"
    ),
}


@pytest.mark.parametrize("name", _NEXT)
def test_what_to_run_next_is_told_of_pods_as_they_are(name: str, cluster: Cluster) -> None:
    assert cluster.notes(agents(agent("a"), agent("b"), **OPTIONS[name])).strip() == _NEXT[name]


_HEADS = [
    ("one-pod", "deployment ita-ag-oase with 1 agent."),
    ("pod-per-agent", "1 deployment with an agent."),
    ("high-availability", "deployment ita-ag-oase with 1 agent, at work in one of 2 pods."),
    ("pod-per-agent-high-availability", "1 deployment with an agent, at work in one of 2 pods."),
]


@pytest.mark.parametrize(("name", "told"), _HEADS)
def test_what_is_installed_is_told(name: str, told: str, cluster: Cluster) -> None:
    assert cluster.notes(others(**OPTIONS[name])).strip().splitlines()[0] == f"OASE agent 2.7.1: {told}"


def _children(path: str) -> set[str]:
    return {
        parameter.path.removeprefix(path).partition(".")[0].removesuffix("[]")
        for parameter in parameters()
        if parameter.path.startswith(path)
    }


def test_the_values_that_count_as_known_are_those_that_there_are() -> None:
    text = (AGENT_CHART / "templates" / "_notes.tpl").read_text(encoding="utf-8")
    known = yaml.safe_load(text.partition('define "ita-ag-oase.knownKeys" -}}')[2].partition("{{- end")[0])
    without_effect = {"enabled", "fullnameOverride", "global", "ingress", "initContainerImage", "service"}
    assert {place: set(keys) for place, keys in known.items()} == {
        "root": _children("ita-ag-oase.") | without_effect,
        "agent": _children("ita-ag-oase.agents[]."),
        "image": _children("ita-ag-oase.agents[].image."),
        "persistence": _children("ita-ag-oase.persistence."),
        "serviceAccount": _children("ita-ag-oase.serviceAccount."),
    }
