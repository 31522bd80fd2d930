"""Mail servers that refuse, are silent, or speak oddly: each fails the poll with one clear error, in time."""

import asyncio
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from examples import SETTING
from ita_ag_oase.demo.exastro import DemoExastro, setting_row
from ita_ag_oase.errors import AgentError, Reason, SettingInvalid, SourceRejected, SourceUnavailable, SourceUnreadable
from ita_ag_oase.model import ConnectionMethod, Cursor, Portion, RequestMethod
from ita_ag_oase.sources.http import HttpClients
from ita_ag_oase.sources.source import Source, open_source
from ita_ag_oase.transport import Proxies, tls_context
from support import Deploy, ListSource, wait_for_all, wait_until
from wires import Listener, ScriptedServer

MAX_BYTES = 65_536
START = 1_704_034_800
TLS = tls_context(verify=True, ca_file=None)
MAIL = replace(
    SETTING,
    connection_method=ConnectionMethod.IMAP_PASSWORD,
    request_method=RequestMethod.IMAP_PLAIN,
    url="127.0.0.1",
    username="alarms",
    password="mail-passw0rd",
)

HELLO = "* OK ready\r\n"
CAPABLE = "* CAPABILITY IMAP4rev1\r\nTAG OK done\r\n"
OK = "TAG OK done\r\n"
EXAMINED = "* 1 EXISTS\r\n* OK [UIDVALIDITY 7]\r\n* OK [UIDNEXT 2]\r\nTAG OK [READ-ONLY] done\r\n"
# Greeting, CAPABILITY, LOGIN, EXAMINE, CAPABILITY, SEARCH, SEARCH, FETCH of what is there.
FOUND = (HELLO, CAPABLE, OK, EXAMINED, CAPABLE, "* SEARCH 1\r\n" + OK, "* SEARCH 1\r\n" + OK)


def _open(**columns: Any) -> Source:
    clients = HttpClients(make_tls=lambda: TLS, proxies=Proxies(None, None, None))
    setting = replace(MAIL, **columns)
    return open_source(setting, clients, make_tls=lambda: TLS, max_bytes=MAX_BYTES, zone=None)


@asynccontextmanager
async def _source(server: Listener, **columns: Any) -> AsyncIterator[Source]:
    with server:
        source = _open(port=server.port, **columns)
        yield source
        await source.close()


async def _failure(server: Listener, **columns: Any) -> AgentError:
    async with _source(server, **columns) as source:
        with pytest.raises(AgentError) as caught:
            await source.fetch(Cursor(START, None), START)
    assert "mail-passw0rd" not in f"{caught.value!r} {caught.value.__cause__!r}"
    return caught.value


REFUSALS: dict[str, tuple[tuple[str, ...], type[AgentError], Reason, str]] = {
    "busy": (("* BYE too many\r\n",), SourceUnavailable, Reason.UNREACHABLE, "does not take connections now"),
    "no IMAP": (("HTTP/1.1 400 Bad Request\r\n",), SourceUnavailable, Reason.UNREACHABLE, "does not take connections"),
    "no password in plain text": (
        (HELLO, "* CAPABILITY IMAP4rev1 LOGINDISABLED\r\nTAG OK done\r\n"),
        SourceRejected,
        Reason.TLS,
        "takes no password without encryption",
    ),
    "login": ((HELLO, CAPABLE, "TAG NO [AUTH] no\r\n"), SourceRejected, Reason.UNAUTHORIZED, r"login \(\[AUTH\] no\)"),
    "gone at login": ((HELLO, CAPABLE, "* BYE gone\r\n"), SourceUnavailable, Reason.UNREACHABLE, "connection broke"),
    "mailbox": ((HELLO, CAPABLE, OK, "TAG NO absent\r\n"), SourceRejected, Reason.MAILBOX, "absent.*'INBOX'"),
    "no UIDs": ((HELLO, CAPABLE, OK, "* 1 EXISTS\r\n" + OK), SourceRejected, Reason.MAILBOX, "no lasting UIDs"),
    "search refused": ((*FOUND[:5], "TAG BAD what\r\n"), SourceRejected, Reason.NOT_IMAP, "refused .*what"),
    "odd search": ((*FOUND[:5], "* SEARCH a b\r\n" + OK), SourceUnreadable, Reason.NOT_IMAP, "what is no IMAP"),
    "odd list": ((*FOUND, "* 1 FETCH (UID\r\n" + OK), SourceUnreadable, Reason.NOT_IMAP, "what is no IMAP"),
    "more than asked": (
        (*FOUND, "* 1 FETCH (UID 1 BODY[]<0> {9999999}\r\n"),
        SourceUnavailable,
        Reason.UNREACHABLE,
        "9999999 bytes announced, 65536 asked for",
    ),
    "mails without end that take all memory": (
        (*FOUND, ("* 1 FETCH (UID 1 BODY[]<0> {60000}\r\n" + "x" * 60_000 + ")\r\n") * 2 + OK),
        SourceUnavailable,
        Reason.UNREACHABLE,
        "60000 bytes announced, 5536 asked for",
    ),
    "lines without end that take all memory": (
        (HELLO, ("* OK " + "x" * 10_000 + "\r\n") * 500 + CAPABLE),
        SourceUnavailable,
        Reason.UNREACHABLE,
        "one answer is longer than 4194304 bytes",
    ),
}


