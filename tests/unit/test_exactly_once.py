"""Polls, saves, sends and failures in every order: nothing lost, nothing twice, nothing out of order."""

import asyncio
import shutil
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings, strategies
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from exactly_once import Bench, usable
from ita_ag_oase.errors import ExastroUnavailable

NAMES = ("n1", "n2", "n3")
# A request is too large by its size alone: see change_what_the_gateway_allows.
FAULTS = ("503", "cut", "lost", "half", "html", "498", "499-01803", "401")
BAD = "bad"

some_name = strategies.sampled_from(NAMES)


class Life(RuleBasedStateMachine):
    """An agent's life. `told` is what each source told, in order; what Exastro saved must become the same."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.loop = asyncio.new_event_loop()
        self.bench = Bench(self.folder, NAMES, batch_events=8, batch_bytes=65_536)
        self.bench.exastro.refuses = lambda event: event["kind"] == BAD
        self.told: dict[str, list[str]] = defaultdict(list)
        self.bad: set[tuple[str, str]] = set()
        self.loop.run_until_complete(self.bench.open())

    def teardown(self) -> None:
        try:
            self.settle_everything()
        finally:
            self.loop.run_until_complete(self.bench.close())
            self.loop.run_until_complete(self.loop.shutdown_default_executor())
            self.loop.close()
            shutil.rmtree(self.folder)

    def run(self, coroutine: Any) -> Any:
        return self.loop.run_until_complete(coroutine)

    @rule(name=some_name, count=strategies.integers(0, 20), bad=strategies.sets(strategies.integers(0, 19), max_size=1))
    def poll_new_events(self, name: str, count: int, bad: set[int]) -> None:
        told = self.told[name]
        fresh = [str(len(told) + number) for number in range(count)]
        wrong = {fresh[number] for number in bad if number < count}
        told += fresh
        self.bad |= {(name, event_id) for event_id in wrong}
        # The source lists what it told last as well, and says some of it twice.
        listed = [*told[-count - 3 :], *told[-2:]]
        events = [usable(event_id, kind=BAD if (name, event_id) in self.bad else "good") for event_id in listed]
        saved = self.run(self.bench.poll(name, events))
        assert saved.new == count

    @rule(seconds=strategies.sampled_from([0, 1, 5, 3_600, -1, -7_200]))
    def let_the_clock_go(self, seconds: int) -> None:
        self.bench.now += seconds

    @rule(faults=strategies.lists(strategies.sampled_from(FAULTS), min_size=1, max_size=3))
    def order_faults(self, faults: list[str]) -> None:
        self.bench.exastro.faults.extend(faults)

    @rule(size=strategies.sampled_from([700, 1_500, 5_000, 1 << 30]))
    def change_what_the_gateway_allows(self, size: int) -> None:
        self.bench.exastro.max_request_bytes = size

    @rule(rounds=strategies.integers(1, 8))
    def deliver(self, rounds: int) -> None:
        for _ in range(rounds):
            try:
                self.run(self.bench.delivery.deliver_next())
            except ExastroUnavailable:
                return

    @rule(name=strategies.sampled_from(["agent-1", "agent-2"]))
    def restart(self, name: str) -> None:
        self.run(self.bench.restart(name))

    @precondition(lambda self: self.bench.exastro.saved)
    @invariant()
    def nothing_came_twice(self) -> None:
        assert self.bench.exastro.repeated == 0

    @invariant()
    def nothing_came_out_of_order(self) -> None:
        for name in NAMES:
            arrived = [int(event_id) for event_id in self.bench.arrived(name)]
            assert arrived == sorted(arrived)

    @invariant()
    def the_ledger_balances(self) -> None:
        rows = self.run(
            self.bench.store._database.run(
                lambda connection: connection.execute(
                    "SELECT seen - new - known - repeated, new - delivered - already_saved - dropped"
                    " - (SELECT coalesce(sum(event_count), 0) FROM groups g WHERE g.setting = s.number)"
                    " FROM settings s"
                ).fetchall()
            )
        )
        assert rows == [(0, 0)] * len(NAMES)

    def settle_everything(self) -> None:
        self.bench.exastro.faults.clear()
        self.bench.exastro.max_request_bytes = 1 << 30
        for _ in range(5):
            try:
                self.run(self.bench.deliver_all())
                break
            except ExastroUnavailable:
                pass
        self.nothing_came_twice()
        self.nothing_came_out_of_order()
        parked = self.parked()
        for name in NAMES:
            missing = {(name, event_id) for event_id in self.told[name]} - {
                (name, event_id) for event_id in self.bench.arrived(name)
            }
            assert missing <= parked, "an event is neither delivered nor parked"
            assert {key for key in self.bad if key[0] == name} <= missing

    def parked(self) -> set[tuple[str, str]]:
        import msgspec

        def work(connection: Any) -> list[tuple[str, bytes]]:
            rows = connection.execute(
                "SELECT s.name, p.events FROM groups g JOIN settings s ON s.number = g.setting"
                " JOIN pieces p ON p.group_number = g.number WHERE g.parked_reason IS NOT NULL"
            )
            return list(rows)

        found = self.run(self.bench.store._database.run(work))
        return {
            (name, event["_exastro_oase_event_id"])
            for name, events in found
            for event in msgspec.json.decode(b"[%b]" % events)
        }


TestLife = Life.TestCase
TestLife.settings = settings(
    max_examples=40, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)
