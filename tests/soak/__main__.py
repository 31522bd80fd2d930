"""`make soak`: prints what a run found. Exit code 1 where anything was lost, repeated or out of order."""

import argparse
import random
import shutil
import sys
import tempfile
from pathlib import Path

from soak.run import Plan, Soak

_MINUTES = 10.0
_SEEDS = 1_000_000


def main() -> int:
    """Run what the arguments ask for; return the exit code."""
    plan = _plan()
    folder = Path(tempfile.mkdtemp(prefix="ita-ag-oase-soak-"))
    soak = Soak(plan, folder)
    print(f"seed {plan.seed}, logs and store in {folder}", flush=True)
    if soak.why_no_jumps:
        print(f"the clock does not jump: {soak.why_no_jumps}", flush=True)
    try:
        report = soak.run()
    except AssertionError as err:
        print(f"an agent did what none may, see the last logs in {folder}: {err}")
        return 1
    print("\n".join(report.lines()))
    if not report.is_good:
        print(f"the logs and the store of this run are in {folder}")
        return 1
    shutil.rmtree(folder)
    return 0


def _plan() -> Plan:
    parser = argparse.ArgumentParser(prog="python -m soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=_MINUTES, help=f"how long (default {_MINUTES:g})")
    parser.add_argument("--kills", type=int, help="how many kills, instead of a time")
    parser.add_argument("--seed", type=int, default=random.randrange(_SEEDS), help="of all choices (default: any)")
    parser.add_argument("--no-jumps", action="store_true", help="leave the clock alone")
    options = parser.parse_args()
    return Plan(options.minutes * 60, options.kills, options.seed, has_jumps=not options.no_jumps)


if __name__ == "__main__":
    sys.exit(main())
