"""One round of delivery: take a batch, post it, settle what became of it. A step without a loop."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence

import structlog

from ita_ag_oase import __version__, clock
from ita_ag_oase.errors import ExastroRejected, ExastroUnavailable, Reason, StoreDamaged, StoreUnavailable
from ita_ag_oase.exastro import wire
from ita_ag_oase.exastro.client import ExastroClient, require_turn
from ita_ag_oase.exastro.wire import Verdict
from ita_ag_oase.model import Batch, Group, Settlement
from ita_ag_oase.observability.health import Health
from ita_ag_oase.store.outbox import DAMAGED, BatchLimits
from ita_ag_oase.store.store import Store
from ita_ag_oase.text import Text, Told, shorten

_log = structlog.get_logger()

_MAX_GROUPS = 1_000
# When a key is taken and the answer does not say up to where, the next try goes this far, then twice as far.
_FIRST_LEAP_SECONDS = 1
# After so many requests in a row have passed, one of twice the size is risked.
_TRY_MORE_AFTER = 100


class Delivery:
    """Posts what the store holds, oldest first, one request at a time.

    The size that passed and how many groups to risk at once are learned anew by each process; everything else is in
    the store. `is_at_work` is asked before each part of a request is sent, the last one included: that the store knows
    of no later term was seen when the batch was taken, which may be long ago where the process was stopped meanwhile.
    """

    def __init__(
        self,
        store: Store,
        client: ExastroClient,
        health: Health,
        *,
        max_events: int,
        max_bytes: int,
        now: Callable[[], float] = clock.now,
        redact: Callable[[str], str] = str,
        is_at_work: Callable[[], bool] = lambda: True,
    ) -> None:
        self._store = store
        self._client = client
        self._health = health
        self._max_events = max_events
        self._max_bytes = self._configured_bytes = max_bytes
        self._passed_in_a_row = 0
        self._now = now
        self._redact = redact
        self._is_at_work = is_at_work
        self._passed_bytes = 0
        self._max_groups = _MAX_GROUPS
        self._leap_seconds = _FIRST_LEAP_SECONDS
        self.is_under_way = False

    async def deliver_next(self) -> int | None:
        """Post the next batch and return how many of its events Exastro has now; None where nothing waits.

        Raises ExastroUnavailable where the same request is to be sent later, TermEnded where it is another agent's to
        send, and the store's errors.
        """
        self._require_turn()
        limits = BatchLimits(events=self._max_events, bytes=self._max_bytes, groups=self._max_groups)
        batch = await self._store.next_batch(limits, int(self._now()))
        if batch is None:
            return None
        self._tell_parked(dict.fromkeys(batch.damaged, DAMAGED))
        if not batch.groups:
            return 0
        self.is_under_way = True
        try:
            return await self._deliver(batch)
        finally:
            self.is_under_way = False

    async def _deliver(self, batch: Batch) -> int:
        body = wire.body_of(batch, __version__)
        size = sum(map(len, body))
        _log.debug("batch_sending", code="AGT-10017", events=batch.event_count, groups=len(batch.groups), bytes=size)
        started = asyncio.get_running_loop().time()
        try:
            with self._health.posting(size):
                messages = await self._client.post_events(body, before_sending=self._require_turn)
        except ExastroUnavailable as err:
            await self._note_failure(batch, err)
            raise
        except ExastroRejected as err:
            await self._narrow(batch, err, size=size)
            return 0
        settlement = await self._settle(batch, messages, size=size)
        self._health.batch_settled(batch, settlement)
        done = settlement.saved | settlement.already_saved
        delivered = sum(group.event_count for group in batch.groups if group.number in done)
        if done:
            _log.info(
                "batch_delivered",
                code="AGT-10018",
                events=delivered,
                groups=len(done),
                bytes=size,
                duration_seconds=round(asyncio.get_running_loop().time() - started, 3),
            )
        return delivered

    def _require_turn(self) -> None:
        require_turn(self._is_at_work)

    async def _note_failure(self, batch: Batch, err: ExastroUnavailable) -> None:
        if err.is_unprocessed:
            await self._store.withdraw(batch, self._redact(str(err)))
            return
        # Nothing depends on it: what is wrong with the store comes up again when the request does.
        with contextlib.suppress(StoreUnavailable, StoreDamaged):
            await self._store.note_answer(batch, self._redact(str(err)))

    def _widen(self, size: int) -> None:
        self._passed_bytes = max(self._passed_bytes, size)
        self._passed_in_a_row += 1
        if self._passed_in_a_row >= _TRY_MORE_AFTER:
            # What was too large once may pass by now.
            self._passed_in_a_row = 0
            self._max_bytes = min(self._max_bytes * 2, self._configured_bytes)
        self._max_groups = min(self._max_groups * 2, _MAX_GROUPS)

    async def _narrow(self, batch: Batch, err: ExastroRejected, *, size: int) -> None:
        """Cut down what was refused, until what is refused alone is a single event or group, and park that."""
        first = batch.groups[0]
        answer = self._redact(str(err))
        is_too_large = err.reason is Reason.TOO_LARGE
        # Codes of the whole group, so that its events are not to blame.
        is_about_group = "499-018" in str(err)
        if is_too_large and batch.event_count == 1 and size <= self._passed_bytes:
            # More has passed before, so this may pass, too: once more, before it counts.
            self._passed_bytes = 0
            await self._store.withdraw(batch, answer)
            raise ExastroUnavailable(err.text, reason=err.reason, is_unprocessed=True) from err
        if len(batch.groups) == 1 and (first.event_count == 1 or (is_about_group and not is_too_large)):
            await self._store.withdraw(batch, answer)
            await self._park({first: err.text}, batch)
            return
        if is_too_large:
            self._remember_too_large(size)
        else:
            self._max_groups = max(1, len(batch.groups) // 2)
        _log.warning(
            "batch_cut",
            code="AGT-10020",
            reason=err.reason,
            detail=err.text,
            events=batch.event_count,
            groups=len(batch.groups),
            bytes=size,
        )
        if len(batch.groups) > 1:
            await self._store.dissolve(batch, answer)
        elif not await self._store.cut(batch, int(self._now()), answer):
            self._tell_parked({first: DAMAGED})

    def _remember_too_large(self, size: int) -> None:
        if size <= self._passed_bytes:
            # What passed once does so no longer.
            self._passed_bytes = 0
        self._passed_in_a_row = 0
        self._max_bytes = max(self._passed_bytes, size // 2)

    async def _settle(self, batch: Batch, messages: Sequence[str], *, size: int) -> Settlement:
        settlement, is_clear = self._read(batch, messages)
        await self._store.settle(batch, settlement, int(self._now()))
        if is_clear:
            self._widen(size)
        else:
            # Offered one by one, each group gets an answer of its own.
            self._max_groups = 1
        for number, taken in settlement.collided.items():
            _log.warning("key_collided", setting=_by_number(batch, number).setting_name, taken_until=taken)
        if settlement.parked:
            self._tell_parked({_by_number(batch, number): reason for number, reason in settlement.parked.items()})
        return settlement

    def _read(self, batch: Batch, messages: Sequence[str]) -> tuple[Settlement, bool]:
        """Return what the messages mean for each group, and whether every message could be given to one."""
        open_groups = list(batch.groups)
        already: set[int] = set()
        collided: dict[int, int] = {}
        parked: dict[int, str] = {}
        answers: dict[int, str] = {}
        for message in messages:
            group = _addressee(message, open_groups)
            if group is None:
                _log.warning("message_unclear", code="AGT-10020", detail=shorten(message, 256))
                settlement = Settlement(
                    already_saved=frozenset(already), collided=collided, parked=parked, answers=answers
                )
                return settlement, False
            open_groups.remove(group)
            answers[group.number] = self._redact(message)[:256]
            if wire.verdict_of(message) is Verdict.REFUSED:
                parked[group.number] = answers[group.number]
            elif group.was_offered:
                already.add(group.number)
            else:
                collided[group.number] = self._taken_until(message, group)
        if not collided:
            self._leap_seconds = _FIRST_LEAP_SECONDS
        saved = frozenset(group.number for group in open_groups)
        return Settlement(saved, frozenset(already), collided, parked, answers), True

    def _taken_until(self, message: str, group: Group) -> int:
        told = wire.greatest_time(message)
        if told > group.fetched_time:
            return told
        self._leap_seconds *= 2
        return group.fetched_time + self._leap_seconds

    async def _park(self, reasons: Mapping[Group, Text], batch: Batch) -> None:
        parked = {group.number: self._redact(str(reason))[:256] for group, reason in reasons.items()}
        await self._store.settle(batch, Settlement(parked=parked), int(self._now()))
        self._tell_parked(reasons)

    def _tell_parked(self, reasons: Mapping[Group, Told | str]) -> None:
        for group, reason in reasons.items():
            self._health.group_parked(group.event_count, wire.code_in(str(reason)))
            _log.error(
                "batch_parked",
                code="AGT-10020",
                setting=group.setting_name,
                fetched_time=group.fetched_time,
                events=group.event_count,
                detail=reason,
            )


def _addressee(message: str, groups: Sequence[Group]) -> Group | None:
    """Return the group that a message is about: the oldest of the setting that it names, or the only one there is."""
    named = [group for group in groups if wire.has_id(message, group)]
    named = named or [group for group in groups if wire.has_name(message, group)]
    if len({(group.setting_id, group.setting_name) for group in named}) == 1:
        by_time = [group for group in named if str(group.fetched_time) in message]
        return (by_time or named)[0]
    return groups[0] if len(groups) == 1 else None


def _by_number(batch: Batch, number: int) -> Group:
    return next(group for group in batch.groups if group.number == number)
