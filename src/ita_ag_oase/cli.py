"""The command `ita-ag-oase`: run the agent, show it at work, or look after its store.

Exit codes: 0 ended well, 1 failed, 2 badly called.
"""

import contextlib
import io
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NoReturn

from ita_ag_oase.reader import Configuration, Reader
from ita_ag_oase.text import Text

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from ita_ag_oase.commands.console import Console
    from ita_ag_oase.model import GroupChoice
    from ita_ag_oase.settings import Settings

_M_MMAP_THRESHOLD = -3
_OWN_MAPPING_BYTES = 131_072


def main(given: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    # As process 1 of a container, a program without a handler ignores SIGTERM; this one ends until the agent's own
    # handler takes over.
    signal.signal(signal.SIGTERM, _end_at_once)
    if list(sys.argv[1:] if given is None else given) in ([], ["run"]):
        return _run()
    return _command(given)


def _run() -> int:
    """Be the agent, which has its configuration read apart."""
    with Reader() as reader:
        _prepare()
        # The greatest part of a start is imports, which go on meanwhile.
        from ita_ag_oase.agent import lifecycle  # noqa: F401

        configuration = reader.configuration()
    console = _console(configuration.language)
    return _guarded(lambda: _serve(configuration, console), console, Text("the agent cannot go on: {error}"))


def _command(given: Sequence[str] | None) -> int:
    from ita_ag_oase import arguments, environment

    _prepare()
    console = _console(environment.find_language())
    options = arguments.read(given)
    if options.command == "demo":
        from ita_ag_oase.demo.show import show

        return show(console, seconds=options.seconds)
    if options.command in ("check", "fetch"):
        return _guarded(lambda: _printing(lambda: _look_outside(options, console), console), console)
    if options.command in ("verify", "outbox", "explain", "status"):
        return _guarded(lambda: _look_after(options, console), console)
    # Asked for in a way that argparse alone understands, as `--` is for some of its versions.
    return _run()


def _console(spoken: str) -> "Console":
    """Return the streams in the person's language, which argparse speaks from now on, too."""
    from ita_ag_oase import settings
    from ita_ag_oase.commands.console import Console
    from ita_ag_oase.observability import language
    from ita_ag_oase.observability.logs import Redactor

    settings.hand_on_language(spoken)
    language.make_default()
    has_colours = None if settings.wants_colours() else False
    return Console(language.translations(spoken), Redactor(), has_colours=has_colours)


def _guarded(command: Callable[[], int], console: "Console", failed: Text | None = None) -> int:
    """Return a command's exit code; what keeps it from its work is told on stderr, as `failed` words it."""
    from ita_ag_oase.errors import AgentError, ConfigError

    try:
        return command()
    except ConfigError as err:
        for variable, what_to_do in err.problems:
            console.warn(Text("{variable} {what_to_do}", variable=variable, what_to_do=what_to_do))
        return 2
    except AgentError as err:
        console.warn(failed.about(error=err) if failed else err)
        return 1


def _serve(configuration: Configuration, console: "Console") -> int:
    import asyncio

    from ita_ag_oase import clock
    from ita_ag_oase.agent import lifecycle
    from ita_ag_oase.observability.logs import configure
    from ita_ag_oase.settings import wants_colours

    settings = _used(configuration.settings(), console)
    configure(
        level=settings.log_level,
        zone=clock.zone(settings.tz),
        redactor=console.redactor,
        translations=console.translations,
        wants_colours=wants_colours(),
    )
    lifecycle.tell_adjustments(settings)
    asyncio.run(lifecycle.run(settings, console.redactor))
    return 0


def _look_after(options: "argparse.Namespace", console: "Console") -> int:
    settings = None if options.store else _configured(console)
    return _printing(lambda: _looked_after(options, settings, console), console)


def _look_outside(options: "argparse.Namespace", console: "Console") -> int:
    if options.command == "check":
        from ita_ag_oase.commands.check import check

        return check(console, options.names, as_json=options.json)
    from ita_ag_oase.commands.fetch import Wish, fetch

    limit = None if options.all else options.events
    wish = Wish(options.name, uses_known=options.known, since=options.since, shown_events=limit)
    return fetch(console, _configured(console), wish, as_json=options.json)


def _printing(command: Callable[[], int], console: "Console") -> int:
    """Return the exit code of a command that prints; one that cannot has failed."""
    # These end as other commands do, by Ctrl-C, too; a transaction is whole or not at all.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    try:
        code = command()
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        # Likewise by `| head`. Not before: a source that breaks a connection would end the command, too.
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        signal.raise_signal(signal.SIGPIPE)
        raise
    except OSError as err:
        # The store's own have become errors of ours.
        _give_stdout_up()
        console.warn(Text("stdout cannot be written ({error}): send what is printed elsewhere", error=err.strerror))
        return 1
    return code


def _give_stdout_up() -> None:
    """Let what could not be written not be tried again at the end, which would be a traceback."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _looked_after(options: "argparse.Namespace", settings: "Settings | None", console: "Console") -> int:
    path = settings.store_path if settings else options.store
    if options.command == "verify":
        from ita_ag_oase.commands.verify import verify

        return verify(console, path, as_json=options.json)
    if options.command == "explain":
        from ita_ag_oase.commands.explain import explain

        return explain(console, path, options.id, setting_name=options.setting, as_json=options.json)
    if options.command == "status":
        from ita_ag_oase.commands.status import show

        return show(console, path, settings, as_json=options.json)
    return _look_after_outbox(options, path, console)


def _configured(console: "Console") -> "Settings":
    from ita_ag_oase.environment import load

    return _used(load(), console)


def _used(settings: "Settings", console: "Console") -> "Settings":
    """Return the configuration; its secrets are shown nowhere from now on."""
    from ita_ag_oase import clock

    for secret in settings.secrets:
        console.redactor.add(secret)
    console.zone = clock.zone(settings.tz)
    return settings


def _look_after_outbox(options: "argparse.Namespace", path: "Path", console: "Console") -> int:
    from ita_ag_oase.commands import outbox

    if options.action == "list":
        listing = outbox.list_groups if options.keys else outbox.list_settings
        return listing(console, path, as_json=options.json)
    choice = _choice(options)
    if options.action == "show":
        return outbox.show(console, path, choice, shows_all=options.all, as_json=options.json)
    if options.action == "retry":
        return outbox.retry(console, path, choice, as_json=options.json)
    if options.action == "drop":
        return outbox.drop(console, path, choice, is_sure=options.yes, as_json=options.json)
    return outbox.export(console, path, options.file, choice, overwrites=options.force)


def _choice(options: "argparse.Namespace") -> "GroupChoice":
    from ita_ag_oase.model import GroupChoice, GroupState

    given = vars(options)
    states = {GroupState.PARKED}
    if given.get("waiting"):
        states.add(GroupState.WAITING)
    if options.action == "show" or (given.get("waiting") and options.action == "export"):
        states.update(GroupState)
    return GroupChoice(
        states=frozenset(states),
        keys=frozenset(given.get("key", ())),
        setting_name=given.get("setting"),
        reason=given.get("reason"),
    )


def _prepare() -> None:
    _give_memory_back()
    _show_every_character()


def _give_memory_back() -> None:
    """Let what a large answer took go back to the system once it is done with, where the C library is glibc.

    Left to itself, glibc learns from the first large block that is freed to keep such blocks (mallopt(3)).
    """
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _OWN_MAPPING_BYTES)


def _show_every_character() -> None:
    """Let a word that a stream's encoding has no characters for be shown all the same."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _end_at_once(_number: int, _frame: object) -> NoReturn:
    sys.exit(0)
