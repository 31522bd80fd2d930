"""What goes on beside the agent's lives: steps that threads repeat, and counts that they share."""

import collections
import threading
from collections.abc import Callable
from typing import Self


class Background:
    """Repeats a step in a thread while it is entered; the step returns how many seconds to wait before the next.

    Raises on leaving what the step raised.
    """

    def __init__(self, name: str, step: Callable[[], float]) -> None:
        self._step = step
        self._is_over = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._repeat, name=name, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _repeat(self) -> None:
        try:
            while not self._is_over.wait(self._step()):
                pass
        except BaseException as err:  # noqa: BLE001 - it is raised where the thread is joined
            self._error = err


class Tally:
    """Counts by kind, for many threads."""

    def __init__(self) -> None:
        self._counts: collections.Counter[str] = collections.Counter()
        self._lock = threading.Lock()

    @property
    def counts(self) -> dict[str, int]:
        """How often each kind was counted, by name."""
        with self._lock:
            return dict(sorted(self._counts.items()))

    def add(self, kind: str) -> None:
        """Count one more of a kind."""
        with self._lock:
            self._counts[kind] += 1
