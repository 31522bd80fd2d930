"""The command `ita-ag-oase`: run the agent, show it at work, or look after its store.

Exit codes: 0 ended well, 1 failed, 2 badly called.
"""

import argparse
import asyncio
import contextlib
import ctypes
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
    from ita_ag_oase.observability.logs import Redactor
    from ita_ag_oase.settings import Settings

    _Commands = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001 - argparse has no other name for it

_M_MMAP_THRESHOLD = -3
_OWN_MAPPING_BYTES = 131_072

_EPILOG = """\
examples:
  ita-ag-oase                     run the agent, configured by the environment
  ita-ag-oase demo --seconds 20   show the agent at work, without any configuration
  ita-ag-oase status              show how the agent is doing
  ita-ag-oase explain 4711        show what became of an event, by its id
  ita-ag-oase verify              check the store
  ita-ag-oase outbox              show what waits for delivery and what is parked

Every variable is described in docs/configuration.md.
"""

_OUTBOX_EPILOG = """\
examples:
  ita-ag-oase outbox list --keys
  ita-ag-oase outbox show alarms@1700000000
  ita-ag-oase outbox export parked.jsonl
  ita-ag-oase outbox retry --setting alarms --reason 499-01827
  ita-ag-oase outbox drop alarms@1700000000

KEY is SETTING@FETCHED_TIME, as `list --keys` and the log line batch_parked show them. All of these work while the
agent runs; run them as its user.
"""

_EXPLAIN_EPILOG = Text("""\
examples:
  ita-ag-oase explain 4711
  ita-ag-oase explain "<20261124.1@mail.example>" --setting mails
  ita-ag-oase explain 1700000000123456 --json

ID is the event's id as its source writes it, its _exastro_oase_event_id, or a mail's Message-ID. It works while the
agent runs and while it does not. Exit code 1: nothing is known of such an event.
""")

_STATUS_EPILOG = Text("""\
examples:
  ita-ag-oase status
  ita-ag-oase status --json
  ita-ag-oase status --store /storage/org/ws/sqlite/ag_oase_agent.sqlite3

The agent is asked at STATUS_ADDRESS and STATUS_PORT; with --store, and where it does not answer, its store tells.
Exit code 0: all is well. 1: the agent does not run, or something needs a person: a source or Exastro fails, events are
parked or have waited for long, the store is nearly full, or the ledger does not balance.
""")

