"""Electors, a Lease and a store under everything that can happen to them: never two whose work counts."""

import asyncio
import contextlib
import itertools
import shutil
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, settings, strategies
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from exactly_once import fast_folder
from ita_ag_oase.agent.election import Elector, KnownTerm, Times
from ita_ag_oase.agent.lease import Lease, read_document
from ita_ag_oase.agent.schedule import Troubles
from ita_ag_oase.errors import LeaseChanged, LeaseRefused, LeaseUnavailable, Reason, TermEnded
from ita_ag_oase.model import Claim
from ita_ag_oase.store import schema, terms
from ita_ag_oase.store.terms import Fence
from ita_ag_oase.text import Text
from lease_api import NAME, NAMESPACE, Changed, Missing, Shelf
from worlds import Process, World

TIMES = Times(lease_seconds=15, renew_seconds=10.0, retry_seconds=2.0)
GUARD = f"{NAMESPACE}/{NAME}"
NAMES = ("a", "b", "c")

some_agent = strategies.sampled_from(NAMES)
some_delay = strategies.sampled_from([0.0, 0.01, 0.01, 0.01, 0.3, 0.9, 1.7, 2.5, 9.0, 12.0, 16.0, 40.0])
some_time = strategies.sampled_from([0.1, 0.5, 1.0, 2.0, 3.0, 5.0, 8.0, 10.0, 12.0, 15.0, 17.0, 20.0, 60.0])
some_loss = strategies.sampled_from(["none", "none", "none", "requests", "answers", "both"])


@dataclass
class Way:
    """What happens to the messages of an agent: how long they take, and whether they arrive."""

    forth_seconds: float = 0.01
    back_seconds: float = 0.01
    loss: str = "none"


