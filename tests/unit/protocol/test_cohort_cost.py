"""What a cohort costs, counted as in ``test_step_cost``: a hundred transactions, from their beginning to their end.

To be cheap is all that a cohort is for. So its calls are counted by bulks, not by rows, and what a row takes of them is
a small part of what a machine takes for the same.
"""

from __future__ import annotations

import sys

from coordinator.protocol.cohort import ENDED, Cohort
from tests.unit.protocol import test_step_cost
from tests.unit.protocol.counting import Counting

ROWS = 100
INSTRUCTIONS = {(3, 11): 19083, (3, 12): 18699, (3, 13): 16471}
CALLS_MAX = 25


def counted(rows: int) -> Counting:
    """Count what that many transactions of two branches take, to all of which everything happens together."""
    gtrids, everywhere, proofs = [f"k3v9q2xw-3-0m9xk2f1c-{row}" for row in range(rows)], range(rows), ["pg:7"] * rows
    with Counting() as count:
        cohort = Cohort(gtrids, test_step_cost.BRANCHES, 1e9, 1.0, 1)
        cohort.voted(0, everywhere, proofs, 1.0, 1)
        complete = cohort.voted(1, everywhere, proofs, 1.0, 1)
        cohort.decided(complete, 1.0, 1)
        cohort.acknowledged(0, complete, 1.0, 1)
        cohort.acknowledged(1, complete, 1.0, 1)
    assert set(cohort.stages) == {ENDED}
    return count


def test_a_hundred_transactions_cost_a_cohort_exactly_so_many_instructions() -> None:
    counted(ROWS)  # the first one also fills the interpreter's caches
    count = counted(ROWS)
    # A version that is not listed takes about as many: add it, with what it takes.
    known = INSTRUCTIONS.get(sys.version_info[:2])
    assert count.instructions == known if known is not None else count.instructions <= 1.2 * max(INSTRUCTIONS.values())


def test_more_rows_take_no_more_calls() -> None:
    assert counted(10 * ROWS).calls == counted(ROWS).calls <= CALLS_MAX


def test_a_row_takes_a_sixth_of_a_machine_s_instructions_at_most() -> None:
    for count in (test_step_cost.counted, lambda: counted(ROWS)):
        count()  # the first one also fills the interpreter's caches
    machine, _ = test_step_cost.counted()
    assert counted(ROWS).instructions <= machine * ROWS / 6
