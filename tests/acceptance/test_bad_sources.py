"""A source that misbehaves leaves the others on time and the agent small."""

import itertools
import threading
import zlib
from collections.abc import Callable, Iterator

import pytest

from ita_ag_oase.demo.exastro import DemoExastro
from ita_ag_oase.demo.loopback import Reply, as_html
from support import Deploy, ListSource, ScriptedSource, arrived, wait_for_all, wait_for_polls

_PIECE_BYTES = 1_000_000
_PIECES = 300
_PEAK_MEBIBYTES = 150.0
# Polls come every 3 s; on a loaded machine some time is lost on the way.
_LONGEST_GAP_SECONDS = 4.5


def _html() -> Reply:
    return as_html("Please log in", 200)


def _hanging() -> Reply:
    return Reply(hang_seconds=100.0)


def _trickling() -> Reply:
    never = threading.Event()

    def drops() -> Iterator[bytes]:
        for _ in range(100):
            yield b" "
            never.wait(0.5)

    return Reply(pieces=drops())


def _large() -> Reply:
    return Reply(pieces=itertools.chain([b'{"items": ["'], itertools.repeat(b"x" * _PIECE_BYTES, _PIECES), [b'"]}']))


def _compressed() -> Reply:
    return Reply(pieces=_gzip_of_zeros(), headers={"Content-Encoding": "gzip"})


def _gzip_of_zeros() -> Iterator[bytes]:
    compressor = zlib.compressobj(9, wbits=31)
    for _ in range(_PIECES):
        if piece := compressor.compress(b"0" * _PIECE_BYTES):
            yield piece
    yield compressor.flush()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (_html, "not_json"),
        (_hanging, None),
        (_trickling, None),
        (_large, "too_large"),
        (_compressed, "too_large"),
    ],
    ids=["HTML", "hanging", "trickling", "300 MB", "300 MB compressed"],
)
def test_a_source_that_misbehaves_leaves_the_others_on_time(
    deploy: Deploy, answer: Callable[[], Reply], reason: str | None
) -> None:
    with (
        ScriptedSource("bad", lambda _: answer(), RESPONSE_KEY="items") as bad,
        ListSource("good", 3) as good,
        DemoExastro([bad.row, good.row]) as exastro,
    ):
        agent = deploy(exastro, bad.name, good.name).start()
        wait_for_polls(agent, bad, 1)
        wait_for_polls(agent, good, 2)
        good.add(3)
        wait_for_all(agent, exastro, good)
        assert arrived(exastro, good.name) == good.ids
        assert arrived(exastro, bad.name) == []
        gaps = [later - earlier for earlier, later in itertools.pairwise(good.polls)]
        assert [gap for gap in gaps if gap > _LONGEST_GAP_SECONDS] == []
        assert agent.peak_mebibytes() < _PEAK_MEBIBYTES
        # The first failure is told, not each try.
        failures = agent.lines("collection_failed", setting=bad.name)
        assert [line["reason"] for line in failures if line["level"] != "debug"] == ([reason] if reason else [])
