"""Builds everything, runs it until a signal, and takes it down in reverse."""

import asyncio
import contextlib
import functools
import signal
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import structlog

from ita_ag_oase import __version__, clock, transport
from ita_ag_oase.agent.roster import Roster, refresh_code
from ita_ag_oase.agent.schedule import Troubles, delivery_code, until_it_works, wait_for
from ita_ag_oase.agent.storage import hold_lock, open_store
from ita_ag_oase.agent.timekeeper import Timekeeper
from ita_ag_oase.clock import SteadyClock
from ita_ag_oase.collection import Collector
from ita_ag_oase.delivery import Delivery
from ita_ag_oase.errors import ConfigError
from ita_ag_oase.exastro.auth import AccessTokens, RefreshTokenAuth
from ita_ag_oase.exastro.client import ExastroClient
from ita_ag_oase.exastro.secrets import SecretColumns
from ita_ag_oase.model import CollectionSetting
from ita_ag_oase.observability.logs import Redactor
from ita_ag_oase.settings import Settings
from ita_ag_oase.sources.http import HttpClients
from ita_ag_oase.sources.source import open_source
from ita_ag_oase.store.store import Store

_log = structlog.get_logger()

_PURGE_EVERY_SECONDS = 600.0
# A request in flight may end within this time after SIGTERM; then it is abandoned, to be sent again at the next start.
_LAST_DELIVERY_SECONDS = 5.0
# So long the first polls wait for Exastro's first answer.
_FIRST_ANSWER_SECONDS = 5.0


