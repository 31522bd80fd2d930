"""The manual's ways to back up a store and to restore it, with a store in use: what is whole, repeated and lost."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from exactly_once import Bench, usable
from ita_ag_oase.errors import ExastroUnavailable
from manual import COMPOSE, KUBERNETES, examples, section
from support import MODULE

# They run what the container would run; the rest is about containers, of which there are none.
_PROGRAMS = {
    "kubectl": """\
#!/bin/sh
while [ $# -gt 0 ] && [ "$1" != -- ]; do shift; done
[ $# -gt 0 ] || exit 0
shift
exec "$@"
""",
    "docker": """\
#!/bin/sh
while [ $# -gt 0 ] && [ "$1" != --entrypoint ]; do shift; done
[ $# -gt 0 ] || exit 0
program="$2"
shift 3
exec "$program" "$@"
""",
}
_WAYS = [
    pytest.param(KUBERNETES, "Back up while the agent runs", True, id="kubernetes-while-it-runs"),
    pytest.param(KUBERNETES, "Back up while the agent does not run", False, id="kubernetes-after-a-kill"),
    pytest.param(COMPOSE, "Back up", False, id="compose-after-a-kill"),
]


class _Volume:
    """A folder in place of /storage, on which the page's commands are run."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.storage = folder / "storage"
        self.store = self.storage / "org" / "ws" / "sqlite" / "ag_oase_a.sqlite3"
        (folder / "bin").mkdir()
        for name, text in _PROGRAMS.items():
            program = folder / "bin" / name
            program.write_text(text, encoding="utf-8")
            program.chmod(0o755)

    def follow(self, page: Path, heading: str) -> None:
        """Run the commands of a section."""
        script = "".join(text for language, text in examples(section(page, heading)) if language == "sh")
        subprocess.run(
            ["sh", "-e", "-c", script.replace("/storage", str(self.storage))],
            cwd=self._folder,
            env={"PATH": f"{self._folder / 'bin'}:{Path(sys.executable).parent}:{os.defpath}"},
            check=True,
            timeout=60,
        )

    def is_whole(self) -> bool:
        """Whether the agent's own check finds nothing wrong with the store."""
        return subprocess.run([*MODULE, "verify", "--store", str(self.store)], timeout=60).returncode == 0

    def stop_hard(self) -> None:
        """Leave the files as a kill at this moment would."""
        copy = self._folder / "as-it-was"
        shutil.copytree(self.storage, copy)
        shutil.rmtree(self.storage)
        copy.rename(self.storage)


@pytest.fixture(name="volume")
def _volume(tmp_path: Path) -> _Volume:
    return _Volume(tmp_path)


@pytest.fixture(name="bench")
def _bench(volume: _Volume, tmp_path: Path) -> Bench:
    """A bench, not open yet, with its store where the agent would have it."""
    bench = Bench(tmp_path)
    bench._path = volume.store
    return bench


async def _with_waiting_events(bench: Bench) -> None:
    await bench.introduce()
    await bench.poll("n1", [usable(1), usable(2)])


@pytest.mark.parametrize(("page", "heading", "is_running"), _WAYS)
async def test_a_restored_store_is_whole_and_has_what_waited(
    volume: _Volume, bench: Bench, page: Path, heading: str, *, is_running: bool
) -> None:
    async with bench:
        await _with_waiting_events(bench)
        if not is_running:
            volume.stop_hard()
        volume.follow(page, heading)
        volume.store.write_bytes(b"lost")
    volume.follow(page, "Restore")
    assert volume.is_whole()
    async with bench:
        await bench.deliver_all()
    assert bench.arrived("n1") == ["1", "2"]


async def test_nothing_of_a_backup_stays_on_the_volume(volume: _Volume, bench: Bench) -> None:
    async with bench:
        await _with_waiting_events(bench)
        before = sorted(volume.storage.rglob("*"))
        volume.follow(KUBERNETES, "Back up while the agent runs")
        assert sorted(volume.storage.rglob("*")) == before


async def test_a_restored_store_repeats_and_loses_what_the_page_says(volume: _Volume, bench: Bench) -> None:
    async with bench:
        await bench.introduce()
        await bench.poll("n2", [usable("in flight")])
        bench.exastro.faults.append("lost")
        with pytest.raises(ExastroUnavailable):
            await bench.deliver_all()
        await bench.poll("n1", [usable("waited")])
        volume.follow(KUBERNETES, "Back up while the agent runs")
        await bench.deliver_all()
        bench.now += 5
        await bench.poll("n1", [usable("delivered, still shown"), usable("delivered, not shown")])
        await bench.deliver_all()
        bench.now += 5
        await bench.poll("n1", [usable("not delivered, still shown"), usable("not delivered, not shown")])
    volume.follow(KUBERNETES, "Restore")
    async with bench:
        bench.now += 5
        await bench.poll("n1", [usable("delivered, still shown"), usable("not delivered, still shown")])
        await bench.deliver_all()
    assert bench.arrived("n2") == ["in flight"]
    assert sorted(bench.arrived("n1")) == sorted(
        [
            *("waited", "waited"),
            *("delivered, still shown", "delivered, still shown"),
            "delivered, not shown",
            "not delivered, still shown",
        ]
    )
