"""Polls, saves, sends, failures and kills in every order: nothing lost, nothing twice, nothing out of order."""

import asyncio
import contextlib
import itertools
import json
import shutil
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings, strategies
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from exactly_once import ANSWERED, DEALT_WITH, SENT, Bench, fast_folder, put_back
from ita_ag_oase.demo.exastro import setting_row
from ita_ag_oase.errors import ExastroUnavailable, Reason, SourceUnreadable
from ita_ag_oase.model import Collection, Event, GroupState, Journal, Labels, Outcome, Saved
from ita_ag_oase.store import history
from ita_ag_oase.text import Text
from judge import FAULTS, Judge, Kill, Killer

T = TypeVar("T")

HOUR = 3_600
some_turn = strategies.integers(0, 9)
some_name = strategies.sampled_from([f"n{number}" for number in range(6)])
some_change = strategies.sampled_from(["nothing", "rename", "discard", "delete", "new", "names"])
some_step = strategies.sampled_from(
    [0, 0, 0, None, None, 1, -1, 5, -5, HOUR, -HOUR, 10 * HOUR, -10 * HOUR, 72 * HOUR, -72 * HOUR]
)
some_faults = strategies.lists(strategies.sampled_from(FAULTS), max_size=3)
# At which instant of a step the agent is killed, by number or by name, if at all.
some_kill = strategies.none() | strategies.integers(0, 70) | strategies.sampled_from([None, SENT, DEALT_WITH, ANSWERED])


class Killed(Exception):
    """The agent was killed, and has started again."""


@dataclass
class Source:
    """What a source told, numbered from 1, what it lists now, and what the agent said that it has saved."""

    setting_id: str
    count: int = 0
    listed: list[int] = field(default_factory=list)
    unusable: set[int] = field(default_factory=set)
    saved: set[int] = field(default_factory=set)
    odd: dict[int, str] = field(default_factory=dict)
    was_away: bool = False

    def tell(self, count: int, *, is_usable: bool = True) -> None:
        fresh = range(self.count + 1, self.count + count + 1)
        self.count += count
        self.listed += fresh
        if not is_usable:
            self.unusable.update(fresh)

    def forget(self, numbers: set[int]) -> None:
        self.listed = [number for number in self.listed if number not in numbers]


