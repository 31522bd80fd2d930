"""How each part of an agent is doing, as the status page shows it."""

from dataclasses import replace

import pytest

from ita_ag_oase.observability.panels import Times, panels
from ita_ag_oase.observability.verdict import Level, Place, judge
from ita_ag_oase.status import Phase, Status
from statuses import (
    BACKLOG,
    CUT_OFF,
    EXASTRO_DOWN,
    HEALTHY,
    LAGGING,
    LEADING,
    MIXED,
    NOT_RENEWED,
    NOW,
    PARKED,
    SOURCE_FAILING,
    STANDBY,
    STARTING,
)


def levels(status: Status) -> dict[Place, Level]:
    """Return how the parts are doing that are not well."""
    found = panels(status, judge(status).findings, Times(NOW, None))
    assert [panel.place for panel in found] == list(Place)
    return {panel.place: panel.level for panel in found if panel.level is not Level.GOOD}


@pytest.mark.parametrize(
    ("status", "unwell"),
    [
        (HEALTHY, {}),
        (SOURCE_FAILING, {Place.SOURCES: Level.BAD}),
        (LAGGING, {Place.SOURCES: Level.DOUBTFUL}),
        (EXASTRO_DOWN, {Place.EXASTRO: Level.BAD, Place.OUTBOX: Level.DOUBTFUL}),
        (BACKLOG, {Place.OUTBOX: Level.DOUBTFUL}),
        (PARKED, {Place.OUTBOX: Level.DOUBTFUL}),
        (STARTING, dict.fromkeys(Place, Level.WAITING)),
        (
            MIXED,
            {
                Place.SOURCES: Level.BAD,
                Place.EXASTRO: Level.DOUBTFUL,
                Place.STORE: Level.BAD,
                Place.LEDGER: Level.BAD,
            },
        ),
        (LEADING, {}),
        (STANDBY, dict.fromkeys(Place, Level.WAITING)),
        (CUT_OFF, {**dict.fromkeys(Place, Level.WAITING), Place.AGENT: Level.BAD}),
        (replace(HEALTHY, store=None), {Place.STORE: Level.BAD}),
        (replace(HEALTHY, sources=()), {Place.SOURCES: Level.BAD}),
        (replace(HEALTHY, phase=Phase.STOPPING), {Place.AGENT: Level.WAITING}),
    ],
    ids=[
        "healthy",
        "source failing",
        "source lagging",
        "Exastro down",
        "backlog",
        "parked",
        "starting",
        "everything at once",
        "leading",
        "standing by",
        "cut off from the API",
        "no store",
        "no source",
        "stopping",
    ],
)
def test_a_part_is_as_bad_as_the_worst_that_was_found_in_it(status: Status, unwell: dict[Place, Level]) -> None:
    assert levels(status) == unwell


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (HEALTHY, []),
        (
            LEADING,
            [
                "Lease: monitoring/oase-agent",
                "In the election: oase-agent-6f7c-x2v9q_5d1c0a7e: leads, term 7",
                "Leader: oase-agent-6f7c-x2v9q_5d1c0a7e",
                "Seen since: 3 d ago",
            ],
        ),
        (
            STANDBY,
            [
                "Lease: monitoring/oase-agent",
                "In the election: oase-agent-6f7c-k8mzd_b06f2c11: stands by",
                "Leader: oase-agent-6f7c-x2v9q_5d1c0a7e",
                "Seen since: 3 d ago",
            ],
        ),
    ],
    ids=["no election", "leading", "standing by"],
)
def test_the_agent_tells_who_leads(status: Status, told: list[str]) -> None:
    *_, agent = panels(status, judge(status).findings, Times(NOW, None))
    facts = [f"{fact.name}: {getattr(fact.value, 'distance', fact.value)}" for fact in agent.facts]
    assert facts[5:] == told


def test_the_agent_tells_why_it_has_no_part_in_the_election() -> None:
    *_, agent = panels(CUT_OFF, judge(CUT_OFF).findings, Times(NOW, None))
    assert agent.failure is not None
    assert str(agent.failure.detail) == str(NOT_RENEWED.detail)
