"""A real Dovecot is collected from: each mail that arrives after the first sight of a mailbox comes once."""

import json
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from dovecot import PASSWORD, Dovecot, Maildir, program, running
from examples import SETTING
from ita_ag_oase.clock import SteadyClock
from ita_ag_oase.collection import Collector
from ita_ag_oase.demo.exastro import DemoExastro, setting_row
from ita_ag_oase.errors import AgentError, Reason, SourceRejected, SourceUnavailable
from ita_ag_oase.model import CollectionSetting, ConnectionMethod, RequestMethod, Settlement
from ita_ag_oase.observability.health import Health
from ita_ag_oase.sources.http import HttpClients
from ita_ag_oase.sources.imap import PORTION_MAILS
from ita_ag_oase.sources.imap_connection import ImapConnection
from ita_ag_oase.sources.imap_server import server_of
from ita_ag_oase.sources.source import Source, open_source
from ita_ag_oase.store.outbox import BatchLimits
from ita_ag_oase.store.saving import SavingLimits
from ita_ag_oase.store.store import Store
from ita_ag_oase.transport import Proxies, tls_context
from support import AgentProcess, Deploy, arrived
from wires import Relay, SocksServer

MAX_BYTES = 65_536
LIMITS = BatchLimits(events=10_000, bytes=100_000_000, groups=1_000)
OLD_DATE = "Mon, 01 Jan 2001 00:00:00 +0000"


@pytest.fixture(scope="session")
def dovecot() -> Iterator[Dovecot]:
    """A Dovecot for all tests, each of which has users of its own."""
    with _running() as dovecot:
        yield dovecot


@asynccontextmanager
async def _opened(path: Path) -> AsyncIterator[Store]:
    limits = SavingLimits(group_events=5_000, group_bytes=4_000_000, id_retention_seconds=604_800)
    store = Store(path, limits, storage_max_bytes=1 << 30)
    await store.open()
    try:
        yield store
    finally:
        store.close()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with _opened(tmp_path / "store.sqlite3") as store:
        yield store


class Desk:
    """A setting for a new user's mailbox, first seen some time ago, and what becomes of its mail."""

    def __init__(self, dovecot: Dovecot, store: Store) -> None:
        self.start = int(time.time()) - 1_000
        self.dovecot = dovecot
        self.store = store
        self.user = dovecot.new_user()
        self.inbox: Maildir = dovecot.inbox(self.user)
        self.setting = replace(
            SETTING,
            connection_method=ConnectionMethod.IMAP_PASSWORD,
            request_method=RequestMethod.IMAP_PLAIN,
            url=dovecot.host,
            port=dovecot.plain_port,
            username=self.user,
            password=PASSWORD,
            event_id_key=None,
        )

    def deliver(self, *names: str, at: int = 5, **headers: str) -> None:
        """Have mails arrive, some seconds after the first sight."""
        for name in names:
            self.inbox.deliver(_mail(name, **headers), arrival=self.start + at)

    @asynccontextmanager
    async def collecting(self, store: Store | None = None, **columns: Any) -> AsyncIterator[Collector]:
        """The collector of the setting, as the agent makes it; at the end it logs out."""
        used = store or self.store
        setting = replace(self.setting, **columns)
        await used.register(setting.id, setting.name, self.start)
        collector = Collector(
            setting, _source(setting, self.dovecot), used, SteadyClock(), Health(), agent_name="agent"
        )
        try:
            yield collector
        finally:
            await collector.close()

    async def last_fetched(self) -> int:
        """Return the seconds from the first sight to the last fetched time."""
        return (await self.store.cursor(self.setting.id)).last_fetched_time - self.start

    async def arrived(self, store: Store | None = None) -> list[str]:
        """Return the names of the mails that wait for delivery, and take them as delivered."""
        return [_name(event) for event in await _events(store or self.store)]


@pytest.fixture
def desk(dovecot: Dovecot, store: Store) -> Desk:
    return Desk(dovecot, store)


METHODS = {
    "TLS": {"request_method": RequestMethod.IMAP_TLS},
    "STARTTLS": {"request_method": RequestMethod.IMAP_STARTTLS},
    "plain": {"request_method": RequestMethod.IMAP_PLAIN},
}