@dataclass
class Store:
    """The store's file with its terms, as the agents see it, and the writes that counted: who made each, in which term.

    Of the real one it has the file, the table, and the rule that each transaction keeps to.
    """

    writes: list[tuple[str, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.folder = fast_folder()
        self._path = self.folder / "store.sqlite3"
        self._connection = schema.connect(self._path)

    def close(self) -> None:
        self._connection.close()
        shutil.rmtree(self.folder)

    def known_to(self, identity: str) -> KnownTerm:
        term = terms.stored(self._connection)
        return KnownTerm(term.number, term.holder != identity) if term else KnownTerm()

    def begin(self, identity: str, number: int) -> Fence:
        claim = Claim(holder=identity, guard=GUARD, number=number)
        with schema.transaction(self._connection):
            return Fence(self._path, terms.begin(self._connection, claim, 0), terms.identity(self._path))

    def write(self, fence: Fence, identity: str, number: int) -> None:
        with schema.transaction(self._connection):
            fence.check(self._connection)
            self.writes.append((identity, number))


class Agent:
    """A process that takes part, writes and posts while it leads, and then stands by again."""

    def __init__(self, name: str, identity: str, world: World, shelf: Shelf, store: Store, way: Way) -> None:
        self.name = name
        self.identity = identity
        self.way = way
        self.opening_seconds = 0.0
        # The term that the store has taken from it and that it has not ended yet.
        self.works_in: int | None = None
        self.posts: list[tuple[float, int]] = []
        self._world = world
        self._shelf = shelf
        self._store = store
        self.is_told_to_end = False
        self._told_to_end = asyncio.Event()
        self.process = Process(world, self._live)

    def tell_to_end(self) -> None:
        """Send it SIGTERM."""
        self.is_told_to_end = True
        self.process.message(self._told_to_end.set)

    @property
    def counts(self) -> bool:
        """Whether what it sends now would be sent in its turn."""
        return self.works_in is not None and self._elector.is_at_work()

    async def _live(self, process: Process) -> None:
        ahead = 1_800 * int(self.identity.partition("_")[2])
        turn = itertools.count()
        self._elector = Elector(
            self,
            self.identity,
            TIMES,
            troubles=Troubles(failed="lease_failed", recovered="lease_recovered"),
            known_term=self._known_term,
            elapsed=lambda: self._world.now + ahead,
            wall=lambda: 1_700_000_000 + self._world.now - ahead,
            # As far apart as can be, in turn.
            draw=lambda low, high: (low, high)[next(turn) % 2],
        )
        while not self._told_to_end.is_set():
            number = await self._unless_told_to_end(self._elector.win())
            if number is None:
                break
            holding = asyncio.create_task(self._elector.hold())
            working = asyncio.create_task(self._work(number))
            await asyncio.wait([holding, working], return_when=asyncio.FIRST_COMPLETED)
            working.cancel()
            await asyncio.wait([working])
            self.works_in = None
            holding.cancel()
            await asyncio.wait([holding])
            self._elector.end_term()
        await self._elector.release()

    async def _unless_told_to_end(self, winning: Coroutine[Any, Any, int]) -> int | None:
        task, told = asyncio.create_task(winning), asyncio.create_task(self._told_to_end.wait())
        await asyncio.wait([task, told], return_when=asyncio.FIRST_COMPLETED)
        for each in (task, told):
            each.cancel()
        await asyncio.wait([task, told])
        return None if self._told_to_end.is_set() else task.result()

    async def _work(self, number: int) -> None:
        with contextlib.suppress(TermEnded):
            await asyncio.sleep(self.opening_seconds)
            fence = self._store.begin(self.identity, number)
            self.works_in = number
            while not self._told_to_end.is_set():
                self._store.write(fence, self.identity, number)
                if self._elector.is_at_work():
                    self.posts.append((self._world.now, number))
                await asyncio.sleep(1.0)

    async def _known_term(self) -> KnownTerm:
        return self._store.known_to(self.identity)

    async def read(self) -> Lease:
        return await self._ask(self._shelf.read)

    async def write(self, document: Mapping[str, Any]) -> Lease:
        return await self._ask(lambda: self._shelf.write(document, self.name))

    async def _ask(self, do: Callable[[], dict[str, Any]]) -> Lease:
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if self.way.loss not in ("requests", "both"):
            self._world.later(self.way.forth_seconds, lambda: self._arrive(do, answer, self.way))
        try:
            async with asyncio.timeout(TIMES.request_seconds):
                return read_document(await answer)
        except TimeoutError as err:
            raise LeaseUnavailable(Text("no answer in time"), reason=Reason.TIMEOUT) from err
        except Missing as err:
            raise LeaseRefused(Text("there is none"), reason=Reason.HTTP_STATUS) from err
        except Changed as err:
            raise LeaseChanged(Text("it is another one"), reason=Reason.HTTP_STATUS) from err

    def _arrive(self, do: Callable[[], dict[str, Any]], answer: asyncio.Future[Any], way: Way) -> None:
        try:
            document, err = do(), None
        except (Missing, Changed) as failed:
            document, err = {}, failed
        if way.loss not in ("answers", "both"):
            self._world.later(way.back_seconds, lambda: self.process.message(lambda: _settle(answer, document, err)))


def _settle(answer: asyncio.Future[Any], document: dict[str, Any], err: Exception | None) -> None:
    if answer.done():
        return
    if err is None:
        answer.set_result(document)
    else:
        answer.set_exception(err)


class Election(RuleBasedStateMachine):
    """Everything that can happen to three agents with one Lease and one store."""

    @initialize(count=strategies.integers(2, 3))
    def begin(self, count: int) -> None:
        self.world = World()
        self.shelf = Shelf(lambda: self.world.now)
        self.store = Store()
        self.documents = [self.shelf.read()]
        self.numbers = itertools.count(1)
        self.agents: dict[str, Agent] = {}
        self.gone: list[Agent] = []
        for name in NAMES[:count]:
            self._start(name)

    def _start(self, name: str, way: Way | None = None) -> None:
        identity = f"{name}_{next(self.numbers)}"
        self.agents[name] = Agent(name, identity, self.world, self.shelf, self.store, way or Way())

    def _at(self, name: str) -> Agent | None:
        return self.agents.get(name)

    @rule(seconds=some_time)
    def time_passes(self, seconds: float) -> None:
        self.world.advance(seconds, self._check)
        with contextlib.suppress(Missing):
            self.documents.append(self.shelf.read())

    @rule(name=some_agent, forth=some_delay, back=some_delay, loss=some_loss)
    def way_changes(self, name: str, forth: float, back: float, loss: str) -> None:
        if agent := self._at(name):
            agent.way = Way(forth, back, loss)

    @rule(name=some_agent)
    def agent_is_frozen_or_thawed(self, name: str) -> None:
        if agent := self._at(name):
            agent.process.is_frozen = not agent.process.is_frozen

    @rule(seconds=some_time)
    def whoever_leads_is_frozen_for(self, seconds: float) -> None:
        for agent in self._leading():
            agent.process.is_frozen = True
            self.world.advance(seconds, self._check)
            agent.process.is_frozen = False
            self.world.advance(0.0, self._check)

    @rule(seconds=some_time, loss=some_loss)
    def whoever_leads_is_cut_off_for(self, seconds: float, loss: str) -> None:
        for agent in self._leading():
            way, agent.way = agent.way, Way(loss=loss)
            self.world.advance(seconds, self._check)
            agent.way = way

    def _leading(self) -> list[Agent]:
        return [agent for agent in self.agents.values() if agent.counts]

    @rule(name=some_agent, seconds=some_delay)
    def store_is_slow_to_open(self, name: str, seconds: float) -> None:
        if agent := self._at(name):
            agent.opening_seconds = seconds

    @rule(name=some_agent)
    def agent_is_killed_and_starts_again(self, name: str) -> None:
        if agent := self._at(name):
            agent.process.end()
            self.gone.append(agent)
            self._start(name, agent.way)

    @rule(name=some_agent)
    def agent_is_told_to_end(self, name: str) -> None:
        if agent := self._at(name):
            agent.tell_to_end()

    @rule(name=some_agent)
    def one_that_has_ended_starts_again(self, name: str) -> None:
        agent = self._at(name)
        if agent and agent.process.has_ended:
            agent.process.end()
            self._start(name, agent.way)

    @rule()
    def lease_is_forgotten(self) -> None:
        self.shelf.forget()

    @rule()
    def lease_is_made_anew(self) -> None:
        self.shelf.make()

    @rule(turns=strategies.integers(0, 5))
    def backup_is_restored(self, turns: int) -> None:
        self.shelf.put_back(self.documents[-1 - min(turns, len(self.documents) - 1)])

    @precondition(lambda self: self.shelf.has_lease)
    @rule(value=strategies.integers(0, 9))
    def person_labels_the_lease(self, value: int) -> None:
        self.shelf.label("touched", str(value))

    def _check(self) -> None:
        """No two are at work at this moment, and what was written in a term was so by one agent, before later ones."""
        at_work = [agent.identity for agent in self.agents.values() if agent.counts]
        assert len(at_work) <= 1, at_work

    @invariant()
    def writes_are_in_turn(self) -> None:
        writes = self.store.writes
        assert [number for _, number in writes] == sorted(number for _, number in writes)
        assert len({number for _, number in writes}) == len(set(writes))

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        # Left in peace, they find one that leads.
        for agent in self.agents.values():
            agent.process.is_frozen = False
            agent.way, agent.opening_seconds = Way(), 0.0
        for name, agent in list(self.agents.items()):
            self.world.advance(1.0, self._check)
            if agent.process.has_ended or agent.is_told_to_end:
                agent.process.end()
                self._start(name)
        if not self.shelf.has_lease:
            self.shelf.make()
        self.world.advance(100.0, self._check)
        assert len([agent for agent in self.agents.values() if agent.counts]) == 1
        self.writes_are_in_turn()
        for agent in self.agents.values():
            agent.process.end()
        self.store.close()


STEPS = settings(max_examples=settings().max_examples, stateful_step_count=30, suppress_health_check=list(HealthCheck))
TestElection = pytest.mark.timeout(600 if STEPS.derandomize else 0)(Election.TestCase)
TestElection.settings = STEPS
