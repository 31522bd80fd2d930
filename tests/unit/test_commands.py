"""The commands verify and outbox: what they print, what they ask, and their exit codes."""

import io
import json
import os
import re
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from exactly_once import Bench, usable
from ita_ag_oase.cli import main
from ita_ag_oase.environment import load
from ita_ag_oase.errors import ExastroUnavailable
from ita_ag_oase.settings import VARIABLES
from ita_ag_oase.store.access import StoreAccess
from ita_ag_oase.store.pages import PAGE_BYTES

# The bench's clock stands far in the past, so that ages in these tests are many days.
START = 1_700_000_000
REASON = "499-01827: the event collection setting is discarded"
UNBALANCED = (
    "n1: 4 events seen are not the 3 new, 0 known and 0 repeated ones: "
    "keep a copy of the store and report it as a defect of the agent"
)
CHANGED = (
    f"n1@{START + 5}: a piece has changed on disk, its checksum is wrong: check the volume; "
    "once it is parked, export, retry or drop it with `ita-ag-oase outbox`"
)

_DAMAGED = "its events can no longer be read: the bytes on disk are damaged"

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def _undone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Undo what the command sets up for a whole process."""
    monkeypatch.setenv("LANGUAGE", "en")
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGPIPE)
    handlers = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, handlers, strict=True):
        signal.signal(number, handler)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """A store with two parked events of n1, one event of n2 in flight, and one that waits."""
    async with Bench(tmp_path) as bench:
        await bench.introduce()
        await bench.poll("n1", [usable(1, text="two words"), usable(2)])
        bench.exastro.rows = [{**bench.rows["n1"], "DISUSE_FLAG": "1"}, bench.rows["n2"]]
        await bench.deliver_all()
        bench.exastro.rows = list(bench.rows.values())
        bench.now += 5
        await bench.poll("n2", [usable(3)])
        bench.exastro.faults.append("503")
        with pytest.raises(ExastroUnavailable):
            await bench.deliver_all()
        await bench.poll("n2", [usable(4)])
        yield bench


@pytest.fixture
def run(bench: Bench, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command on the bench's store and return its exit code, output and complaints."""

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([*arguments, "--store", str(bench._path)])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def reason(bench: Bench) -> str:
    return f"{REASON} ({bench.rows['n1']['EVENT_COLLECTION_SETTINGS_ID']})"


def damage(bench: Bench) -> None:
    """Let the disk change the parked events."""
    with StoreAccess(bench._path) as store:
        store._connection.execute(
            "UPDATE pieces SET events = x'ff7b' || substr(events, 3) WHERE id = (SELECT min(id) FROM pieces)"
        )


def answer(monkeypatch: pytest.MonkeyPatch, text: str, *, is_terminal: bool = True) -> None:
    """Sit at the command's terminal and type something."""
    stdin = io.StringIO(text)
    stdin.isatty = lambda: is_terminal  # type: ignore[method-assign]
    monkeypatch.setattr(sys, "stdin", stdin)


def event_of(bench: Bench, **fields: Any) -> dict[str, Any]:
    """Return an event of n1 as Exastro would have got it."""
    return {
        **fields,
        "_exastro_oase_event_id": str(fields["id"]),
        "_exastro_event_collection_settings_name": "n1",
        "_exastro_event_collection_settings_id": bench.rows["n1"]["EVENT_COLLECTION_SETTINGS_ID"],
        "_exastro_fetched_time": START + 5,
        "_exastro_end_time": START + 65,
    }


