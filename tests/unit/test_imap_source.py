"""What is read of a mailbox, in which portions, and what becomes of the connection (protocol section 2.7)."""

import asyncio
import json
import threading
import zlib
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime

import pytest
from structlog.testing import capture_logs

from ita_ag_oase.errors import AgentError, Reason, SourceRejected, SourceUnavailable
from ita_ag_oase.model import Cursor, Destination, Portion
from ita_ag_oase.sources.imap import (
    LOGOUT_SECONDS,
    MARGIN_SECONDS,
    PORTION_BYTES,
    PORTION_MAILS,
    PORTION_SECONDS,
    TOTAL_SECONDS,
    WINDOW_UIDS,
    Examined,
    ImapSource,
    Listed,
)
from ita_ag_oase.text import Text

START = 1_704_034_800
MAX_BYTES = 100_000
BROKEN = SourceUnavailable(Text("broken"), reason=Reason.UNREACHABLE)
REJECTED = SourceRejected(Text("refused"), reason=Reason.MAILBOX)


class Mailbox:
    """Mails by UID as (arrival, raw), and what happened to the connections."""

    def __init__(self) -> None:
        self.mails: dict[int, tuple[float | None, bytes]] = {}
        self.uid_validity = 7
        self.uid_next = 1
        self.events: list[str] = []
        self.errors: list[AgentError] = []
        self.seconds = 0.0
        self.on_fetch: Callable[[int], None] = lambda uid: None

    def add(self, *names: str, at: float | None = 1, size: int = 0) -> None:
        """Have mails arrive, some seconds after the start."""
        for name in names:
            arrival = None if at is None else START + at
            self.mails[self.uid_next] = (arrival, _mail(name, size))
            self.uid_next += 1


class Connection:
    """A connection to the mailbox as `sources.imap` wants it."""

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox

    def open(self) -> None:
        self._mailbox.events.append("open")

    def examine(self) -> Examined:
        if self._mailbox.errors:
            raise self._mailbox.errors.pop(0)
        return Examined(self._mailbox.uid_validity, self._mailbox.uid_next)

    def search(self, first: int, last: int) -> list[int]:
        return [uid for uid in sorted(self._mailbox.mails) if first <= uid <= last]

    def search_since(self, day: date) -> list[int]:
        earliest = datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()
        return [uid for uid, (at, _) in sorted(self._mailbox.mails.items()) if (at or earliest) >= earliest]

    def list_mails(self, uids: Sequence[int]) -> list[Listed]:
        mails = self._mailbox.mails
        return [Listed(uid, mails[uid][0], len(mails[uid][1])) for uid in uids if uid in mails]

    def fetch(self, uid: int) -> bytes | None:
        self._mailbox.on_fetch(uid)
        return self._mailbox.mails[uid][1][:MAX_BYTES] if uid in self._mailbox.mails else None

    def logout(self) -> None:
        self._mailbox.events.append("logout")

    def close(self) -> None:
        self._mailbox.events.append("close")

    def abort(self) -> None:
        self._mailbox.events.append("abort")


class Reader:
    """A source that is asked portion by portion, as the collector asks it."""

    def __init__(self, mailbox: Mailbox) -> None:
        self.mailbox = mailbox
        self.cursor = Cursor(START, None)
        self.source = self.open("user@host/INBOX")

    def open(self, identity: str, connect: Callable[[], Connection] | None = None) -> ImapSource:
        make = connect or (lambda: Connection(self.mailbox))
        return ImapSource(
            "n1",
            make,
            mailbox=identity,
            destination=Destination("host", 993, is_encrypted=True),
            max_bytes=MAX_BYTES,
            seconds=lambda: self.mailbox.seconds,
        )

    async def portion(self) -> Portion:
        """Return the next portion and remember its position."""
        found = await self.source.fetch(self.cursor, START)
        self.cursor = Cursor(self.cursor.last_fetched_time, None, found.position)
        return found

    async def poll(self) -> list[str]:
        """Return the names of all mails up to the end."""
        names, has_more = [], True
        while has_more:
            found = await self.portion()
            names += _names(found)
            has_more = found.has_more
        return names

    def fetched(self, seconds: int) -> None:
        """Move the last fetched time to some seconds after the start."""
        self.cursor = Cursor(START + seconds, None, self.cursor.position)


