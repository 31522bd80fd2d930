"""A mail as an event (protocol section 2.7). Pure, and it never raises: whatever the bytes are, a mail is one event."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ita_ag_oase.sources.charsets import TextDecoder
from ita_ag_oase.sources.mail_fields import decode_addresses, decode_words, read_date
from ita_ag_oase.sources.mime import Part, Span, first, leaves, read_part, transfer_decoded

# More than mail passes through hosts on its way.
_RECEIVED = 100


@dataclass(frozen=True, slots=True)
class Attachment:
    """A part of a mail that is not its text; `size_bytes` is what it has once decoded."""

    name: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail, read: `message_id` is the event's, and tells it from others."""

    message_id: str
    event: Mapping[str, Any]
    attachments: tuple[Attachment, ...]


def read_mail(raw: bytes, *, fallback_id: str) -> Mail:
    """Return the event that a mail is, without labels, and what it has attached.

    `fallback_id` is the message id of a mail without one. The date is that of the Date field or, where that is missing
    or none, of the latest Received field with a date, which is about when the mail arrived, else 0. Of a field that
    may stand once the first value counts; address lists are joined. Bodies: text/plain and text/html without a file
    name, the first of each; all other parts are attachments. `raw` is the body section as it stands in its own
    character sets and, where it is one text, without its transfer encoding. Where something cannot be decoded, there is
    U+FFFD.
    """
    return _MailReader(raw).read(fallback_id)


class _MailReader:
    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._decoder = TextDecoder()
        self._whole = read_part(raw, Span(0, len(raw)))
        self._leaves = tuple(leaves(raw, self._whole))

    def read(self, fallback_id: str) -> Mail:
        message_id = self._text("message-id") or fallback_id
        date = self._date()
        sent_from = self._addresses("from")
        event = {
            "date": date,
            "lastchange": float(date),
            "message_id": message_id,
            "subject": self._text("subject"),
            "body": self._body(),
            "from": sent_from,
            "sender": self._addresses("sender") or sent_from,
            "to": self._addresses("to"),
            "cc": self._addresses("cc"),
            "bcc": self._addresses("bcc"),
            "reply_to": self._addresses("reply-to") or sent_from,
            "in_reply_to": self._text("in-reply-to"),
            "return_path": self._text("return-path"),
            "deliver_to": self._text("delivered-to"),
        }
        return Mail(message_id, event, tuple(self._attachments()))

    def _written(self, value: bytes) -> str:
        """Return a field's value as text; one that is not ASCII is most likely in the character set of the body."""
        return self._decoder.decode(value, self._leaves[0].charset if self._leaves else None)

    def _text(self, name: str) -> str:
        return decode_words(self._written(first(self._whole.fields, name)), self._decoder).strip()

    def _addresses(self, name: str) -> str:
        written = self._written(b", ".join(self._whole.fields.get(name, ())))
        return decode_addresses(written, self._decoder)

    def _date(self) -> int:
        fields = self._whole.fields
        received = (value.rpartition(b";")[2] for value in fields.get("received", ())[:_RECEIVED])
        for value in (first(fields, "date"), *received):
            date = read_date(value.decode("ascii", "replace"))
            if date is not None:
                return date
        return 0

    def _body(self) -> dict[str, str]:
        if _is_single_text(self._whole):
            text = self._text_of(self._whole)
            is_html = self._whole.content_type.text == "text/html"
            return {"raw": text, "plain": text, "html": _without_white_space(text) if is_html else ""}
        plain, html = (self._first_text(kind) for kind in ("text/plain", "text/html"))
        return {"raw": self._section(), "plain": plain.strip(), "html": _without_white_space(html)}

    def _first_text(self, kind: str) -> str:
        return next((self._text_of(part) for part in self._leaves if _text_kind(part) == kind), "")

    def _text_of(self, part: Part) -> str:
        return self._decoder.decode(transfer_decoded(self._raw, part), part.charset)

    def _section(self) -> str:
        """Return the body section, each text in it read in its own character set."""
        pieces, end = [], self._whole.body.start
        for part in self._leaves:
            if _text_kind(part):
                pieces += [(end, part.body.start, None), (part.body.start, part.body.end, part.charset)]
                end = part.body.end
        pieces.append((end, self._whole.body.end, None))
        return "".join(self._decoder.decode(self._raw[start:stop], charset) for start, stop, charset in pieces)

    def _attachments(self) -> Iterable[Attachment]:
        if _is_single_text(self._whole):
            return
        for part in self._leaves:
            if not _text_kind(part):
                yield Attachment(self._file_name(part), len(transfer_decoded(self._raw, part)))

    def _file_name(self, part: Part) -> str:
        own, other = part.disposition.parameter("filename"), part.content_type.parameter("name")
        written = own if own.value else other
        return decode_words(self._decoder.decode(written.value, written.charset or part.charset), self._decoder)


def _is_single_text(whole: Part) -> bool:
    """Whether the body is one text, whatever the header says of a file."""
    return whole.content_type.text.startswith("text/")


def _text_kind(part: Part) -> str:
    """Return text/plain or text/html for a part that is read as text, and nothing for an attachment."""
    kind, disposition = part.content_type.text, part.disposition
    if kind.startswith("multipart/"):
        # It could not be divided, so it is what a reader would see.
        return "text/plain"
    is_file = disposition.text == "attachment" or bool(disposition.parameter("filename").value)
    return kind if kind in ("text/plain", "text/html") and not is_file else ""


def _without_white_space(text: str) -> str:
    return "".join(text.split())
