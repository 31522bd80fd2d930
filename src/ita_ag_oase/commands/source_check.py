"""What `check` finds out about one setting: its row, the way to its source, one poll, and what that brings."""

import asyncio
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from ita_ag_oase import clock
from ita_ag_oase.agent.connections import SourceMaker
from ita_ag_oase.agent.roster import Row
from ita_ag_oase.collection import collection_of
from ita_ag_oase.commands.findings import Check, Finding, State
from ita_ag_oase.commands.kept import Kept
from ita_ag_oase.commands.way import Fields, check_way
from ita_ag_oase.errors import AgentError, Reason, SettingInvalid, SourceUnavailable
from ita_ag_oase.events import extract
from ita_ag_oase.events.extract import Extractor
from ita_ag_oase.exastro import wire
from ita_ag_oase.exastro.secrets import SecretColumns
from ita_ag_oase.model import (
    CollectionSetting,
    ConnectionMethod,
    Cursor,
    Event,
    EventFate,
    Exchange,
    Payload,
    Portion,
)
from ita_ag_oase.sources.source import LocatedSource
from ita_ag_oase.text import Text, counted

SETTING_SECONDS = 30.0


def remedy_for(reason: str) -> Text:
    """Return what to do about events that are unusable for a reason."""
    if reason == extract.KEY_NOT_FOUND:
        return Text("write where the events are in RESPONSE_KEY")
    if reason == extract.ID_NOT_FOUND:
        return Text("write what identifies an event in EVENT_ID_KEY")
    if reason in (extract.IS_A_LIST, extract.IS_NO_LIST):
        return Text("choose the other value in RESPONSE_LIST_FLAG, or another RESPONSE_KEY")
    return Text("write in RESPONSE_KEY where there is an object, or a list of objects with RESPONSE_LIST_FLAG")


@dataclass(frozen=True, slots=True)
class Workbench:
    """What checking any setting takes."""

    make_source: SourceMaker
    secrets: SecretColumns
    kept: Kept
    tls: ssl.SSLContext
    agent_name: str
    on_secret: Callable[[str], None]


async def check_setting(name: str, row: Row | None, bench: Workbench) -> list[Finding]:
    """Return what is found out about a setting, up to what makes the rest impossible, within a bound of time."""
    found: list[Finding] = []
    try:
        async with asyncio.timeout(SETTING_SECONDS):
            async for finding in _check(name, row, bench):
                found.append(finding)  # noqa: PERF401 - what was found counts, also where the time is over
    except TimeoutError:
        message = Text("it was not done within {seconds:.0f} s", seconds=SETTING_SECONDS)
        action = Text("check how its source is doing")
        found.append(Finding(Check.POLL, name, State.FAILED, message, action))
    return found


async def _check(name: str, row: Row | None, bench: Workbench) -> AsyncIterator[Finding]:
    if row is None:
        message = Text("Exastro has no such event collection setting, or it is discarded")
        action = Text("check EVENT_COLLECTION_SETTINGS_NAMES, or restore the setting in Exastro")
        yield Finding(Check.SETTING, name, State.FAILED, message, action)
        return
    if not wire.is_collected_by_agents(row):
        message = Text("its CONNECTION_METHOD_ID says that no agent collects it")
        action = Text("choose another CONNECTION_METHOD_ID, or take it out of EVENT_COLLECTION_SETTINGS_NAMES")
        yield Finding(Check.SETTING, name, State.WARNING, message, action)
        return
    exchanges: list[Exchange] = []
    try:
        setting = wire.setting_of(row, bench.secrets)
        for secret in setting.secrets:
            bench.on_secret(secret)
        source = bench.make_source(setting, on_exchange=exchanges.append)
        extractor = Extractor.of(setting)
    except SettingInvalid as err:
        check = Check.TEMPLATE if err.reason is Reason.TEMPLATE else Check.SETTING
        yield Finding(check, name, State.FAILED, Text("{error}", error=err))
        return
    yield Finding(Check.SETTING, name, State.OK, Text("its row can be used"))
    try:
        async for finding in _SourceCheck(setting, source, extractor, exchanges, bench).run():
            yield finding
    finally:
        await source.close()