@pytest.fixture
def reader() -> Reader:
    return Reader(Mailbox())


def _mail(name: str, size: int = 0) -> bytes:
    return f"Subject: {name}\r\nMessage-ID: <{name}>\r\n\r\n".encode() + b"x" * size


def _names(portion: Portion) -> list[str]:
    return [event.id.strip("<>") for event in portion.events]


class TestPosition:
    async def test_only_mail_that_arrived_from_the_first_sight_on_is_read(self, reader: Reader) -> None:
        reader.mailbox.add("old", at=-1)
        reader.mailbox.add("new", at=0)
        reader.mailbox.add("moved here", at=-500_000)
        assert await reader.poll() == ["new"]

    async def test_old_mail_that_is_moved_here_later_is_not_read(self, reader: Reader) -> None:
        assert await reader.poll() == []
        reader.mailbox.add("moved here", at=-500_000)
        reader.mailbox.add("new")
        assert await reader.poll() == ["new"]

    async def test_a_mail_without_arrival_is_read(self, reader: Reader) -> None:
        assert await reader.poll() == []
        reader.mailbox.add("new", at=None)
        assert await reader.poll() == ["new"]

    async def test_each_mail_is_read_once_however_the_time_moves(self, reader: Reader) -> None:
        found = []
        for second, names in enumerate((["a"], [], ["b", "c"], [])):
            reader.mailbox.add(*names, at=1)
            found.append(await reader.poll())
            reader.fetched(second * 1_000)
        assert found == [["a"], [], ["b", "c"], []]

    async def test_mail_after_a_clock_that_was_ahead_at_the_first_sight_is_not_lost(self, reader: Reader) -> None:
        day = 86_400
        reader.cursor = Cursor(START + day, None)
        assert await reader.poll() == []
        reader.cursor = Cursor(START + 10, None, reader.cursor.position)
        reader.mailbox.add("a", at=20)
        assert await reader.poll() == ["a"]

    async def test_mail_is_read_again_from_before_the_last_poll_once_uids_lost_their_meaning(
        self, reader: Reader
    ) -> None:
        mailbox = reader.mailbox
        for name, at in (("a", 10), ("b", 9_000 - MARGIN_SECONDS - 1), ("c", 9_000 - MARGIN_SECONDS), ("d", 9_001)):
            mailbox.add(name, at=at)
        assert await reader.poll() == ["a", "b", "c", "d"]
        reader.fetched(9_000)
        mailbox.uid_validity = 8
        assert await reader.poll() == ["c", "d"]

    async def test_mail_from_before_the_first_sight_stays_unread_when_uids_lose_their_meaning(
        self, reader: Reader
    ) -> None:
        reader.mailbox.add("old", at=-1)
        reader.mailbox.add("new", at=1)
        assert await reader.poll() == ["new"]
        reader.mailbox.uid_validity = 8
        assert await reader.poll() == ["new"]

    async def test_a_server_that_gives_uids_again_is_read_again(self, reader: Reader) -> None:
        reader.mailbox.add("a", "b", "c")
        assert await reader.poll() == ["a", "b", "c"]
        del reader.mailbox.mails[3], reader.mailbox.mails[2]
        reader.mailbox.uid_next = 2
        reader.mailbox.add("d")
        assert await reader.poll() == ["a", "d"]

    async def test_another_mailbox_is_read_from_the_last_fetched_time(self, reader: Reader) -> None:
        reader.mailbox.add("a", at=10)
        assert await reader.poll() == ["a"]
        reader.fetched(20)
        reader.source = reader.open("user@host/alarms")
        reader.mailbox.add("b", at=20)
        assert await reader.poll() == ["b"]

    @pytest.mark.parametrize("position", ["", "{", "{}", '{"mailbox":"user@host/INBOX","uid_validity":"7"}'])
    async def test_a_position_that_cannot_be_read_is_none(self, reader: Reader, position: str) -> None:
        reader.mailbox.add("old", at=9)
        reader.mailbox.add("new", at=10)
        reader.cursor = Cursor(START + 10, None, position)
        assert await reader.poll() == ["new"]

    async def test_gaps_between_uids_are_passed(self, reader: Reader) -> None:
        assert await reader.poll() == []
        reader.mailbox.uid_next = 2 * WINDOW_UIDS + 10
        reader.mailbox.add("far")
        assert [_names(await reader.portion()) for _ in range(3)] == [[], [], ["far"]]
        assert not (await reader.portion()).has_more


