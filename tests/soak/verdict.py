"""What became of every event: judged at the end, once the agent had all the time and quiet to deliver."""

import itertools
import json
import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ita_ag_oase.demo.exastro import DemoExastro
from soak.sources import GrowingSource

Event = Mapping[str, Any]


@dataclass(frozen=True)
class Verdict:
    """What became of a source's events, by their ids; answers without events are told by their number, negated."""

    name: str
    served: int
    delivered: int
    parked: int
    lost: Sequence[int]
    repeated: Sequence[int]
    out_of_order: Sequence[int]

    @property
    def is_good(self) -> bool:
        """Whether nothing was lost, repeated or out of order."""
        return not (self.lost or self.repeated or self.out_of_order)


def judge(source: GrowingSource, exastro: DemoExastro, parked_events: Sequence[tuple[str, Event]]) -> Verdict:
    """Return what became of the events of a source; the parked events come with the names of their settings.

    Each that was made shall be at Exastro once, in order, or parked once, where it is refused for good. What was parked
    without such a reason counts as lost.
    """
    arrived = [_number(saved.event) for saved in exastro.events_of(source.name)]
    parked = [_number(event) for name, event in parked_events if name == source.name]
    lost = (set(source.made) - source.refused - set(arrived)) | (source.refused ^ set(parked))
    firsts = [number for number in dict.fromkeys(arrived) if number > 0]
    return Verdict(
        name=source.name,
        served=len(source.served),
        delivered=len(firsts),
        parked=len(parked),
        lost=sorted(lost),
        repeated=[number for number, count in Counter(arrived + parked).items() for _ in range(count - 1)],
        out_of_order=[later for earlier, later in itertools.pairwise(firsts) if later < earlier],
    )


def parked_in(store_file: Path) -> list[tuple[str, Event]]:
    """Return the parked events of a store that no agent uses, each with the name of its setting."""
    with closing(sqlite3.connect(store_file)) as connection:
        rows = connection.execute(
            "SELECT s.name, p.events FROM groups g JOIN settings s ON s.number = g.setting"
            " JOIN pieces p ON p.group_number = g.number WHERE g.parked_reason IS NOT NULL ORDER BY g.number, p.id"
        ).fetchall()
    return [(name, event) for name, events in rows for event in json.loads(b"[%b]" % events)]


def _number(event: Event) -> int:
    return -int(event["error"]) if "error" in event else int(event["id"])
