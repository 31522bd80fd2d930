"""What is measured: each scenario runs its programs and returns the rows of the table.

A poll's cost is the CPU time between two polls, so that everything from the answer to the acknowledgement is in it,
idling included. A figure is the median of all runs, and of the polls in them.
"""

import shutil
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import house
import mail
from house import House
from ita_ag_oase.demo.exastro import ORGANIZATION, WORKSPACE
from process import Program
from support import free_port, wait_until

BULK_EVENTS = 20_000
STATIC_EVENTS = 5_000
OUTAGE_EVENTS = 50_000
_OUTAGE_POLLS = 5
MANY_SOURCES = 50
_MANY_ANSWER_SECONDS = 0.2
_MANY_EVENTS = 10
CROWD_SOURCES = 1_000
INTERVAL_SECONDS = 3
_CROWD_INTERVAL_SECONDS = 10
_IDLE_INTERVAL_SECONDS = 5
# The first of them are dearer: what is needed for the first time is loaded, and all ids are new.
_WARM_UP_POLLS = 2
_PATIENCE_SECONDS = 120.0
_SOURCE_FOLDER = Path(__file__).parents[1] / "src"


@dataclass(frozen=True)
class Row:
    """A figure of the table, the bare loop's beside it where there is one.

    `limit` is the most that it may be, as a multiple of the bare loop's where `is_ratio`; `is_at_least` turns that
    round.
    """

    scenario: str
    figure: str
    agent: float
    bare: float | None = None
    limit: float | None = None
    is_ratio: bool = False
    is_at_least: bool = False

    @property
    def ratio(self) -> float | None:
        """The agent's figure as a multiple of the bare loop's."""
        return self.agent / self.bare if self.bare else None

    @property
    def holds(self) -> bool | None:
        """Whether the limit holds; None where there is none."""
        judged = self.ratio if self.is_ratio else self.agent
        if self.limit is None or judged is None:
            return None
        return judged >= self.limit if self.is_at_least else judged <= self.limit


@dataclass(frozen=True)
class Lab:
    """How to measure: the Python of the programs, with no package that they do not need, and how often."""

    python: str
    runs: int
    polls: int

    @contextmanager
    def agent(self, at: House, interval_seconds: int = INTERVAL_SECONDS) -> Iterator[Program]:
        """Run the agent."""
        with _folder() as folder:
            environment = {
                **at.environment(),
                "PYTHONPATH": str(_SOURCE_FOLDER),
                "STORAGEPATH": str(folder),
                "AGENT_NAME": folder.name,
                "EXECUTE_INTERVAL": str(interval_seconds),
                "STATUS_PORT": str(free_port()),
            }
            with Program([self.python, "-m", "ita_ag_oase"], environment, folder) as program:
                at.cpu_seconds = lambda: program.cpu_seconds
                yield program

    @contextmanager
    def bare(self, at: House) -> Iterator[Program]:
        """Run the bare loop; its source is the one named `bench`."""
        with _folder() as folder:
            urls = [f"{at.url}/bench", at.url + house.POST_PATH]
            script = str(Path(__file__).with_name("bare.py"))
            arguments = [self.python, script, *urls, str(folder / "bare.sqlite3"), str(INTERVAL_SECONDS)]
            with Program(arguments, {}, folder) as program:
                at.cpu_seconds = lambda: program.cpu_seconds
                yield program


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="ita-ag-oase-bench-") as folder:
        try:
            yield Path(folder)
        finally:
            shutil.rmtree(Path("/tmp", ORGANIZATION, WORKSPACE, f"ag_oase_{Path(folder).name}"), ignore_errors=True)


T = TypeVar("T")
Starting = Callable[[House], AbstractContextManager[Program]]


@dataclass(frozen=True)
class _Run:
    """One run of a program: what it had used at each poll, what it posted, and the most that was resident."""

    at: House
    peak_mib: float

    @property
    def poll_seconds(self) -> list[float]:
        """The CPU time of each poll after the warm-up."""
        counted = [poll.cpu_seconds for poll in self.at.polls][_WARM_UP_POLLS:]
        return [later - earlier for earlier, later in pairwise(counted)]


def _wait(condition: Callable[[], object], what: str, program: Program) -> None:
    wait_until(condition, what, seconds=_PATIENCE_SECONDS, check=program.check, last_words=program.last_words)


def _polled(start: Starting, answer: Callable[[int], bytes], polls: int) -> _Run:
    """Run a program with one source until that many polls after the warm-up are over."""
    with House(["bench"], lambda _, number: answer(number)) as at, start(at) as program:
        _wait(lambda: len(at.polls) > _WARM_UP_POLLS + polls, "polls", program)
        return _Run(at, program.peak_mib)


