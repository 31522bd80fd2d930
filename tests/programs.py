"""Programs of the Prometheus family, run for a test."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx

from support import do_without, wait_until

_LISTENING = re.compile(r'msg="Listening on" address=(\S+)')


@contextmanager
def listening(command: Sequence[str], folder: Path) -> Iterator[str]:
    """Yield the URL of a program that serves on a free port of loopback, once it is ready; it ends with the context.

    Without the program, the Debian package of the same name, the test is skipped, or fails where CI is set.
    """
    program = shutil.which(command[0])
    if program is None:
        do_without(f"{command[0]} is not installed (the Debian package of that name)")
    log = folder / f"{command[0]}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [program, *command[1:], "--web.listen-address=127.0.0.1:0"],
            cwd=folder,
            env={"PATH": os.defpath},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )
    try:
        wait_until(lambda: _LISTENING.search(log.read_text()), f"the port of {command[0]}", last_words=log.read_text)
        (address,) = _LISTENING.findall(log.read_text())
        wait_until(lambda: _is_ready(f"http://{address}"), command[0], last_words=log.read_text)
        yield f"http://{address}"
    finally:
        process.kill()
        process.wait()


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/-/ready", trust_env=False).is_success
    except httpx.TransportError:
        return False
