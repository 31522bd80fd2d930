"""`ita-ag-oase verify`: whether a store is whole, and whether its ledger balances."""

import dataclasses
import sys
from pathlib import Path
from typing import Any

import msgspec

from ita_ag_oase.commands.tables import printable, table
from ita_ag_oase.model import Ledger, Verification
from ita_ag_oase.store.access import StoreAccess

_COLUMNS = tuple(field.name for field in dataclasses.fields(Ledger))
_HEADINGS = ("setting", *(name.replace("_", " ") for name in _COLUMNS[1:]), "balances")


def verify(path: Path, *, as_json: bool) -> int:
    """Print the ledger of each setting and what is wrong with a store; return 1 where something is, else 0."""
    with StoreAccess(path) as store:
        found = store.verify()
    if as_json:
        print(msgspec.json.encode(_as_json(found)).decode())
    else:
        rows = [(*dataclasses.astuple(ledger), "yes" if ledger.is_balanced else "no") for ledger in found.ledgers]
        print(table(_HEADINGS, rows))
        for finding in found.findings:
            print(printable(finding), file=sys.stderr)
    return 1 if found.findings else 0


def _as_json(found: Verification) -> dict[str, Any]:
    settings = [{**dataclasses.asdict(ledger), "balances": ledger.is_balanced} for ledger in found.ledgers]
    return {"settings": settings, "findings": found.findings}