class TestPortion:
    async def test_it_ends_with_so_many_mails(self, reader: Reader) -> None:
        names = [str(number) for number in range(PORTION_MAILS + 1)]
        reader.mailbox.add(*names)
        first, second = await reader.portion(), await reader.portion()
        assert (_names(first), first.has_more) == (names[:-1], True)
        assert (_names(second), second.has_more) == (names[-1:], False)

    async def test_it_ends_with_the_mail_that_makes_it_large(self, reader: Reader) -> None:
        size = MAX_BYTES - 1_000
        count = PORTION_BYTES // size + 1
        names = [str(number) for number in range(count + 1)]
        reader.mailbox.add(*names, size=size)
        first, second = await reader.portion(), await reader.portion()
        assert (_names(first), first.has_more) == (names[:count], True)
        assert (_names(second), second.has_more) == (names[count:], False)

    async def test_it_ends_early_where_the_server_is_slow(self, reader: Reader) -> None:
        def take_long(_: int) -> None:
            reader.mailbox.seconds += PORTION_SECONDS / 2

        reader.mailbox.on_fetch = take_long
        reader.mailbox.add("a", "b", "c")
        first, second = await reader.portion(), await reader.portion()
        assert (_names(first), first.has_more, _names(second), second.has_more) == (["a", "b"], True, ["c"], False)

    async def test_mail_before_one_that_cannot_be_fetched_is_not_lost(self, reader: Reader) -> None:
        def refuse(uid: int) -> None:
            if uid == 3:
                raise REJECTED

        reader.mailbox.add("a", "b", "c", "d")
        reader.mailbox.on_fetch = refuse
        found = await reader.portion()
        assert (_names(found), found.has_more) == (["a", "b"], True)
        with pytest.raises(SourceRejected, match="refused"):
            await reader.portion()
        reader.mailbox.on_fetch = lambda uid: None
        assert await reader.poll() == ["c", "d"]

    async def test_a_mail_that_went_meanwhile_is_skipped(self, reader: Reader) -> None:
        reader.mailbox.add("a", "b", "c")

        def lose_the_next(uid: int) -> None:
            reader.mailbox.mails.pop(2, None)

        reader.mailbox.on_fetch = lose_the_next
        assert await reader.poll() == ["a", "c"]

    async def test_a_mail_that_the_server_does_not_hand_out_is_not_lost_without_a_word(self, reader: Reader) -> None:
        reader.mailbox.add("a", "b")
        reader.mailbox.on_fetch = lambda _: reader.mailbox.mails.pop(2, None) and None
        with capture_logs() as logs:
            assert await reader.poll() == ["a"]
        size = len(_mail("b"))
        assert logs == [
            {"event": "mail_passed_by", "log_level": "warning", "setting": "n1", "uid": 2, "size_bytes": size}
        ]

    async def test_an_event_is_the_mail_under_its_message_id(self, reader: Reader) -> None:
        reader.mailbox.add("a")
        (event,) = (await reader.portion()).events
        assert (event.id, event.is_serial, event.unavailable) == ("<a>", False, None)
        assert json.loads(bytes(event.raw))["subject"] == "a"

    async def test_a_mail_without_message_id_has_one_of_its_arrival_and_content(self, reader: Reader) -> None:
        raw = b"Subject: a\r\n\r\ntext"
        reader.mailbox.mails = {1: (START + 5, raw), 2: (START + 5, raw + b"!")}
        reader.mailbox.uid_next = 3
        first = [event.id for event in (await reader.portion()).events]
        reader.mailbox.uid_validity += 1
        assert first == [f"n1_{START + 5}.{zlib.crc32(each):010}" for each in (raw, raw + b"!")]
        assert [event.id for event in (await reader.portion()).events] == first

    async def test_a_shortened_mail_is_told(self, reader: Reader) -> None:
        reader.mailbox.add("large", size=2 * MAX_BYTES)
        reader.mailbox.add("small")
        with capture_logs() as logs:
            assert await reader.poll() == ["large", "small"]
        assert logs == [
            {
                "log_level": "warning",
                "event": "mail_shortened",
                "setting": "n1",
                "message_id": "<large>",
                "size_bytes": 2 * MAX_BYTES + len(_mail("large")),
                "kept_bytes": MAX_BYTES,
            }
        ]


