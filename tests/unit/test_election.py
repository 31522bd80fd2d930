"""Who leads, from when on and until when: at the times that are the default, by clocks that agree on nothing."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest
from structlog.testing import capture_logs

from ita_ag_oase.agent.election import Elector, KnownTerm, Times
from ita_ag_oase.agent.lease import Lease, read_document
from ita_ag_oase.agent.schedule import Troubles
from ita_ag_oase.errors import AgentError, LeaseChanged, LeaseRefused, LeaseUnavailable, Reason
from ita_ag_oase.text import Text
from lease_api import Changed, Missing, Shelf
from support import in_english

TIMES = Times(lease_seconds=15, renew_seconds=10.0, retry_seconds=2.0)
WAY_SECONDS = 0.01
HOUR = 3_600.0
LONG = 300.0


def _time() -> float:
    return asyncio.get_running_loop().time()


class Wire:
    """The way of one elector to the Lease: `fault` sees each request first, `after` each that has counted."""

    def __init__(self, shelf: Shelf, name: str) -> None:
        self.fault: Callable[[str], Awaitable[None]] = self._pass
        self.after: Callable[[str], Awaitable[None]] = self._pass
        self.requests: list[str] = []
        self._shelf = shelf
        self._name = name

    async def read(self) -> Lease:
        return await self._ask("read", self._shelf.read)

    async def write(self, document: Mapping[str, Any]) -> Lease:
        return await self._ask("write", lambda: self._shelf.write(document, self._name))

    async def _ask(self, request: str, answer: Callable[[], dict[str, Any]]) -> Lease:
        self.requests.append(request)
        try:
            async with asyncio.timeout(TIMES.request_seconds):
                await self.fault(request)
                document = answer()
                await self.after(request)
                return read_document(document)
        except TimeoutError as err:
            raise LeaseUnavailable(Text("no answer in time"), reason=Reason.TIMEOUT) from err
        except Missing as err:
            raise LeaseRefused(Text("there is none"), reason=Reason.HTTP_STATUS) from err
        except Changed as err:
            raise LeaseChanged(Text("it is another one"), reason=Reason.HTTP_STATUS) from err

    async def _pass(self, _: str) -> None:
        await asyncio.sleep(WAY_SECONDS)

    def lose_the_next_answer(self) -> None:
        """Let the next request count, and its answer never come."""

        async def lose(request: str) -> None:
            self.after = self._pass
            await self.silent(request)

        self.after = lose

    async def silent(self, _: str) -> None:
        """Let no request pass, and no answer."""
        await asyncio.sleep(HOUR)

    async def silent_to_writes(self, request: str) -> None:
        """Let looks pass alone."""
        await (self.silent(request) if request == "write" else self._pass(request))


def _refusing(err: AgentError) -> Callable[[str], Awaitable[None]]:
    async def refuse(_: str) -> None:
        await asyncio.sleep(WAY_SECONDS)
        raise err

    return refuse


class Member:
    """One who takes part, and what it did: its terms by number, and when each began and ended."""

    def __init__(self, shelf: Shelf, name: str, *, ahead_seconds: float = 0.0, **options: Any) -> None:
        self.name = name
        self.wire = Wire(shelf, name)
        self.holders: list[str] = []
        self.terms: list[int] = []
        self.began: list[float] = []
        self.ended: list[float] = []
        self.why: list[str] = []
        self._leads = asyncio.Event()
        loop = asyncio.get_running_loop()
        self.elector = Elector(
            self.wire,
            name,
            TIMES,
            troubles=Troubles(failed="lease_failed", recovered="lease_recovered"),
            on_holder=self.holders.append,
            # Clocks are as far apart as can be: one counts from another moment, the other is set wrongly.
            elapsed=lambda: loop.time() + 7 * ahead_seconds,
            wall=lambda: 1_700_000_000 + loop.time() + ahead_seconds,
            **options,
        )
        self._task = asyncio.create_task(self._take_part(), name=name)

    async def _take_part(self) -> None:
        while True:
            self.terms.append(await self.elector.win())
            self.began.append(_time())
            self._leads.set()
            why = await self.elector.hold()
            self._leads.clear()
            self.ended.append(_time())
            self.why.append(str(why))

    async def kill(self) -> None:
        """Let it do nothing any more."""
        self._task.cancel()
        await asyncio.wait([self._task])

    async def leave(self) -> bool:
        """Let it end as it should."""
        await self.kill()
        return await self.elector.release()

    async def leads(self) -> None:
        """Wait until it leads."""
        await self._leads.wait()


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.mark.looptime
async def test_a_lease_as_the_chart_makes_it_is_taken_at_once(shelf: Shelf) -> None:
    member = Member(shelf, "a")
    await asyncio.sleep(1)
    await member.kill()
    assert member.terms == [1]
    # A look and a write, each with a way to go and one to come back.
    assert member.began == pytest.approx([4 * WAY_SECONDS])
    assert shelf.spec == {
        "holderIdentity": "a",
        "leaseDurationSeconds": 15,
        "leaseTransitions": 1,
        "acquireTime": "2023-11-14T22:13:20.020000Z",
        "renewTime": "2023-11-14T22:13:20.020000Z",
    }


@pytest.mark.looptime
async def test_a_leader_goes_on_for_as_long_as_it_can_renew(shelf: Shelf) -> None:
    first = Member(shelf, "a")
    await first.leads()
    second = Member(shelf, "b")
    await asyncio.sleep(LONG)
    await first.kill()
    await second.kill()
    assert (first.terms, first.ended, second.terms) == ([1], [], [])
    assert second.holders == ["a"]
    assert {write.by for write in shelf.writes} == {"a"}


@pytest.mark.looptime
async def test_renewals_come_apart_by_less_than_the_retry_time_and_not_in_step() -> None:
    shelf = Shelf(_time)
    member = Member(shelf, "a")
    await asyncio.sleep(LONG)
    await member.kill()
    # The first one counts from the answer to the write that took it.
    renewals = shelf.writes[1:]
    gaps = [later.at - earlier.at for earlier, later in itertools.pairwise(renewals)]
    assert 1.4 <= min(gaps) < 1.42
    assert 1.78 < max(gaps) <= 1.8


@pytest.mark.looptime
@pytest.mark.parametrize("ahead", [0.0, HOUR, -HOUR])
async def test_another_takes_over_within_17_seconds_of_a_kill(shelf: Shelf, ahead: float) -> None:
    first = Member(shelf, "a")
    await first.leads()
    second = Member(shelf, "b", ahead_seconds=ahead)
    for _ in range(20):
        await asyncio.sleep(20)
        await first.kill()
        killed = _time()
        await second.leads()
        # Not while the killed one could have gone on, were it a frozen one.
        assert TIMES.renew_seconds < _time() - killed < 17
        first, second = second, Member(shelf, first.name, ahead_seconds=-ahead)
    await first.kill()
    await second.kill()


@pytest.mark.looptime
async def test_another_takes_over_within_2_seconds_of_a_release(shelf: Shelf) -> None:
    first = Member(shelf, "a")
    await first.leads()
    second = Member(shelf, "b")
    for term in range(1, 21):
        await asyncio.sleep(20)
        assert await first.leave()
        assert (shelf.holder, shelf.spec["leaseDurationSeconds"], shelf.spec["leaseTransitions"]) == ("", 1, term)
        left = _time()
        await second.leads()
        assert _time() - left < 2
        first, second = second, Member(shelf, first.name)
    await first.kill()
    await second.kill()


@pytest.mark.looptime
async def test_a_leader_that_gets_no_answer_ends_its_term_by_itself_before_another_begins_one(shelf: Shelf) -> None:
    first = Member(shelf, "a")
    await first.leads()
    second = Member(shelf, "b", ahead_seconds=HOUR)
    await asyncio.sleep(20)
    renewed = _time()
    first.wire.fault = first.wire.silent
    await second.leads()
    (ended,) = first.ended
    # Counted from before its last renewal was sent.
    assert ended - renewed <= TIMES.renew_seconds
    assert second.began[0] - ended > TIMES.lease_seconds - TIMES.renew_seconds - TIMES.retry_seconds
    assert first.why == ["the Lease could not be renewed for 10 s"]
    await first.kill()
    await second.kill()


@pytest.mark.looptime
async def test_a_right_lasts_from_before_a_renewal_was_sent_however_late_its_answer_came() -> None:
    shelf = Shelf(_time)
    member = Member(shelf, "a")
    await member.leads()
    member.wire.after = lambda _: asyncio.sleep(1.7)
    await asyncio.sleep(20)
    member.wire.fault = member.wire.silent
    await asyncio.sleep(15)
    assert member.ended == pytest.approx([shelf.writes[-1].at - WAY_SECONDS + TIMES.renew_seconds])
    await member.kill()


@pytest.mark.looptime
@pytest.mark.parametrize(
    "err",
    [
        LeaseUnavailable(Text("500"), reason=Reason.HTTP_STATUS),
        LeaseRefused(Text("403"), reason=Reason.UNAUTHORIZED),
        LeaseUnavailable(Text("refused"), reason=Reason.UNREACHABLE),
    ],
)
async def test_a_leader_that_is_refused_tries_until_its_deadline(shelf: Shelf, err: AgentError) -> None:
    member = Member(shelf, "a")
    await member.leads()
    member.wire.fault = _refusing(err)
    await asyncio.sleep(8)
    assert member.elector.is_at_work()
    member.wire.fault = Wire._pass.__get__(member.wire)
    await asyncio.sleep(LONG)
    assert (member.ended, member.terms) == ([], [1])
    member.wire.fault = _refusing(err)
    refused = _time()
    await asyncio.sleep(10.1)
    assert member.ended == pytest.approx([refused + 10], abs=2)
    await member.kill()


@pytest.mark.looptime
async def test_a_renewal_whose_answer_is_lost_is_found_out_by_a_look(shelf: Shelf) -> None:
    member = Member(shelf, "a")
    await member.leads()
    member.wire.requests.clear()
    member.wire.lose_the_next_answer()
    await asyncio.sleep(LONG)
    assert member.wire.requests[:4] == ["write", "read", "write", "write"]
    assert (member.terms, member.ended) == ([1], [])
    await member.kill()


@pytest.mark.looptime
async def test_a_term_whose_beginning_was_not_answered_is_begun_again_under_another_number(shelf: Shelf) -> None:
    member = Member(shelf, "a")
    member.wire.after = member.wire.silent_to_writes
    await asyncio.sleep(1)
    assert (shelf.holder, shelf.spec["leaseTransitions"], member.terms) == ("a", 1, [])
    member.wire.after = Wire._pass.__get__(member.wire)
    await asyncio.sleep(3)
    assert (shelf.spec["leaseTransitions"], member.terms) == (2, [2])
    await member.kill()


@pytest.mark.looptime
async def test_the_same_pod_after_a_crash_is_another_holder(shelf: Shelf) -> None:
    first = Member(shelf, "pod-1_aaaa")
    await first.leads()
    await first.kill()
    killed = _time()
    second = Member(shelf, "pod-1_bbbb")
    await second.leads()
    assert 15 <= _time() - killed < 17
    assert (first.terms, second.terms) == ([1], [2])
    await second.kill()


@pytest.mark.looptime
async def test_of_many_that_begin_at_once_one_leads(shelf: Shelf) -> None:
    members = [Member(shelf, name) for name in "abcdefgh"]
    await asyncio.sleep(60)
    assert sorted(member.terms for member in members) == [*[[]] * 7, [1]]
    assert [member for member in members if member.elector.is_at_work()] == [
        member for member in members if member.terms
    ]
    for member in members:
        await member.kill()


@pytest.mark.looptime
async def test_a_time_that_the_holder_wrote_is_kept_to(shelf: Shelf) -> None:
    document = shelf.read()
    shelf.put_back({**document, "spec": {"holderIdentity": "other", "leaseDurationSeconds": 40, "leaseTransitions": 7}})
    member = Member(shelf, "a")
    await member.leads()
    assert _time() == pytest.approx(40, abs=0.1)
    assert member.terms == [8]
    await member.kill()


@pytest.mark.looptime
async def test_a_lease_that_a_person_labels_stays_with_its_leader(shelf: Shelf) -> None:
    member = Member(shelf, "a")
    await member.leads()
    for number in range(100):
        shelf.label("touched", str(number))
        await asyncio.sleep(1.1)
    assert (member.terms, member.ended) == ([1], [])
    assert shelf.read()["metadata"]["labels"] == {"app": "oase", "touched": "99"}
    await member.kill()


@pytest.mark.looptime
async def test_a_leader_that_finds_another_holder_ends_at_once(shelf: Shelf) -> None:
    member = Member(shelf, "a")
    await member.leads()
    document = shelf.read()
    shelf.put_back({**document, "spec": {"holderIdentity": "b", "leaseDurationSeconds": 15, "leaseTransitions": 9}})
    await asyncio.sleep(2)
    assert (member.why, member.elector.is_at_work()) == (["the Lease is held by b"], False)
    await member.kill()


@pytest.mark.looptime
async def test_a_lease_that_is_gone_ends_the_term_at_the_deadline_and_is_taken_once_it_is_back(shelf: Shelf) -> None:
    known = [0]

    async def knows() -> KnownTerm:
        return KnownTerm(known[-1], is_rival=False)

    member = Member(shelf, "a", known_term=knows)
    await member.leads()
    known.append(1)
    with capture_logs() as logs:
        gone = _time()
        shelf.forget()
        await asyncio.sleep(30)
        assert member.ended == pytest.approx([gone + 10], abs=2)
        shelf.make()
        await asyncio.sleep(3)
    # The number goes on from what the store knows.
    assert (member.terms, shelf.spec["leaseTransitions"]) == ([1, 2], 2)
    assert [(line["event"], line["log_level"]) for line in in_english(logs) if line["log_level"] != "debug"] == [
        ("lease_failed", "error"),
        ("lease_recovered", "info"),
    ]
    await member.kill()


def _knows(number: int, *, is_rival: bool) -> Callable[[], Awaitable[KnownTerm]]:
    async def known() -> KnownTerm:
        return KnownTerm(number, is_rival)

    return known


@pytest.mark.looptime
async def test_a_lease_that_was_made_anew_is_not_taken_while_its_last_leader_may_go_on(shelf: Shelf) -> None:
    first = Member(shelf, "a")
    await first.leads()
    await asyncio.sleep(100)
    shelf.forget()
    shelf.make()
    made = _time()
    # Starts at this moment, and so knows of the one that leads by the store alone.
    second = Member(shelf, "b", known_term=_knows(1, is_rival=True))
    first.wire.fault = first.wire.silent
    await second.leads()
    assert first.ended[0] < made + 10
    assert _time() - made == pytest.approx(15, abs=0.1)
    assert second.terms == [2]
    await first.kill()
    await second.kill()


@pytest.mark.looptime
async def test_a_store_that_cannot_be_read_may_know_of_one_that_works(shelf: Shelf) -> None:
    async def unknown() -> None:
        return None

    member = Member(shelf, "a", known_term=unknown)
    await member.leads()
    assert _time() == pytest.approx(15, abs=0.1)
    assert member.terms == [1]
    await member.kill()


@pytest.mark.looptime
async def test_a_lease_put_back_from_our_term_is_not_trusted_where_the_store_has_that_number_from_another(
    shelf: Shelf,
) -> None:
    spec = {"holderIdentity": "a", "leaseDurationSeconds": 15, "leaseTransitions": 7}
    shelf.put_back({**shelf.read(), "spec": spec})
    member = Member(shelf, "a", known_term=_knows(7, is_rival=True))
    await member.leads()
    assert _time() == pytest.approx(15, abs=0.1)
    assert member.terms == [8]
    await member.kill()


@pytest.mark.looptime
async def test_a_store_that_another_kind_of_agent_used_only_raises_the_number(shelf: Shelf) -> None:
    member = Member(shelf, "a", known_term=_knows(41, is_rival=False))
    await asyncio.sleep(1)
    assert (member.terms, shelf.spec["leaseTransitions"]) == ([42], 42)
    await member.kill()


@pytest.mark.looptime
async def test_one_that_has_given_the_lease_back_sees_that_nobody_holds_it(shelf: Shelf) -> None:
    member = Member(shelf, "a")
    await member.leads()
    assert await member.leave()
    assert member.holders == ["", "a", ""]


@pytest.mark.looptime
async def test_release_without_an_answer_is_told_and_takes_no_longer_than_a_try(shelf: Shelf) -> None:
    member = Member(shelf, "a")
    await member.leads()
    member.wire.fault = member.wire.silent
    began = _time()
    with capture_logs() as logs:
        assert not await member.leave()
    assert _time() - began <= 2
    assert in_english(logs) == [
        {"log_level": "warning", "event": "lease_kept", "detail": "no answer in time", "seconds": 15}
    ]


@pytest.mark.looptime
async def test_one_that_never_led_releases_nothing(shelf: Shelf) -> None:
    first, second = Member(shelf, "a"), Member(shelf, "b")
    await asyncio.sleep(10)
    follower = second if first.terms else first
    writes = len(shelf.writes)
    assert not await follower.leave()
    assert (len(shelf.writes), shelf.holder) == (writes, "a" if follower is second else "b")
    await first.kill()


@pytest.mark.looptime
async def test_one_that_ends_while_it_takes_the_lease_gives_it_back(shelf: Shelf) -> None:
    member = Member(shelf, "a")
    member.wire.after = member.wire.silent_to_writes
    await asyncio.sleep(1)
    member.wire.after = Wire._pass.__get__(member.wire)
    assert (shelf.holder, await member.leave(), shelf.holder) == ("a", True, "")
