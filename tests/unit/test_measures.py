"""Measures of what happens again and again."""

import pytest

from ita_ag_oase.observability.measures import Distribution, Histogram, Throughput


def test_values_are_counted_up_to_each_bound_and_in_all() -> None:
    histogram = Histogram((1.0, 10.0))
    for value in (0.5, 1.0, 1.5, 10.0, 11.0):
        histogram.add(value)
    assert histogram.distribution == Distribution(bounds=(1.0, 10.0), counts=(2, 4, 5), total=24.0)


@pytest.mark.parametrize(
    ("done", "now", "rate"),
    [
        ([], 0.0, None),
        ([(100, 4.0, 0.0)], 0.0, 25.0),
        ([(100, 4.0, 0.0), (50, 2.0, 200.0)], 200.0, 25.0),
        ([(100, 4.0, 0.0), (50, 1.0, 200.0)], 301.0, 50.0),
        ([(100, 4.0, 0.0)], 301.0, None),
        ([(0, 4.0, 0.0)], 0.0, None),
        ([(0, 4.0, 0.0), (100, 0.0, 1.0)], 1.0, 25.0),
    ],
    ids=["nothing", "once", "added up", "older forgotten", "all too old", "in vain", "told in two parts"],
)
def test_throughput_is_that_of_the_last_five_minutes(
    done: list[tuple[float, float, float]], now: float, rate: float | None
) -> None:
    throughput = Throughput()
    for amount, seconds, at in done:
        throughput.add(amount, seconds, now=at)
    assert throughput.per_second(now=now) == rate


def test_throughput_takes_the_same_room_however_much_it_has_seen() -> None:
    throughput = Throughput()
    for second in range(10_000):
        throughput.add(1, 1.0, now=float(second))
    assert (len(throughput._slices), throughput.per_second(now=9_999.0)) == (10, 1.0)
