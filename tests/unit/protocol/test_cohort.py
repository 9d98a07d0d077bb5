"""A cohort is the same protocol as the machine: every order of events, in every grouping, compared at every point.

The smallest cohorts are walked path by path, for what a row remembers depends on the way that it came; larger ones
state by state, with every bulk that can happen in each, and with rows that leave in between.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import product
from typing import Any

import pytest

from coordinator.protocol import events as e
from coordinator.protocol.cohort import ENDED
from coordinator.protocol.invariants import InvariantViolated
from coordinator.protocol.states import Decision, Outcome
from coordinator.protocol.transaction import GlobalTransaction, ProtocolViolated
from tests.unit.protocol.machines import (
    ABORT_STOOD,
    COMMIT,
    DEADLINE,
    FORGOTTEN,
    LATE_S,
    REFUSED,
    ROLLBACK,
    STOOD,
    A,
    B,
    C,
    against,
    due,
    ended,
    failed,
    lost,
    no,
    read_only,
    yes,
)
from tests.unit.protocol.side_by_side import SideBySide, copied_machine, told

PATHS = {"one row": (1, (A, B), 15), "one row, three branches": (1, (A, B, C), 112), "two rows": (2, (A, B), 23_379)}
"""Rows, branches, and how many points there are on all ways through them."""

STATES = {
    "two rows, three branches": (2, (A, B, C), 289),
    "three rows": (3, (A, B), 729),
    "three rows, three branches": (3, (A, B, C), 4913),
}
"""Rows, branches, and how many states: of each row, those of its votes and acknowledgements, and gone."""

FURTHER: tuple[e.Event, ...] = (
    COMMIT,
    ROLLBACK,
    DEADLINE,
    STOOD,
    ABORT_STOOD,
    REFUSED,
    FORGOTTEN,
    *map(against, Decision),
)
HEURISTIC = (Outcome.ABORTED, Outcome.HEURISTIC_ROLLBACK, Outcome.HEURISTIC_MIXED, Outcome.HEURISTIC_HAZARD)


def further(bqual: str) -> tuple[e.Event, ...]:
    """What else may happen to a branch."""
    votes = (yes(bqual), yes(bqual, LATE_S), read_only(bqual), no(bqual), lost(bqual))
    ends = tuple(ended(bqual, outcome, "by hand") for outcome in HEURISTIC)
    return (*votes, ended(bqual), *ends, failed(bqual), due(bqual), e.OnePhaseUnsupported(bqual), e.Enlisted(bqual))


def walked(rows: int, bquals: tuple[str, ...]) -> Iterator[SideBySide]:
    """Every point on every way through."""
    ways = [SideBySide(rows, bquals)]
    while ways:
        world = ways.pop()
        yield world
        for bulk in world.groupings():
            after = world.copy()
            after.happens(bulk)
            ways.append(after)


def searched(rows: int, bquals: tuple[str, ...]) -> Iterator[SideBySide]:
    """Every state, with each bulk that can happen in it done, and each row that can leave."""
    start = SideBySide(rows, bquals)
    seen, queue = {key(start)}, deque([start])
    while queue:
        world = queue.popleft()
        yield world
        for after in reached(world):
            if key(after) not in seen:
                seen.add(key(after))
                queue.append(after)


def reached(world: SideBySide) -> Iterator[SideBySide]:
    """What comes of each thing that can happen next."""
    for bulk in world.groupings():
        after = world.copy()
        after.happens(bulk)
        yield after
    for row in world.rows:
        if row not in world.left and world.stage(row) != ENDED:
            after = world.copy()
            after.leaves(row)
            yield after


def key(world: SideBySide) -> tuple[object, ...]:
    """What tells a state from others, by the cohort's own account."""
    return tuple((world.cohort.stages[row], *world.cohort.awaits(row)) for row in world.rows)


@pytest.mark.parametrize("which", PATHS)
def test_on_every_way_a_row_that_leaves_is_the_machine_that_was_fed_its_events(which: str) -> None:
    rows, bquals, points = PATHS[which]
    count = 0
    for world in walked(rows, bquals):
        world.compare_leaving()
        count += 1
    assert count == points


@pytest.mark.parametrize("which", STATES)
def test_in_every_state_each_bulk_does_to_its_rows_what_the_events_do_to_machines(which: str) -> None:
    rows, bquals, states = STATES[which]
    count = 0
    for world in searched(rows, bquals):
        world.compare_leaving()
        count += 1
    assert count == states


@pytest.mark.parametrize(("bquals", "events_after"), [((A, B), 2), ((A, B, C), 1)])
def test_what_happens_to_a_row_that_has_left_happens_as_if_it_had_never_been_one(
    bquals: tuple[str, ...], events_after: int
) -> None:
    events = [*FURTHER, *(event for bqual in bquals for event in further(bqual))]
    for world in walked(1, bquals):
        left = world.copy().leaves(0)
        for happening in product(events, repeat=events_after):
            assert all_that_comes_of(left, happening) == all_that_comes_of(world.machines[0], happening)


def all_that_comes_of(machine: GlobalTransaction, events: Iterable[e.Event]) -> tuple[list[object], dict[str, Any]]:
    """What a machine answers to events, and what it is afterwards; itself it stays as it was."""
    machine, answers = copied_machine(machine), list[object]()
    for event in events:
        try:
            answers.append(machine.step(event))
        except (ProtocolViolated, InvariantViolated, KeyError) as problem:
            answers.append(repr(problem))
    return answers, told(machine)
