"""Names of objects: kept where they worked, since users' commands hold them, and mended where they were refused."""

import re

import pytest

from helm import Values, agent, agents, others, refusal, render

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")

_NAMES = [
    pytest.param("oase-agent", "ita-ag-oase-oase-agent", id="as-it-was"),
    pytest.param("a" * 60, f"ita-ag-oase-{'a' * 51}", id="cut-as-it-was"),
    pytest.param(f"{'a' * 50}-b", f"ita-ag-oase-{'a' * 50}", id="trimmed-as-it-was"),
    pytest.param("", "ita-ag-oase", id="empty-as-it-was"),
    pytest.param(None, "ita-ag-oase", id="missing"),
    pytest.param("Agent", "ita-ag-oase-agent-11b39c93", id="upper-case"),
    pytest.param("my_agent", "ita-ag-oase-my-agent-e72c1a7c", id="underscore"),
    pytest.param("my.agent", "ita-ag-oase-my-agent-ab8fd3ee", id="dot"),
    pytest.param("監視", "ita-ag-oase-1869d7b2", id="japanese"),
    pytest.param(f"{'A' * 60}", f"ita-ag-oase-{'a' * 42}-c5fb235b", id="too-long-and-upper-case"),
    pytest.param(7, "ita-ag-oase-7", id="number"),
]


@pytest.mark.parametrize(("name", "expected"), _NAMES)
def test_a_name_is_kept_where_it_worked_and_made_one_where_not(name: object, expected: str) -> None:
    rendering = render(agents({"extraEnv": {"AGENT_NAME": name}}))
    assert rendering.names == [
        f"ConfigMap/params-{expected}",
        "Deployment/ita-ag-oase",
        "PersistentVolumeClaim/pvc-ita-ag-oase",
        f"Pod/check-{expected}",
        f"Secret/secret-{expected}",
    ]
    assert list(rendering.containers) == [expected]
    assert _LABEL.fullmatch(expected)


def test_agents_whose_names_are_alike_once_cut_are_told_apart(option: Values) -> None:
    rendering = render(agents(agent("a" * 60), agent("a" * 61), agent("b"), **option))
    names = list(rendering.containers)
    assert [name[:55] for name in names[:2]] == [f"ita-ag-oase-{'a' * 42}-"] * 2
    assert names[2] == "ita-ag-oase-b"
    assert len(set(names)) == 3
    assert len({found["metadata"]["name"] for found in rendering.all("Secret")}) == 3


def test_agent_name_reaches_the_program_raw(option: Values) -> None:
    rendering = render(agents(agent("My_Agent.1"), **option))
    assert rendering.variables(rendering.pod["containers"][0])["AGENT_NAME"] == "My_Agent.1"


@pytest.mark.parametrize(
    ("names", "told"), [(["a", "b", "a"], "a"), ([None, ""], "")], ids=["same-name", "without-a-name"]
)
def test_two_agents_of_one_name_are_refused(names: list[str | None], told: str, option: Values) -> None:
    assert refusal(agents(*({"extraEnv": {"AGENT_NAME": name}} for name in names), **option)) == (
        f'two entries of ita-ag-oase.agents have the AGENT_NAME "{told}": write another one for each, in '
        "extraEnv.AGENT_NAME"
    )


def test_names_of_volumes_fit_with_the_longest_name_override(option: Values) -> None:
    rendering = render(others(nameOverride="n" * 63, **option))
    names = [volume["name"] for volume in rendering.pod["volumes"]]
    assert [name for name in names if not _LABEL.fullmatch(name)] == []


@pytest.mark.parametrize("name", ["123", "0x1f", "true", "null"])
def test_a_name_that_yaml_takes_for_something_else_stays_a_name(name: str) -> None:
    rendering = render(
        agents(
            {"extraEnv": {"AGENT_NAME": ""}},
            nameOverride=name,
            metrics={"podMonitor": {"enabled": True}, "prometheusRule": {"enabled": True}},
            networkPolicy={"enabled": True},
            serviceAccount={"create": True},
        )
    )
    kinds = ("Deployment", "NetworkPolicy", "PodMonitor", "PrometheusRule", "ServiceAccount")
    named = [rendering.one(kind)["metadata"]["name"] for kind in kinds]
    assert [*named, *rendering.containers, rendering.pod["serviceAccountName"]] == [name] * 7


@pytest.mark.parametrize("name", ["My-Agent", "my_agent", "-agent"])
def test_a_name_override_that_is_no_name_is_refused(name: str, option: Values) -> None:
    assert refusal(others(nameOverride=name, **option)) == (
        f'ita-ag-oase.nameOverride is "{name}", which is no name in Kubernetes: write lower-case letters, digits and '
        "-, a letter or digit first and last"
    )
