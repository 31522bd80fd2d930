"""Builds the image without a registry, and runs what is in it.

The base that the Dockerfile names is made of Debian's own packages and the Python that runs the tests; the image runs
in a mount and a process namespace of its own, as a container would.
"""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
_BUILD_SECONDS = 900
# What Python's own modules are linked with.
_LIBRARIES = ("ca-certificates", "libbz2-1.0", "libffi8", "liblzma5", "libsqlite3-0", "libssl3", "libuuid1", "zlib1g")
_LEFT_OUT = ("site-packages", "test", "idlelib", "tkinter", "turtledemo", "__pycache__", "config-*")


@dataclass(frozen=True)
class Image:
    """The built image: its files, what it says about itself, the digests of two builds, and its weight above the base.

    `digests` are those of the OCI format, which has no place for the name of the machine that built it.
    """

    root: Path
    config: dict[str, Any]
    digests: tuple[str, str]
    added_mebibytes: float


class Engine:
    """buildah with a storage of its own in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._buildah = (
            "buildah",
            *("--root", str(folder / "storage"), "--runroot", str(folder / "run"), "--storage-driver", "vfs"),
        )

    def make_base(self) -> None:
        """Have the image that the Dockerfile stands on."""
        root = self._folder / "base"
        _run("debootstrap", "--variant=minbase", f"--include={','.join(_LIBRARIES)}", _suite(), str(root), _mirror())
        _copy_python(root)
        container = self.buildah("from", "scratch")
        self.buildah("add", container, str(root), "/")
        self.buildah("config", "--env", "PATH=/usr/local/bin:/usr/bin:/bin", container)
        self.buildah("commit", "--rm", container, self.base_name)
        shutil.rmtree(root)

    def build(self, tag: str, wheels: Path, *options: str) -> str:
        """Build the image as `make image` does, with packages from a folder, and return its digest."""
        wrapper = self._folder / "bin" / "buildah"
        wrapper.parent.mkdir(exist_ok=True)
        wrapper.write_text(f'#!/bin/sh\nexec {shutil.which("buildah")} {" ".join(self._buildah[1:])} "$@"\n')
        wrapper.chmod(0o755)
        _run(
            str(ROOT / "packaging" / "build-image"),
            tag,
            *("--isolation", "chroot", "--pull-never", "--no-cache", "--volume", f"{wheels}:/wheels:ro"),
            *("--build-arg", "PIP_NO_INDEX=1", "--build-arg", "PIP_FIND_LINKS=/wheels"),
            *options,
            PATH=f"{wrapper.parent}:{os.defpath}:/usr/sbin:/sbin",
        )
        return self.buildah("inspect", "--type", "image", "--format", "{{.FromImageDigest}}", tag)

    def config(self, tag: str) -> dict[str, Any]:
        """Return what the image says about itself."""
        document: dict[str, Any] = json.loads(self.buildah("inspect", "--type", "image", tag))
        config: dict[str, Any] = document["Docker"]["config"]
        return config

    def unpack(self, tag: str) -> Path:
        """Return the folder in which the image's files are."""
        container = self.buildah("from", "--pull-never", tag)
        return Path(self.buildah("mount", container))

    @property
    def base_name(self) -> str:
        """What the Dockerfile calls the image that it stands on."""
        dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()
        (line,) = [line for line in dockerfile if line.startswith("ARG BASE_IMAGE=")]
        return line.partition("=")[2]

    def clean(self) -> None:
        """Remove all containers and images."""
        self.buildah("rm", "--all")
        self.buildah("rmi", "--all", "--force")

    def buildah(self, *arguments: str) -> str:
        """Return what a command of buildah prints."""
        return _run(*self._buildah, *arguments)


def started(
    root: Path, config: Mapping[str, Any], arguments: Sequence[str], environment: Mapping[str, str]
) -> subprocess.Popen[str]:
    """Start the image with arguments, as the first process of its own, with a read-only root.

    `environment` comes on top of the image's. What it may write to is empty: /storage, /tmp and the home folder.
    """
    uid, _, gid = config["User"].partition(":")
    script = (
        f"set -e; mount --bind {root} {root}; mount -t proc proc {root}/proc; mount -t tmpfs tmpfs {root}/dev; "
        f"mknod -m 666 {root}/dev/null c 1 3; mknod -m 666 {root}/dev/urandom c 1 9; "
        + "".join(
            f"mount -t tmpfs -o uid={uid},gid={gid} tmpfs {root}{place}; "
            for place in ("/storage", "/tmp", "/home/app_user")
        )
        + f"cp /etc/resolv.conf {root}/tmp/ || :; mount -o remount,ro,bind {root}; "
        f'exec chroot --userspec={uid}:{gid} {root} env -i -C {config["WorkingDir"]} "$@"'
    )
    variables = [*config["Env"], *(f"{name}={value}" for name, value in environment.items())]
    return subprocess.Popen(
        [
            *("unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", script, "sh"),
            *(*variables, *config["Entrypoint"], *arguments),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def first_process(process: subprocess.Popen[str]) -> int:
    """Return the number, as this machine sees it, of the first process of what was started."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text(encoding="ascii").split()
    return int(children[0])


def added_mebibytes(root: Path, base: Path) -> float:
    """Return how much the files of an image hold that its base does not have; what it removed is not set against it."""
    files = (path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    added = (path for path in files if not (base / path.relative_to(root)).exists())
    return sum(path.stat().st_size for path in added) / 1_048_576


def wheels_in(folder: Path) -> Path:
    """Return a folder with the packages that the image needs, exactly those that are locked."""
    for requirements in ("requirements.txt", "requirements-build.txt"):
        _run(
            *(sys.executable, "-m", "pip", "download", "--quiet", "--require-hashes", "--only-binary=:all:"),
            *("--requirement", str(ROOT / requirements), "--dest", str(folder)),
        )
    return folder


def _run(*command: str, **environment: str) -> str:
    result = subprocess.run(
        command,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_BUILD_SECONDS,
    )
    if result.returncode:
        raise AssertionError(
            f"{' '.join(command)}: {result.returncode}\n{result.stdout[-4_000:]}{result.stderr[-4_000:]}"
        )
    return result.stdout.strip()


def _mirror() -> str:
    """Return where this machine has Debian's packages from."""
    targets = _run("apt-get", "indextargets", "--format", "$(REPO_URI) $(COMPONENT)", "Created-By: Packages")
    places = [line.split()[0] for line in targets.splitlines() if line.endswith(" main")]
    return min((place for place in places if "security" not in place), key=len)


def _suite() -> str:
    release = Path("/etc/os-release").read_text(encoding="utf-8").splitlines()
    return next(line.partition("=")[2] for line in release if line.startswith("VERSION_CODENAME="))


def _copy_python(root: Path) -> None:
    prefix, local = Path(sys.base_prefix), root / "usr" / "local"
    version = f"python{sysconfig.get_python_version()}"
    shutil.copytree(
        prefix / "lib" / version, local / "lib" / version, ignore=shutil.ignore_patterns(*_LEFT_OUT), symlinks=True
    )
    for library in (prefix / "lib").glob("libpython*.so*"):
        shutil.copy(library, local / "lib", follow_symlinks=False)
    shutil.copy(prefix / "bin" / version, local / "bin" / version)
    for name in ("python3", "python"):
        (local / "bin" / name).symlink_to(version)
    _run("chroot", str(root), "ldconfig")
    _run("chroot", str(root), "/usr/local/bin/python", "-m", "ensurepip")
