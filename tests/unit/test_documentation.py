"""The documents against the code: variables, links, commands, files and floors that they name."""

import re
import tomllib
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any

import pytest

from ita_ag_oase import __version__, arguments
from ita_ag_oase.environment import Environment
from ita_ag_oase.errors import Reason
from ita_ag_oase.events import extract
from ita_ag_oase.observability.metrics import INSTRUMENTS
from ita_ag_oase.settings import ACCEPTED_WITHOUT_EFFECT, RANGES, Variables
from manual import examples

ROOT = Path(__file__).parents[2]
FIELDS = {field.name: field for field in sorted(fields(Variables), key=lambda field: field.name)}

Row = dict[str, str]


def _files() -> Iterator[Path]:
    """Return the project's own files: nothing hidden, nothing built."""
    for top in sorted(ROOT.iterdir()):
        if top.name.startswith(".") or top.name in ("build", "dist"):
            continue
        found = top.rglob("*") if top.is_dir() else [top]
        yield from (path for path in found if path.is_file() and not _is_cache(path.relative_to(ROOT)))


def _is_cache(path: Path) -> bool:
    return any(part.startswith((".", "__pycache__")) for part in path.parts[:-1])


FILES = sorted(path.relative_to(ROOT).as_posix() for path in _files())
DOCUMENTS = [name for name in FILES if name.endswith(".md")]
# Each page in English and in Japanese.
PAIRS = [
    ("README.md", "README.ja.md"),
    *((name.replace("docs/ja/", "docs/"), name) for name in DOCUMENTS if name.startswith("docs/ja/")),
]
# What the test reads of the Japanese page of the configuration.
_ENGLISH = {
    "変数": "Variable",
    "既定値": "Default",
    "単位": "Unit",
    "範囲": "Range",
    "説明": "Rule",
    "必須": "required",
    "なし": "none",
}


def _text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def _tables(text: str) -> Iterator[list[Row]]:
    """Return each table as its rows, by the names of the columns."""
    for block in re.findall(r"(?:^ *\|.*\n)+", text, re.MULTILINE):
        head, _, *rows = block.splitlines()
        yield [dict(zip(_cells(head), _cells(row), strict=True)) for row in rows]


def _fences(text: str, language: str) -> list[str]:
    return [example.text for example in examples(text) if re.fullmatch(language, example.language)]


def _without_fences(text: str) -> str:
    return re.sub(r"^ *```.*?^ *```", "", text, flags=re.MULTILINE | re.DOTALL)


def _code(text: str) -> list[str]:
    """Return what stands in fences and between backticks."""
    return [*_fences(text, r"\w*"), *re.findall(r"`([^`\n]+)`", _without_fences(text))]


def _bare(cell: str) -> str:
    return cell.strip("`")


def _in_english(row: Row) -> Row:
    return {_ENGLISH.get(name, name): _ENGLISH.get(cell, cell).replace("～", " to ") for name, cell in row.items()}


def _rows(page: str, *, has_default: bool) -> dict[str, Row]:
    """Return the rows of a page's tables of variables, by variable, with the words of the English page."""
    rows = [_in_english(row) for rows in _tables(_text(page)) for row in rows]
    return {_bare(row["Variable"]): row for row in rows if "Variable" in row and ("Default" in row) == has_default}


CONFIGURATIONS = ("docs/configuration.md", "docs/ja/configuration.md")
SETTINGS_ROWS = {page: _rows(page, has_default=True) for page in CONFIGURATIONS}
OTHER_ROWS = {page: _rows(page, has_default=False) for page in CONFIGURATIONS}


def _default(field: Field[Any]) -> str:
    if field.default is MISSING:
        return "required"
    if field.default is None:
        return "none"
    return str(field.default).lower() if isinstance(field.default, bool) else str(field.default)


@pytest.mark.parametrize("page", CONFIGURATIONS)
def test_the_variables_of_the_tables_are_those_of_the_settings(page: str) -> None:
    assert sorted(SETTINGS_ROWS[page]) == sorted(name.upper() for name in FIELDS)


@pytest.mark.parametrize("page", CONFIGURATIONS)
@pytest.mark.parametrize("name", FIELDS)
def test_documented_default_and_range_are_those_of_the_code(name: str, page: str) -> None:
    row = SETTINGS_ROWS[page][name.upper()]
    limits = RANGES.get(name)
    documented = (_bare(row["Default"]), row["Range"])
    assert documented == (_default(FIELDS[name]), f"{limits[0]} to {limits[1]}" if limits else "")


@pytest.mark.parametrize("page", CONFIGURATIONS)
@pytest.mark.parametrize("name", FIELDS)
def test_every_setting_has_a_rule(name: str, page: str) -> None:
    assert SETTINGS_ROWS[page][name.upper()]["Rule"] != ""


