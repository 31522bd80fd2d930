"""What can be told of the Dockerfile without building it."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
_HADOLINT = Path(sys.executable).with_name("hadolint")


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    result = subprocess.run([_HADOLINT, ROOT / "Dockerfile"], capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
