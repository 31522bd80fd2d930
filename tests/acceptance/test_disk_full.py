"""A volume without space: polling pauses, delivery goes on, and with the space polling comes back, without hands."""

import os
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest

from ita_ag_oase.demo.exastro import DemoExastro
from ita_ag_oase.store.reserve import Reserve
from support import Deploy, ListSource, arrived, wait_for_all

NAMES = [f"source-{number}" for number in range(6)]


@pytest.mark.parametrize("journal", ["auto", "truncate"])
def test_a_full_volume_pauses_polling_until_delivery_has_made_room(deploy: Deploy, volume: Path, journal: str) -> None:
    sources = [ListSource(name, 2_000, text_bytes=1_000) for name in NAMES]
    with ExitStack() as stack:
        for source in sources:
            stack.enter_context(source)
        exastro = stack.enter_context(DemoExastro([source.row for source in sources]))
        exastro.before_saving = lambda _: "503"
        deployment = deploy(exastro, *NAMES, STORAGEPATH=str(volume), STORE_JOURNAL=journal)
        agent = deployment.start()
        agent.wait_for_line("collection_failed", reason="store_full", code="AGT-10027")
        agent.wait_for_line("delivery_failed")
        exastro.before_saving = lambda _: None
        wait_for_all(agent, exastro, *sources)
        for source in sources:
            source.add(10)
        wait_for_all(agent, exastro, *sources)
        assert agent.terminate() == 0
        assert [arrived(exastro, source.name) for source in sources] == [source.ids for source in sources]


def test_an_agent_starts_and_delivers_on_a_volume_that_is_full_to_the_last_byte(deploy: Deploy, volume: Path) -> None:
    with ListSource("alarms", 2_000, text_bytes=1_000) as source, DemoExastro([source.row]) as exastro:
        exastro.before_saving = lambda _: "503"
        deployment = deploy(exastro, source.name, STORAGEPATH=str(volume))
        first = deployment.start()
        first.wait_for_line("collection_finished")
        first.kill()
        _fill(volume / "of somebody else")
        exastro.before_saving = lambda _: None
        second = deployment.start()
        wait_for_all(second, exastro, source)
        source.add(10)
        (volume / "of somebody else").unlink()
        wait_for_all(second, exastro, source)
        assert second.terminate() == 0
        assert arrived(exastro, source.name) == source.ids


def test_a_log_that_takes_the_last_space_does_not_keep_polling_away(deploy: Deploy, volume: Path) -> None:
    with ListSource("alarms", 3_000, text_bytes=1_000) as source, DemoExastro([source.row]) as exastro:
        deployment = deploy(exastro, source.name, STORAGEPATH=str(volume))
        agent = deployment.start()
        wait_for_all(agent, exastro, source)
        (log,) = volume.glob("*/*/sqlite/*-wal")
        assert log.stat().st_size > 2_000_000
        _fill(volume / "of somebody else", leaving=3_500_000)
        source.add(10)
        wait_for_all(agent, exastro, source)
        assert agent.terminate() == 0
        assert arrived(exastro, source.name) == source.ids


def test_a_volume_without_room_for_another_file_is_full(volume: Path) -> None:
    subprocess.run(["mount", "-o", "remount,nr_inodes=1", str(volume)], check=True)
    assert not Reserve(volume / "store.sqlite3").hold()


def _fill(file: Path, *, leaving: int = 0) -> None:
    with file.open("wb", buffering=0) as out:
        for size in (65_536, 1):
            try:
                while _free_bytes(file) > leaving and out.write(bytes(size)):
                    pass
            except OSError:
                continue
    assert _free_bytes(file) <= leaving


def _free_bytes(file: Path) -> int:
    volume = os.statvfs(file.parent)
    return volume.f_bavail * volume.f_frsize