def _port(dovecot: Dovecot, method: RequestMethod) -> int:
    return dovecot.tls_port if method is RequestMethod.IMAP_TLS else dovecot.plain_port


@pytest.mark.parametrize("columns", METHODS.values(), ids=METHODS)
async def test_a_mail_is_collected_with_its_labels_over_each_method(desk: Desk, columns: dict[str, Any]) -> None:
    desk.deliver("a")
    async with desk.collecting(**columns, port=_port(desk.dovecot, columns["request_method"])) as collector:
        await collector.collect()
    (event,) = await _events(desk.store)
    fetched_time = event["_exastro_fetched_time"]
    labels = {name: value for name, value in event.items() if name.startswith("_exastro_")}
    assert (event["subject"], event["body"]["plain"]) == ("a", "what it says\r\n")
    assert labels == {
        "_exastro_event_collection_settings_name": "n1",
        "_exastro_event_collection_settings_id": "1",
        "_exastro_fetched_time": fetched_time,
        "_exastro_end_time": fetched_time + 60,
    }


async def test_only_mail_from_the_first_sight_on_is_collected(desk: Desk) -> None:
    desk.deliver("old", at=-1)
    desk.deliver("new", at=0)
    async with desk.collecting() as collector:
        await collector.collect()
    assert await desk.arrived() == ["new"]


async def test_mail_between_polls_comes_once_over_the_same_connection(desk: Desk) -> None:
    with Relay(desk.dovecot.plain_port) as relay:
        async with desk.collecting(port=relay.port) as collector:
            news = [(await collector.collect()).new]
            for names in (("a",), ("b", "c"), ()):
                desk.deliver(*names)
                news.append((await collector.collect()).new)
        assert relay.connections == 1
    assert (news, await desk.arrived()) == ([0, 1, 2, 0], ["a", "b", "c"])


DATES = {"old": OLD_DATE, "in the future": "Fri, 01 Jan 2100 00:00:00 +0000", "broken": "yesterday", "missing": ""}


@pytest.mark.parametrize("date", DATES.values(), ids=DATES)
async def test_a_delayed_mail_is_collected_whatever_its_date_says(desk: Desk, date: str) -> None:
    async with desk.collecting() as collector:
        await collector.collect()
        desk.deliver("delayed", Date=date)
        await collector.collect()
    assert await desk.arrived() == ["delayed"]


async def test_reading_marks_nothing(desk: Desk) -> None:
    desk.deliver("a")
    async with desk.collecting() as collector:
        await collector.collect()
    # A client that opens a mailbox for more than reading has its mails moved from new/ to cur/.
    assert [path.parent.name for path in desk.inbox.files()] == ["new"]
    with desk.dovecot.logged_in(desk.user) as client:
        client.select_folder("INBOX", readonly=True)
        assert client.get_flags([1]) == {1: (rb"\Recent",)}


async def test_old_mail_costs_nothing(desk: Desk) -> None:
    for number in range(5_000):
        desk.inbox.deliver(_mail(f"old-{number}"), arrival=desk.start - 200_000)
    with Relay(desk.dovecot.plain_port) as relay:
        async with desk.collecting(port=relay.port) as collector:
            await collector.collect()
            desk.deliver(*"abcde")
            await collector.collect()
        assert relay.received_bytes < 10_000
    assert await desk.arrived() == [*"abcde"]


async def test_many_mails_come_in_portions_and_the_time_moves_with_the_last(desk: Desk) -> None:
    names = [f"{number:04}" for number in range(2 * PORTION_MAILS + 5)]
    desk.deliver(*names)
    moved = []
    async with desk.collecting() as collector:
        has_more = True
        while has_more:
            _, has_more = await collector._collect_portion(desk.start + 100, 0)
            moved.append(await desk.last_fetched())
    assert moved == [0, 0, 100]
    assert await desk.arrived() == names


async def test_mails_deleted_or_moved_away_by_others_do_not_matter(desk: Desk) -> None:
    with desk.dovecot.logged_in(desk.user) as other:
        other.create_folder("done")
        async with desk.collecting() as collector:
            await collector.collect()
            desk.deliver(*"abcd")
            other.select_folder("INBOX")
            other.move(other.search(["SUBJECT", "a"]), "done")
            other.delete_messages(other.search(["SUBJECT", "d"]))
            other.expunge()
            await collector.collect()
            desk.deliver("e")
            await collector.collect()
    assert await desk.arrived() == ["b", "c", "e"]


