"""The command `ita-ag-oase`: run the agent, show it at work, or look after its store.

Exit codes: 0 ended well, 1 failed, 2 badly called.
"""

import argparse
import asyncio
import contextlib
import ctypes
import gettext
import io
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from ita_ag_oase import __version__
from ita_ag_oase.text import Text

if TYPE_CHECKING:
    from ita_ag_oase.commands.console import Console
    from ita_ag_oase.model import GroupChoice, GroupKey
    from ita_ag_oase.settings import Settings

    _Commands = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001 - argparse has no other name for it

_M_MMAP_THRESHOLD = -3
_OWN_MAPPING_BYTES = 131_072

_EPILOG = Text("""\
examples:
  ita-ag-oase                     run the agent, configured by the environment
  ita-ag-oase demo --seconds 20   show the agent at work, without any configuration
  ita-ag-oase verify              check the store
  ita-ag-oase outbox              show what waits for delivery and what is parked

Every variable is described in docs/configuration.md.
""")

_OUTBOX_EPILOG = Text("""\
examples:
  ita-ag-oase outbox list --keys
  ita-ag-oase outbox show alarms@1700000000
  ita-ag-oase outbox export parked.jsonl
  ita-ag-oase outbox retry --setting alarms --reason 499-01827
  ita-ag-oase outbox drop alarms@1700000000

KEY is SETTING@FETCHED_TIME, as `list --keys` and the log line batch_parked show them. All of these work while the
agent runs; run them as its user.
""")

_EXPORT = Text("write parked events to a file, a line of JSON each")
_EXPORT_DESCRIPTION = Text(
    "Write parked events to a file, a line of JSON each. They are your users' data: the file is made readable for you "
    "alone; keep it so."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    # As process 1 of a container, a program without a handler ignores SIGTERM; this one ends until the agent's own
    # handler takes over.
    signal.signal(signal.SIGTERM, _end_at_once)
    _give_memory_back()
    _show_every_character()
    console = _console()
    options = _options(arguments)
    if options.command == "demo":
        from ita_ag_oase.demo.show import show

        return show(console, seconds=options.seconds)
    if options.command in ("verify", "outbox"):
        return _guarded(lambda: _look_after(options, console), console)
    return _guarded(lambda: _serve(console), console, Text("the agent cannot go on: {error}"))


def _console() -> "Console":
    """Return the streams in the person's language, which argparse speaks from now on, too."""
    from ita_ag_oase import settings
    from ita_ag_oase.commands.console import Console
    from ita_ag_oase.observability import language
    from ita_ag_oase.observability.logs import Redactor

    found = settings.find_language()
    settings.hand_on_language(found)
    language.make_default()
    has_colours = None if settings.wants_colours() else False
    return Console(language.translations(found), Redactor(), has_colours=has_colours)


def _told(text: Text) -> str:
    """Return a text as argparse takes it, in the language of gettext, by which argparse itself goes."""
    return text.told(gettext)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = _parser()
    options = parser.parse_args(arguments)
    is_sweeping = options.command == "outbox" and options.action in ("retry", "drop")
    if is_sweeping and not (options.key or options.setting or options.reason):
        what = Text("outbox {action}: name the groups by KEY, --setting NAME or --reason TEXT", action=options.action)
        parser.error(_told(what))
    return options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ita-ag-oase",
        description=_told(
            Text("The OASE agent of Exastro IT Automation: collects events and delivers each of them once.")
        ),
        epilog=_told(_EPILOG),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    version = _told(Text("show the version and exit"))
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}", help=version)
    parser.set_defaults(store=None, json=False)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    commands.add_parser("run", help=_told(Text("run the agent until SIGTERM (this is also what no command means)")))
    demo = commands.add_parser(
        "demo", help=_told(Text("show the agent at work between an Exastro and four sources on loopback"))
    )
    demo.add_argument(
        "--seconds", type=_positive, metavar="N", help=_told(Text("end after N seconds (otherwise with Ctrl-C)"))
    )
    where, form = _common_options()
    commands.add_parser(
        "verify", parents=[where, form], help=_told(Text("check the store and the ledger of each setting"))
    )
    _add_outbox(commands, where, form)
    return parser


def _common_options() -> tuple[argparse.ArgumentParser, argparse.ArgumentParser]:
    where = argparse.ArgumentParser(add_help=False)
    # They stand before an action or after it; a default of the latter would overwrite what came before it.
    unset = argparse.SUPPRESS
    file = _told(Text("the store's file (otherwise the configuration tells where it is)"))
    where.add_argument("--store", type=Path, metavar="PATH", default=unset, help=file)
    form = argparse.ArgumentParser(add_help=False)
    form.add_argument("--json", action="store_true", default=unset, help=_told(Text("print JSON")))
    return where, form


