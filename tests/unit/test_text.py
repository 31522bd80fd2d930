"""Sentences and their facts."""

import pytest

from ita_ag_oase.errors import Reason, SourceUnavailable
from ita_ag_oase.text import Text, counted, shorten, verbatim

_CATALOGUE = {
    "{place}: {why}": "{place}:{why}",
    "no answer": "応答がありません",
    "{count} events": "イベント {count} 件",
}


class _Japanese:
    def gettext(self, message: str, /) -> str:
        return _CATALOGUE.get(message, message)

    def ngettext(self, singular: str, plural: str, count: int, /) -> str:
        return _CATALOGUE.get(plural, plural)


def test_text_is_english_by_itself() -> None:
    assert str(Text("{place}: {why}", place="http://source", why=Text("no answer"))) == "http://source: no answer"


def test_facts_that_are_texts_are_told_in_the_same_language() -> None:
    text = Text("{place}: {why}", place="http://source", why=Text("no answer"))
    assert text.told(_Japanese()) == "http://source:応答がありません"


def test_errors_are_told_in_the_same_language() -> None:
    err = SourceUnavailable(Text("no answer"), reason=Reason.TIMEOUT)
    assert Text("{place}: {why}", place="x", why=err).told(_Japanese()) == "x:応答がありません"
    assert (str(err), err.told(_Japanese())) == ("no answer", "応答がありません")


@pytest.mark.parametrize(("count", "english"), [(0, "0 events"), (1, "1 event"), (2, "2 events")])
def test_counted_text_has_a_form_for_one(count: int, english: str) -> None:
    text = counted("{count} event", "{count} events", count=count)
    assert (str(text), text.told(_Japanese())) == (english, f"イベント {count} 件")


def test_what_others_said_stays_as_it_is() -> None:
    assert verbatim("{no fact} answer").told(_Japanese()) == "{no fact} answer"


def test_texts_are_the_same_when_they_say_the_same() -> None:
    assert Text("{a}", a=1) == Text("{a}").about(a=1)
    assert Text("{a}", a=1) != Text("{a}", a=2)
    assert Text("a") != "a"


@pytest.mark.parametrize(
    ("words", "shortened"), [("", ""), ("12345", "12345"), ("123456", "1234…")], ids=["empty", "fits", "too long"]
)
def test_what_is_too_long_is_shortened_with_a_mark(words: str, shortened: str) -> None:
    assert shorten(words, 5) == shortened