def test_a_mail_that_goes_between_its_listing_and_its_fetch_is_none(dovecot: Dovecot, desk: Desk) -> None:
    desk.deliver("a", "b")
    tls = tls_context(verify=True, ca_file=dovecot.ca_file)
    connection = ImapConnection(server_of(desk.setting), lambda: tls, max_bytes=MAX_BYTES)
    connection.open()
    connection.examine()
    assert [mail.uid for mail in connection.list_mails([1, 2])] == [1, 2]
    with dovecot.logged_in(desk.user) as other:
        other.select_folder("INBOX")
        other.delete_messages([1])
        other.expunge()
    assert (connection.fetch(1), connection.fetch(2)) == (None, _mail("b"))
    connection.logout()


async def test_a_mailbox_that_is_made_anew_is_read_again_and_known_mails_drop_out(desk: Desk) -> None:
    long_ago, now = (datetime.fromtimestamp(desk.start + at, UTC) for at in (-10, 5))

    def fill(*names: str) -> None:
        other.create_folder("alarms")
        other.append("alarms", _mail("before"), msg_time=long_ago)
        for name in names:
            other.append("alarms", _mail(name), msg_time=now)

    with desk.dovecot.logged_in(desk.user) as other:
        fill("a", "b")
        async with desk.collecting(mailbox="alarms") as collector:
            first = await collector.collect()
            other.delete_folder("alarms")
            fill("a", "new", "b")
            second = await collector.collect()
    assert [(first.new, first.known), (second.new, second.known)] == [(2, 0), (1, 2)]
    assert await desk.arrived() == ["a", "b", "new"]


async def test_another_mailbox_is_read_from_the_last_fetched_time(desk: Desk) -> None:
    with desk.dovecot.logged_in(desk.user) as other:
        other.create_folder("alarms")
        for name, at in (("old", -5), ("new", 2_000)):
            other.append("alarms", _mail(name), msg_time=datetime.fromtimestamp(desk.start + at, UTC))
    desk.deliver(*"abc")
    async with desk.collecting() as collector:
        await collector.collect()
    async with desk.collecting(mailbox="alarms") as collector:
        await collector.collect()
    assert await desk.arrived() == ["a", "b", "c", "new"]


async def test_a_mailbox_with_a_japanese_name_is_read(desk: Desk) -> None:
    with desk.dovecot.logged_in(desk.user) as other:
        other.create_folder("障害 & アラーム")
        other.append("障害 & アラーム", _mail("a"))
    async with desk.collecting(mailbox="障害 & アラーム") as collector:
        await collector.collect()
    assert await desk.arrived() == ["a"]


async def test_a_connection_cut_within_a_mail_fails_the_poll_and_loses_nothing(desk: Desk) -> None:
    names = [f"{number:02}" for number in range(20)]
    desk.deliver(*names, filler="x" * 10_000)
    with Relay(desk.dovecot.plain_port) as relay:
        async with desk.collecting(port=relay.port) as collector:
            relay.cut_after = 50_000
            assert await _failure(collector) is SourceUnavailable
            before = await desk.arrived()
            assert (await desk.last_fetched(), before) == (0, names[: len(before)])
            assert 0 < len(before) < 5
            relay.cut_after = None
            await collector.collect()
    assert before + await desk.arrived() == names


async def test_a_connection_that_broke_between_polls_is_opened_anew(desk: Desk) -> None:
    with Relay(desk.dovecot.plain_port) as relay:
        async with desk.collecting(port=relay.port) as collector:
            await collector.collect()
            relay.cut_all()
            desk.deliver("a")
            await collector.collect()
        assert relay.connections == 2
    assert await desk.arrived() == ["a"]


async def test_an_agent_that_starts_again_goes_on_where_it_was(desk: Desk, tmp_path: Path) -> None:
    arrived = []
    for names in (("a", "b"), ("c",), ()):
        desk.deliver(*names)
        async with _opened(tmp_path / "kept.sqlite3") as kept, desk.collecting(kept) as collector:
            await collector.collect()
            arrived.append(await desk.arrived(kept))
    assert arrived == [["a", "b"], ["c"], []]


