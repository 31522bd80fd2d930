"""What can be asked for on the command line, and its help in the language that gettext speaks."""

import argparse
import gettext
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from ita_ag_oase import __version__
from ita_ag_oase.text import Text

if TYPE_CHECKING:
    from ita_ag_oase.model import GroupKey

    _Commands = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001 - argparse has no other name for it

_EPOCH = re.compile(r"\d{1,12}(\.\d+)?", re.ASCII)

_EPILOG = Text("""\
examples:
  ita-ag-oase                     run the agent, configured by the environment
  ita-ag-oase demo --seconds 20   show the agent at work, without any configuration
  ita-ag-oase check               see whether the agent could do its work with its configuration
  ita-ag-oase fetch NAME          poll the source of a setting once and show what happens
  ita-ag-oase status              show how the agent is doing
  ita-ag-oase explain 4711        show what became of an event, by its id
  ita-ag-oase verify              check the store
  ita-ag-oase outbox              show what waits for delivery and what is parked

Every variable is described in docs/configuration.md.
""")

_CHECK_EPILOG = Text("""\
examples:
  ita-ag-oase check                  look at everything
  ita-ag-oase check alarms mails     look at these settings only
  ita-ag-oase check --json

It can be used before the agent is started and beside it: it sends no event and saves nothing, but for a refresh token
that Exastro gives in exchange for the kept one. The exit code is 1 where something has failed; warnings leave it at 0.
""")

_FETCH_EPILOG = Text("""\
examples:
  ita-ag-oase fetch alarms                         ask from where the agent would ask next
  ita-ag-oase fetch alarms --since 2026-01-31T09:00
  ita-ag-oase fetch alarms --events 10 --json

Nothing is saved: the next poll of the agent gets the same. Secrets are hidden; the events are your users' data.
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
parked or have waited for long, a source lags, the store is nearly full, or the ledger does not balance.
""")

_EXPORT = Text("write parked events to a file, a line of JSON each")
_EXPORT_DESCRIPTION = Text(
    "Write parked events to a file, a line of JSON each. They are your users' data: the file is made readable for you "
    "alone; keep it so."
)


def read(given: Sequence[str] | None) -> argparse.Namespace:
    """Return what was asked for; end the process with code 2, and words on stderr, where that is unclear."""
    parser = make_parser()
    options = parser.parse_args(given)
    is_sweeping = options.command == "outbox" and options.action in ("retry", "drop")
    if is_sweeping and not (options.key or options.setting or options.reason):
        what = Text("outbox {action}: name the groups by KEY, --setting NAME or --reason TEXT", action=options.action)
        parser.error(_told(what))
    return options


def make_parser() -> argparse.ArgumentParser:
    """Return what reads a command line, with its help."""
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
    _add_check(commands, form)
    _add_fetch(commands, form)
    _add_outbox(commands, where, form)
    _add_explain(commands, where, form)
    _add_status(commands, where, form)
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


def _add_check(commands: "_Commands", form: argparse.ArgumentParser) -> None:
    checking = commands.add_parser(
        "check",
        parents=[form],
        help=_told(Text("see whether the agent could do its work: configuration, store, Exastro, each source, clock")),
        epilog=_told(_CHECK_EPILOG),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = _told(Text("only these settings (otherwise those of EVENT_COLLECTION_SETTINGS_NAMES)"))
    checking.add_argument("names", metavar="NAME", nargs="*", type=_text, help=names)


def _add_fetch(commands: "_Commands", form: argparse.ArgumentParser) -> None:
    fetching = commands.add_parser(
        "fetch",
        parents=[form],
        help=_told(
            Text("poll the source of a setting once and show what was sent, what came, and what would be delivered")
        ),
        epilog=_told(_FETCH_EPILOG),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    fetching.add_argument("name", metavar="NAME", type=_text, help=_told(Text("the name of the setting")))
    shown = fetching.add_mutually_exclusive_group()
    first = _told(Text("show the first N events (otherwise 3)"))
    shown.add_argument("--events", type=_count, metavar="N", default=3, help=first)
    shown.add_argument("--all", action="store_true", help=_told(Text("show all events")))
    known = _told(Text("take the setting as Exastro told it last"))
    fetching.add_argument("--known", action="store_true", help=known)
    since = _told(Text("ask as if the last poll had been then: epoch seconds, or a time such as 2026-01-31T09:00"))
    fetching.add_argument("--since", type=_moment, metavar="TIME", help=since)


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
    _add_triage(actions, where, form)


def _add_triage(actions: "_Commands", where: argparse.ArgumentParser, form: argparse.ArgumentParser) -> None:
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


def _add_explain(commands: "_Commands", where: argparse.ArgumentParser, form: argparse.ArgumentParser) -> None:
    explaining = commands.add_parser(
        "explain",
        parents=[where, form],
        help=_told(Text("show the life of an event: when it was seen and offered, and what became of it")),
        epilog=_told(_EXPLAIN_EPILOG),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    explaining.add_argument("id", metavar="ID", type=_text, help=_told(Text("the event's id")))
    explaining.add_argument(
        "--setting",
        metavar="NAME",
        type=_text,
        help=_told(Text("only the event of this setting, where several have one")),
    )


def _add_status(commands: "_Commands", where: argparse.ArgumentParser, form: argparse.ArgumentParser) -> None:
    commands.add_parser(
        "status",
        parents=[where, form],
        help=_told(Text("show how the agent is doing, and whether something needs a person")),
        epilog=_told(_STATUS_EPILOG),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


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


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        what = Text("{given!r} is no whole number of 0 or more", given=text)
        raise argparse.ArgumentTypeError(_told(what))
    return int(text)


def _moment(text: str) -> datetime:
    """Return a time, aware unless it leaves its zone open."""
    try:
        return datetime.fromtimestamp(float(text), UTC) if _EPOCH.fullmatch(text) else datetime.fromisoformat(text)
    except (ValueError, OverflowError, OSError) as err:
        what = Text("{given!r} is no time: write epoch seconds, or a time such as 2026-01-31T09:00", given=text)
        raise argparse.ArgumentTypeError(_told(what)) from err


def _positive(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 86_400:
        what = Text("{given!r} is not a number more than 0 and at most 86400", given=text)
        raise argparse.ArgumentTypeError(_told(what))
    return seconds


def _told(text: Text) -> str:
    """Return a text as argparse takes it, in the language of gettext, by which argparse itself goes."""
    return text.told(gettext)
