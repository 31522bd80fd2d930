"""Repeats a step: at a fixed rate, more rarely while it fails; or until it works."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_never, wait_exponential, wait_random

from ita_ag_oase.errors import AgentError, Permanent, Reason, Retryable, StoreDamaged, StoreUnavailable, TermEnded
from ita_ag_oase.text import shorten

_log = structlog.get_logger()

# What the store raises, whatever was to be done with it.
STORE_ERRORS = (StoreUnavailable, StoreDamaged, TermEnded)
T = TypeVar("T")

BACKOFF_CAP_SECONDS = 60.0


class Troubles:
    """Logs that something fails once, whatever number of tries, and once that it works again.

    `on_failure` is told each failure with its message code, `on_success` each success.
    """

    def __init__(
        self,
        *,
        failed: str,
        recovered: str,
        on_failure: Callable[[Exception, str], None] = lambda *_: None,
        on_success: Callable[[], None] = lambda: None,
        **facts: str,
    ) -> None:
        self._failed = failed
        self._recovered = recovered
        self._on_failure = on_failure
        self._on_success = on_success
        self._facts = facts
        self._told: str | None = None
        self.count = 0

    def note_failure(self, err: Exception, code: str) -> None:
        """Count a failure; log it if it is the first, or another one than before."""
        self.count += 1
        self._on_failure(err, code)
        kind = str(err.reason) if isinstance(err, AgentError) else repr(type(err))
        is_news = self._told != kind
        self._told = kind
        if not isinstance(err, AgentError):
            self._tell_unexpected(err, code, is_news=is_news)
            return
        needs_a_person = isinstance(err, Permanent) or err.reason is Reason.UNAUTHORIZED
        tell = _log.debug if not is_news else _log.error if needs_a_person else _log.warning
        tell(self._failed, code=code, **self._facts, reason=err.reason, detail=err.text, failures=self.count)

    def _tell_unexpected(self, err: Exception, code: str, *, is_news: bool) -> None:
        facts = {"code": code, **self._facts, "reason": "unexpected", "detail": shorten(repr(err), 256)}
        if is_news:
            _log.error(self._failed, **facts, failures=self.count, exc_info=err)
        else:
            _log.debug(self._failed, **facts, failures=self.count)

    def note_success(self) -> None:
        """Forget the failures; log that it works again where there were any."""
        self._on_success()
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
    on_skipped: Callable[[int], None] = lambda _: None,
) -> None:
    """Run a step at a fixed rate for ever, never twice at once; a turn that comes too late is left out.

    `on_skipped` is told how many turns are left out. Whatever the step raises is logged and answered with a longer
    wait; only cancellation ends it.
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
        if missed:
            on_skipped(int(missed))
        due += (missed + 1) * interval_seconds


async def until_it_works(
    step: Callable[[], Awaitable[T]], troubles: Troubles, code_of: Callable[[Exception], str]
) -> T:
    """Return what the step returns, trying again for ever with longer and longer waits."""

    async def attempt() -> T:
        # tenacity awaits only what is a coroutine function; a step may be any callable.
        return await step()

    def note(state: RetryCallState) -> None:
        err = state.outcome.exception() if state.outcome else None
        if isinstance(err, Exception):
            troubles.note_failure(err, code_of(err))

    retrying = AsyncRetrying(
        retry=retry_if_exception_type(Exception), stop=stop_never, wait=_retry_seconds, before_sleep=note
    )
    result: T = await retrying(attempt)
    troubles.note_success()
    return result


async def tried(step: Callable[[], Awaitable[T]], troubles: Troubles, code_of: Callable[[Exception], str]) -> T | None:
    """Return what the step returns; None where it fails, which is logged: the caller tries again in its own time."""
    try:
        result = await step()
    except Exception as err:  # noqa: BLE001 - as above
        troubles.note_failure(err, code_of(err))
        return None
    troubles.note_success()
    return result


_backoff = wait_exponential(multiplier=0.5, max=BACKOFF_CAP_SECONDS) + wait_random(0, 0.5)


def _retry_seconds(state: RetryCallState) -> float:
    err = state.outcome.exception() if state.outcome else None
    asked = err.retry_after_seconds if isinstance(err, Retryable) else None
    return max(_backoff(state), asked or 0.0)


async def wait_for(event: asyncio.Event, seconds: float) -> None:
    """Wait until the event is set, or for so long."""
    # Not asyncio.wait_for: before Python 3.12 it forgets a cancellation that comes together with the event.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


_CODES = {
    Reason.STORE_FAILED: "AGT-10027",
    Reason.STORE_FULL: "AGT-10027",
    Reason.STORE_LOCKED: "AGT-10027",
    Reason.STORE_DAMAGED: "AGT-10027",
    Reason.TERM_ENDED: "AGT-10027",
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
    if isinstance(err, STORE_ERRORS):
        return "AGT-10027"
    unreachable = (Reason.TIMEOUT, Reason.UNREACHABLE, Reason.TLS)
    return "AGT-00004" if isinstance(err, AgentError) and err.reason in unreachable else "AGT-10020"