class Life(RuleBasedStateMachine):
    """An agent's life: each source tells, Exastro saves, and both agree at the end."""

    batch_bytes = 8_192
    gateway_bytes = (700, 1_500, 5_000)
    filler_bytes = 20
    journal = Journal.WAL
    # More than a request may hold.
    large_bytes = 10_000

    def __init__(self) -> None:
        super().__init__()
        self.folder = fast_folder()
        self.lives = itertools.count(1)
        self.loop = asyncio.new_event_loop()
        self.killer = Killer()
        self.bench = self.killer.bench = Bench(
            self.folder / "0", ("n1", "n2"), batch_events=8, batch_bytes=self.batch_bytes, at=self.killer.at
        )
        self.bench.journal = self.journal
        self.exastro = self.bench.exastro
        self.exastro.refuses = lambda event: event["kind"] == "bad"
        self.judge = self.bench.answering = Judge(self.bench, self.killer)
        self.sources = {
            row["EVENT_COLLECTION_SETTINGS_ID"]: Source(row["EVENT_COLLECTION_SETTINGS_ID"])
            for row in self.exastro.rows
        }
        self.has_forgotten = False
        self.run(self.bench.open())
        self.run(self.apply_settings())

    def teardown(self) -> None:
        try:
            self.settle_everything()
        finally:
            self.run(self.bench.close())
            self.run(self.loop.shutdown_default_executor())
            self.loop.close()
            shutil.rmtree(self.folder)

    def run(self, awaitable: Awaitable[T]) -> T:
        return self.loop.run_until_complete(awaitable)

    def live(self, step: Callable[[], Awaitable[T]], kill: Kill = None) -> T:
        """Return what a step of the agent returns.

        `kill` tells before which of its instants the agent is killed; then it starts again, and Killed is raised.
        """
        self.killer.due = kill
        try:
            result = self.run(step())
        except Exception:
            self.start_again_if_killed()
            raise
        self.start_again_if_killed()
        return result

    def start_again_if_killed(self) -> None:
        self.killer.due = None
        if self.killer.instant is None:
            return
        self.judge.note_kill()
        self.run(self.bench.close())
        shutil.rmtree(self.bench._path.parent)
        folder = self.folder / str(next(self.lives))
        put_back(self.killer.files, folder / "store")
        self.bench._path = folder / "store" / "store.sqlite3"
        self.killer.instant = None
        self.run(self.bench.open())
        raise Killed

    def known(self, turn: int) -> tuple[str, Source]:
        """Return one of the settings that the agent polls, with its name."""
        name, row = list(self.bench.rows.items())[turn % len(self.bench.rows)]
        return name, self.sources[row["EVENT_COLLECTION_SETTINGS_ID"]]

    async def apply_settings(self) -> None:
        await self.bench.store.keep_fact("settings", json.dumps(list(self.bench.rows.values())).encode())
        for name, row in self.bench.rows.items():
            await self.bench.store.register(row["EVENT_COLLECTION_SETTINGS_ID"], name, int(self.bench.now))

    # What sources do

    @precondition(lambda self: self.bench.rows)
    @rule(
        turn=some_turn,
        usable=strategies.integers(0, 20),
        unusable=strategies.integers(0, 2),
        odd=strategies.sampled_from([None, None, None, None, "bad", "large"]),
        forgets=strategies.booleans(),
        kill=some_kill,
    )
    def poll(
        self, turn: int, usable: int, unusable: int, odd: str | None, forgets: bool = False, kill: Kill = None
    ) -> None:
        name, source = self.known(turn)
        if forgets:
            # Nothing but the store has these any more.
            source.forget(set(source.saved))
        source.tell(usable)
        if odd and usable:
            source.odd[source.count] = odd
        source.tell(unusable, is_usable=False)
        fresh = usable + unusable
        limbo = len(set(source.listed) - source.saved) - fresh
        with contextlib.suppress(Killed):
            saved = self.live(lambda: self.save(name, source), kill)
            assert fresh <= saved.new <= fresh + limbo
            source.saved.update(source.listed)

    async def save(self, name: str, source: Source, *, has_key: bool = True, breaks_after: int | None = None) -> Saved:
        now = int(self.bench.now)
        labels = Labels(source.setting_id, name, now, now + 60)
        events = self.events(source, has_key=has_key, breaks_after=breaks_after)
        return await self.bench.store.save(
            Collection(source.setting_id, self.bench.agent_name, labels, events, moves_cursor=has_key)
        )

    def events(self, source: Source, *, has_key: bool, breaks_after: int | None) -> Iterator[Event]:
        listed = [number for number in source.listed if has_key or number in source.unusable]
        # It says some of what it told last twice.
        told_twice = [number for number in listed[-2:] if number not in source.unusable]
        for place, number in enumerate([*listed, *told_twice]):
            if place == breaks_after:
                raise SourceUnreadable(Text("odd"), reason=Reason.EXPRESSION)
            yield self.event(source, number)

    def event(self, source: Source, number: int) -> Event:
        odd = source.odd.get(number, "good")
        filler = "x" * (self.large_bytes if odd == "large" else self.filler_bytes)
        raw = json.dumps({"id": number, "kind": odd, "filler": filler}).encode()
        is_unusable = number in source.unusable
        return Event(str(number), is_unusable, raw, "EVENT_ID_KEY not found" if is_unusable else None)

    @precondition(lambda self: self.bench.rows)
    @rule(turn=some_turn, breaks_after=strategies.integers(0, 40), kill=some_kill)
    def poll_what_breaks_half_way(self, turn: int, breaks_after: int, kill: Kill) -> None:
        name, source = self.known(turn)
        source.tell(3)
        if breaks_after >= len(source.listed):
            return
        with contextlib.suppress(Killed, SourceUnreadable):
            self.live(lambda: self.save(name, source, breaks_after=breaks_after), kill)
            raise AssertionError("a poll that broke was saved")

    @precondition(lambda self: self.bench.rows)
    @rule(turn=some_turn, is_new=strategies.booleans(), kill=some_kill)
    def poll_without_response_key(self, turn: int, is_new: bool, kill: Kill) -> None:
        name, source = self.known(turn)
        # They would come behind what is told now.
        unsure = set(source.listed) - source.saved
        source.forget(unsure | source.unusable if is_new else unsure - source.unusable)
        source.tell(is_new, is_usable=False)
        with contextlib.suppress(Killed):
            before = self.live(lambda: self.bench.store.cursor(source.setting_id))
            self.live(lambda: self.save(name, source, has_key=False), kill)
            source.saved.update(source.unusable & set(source.listed))
            assert self.live(lambda: self.bench.store.cursor(source.setting_id)) == before

    # What the agent does, and what requests meet

    @rule(
        rounds=strategies.integers(1, 8),
        faults=some_faults,
        gateway=strategies.integers(0, 4),
        late_arrives=strategies.booleans(),
        kill=some_kill,
    )
    def deliver(self, rounds: int, faults: list[str], gateway: int, late_arrives: bool, kill: Kill) -> None:
        self.judge.faults.extend(faults)
        self.exastro.max_request_bytes = dict(enumerate(self.gateway_bytes)).get(gateway, 1 << 30)
        with contextlib.suppress(Killed, ExastroUnavailable):
            self.live(lambda: self.deliver_rounds(rounds), kill)
        if late_arrives:
            self.judge.let_late_ones_arrive()

    async def deliver_rounds(self, rounds: int) -> None:
        for _ in range(rounds):
            if await self.deliver_next() is None or self.killer.instant is not None:
                return

    async def deliver_next(self) -> int | None:
        try:
            count = await self.bench.delivery.deliver_next()
        except ExastroUnavailable as err:
            self.judge.note_end(is_settled=err.is_unprocessed)
            raise
        self.judge.note_end(is_settled=True)
        return count

    @rule(name=strategies.sampled_from([None, "agent-1", "agent-2"]), kill=some_kill)
    def restart(self, name: str | None, kill: Kill) -> None:
        with contextlib.suppress(Killed):
            if name is None:
                self.killer.strike("between steps")
                self.start_again_if_killed()
            self.live(lambda: self.bench.restart(name), kill)

    # What must hold

    @invariant()
    def the_ledger_balances(self) -> None:
        self.run(self.bench.must_balance())

    @invariant()
    def keys_grow_and_what_may_have_been_saved_comes_first(self) -> None:
        rows = self.run(
            self.bench.query(
                "SELECT g.setting, g.key, g.maybe_saved > 0, s.settled_key, s.last_key"
                " FROM groups g JOIN settings s ON s.number = g.setting WHERE g.parked_reason IS NULL"
                " ORDER BY g.setting, g.poll, g.first_event"
            )
        )
        for _, group in itertools.groupby(rows, key=lambda row: row[0]):
            of_setting = list(group)
            keys = [row[1] for row in of_setting if row[1] is not None]
            marks = [row[2] for row in of_setting]
            assert keys == sorted(set(keys))
            assert all(of_setting[0][3] < key <= of_setting[0][4] for key in keys)
            assert marks == sorted(marks, reverse=True)

    def settle_everything(self) -> None:
        self.judge.faults.clear()
        self.exastro.max_request_bytes = 1 << 30
        for turn in range(len(self.bench.rows)):
            self.poll(turn, usable=1, unusable=1, odd=None)
        self.run(self.deliver_rounds(1_000))
        assert self.run(self.deliver_next()) is None, "delivery comes to no end"
        self.the_ledger_balances()
        parked = self.run(self.bench.parked())
        for source in self.sources.values():
            self.judge_source(source, set(parked[source.setting_id]))

    def judge_source(self, source: Source, parked: set[int]) -> None:
        arrived = set(self.judge.arrived[source.setting_id])
        missing = source.saved - arrived - parked
        assert not self.unexcused(source, missing), "an event is neither at Exastro nor parked"
        assert arrived | parked <= set(range(1, source.count + 1))
        assert source.was_away or parked <= source.odd.keys(), "an event is parked for no reason"
        assert not arrived & {number for number, odd in source.odd.items() if odd == "bad"}
        for number in source.saved - source.unusable - missing:
            self.judge_told(source, number, is_parked=number in parked)

    def judge_told(self, source: Source, number: int, *, is_parked: bool) -> None:
        """What is told of an event must be what became of it."""
        lives = self.run(
            self.bench.store._database.run(lambda connection: history.lives(connection, str(number), None))
        )
        records = [record for life in lives if life.setting_id == source.setting_id for record in life.records]
        if not records:
            assert self.has_forgotten, "nothing is told of an event"
            return
        told = records[-1]
        if is_parked or told.state is not Outcome.DELIVERED:
            assert told.state is (GroupState.PARKED if is_parked else Outcome.ALREADY_SAVED)
            return
        saved = self.judge.saved_under(source.setting_id, told.agent_name, told.key.fetched_time)
        # Where Exastro forgot the key, it saved the group once more.
        assert told.place is not None
        assert saved[-told.event_count :][told.place - 1] == number

    def unexcused(self, source: Source, missing: set[int]) -> set[int]:
        """Return which of the missing events must not be missing."""
        return missing


