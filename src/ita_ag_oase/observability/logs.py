"""Log lines: JSON, or readable ones on a terminal, with every known secret taken out."""

import base64
import bisect
import html
import io
import json
import logging
import math
import re
import sys
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from datetime import tzinfo
from typing import Any, TextIO
from urllib.parse import quote, quote_plus

import msgspec
import structlog

from ita_ag_oase import clock
from ita_ag_oase.errors import AgentError
from ita_ag_oase.observability.messages import MESSAGES
from ita_ag_oase.text import ENGLISH, SHORTENED, Text, Translations, shorten

MASK = "********"
# Shorter secrets are taken out only where they stand alone, or logs would be full of holes.
_SHORT_CHARACTERS = 4
# A JSON Web Token (RFC 7519) or its beginning, also in base64. Access tokens are known by their looks: one learned
# every few minutes would have to be kept and looked for in every line for ever.
_WEB_TOKEN = re.compile(r"eyJ[\w-]{10,}(?:\.[\w-]*){2,4}", re.ASCII)
# In base64, `eyJ` looks different by where it begins among three bytes.
_WEB_TOKEN_PART = re.compile(
    r"eyJ[\w-]{4,}(?:\.[\w-]*){0,4}|(?:ZXlK[\w+/-]{10,}|[GWm2]V5S[\w+/-]{16,}|leUp[\w+/-]{16,})={0,2}", re.ASCII
)
# What a person would else read twice in one line.
_OFTEN_IN_MESSAGE = ("detail", "text")
# A text among the facts of a line is cut at this length.
_TOLD_CHARACTERS = 512
# So is what a library says.
_LIBRARY_CHARACTERS = 1_000
_PERCENT = re.compile("%[0-9A-F]{2}")
# What httpx leaves as it is in a path, and in a query.
_PATH_SAFE = "!$%&'()*+,;=:@/[\\]^|"
_QUERY_SAFE = f"{_PATH_SAFE}?`{{}}"


class Redactor:
    """Knows the secrets and replaces them in text, in every form they could appear in.

    The beginning of one is replaced where the text was shortened within it.
    """

    def __init__(self) -> None:
        self._secrets: set[str] = set()
        # The longest first, so that none leaves a part of another.
        self._long_forms: list[str] = []
        self._forms: set[str] = set()
        self._short_forms: list[re.Pattern[str]] = []

    def add(self, secret: str | None) -> None:
        """Learn a secret, also without the white space around it; empty ones are none."""
        if not secret or secret in self._secrets or _WEB_TOKEN.fullmatch(secret):
            return
        self._secrets.add(secret)
        forms = _forms(secret) | _forms(secret.strip() or secret)
        for form in forms - self._forms:
            if len(form) < _SHORT_CHARACTERS:
                self._short_forms.append(_alone(form))
            else:
                bisect.insort(self._long_forms, form, key=_longest_first)
        self._forms |= forms

    def redact(self, text: str) -> str:
        """Return the text without any secret."""
        # The beginnings first: what is within one may be another secret.
        text = self._without_beginnings(text) if SHORTENED in text else text
        for form in self._forms_up_to(len(text)):
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

    def _forms_up_to(self, characters: int) -> Sequence[str]:
        """Return the long forms that a text of this length could hold."""
        return self._long_forms[bisect.bisect_left(self._long_forms, -characters, key=_longest_first) :]

    def _without_beginnings(self, text: str) -> str:
        *shortened, last = text.split(SHORTENED)
        return SHORTENED.join([*map(self._without_beginning, shortened), last])

    def _without_beginning(self, text: str) -> str:
        starts = [start for form in self._long_forms if (start := _start_of(form, text)) is not None]
        return f"{text[: min(starts)]}{MASK}" if starts else text

    def _redact_json(self, raw: msgspec.Raw) -> Any:
        text = bytes(raw).decode()
        return raw if self.redact(text) == text else self.redact_value(json.loads(text))


def _longest_first(form: str) -> int:
    return -len(form)


def _forms(secret: str) -> set[str]:
    raw = secret.encode("utf-8", "replace")
    plain = {secret, *_escaped(secret)}
    # JSON within JSON or HTML is escaped twice, and so is what a mail server quotes of a command.
    escaped = {twice for form in plain for twice in _escaped(form)}
    # What libraries make of bytes that are no ASCII.
    wrong = {raw.decode("latin-1"), secret.encode("ascii", "ignore").decode()}
    long_wrong = {form for form in wrong if len(form) >= 2 * _SHORT_CHARACTERS}
    return plain | escaped | long_wrong | set(_percent_forms(raw)) | set(_base64_forms(raw))


def _escaped(text: str) -> Iterator[str]:
    yield html.escape(text)
    yield html.escape(text, quote=False)
    yield from _in_python(text)
    yield from _in_json(text)


def _in_python(text: str) -> Iterator[str]:
    """Yield how repr writes text, and its bytes, alone and among both kinds of quotes."""
    yield repr(text)[1:-1]
    yield repr(f"'\"{text}")[4:-1]
    raw = text.encode("utf-8", "replace")
    yield repr(raw)[2:-1]
    yield repr(b"'\"" + raw)[5:-1]


def _in_json(text: str) -> Iterator[str]:
    """Yield how text can stand in JSON; some escape the slash, too."""
    for form in (json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1]):
        yield form
        yield form.replace("/", "\\/")


def _percent_forms(raw: bytes) -> Iterator[str]:
    once = {quote(raw, safe=safe) for safe in ("", "/", _PATH_SAFE, _QUERY_SAFE)} | {quote_plus(raw)}
    for form in once | {quote(form, safe="") for form in once}:
        yield form
        yield _PERCENT.sub(lambda code: code[0].lower(), form)


def _start_of(form: str, text: str) -> int | None:
    """Return where in a text that ends too early a form begins; None where it does not, or hardly."""
    start = text.find(form[:_SHORT_CHARACTERS], max(0, len(text) - len(form)))
    while start >= 0 and not form.startswith(text[start:]):
        start = text.find(form[:_SHORT_CHARACTERS], start + 1)
    return start if start >= 0 else None


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
        return shorten(fact.told(translations), _TOLD_CHARACTERS)
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
            text=shorten(_message(record), _LIBRARY_CHARACTERS),
            exc_info=record.exc_info,
        )


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError, LookupError):
        return str(record.msg)
