"""The command `ita-ag-oase`: run the agent, or show it at work. Exit codes: 0 ended well, 1 failed, 2 badly called."""

import argparse
import asyncio
import contextlib
import ctypes
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from ita_ag_oase import __version__

_M_MMAP_THRESHOLD = -3
_OWN_MAPPING_BYTES = 131_072

_EPILOG = """\
examples:
  ita-ag-oase                     run the agent, configured by the environment
  ita-ag-oase demo --seconds 20   show the agent at work, without any configuration

Every variable is described in docs/configuration.md.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    # As process 1 of a container, a program without a handler ignores SIGTERM; this one ends until the agent's own
    # handler takes over.
    signal.signal(signal.SIGTERM, _end_at_once)
    _give_memory_back()
    options = _parser().parse_args(arguments)
    if options.command == "demo":
        from ita_ag_oase.demo.show import show

        return show(seconds=options.seconds)
    return _run()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ita-ag-oase",
        description="The OASE agent of Exastro IT Automation: collects events and delivers each of them once.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    commands.add_parser("run", help="run the agent until SIGTERM (this is also what no command means)")
    demo = commands.add_parser("demo", help="show the agent at work between an Exastro and three sources on loopback")
    demo.add_argument("--seconds", type=_positive, metavar="N", help="end after N seconds (otherwise with Ctrl-C)")
    return parser


def _positive(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 86_400:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number more than 0 and at most 86400")
    return seconds


def _run() -> int:
    from ita_ag_oase import clock
    from ita_ag_oase.agent import lifecycle
    from ita_ag_oase.errors import AgentError, ConfigError
    from ita_ag_oase.observability.logs import Redactor, configure
    from ita_ag_oase.settings import load

    redactor = Redactor()
    try:
        settings = load()
        for secret in settings.secrets:
            redactor.add(secret)
        configure(level=settings.log_level, zone=clock.zone(settings.tz), redactor=redactor)
        lifecycle.tell_adjustments(settings)
        asyncio.run(lifecycle.run(settings, redactor))
    except ConfigError as err:
        for variable, what_to_do in err.problems:
            print(redactor.redact(f"{variable} {what_to_do}"), file=sys.stderr)
        return 2
    except AgentError as err:
        print(redactor.redact(f"the agent cannot go on: {err}"), file=sys.stderr)
        return 1
    return 0


def _give_memory_back() -> None:
    """Let what a large answer took go back to the system once it is done with, where the C library is glibc.

    Left to itself, glibc learns from the first large block that is freed to keep such blocks (mallopt(3)).
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _OWN_MAPPING_BYTES)


def _end_at_once(_number: int, _frame: object) -> NoReturn:
    sys.exit(0)
