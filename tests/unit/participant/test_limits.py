"""Limits share one timer: each is told in time and once, and what ended before is told of never."""

import pytest

from participant.limits import Limits
from tests.clock import ManualClock


class HandClock(ManualClock):
    """The participant's contract on a clock that a test moves."""

    monotonic_s = ManualClock.now_s

    def jittered(self, delay_s: float) -> float:
        raise AssertionError("limits know no chance")

    def instance_name(self) -> str:
        raise AssertionError("limits have no name")


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


def test_each_limit_is_told_when_it_is_reached_and_not_before(clock: HandClock) -> None:
    told: list[str] = []
    limits = Limits(clock)
    for name, limit_s in (("long", 60.0), ("short", 1.0), ("middle", 5.0)):
        limits.start(limit_s, lambda name=name: told.append(name))  # type: ignore[misc]  # one for each
    heard = []
    for seconds in (0.9, 0.2, 3.8, 0.2, 54.8, 0.2, 1000.0):
        clock.advance(seconds)
        heard.append(list(told))
        told.clear()
    assert heard == [[], ["short"], [], ["middle"], [], ["long"], []]


def test_a_limit_may_be_given_as_a_moment_and_is_told_among_the_others(clock: HandClock) -> None:
    told: list[str] = []
    limits = Limits(clock)
    clock.advance(100.0)
    limits.start(3.0, lambda: told.append("by its length"))
    limits.start_until(clock.monotonic_s() + 2.0, lambda: told.append("by its moment"))
    clock.advance(1.9)
    assert told == []
    clock.advance(0.2)
    assert told == ["by its moment"]
    clock.advance(1.0)
    assert told == ["by its moment", "by its length"]


def test_a_limit_that_was_ended_is_not_told(clock: HandClock) -> None:
    told: list[str] = []
    limits = Limits(clock)
    ended, kept = limits.start(1.0, lambda: told.append("ended")), limits.start(1.0, lambda: told.append("kept"))
    limits.end(ended)
    limits.end(ended)  # a second time does no harm
    clock.advance(2.0)
    limits.end(kept)
    assert told == ["kept"]


def test_what_one_limit_ends_as_it_is_reached_is_not_told_either(clock: HandClock) -> None:
    told: list[str] = []
    limits = Limits(clock)
    limits.start(1.0, lambda: limits.end(other))
    other = limits.start(1.0, lambda: told.append("other"))
    clock.advance(2.0)
    assert told == []


def test_a_thousand_limits_that_are_ended_in_time_cost_one_timer(clock: HandClock) -> None:
    limits = Limits(clock)
    for _ in range(1000):
        limits.end(limits.start(60.0, lambda: None))
        clock.advance(0.01)
    assert clock.waiting == 1


def test_a_limit_that_is_over_when_it_begins_is_told_soon(clock: HandClock) -> None:
    told: list[str] = []
    Limits(clock).start(-5.0, lambda: told.append("late"))
    assert told == []  # never before the call that began it has returned
    clock.advance(0.01)
    assert told == ["late"]
