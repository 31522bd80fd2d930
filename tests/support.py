"""What acceptance and integration tests stand on: the agent as a process, sources that can be steered, bounded waiting.

Nothing here asserts; what cannot happen raises AssertionError with the agent's last words.
"""

import contextlib
import datetime as dt
import http.client
import ipaddress
import itertools
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, Protocol, Self

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from prometheus_client.parser import text_string_to_metric_families

from ita_ag_oase.demo.exastro import ORGANIZATION, WORKSPACE, DemoExastro, setting_row
from ita_ag_oase.demo.loopback import LoopbackServer, Reply, Request
from ita_ag_oase.text import Text

MODULE = (sys.executable, "-m", "ita_ag_oase")
SCRIPT = (str(Path(sys.executable).with_name("ita-ag-oase")),)

# Longer than anything takes on a loaded machine, shorter than the time limit of a test.
PATIENCE_SECONDS = 40.0
_LOOK_AGAIN_SECONDS = 0.02
_LAST_WORDS = 12


def in_english(lines: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return captured log lines with the texts in them told in English."""
    return [{name: str(fact) if isinstance(fact, Text) else fact for name, fact in line.items()} for line in lines]


def wait_until(
    condition: Callable[[], object],
    what: str,
    *,
    seconds: float = PATIENCE_SECONDS,
    check: Callable[[], object] = lambda: None,
    last_words: Callable[[], str] = lambda: "",
) -> None:
    """Return once the condition holds; `check` is called before each look and may raise.

    Raises AssertionError where it does not hold in time, with the last words.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        check()
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what}\n{last_words()}")
        time.sleep(_LOOK_AGAIN_SECONDS)


def free_port() -> int:
    """Return a port of loopback that nobody uses now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


class StatusPage:
    """What an agent's status server says, asked on loopback."""

    def __init__(self, port: int) -> None:
        self._port = port

    def ask(self, path: str) -> tuple[int, str]:
        """Return status and body of an answer; 0 and nothing where nobody answers."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE_SECONDS)
        with contextlib.closing(connection):
            try:
                connection.request("GET", path)
                answer = connection.getresponse()
                return answer.status, answer.read().decode()
            except (OSError, http.client.HTTPException):
                return 0, ""

    @property
    def status(self) -> Any:
        """What /status.json tells."""
        return json.loads(self.ask("/status.json")[1])

    @property
    def metrics(self) -> dict[str, float]:
        """The agent's own metrics but for buckets, as Prometheus reads them: by what stands before the value."""
        families = text_string_to_metric_families(self.ask("/metrics")[1])
        return {
            sample.name.removeprefix("oase_agent_")
            + "".join(f" {sample.labels[name]}" for name in sorted(sample.labels)): sample.value
            for family in families
            for sample in family.samples
            if sample.name.startswith("oase_agent_") and "le" not in sample.labels
        }


def do_without(missing: str) -> NoReturn:
    """Skip the test for what this machine does not have; fail it where CI is set, since there it must."""
    if os.environ.get("CI"):
        pytest.fail(missing)
    pytest.skip(missing)


