"""Which points are swept, and in which order."""

from itertools import islice

import pytest

from chaos.sweep.points import FURTHER_MAX, Choice, Fault, Point, Series, Stage, all_series, applies, numbers
from chaos.sweep.points import planned_series as planned
from chaos.sweep.tracing import CALLS, FORCES, NAMES, SIZES, WRITES
from coordinator.runtime.failpoints import POINTS

KILLS = Series(Stage.WORK, "pwrite64", Fault.KILL)
COUNTS = {Stage.WORK: {"pwrite64": 30, "fdatasync": 4}, Stage.STOP: {"unlink": 2}}


@pytest.mark.parametrize(
    ("fault", "injection"),
    [
        (Fault.KILL, "fdatasync:signal=KILL:when=3"),
        (Fault.KILL_AFTER, "fdatasync:delay_exit=60000000:when=3"),
        (Fault.EIO, "fdatasync:error=EIO:when=3"),
        (Fault.ENOSPC, "fdatasync:error=ENOSPC:when=3"),
    ],
)
def test_a_point_is_told_to_strace(fault: Fault, injection: str) -> None:
    assert Point(Series(Stage.WORK, "fdatasync", fault), 3).injection == injection


def test_every_call_is_struck_by_every_fault_but_a_death_after_a_write_which_is_one_before_the_next() -> None:
    assert {(call, fault) for call in CALLS for fault in Fault if not applies(call, fault)} == {
        (call, Fault.KILL_AFTER) for call in (*WRITES, *SIZES)
    }
    assert {*CALLS} == {*WRITES, *SIZES, *FORCES, *NAMES}


def test_a_series_for_each_call_that_was_counted_the_longest_first() -> None:
    found = all_series(COUNTS, Fault)
    assert [(one.call, one.fault) for one in found[:3]] == [
        ("pwrite64", Fault.KILL),
        ("pwrite64", Fault.EIO),
        ("pwrite64", Fault.ENOSPC),
    ]
    assert len(found) == 3 + 4 + 4


def test_kills_go_on_past_the_count_so_that_only_a_run_that_was_not_struck_ends_them() -> None:
    assert [*numbers(30, KILLS, Choice(), quick=False)] == [*range(1, 30 + FURTHER_MAX + 1)]


@pytest.mark.parametrize("fault", [Fault.EIO, Fault.ENOSPC])
def test_errors_strike_each_call_that_was_counted(fault: Fault) -> None:
    assert [*numbers(30, Series(Stage.WORK, "pwrite64", fault), Choice(), quick=False)] == [*range(1, 31)]


def test_a_quick_sweep_takes_every_fifth_write_and_every_force() -> None:
    assert [*numbers(12, KILLS, Choice(), quick=True)] == [1, 6, 11]
    forces = Series(Stage.WORK, "fdatasync", Fault.EIO)
    assert [*numbers(4, forces, Choice(), quick=True)] == [1, 2, 3, 4]


def test_a_number_that_was_asked_for_is_the_only_one() -> None:
    assert [*numbers(30, KILLS, Choice.parse("work:pwrite64:kill:7"), quick=False)] == [7]


def test_failpoints_are_struck_until_they_are_reached_no_more_for_nothing_counts_them() -> None:
    assert {series.call for series in planned()} == {*POINTS}
    assert [*islice(numbers(0, planned()[0], Choice(), quick=False), 3)] == [1, 2, 3]


@pytest.mark.parametrize(
    ("words", "chosen"),
    [
        ("", [True, True, True]),
        ("work", [True, True, False]),
        ("work:fdatasync", [False, True, False]),
        ("work:pwrite64:kill", [True, False, False]),
        ("work:pwrite64:enospc", [False, False, False]),
    ],
)
def test_a_person_can_choose(words: str, chosen: list[bool]) -> None:
    series = [KILLS, Series(Stage.WORK, "fdatasync", Fault.EIO), Series(Stage.STOP, "pwrite64", Fault.KILL)]
    assert [Choice.parse(words).holds(one) for one in series] == chosen


@pytest.mark.parametrize("words", ["lunch", "work:fdatasync:flood", "work:fdatasync:kill:many", "work:a:kill:1:2"])
def test_a_choice_that_means_nothing_is_refused(words: str) -> None:
    with pytest.raises(ValueError, match=r"work|STAGE"):
        Choice.parse(words)


def test_a_point_is_named_so_that_it_can_be_asked_for_again() -> None:
    point = Point(Series(Stage.REOPEN, "fdatasync", Fault.KILL_AFTER), 4)
    stage, call, fault, number = str(point).split(":")
    assert Choice.parse(str(point)) == Choice(Stage(stage), call, Fault[fault.upper()], int(number))
