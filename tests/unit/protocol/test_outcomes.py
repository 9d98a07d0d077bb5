"""What is said of the whole when branches end otherwise than decided: every Outcome, and no more than is known."""

from __future__ import annotations

import pytest

from coordinator.protocol.effects import EndRecord, SendCommit, SendRollback
from coordinator.protocol.outcomes import measured, summed_up
from coordinator.protocol.states import BranchState, Decision, Outcome, TransactionState
from coordinator.protocol.transaction import ROLLBACK_ATTEMPTS_MAX
from tests.unit.protocol.machines import (
    COMMIT,
    DEADLINE,
    STOOD,
    A,
    B,
    C,
    aborting,
    after,
    against,
    committing,
    due,
    ended,
    failed,
    no,
    read_only,
    rolled_back,
    yes,
)

S = TransactionState
O = Outcome  # noqa: E741 - one letter keeps the tables readable
COMMIT_STANDS, ABORT_STANDS = Decision.COMMIT, Decision.ABORT


@pytest.mark.parametrize(
    ("decision", "said", "outcome"),
    [
        (COMMIT_STANDS, O.COMMITTED, O.COMMITTED),
        (COMMIT_STANDS, O.ABORTED, O.HEURISTIC_ROLLBACK),
        (COMMIT_STANDS, O.HEURISTIC_ROLLBACK, O.HEURISTIC_ROLLBACK),
        (COMMIT_STANDS, O.HEURISTIC_COMMIT, O.COMMITTED),
        (COMMIT_STANDS, O.HEURISTIC_MIXED, O.HEURISTIC_MIXED),
        (COMMIT_STANDS, O.HEURISTIC_HAZARD, O.HEURISTIC_HAZARD),
        (ABORT_STANDS, O.ABORTED, O.ABORTED),
        (ABORT_STANDS, O.COMMITTED, O.HEURISTIC_COMMIT),
        (ABORT_STANDS, O.HEURISTIC_COMMIT, O.HEURISTIC_COMMIT),
        (ABORT_STANDS, O.HEURISTIC_ROLLBACK, O.ABORTED),
        (ABORT_STANDS, O.HEURISTIC_MIXED, O.HEURISTIC_MIXED),
        (ABORT_STANDS, O.HEURISTIC_HAZARD, O.HEURISTIC_HAZARD),
    ],
)
def test_an_end_is_measured_against_the_decision(decision: Decision, said: O, outcome: O) -> None:
    assert measured(decision, said) is outcome


@pytest.mark.parametrize(
    ("decision", "ends", "outcome"),
    [
        (COMMIT_STANDS, [O.COMMITTED, O.COMMITTED], O.COMMITTED),
        (COMMIT_STANDS, [O.HEURISTIC_ROLLBACK, O.HEURISTIC_ROLLBACK], O.HEURISTIC_ROLLBACK),
        (COMMIT_STANDS, [O.COMMITTED, O.HEURISTIC_ROLLBACK], O.HEURISTIC_MIXED),
        (COMMIT_STANDS, [O.COMMITTED, O.HEURISTIC_HAZARD], O.HEURISTIC_HAZARD),
        (COMMIT_STANDS, [O.HEURISTIC_ROLLBACK, O.HEURISTIC_HAZARD], O.HEURISTIC_HAZARD),
        (COMMIT_STANDS, [O.COMMITTED, O.HEURISTIC_ROLLBACK, O.HEURISTIC_HAZARD], O.HEURISTIC_MIXED),
        (COMMIT_STANDS, [O.HEURISTIC_MIXED], O.HEURISTIC_MIXED),
        (COMMIT_STANDS, [], O.COMMITTED),
        (ABORT_STANDS, [O.ABORTED, O.ABORTED], O.ABORTED),
        (ABORT_STANDS, [O.HEURISTIC_COMMIT, O.HEURISTIC_COMMIT], O.HEURISTIC_COMMIT),
        (ABORT_STANDS, [O.ABORTED, O.HEURISTIC_COMMIT], O.HEURISTIC_MIXED),
        (ABORT_STANDS, [O.ABORTED, O.HEURISTIC_HAZARD], O.HEURISTIC_HAZARD),
        (ABORT_STANDS, [], O.ABORTED),
    ],
)
def test_the_whole_is_summed_up_from_its_branches(decision: Decision, ends: list[O], outcome: O) -> None:
    assert summed_up(decision, ends) is outcome