class AgentProcess:
    """A started command with what it says; it must go on until it is told to end."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], folder: Path, number: int) -> None:
        self._out = folder / f"stdout-{number}.log"
        self._err = folder / f"stderr-{number}.log"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self._process = subprocess.Popen(
                list(command), env=dict(environment), cwd=folder, stdin=subprocess.DEVNULL, stdout=out, stderr=err
            )

    @property
    def stdout(self) -> str:
        """What it said so far."""
        return self._out.read_text(encoding="utf-8")

    @property
    def stderr(self) -> str:
        """What it complained of so far."""
        return self._err.read_text(encoding="utf-8")

    @property
    def is_running(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.poll() is None

    def lines(self, event: str | None = None, **facts: object) -> list[dict[str, Any]]:
        """Return the whole log lines so far: all, or those of an event that hold these facts."""
        found = [json.loads(line) for line in self.stdout.splitlines(keepends=True) if line.endswith("\n")]
        return [
            line
            for line in found
            if event in (None, line["event"]) and all(line.get(name) == value for name, value in facts.items())
        ]

    def wait_until(self, condition: Callable[[], object], what: str, *, seconds: float = PATIENCE_SECONDS) -> None:
        """Return once the condition holds. Raises AssertionError where it does not in time, or the agent ends."""
        wait_until(condition, what, seconds=seconds, check=self._must_run, last_words=self._last_words)

    def wait_for_line(self, event: str, *, count: int = 1, **facts: object) -> None:
        """Return once it has logged so many lines of an event that hold these facts."""
        self.wait_until(lambda: len(self.lines(event, **facts)) >= count, f"{count} x {event} {facts}")

    def wait_for_quiet_poll(self, *setting_names: str) -> None:
        """Return once a poll of each setting that brought nothing new has ended, later than every line so far."""
        before = {name: self._quiet_polls(name) for name in setting_names}
        self.wait_until(
            lambda: all(self._quiet_polls(name) > count for name, count in before.items()),
            f"a poll of {setting_names} that brings nothing new",
        )

    def wait_until_delivered(self, *, seconds: float = PATIENCE_SECONDS) -> None:
        """Return once nothing waits for delivery and no post is under way."""
        about_delivery = ("batch_sending", "nothing_to_deliver")
        self.wait_until(
            lambda: (
                [line["event"] for line in self.lines() if line["event"] in about_delivery][-1] == about_delivery[1]
            ),
            "the end of delivery",
            seconds=seconds,
        )

    def _quiet_polls(self, setting_name: str) -> int:
        return len(self.lines("collection_finished", setting=setting_name, new=0))

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the running agent."""
        self._must_run()
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it as a power cut would."""
        self.send(signal.SIGKILL)
        self._process.wait(PATIENCE_SECONDS)

    def terminate(self, *, seconds: float = 10.0) -> int:
        """Return the exit code after SIGTERM. Raises AssertionError where it does not end in time."""
        self.send(signal.SIGTERM)
        return self.wait(seconds=seconds)

    def wait(self, *, seconds: float = PATIENCE_SECONDS) -> int:
        """Return the exit code. Raises AssertionError where it does not end in time."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired as err:
            raise AssertionError(f"it goes on after {seconds:g} s\n{self._last_words()}") from err

    def goes_on_for(self, seconds: float) -> bool:
        """Return whether it still runs after a moment; True is returned after that moment only."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return True
        return False

    @property
    def pid(self) -> int:
        """The number of its process."""
        return self._process.pid

    def open_files(self) -> int:
        """Return how many files and connections it has open now."""
        return len(list(Path(f"/proc/{self._process.pid}/fd").iterdir()))

    def peak_mebibytes(self) -> float:
        """Return the most memory that it ever had resident."""
        status = Path(f"/proc/{self._process.pid}/status").read_text(encoding="ascii")
        (kibibytes,) = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")]
        return int(kibibytes) / 1024

    def end(self) -> None:
        """See that it does not outlive the test."""
        self._process.kill()
        self._process.wait()

    def _must_run(self) -> None:
        if not self.is_running:
            raise AssertionError(f"it ended by itself with {self._process.returncode}\n{self._last_words()}")

    def _last_words(self) -> str:
        return "\n".join([*self.stdout.splitlines()[-_LAST_WORDS:], self.stderr])


class Deployment:
    """Where an agent is installed: its environment and its storage. What starts in it shares both."""

    def __init__(self, folder: Path, exastro: DemoExastro, names: Sequence[str], **environment: str) -> None:
        self._folder = folder
        self.processes: list[AgentProcess] = []
        self.environment = {
            **exastro.environment(names),
            "PATH": os.defpath,
            "STORAGEPATH": str(folder / "storage"),
            "AGENT_NAME": f"test-{uuid.uuid4().hex[:12]}",
            "EXECUTE_INTERVAL": "3",
            "LOG_LEVEL": "DEBUG",
            "STATUS_PORT": "0",
            **environment,
        }
        folder.mkdir()

    @property
    def settings_file(self) -> Path:
        """The file that users delete to have the settings fetched at once."""
        return self._tmp_folder / "event_collection_settings.json"

    @property
    def store_file(self) -> Path:
        """The SQLite file of the store."""
        name = f"ag_oase_{self.environment['AGENT_NAME']}.sqlite3"
        return self._folder / "storage" / ORGANIZATION / WORKSPACE / "sqlite" / name

    @property
    def stored_bytes(self) -> int:
        """How large the store's files are now."""
        files = self._folder.glob("storage/*/*/sqlite/*")
        return sum(file.stat().st_size for file in files)

    def start(self, command: Sequence[str] = MODULE, **environment: str) -> AgentProcess:
        """Start the agent; `environment` holds for this run alone."""
        process = AgentProcess(command, {**self.environment, **environment}, self._folder, len(self.processes) + 1)
        self.processes.append(process)
        return process

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, beside the agent, and return what it said."""
        command = [*MODULE, *arguments]
        return subprocess.run(
            command,
            env=self.environment,
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
        )

    def remove(self) -> None:
        """End what still runs and remove what lies outside of the test's own folder."""
        for process in self.processes:
            process.end()
        shutil.rmtree(self._tmp_folder, ignore_errors=True)

    @property
    def _tmp_folder(self) -> Path:
        return Path("/tmp") / ORGANIZATION / WORKSPACE / f"ag_oase_{self.environment['AGENT_NAME']}"


