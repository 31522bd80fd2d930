"""The chart against the program that it installs: variables, store, ports."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from chart_files import SHAPES
from helm import Rendering, Values, agent, agents, render
from ita_ag_oase.settings import VARIABLES, Settings

Load = Callable[[Mapping[str, str]], Settings]

_SECRET_FILE = "EXASTRO_PASSWORD_FILE"


def _shape(path: Path) -> Rendering:
    return render(yaml.safe_load(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.stem)
def test_the_program_accepts_what_it_gets_and_is_where_the_pod_looks(shape: Path, load_from: Load) -> None:
    rendering = _shape(shape)
    for container in rendering.containers.values():
        settings = load_from(rendering.variables(container))
        mounted = [mount["mountPath"] for mount in container["volumeMounts"]]
        assert (settings.status_address, settings.status_port) == ("0.0.0.0", container["ports"][0]["containerPort"])
        assert str(settings.storagepath) in mounted
        assert str(settings.settings_file).startswith("/tmp/")
        assert "/tmp" in mounted


def test_agents_of_a_pod_have_stores_and_identities_of_their_own(load_from: Load, option: Values) -> None:
    rendering = render(agents(agent("a"), agent("b"), **option))
    settings = [load_from(rendering.variables(found)) for found in rendering.containers.values()]
    assert [str(found.store_path) for found in settings] == [
        "/storage/org1/ws1/sqlite/ag_oase_a.sqlite3",
        "/storage/org1/ws1/sqlite/ag_oase_b.sqlite3",
    ]
    assert len({found.agent_identity for found in settings}) == 2


def test_what_the_chart_adds_are_variables_of_the_program() -> None:
    given = agent(secretFiles={_SECRET_FILE: {"secret": "mine", "key": "password"}})
    others: dict[str, Any] = {
        "caBundle": {"configMap": "authorities"},
        "persistence": {"mountPath": {"storage": "/data"}},
        "highAvailability": {"enabled": True},
    }
    rendering = render(agents(given, **others))
    added = (
        rendering.variables(rendering.pod["containers"][0]).keys() - given["extraEnv"].keys() - given["secret"].keys()
    )
    assert added == {
        "AGENT_ID",
        "EXASTRO_CA_FILE",
        "LEADER_ELECTION",
        "LEASE_NAME",
        "LEASE_NAMESPACE",
        "POD_NAME",
        "SOURCE_CA_FILE",
        "STATUS_ADDRESS",
        "STATUS_PORT",
        "STORAGEPATH",
        _SECRET_FILE,
    }
    assert added <= {name.upper() for name in VARIABLES}
