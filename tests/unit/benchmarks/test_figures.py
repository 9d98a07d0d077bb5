"""What a figure says of itself, in the results and to people."""

import pytest

from benchmarks.figures import AIMS, Figure, is_reached
from benchmarks.pairs import summarize
from benchmarks.report import as_json, reach_words, verdict_words

KEYS = {
    *("oneshot_ratio", "interactive_ratio", "capacity_ratio", "capacity_tps", "coordinator_cpu_us_per_transaction"),
    *("fsyncs_per_transaction", "latency_ratio", "tail_ratio", "recovery_ratio", "open_log_s"),
    *("memory_kib_per_open", "memory_drift", "branches_scaling"),
}


def figure(key: str, *values: float) -> Figure:
    return Figure(key, summarize(values))


def test_there_is_an_aim_for_each_figure_and_no_other() -> None:
    assert AIMS.keys() == KEYS


@pytest.mark.parametrize(
    ("key", "value", "reached"),
    [
        ("oneshot_ratio", 0.75, True),
        ("oneshot_ratio", 0.749, False),
        ("latency_ratio", 2.5, True),
        ("latency_ratio", 2.501, False),
        ("capacity_tps", 1.0, None),
    ],
)
def test_the_limit_itself_is_reached(key: str, value: float, reached: bool | None) -> None:
    assert is_reached(value, AIMS[key]) is reached


def test_the_median_decides_and_not_the_luckiest_pair() -> None:
    assert figure("oneshot_ratio", 0.5, 0.6, 0.9).reached is False


def test_a_figure_that_is_not_reached_is_told_as_such() -> None:
    missed = figure("tail_ratio", 9.0)
    assert "not reached" in verdict_words(missed)
    assert reach_words(missed) == "≤ 4 ×"


def test_the_results_carry_everything_about_a_figure() -> None:
    results = as_json([figure("capacity_ratio", 4.0, 6.0, 5.5)], {"cores": 2}, {"loads": 1})
    told = results["figures"]["capacity_ratio"]
    assert told | {"what": "", "baseline": ""} == {
        "value": 5.5,
        "min": 4.0,
        "max": 6.0,
        "values": [4.0, 6.0, 5.5],
        "reach": 5.0,
        "direction": "at least",
        "reached": True,
        "unit": "×",
        "what": "",
        "baseline": "",
        "note": "",
    }
    assert "empty grpc.aio unary calls" in told["baseline"]
    assert (results["machine"], results["details"]) == ({"cores": 2}, {"loads": 1})
