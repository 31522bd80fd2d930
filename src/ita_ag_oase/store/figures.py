"""What a store holds, in figures: how much is on its way, how far each source was read, and what the ledgers say."""

import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import NamedTuple

from ita_ag_oase.model import Ledger
from ita_ag_oase.store import registry
from ita_ag_oase.store.ledger import ledgers
from ita_ag_oase.store.reserve import free_bytes


class Amount(NamedTuple):
    """How much of the outbox there is; `oldest` is when the earliest poll of it started, None where there is none."""

    groups: int
    events: int
    bytes: int
    oldest: int | None


@dataclass(frozen=True, slots=True)
class Figures:
    """A store at one moment. `ledgers` and `read_until` are by the name of the setting.

    `read_until` is the last fetched time. Settings of one name, of which all but one are gone, count as one.
    `imbalance` is by how many events the ledgers do not balance.
    """

    waiting: Amount
    parked: Amount
    ledgers: Mapping[str, Ledger]
    read_until: Mapping[str, int]
    imbalance: int
    used_bytes: int
    disk_free_bytes: int


def figures(connection: sqlite3.Connection, path: Path) -> Figures:
    """Return the figures of the store at a path.

    The time it takes grows with the number of groups, not with their size. Raises OSError where the volume is gone.
    """
    waiting, parked = _amounts(connection)
    found = list(ledgers(connection))
    rows = connection.execute("SELECT CAST(name AS TEXT), max(last_fetched_time) FROM settings GROUP BY 1")
    return Figures(
        waiting=waiting,
        parked=parked,
        ledgers=_by_name(found),
        read_until=dict(rows.fetchall()),
        imbalance=sum(ledger.imbalance for ledger in found),
        used_bytes=registry.sizes(connection).used_bytes,
        disk_free_bytes=free_bytes(path),
    )


def _amounts(connection: sqlite3.Connection) -> tuple[Amount, Amount]:
    rows = connection.execute(
        "SELECT parked_reason IS NOT NULL, count(*), sum(event_count), sum(byte_count), min(fetched_time)"
        " FROM groups GROUP BY 1"
    )
    amounts = {is_parked: Amount(*amount) for is_parked, *amount in rows}
    nothing = Amount(0, 0, 0, None)
    return amounts.get(0, nothing), amounts.get(1, nothing)


def _by_name(found: Iterable[Ledger]) -> dict[str, Ledger]:
    by_name: dict[str, Ledger] = {}
    for ledger in found:
        earlier = by_name.get(ledger.setting_name)
        by_name[ledger.setting_name] = ledger if earlier is None else _sum(earlier, ledger)
    return by_name


def _sum(one: Ledger, other: Ledger) -> Ledger:
    counts = [field.name for field in fields(Ledger) if field.type is int]
    return Ledger(one.setting_name, **{name: getattr(one, name) + getattr(other, name) for name in counts})
