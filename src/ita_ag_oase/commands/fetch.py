"""`ita-ag-oase fetch`: one poll of one source, shown step by step. It saves nothing."""

import asyncio
import itertools
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, tzinfo
from typing import Any

import msgspec

from ita_ag_oase import clock
from ita_ag_oase.agent.connections import open_exastro, open_sources
from ita_ag_oase.agent.roster import Row
from ita_ag_oase.collection import collection_of
from ita_ag_oase.commands import hiding
from ita_ag_oase.commands.console import Colour, Console
from ita_ag_oase.commands.exastro_check import ANSWER_SECONDS, TOKEN_LOST, TOKEN_LOST_ACTION
from ita_ag_oase.commands.kept import Kept
from ita_ag_oase.commands.source_check import remedy_for
from ita_ag_oase.errors import AgentError, ExastroUnavailable, Reason, SettingInvalid
from ita_ag_oase.events import json_text
from ita_ag_oase.events.extract import Extractor
from ita_ag_oase.events.json_text import first_byte
from ita_ag_oase.exastro import wire
from ita_ag_oase.exastro.secrets import SecretColumns
from ita_ag_oase.model import (
    Collection,
    CollectionSetting,
    ConnectionMethod,
    Cursor,
    Event,
    EventFate,
    Exchange,
    Payload,
    Portion,
    RequestMethod,
)
from ita_ag_oase.observability.logs import configure
from ita_ag_oase.settings import Settings
from ita_ag_oase.sources.imap_server import server_of
from ita_ag_oase.store.saving import as_delivered
from ita_ag_oase.text import Text, counted, shorten

_INDENT = "  "
# Of an answer that cannot be read.
_BEGIN_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be shown: the setting, from when on, and how many events (None: all).

    `uses_known` takes the setting as Exastro told it last, without asking.
    """

    name: str
    uses_known: bool
    since: datetime | None
    shown_events: int | None


@dataclass(frozen=True, slots=True)
class _Found:
    """What one poll brought; `error` is why it brought nothing."""

    exchanges: Sequence[Exchange]
    seconds: float
    answer: Payload | Portion | None = None
    collection: Collection | None = None
    events: Sequence[Event] = ()
    fates: Sequence[EventFate] = ()
    error: AgentError | None = None


def fetch(console: Console, settings: Settings, wish: Wish, *, as_json: bool) -> int:
    """Print one poll of a setting's source; return 1 where it fails, else 0.

    Raises ConfigError for a CA file without a certificate, and other errors where there is no setting to poll with.
    """
    configure(level="ERROR", zone=None, redactor=console.redactor, stream=sys.stderr)
    return asyncio.run(_fetch(console, settings, wish, as_json=as_json))


async def _fetch(console: Console, settings: Settings, wish: Wish, *, as_json: bool) -> int:
    kept = Kept(settings.store_path)
    row, origin = await _find_row(console, settings, kept, wish)
    if kept.has_lost_a_fact:
        console.warn(Text("{what} -- {action}", what=TOKEN_LOST, action=TOKEN_LOST_ACTION))
    setting = wire.setting_of(row, SecretColumns(settings.exastro_organization_id, settings.exastro_workspace_id))
    for secret in setting.secrets:
        console.redactor.add(secret)
    now = clock.now()
    zone = clock.zone(settings.tz)
    cursor = _cursor(kept, setting, wish.since, now=now, zone=zone)
    found = await _poll(settings, kept, setting, cursor, now)
    for secret in {secret for exchange in found.exchanges for secret in hiding.credentials_of(exchange)}:
        console.redactor.add(secret)
    # Known secrets first: one with an ampersand is more than the value that a name hides.
    shown = [replace(exchange, url=console.redactor.redact(exchange.url)) for exchange in found.exchanges]
    found = replace(found, exchanges=shown)
    view = _View(console, setting, cursor, found, zone=zone, shown_events=wish.shown_events)
    if as_json:
        console.json({"from": origin, **view.as_object()})
    else:
        view.show(origin)
    return 1 if found.error else 0


async def _find_row(console: Console, settings: Settings, kept: Kept, wish: Wish) -> tuple[Row, str]:
    """Return the row of the setting, and whether it comes from `exastro` or from the `store`."""
    if not wish.uses_known:
        try:
            return _row_of(wish.name, await _ask_exastro(console, settings, kept, wish.name)), "exastro"
        except ExastroUnavailable as err:
            rows = [row for row in kept.rows() if wire.name_of(row) == wish.name]
            if not rows:
                raise
            console.warn(Text("{error} -- the setting is taken as Exastro told it last", error=err))
            return rows[0], "store"
    return _row_of(wish.name, kept.rows()), "store"


async def _ask_exastro(console: Console, settings: Settings, kept: Kept, name: str) -> Sequence[Row]:
    async def note_date(_: float) -> None:
        """Leave the clock alone: it is `check` that compares it."""

    try:
        async with (
            asyncio.timeout(ANSWER_SECONDS),
            open_exastro(settings, kept, on_secret=console.redactor.add, on_date=note_date) as client,
        ):
            return await client.fetch_settings([name])
    except TimeoutError as err:
        raise ExastroUnavailable(Text("Exastro: no answer in time"), reason=Reason.TIMEOUT) from err


def _row_of(name: str, rows: Sequence[Row]) -> Row:
    for row in rows:
        if wire.name_of(row) == name:
            return row
    raise SettingInvalid(
        Text("{name}: there is no such event collection setting: check the name, or restore it in Exastro", name=name),
        reason=Reason.SETTING,
    )


def _cursor(
    kept: Kept, setting: CollectionSetting, since: datetime | None, *, now: float, zone: tzinfo | None
) -> Cursor:
    """Return from where to ask: the agent's cursor, else now; from `since` on, where that is given."""
    if since is None:
        return kept.cursor(setting.id) or Cursor(int(now), None)
    moment = since if since.tzinfo or zone is None else since.replace(tzinfo=zone)
    last = kept.cursor(setting.id)
    return Cursor(int(moment.timestamp()), last.last_event if last else None)


