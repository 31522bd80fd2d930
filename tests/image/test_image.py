"""The image as it runs: as a user without rights, on a read-only root, as the first process."""

import os
import shlex
import signal
import subprocess
import tomllib
from collections.abc import Callable, Iterator, Mapping

import pytest

from helm import others, render
from images import ROOT, Image, first_process, started
from ita_ag_oase import __version__
from ita_ag_oase.demo.exastro import DemoExastro
from support import ListSource, free_port, wait_until

_SECONDS = 60.0

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(image: Image) -> Iterator[Start]:
    """Return what starts the image with arguments; what still runs at the end is ended."""
    processes: list[subprocess.Popen[str]] = []

    def start(*arguments: str, **environment: str) -> "subprocess.Popen[str]":
        processes.append(started(image.root, image.config, arguments, environment))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def _environment(exastro: DemoExastro, *names: str) -> Mapping[str, str]:
    return {**exastro.environment(names), "EXECUTE_INTERVAL": "3", "STATUS_PORT": str(free_port())}


def test_two_builds_of_one_commit_have_one_digest(image: Image) -> None:
    assert image.digests[0] == image.digests[1]


def test_what_the_image_adds_to_its_base_is_small(image: Image) -> None:
    assert image.added_mebibytes <= 60


def test_the_image_says_how_it_runs(image: Image) -> None:
    config = image.config
    assert {name: config[name] for name in ("User", "Entrypoint", "Cmd", "StopSignal", "ExposedPorts", "Volumes")} == {
        "User": "1000:1000",
        "Entrypoint": ["ita-ag-oase"],
        "Cmd": [],
        "StopSignal": "SIGTERM",
        "ExposedPorts": {"9879/tcp": {}},
        "Volumes": {},
    }
    labels = {name.rpartition(".")[2]: value for name, value in config["Labels"].items()}
    license_ = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["license"]
    assert (labels["version"], labels["licenses"]) == (__version__, license_)


def test_nothing_in_the_image_installs_software(image: Image) -> None:
    names = ("pip", "pip3*", "pip-*", "ensurepip", "gcc", "cc")
    assert [path for name in names for path in image.root.glob(f"usr/**/{name}") if "share" not in path.parts] == []
    commands = [path.name for path in (image.root / "opt/ita-ag-oase/bin").iterdir()]
    assert [name for name in commands if not name.startswith("python")] == ["ita-ag-oase"]


def test_it_runs_without_rights_and_writes_where_it_may(image: Image) -> None:
    script = (
        "import os; print(os.getpid(), os.getuid(), os.getgid(), os.path.isdir('/storage'));"
        "[open(f'{place}/probe', 'w').close() for place in ('/storage', '/tmp', '/home/app_user')];"
        "open('/opt/probe', 'w')"
    )
    process = started(image.root, {**image.config, "Entrypoint": ["python"]}, ["-c", script], {})
    out, err = process.communicate(timeout=_SECONDS)
    assert out == "1 1000 1000 True\n"
    assert err.splitlines()[-1] == "OSError: [Errno 30] Read-only file system: '/opt/probe'"


def test_the_first_step_of_the_pod_gives_the_volume_away_inside(image: Image) -> None:
    (step,) = render(others()).pod["initContainers"]
    script = f"{shlex.join(step['command'])} && stat --format=%u:%g /storage"
    process = started(image.root, {**image.config, "User": "0:0", "Entrypoint": ["sh"]}, ["-c", script], {})
    assert (process.communicate(timeout=_SECONDS), process.returncode) == (("1000:1000\n", ""), 0)


def test_the_demo_works_inside(start: Start) -> None:
    process = start("demo", "--seconds", "10", LANGUAGE="en")
    out, err = process.communicate(timeout=_SECONDS)
    assert (process.returncode, err) == (0, "")
    assert out.splitlines()[-1].endswith("lost 0, repeated 0")


def test_check_works_inside(start: Start) -> None:
    with ListSource("alarms", 3) as source, DemoExastro([source.row]) as exastro:
        process = start("check", **_environment(exastro, source.name))
        out, err = process.communicate(timeout=_SECONDS)
    assert (process.returncode, err) == (0, ""), out


def test_sigterm_ends_it_with_0_after_it_delivered(image: Image, start: Start) -> None:
    with ListSource("alarms", 3) as source, DemoExastro([source.row]) as exastro:
        environment = _environment(exastro, source.name)
        process = start(**environment)
        wait_until(lambda: len(exastro.counts) == 3, "the events to arrive", check=lambda: process.poll() is None)
        health = started(
            image.root, {**image.config, "Entrypoint": image.config["Healthcheck"]["Test"][1:]}, [], environment
        )
        assert (health.communicate(timeout=_SECONDS), health.returncode) == (("", ""), 0)
        os.kill(first_process(process), signal.SIGTERM)
        process.communicate(timeout=_SECONDS)
    assert process.returncode == 0


def test_health_check_fails_where_no_agent_answers(image: Image) -> None:
    health = started(
        image.root,
        {**image.config, "Entrypoint": image.config["Healthcheck"]["Test"][1:]},
        [],
        {"STATUS_PORT": str(free_port())},
    )
    _, err = health.communicate(timeout=_SECONDS)
    assert health.returncode == 1
    assert err.startswith("the agent's status page does not answer on port ")
