"""The command explain: which sentences tell the life of an event, and its exit codes."""

import io
import json
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from exactly_once import Bench, usable
from ita_ag_oase.commands.console import Console
from ita_ag_oase.commands.explain import explain
from ita_ag_oase.errors import ExastroUnavailable
from ita_ag_oase.model import Event, GroupChoice
from ita_ag_oase.observability.language import translations
from ita_ag_oase.observability.logs import Redactor
from ita_ag_oase.store.access import StoreAccess

# 22:13:20 in UTC.
START = 1_700_000_000
DISCARDED = "499-01827: the event collection setting is discarded"


class Said(NamedTuple):
    """What a command printed."""

    code: int
    out: list[str]
    err: str


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have times told in UTC."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with Bench(tmp_path) as bench:
        await bench.introduce()
        yield bench


def ask(
    bench: Bench, event_id: str, *, setting: str | None = None, as_json: bool = False, out: io.StringIO | None = None
) -> Said:
    out, err = out or io.StringIO(), io.StringIO()
    console = Console(translations("en"), Redactor(), out=out, err=err)
    code = explain(console, bench._path, event_id, setting_name=setting, as_json=as_json)
    return Said(code, out.getvalue().splitlines(), err.getvalue())


def group(seconds: int, what: str) -> str:
    """Return how a group of n1 is called whose key is so many seconds after the start."""
    return f"the group n1@{START + seconds} {what}, under the agent name agent-1"


async def fail(bench: Bench, fault: str) -> None:
    bench.exastro.faults.append(fault)
    with pytest.raises(ExastroUnavailable):
        await bench.deliver_all()
    bench.now += 5


async def park(bench: Bench) -> None:
    bench.exastro.rows = [{**row, "DISUSE_FLAG": "1"} for row in bench.rows.values()]
    await bench.deliver_all()
    bench.exastro.rows = list(bench.rows.values())
    bench.now += 5


async def test_a_delivered_event_is_told_from_its_poll_to_its_end(bench: Bench) -> None:
    await bench.poll("n1", [usable(1), usable(2)])
    bench.now += 1
    await bench.deliver_all()
    assert ask(bench, "2") == Said(
        0,
        [
            "n1: Exastro has it",
            "  2023-11-14 22:13:25  the poll started that found it",
            f"  2023-11-14 22:13:26  offered to Exastro for the first time, in {group(5, 'as event 2 of 2')}",
            "  2023-11-14 22:13:26  Exastro answered that it saved it",
        ],
        "",
    )


async def test_an_event_whose_answer_got_lost_is_told_with_its_offers_and_exastros_words(bench: Bench) -> None:
    await bench.poll("n1", [usable(1)])
    await fail(bench, "lost")
    await bench.deliver_all()
    assert ask(bench, "1").out[3:] == [
        f"  2023-11-14 22:13:30  offered again, 2 times in all, in {group(5, 'as event 1 of 1')}",
        (
            "  2023-11-14 22:13:30  Exastro answered that it has it already, from an offer whose answer was lost:"
            f" 499-01818: not the newest fetched_time ({bench.rows['n1']['EVENT_COLLECTION_SETTINGS_ID']}, newest"
            f" {START + 5})"
        ),
    ]


async def test_an_event_that_waits_is_told_so(bench: Bench) -> None:
    await bench.poll("n1", [usable(1)])
    assert ask(bench, "1").out == [
        "n1: it waits for delivery",
        "  2023-11-14 22:13:25  the poll started that found it",
        f"  now  waits for delivery, in {group(5, 'as event 1 of 1')}",
    ]


async def test_an_event_on_its_way_is_told_with_what_went_wrong(bench: Bench) -> None:
    await bench.poll("n1", [usable(1)])
    await fail(bench, "503")
    said = ask(bench, "1").out
    assert (said[0], said[3:]) == (
        "n1: it is on its way to Exastro, which has not answered yet",
        [
            (
                "  2023-11-14 22:13:25  this came of it: Exastro was expected, but something else answered with status"
                " 503: check EXASTRO_URL, the gateway in front of Exastro, and its state"
            ),
            "  now  the request is sent, and sent again, until Exastro tells what became of it",
        ],
    )


async def test_an_event_that_was_parked_and_sent_again_is_told_in_order(bench: Bench) -> None:
    await bench.poll("n1", [usable(1)])
    await park(bench)
    parked = ask(bench, "1").out
    with StoreAccess(bench._path) as store:
        store.retry(GroupChoice(), int(bench.now))
    bench.now += 5
    await bench.deliver_all()
    setting_id = bench.rows["n1"]["EVENT_COLLECTION_SETTINGS_ID"]
    assert parked[0] == "n1: it is parked, and does not reach Exastro until someone has it sent again"
    assert parked[3:] == [
        (
            "  2023-11-14 22:13:25  parked, since Exastro will not have it or it cannot be read:"
            f" {DISCARDED} ({setting_id}). `ita-ag-oase outbox` shows, retries or drops it"
        ),
    ]
    assert ask(bench, "1").out[3:] == [
        (
            "  2023-11-14 22:13:30  someone had it sent again, by `ita-ag-oase outbox retry`; it had been parked:"
            f" {DISCARDED} ({setting_id})"
        ),
        f"  2023-11-14 22:13:35  offered again, 2 times in all, in {group(8, 'as event 1 of 1')}",
        "  2023-11-14 22:13:35  Exastro answered that it saved it",
    ]


