"""Agents in every state that an operator may find one in, as the status page and commands are told of them."""

from dataclasses import replace
from datetime import UTC, datetime

from ita_ag_oase.model import Ledger
from ita_ag_oase.status import (
    ElectionStatus,
    ExastroStatus,
    OutboxStatus,
    Phase,
    SourceState,
    SourceStatus,
    Status,
    StoreStatus,
    Trouble,
)
from ita_ag_oase.text import Text

NOW = datetime(2026, 4, 15, 1, 30, 12, tzinfo=UTC).timestamp()
DAY = 86_400.0


def ledger(name: str, new: int, *, known: int = 0, waiting: int = 0, parked: int = 0) -> Ledger:
    """Return a ledger that balances."""
    return Ledger(
        setting_name=name,
        seen=new + known,
        new=new,
        known=known,
        repeated=0,
        waiting=waiting,
        parked=parked,
        delivered=new - waiting - parked,
        already_saved=0,
        dropped=0,
        lost=0,
    )


def working(
    name: str, new: int = 120, *, is_mail: bool = False, event_age: float = 260.0, parked: int = 0
) -> SourceStatus:
    """Return a source that was polled a moment ago."""
    return SourceStatus(
        name=name,
        is_mail=is_mail,
        state=SourceState.WORKING,
        last_poll=NOW - 4,
        last_success=NOW - 4,
        last_event=NOW - event_age,
        lag_seconds=4.0,
        new_events=new // 3,
        known_events=new // 2,
        ledger=ledger(name, new, known=new // 2, parked=parked),
    )


def trouble(detail: Text, *, code: str = "AGT-10029", reason: str = "timeout", seconds: float = 1_380.0) -> Trouble:
    """Return what has been failing for some time."""
    return Trouble(code=code, reason=reason, detail=detail, since=NOW - seconds, latest=NOW - 18, failures=24)


def failing(source: SourceStatus, what: Trouble, *, state: SourceState = SourceState.FAILING) -> SourceStatus:
    """Return a source that has failed since the trouble began."""
    last = what.since - 10
    return replace(source, state=state, trouble=what, last_success=last, lag_seconds=NOW - last)


SOURCES = (
    working("Zabbix production", 18_204),
    working("Alertmanager", 2_911, event_age=71_000),
    working("Grafana", 460, event_age=2_300),
    working("障害通知メール", 1_377, is_mail=True, event_age=11_400),
    working("CloudWatch ap-northeast-1", 6_020, event_age=42),
)
REFUSED = trouble(
    Text(
        "{words}: check the credentials of the setting",
        words=Text("{place} answered {status}", place="http://zabbix.example:8080", status="401 Unauthorized"),
    ),
    code="AGT-10029",
    reason="unauthorized",
)
UNREACHABLE = trouble(
    Text(
        "Exastro: {words}",
        words=Text("no connection ({error}): check the host, the port and the network", error="Connection refused"),
    ),
    code="AGT-00004",
    reason="unreachable",
)

STORE = StoreStatus(
    path="/storage/org001/ws01/sqlite/ag_oase_oase-agent-tokyo-1.sqlite3",
    used_bytes=41_205_760,
    max_bytes=1_073_741_824,
    disk_free_bytes=8_912_000_000,
    trouble=None,
)
OUTBOX = OutboxStatus(
    waiting_groups=0,
    waiting_events=0,
    waiting_bytes=0,
    oldest_age_seconds=None,
    parked_groups=0,
    parked_events=0,
    drain_seconds=None,
)
HEALTHY = Status(
    version="2.7.1",
    agent="oase-agent-tokyo-1",
    workspace="ws01",
    phase=Phase.RUNNING,
    is_ready=True,
    started=NOW - 12.4 * DAY,
    now=NOW,
    interval_seconds=5.0,
    sources=SOURCES,
    exastro=ExastroStatus(
        url="http://platform-auth:8000",
        is_reachable=True,
        last_success=NOW - 3,
        trouble=None,
        token_until=NOW + 260,
        settings_fetched=NOW - 1_900,
        clock_difference_seconds=0.4,
    ),
    outbox=OUTBOX,
    store=STORE,
    ledger_imbalance=0,
)
SOURCE_FAILING = replace(HEALTHY, sources=(failing(SOURCES[0], REFUSED), *SOURCES[1:]))
LAGGING = replace(HEALTHY, sources=(replace(SOURCES[0], lag_seconds=5_400.0), *SOURCES[1:]))
EXASTRO_DOWN = replace(
    HEALTHY,
    exastro=replace(
        HEALTHY.exastro, is_reachable=False, trouble=UNREACHABLE, last_success=UNREACHABLE.since - 4, token_until=None
    ),
    outbox=replace(
        OUTBOX,
        waiting_groups=212,
        waiting_events=3_481,
        waiting_bytes=2_411_724,
        oldest_age_seconds=1_380.0,
    ),
)
BACKLOG = replace(
    HEALTHY,
    outbox=replace(
        OUTBOX,
        waiting_groups=1_804,
        waiting_events=128_455,
        waiting_bytes=93_323_264,
        oldest_age_seconds=2_760.0,
        drain_seconds=540.0,
    ),
)
PARKED = replace(
    HEALTHY,
    sources=(SOURCES[0], working("Alertmanager", 2_911, event_age=71_000, parked=3), *SOURCES[2:]),
    outbox=replace(
        OUTBOX,
        waiting_groups=2,
        waiting_events=14,
        waiting_bytes=9_811,
        oldest_age_seconds=2.0,
        parked_groups=1,
        parked_events=3,
        drain_seconds=1.0,
    ),
)
STARTING = replace(
    HEALTHY,
    phase=Phase.STARTING,
    is_ready=False,
    started=NOW - 3,
    sources=(),
    exastro=ExastroStatus(
        url="http://platform-auth:8000",
        is_reachable=None,
        last_success=None,
        trouble=None,
        token_until=None,
        settings_fetched=None,
        clock_difference_seconds=None,
    ),
    outbox=None,
    store=None,
    ledger_imbalance=None,
)

NOT_RENEWED = trouble(
    Text(
        "the Kubernetes API at {url}: {words}",
        url="https://10.96.0.1:443",
        words=Text("no answer in time: check the host, the port and what lies between"),
    ),
    code="AGT-10001",
    seconds=40.0,
)
ELECTION = ElectionStatus(
    lease="monitoring/oase-agent",
    identity="oase-agent-6f7c-x2v9q_5d1c0a7e",
    holder="oase-agent-6f7c-x2v9q_5d1c0a7e",
    since=NOW - 3 * DAY,
    term=7,
    trouble=None,
    is_working=True,
)
LEADING = replace(HEALTHY, election=ELECTION)
STANDBY = replace(
    STARTING,
    phase=Phase.STANDBY,
    is_ready=True,
    started=NOW - 2 * DAY,
    election=replace(ELECTION, identity="oase-agent-6f7c-k8mzd_b06f2c11", term=None),
)
CUT_OFF = replace(
    STANDBY,
    election=replace(
        ELECTION, identity="oase-agent-6f7c-k8mzd_b06f2c11", term=None, is_working=False, trouble=NOT_RENEWED
    ),
)

# What names can be: as long as Exastro allows, without a place to break, and full of what HTML or a line of text is
# steered by.
LONG_NAME = "とても長い名前の設定" * 25 + "の終わり。"
NAME_WITHOUT_BREAKS = "x" * 255
HOSTILE_NAME = "\u202eabc\u200f אבג <script>alert(1)</script>{{ 7 * 7 }} & \"'`"
MIXED = replace(
    HEALTHY,
    agent=NAME_WITHOUT_BREAKS,
    sources=(
        failing(working(LONG_NAME, 1_234_567_890), REFUSED),
        failing(working(NAME_WITHOUT_BREAKS), REFUSED, state=SourceState.UNUSABLE),
        replace(working("Grafana"), trouble=replace(REFUSED, since=NOW - 9_000, latest=NOW - 8_000), unusable_events=7),
        SourceStatus(name="Prometheus", is_mail=False, state=SourceState.WAITING),
        working(HOSTILE_NAME),
    ),
    exastro=replace(HEALTHY.exastro, trouble=UNREACHABLE, clock_difference_seconds=-90.0),
    store=replace(
        STORE,
        used_bytes=1_070_000_000,
        is_working=False,
        trouble=trouble(
            Text("the volume of the store is full: make room on it"), code="AGT-10027", reason="store_full"
        ),
    ),
    ledger_imbalance=-3,
)


def many(count: int) -> Status:
    """Return an agent with so many sources, of which every tenth fails."""
    sources = [working(f"Source {number:04}") for number in range(1, count + 1)]
    return replace(
        HEALTHY,
        sources=tuple(
            failing(source, REFUSED) if number % 10 == 0 else source for number, source in enumerate(sources, start=1)
        ),
    )


STATES = {
    "healthy": HEALTHY,
    "source-failing": SOURCE_FAILING,
    "lagging": LAGGING,
    "exastro-down": EXASTRO_DOWN,
    "backlog": BACKLOG,
    "parked": PARKED,
    "starting": STARTING,
    "leading": LEADING,
    "standby": STANDBY,
    "cut-off": CUT_OFF,
    "mixed": MIXED,
    "one-source": many(1),
    "fifty-sources": many(50),
    "thousand-sources": many(1_000),
}