def bulk(lab: Lab) -> list[Row]:
    """Every answer holds 20,000 new events."""
    answers = [house.events(1 + poll * BULK_EVENTS, BULK_EVENTS) for poll in range(_WARM_UP_POLLS + lab.polls + 1)]

    def answer(poll: int) -> bytes:
        return answers[poll] if poll < len(answers) else b"[]"

    ours, theirs = _pairs(lab, lambda start: _polled(start, answer, lab.polls))
    per_event = 1e6 / BULK_EVENTS
    mine, bare = per_event * _poll_seconds(ours), per_event * _poll_seconds(theirs)
    return [
        Row("bulk", "CPU per event, µs", mine, bare, limit=1.5, is_ratio=True),
        Row("bulk", "peak, MiB", _peak(ours), _peak(theirs), limit=64),
    ]


def static(lab: Lab) -> list[Row]:
    """Every answer holds 5,000 events: always the same, and with a new one in the place of the oldest each time."""
    answers = [house.events(1 + poll, STATIC_EVENTS) for poll in range(_WARM_UP_POLLS + lab.polls + 1)]
    runs = [
        (_polled(lab.agent, lambda _: answers[0], lab.polls), _polled(lab.agent, answers.__getitem__, lab.polls))
        for _ in range(lab.runs)
    ]
    same, sliding = [first for first, _ in runs], [second for _, second in runs]
    return [
        Row("static", "CPU per poll, ms", 1e3 * _poll_seconds(same), limit=20),
        Row("static", "CPU per poll with one new, ms", 1e3 * _poll_seconds(sliding)),
        Row("static", "peak, MiB", _peak([*same, *sliding])),
    ]


def outage(lab: Lab) -> list[Row]:
    """50,000 events pile up while Exastro is away, and are drained once it is back."""
    part = OUTAGE_EVENTS // _OUTAGE_POLLS
    answers = [house.events(1 + poll * part, part) for poll in range(_OUTAGE_POLLS)]

    def run(start: Starting) -> _Run:
        with House(["bench"], lambda _, poll: answers[poll] if poll < _OUTAGE_POLLS else b"[]") as at:
            at.is_down = True
            with start(at) as program:
                _wait(lambda: len(at.polls) > _OUTAGE_POLLS, "the backlog", program)
                at.is_down = False
                _wait(lambda: at.events >= OUTAGE_EVENTS, "the drained backlog", program)
                return _Run(at, program.peak_mib)

    ours, theirs = _pairs(lab, run)
    rate, bare_rate = _median(map(_drained_per_second, ours)), _median(map(_bare_drained_per_second, theirs))
    return [
        Row("outage", "peak, MiB", _peak(ours), _peak(theirs), limit=64),
        Row("outage", "largest request, MB", _largest_mb(ours), _largest_mb(theirs), limit=4),
        Row("outage", "drained events per second", rate, bare_rate, limit=0.5, is_ratio=True, is_at_least=True),
    ]


def _drained_per_second(run: _Run) -> float:
    """Return the rate from one answer to the last one; the first request was waiting."""
    first, *others = run.at.posts
    return sum(post.events for post in others) / (others[-1].answered - first.answered)


def _bare_drained_per_second(run: _Run) -> float:
    """Return the rate of its only request, from the poll before it, which brought nothing."""
    post = run.at.posts[0]
    polled = max(poll.at for poll in run.at.polls if poll.at < post.arrived)
    return post.events / (post.answered - polled)


def many(lab: Lab) -> list[Row]:
    """50 sources that take 200 ms to answer, with ten known events each."""
    names = [f"many-{number:02}" for number in range(MANY_SOURCES)]
    known = house.events(1, _MANY_EVENTS)
    costs, gaps, peaks = [], [], []
    for _ in range(lab.runs):
        with House(names, lambda *_: known, answer_after_seconds=_MANY_ANSWER_SECONDS) as at, lab.agent(at) as program:
            polls = _window(at, program, INTERVAL_SECONDS, lab.polls + 1)
            costs.append(_cost_per_poll(polls))
            gaps.append(_median(_gaps(polls)))
            peaks.append(program.peak_mib)
    return [
        Row("many", "CPU per poll, ms", 1e3 * _median(costs), limit=3),
        # Half a tenth: what rounds to 3.0.
        Row("many", "seconds between a source's polls", _median(gaps), limit=INTERVAL_SECONDS + 0.05),
        Row("many", "peak, MiB", _median(peaks)),
    ]


