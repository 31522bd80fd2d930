"""`ita-ag-oase outbox`: what waits and what is parked; shown, offered again, dropped or exported."""

import errno
import glob
import itertools
import os
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from ita_ag_oase import clock
from ita_ag_oase.commands.tables import moment, printable, table
from ita_ag_oase.model import GroupChoice, OutboxGroup, OutboxSummary, Tally
from ita_ag_oase.observability.words import age
from ita_ag_oase.store.access import StoreAccess
from ita_ag_oase.store.pieces import events_in

_SHOWN_EVENTS = 10


def list_settings(path: Path, *, as_json: bool) -> int:
    """Print how much is in the outbox, by setting, state and reason."""
    with StoreAccess(path) as store:
        summaries = store.summary()
    now = int(clock.now())
    if as_json:
        _print_json([_facts_of_summary(summary, now) for summary in summaries])
    elif summaries:
        rows = [_row_of_summary(summary, now) for summary in summaries]
        print(table(("setting", "state", "groups", "events", "bytes", "oldest", "reason"), rows))
    else:
        print("the outbox is empty")
    return 0


def list_groups(path: Path, *, as_json: bool) -> int:
    """Print each group in the outbox on a line of its own, with its key."""
    with StoreAccess(path) as store:
        groups = store.groups(GroupChoice())
    now = int(clock.now())
    if as_json:
        _print_json([_facts_of_group(group, now) for group in groups])
    elif groups:
        rows = [_row_of_group(group, now) for group in groups]
        print(table(("key", "state", "events", "bytes", "age", "reason"), rows))
    else:
        print("the outbox is empty")
    return 0


def show(path: Path, choice: GroupChoice, *, shows_all: bool, as_json: bool) -> int:
    """Print the groups that are meant with their events, or the first of them; return 1 where there are none."""
    limit = None if shows_all else _SHOWN_EVENTS
    with StoreAccess(path) as store:
        groups = [
            (group, list(itertools.islice(_contents(piece for _, piece in pieces), limit)))
            for group, pieces in itertools.groupby(store.pieces(choice), key=lambda pair: pair[0])
        ]
    if as_json:
        now = int(clock.now())
        _print_json([_facts_of_group(group, now) | {"shown": _as_objects(contents)} for group, contents in groups])
    else:
        for group, contents in groups:
            _print_group(group, contents)
    return 0 if groups else _nothing_fits()


def retry(path: Path, choice: GroupChoice, *, as_json: bool) -> int:
    """Have parked groups offered again and print how many; return 1 where there are none."""
    with StoreAccess(path) as store:
        return _report("retried", store.retry(choice, int(clock.now())), as_json=as_json)


def drop(path: Path, choice: GroupChoice, *, is_sure: bool, as_json: bool) -> int:
    """Take groups out for good, having asked first, and print how many; return 1 where there are none or on a no."""
    with StoreAccess(path) as store:
        groups = store.groups(choice)
        what = _amount(Tally(len(groups), sum(group.event_count for group in groups)))
        if groups and not is_sure:
            # Python has none where it was closed.
            if sys.stdin is None or not sys.stdin.isatty():
                print(f"there is no terminal to ask on: add --yes to drop {what}", file=sys.stderr)
                return 2
            if not _agrees(f"drop {what}? [y/N] "):
                print("nothing was dropped", file=sys.stderr)
                return 1
        # What came into the outbox or changed since then was not asked about.
        return _report("dropped", store.drop(choice, int(clock.now()), among=frozenset(groups)), as_json=as_json)


def export(path: Path, file: str, choice: GroupChoice, *, overwrites: bool) -> int:
    """Write the events of the groups that are meant to a file, `-` being stdout, as lines of JSON; print how many."""
    if _is_part_of(path, file):
        print(f"{file} is the store itself: name another file", file=sys.stderr)
        return 1
    try:
        with (
            StoreAccess(path) as store,
            closing(store.pieces(choice)) as pieces,
            _opened(file, overwrites=overwrites) as out,
        ):
            tally, damaged = _write(pieces, out)
    except FileExistsError:
        print(f"{file} is there already: name another file, or add --force", file=sys.stderr)
        return 1
    except OSError as err:
        if file == "-":
            raise
        print(f"{file} cannot be written ({err.strerror}): name a file on a volume with room", file=sys.stderr)
        return 1
    print(f"exported {_amount(tally)}, damaged pieces: {damaged}", file=sys.stderr)
    return 0


