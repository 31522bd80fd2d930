"""What tests of the chart share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from helm import Cluster, cluster


@pytest.fixture(name="cluster")
def _cluster(tmp_path: Path) -> Iterator[Cluster]:
    with cluster(tmp_path) as running:
        yield running
