"""The bare minimum that the agent is measured against: fetch, decode, one insert, read back, encode, post.

No ids are remembered, nothing is labelled, and what is left of a failed post goes whole into the next one. Started by
scenarios.py.
"""

import json
import sqlite3
import sys
import time

import httpx


def main(source_url: str, exastro_url: str, store: str, interval_seconds: float) -> None:
    connection = sqlite3.connect(store)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE events (number INTEGER PRIMARY KEY, event TEXT)")
    with httpx.Client(auth=("demo-user", "demo-password"), timeout=60, trust_env=False) as client:
        while True:
            started = time.monotonic()
            poll(client, connection, source_url, exastro_url)
            time.sleep(max(0.0, interval_seconds - (time.monotonic() - started)))


def poll(client: httpx.Client, connection: sqlite3.Connection, source_url: str, exastro_url: str) -> None:
    fetched_time = int(time.time())
    events = json.loads(client.get(source_url).content)
    with connection:
        connection.executemany("INSERT INTO events (event) VALUES (?)", ((json.dumps(event),) for event in events))
    stored = [json.loads(text) for (text,) in connection.execute("SELECT event FROM events ORDER BY number")]
    if stored:
        group = {
            "fetched_time": fetched_time,
            "event_collection_settings_name": "bench",
            "agent": {"name": "bare", "version": "0"},
            "event": stored,
        }
        answer = client.post(exastro_url, content=json.dumps({"events": [group]}).encode())
        if answer.is_success:
            with connection:
                connection.execute("DELETE FROM events")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4]))
