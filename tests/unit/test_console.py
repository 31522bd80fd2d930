"""What commands print: told in a language, without secrets, in colours on a terminal only."""

import io

import pytest

from ita_ag_oase.commands.console import Colour, Console
from ita_ag_oase.observability.logs import Redactor
from ita_ag_oase.text import Text


class _Japanese:
    def gettext(self, message: str, /) -> str:
        return {"state": "状態", "no answer from {place}": "{place} から応答がありません"}.get(message, message)

    def ngettext(self, singular: str, plural: str, count: int, /) -> str:
        return plural


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def redactor() -> Redactor:
    redactor = Redactor()
    redactor.add("swordfish")
    return redactor


def test_texts_are_told_in_the_language_and_without_secrets(redactor: Redactor) -> None:
    out, err = io.StringIO(), io.StringIO()
    console = Console(_Japanese(), redactor, out=out, err=err)
    console.say(Text("no answer from {place}", place="http://swordfish"))
    console.warn("swordfish\x1b[0m")
    console.table((Text("state"), "events"), [(Text("state"), 3)])
    console.json({"swordfish": ["swordfish", 1]})
    assert out.getvalue().splitlines() == [
        "http://******** から応答がありません",
        "状態  events",
        "状態       3",
        '{"********":["********",1]}',
    ]
    assert err.getvalue() == "********\ufffd[0m\n"


@pytest.mark.parametrize(
    ("out", "has_colours", "printed"),
    [
        (io.StringIO(), None, "ok\n"),
        (_Terminal(), None, "\x1b[32mok\x1b[0m\n"),
        (_Terminal(), False, "ok\n"),
        (io.StringIO(), True, "\x1b[32mok\x1b[0m\n"),
    ],
    ids=["file", "terminal", "terminal without colours", "file with colours"],
)
def test_colours_are_for_terminals(
    redactor: Redactor, out: io.StringIO, has_colours: bool | None, printed: str
) -> None:
    Console(_Japanese(), redactor, out=out, has_colours=has_colours).say("ok", colour=Colour.GOOD)
    assert out.getvalue() == printed
