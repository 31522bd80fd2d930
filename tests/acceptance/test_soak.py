"""The soak, for a moment, so that it stays fit for a night; and its judgement, which everything hangs on."""

import os
import random
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from ita_ag_oase.demo.exastro import DemoExastro, SavedEvent
from soak.background import Tally
from soak.sources import RefusedSource
from soak.verdict import judge
from soak.wall_clock import library
from support import AgentProcess, do_without

_TESTS = Path(__file__).parents[1]


def test_a_short_soak_finds_nothing_wrong(tmp_path: Path) -> None:
    if library() is None:
        do_without("libfaketime is not installed (the Debian package of that name)")
    folder = tmp_path / "temporary"
    folder.mkdir()
    command = (sys.executable, "-m", "soak", "--kills", "6", "--seed", "1")
    environment = {"PATH": os.defpath, "PYTHONPATH": str(_TESTS), "TMPDIR": str(folder)}
    process = AgentProcess(command, environment, tmp_path, 1)
    try:
        assert (process.wait(seconds=100), process.stderr) == (0, "")
    finally:
        process.end()
    table = dict(re.findall(r"^(\w.*?)  +(\S.*)$", process.stdout, re.MULTILINE))
    judged = [table[name] for name in ("lost", "repeated", "out of order", "seed")]
    assert judged == ["0", "0", "0", "1"]
    assert int(table["kills"]) >= 6
    assert int(table["clock jumps"]) > 0
    assert int(table["delivered"]) + int(table["parked"]) >= int(table["served"]) > 0
    assert list(folder.iterdir()) == []


# Ids as they arrived, ids that were parked; what is lost, repeated, out of order. 1 to 6 were made, 2 is refused.
_FATES: dict[str, tuple[Sequence[int], Sequence[int], Sequence[Sequence[int]]]] = {
    "as it should be": ([1, 3, 4, 5, 6], [2], ([], [], [])),
    "one is missing": ([1, 3, 5, 6], [2], ([4], [], [])),
    "one arrived twice": ([1, 3, 4, 5, 6, 4], [2], ([], [4], [])),
    "one was overtaken": ([1, 4, 3, 5, 6], [2], ([], [], [3])),
    "one is parked that is not refused": ([1, 3, 4, 5], [2, 6], ([6], [], [])),
    "one arrived and is parked": ([1, 3, 4, 5, 6], [2, 6], ([6], [6], [])),
    "one is refused and not parked": ([1, 3, 4, 5, 6], [], ([2], [], [])),
    "one is parked twice": ([1, 3, 4, 5, 6], [2, 2], ([], [2], [])),
    "an answer without events arrived once": ([1, 3, -7, 4, 5, 6], [2], ([], [], [])),
    "an answer without events arrived twice": ([1, 3, -7, 4, 5, -7, 6], [2], ([], [-7], [])),
}


@pytest.mark.parametrize(("arrived", "parked", "wrong"), _FATES.values(), ids=_FATES)
def test_a_soak_tells_what_became_of_the_events(
    arrived: Sequence[int], parked: Sequence[int], wrong: Sequence[Sequence[int]]
) -> None:
    source = RefusedSource("refused", random.Random(1), Tally(), kept=10, has_arrived=lambda _: True)
    source.make(6)
    source.refused = {2}
    exastro = DemoExastro()
    exastro.saved += [SavedEvent("refused", "pod-1", 1, _event(number)) for number in arrived]
    verdict = judge(source, exastro, [("refused", _event(number)) for number in parked])
    assert (verdict.lost, verdict.repeated, verdict.out_of_order) == wrong


def _event(number: int) -> dict[str, int]:
    return {"id": number} if number > 0 else {"error": -number}
