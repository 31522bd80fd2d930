"""`ita-ag-oase outbox`: what waits and what is parked; shown, offered again, dropped or exported."""

import errno
import glob
import itertools
import os
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from datetime import tzinfo
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from ita_ag_oase import clock
from ita_ag_oase.commands.console import Console
from ita_ag_oase.commands.tables import moment
from ita_ag_oase.model import GroupChoice, GroupState, OutboxGroup, OutboxSummary, Tally
from ita_ag_oase.observability.words import age
from ita_ag_oase.store.access import StoreAccess
from ita_ag_oase.store.outbox import DAMAGED
from ita_ag_oase.store.pieces import events_in
from ita_ag_oase.text import Text, Told, counted

_SHOWN_EVENTS = 10
_STATES = {
    GroupState.WAITING: Text("waiting"),
    GroupState.IN_FLIGHT: Text("in flight"),
    GroupState.PARKED: Text("parked"),
}


def list_settings(console: Console, path: Path, *, as_json: bool) -> int:
    """Print how much is in the outbox, by setting, state and reason."""
    with StoreAccess(path) as store:
        summaries = store.summary()
    now = int(clock.now())
    if as_json:
        console.json([_facts_of_summary(summary, now) for summary in summaries])
    elif summaries:
        amounts = Text("groups"), Text("events"), Text("bytes")
        headings = Text("setting"), Text("state"), *amounts, Text("oldest"), Text("reason")
        console.table(headings, [_row_of_summary(summary, now) for summary in summaries])
    else:
        console.say(Text("the outbox is empty"))
    return 0


def list_groups(console: Console, path: Path, *, as_json: bool) -> int:
    """Print each group in the outbox on a line of its own, with its key."""
    with StoreAccess(path) as store:
        groups = store.groups(GroupChoice())
    now = int(clock.now())
    if as_json:
        console.json([_facts_of_group(group, now) for group in groups])
    elif groups:
        headings = Text("key"), Text("state"), Text("events"), Text("bytes"), Text("age"), Text("reason")
        console.table(headings, [_row_of_group(group, now) for group in groups])
    else:
        console.say(Text("the outbox is empty"))
    return 0


def show(console: Console, path: Path, choice: GroupChoice, *, shows_all: bool, as_json: bool) -> int:
    """Print the groups that are meant with their events, or the first of them; return 1 where there are none."""
    limit = None if shows_all else _SHOWN_EVENTS
    with StoreAccess(path) as store:
        groups = [
            (group, list(itertools.islice(_contents(piece for _, piece in pieces), limit)))
            for group, pieces in itertools.groupby(store.pieces(choice), key=lambda pair: pair[0])
        ]
    if as_json:
        now = int(clock.now())
        console.json([_facts_of_group(group, now) | {"shown": _as_objects(contents)} for group, contents in groups])
    else:
        for group, contents in groups:
            _print_group(console, group, contents)
    return 0 if groups else _nothing_fits(console)


def retry(console: Console, path: Path, choice: GroupChoice, *, as_json: bool) -> int:
    """Have parked groups offered again and print how many; return 1 where there are none."""
    with StoreAccess(path) as store:
        tally = store.retry(choice, int(clock.now()))
    return _report(console, Text("retried {amount}", amount=_amount(tally)), tally, as_json=as_json)


def drop(console: Console, path: Path, choice: GroupChoice, *, is_sure: bool, as_json: bool) -> int:
    """Take groups out for good, having asked first, and print how many; return 1 where there are none or on a no."""
    with StoreAccess(path) as store:
        groups = store.groups(choice)
        what = _amount(Tally(len(groups), sum(group.event_count for group in groups)))
        if groups and not is_sure:
            # Python has none where it was closed.
            if sys.stdin is None or not sys.stdin.isatty():
                console.warn(Text("there is no terminal to ask on: add --yes to drop {amount}", amount=what))
                return 2
            if not _agrees(console, Text("drop {amount}? [y/N] ", amount=what)):
                console.warn(Text("nothing was dropped"))
                return 1
        # What came into the outbox or changed since then was not asked about.
        tally = store.drop(choice, int(clock.now()), among=frozenset(groups))
    return _report(console, Text("dropped {amount}", amount=_amount(tally)), tally, as_json=as_json)


