"""`make bench`: CPU and memory of the agent beside the bare minimum, in one run, on loopback.

Each program runs as a process of its own between a source and an Exastro in this one. CPU time and peak memory are the
operating system's own accounting (a process's CPU clock, and /proc/PID/status, so Linux only). A poll's cost is the CPU
time between two polls, so that everything from the answer to the acknowledgement is in it, idling included.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mail

from ita_ag_oase.demo.exastro import ORGANIZATION, WORKSPACE, DemoExastro, setting_row
from ita_ag_oase.demo.loopback import LoopbackServer, Reply, Request

BULK_EVENTS = 20_000
STATIC_EVENTS = 5_000
EVENT_BYTES = 500
INTERVAL_SECONDS = 3
_POST_URL = f"/api/{ORGANIZATION}/workspaces/{WORKSPACE}/oase_agent/events"
_TIMEOUT_SECONDS = 120


@dataclass(frozen=True)
class Result:
    """One scenario of one program: CPU seconds of each poll, and the greatest resident size."""

    polls: Sequence[float]
    peak_mib: float

    @property
    def median_seconds(self) -> float:
        return statistics.median(self.polls)


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that a process has used (the clock that clock_getcpuclockid(3) names, made by its rule)."""
    return time.clock_gettime((~pid << 3) | 2)


def peak_mib(pid: int) -> float:
    """Return the greatest resident size of a process (proc(5), VmHWM of status)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("no VmHWM in /proc")


class Source:
    """Answers with prepared bytes and notes the CPU time of the program that asks, at each poll."""

    def __init__(self, answers: Callable[[int], bytes]) -> None:
        self.pid = 0
        self.cpu: list[float] = []
        self._answers = answers
        self.asked = threading.Semaphore(0)

    def handle(self, _: Request) -> Reply:
        self.cpu.append(cpu_seconds(self.pid))
        self.asked.release()
        return Reply(body=self._answers(len(self.cpu)))


def events(start: int, count: int) -> list[dict[str, Any]]:
    """Return events of about 500 bytes each."""
    made = []
    for number in range(start, start + count):
        event: dict[str, Any] = {
            "eventid": str(number),
            "name": f"CPU load is high on host-{number % 997:04}",
            "severity": "3",
            "clock": "1700000000",
            "acknowledged": "0",
            "tags": [{"tag": "service", "value": f"shop-{number % 13}"}, {"tag": "scope", "value": "performance"}],
            "opdata": "",
        }
        event["opdata"] = "x" * max(0, EVENT_BYTES - len(json.dumps(event)))
        made.append(event)
    return made


def measure(answers: Callable[[int], bytes], polls: int, command: Callable[[str, str, Path], Any]) -> Result:
    """Run a program until it has asked often enough; the first poll, and an empty one before it, warm it up."""
    source = Source(answers)
    with (
        tempfile.TemporaryDirectory(prefix="ita-ag-oase-bench-") as folder,
        LoopbackServer(source.handle) as server,
        DemoExastro() as exastro,
    ):
        exastro.rows.append(
            setting_row("bench", f"{server.url}/events", RESPONSE_LIST_FLAG="1", EVENT_ID_KEY="eventid")
        )
        arguments, environment = command(server.url, exastro.url, Path(folder))
        environment |= exastro.environment(["bench"])
        process = subprocess.Popen(
            arguments, env={**os.environ, **environment}, stdout=subprocess.DEVNULL, cwd=folder, start_new_session=True
        )
        source.pid = process.pid
        try:
            for _ in range(polls + 3):
                if not source.asked.acquire(timeout=_TIMEOUT_SECONDS):
                    raise RuntimeError(f"{arguments} stopped asking")
            peak = peak_mib(process.pid)
        finally:
            process.terminate()
            process.wait(timeout=20)
            shutil.rmtree(Path("/tmp", ORGANIZATION, WORKSPACE, f"ag_oase_{Path(folder).name}"), ignore_errors=True)
        saved = [event.event["eventid"] for event in exastro.saved]
        if len(saved) != len(set(saved)):
            raise RuntimeError("events were repeated")
    costs = [later - earlier for earlier, later in zip(source.cpu, source.cpu[1:], strict=False)]
    return Result(costs[2 : polls + 2], peak)


def agent(_: str, exastro_url: str, folder: Path) -> tuple[list[str], dict[str, str]]:
    environment = {
        "STORAGEPATH": str(folder),
        "AGENT_NAME": folder.name,
        "EXECUTE_INTERVAL": str(INTERVAL_SECONDS),
        "LOG_LEVEL": "INFO",
    }
    return [sys.executable, "-m", "ita_ag_oase"], environment


def bare(source_url: str, exastro_url: str, folder: Path) -> tuple[list[str], dict[str, str]]:
    script = str(Path(__file__).with_name("bare.py"))
    arguments = [f"{source_url}/events", exastro_url + _POST_URL, str(folder / "bare.sqlite3"), str(INTERVAL_SECONDS)]
    return [sys.executable, script, *arguments], {}


def main() -> None:
    parser = argparse.ArgumentParser(description="CPU and memory of the agent beside the bare minimum")
    parser.add_argument("--polls", type=int, default=5, help="counted polls of each program and scenario (default 5)")
    options = parser.parse_args()
    started = time.monotonic()
    answers = [
        b"[]",
        *(json.dumps(events(1 + poll * BULK_EVENTS, BULK_EVENTS)).encode() for poll in range(options.polls + 3)),
    ]
    known = json.dumps(events(1, STATIC_EVENTS)).encode()

    def bulk(poll: int) -> bytes:
        return answers[min(poll, len(answers)) - 1]

    print(f"{options.polls} counted polls each, medians; events of {EVENT_BYTES} bytes, every {INTERVAL_SECONDS} s")
    print(f"{'scenario':<44}{'agent':>12}{'bare':>12}{'ratio':>8}")
    ours, theirs = measure(bulk, options.polls, agent), measure(bulk, options.polls, bare)
    _row(f"{BULK_EVENTS} new events: CPU per event, µs", 1e6 / BULK_EVENTS, ours, theirs)
    print(
        f"{f'{BULK_EVENTS} new events: peak memory, MiB':<44}{ours.peak_mib:>12.1f}{theirs.peak_mib:>12.1f}"
        f"{ours.peak_mib / theirs.peak_mib:>8.2f}"
    )
    static = measure(lambda poll: known, options.polls, agent)
    print(f"{f'{STATIC_EVENTS} known events: CPU per poll, ms':<44}{static.median_seconds * 1e3:>12.1f}")
    print(f"{f'{STATIC_EVENTS} known events: peak memory, MiB':<44}{static.peak_mib:>12.1f}")
    mail.show(cpu_seconds)
    print(f"took {time.monotonic() - started:.0f} s")


def _row(title: str, factor: float, ours: Result, theirs: Result) -> None:
    mine, bare_ = ours.median_seconds * factor, theirs.median_seconds * factor
    print(f"{title:<44}{mine:>12.1f}{bare_:>12.1f}{mine / bare_:>8.2f}")


if __name__ == "__main__":
    main()
