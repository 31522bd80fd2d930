"""What there is to know about a running agent at one moment: what the status page, /status.json and `status` show."""

from dataclasses import dataclass
from enum import StrEnum

from ita_ag_oase.model import Ledger
from ita_ag_oase.text import Text


class Phase(StrEnum):
    """Where the agent is in its life."""

    STARTING = "starting"
    STANDBY = "standby"
    WAITING_FOR_STORE = "waiting_for_store"
    RUNNING = "running"
    STOPPING = "stopping"


class SourceState(StrEnum):
    """How a source is doing, in one word."""

    WAITING = "waiting"
    WORKING = "working"
    FAILING = "failing"
    UNUSABLE = "unusable"


@dataclass(frozen=True, slots=True)
class Trouble:
    """What fails, or failed last.

    `code` is the message code, `reason` one of errors.Reason or `unexpected`, `detail` what happened and what to do
    about it. `since` and `latest` are the first and the last of `failures` in a row, in epoch seconds.
    """

    code: str
    reason: str
    detail: Text
    since: float
    latest: float
    failures: int


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """One setting's source. Times are epoch seconds, None where there was none yet.

    `trouble` is the present one where the state is failing or unusable, else the last one, if any. `lag_seconds` is how
    long ago the time was up to which the source has been read. `new_events`, `known_events` and `unusable_events`, of
    which none is counted twice, are those since the process started; `ledger` counts since the store was made, None
    where that is not known.
    """

    name: str
    is_mail: bool
    state: SourceState
    last_poll: float | None = None
    last_success: float | None = None
    last_event: float | None = None
    trouble: Trouble | None = None
    lag_seconds: float | None = None
    new_events: int = 0
    known_events: int = 0
    unusable_events: int = 0
    ledger: Ledger | None = None


@dataclass(frozen=True, slots=True)
class OutboxStatus:
    """What is on its way. `oldest_age_seconds` is None where nothing waits.

    `drain_seconds` is how long what waits takes at the present rate, None where that is not known.
    """

    waiting_groups: int
    waiting_events: int
    waiting_bytes: int
    oldest_age_seconds: float | None
    parked_groups: int
    parked_events: int
    drain_seconds: float | None


@dataclass(frozen=True, slots=True)
class ExastroStatus:
    """The other side. `is_reachable` is None before the first request has ended; times are epoch seconds.

    It is False also while Exastro refuses the agent; then `trouble` is the present one, else the last one, if any.
    `url` holds no path. `token_until` is when the access token ends, None where there is none.
    `clock_difference_seconds` is how far the agent's clock is ahead of Exastro's.
    """

    url: str
    is_reachable: bool | None
    last_success: float | None
    trouble: Trouble | None
    token_until: float | None
    settings_fetched: float | None
    clock_difference_seconds: float | None


@dataclass(frozen=True, slots=True)
class StoreStatus:
    """The store's file and its volume. `trouble` is what keeps it from its work now, or did last."""

    path: str
    used_bytes: int
    max_bytes: int
    disk_free_bytes: int
    trouble: Trouble | None
    is_working: bool = True


@dataclass(frozen=True, slots=True)
class ElectionStatus:
    """The election that decides which of several agents works, as far as this one knows.

    `lease` is `namespace/name`, `identity` this process's name in it. `holder` is who was seen to hold the Lease last,
    and `since` when that was seen first, in epoch seconds; None where nobody does, or that is not known. `term` is the
    number of the term that this agent leads in, None while it stands by. `trouble` is why the Lease cannot be read or
    written or, where `is_working`, could not last.
    """

    lease: str
    identity: str
    holder: str | None
    since: float | None
    term: int | None
    trouble: Trouble | None
    is_working: bool

    @property
    def is_leader(self) -> bool:
        """Whether this agent is the one that works."""
        return self.term is not None


@dataclass(frozen=True, slots=True)
class Status:
    """All of it; `outbox`, `store` and `ledger_imbalance` are None where the store is not open or cannot be read.

    `ledger_imbalance` is by how many events the ledgers of all settings do not balance, which should be 0.
    `interval_seconds` is the time from poll to poll. `started` and `now` are epoch seconds. `election` is None where
    there is none.
    """

    version: str
    agent: str
    workspace: str
    phase: Phase
    is_ready: bool
    started: float
    now: float
    interval_seconds: float
    sources: tuple[SourceStatus, ...]
    exastro: ExastroStatus
    outbox: OutboxStatus | None
    store: StoreStatus | None
    ledger_imbalance: int | None
    election: ElectionStatus | None = None