def export(console: Console, path: Path, file: str, choice: GroupChoice, *, overwrites: bool) -> int:
    """Write the events of the groups that are meant to a file, `-` being stdout, as lines of JSON; print how many."""
    if _is_part_of(path, file):
        console.warn(Text("{file} is the store itself: name another file", file=file))
        return 1
    try:
        with (
            StoreAccess(path) as store,
            closing(store.pieces(choice)) as pieces,
            _opened(file, overwrites=overwrites) as out,
        ):
            tally, damaged = _write(pieces, out)
    except FileExistsError:
        console.warn(Text("{file} is there already: name another file, or add --force", file=file))
        return 1
    except OSError as err:
        if file == "-":
            raise
        what = Text(
            "{file} cannot be written ({error}): name a file on a volume with room", file=file, error=err.strerror
        )
        console.warn(what)
        return 1
    console.warn(Text("exported {amount}, damaged pieces: {damaged}", amount=_amount(tally), damaged=damaged))
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


def _row_of_group(group: OutboxGroup, now: int) -> tuple[Told | str | int, ...]:
    counts = group.event_count, group.byte_count
    return str(group.key), _STATES[group.state], *counts, age(now - group.since), _reason(group.reason)


def _row_of_summary(summary: OutboxSummary, now: int) -> tuple[Told | str | int, ...]:
    counts = summary.group_count, summary.event_count, summary.byte_count
    how_old = age(now - summary.oldest)
    return summary.setting_name, _STATES[summary.state], *counts, how_old, _reason(summary.reason)


def _reason(stored: str | None) -> Told | str:
    # The store keeps what Exastro said, and one sentence of ours, in English.
    return DAMAGED if stored == str(DAMAGED) else stored or ""


def _print_group(console: Console, group: OutboxGroup, contents: list[tuple[str, bytes]]) -> None:
    follow = Text("{count}, of which {shown} follow", count=group.event_count, shown=len(contents))
    console.pairs(
        [
            (Text("key"), str(group.key)),
            (Text("setting"), group.key.setting_name),
            (Text("agent name"), group.agent_name),
            (Text("fetched time"), _time(group.key.fetched_time, console.zone)),
            (Text("state"), _STATES[group.state]),
            (Text("reason"), _reason(group.reason) or "-"),
            (Text("parked"), _time(group.parked_time, console.zone)),
            (Text("events"), follow),
        ]
    )
    for name, value in contents:
        text = msgspec.json.format(value, indent=2).decode()
        console.say(text if name == "event" else Text("damaged: {text}", text=text))
    console.say()


def _time(seconds: int | None, zone: tzinfo | None) -> str:
    if seconds is None:
        return "-"
    told = moment(seconds, zone)
    return told if told == str(seconds) else f"{seconds} ({told})"


def _amount(tally: Tally) -> Text:
    events = counted("{count} event", "{count} events", count=tally.events)
    groups = counted("{count} group", "{count} groups", count=tally.groups)
    return Text("{events} of {groups}", events=events, groups=groups)


def _agrees(console: Console, question: Text) -> bool:
    print(console.told(question), end="", file=console.err, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _report(console: Console, what: Text, tally: Tally, *, as_json: bool) -> int:
    if as_json:
        console.json({"groups": tally.groups, "events": tally.events})
    else:
        console.say(what)
    return 0 if tally.groups else _nothing_fits(console)


def _nothing_fits(console: Console) -> int:
    console.warn(Text("nothing in the outbox fits: `ita-ag-oase outbox list --keys` shows what is there"))
    return 1
