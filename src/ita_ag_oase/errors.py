"""Every error the agent raises on purpose, sorted by what to do next.

Errors of libraries are translated where they arise (`raise ... from err`), so that nothing above an adapter knows them.
"""

import functools
import os
import socket
from enum import StrEnum

from ita_ag_oase.text import Text, Translations


class Reason(StrEnum):
    """Why something failed: a closed list, used as a log field and as a label of metrics."""

    CONFIGURATION = "configuration"
    TIMEOUT = "timeout"
    UNREACHABLE = "unreachable"
    TLS = "tls"
    HTTP_STATUS = "http_status"
    THROTTLED = "throttled"
    MAINTENANCE = "maintenance"
    NOT_EXASTRO = "not_exastro"
    UNAUTHORIZED = "unauthorized"
    REFUSED = "refused"
    TOO_LARGE = "too_large"
    REDIRECT = "redirect"
    NOT_JSON = "not_json"
    TEMPLATE = "template"
    PARAMETER = "parameter"
    EXPRESSION = "expression"
    MAILBOX = "mailbox"
    NOT_IMAP = "not_imap"
    SETTING = "setting"
    CLOCK = "clock"
    STORE_LOCKED = "store_locked"
    STORE_FULL = "store_full"
    STORE_FAILED = "store_failed"
    STORE_DAMAGED = "store_damaged"
    TERM_ENDED = "term_ended"
    STATUS_SERVER = "status_server"


class AgentError(Exception):
    """What was tried, on what, and what to do next, in one sentence for a person. `str` gives it in English."""

    def __init__(self, text: Text, *, reason: Reason) -> None:
        super().__init__(str(text))
        self.text = text
        self.reason = reason

    def told(self, translations: Translations) -> str:
        """Return the sentence in a language."""
        return self.text.told(translations)


class ConfigError(AgentError):
    """The configuration cannot be used; raised at start only. `problems` holds (variable, what to do) pairs."""

    def __init__(self, problems: list[tuple[str, Text]]) -> None:
        texts = [Text("{variable}: {what_to_do}", variable=name, what_to_do=text) for name, text in problems]
        super().__init__(functools.reduce(_followed, texts), reason=Reason.CONFIGURATION)
        self.problems = problems


def _followed(text: Text, following: Text) -> Text:
    return Text("{text}; {following}", text=text, following=following)


class Retryable(AgentError):
    """The same request may succeed later. `retry_after_seconds` is the other side's own wish, where it told one."""

    def __init__(self, text: Text, *, reason: Reason, retry_after_seconds: float | None = None) -> None:
        super().__init__(text, reason=reason)
        self.retry_after_seconds = retry_after_seconds


class ReaderEnded(Retryable):
    """The process that reads the configuration ended before it was done."""


class SourceUnavailable(Retryable):
    """A source did not answer in time, refused the connection, or answered 5xx or 429."""


class ExastroUnavailable(Retryable):
    """Exastro did not answer, or answered that it cannot serve now.

    `is_unprocessed` tells that the request surely left no trace at the receiver; otherwise its fate is unknown.
    `status` is that of the answer, where there was one.
    """

    def __init__(
        self,
        text: Text,
        *,
        reason: Reason,
        retry_after_seconds: float | None = None,
        is_unprocessed: bool = False,
        status: int | None = None,
    ) -> None:
        super().__init__(text, reason=reason, retry_after_seconds=retry_after_seconds)
        self.is_unprocessed = is_unprocessed
        self.status = status


class StoreUnavailable(Retryable):
    """The store is locked, full, or its disk failed."""


class LeaseUnavailable(Retryable):
    """The Lease could not be read or written; whether what was written counts is not known."""


class LeaseChanged(LeaseUnavailable):
    """The Lease is no longer what it was when it was read, so that nothing was written."""


class TermEnded(AgentError):
    """The right to write and to post is gone, to another agent as a rule; what was under way is its business now."""


class Permanent(AgentError):
    """The same request fails again; a person must act."""


class SettingInvalid(Permanent):
    """A row of event collection settings cannot be used; the others can."""


class SourceRejected(Permanent):
    """A source refused the request for what it is: 4xx, login refused, no such mailbox, a redirect to another host."""


class SourceUnreadable(Permanent):
    """A source cannot be asked, or its answer not be read: no JSON, too large, a template that fails."""


class ExastroRejected(Permanent):
    """Exastro refused a request for its content; nothing of it was saved."""


class StoreDamaged(Permanent):
    """The store cannot be read, or was written by a newer version."""


class LeaseRefused(Permanent):
    """The Lease is not there, or the agent may not read or write it; nothing was written."""


class StatusServerFailed(Permanent):
    """The status page cannot be served where it is configured to be."""


def system_words(err: OSError) -> str:
    """Return the system's own words for an error, such as `Connection refused`; asyncio's quote an address as well."""
    # Errors of name resolution have numbers of their own.
    if err.errno is None or isinstance(err, socket.gaierror):
        return err.strerror or str(err)
    return os.strerror(err.errno)
