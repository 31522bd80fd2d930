"""What the columns of the store hold; SQLite itself lets damage leave any value in any of them."""

from collections.abc import Container, Mapping
from types import NoneType
from typing import Any, get_args

# The order of the columns is that of the tables.
_COLUMNS: Mapping[str, Mapping[str, Any]] = {
    "settings": {
        "number": int,
        "id": str | None,
        "name": str,
        "last_fetched_time": int,
        "last_key": int,
        "settled_key": int,
        "saved_as": str | None,
        "last_event": bytes | None,
        "unusable": bytes,
        "seen": int,
        "new": int,
        "known": int,
        "repeated": int,
        "delivered": int,
        "already_saved": int,
        "dropped": int,
        "lost": int,
        "settled_time": int,
        "position": str | None,
    },
    "groups": {
        "number": int,
        "setting": int,
        "poll": int,
        "first_event": int,
        "agent_name": str,
        "key": int | None,
        "cut_key": int | None,
        "in_request": int,
        "maybe_saved": int,
        "parked_reason": str | None,
        "parked_time": int | None,
        "event_count": int,
        "byte_count": int,
        "fetched_time": int,
        "offers": int,
        "first_offer": int | None,
        "latest_offer": int | None,
        "answer": str | None,
    },
    "pieces": {"id": int, "group_number": int, "event_count": int, "events": bytes, "checksum": int | None},
    "ids": {"setting": int, "digest": bytes, "last_seen": int, "first_poll": int | None, "event_number": int | None},
    "facts": {"name": str, "value": bytes},
    "history": {
        "number": int,
        "setting": int,
        "agent_name": str,
        "key": int | None,
        "fetched_time": int,
        "first_event": int,
        "event_count": int,
        "offers": int,
        "first_offer": int | None,
        "latest_offer": int | None,
        "ended": int,
        "outcome": str,
        "answer": str | None,
    },
    "terms": {"number": int, "holder": str, "guard": str, "begun": int},
}
_SQL_TYPES = {int: "integer", str: "text", bytes: "blob", NoneType: "null"}
_GREATEST = {"in_request": 1, "maybe_saved": 3}
# More than this is no number, time or count of the store's.
GREATEST_INTEGER = (1 << 53) - 1


def names(table: str) -> tuple[str, ...]:
    """Return the columns of a table in their order."""
    return tuple(_COLUMNS[table])


def fits(table: str, row: tuple[Any, ...]) -> bool:
    """Whether each value of a row is one that the store writes into that column."""
    columns = _COLUMNS[table]
    return len(row) == len(columns) and all(
        isinstance(value, type_) and not (isinstance(value, int) and not 0 <= value <= _greatest(name))
        for value, (name, type_) in zip(row, columns.items(), strict=True)
    )


def unfit_query(table: str, present: Container[str]) -> str:
    """Return SQL that yields 1 for a table with a row that does not fit, else 0, by the columns that are present."""
    wrong = []
    for name in filter(present.__contains__, names(table)):
        type_ = _COLUMNS[table][name]
        types = ", ".join(f"'{_SQL_TYPES[one]}'" for one in get_args(type_) or (type_,))
        wrong.append(f"typeof({name}) NOT IN ({types})")
        if int in (type_, *get_args(type_)):
            wrong.append(f"{name} NOT BETWEEN 0 AND {_greatest(name)}")
    return f"SELECT EXISTS (SELECT 1 FROM {table} WHERE {' OR '.join(wrong)})"  # noqa: S608 - our own names


def _greatest(name: str) -> int:
    return _GREATEST.get(name, GREATEST_INTEGER)