async def _poll(settings: Settings, kept: Kept, setting: CollectionSetting, cursor: Cursor, now: float) -> _Found:
    exchanges: list[Exchange] = []
    extractor = Extractor.of(setting)
    async with open_sources(settings) as make_source:
        source = make_source(setting, on_exchange=exchanges.append)
        started = time.monotonic()
        answer = None
        try:
            answer = await source.fetch(cursor, now)
            seconds = time.monotonic() - started
            collection = collection_of(setting, extractor, answer, now, agent_name=settings.agent_identity)
            events = list(collection.events)
            fates = await asyncio.to_thread(kept.fates, setting.id, events)
        except AgentError as err:
            return _Found(exchanges, time.monotonic() - started, answer, error=err)
        finally:
            await source.close()
    return _Found(exchanges, seconds, answer, collection, events, fates)


class _View:
    """A poll as a person, or a program, reads it."""

    def __init__(
        self,
        console: Console,
        setting: CollectionSetting,
        cursor: Cursor,
        found: _Found,
        *,
        zone: tzinfo | None,
        shown_events: int | None,
    ) -> None:
        self._console = console
        self._setting = setting
        self._cursor = cursor
        self._found = found
        self._zone = zone
        self._shown = tuple(itertools.islice(zip(found.events, found.fates, strict=True), shown_events))

    def show(self, origin: str) -> None:
        """Print it in sections."""
        say, name = self._console.say, self._setting.name
        say(
            Text("setting {name}, as Exastro has it now", name=name)
            if origin == "exastro"
            else Text("setting {name}, as Exastro told it last", name=name)
        )
        last = self._cursor.last_fetched_time
        moment = clock.local(last, self._zone).isoformat(timespec="seconds")
        say(Text("last fetched time: {seconds} ({moment})", seconds=last, moment=moment))
        if self._is_mail:
            self._show_mailbox()
        for exchange in self._found.exchanges:
            self._show_exchange(exchange)
        self._show_answer()
        if self._found.error is not None:
            say(Text("failed: {error}", error=self._found.error), colour=Colour.BAD)
            return
        self._show_events()

    def as_object(self) -> dict[str, Any]:
        """Return it as what JSON knows."""
        found, answer = self._found, self._found.answer
        return {
            "setting": self._setting.name,
            "last_fetched_time": self._cursor.last_fetched_time,
            "requests": [_as_object(exchange) for exchange in found.exchanges],
            "mailbox": self._setting.mailbox or "INBOX" if self._is_mail else None,
            "size_bytes": len(answer.body) if isinstance(answer, Payload) else None,
            "seconds": round(found.seconds, 3),
            "has_more": answer.has_more if isinstance(answer, Portion) else False,
            "response_key_found": found.collection.moves_cursor
            if isinstance(answer, Payload) and found.collection
            else None,
            "counts": self._counts(),
            "events": [
                {
                    "fate": fate.value,
                    "unavailable": event.unavailable,
                    "event": msgspec.json.decode(self._delivered(event)),
                }
                for event, fate in self._shown
            ],
            "error": self._console.told(found.error) if found.error else None,
        }

    @property
    def _is_mail(self) -> bool:
        return self._setting.connection_method is ConnectionMethod.IMAP_PASSWORD

    def _show_mailbox(self) -> None:
        setting = self._setting
        server = server_of(setting)
        self._console.say()
        self._console.say(Text("request"))
        self._line(Text("connect to {place} {security}", place=server.place, security=_SECURITY[server.security]))
        if server.proxy is not None:
            self._line(Text("through the SOCKS5 proxy {host}:{port}", host=server.proxy.host, port=server.proxy.port))
        self._line(Text("log in as {user}", user=server.username))
        self._line(Text("open the mailbox {mailbox} for reading only", mailbox=server.mailbox))
        self._line(Text("fetch the mails that have arrived, without marking them"))

    def _show_exchange(self, exchange: Exchange) -> None:
        self._console.say()
        self._console.say(Text("request"))
        self._line(f"{exchange.method} {hiding.url_of(exchange)}")
        for name, value in hiding.headers_of(exchange):
            self._line(f"{name}: {value}")
        body = hiding.body_of(exchange)
        if body is not None:
            self._line(_pretty(msgspec.json.encode(body)))
        self._console.say()
        self._console.say(Text("answer"))
        if exchange.status is None:
            self._line(Text("none"))
        else:
            self._line(f"{exchange.status} {exchange.content_type or ''}".rstrip())

    def _show_answer(self) -> None:
        found, answer = self._found, self._found.answer
        if isinstance(answer, Payload):
            size = counted("{count} byte", "{count} bytes", count=len(answer.body))
            self._line(Text("{size} in {seconds:.3f} s", size=size, seconds=found.seconds))
            if found.error is not None:
                # In no character set does a character take more bytes.
                begin = json_text.decoded(answer.body[: 4 * _BEGIN_CHARACTERS + 4], answer.charset)
                # Without secrets before it is quoted, which is a way of writing them more.
                begin = self._console.told(shorten(begin, _BEGIN_CHARACTERS))
                self._line(Text("it begins with {begin!r}", begin=begin))
            elif self._setting.response_key:
                self._line(_where_key_led(self._setting, answer))

    def _show_events(self) -> None:
        say, counts = self._console.say, self._counts()
        say()
        say(
            counted(
                "{count} event: {new} new, {known} known; {unusable} unusable, {repeated} of them as at the last poll",
                "{count} events: {new} new, {known} known; {unusable} unusable, {repeated} of them as at the last poll",
                **counts,
            )
        )
        if isinstance(self._found.answer, Portion) and self._found.answer.has_more:
            say(Text("there are more, which the agent fetches in portions like this one"))
        for number, (event, fate) in enumerate(self._shown, 1):
            say()
            say(Text("event {number}: {fate}", number=number, fate=_FATES[fate]), colour=Colour.FAINT)
            if event.unavailable is not None:
                why = Text(
                    "unusable: {reason} -- {action}", reason=event.unavailable, action=remedy_for(event.unavailable)
                )
                say(why, colour=Colour.DOUBTFUL)
            say(_pretty(self._delivered(event)))

    def _delivered(self, event: Event) -> bytes:
        collection = self._found.collection
        return as_delivered(event, collection.labels) if collection else bytes(event.raw)

    def _counts(self) -> dict[str, int]:
        fates = self._found.fates
        return {
            "count": len(fates),
            "new": fates.count(EventFate.NEW),
            "known": fates.count(EventFate.KNOWN),
            "repeated": fates.count(EventFate.REPEATED),
            "unusable": sum(event.unavailable is not None for event in self._found.events),
        }

    def _line(self, what: Text | str) -> None:
        told = self._console.told(what)
        self._console.say("\n".join(f"{_INDENT}{line}" for line in told.split("\n")))


