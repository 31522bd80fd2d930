"""Log lines: JSON, or readable ones on a terminal, with every known secret taken out."""

import base64
import json
import logging
import re
import sys
from collections.abc import Mapping, MutableMapping
from datetime import tzinfo
from typing import Any, TextIO
from urllib.parse import quote, quote_plus

import structlog

from ita_ag_oase import clock

MASK = "********"
# Shorter secrets are taken out only where they stand alone, or logs would be full of holes.
_SHORT_CHARACTERS = 4


class Redactor:
    """Knows the secrets and replaces them in text, in every form they could appear in."""

    def __init__(self) -> None:
        self._forms: set[str] = set()
        self._pattern: re.Pattern[str] | None = None

    def add(self, secret: str | None) -> None:
        """Learn a secret; empty ones are none."""
        if secret and secret not in self._forms:
            self._forms |= _forms(secret)
            self._pattern = None

    def redact(self, text: str) -> str:
        """Return the text without any secret."""
        if not self._forms:
            return text
        if self._pattern is None:
            longest_first = sorted(self._forms, key=len, reverse=True)
            self._pattern = re.compile("|".join(map(_pattern, longest_first)))
        return self._pattern.sub(MASK, text)


def _forms(secret: str) -> set[str]:
    raw = secret.encode("utf-8", "replace")
    encoded = base64.b64encode(raw).decode()
    return {
        secret,
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
        repr(secret)[1:-1],
        encoded,
        encoded.rstrip("="),
        base64.urlsafe_b64encode(raw).decode(),
        quote(secret, safe=""),
        quote(secret),
        quote_plus(secret),
    }


def _pattern(form: str) -> str:
    escaped = re.escape(form)
    return escaped if len(form) >= _SHORT_CHARACTERS else rf"(?<!\w){escaped}(?!\w)"


def configure(
    *,
    level: str,
    zone: tzinfo | None,
    redactor: Redactor,
    stream: TextIO | None = None,
    is_readable: bool | None = None,
) -> None:
    """Set structlog and the standard library's logging up: one line per event on `stream` (default: stdout).

    The lines are JSON unless `is_readable`, which by default is whether the stream is a terminal.
    """
    out = stream or sys.stdout

    def stamp(_: Any, __: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
        return {"time": clock.local(clock.now(), zone).isoformat(timespec="milliseconds"), **event}

    def redact(_: Any, __: str, line: Any) -> str:
        return redactor.redact(str(line))

    has_colors = out.isatty()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            stamp,
            _renderer(is_readable=has_colors if is_readable is None else is_readable, has_colors=has_colors),
            redact,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(out),
        cache_logger_on_first_use=False,
    )
    handler = _Forwarder()
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # These print URLs, whose queries may hold secrets.
    for name in ("httpx", "httpcore", "hpack"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _renderer(*, is_readable: bool, has_colors: bool) -> Any:
    if is_readable:
        return structlog.dev.ConsoleRenderer(colors=has_colors, timestamp_key="time", sort_keys=False)
    return structlog.processors.JSONRenderer(ensure_ascii=False, default=str)


class _Forwarder(logging.Handler):
    """Sends what libraries log the same way as our own lines."""

    def emit(self, record: logging.LogRecord) -> None:
        structlog.get_logger().log(
            record.levelno,
            "library_message",
            logger=record.name,
            text=record.getMessage()[:1_000],
            exc_info=record.exc_info,
        )
