"""A user who switches from the stock agent loses nothing and gets nothing twice."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

from ita_ag_oase import clock
from ita_ag_oase.demo.exastro import ORGANIZATION, WORKSPACE, DemoExastro
from support import Deploy, ListSource, arrived


def test_what_the_stock_agent_left_unsent_arrives_before_what_is_new(deploy: Deploy) -> None:
    with ListSource("alarms", 6) as source, DemoExastro([source.row]) as exastro:
        deployment = deploy(exastro, source.name)
        environment = deployment.environment
        folder = Path(environment["STORAGEPATH"]) / ORGANIZATION / WORKSPACE / "sqlite"
        folder.mkdir(parents=True)
        stock_file = folder / f"ag_oase_{environment['AGENT_NAME']}"
        time = int(clock.now()) - 60
        with closing(sqlite3.connect(stock_file)) as connection, connection:
            connection.executescript(
                "CREATE TABLE events (event_collection_settings_name, id, event, fetched_time, sent_flag);"
                "CREATE TABLE sent_timestamp (event_collection_settings_name, fetched_time, sent_flag);"
                "CREATE TABLE last_fetched_time (event_collection_settings_name, last_fetched_time);"
            )
            for event_id, sent in (("1", 1), ("2", 0), ("3", 0)):
                event = json.dumps({"id": event_id, "_exastro_oase_event_id": event_id})
                connection.execute(
                    "INSERT INTO events VALUES (?, ?, ?, ?, ?)", (source.name, event_id, event, time - 5 + sent, sent)
                )
            connection.execute("INSERT INTO sent_timestamp VALUES (?, ?, 0)", (source.name, time - 5))
            connection.execute("INSERT INTO sent_timestamp VALUES (?, ?, 1)", (source.name, time - 4))
            connection.execute("INSERT INTO last_fetched_time VALUES (?, ?)", (source.name, time))
        before = stock_file.read_bytes()
        agent = deployment.start()
        agent.wait_until(lambda: len(exastro.saved) >= 5, "all but the sent event arrived")
        agent.wait_for_quiet_poll(source.name)
        assert arrived(exastro, source.name) == ["2", "3", "4", "5", "6"]
        assert stock_file.read_bytes() == before
        (line,) = agent.lines("stock_store_taken_over")
        facts = ("groups", "events", "ids", "cursors", "unreadable", "problems")
        assert [line[fact] for fact in facts] == [1, 2, 3, 1, 0, []]
        assert agent.terminate() == 0