@pytest.mark.parametrize("page", CONFIGURATIONS)
@pytest.mark.parametrize("variable", [*ACCEPTED_WITHOUT_EFFECT, "ENVFILEPATH", "NO_COLOR"])
def test_a_variable_that_is_no_setting_is_documented(variable: str, page: str) -> None:
    assert OTHER_ROWS[page][variable]["Rule"] != ""


@pytest.mark.parametrize("page", CONFIGURATIONS)
def test_no_variable_is_documented_as_ignored_and_as_a_setting(page: str) -> None:
    assert OTHER_ROWS[page].keys() & SETTINGS_ROWS[page].keys() == set()


def _headings(text: str) -> list[str]:
    return re.findall(r"^(#+) ", _without_fences(text), re.MULTILINE)


def _terms(cell: str) -> list[str]:
    """Return what no translation changes: code, names of columns and signals, message codes and statuses."""
    return sorted(re.findall(r"`[^`]+`|\b[A-Z][A-Z0-9_-]{2,}\b|\b[0-9]{3}\b", cell, re.ASCII))


def _table_terms(text: str) -> list[list[tuple[list[str], set[str]]]]:
    """Return of each table's rows the terms of the first cell, and all code."""
    rows_of_tables = [[list(row.values()) for row in rows] for rows in _tables(_without_fences(text))]
    return [[(_terms(row[0]), set(re.findall(r"`[^`]+`", " ".join(row)))) for row in rows] for rows in rows_of_tables]


@pytest.mark.parametrize(("english", "japanese"), PAIRS)
def test_both_languages_have_the_same_headings(english: str, japanese: str) -> None:
    assert _headings(_text(japanese)) == _headings(_text(english))


@pytest.mark.parametrize(("english", "japanese"), PAIRS)
def test_both_languages_have_the_same_examples(english: str, japanese: str) -> None:
    assert _fences(_text(japanese), r"\w*") == _fences(_text(english), r"\w*")


@pytest.mark.parametrize(("english", "japanese"), PAIRS)
def test_both_languages_have_the_same_tables(english: str, japanese: str) -> None:
    assert _table_terms(_text(japanese)) == _table_terms(_text(english))


@pytest.mark.parametrize(("english", "japanese"), PAIRS)
def test_each_language_leads_to_the_other(english: str, japanese: str) -> None:
    there = japanese.removeprefix("docs/")
    back = f"../{english.removeprefix('docs/')}" if "/" in english else english
    assert _text(english).splitlines()[2] == f"English | [日本語]({there})"
    assert _text(japanese).splitlines()[2] == f"[English]({back}) | 日本語"


def _anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _links() -> list[tuple[str, str]]:
    found = []
    for document in DOCUMENTS:
        prose = _without_fences(_text(document))
        targets = re.findall(r"\]\(<?([^)\s>]+)", prose) + re.findall(r"^\[[^\]]+\]:\s*(\S+)", prose, re.MULTILINE)
        found += [(document, target) for target in targets if not re.match(r"[a-z]+:", target)]
    return found


LINKS = _links()


@pytest.mark.parametrize(("document", "target"), LINKS, ids=[f"{document}->{target}" for document, target in LINKS])
def test_a_link_leads_somewhere(document: str, target: str) -> None:
    path, _, anchor = target.partition("#")
    file = (ROOT / document).parent / path if path else ROOT / document
    assert file.exists()
    if anchor:
        assert anchor in _anchors(file.read_text(encoding="utf-8"))


def test_every_page_is_linked_from_another() -> None:
    linked = {((ROOT / document).parent / target.partition("#")[0]).resolve() for document, target in LINKS}
    pages = {(ROOT / name).resolve() for name in DOCUMENTS if name.startswith("docs/")}
    assert pages - linked == set()


def _targets() -> set[str]:
    return set(re.findall(r"^([a-z][a-z-]*):(?!=)", _text("Makefile"), re.MULTILINE))


def _make_commands(document: str) -> set[str]:
    words = r"\bmake((?: +[A-Z]+=\S+)*) +([a-z][a-z-]*)"
    return {target for code in _code(_text(document)) for _, target in re.findall(words, code)}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_make_commands_of_a_document_are_targets(document: str) -> None:
    assert _make_commands(document) - _targets() == set()


def test_readme_names_the_two_commands() -> None:
    assert {"demo", "test"} <= _make_commands("README.md")


def test_contributing_names_every_target() -> None:
    assert _targets() - _make_commands("CONTRIBUTING.md") == set()


@pytest.mark.parametrize("document", DOCUMENTS)
def test_files_named_in_a_document_exist(document: str) -> None:
    named = {code for code in _code(_text(document)) if re.fullmatch(r"[\w./-]+\.(py|sql|toml|txt|jsonl)", code)}
    assert {name for name in named if not any(f"/{file}".endswith(f"/{name}") for file in FILES)} == set()


