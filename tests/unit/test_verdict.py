"""Whether all is well with an agent, and what is told where it is not."""

from dataclasses import replace

import pytest

from ita_ag_oase.observability.verdict import Level, Place, judge
from ita_ag_oase.status import Phase, SourceState, Status
from statuses import (
    BACKLOG,
    CUT_OFF,
    ELECTION,
    EXASTRO_DOWN,
    HEALTHY,
    LEADING,
    MIXED,
    NOT_RENEWED,
    OUTBOX,
    PARKED,
    REFUSED,
    SOURCE_FAILING,
    STANDBY,
    STARTING,
    STORE,
    UNREACHABLE,
    failing,
    working,
)

NOBODY_LEADS = replace(STANDBY, election=replace(ELECTION, term=None, holder=None))
LEADING_CUT_OFF = replace(LEADING, election=replace(ELECTION, is_working=False, trouble=NOT_RENEWED))


def told(status: Status) -> list[str]:
    """Return what is wrong as it is read: places, sentences, names."""
    return [
        f"{finding.place}: {' '.join([str(finding.text), *finding.names, *map(str, finding.details)])}"
        for finding in judge(status).findings
    ]


@pytest.mark.parametrize(
    ("status", "level", "word", "text"),
    [
        (HEALTHY, Level.GOOD, "Working", "All is well: all 5 sources work, and their events reach Exastro."),
        (
            replace(HEALTHY, sources=HEALTHY.sources[:1]),
            Level.GOOD,
            "Working",
            "All is well: the source works, and its events reach Exastro.",
        ),
        (SOURCE_FAILING, Level.BAD, "Failing", "Something fails and needs attention."),
        (EXASTRO_DOWN, Level.BAD, "Failing", "Something fails and needs attention."),
        (BACKLOG, Level.DOUBTFUL, "Attention", "The agent works, but something needs attention."),
        (PARKED, Level.DOUBTFUL, "Attention", "The agent works, but something needs attention."),
        (STARTING, Level.WAITING, "Starting", "The agent is starting: not every source has been polled yet."),
        (
            replace(HEALTHY, is_ready=False),
            Level.WAITING,
            "Starting",
            "The agent is starting: not every source has been polled yet.",
        ),
        (replace(PARKED, phase=Phase.STOPPING), Level.DOUBTFUL, "Stopping", "The agent is shutting down."),
        (
            replace(STARTING, phase=Phase.WAITING_FOR_STORE),
            Level.WAITING,
            "Standing by",
            "Another agent uses the store. This one starts when that one has ended.",
        ),
        (LEADING, Level.GOOD, "Working", "All is well: all 5 sources work, and their events reach Exastro."),
        (
            STANDBY,
            Level.WAITING,
            "Standing by",
            "oase-agent-6f7c-x2v9q_5d1c0a7e leads. This agent takes over when that one has ended.",
        ),
        (NOBODY_LEADS, Level.WAITING, "Standing by", "This agent works once it leads. None is seen to lead now."),
        (CUT_OFF, Level.BAD, "Failing", "Something fails and needs attention."),
        (
            replace(EXASTRO_DOWN, phase=Phase.STARTING, is_ready=False),
            Level.BAD,
            "Failing",
            "Something fails and needs attention.",
        ),
    ],
    ids=[
        "healthy",
        "one source",
        "source failing",
        "Exastro down",
        "backlog",
        "parked",
        "starting",
        "first polls",
        "stopping with events parked",
        "second agent",
        "leading",
        "standing by",
        "nobody leads",
        "cut off from the API",
        "starting without Exastro",
    ],
)
def test_the_verdict_is_the_worst_there_is(status: Status, level: Level, word: str, text: str) -> None:
    verdict = judge(status)
    assert (verdict.level, str(verdict.word), str(verdict.text)) == (level, word, text)


@pytest.mark.parametrize(
    ("status", "findings"),
    [
        (HEALTHY, []),
        (STARTING, []),
        (STANDBY, []),
        (CUT_OFF, [f"agent: The Lease cannot be read or written: this agent cannot take over. {NOT_RENEWED.detail}"]),
        (
            LEADING_CUT_OFF,
            [f"agent: The Lease cannot be renewed: this agent stops working soon. {NOT_RENEWED.detail}"],
        ),
        (SOURCE_FAILING, [f"sources: 1 of 5 sources fails: Zabbix production {REFUSED.detail}"]),
        (
            EXASTRO_DOWN,
            [
                (f"exastro: Exastro cannot be reached, or refuses the agent. {UNREACHABLE.detail}"),
                (
                    "outbox: Events have been waiting for delivery for 23 min. "
                    "They are kept, and delivered once Exastro can be reached."
                ),
            ],
        ),
        (
            BACKLOG,
            [
                (
                    "outbox: Events have been waiting for delivery for 46 min. "
                    "Exastro takes them more slowly than they come, or answers with errors: the log tells which."
                )
            ],
        ),
        (
            PARKED,
            [
                (
                    "outbox: 3 events are parked and do not reach Exastro. `ita-ag-oase outbox` shows them with the "
                    "reasons. Once the cause is mended, it has them sent again."
                )
            ],
        ),
        (
            replace(HEALTHY, sources=()),
            [
                (
                    "sources: No source is polled. Name settings in EVENT_COLLECTION_SETTINGS_NAMES that Exastro has "
                    "and that are not discarded."
                )
            ],
        ),
        (
            replace(HEALTHY, store=None),
            ["store: The store cannot be read. The log says why; `ita-ag-oase verify` checks all of it."],
        ),
        (
            replace(HEALTHY, ledger_imbalance=-1),
            [
                (
                    "ledger: The ledger does not balance: what became of 1 event is not known. `ita-ag-oase verify` "
                    "tells of which setting. Keep a copy of the store, and report it."
                )
            ],
        ),
    ],
    ids=[
        "healthy",
        "starting",
        "standby",
        "cut off",
        "leader cut off",
        "source",
        "Exastro",
        "backlog",
        "parked",
        "no source",
        "no store",
        "ledger",
    ],
)
def test_each_finding_says_what_is_wrong_and_what_to_do(status: Status, findings: list[str]) -> None:
    assert told(status) == findings


