"""Repeats a step at a fixed rate, and more rarely while it fails."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from ita_ag_oase.errors import AgentError, Permanent, Reason, Retryable, StoreDamaged, StoreUnavailable

_log = structlog.get_logger()

BACKOFF_CAP_SECONDS = 60.0


class Troubles:
    """Logs that something fails once, whatever number of tries, and once that it works again."""

    def __init__(self, *, failed: str, recovered: str, **facts: str) -> None:
        self._failed = failed
        self._recovered = recovered
        self._facts = facts
        self._told: str | None = None
        self.count = 0

    def note_failure(self, err: Exception, code: str) -> None:
        """Count a failure; log it if it is the first, or another one than before."""
        self.count += 1
        kind = str(err.reason) if isinstance(err, AgentError) else repr(type(err))
        is_news = self._told != kind
        self._told = kind
        if not isinstance(err, AgentError):
            self._tell_unexpected(err, code, is_news=is_news)
            return
        needs_a_person = isinstance(err, Permanent) or err.reason is Reason.UNAUTHORIZED
        tell = _log.debug if not is_news else _log.error if needs_a_person else _log.warning
        tell(self._failed, code=code, **self._facts, reason=err.reason, detail=str(err)[:512], failures=self.count)

    def _tell_unexpected(self, err: Exception, code: str, *, is_news: bool) -> None:
        facts = {"code": code, **self._facts, "reason": "unexpected", "detail": repr(err)[:256]}
        if is_news:
            _log.error(self._failed, **facts, failures=self.count, exc_info=err)
        else:
            _log.debug(self._failed, **facts, failures=self.count)

    def note_success(self) -> None:
        """Forget the failures; log that it works again where there were any."""
        if self.count:
            _log.info(self._recovered, **self._facts, failures=self.count)
        self.count = 0
        self._told = None


def backoff_seconds(failures: int, interval_seconds: float, err: Exception) -> float:
    """Return how long to leave out turns after so many failures in a row.

    None after the first, then twice as many each time up to a cap, or for as long as the other side asked for. None
    where our own store fails: that is found out before a source is asked.
    """
    if isinstance(err, StoreUnavailable):
        return 0.0
    doubled = interval_seconds * (2.0 ** min(failures - 1, 16) - 1)
    asked = err.retry_after_seconds if isinstance(err, Retryable) else None
    return max(min(doubled, max(BACKOFF_CAP_SECONDS, interval_seconds)), asked or 0.0)


async def repeat(
    step: Callable[[], Awaitable[object]],
    troubles: Troubles,
    *,
    interval_seconds: float,
    first_delay_seconds: float,
    code_of: Callable[[Exception], str],
) -> None:
    """Run a step at a fixed rate for ever, never twice at once; a turn that comes too late is left out.

    Whatever the step raises is logged and answered with a longer wait; only cancellation ends it.
    """
    loop = asyncio.get_running_loop()
    due = loop.time() + first_delay_seconds
    while True:
        await asyncio.sleep(due - loop.time())
        try:
            await step()
        except Exception as err:  # noqa: BLE001 - the one place that catches what escaped
            troubles.note_failure(err, code_of(err))
            earliest = loop.time() + backoff_seconds(troubles.count, interval_seconds, err)
        else:
            troubles.note_success()
            earliest = loop.time()
        missed = max(0.0, earliest - due) // interval_seconds
        due += (missed + 1) * interval_seconds


_CODES = {
    Reason.STORE_FAILED: "AGT-10027",
    Reason.STORE_FULL: "AGT-10027",
    Reason.STORE_LOCKED: "AGT-10027",
    Reason.STORE_DAMAGED: "AGT-10027",
    Reason.NOT_JSON: "AGT-10046",
    Reason.TEMPLATE: "AGT-10045",
    Reason.PARAMETER: "AGT-10045",
    Reason.EXPRESSION: "AGT-10001",
}


def collection_code(err: Exception) -> str:
    """Return the message code of a failed poll (protocol section 2.9)."""
    return _CODES.get(err.reason, "AGT-10029") if isinstance(err, AgentError) else "AGT-10001"


def mail_code(err: Exception) -> str:
    """Return the message code of a failed poll of a mailbox."""
    if not isinstance(err, AgentError):
        return "AGT-10001"
    return "AGT-10033" if err.reason is Reason.UNAUTHORIZED else _CODES.get(err.reason, "AGT-10028")


def delivery_code(err: Exception) -> str:
    """Return the message code of a failed post."""
    if isinstance(err, StoreUnavailable | StoreDamaged):
        return "AGT-10027"
    unreachable = (Reason.TIMEOUT, Reason.UNREACHABLE, Reason.TLS)
    return "AGT-00004" if isinstance(err, AgentError) and err.reason in unreachable else "AGT-10020"