class LifeAmongChanges(Life):
    """A life in which settings and clocks change."""

    def __init__(self) -> None:
        super().__init__()
        self.unwanted: set[str] = set()
        self.has_lost_the_volume = False

    # What Exastro's users do

    @rule(what=some_change, turn=some_turn, name=some_name, is_fetched=strategies.booleans(), kill=some_kill)
    def change_the_settings(self, what: str, turn: int, name: str, is_fetched: bool, kill: Kill) -> None:
        row: Any = self.exastro.rows[turn % len(self.exastro.rows)]
        setting_id = row["EVENT_COLLECTION_SETTINGS_ID"]
        is_taken = name in self.judge.plain.names.values()
        if what == "rename" and not is_taken:
            row["EVENT_COLLECTION_SETTINGS_NAME"] = self.judge.plain.names[setting_id] = name
        elif what == "discard":
            self.discard_or_restore(row)
        elif what == "delete" and len(self.exastro.rows) > 1:
            self.exastro.rows.remove(row)
            del self.judge.plain.names[setting_id]
            self.sources[setting_id].was_away = True
        elif what == "new" and not is_taken:
            self.add_setting(name)
        elif what == "names":
            self.unwanted ^= {setting_id}
        if is_fetched:
            self.fetch_settings(kill)

    def discard_or_restore(self, row: Any) -> None:
        setting_id = row["EVENT_COLLECTION_SETTINGS_ID"]
        row["DISUSE_FLAG"] = "0" if row["DISUSE_FLAG"] == "1" else "1"
        self.judge.plain.discarded ^= {setting_id}
        self.sources[setting_id].was_away = True

    def add_setting(self, name: str) -> None:
        setting_id = f"id-{len(self.sources)}"
        self.exastro.rows.append(setting_row(name, "http://source.test/", EVENT_COLLECTION_SETTINGS_ID=setting_id))
        self.judge.plain.names[setting_id] = name
        self.sources[setting_id] = Source(setting_id)

    def fetch_settings(self, kill: Kill) -> None:
        rows = [row for row in self.exastro.rows if row["EVENT_COLLECTION_SETTINGS_ID"] not in self.unwanted]
        rows = [row for row in rows if row["DISUSE_FLAG"] != "1"]
        self.bench.rows = {row["EVENT_COLLECTION_SETTINGS_NAME"]: dict(row) for row in rows}
        for gone in self.sources.keys() - {row["EVENT_COLLECTION_SETTINGS_ID"] for row in rows}:
            # The ids of a setting that went are forgotten in time.
            self.sources[gone].listed.clear()
        with contextlib.suppress(Killed):
            self.live(self.apply_settings, kill)

    # What time does

    @rule(seconds=strategies.sampled_from([0, 1, 5, 60, HOUR, 20 * HOUR, 60 * HOUR]), step=some_step, kill=some_kill)
    def let_time_pass(self, seconds: int, step: int | None, kill: Kill) -> None:
        self.bench.now += seconds
        self.step_the_clock(step)
        with contextlib.suppress(Killed):
            count = self.live(lambda: self.bench.store.purge(int(self.bench.now)), kill)
            self.has_forgotten = self.has_forgotten or count > 0

    def step_the_clock(self, seconds: int | None) -> None:
        """Let the agent's clock differ from Exastro's by so much more; None: put it right."""
        step = int(self.bench.exastro_ahead_seconds) if seconds is None else seconds
        self.bench.now += step
        self.bench.exastro_ahead_seconds -= step

    @precondition(lambda self: self.judge.arrived and not self.has_lost_the_volume)
    @rule(seconds=strategies.sampled_from([1, 5, 20, 60, HOUR]))
    def lose_the_volume(self, seconds: int) -> None:
        """Let the agent begin anew, with keys that Exastro may know already; sources tell new events only."""
        self.has_lost_the_volume = True
        self.step_the_clock(-seconds)
        for source in self.sources.values():
            source.listed.clear()
            source.saved.clear()
        self.killer.strike("the volume is lost")
        self.killer.files = {}
        with contextlib.suppress(Killed):
            self.start_again_if_killed()
        self.judge.forget()
        self.run(self.apply_settings())

    def unexcused(self, source: Source, missing: set[int]) -> set[int]:
        """Leave out what decision 0002 says may be lost after the volume was."""
        if not self.has_lost_the_volume:
            return missing
        return {number for number in missing if not self.judge.was_unsure(source.setting_id, number)}

    def settle_everything(self) -> None:
        self.fetch_settings(None)
        super().settle_everything()