class _SourceCheck:
    """Asks the source of a setting once, from where the agent would ask."""

    def __init__(
        self,
        setting: CollectionSetting,
        source: LocatedSource,
        extractor: Extractor,
        exchanges: list[Exchange],
        bench: Workbench,
    ) -> None:
        self._setting = setting
        self._source = source
        self._extractor = extractor
        self._exchanges = exchanges
        self._bench = bench
        self._now = clock.now()

    async def run(self) -> AsyncIterator[Finding]:
        name = self._setting.name
        try:
            cursor = await asyncio.to_thread(self._bench.kept.cursor, self._setting.id)
        except AgentError:
            # The store is told of elsewhere.
            cursor = None
        cursor = cursor or Cursor(int(self._now), None)
        try:
            destination = await self._source.destination(cursor, self._now)
        except AgentError as err:
            yield Finding(Check.TEMPLATE, name, State.FAILED, Text("{error}", error=err))
            yield self._skipped()
            return
        if not self._is_mail:
            yield Finding(Check.TEMPLATE, name, State.OK, Text("its templates render"))
        async for finding in check_way(name, destination, self._bench.tls, self._fields):
            yield finding
            if finding.state is State.FAILED:
                yield self._skipped()
                return
        async for finding in self._poll(cursor):
            yield finding

    async def _poll(self, cursor: Cursor) -> AsyncIterator[Finding]:
        name = self._setting.name
        try:
            answer = await self._source.fetch(cursor, self._now)
            found = collection_of(self._setting, self._extractor, answer, self._now, agent_name=self._bench.agent_name)
            events = list(found.events)
        except AgentError as err:
            yield Finding(self._failed_check(err), name, State.FAILED, Text("{error}", error=err), self._action(err))
            return
        yield self._answered(answer)
        if isinstance(answer, Payload):
            async for finding in self._judge(events, has_key=found.moves_cursor):
                yield finding
        yield await self._count(events, has_more=isinstance(answer, Portion) and answer.has_more)

    def _answered(self, answer: Payload | Portion) -> Finding:
        name = self._setting.name
        if isinstance(answer, Portion):
            message = Text(
                "the login works, and the mailbox {mailbox} is there", mailbox=self._setting.mailbox or "INBOX"
            )
            return Finding(Check.MAILBOX, name, State.OK, message)
        status = self._exchanges[-1].status if self._exchanges else None
        message = Text("a poll is answered with {status} and {count} bytes", status=status, count=len(answer.body))
        return Finding(Check.POLL, name, State.OK, message)

    async def _judge(self, events: list[Event], *, has_key: bool) -> AsyncIterator[Finding]:
        setting = self._setting
        if not has_key:
            message = Text("RESPONSE_KEY {key!r} finds nothing in the answer", key=setting.response_key)
            yield Finding(Check.RESPONSE_KEY, setting.name, State.FAILED, message, remedy_for(extract.KEY_NOT_FOUND))
            return
        if setting.response_key:
            message = Text("RESPONSE_KEY {key!r} is found", key=setting.response_key)
            yield Finding(Check.RESPONSE_KEY, setting.name, State.OK, message)
        reasons = Counter(event.unavailable for event in events if event.unavailable)
        missing = reasons.pop(extract.ID_NOT_FOUND, 0)
        for reason, count in reasons.items():
            yield self._unusable(reason, count)
        if events and not reasons:
            yield self._judge_ids(missing, len(events))

    def _unusable(self, reason: str, count: int) -> Finding:
        what = counted(
            "{count} event is unusable: {reason}", "{count} events are unusable: {reason}", count=count, reason=reason
        )
        return Finding(Check.EVENTS, self._setting.name, State.FAILED, what, remedy_for(reason))

    def _judge_ids(self, missing: int, total: int) -> Finding:
        setting = self._setting
        if not setting.event_id_key:
            message = Text(
                "without EVENT_ID_KEY nothing is known from before: each poll delivers all it is answered with"
            )
            return Finding(Check.EVENT_IDS, setting.name, State.OK, message)
        if missing:
            message = Text(
                "EVENT_ID_KEY {key!r} finds nothing in {missing} of {total} events",
                key=setting.event_id_key,
                missing=missing,
                total=total,
            )
            return Finding(Check.EVENT_IDS, setting.name, State.FAILED, message, remedy_for(extract.ID_NOT_FOUND))
        message = Text("EVENT_ID_KEY {key!r} is found in all events", key=setting.event_id_key)
        return Finding(Check.EVENT_IDS, setting.name, State.OK, message)

    async def _count(self, events: list[Event], *, has_more: bool) -> Finding:
        name = self._setting.name
        try:
            fates = await asyncio.to_thread(self._bench.kept.fates, self._setting.id, events)
        except AgentError as err:
            return Finding(Check.EVENTS, name, State.SKIPPED, Text("which events are new: {error}", error=err))
        facts = {"count": len(events), "new": fates.count(EventFate.NEW)}
        if has_more:
            message = counted(
                "{count} event at first, {new} new", "{count} events at first, {new} of them new", **facts
            )
        else:
            message = counted("{count} event, {new} new", "{count} events, {new} of them new", **facts)
        return Finding(Check.EVENTS, name, State.OK, message)

    @property
    def _is_mail(self) -> bool:
        return self._setting.connection_method is ConnectionMethod.IMAP_PASSWORD

    @property
    def _fields(self) -> Fields:
        address = Text("URL, PORT and REQUEST_METHOD_ID") if self._is_mail else "URL"
        proxy = "PROXY" if self._setting.proxy else Text("HTTP_PROXY or HTTPS_PROXY")
        return Fields(address, proxy, "SOURCE_CA_FILE", "SOURCE_TLS_VERIFY")

    def _failed_check(self, err: AgentError) -> Check:
        if not self._is_mail:
            return Check.POLL
        return {Reason.UNAUTHORIZED: Check.LOGIN, Reason.MAILBOX: Check.MAILBOX}.get(err.reason, Check.POLL)

    def _action(self, err: AgentError) -> Text:
        # The way there was looked at before.
        if isinstance(err, SourceUnavailable):
            return Text("check how its source is doing")
        columns = _COLUMNS.get(err.reason, "URL")
        if err.reason is Reason.UNAUTHORIZED:
            columns = _CREDENTIALS[self._setting.connection_method]
        return Text("look at {columns}", columns=columns)

    def _skipped(self) -> Finding:
        return Finding(Check.POLL, self._setting.name, State.SKIPPED, Text("a poll and its events"))


_COLUMNS = {
    Reason.HTTP_STATUS: "URL, PARAMETER",
    Reason.TOO_LARGE: "PARAMETER, RESPONSE_MAX_BYTES",
    Reason.NOT_JSON: "URL, PARAMETER, REQUEST_HEADER",
    Reason.EXPRESSION: "RESPONSE_KEY, EVENT_ID_KEY",
    Reason.MAILBOX: "MAILBOXNAME",
    Reason.NOT_IMAP: "URL, PORT, REQUEST_METHOD_ID",
}
_CREDENTIALS = {
    ConnectionMethod.BEARER: "AUTH_TOKEN",
    ConnectionMethod.BASIC: "USERNAME, PASSWORD",
    ConnectionMethod.SHARED_KEY: "ACCESS_KEY_ID, SECRET_ACCESS_KEY",
    ConnectionMethod.IMAP_PASSWORD: "USERNAME, PASSWORD",
    ConnectionMethod.NONE: "CONNECTION_METHOD_ID, REQUEST_HEADER",
}
