"""The demo's mailbox, asked by a client that knows nothing of it."""

import socket
from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import Any

import pytest
from imapclient import IMAPClient
from imapclient.exceptions import IMAPClientError, LoginError

from ita_ag_oase.demo.exastro import SavedEvent
from ita_ag_oase.demo.mailbox import PASSWORD, USERNAME, Mailbox, MailServer
from ita_ag_oase.demo.sources import MailSource
from ita_ag_oase.exastro import wire
from ita_ag_oase.exastro.secrets import SecretColumns
from ita_ag_oase.model import ConnectionMethod, RequestMethod
from ita_ag_oase.sources.mail import read_mail

FIRST = b"Subject: first\r\n\r\nText\r\n"
SECOND = b"Subject: second\r\n\r\n" + "監視".encode("shift_jis") + b"\0)\r\n{3}\r\n"
THIRD = b"Subject: third\r\n\r\n"
MIDNIGHT = 1_704_067_200


@pytest.fixture
def mailbox() -> Mailbox:
    mailbox = Mailbox(uid_validity=7)
    for number, raw in enumerate((FIRST, b"removed", SECOND, THIRD)):
        mailbox.append(raw, MIDNIGHT + (number - 1) * 43_200)
    mailbox.remove(2)
    return mailbox


@pytest.fixture
def server(mailbox: Mailbox) -> Iterator[MailServer]:
    with MailServer(mailbox) as server:
        yield server


def _connected(server: MailServer) -> Any:
    return IMAPClient("127.0.0.1", port=server.port, ssl=False, timeout=10)


@pytest.fixture
def client(server: MailServer) -> Iterator[Any]:
    with _connected(server) as client:
        client.login(USERNAME, PASSWORD)
        client.select_folder("INBOX", readonly=True)
        yield client


def test_the_greeting_and_capabilities_say_what_it_speaks(server: MailServer) -> None:
    with _connected(server) as client:
        assert client.welcome == b"* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] demo mailbox"
        assert client.capabilities() == (b"IMAP4REV1", b"AUTH=PLAIN")


@pytest.mark.parametrize("password", ["plain", 'quo"te \\ and blank', "(brackets) {7}"])
def test_the_right_password_opens_it(mailbox: Mailbox, password: str) -> None:
    with MailServer(mailbox, password=password) as server, _connected(server) as client:
        client.login(USERNAME, password)
        assert client.select_folder("inbox")[b"EXISTS"] == 3


def test_authenticate_opens_it_too(server: MailServer) -> None:
    with _connected(server) as client:
        client.plain_login(USERNAME, PASSWORD)
        assert client.noop()[0] == b"NOOP done"


@pytest.mark.parametrize(("user", "password"), [(USERNAME, "wrong"), ("wrong", PASSWORD), (USERNAME, "")])
def test_a_wrong_user_or_password_is_refused(server: MailServer, user: str, password: str) -> None:
    for method in ("login", "plain_login"):
        with _connected(server) as client, pytest.raises(LoginError, match="wrong user or password"):
            getattr(client, method)(user, password)


