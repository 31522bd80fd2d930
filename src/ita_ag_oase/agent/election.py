"""Who of several agents works: the one that holds the Lease.

The rules are those of client-go's leaderelection. What differs is there for safety: every request has a time limit, a
leader's right ends by its own clock, every term has a number of its own, and a Lease that was made anew is not trusted
at once.

Clocks are never compared with those of others. A holder's time is counted from the moment at which a change of the
Lease was *seen*, which is later than it was made; one's own from before the request that made it was *sent*.
"""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple, Protocol

import structlog

from ita_ag_oase import clock
from ita_ag_oase.agent.lease import Lease
from ita_ag_oase.agent.schedule import Troubles, tried
from ita_ag_oase.errors import AgentError, LeaseChanged
from ita_ag_oase.text import Text

_log = structlog.get_logger()

# Each pause is drawn from these parts of the retry time, so that two do not go on asking at the same moment. A release
# is so seen, and a silence noticed, within the retry time.
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.7, 0.9
_CODE = "AGT-10001"
_NEVER = float("-inf")


class LeaseAccess(Protocol):
    """The Lease, as `agent.lease.LeaseApi` reads and writes it; it raises as that does."""

    async def read(self) -> Lease:
        """Return the Lease."""

    async def write(self, document: Mapping[str, Any], /) -> Lease:
        """Replace it by a document made from one that was read."""


class Times(NamedTuple):
    """How long a Lease lasts that is not renewed, when its holder gives up renewing, and the time from try to try.

    So that a holder has given up before others take over, each is shorter than the one before.
    """

    lease_seconds: int
    renew_seconds: float
    retry_seconds: float

    @property
    def request_seconds(self) -> float:
        """How long a request may take, so that the next try does not wait for it."""
        return _LONGEST_PAUSE * self.retry_seconds


class KnownTerm(NamedTuple):
    """The latest term that the store knows. `is_rival` where another process began it, under this same Lease."""

    number: int = 0
    is_rival: bool = False


async def no_known_term() -> KnownTerm | None:
    """Return what a new store knows."""
    return KnownTerm()


