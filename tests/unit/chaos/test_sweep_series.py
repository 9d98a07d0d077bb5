"""How a series goes on, and when it ends."""

from collections.abc import Callable
from typing import Any, cast

import pytest

from chaos.sweep import series as subject
from chaos.sweep.endings import Ending
from chaos.sweep.lane import Lane
from chaos.sweep.points import Fault, Point, Series, Stage
from chaos.sweep.series import TRIES, SeriesResult, Wish
from chaos.sweep.strikes import Strike

KILLS = Series(Stage.WORK, "pwrite64", Fault.KILL)
ERRORS = Series(Stage.WORK, "pwrite64", Fault.EIO)

Outcome = Callable[[int, int], Ending | None]
"""How the run at a number ends, at which try (from 1)."""


async def swept(
    monkeypatch: pytest.MonkeyPatch, series: Series, counted: int, outcome: Outcome
) -> tuple[SeriesResult, list[int]]:
    """Sweep a series whose runs end as told. Returns the result, and the numbers in the order of the runs."""
    struck: list[int] = []

    async def strike(lane: Any, point: Point) -> Strike:
        struck.append(point.number)
        end = outcome(point.number, struck.count(point.number))
        return Strike(point, end is not Ending.SURVIVED, end, () if end else ("it broke off",))

    monkeypatch.setattr(subject, "strike", strike)
    return await subject._swept(cast("Lane", None), series, counted, Wish()), struck


async def test_a_series_of_kills_goes_past_the_count_until_a_run_was_not_struck(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    result, struck = await swept(
        monkeypatch, KILLS, 3, lambda number, _: Ending.KILLED if number < 6 else Ending.SURVIVED
    )
    assert (struck, result.hits, result.complete) == ([1, 2, 3, 4, 5, 6], 5, True)


async def test_errors_strike_what_was_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    result, struck = await swept(monkeypatch, ERRORS, 3, lambda number, _: Ending.FATAL)
    assert (struck, result.hits) == ([1, 2, 3], 3)


async def test_a_call_that_was_counted_and_not_made_is_waited_for_and_the_series_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    late = {(2, number) for number in range(1, TRIES)}
    result, struck = await swept(
        monkeypatch,
        ERRORS,
        3,
        lambda number, number_try: Ending.SURVIVED if (number, number_try) in late else Ending.FATAL,
    )
    assert (struck, result.hits) == ([1, *[2] * TRIES, 3], 3)


async def test_a_call_that_never_comes_up_again_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    result, struck = await swept(
        monkeypatch, ERRORS, 3, lambda number, _: Ending.SURVIVED if number == 2 else Ending.FATAL
    )
    assert (struck, result.hits) == ([1, *[2] * TRIES, 3], 2)


async def test_a_run_that_broke_off_ends_its_series(monkeypatch: pytest.MonkeyPatch) -> None:
    result, struck = await swept(monkeypatch, KILLS, 3, lambda number, _: None if number == 2 else Ending.KILLED)
    assert (struck, result.complete) == ([1, 2], False)