class TestConnection:
    async def test_it_is_kept_between_polls_and_ends_with_a_logout(self, reader: Reader) -> None:
        for _ in range(3):
            await reader.poll()
        await reader.source.close()
        assert reader.mailbox.events == ["open", "logout"]

    async def test_a_source_that_never_connected_has_nothing_to_end(self, reader: Reader) -> None:
        await reader.source.close()
        assert reader.mailbox.events == []

    @pytest.mark.parametrize("err", [BROKEN, REJECTED], ids=["broken", "mailbox made anew"])
    async def test_a_kept_one_that_fails_is_replaced_within_the_poll(self, reader: Reader, err: AgentError) -> None:
        await reader.poll()
        reader.mailbox.add("a")
        reader.mailbox.errors = [err]
        assert await reader.poll() == ["a"]
        assert reader.mailbox.events == ["open", "close", "abort", "open"]

    async def test_a_new_one_that_fails_fails_the_poll_and_the_next_makes_another(self, reader: Reader) -> None:
        reader.mailbox.add("a")
        reader.mailbox.errors = [BROKEN]
        with pytest.raises(SourceUnavailable, match=r"^broken$"):
            await reader.poll()
        assert await reader.poll() == ["a"]
        assert reader.mailbox.events == ["open", "close", "abort", "open"]

    @pytest.mark.parametrize("answers_late", [False, True], ids=["silent server", "answer when it is too late"])
    async def test_a_poll_that_is_cancelled_ends_at_once_and_closes_the_connection(
        self, reader: Reader, answers_late: bool
    ) -> None:
        hanging = Hanging(reader.mailbox, answers_late=answers_late)
        reader.source = reader.open("user@host/INBOX", lambda: hanging)
        task = asyncio.create_task(reader.poll())
        await asyncio.to_thread(hanging.is_asked.wait)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        await asyncio.to_thread(hanging.is_closed.wait)
        assert reader.mailbox.events == ["open", "abort", "close"]

    @pytest.mark.looptime
    async def test_a_server_that_never_answers_fails_the_poll_in_time(self, reader: Reader) -> None:
        hanging = Hanging(reader.mailbox)
        reader.source = reader.open("user@host/INBOX", lambda: hanging)
        started = asyncio.get_running_loop().time()
        with pytest.raises(SourceUnavailable, match=r"^host:993: a portion of mail took longer than 120 s") as caught:
            await reader.poll()
        assert asyncio.get_running_loop().time() - started == TOTAL_SECONDS
        assert caught.value.reason is Reason.TIMEOUT

    @pytest.mark.looptime
    async def test_a_logout_that_is_not_answered_is_given_up(self, reader: Reader) -> None:
        hanging = Hanging(reader.mailbox)
        reader.source = reader.open("user@host/INBOX", lambda: hanging)
        reader.source._kept = hanging
        started = asyncio.get_running_loop().time()
        await reader.source.close()
        assert asyncio.get_running_loop().time() - started == LOGOUT_SECONDS
        assert reader.mailbox.events == ["abort"]


class Hanging(Connection):
    """A connection that waits for its server until it is aborted, and perhaps gets its answer then."""

    def __init__(self, mailbox: Mailbox, *, answers_late: bool = False) -> None:
        super().__init__(mailbox)
        self.is_asked = threading.Event()
        self.is_closed = threading.Event()
        self._is_aborted = threading.Event()
        self._answers_late = answers_late

    def examine(self) -> Examined:
        self._wait()
        if not self._answers_late:
            raise BROKEN
        return super().examine()

    def logout(self) -> None:
        self._wait()

    def close(self) -> None:
        super().close()
        self.is_closed.set()

    def abort(self) -> None:
        super().abort()
        self._is_aborted.set()

    def _wait(self) -> None:
        self.is_asked.set()
        self._is_aborted.wait(60)