def test_sources_that_come_no_further_are_named_with_what_may_be_wrong() -> None:
    late = [replace(working(name), lag_seconds=900.0) for name in ("c", "a")]
    down = replace(failing(working("b"), REFUSED), lag_seconds=900.0)
    assert told(replace(HEALTHY, sources=(*late, down, working("d")))) == [
        f"sources: 1 of 4 sources fails: b {REFUSED.detail}",
        (
            "sources: 2 of 4 sources lag behind: a c Polls do not fail, and yet come no further: they take very long, "
            "or the answers lack what RESPONSE_KEY names. `ita-ag-oase check` tells which."
        ),
    ]


def test_what_fails_comes_before_what_is_doubtful() -> None:
    assert [(finding.place, finding.level) for finding in judge(MIXED).findings] == [
        (Place.SOURCES, Level.BAD),
        (Place.SOURCES, Level.BAD),
        (Place.STORE, Level.BAD),
        (Place.LEDGER, Level.BAD),
        (Place.EXASTRO, Level.DOUBTFUL),
    ]


def test_sources_are_named_in_order_and_one_alone_with_its_trouble() -> None:
    sources = [failing(working(name), REFUSED) for name in ("c", "a")]
    unusable = failing(working("b"), REFUSED, state=SourceState.UNUSABLE)
    assert told(replace(HEALTHY, sources=(*sources, unusable, working("d")))) == [
        f"sources: 1 of 4 settings cannot be used: b {REFUSED.detail}",
        "sources: 2 of 4 sources fail: a c",
    ]


@pytest.mark.parametrize(
    ("status", "count"),
    [
        (replace(HEALTHY, outbox=replace(OUTBOX, oldest_age_seconds=599.0)), 0),
        (replace(HEALTHY, outbox=replace(OUTBOX, oldest_age_seconds=600.0)), 1),
        (replace(HEALTHY, sources=(replace(working("a"), lag_seconds=899.0),)), 0),
        (replace(HEALTHY, sources=(replace(working("a"), lag_seconds=900.0),)), 1),
        (replace(HEALTHY, interval_seconds=400.0, sources=(replace(working("a"), lag_seconds=1_199.0),)), 0),
        (replace(HEALTHY, interval_seconds=400.0, sources=(replace(working("a"), lag_seconds=1_200.0),)), 1),
        (replace(HEALTHY, sources=(replace(working("a"), lag_seconds=None),)), 0),
        (replace(HEALTHY, exastro=replace(HEALTHY.exastro, clock_difference_seconds=59.0)), 0),
        (replace(HEALTHY, exastro=replace(HEALTHY.exastro, clock_difference_seconds=60.0)), 1),
        (replace(HEALTHY, exastro=replace(HEALTHY.exastro, clock_difference_seconds=-60.0)), 1),
        (replace(HEALTHY, store=replace(STORE, used_bytes=899, max_bytes=1_000)), 0),
        (replace(HEALTHY, store=replace(STORE, used_bytes=900, max_bytes=1_000)), 1),
        (replace(HEALTHY, store=replace(STORE, used_bytes=10, max_bytes=1_000, disk_free_bytes=100)), 0),
        (replace(HEALTHY, store=replace(STORE, used_bytes=10, max_bytes=1_000, disk_free_bytes=99)), 1),
        (replace(HEALTHY, store=replace(STORE, is_working=False)), 1),
        (replace(STARTING, store=None), 0),
        (replace(HEALTHY, outbox=None, ledger_imbalance=None), 0),
    ],
    ids=[
        "waiting for less than 10 min",
        "waiting for 10 min",
        "lagging for less than 15 min",
        "lagging for 15 min",
        "lagging for less than 3 turns",
        "lagging for 3 turns",
        "lag not known",
        "clock less than a minute off",
        "clock a minute ahead",
        "clock a minute behind",
        "store less than 90 % full",
        "store 90 % full",
        "a tenth of the limit free on the volume",
        "less than a tenth",
        "store not working",
        "store not open yet",
        "nothing known of the outbox",
    ],
)
def test_a_warning_comes_at_its_limit(status: Status, count: int) -> None:
    assert len(judge(status).findings) == count