class LifeWithLargeEvents(Life):
    """A life in which groups consist of several pieces, and are cut between them."""

    batch_bytes = 300_000
    gateway_bytes = (40_000, 70_000, 120_000)
    filler_bytes = 30_000
    large_bytes = 400_000


class LifeOnASharedVolume(Life):
    """A life without a WAL."""

    journal = Journal.TRUNCATE


STEPS = settings(stateful_step_count=40, suppress_health_check=list(HealthCheck))
# Making a failure small may take five minutes, a soak takes hours.
patiently = pytest.mark.timeout(600 if STEPS.derandomize else 0)

TestLife = patiently(Life.TestCase)
TestLife.settings = STEPS
TestLifeAmongChanges = patiently(LifeAmongChanges.TestCase)
TestLifeAmongChanges.settings = STEPS
TestLifeWithLargeEvents = patiently(LifeWithLargeEvents.TestCase)
# Each of these costs as much as several of the others.
TestLifeWithLargeEvents.settings = settings(STEPS, max_examples=STEPS.max_examples // 4)
TestLifeOnASharedVolume = patiently(LifeOnASharedVolume.TestCase)
# What differs is what a kill leaves.
TestLifeOnASharedVolume.settings = settings(STEPS, max_examples=STEPS.max_examples // 5)
