"""A mailbox with old mail in it, to which some is added: bytes on the wire and CPU. Called by bench.py.

The agent stands beside a program that searches for the mail of the day and fetches all of it at each poll. For both,
bytes count from the first one on, and CPU time from the first connection on. Started as a script, this file is that
program.
"""

import os
import shutil
import subprocess
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
from support import wait_until
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


def agent(house: House) -> tuple[Sequence[str], Mapping[str, str]]:
    environment = house.exastro.environment(["mail"])
    own = {"STORAGEPATH": str(house.folder), "AGENT_NAME": house.folder.name, "EXECUTE_INTERVAL": str(INTERVAL_SECONDS)}
    return [sys.executable, "-m", "ita_ag_oase"], {**environment, **own}


def plain(house: House) -> tuple[Sequence[str], Mapping[str, str]]:
    return [sys.executable, __file__, house.user, str(house.relay.port)], {}


def measure(
    command: Callable[[House], tuple[Sequence[str], Mapping[str, str]]],
    polls: Callable[[House], int],
    cpu_seconds: Callable[[int], float],
) -> Cost:
    """Run a program over all polls; `polls` tells how many of them are done, the first one, of old mail, left out."""
    with tempfile.TemporaryDirectory(prefix="ita-ag-oase-bench-") as folder, ExitStack() as stack:
        house = House(Path(folder), stack)
        house.deliver(OLD_MAILS, seconds_ago=60)
        arguments, environment = command(house)
        process = subprocess.Popen(arguments, env={**os.environ, **environment}, stdout=subprocess.DEVNULL, cwd=folder)
        try:
            wait_until(lambda: house.relay.connections, "the first connection")
            cpu_before = cpu_seconds(process.pid)
            for poll in range(POLLS):
                wait_until(lambda done=poll: polls(house) >= done, f"poll {poll}")  # type: ignore[misc] # bound now
                house.deliver(NEW_MAILS_PER_POLL, seconds_ago=0)
            wait_until(lambda: polls(house) >= POLLS, "the last poll")
            return Cost(house.relay.received_bytes, cpu_seconds(process.pid) - cpu_before)
        finally:
            process.terminate()
            process.wait(timeout=20)
            shutil.rmtree(Path("/tmp", ORGANIZATION, WORKSPACE, f"ag_oase_{house.folder.name}"), ignore_errors=True)


def show(cpu_seconds: Callable[[int], float]) -> None:
    """Print the scenario's rows."""
    if not program():
        print("mail is left out: dovecot is not installed")
        return
    ours = measure(agent, lambda house: len(house.exastro.saved) // NEW_MAILS_PER_POLL, cpu_seconds)
    theirs = measure(plain, lambda house: house.relay.sent.count(b"LOGOUT") - 1, cpu_seconds)
    title = f"{POLLS * NEW_MAILS_PER_POLL} new mails, {OLD_MAILS} old"
    print(f"{'scenario':<44}{'agent':>12}{'fetch all':>12}{'ratio':>8}")
    for unit, mine, all_ in (
        ("KiB on the wire", ours.wire_bytes / 1_024, theirs.wire_bytes / 1_024),
        ("CPU, ms", ours.cpu_seconds * 1e3, theirs.cpu_seconds * 1e3),
    ):
        print(f"{f'{title}: {unit}':<44}{mine:>12.1f}{all_:>12.1f}{mine / all_:>8.3f}")


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
