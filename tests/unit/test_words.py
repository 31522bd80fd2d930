"""Ages and sizes for people."""

import pytest

from ita_ag_oase.observability.words import age, distance, size


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0 s"),
        (0, "0 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (3_599, "59 min"),
        (3_600, "1 h"),
        (86_399, "23 h"),
        (86_400, "1 d"),
        (864_000, "10 d"),
        (86_400_000, "1000 d"),
    ],
)
def test_an_age_is_told_in_its_greatest_whole_unit(seconds: float, text: str) -> None:
    assert str(age(seconds)) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(-180.5, "3 min ago"), (0, "0 s ago"), (0.5, "in 0 s"), (7_200, "in 2 h")]
)
def test_a_distance_tells_before_from_after(seconds: float, text: str) -> None:
    assert str(distance(seconds)) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1_023, "1023 B"),
        (1_024, "1.0 KiB"),
        (102_348, "99.9 KiB"),
        (102_349, "100 KiB"),
        (1_048_063, "1,023 KiB"),
        (1_048_064, "1.0 MiB"),
        (1_073_741_824, "1.0 GiB"),
        (5 * 2**50, "5,120 TiB"),
    ],
)
def test_a_size_is_told_in_its_greatest_unit(count: int, text: str) -> None:
    assert size(count) == text