@pytest.mark.parametrize("named", sorted(set(re.findall(r"`(tests/[\w/]+\.py::\w+)`", _text("docs/reliability.md")))))
def test_a_test_that_holds_a_promise_exists(named: str) -> None:
    file, _, name = named.partition("::")
    assert re.search(rf"^ *(?:async def|def|class) {name}\b", _text(file), re.MULTILINE)


def test_floors_of_the_architecture_are_those_of_the_import_rule() -> None:
    contracts = tomllib.loads(_text("pyproject.toml"))["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    floors = next(rows for rows in _tables(_text("ARCHITECTURE.md")) if "Floor" in rows[0])
    assert [set(re.findall(r"`(\w+)`", row["Modules"])) for row in floors] == [
        set(re.findall(r"\w+", layer)) for layer in layers
    ]
    assert [int(row["Floor"]) for row in floors] == list(range(len(layers)))[::-1]


def _smallest_configuration() -> str:
    (example,) = _fences(_text("README.md"), "dotenv")
    return example


def test_smallest_configuration_of_the_readme_is_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in FIELDS:
        monkeypatch.delenv(name.upper(), raising=False)
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "example.env").write_text(_smallest_configuration(), encoding="utf-8")
    assert Environment(_env_file=tmp_path / "example.env").model_fields_set == {
        "exastro_url",
        "exastro_organization_id",
        "exastro_workspace_id",
        "exastro_refresh_token",
        "event_collection_settings_names",
        "storagepath",
    }


def test_smallest_configuration_of_the_readme_names_known_variables_only() -> None:
    named = re.findall(r"^(\w+)=", _smallest_configuration(), re.MULTILINE)
    assert set(named) - SETTINGS_ROWS["docs/configuration.md"].keys() == set()


@pytest.mark.parametrize("start", ["agent/bin/ita-ag-oase", "agent/bin/python -m ita_ag_oase"])
def test_readme_starts_the_agent(start: str) -> None:
    assert start in [line for block in _fences(_text("README.md"), "sh") for line in block.splitlines()]


def _own_commands() -> list[str]:
    codes = [code for document in DOCUMENTS for code in _code(_text(document))]
    return sorted({code for code in codes if code.startswith("ita-ag-oase ")})


@pytest.mark.parametrize("command", _own_commands())
def test_a_command_of_the_documents_is_understood(command: str) -> None:
    assert arguments.make_parser().parse_args(command.split()[1:]).command == command.split()[1]


def test_troubleshooting_knows_every_reason_of_a_failure() -> None:
    page = _text("docs/troubleshooting.md")
    # The first is told on stderr, the second as the reason of what is parked.
    told_otherwise = {Reason.CONFIGURATION, Reason.REFUSED}
    assert {reason for reason in Reason if f"`{reason}`" not in page} == told_otherwise


def test_troubleshooting_knows_every_reason_why_an_event_is_unusable() -> None:
    labels = next(rows for rows in _tables(_text("docs/troubleshooting.md")) if "Label" in rows[0])
    assert {_bare(row["Label"]) for row in labels} == {
        *(extract.KEY_NOT_FOUND, extract.NO_CONTAINER, extract.NO_OBJECT),
        *(extract.IS_A_LIST, extract.IS_NO_LIST, extract.ID_NOT_FOUND),
    }


def _metrics(page: str, head: str) -> list[Row]:
    return next(rows for rows in _tables(_text(page)) if head in rows[0])


def test_the_metrics_of_the_page_are_those_of_the_code() -> None:
    documented = [
        (_bare(row["Name"]), row["Type"], row["Labels"], row["Meaning"])
        for row in _metrics("docs/metrics.md", "Meaning")
    ]
    assert documented == [
        (metric.name, metric.kind, ", ".join(f"`{label}`" for label in metric.labels), metric.help)
        for metric in INSTRUMENTS
    ]


def test_the_japanese_page_has_the_same_metrics() -> None:
    english = _metrics("docs/metrics.md", "Meaning")
    japanese = _metrics("docs/ja/metrics.md", "意味")
    assert [(row["名前"], row["種類"], row["ラベル"]) for row in japanese] == [
        (row["Name"], row["Type"], row["Labels"]) for row in english
    ]
    assert [bool(row["単位"]) for row in japanese] == [bool(row["Unit"]) for row in english]
    assert [row["名前"] for row in japanese if not row["意味"]] == []


def test_changelog_begins_with_the_version_of_the_package() -> None:
    versions = re.findall(r"^## (\S+)", _text("CHANGELOG.md"), re.MULTILINE)
    assert versions[0] == __version__
