"""Log lines: JSON, or readable ones on a terminal, with every known secret taken out."""

import base64
import io
import json
import logging
import math
import re
import sys
from collections.abc import Iterator, Mapping, MutableMapping
from datetime import tzinfo
from typing import Any, TextIO
from urllib.parse import quote, quote_plus

import msgspec
import structlog

from ita_ag_oase import clock
from ita_ag_oase.errors import AgentError
from ita_ag_oase.observability.messages import MESSAGES
from ita_ag_oase.text import ENGLISH, Text, Translations

MASK = "********"
# Shorter secrets are taken out only where they stand alone, or logs would be full of holes.
_SHORT_CHARACTERS = 4
# A JSON Web Token (RFC 7519) or its beginning, also in base64. Access tokens are known by their looks: one learned
# every few minutes would have to be kept and looked for in every line for ever.
_WEB_TOKEN = re.compile(r"eyJ[\w-]{10,}(?:\.[\w-]*){2,4}", re.ASCII)
_WEB_TOKEN_PART = re.compile(r"eyJ[\w-]{10,}(?:\.[\w-]*){0,4}|ZXlK[\w+/-]{10,}={0,2}", re.ASCII)
# What a person would else read twice in one line.
_OFTEN_IN_MESSAGE = ("detail", "text")
# A text among the facts of a line is cut at this length.
_TOLD_CHARACTERS = 512
# What httpx leaves as it is in a query.
_QUERY_SAFE = "!$&'()*+,;=:@/?[\\]^`{|}"


class Redactor:
    """Knows the secrets and replaces them in text, in every form they could appear in."""

    def __init__(self) -> None:
        self._secrets: set[str] = set()
        self._long_forms: list[str] = []
        self._short_forms: list[re.Pattern[str]] = []

    def add(self, secret: str | None) -> None:
        """Learn a secret; empty ones are none."""
        if not secret or secret in self._secrets or _WEB_TOKEN.fullmatch(secret):
            return
        self._secrets.add(secret)
        forms = _forms(secret)
        self._short_forms += [_alone(form) for form in forms if len(form) < _SHORT_CHARACTERS]
        long_forms = {form for form in forms if len(form) >= _SHORT_CHARACTERS}
        self._long_forms = sorted({*self._long_forms, *long_forms}, key=len, reverse=True)

    def redact(self, text: str) -> str:
        """Return the text without any secret."""
        for form in self._long_forms:
            if form in text:
                text = text.replace(form, MASK)
        for pattern in self._short_forms:
            text = pattern.sub(MASK, text)
        return _WEB_TOKEN_PART.sub(MASK, text)

    def redact_value(self, value: Any) -> Any:
        """Return what the value says without any secret, made of what JSON knows; keys are texts."""
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, Mapping):
            return {self.redact(str(key)): self.redact_value(member) for key, member in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self.redact_value(element) for element in value]
        if isinstance(value, msgspec.Raw):
            return self._redact_json(value)
        text = str(value)
        redacted = self.redact(text)
        is_number = isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))
        return value if is_number and redacted == text else redacted

    def _redact_json(self, raw: msgspec.Raw) -> Any:
        text = bytes(raw).decode()
        return raw if self.redact(text) == text else self.redact_value(json.loads(text))


def _forms(secret: str) -> set[str]:
    raw = secret.encode("utf-8", "replace")
    plain = {secret, repr(secret)[1:-1], json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]}
    # JSON within JSON is escaped twice.
    escaped = {json.dumps(form)[1:-1] for form in plain}
    quoted = {quote(raw, safe=safe) for safe in ("", "/", _QUERY_SAFE)} | {quote_plus(raw)}
    return plain | escaped | quoted | set(_base64_forms(raw))


