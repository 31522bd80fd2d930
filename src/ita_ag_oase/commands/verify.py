"""`ita-ag-oase verify`: whether a store is whole, and whether its ledger balances."""

import dataclasses
from pathlib import Path
from typing import Any

from ita_ag_oase.commands.console import Console
from ita_ag_oase.model import Verification
from ita_ag_oase.store.access import StoreAccess
from ita_ag_oase.text import Text

# In the order of the fields of a ledger.
_HEADINGS = (
    Text("setting"),
    Text("seen"),
    Text("new"),
    Text("known"),
    Text("repeated"),
    Text("waiting"),
    Text("parked"),
    Text("delivered"),
    Text("already saved"),
    Text("dropped"),
    Text("lost"),
    Text("balances"),
)


def verify(console: Console, path: Path, *, as_json: bool) -> int:
    """Print the ledger of each setting and what is wrong with a store; return 1 where something is, else 0."""
    with StoreAccess(path) as store:
        found = store.verify()
    if as_json:
        console.json(_as_json(found, console))
    else:
        balances = {True: Text("yes"), False: Text("no")}
        console.table(
            _HEADINGS, [(*dataclasses.astuple(ledger), balances[ledger.is_balanced]) for ledger in found.ledgers]
        )
        for finding in found.findings:
            console.warn(finding)
    return 1 if found.findings else 0


def _as_json(found: Verification, console: Console) -> dict[str, Any]:
    settings = [{**dataclasses.asdict(ledger), "balances": ledger.is_balanced} for ledger in found.ledgers]
    return {"settings": settings, "findings": [console.told(finding) for finding in found.findings]}
