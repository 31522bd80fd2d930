"""What the installed agent does with a store that is damaged, is none, or cannot be written."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from ita_ag_oase.demo.exastro import ORGANIZATION, WORKSPACE, DemoExastro
from support import MODULE, PATIENCE_SECONDS, Deploy, Deployment, ListSource, arrived, wait_for_all


def _store(deployment: Deployment) -> Path:
    names = (ORGANIZATION, WORKSPACE, "sqlite", f"ag_oase_{deployment.environment['AGENT_NAME']}.sqlite3")
    return Path(deployment.environment["STORAGEPATH"], *names)


def _zero_a_page(store: Path) -> None:
    whole = store.read_bytes()
    store.write_bytes(whole[:8_192] + bytes(4_096) + whole[12_288:])


def _cut(store: Path) -> None:
    os.truncate(store, 20_000)


def _zero_the_header(store: Path) -> None:
    store.write_bytes(bytes(100) + store.read_bytes()[100:])


def _write_rubbish(store: Path) -> None:
    store.write_bytes(b"rubbish" * 5_000)


def _put_a_folder(store: Path) -> None:
    store.unlink()
    store.mkdir()


@pytest.mark.parametrize("damage", [_zero_a_page, _cut, _zero_the_header, _write_rubbish, _put_a_folder])
def test_a_damaged_store_is_set_aside_and_everything_arrives(deploy: Deploy, damage: Callable[[Path], None]) -> None:
    with ListSource("alarms", 500) as source, DemoExastro([source.row]) as exastro:
        exastro.before_saving = lambda _: "503"
        deployment = deploy(exastro, source.name)
        first = deployment.start()
        first.wait_for_line("collection_finished")
        assert first.terminate() == 0
        damage(_store(deployment))
        exastro.before_saving = lambda _: None
        second = deployment.start()
        wait_for_all(second, exastro, source)
        second.wait_for_quiet_poll(source.name)
        assert second.terminate() == 0
        assert sorted(arrived(exastro, source.name), key=int) == source.ids
        (told,) = second.lines("store_repaired")
        assert (told["level"], told["code"]) == ("error", "AGT-10027")
        assert Path(told["set_aside"]).exists()


def test_a_folder_that_cannot_be_written_ends_the_start_with_one_sentence(volume: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(volume)], check=True)
    environment = {**DemoExastro().environment(["alarms"]), "STORAGEPATH": str(volume), "PATH": os.defpath}
    done = subprocess.run(MODULE, env=environment, capture_output=True, text=True, timeout=PATIENCE_SECONDS)
    folder = volume / ORGANIZATION / WORKSPACE / "sqlite"
    assert done.returncode == 1
    (sentence,) = done.stderr.splitlines()
    assert sentence.startswith("the agent cannot go on: ")
    assert f"(Read-only file system): make {folder} writable for this user" in sentence
