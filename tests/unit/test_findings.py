"""What check prints: lines in a language and in colours, or JSON, and the exit code."""

import io
import json

import pytest

from ita_ag_oase.commands.console import Console
from ita_ag_oase.commands.findings import Check, Finding, Report, State
from ita_ag_oase.observability.logs import Redactor
from ita_ag_oase.text import Text

_FINE = Finding(Check.CLOCK, "Exastro", State.OK, Text("the clocks agree"))
_DOUBTFUL = Finding(Check.TLS, Text("source"), State.WARNING, Text("it ends in {days} d", days=3), Text("renew it"))
_WRONG = Finding(Check.POLL, "alarms", State.FAILED, Text("no answer from {place}", place="swordfish"))
_LEFT_OUT = Finding(Check.EVENTS, "alarms", State.SKIPPED, Text("its events"))


class _Japanese:
    def gettext(self, message: str, /) -> str:
        return {"failed": "失敗", "no answer from {place}": "{place} から応答がありません"}.get(message, message)

    def ngettext(self, singular: str, plural: str, count: int, /) -> str:
        return plural


def _report(out: io.StringIO, *, as_json: bool = False, has_colours: bool = False) -> Report:
    redactor = Redactor()
    redactor.add("swordfish")
    return Report(Console(_Japanese(), redactor, out=out, has_colours=has_colours), as_json=as_json)


def test_findings_are_lines_that_begin_with_their_state() -> None:
    out = io.StringIO()
    report = _report(out)
    report.add(_FINE, _DOUBTFUL)
    report.add(_WRONG, _LEFT_OUT)
    assert out.getvalue().splitlines() == [
        "ok           Exastro: the clocks agree",
        "warning      source: it ends in 3 d -- renew it",
        "失敗         alarms: ******** から応答がありません",
        "not checked  alarms: its events",
    ]


def test_states_are_painted_where_there_are_colours() -> None:
    out = io.StringIO()
    _report(out, has_colours=True).add(_FINE, _WRONG)
    assert out.getvalue().splitlines() == [
        "\x1b[32mok           \x1b[0mExastro: the clocks agree",
        "\x1b[31m失敗         \x1b[0malarms: ******** から応答がありません",
    ]


def test_json_is_printed_at_the_end() -> None:
    out = io.StringIO()
    report = _report(out, as_json=True)
    report.add(_DOUBTFUL, _WRONG)
    assert out.getvalue() == ""
    report.finish()
    assert json.loads(out.getvalue()) == [
        {
            "check": "tls",
            "subject": "source",
            "state": "warning",
            "message": "it ends in 3 d",
            "action": "renew it",
        },
        {
            "check": "poll",
            "subject": "alarms",
            "state": "failed",
            "message": "******** から応答がありません",
            "action": None,
        },
    ]


@pytest.mark.parametrize(
    ("findings", "code", "sums"),
    [
        ((), 0, "0 ok, 0 to be warned of, 0 failed, 0 not checked"),
        ((_FINE, _DOUBTFUL, _LEFT_OUT), 0, "1 ok, 1 to be warned of, 0 failed, 1 not checked"),
        ((_FINE, _FINE, _WRONG), 1, "2 ok, 0 to be warned of, 1 failed, 0 not checked"),
    ],
    ids=["nothing", "warned", "failed"],
)
def test_exit_code_is_1_where_something_has_failed(findings: tuple[Finding, ...], code: int, sums: str) -> None:
    out = io.StringIO()
    report = _report(out)
    report.add(*findings)
    assert (report.finish(), out.getvalue().splitlines()[-1]) == (code, sums)
