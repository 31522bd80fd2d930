"""A program that is measured: CPU time and resident size, as the operating system accounts for them (Linux only)."""

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

_END_SECONDS = 20


class Program:
    """Runs while it is entered, with no other environment than the one given and the search path."""

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str], folder: Path) -> None:
        self._arguments = arguments
        self._environment = {"PATH": os.environ["PATH"], "HOME": str(folder), **environment}
        self._folder = folder

    def __enter__(self) -> Self:
        self._log = (self._folder / "output.log").open("ab")
        self.started = time.monotonic()
        self._process = subprocess.Popen(
            self._arguments, env=self._environment, cwd=self._folder, stdout=self._log, stderr=self._log
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(timeout=_END_SECONDS)
        self._log.close()

    def check(self) -> None:
        """Raise AssertionError where it has ended by itself."""
        if self._process.poll() is not None:
            raise AssertionError(f"{self._arguments} ended with {self._process.returncode}\n{self.last_words()}")

    def last_words(self) -> str:
        """Return the end of what it wrote."""
        return (self._folder / "output.log").read_text(encoding="utf-8", errors="replace")[-2_000:]

    @property
    def cpu_seconds(self) -> float:
        """CPU time used so far: the clock that clock_getcpuclockid(3) names, made by its rule."""
        return time.clock_gettime((~self._process.pid << 3) | 2)

    @property
    def resident_mib(self) -> float:
        """What is resident now."""
        return self._status_mib("VmRSS:")

    @property
    def peak_mib(self) -> float:
        """The most that ever was resident."""
        return self._status_mib("VmHWM:")

    def _status_mib(self, name: str) -> float:
        status = Path(f"/proc/{self._process.pid}/status").read_text(encoding="ascii")
        return next(int(line.split()[1]) / 1_024 for line in status.splitlines() if line.startswith(name))
