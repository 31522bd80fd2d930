"""What the command `check` found: one line each, or JSON."""

from collections import Counter
from dataclasses import dataclass
from enum import StrEnum

from ita_ag_oase.commands.console import Colour, Console
from ita_ag_oase.commands.tables import to_width
from ita_ag_oase.text import Text

_STATE_WIDTH = 13


class State(StrEnum):
    """How something that was checked is."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


class Check(StrEnum):
    """What is checked: a closed list."""

    CONFIGURATION = "configuration"
    STORE = "store"
    NAME = "name"
    CONNECTION = "connection"
    TLS = "tls"
    AUTHENTICATION = "authentication"
    RIGHTS = "rights"
    SETTING = "setting"
    TEMPLATE = "template"
    POLL = "poll"
    LOGIN = "login"
    MAILBOX = "mailbox"
    RESPONSE_KEY = "response_key"
    EVENT_IDS = "event_ids"
    EVENTS = "events"
    CLOCK = "clock"
    ELECTION = "election"


@dataclass(frozen=True, slots=True)
class Finding:
    """What was checked on what, how it is, and what a person can do about it, if anything."""

    check: Check
    subject: Text | str
    state: State
    message: Text
    action: Text | None = None


_COLOURS = {
    State.OK: Colour.GOOD,
    State.WARNING: Colour.DOUBTFUL,
    State.FAILED: Colour.BAD,
    State.SKIPPED: Colour.FAINT,
}
_WORDS = {
    State.OK: Text("ok"),
    State.WARNING: Text("warning"),
    State.FAILED: Text("failed"),
    State.SKIPPED: Text("not checked"),
}


class Report:
    """The findings so far; each is printed as it comes, or all as JSON at the end."""

    def __init__(self, console: Console, *, as_json: bool) -> None:
        self._console = console
        self._as_json = as_json
        self._findings: list[Finding] = []

    def add(self, *findings: Finding) -> None:
        """Take findings in."""
        self._findings += findings
        if not self._as_json:
            for finding in findings:
                self._print(finding)

    def finish(self) -> int:
        """Print what is left to print; return 1 where something has failed, else 0."""
        counts = Counter(finding.state for finding in self._findings)
        if self._as_json:
            self._console.json([self._as_object(finding) for finding in self._findings])
        else:
            self._console.say(
                Text(
                    "{ok} ok, {warnings} to be warned of, {failed} failed, {skipped} not checked",
                    ok=counts[State.OK],
                    warnings=counts[State.WARNING],
                    failed=counts[State.FAILED],
                    skipped=counts[State.SKIPPED],
                )
            )
        return 1 if counts[State.FAILED] else 0

    def _print(self, finding: Finding) -> None:
        console, state = self._console, finding.state
        words = Text("{subject}: {message}", subject=finding.subject, message=finding.message)
        if finding.action is not None:
            words = Text("{finding} -- {action}", finding=words, action=finding.action)
        # Padded before it is painted, since colours take no room.
        word = console.painted(to_width(console.told(_WORDS[state]), _STATE_WIDTH), _COLOURS[state])
        console.say_behind(word, words)

    def _as_object(self, finding: Finding) -> dict[str, str | None]:
        told = self._console.told
        return {
            "check": finding.check.value,
            "subject": told(finding.subject),
            "state": finding.state.value,
            "message": told(finding.message),
            "action": told(finding.action) if finding.action else None,
        }