def test_a_read_only_branch_does_not_make_a_heuristic_rollback_mixed() -> None:
    machine = after(COMMIT, yes(A), read_only(B), STOOD)
    effects = machine.step(ended(A, O.HEURISTIC_ROLLBACK, "pg_xact_status says aborted"))
    assert machine.outcome is O.HEURISTIC_ROLLBACK
    assert effects.end == EndRecord(O.HEURISTIC_ROLLBACK, f"{A}: pg_xact_status says aborted")


def test_a_heuristic_end_of_an_abort_is_worth_a_record() -> None:
    machine = aborting(A, B)
    machine.step(rolled_back(A))
    effects = machine.step(ended(B, O.HEURISTIC_COMMIT, "committed by hand"))
    assert machine.state is S.ABORTED
    assert effects.end == EndRecord(O.HEURISTIC_MIXED, f"{B}: committed by hand")


def test_a_plain_abort_is_written_nowhere() -> None:
    machine = aborting(A)
    assert machine.step(rolled_back(A)).end is None
    assert machine.outcome is O.ABORTED


def test_a_plain_end_keeps_no_evidence() -> None:
    machine = committing(A)
    assert machine.step(ended(A, O.COMMITTED, "pg_xact_status says committed")).end == EndRecord(O.COMMITTED, "")


def test_a_participant_that_gives_no_evidence_is_evidence_itself() -> None:
    machine = committing(A)
    effects = machine.step(rolled_back(A))
    assert effects.end == EndRecord(O.HEURISTIC_ROLLBACK, f"{A}: its participant said so")


def test_an_operator_ends_the_branches_in_doubt_and_only_those() -> None:
    machine = after(COMMIT, yes(A), yes(B), read_only(C), STOOD, ended(A), of=(A, B, C))
    assert machine.step(against(ABORT_STANDS)).send == (SendRollback(B, f"xid of {B}"),)
    effects = machine.step(rolled_back(B))
    assert effects.end == EndRecord(O.HEURISTIC_MIXED, f"{B}: ada resolved it so, against the decision")
    assert machine.branches[B].state is BranchState.ABORTED


def test_an_operator_can_commit_only_what_voted_yes() -> None:
    machine = after(COMMIT, yes(A), DEADLINE)
    assert machine.step(against(COMMIT_STANDS)).send == (SendCommit(A, f"xid of {A}"),)


def test_a_branch_that_had_obeyed_before_the_operator_came_is_no_heuristic() -> None:
    """Told to roll back, a participant that had committed says HEURISTIC_COMMIT; the decision was kept all the same."""
    machine = after(COMMIT, yes(A), yes(B), STOOD, ended(A), against(ABORT_STANDS))
    machine.step(ended(B, O.HEURISTIC_COMMIT, "it was committed already"))
    assert machine.outcome is O.COMMITTED


def test_an_operator_who_thinks_better_of_it_returns_to_the_decision() -> None:
    machine = after(COMMIT, yes(A), yes(B), STOOD, against(ABORT_STANDS), failed(A))
    assert machine.step(against(COMMIT_STANDS)).send == (SendCommit(A, f"xid of {A}"), SendCommit(B, f"xid of {B}"))
    machine.step(failed(A))
    assert machine.step(due(A)).send == (SendCommit(A, f"xid of {A}"),)


def test_what_an_operator_ordered_is_never_given_up() -> None:
    machine = aborting(A)
    machine.step(against(COMMIT_STANDS))
    for _ in range(3 * ROLLBACK_ATTEMPTS_MAX):
        assert machine.step(failed(A)).retries
        assert machine.step(due(A)).send == (SendCommit(A, f"xid of {A}"),)


def test_a_no_vote_beside_a_heuristic_commit_is_mixed() -> None:
    machine = after(COMMIT, yes(A), no(B), ended(A, O.COMMITTED, "by hand"))
    assert machine.outcome is O.HEURISTIC_MIXED