class Elector:
    """Takes part in the election as `identity`, which no other process has.

    `known_term` tells what the store knows when the Lease is about to be taken, None where it cannot be read.
    `on_holder` is told who is seen to hold the Lease whenever that is someone else than before, empty for nobody.
    `elapsed` are seconds of a clock that goes on while the machine sleeps.
    """

    def __init__(
        self,
        access: LeaseAccess,
        identity: str,
        times: Times,
        *,
        troubles: Troubles,
        known_term: Callable[[], Awaitable[KnownTerm | None]] = no_known_term,
        on_holder: Callable[[str], None] = lambda _: None,
        elapsed: Callable[[], float] = clock.elapsed,
        wall: Callable[[], float] = clock.now,
        draw: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._access = access
        self._identity = identity
        self._times = times
        self._troubles = troubles
        self._known_term = known_term
        self._on_holder = on_holder
        self._elapsed = elapsed
        self._wall = wall
        self._draw = draw
        self._holder: str | None = None
        # What was seen of the Lease last, when that was seen first, and from when on it is free.
        self._version: tuple[str, str] | None = None
        self._seen_at = self._free_at = _NEVER
        # The Lease as we know it to be while it is ours; None where that must be looked at.
        self._ours: Lease | None = None
        self._may_be_ours = False
        self._number = 0
        self._works_until = _NEVER

    def is_at_work(self) -> bool:
        """Whether a term of ours lasts at this moment, so that we may write and post."""
        return self._elapsed() < self._works_until

    async def win(self) -> int:
        """Wait until the Lease is ours, and return the number of the term that begins; it lasts while `hold` runs."""
        while True:
            began = self._elapsed()
            if await tried(self._try_to_take, self._troubles, lease_code):
                return self._number
            await asyncio.sleep(self._pause_seconds(began))

    async def hold(self) -> Text:
        """Renew the Lease until the term has ended, and return why it has."""
        why: Text | None = None
        began = self._elapsed()
        with contextlib.suppress(TimeoutError):
            while why is None and self.is_at_work():
                # Whatever is under way then, the term ends: a request without an answer gives no right.
                async with asyncio.timeout(self._works_until - self._elapsed()):
                    await asyncio.sleep(self._pause_seconds(began))
                    began = self._elapsed()
                    why = await tried(self._renew, self._troubles, lease_code)
        self.end_term()
        return why or Text("the Lease could not be renewed for {seconds:g} s", seconds=self._times.renew_seconds)

    def end_term(self) -> None:
        """Have no right any more from now on."""
        self._works_until = _NEVER

    async def release(self) -> bool:
        """Give the Lease back where it is or may be ours; return whether it was. All work must have ended before.

        Where that fails, which is logged, the Lease ends by itself.
        """
        self.end_term()
        if not self._may_be_ours:
            return False
        try:
            async with asyncio.timeout(self._times.retry_seconds):
                is_released = await self._give_back()
        except (AgentError, TimeoutError) as err:
            detail = err.text if isinstance(err, AgentError) else Text("no answer in time")
            _log.warning("lease_kept", detail=detail, seconds=self._times.lease_seconds)
            return False
        self._may_be_ours = False
        return is_released

    def _pause_seconds(self, began: float) -> float:
        """Return how long to wait after a try that began then: to the next one, or until the Lease becomes free."""
        now = self._elapsed()
        due = began + self._draw(_SHORTEST_PAUSE, _LONGEST_PAUSE) * self._times.retry_seconds
        return max((self._free_at if now < self._free_at < due else due) - now, 0.0)

    async def _try_to_take(self) -> bool:
        lease = await self._access.read()
        self._note(lease)
        if self._elapsed() < self._free_at:
            return False
        known = await self._known_term()
        if self._is_behind(lease, known):
            # Whoever leads does not know it yet, and works on.
            self._free_at = self._seen_at + self._times.lease_seconds
            if self._elapsed() < self._free_at:
                return False
        return await self._take(lease, max(known.number if known else 0, lease.transitions) + 1)

    def _is_behind(self, lease: Lease, known: KnownTerm | None) -> bool:
        """Whether the Lease may not know of a rival's term: it was made anew, or an old one was restored."""
        if known is None:
            return True
        is_not_its_own = known.number == lease.transitions and lease.holder == self._identity
        return known.is_rival and (known.number > lease.transitions or is_not_its_own)

    def _note(self, lease: Lease) -> None:
        if lease.version == self._version:
            return
        self._version = lease.version
        self._seen_at = self._elapsed()
        # A term of our own that has ended binds nobody: its number does not come again.
        is_free = lease.holder in ("", self._identity)
        self._may_be_ours = lease.holder == self._identity
        # Others may have been told other times.
        seconds = self._times.lease_seconds if lease.duration_seconds is None else lease.duration_seconds
        self._free_at = self._seen_at if is_free else self._seen_at + seconds
        if lease.holder != self._holder:
            self._holder = lease.holder
            self._on_holder(lease.holder)

    async def _take(self, lease: Lease, number: int) -> bool:
        sent = self._elapsed()
        document = lease.taken(
            self._identity, duration_seconds=self._times.lease_seconds, transitions=number, now=self._wall()
        )
        self._may_be_ours = True
        try:
            written = await self._access.write(document)
        except LeaseChanged:
            # Someone was quicker; the next look tells who.
            self._may_be_ours = False
            return False
        self._number = number
        self._prolong(written, sent)
        return True

    def _prolong(self, written: Lease, sent: float) -> None:
        self._note(written)
        self._ours = written
        self._works_until = sent + self._times.renew_seconds

    async def _renew(self) -> Text | None:
        """Renew once; return why the term has ended where it is found to have."""
        # Twice, since a change by someone who is no rival, such as a label, is none of our business.
        for _ in range(2):
            if self._ours is None and (why := await self._look()):
                return why
            if self._ours is None or await self._write_renewal(self._ours):
                break
        return None

    async def _look(self) -> Text | None:
        lease = await self._access.read()
        if (lease.holder, lease.transitions) == (self._identity, self._number):
            self._ours = lease
            return None
        self._note(lease)
        if not lease.holder:
            return Text("the Lease was taken away: nobody holds it")
        return Text("the Lease is held by {holder}", holder=lease.holder)

    async def _write_renewal(self, lease: Lease) -> bool:
        """Return whether the Lease was still the one that we knew."""
        sent = self._elapsed()
        # Until there is an answer, it may have been written or not.
        self._ours = None
        try:
            written = await self._access.write(
                lease.renewed(duration_seconds=self._times.lease_seconds, now=self._wall())
            )
        except LeaseChanged:
            return False
        self._prolong(written, sent)
        return True

    async def _give_back(self) -> bool:
        lease, self._ours = self._ours or await self._access.read(), None
        if lease.holder != self._identity:
            return False
        try:
            self._note(await self._access.write(lease.released(now=self._wall())))
        except LeaseChanged:
            return await self._give_back()
        return True


def lease_code(_: Exception) -> str:
    """Return the message code of a Lease that could not be read or written: the stock agent has none for it."""
    return _CODE
