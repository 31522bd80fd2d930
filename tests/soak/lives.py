"""The agent's lives: how each starts, how long it lasts, and how it ends."""

import contextlib
import random
from collections.abc import Callable

from soak.background import Tally
from soak.wall_clock import WallClock, sweep
from support import MOMENTS, SCRIPT, AgentProcess, Assassin, Deployment

_KINDS = {"strike": 87, "terminate": 6, "two_at_once": 5, "long": 2}
_USUAL_HOST, _OTHER_HOSTS, _OTHER_HOST_PART = "pod-1", ("pod-2", "pod-3"), 0.1
_JUMP_BEFORE_START_PART = 0.15
_SHORT_SECONDS = (0.3, 3.0)
_LONG_SECONDS = 10.0
# A moment that does not come while Exastro is down or the sources hang is not waited for.
_MOMENT_SECONDS = 2.0


class Lives:
    """Lives of agents in one deployment, one after the other, each ended from outside."""

    def __init__(
        self, deployment: Deployment, random_: random.Random, tally: Tally, wall_clock: WallClock | None
    ) -> None:
        self._deployment = deployment
        self._random = random_
        self._tally = tally
        self._wall_clock = wall_clock
        self._swept = 0

    def live(self, assassin: Assassin) -> None:
        """Start an agent, or two, and end them. Raises AssertionError where one ends by itself or not as it should."""
        if self._wall_clock and self._random.random() < _JUMP_BEFORE_START_PART:
            self._wall_clock.jump()
        kind = self._random.choices(list(_KINDS), list(_KINDS.values()))[0]
        if kind == "strike":
            kind = self._random.choice(MOMENTS)
            assassin.strike(kind)
        else:
            assassin.leave()
            {"terminate": self._terminate, "two_at_once": self._two_at_once, "long": self._long}[kind](assassin)
        self._tally.add(kind)
        self._sweep()

    def start(self) -> AgentProcess:
        """Start the installed agent, at times as another pod."""
        is_moved = self._random.random() < _OTHER_HOST_PART
        return self._deployment.start(SCRIPT, HOSTNAME=self._random.choice(_OTHER_HOSTS) if is_moved else _USUAL_HOST)

    def last(self, *names: str) -> None:
        """Let an agent live until everything is collected and delivered, and end it by SIGTERM."""
        agent = self._deployment.start(SCRIPT, HOSTNAME=_USUAL_HOST)
        agent.wait_for_quiet_poll(*names)
        agent.wait_until_delivered(seconds=300)
        _end_well(agent)
        self._sweep()

    def _terminate(self, _: Assassin) -> None:
        agent = self.start()
        # Earlier it would not know the signal yet.
        wait_a_while(agent, lambda: agent.lines("agent_started"), "the start")
        agent.goes_on_for(self._random.uniform(*_SHORT_SECONDS))
        _end_well(agent)

    def _two_at_once(self, assassin: Assassin) -> None:
        first = self.start()
        first.goes_on_for(self._random.uniform(*_SHORT_SECONDS) / 2)
        second = self.start()
        second.goes_on_for(self._random.uniform(*_SHORT_SECONDS))
        assassin.kill(first)
        second.goes_on_for(self._random.uniform(*_SHORT_SECONDS))
        assassin.kill(second)

    def _long(self, assassin: Assassin) -> None:
        agent = self.start()
        agent.goes_on_for(_LONG_SECONDS)
        assassin.kill(agent)

    def _sweep(self) -> None:
        for process in self._deployment.processes[self._swept :]:
            sweep(process.pid)
        self._swept = len(self._deployment.processes)


def wait_a_while(agent: AgentProcess, condition: Callable[[], object], what: str) -> None:
    """Return once the condition holds, or after a few seconds."""
    with contextlib.suppress(AssertionError):
        agent.wait_until(condition, what, seconds=_MOMENT_SECONDS)


def _end_well(agent: AgentProcess) -> None:
    code = agent.terminate(seconds=20)
    if code != 0:
        raise AssertionError(f"SIGTERM ended it with {code}")
