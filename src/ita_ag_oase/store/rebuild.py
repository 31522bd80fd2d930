"""Saves what can be read of a damaged store into a new one, with a ledger that tells what could not be."""

import sqlite3
from typing import Any

from ita_ag_oase.model import Repair, Term
from ita_ag_oase.store import columns, registry, schema, terms
from ita_ag_oase.store.pieces import Origin, checksum_of, origins_in
from ita_ag_oase.store.remains import Remains
from ita_ag_oase.store.saving import DIGEST_BYTES, KEY_STRIDE, digest

Identity = tuple[int, str, str]


def rebuild(old: Remains, new: sqlite3.Connection, *, agent_name: str, now: int) -> Repair:
    """Fill a new store, empty but for its tables, with what can be read of an old one, and return the counts.

    Events whose group cannot be read form a group anew. What the ledger says was there and is no more counts as lost;
    where events have ids, the ids of what may be lost are forgotten and the cursor is set back, so that what the source
    still lists is collected again.
    """
    return _Rebuild(old, new, agent_name=agent_name, now=now).all()


class _Rebuild:
    def __init__(self, old: Remains, new: sqlite3.Connection, *, agent_name: str, now: int) -> None:
        self._old = old
        self._new = new
        self._agent_name = agent_name
        self._now = now
        self._changed_polls: frozenset[tuple[int, int]] = frozenset()

    def all(self) -> Repair:
        self._take_facts()
        self._take_term()
        self._take_settings()
        self._take_pieces()
        self._take_groups()
        self._take_history()
        self._group_orphans()
        self._count_anew()
        self._take_ids()
        lost = self._balance()
        self._remember_held()
        settings, groups, events, ids = self._new.execute(
            "SELECT (SELECT count(*) FROM settings), count(*), coalesce(sum(event_count), 0),"
            " (SELECT count(*) FROM ids) FROM groups"
        ).fetchone()
        return Repair(
            settings=settings,
            groups=groups,
            events=events,
            ids=ids,
            lost=lost,
            damaged_tables=tuple(self._old.damaged_tables),
            problems=tuple(self._old.problems),
        )

    def _take_facts(self) -> None:
        rows = (
            row
            for row in self._old.keyed_rows("facts")
            # Who made the new store is known better.
            if columns.fits("facts", row) and row[0] != schema.MAKER
        )
        self._new.executemany("INSERT OR REPLACE INTO facts (name, value) VALUES (?, ?)", rows)

    def _take_term(self) -> None:
        """Keep the greatest number that is told: where it fell, agents of earlier terms would not be told apart."""
        told = [Term(*row) for row in self._old.rows("terms") if columns.fits("terms", row)]
        copy = terms.copy_in(self._new)
        if latest := max([*told, *([copy] if copy else [])], key=lambda term: term.number, default=None):
            terms.write(self._new, latest)

    def _take_settings(self) -> None:
        identities = self._identities()
        for number, setting_id, name, *values, lost, settled_time, position in self._old.rows("settings"):
            identity = _likeliest((number, setting_id, name), identities)
            # These two are not there before version 2 of the schema.
            row = (*identity, *values, lost or 0, settled_time or 0, position)
            if columns.fits("settings", row):
                self._insert("settings", row)
        known = self._known()
        for identity in identities:
            if identity[0] not in known:
                self._add_setting(*identity)

    def _known(self) -> set[int]:
        return {number for (number,) in self._new.execute("SELECT number FROM settings")}

    def _identities(self) -> list[Identity]:
        """Return number, id and name of the settings as facts tell them, once more than in their rows."""
        facts = self._new.execute("SELECT name, value FROM facts")
        return [identity for identity in (registry.identity_in(*fact) for fact in facts) if identity]

    def _add_setting(self, number: int | None, setting_id: str | None, name: str) -> int:
        # Where damage gave the id to another row, that one is no likelier.
        added = self._new.execute(
            "INSERT OR REPLACE INTO settings (number, id, name, last_fetched_time, last_key) VALUES (?, ?, ?, ?, ?)",
            (number, setting_id, name, self._now, self._now - KEY_STRIDE),
        ).lastrowid
        return int(added or 0)

    def _take_pieces(self) -> None:
        for row in self._old.rows("pieces"):
            if columns.fits("pieces", row) and (row[4] == checksum_of(row[3]) or origins_in(row[3])):
                self._insert("pieces", row)

    def _take_groups(self) -> None:
        known = self._known()
        for *values, fetched_time, offers, first_offer, latest_offer, answer in self._old.rows("groups"):
            row = (*values, fetched_time or 0, offers or 0, first_offer, latest_offer, answer)
            if columns.fits("groups", row) and row[1] in known:
                self._insert("groups", row)

    def _take_history(self) -> None:
        known = self._known()
        for row in self._old.rows("history"):
            if columns.fits("history", row) and row[1] in known:
                self._insert("history", row)

    def _group_orphans(self) -> None:
        """Make groups anew for pieces without one: behind the group before them, never offered as far as is known."""
        orphans = self._new.execute(
            "SELECT DISTINCT group_number FROM pieces WHERE group_number NOT IN (SELECT number FROM groups)"
            " ORDER BY group_number"
        ).fetchall()
        for (number,) in orphans:
            origin = self._origin_of(number)
            if origin is None:
                self._new.execute("DELETE FROM pieces WHERE group_number = ?", (number,))
                continue
            poll, first_event = self._new.execute(
                "SELECT poll, first_event + event_count FROM groups WHERE number < ? ORDER BY number DESC LIMIT 1",
                (number,),
            ).fetchone() or (1, 0)
            self._new.execute(
                "INSERT INTO groups (number, setting, poll, first_event, agent_name, fetched_time, event_count,"
                " byte_count) SELECT ?, number, ?, ?, coalesce(saved_as, ?), ?, 0, 0 FROM settings WHERE number = ?",
                (number, poll, first_event, self._agent_name, origin.fetched_time, self._setting_of(origin)),
            )

    def _origin_of(self, group_number: int) -> Origin | None:
        pieces = self._new.execute("SELECT events FROM pieces WHERE group_number = ? ORDER BY id", (group_number,))
        for (events,) in pieces:
            for origin in origins_in(events):
                if origin.setting_id and origin.setting_name:
                    return origin
        return None

    def _setting_of(self, origin: Origin) -> int:
        """Return the number of the setting that the labels of an event name, making a row for it if needed."""
        # By its id first: it may have been renamed since, and another may have its name.
        found = self._new.execute(
            "SELECT number FROM settings WHERE id = ?1 OR name = ?2 ORDER BY id IS ?1 DESC LIMIT 1",
            (origin.setting_id, origin.setting_name),
        ).fetchone()
        return int(found[0]) if found else self._add_setting(None, origin.setting_id, origin.setting_name or "")

    def _count_anew(self) -> None:
        """See that groups hold what they say, and that those without events are gone."""
        self._new.execute("DELETE FROM groups WHERE number NOT IN (SELECT group_number FROM pieces)")
        # Also those of the groups made anew, which were not counted yet.
        self._changed_polls = frozenset(
            self._new.execute(
                "SELECT setting, fetched_time FROM groups WHERE event_count != (SELECT sum(event_count) FROM pieces"
                " WHERE group_number = groups.number)"
            )
        )
        self._new.execute(
            "UPDATE groups SET (event_count, byte_count) = (SELECT sum(event_count), sum(length(events) + 1)"
            " FROM pieces WHERE group_number = groups.number)"
        )

    def _take_ids(self) -> None:
        known = self._known()
        rows = (row for row in self._old.keyed_rows("ids") if columns.fits("ids", row))
        self._new.executemany(
            "INSERT OR IGNORE INTO ids (setting, digest, last_seen, first_poll, event_number) VALUES (?, ?, ?, ?, ?)",
            (self._numbered(row) for row in rows if row[0] in known and len(row[1]) == DIGEST_BYTES),
        )
        # A setting whose row is gone was polled when an id of it was seen last.
        self._new.execute(
            "UPDATE settings SET last_fetched_time = min(last_fetched_time, coalesce((SELECT max(last_seen) FROM ids"
            " WHERE setting = settings.number), last_fetched_time)) WHERE seen = 0"
        )

    def _numbered(self, row: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return a row of ids without its number where only the pieces tell now which events their groups hold."""
        setting, digest_, last_seen, first_poll, number = row
        is_changed = (setting, first_poll) in self._changed_polls
        return setting, digest_, last_seen, first_poll, None if is_changed else number

    def _balance(self) -> int:
        """Make the ledger right again, have what is lost asked for once more, and return how many events are lost."""
        self._new.execute(
            "UPDATE settings SET last_key = max(last_key, settled_key, coalesce((SELECT max(key) FROM groups"
            " WHERE setting = settings.number), 0))"
        )
        held = "(SELECT coalesce(sum(event_count), 0) FROM groups WHERE setting = settings.number)"
        waiting = held.replace("settings.number)", "settings.number AND parked_reason IS NULL)")
        gone = f"{held} + delivered + already_saved + dropped + lost"
        self._new.execute(f"UPDATE settings SET new = max(new, {gone})")  # noqa: S608
        self._new.execute("UPDATE settings SET seen = new + known + repeated")
        losers = self._new.execute(
            f"SELECT number, new - ({gone}), {waiting}, iif(settled_time, settled_time, settled_key) FROM settings"  # noqa: S608
            f" WHERE new > {gone}"
        ).fetchall()
        for number, lost, waiting_events, settled_time in losers:
            self._new.execute("UPDATE settings SET lost = lost + ? WHERE number = ?", (lost, number))
            self._ask_again(number, lost + waiting_events, settled_time)
        return sum(row[1] for row in losers)

    def _ask_again(self, number: int, unsettled_events: int, settled_time: int) -> None:
        """Forget the ids that were new since all was settled and are not held, and set the cursor back to that time."""
        (newer,) = self._new.execute(
            "SELECT count(*) FROM ids WHERE setting = ? AND last_seen > ?", (number, settled_time)
        ).fetchone()
        # Where these are too few, a part of the poll of that very time is lost, too.
        since = settled_time if newer >= unsettled_events else settled_time - 1
        forgotten = self._new.execute("DELETE FROM ids WHERE setting = ? AND last_seen > ?", (number, since)).rowcount
        if forgotten:
            self._new.execute(
                "UPDATE settings SET last_fetched_time = min(last_fetched_time, ?), last_event = NULL, position = NULL"
                " WHERE number = ?",
                (since, number),
            )

    def _remember_held(self) -> None:
        """Remember the ids of the events that were saved, so that they are not collected once more."""
        pieces = self._new.execute(
            "SELECT g.setting, p.events FROM pieces p JOIN groups g ON g.number = p.group_number"
        )
        for number, events in pieces:
            ids = (origin.event_id for origin in origins_in(events))
            self._new.executemany(
                "INSERT OR IGNORE INTO ids (setting, digest, last_seen) VALUES (?, ?, ?)",
                [(number, digest(event_id), self._now) for event_id in ids if isinstance(event_id, str)],
            )

    def _insert(self, table: str, row: tuple[Any, ...]) -> None:
        values = ", ".join("?" * len(row))
        self._new.execute(f"INSERT OR REPLACE INTO {table} ({', '.join(columns.names(table))}) VALUES ({values})", row)  # noqa: S608


def _likeliest(told: tuple[Any, Any, Any], identities: list[Identity]) -> tuple[Any, Any, Any]:
    """Return the identity that agrees in two of number, id and name with what a row tells; else that as it stands."""
    for identity in identities:
        if sum(ours == theirs for ours, theirs in zip(identity, told, strict=True)) >= 2:
            return identity
    return told
