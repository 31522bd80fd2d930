"""What acceptance tests share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support import Deploy, deploying


@pytest.fixture
def deploy(tmp_path: Path) -> Iterator[Deploy]:
    """Deployments whose agents end with the test, judged by what every agent must keep to."""
    yield from deploying(tmp_path)
