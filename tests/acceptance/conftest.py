"""What acceptance tests share."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import Deploy, deploying, do_without

_VOLUME_BYTES = 24 * 1_048_576


@pytest.fixture
def deploy(tmp_path: Path) -> Iterator[Deploy]:
    """Deployments whose agents end with the test, judged by what every agent must keep to."""
    yield from deploying(tmp_path)


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Path]:
    """A small volume of its own, or a reason why there is none."""
    folder = tmp_path / "volume"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={_VOLUME_BYTES}", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True) if shutil.which("mount") else None
    if mounted is None or mounted.returncode:
        do_without(f"no small volume could be mounted: {mounted.stderr if mounted else 'there is no mount'}")
    yield folder
    # Lazily: an agent that a failed test left running still has it open, and a mount would outlive them both.
    subprocess.run(["umount", "--lazy", str(folder)], check=True)
