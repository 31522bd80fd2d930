"""Takes turns at the work with other agents: stands by until the Lease is won, works while it is held, and again."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import structlog

from ita_ag_oase.agent.election import Elector, KnownTerm, Times
from ita_ag_oase.agent.lease import LeaseApi, LeasePlace
from ita_ag_oase.agent.schedule import Troubles, wait_for
from ita_ag_oase.errors import AgentError, Reason, StoreUnavailable, TermEnded
from ita_ag_oase.model import Claim
from ita_ag_oase.observability.health import Health
from ita_ag_oase.settings import Settings
from ita_ag_oase.status import Phase
from ita_ag_oase.store.access import read_term
from ita_ag_oase.text import Text

_log = structlog.get_logger()


class Turn(NamedTuple):
    """What a turn at the work needs: the claim on the store, and whether the term lasts at this moment.

    `on_term_ended` is to be called where the store knows of a later term.
    """

    claim: Claim
    is_at_work: Callable[[], bool]
    on_term_ended: Callable[[], None]


# Works until it is to end, and returns what it must end the process with, if anything. It is cancelled on loss.
Work = Callable[[Turn], Coroutine[Any, Any, AgentError | None]]


class Leadership:
    """One process's part in an election."""

    def __init__(self, settings: Settings, health: Health, api: LeaseApi, elapsed: Callable[[], float]) -> None:
        self._settings = settings
        self._health = health
        self._times = times_of(settings)
        # The name of a process rather than of a pod: what the one before it in this pod left under way may go on.
        self._identity = f"{settings.pod_name or settings.hostname or settings.agent_name}_{secrets.token_hex(4)}"
        self._elector = Elector(
            api,
            self._identity,
            self._times,
            troubles=Troubles(
                failed="lease_failed",
                recovered="lease_recovered",
                on_failure=health.lease_failed,
                on_success=health.lease_worked,
                lease=settings.lease,
            ),
            known_term=self._known_term,
            on_holder=health.holder_seen,
            elapsed=elapsed,
        )
        health.election_joined(settings.lease, self._identity)

    async def take_turns(self, work: Work, stop: asyncio.Event) -> AgentError | None:
        """Stand by and work in turns until `stop` is set, or the work returns an error, which is returned.

        A turn ends with TermEnded, and with StoreUnavailable: another one may reach the store. Raises what else the
        work raises.
        """
        _log.info("standby_started", lease=self._settings.lease, holder=self._identity)
        try:
            while not stop.is_set():
                self._health.stand_by()
                number = await self._win(stop)
                if number is None:
                    break
                error = await self._lead(number, work, stop)
                if isinstance(error, TermEnded | StoreUnavailable):
                    await self._give_up(number, error.text, stop)
                elif error is not None:
                    return error
        finally:
            self._health.phase = Phase.STOPPING
            if await self._elector.release():
                _log.info("leadership_released", lease=self._settings.lease)
        return None

    async def _win(self, stop: asyncio.Event) -> int | None:
        """Return the number of a term that has begun; None where `stop` was set before."""
        winning = asyncio.create_task(self._elector.win(), name="election")
        stopping = asyncio.create_task(stop.wait(), name="wait")
        try:
            await asyncio.wait([winning, stopping], return_when=asyncio.FIRST_COMPLETED)
            return None if stop.is_set() else winning.result()
        finally:
            await _end([winning, stopping])

    async def _lead(self, number: int, work: Work, stop: asyncio.Event) -> AgentError | None:
        lease = self._settings.lease
        is_passed_over = asyncio.Event()
        claim = Claim(holder=self._identity, guard=lease, number=number)
        _log.info("leadership_won", lease=lease, term=number)
        self._health.term_begun(number)
        holding = asyncio.create_task(self._elector.hold(), name="lease")
        passing = asyncio.create_task(is_passed_over.wait(), name="wait")
        turn = Turn(claim, self._elector.is_at_work, is_passed_over.set)
        working = asyncio.create_task(work(turn), name="work")
        try:
            await asyncio.wait([holding, working, passing], return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                self._elector.end_term()
                self._health.term_ended()
                self._health.stand_by()
                is_lost = holding.done()
                if is_lost:
                    _log.warning("leadership_lost", lease=lease, term=number, detail=holding.result())
                await _end([working])
                if not is_lost and working.cancelled():
                    return _passed_over()
            return None if working.cancelled() else working.result()
        except (TermEnded, StoreUnavailable) as err:
            return err
        finally:
            # The Lease is held until nothing is under way any more.
            await _end([working])
            await _end([holding, passing])
            self._elector.end_term()
            self._health.term_ended()

    async def _give_up(self, number: int, why: Text, stop: asyncio.Event) -> None:
        """End a turn for what the store said, and let others try; not at once again, or the log would be full of it."""
        self._health.stand_by()
        _log.warning("leadership_lost", lease=self._settings.lease, term=number, detail=why)
        await self._elector.release()
        await wait_for(stop, self._times.lease_seconds)

    async def _known_term(self) -> KnownTerm | None:
        try:
            term = await asyncio.to_thread(read_term, self._settings.store_path)
        except AgentError:
            # What it is about is told when the store is opened.
            return None
        if term is None:
            return KnownTerm()
        is_rival = term.guard == self._settings.lease and term.holder != self._identity
        return KnownTerm(term.number, is_rival)


@asynccontextmanager
async def open_leadership(
    settings: Settings, health: Health, elapsed: Callable[[], float]
) -> AsyncIterator[Leadership]:
    """Yield the part in the election that is configured; `elapsed` is the clock of its terms."""
    api = lease_api(settings)
    try:
        yield Leadership(settings, health, api, elapsed)
    finally:
        await api.close()


def lease_api(settings: Settings) -> LeaseApi:
    """Return what reads and writes the configured Lease."""
    place = LeasePlace(
        url=settings.kubernetes_url,
        namespace=settings.lease_namespace or "",
        name=settings.lease_name or "",
        credentials=settings.lease_credentials,
    )
    return LeaseApi(place, seconds=times_of(settings).request_seconds)


def times_of(settings: Settings) -> Times:
    """Return the configured times."""
    return Times(settings.lease_seconds, settings.lease_renew_seconds, settings.lease_retry_seconds)


def _passed_over() -> TermEnded:
    return TermEnded(Text("another agent has begun a later term in the store"), reason=Reason.TERM_ENDED)


async def _end(tasks: Sequence[asyncio.Future[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
