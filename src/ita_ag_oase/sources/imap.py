"""Mailboxes: what is new in one, read over IMAP in bounded portions.

The position in a mailbox and the portions are explained in docs/decisions/0007-mail-by-uid-in-portions.md.
"""

import asyncio
import contextlib
import json
import threading
import time
import zlib
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import NamedTuple, Protocol, TypeVar

import msgspec
import structlog

from ita_ag_oase.errors import AgentError, Reason, SourceUnavailable
from ita_ag_oase.model import Cursor, Destination, Event, Portion
from ita_ag_oase.sources.mail import read_mail
from ita_ag_oase.text import Text

_log = structlog.get_logger()
T = TypeVar("T")

# For one portion, connecting included; a server that trickles forever must end, too.
TOTAL_SECONDS = 120.0
LOGOUT_SECONDS = 2.0
# A portion ends with the mail that reaches one of these, so that memory follows one mail and slow servers get on, too.
PORTION_BYTES = 1_048_576
PORTION_SECONDS = 20.0
# As many UIDs as fit into a command of about 1,000 octets (RFC 2683 section 3.2.1.5).
PORTION_MAILS = 100
# UIDs looked at in one search, which bounds the line that answers it.
WINDOW_UIDS = 5_000
# How far back mail is read again when UIDs lost their meaning: for a server whose clock is behind. Ids are remembered
# for longer.
MARGIN_SECONDS = 1_800


class Examined(NamedTuple):
    """The state of a mailbox: `uid_next` is greater than every UID in it (RFC 3501 section 2.3.1.1)."""

    uid_validity: int
    uid_next: int


class Listed(NamedTuple):
    """A mail before it is fetched; `arrival` is its INTERNALDATE (epoch seconds), None where the server has none."""

    uid: int
    arrival: float | None
    size_bytes: int


class Connection(Protocol):
    """A connection to the server of one mailbox. All but `abort` block, and are called by one thread at a time.

    They raise SourceUnavailable where asking anew may help, SourceRejected and SourceUnreadable where it will not.
    """

    def open(self) -> None:
        """Connect and log in."""

    def examine(self) -> Examined:
        """Choose the mailbox, for reading only, and return its state."""

    def search(self, first: int, last: int) -> list[int]:
        """Return the UIDs of the mails in a range, both ends included, in order."""

    def search_since(self, day: date) -> list[int]:
        """Return the UIDs of the mails that arrived on a day of the server's calendar or later, in order."""

    def list_mails(self, uids: Sequence[int]) -> list[Listed]:
        """Return those of the mails that are still there, in order."""

    def fetch(self, uid: int) -> bytes | None:
        """Return a mail, cut at the bound, without marking it as seen; None where it is no longer there."""

    def logout(self) -> None:
        """Say goodbye and close; what goes wrong meanwhile is of no interest."""

    def close(self) -> None:
        """Close without a word."""

    def abort(self) -> None:
        """Have whoever waits for the server fail at once; may be called from any thread."""


class Position(msgspec.Struct, frozen=True):
    """How far a mailbox was read: up to `last_uid`, which means something while mailbox and `uid_validity` stay.

    Mail that arrived before `since` (epoch seconds) is none of ours.
    """

    mailbox: str
    uid_validity: int
    last_uid: int
    since: int