class TestVerify:
    def test_a_sound_store_is_a_table_and_code_0(self, run: Run) -> None:
        code, out, err = run("verify")
        assert (code, err) == (0, "")
        assert out.splitlines() == [
            "setting  seen  new  known  repeated  waiting  parked  delivered  already saved  dropped  lost  balances",
            "n1          3    3      0         0        0       2          1              0        0     0  yes",
            "n2          3    3      0         0        2       0          1              0        0     0  yes",
        ]

    def test_what_is_wrong_is_told_with_code_1(self, bench: Bench, run: Run) -> None:
        with StoreAccess(bench._path) as store:
            store._connection.execute("UPDATE settings SET seen = 4 WHERE name = 'n1'")
        code, out, err = run("verify")
        assert (code, out.splitlines()[1].split()[-1], err) == (
            1,
            "no",
            f"{UNBALANCED}\n",
        )

    def test_json_tells_the_same(self, bench: Bench, run: Run) -> None:
        damage(bench)
        code, out, err = run("verify", "--json")
        found = json.loads(out)
        assert (code, err, found["settings"][0]) == (
            1,
            "",
            {
                "setting_name": "n1",
                "seen": 3,
                "new": 3,
                "known": 0,
                "repeated": 0,
                "waiting": 0,
                "parked": 2,
                "delivered": 1,
                "already_saved": 0,
                "dropped": 0,
                "lost": 0,
                "balances": True,
            },
        )
        assert found["findings"] == [CHANGED]

    @pytest.mark.parametrize("command", [["verify"], ["outbox", "list"], ["outbox", "export", "-"]], ids=" ".join)
    def test_a_store_that_is_none_is_told_in_one_line(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path, command: list[str]
    ) -> None:
        path = tmp_path / "other.sqlite3"
        path.write_bytes(b"no database" * 1_000)
        assert main([*command, "--store", str(path)]) == 1
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1)
        assert err.startswith(f"{path} is damaged (file is not a database): start the agent again, ")

    def test_without_a_store_its_place_is_named(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        path = tmp_path / "none.sqlite3"
        assert main(["verify", "--store", str(path)]) == 1
        assert capsys.readouterr().err == (
            f"no store at {path}: look for the file in STORAGEPATH, and name it with --store\n"
        )

    def test_the_configuration_tells_where_the_store_is(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        _configure(monkeypatch, tmp_path)
        assert main(["outbox"]) == 1
        path = tmp_path / "********" / "org1" / "ws1" / "sqlite" / "ag_oase_agent-oase-01.sqlite3"
        assert capsys.readouterr().err.startswith(f"no store at {path}: ")

    def test_a_bad_configuration_has_code_2(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        _configure(monkeypatch, tmp_path)
        monkeypatch.setenv("ITERATION", "often")
        assert main(["verify"]) == 2
        assert capsys.readouterr() == ("", "ITERATION is 'often'; write a whole number\n")


def _configure(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    for name in ("ENVFILEPATH", *(name.upper() for name in VARIABLES)):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(folder)
    values = {
        "EXASTRO_URL": "http://exastro",
        "EXASTRO_ORGANIZATION_ID": "org1",
        "EXASTRO_WORKSPACE_ID": "ws1",
        "EXASTRO_USERNAME": "user",
        "EXASTRO_PASSWORD": "passw0rd",
        "EVENT_COLLECTION_SETTINGS_NAMES": "n1",
        "STORAGEPATH": str(folder / "passw0rd"),
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)


class TestList:
    @pytest.mark.parametrize("command", [["outbox", "list"], ["outbox"]], ids=["list", "no action"])
    def test_the_outbox_is_told_by_setting_state_and_reason(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: list[str]
    ) -> None:
        _configure(monkeypatch, bench._path.parent)
        place = load().store_path
        place.parent.mkdir(parents=True)
        place.symlink_to(bench._path)
        capsys.readouterr()
        assert main(command) == 0
        out, err = capsys.readouterr()
        assert (err, re.sub(r"\d{4,} d", "9999 d", out).splitlines()) == (
            "",
            [
                "setting  state      groups  events  bytes  oldest  reason",
                f"n1       parked          1       2    483  9999 d  {reason(bench)}",
                "n2       in flight       1       1    231  9999 d",
                "n2       waiting         1       1    231  9999 d",
            ],
        )

    def test_groups_are_told_with_their_keys(self, bench: Bench, run: Run) -> None:
        code, out, _ = run("outbox", "list", "--keys")
        assert (code, [line.split("  ")[0] for line in out.splitlines()]) == (
            0,
            ["key", f"n1@{START + 5}", f"n2@{START + 10}", f"n2@{START + 13}"],
        )

    def test_json_tells_the_summary(self, bench: Bench, run: Run) -> None:
        code, out, _ = run("outbox", "list", "--json")
        found = json.loads(out)
        assert all(each.pop("oldest_age_seconds") > 10_000_000 for each in found)
        assert (code, found) == (
            0,
            [
                {"setting": "n1", "state": "parked", "reason": reason(bench), "groups": 1, "events": 2, "bytes": 483},
                {"setting": "n2", "state": "in flight", "reason": None, "groups": 1, "events": 1, "bytes": 231},
                {"setting": "n2", "state": "waiting", "reason": None, "groups": 1, "events": 1, "bytes": 231},
            ],
        )

    def test_json_tells_the_groups(self, bench: Bench, run: Run) -> None:
        found = json.loads(run("outbox", "list", "--keys", "--json")[1])
        assert all(each.pop("age_seconds") > 10_000_000 for each in found)
        assert found[0] == {
            "setting": "n1",
            "key": f"n1@{START + 5}",
            "state": "parked",
            "reason": reason(bench),
            "parked_time": START + 5,
            "agent_name": "agent-1",
            "fetched_time": START + 5,
            "events": 2,
            "bytes": 483,
        }

    @pytest.mark.parametrize("form", [[], ["--keys"]], ids=["summary", "keys"])
    async def test_an_empty_outbox_is_told(self, bench: Bench, run: Run, form: list[str]) -> None:
        run("outbox", "drop", "--setting", "n1", "--yes")
        await bench.deliver_all()
        assert run("outbox", "list", *form) == (0, "the outbox is empty\n", "")

    @pytest.mark.parametrize(
        "words",
        [[], ["list"], ["list", "--json"], ["list", "--keys"], ["show", "n2@7"], ["export", "-"], ["retry", "n2@7"]],
        ids=" ".join,
    )
    def test_the_store_may_be_named_before_the_action(
        self, bench: Bench, run: Run, capsys: pytest.CaptureFixture[str], words: list[str]
    ) -> None:
        expected = run("outbox", *(words or ["list"]))
        assert (main(["outbox", "--store", str(bench._path), *words]), *capsys.readouterr()) == expected


class TestShow:
    def test_a_group_is_shown_with_its_events(self, bench: Bench, run: Run) -> None:
        code, out, err = run("outbox", "show", f"n1@{START + 5}")
        head, _, events = out.partition("\n{\n")
        assert [line.split("  ", 1)[0] for line in head.splitlines()] == [
            "key",
            "setting",
            "agent name",
            "fetched time",
            "state",
            "reason",
            "parked",
            "events",
        ]
        assert head.splitlines()[-1] == "events        2, of which 2 follow"
        assert (code, err, events.splitlines()[:2]) == (0, "", ['  "id": 1,', '  "text": "two words",'])

    @pytest.mark.parametrize(("more", "count"), [([], 10), (["--all"], 25)], ids=["the first", "all"])
    async def test_not_more_than_ten_events_are_shown_unless_all_are_wanted(
        self, bench: Bench, run: Run, more: list[str], count: int
    ) -> None:
        await bench.poll("n2", [usable(f"many-{number}") for number in range(25)])
        (group,) = json.loads(run("outbox", "show", f"n2@{START + 16}", "--json", *more)[1])
        assert [each["event"]["id"] for each in group["shown"]] == [f"many-{number}" for number in range(count)]
        out = run("outbox", "show", f"n2@{START + 16}", *more)[1]
        assert f"25, of which {count} follow" in out
        assert out.count("_exastro_oase_event_id") == count

    def test_json_holds_the_events_as_they_are(self, bench: Bench, run: Run) -> None:
        (group,) = json.loads(run("outbox", "show", f"n1@{START + 5}", "--json")[1])
        assert group["shown"] == [
            {"event": event_of(bench, id=1, text="two words")},
            {"event": event_of(bench, id=2)},
        ]

    def test_damaged_bytes_are_shown_as_text(self, bench: Bench, run: Run) -> None:
        damage(bench)
        out = run("outbox", "show", f"n1@{START + 5}")[1]
        assert "damaged: " + '"\ufffd{id\\": 1' in out

    def test_a_group_that_is_not_there_has_code_1(self, run: Run) -> None:
        assert run("outbox", "show", "n1@7") == (
            1,
            "",
            "nothing in the outbox fits: `ita-ag-oase outbox list --keys` shows what is there\n",
        )


class TestRetry:
    @pytest.mark.parametrize(
        "which",
        [[f"n1@{START + 5}"], ["--setting", "n1"], ["--reason", "discarded"], ["--setting", "n1", "--reason", "499"]],
        ids=" ".join,
    )
    async def test_retried_groups_are_counted_and_arrive(self, bench: Bench, run: Run, which: list[str]) -> None:
        assert run("outbox", "retry", *which) == (0, "retried 2 events of 1 group\n", "")
        await bench.deliver_all()
        assert (bench.arrived("n1"), bench.exastro.repeated) == (["1", "2"], 0)

    def test_json_tells_how_many(self, run: Run) -> None:
        assert run("outbox", "retry", "--setting", "n1", "--json") == (0, '{"groups":1,"events":2}\n', "")

    @pytest.mark.parametrize(
        "which", [["n1@7"], ["--setting", "n2"], ["--setting", "n1", "--reason", "413"]], ids=" ".join
    )
    def test_where_nothing_fits_code_1_tells(self, run: Run, which: list[str]) -> None:
        code, out, err = run("outbox", "retry", *which)
        assert (code, out, err.startswith("nothing in the outbox fits: ")) == (
            1,
            "retried 0 events of 0 groups\n",
            True,
        )


class TestDrop:
    def test_it_asks_and_drops_on_a_yes(self, bench: Bench, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        answer(monkeypatch, "y\n")
        assert run("outbox", "drop", "--setting", "n1") == (
            0,
            "dropped 2 events of 1 group\n",
            "drop 2 events of 1 group? [y/N] ",
        )
        assert run("outbox", "list", "--json")[1].count('"parked"') == 0

    @pytest.mark.parametrize("typed", ["\n", "n\n", ""], ids=["return", "no", "end of input"])
    def test_it_drops_nothing_on_anything_else(self, run: Run, monkeypatch: pytest.MonkeyPatch, typed: str) -> None:
        answer(monkeypatch, typed)
        code, out, err = run("outbox", "drop", "--setting", "n1")
        assert (code, out, err) == (1, "", "drop 2 events of 1 group? [y/N] nothing was dropped\n")
        assert run("outbox", "list", "--json")[1].count('"parked"') == 1

    def test_without_a_terminal_it_wants_yes(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        answer(monkeypatch, "y\n", is_terminal=False)
        assert run("outbox", "drop", "--setting", "n1") == (
            2,
            "",
            "there is no terminal to ask on: add --yes to drop 2 events of 1 group\n",
        )
        assert run("outbox", "drop", "--setting", "n1", "--yes") == (0, "dropped 2 events of 1 group\n", "")

    def test_waiting_groups_are_dropped_on_demand_only_and_none_in_flight(self, run: Run) -> None:
        assert run("outbox", "drop", "--setting", "n2", "--yes")[0] == 1
        assert run("outbox", "drop", "--setting", "n2", "--yes", "--waiting") == (
            0,
            "dropped 1 event of 1 group\n",
            "",
        )


class TestExport:
    def test_parked_events_are_written_one_by_one_for_their_owner_alone(
        self, bench: Bench, run: Run, tmp_path: Path
    ) -> None:
        file = tmp_path / "parked.jsonl"
        assert run("outbox", "export", str(file)) == (0, "", "exported 2 events of 1 group, damaged pieces: 0\n")
        head = {
            "setting": "n1",
            "key": f"n1@{START + 5}",
            "state": "parked",
            "reason": reason(bench),
            "parked_time": START + 5,
        }
        assert [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] == [
            {**head, "event": event_of(bench, id=1, text="two words")},
            {**head, "event": event_of(bench, id=2)},
        ]
        assert stat.S_IMODE(file.stat().st_mode) == 0o600

    @pytest.mark.parametrize(
        ("which", "states"),
        [
            ([], ["parked", "parked"]),
            (["--waiting"], ["parked", "parked", "in flight", "waiting"]),
            (["--waiting", "--setting", "n2"], ["in flight", "waiting"]),
            (["--reason", "413"], []),
        ],
        ids=["parked", "waiting", "a setting", "another reason"],
    )
    def test_what_is_written_can_be_chosen(self, run: Run, which: list[str], states: list[str]) -> None:
        code, out, _ = run("outbox", "export", "-", *which)
        assert (code, [json.loads(line)["state"] for line in out.splitlines()]) == (0, states)

    def test_an_event_stays_on_its_line_however_it_was_written(self, bench: Bench, run: Run) -> None:
        with StoreAccess(bench._path) as store:
            store._connection.execute(r"""UPDATE pieces SET events = '{"a" : 1.50,' || char(10) || ' "b": "\n"}'""")
        out = run("outbox", "export", "-")[1]
        assert out.splitlines()[0].endswith(r""","event":{"a":1.50,"b":"\n"}}""")

    def test_a_damaged_piece_is_written_as_text(self, bench: Bench, run: Run) -> None:
        damage(bench)
        code, out, err = run("outbox", "export", "-")
        (line,) = map(json.loads, out.splitlines())
        assert (code, err) == (0, "exported 0 events of 1 group, damaged pieces: 1\n")
        assert (line["key"], "event" in line, line["damaged"][:9]) == (f"n1@{START + 5}", False, '\ufffd{id": 1,')

    def test_a_file_is_overwritten_on_demand_only(self, run: Run, tmp_path: Path) -> None:
        file = tmp_path / "parked.jsonl"
        file.write_text("precious " * 1_000)
        file.chmod(0o644)
        assert run("outbox", "export", str(file)) == (
            1,
            "",
            f"{file} is there already: name another file, or add --force\n",
        )
        assert file.read_text().startswith("precious")
        assert run("outbox", "export", str(file), "--force")[0] == 0
        assert (file.read_text().count("\n"), stat.S_IMODE(file.stat().st_mode)) == (2, 0o600)

    @pytest.mark.parametrize("part", ["", "-wal", "-shm"])
    def test_the_store_itself_is_never_overwritten(self, bench: Bench, run: Run, tmp_path: Path, part: str) -> None:
        file = tmp_path / "link"
        file.symlink_to(f"{bench._path}{part}")
        content = file.read_bytes()
        assert run("outbox", "export", str(file), "--force") == (
            1,
            "",
            f"{file} is the store itself: name another file\n",
        )
        assert file.read_bytes() == content

    def test_the_mode_of_what_is_no_regular_file_stays(self, run: Run, tmp_path: Path) -> None:
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        pipe.chmod(0o622)
        reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
        assert run("outbox", "export", str(pipe), "--force")[0] == 0
        assert (os.read(reader, 65_536).count(b"\n"), stat.S_IMODE(pipe.stat().st_mode)) == (2, 0o622)
        os.close(reader)

    def test_a_file_that_cannot_be_made_is_told(self, run: Run, tmp_path: Path) -> None:
        file = tmp_path / "none" / "parked.jsonl"
        assert run("outbox", "export", str(file)) == (
            1,
            "",
            f"{file} cannot be written (No such file or directory): name a file on a volume with room\n",
        )


@pytest.mark.parametrize(
    "change",
    [
        "parked_time = 'x'",
        "parked_time = NULL, fetched_time = 'x'",
        "parked_time = 9007199254740991",
        "parked_time = -9007199254740991",
        "event_count = NULL",
        "event_count = 'x', byte_count = x'00'",
        "agent_name = x'ff', parked_reason = x'ff'",
        "key = 9007199254740991",
    ],
)
@pytest.mark.parametrize(
    "command",
    [["list"], ["list", "--json"], ["list", "--keys"], ["list", "--keys", "--json"], ["export", "-"]]
    + [
        [*action, key]
        for action in (["show"], ["show", "--json"], ["retry"], ["drop", "--yes"])
        for key in (f"n1@{START + 5}", "n1@9007199254740991")
    ],
    ids=" ".join,
)
def test_what_the_disk_has_changed_is_no_traceback(bench: Bench, run: Run, change: str, command: list[str]) -> None:
    with StoreAccess(bench._path) as store:
        # The columns of a table that is made anew take anything, as a damaged page does.
        for sql in (
            "PRAGMA writable_schema = ON",
            "UPDATE sqlite_schema SET sql = replace(sql, 'NOT NULL', '') WHERE name = 'groups'",
            "PRAGMA writable_schema = RESET",
            f"UPDATE groups SET {change} WHERE parked_reason IS NOT NULL",
        ):
            store._connection.execute(sql)
    code, _, err = run("outbox", *command)
    assert (code in (0, 1), err.count("\n") <= 1) == (True, True)


@pytest.mark.parametrize("action", [["retry"], ["drop", "--yes"]], ids=["retry", "drop"])
def test_a_group_that_is_not_found_by_its_number_is_told_as_damage(
    bench: Bench, capsys: pytest.CaptureFixture[str], tmp_path: Path, action: list[str]
) -> None:
    with StoreAccess(bench._path) as store:
        store._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (page,) = store._connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'groups'").fetchone()
    content = bytearray(bench._path.read_bytes())
    start = (page - 1) * PAGE_BYTES
    # A leaf begins with 8 bytes, then come the places of its cells; in a cell, the rowid follows the length.
    cell = start + int.from_bytes(content[start + 8 : start + 10], "big")
    length_bytes = 2 if content[cell] & 0x80 else 1
    content[cell + length_bytes] = 100
    path = tmp_path / "damaged.sqlite3"
    path.write_bytes(content)
    capsys.readouterr()
    assert main(["outbox", *action, "--setting", "n1", "--store", str(path)]) == 1
    out, err = capsys.readouterr()
    told = f"{path} is damaged (n1@{START + 5} is not found by its number): start the agent again, "
    assert (out, err.startswith(told), err.count("\n")) == ("", True, 1)


@pytest.mark.parametrize(
    ("action", "streams", "code", "complaint"),
    [
        ("list", ">/dev/full", 1, "stdout cannot be written (No space left on device): send what is printed elsewhere"),
        ("export -", ">/dev/full", 1, "stdout cannot be written (No space left on device): "),
        ("export -", ">&-", 1, "stdout cannot be written (Bad file descriptor): "),
        ("list", ">&-", 0, ""),
        ("drop --setting n1", "<&-", 2, "there is no terminal to ask on: add --yes"),
        ("retry --setting $'\\xff'", "", 2, "argument --setting: '\\udcff' is no text: write it in UTF-8"),
        ("export - --reason $'\\xff'", "", 2, "argument --reason: '\\udcff' is no text: write it in UTF-8"),
    ],
)
def test_streams_and_bytes_that_are_of_no_use_are_told(
    bench: Bench, action: str, streams: str, code: int, complaint: str
) -> None:
    line = f'"$0" -m ita_ag_oase outbox {action} --store "$1" {streams}'
    command = ["bash", "-c", line, sys.executable, str(bench._path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, complaint in ended.stderr, "Traceback" in ended.stderr) == (code, True, False)


def test_a_name_that_the_encoding_of_stdout_lacks_is_shown_all_the_same(bench: Bench) -> None:
    with StoreAccess(bench._path) as store:
        store._connection.execute("UPDATE settings SET name = '監視' WHERE name = 'n1'")
    command = [sys.executable, "-m", "ita_ag_oase", "outbox", "list", "--store", str(bench._path)]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    assert (ended.returncode, "\\u76e3\\u8996  " in ended.stdout, ended.stderr) == (0, True, "")


async def test_a_key_is_split_at_its_last_at_sign(bench: Bench, run: Run) -> None:
    with StoreAccess(bench._path) as store:
        store._connection.execute("UPDATE settings SET name = 'a@b' WHERE name = 'n1'")
    assert run("outbox", "retry", f"a@b@{START + 5}") == (0, "retried 2 events of 1 group\n", "")


@pytest.mark.parametrize("action", ["list", "show", "retry", "drop", "export"])
def test_each_action_tells_how_it_is_called(capsys: pytest.CaptureFixture[str], action: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["outbox", action, "--help"])
    assert (ended.value.code, f"ita-ag-oase outbox {action}" in capsys.readouterr().out) == (0, True)


class TestJapanese:
    @pytest.fixture(autouse=True)
    def _japanese(self, _undone: None, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LANGUAGE", "ja")

    def test_the_ledgers_are_a_table(self, run: Run) -> None:
        code, out, err = run("verify")
        assert (code, out.splitlines()[:2], err) == (
            0,
            [
                "設定  取得  新規  既知  前回と同じ  送信待ち  保留  送信済み  保存済み  破棄  欠落  一致",
                "n1       3     3     0           0         0     2         1         0     0     0  はい",
            ],
            "",
        )

    def test_a_finding_is_told(self, bench: Bench, run: Run) -> None:
        damage(bench)
        assert run("verify")[2] == (
            f"n1@{START + 5}: ディスク上でデータの内容が変わり、チェックサムが一致しません。"
            "ボリュームを確認してください。保留になった後、`ita-ag-oase outbox` で書き出し、再送、破棄ができます。\n"
        )

    def test_a_group_is_shown_with_its_state(self, run: Run) -> None:
        out = run("outbox", "show", f"n2@{START + 10}")[1]
        lines = out.splitlines()[:8]
        names = ["キー", "設定", "エージェント名", "取得時刻", "状態", "理由", "保留", "イベント"]
        assert [line.split("  ", 1)[0] for line in lines] == names
        assert (lines[4], lines[7]) == ("状態            送信中", "イベント        1 件 (うち 1 件を次に表示)")

    async def test_a_reason_of_our_own_is_translated_and_stays_english_in_json(self, bench: Bench, run: Run) -> None:
        with StoreAccess(bench._path) as store:
            store._connection.execute(
                "UPDATE groups SET parked_reason = ? WHERE parked_reason IS NOT NULL", (_DAMAGED,)
            )
        assert "ディスク上のデータが破損しているため、イベントを読み取れません" in run("outbox")[1]
        assert _DAMAGED in run("outbox", "list", "--json")[1]

    def test_an_amount_is_told(self, run: Run) -> None:
        assert run("outbox", "retry", "--setting", "n1") == (
            0,
            "再送の対象にしました: イベント 2 件 (グループ 1 個)\n",
            "",
        )
