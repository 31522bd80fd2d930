"""What a mail says, as an event's members (protocol section 2.7). A stand-in until MIME is read properly."""

from collections.abc import Mapping
from dataclasses import dataclass
from email import message_from_bytes, policy
from typing import Any


@dataclass(frozen=True, slots=True)
class Attachment:
    """A part of a mail that is no text of it."""

    name: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail as an event, with what identifies it."""

    message_id: str
    event: Mapping[str, Any]
    attachments: tuple[Attachment, ...]


def read_mail(raw: bytes, *, fallback_id: str) -> Mail:
    """Return what a mail says; `fallback_id` identifies one without Message-ID."""
    message = message_from_bytes(raw, policy=policy.compat32)
    message_id = str(message.get("Message-ID") or fallback_id)
    body = raw.partition(b"\r\n\r\n")[2].decode("utf-8", "replace")
    event = {"message_id": message_id, "subject": str(message.get("Subject", "")), "body": {"plain": body}}
    return Mail(message_id, event, ())