_SECURITY = {
    RequestMethod.IMAP_TLS: Text("over TLS"),
    RequestMethod.IMAP_STARTTLS: Text("with STARTTLS"),
    RequestMethod.IMAP_PLAIN: Text("in plain text"),
}
_FATES = {
    EventFate.NEW: Text("new"),
    EventFate.KNOWN: Text("known, not delivered again"),
    EventFate.REPEATED: Text("as unusable as before, not delivered again"),
}


def _where_key_led(setting: CollectionSetting, answer: Payload) -> Text:
    expression = Extractor.of(setting).response_key
    value = expression.find(json_text.normalize(answer.body, answer.charset)) if expression else None
    if value is None:
        return Text("RESPONSE_KEY {key!r} leads nowhere", key=setting.response_key)
    kind = first_byte(value)
    if kind == b"[":
        what = Text("a list of {length}", length=len(json_text.elements(value)))
    else:
        what = Text("an object") if kind == b"{" else Text("a single value")
    return Text("RESPONSE_KEY {key!r} leads to {what}", key=setting.response_key, what=what)


def _pretty(text: bytes) -> str:
    return msgspec.json.format(text, indent=2).decode(errors="replace")


def _as_object(exchange: Exchange) -> dict[str, Any]:
    return {
        "method": exchange.method,
        "url": hiding.url_of(exchange),
        "headers": dict(hiding.headers_of(exchange)),
        "body": hiding.body_of(exchange),
        "status": exchange.status,
        "content_type": exchange.content_type,
    }