def _add_outbox(commands: "_Commands", where: argparse.ArgumentParser, form: argparse.ArgumentParser) -> None:
    outbox = commands.add_parser(
        "outbox",
        parents=[where],
        help=_told(Text("show, retry, drop or export what waits and what is parked")),
        epilog=_told(_OUTBOX_EPILOG),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = outbox.add_subparsers(dest="action", metavar="ACTION")
    outbox.set_defaults(action="list", keys=False)
    listing = actions.add_parser(
        "list", parents=[where, form], help=_told(Text("show how much there is (also without ACTION)"))
    )
    listing.add_argument("--keys", action="store_true", help=_told(Text("show each group with its KEY")))
    showing = actions.add_parser(
        "show", parents=[where, form], help=_told(Text("show a group with its first 10 events"))
    )
    showing.add_argument("key", metavar="KEY", nargs=1, type=_key, help=_told(Text("SETTING@FETCHED_TIME")))
    showing.add_argument("--all", action="store_true", help=_told(Text("show all events")))
    retrying = actions.add_parser(
        "retry", parents=[where, form], help=_told(Text("have parked groups offered to Exastro again"))
    )
    dropping = actions.add_parser("drop", parents=[where, form], help=_told(Text("take parked groups out for good")))
    dropping.add_argument("--yes", action="store_true", help=_told(Text("do not ask")))
    for parser in (retrying, dropping):
        parser.add_argument("key", metavar="KEY", nargs="*", type=_key, help=_told(Text("SETTING@FETCHED_TIME")))
    exporting = actions.add_parser(
        "export", parents=[where], help=_told(_EXPORT), description=_told(_EXPORT_DESCRIPTION)
    )
    exporting.add_argument("file", metavar="FILE", help=_told(Text("the file to make; - is stdout")))
    exporting.add_argument("--force", action="store_true", help=_told(Text("overwrite a file that is there")))
    for parser in (retrying, dropping, exporting):
        parser.add_argument("--setting", metavar="NAME", type=_text, help=_told(Text("only groups of this setting")))
        parser.add_argument(
            "--reason",
            metavar="TEXT",
            type=_text,
            help=_told(Text("only groups that are parked for a reason with this text")),
        )
    for parser in (dropping, exporting):
        parser.add_argument("--waiting", action="store_true", help=_told(Text("groups that wait for delivery, too")))


def _key(text: str) -> "GroupKey":
    from ita_ag_oase.model import GroupKey

    name, _, time = text.rpartition("@")
    if not name or not time.isdecimal():
        what = Text(
            "{given!r} is no key: write SETTING@FETCHED_TIME as `outbox list --keys` shows it (what is shown as "
            "SETTING@- has none yet)",
            given=text,
        )
        raise argparse.ArgumentTypeError(_told(what))
    return GroupKey(name, int(time))


def _text(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as err:
        what = Text("{given!r} is no text: write it in UTF-8", given=text)
        raise argparse.ArgumentTypeError(_told(what)) from err
    return text


def _positive(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 86_400:
        what = Text("{given!r} is not a number more than 0 and at most 86400", given=text)
        raise argparse.ArgumentTypeError(_told(what))
    return seconds


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


def _serve(console: "Console") -> int:
    from ita_ag_oase import clock
    from ita_ag_oase.agent import lifecycle
    from ita_ag_oase.observability.logs import configure

    settings = _configuration(console)
    configure(level=settings.log_level, zone=clock.zone(settings.tz), redactor=console.redactor)
    lifecycle.tell_adjustments(settings)
    asyncio.run(lifecycle.run(settings, console.redactor))
    return 0


def _look_after(options: argparse.Namespace, console: "Console") -> int:
    # These end as other commands do, by Ctrl-C and by `| head`, too; a transaction is whole or not at all.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    path = options.store or _configuration(console).store_path
    try:
        code = _looked_after(options, path, console)
        if sys.stdout is not None:
            sys.stdout.flush()
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


def _looked_after(options: argparse.Namespace, path: Path, console: "Console") -> int:
    if options.command == "verify":
        from ita_ag_oase.commands.verify import verify

        return verify(console, path, as_json=options.json)
    return _look_after_outbox(options, path, console)


def _configuration(console: "Console") -> "Settings":
    """Return the configuration; its secrets are shown nowhere from now on."""
    from ita_ag_oase.settings import load

    settings = load()
    for secret in settings.secrets:
        console.redactor.add(secret)
    return settings


def _look_after_outbox(options: argparse.Namespace, path: Path, console: "Console") -> int:
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


def _choice(options: argparse.Namespace) -> "GroupChoice":
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


def _give_memory_back() -> None:
    """Let what a large answer took go back to the system once it is done with, where the C library is glibc.

    Left to itself, glibc learns from the first large block that is freed to keep such blocks (mallopt(3)).
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _OWN_MAPPING_BYTES)


def _show_every_character() -> None:
    """Let a word that a stream's encoding has no characters for be shown all the same."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _end_at_once(_number: int, _frame: object) -> NoReturn:
    sys.exit(0)