@pytest.mark.parametrize(("script", "kind", "reason", "words"), REFUSALS.values(), ids=REFUSALS)
async def test_a_server_that_does_not_go_along_fails_the_poll_in_words(
    script: tuple[str, ...], kind: type[AgentError], reason: Reason, words: str
) -> None:
    err = await _failure(ScriptedServer(*script))
    assert (type(err), err.reason) == (kind, reason)
    with pytest.raises(AgentError, match=rf"^127\.0\.0\.1:\d+.*{words}"):
        raise err


@pytest.mark.parametrize("size", [0, 2, 39])
async def test_an_answer_that_cannot_be_read_does_not_show_a_mail(size: int) -> None:
    mail = f"* 1 FETCH (UID 1 BODY[]<0> {{{size}}}\r\nSubject: confidential\r\nconfidential\r\n\r\n FLAGS)\r\n"
    listed = "* 1 FETCH (UID 1 RFC822.SIZE 9)\r\n" + OK
    err = await _failure(ScriptedServer(*FOUND, listed, mail + OK))
    assert "confid" not in str(err)


async def test_no_password_is_sent_where_the_server_takes_none() -> None:
    server = ScriptedServer(*REFUSALS["no password in plain text"][0])
    await _failure(server)
    assert [command.split()[0] for command in server.commands] == ["CAPABILITY"]


async def test_a_server_that_claims_to_know_us_before_starttls_is_refused() -> None:
    capable = "* CAPABILITY IMAP4rev1 STARTTLS\r\nTAG OK done\r\n"
    server = ScriptedServer("* PREAUTH welcome\r\n", capable, capable)
    err = await _failure(server, request_method=RequestMethod.IMAP_STARTTLS)
    assert (type(err), set(server.commands)) == (SourceRejected, {"CAPABILITY"})


async def test_a_port_that_does_not_speak_tls_is_told() -> None:
    err = await _failure(ScriptedServer(HELLO), request_method=RequestMethod.IMAP_TLS)
    assert err.reason is Reason.TLS
    assert str(err).endswith(": check the request method and the port")


async def test_a_port_where_nobody_listens_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(SourceUnavailable) as caught:
        await _open(port=port).fetch(Cursor(START, None), START)
    assert str(caught.value).endswith("no connection (Connection refused): check the host, the port and the network")
    assert caught.value.reason is Reason.UNREACHABLE


async def test_a_proxy_where_nobody_listens_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(SourceUnavailable, match="Could not connect to proxy"):
        await _open(proxy=f"127.0.0.1:{port}").fetch(Cursor(START, None), START)


@pytest.mark.parametrize("script", [(HELLO,), FOUND], ids=["at once", "before the mail"])
async def test_a_silent_server_holds_up_nobody(script: tuple[str, ...]) -> None:
    server = ScriptedServer(*script)
    async with _source(server) as source:
        task = asyncio.create_task(source.fetch(Cursor(START, None), START))
        await asyncio.to_thread(wait_until, lambda: len(server.commands) >= len(script), "the last command")
        task.cancel()
        async with asyncio.timeout(5):
            await asyncio.wait([task])
        assert task.cancelled()


