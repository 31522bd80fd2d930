"""What the agent knows of its own health after it was told this and that."""

import dataclasses
from collections.abc import Callable

import pytest

from ita_ag_oase.errors import (
    AgentError,
    ExastroRejected,
    ExastroUnavailable,
    LeaseUnavailable,
    Reason,
    SourceUnavailable,
    StoreUnavailable,
)
from ita_ag_oase.model import Batch, Group, Saved, Settlement
from ita_ag_oase.observability.health import Counts, Health, SourceCounts
from ita_ag_oase.observability.measures import Distribution
from ita_ag_oase.status import ElectionStatus, ExastroStatus, Phase, SourceState, SourceStatus, Trouble
from ita_ag_oase.text import Text

URL = "http://exastro"
TIMEOUT = SourceUnavailable(Text("no answer within {seconds} seconds", seconds=30), reason=Reason.TIMEOUT)
DOWN = ExastroUnavailable(Text("Exastro: refused"), reason=Reason.UNREACHABLE)
FULL = StoreUnavailable(Text("no space is left"), reason=Reason.STORE_FULL)
LOCKED = StoreUnavailable(Text("locked by another program"), reason=Reason.STORE_LOCKED)
NO_POLLS = (0, 0, 0, 0, 0, 0, 0)


class Clinic:
    """A Health, and the time it sees."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.health = Health(now=lambda: self.now, elapsed=lambda: self.now)

    def know(self, *names: str) -> None:
        for name in names:
            self.health.source_started(name, is_mail=False)
        self.health.keep_sources(names)

    def poll(self, name: str, outcome: Exception | None = None, *, seconds: float = 0.0) -> None:
        """Poll a second later."""
        self.now += 1
        self.health.poll_started(name)
        self.now += seconds
        if outcome is None:
            self.health.poll_succeeded(name)
        else:
            self.health.poll_failed(name, outcome, "AGT-10029")

    def post(self, outcome: AgentError | None = None, *, seconds: float = 0.5) -> None:
        try:
            with self.health.posting(2_000):
                self.now += seconds
                if outcome is not None:
                    raise outcome
        except AgentError:
            pass

    @property
    def exastro(self) -> ExastroStatus:
        return self.health.exastro(URL)


@pytest.fixture
def clinic() -> Clinic:
    return Clinic()


def _group(number: int, event_count: int) -> Group:
    return Group(number, "id", "n1", "agent", 1_000 + number, event_count, (b"{}",), was_offered=False)


def test_nothing_is_known_at_first(clinic: Clinic) -> None:
    assert (clinic.health.phase, clinic.health.is_ready, clinic.health.sources) == (Phase.STARTING, False, ())
    assert clinic.exastro == ExastroStatus(URL, None, None, None, None, None, None)
    assert clinic.health.counts == Counts(
        sources={},
        poll_seconds=Distribution((0.1, 0.5, 1.0, 5.0, 15.0, 60.0), NO_POLLS, 0.0),
        requests={"succeeded": 0},
        request_seconds=Distribution((0.1, 0.5, 1.0, 5.0, 30.0, 120.0), NO_POLLS, 0.0),
        request_bytes=Distribution((1e3, 1e4, 1e5, 1e6, 1e7), (0, 0, 0, 0, 0, 0), 0.0),
        settled_events={"delivered": 0, "already_saved": 0, "parked": 0},
        refused_codes={},
        settings_fetches={"succeeded": 0},
    )


def test_a_source_that_works_is_told_with_what_it_brought(clinic: Clinic) -> None:
    clinic.health.source_started("mails", is_mail=True)
    clinic.health.keep_sources(["mails"])
    clinic.now = 1_010.0
    clinic.health.poll_started("mails")
    clinic.now = 1_012.0
    clinic.health.events_saved("mails", Saved(new=5, known=3, repeated=1), unusable=2)
    clinic.now = 1_014.0
    clinic.health.poll_succeeded("mails")
    clinic.health.polls_skipped("mails", 2)
    assert clinic.health.sources == (
        SourceStatus(
            "mails",
            is_mail=True,
            state=SourceState.WORKING,
            last_poll=1_010.0,
            last_success=1_014.0,
            last_event=1_012.0,
            new_events=4,
            known_events=3,
            unusable_events=1,
        ),
    )
    assert clinic.health.counts.sources == {
        "mails": SourceCounts({"succeeded": 1}, 4.0, 2, {"new": 4, "unusable": 1, "known": 3, "repeated": 1})
    }
    assert clinic.health.counts.poll_seconds.counts == (0, 0, 0, 1, 1, 1, 1)


def test_a_poll_without_news_leaves_the_time_of_the_last_event(clinic: Clinic) -> None:
    clinic.know("n1")
    clinic.health.events_saved("n1", Saved(new=1, known=0, repeated=0), unusable=0)
    clinic.now += 10
    clinic.health.events_saved("n1", Saved(new=0, known=1, repeated=0), unusable=0)
    assert [source.last_event for source in clinic.health.sources] == [1_000.0]


def test_failures_in_a_row_are_one_trouble_and_the_last_one_is_kept_after_it(clinic: Clinic) -> None:
    clinic.know("n1")
    for _ in range(3):
        clinic.poll("n1", TIMEOUT)
    trouble = Trouble("AGT-10029", "timeout", TIMEOUT.text, since=1_001.0, latest=1_003.0, failures=3)
    failing = SourceStatus("n1", is_mail=False, state=SourceState.FAILING, last_poll=1_003.0, trouble=trouble)
    assert clinic.health.sources == (failing,)
    clinic.poll("n1")
    recovered = dataclasses.replace(failing, state=SourceState.WORKING, last_poll=1_004.0, last_success=1_004.0)
    assert clinic.health.sources == (recovered,)
    clinic.poll("n1", TIMEOUT)
    assert clinic.health.sources[0].trouble == dataclasses.replace(trouble, since=1_005.0, latest=1_005.0, failures=1)


def test_an_unexpected_error_is_told_and_counted_as_such(clinic: Clinic) -> None:
    clinic.know("n1")
    clinic.poll("n1", ZeroDivisionError("by 0"))
    (source,) = clinic.health.sources
    assert source.trouble is not None
    assert (source.trouble.reason, "ZeroDivisionError('by 0')" in str(source.trouble.detail)) == ("unexpected", True)
    assert clinic.health.counts.sources["n1"].polls == {"succeeded": 0, "unexpected": 1}


def test_a_setting_that_cannot_be_used_says_why_until_it_can(clinic: Clinic) -> None:
    clinic.know("n1")
    clinic.poll("n1", TIMEOUT)
    clinic.health.source_unusable("n1", Text("URL is empty"))
    clinic.now += 50
    clinic.health.source_unusable("n1", Text("URL is empty"))
    trouble = Trouble("AGT-10001", "setting", Text("URL is empty"), since=1_001.0, latest=1_051.0, failures=2)
    unusable = SourceStatus("n1", is_mail=False, state=SourceState.UNUSABLE, last_poll=1_001.0, trouble=trouble)
    assert clinic.health.sources == (unusable,)
    clinic.health.source_started("n1", is_mail=False)
    assert clinic.health.sources == (dataclasses.replace(unusable, state=SourceState.WAITING),)


def test_a_setting_that_changes_keeps_its_counts_and_one_that_goes_leaves_none(clinic: Clinic) -> None:
    clinic.know("n1", "n2")
    for name in ("n1", "n2"):
        clinic.poll(name)
    clinic.know("n1")
    clinic.poll("n2")
    clinic.health.events_saved("n2", Saved(new=1, known=0, repeated=0), unusable=0)
    clinic.poll("n2", TIMEOUT)
    clinic.health.polls_skipped("n2", 1)
    assert [source.name for source in clinic.health.sources] == ["n1"]
    assert {name: counts.polls for name, counts in clinic.health.counts.sources.items()} == {"n1": {"succeeded": 1}}


class TestReadiness:
    def test_the_agent_is_ready_once_each_source_was_polled_well_or_not(self, clinic: Clinic) -> None:
        clinic.health.phase = Phase.RUNNING
        seen = [(clinic.health.unfinished_first_polls, clinic.health.is_ready)]
        steps: list[Callable[[], None]] = [
            lambda: clinic.know("n1", "n2"),
            lambda: clinic.poll("n1"),
            lambda: clinic.poll("n2", TIMEOUT),
        ]
        for step in steps:
            step()
            seen.append((clinic.health.unfinished_first_polls, clinic.health.is_ready))
        assert seen == [(None, False), (2, False), (1, False), (0, True)]

    def test_a_setting_that_comes_later_does_not_change_that(self, clinic: Clinic) -> None:
        clinic.health.phase = Phase.RUNNING
        clinic.know("n1")
        clinic.poll("n1")
        clinic.know("n1", "n2")
        assert (clinic.health.unfinished_first_polls, clinic.health.is_ready) == (1, True)

    def test_settings_that_cannot_be_used_are_not_waited_for(self, clinic: Clinic) -> None:
        clinic.health.phase = Phase.RUNNING
        clinic.health.source_unusable("n1", Text("URL is empty"))
        clinic.health.keep_sources(["n1"])
        assert clinic.health.is_ready

    @pytest.mark.parametrize("phase", [phase for phase in Phase if phase not in (Phase.RUNNING, Phase.STANDBY)])
    def test_in_no_other_phase_is_it_ready(self, clinic: Clinic, phase: Phase) -> None:
        clinic.health.phase = Phase.RUNNING
        clinic.know("n1")
        clinic.poll("n1")
        clinic.health.phase = phase
        assert not clinic.health.is_ready


class TestStandby:
    def test_one_that_stands_by_is_ready_and_knows_nothing_of_its_last_turn(self, clinic: Clinic) -> None:
        health = clinic.health
        health.phase = Phase.RUNNING
        clinic.know("n1")
        clinic.poll("n1", SourceUnavailable(Text("no answer"), reason=Reason.TIMEOUT))
        health.settings_fetched()
        health.token_renewed(2_000.0)
        health.clock_compared(3.0)
        health.store_failed(StoreUnavailable(Text("locked"), reason=Reason.STORE_LOCKED), "AGT-10027")
        health.stand_by()
        assert (health.phase, health.is_ready, health.sources) == (Phase.STANDBY, True, ())
        assert health.exastro("http://exastro") == ExastroStatus("http://exastro", None, None, None, None, None, None)
        assert health.is_store_working
        # And begins its next turn as its first one.
        health.phase = Phase.RUNNING
        assert (health.is_ready, health.unfinished_first_polls) == (False, None)

    def test_without_an_election_nothing_is_told_of_one(self, clinic: Clinic) -> None:
        assert clinic.health.election is None

    def test_who_leads_is_told_since_it_was_seen_first(self, clinic: Clinic) -> None:
        health = clinic.health
        health.election_joined("ns/lease", "a_1")
        clinic.now = 1_010.0
        health.holder_seen("b_2")
        clinic.now = 1_020.0
        seen = ElectionStatus("ns/lease", "a_1", holder="b_2", since=1_010.0, term=None, trouble=None, is_working=True)
        assert health.election == seen
        health.holder_seen("a_1")
        health.term_begun(7)
        leading = ElectionStatus("ns/lease", "a_1", holder="a_1", since=1_020.0, term=7, trouble=None, is_working=True)
        assert health.election == leading
        health.term_ended()
        health.holder_seen("")
        assert health.election == dataclasses.replace(leading, holder=None, term=None)

    def test_a_lease_that_fails_is_told_until_it_works(self, clinic: Clinic) -> None:
        health = clinic.health
        health.election_joined("ns/lease", "a_1")
        for clinic.now in (1_010.0, 1_020.0):
            health.lease_failed(LeaseUnavailable(Text("no answer"), reason=Reason.TIMEOUT), "AGT-10001")
        assert health.election is not None
        assert health.election.trouble == Trouble("AGT-10001", "timeout", Text("no answer"), 1_010.0, 1_020.0, 2)
        assert not health.election.is_working
        health.lease_worked()
        assert health.election.is_working


class TestExastro:
    def test_answers_tell_that_it_is_there(self, clinic: Clinic) -> None:
        clinic.health.settings_fetched()
        clinic.health.token_renewed(1_300.0)
        clinic.health.clock_compared(-2.5)
        clinic.now = 1_007.0
        clinic.post(seconds=1.0)
        assert clinic.exastro == ExastroStatus(
            URL,
            is_reachable=True,
            last_success=1_008.0,
            trouble=None,
            token_until=1_300.0,
            settings_fetched=1_000.0,
            clock_difference_seconds=-2.5,
        )

    def test_a_trouble_lasts_until_what_failed_works_again(self, clinic: Clinic) -> None:
        clinic.health.settings_fetched()
        clinic.health.delivery_failed(DOWN, "AGT-00004")
        clinic.health.settings_failed(DOWN, "AGT-00004")
        clinic.health.settings_fetched()
        trouble = Trouble("AGT-00004", "unreachable", DOWN.text, since=1_000.0, latest=1_000.0, failures=1)
        assert (clinic.exastro.is_reachable, clinic.exastro.trouble) == (False, trouble)
        clinic.health.delivery_succeeded()
        assert (clinic.exastro.is_reachable, clinic.exastro.trouble) == (True, trouble)
        assert clinic.health.counts.settings_fetches == {"succeeded": 2, "unreachable": 1}

    def test_a_request_that_it_refuses_is_an_answer(self, clinic: Clinic) -> None:
        clinic.post(ExastroRejected(Text("too large"), reason=Reason.TOO_LARGE))
        assert (clinic.exastro.is_reachable, clinic.exastro.last_success) == (True, 1_000.5)

    def test_requests_are_counted_by_how_they_end(self, clinic: Clinic) -> None:
        for outcome in (None, DOWN, ExastroRejected(Text("no"), reason=Reason.REFUSED), None):
            clinic.post(outcome, seconds=0.75)
        counts = clinic.health.counts
        assert counts.requests == {"succeeded": 2, "unreachable": 1, "refused": 1}
        assert counts.request_seconds == Distribution((0.1, 0.5, 1.0, 5.0, 30.0, 120.0), (0, 0, 4, 4, 4, 4, 4), 3.0)
        assert counts.request_bytes == Distribution((1e3, 1e4, 1e5, 1e6, 1e7), (0, 4, 4, 4, 4, 4), 8_000.0)

    def test_events_are_counted_by_what_became_of_them(self, clinic: Clinic) -> None:
        batch = Batch((_group(1, 10), _group(2, 20), _group(3, 40)))
        clinic.health.batch_settled(batch, Settlement(saved=frozenset({1}), already_saved=frozenset({2})))
        clinic.health.group_parked(40, "499-01827")
        clinic.health.group_parked(1, None)
        assert clinic.health.counts.settled_events == {"delivered": 10, "already_saved": 20, "parked": 41}
        assert clinic.health.counts.refused_codes == {"499-01827": 1, "other": 1}

    def test_codes_beyond_number_are_not_told_apart(self, clinic: Clinic) -> None:
        for code in range(1_000):
            clinic.health.group_parked(1, f"499-{code:05}")
        clinic.health.group_parked(1, "499-00000")
        codes = clinic.health.counts.refused_codes
        assert (len(codes), codes["other"], codes["499-00000"]) == (51, 950, 2)


class TestDrain:
    def test_the_time_is_that_at_the_rate_of_late(self, clinic: Clinic) -> None:
        clinic.post(seconds=2.0)
        clinic.health.batch_settled(Batch((_group(1, 100),)), Settlement(saved=frozenset({1})))
        assert clinic.health.drain_seconds(1_000) == 20.0

    @pytest.mark.parametrize("is_failing", [True, False], ids=["failing", "nothing delivered"])
    def test_it_is_not_known_while_nothing_is_delivered(self, clinic: Clinic, is_failing: bool) -> None:
        if is_failing:
            clinic.post()
            clinic.health.batch_settled(Batch((_group(1, 100),)), Settlement(saved=frozenset({1})))
            clinic.health.delivery_failed(DOWN, "AGT-00004")
        assert clinic.health.drain_seconds(1_000) is None

    def test_nothing_takes_no_time(self, clinic: Clinic) -> None:
        assert clinic.health.drain_seconds(0) == 0.0


class TestStore:
    @pytest.mark.parametrize("failed", ["poll", "delivery", "settings", "purge"])
    def test_its_failures_are_its_own_whoever_met_them(self, clinic: Clinic, failed: str) -> None:
        tell: dict[str, Callable[[Exception, str], None]] = {
            "poll": lambda err, code: clinic.health.poll_failed("n1", err, code),
            "delivery": clinic.health.delivery_failed,
            "settings": clinic.health.settings_failed,
            "purge": clinic.health.store_failed,
        }
        tell[failed](LOCKED, "AGT-10027")
        trouble = Trouble("AGT-10027", "store_locked", LOCKED.text, since=1_000.0, latest=1_000.0, failures=1)
        assert (clinic.health.is_store_working, clinic.health.store_trouble) == (False, trouble)
        assert clinic.exastro.is_reachable is None
        clinic.health.store_worked()
        assert (clinic.health.is_store_working, clinic.health.store_trouble) == (True, trouble)

    @pytest.mark.parametrize(("err", "is_working"), [(LOCKED, True), (FULL, False)], ids=["locked", "full"])
    def test_delivery_and_purging_that_go_on_say_nothing_of_room(
        self, clinic: Clinic, err: StoreUnavailable, is_working: bool
    ) -> None:
        for tell in (clinic.health.delivery_succeeded, clinic.health.store_worked):
            clinic.health.store_failed(err, "AGT-10027")
            tell()
            assert clinic.health.is_store_working is is_working

    def test_a_poll_during_which_the_clock_was_set_is_none_of_its_failures(self, clinic: Clinic) -> None:
        clinic.know("n1")
        clinic.poll("n1", StoreUnavailable(Text("the clock was set during the poll"), reason=Reason.CLOCK))
        assert (clinic.health.sources[0].state, clinic.health.is_store_working) == (SourceState.FAILING, True)

    def test_a_poll_that_is_saved_ends_its_trouble(self, clinic: Clinic) -> None:
        clinic.health.store_failed(FULL, "AGT-10027")
        clinic.health.events_saved("n1", Saved(new=0, known=1, repeated=0), unusable=0)
        assert clinic.health.is_store_working
