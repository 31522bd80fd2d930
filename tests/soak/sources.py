"""The sources of a soak: all of them grow, and each answers some polls badly."""

import bisect
import json
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs

from ita_ag_oase import clock
from ita_ag_oase.demo.loopback import Reply, Request, as_html, as_json
from soak.background import Tally
from support import ScriptedSource

_FAULTS = ("503", "cut", "html", "hanging", "slow", "torn JSON", "unusable JSON")
_FAULT_PART = 0.15
_GROW_EVERY_SECONDS = 0.25
_MANY_PART = 0.02
_REFUSED_PART = 0.02


class GrowingSource(ScriptedSource):
    """A source that makes events, numbered from 1, at each call of `grow`.

    What it lists is a matter of the kind of source. It keeps the books: what it made, what it served in whole answers.
    """

    def __init__(self, name: str, random_: random.Random, tally: Tally, **columns: Any) -> None:
        super().__init__(name, self._answer_well_or_badly, **{"RESPONSE_KEY": "items", "EVENT_ID_KEY": "id", **columns})
        self.served: set[int] = set()
        self.refused: set[int] = set()
        # Apart from each other, so that what it makes does not depend on how many polls come.
        self._growth, self._faults = random.Random(random_.random()), random.Random(random_.random())
        self._tally = tally
        self._texts: list[str] = []
        self._clocks: list[int] = []
        self._lock = threading.Lock()
        self._is_calm = True

    @property
    def made(self) -> range:
        """The ids of its events."""
        return range(1, len(self._texts) + 1)

    def grow(self) -> float:
        """Make some events, at times many; return after how many seconds to make more."""
        count = self._growth.randint(50, 250) if self._growth.random() < _MANY_PART else self._growth.randint(0, 4)
        self.make(count)
        return self._growth.uniform(0.5, 1.5) * _GROW_EVERY_SECONDS

    def make(self, count: int) -> None:
        """Make so many events now."""
        with self._lock:
            for _ in range(count):
                self._make()

    @contextmanager
    def misbehaving(self) -> Iterator[None]:
        """Answer some polls badly within this context."""
        self._is_calm = False
        try:
            yield
        finally:
            self._is_calm = True

    def _make(self) -> None:
        now = int(clock.now())
        event = {"id": len(self._texts) + 1, "clock": now, "text": "x" * self._growth.randint(0, 600)}
        self._texts.append(json.dumps(event))
        self._clocks.append(now)

    def _first_listed(self, request: Request) -> int:
        """Return the least id that the answer holds."""
        raise NotImplementedError

    def _first_since(self, time: int) -> int:
        return bisect.bisect_left(self._clocks, time) + 1

    def _answer_well_or_badly(self, request: Request) -> Reply:
        # An event made later lies, by this source's clock, not before this poll.
        with self._lock:
            ids = range(self._first_listed(request), len(self._texts) + 1)
            body = f'{{"items": [{", ".join(self._texts[ids.start - 1 :])}]}}'.encode()
            fault = None if self._is_calm or self._faults.random() >= _FAULT_PART else self._faults.choice(_FAULTS)
        if fault is None:
            return Reply(body=body, on_sent=lambda: self.served.update(ids))
        self._tally.add(fault)
        return self._badly(fault, body, lambda: self.served.update(ids))

    def _badly(self, fault: str, body: bytes, on_sent: Callable[[], None]) -> Reply:
        bad: dict[str, Reply] = {
            "503": as_html("Service Unavailable", 503),
            "cut": Reply(is_cut=True),
            "html": as_html("Please log in", 200),
            "hanging": Reply(body=body, hang_seconds=self._faults.uniform(2, 6), on_sent=on_sent),
            "slow": Reply(pieces=_trickle(body, self._faults.uniform(0.5, 3)), on_sent=on_sent),
            "torn JSON": Reply(body=body[: len(body) // 2]),
            # Another one each time: what Exastro gets of them can be told apart.
            "unusable JSON": as_json({"error": len(self.polls)}),
        }
        return bad[fault]


class ListingSource(GrowingSource):
    """Lists its open problems, the oldest first: the last so many, and all that Exastro does not have yet."""

    def __init__(
        self, name: str, random_: random.Random, tally: Tally, *, kept: int, has_arrived: Callable[[int], bool]
    ) -> None:
        super().__init__(name, random_, tally)
        self._kept = kept
        self._has_arrived = has_arrived
        self._closed = 0

    def _first_listed(self, _: Request) -> int:
        while self._is_done_with(self._closed + 1):
            self._closed += 1
        return max(1, min(len(self._texts) - self._kept, self._closed) + 1)

    def _is_done_with(self, number: int) -> bool:
        return self._has_arrived(number)


class RefusedSource(ListingSource):
    """Lists open problems, too; some of its events are refused by Exastro for good, as `is_refused` tells."""

    def _make(self) -> None:
        super()._make()
        if self._growth.random() < _REFUSED_PART:
            number = len(self._texts)
            self.refused.add(number)
            self._texts[-1] = json.dumps({**json.loads(self._texts[-1]), "refused": True})

    def _is_done_with(self, number: int) -> bool:
        return number in self.refused or super()._is_done_with(number)


def is_refused(event: Mapping[str, Any]) -> bool:
    """Whether Exastro shall refuse an event for good."""
    return "refused" in event


class TimeSource(GrowingSource):
    """Is asked for what was made since a time, by its own clock, which is true."""

    def __init__(self, name: str, random_: random.Random, tally: Tally) -> None:
        parameter = '{"time_from": "{{ EXASTRO_LAST_FETCHED_TIMESTAMP }}"}'
        super().__init__(name, random_, tally, PARAMETER=parameter)

    def _first_listed(self, request: Request) -> int:
        return self._first_since(_asked(request, "time_from"))


class IdSource(GrowingSource):
    """Is asked for what comes after the last event that was collected."""

    def __init__(self, name: str, random_: random.Random, tally: Tally) -> None:
        parameter = (
            "{% if EXASTRO_LAST_FETCHED_EVENT_IS_EXIST %}"
            '{"id_from": "{{ EXASTRO_LAST_FETCHED_EVENT.id|int + 1 }}"}'
            '{% else %}{"time_from": "{{ EXASTRO_LAST_FETCHED_TIMESTAMP }}"}{% endif %}'
        )
        super().__init__(name, random_, tally, PARAMETER=parameter)

    def _first_listed(self, request: Request) -> int:
        return _asked(request, "id_from") or self._first_since(_asked(request, "time_from"))


def _asked(request: Request, name: str) -> int:
    return int(parse_qs(request.query).get(name, ["0"])[0])


def _trickle(body: bytes, seconds: float) -> Iterator[bytes]:
    size = len(body) // 10 + 1
    for start in range(0, len(body), size):
        time.sleep(seconds / 10)
        yield body[start : start + size]
