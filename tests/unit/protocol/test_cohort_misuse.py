"""What doesn't belong to a row's stage is refused, and nothing of the bulk in which it came is taken."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import permutations

import pytest

from coordinator.protocol.cohort import Cohort, CohortViolated
from tests.unit.protocol.machines import DEADLINE_S, IN_TIME_S, LATE_S, A, B
from tests.unit.protocol.side_by_side import Bulk, SideBySide, parts, tell
from tests.unit.protocol.test_cohort import searched

AT = (IN_TIME_S, 1_001)
Call = Callable[[Cohort], object]


def cohort_of(rows: int) -> Cohort:
    return Cohort([f"t{row}" for row in range(rows)], (A, B), DEADLINE_S, IN_TIME_S, 1_000)


def votes(cohort: Cohort, *rows: int) -> Cohort:
    """Both branches vote YES in these rows."""
    for branch in (0, 1):
        cohort.voted(branch, rows, ["xid"] * len(rows), *AT)
    return cohort


def decided(cohort: Cohort, *rows: int) -> Cohort:
    """These rows have every vote, and their commit stands."""
    votes(cohort, *rows).decided(rows, *AT)
    return cohort


def refuses(cohort: Cohort, call: Call, says: str, problem: type[Exception] = CohortViolated) -> None:
    """A call must be refused with these words, and leave everything as it was."""
    before = parts(cohort)
    with pytest.raises(problem, match=says):
        call(cohort)
    assert parts(cohort) == before


# -- one thing at a time -----------------------------------------------------------------------------------------------


def test_a_vote_comes_once() -> None:
    cohort = cohort_of(1)
    cohort.voted(0, [0], ["xid"], *AT)
    refuses(cohort, lambda it: it.voted(0, [0], ["another"], *AT), "t0, in a cohort: a vote of a.1 at stage 0")


def test_a_vote_comes_before_the_record_is_offered() -> None:
    refuses(votes(cohort_of(1), 0), lambda it: it.voted(0, [0], ["xid"], *AT), "a vote of a.1 at stage 1")


def test_a_vote_comes_before_the_decision() -> None:
    refuses(decided(cohort_of(1), 0), lambda it: it.voted(1, [0], ["xid"], *AT), "a vote of b.1 at stage 2")


def test_a_vote_on_the_deadline_is_in_time() -> None:
    cohort = cohort_of(1)
    cohort.voted(0, [0], ["xid"], DEADLINE_S, 1_001)
    assert cohort.voted(1, [0], ["xid"], DEADLINE_S, 1_001) == [0]


def test_a_vote_past_the_deadline_is_not_for_a_cohort() -> None:
    refuses(cohort_of(1), lambda it: it.voted(0, [0], ["xid"], LATE_S, 1_001), "t0, .*a vote past the deadline")


def test_a_decision_stands_past_the_deadline_too() -> None:
    cohort = votes(cohort_of(1), 0)
    cohort.decided([0], LATE_S, 1_001)
    assert cohort.acknowledged(0, [0], LATE_S, 1_002) == []
    assert cohort.acknowledged(1, [0], LATE_S, 1_002) == [0]


def test_a_decision_comes_after_every_vote() -> None:
    cohort = cohort_of(1)
    cohort.voted(0, [0], ["xid"], *AT)
    refuses(cohort, lambda it: it.decided([0], *AT), "t0, in a cohort: a decision at stage 0")


def test_a_decision_comes_once() -> None:
    refuses(decided(cohort_of(1), 0), lambda it: it.decided([0], *AT), "a decision at stage 2")


def test_an_acknowledgement_comes_after_the_decision() -> None:
    refuses(votes(cohort_of(1), 0), lambda it: it.acknowledged(0, [0], *AT), "an acknowledgement of a.1 at stage 1")


def test_an_acknowledgement_comes_after_the_votes() -> None:
    refuses(cohort_of(1), lambda it: it.acknowledged(0, [0], *AT), "an acknowledgement of a.1 at stage 0")


def test_an_acknowledgement_comes_once() -> None:
    cohort = decided(cohort_of(1), 0)
    cohort.acknowledged(0, [0], *AT)
    refuses(cohort, lambda it: it.acknowledged(0, [0], *AT), "t0, in a cohort: an acknowledgement of a.1 at stage 2")


def test_nothing_comes_after_the_end() -> None:
    cohort = decided(cohort_of(1), 0)
    for branch in (0, 1):
        cohort.acknowledged(branch, [0], *AT)
    for call in EVERY_CALL:
        refuses(cohort, call, "at stage 3")


BROUGHT: dict[str, Callable[[Cohort], object]] = {
    "voting": lambda it: it,
    "offered": lambda it: votes(it, 0),
    "committing": lambda it: decided(it, 0),
}


@pytest.mark.parametrize("stage", BROUGHT)
def test_nothing_comes_for_a_row_that_has_left(stage: str) -> None:
    cohort = cohort_of(1)
    BROUGHT[stage](cohort)
    cohort.leave(0)
    for call in EVERY_CALL:
        refuses(cohort, call, "t0, in a cohort: .* at stage 4")


def test_a_row_leaves_once() -> None:
    cohort = cohort_of(1)
    cohort.leave(0)
    refuses(cohort, lambda it: it.leave(0), "t0, in a cohort: it leaves a second time")


def test_a_row_that_has_ended_may_be_looked_at_as_often_as_one_likes() -> None:
    cohort = decided(cohort_of(1), 0)
    for branch in (0, 1):
        cohort.acknowledged(branch, [0], *AT)
    assert cohort.leave(0)[2] == cohort.leave(0)[2]


EVERY_CALL: tuple[Call, ...] = (
    lambda it: it.voted(0, [0], ["xid"], *AT),
    lambda it: it.decided([0], *AT),
    lambda it: it.acknowledged(0, [0], *AT),
)


# -- many at a time ----------------------------------------------------------------------------------------------------


def test_in_every_state_a_bulk_with_a_row_that_is_not_ready_for_it_is_refused_whole() -> None:
    """Whichever row it is, and wherever it stands in the bulk."""
    refused = 0
    for world in searched(3, (A, B)):
        for bulk in not_ready(world):
            refuses(world.cohort, partial(tell, bulk=bulk, now_s=IN_TIME_S, unix_ms=1), "at stage")
            refused += 1
    assert refused > 30_000


def not_ready(world: SideBySide) -> Iterator[Bulk]:
    """Every bulk with a row for which it can't be, in any order of its rows."""
    for whole in world.ready():
        for size in (1, 2, 3):
            for rows in permutations(world.rows, size):
                if not set(rows) <= set(whole.rows):
                    yield whole._replace(rows=rows)