def _write(pieces: Iterable[tuple[OutboxGroup, bytes]], out: BinaryIO) -> tuple[Tally, int]:
    """Write one line per event, or per piece that is damaged; return how many groups and events, and damaged pieces."""
    groups = events = damaged = 0
    for group, of_group in itertools.groupby(pieces, key=lambda pair: pair[0]):
        head = msgspec.json.encode(_head(group))[:-1]
        groups += 1
        for name, value in _contents(piece for _, piece in of_group):
            out.write(b'%b,"%b":%b}\n' % (head, name.encode(), msgspec.json.format(value, indent=-1)))
            events += name == "event"
            damaged += name == "damaged"
    return Tally(groups, events), damaged


def _is_part_of(store: Path, file: str) -> bool:
    """Whether a file is a store or lies beside it as a part of it, by whatever name."""
    parts = [store, *store.parent.glob(f"{glob.escape(store.name)}-*")]
    return Path(file).exists() and any(part.exists() and part.samefile(file) for part in parts)


@contextmanager
def _opened(file: str, *, overwrites: bool) -> Iterator[BinaryIO]:
    if file == "-":
        if sys.stdout is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    flags = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if overwrites else os.O_EXCL)
    with os.fdopen(os.open(file, flags, 0o600), "wb") as out:
        # One that was there before may have been open to others; a device or a pipe is theirs, too.
        if stat.S_ISREG(os.fstat(out.fileno()).st_mode):
            os.fchmod(out.fileno(), 0o600)
        yield out


def _contents(pieces: Iterable[bytes]) -> Iterator[tuple[str, bytes]]:
    """Return what pieces hold as members of JSON objects: `event`, or the text of a `damaged` piece."""
    for piece in pieces:
        events = events_in(piece)
        if events is None:
            yield "damaged", msgspec.json.encode(piece.decode(errors="replace"))
        else:
            yield from (("event", event) for event in events)


def _head(group: OutboxGroup) -> dict[str, Any]:
    return {
        "setting": group.key.setting_name,
        "key": str(group.key),
        "state": group.state,
        "reason": group.reason,
        "parked_time": group.parked_time,
    }


def _facts_of_group(group: OutboxGroup, now: int) -> dict[str, Any]:
    return {
        **_head(group),
        "agent_name": group.agent_name,
        "fetched_time": group.key.fetched_time,
        "age_seconds": now - group.since,
        "events": group.event_count,
        "bytes": group.byte_count,
    }


def _as_objects(contents: Iterable[tuple[str, bytes]]) -> list[dict[str, msgspec.Raw]]:
    return [{name: msgspec.Raw(value)} for name, value in contents]


def _facts_of_summary(summary: OutboxSummary, now: int) -> dict[str, Any]:
    return {
        "setting": summary.setting_name,
        "state": summary.state,
        "reason": summary.reason,
        "groups": summary.group_count,
        "events": summary.event_count,
        "bytes": summary.byte_count,
        "oldest_age_seconds": now - summary.oldest,
    }


def _row_of_group(group: OutboxGroup, now: int) -> tuple[str | int, ...]:
    how_old = str(age(now - group.since))
    return str(group.key), group.state, group.event_count, group.byte_count, how_old, group.reason or ""


def _row_of_summary(summary: OutboxSummary, now: int) -> tuple[str | int, ...]:
    counts = summary.group_count, summary.event_count, summary.byte_count
    how_old = str(age(now - summary.oldest))
    return summary.setting_name, summary.state, *counts, how_old, summary.reason or ""


def _print_group(group: OutboxGroup, contents: list[tuple[str, bytes]]) -> None:
    facts = {
        "key": str(group.key),
        "setting": group.key.setting_name,
        "agent name": group.agent_name,
        "fetched time": _time(group.key.fetched_time),
        "state": group.state,
        "reason": group.reason or "-",
        "parked": _time(group.parked_time),
        "events": f"{group.event_count}, of which {len(contents)} follow",
    }
    for fact, told in facts.items():
        print(f"{fact:<12}  {printable(told)}")
    for name, value in contents:
        if name == "damaged":
            print("damaged:", end=" ")
        for line in msgspec.json.format(value, indent=2).decode().split("\n"):
            print(printable(line))
    print()


def _time(seconds: int | None) -> str:
    if seconds is None:
        return "-"
    told = moment(seconds)
    return told if told == str(seconds) else f"{seconds} ({told})"


def _amount(tally: Tally) -> str:
    return f"{_counted(tally.events, 'event')} of {_counted(tally.groups, 'group')}"


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _agrees(question: str) -> bool:
    print(question, end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _report(what: str, tally: Tally, *, as_json: bool) -> int:
    if as_json:
        _print_json({"groups": tally.groups, "events": tally.events})
    else:
        print(f"{what} {_amount(tally)}")
    return 0 if tally.groups else _nothing_fits()


def _nothing_fits() -> int:
    print("nothing in the outbox fits: `ita-ag-oase outbox list --keys` shows what is there", file=sys.stderr)
    return 1


def _print_json(value: Any) -> None:
    print(msgspec.json.encode(value).decode())