async def test_a_mail_is_read_from_a_server_that_can_do_little() -> None:
    arrival = datetime.fromtimestamp(START, UTC).strftime("%d-%b-%Y %H:%M:%S +0000")
    listed = f'* 1 FETCH (UID 1 RFC822.SIZE 9 INTERNALDATE "{arrival}")\r\n* 2 FETCH (FLAGS (\\Seen))\r\n'
    mail = "Message-ID: <a>\r\n\r\ntext"
    server = ScriptedServer(*FOUND, listed + OK, f"* 1 FETCH (UID 1 BODY[]<0> {{{len(mail)}}}\r\n{mail})\r\n" + OK)
    async with _source(server) as source:
        portion = await source.fetch(Cursor(START, None), START)
    assert isinstance(portion, Portion)
    assert [event.id for event in portion.events] == ["<a>"]
    assert server.commands[1:] == [
        'LOGIN alarms "mail-passw0rd"',
        'EXAMINE "INBOX"',
        "CAPABILITY",
        "UID SEARCH SINCE 30-Dec-2023",
        "UID SEARCH UID 1:1",
        "UID FETCH 1 (INTERNALDATE RFC822.SIZE)",
        "UID FETCH 1 (BODY.PEEK[]<0.65536>)",
        "LOGOUT",
    ]


async def test_a_mail_that_the_server_sends_without_its_origin_is_not_lost() -> None:
    listed = "* 1 FETCH (UID 1 RFC822.SIZE 9)\r\n" + OK
    mail = "Message-ID: <a>\r\n\r\ntext"
    fetched = f"* 1 FETCH (UID 1 BODY[] {{{len(mail)}}}\r\n{mail})\r\n" + OK
    async with _source(ScriptedServer(*FOUND, listed, fetched)) as source:
        portion = await source.fetch(Cursor(START, None), START)
    assert isinstance(portion, Portion)
    assert [event.id for event in portion.events] == ["<a>"]


async def test_a_mail_of_which_the_server_says_that_it_went_is_skipped() -> None:
    listed = "* 1 FETCH (UID 1 RFC822.SIZE 9)\r\n" + OK
    async with _source(ScriptedServer(*FOUND, listed, "TAG NO [EXPUNGEISSUED] gone\r\n")) as source:
        portion = await source.fetch(Cursor(START, None), START)
    assert isinstance(portion, Portion)
    assert (portion.events, portion.has_more) == ([], False)


INVALID: dict[str, tuple[dict[str, Any], str]] = {
    "method": ({"request_method": RequestMethod.GET}, "REQUEST_METHOD_ID must be TLS, STARTTLS or plain text"),
    "URL": ({"url": "imap://mail.test/"}, "URL must be the name of the mail server alone, such as imap.example.com"),
    "host": ({"url": "mail..test"}, "URL must be the name of the mail server alone, such as imap.example.com"),
    "user": ({"username": None}, "USERNAME is empty: fill it in in Exastro"),
    "HTTP proxy": ({"proxy": "http://proxy:8080"}, "PROXY is no URL of a SOCKS5 proxy: write one such as"),
    "proxy's port": ({"proxy": "socks5://proxy:port"}, "PROXY is no URL of a SOCKS5 proxy: write one such as"),
    "proxy's user": ({"proxy": "socks5://ü:s3cret@proxy"}, "PROXY is no URL of a SOCKS5 proxy: write one such as"),
}


@pytest.mark.parametrize(("columns", "why"), INVALID.values(), ids=INVALID)
def test_a_setting_that_can_never_be_asked_with_is_refused(columns: dict[str, Any], why: str) -> None:
    with pytest.raises(SettingInvalid) as caught:
        _open(**columns)
    assert str(caught.value).startswith(f"n1: {why}")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("proxy", ["socks5://user:pr0xy-pass@proxy:1080", "user:pr0xy-pass@proxy:1080"])
def test_the_password_of_a_proxy_does_not_escape_the_mask(proxy: str) -> None:
    assert replace(MAIL, proxy=proxy).secrets == (
        "mail-passw0rd",
        "alarms:mail-passw0rd",
        "pr0xy-pass",
        "user:pr0xy-pass",
    )


def test_a_silent_mail_server_holds_up_neither_other_sources_nor_the_end_of_the_agent(deploy: Deploy) -> None:
    with ScriptedServer(HELLO) as silent, ListSource("other", 3) as other:
        columns = {"CONNECTION_METHOD_ID": "4", "REQUEST_METHOD_ID": "5", "PORT": silent.port, "USERNAME": "alarms"}
        with DemoExastro([setting_row("mail", "127.0.0.1", **columns), other.row]) as exastro:
            agent = deploy(exastro, "mail", "other").start()
            agent.wait_until(lambda: silent.commands, "the mail server to be asked")
            wait_for_all(agent, exastro, other)
            assert agent.terminate(seconds=5) == 0


def test_an_agent_without_mailboxes_does_without_what_they_take() -> None:
    script = "import sys, ita_ag_oase.cli, ita_ag_oase.agent.lifecycle; print({'imapclient'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