class ImapSource:
    """One setting's mailbox. `mailbox` tells it from others that the setting may have named before."""

    def __init__(
        self,
        name: str,
        connect: Callable[[], Connection],
        *,
        mailbox: str,
        destination: Destination,
        max_bytes: int,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._connect = connect
        self._mailbox = mailbox
        self._destination = destination
        self._place = destination.place
        self._max_bytes = max_bytes
        self._seconds = seconds
        self._kept: Connection | None = None

    async def fetch(self, cursor: Cursor, now: float) -> Portion:
        """Return the next portion of new mail; `now` is of no interest here, since the server's UIDs are.

        Raises SourceUnavailable (no connection, no answer), SourceRejected (login, mailbox or encryption refused) and
        SourceUnreadable (an answer that is no IMAP).
        """
        try:
            async with asyncio.timeout(TOTAL_SECONDS):
                return await self._fetch(cursor)
        except TimeoutError as err:
            raise SourceUnavailable(
                Text(
                    "{place}: a portion of mail took longer than {seconds:.0f} s: check the server and what lies "
                    "between; where its mails are very large, lower RESPONSE_MAX_BYTES",
                    place=self._place,
                    seconds=TOTAL_SECONDS,
                ),
                reason=Reason.TIMEOUT,
            ) from err

    async def destination(self, cursor: Cursor, now: float) -> Destination:
        """Return where the mailbox is."""
        return self._destination

    async def close(self) -> None:
        """Log out, where there is a connection."""
        connection, self._kept = self._kept, None
        if connection is None:
            return
        try:
            async with asyncio.timeout(LOGOUT_SECONDS):
                await _in_thread(connection.logout, name=f"logout {self._name}")
        except TimeoutError:
            connection.abort()

    async def _fetch(self, cursor: Cursor) -> Portion:
        if self._kept is not None:
            # Servers end connections that were idle for long, or whose mailbox was made anew.
            with contextlib.suppress(AgentError):
                return await self._use(self._kept, cursor, is_open=True)
        return await self._use(self._connect(), cursor, is_open=False)

    async def _use(self, connection: Connection, cursor: Cursor, *, is_open: bool) -> Portion:
        self._kept = None

        def work() -> Portion:
            try:
                if not is_open:
                    connection.open()
                return self._read(connection, cursor)
            except BaseException:
                connection.close()
                raise

        try:
            portion = await _in_thread(work, name=f"mail {self._name}", on_dropped=connection.close)
        except BaseException:
            connection.abort()
            raise
        self._kept = connection
        return portion

    def _read(self, connection: Connection, cursor: Cursor) -> Portion:
        state = connection.examine()
        position = self._position(connection, cursor, state)
        last_uid = min(position.last_uid + WINDOW_UIDS, state.uid_next - 1)
        uids = connection.search(position.last_uid + 1, last_uid) if last_uid > position.last_uid else []
        listed = connection.list_mails(uids[:PORTION_MAILS]) if uids else []
        if len(uids) > PORTION_MAILS:
            last_uid = uids[PORTION_MAILS - 1]
        wanted = [mail for mail in listed if mail.arrival is None or mail.arrival >= position.since]
        events, stopped_at = self._fetch_mails(connection, wanted)
        done = max(last_uid if stopped_at is None else stopped_at, position.last_uid)
        return Portion(
            events=events,
            position=msgspec.json.encode(msgspec.structs.replace(position, last_uid=done)).decode(),
            has_more=done < state.uid_next - 1,
        )

    def _position(self, connection: Connection, cursor: Cursor, state: Examined) -> Position:
        """Return where to read on: where the last portion ended or, without that, before the first mail that counts."""
        since = cursor.last_fetched_time
        known = _known(cursor.position)
        if known is not None and known.mailbox == self._mailbox:
            # The cursor is set back with a clock that was ahead at the first sight; the position knows nothing of it.
            known = msgspec.structs.replace(known, since=min(known.since, since))
            # A server that was put back to an older state may give UIDs again without a word.
            if known.uid_validity == state.uid_validity and known.last_uid < state.uid_next:
                return known
            since = max(known.since, since - MARGIN_SECONDS)
        # The server's calendar may be a day behind ours.
        uids = connection.search_since(datetime.fromtimestamp(since, UTC).date() - timedelta(days=1))
        last_uid = uids[0] - 1 if uids else state.uid_next - 1
        return Position(self._mailbox, state.uid_validity, last_uid, since)

    def _fetch_mails(self, connection: Connection, wanted: Sequence[Listed]) -> tuple[list[Event], int | None]:
        """Return the mails as events, and the UID of the last one where the portion ended before all."""
        events: list[Event] = []
        size_bytes = 0
        started = self._seconds()
        for number, mail in enumerate(wanted, 1):
            try:
                raw = connection.fetch(mail.uid)
            except AgentError:
                # A mail that never can be fetched must not hold back those before it; the next portion begins with it.
                if not events:
                    raise
                return events, wanted[number - 2].uid
            if raw is None:
                # Most likely moved or deleted meanwhile, but the mail could be one that the server cannot read.
                _log.warning("mail_passed_by", setting=self._name, uid=mail.uid, size_bytes=mail.size_bytes)
            else:
                size_bytes += len(raw)
                events.append(self._event(mail, raw))
            is_full = size_bytes >= PORTION_BYTES or self._seconds() - started >= PORTION_SECONDS
            if is_full and number < len(wanted):
                return events, mail.uid
        return events, None

    def _event(self, listed: Listed, raw: bytes) -> Event:
        # The same at every reading, also when the mail comes back under another UID.
        fallback_id = f"{self._name}_{int(listed.arrival or 0)}.{zlib.crc32(raw):010}"
        mail = read_mail(raw, fallback_id=fallback_id)
        if len(raw) >= self._max_bytes:
            _log.warning(
                "mail_shortened",
                setting=self._name,
                message_id=mail.message_id[:200],
                size_bytes=listed.size_bytes,
                kept_bytes=len(raw),
            )
        for attachment in mail.attachments:
            _log.debug("attachment_left_out", setting=self._name, name=attachment.name, size=attachment.size_bytes)
        # Half a character, as wrongly labelled mails have, becomes a question mark.
        body = json.dumps(mail.event, ensure_ascii=False).encode("utf-8", "replace")
        message_id = mail.message_id.encode("utf-8", "replace").decode()
        return Event(message_id, is_serial=False, raw=body, unavailable=None)


def _known(position: str | None) -> Position | None:
    """Return a position from before; None before the first, and for one that a disk has changed."""
    try:
        return msgspec.json.decode(position, type=Position) if position is not None else None
    except msgspec.DecodeError:
        return None


async def _in_thread(work: Callable[[], T], *, name: str, on_dropped: Callable[[], None] = lambda: None) -> T:
    """Return what `work` returns in a thread of its own, which holds up neither other work nor the process's end.

    `on_dropped` is called in place of that where nobody waits for the result any more.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def succeed(result: T) -> None:
        if future.done():
            on_dropped()
        else:
            future.set_result(result)

    def fail(err: BaseException) -> None:
        if not future.done():
            future.set_exception(err)

    def run() -> None:
        try:
            outcome = partial(succeed, work())
        except BaseException as err:  # noqa: BLE001 - handed to who waits
            outcome = partial(fail, err)
        # The loop may have ended meanwhile.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(outcome)

    threading.Thread(target=run, name=name, daemon=True).start()
    return await future
