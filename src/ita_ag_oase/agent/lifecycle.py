"""Builds everything, runs it until a signal, and takes it down in reverse."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import structlog

from ita_ag_oase import __version__, clock
from ita_ag_oase.agent.connections import Encryption, open_exastro, open_sources
from ita_ag_oase.agent.endpoints import serve_status
from ita_ag_oase.agent.leadership import Turn, open_leadership
from ita_ag_oase.agent.overview import Overview
from ita_ag_oase.agent.roster import Roster, refresh_code
from ita_ag_oase.agent.schedule import Troubles, delivery_code, until_it_works, wait_for
from ita_ag_oase.agent.storage import hold_lock, open_store
from ita_ag_oase.agent.timekeeper import Timekeeper
from ita_ag_oase.clock import SteadyClock
from ita_ag_oase.collection import Collector
from ita_ag_oase.delivery import Delivery
from ita_ag_oase.errors import AgentError
from ita_ag_oase.exastro.client import ExastroClient
from ita_ag_oase.exastro.secrets import SecretColumns
from ita_ag_oase.model import Claim, CollectionSetting
from ita_ag_oase.observability.health import Health
from ita_ag_oase.observability.logs import Redactor
from ita_ag_oase.settings import Settings
from ita_ag_oase.status import Phase
from ita_ag_oase.store.store import Store
from ita_ag_oase.text import Text

_log = structlog.get_logger()

_PURGE_EVERY_SECONDS = 600.0
# A request in flight may end within this time after SIGTERM; then it is abandoned, to be sent again at the next start.
_LAST_DELIVERY_SECONDS = 5.0
# So long the first polls wait for Exastro's first answer.
_FIRST_ANSWER_SECONDS = 5.0


class Agent:
    """The running daemon. `stop` and `refresh` are what signals set; `elapsed` is the clock of an election."""

    def __init__(self, settings: Settings, redactor: Redactor, *, elapsed: Callable[[], float] = clock.elapsed) -> None:
        self._settings = settings
        self._elapsed = elapsed
        self._redactor = redactor
        self.stop = asyncio.Event()
        self.refresh = asyncio.Event()
        self._news = asyncio.Event()
        self._has_asked = asyncio.Event()
        self._health = Health()

    async def run(self) -> None:
        """Run until `stop` is set.

        Raises StoreUnavailable, StoreDamaged or ConfigError where it cannot start, StoreDamaged or TermEnded where it
        cannot go on.
        """
        for secret in self._settings.secrets:
            self._redactor.add(secret)
        async with contextlib.AsyncExitStack() as stack:
            overview = Overview(self._settings, self._health)
            await stack.enter_async_context(serve_status(self._settings, overview, self._redactor))
            if self._settings.has_election:
                leadership = await stack.enter_async_context(
                    open_leadership(self._settings, self._health, self._elapsed)
                )
                error = await leadership.take_turns(lambda turn: self._serve(overview, turn), self.stop)
            else:
                error = await self._serve(overview)
        _log.info("agent_stopped")
        if error:
            raise error

    async def _serve(self, overview: Overview, turn: Turn | None = None) -> AgentError | None:
        """Work until `stop` is set, and return what is wrong with the store then; in a turn, it may be cancelled."""
        claim = turn.claim if turn else None
        is_at_work = turn.is_at_work if turn else _always
        async with contextlib.AsyncExitStack() as stack:
            if not await stack.enter_async_context(self._hold_lock(claim)):
                return None
            store = await stack.enter_async_context(
                open_store(
                    self._settings,
                    on_damage=self.stop.set,
                    on_term_ended=turn.on_term_ended if turn else self.stop.set,
                    claim=claim,
                    is_at_work=is_at_work,
                )
            )
            timekeeper = Timekeeper(store, on_difference=self._health.clock_compared)
            await timekeeper.open()
            await stack.enter_async_context(overview.over(store, timekeeper.clock))
            await self._work(store, timekeeper, is_at_work)
        return store.damage or store.term_ended

    async def _work(self, store: Store, timekeeper: Timekeeper, is_at_work: Callable[[], bool]) -> None:
        """Collect and deliver until `stop` is set."""
        encryption = Encryption(self._settings)
        async with contextlib.AsyncExitStack() as stack:
            client = await stack.enter_async_context(
                open_exastro(
                    self._settings,
                    store,
                    encryption=encryption,
                    on_secret=self._redactor.add,
                    on_date=timekeeper.note,
                    on_expiry=self._health.token_renewed,
                    is_at_work=is_at_work,
                )
            )
            roster = await stack.enter_async_context(self._open_roster(store, client, timekeeper.clock, encryption))
            delivery = Delivery(
                store,
                client,
                self._health,
                max_events=self._settings.batch_max_events,
                max_bytes=self._settings.batch_max_bytes,
                now=timekeeper.clock.now,
                redact=self._redactor.redact,
                is_at_work=is_at_work,
            )
            self._has_asked.clear()
            self._tell_started(await store.waiting_events())
            self._health.phase = Phase.RUNNING
            delivering = asyncio.create_task(self._deliver(delivery), name="deliver")
            others = [
                asyncio.create_task(self._keep_settings(roster), name="settings"),
                asyncio.create_task(self._purge(store, timekeeper.clock), name="purge"),
            ]
            stack.push_async_callback(_end, [delivering, *others])
            # What Exastro answers tells whether the clock was set since the last life.
            await _wait_for_any((self._has_asked, self.stop), _FIRST_ANSWER_SECONDS)
            await roster.start_with_known()
            await self.stop.wait()
            self._health.phase = Phase.STOPPING
            _log.info("agent_stopping")
            await _end(others)
            await roster.close()
            if delivery.is_under_way:
                await asyncio.wait([delivering], timeout=_LAST_DELIVERY_SECONDS)
            await _end([delivering])

    @asynccontextmanager
    async def _hold_lock(self, claim: Claim | None) -> AsyncIterator[bool]:
        def note_wait() -> None:
            self._health.phase = Phase.WAITING_FOR_STORE

        self._health.phase = Phase.STARTING
        async with hold_lock(self._settings.store_path, self.stop, on_wait=note_wait, claim=claim) as is_ours:
            self._health.phase = Phase.STARTING if is_ours else Phase.STOPPING
            yield is_ours

    @asynccontextmanager
    async def _open_roster(
        self, store: Store, client: ExastroClient, steady: SteadyClock, encryption: Encryption
    ) -> AsyncIterator[Roster]:
        settings = self._settings
        async with open_sources(settings, encryption) as make_source:

            def make_collector(setting: CollectionSetting) -> Collector:
                source = make_source(setting)
                return Collector(setting, source, store, steady, self._health, agent_name=settings.agent_identity)

            roster = Roster(
                client=client,
                store=store,
                secrets=SecretColumns(settings.exastro_organization_id, settings.exastro_workspace_id),
                names=settings.event_collection_settings_names,
                interval_seconds=settings.execute_interval,
                settings_file=settings.settings_file,
                make_collector=make_collector,
                health=self._health,
                on_secret=self._redactor.add,
                on_news=self._news.set,
                now=steady.now,
            )
            try:
                yield roster
            finally:
                await roster.close()

    def _tell_started(self, waiting_events: int) -> None:
        settings = self._settings
        _log.info(
            "agent_started",
            version=__version__,
            exastro=settings.exastro_url,
            agent=settings.agent_identity,
            settings=settings.event_collection_settings_names,
            interval_seconds=settings.execute_interval,
            store=str(settings.store_path),
            waiting_events=waiting_events,
        )
        for name, is_verified in (("EXASTRO", settings.exastro_tls_verify), ("SOURCE", settings.source_tls_verify)):
            if not is_verified:
                _log.warning("tls_not_verified", variable=f"{name}_TLS_VERIFY")

    async def _deliver(self, delivery: Delivery) -> None:
        troubles = Troubles(
            failed="delivery_failed",
            recovered="delivery_recovered",
            on_failure=self._health.delivery_failed,
            on_success=self._health.delivery_succeeded,
        )
        while True:
            self._news.clear()
            count = await until_it_works(delivery.deliver_next, troubles, delivery_code)
            if self.stop.is_set():
                return
            if count is None:
                _log.debug("nothing_to_deliver", code="AGT-10021")
                # Not for ever: a poll that was cancelled after it was saved brings no news.
                await wait_for(self._news, self._settings.execute_interval)

    async def _keep_settings(self, roster: Roster) -> None:
        settings = self._settings
        troubles = Troubles(
            failed="settings_failed",
            recovered="settings_recovered",
            on_failure=self._health.settings_failed,
            on_success=self._health.settings_fetched,
        )
        while True:
            self.refresh.clear()
            await until_it_works(lambda: self._refresh(roster), troubles, refresh_code)
            for _ in range(settings.iteration):
                await wait_for(self.refresh, settings.execute_interval)
                if self.refresh.is_set() or roster.was_file_deleted():
                    break

    async def _refresh(self, roster: Roster) -> None:
        try:
            await roster.refresh()
        finally:
            self._has_asked.set()

    async def _purge(self, store: Store, steady: SteadyClock) -> None:
        troubles = Troubles(
            failed="purge_failed",
            recovered="purge_recovered",
            on_failure=self._health.store_failed,
            on_success=self._health.store_worked,
        )
        while True:
            while await until_it_works(lambda: store.purge(int(steady.now())), troubles, lambda _: "AGT-10027"):
                pass
            await asyncio.sleep(_PURGE_EVERY_SECONDS)


def _always() -> bool:
    return True


def tell_adjustments(settings: Settings) -> None:
    """Log the values that were moved into their range, and a time zone that is not known by that name."""
    for adjustment in settings.adjustments:
        _log.warning("value_adjusted", **adjustment._asdict())
    if clock.is_unknown_zone(settings.tz):
        _log.warning("time_zone_unknown", variable="TZ", given=settings.tz, used=Text("the system's own"))


async def run(settings: Settings, redactor: Redactor) -> None:
    """Run the agent until SIGTERM or SIGINT; SIGHUP has the settings fetched anew. Raises as `Agent.run` does."""
    agent = Agent(settings, redactor)
    loop = asyncio.get_running_loop()
    for number, event in ((signal.SIGTERM, agent.stop), (signal.SIGINT, agent.stop), (signal.SIGHUP, agent.refresh)):
        loop.add_signal_handler(number, event.set)
    await agent.run()


async def _wait_for_any(events: Sequence[asyncio.Event], seconds: float) -> None:
    waiting = [asyncio.create_task(event.wait(), name="wait") for event in events]
    try:
        await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await _end(waiting)


async def _end(tasks: Sequence[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
