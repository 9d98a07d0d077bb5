"""Larger cohorts beside their machines: bulks of any size and order, and rows that leave in between."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from coordinator.protocol.cohort import ENDED
from tests.fuzz.profile import bounded
from tests.unit.protocol.side_by_side import Bulk, SideBySide

BQUALS = ("a.1", "b.1", "c.1", "d.1")
ROWS_MAX = 40
STEPS_MAX = 40


@bounded(150)
@given(st.data(), st.integers(1, ROWS_MAX), st.integers(2, len(BQUALS)), st.integers(0, STEPS_MAX))
def test_a_large_cohort_is_its_machines_whatever_comes_together_and_whoever_leaves(
    data: st.DataObject, rows: int, branches: int, steps: int
) -> None:
    world = SideBySide(rows, BQUALS[:branches])
    for _ in range(steps):
        if data.draw(st.integers(0, 4)) == 0:
            a_row_leaves(world, data)
        else:
            a_bulk_comes(world, data)
    world.compare_leaving()
    comes_to_its_end(world)
    world.compare_leaving()


def a_bulk_comes(world: SideBySide, data: st.DataObject) -> None:
    """Any of what can happen next, for any of the rows to which it can, in any order."""
    ready = [bulk for bulk in world.ready() if bulk.rows]
    if ready:
        whole = data.draw(st.sampled_from(ready))
        chosen = data.draw(st.lists(st.sampled_from(whole.rows), min_size=1, unique=True))
        world.happens(whole._replace(rows=tuple(chosen)))


def a_row_leaves(world: SideBySide, data: st.DataObject) -> None:
    """Any row that is one; then whatever comes for it goes to its machine, and not here."""
    there = [row for row in world.rows if row not in world.left]
    if there:
        world.leaves(data.draw(st.sampled_from(there)))


def comes_to_its_end(world: SideBySide) -> None:
    """Everything that is missing comes, each as one bulk with all rows that wait for it."""
    while ready := [bulk for bulk in world.ready() if bulk.rows]:
        world.happens(ready[0])
    assert {world.stage(row) for row in world.rows if row not in world.left} <= {ENDED}


@bounded(30)
@given(st.permutations(range(ROWS_MAX)), st.permutations(range(len(BQUALS))), st.permutations(range(len(BQUALS))))
def test_rows_that_go_all_together_end_all_together(rows: list[int], votes: list[int], ends: list[int]) -> None:
    world = SideBySide(ROWS_MAX, BQUALS)
    for branch in votes:
        world.happens(Bulk("voted", branch, tuple(rows)))
    world.happens(Bulk("decided", -1, tuple(reversed(rows))))
    for branch in ends:
        world.happens(Bulk("acknowledged", branch, tuple(sorted(rows))))
    assert set(world.cohort.stages) == {ENDED}
    world.compare_leaving()
