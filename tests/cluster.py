"""Several agent processes on one store, with a Lease between them: who posts when, and whether it was their turn."""

import contextlib
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from ita_ag_oase.demo.exastro import DemoExastro
from ita_ag_oase.demo.loopback import Request
from lease_api import LeaseServer
from support import PATIENCE_SECONDS, AgentProcess, Deploy, Deployment, ListSource, arrived, wait_until
from wires import Relay

# Short, and yet with room for a busy machine; a Lease has whole seconds.
TIMES = {"LEASE_SECONDS": "3", "LEASE_RENEW_SECONDS": "1.8", "LEASE_RETRY_SECONDS": "0.6"}


class Post(NamedTuple):
    """A request with events: which agent sent it, and when it arrived."""

    by: str
    at: float


class Term(NamedTuple):
    """A term as the Lease tells it: its number, whose it is, and when it began."""

    number: int
    by: str
    began: float


class Cluster:
    """Agents by name on one store. Each has ways of its own to Exastro and to the Lease, which can be cut."""

    def __init__(self, deployment: Deployment, exastro: DemoExastro, lease: LeaseServer, source: ListSource) -> None:
        self.deployment = deployment
        self.exastro = exastro
        self.lease = lease
        self.source = source
        self.agents: dict[str, AgentProcess] = {}
        self.posts: list[Post] = []
        self.ways: dict[str, Relay] = {}
        self._ways_to_exastro: dict[str, Relay] = {}
        self._stack = contextlib.ExitStack()
        exastro.before_saving = self._note_post

    def close(self) -> None:
        """End what stands between the agents and the servers."""
        self._stack.close()

    def start(self, *names: str, **environment: str) -> None:
        """Start agents, in pods of these names."""
        for name in names:
            if name not in self.ways:
                self.ways[name] = self._stack.enter_context(Relay(self.lease.port))
                to_exastro = Relay(int(self.exastro.url.rpartition(":")[2]))
                self._ways_to_exastro[name] = self._stack.enter_context(to_exastro)
            self.agents[name] = self.deployment.start(
                **{
                    **self.lease.environment(name, port=self.ways[name].port),
                    # By the port in the Host of a request, Exastro sees who asks.
                    "EXASTRO_URL": f"http://127.0.0.1:{self._ways_to_exastro[name].port}",
                    "HOSTNAME": name,
                    **environment,
                }
            )

    @property
    def holder(self) -> str:
        """The pod of whoever holds the Lease; empty for nobody."""
        return self.lease.shelf.holder.rpartition("_")[0]

    def wait_for_leader(self, *, other_than: str = "") -> str:
        """Return who leads by its own words, once someone does, that is another one than this."""
        self._wait(lambda: self._leaders(other_than), "a leader")
        return self._leaders(other_than)[0]

    def _leaders(self, other_than: str) -> list[str]:
        return [name for name, agent in self.agents.items() if name != other_than and _is_leading(agent)]

    def wait_until_nobody_leads(self) -> None:
        """Return once no agent leads by its own words."""
        self._wait(lambda: not self._leaders(""), "the end of all terms")

    def wait_for_new_term(self) -> None:
        """Return once the store knows of a later term than now."""
        before = self.stored_term()
        self._wait(lambda: self.stored_term() > before, "another term")

    def cut_off(self, name: str) -> None:
        """Let an agent not reach the API any more."""
        self.ways[name].__exit__()

    def wait_for_all(self) -> None:
        """Return once Exastro has everything."""
        self._wait(lambda: len(self.exastro.counts) >= len(self.source.ids), "all events")

    def wait_for_post(self, *, other_than: str = "") -> None:
        """Have new events, and return once an agent has posted since, that is another one than this."""
        before, added = len(self.posts), 0.0

        def has_posted() -> bool:
            nonlocal added
            if time.monotonic() > added + 1:
                # Again and again, since whoever does not count may take them first.
                self.source.add(3)
                added = time.monotonic()
            return any(post.by != other_than for post in self.posts[before:])

        self._wait(has_posted, "a post")

    def kill(self, name: str) -> None:
        """End an agent as a power cut would."""
        self.agents.pop(name).kill()

    def terminate(self, name: str) -> None:
        """End an agent as Kubernetes does."""
        agent = self.agents.pop(name)
        # Earlier it would not know the signal yet.
        agent.wait_for_line("standby_started")
        code = agent.terminate(seconds=PATIENCE_SECONDS)
        assert code == 0, agent._last_words()

    def freeze(self, name: str) -> None:
        """Stop an agent where it is, but in no transaction: then SQLite's own lock would keep everyone away."""
        agent = self.agents[name]
        agent.send(signal.SIGSTOP)
        while self._is_in_transaction(agent):
            self.thaw(name)
            agent.goes_on_for(0.05)
            agent.send(signal.SIGSTOP)

    def _is_in_transaction(self, agent: AgentProcess) -> bool:
        stat = Path(f"/proc/{agent.pid}/stat")
        wait_until(lambda: stat.read_text(encoding="ascii").rpartition(")")[2].split()[0] == "T", "the stop")
        with closing(sqlite3.connect(self.deployment.store_file, timeout=0, isolation_level=None)) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                return True
            return False

    def thaw(self, name: str) -> None:
        """Let it go on."""
        self.agents[name].send(signal.SIGCONT)

    def terms(self) -> list[Term]:
        """Return the terms by the writes of the Lease, in their order."""
        found: list[Term] = []
        for write in self.lease.shelf.writes:
            number = int(write.spec.get("leaseTransitions", 0))
            if write.holder and (not found or found[-1].number != number):
                found.append(Term(number, write.by, write.at))
        return found

    def judge(self) -> None:
        """See that all arrived once, that each post came from whose turn it was, and that no term came twice."""
        self.wait_for_all()
        self.lease.trouble = lambda _, __: None
        for name in list(self.agents):
            self.terminate(name)
        assert arrived(self.exastro, self.source.name) == self.source.ids
        assert self.exastro.repeated == 0
        terms = self.terms()
        assert [post for post in self.posts if post.by != _whose_turn(terms, post.at)] == []
        # Who is told to end right after it has won begins no term in the store.
        assert self.stored_term() in {term.number for term in terms}

    def stored_term(self) -> int:
        """Return the number of the term that the store knows."""
        with closing(sqlite3.connect(self.deployment.store_file)) as connection:
            (number,) = connection.execute("SELECT max(number) FROM terms").fetchone()
            return int(number)

    def _wait(self, condition: Callable[[], object], what: str, *, seconds: float = PATIENCE_SECONDS) -> None:
        wait_until(condition, what, seconds=seconds, check=self._must_run, last_words=self._last_words)

    def _must_run(self) -> None:
        for name, agent in self.agents.items():
            if not agent.is_running:
                raise AssertionError(f"{name} ended by itself\n{self._last_words()}")

    def _last_words(self) -> str:
        return "\n".join(f"{name}:\n{agent._last_words()}" for name, agent in self.agents.items())

    def _note_post(self, request: Request) -> None:
        port = int(request.headers["host"].rpartition(":")[2])
        (name,) = [name for name, way in self._ways_to_exastro.items() if way.port == port]
        self.posts.append(Post(name, time.monotonic()))


def _is_leading(agent: AgentProcess) -> bool:
    about = ("agent_started", "leadership_lost", "agent_stopping")
    return [line["event"] for line in agent.lines() if line["event"] in about][-1:] == ["agent_started"]


def _whose_turn(terms: list[Term], at: float) -> str:
    return next((term.by for term in reversed(terms) if term.began <= at), "")


@contextmanager
def running_cluster(folder: Path, deploy: Deploy, *names: str, times: Mapping[str, str] = TIMES) -> Iterator[Cluster]:
    """Yield a cluster at work, of agents in pods of these names."""
    with ListSource("alarms", 10) as source, DemoExastro([source.row]) as exastro, LeaseServer(folder) as lease:
        cluster = Cluster(deploy(exastro, source.name, **times), exastro, lease, source)
        with closing(cluster):
            cluster.start(*names)
            yield cluster
            cluster.judge()