def crowd(lab: Lab) -> list[Row]:
    """1,000 sources at 10 s, with nothing new."""
    names = [f"crowd-{number:03}" for number in range(CROWD_SOURCES)]
    with House(names, lambda *_: b"[]") as at, lab.agent(at, _CROWD_INTERVAL_SECONDS) as program:
        polls = _window(at, program, _CROWD_INTERVAL_SECONDS, 3)
        seconds = polls[-1].at - polls[0].at
        return [
            Row("crowd", "cores", (polls[-1].cpu_seconds - polls[0].cpu_seconds) / seconds, limit=0.5),
            Row("crowd", "peak, MiB", program.peak_mib, limit=128),
            Row(
                "crowd",
                "latest poll, seconds late",
                max(_gaps(polls)) - _CROWD_INTERVAL_SECONDS,
                limit=_CROWD_INTERVAL_SECONDS,
            ),
        ]


def _window(at: House, program: Program, interval_seconds: int, rounds: int) -> list[house.Poll]:
    """Return the polls of so many intervals, once every source was polled twice."""
    sources = len(at.environment()["EVENT_COLLECTION_SETTINGS_NAMES"].split(","))
    _wait(lambda: len(at.polls) >= _WARM_UP_POLLS * sources, "first polls", program)
    first = len(at.polls)
    time.sleep(rounds * interval_seconds + 0.5)
    program.check()
    return at.polls[first:]


def _gaps(polls: Sequence[house.Poll]) -> list[float]:
    times = defaultdict(list)
    for poll in polls:
        times[poll.source].append(poll.at)
    return [later - earlier for own in times.values() for earlier, later in pairwise(own)]


def _cost_per_poll(polls: Sequence[house.Poll]) -> float:
    return (polls[-1].cpu_seconds - polls[0].cpu_seconds) / (len(polls) - 1)


def idle(lab: Lab) -> list[Row]:
    """One source with nothing new, at the usual interval."""
    resident, peaks, costs = [], [], []
    for _ in range(lab.runs):
        with House(["bench"], lambda *_: b"[]") as at, lab.agent(at, _IDLE_INTERVAL_SECONDS) as program:
            polls = _window(at, program, _IDLE_INTERVAL_SECONDS, 3)
            costs.append((polls[-1].cpu_seconds - polls[0].cpu_seconds) / (polls[-1].at - polls[0].at))
            resident.append(program.resident_mib)
            peaks.append(program.peak_mib)
    return [
        Row("idle", "resident, MiB", _median(resident), limit=45),
        Row("idle", "peak, MiB", _median(peaks)),
        Row("idle", "CPU per second, ms", 1e3 * _median(costs), limit=3),
    ]


def start(lab: Lab) -> list[Row]:
    """From the start of the process to the first event that Exastro has."""
    event = house.events(1, 1)

    def run(start: Starting) -> float:
        with House(["bench"], lambda *_: event) as at, start(at) as program:
            _wait(lambda: at.posts, "the first event", program)
            return at.posts[0].answered - program.started

    # Once before, so that byte code is there, as in the image.
    run(lab.agent)
    ours, theirs = _pairs(lab, run, times=3 * lab.runs)
    return [Row("start", "first event, seconds", _median(ours), _median(theirs), limit=0.6)]


def mailbox(lab: Lab) -> list[Row]:
    """50 new mails beside 2,000 old ones, and a program that fetches the mail of the day each time."""
    if not mail.is_possible():
        print("mail is left out: dovecot is not installed")
        return []
    ours, theirs = mail.measure_agent(lab.python, _SOURCE_FOLDER), mail.measure_fetch_all()
    return [
        Row("mail", "KiB on the wire", ours.wire_bytes / 1_024, theirs.wire_bytes / 1_024),
        Row("mail", "CPU, ms", ours.cpu_seconds * 1e3, theirs.cpu_seconds * 1e3),
        Row("mail", "peak, MiB", ours.peak_mib, theirs.peak_mib),
    ]


def _pairs(lab: Lab, run: Callable[[Starting], T], *, times: int | None = None) -> tuple[list[T], list[T]]:
    """Run the agent and the bare loop in turn, so that what else the machine does falls on both."""
    pairs = [(run(lab.agent), run(lab.bare)) for _ in range(times or lab.runs)]
    return [ours for ours, _ in pairs], [theirs for _, theirs in pairs]


def _median(figures: Iterable[float]) -> float:
    return statistics.median(figures)


def _poll_seconds(runs: Sequence[_Run]) -> float:
    return _median(cost for run in runs for cost in run.poll_seconds)


def _largest_mb(runs: Sequence[_Run]) -> float:
    return max(post.size for run in runs for post in run.at.posts) / 1e6


def _peak(runs: Sequence[_Run]) -> float:
    return _median(run.peak_mib for run in runs)


SCENARIOS: Mapping[str, Callable[[Lab], list[Row]]] = {
    "bulk": bulk,
    "static": static,
    "outage": outage,
    "many": many,
    "crowd": crowd,
    "idle": idle,
    "start": start,
    "mail": mailbox,
}
