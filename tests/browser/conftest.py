"""A real browser, and the status pages of agents in every state for it to look at."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from chromium import PROGRAM, chromium
from ita_ag_oase.demo.loopback import LoopbackServer
from status_pages import serving
from support import Deploy, deploying, do_without


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for all tests of a module; each opens a window of its own."""
    if not PROGRAM.exists():
        do_without(f"{PROGRAM} is missing: install the Debian package chromium")
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def pages() -> Iterator[LoopbackServer]:
    """The status pages."""
    with serving() as server:
        yield server


@pytest.fixture
def deploy(tmp_path: Path) -> Iterator[Deploy]:
    """Deployments whose agents end with the test."""
    yield from deploying(tmp_path)