async def test_a_large_mail_comes_with_its_headers_and_a_shortened_body(desk: Desk) -> None:
    desk.inbox.deliver(_mail("large", body="x" * 1_000_000), arrival=desk.start + 5)
    desk.deliver("next")
    async with desk.collecting() as collector:
        await collector.collect()
    large, following = await _events(desk.store)
    assert (_name(large), _name(following)) == ("large", "next")
    assert MAX_BYTES - 500 < len(large["body"]["plain"]) < MAX_BYTES


async def test_a_name_and_a_password_of_all_kinds_of_characters_log_in(desk: Desk) -> None:
    user = desk.dovecot.new_user("al arms ü", 'pass wörd"\\')
    desk.dovecot.inbox(user).deliver(_mail("a"))
    async with desk.collecting(username=user, password='pass wörd"\\') as collector:
        await collector.collect()
    assert await desk.arrived() == ["a"]


async def test_socks_proxy_of_the_setting_is_used(desk: Desk) -> None:
    desk.deliver("a")
    with SocksServer(b"me", b"s3cret") as proxy:
        url = f"socks5://me:s3cret@127.0.0.1:{proxy.port}"
        async with desk.collecting(url="mail.invalid", proxy=url) as collector:
            await collector.collect()
        assert proxy.asked == [(b"mail.invalid", desk.dovecot.plain_port)]
    assert await desk.arrived() == ["a"]


async def test_socks_proxy_that_refuses_is_told_without_its_password(desk: Desk) -> None:
    with SocksServer(b"me", b"s3cret") as proxy:
        async with desk.collecting(proxy=f"socks5://me:wrong@127.0.0.1:{proxy.port}") as collector:
            with pytest.raises(SourceUnavailable, match="the proxy refused") as caught:
                await collector.collect()
    assert "wrong" not in str(caught.value)


class TestRefusal:
    """What fails the poll for good is told once, in words, and moves nothing."""

    @pytest.mark.parametrize("columns", METHODS.values(), ids=METHODS)
    async def test_a_wrong_password(self, desk: Desk, columns: dict[str, Any]) -> None:
        columns = {**columns, "port": _port(desk.dovecot, columns["request_method"]), "password": "not-that-one"}
        err = await _refusal(desk, SourceRejected, **columns)
        assert err.reason is Reason.UNAUTHORIZED
        assert "not-that-one" not in str(err)
        assert str(err).endswith(": check USERNAME and PASSWORD of the setting")

    async def test_a_missing_mailbox(self, desk: Desk) -> None:
        err = await _refusal(desk, SourceRejected, mailbox="absent")
        assert err.reason is Reason.MAILBOX
        assert str(err).endswith(": check MAILBOXNAME ('absent') and the user's rights")

    @pytest.mark.parametrize("method", ["TLS", "STARTTLS"])
    async def test_a_certificate_of_an_unknown_authority(self, desk: Desk, method: str) -> None:
        desk.dovecot = _Untrusted(desk.dovecot)  # type: ignore[assignment] # what its attributes say is the same
        columns = {**METHODS[method], "port": _port(desk.dovecot, METHODS[method]["request_method"])}
        err = await _refusal(desk, SourceUnavailable, **columns)
        assert err.reason is Reason.TLS
        assert "its certificate is not trusted" in str(err)

    async def test_a_server_without_starttls_gets_no_password(self, store: Store) -> None:
        with _running(has_tls=False) as plain, Relay(plain.plain_port) as relay:
            desk = Desk(plain, store)
            columns = {"request_method": RequestMethod.IMAP_STARTTLS, "port": relay.port}
            err = await _refusal(desk, SourceRejected, **columns)
            assert PASSWORD.encode() not in relay.sent
        assert err.reason is Reason.TLS
        assert "does not offer STARTTLS" in str(err)


