"""Steps repeated at a fixed rate, more rarely while they fail, and what is logged of it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from structlog.testing import capture_logs

from ita_ag_oase.agent.schedule import (
    Troubles,
    backoff_seconds,
    collection_code,
    delivery_code,
    mail_code,
    repeat,
    until_it_works,
    wait_for,
)
from ita_ag_oase.errors import (
    ExastroRejected,
    ExastroUnavailable,
    Reason,
    SettingInvalid,
    SourceRejected,
    SourceUnavailable,
    SourceUnreadable,
    StoreDamaged,
    StoreUnavailable,
)
from ita_ag_oase.text import Text
from support import in_english

TIMEOUT = SourceUnavailable(Text("no answer"), reason=Reason.TIMEOUT)


def _wait(seconds: float | None) -> SourceUnavailable:
    return SourceUnavailable(Text("later"), reason=Reason.THROTTLED, retry_after_seconds=seconds)


class Step:
    """A step that takes what time it is told, fails as it is told, and notes when it was begun."""

    def __init__(self, *outcomes: float | Exception) -> None:
        self.begun: list[float] = []
        self.running = 0
        self.most_running = 0
        self._outcomes = list(outcomes)

    async def __call__(self) -> None:
        self.begun.append(round(asyncio.get_running_loop().time(), 6))
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        outcome = self._outcomes.pop(0) if self._outcomes else 0.0
        try:
            if isinstance(outcome, Exception):
                raise outcome
            await asyncio.sleep(outcome)
        finally:
            self.running -= 1


async def _run(
    step: Step,
    seconds: float,
    *,
    interval: float = 5.0,
    first: float = 0.0,
    on_skipped: Callable[[int], None] = lambda _: None,
) -> None:
    """Repeat a step for so long; the loop itself must not end."""
    steps = repeat(
        step,
        Troubles(failed="step_failed", recovered="step_recovered", setting="n1"),
        interval_seconds=interval,
        first_delay_seconds=first,
        code_of=lambda _: "AGT-00000",
        on_skipped=on_skipped,
    )
    task = asyncio.create_task(steps)
    await asyncio.sleep(seconds)
    assert not task.done()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


@pytest.mark.looptime
@pytest.mark.parametrize(
    ("outcomes", "first", "begun"),
    [
        ((), 0.0, [0, 5, 10, 15, 20, 25]),
        ((), 0.015, [0.015, 5.015, 10.015, 15.015, 20.015, 25.015]),
        ((2.0, 2.0, 2.0), 0.0, [0, 5, 10, 15, 20, 25]),
        ((4.999,), 0.0, [0, 5, 10, 15, 20, 25]),
        ((7.0,), 0.0, [0, 10, 15, 20, 25]),
        ((7.0,), 0.25, [0.25, 10.25, 15.25, 20.25, 25.25]),
        ((12.0, 12.0), 0.0, [0, 15]),
        ((26.0,), 0.0, [0]),
    ],
    ids=["fixed rate", "first delay", "slow", "just in time", "too slow", "phase kept", "several missed", "very slow"],
)
async def test_turns_come_at_a_fixed_rate_and_missed_ones_are_left_out(
    outcomes: tuple[float, ...], first: float, begun: list[float]
) -> None:
    step = Step(*outcomes)
    await _run(step, 29.0, first=first)
    assert (step.begun, step.most_running) == (begun, 1)


@pytest.mark.looptime
@pytest.mark.parametrize(
    ("outcomes", "begun"),
    [
        ((TIMEOUT,), [0, 5, 10]),
        ((TIMEOUT, TIMEOUT), [0, 5, 15, 20]),
        ((TIMEOUT,) * 3, [0, 5, 15, 35, 40]),
        ((TIMEOUT,) * 4, [0, 5, 15, 35, 75, 80]),
        ((TIMEOUT,) * 7, [0, 5, 15, 35, 75, 140, 205, 270]),
        ((TIMEOUT, TIMEOUT, 0.0, TIMEOUT, TIMEOUT), [0, 5, 15, 20, 25, 35]),
        ((_wait(17.0),), [0, 20, 25]),
        ((_wait(3_600.0),), [0, 3605]),
        ((_wait(0.0),), [0, 5]),
        ((TIMEOUT, TIMEOUT, TIMEOUT, _wait(1.0)), [0, 5, 15, 35, 75]),
        ((ZeroDivisionError(), ZeroDivisionError()), [0, 5, 15, 20]),
    ],
    ids=[
        "one",
        "two",
        "three",
        "four",
        "cap",
        "recovery starts anew",
        "asked to wait",
        "asked to wait long",
        "asked not to wait",
        "asked to wait less than the backoff",
        "unexpected",
    ],
)
async def test_turns_are_left_out_while_the_step_fails(
    outcomes: tuple[float | Exception, ...], begun: list[float]
) -> None:
    step = Step(*outcomes)
    await _run(step, begun[-1] + 1)
    assert step.begun == begun


@pytest.mark.parametrize(
    ("failures", "interval", "seconds"),
    [
        (1, 5, 0),
        (2, 5, 5),
        (3, 5, 15),
        (4, 5, 35),
        (5, 5, 60),
        (6, 5, 60),
        (10_000, 5, 60),
        (1, 300, 0),
        (2, 300, 300),
        (3, 300, 300),
        (2, 60, 60),
        (3, 45, 60),
    ],
)
def test_backoff_doubles_up_to_a_cap(failures: int, interval: float, seconds: float) -> None:
    assert backoff_seconds(failures, interval, TIMEOUT) == seconds


@pytest.mark.parametrize(
    ("err", "seconds"),
    [
        (_wait(7.0), 15.0),
        (_wait(70.0), 70.0),
        (_wait(None), 15.0),
        (SourceRejected(Text("no"), reason=Reason.REFUSED), 15.0),
        (ValueError(), 15.0),
        (StoreUnavailable(Text("full"), reason=Reason.STORE_FULL), 0.0),
    ],
    ids=["less", "more", "no wish", "permanent", "unexpected", "our own store"],
)
def test_wish_of_the_other_side_prolongs_the_backoff(err: Exception, seconds: float) -> None:
    assert backoff_seconds(3, 5.0, err) == seconds


@pytest.mark.looptime
async def test_cancellation_in_the_middle_of_a_step_ends_it_at_once() -> None:
    step = Step(1_000.0)
    with capture_logs() as logs:
        await _run(step, 10.0)
    assert (step.begun, step.running, logs) == ([0], 0, [])


def _line(level: str, event: str, **facts: Any) -> dict[str, Any]:
    return {"log_level": level, "event": event, "setting": "n1", **facts}


def _failure(level: str, reason: str, detail: str, failures: int, **facts: Any) -> dict[str, Any]:
    return _line(level, "step_failed", code="AGT-00000", reason=reason, detail=detail, failures=failures, **facts)


BROKEN = ZeroDivisionError("division by zero")
LONG = ValueError("y" * 1_000)
REJECTED = SourceRejected(Text("no right"), reason=Reason.UNAUTHORIZED)
LOGIN = ExastroUnavailable(Text("no right"), reason=Reason.UNAUTHORIZED)

LOGS: dict[str, tuple[list[Exception | None], list[dict[str, Any]]]] = {
    "nothing": ([None, None], []),
    "first failure and recovery": (
        [None, TIMEOUT, TIMEOUT, TIMEOUT, None, None],
        [
            _failure("warning", "timeout", "no answer", 1),
            _failure("debug", "timeout", "no answer", 2),
            _failure("debug", "timeout", "no answer", 3),
            _line("info", "step_recovered", failures=3),
        ],
    ),
    "another reason": (
        [TIMEOUT, REJECTED, REJECTED, TIMEOUT, None],
        [
            _failure("warning", "timeout", "no answer", 1),
            _failure("error", "unauthorized", "no right", 2),
            _failure("debug", "unauthorized", "no right", 3),
            _failure("warning", "timeout", "no answer", 4),
            _line("info", "step_recovered", failures=4),
        ],
    ),
    "a person is needed": ([LOGIN], [_failure("error", "unauthorized", "no right", 1)]),
    "after a recovery": (
        [TIMEOUT, None, TIMEOUT],
        [
            _failure("warning", "timeout", "no answer", 1),
            _line("info", "step_recovered", failures=1),
            _failure("warning", "timeout", "no answer", 1),
        ],
    ),
    "unexpected": (
        [BROKEN, BROKEN, TIMEOUT, BROKEN, None],
        [
            _failure("error", "unexpected", "ZeroDivisionError('division by zero')", 1, exc_info=BROKEN),
            _failure("debug", "unexpected", "ZeroDivisionError('division by zero')", 2),
            _failure("warning", "timeout", "no answer", 3),
            _failure("error", "unexpected", "ZeroDivisionError('division by zero')", 4, exc_info=BROKEN),
            _line("info", "step_recovered", failures=4),
        ],
    ),
    "long": (
        [LONG],
        [
            _failure("error", "unexpected", f"ValueError('{'y' * 243}…", 1, exc_info=LONG),
        ],
    ),
}


@pytest.mark.parametrize(("outcomes", "lines"), LOGS.values(), ids=LOGS)
def test_first_failure_and_recovery_are_told_and_not_each_try(
    outcomes: list[Exception | None], lines: list[dict[str, Any]]
) -> None:
    troubles = Troubles(failed="step_failed", recovered="step_recovered", setting="n1")
    with capture_logs() as logs:
        for outcome in outcomes:
            if outcome is None:
                troubles.note_success()
            else:
                troubles.note_failure(outcome, "AGT-00000")
    assert in_english(logs) == lines


@pytest.mark.looptime
async def test_loop_goes_on_after_an_unexpected_failure_and_tells_it_with_its_traceback() -> None:
    step = Step(BROKEN)
    with capture_logs() as logs:
        await _run(step, 11.0)
    assert step.begun == [0, 5, 10]
    assert in_english(logs) == [
        _failure("error", "unexpected", "ZeroDivisionError('division by zero')", 1, exc_info=BROKEN),
        _line("info", "step_recovered", failures=1),
    ]
    assert BROKEN.__traceback__ is not None


CODES: list[tuple[Callable[[Exception], str], Exception, str]] = [
    (collection_code, SourceUnavailable(Text("x"), reason=Reason.TIMEOUT), "AGT-10029"),
    (collection_code, SourceUnavailable(Text("x"), reason=Reason.UNREACHABLE), "AGT-10029"),
    (collection_code, SourceRejected(Text("x"), reason=Reason.UNAUTHORIZED), "AGT-10029"),
    (collection_code, SourceUnreadable(Text("x"), reason=Reason.TOO_LARGE), "AGT-10029"),
    (collection_code, SourceUnreadable(Text("x"), reason=Reason.NOT_JSON), "AGT-10046"),
    (collection_code, SourceUnreadable(Text("x"), reason=Reason.TEMPLATE), "AGT-10045"),
    (collection_code, SourceUnreadable(Text("x"), reason=Reason.PARAMETER), "AGT-10045"),
    (collection_code, SettingInvalid(Text("x"), reason=Reason.EXPRESSION), "AGT-10001"),
    (collection_code, StoreUnavailable(Text("x"), reason=Reason.STORE_FULL), "AGT-10027"),
    (collection_code, StoreUnavailable(Text("x"), reason=Reason.STORE_LOCKED), "AGT-10027"),
    (collection_code, StoreUnavailable(Text("x"), reason=Reason.STORE_FAILED), "AGT-10027"),
    (collection_code, StoreDamaged(Text("x"), reason=Reason.STORE_DAMAGED), "AGT-10027"),
    (collection_code, ValueError("x"), "AGT-10001"),
    (mail_code, SourceRejected(Text("x"), reason=Reason.UNAUTHORIZED), "AGT-10033"),
    (mail_code, SourceRejected(Text("x"), reason=Reason.MAILBOX), "AGT-10028"),
    (mail_code, SourceRejected(Text("x"), reason=Reason.NOT_IMAP), "AGT-10028"),
    (mail_code, SourceUnavailable(Text("x"), reason=Reason.TIMEOUT), "AGT-10028"),
    (mail_code, SourceUnavailable(Text("x"), reason=Reason.UNREACHABLE), "AGT-10028"),
    (mail_code, SourceUnavailable(Text("x"), reason=Reason.TLS), "AGT-10028"),
    (mail_code, StoreUnavailable(Text("x"), reason=Reason.STORE_FULL), "AGT-10027"),
    (mail_code, ValueError("x"), "AGT-10001"),
    (delivery_code, ExastroUnavailable(Text("x"), reason=Reason.TIMEOUT), "AGT-00004"),
    (delivery_code, ExastroUnavailable(Text("x"), reason=Reason.UNREACHABLE), "AGT-00004"),
    (delivery_code, ExastroUnavailable(Text("x"), reason=Reason.TLS), "AGT-00004"),
    (delivery_code, ExastroUnavailable(Text("x"), reason=Reason.MAINTENANCE), "AGT-10020"),
    (delivery_code, ExastroUnavailable(Text("x"), reason=Reason.UNAUTHORIZED), "AGT-10020"),
    (delivery_code, ExastroRejected(Text("x"), reason=Reason.REFUSED), "AGT-10020"),
    (delivery_code, StoreUnavailable(Text("x"), reason=Reason.STORE_FAILED), "AGT-10027"),
    (delivery_code, StoreDamaged(Text("x"), reason=Reason.STORE_DAMAGED), "AGT-10027"),
    (delivery_code, ValueError("x"), "AGT-10020"),
]


@pytest.mark.parametrize(
    ("code_of", "err", "code"),
    CODES,
    ids=[f"{code_of.__name__} {type(err).__name__} {getattr(err, 'reason', '')}" for code_of, err, _ in CODES],
)
def test_failure_has_the_code_of_its_event(code_of: Callable[[Exception], str], err: Exception, code: str) -> None:
    assert code_of(err) == code


UNAVAILABLE = ExastroUnavailable(Text("Exastro answered 503"), reason=Reason.HTTP_STATUS)


def test_each_failure_and_each_success_is_passed_on() -> None:
    told: list[object] = []
    troubles = Troubles(
        failed="step_failed",
        recovered="step_recovered",
        on_failure=lambda err, code: told.append((err, code)),
        on_success=lambda: told.append("success"),
    )
    for _ in range(2):
        troubles.note_failure(TIMEOUT, "AGT-00001")
    for _ in range(2):
        troubles.note_success()
    assert told == [(TIMEOUT, "AGT-00001")] * 2 + ["success"] * 2


@pytest.mark.looptime
@pytest.mark.parametrize(
    ("outcomes", "skipped"),
    [((), []), ((7.0,), [1]), ((12.0, 12.0), [2, 2]), ((TIMEOUT,) * 3, [1, 3])],
    ids=["in time", "slow", "very slow", "failing"],
)
async def test_turns_that_are_left_out_are_told(outcomes: tuple[float | Exception, ...], skipped: list[int]) -> None:
    told: list[int] = []
    await _run(Step(*outcomes), 36.0, on_skipped=told.append)
    assert told == skipped


class Failing:
    """A step that fails as it is told before it returns, and notes when it was tried."""

    def __init__(self, *errors: BaseException) -> None:
        self.tried: list[float] = []
        self._errors = list(errors)

    async def __call__(self) -> str:
        self.tried.append(asyncio.get_running_loop().time())
        if self._errors:
            raise self._errors.pop(0)
        return "done"

    @property
    def waits(self) -> list[float]:
        return [later - earlier for earlier, later in zip(self.tried, self.tried[1:], strict=False)]


async def _until_it_works(step: Callable[[], Awaitable[str]]) -> str:
    troubles = Troubles(failed="delivery_failed", recovered="delivery_recovered")
    return await until_it_works(step, troubles, delivery_code)


def _asking_for(seconds: float) -> ExastroUnavailable:
    return ExastroUnavailable(Text("later"), reason=Reason.MAINTENANCE, retry_after_seconds=seconds)


@pytest.mark.looptime
async def test_retries_wait_longer_each_time_up_to_a_minute_with_jitter() -> None:
    step = Failing(*[UNAVAILABLE] * 20)
    assert await _until_it_works(step) == "done"
    bases = [0.5, 1, 2, 4, 8, 16, 32, *[60] * 13]
    within = [base <= wait <= base + 0.5 for base, wait in zip(bases, step.waits, strict=True)]
    assert within == [True] * 20
    assert len({wait - base for base, wait in zip(bases, step.waits, strict=True)}) > 10


@pytest.mark.looptime
async def test_retries_go_on_for_hours() -> None:
    # Beyond 1024 doublings no number can hold the wait.
    step = Failing(*[UNAVAILABLE] * 1_100)
    assert await _until_it_works(step) == "done"
    assert 60 <= step.waits[-1] <= 60.5


@pytest.mark.looptime
@pytest.mark.parametrize(
    ("asked", "shortest", "longest"),
    [(0.0, 0.5, 1.0), (0.1, 0.5, 1.0), (90.0, 90.0, 90.0), (3_600.0, 3_600.0, 3_600.0)],
    ids=["not at all", "shorter", "longer", "an hour"],
)
async def test_retries_wait_at_least_as_long_as_the_other_side_asks(
    asked: float, shortest: float, longest: float
) -> None:
    step = Failing(_asking_for(asked))
    await _until_it_works(step)
    (wait,) = step.waits
    assert shortest - 1e-6 <= wait <= longest + 1e-6


@pytest.mark.looptime
async def test_retries_tell_the_first_failure_and_the_recovery() -> None:
    step = Failing(UNAVAILABLE, UNAVAILABLE, StoreUnavailable(Text("locked"), reason=Reason.STORE_LOCKED))
    with capture_logs() as logs:
        await _until_it_works(step)
    failed = {"event": "delivery_failed", "detail": "Exastro answered 503", "reason": "http_status"}
    assert in_english(logs) == [
        {**failed, "log_level": "warning", "code": "AGT-10020", "failures": 1},
        {**failed, "log_level": "debug", "code": "AGT-10020", "failures": 2},
        {
            "log_level": "warning",
            "event": "delivery_failed",
            "code": "AGT-10027",
            "reason": "store_locked",
            "detail": "locked",
            "failures": 3,
        },
        {"log_level": "info", "event": "delivery_recovered", "failures": 3},
    ]


@pytest.mark.looptime
async def test_step_may_be_any_callable_that_returns_an_awaitable() -> None:
    failing = Failing(UNAVAILABLE)

    def step() -> Awaitable[str]:
        return failing()

    assert await _until_it_works(step) == "done"
    assert len(failing.tried) == 2


@pytest.mark.looptime
async def test_unexpected_failure_is_retried_too() -> None:
    broken = ZeroDivisionError("oh")
    step = Failing(broken)
    with capture_logs() as logs:
        assert await _until_it_works(step) == "done"
    assert [line.get("exc_info") for line in logs] == [broken, None]


@pytest.mark.looptime
@pytest.mark.parametrize("errors", [(), (UNAVAILABLE,) * 50], ids=["in the step", "in the wait"])
async def test_cancellation_ends_retries_at_once(errors: tuple[Exception, ...]) -> None:
    failing = Failing(*errors)

    async def step() -> str:
        await failing()
        await asyncio.sleep(1_000)
        return "done"

    task = asyncio.create_task(_until_it_works(step))
    await asyncio.sleep(100)
    tries = len(failing.tried)
    task.cancel()
    await asyncio.wait([task])
    await asyncio.sleep(1_000)
    assert (task.cancelled(), len(failing.tried)) == (True, tries)


@pytest.mark.looptime
@pytest.mark.parametrize(("set_at", "seconds"), [(2.0, 2.0), (9.0, 5.0)], ids=["event", "time"])
async def test_wait_ends_with_the_event_or_with_the_time(set_at: float, seconds: float) -> None:
    event = asyncio.Event()
    asyncio.get_running_loop().call_later(set_at, event.set)
    start = asyncio.get_running_loop().time()
    await wait_for(event, 5.0)
    assert asyncio.get_running_loop().time() - start == pytest.approx(seconds)


async def test_cancellation_that_comes_together_with_the_event_is_not_forgotten() -> None:
    for steps_between in range(4):
        event = asyncio.Event()
        task = asyncio.create_task(wait_for(event, 60.0))
        await asyncio.sleep(0)
        event.set()
        for _ in range(steps_between):
            await asyncio.sleep(0)
        has_ended = task.done()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled() is not has_ended
