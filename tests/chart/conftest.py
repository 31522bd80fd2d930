"""What tests of the chart share."""

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from helm import OPTIONS, Cluster, Namespace, Values, cluster, namespace
from ita_ag_oase.environment import load
from ita_ag_oase.settings import VARIABLES, Settings


@pytest.fixture(name="cluster")
def _cluster(tmp_path: Path) -> Iterator[Cluster]:
    with cluster(tmp_path) as running:
        yield running


@pytest.fixture(name="namespace")
def _namespace(tmp_path: Path) -> Iterator[Namespace]:
    with namespace(tmp_path) as found:
        yield found


@pytest.fixture(name="option", params=OPTIONS.values(), ids=list(OPTIONS))
def _option(request: pytest.FixtureRequest) -> Values:
    """Values of each way to install the agents, for what holds in all of them."""
    option: Values = request.param
    return option


# What every pod gets, and what the fields stand for that variables refer to.
_SET_BY_KUBERNETES = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}
_FIELDS = {"metadata.name": "pod-1", "metadata.namespace": "monitoring"}


@pytest.fixture
def load_from(monkeypatch: pytest.MonkeyPatch) -> Callable[[Mapping[str, str]], Settings]:
    """Return what loads the agent's settings from these variables and no others."""

    def load_from(variables: Mapping[str, str]) -> Settings:
        with monkeypatch.context() as patch:
            for name in [name for name in os.environ if name.lower() in VARIABLES]:
                patch.delenv(name)
            for name, value in {**_SET_BY_KUBERNETES, **variables, "ENVFILEPATH": os.devnull}.items():
                patch.setenv(name, _FIELDS.get(value, value))
            return load()

    return load_from
