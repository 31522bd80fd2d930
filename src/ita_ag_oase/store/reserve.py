"""Disk space set aside, so that delivery can still write where none is left: only what it deletes makes room again."""

import contextlib
import os
from pathlib import Path

# More than the marks and deletions of some requests take.
RESERVE_BYTES = 8 * 1_048_576
_STEP_BYTES = 65_536


class Reserve:
    """A file that takes up space beside the store until that is needed."""

    def __init__(self, store_path: Path) -> None:
        self._path = store_path.with_name(store_path.name + ".reserve")
        self.is_held = False

    def is_there(self) -> bool:
        """Whether the file takes up the space already. Raises OSError."""
        return self._path.exists() and self._path.stat().st_blocks * 512 >= RESERVE_BYTES

    def hold(self) -> bool:
        """Return whether the space is set aside now; False where the volume has too little. Raises OSError."""
        if not self.is_held:
            self.is_held = self._take()
        return self.is_held

    def release(self) -> bool:
        """Give the space free; return whether there was any."""
        was_there = self._path.exists()
        self._path.unlink(missing_ok=True)
        self.is_held = False
        return was_there

    def _take(self) -> bool:
        if self.is_there():
            return True
        try:
            # Not posix_fallocate: it is not everywhere, and not every file system knows it.
            with self._path.open("wb") as file:
                for _ in range(RESERVE_BYTES // _STEP_BYTES):
                    file.write(bytes(_STEP_BYTES))
        except PermissionError:
            raise
        except OSError:
            # No space, not even for another file, a quota, or a limit to the size of files.
            with contextlib.suppress(OSError):
                self._path.unlink()
            return False
        return True


def free_bytes(path: Path) -> int:
    """Return how many bytes the volume of a file has left for this user."""
    volume = os.statvfs(path.parent)
    return volume.f_bavail * volume.f_frsize