async def test_an_event_that_was_dropped_is_told_with_why_it_was_parked(bench: Bench) -> None:
    await bench.poll("n1", [usable(1)])
    await park(bench)
    with StoreAccess(bench._path) as store:
        store.drop(GroupChoice(), int(bench.now))
    said = ask(bench, "1").out
    assert (said[0], said[-1]) == (
        "n1: someone dropped it",
        (
            "  2023-11-14 22:13:30  someone dropped it, by `ita-ag-oase outbox drop`; it had been parked:"
            f" {DISCARDED} ({bench.rows['n1']['EVENT_COLLECTION_SETTINGS_ID']})"
        ),
    )


async def test_a_key_that_was_taken_and_a_group_that_was_cut_are_told(bench: Bench) -> None:
    bench.exastro._progress[bench.rows["n1"]["EVENT_COLLECTION_SETTINGS_ID"], "agent-1"] = START + 50
    await bench.poll("n1", [usable(1), usable(2)])
    await bench.delivery.deliver_next()
    bench.exastro.max_request_bytes = 550
    await bench.deliver_all()
    ends = [line[23:] for line in ask(bench, "2").out if "offered" not in line]
    assert [end[:75] for end in ends] == [
        "",
        "the poll started that found it",
        "Exastro had something else under this key already: the group goes on under ",
        "its group was cut in two: the request is larger than Exastro's gateway allo",
        "Exastro answered that it saved it",
    ]


async def test_an_id_that_stayed_listed_is_told_with_when_that_was_noted(bench: Bench) -> None:
    await bench.poll("n1", [usable(1)])
    await bench.deliver_all()
    bench.now += 172_800
    await bench.poll("n1", [usable(1)])
    assert ask(bench, "1").out[-1] == (
        "  2023-11-16 22:13:25  the source still listed it (noted now and then: it may have done so for longer)"
    )


async def test_an_id_that_the_agent_made_up_is_told_by_its_poll(bench: Bench) -> None:
    event_id = str((START + 5) * 1_000_000)
    await bench.poll("n1", [Event(event_id, True, b"{}", None), Event(f"{event_id[:-1]}1", True, b"{}", None)])
    await bench.deliver_all()
    assert ask(bench, event_id) == Said(
        0,
        [
            "n1: the agent made this id up, for want of EVENT_ID_KEY: here is all that its poll brought",
            "  2023-11-14 22:13:25  the poll started that found it",
            f"  2023-11-14 22:13:25  offered to Exastro for the first time, in {group(5, 'of 2 events')}",
            "  2023-11-14 22:13:25  Exastro answered that it saved it",
        ],
        "",
    )


async def test_of_an_event_whose_end_was_not_noted_is_told_what_that_can_mean(bench: Bench) -> None:
    await bench.poll("n1", [usable(1)])
    await bench.deliver_all()
    await bench.query("DELETE FROM history")
    said = ask(bench, "1")
    assert (said.code, said.out[0], said.out[2][:80]) == (
        0,
        "n1: what became of it is not known",
        "  now  nothing more is known: what became of an event is forgotten EVENT_ID_RETE",
    )


async def test_an_unknown_id_is_code_1_with_what_that_can_mean(bench: Bench) -> None:
    hint = (
        "It was never collected, or is forgotten since no answer has listed it for EVENT_ID_RETENTION_SECONDS. Give the"
        " id as the source writes it, the event's _exastro_oase_event_id, or a mail's Message-ID.\n"
    )
    assert ask(bench, "x") == Said(1, [], f"nothing is known of an event x. {hint}")
    assert ask(bench, "first", setting="n3") == Said(
        1, [], f"nothing is known of an event first of the setting n3. {hint}"
    )
    assert ask(bench, "x", as_json=True) == Said(1, ["[]"], f"nothing is known of an event x. {hint}")


@pytest.mark.parametrize("event_id", ["<1@mail>", "1@mail"])
async def test_a_mail_is_found_with_its_angle_brackets_or_without(bench: Bench, event_id: str) -> None:
    await bench.poll("n1", [Event("<1@mail>", False, b'{"message_id": "<1@mail>"}', None)], position="1")
    assert ask(bench, event_id).out[0] == "n1: it waits for delivery"


async def test_json_tells_all_of_it(bench: Bench) -> None:
    await bench.poll("n1", [usable(1), usable(2)])
    await bench.deliver_all()
    code, (line,), err = ask(bench, "2", as_json=True)
    assert (code, err, json.loads(line)) == (
        0,
        "",
        [
            {
                "setting": "n1",
                "setting_id": bench.rows["n1"]["EVENT_COLLECTION_SETTINGS_ID"],
                "state": "delivered",
                "first_poll": START + 5,
                "last_seen": START + 5,
                "is_certain": True,
                "groups": [
                    {
                        "key": f"n1@{START + 5}",
                        "agent_name": "agent-1",
                        "fetched_time": START + 5,
                        "event_count": 2,
                        "place": 2,
                        "offers": 1,
                        "first_offer": START + 5,
                        "latest_offer": START + 5,
                        "state": "delivered",
                        "time": START + 5,
                        "answer": None,
                    }
                ],
            }
        ],
    )


async def test_a_terminal_shows_in_colours_how_it_ended(bench: Bench) -> None:
    await bench.poll("n1", [usable(1)])
    await bench.deliver_all()
    assert ask(bench, "1", out=_Terminal()).out[0] == "\x1b[32mn1: Exastro has it\x1b[0m"


async def test_it_changes_nothing(bench: Bench) -> None:
    await bench.poll("n1", [usable(1)])
    before = bench._path.read_bytes(), bench._path.with_name(f"{bench._path.name}-wal").read_bytes()
    ask(bench, "1")
    assert (bench._path.read_bytes(), bench._path.with_name(f"{bench._path.name}-wal").read_bytes()) == before