def test_installed_agent_collects_each_mail_once_and_logs_out(deploy: Deploy, dovecot: Dovecot) -> None:
    user = dovecot.new_user()
    inbox = dovecot.inbox(user)
    inbox.deliver(_mail("old"), arrival=time.time() - 60)
    rows = [_row("mail", dovecot, user), _row("refused", dovecot, user, PASSWORD="wrong-passw0rd")]
    with DemoExastro(rows) as exastro:
        deployment = deploy(exastro, "mail", "refused", SOURCE_CA_FILE=str(dovecot.ca_file))
        agent = deployment.start()
        agent.wait_for_line("collection_failed", setting="refused", code="AGT-10033", reason="unauthorized")
        agent.wait_for_quiet_poll("mail")
        _deliver_and_wait(agent, exastro, inbox, "a", "b")
        assert agent.terminate() == 0
        again = deployment.start()
        _deliver_and_wait(again, exastro, inbox, "c")
        again.wait_for_quiet_poll("mail")
        assert again.terminate() == 0
        assert arrived(exastro, "mail") == ["<a@example.com>", "<b@example.com>", "<c@example.com>"]
    said = agent.stdout + again.stdout
    assert [secret for secret in (PASSWORD, "wrong-passw0rd", "what it says") if secret in said] == []
    log = (dovecot.folder / "dovecot.log").read_text()
    ends = [line for line in log.splitlines() if f"imap({user})<" in line]
    assert ["Disconnected: Logged out" in line for line in ends] == [True, True]


def _deliver_and_wait(agent: AgentProcess, exastro: DemoExastro, inbox: Maildir, *names: str) -> None:
    before = len(exastro.saved)
    for name in names:
        inbox.deliver(_mail(name))
    agent.wait_until(lambda: len(exastro.saved) == before + len(names), "the mails")


class _Untrusted:
    """A Dovecot whose authority nobody knows."""

    def __init__(self, dovecot: Dovecot) -> None:
        self.tls_port, self.plain_port = dovecot.tls_port, dovecot.plain_port
        self.ca_file = None


def _row(name: str, dovecot: Dovecot, user: str, **columns: Any) -> dict[str, Any]:
    mail = {"CONNECTION_METHOD_ID": "4", "REQUEST_METHOD_ID": "3", "PORT": dovecot.tls_port, "USERNAME": user}
    return setting_row(name, dovecot.host, **{**mail, "PASSWORD": PASSWORD, **columns})


def _source(setting: CollectionSetting, dovecot: Dovecot) -> Source:
    tls = tls_context(verify=True, ca_file=dovecot.ca_file)
    clients = HttpClients(make_tls=lambda: tls, proxies=Proxies(None, None, None))
    return open_source(setting, clients, make_tls=lambda: tls, max_bytes=MAX_BYTES, zone=None)


def _mail(name: str, *, body: str = "what it says", filler: str = "", Date: str = OLD_DATE) -> bytes:  # noqa: N803
    date = f"Date: {Date}\r\n" if Date else ""
    head = f"From: alarm@example.com\r\nSubject: {name}\r\nMessage-ID: <{name}@example.com>\r\n{date}"
    return f"{head}\r\n{body}{filler}\r\n".encode()


def _name(event: Any) -> str:
    return str(event["message_id"]).strip("<>").partition("@")[0]


async def _events(store: Store) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while (batch := await store.next_batch(LIMITS, int(time.time()))) is not None:
        for group in batch.groups:
            found += json.loads(b"[" + b",".join(group.pieces) + b"]")
        await store.settle(batch, Settlement(saved=frozenset(group.number for group in batch.groups)), int(time.time()))
    return found


async def _failure(collector: Collector) -> type[AgentError] | None:
    try:
        await collector.collect()
    except AgentError as err:
        return type(err)
    return None


async def _refusal(desk: Desk, kind: type[AgentError], **columns: Any) -> AgentError:
    """Return how a poll of a mailbox with a mail in it fails."""
    desk.deliver("a")
    async with desk.collecting(**columns) as collector:
        with pytest.raises(kind) as caught:
            await collector.collect()
    assert (await desk.last_fetched(), await desk.arrived()) == (0, [])
    return caught.value


@contextmanager
def _running(*, has_tls: bool = True) -> Iterator[Dovecot]:
    """Run a Dovecot. Without the program the test is skipped, or fails where CI is set."""
    if not program():
        missing = "dovecot is not installed (the Debian package dovecot-imapd)"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    with running(has_tls=has_tls) as dovecot:
        yield dovecot
