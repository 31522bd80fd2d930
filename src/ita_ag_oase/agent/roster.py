"""Which settings are collected: fetched from Exastro now and then, one polling task each."""

import asyncio
import json
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from ita_ag_oase.agent.schedule import STORE_ERRORS, Troubles, collection_code, mail_code, repeat
from ita_ag_oase.collection import Collector
from ita_ag_oase.errors import AgentError, SettingInvalid
from ita_ag_oase.exastro import wire
from ita_ag_oase.exastro.client import ExastroClient
from ita_ag_oase.exastro.secrets import SecretColumns
from ita_ag_oase.model import CollectionSetting, ConnectionMethod
from ita_ag_oase.observability.health import Health
from ita_ag_oase.store.registry import KNOWN_ROWS
from ita_ag_oase.store.store import Store
from ita_ag_oase.text import Text

_log = structlog.get_logger()

# First polls are spread this far apart, so that many sources do not start in one instant: several times what a poll
# takes, or they pile up.
_SPREAD_SECONDS = 0.01

Row = Mapping[str, Any]


class Roster:
    """The settings in use and the tasks that poll them."""

    def __init__(
        self,
        *,
        client: ExastroClient,
        store: Store,
        secrets: SecretColumns,
        names: Sequence[str],
        interval_seconds: float,
        settings_file: Path,
        make_collector: Callable[[CollectionSetting], Collector],
        health: Health,
        on_secret: Callable[[str], None],
        on_news: Callable[[], None],
        now: Callable[[], float],
    ) -> None:
        self._client = client
        self._store = store
        self._secrets = secrets
        self._names = names
        self._interval_seconds = interval_seconds
        self._file = settings_file
        self._make_collector = make_collector
        self._health = health
        self._on_secret = on_secret
        self._on_news = on_news
        self._now = now
        # Both what was known and what Exastro says may be applied at the same time.
        self._applying = asyncio.Lock()
        self._settings: dict[str, CollectionSetting] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._told_unusable: dict[str, Text] = {}

    async def start_with_known(self) -> None:
        """Begin with the rows that were fetched last, if any, unless Exastro has told them already."""
        known = await self._store.fact(KNOWN_ROWS)
        if known and not self._tasks:
            rows = [row for row in rows_in(known) if wire.name_of(row) in self._names]
            _log.info("settings_known", settings=len(rows))
            await self._apply(rows)

    async def refresh(self) -> None:
        """Fetch the settings and bring the tasks in line. Raises ExastroUnavailable or ExastroRejected."""
        _log.debug("settings_fetching", code="AGT-10008")
        self._remove_file()
        rows = await self._client.fetch_settings(self._names)
        text = json.dumps(rows).encode()
        if text != await self._store.fact(KNOWN_ROWS):
            await self._store.keep_fact(KNOWN_ROWS, text)
        for name in self._names:
            if name not in map(wire.name_of, rows):
                self._tell_unusable(
                    name, Text("Exastro has no such event collection setting: check the name, or restore it")
                )
        await self._apply(rows)
        self._write_file(text)

    def was_file_deleted(self) -> bool:
        """Whether a person deleted the settings file, to have the settings fetched at once."""
        try:
            return self._is_file_kept and not self._file.exists()
        except OSError:
            return True

    async def close(self) -> None:
        """End all polling."""
        await self._stop(list(self._tasks))

    async def _apply(self, rows: Sequence[Row]) -> None:
        async with self._applying:
            await self._bring_in_line(rows)

    async def _bring_in_line(self, rows: Sequence[Row]) -> None:
        # Compared once decrypted: the same secret may come encrypted differently each time.
        wanted = {setting.name: setting for setting in map(self._read, rows) if setting is not None}
        changed = [name for name in self._tasks if wanted.get(name) != self._settings[name]]
        await self._stop(changed)
        started = 0
        for name, setting in wanted.items():
            if name not in self._tasks and await self._start(setting, first_delay_seconds=started * _SPREAD_SECONDS):
                started += 1
        self._health.keep_sources(self._tasks.keys() | self._told_unusable.keys())
        if started or changed:
            _log.info("settings_applied", polled=sorted(self._tasks), started=started, stopped=len(changed))

    def _read(self, row: Row) -> CollectionSetting | None:
        if not wire.is_collected_by_agents(row):
            self._told_unusable.pop(wire.name_of(row), None)
            return None
        try:
            setting = wire.setting_of(row, self._secrets)
        except SettingInvalid as err:
            self._tell_unusable(wire.name_of(row), err.text)
            return None
        for secret in setting.secrets:
            self._on_secret(secret)
        return setting

    async def _start(self, setting: CollectionSetting, *, first_delay_seconds: float) -> bool:
        name = setting.name
        try:
            collector = self._make_collector(setting)
        except SettingInvalid as err:
            self._tell_unusable(name, err.text)
            return False
        await self._store.register(setting.id, name, int(self._now()))
        self._told_unusable.pop(name, None)
        self._health.source_started(name, is_mail=_is_mail(setting))
        self._settings[name] = setting
        polling = self._poll_until_cancelled(setting, collector, first_delay_seconds)
        self._tasks[name] = asyncio.create_task(polling, name=f"poll {name}")
        return True

    async def _poll_until_cancelled(
        self, setting: CollectionSetting, collector: Collector, first_delay_seconds: float
    ) -> None:
        name = setting.name

        async def poll() -> None:
            self._health.poll_started(name)
            if (await collector.collect()).new:
                self._on_news()

        troubles = Troubles(
            failed="collection_failed",
            recovered="collection_recovered",
            on_failure=partial(self._health.poll_failed, name),
            on_success=partial(self._health.poll_succeeded, name),
            setting=name,
        )
        try:
            await repeat(
                poll,
                troubles,
                interval_seconds=self._interval_seconds,
                first_delay_seconds=first_delay_seconds,
                code_of=mail_code if _is_mail(setting) else collection_code,
                on_skipped=partial(self._health.polls_skipped, name),
            )
        finally:
            await collector.close()

    async def _stop(self, names: Sequence[str]) -> None:
        tasks = [self._tasks[name] for name in names]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        # Only now: who is cancelled while it waits leaves them to be found by close().
        for name in names:
            del self._tasks[name], self._settings[name]

    def _tell_unusable(self, name: str, why: Text) -> None:
        self._health.source_unusable(name, why)
        if self._told_unusable.get(name) != why:
            self._told_unusable[name] = why
            _log.error("setting_unusable", code="AGT-10001", setting=name, detail=why)

    _is_file_kept = False

    def _remove_file(self) -> None:
        self._is_file_kept = False
        try:
            self._file.unlink(missing_ok=True)
        except OSError as err:
            _log.debug("settings_file_kept", path=str(self._file), detail=str(err))

    def _write_file(self, text: bytes) -> None:
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._file.unlink(missing_ok=True)
            # Made anew for this user alone: under /tmp anyone may have left a link of that name.
            descriptor = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(text)
            self._is_file_kept = True
        except OSError as err:
            # Only the shortcut of deleting it is lost.
            _log.debug("settings_file_missing", path=str(self._file), detail=str(err))


def rows_in(known: bytes) -> list[Row]:
    """Return the rows that were kept; none where the disk has changed them, since Exastro will tell them again."""
    try:
        rows = json.loads(known)
    except ValueError:
        return []
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def _is_mail(setting: CollectionSetting) -> bool:
    return setting.connection_method is ConnectionMethod.IMAP_PASSWORD


def refresh_code(err: Exception) -> str:
    """Return the message code of settings that could not be fetched (protocol section 2.9)."""
    if isinstance(err, STORE_ERRORS):
        return "AGT-10027"
    return "AGT-10010" if isinstance(err, AgentError) and str(err).startswith("Exastro answered") else "AGT-00004"
