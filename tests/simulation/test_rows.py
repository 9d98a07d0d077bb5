"""Transactions that travel together as rows of columns, and are driven as rows of a cohort, in the simulator."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest

from coordinator.protocol.cohort import COMMITTING, OFFERED, VOTING
from coordinator.runtime.in_memory import Finished, Rows
from coordinator.runtime.running import Running
from coordinator.runtime.running_cohort import RunningCohort
from tests.simulation import faults as f
from tests.simulation.workload import ROWS, Piece, Plan, Scenario, Settings, scenario
from tests.simulation.world import Report, run

SEEDS = 150


class Seen:
    """What became of rows while this watched.

    Attributes:
        ended: how many ended as rows together, each time.
        left: how many left, by the stage at which they did.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ended: list[int] = []
        self.left: Counter[int] = Counter()
        keep_rows, out = Finished.keep_rows, RunningCohort._out

        def kept(finished: Finished, gtrids: Sequence[str], rows: Rows) -> None:
            self.ended.append(len(gtrids))
            keep_rows(finished, gtrids, rows)

        def left(cohort: RunningCohort, row: int) -> Running:
            if row not in cohort._left:
                self.left[cohort.cohort.stages[row]] += 1
            return out(cohort, row)

        monkeypatch.setattr(Finished, "keep_rows", kept)
        monkeypatch.setattr(RunningCohort, "_out", left)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    return Seen(monkeypatch)


def three_rows(*faults: f.Fault) -> Report:
    """Run three transfers of one shape that begin together, hurt like this."""
    plans = tuple(
        Plan(
            number=number,
            at_s=0.5,
            one_shot=True,
            pieces=(Piece("accounts", 1, ROWS[number], -5), Piece("ledger", 1, ROWS[number], 5)),
            timeout_s=3.0,
            applied=True,
            ending="commit",
        )
        for number in range(3)
    )
    return run(Scenario(1, Settings(columns=True), plans, faults))


def test_rows_that_nothing_hurts_end_as_rows(seen: Seen) -> None:
    report = three_rows()
    assert (report.violation, set(report.outcomes)) == (None, {"COMMITTED"})
    assert (sum(seen.ended), seen.left.total()) == (3, 0)


@pytest.mark.parametrize("effect", ["lose reply", "break after", "repeat", "delay reply"])
@pytest.mark.parametrize("kind", ["Prepare", "Commit", "Execute"])
def test_what_strikes_one_row_leaves_every_row_one_outcome(kind: str, effect: str) -> None:
    fault = f.MessageFault(kind, 2, effect, 0.5)
    report = three_rows(fault)
    assert (report.violation, dict(report.faults)) == (None, {f"MessageFault {effect}": 1})
    assert report.outcomes.total() >= 3


def test_a_row_whose_vote_is_late_leaves_and_the_others_end_as_rows(seen: Seen) -> None:
    report = three_rows(f.MessageFault("Prepare", 2, "delay reply", 0.5))
    assert (report.violation, set(report.outcomes)) == (None, {"COMMITTED"})
    assert (sum(seen.ended), dict(seen.left)) == (2, {VOTING: 1})


def test_a_row_whose_acknowledgement_is_lost_leaves_and_the_others_end_as_rows(seen: Seen) -> None:
    report = three_rows(f.MessageFault("Commit", 2, "lose reply", 0.0))
    assert (report.violation, set(report.outcomes)) == (None, {"COMMITTED"})
    assert (sum(seen.ended), dict(seen.left)) == (2, {COMMITTING: 1})


@pytest.mark.parametrize("when", ["before", "torn", "after"])
def test_a_coordinator_that_dies_around_the_force_of_rows_leaves_each_one_outcome(when: str) -> None:
    forces_before = 2  # two participants registered
    report = three_rows(f.CrashOnForce(forces_before + 1, when, 0.3))
    assert (report.violation, dict(report.faults)) == (None, {f"CrashOnForce {when}": 1})
    assert report.outcomes.total() == 3


def test_in_the_seeds_that_are_run_rows_end_together_and_leave_at_every_stage(seen: Seen) -> None:
    for seed in range(SEEDS):
        run(scenario(seed))
    assert max(seen.ended) > 1
    assert set(seen.left) == {VOTING, OFFERED, COMMITTING}
