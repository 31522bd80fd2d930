"""What the agent and its store take, looked at now and then."""

import contextlib

from support import Deployment

_EVERY_SECONDS = 0.25


class Measures:
    """The most that was ever seen of memory, open files and the store."""

    def __init__(self, deployment: Deployment) -> None:
        self.peak_mebibytes = 0.0
        self.open_files = 0
        self.stored_bytes = 0
        self._deployment = deployment

    def look(self) -> float:
        """Look at what runs now; return after how many seconds to look again."""
        for process in filter(lambda process: process.is_running, self._deployment.processes[-2:]):
            # It may be killed at any moment.
            with contextlib.suppress(OSError, ValueError):
                self.peak_mebibytes = max(self.peak_mebibytes, process.peak_mebibytes())
                self.open_files = max(self.open_files, process.open_files())
        with contextlib.suppress(OSError):
            self.stored_bytes = max(self.stored_bytes, self._deployment.stored_bytes)
        return _EVERY_SECONDS
