"""Reads rows straight from the pages of a store, where what should lead to them is damaged.

The layout is that of "Database File Format" in SQLite's documentation: sections 1.6 (pages), 1.8 (which of them are in
use) and 2.1 (records).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

PAGE_BYTES = 4_096
_TABLE_LEAF, _INDEX_INNER, _INDEX_LEAF = 0x0D, 0x02, 0x0A
_HEADER_BYTES = {_TABLE_LEAF: 8, _INDEX_LEAF: 8, _INDEX_INNER: 12}
# Of a payload that is longer than the first of these, a part goes over to other pages, but not what the second says.
_MOST_LOCAL_IN_TABLE = PAGE_BYTES - 35
_MOST_LOCAL_IN_INDEX = (PAGE_BYTES - 12) * 64 // 255 - 23
_LEAST_LOCAL = (PAGE_BYTES - 12) * 32 // 255 - 23
_INT_BYTES = (0, 1, 2, 3, 4, 6, 8)
_NULL, _FLOAT, _ZERO, _ONE, _FIRST_BLOB = 0, 7, 8, 9, 12
# Some pages tell what the following ones are for (section 1.8): five bytes each, the first of which may say unused.
_MAP_ENTRY_BYTES, _FREE = 5, 2
_MAPPED_PAGES = PAGE_BYTES // _MAP_ENTRY_BYTES
# What bytes that are no row any more may raise.
_NO_ROW = (IndexError, ValueError, OverflowError)

Row = tuple[Any, ...]


def table_rows(path: Path) -> Iterator[tuple[int, Row]]:
    """Return rowid and values of each row of any table."""
    with path.open("rb") as file:
        for page, cell in _cells(file, (_TABLE_LEAF,)):
            try:
                size, at = _varint(page, cell)
                rowid, at = _varint(page, at)
                row = _values(_payload(file, page, at, size, _MOST_LOCAL_IN_TABLE))
            except _NO_ROW:
                continue
            yield rowid, row


def keyed_rows(path: Path) -> Iterator[Row]:
    """Return the values of each row of tables without rowids and of indexes."""
    with path.open("rb") as file:
        for page, cell in _cells(file, (_INDEX_LEAF, _INDEX_INNER)):
            try:
                size, at = _varint(page, cell)
                row = _values(_payload(file, page, at, size, _MOST_LOCAL_IN_INDEX))
            except _NO_ROW:
                continue
            yield row


def _cells(file: BinaryIO, kinds: tuple[int, ...]) -> Iterator[tuple[bytes, int]]:
    """Return each page of these kinds with where a cell begins, once for each of its cells."""
    number = 0
    while len(page := _page(file, number := number + 1)) == PAGE_BYTES:
        start = 100 if number == 1 else 0
        if page[start] not in kinds or _is_free(file, number):
            continue
        pointers = start + _HEADER_BYTES[page[start]]
        for index in range(min(_uint(page[start + 3 : start + 5]), PAGE_BYTES // 4)):
            at = _uint(page[pointers + 2 * index : pointers + 2 * index + 2])
            # Before the cell of an inner page stands which page is to its left.
            yield page, at + (4 if page[start] == _INDEX_INNER else 0)


def _is_free(file: BinaryIO, number: int) -> bool:
    """Whether a page is unused, as far as is told, so that its rows are deleted ones."""
    map_page = 2 + (number - 2) // (_MAPPED_PAGES + 1) * (_MAPPED_PAGES + 1)
    entry = _MAP_ENTRY_BYTES * (number - map_page - 1)
    return number > map_page and _page(file, map_page)[entry : entry + 1] == bytes([_FREE])


def _payload(file: BinaryIO, page: bytes, at: int, size: int, most: int) -> bytes:
    if size <= most:
        return page[at : at + size]
    local = _LEAST_LOCAL + (size - _LEAST_LOCAL) % (PAGE_BYTES - 4)
    local = local if local <= most else _LEAST_LOCAL
    parts, found = [page[at : at + local]], local
    following = _uint(page[at + local : at + local + 4])
    passed: set[int] = set()
    while found < size:
        page = _page(file, following)
        if len(page) < PAGE_BYTES or following in passed:
            raise ValueError("a row goes over to a page that is not there, or in a circle")
        passed.add(following)
        parts.append(page[4 : 4 + size - found])
        found += len(parts[-1])
        following = _uint(page[:4])
    return b"".join(parts)


def _values(payload: bytes) -> Row:
    end, at = _varint(payload, 0)
    kinds = []
    while at < end:
        kind, at = _varint(payload, at)
        kinds.append(kind)
    values = []
    for kind in kinds:
        size = _size(kind)
        if at + size > len(payload):
            raise ValueError("a row is shorter than it says")
        values.append(_value(kind, payload[at : at + size]))
        at += size
    return tuple(values)


def _size(kind: int) -> int:
    if kind >= _FIRST_BLOB:
        return (kind - _FIRST_BLOB) // 2
    if kind in (_ZERO, _ONE):
        return 0
    return 8 if kind == _FLOAT else _INT_BYTES[kind]


def _value(kind: int, data: bytes) -> Any:
    if kind >= _FIRST_BLOB:
        return data if kind % 2 == 0 else data.decode()
    if kind in (_NULL, _FLOAT):
        # The store keeps no fractions.
        return None
    return kind - _ZERO if kind in (_ZERO, _ONE) else int.from_bytes(data, "big", signed=True)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for _ in range(8):
        byte = data[at]
        at += 1
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at
    return value << 8 | data[at], at + 1


def _uint(data: bytes) -> int:
    return int.from_bytes(data, "big")


def _page(file: BinaryIO, number: int) -> bytes:
    """Return a page by its number, counted from 1; shorter where the file ends."""
    if number < 1:
        return b""
    file.seek((number - 1) * PAGE_BYTES)
    return file.read(PAGE_BYTES)
