"""`make bench`: CPU and memory of the agent beside the bare minimum, in one run, on loopback.

Each program runs as a process of its own, between a source and an Exastro in this one. Figures are medians; the limits
are those of docs/performance.md.
"""

import argparse
import dataclasses
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from scenarios import SCENARIOS, Lab, Row


def main() -> None:
    options = _options()
    lab = Lab(python=str(options.python.absolute()), runs=options.runs, polls=options.polls)
    started = time.monotonic()
    print(f"{_machine()}; {lab.runs} runs each, {lab.polls} counted polls in each; medians")
    print(f"{'scenario':<10}{'figure':<34}{'agent':>10}{'bare':>10}{'ratio':>8}  limit", flush=True)
    rows: list[Row] = []
    for name in options.scenarios:
        found = SCENARIOS[name](lab)
        rows += found
        for row in found:
            print(_line(row), flush=True)
    print(f"took {time.monotonic() - started:.0f} s")
    if options.json:
        options.json.write_text(_as_json(rows), encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="CPU and memory of the agent beside the bare minimum")
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=f"of {', '.join(SCENARIOS)} (default all)")
    parser.add_argument(
        "--python", type=Path, default=Path(sys.executable), help="what runs the programs (default: this Python)"
    )
    parser.add_argument("--runs", type=int, default=3, help="runs of each program and scenario (default 3)")
    parser.add_argument("--polls", type=int, default=3, help="counted polls of each run (default 3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    options = parser.parse_args()
    unknown = set(options.scenarios) - SCENARIOS.keys()
    if unknown:
        parser.error(f"no such scenario: {', '.join(sorted(unknown))}; choose of {', '.join(SCENARIOS)}")
    options.scenarios = options.scenarios or list(SCENARIOS)
    return options


def _machine() -> str:
    return f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, {os.cpu_count()} cores"


def _line(row: Row) -> str:
    return (
        f"{row.scenario:<10}{row.figure:<34}{row.agent:>10.2f}{_number(row.bare):>10}{_number(row.ratio):>8}"
        f"  {_verdict(row)}".rstrip()
    )


def _number(figure: float | None) -> str:
    return "" if figure is None else f"{figure:.2f}"


def _verdict(row: Row) -> str:
    if row.limit is None:
        return ""
    of = " x bare" if row.is_ratio else ""
    return f"{'≥' if row.is_at_least else '≤'} {row.limit:g}{of}: {'holds' if row.holds else 'DOES NOT HOLD'}"


def _as_json(rows: Sequence[Row]) -> str:
    figures = [{**dataclasses.asdict(row), "ratio": row.ratio, "holds": row.holds} for row in rows]
    return json.dumps({"machine": _machine(), "figures": figures}, ensure_ascii=False, indent=2) + "\n"


if __name__ == "__main__":
    main()