def test_a_row_stands_in_a_bulk_once() -> None:
    refuses(cohort_of(2), lambda it: it.voted(0, [0, 1, 0], ["x", "y", "z"], *AT), "twice")
    refuses(votes(cohort_of(2), 0, 1), lambda it: it.decided([1, 0, 1], *AT), "twice")
    refuses(decided(cohort_of(2), 0, 1), lambda it: it.acknowledged(1, [0, 0], *AT), "twice")


@pytest.mark.parametrize("proofs", [[], ["xid"], ["xid"] * 3])
def test_there_is_a_proof_with_each_vote(proofs: list[str]) -> None:
    refuses(cohort_of(2), lambda it: it.voted(0, [0, 1], proofs, *AT), "2 votes with", ValueError)


@pytest.mark.parametrize("row", [2, -1])
def test_a_row_is_one_of_the_cohort_s(row: int) -> None:
    refuses(cohort_of(2), lambda it: it.voted(0, [0, row], ["xid"] * 2, *AT), "none of its")
    refuses(votes(cohort_of(2), 0, 1), lambda it: it.decided([0, row], *AT), "none of its")
    refuses(decided(cohort_of(2), 0, 1), lambda it: it.acknowledged(0, [0, row], *AT), "none of its")


@pytest.mark.parametrize("branch", [2, -1])
def test_a_branch_is_one_of_the_cohort_s(branch: int) -> None:
    refuses(cohort_of(1), lambda it: it.voted(branch, [0], ["xid"], *AT), "none of its")
    refuses(decided(cohort_of(1), 0), lambda it: it.acknowledged(branch, [0], *AT), "none of its")


def test_nothing_happens_to_no_rows() -> None:
    cohort = cohort_of(1)
    before = parts(cohort)
    assert cohort.voted(0, [], [], LATE_S, 1_001) == []
    cohort.decided([], *AT)
    assert cohort.acknowledged(0, [], *AT) == []
    assert parts(cohort) == before


# -- what is no cohort -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bquals", [(), (A,), (A, A), (A, B, A)])
def test_a_cohort_has_two_branches_or_more_each_once(bquals: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="no cohort of 1 transactions"):
        Cohort(["t0"], bquals, DEADLINE_S, IN_TIME_S, 1_000)


def test_a_cohort_is_not_begun_past_its_deadline() -> None:
    with pytest.raises(ValueError, match="and time"):
        Cohort(["t0"], (A, B), DEADLINE_S, LATE_S, 1_000)


def test_a_cohort_may_be_begun_on_its_deadline() -> None:
    cohort = Cohort(["t0"], (A, B), DEADLINE_S, DEADLINE_S, 1_000)
    assert cohort.voted(0, [0], ["xid"], DEADLINE_S, 1_000) == []