class Deploy(Protocol):
    """Makes a deployment for an Exastro and the names of settings; further variables by name."""

    def __call__(self, exastro: DemoExastro, *names: str, **environment: str) -> Deployment: ...


class ScriptedSource:
    """A source that answers as it is told while it is entered, and notes when it was asked."""

    def __init__(self, name: str, answer: Callable[[Request], Reply], **columns: Any) -> None:
        self.name = name
        self.columns = columns
        self.polls: list[float] = []
        self.requests: list[Request] = []
        self._answer = answer
        self._server = LoopbackServer(self._handle)

    @property
    def url(self) -> str:
        """Where it can be asked, without a path."""
        return self._server.url

    @property
    def row(self) -> dict[str, Any]:
        """The event collection setting that fits."""
        return setting_row(self.name, f"{self.url}/events", **self.columns)

    def __enter__(self) -> Self:
        self._server.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.__exit__()

    def _handle(self, request: Request) -> Reply:
        self.polls.append(time.monotonic())
        self.requests.append(request)
        return self._answer(request)


class ListSource(ScriptedSource):
    """Lists everything it ever had at each poll, the oldest first; its events are numbered from 1."""

    def __init__(self, name: str, count: int = 0, *, text_bytes: int = 20, **columns: Any) -> None:
        super().__init__(name, self._list, **{"RESPONSE_KEY": "items", "EVENT_ID_KEY": "id", **columns})
        self._text = "x" * text_bytes
        self._events: list[str] = []
        self.add(count)

    @property
    def ids(self) -> list[str]:
        """The ids of its events as Exastro shall know them, in order."""
        return [str(number) for number in range(1, len(self._events) + 1)]

    def add(self, count: int) -> None:
        """Have so many more events."""
        first = len(self._events) + 1
        self._events += [json.dumps({"id": number, "text": self._text}) for number in range(first, first + count)]

    def _list(self, _: Request) -> Reply:
        return Reply(body=f'{{"items": [{", ".join(self._events)}]}}'.encode())


class Gate:
    """Holds whoever comes to it until it is opened."""

    def __init__(self) -> None:
        self._is_reached = threading.Event()
        self._is_open = threading.Event()

    @property
    def is_reached(self) -> bool:
        """Whether someone came to it."""
        return self._is_reached.is_set()

    @property
    def is_open(self) -> bool:
        """Whether it lets pass."""
        return self._is_open.is_set()

    def hold(self) -> None:
        """Wait at the gate."""
        self._is_reached.set()
        self._is_open.wait(PATIENCE_SECONDS)

    def open(self) -> None:
        """Let pass who waits and who comes."""
        self._is_open.set()


# Each of them a method of Assassin; how often one stands here is how likely it is.
MOMENTS = (
    *["sent_and_never_saved"] * 3,
    *["saved_in_the_next_life"] * 3,
    *["saved_and_not_answered"] * 3,
    *["right_after_a_poll"] * 2,
    *["right_after_saving"] * 2,
    *["anywhere"] * 2,
)


