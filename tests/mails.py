"""Mails with one peculiarity each, and the events that they become."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

FALLBACK_ID = "n1_1704067200"
PLAIN, HTML = b"Content-Type: text/plain; charset=utf-8", b"Content-Type: text/html; charset=utf-8"
MIXED = b"Content-Type: multipart/mixed; boundary=b"
ROBOT = "robot@example.jp"


@dataclass(frozen=True)
class MailCase:
    """A mail, the members of its event that are not empty, and its attachments as (name, size).

    `members` holds the bodies beside the others. A date brings lastchange, a From the sender and reply_to.
    """

    raw: bytes
    members: Mapping[str, Any]
    attachments: tuple[tuple[str, int], ...] = ()

    @property
    def event(self) -> dict[str, Any]:
        """The whole event."""
        given = dict(self.members)
        date, sent_from = given.pop("date", 0), given.pop("from", "")
        event = {
            "date": date,
            "lastchange": float(date),
            "message_id": given.pop("message_id", FALLBACK_ID),
            "subject": given.pop("subject", ""),
            "body": {part: given.pop(part, "") for part in ("raw", "plain", "html")},
            "from": sent_from,
            "sender": given.pop("sender", sent_from),
            "to": given.pop("to", ""),
            "cc": given.pop("cc", ""),
            "bcc": given.pop("bcc", ""),
            "reply_to": given.pop("reply_to", sent_from),
            "in_reply_to": given.pop("in_reply_to", ""),
            "return_path": given.pop("return_path", ""),
            "deliver_to": given.pop("deliver_to", ""),
        }
        assert not given, f"no members of an event: {sorted(given)}"
        return event


def _lines(*lines: bytes | str) -> bytes:
    return b"\r\n".join(line.encode() if isinstance(line, str) else line for line in lines)


def _field(line: bytes | str, **members: Any) -> MailCase:
    """Return a mail that has one field and no body."""
    return MailCase(_lines(line, "", ""), members)


def _single(header: str, body: bytes, text: str, *, html: str = "") -> MailCase:
    """Return a mail whose body is one text."""
    return MailCase(_lines(header, "", body), {"raw": text, "plain": text, "html": html})


def _named(charset: str, body: bytes, text: str) -> MailCase:
    """Return a mail of one text that is said to be in a character set."""
    return _single(f"Content-Type: text/plain; charset={charset}", body, text)


def _divided(
    body: bytes, header: bytes = MIXED, *, attachments: tuple[tuple[str, int], ...] = (), **members: Any
) -> MailCase:
    """Return a mail of parts in UTF-8, whose body section is its own text."""
    return MailCase(_lines(header, "", body), {"raw": body.decode(), **members}, attachments)


def _base64(raw: bytes) -> bytes:
    return base64.b64encode(raw)


_ISO2022 = "サーバ監視で障害を検知しました。\r\n至急ご確認ください。\r\n"


def _unknown(raw: bytes) -> MailCase:
    """Return a mail that is all body."""
    return MailCase(raw, {"raw": raw.decode(), "plain": raw.decode()})


_WHOLE_MAILS = {
    "every field": MailCase(
        _lines(
            "Return-Path: <bounce@example.jp>",
            "Delivered-To: ops@example.jp",
            "Received: from a by b; Mon, 01 Jan 2024 00:00:09 +0000",
            "Date: Mon, 01 Jan 2024 09:00:00 +0900",
            "Message-ID: <1@example.jp>",
            "In-Reply-To: <0@example.jp>",
            "Subject: CPU load is high",
            "From: Zabbix <zabbix@example.jp>",
            "Sender: sender@example.jp",
            "Reply-To: Help <help@example.jp>",
            "To: ops@example.jp, Second <second@example.jp>",
            "Cc: third@example.jp",
            "Bcc: fourth@example.jp",
            "",
            "Host: web-01",
            "",
        ),
        {
            "date": 1704067200,
            "message_id": "<1@example.jp>",
            "subject": "CPU load is high",
            "raw": "Host: web-01\r\n",
            "plain": "Host: web-01\r\n",
            "from": '"Zabbix"<zabbix@example.jp>',
            "sender": "sender@example.jp",
            "to": 'ops@example.jp,"Second"<second@example.jp>',
            "cc": "third@example.jp",
            "bcc": "fourth@example.jp",
            "reply_to": '"Help"<help@example.jp>',
            "in_reply_to": "<0@example.jp>",
            "return_path": "<bounce@example.jp>",
            "deliver_to": "ops@example.jp",
        },
    ),
    "empty": MailCase(b"", {}),
    "only an empty line": MailCase(b"\r\n", {}),
    "no header": MailCase(
        b"disk full\r\non web-01\r\n", {"raw": "disk full\r\non web-01\r\n", "plain": "disk full\r\non web-01\r\n"}
    ),
    "no header, two paragraphs": MailCase(
        b"disk full\r\n\r\nweb-01\r\n", {"raw": "disk full\r\n\r\nweb-01\r\n", "plain": "disk full\r\n\r\nweb-01\r\n"}
    ),
    "no body": MailCase(b"Subject: a\r\n", {"subject": "a"}),
    "no empty line before the body": MailCase(
        b"Subject: a\r\ndisk full\r\n", {"subject": "a", "raw": "disk full\r\n", "plain": "disk full\r\n"}
    ),
    "bare line feeds": MailCase(
        b"Subject: a\n b\nTo: c@d\n\nx\ny\n", {"subject": "a b", "to": "c@d", "raw": "x\ny\n", "plain": "x\ny\n"}
    ),
    "mixed line ends": MailCase(
        b"Subject: a\nTo: c@d\r\n\nx\r\ny\n\rz",
        {"subject": "a", "to": "c@d", "raw": "x\r\ny\n\rz", "plain": "x\r\ny\n\rz"},
    ),
    "a mailbox file's line": MailCase(
        b"From root Mon Jan  1 00:00:00 2024\nSubject: a\n\nx", {"subject": "a", "raw": "x", "plain": "x"}
    ),
    "names in other cases": MailCase(b"SUBJECT: a\r\nfRom: b@c\r\n\r\n", {"subject": "a", "from": "b@c"}),
    "NUL bytes": MailCase(
        b"Subject: a\0b\r\n\r\nx\0y\r\n", {"subject": "a\0b", "raw": "x\0y\r\n", "plain": "x\0y\r\n"}
    ),
}

_FIELDS = {
    "an id without brackets": _field("Message-ID: 1@example.jp", message_id="1@example.jp"),
    "an empty id": _field("Message-ID: "),
    "an id behind an empty one": _field(_lines("Message-ID:", "Message-ID: <2@x>"), message_id="<2@x>"),
    "an id on the next line": _field("Message-ID:\r\n <1@example.jp>", message_id="<1@example.jp>"),
    "a subject twice": _field(_lines("Subject: a", "Subject: b"), subject="a"),
    "folded with blanks and tabs": _field("Subject:  a \t\r\n\t \tb\r\n  \r\n c  ", subject="a b c"),
    "folded without indentation": _field("Subject: a\r\nb c\r\nTo: d@e", subject="a b c", to="d@e"),
    "a lone carriage return": _field(b"Subject: a\rb", subject="a b"),
    "a blank before the colon": _field("Subject : a", subject="a"),
    "a very long subject": _field("Subject: " + "\r\n ".join(["word"] * 20_000), subject=" ".join(["word"] * 20_000)),
    "a subject that looks encoded": _field("Subject: =?utf-8?x?a?= =?utf-8?q?a", subject="=?utf-8?x?a?= =?utf-8?q?a"),
    "iso-2022-jp in base64": _field("Subject: =?ISO-2022-JP?B?GyRCNEY7axsoQg==?=", subject="監視"),
    "utf-8 in quoted-printable": _field(
        "Subject: =?utf-8?q?=E7=9B=A3=E8=A6=96_web=5F01?= ok", subject="監視 web_01 ok"
    ),
    "several sets in one line": _field(
        "Subject: [Zabbix] =?shift_jis?b?isSOiw==?= =?utf-8?q?=E7=9B=A3?= =?euc-jp?b?u+s=?= ok",
        subject="[Zabbix] 監視監視 ok",
    ),
    "a character cut between words": _field("Subject: =?utf-8?B?55s=?=\r\n =?UTF-8?B?o+imlg==?=", subject="監視"),
    "a cut character of shift_jis": _field("Subject: =?shift_jis?q?=8A?= =?shift_jis?q?=C4=8E=8B?=", subject="監視"),
    "words without a blank between": _field("Subject: =?utf-8?q?a?==?utf-8?q?b?=c", subject="abc"),
    "a word with a language": _field("Subject: =?utf-8*ja?q?=E7=9B=A3?=", subject="監"),
    "a word with blanks inside": _field("Subject: =?utf-8?q?a b?=", subject="a b"),
    "a word without padding": _field("Subject: =?utf-8?b?YQ?= =?utf-8?b?YmM?=", subject="abc"),
    "a word that is no base64": _field("Subject: x =?utf-8?b?!?= y", subject="x  y"),
    "a word of an unknown set": _field("Subject: =?x-nonsense?q?=E7=9B=A3=E8=A6=96?=", subject="監視"),
    "a word of a set that is no text": _field("Subject: =?rot13?q?abc?= =?idna?q?d=C3=A9?=", subject="abcdé"),
    "a word with half of a pair": _field("Subject: =?utf-7?q?+2AA-?=", subject="\ufffd"),
    "eight-bit utf-8": _field("Subject: 監視", subject="監視"),
    "eight-bit shift_jis": _field("Subject: サーバ監視".encode("shift_jis"), subject="サーバ監視"),
    "eight-bit euc-jp": _field("Subject: サーバ監視".encode("euc-jp"), subject="サーバ監視"),
    "unencoded iso-2022-jp": _field('Subject: 監視, "web"'.encode("iso-2022-jp"), subject='監視, "web"'),
    "eight-bit in the body's set": MailCase(
        _lines("Subject: 監視".encode("euc-jp"), "Content-Type: text/plain; charset=euc-jp", "", ""),
        {"subject": "監視"},
    ),
    "a box and nothing else": _field("From: root", **{"from": "root"}),
    "a box without a name": _field("From: <root@example.jp>", **{"from": "root@example.jp"}),
    "an empty box": _field("From: Mail Delivery <>", **{"from": '"Mail Delivery"<>'}),
    "an empty From": _field("From: "),
    "a name in words": _field("From: =?iso-2022-jp?b?GyRCRURDZhsoQg==?= <a@b>", **{"from": '"田中"<a@b>'}),
    "a word in quotes": _field('From: "=?iso-2022-jp?b?GyRCRURDZhsoQg==?=" <a@b>', **{"from": '"田中"<a@b>'}),
    "a comma in quotes": _field(r'To: "Tanaka, \"Taro\"" <a@b>,c@d', to='"Tanaka, "Taro""<a@b>,c@d'),
    "a comma in a word": _field("To: =?utf-8?q?Tanaka,_Taro?= <a@b>", to='"Tanaka, Taro"<a@b>'),
    "a comma of an encoded word": _field("To: =?utf-8?q?Tanaka=2C_Taro?= <a@b>", to='"Tanaka, Taro"<a@b>'),
    "a name in a comment": _field(r"To: a@b (Tanaka (Taro\) \(ops))", to='"Tanaka (Taro) (ops)"<a@b>'),
    "an open comment": _field("To: a@b (Taro", to='"Taro"<a@b>'),
    "open quotes": _field('To: "Taro <a@b>', to='"Taro <a@b>'),
    "an open bracket": _field("To: Taro <a@b", to='"Taro"<a@b>'),
    "a route": _field("To: <@x,@y:a@b>", to="a@b"),
    "a literal address": _field("To: a@[IPv6:::1], b@c", to="a@[IPv6:::1],b@c"),
    "a quoted box": _field('To: "a b"@c', to='"a b"@c'),
    "a group": _field("To: Ops: a@b, Taro <c@d>; , e@f", to='a@b,"Taro"<c@d>,e@f'),
    "a group of none": _field("To: undisclosed-recipients:;", to="undisclosed-recipients:;"),
    "only commas": _field("To: , ,;,"),
    "recipients in two fields": _field(_lines("To: a@b", "To: c@d"), to="a@b,c@d"),
    "no address": _field("From: System Administrator", **{"from": "System Administrator"}),
    "an empty Sender": _field(_lines("From: a@b", "Sender:", "Reply-To: ;"), **{"from": "a@b"}),
}

_DATES = {
    "a zone by name": _field("Date: Mon, 01 Jan 2024 09:00:00 JST", date=1704067200),
    "a zone by name in a comment": _field("Date: Mon, 1 Jan 2024 09:00:00 +0900 (JST)", date=1704067200),
    "no zone": _field("Date: 1 Jan 2024 00:00:00", date=1704067200),
    "a year of two digits": _field("Date: 1 Jan 24 00:00 GMT", date=1704067200),
    "before the epoch": _field("Date: 31 Dec 1969 23:59:59 +0000", date=-1),
    "no date, but received": _field(
        _lines("Received: from a by b;\r\n\tMon, 01 Jan 2024 09:00:00 +0900", "Received: x; 2 Jan 2020 00:00:00 +0000"),
        date=1704067200,
    ),
    "an unreadable date, but received": _field(
        _lines("Date: yesterday", "Received: by b", "Received: x; 1 Jan 2024 00:00:00 +0000"), date=1704067200
    ),
    "a day that is none": _field("Date: 31 Foo 2024 00:00:00 +0000"),
    "a month of 99 days": _field("Date: 99 Jan 2024 00:00:00 +0000", date=1712534400),
    "a year of 20 digits": _field("Date: 1 Jan 20240000000000000000 00:00:00 +0000"),
    "a date of commas": _field("Date: ,,,,"),
}

_SINGLE_TEXTS = {
    "iso-2022-jp": _named("ISO-2022-JP", _ISO2022.encode("iso-2022-jp"), _ISO2022),
    "iso-2022-jp, half-width": _named("iso-2022-jp", "ｻｰﾊﾞ".encode("iso2022_jp_ext"), "ｻｰﾊﾞ"),
    "iso-2022-jp, vendor's characters": _named("iso-2022-jp", b"\x1b$B-!-jFb|b\x1b(B", "①㈱内髙"),
    "iso-2022-jp, damaged": _named("iso-2022-jp", b"\x1b$B4F;k\x1b(B\xff", "監視\ufffd"),
    "iso-2022-jp without a name": _single("Subject:", _ISO2022.encode("iso-2022-jp"), _ISO2022),
    "iso-2022-jp named utf-8": _named("utf-8", _ISO2022.encode("iso-2022-jp"), _ISO2022),
    "iso-2022-kr": _named("iso-2022-kr", "서버\r\n".encode("iso-2022-kr"), "서버\r\n"),
    "shift_jis": _named("Shift_JIS", _ISO2022.encode("shift_jis"), _ISO2022),
    "shift_jis keeps its wave dash": _named("Shift_JIS", b"\x81\x60", "\u301c"),
    "cp932 named shift_jis": _named("shift_jis", "①髙".encode("cp932"), "①髙"),
    "cp932 by another name": _named("Windows-31J", "①髙".encode("cp932"), "①髙"),
    "x-sjis": _named("x-sjis", "監視".encode("cp932"), "監視"),
    "shift_jis, half-width": _named("shift_jis", "ｻｰﾊﾞ ﾃﾞｨｽｸ".encode("cp932"), "ｻｰﾊﾞ ﾃﾞｨｽｸ"),
    "euc-jp": _named("EUC-JP", _ISO2022.encode("euc-jp"), _ISO2022),
    "euc-jp, a word that could be utf-8": _named("euc-jp", "検".encode("euc-jp") + b"\xc3\xb1", "検単"),
    "euc-jp, vendor's characters": _named("euc-jp", b"\xad\xa1\xfc\xe2", "①髙"),
    "euc-jp, damaged": _named("euc-jp", b"\xb4\xc6\xbb\xeb\xad\xa1\xff", "監視①\ufffd"),
    "utf-8": _named("utf-8", _ISO2022.encode(), _ISO2022),
    "utf-8 with a byte order mark": _named("utf-8", b"\xef\xbb\xbf" + "監視".encode(), "監視"),
    "utf-8, cut within a character": _named("utf-8", "監視ログ".encode()[:-1], "監視ロ\ufffd"),
    "utf-16": _named("utf-16", "監視".encode("utf-16"), "監視"),
    "utf-7": _named("utf-7", "監視".encode("utf-7"), "監視"),
    "us-ascii": _named("us-ascii", b"disk full\r\n", "disk full\r\n"),
    "ANSI_X3.4-1968": _named("ANSI_X3.4-1968", b"disk full", "disk full"),
    "iso-8859-1": _named("iso-8859-1", b"caf\xe9", "café"),
    "windows-1252 named iso-8859-1": _named("iso-8859-1", b"\x93caf\xe9\x94", "“café”"),
    "gb18030 named gb2312": _named("gb2312", "服务器镕".encode("gb18030"), "服务器镕"),
    "koi8-r": _named("koi8-r", "Сервер".encode("koi8-r"), "Сервер"),
    "cp037": _named("cp037", "disk full".encode("cp037"), "disk full"),
    "utf-8 named iso-8859-1": _named("iso-8859-1", "監視".encode(), "監視"),
    "utf-8 named shift_jis": _named("shift_jis", _ISO2022.encode(), _ISO2022),
    "shift_jis named utf-8": _named("utf-8", _ISO2022.encode("shift_jis"), _ISO2022),
    "shift_jis named iso-8859-1": _named("iso-8859-1", _ISO2022.encode("shift_jis"), _ISO2022),
    "shift_jis named euc-jp": _named("euc-jp", _ISO2022.encode("shift_jis"), _ISO2022),
    "euc-jp named shift_jis": _named("shift_jis", _ISO2022.encode("euc-jp"), _ISO2022),
    "euc-jp without a name": _single("Subject:", _ISO2022.encode("euc-jp"), _ISO2022),
    "shift_jis of an unknown name": _named("nonsense", _ISO2022.encode("shift_jis"), _ISO2022),
    "windows-1251 without a name": _single(
        "Subject:", "Сервер недоступен, проверьте".encode("cp1251"), "Сервер недоступен, проверьте"
    ),
    "bytes of no set": _single("Subject:", b"a\xfd\x81\xfd", "a\ufffd\ufffd\ufffd"),
    "half-width without a name": _single("Subject:", "ｻｰﾊﾞ ﾃﾞｨｽｸ".encode("cp932"), "ｻｰﾊﾞ ﾃﾞｨｽｸ"),
    "base64": _single("Content-Transfer-Encoding: BASE64", _base64("監視\r\n".encode()), "監視\r\n"),
    "base64, cut": _single("Content-Transfer-Encoding: base64", b"ZGlzayBmdWxsI", "disk full"),
    "base64, dirty": _single("Content-Transfer-Encoding: base64", b"ZGlz!!\r\nayBm dWxs\r\n", "disk full"),
    "base64 and a footer": _single("Content-Transfer-Encoding: base64", b"ZGlzaw==\r\n-- \r\nlist footer\r\n", "disk"),
    "quoted-printable": _single(
        "Content-Transfer-Encoding: quoted-printable", b"=E7=9B=A3=E8=A6=\r\n=96 a=3Db=zz\r\n", "監視 a=b=zz\r\n"
    ),
    "uuencode": _single("Content-Transfer-Encoding: x-uuencode", b"begin 644 a\r\n%:&5L;&\\\r\n \r\nend\r\n", "hello"),
    "uuencode without a beginning": _single("Content-Transfer-Encoding: x-uuencode", b"hello\r\n", "hello\r\n"),
    "uuencode, broken": _single(
        "Content-Transfer-Encoding: x-uuencode", b"begin 644 a\n%:&5L;&\\\n#8abc\n\nend\n", "hello#8abc"
    ),
    "an unknown transfer encoding": _single("Content-Transfer-Encoding: x-none", b"a=3D\r\n", "a=3D\r\n"),
    "a Content-Type that is none": _single("Content-Type: text", b"a\r\n", "a\r\n"),
    "a charset with a comment": _single('Content-Type: text/plain; charset = "utf-8" (all)', "監視".encode(), "監視"),
    "HTML alone": _single(
        HTML.decode(), b"<p>\r\n disk\tfull</p>\r\n", "<p>\r\n disk\tfull</p>\r\n", html="<p>diskfull</p>"
    ),
    "a text that is said to be a file": _single(
        "Content-Disposition: attachment; filename=a.txt", b"disk full\r\n", "disk full\r\n"
    ),
}

_ALTERNATIVE = _lines("--b", PLAIN, "", " disk full ", "", "--b", HTML, "", "<p> disk\u3000full </p>", "--b--", "")
_NESTED = _lines(
    *("before", "--b", "Content-Type: multipart/related; boundary=bb", ""),
    *("--bb", 'Content-Type: multipart/alternative; boundary="b b"', ""),
    *("--b b", PLAIN, "", "text", "--b b", HTML, "", "<i>text</i>", "--b b--", ""),
    *("--bb", "Content-Type: image/png; name=logo.png", "Content-ID: <1>", "Content-Transfer-Encoding: base64", ""),
    *("iVBO", "--bb--", ""),
    *("--b", "Content-Type: text/plain", "Content-Disposition: attachment; filename=log.txt", "", "line"),
    *("--b--", "after"),
)


def _file(*header: str, name: str, body: str = "x", size: int = 1) -> MailCase:
    """Return a mail of a text and a file with this header."""
    section = _lines("--b", "", "text", "--b", *header, "", body, "--b--", "")
    return _divided(section, plain="text", attachments=((name, size),))


_FILES = {
    "an image": _file(
        "Content-Type: image/png; name=a.png", "Content-Transfer-Encoding: base64", body="QUJD", name="a.png", size=3
    ),
    "a file without a name": _file("Content-Type: application/pdf", name=""),
    "a text that is a file": _file("Content-Disposition: attachment", name=""),
    "a text with a file's name": _file("Content-Disposition: inline; filename=a.txt", name="a.txt"),
    "HTML that is a file": _file(HTML.decode(), 'Content-Disposition: ATTACHMENT; FileName="a.html"', name="a.html"),
    "quotes and semicolons": _file(r'Content-Disposition: attachment; filename="a\";b.txt"; size=1', name='a";b.txt'),
    "a Windows path": _file(r'Content-Disposition: attachment; filename="C:\logs\a.txt"', name=r"C:\logs\a.txt"),
    "a name with blanks": _file("Content-Disposition: attachment; filename = my log.txt ; x", name="my log.txt"),
    "RFC 2231": _file(
        "Content-Disposition: attachment; filename*=iso-2022-jp'ja'%1B$B4F%3Bk%1B%28B.txt", name="監視.txt"
    ),
    "RFC 2231 in pieces": _file(
        "Content-Disposition: attachment;\r\n filename*1*=%A6%96; filename*0*=utf-8''%E7%9B%A3%E8;\r\n"
        ' filename*2=".100%25"; filename=x',
        name="監視.100%25",
    ),
    "RFC 2231 without a charset": _file("Content-Disposition: attachment; filename*=%E7%9B%A3", name="監"),
    "RFC 2231 and RFC 2231 in pieces": _file(
        "Content-Disposition: attachment; filename*=''a; filename*0=b; filename*x=c", name="b"
    ),
    "RFC 2047": _file('Content-Type: text/csv; name="=?utf-8?b?55uj6KaW?=.csv"', name="監視.csv"),
    "an attached mail": _file(
        "Content-Type: message/rfc822", body="Subject: inner\r\n\r\ntext of it", name="", size=28
    ),
    "uuencoded": _file(
        "Content-Type: application/zip; name=a.zip",
        "Content-Transfer-Encoding: uuencode",
        body="begin 644 a\n%:&5L;&\\\n \nend",
        name="a.zip",
        size=5,
    ),
}

_PARTS = {
    "alternatives": _divided(
        _ALTERNATIVE, b'Content-Type: Multipart/Alternative; Boundary="b"', plain="disk full", html="<p>diskfull</p>"
    ),
    "nested": _divided(_NESTED, plain="text", html="<i>text</i>", attachments=(("logo.png", 3), ("log.txt", 4))),
    "HTML and a file": _divided(
        _lines("--b", HTML, "", "<i>a b</i>", "--b", "Content-Type: a/b", "", "x", "--b--"),
        html="<i>ab</i>",
        attachments=(("", 1),),
    ),
    "two texts": _divided(_lines("--b", "", "first", "--b", "", "second", "--b--"), plain="first"),
    "parts in several sets": MailCase(
        _lines(
            MIXED,
            "",
            "サーバ監視".encode("cp932"),
            "--b",
            "Content-Type: text/plain; charset=iso-2022-jp",
            "",
            "監視".encode("iso-2022-jp"),
            "--b",
            "Content-Type: text/html; charset=euc-jp",
            "",
            "<b>検知</b>".encode("euc-jp"),
            "--b--",
        ),
        {
            "raw": "サーバ監視\r\n--b\r\nContent-Type: text/plain; charset=iso-2022-jp\r\n\r\n監視\r\n"
            "--b\r\nContent-Type: text/html; charset=euc-jp\r\n\r\n<b>検知</b>\r\n--b--",
            "plain": "監視",
            "html": "<b>検知</b>",
        },
    ),
    "encoded parts": _divided(
        _lines(
            "--b",
            PLAIN,
            "Content-Transfer-Encoding: base64",
            "",
            _base64("監視".encode()),
            "--b",
            HTML,
            "Content-Transfer-Encoding: quoted-printable",
            "",
            "<b>=E7=9B=A3</b>",
            "--b--",
        ),
        plain="監視",
        html="<b>監</b>",
    ),
    "a report": _divided(
        _lines(
            "--b", "", "not delivered", "--b", "Content-Type: message/delivery-status", "", "Action: failed", "--b--"
        ),
        b"Content-Type: multipart/report; boundary=b; report-type=delivery-status",
        plain="not delivered",
        attachments=(("", 14),),
    ),
    "a digest": _divided(
        _lines("--b", "", "Subject: a", "", "x", "--b--"),
        b"Content-Type: multipart/digest; boundary=b",
        attachments=(("", 15),),
    ),
    "a mail that is a file": _divided(
        b"QUJD", b"Content-Type: image/png\r\nContent-Transfer-Encoding: base64", attachments=(("", 3),)
    ),
    "bare line feeds between parts": _divided(b"--b\n\n a \n--b\n" + HTML + b"\n\n<b>\n--b--\n", plain="a", html="<b>"),
    "parts without an empty line": _divided(b"--b\r\na\r\n--b\r\n" + HTML + b"\r\n<b>\r\n--b--", plain="a", html="<b>"),
    "empty parts": _divided(b"--b\r\n--b\r\n\r\n--b--", plain=""),
    "blanks behind a boundary": _divided(b"--b \t\r\n\r\na\r\n--b-- \r\n", plain="a"),
    "a boundary as the beginning of another": _divided(
        b"--bb\r\n--b\r\n\r\na\r\n--bb\r\nc--b\r\n--b--", plain="a\r\n--bb\r\nc--b"
    ),
    "no last boundary": _divided(b"--b\r\n\r\na\r\n--b\r\n" + HTML + b"\r\n\r\n<b>", plain="a", html="<b>"),
    "only a last boundary": _divided(b"a\r\n--b--\r\n", plain="a\r\n--b--"),
    "parts behind the last boundary": _divided(b"--b\r\n\r\n\r\n--b--\r\n--b\r\n" + HTML + b"\r\n\r\n<b>"),
    "a boundary that never comes": _divided(b"\r\ntext\r\n", plain="text"),
    "a boundary that is not named": _divided(
        b"--b\r\n\r\na\r\n--b--", b"Content-Type: multipart/mixed", plain="--b\r\n\r\na\r\n--b--"
    ),
    "a boundary used twice": _divided(_lines("--b", MIXED, "", "--b", "", "a", "--b--", "--b--"), plain=""),
    "a boundary of odd characters": _divided(
        b"--=_(x)+?*\r\n\r\na\r\n--=_(x)+?*--", b'Content-Type: multipart/mixed; boundary="=_(x)+?*"', plain="a"
    ),
}


def _many_parts() -> MailCase:
    body = b"".join(b"--b\r\nContent-Type: a/b; name=%d\r\n\r\nx\r\n" % number for number in range(3_000)) + b"--b--"
    return _divided(body, attachments=tuple((str(number), 1) for number in range(3_000)))


def _deep(levels: int) -> bytes:
    return b"".join(
        b"Content-Type: multipart/mixed; boundary=%d.\n\n--%d.\n" % (level, level) for level in range(levels)
    )


def _too_deep() -> MailCase:
    """Return a mail of 5,000 levels, of which the twentieth is text as it stands."""
    raw = _deep(5_000) + b"\ntext\n"
    section, inner = raw.partition(b"\n\n")[2], raw[len(_deep(20)) :].partition(b"\n\n")[2]
    return MailCase(raw, {"raw": section.decode(), "plain": inner.decode().strip()})


_LARGE = {
    "3,000 parts": _many_parts(),
    "ten levels": MailCase(
        _deep(10) + b"\ntext", {"raw": (_deep(10) + b"\ntext").decode().partition("\n\n")[2], "plain": "text"}
    ),
    "5,000 levels": _too_deep(),
    "5,000 open comments": _field("From: a@b " + "(" * 5_000, **{"from": '"' + "(" * 4_999 + '"<a@b>'}),
    "a megabyte in one line": _single("Subject:", b"x" * 1_000_000, "x" * 1_000_000),
    "100,000 words": _field(
        "Subject: " + "=?utf-8?q?a?= " * 100_000, subject="a" * 18_724 + " " + ("=?utf-8?q?a?= " * 81_276).strip()
    ),
    "100,000 recipients": _field("To: " + "a@b," * 100_000, to=",".join(["a@b"] * 65_536) + "a@b," * 34_464),
    "10,000 parameters": _single("Content-Type: text/plain" + "; a*0*=x" * 10_000, b"a", "a"),
}

CASES: Mapping[str, MailCase] = {
    f"{kind}: {name}": case
    for kind, cases in (
        ("mail", _WHOLE_MAILS),
        ("field", _FIELDS),
        ("date", _DATES),
        ("text", _SINGLE_TEXTS),
        ("file", _FILES),
        ("parts", _PARTS),
        ("large", _LARGE),
    )
    for name, case in cases.items()
}