def _base64_forms(raw: bytes) -> Iterator[str]:
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        yield encode(raw).decode()
        yield encode(raw).decode().rstrip("=")
        # Within a longer text, as a password in a Basic header, only these characters are the secret's alone.
        for before in range(3):
            first, end = -(-before * 8 // 6), (before + len(raw)) * 8 // 6
            if end - first >= 2 * _SHORT_CHARACTERS:
                yield encode(bytes(before) + raw).decode()[first:end]


def _alone(form: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w){re.escape(form)}(?!\w)")


def configure(
    *,
    level: str,
    zone: tzinfo | None,
    redactor: Redactor,
    translations: Translations = ENGLISH,
    stream: TextIO | None = None,
    is_readable: bool | None = None,
    wants_colours: bool = True,
) -> None:
    """Set structlog and the standard library's logging up: one line per event on `stream` (default: stdout).

    The lines are JSON unless `is_readable`, which by default is whether the stream is a terminal. Their texts are told
    in the language of `translations`; colours are for terminals only.
    """
    out = stream or sys.stdout

    def tell(_: Any, __: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
        facts = {name: _told(fact, translations) for name, fact in event.items()}
        return {**facts, **_words(facts, translations)}

    def stamp(_: Any, __: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
        time = clock.local(clock.now(), zone).isoformat(timespec="milliseconds")
        first = {name: event.pop(name, None) for name in ("level", "event")}
        words = {name: event.pop(name) for name in ("message", "action") if name in event}
        return {"time": time, **first, **words, **event}

    def redact(_: Any, __: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
        # Before the line is made: a secret such as 1 would else take the quotes and colons of JSON with it.
        return {key: redactor.redact_value(value) for key, value in event.items()}

    is_terminal = out.isatty()
    is_for_people = is_terminal if is_readable is None else is_readable
    if isinstance(out, io.TextIOWrapper):
        # A name in another script, or half a character, must not end what wanted to tell of it.
        out.reconfigure(encoding=None if is_for_people else "utf-8", errors="backslashreplace")
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            tell,
            stamp,
            redact,
            *_rendering(is_readable=is_for_people, has_colors=is_terminal and wants_colours),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(out),
        cache_logger_on_first_use=False,
    )
    handler = _Forwarder()
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # These print URLs, whose queries may hold secrets, and mails.
    for name in ("httpx", "httpcore", "hpack", "imapclient"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _told(fact: Any, translations: Translations) -> Any:
    """Return a fact of a line with the texts in it told in a language."""
    if isinstance(fact, Text | AgentError):
        return fact.told(translations)[:_TOLD_CHARACTERS]
    return [_told(element, translations) for element in fact] if isinstance(fact, tuple | list) else fact


def _words(facts: Mapping[str, Any], translations: Translations) -> dict[str, str]:
    """Return the words for a line that has these facts."""
    message = MESSAGES.get(facts["event"])
    if message is None:
        return {}
    words = {"message": _sentence(message.text, facts, translations)}
    return {**words, "action": message.action.told(translations)} if message.action else words


def _sentence(text: Text, facts: Mapping[str, Any], translations: Translations) -> str:
    try:
        return text.about(**facts).told(translations)
    except (LookupError, TypeError, ValueError):
        # A line without one of its facts is better than none.
        return translations.gettext(text.template)


def _rendering(*, is_readable: bool, has_colors: bool) -> list[Any]:
    if not is_readable:
        return [structlog.processors.JSONRenderer(ensure_ascii=False)]
    renderer = structlog.dev.ConsoleRenderer(
        colors=has_colors,
        timestamp_key="time",
        event_key="message",
        sort_keys=False,
        exception_formatter=structlog.dev.plain_traceback,
    )
    return [_without_repetition, renderer]


def _without_repetition(_: Any, __: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
    message = event.get("message", "")
    return {name: fact for name, fact in event.items() if name not in _OFTEN_IN_MESSAGE or str(fact) not in message}


class _Forwarder(logging.Handler):
    """Sends what libraries log the same way as our own lines."""

    def emit(self, record: logging.LogRecord) -> None:
        structlog.get_logger().log(
            # Libraries may have levels in between, structlog has none.
            min(max(record.levelno // 10 * 10, logging.DEBUG), logging.CRITICAL),
            "library_message",
            logger=record.name,
            text=_message(record)[:1_000],
            exc_info=record.exc_info,
        )


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError, LookupError):
        return str(record.msg)
