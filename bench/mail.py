"""A mailbox with old mail in it, to which some is added: bytes on the wire and CPU. Called by scenarios.py.

The agent stands beside a program that searches for the mail of the day and fetches all of it at each poll. For both,
bytes count from the first one on, and CPU time from the first connection on. Started as a script, this file is that
program.
"""

import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from imapclient import IMAPClient

from dovecot import PASSWORD, Maildir, program, running
from ita_ag_oase.demo.exastro import ORGANIZATION, WORKSPACE, DemoExastro, setting_row
from process import Program
from support import free_port, wait_until
from wires import Relay

OLD_MAILS = 2_000
POLLS = 10
NEW_MAILS_PER_POLL = 5
INTERVAL_SECONDS = 3
_TEXT = "CPU load is high. " * 100


@dataclass(frozen=True)
class Cost:
    """What the old and the new mails cost one program."""

    wire_bytes: int
    cpu_seconds: float
    peak_mib: float


class House:
    """A Dovecot behind a relay that counts, and an Exastro."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        dovecot = stack.enter_context(running())
        self.relay = stack.enter_context(Relay(dovecot.plain_port))
        self.user = dovecot.new_user()
        self._inbox: Maildir = dovecot.inbox(self.user)
        columns = {"CONNECTION_METHOD_ID": "4", "REQUEST_METHOD_ID": "5", "PORT": self.relay.port}
        row = setting_row("mail", dovecot.host, USERNAME=self.user, PASSWORD=PASSWORD, **columns)
        self.exastro = stack.enter_context(DemoExastro([row]))
        self._number = 0

    def deliver(self, count: int, *, seconds_ago: float) -> None:
        for _ in range(count):
            self._number += 1
            head = f"From: alarm@example.com\r\nSubject: alarm {self._number}\r\nMessage-ID: <{self._number}@bench>\r\n"
            self._inbox.deliver(f"{head}\r\n{_TEXT}\r\n".encode(), arrival=time.time() - seconds_ago)


def is_possible() -> bool:
    """Whether Dovecot is installed."""
    return bool(program())


def measure_agent(python: str, source_folder: Path) -> Cost:
    """Return what the agent costs, run from a folder of source by a Python."""

    def command(house: House) -> tuple[Sequence[str], Mapping[str, str]]:
        own = {
            "PYTHONPATH": str(source_folder),
            "STORAGEPATH": str(house.folder),
            "AGENT_NAME": house.folder.name,
            "EXECUTE_INTERVAL": str(INTERVAL_SECONDS),
            "STATUS_PORT": str(free_port()),
        }
        return [python, "-m", "ita_ag_oase"], {**house.exastro.environment(["mail"]), **own}

    return _measure(command, lambda house: len(house.exastro.saved) // NEW_MAILS_PER_POLL)


def measure_fetch_all() -> Cost:
    """Return what the program costs that fetches all."""

    def command(house: House) -> tuple[Sequence[str], Mapping[str, str]]:
        return [sys.executable, __file__, house.user, str(house.relay.port)], {"PYTHONPATH": ":".join(sys.path)}

    return _measure(command, lambda house: house.relay.sent.count(b"LOGOUT") - 1)


def _measure(
    command: Callable[[House], tuple[Sequence[str], Mapping[str, str]]], polls: Callable[[House], int]
) -> Cost:
    """Run a program over all polls; `polls` tells how many of them are done, the first one, of old mail, left out."""
    with tempfile.TemporaryDirectory(prefix="ita-ag-oase-bench-") as folder, ExitStack() as stack:
        house = House(Path(folder), stack)
        house.deliver(OLD_MAILS, seconds_ago=60)
        stack.callback(shutil.rmtree, Path("/tmp", ORGANIZATION, WORKSPACE, f"ag_oase_{Path(folder).name}"), True)
        running_ = stack.enter_context(Program(*command(house), house.folder))
        wait_until(lambda: house.relay.connections, "the first connection", last_words=running_.last_words)
        cpu_before = running_.cpu_seconds
        for poll in range(POLLS):
            wait_until(lambda done=poll: polls(house) >= done, f"poll {poll}")  # type: ignore[misc] # bound now
            house.deliver(NEW_MAILS_PER_POLL, seconds_ago=0)
        wait_until(lambda: polls(house) >= POLLS, "the last poll")
        return Cost(house.relay.received_bytes, running_.cpu_seconds - cpu_before, running_.peak_mib)


def fetch_all(user: str, port: int) -> None:
    """Fetch the mail of the day again and again, each time over a connection of its own."""
    while True:
        started = time.monotonic()
        with IMAPClient("127.0.0.1", port, ssl=False) as client:
            client.login(user, PASSWORD)
            client.select_folder("INBOX", readonly=True)
            for uid in client.search(["SINCE", datetime.now(UTC).date()]):
                client.fetch([uid], ["RFC822"])
        time.sleep(max(0.0, INTERVAL_SECONDS - (time.monotonic() - started)))


if __name__ == "__main__":
    fetch_all(sys.argv[1], int(sys.argv[2]))
