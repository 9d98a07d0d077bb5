"""What the coordinator may do at which point, and when a sweep passes."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from chaos.sweep.endings import Ending, UnknownEnding, allowed, ending
from chaos.sweep.points import Choice, Fault, Point, Series, Stage
from chaos.sweep.report import findings, show
from chaos.sweep.series import SeriesResult, Swept, Wish
from chaos.sweep.strikes import Strike

KILLS = Series(Stage.WORK, "fdatasync", Fault.KILL)
KILLED = Strike(Point(KILLS, 1), True, Ending.KILLED)
PAST = Strike(Point(KILLS, 2), False, Ending.SURVIVED)
DONE = SeriesResult(KILLS, 1, [KILLED, PAST], complete=True)


def swept(*results: SeriesResult) -> Swept:
    return Swept(results=[*results])


@pytest.mark.parametrize(
    ("code", "meaning"),
    [
        (-9, Ending.KILLED),
        (70, Ending.FATAL),
        (1, Ending.REFUSED),
        (0, Ending.STOPPED),
        (None, Ending.SURVIVED),
    ],
)
def test_an_exit_code_tells_how_it_ended(code: int | None, meaning: Ending) -> None:
    assert ending(code) is meaning


@pytest.mark.parametrize("code", [-6, -11, 2, 125])
def test_an_exit_code_that_is_not_documented_is_a_defect(code: int) -> None:
    with pytest.raises(UnknownEnding):
        ending(code)


@pytest.mark.parametrize("fault", [Fault.EIO, Fault.ENOSPC])
@pytest.mark.parametrize("stage", [Stage.REGISTER, Stage.WORK, Stage.CHECKPOINT])
def test_a_force_that_fails_is_fatal_whatever_the_reason(stage: Stage, fault: Fault) -> None:
    assert allowed(Point(Series(stage, "fdatasync", fault), 1)) == {Ending.FATAL}


@pytest.mark.parametrize("stage", [Stage.CREATE, Stage.OPEN, Stage.REOPEN])
def test_a_force_that_fails_at_the_start_keeps_it_from_starting(stage: Stage) -> None:
    assert allowed(Point(Series(stage, "fdatasync", Fault.EIO), 1)) == {Ending.REFUSED}


def test_sqlites_own_force_of_the_folder_may_fail_for_the_coordinator_forces_it_too() -> None:
    sqlites, ours = (Point(Series(Stage.REOPEN, call, Fault.EIO), 1) for call in ("fdatasync", "fsync"))
    assert allowed(sqlites, on_folder=True) == {Ending.REFUSED, Ending.SURVIVED}
    assert allowed(ours, on_folder=True) == {Ending.REFUSED}


def test_a_write_that_finds_no_space_may_be_refused_and_survived() -> None:
    assert allowed(Point(Series(Stage.WORK, "pwrite64", Fault.ENOSPC), 1)) == {Ending.FATAL, Ending.SURVIVED}


def test_a_write_that_fails_otherwise_is_fatal() -> None:
    assert allowed(Point(Series(Stage.WORK, "pwrite64", Fault.EIO), 1)) == {Ending.FATAL}


def test_tidying_up_at_a_stop_may_fail_for_all_was_durable_before() -> None:
    assert allowed(Point(Series(Stage.STOP, "fdatasync", Fault.EIO), 1)) == {Ending.STOPPED, Ending.FATAL}


def test_a_sweep_passes_when_all_is_well_and_each_series_of_kills_ended_past_its_last_call() -> None:
    assert findings(swept(DONE), Wish()) == []


def test_a_problem_at_a_point_fails_it_and_names_the_point() -> None:
    wrong = replace(KILLED, problems=("money is conserved: 5 cents more",))
    assert findings(swept(replace(DONE, strikes=[wrong, PAST])), Wish()) == [
        "work:fdatasync:kill:1: money is conserved: 5 cents more"
    ]


def test_a_series_of_kills_that_was_struck_to_its_end_may_have_missed_a_call() -> None:
    (words,) = findings(swept(replace(DONE, strikes=[KILLED], complete=False)), Wish())
    assert "there may be more calls" in words


@pytest.mark.parametrize("wish", [Wish(quick=True), Wish(choice=Choice.parse("work:fdatasync:kill:1"))])
def test_who_asks_for_some_points_only_is_not_told_that_others_are_missing(wish: Wish) -> None:
    assert findings(swept(replace(DONE, strikes=[KILLED], complete=False)), wish) == []


def test_a_series_that_was_never_struck_although_calls_were_counted_is_a_finding() -> None:
    (words,) = findings(swept(replace(DONE, strikes=[PAST])), Wish())
    assert "never struck" in words


def test_a_sweep_of_nothing_does_not_pass() -> None:
    assert findings(swept(), Wish()) != []


def test_the_report_counts_what_was_struck_and_says_the_verdict() -> None:
    page = io.StringIO()
    passed = show(Console(file=page, width=120), replace(swept(DONE), restarts=4, asked=9, acknowledged=7), Wish(), 90)
    text = page.getvalue()
    assert passed
    for words in ("1 crash points struck (killed 1)", "4 starts", "9 transactions", "7 acknowledged", "verdict: pass"):
        assert words in text


def test_the_report_of_a_failed_sweep_says_what_was_found() -> None:
    page = io.StringIO()
    wrong = replace(KILLED, problems=("branches are still in doubt",))
    assert not show(Console(file=page, width=120), swept(replace(DONE, strikes=[wrong])), Wish(), 90)
    assert "work:fdatasync:kill:1: branches are still in doubt" in page.getvalue()
    assert "verdict: FAIL" in page.getvalue()
