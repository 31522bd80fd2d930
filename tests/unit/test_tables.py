"""Tables and ages for people."""

import pytest

from ita_ag_oase.commands.tables import age, printable, table


def test_numbers_stand_to_the_right_and_text_to_the_left() -> None:
    assert table(("name", "events", "note"), [("a", 1, "x"), ("longer", 1_000, "")]).splitlines() == [
        "name    events  note",
        "a            1  x",
        "longer    1000",
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


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0 s"),
        (0, "0 s"),
        (59, "59 s"),
        (60, "1 min"),
        (3_599, "59 min"),
        (3_600, "1 h"),
        (86_399, "23 h"),
        (86_400, "1 d"),
        (864_000, "10 d"),
    ],
)
def test_an_age_is_told_in_its_greatest_whole_unit(seconds: int, text: str) -> None:
    assert str(age(seconds)) == text


@pytest.mark.parametrize("text", ["plain", "監視", "a b", "é", "監視　設定", "a\u00a0b"])
def test_what_can_be_printed_stays(text: str) -> None:
    assert printable(text) == text
