"""What happens to Exastro in a soak: faults of single posts, slowness, absence, and limits of its gateway."""

import random
import threading
import time
from typing import Any

from ita_ag_oase.demo.exastro import FAULTS, DemoExastro
from ita_ag_oase.demo.loopback import Reply, Request
from soak.background import Tally

_MOODS = {"calm": 32, "unsteady": 43, "slow": 10, "down": 7, "limit": 8}
# Those that save and do not say so try the agent most.
_FAULTS = (*FAULTS, *["lost", "half"] * 3)
_SETTINGS_FAULTS = ("503", "cut", "html", "498", "401")
_UNSTEADY_PART = 0.4
_SLOW_SECONDS = (0.1, 1.5)
_MOOD_SECONDS = (0.5, 4.0)
# Even the least lets any single event of the sources pass: that refuses nothing for good.
_LIMITS_BYTES = (8_000, 20_000, 60_000, 1 << 30)
# Refusals that hold for good where they meet a single event.
_REFUSING = ("413", "400")


class BusyExastro(DemoExastro):
    """An Exastro that knows how many posts it works on."""

    def __init__(self) -> None:
        super().__init__()
        self.under_way = 0
        self._counting = threading.Lock()

    def _events(self, body: Any, request: Request) -> Reply:
        self._count(1)
        try:
            return super()._events(body, request)
        finally:
            self._count(-1)

    def _count(self, change: int) -> None:
        with self._counting:
            self.under_way += change


class Weather:
    """Changes the mood of an Exastro; `change` is to be called now and then, and `clear` at the end."""

    def __init__(self, exastro: BusyExastro, random_: random.Random, tally: Tally) -> None:
        self._exastro = exastro
        # Apart from each other, so that the moods do not depend on how many posts come.
        self._moods, self._faults = random.Random(random_.random()), random.Random(random_.random())
        self._tally = tally
        self._mood = "calm"
        self._limit_bytes = _LIMITS_BYTES[-1]
        exastro.before_saving = self._before_saving
        exastro.before_answering = self._delay

    def change(self) -> float:
        """Change the mood; return for how many seconds it lasts."""
        self._leave()
        self._mood = self._moods.choices(list(_MOODS), list(_MOODS.values()))[0]
        if self._mood == "down":
            self._tally.add("down")
            self._exastro.__exit__()
        elif self._mood == "limit":
            self._tally.add("limit changed")
            self._limit_bytes = self._moods.choice(_LIMITS_BYTES)
        elif self._mood == "unsteady":
            self._exastro.settings_faults.append(self._moods.choice(_SETTINGS_FAULTS))
        return self._moods.uniform(*_MOOD_SECONDS)

    def clear(self) -> None:
        """Let Exastro work well from now on."""
        self._leave()
        self._limit_bytes = _LIMITS_BYTES[-1]

    def _leave(self) -> None:
        if self._mood == "down":
            self._exastro.__enter__()
        self._exastro.settings_faults.clear()
        self._mood = "calm"

    def _before_saving(self, request: Request) -> str | None:
        self._delay()
        fault = self._fault(request)
        if fault in _REFUSING and not self._may_refuse(request):
            return None
        if fault is not None:
            self._tally.add(fault)
        return fault

    def _fault(self, request: Request) -> str | None:
        if len(request.body) > self._limit_bytes:
            return "413"
        is_due = self._mood == "unsteady" and self._faults.random() < _UNSTEADY_PART
        return self._faults.choice(_FAULTS) if is_due else None

    def _may_refuse(self, request: Request) -> bool:
        # A request that is refused while an older one is still worked on says nothing about that one.
        return request.body.count(b'"_exastro_oase_event_id":') > 1 and self._exastro.under_way == 1

    def _delay(self) -> None:
        if self._mood == "slow" and self._faults.random() < _UNSTEADY_PART:
            self._tally.add("slow")
            time.sleep(self._faults.uniform(*_SLOW_SECONDS))
