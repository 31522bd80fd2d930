"""One run: everything built, the agent's lives among faults and jumps, and the end in calm."""

import random
import time
from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from soak.background import Background, Tally
from soak.lives import Lives, wait_a_while
from soak.measures import Measures
from soak.report import Report
from soak.sources import GrowingSource, IdSource, ListingSource, RefusedSource, TimeSource, is_refused
from soak.verdict import judge, parked_in
from soak.wall_clock import WallClock, library
from soak.weather import BusyExastro, Weather
from support import Assassin, Deployment, deploying

_PROGRESS_SECONDS = 60.0
# Of what a source lists, this many stay although Exastro has them; the greater bound is there for the soak's own sake.
_EVERYTHING, _OPEN = 20_000, 200


@dataclass(frozen=True)
class Plan:
    """What is asked for: it ends after so many seconds, or kills where those are given."""

    seconds: float
    kills: int | None
    seed: int
    has_jumps: bool


class Soak:
    """One run of a plan in a folder. `why_no_jumps` is empty where the clock jumps."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self._plan = plan
        self._folder = folder
        self._started = time.monotonic()
        self._exastro = BusyExastro()
        self._exastro.refuses = is_refused
        self._exastro_faults, self._source_faults, self._ways = Tally(), Tally(), Tally()
        self._sources = self._make_sources()
        self._wall_clock, self.why_no_jumps = self._make_wall_clock()

    def run(self) -> Report:
        """Run to the end and return what became of the events.

        Raises AssertionError where an agent does what none may: ends by itself, writes to stderr, meets an unexpected
        error.
        """
        names = [source.name for source in self._sources]
        with ExitStack() as stack:
            stack.enter_context(self._exastro)
            for source in self._sources:
                stack.enter_context(source)
            self._exastro.rows += [source.row for source in self._sources]
            deploy = stack.enter_context(contextmanager(deploying)(self._folder))
            environment = self._wall_clock.environment if self._wall_clock else {}
            # Few events in a request: there are several posts to be killed in.
            deployment = deploy(self._exastro, *names, BATCH_MAX_EVENTS="20", **environment)
            measures = Measures(deployment)
            lives = Lives(deployment, self._random("lives"), self._ways, self._wall_clock)
            with Background("measures", measures.look):
                self._begin(lives)
                kills = self._live(lives)
                lives.last(*names)
            return self._report(kills, measures, deployment)

    def _make_sources(self) -> list[GrowingSource]:
        tally, counts = self._source_faults, self._exastro.counts

        def has(name: str) -> Callable[[int], bool]:
            return lambda number: (name, str(number)) in counts

        return [
            ListingSource("all", self._random("all"), tally, kept=_EVERYTHING, has_arrived=has("all")),
            ListingSource("open", self._random("open"), tally, kept=_OPEN, has_arrived=has("open")),
            RefusedSource("refused", self._random("refused"), tally, kept=_EVERYTHING, has_arrived=has("refused")),
            TimeSource("by-time", self._random("by-time"), tally),
            IdSource("by-id", self._random("by-id"), tally),
        ]

    def _make_wall_clock(self) -> tuple[WallClock | None, str]:
        if not self._plan.has_jumps:
            return None, "switched off"
        found = library()
        if found is None:
            return None, "libfaketime, the Debian package of that name, is missing"
        return WallClock(found, self._folder, self._random("clock")), ""

    def _random(self, of: str) -> random.Random:
        return random.Random(f"{self._plan.seed} {of}")

    def _begin(self, lives: Lives) -> None:
        """Let an agent see each source, by the true time and without faults: from then on it owes every event."""
        agent = lives.start()
        agent.wait_for_quiet_poll(*(source.name for source in self._sources))
        for source in self._sources:
            source.make(1)
        agent.wait_for_line("collection_finished", count=len(self._sources), new=1)
        agent.kill()

    def _live(self, lives: Lives) -> int:
        """Let agents live among all that can happen until the plan is done, and leave calm; return the kills."""
        weather = Weather(self._exastro, self._random("weather"), self._exastro_faults)
        assassin = Assassin(
            lives.start, self._exastro, self._polls, self._random("kills"), longest_seconds=3.0, wait=wait_a_while
        )
        with ExitStack() as stack:
            stack.callback(weather.clear)
            for source in self._sources:
                stack.enter_context(source.misbehaving())
                stack.enter_context(Background(f"growth of {source.name}", source.grow))
            stack.enter_context(Background("weather", weather.change))
            if self._wall_clock:
                stack.callback(self._wall_clock.move_to, 0)
                stack.enter_context(Background("clock", self._wall_clock.jump))
            told = self._seconds()
            while not self._is_over(assassin.kills):
                lives.live(assassin)
                if self._seconds() >= told + _PROGRESS_SECONDS:
                    told = self._seconds()
                    self._tell_progress(assassin.kills)
        assassin.leave()
        return assassin.kills

    def _report(self, kills: int, measures: Measures, deployment: Deployment) -> Report:
        parked = parked_in(deployment.store_file)
        return Report(
            seed=self._plan.seed,
            seconds=self._seconds(),
            kills=kills,
            ways=self._ways.counts,
            exastro_faults=self._exastro_faults.counts,
            source_faults=self._source_faults.counts,
            jumps=str(self._wall_clock.jumps) if self._wall_clock else f"none ({self.why_no_jumps})",
            verdicts=[judge(source, self._exastro, parked) for source in self._sources],
            peak_mebibytes=measures.peak_mebibytes,
            open_files=measures.open_files,
            stored_bytes=deployment.stored_bytes,
            most_stored_bytes=measures.stored_bytes,
        )

    def _is_over(self, kills: int) -> bool:
        return self._seconds() >= self._plan.seconds if self._plan.kills is None else kills >= self._plan.kills

    def _tell_progress(self, kills: int) -> None:
        faults = sum([*self._exastro_faults.counts.values(), *self._source_faults.counts.values()])
        made = sum(len(source.made) for source in self._sources)
        print(
            f"{self._seconds() / 60:4.0f} min: {kills} kills, {faults} faults, {made} events made,"
            f" {len(self._exastro.counts)} at Exastro, {self._exastro.repeated} repeated",
            flush=True,
        )

    def _polls(self) -> int:
        return sum(len(source.polls) for source in self._sources)

    def _seconds(self) -> float:
        return time.monotonic() - self._started
