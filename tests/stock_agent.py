"""Files as the stock agent leaves them, written with plain SQL."""

import json
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

Fill = Callable[[sqlite3.Connection], None]


def make_stock_file(path: Path, fill: Fill, *, journal_mode: str = "delete") -> None:
    """Write a file with the stock agent's tables and what `fill` puts into them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA journal_mode = {journal_mode}")
        connection.executescript(
            "CREATE TABLE events (event_collection_settings_name TEXT, id TEXT, event TEXT, fetched_time INTEGER,"
            " sent_flag INTEGER);"
            "CREATE TABLE sent_timestamp"
            " (event_collection_settings_name TEXT, fetched_time INTEGER, sent_flag INTEGER);"
            "CREATE TABLE last_fetched_time (event_collection_settings_name TEXT, last_fetched_time INTEGER);"
        )
        fill(connection)
        connection.commit()


def put_group(connection: sqlite3.Connection, name: str, time: int, ids: Sequence[object], *, sent: int) -> None:
    """Write a group as the stock agent keeps it."""
    for event_id in ids:
        event = json.dumps({"id": event_id, "_exastro_oase_event_id": event_id, "_exastro_fetched_time": time})
        connection.execute("INSERT INTO events VALUES (?, ?, ?, ?, ?)", (name, event_id, event, time, sent))
    connection.execute("INSERT INTO sent_timestamp VALUES (?, ?, ?)", (name, time, sent))