def _told(server: MailServer, commands: bytes) -> list[bytes]:
    """Return what is answered to commands that no client would send, up to a logout."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(commands + b"z LOGOUT\r\n")
        answer = b"".join(iter(lambda: connection.recv(4_096), b""))
    return answer.splitlines()[1:-2]


@pytest.mark.parametrize(
    ("commands", "answers"),
    [
        pytest.param(b"a SELECT INBOX\r\n", [b"a NO log in first"], id="select before login"),
        pytest.param(b"a UID FETCH 1 UID\r\n", [b"a BAD select a mailbox first"], id="fetch before select"),
        pytest.param(b"a AUTHENTICATE GSSAPI\r\n", [b"a NO only PLAIN is known"], id="another mechanism"),
        pytest.param(b"a AUTHENTICATE PLAIN\r\nx\r\n", [b"+ ", b"a BAD no base64"], id="no base64"),
        pytest.param(b"\r\n", [b" BAD unknown command"], id="an empty line"),
        pytest.param(b"a\r\n", [b"a BAD unknown command"], id="a tag alone"),
    ],
)
def test_what_comes_out_of_order_is_refused(server: MailServer, commands: bytes, answers: list[bytes]) -> None:
    assert _told(server, commands) == answers


def test_a_password_may_come_as_literals(mailbox: Mailbox) -> None:
    with MailServer(mailbox, password='監"視') as server:
        commands = b"a LOGIN {%d}\r\n%b {%d+}\r\n%b\r\n"
        user, password = USERNAME.encode(), '監"視'.encode()
        answers = _told(server, commands % (len(user), user, len(password), password))
    assert answers == [b"+ go on", b"a OK welcome"]


def test_select_tells_how_uids_are_to_be_read(server: MailServer) -> None:
    with _connected(server) as client:
        client.login(USERNAME, PASSWORD)
        for is_readonly in (True, False):
            answer = client.select_folder("INBOX", readonly=is_readonly)
            assert {key: answer[key] for key in (b"EXISTS", b"UIDVALIDITY", b"UIDNEXT")} == {
                b"EXISTS": 3,
                b"UIDVALIDITY": 7,
                b"UIDNEXT": 5,
            }


def test_another_mailbox_is_refused(client: Any) -> None:
    with pytest.raises(IMAPClientError, match="no such mailbox"):
        client.select_folder("Archive")
    with pytest.raises(IMAPClientError, match="select a mailbox first"):
        client.search("ALL")


@pytest.mark.parametrize(
    ("criteria", "uids"),
    [
        pytest.param(["ALL"], [1, 3, 4], id="all"),
        pytest.param(["UID", "3:*"], [3, 4], id="from"),
        pytest.param(["UID", "9:*"], [4], id="beyond the end, which is the last"),
        pytest.param(["UID", "*"], [4], id="last"),
        pytest.param(["UID", "1:2,4"], [1, 4], id="set"),
        pytest.param(["UID", "3:1"], [1, 3], id="backwards"),
        pytest.param(["UID", "5"], [], id="none"),
        pytest.param(["SINCE", date(2024, 1, 1)], [3, 4], id="since"),
        pytest.param(["SINCE", date(2024, 1, 2)], [4], id="since the last day"),
        pytest.param(["UID", "1:3", "SINCE", date(2024, 1, 1)], [3], id="both"),
    ],
)
def test_search_finds_by_uid_and_day(client: Any, criteria: list[Any], uids: list[int]) -> None:
    assert client.search(criteria) == uids


def test_an_empty_mailbox_is_searched() -> None:
    with MailServer(Mailbox()) as server, _connected(server) as client:
        client.login(USERNAME, PASSWORD)
        client.select_folder("INBOX")
        assert (client.search("ALL"), client.search(["UID", "1:*"])) == ([], [])


@pytest.mark.parametrize(
    ("criteria", "why"),
    [(["FLAGGED"], "unknown criterion"), (["UID", "x"], "no set of numbers"), (["SINCE", "yesterday"], "no date")],
)
def test_what_it_cannot_search_by_is_refused(client: Any, criteria: list[str], why: str) -> None:
    with pytest.raises(IMAPClientError, match=why):
        client.search(criteria)


def test_fetch_gives_what_was_asked_for(client: Any) -> None:
    client.normalise_times = False
    assert client.fetch([1, 3], ["INTERNALDATE", "RFC822.SIZE", "FLAGS", "BODY.PEEK[]"]) == {
        1: {
            b"SEQ": 1,
            b"INTERNALDATE": datetime(2023, 12, 31, 12, tzinfo=UTC),
            b"RFC822.SIZE": len(FIRST),
            b"FLAGS": (),
            b"BODY[]": FIRST,
        },
        3: {
            b"SEQ": 2,
            b"INTERNALDATE": datetime(2024, 1, 1, 12, tzinfo=UTC),
            b"RFC822.SIZE": len(SECOND),
            b"FLAGS": (),
            b"BODY[]": SECOND,
        },
    }


@pytest.mark.parametrize(
    ("item", "key", "octets"),
    [
        pytest.param("BODY.PEEK[HEADER]", b"BODY[HEADER]", b"Subject: first\r\n\r\n", id="header"),
        pytest.param("BODY.PEEK[TEXT]", b"BODY[TEXT]", b"Text\r\n", id="text"),
        pytest.param("BODY.PEEK[]<0.7>", b"BODY[]<0>", b"Subject", id="beginning"),
        pytest.param("BODY.PEEK[]<9.100>", b"BODY[]<9>", FIRST[9:], id="rest"),
        pytest.param("BODY.PEEK[]<100.7>", b"BODY[]<100>", b"", id="beyond the end"),
        pytest.param("BODY[]", b"BODY[]", FIRST, id="not only a peek"),
    ],
)
def test_fetch_gives_parts_of_a_mail(client: Any, item: str, key: bytes, octets: bytes) -> None:
    assert client.fetch([1], [item]) == {1: {b"SEQ": 1, key: octets}}


def test_a_uid_that_is_gone_is_not_fetched(client: Any) -> None:
    assert client.fetch([2, 9], ["RFC822.SIZE"]) == {}


@pytest.mark.parametrize(("item", "why"), [("ENVELOPE", "unknown item"), ("BODY[1]", "unknown section")])
def test_what_it_cannot_fetch_is_refused(client: Any, item: str, why: str) -> None:
    with pytest.raises(IMAPClientError, match=why):
        client.fetch([1], [item])


def test_an_unknown_command_is_refused(client: Any) -> None:
    with pytest.raises(IMAPClientError, match="unknown command"):
        client.delete_folder("INBOX")


def test_a_new_mail_is_seen_by_who_is_connected(client: Any, mailbox: Mailbox) -> None:
    mail = mailbox.append(b"Subject: fourth\r\n\r\n", MIDNIGHT)
    assert client.noop() == (b"NOOP done", [(4, b"EXISTS")])
    assert client.search(["UID", f"{mail.uid}:*"]) == [5]


def test_a_rebuilt_mailbox_has_another_validity_and_other_uids(server: MailServer, mailbox: Mailbox) -> None:
    mailbox.rebuild()
    with _connected(server) as client:
        client.login(USERNAME, PASSWORD)
        answer = client.select_folder("INBOX", readonly=True)
        assert (answer[b"UIDVALIDITY"], answer[b"UIDNEXT"], client.search("ALL")) == (8, 4, [1, 2, 3])


def test_logout_ends_the_connection(server: MailServer) -> None:
    assert _told(server, b"a LOGOUT\r\n") == []


def test_it_comes_back_on_the_same_port_and_breaks_what_was_open(mailbox: Mailbox) -> None:
    server = MailServer(mailbox)
    with server:
        port = server.port
        client = _connected(server)
    with pytest.raises((IMAPClientError, OSError)):
        client.noop()
    client.shutdown()
    with server, _connected(server) as again:
        assert (server.port, again.noop()[0]) == (port, b"NOOP done")


def test_commands_are_noted_without_what_they_carried(server: MailServer, client: Any) -> None:
    client.search("ALL")
    client.logout()
    assert [name for name in server.commands if name != "CAPABILITY"] == ["LOGIN", "EXAMINE", "UID SEARCH", "LOGOUT"]


class _BusySource(MailSource):
    _every_seconds = 0.02


class TestMailSource:
    """The demo's source of mails: what it says it told is what a client got."""

    @pytest.fixture
    def source(self) -> Iterator[MailSource]:
        with _BusySource(4) as source:
            yield source

    @staticmethod
    def _fetched(source: MailSource, item: bytes = b"BODY[]", count: int = 6) -> list[bytes]:
        """Return so many mails, or that item of them."""
        row = source.row
        with IMAPClient(row["URL"], port=row["PORT"], ssl=False, timeout=10) as client:
            client.login(row["USERNAME"], row["PASSWORD"])
            client.select_folder(row["MAILBOXNAME"], readonly=True)
            while len(client.search("ALL")) < count:
                client.noop()
            source.freeze()
            found = client.fetch(client.search("ALL"), [item.replace(b"[", b".PEEK[")])
        return [found[uid][item] for uid in sorted(found)]

    def test_its_row_is_one_that_the_agent_reads(self, source: MailSource) -> None:
        columns = SecretColumns("demo-org", "demo-ws")
        row = {**source.row, **{name: columns.encrypt(source.row[name]) for name in wire.SECRET_COLUMNS}}
        setting = wire.setting_of(row, columns)
        assert (setting.connection_method, setting.request_method, setting.url, setting.port, setting.mailbox) == (
            ConnectionMethod.IMAP_PASSWORD,
            RequestMethod.IMAP_PLAIN,
            "127.0.0.1",
            source.row["PORT"],
            "INBOX",
        )

    def test_what_was_fetched_was_told(self, source: MailSource) -> None:
        mails = [read_mail(raw, fallback_id="none") for raw in self._fetched(source)]
        assert source.told == {mail.message_id for mail in mails}
        assert len(source.told) == len(mails) >= 6

    def test_what_was_only_looked_at_was_not_told(self, source: MailSource) -> None:
        assert self._fetched(source, b"BODY[HEADER]") != []
        assert source.told == set()

    def test_a_frozen_source_gets_no_more_mails(self, source: MailSource) -> None:
        first = self._fetched(source)
        assert self._fetched(source, count=0) == first

    def test_its_mails_are_plain_japanese_and_of_several_parts(self, source: MailSource) -> None:
        mails = [read_mail(raw, fallback_id="none") for raw in self._fetched(source)[:3]]
        subjects = [mail.event["subject"] for mail in mails]
        whats = [subject.removeprefix("【障害】").removeprefix("【状況】") for subject in subjects]
        assert subjects == [f"【障害】{whats[0]}", f"【状況】{whats[1]}", whats[2]]
        assert [mail.event["body"]["plain"] for mail in mails] == [
            f"監視サーバが障害を検知しました。\r\n{whats[0]}\r\n",
            whats[1],
            f"{whats[2]}\r\n",
        ]
        assert [[attachment.name for attachment in mail.attachments] for mail in mails] == [[], ["状況.csv"], []]

    def test_a_delivered_mail_is_counted_by_its_message_id(self, source: MailSource) -> None:
        mail = read_mail(self._fetched(source)[0], fallback_id="none")
        saved = SavedEvent(source.name, "a1", 1, mail.event)
        assert saved.identity == (source.name, mail.message_id)
        assert str(source.describe(mail.event)) == f"{mail.event['subject']} (from {mail.event['from']})"
