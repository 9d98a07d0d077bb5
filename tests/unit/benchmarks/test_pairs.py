"""A B A B …, and what is made of it."""

import pytest

from benchmarks.pairs import Pair, alternate, percentile, summarize


def test_each_a_is_paired_with_the_b_right_after_it() -> None:
    ran: list[str] = []

    def measure(name: str) -> str:
        ran.append(name)
        return f"{name}{len(ran)}"

    pairs = alternate(lambda: measure("a"), lambda: measure("b"), 3)
    assert ran == ["a", "b"] * 3
    assert pairs == [Pair("a1", "b2"), Pair("a3", "b4"), Pair("a5", "b6")]


def test_no_pairs_are_no_measurement() -> None:
    with pytest.raises(ValueError, match="at least one pair"):
        alternate(lambda: 1, lambda: 2, 0)


def test_the_median_is_the_middle_one_and_ignores_how_far_away_the_others_are() -> None:
    summary = summarize([3.0, 1.0, 900.0])
    assert (summary.median, summary.min, summary.max) == (3.0, 1.0, 900.0)


def test_the_median_of_an_even_number_lies_between_the_two_in_the_middle() -> None:
    assert summarize([4.0, 1.0, 2.0, 8.0]).median == 3.0


def test_a_summary_keeps_the_order_of_the_rounds() -> None:
    assert summarize(iter([2, 3, 1])).values == (2.0, 3.0, 1.0)


def test_of_nothing_there_is_no_summary() -> None:
    with pytest.raises(ValueError, match="nothing was measured"):
        summarize([])


@pytest.mark.parametrize(("percent", "value"), [(50, 50), (99, 99), (100, 100), (0.5, 1), (1, 1), (1.1, 2)])
def test_a_percentile_is_a_value_that_was_measured(percent: float, value: int) -> None:
    assert percentile([*range(100, 0, -1)], percent) == value


@pytest.mark.parametrize(("values", "percent"), [([], 50.0), ([1.0], 0.0), ([1.0], 101.0)])
def test_a_percentile_that_does_not_exist_is_refused(values: list[float], percent: float) -> None:
    with pytest.raises(ValueError, match="percentile"):
        percentile(values, percent)
