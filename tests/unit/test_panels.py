"""How each part of an agent is doing, as the status page shows it."""

from dataclasses import replace

import pytest

from ita_ag_oase.observability.panels import Times, panels
from ita_ag_oase.observability.verdict import Level, Place, judge
from ita_ag_oase.status import Phase, Status
from statuses import BACKLOG, EXASTRO_DOWN, HEALTHY, LAGGING, MIXED, NOW, PARKED, SOURCE_FAILING, STARTING


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
        "no store",
        "no source",
        "stopping",
    ],
)
def test_a_part_is_as_bad_as_the_worst_that_was_found_in_it(status: Status, unwell: dict[Place, Level]) -> None:
    assert levels(status) == unwell
