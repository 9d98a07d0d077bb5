"""Deadlines and retries in few timers: never early, never forgotten."""

from __future__ import annotations

import math

import pytest

from coordinator.runtime.backoff import Backoff
from coordinator.runtime.entropy import SeededEntropy
from coordinator.runtime.schedule import Schedule
from tests.clock import ManualClock

TICK_S = 0.01


class Due:
    """A schedule, and what became due when."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.seen: list[tuple[str, float]] = []
        self.schedule: Schedule[str] = Schedule(self.clock, self.on_due, TICK_S)

    def on_due(self, key: str) -> None:
        self.seen.append((key, self.clock.now_s()))

    @property
    def keys(self) -> list[str]:
        return [key for key, _ in self.seen]


@pytest.fixture
def due() -> Due:
    return Due()


def test_a_key_becomes_due_once_and_never_early(due: Due) -> None:
    wanted = {f"k{n}": 1000.0 + n * 0.0137 for n in range(500)}
    for key, due_s in wanted.items():
        due.schedule.add(key, due_s)
    due.clock.advance(60.0)
    assert sorted(due.keys) == sorted(wanted)
    assert all(-1e-9 <= at - wanted[key] <= TICK_S + 1e-9 for key, at in due.seen)


@pytest.mark.parametrize("start_s", [0.0, 0.1 + 0.2, 1e6 / 3, 1e9 / 7])
def test_a_clock_that_stops_exactly_at_a_tick_makes_no_timer_spin(start_s: float) -> None:
    """0.3 / 0.01 is 29.999…: taken for tick 29, a key of tick 30 would be waited for again and again, for no time."""
    clock = ManualClock(start_s)
    seen: list[int] = []
    schedule: Schedule[int] = Schedule(clock, seen.append, TICK_S)
    for n in range(200):
        schedule.add(n, start_s + n * TICK_S)
    jumps = 0
    while len(schedule) and jumps < 1000:
        clock.jump()
        jumps += 1
    assert sorted(seen) == list(range(200))
    assert jumps <= 400


def test_many_keys_share_one_timer(due: Due) -> None:
    for n in range(1000):
        due.schedule.add(f"k{n}", 1010.0 + n)
    assert due.clock.waiting == 1


def test_an_earlier_key_moves_the_timer(due: Due) -> None:
    due.schedule.add("late", 1010.0)
    due.schedule.add("early", 1001.0)
    due.clock.advance(2.0)
    assert due.keys == ["early"]
    due.clock.advance(10.0)
    assert due.keys == ["early", "late"]


def test_a_cancelled_key_is_not_called(due: Due) -> None:
    due.schedule.add("a", 1001.0)
    due.schedule.cancel("a")
    due.schedule.cancel("a")
    due.clock.advance(5.0)
    assert due.keys == []
    assert "a" not in due.schedule


def test_a_key_cancelled_by_another_of_its_tick_is_not_called() -> None:
    clock = ManualClock()
    seen: list[str] = []

    def on_due(key: str) -> None:
        seen.append(key)
        schedule.cancel("b")

    schedule: Schedule[str] = Schedule(clock, on_due, TICK_S)
    schedule.add("a", 1001.0)
    schedule.add("b", 1001.0)
    clock.advance(5.0)
    assert seen == ["a"]


def test_a_callback_that_fails_holds_up_no_other(caplog: pytest.LogCaptureFixture) -> None:
    clock = ManualClock()
    seen: list[str] = []

    def on_due(key: str) -> None:
        if key == "bad":
            raise RuntimeError("a defect")
        seen.append(key)

    schedule: Schedule[str] = Schedule(clock, on_due, TICK_S)
    for key, due_s in (("bad", 1001.0), ("same tick", 1001.0), ("later", 1002.0)):
        schedule.add(key, due_s)
    clock.advance(5.0)
    assert seen == ["same tick", "later"]
    assert "what was due for bad failed" in caplog.text


def test_a_key_that_schedules_itself_again_waits_again() -> None:
    clock = ManualClock()
    seen: list[float] = []

    def on_due(key: str) -> None:
        seen.append(round(clock.now_s(), 2))
        schedule.add(key, clock.now_s() + 1.0)

    schedule: Schedule[str] = Schedule(clock, on_due, TICK_S)
    schedule.add("a", 1001.0)
    clock.advance(3.5)
    assert seen == [1001.0, 1002.0, 1003.0]


def test_adding_a_key_again_moves_it(due: Due) -> None:
    due.schedule.add("a", 1001.0)
    due.schedule.add("a", 1003.0)
    due.clock.advance(2.0)
    assert due.keys == []
    due.clock.advance(2.0)
    assert due.keys == ["a"]


def test_infinity_means_never_and_close_calls_everything_off(due: Due) -> None:
    due.schedule.add("never", math.inf)
    assert len(due.schedule) == 0
    due.schedule.add("a", 1001.0)
    due.schedule.close()
    due.clock.advance(5.0)
    assert due.keys == []
    assert due.clock.waiting == 0


def test_what_is_cancelled_leaves_nothing_behind_when_its_time_has_passed(due: Due) -> None:
    for n in range(1000):
        due.schedule.add(f"k{n}", 1001.0 + n * TICK_S)
        due.schedule.cancel(f"k{n}")
    due.clock.advance(60.0)
    assert (len(due.schedule), due.schedule._ticks, due.schedule._buckets) == (0, [], {})


def test_after_a_pause_everything_that_is_overdue_comes_at_once(due: Due) -> None:
    for n in range(10):
        due.schedule.add(f"k{n}", 1001.0 + n)
    due.clock.pause(3600.0)
    due.clock.jump()
    assert len(due.keys) == 10


def test_backoff_doubles_from_its_base_and_never_passes_its_cap() -> None:
    """dtm 143: with no cap, a participant that was away for three hours waits another hour and a half."""
    backoff = Backoff(0.05, 30.0, SeededEntropy(1))
    for attempts in (1, 2, 3, 8, 10, 11, 50, 1000, 10**9):
        bound_s = min(30.0, 0.05 * 2.0 ** min(attempts - 1, 60))
        waits = [backoff.delay_s(attempts) for _ in range(200)]
        assert bound_s / 2 <= min(waits)
        assert max(waits) < bound_s
        assert len(set(waits)) > 1, "without jitter, everybody comes back at once"
