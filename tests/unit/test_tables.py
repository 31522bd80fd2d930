"""Tables for people."""

import pytest

from ita_ag_oase.commands.tables import printable, table


def test_numbers_stand_to_the_right_and_text_to_the_left() -> None:
    assert table(("name", "events", "note"), [("a", 1, "x"), ("longer", 1_000, "")]).splitlines() == [
        "name    events  note",
        "a            1  x",
        "longer    1000",
    ]


def test_numbers_stand_to_the_right_also_where_some_are_missing() -> None:
    assert table(("name", "events"), [("a", 1), ("b", ""), ("c", 1_000)]).splitlines() == [
        "name  events",
        "a          1",
        "b",
        "c       1000",
    ]


def test_east_asian_characters_take_two_columns() -> None:
    assert table(("setting", "n"), [("監視設定", 1), ("alarms", 2)]).splitlines() == [
        "setting   n",
        "監視設定  1",
        "alarms    2",
    ]


def test_marks_on_a_character_take_no_column() -> None:
    assert table(("setting", "n"), [("か\u3099ラーム", 1), ("監視　設定", 2)]).splitlines() == [
        "setting     n",
        "か\u3099ラーム    1",
        "監視　設定  2",
    ]


def test_a_table_without_rows_is_its_headings() -> None:
    assert table(("setting", "n"), []) == "setting  n"


def test_a_cell_stays_on_its_line() -> None:
    assert table(("reason",), [("a\nb\x1b[2J",)]).splitlines() == ["reason", "a\ufffdb\ufffd[2J"]


@pytest.mark.parametrize("text", ["plain", "監視", "a b", "é", "監視　設定", "a\u00a0b"])
def test_what_can_be_printed_stays(text: str) -> None:
    assert printable(text) == text