class Agent:
    """The running daemon. `stop` and `refresh` are what signals set."""

    def __init__(self, settings: Settings, redactor: Redactor) -> None:
        self._settings = settings
        self._redactor = redactor
        self.stop = asyncio.Event()
        self.refresh = asyncio.Event()
        self._news = asyncio.Event()
        self._has_asked = asyncio.Event()

    async def run(self) -> None:
        """Run until `stop` is set. Raises StoreUnavailable, StoreDamaged or ConfigError where it cannot start."""
        for secret in self._settings.secrets:
            self._redactor.add(secret)
        async with contextlib.AsyncExitStack() as stack:
            if not await stack.enter_async_context(hold_lock(self._settings.store_path, self.stop)):
                return
            store = await stack.enter_async_context(open_store(self._settings, on_damage=self.stop.set))
            timekeeper = Timekeeper(store)
            await timekeeper.open()
            client = await stack.enter_async_context(self._open_exastro(store, timekeeper))
            roster = await stack.enter_async_context(self._open_roster(store, client, timekeeper.clock))
            delivery = Delivery(
                store,
                client,
                max_events=self._settings.batch_max_events,
                max_bytes=self._settings.batch_max_bytes,
                now=timekeeper.clock.now,
            )
            self._tell_started(await store.waiting_events())
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
            _log.info("agent_stopping")
            await _end(others)
            await roster.close()
            if delivery.is_under_way:
                await asyncio.wait([delivering], timeout=_LAST_DELIVERY_SECONDS)
            await _end([delivering])
        _log.info("agent_stopped")
        if store.damage:
            raise store.damage

    @asynccontextmanager
    async def _open_exastro(self, store: Store, timekeeper: Timekeeper) -> AsyncIterator[ExastroClient]:
        settings = self._settings
        url = httpx.URL(settings.exastro_url)
        client = httpx.AsyncClient(
            verify=_tls("EXASTRO_CA_FILE", verify=settings.exastro_tls_verify, ca_file=settings.exastro_ca_file),
            proxy=self._proxies().choose(url),
            trust_env=False,
            headers={"Accept": "application/json", "Accept-Encoding": transport.ACCEPTED_ENCODING},
            event_hooks={"response": [functools.partial(_note_date, timekeeper)]},
        )
        base_url = (
            f"{settings.exastro_url}/api/{settings.exastro_organization_id}/workspaces/{settings.exastro_workspace_id}"
        )
        async with client, self._open_auth(client, store) as auth:
            yield ExastroClient(client, auth, base_url=base_url)

    @asynccontextmanager
    async def _open_auth(self, client: httpx.AsyncClient, store: Store) -> AsyncIterator[httpx.Auth]:
        settings = self._settings
        refresh_token = settings.refresh_token
        if refresh_token is None:
            yield httpx.BasicAuth(settings.exastro_username or "", settings.password or "")
            return
        organization = settings.exastro_organization_id
        tokens = AccessTokens(
            client,
            token_url=f"{settings.exastro_url}/auth/realms/{organization}/protocol/openid-connect/token",
            client_id=f"_{organization}-api",
            refresh_token=refresh_token,
            facts=store,
            on_secret=self._redactor.add,
        )
        try:
            yield RefreshTokenAuth(tokens)
        finally:
            await tokens.close()

    @asynccontextmanager
    async def _open_roster(self, store: Store, client: ExastroClient, steady: SteadyClock) -> AsyncIterator[Roster]:
        settings = self._settings
        zone = clock.zone(settings.tz)
        make_tls = functools.partial(
            _tls, "SOURCE_CA_FILE", verify=settings.source_tls_verify, ca_file=settings.source_ca_file
        )
        clients = HttpClients(
            tls=make_tls(),
            proxies=self._proxies(),
        )

        # Made when the first mailbox needs it, and not that of HTTP: httpx puts HTTP's name into it (ALPN).
        mail_tls = functools.cache(make_tls)

        def make_collector(setting: CollectionSetting) -> Collector:
            source = open_source(setting, clients, make_tls=mail_tls, max_bytes=settings.response_max_bytes, zone=zone)
            return Collector(setting, source, store, steady, agent_name=settings.agent_identity)

        roster = Roster(
            client=client,
            store=store,
            secrets=SecretColumns(settings.exastro_organization_id, settings.exastro_workspace_id),
            names=settings.event_collection_settings_names,
            interval_seconds=settings.execute_interval,
            settings_file=settings.settings_file,
            make_collector=make_collector,
            on_secret=self._redactor.add,
            on_news=self._news.set,
            now=steady.now,
        )
        try:
            yield roster
        finally:
            await roster.close()
            await clients.close()

    def _proxies(self) -> transport.Proxies:
        settings = self._settings
        return transport.Proxies(http=settings.http_proxy, https=settings.https_proxy, no_proxy=settings.no_proxy)

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
                _log.warning(
                    "tls_not_verified", variable=f"{name}_TLS_VERIFY", action="anyone on the way can read along"
                )

    async def _deliver(self, delivery: Delivery) -> None:
        troubles = Troubles(failed="delivery_failed", recovered="delivery_recovered")
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
        troubles = Troubles(failed="settings_failed", recovered="settings_recovered")
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

    @staticmethod
    async def _purge(store: Store, steady: SteadyClock) -> None:
        troubles = Troubles(failed="purge_failed", recovered="purge_recovered")
        while True:
            while await until_it_works(lambda: store.purge(int(steady.now())), troubles, lambda _: "AGT-10027"):
                pass
            await asyncio.sleep(_PURGE_EVERY_SECONDS)


def tell_adjustments(settings: Settings) -> None:
    """Log the values that were moved into their range, and a time zone that is not known by that name."""
    for adjustment in settings.adjustments:
        _log.warning("value_adjusted", **adjustment._asdict())
    if settings.tz and clock.zone(settings.tz) is None and not clock.is_posix_zone(settings.tz):
        _log.warning("time_zone_unknown", variable="TZ", given=settings.tz, used="the system's own")


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


async def _note_date(timekeeper: Timekeeper, response: httpx.Response) -> None:
    date = transport.date_seconds(response)
    if date is not None:
        await timekeeper.note(date)


async def _end(tasks: Sequence[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


def _tls(variable: str, *, verify: bool, ca_file: Path | None) -> ssl.SSLContext:
    try:
        return transport.tls_context(verify=verify, ca_file=ca_file)
    except OSError as err:
        raise ConfigError([(variable, f"{ca_file} holds no certificate; write the path of a PEM file")]) from err