_EXPORT = "write parked events to a file, a line of JSON each"
_EXPORT_DESCRIPTION = (
    "Write parked events to a file, a line of JSON each. They are your users' data: the file is made readable for you "
    "alone; keep it so."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    # As process 1 of a container, a program without a handler ignores SIGTERM; this one ends until the agent's own
    # handler takes over.
    signal.signal(signal.SIGTERM, _end_at_once)
    _give_memory_back()
    options = _options(arguments)
    if options.command == "demo":
        from ita_ag_oase.demo.show import show

        return show(seconds=options.seconds)
    if options.command in ("verify", "outbox", "explain", "status"):
        return _guarded(lambda redactor: _look_after(options, redactor))
    return _guarded(_serve, failed="the agent cannot go on: ")


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = _parser()
    options = parser.parse_args(arguments)
    is_sweeping = options.command == "outbox" and options.action in ("retry", "drop")
    if is_sweeping and not (options.key or options.setting or options.reason):
        parser.error(f"outbox {options.action}: name the groups by KEY, --setting NAME or --reason TEXT")
    return options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ita-ag-oase",
        description="The OASE agent of Exastro IT Automation: collects events and delivers each of them once.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    parser.set_defaults(store=None, json=False)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    commands.add_parser("run", help="run the agent until SIGTERM (this is also what no command means)")
    demo = commands.add_parser("demo", help="show the agent at work between an Exastro and four sources on loopback")
    demo.add_argument("--seconds", type=_positive, metavar="N", help="end after N seconds (otherwise with Ctrl-C)")
    where, form = _common_options()
    commands.add_parser("verify", parents=[where, form], help="check the store and the ledger of each setting")
    _add_outbox(commands, where, form)
    _add_explain(commands, where, form)
    _add_status(commands, where, form)
    return parser


def _common_options() -> tuple[argparse.ArgumentParser, argparse.ArgumentParser]:
    where = argparse.ArgumentParser(add_help=False)
    # They stand before an action or after it; a default of the latter would overwrite what came before it.
    unset = argparse.SUPPRESS
    told = "the store's file (otherwise the configuration tells where it is)"
    where.add_argument("--store", type=Path, metavar="PATH", default=unset, help=told)
    form = argparse.ArgumentParser(add_help=False)
    form.add_argument("--json", action="store_true", default=unset, help="print JSON")
    return where, form


def _add_outbox(commands: "_Commands", where: argparse.ArgumentParser, form: argparse.ArgumentParser) -> None:
    outbox = commands.add_parser(
        "outbox",
        parents=[where],
        help="show, retry, drop or export what waits and what is parked",
        epilog=_OUTBOX_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = outbox.add_subparsers(dest="action", metavar="ACTION")
    outbox.set_defaults(action="list", keys=False)
    listing = actions.add_parser("list", parents=[where, form], help="show how much there is (also without ACTION)")
    listing.add_argument("--keys", action="store_true", help="show each group with its KEY")
    showing = actions.add_parser("show", parents=[where, form], help="show a group with its first 10 events")
    showing.add_argument("key", metavar="KEY", nargs=1, type=_key, help="SETTING@FETCHED_TIME")
    showing.add_argument("--all", action="store_true", help="show all events")
    retrying = actions.add_parser("retry", parents=[where, form], help="have parked groups offered to Exastro again")
    dropping = actions.add_parser("drop", parents=[where, form], help="take parked groups out for good")
    dropping.add_argument("--yes", action="store_true", help="do not ask")
    for parser in (retrying, dropping):
        parser.add_argument("key", metavar="KEY", nargs="*", type=_key, help="SETTING@FETCHED_TIME")
    exporting = actions.add_parser("export", parents=[where], help=_EXPORT, description=_EXPORT_DESCRIPTION)
    exporting.add_argument("file", metavar="FILE", help="the file to make; - is stdout")
    exporting.add_argument("--force", action="store_true", help="overwrite a file that is there")
    for parser in (retrying, dropping, exporting):
        parser.add_argument("--setting", metavar="NAME", type=_text, help="only groups of this setting")
        parser.add_argument(
            "--reason", metavar="TEXT", type=_text, help="only groups that are parked for a reason with this text"
        )
    for parser in (dropping, exporting):
        parser.add_argument("--waiting", action="store_true", help="groups that wait for delivery, too")


def _add_explain(commands: "_Commands", where: argparse.ArgumentParser, form: argparse.ArgumentParser) -> None:
    explaining = commands.add_parser(
        "explain",
        parents=[where, form],
        help=str(Text("show the life of an event: when it was seen and offered, and what became of it")),
        epilog=str(_EXPLAIN_EPILOG),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    explaining.add_argument("id", metavar="ID", type=_text, help=str(Text("the event's id")))
    explaining.add_argument(
        "--setting",
        metavar="NAME",
        type=_text,
        help=str(Text("only the event of this setting, where several have one")),
    )


def _add_status(commands: "_Commands", where: argparse.ArgumentParser, form: argparse.ArgumentParser) -> None:
    commands.add_parser(
        "status",
        parents=[where, form],
        help=str(Text("show how the agent is doing, and whether something needs a person")),
        epilog=str(_STATUS_EPILOG),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _key(text: str) -> "GroupKey":
    from ita_ag_oase.model import GroupKey

    name, _, time = text.rpartition("@")
    if not name or not time.isdecimal():
        raise argparse.ArgumentTypeError(
            f"{text!r} is no key: write SETTING@FETCHED_TIME as `outbox list --keys` shows it (what is shown as "
            "SETTING@- has none yet)"
        )
    return GroupKey(name, int(time))


def _text(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as err:
        raise argparse.ArgumentTypeError(f"{text!r} is no text: write it in UTF-8") from err
    return text


def _positive(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 86_400:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number more than 0 and at most 86400")
    return seconds


def _guarded(command: "Callable[[Redactor], int]", *, failed: str = "") -> int:
    """Return a command's exit code; what keeps it from its work is told on stderr, without secrets."""
    from ita_ag_oase.errors import AgentError, ConfigError
    from ita_ag_oase.observability.logs import Redactor

    redactor = Redactor()
    try:
        return command(redactor)
    except ConfigError as err:
        for variable, what_to_do in err.problems:
            print(redactor.redact(f"{variable} {what_to_do}"), file=sys.stderr)
        return 2
    except AgentError as err:
        print(redactor.redact(f"{failed}{err}"), file=sys.stderr)
        return 1


def _serve(redactor: "Redactor") -> int:
    from ita_ag_oase import clock
    from ita_ag_oase.agent import lifecycle
    from ita_ag_oase.observability.logs import configure
    from ita_ag_oase.settings import load

    settings = load()
    for secret in settings.secrets:
        redactor.add(secret)
    configure(level=settings.log_level, zone=clock.zone(settings.tz), redactor=redactor)
    lifecycle.tell_adjustments(settings)
    asyncio.run(lifecycle.run(settings, redactor))
    return 0


def _look_after(options: argparse.Namespace, redactor: "Redactor") -> int:
    # These end as other commands do, by Ctrl-C and by `| head`, too; a transaction is whole or not at all.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A name that the terminal's encoding has no characters for is shown all the same.
        sys.stdout.reconfigure(errors="backslashreplace")
    settings = None if options.store else _configuration(redactor)
    try:
        code = _looked_after(options, settings, redactor)
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as err:
        # The store's own have become errors of ours.
        _give_stdout_up()
        print(f"stdout cannot be written ({err.strerror}): send what is printed elsewhere", file=sys.stderr)
        return 1
    return code


def _give_stdout_up() -> None:
    """Let what could not be written not be tried again at the end, which would be a traceback."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _looked_after(options: argparse.Namespace, settings: "Settings | None", redactor: "Redactor") -> int:
    path = settings.store_path if settings else options.store
    if options.command == "verify":
        from ita_ag_oase.commands.verify import verify

        return verify(path, as_json=options.json)
    if options.command == "explain":
        from ita_ag_oase.commands.explain import explain

        return explain(_console(redactor), path, options.id, setting_name=options.setting, as_json=options.json)
    if options.command == "status":
        from ita_ag_oase.commands.status import show

        return show(_console(redactor), path, settings, as_json=options.json)
    return _look_after_outbox(options, path)


def _console(redactor: "Redactor") -> "Console":
    from ita_ag_oase.commands.console import Console
    from ita_ag_oase.observability.language import translations
    from ita_ag_oase.settings import find_language

    return Console(translations(find_language()), redactor)


def _configuration(redactor: "Redactor") -> "Settings":
    from ita_ag_oase.settings import load

    settings = load()
    for secret in settings.secrets:
        redactor.add(secret)
    return settings


def _look_after_outbox(options: argparse.Namespace, path: Path) -> int:
    from ita_ag_oase.commands import outbox

    if options.action == "list":
        listing = outbox.list_groups if options.keys else outbox.list_settings
        return listing(path, as_json=options.json)
    choice = _choice(options)
    if options.action == "show":
        return outbox.show(path, choice, shows_all=options.all, as_json=options.json)
    if options.action == "retry":
        return outbox.retry(path, choice, as_json=options.json)
    if options.action == "drop":
        return outbox.drop(path, choice, is_sure=options.yes, as_json=options.json)
    return outbox.export(path, options.file, choice, overwrites=options.force)


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


def _end_at_once(_number: int, _frame: object) -> NoReturn:
    sys.exit(0)