class Assassin:
    """Starts agents and kills them at the moments it is asked for.

    `polls` tells how often a source was asked so far. `wait` waits for a moment, as AgentProcess.wait_until does; where
    it returns early, the agent is killed at once. What else happens to posts stays as it is when the assassin comes.
    """

    def __init__(
        self,
        start: Callable[[], AgentProcess],
        exastro: DemoExastro,
        polls: Callable[[], int],
        random_: random.Random,
        *,
        longest_seconds: float = 1.2,
        wait: Callable[[AgentProcess, Callable[[], object], str], None] = AgentProcess.wait_until,
    ) -> None:
        self.kills = 0
        self._start = start
        self._exastro = exastro
        self._polls = polls
        self._random = random_
        self._longest_seconds = longest_seconds
        self._wait = wait
        self._before_saving = exastro.before_saving
        self._before_answering = exastro.before_answering

    def strike(self, moment: str) -> None:
        """Start an agent and kill it at one of the MOMENTS."""
        kill_at: Callable[[AgentProcess], None] = getattr(self, moment)
        self.leave()
        kill_at(self._start())

    def leave(self) -> None:
        """Let posts pass that it would have held."""
        self._exastro.before_saving = self._before_saving
        self._exastro.before_answering = self._before_answering

    def sent_and_never_saved(self, agent: AgentProcess) -> None:
        """Kill while a post is held that is cut afterwards."""
        gate, is_due = Gate(), self._some_post()

        def hold(request: Request) -> str | Reply | None:
            if not is_due():
                return self._before_saving(request)
            gate.hold()
            return "cut"

        self._exastro.before_saving = hold
        self._wait(agent, lambda: gate.is_reached, "the post to be held")
        self.kill(agent)
        gate.open()

    def saved_in_the_next_life(self, agent: AgentProcess) -> None:
        """Kill while a post is held that is saved together with what the next agent sends; kill that one, too."""
        gate, is_due = Gate(), self._some_post()

        def hold(request: Request) -> str | Reply | None:
            if is_due():
                gate.hold()
            elif gate.is_reached:
                # What the next life sends meets the old request, still worked on.
                gate.open()
            return self._before_saving(request)

        self._exastro.before_saving = hold
        self._wait(agent, lambda: gate.is_reached, "the post to be held")
        self.kill(agent)
        following = self._start()
        self._wait(following, lambda: gate.is_open, "the repeated post")
        self.kill(following)
        gate.open()

    def saved_and_not_answered(self, agent: AgentProcess) -> None:
        """Kill when a post is saved, before it is answered."""
        gate, is_due = Gate(), self._some_post()

        def hold() -> None:
            if is_due():
                gate.hold()
            self._before_answering()

        self._exastro.before_answering = hold
        self._wait(agent, lambda: gate.is_reached, "the answer to be held")
        self.kill(agent)
        gate.open()

    def right_after_a_poll(self, agent: AgentProcess) -> None:
        """Kill when a source was asked."""
        polls = self._polls()
        self._wait(agent, lambda: self._polls() > polls, "a poll")
        self.kill(agent)

    def right_after_saving(self, agent: AgentProcess) -> None:
        """Kill when a poll was saved."""
        self._wait(agent, lambda: agent.lines("collection_finished"), "a poll to be saved")
        self.kill(agent)

    def anywhere(self, agent: AgentProcess) -> None:
        """Kill after a while."""
        agent.goes_on_for(self._random.uniform(0.2, self._longest_seconds))
        self.kill(agent)

    def kill(self, agent: AgentProcess) -> None:
        """Kill an agent now, and count it."""
        agent.kill()
        self.kills += 1

    def _some_post(self) -> Callable[[], bool]:
        """Return what tells, asked at each post, whether it is the one of the first few that was chosen."""
        turns = itertools.count(1)
        chosen = self._random.randint(1, 4)
        return lambda: next(turns) == chosen


def deploying(folder: Path) -> Iterator[Deploy]:
    """Yield what deploys agents in a folder; at the end they end, and what every agent must keep to is judged.

    Raises AssertionError for one that wrote to stderr, said what is no JSON, or met an unexpected error.
    """
    made: list[Deployment] = []

    def deploy(exastro: DemoExastro, *names: str, **environment: str) -> Deployment:
        made.append(Deployment(folder / f"agent-{len(made)}", exastro, names, **environment))
        return made[-1]

    try:
        yield deploy
    finally:
        for deployment in made:
            deployment.remove()
    for process in (process for deployment in made for process in deployment.processes):
        if process.stderr or process.lines(reason="unexpected"):
            raise AssertionError(f"{process.stderr}\n{process.lines(reason='unexpected')}")


def arrived(exastro: DemoExastro, setting_name: str) -> list[str]:
    """Return the ids of a setting's events as Exastro saved them, in that order, repeated ones as often as saved."""
    return [event.identity[1] for event in exastro.events_of(setting_name)]


def wait_for_all(agent: AgentProcess, exastro: DemoExastro, *sources: ListSource) -> None:
    """Return once Exastro has every event of the sources at least once."""
    wanted = {(source.name, event_id) for source in sources for event_id in source.ids}
    agent.wait_until(lambda: wanted <= exastro.counts.keys(), "everything at Exastro")


def deliver_once(deployment: Deployment, exastro: DemoExastro, source: ListSource) -> None:
    """Let an agent deliver what a source has, and end it."""
    agent = deployment.start()
    wait_for_all(agent, exastro, source)
    agent.wait_until_delivered()
    if agent.terminate() != 0:
        raise AssertionError("it did not end well")


def wait_for_polls(agent: AgentProcess, source: ScriptedSource, count: int) -> None:
    """Return once a source was asked so many times."""
    agent.wait_until(lambda: len(source.polls) >= count, f"poll {count} of {source.name}")


def self_signed(folder: Path, *, days: int = 1, address: str = "127.0.0.1", name: str = "certificate.pem") -> Path:
    """Return the file of a certificate for an address, valid for so many days from now on, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    owner = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "source.test")])
    host = x509.IPAddress(ipaddress.ip_address(address))
    moment = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder(owner, owner, key.public_key(), x509.random_serial_number())
        .not_valid_before(moment - dt.timedelta(days=100))
        .not_valid_after(moment + dt.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([host]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = folder / name
    path.write_bytes(certificate.public_bytes(pem) + private)
    return path
