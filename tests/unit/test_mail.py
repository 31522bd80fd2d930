"""Mails as events: whatever the bytes are, one event of the same form."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ita_ag_oase.sources.mail import Mail, read_mail
from mails import CASES, FALLBACK_ID, MailCase

# A machine with other work is no reason to fail; `make check` finds today what it found yesterday.
REPEATABLE = settings(deadline=None, derandomize=True, max_examples=300)
SHORT_ONES = [case.raw for case in CASES.values() if len(case.raw) < 2_000]
MEMBERS = [
    ("date", int),
    ("lastchange", float),
    ("message_id", str),
    ("subject", str),
    ("body", dict),
    ("from", str),
    ("sender", str),
    ("to", str),
    ("cc", str),
    ("bcc", str),
    ("reply_to", str),
    ("in_reply_to", str),
    ("return_path", str),
    ("deliver_to", str),
]


def _told(mail: Mail) -> tuple[Any, tuple[tuple[str, int], ...]]:
    return mail.event, tuple((attachment.name, attachment.size_bytes) for attachment in mail.attachments)


def _check_form(mail: Mail) -> None:
    assert [(name, type(value)) for name, value in mail.event.items()] == MEMBERS
    assert [(name, type(value)) for name, value in mail.event["body"].items()] == [
        ("raw", str),
        ("plain", str),
        ("html", str),
    ]
    assert mail.message_id == mail.event["message_id"] != ""
    assert json.loads(json.dumps(mail.event, ensure_ascii=False).encode()) == mail.event
    assert all(attachment.name.encode() is not None and attachment.size_bytes >= 0 for attachment in mail.attachments)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_mail_becomes_its_event(case: MailCase) -> None:
    mail = read_mail(case.raw, fallback_id=FALLBACK_ID)
    assert _told(mail) == (case.event, case.attachments)
    _check_form(mail)


@REPEATABLE
@given(st.binary(max_size=500))
def test_any_bytes_become_an_event(raw: bytes) -> None:
    _check_form(read_mail(raw, fallback_id=FALLBACK_ID))


@REPEATABLE
@given(data=st.data())
def test_pieces_of_mails_become_an_event(data: st.DataObject) -> None:
    pieces = []
    for _ in range(data.draw(st.integers(1, 5))):
        raw = data.draw(st.sampled_from(SHORT_ONES))
        start = data.draw(st.integers(0, len(raw)))
        pieces += [raw[start : data.draw(st.integers(start, len(raw)))], data.draw(st.binary(max_size=3))]
    _check_form(read_mail(b"".join(pieces), fallback_id=FALLBACK_ID))


FLOODS = {
    "empty lines": b"\n",
    "fields": b"To: a@b\n",
    "lines that are no fields": b"Subject: a\nb c\n",
    "folds": b"Subject: a" + b"\n " * 1_000,
    "blanks": b"Subject: a" + b" \t" * 1_000,
    "open comments": b"From: " + b"(" * 2_000,
    "open quotes": b"From: " + b'"\\"' * 1_000,
    "colons": b"From: " + b"a:" * 1_000,
    "open words": b"Subject: " + b"=?a?q?" * 1_000,
    "words of no set": b"Subject: " + b"=?x?q?=ff?= =?y?q?=ff?= " * 1_000,
    "parameters": b"Content-Type: text/plain" + b'; a*0*="\\"' * 1_000,
    "parts": b"Content-Type: multipart/mixed; boundary=b\n\n" + b"--b\n" * 1_000,
    "levels": b"Content-Type: multipart/mixed; boundary=b\n\n--b\n",
    "bytes of no set": b"Content-Type: text/plain; charset=euc-jp\n\n" + b"\xff\x80\xfd" * 1_000,
}


@pytest.mark.parametrize("pattern", FLOODS.values(), ids=FLOODS)
def test_a_flood_is_read_in_linear_time(pattern: bytes) -> None:
    """More than that would take hours, which the time limit of tests ends."""
    _check_form(read_mail(_flood(pattern), fallback_id=FALLBACK_ID))


def _flood(pattern: bytes) -> bytes:
    """Return a megabyte that begins as the pattern does and goes on with its last bytes."""
    end = pattern[-6:] if len(pattern) > 1_000 else pattern
    return pattern + end * (1_000_000 // len(end))


@pytest.mark.timeout(30)
def test_a_mail_that_repeats_its_boundary_within_a_line_does_not_stop_the_agent() -> None:
    """Where each is looked at, this takes minutes, during which no other thread of the agent runs."""
    raw = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n " + b"--b" * 1_300_000
    assert read_mail(raw, fallback_id=FALLBACK_ID).message_id == FALLBACK_ID


@pytest.mark.parametrize("zone", ["+9999999999999", "-" + "9" * 150])
def test_a_mail_with_a_zone_that_no_store_can_hold_does_not_hold_up_its_batch(zone: str) -> None:
    raw = f"Date: 1 Jan 2024 00:00:00 {zone}\r\nReceived: here; 1 Jan 2024 00:00:00 +0000\r\n\r\n".encode()
    assert read_mail(raw, fallback_id=FALLBACK_ID).event["date"] == 1_704_067_200
