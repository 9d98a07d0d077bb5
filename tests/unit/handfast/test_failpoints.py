"""Failpoints: off by default, exact when armed, and refused when misspelled."""

import os
import signal
from types import ModuleType

import pytest

import coordinator.runtime.failpoints as of_coordinator
import participant.failpoints as of_participant

SIDES = pytest.mark.parametrize("side", [of_coordinator, of_participant], ids=["coordinator", "participant"])


@pytest.fixture
def signals(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The signals that the process sent itself, instead of sending them."""
    sent: list[int] = []

    def note(pid: int, number: int) -> None:
        assert pid == os.getpid()
        sent.append(number)

    monkeypatch.setattr(os, "kill", note)
    return sent


@SIDES
def test_without_the_variable_no_point_does_anything(
    side: ModuleType, signals: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(side.ENVIRONMENT_VARIABLE, raising=False)
    failpoints = side.Failpoints.from_environment()
    for point in side.POINTS:
        failpoints.reach(point)
        assert not failpoints.armed(point)
    assert signals == []


@SIDES
@pytest.mark.parametrize(
    ("spelling", "sent"),
    [
        ("before-prepare", [signal.SIGKILL]),
        ("before-prepare=kill", [signal.SIGKILL]),
        ("before-prepare=stop", [signal.SIGSTOP]),
        ("before-prepare@2", []),
    ],
)
def test_an_armed_point_acts_when_it_is_reached_and_no_other_does(
    side: ModuleType, spelling: str, sent: list[int], signals: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(side.ENVIRONMENT_VARIABLE, spelling)
    failpoints = side.Failpoints.from_environment()
    for point in side.POINTS:
        failpoints.reach(point)
    assert signals == sent


@SIDES
def test_a_count_names_the_visit_that_acts(side: ModuleType, signals: list[int]) -> None:
    failpoints = side.Failpoints("before-prepare=kill@3")
    seen = []
    for _ in range(5):
        seen.append((failpoints.armed("before-prepare"), len(signals)))
        failpoints.reach("before-prepare")
    assert seen == [(False, 0), (False, 0), (True, 0), (False, 1), (False, 1)]


@SIDES
@pytest.mark.parametrize("spelling", ["nowhere", "before-prepare=explode", "before-prepare@0", "before-prepare@", " "])
def test_a_misspelled_point_is_refused_with_what_there_is(side: ModuleType, spelling: str) -> None:
    with pytest.raises(ValueError, match=f"{side.ENVIRONMENT_VARIABLE}=.* names no failpoint; there are: before-"):
        side.Failpoints(spelling)
