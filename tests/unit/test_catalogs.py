"""The catalogues: complete, nothing left over, and compiled from what is there."""

import re
import string
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from flit_core.wheel import make_wheel_in

import catalogs
from catalogs import TRANSLATED
from ita_ag_oase.observability.language import translations
from ita_ag_oase.text import Text

_PERCENT = re.compile(r"%(?:\(\w+\))?[sr]")
_JAPANESE = re.compile(r"[\u3040-\u30ff\u4e00-\u9fff]")
# Names, and words that Japanese says with punctuation.
_WITHOUT_JAPANESE = {
    "SETTING@FETCHED_TIME",
    "Exastro",
    "Exastro: {words}",
    "en",
    "{events} in {groups}",
    "{events} of {groups}",
    "{used} of {limit}",
}

LANGUAGES = pytest.mark.parametrize("language", TRANSLATED)


def _forms(text: str | Sequence[str] | None) -> list[str]:
    return [text] if isinstance(text, str) else list(text or [""])


def _placeholders(text: str) -> list[tuple[str, ...]]:
    fields = [part[1:] for part in string.Formatter().parse(text) if part[1] is not None]
    return sorted([tuple(map(str, field)) for field in fields] + [(found,) for found in _PERCENT.findall(text)])


def _pairs(language: str) -> Iterator[tuple[str, str]]:
    """Return each message with its translation, by every form."""
    for message in catalogs.translated(language).values():
        english = _forms(catalogs.message_id(message))[-1]
        yield from ((english, form) for form in _forms(message.string))


@LANGUAGES
def test_the_messages_of_a_catalogue_are_those_of_the_source(language: str) -> None:
    in_source = {message for _, message in catalogs.extracted()}
    in_catalogue = set(catalogs.translated(language))
    assert (in_source - in_catalogue, in_catalogue - in_source) == (set(), set())


@LANGUAGES
def test_every_message_is_translated_and_none_is_fuzzy(language: str) -> None:
    messages = catalogs.translated(language).values()
    assert [message.id for message in messages if message.fuzzy or not catalogs.is_translated(message)] == []


@LANGUAGES
def test_a_translation_has_the_placeholders_of_its_message(language: str) -> None:
    assert [pair for pair in _pairs(language) if _placeholders(pair[0]) != _placeholders(pair[1])] == []


@LANGUAGES
def test_a_translation_ends_as_its_message_does(language: str) -> None:
    def end(text: str) -> str:
        return text[len(text.rstrip()) :]

    assert [pair for pair in _pairs(language) if end(pair[0]) != end(pair[1])] == []


def test_a_message_with_words_is_japanese_in_japanese() -> None:
    untold = {english for english, form in _pairs("ja") if not _JAPANESE.search(form)}
    assert {
        english for english in untold if re.search("[A-Za-z]", re.sub(r"\{.*?\}", "", english))
    } == _WITHOUT_JAPANESE


@LANGUAGES
def test_make_catalogs_would_change_nothing(language: str) -> None:
    catalog = catalogs.made(language)
    assert catalogs.as_po(catalog) == catalogs.path(language, ".po").read_bytes()
    assert catalogs.as_mo(catalog) == catalogs.path(language, ".mo").read_bytes()


def test_texts_are_found_wherever_they_stand(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text(
        'outer = Text("a {b}", b=Text("inner" "most"))\nnumber = counted("one", "{count} ones", count=2)\nText(outer)\n'
    )
    assert list(catalogs.extracted(tmp_path)) == [
        ("module.py", "a {b}"),
        ("module.py", "innermost"),
        ("module.py", ("one", "{count} ones")),
    ]


def test_japanese_is_told_by_the_catalogue() -> None:
    text = Text("{place}: {words}", place="http://source", words=Text("its compression is broken"))
    assert text.told(translations("ja")) == "http://source: 圧縮データが壊れています。"


def test_english_is_told_without_a_catalogue() -> None:
    text = Text("{place}: {words}", place="http://source", words=Text("its compression is broken"))
    assert text.told(translations("en")) == "http://source: its compression is broken"


def test_a_wheel_holds_the_compiled_catalogues(tmp_path: Path) -> None:
    project = Path(__file__).parents[2] / "pyproject.toml"
    wheel = make_wheel_in(project, tmp_path).file
    names = zipfile.ZipFile(wheel).namelist()
    inside = {catalogs.path(language, ".mo").relative_to(catalogs.SOURCE.parent).as_posix() for language in TRANSLATED}
    assert inside - set(names) == set()
