"""Two-phase commit, rule by rule, as the machine keeps it."""

from __future__ import annotations

import pytest

from coordinator.protocol import events as e
from coordinator.protocol.effects import (
    NOTHING,
    CommitRecord,
    Effects,
    EndRecord,
    ScheduleRetry,
    SendCommit,
    SendCommitOnePhase,
    SendPrepare,
    SendRollback,
)
from coordinator.protocol.states import BranchState, Cause, Decision, Outcome, TransactionState, Vote
from coordinator.protocol.transaction import ROLLBACK_ATTEMPTS_MAX, GlobalTransaction
from tests.unit.protocol.machines import (
    ABORT_STOOD,
    COMMIT,
    COMMIT_LATE,
    DEADLINE,
    DEADLINE_S,
    LATE_S,
    REFUSED,
    ROLLBACK,
    STOOD,
    A,
    B,
    C,
    aborting,
    after,
    committing,
    due,
    ended,
    failed,
    lost,
    no,
    one_phase,
    read_only,
    rolled_back,
    transaction,
    yes,
)

S = TransactionState
TO_A, TO_B = SendCommit(A, f"xid of {A}"), SendCommit(B, f"xid of {B}")
BACK_A, BACK_B = SendRollback(A, f"xid of {A}"), SendRollback(B, f"xid of {B}")

# -- phase one ---------------------------------------------------------------------------------------------------------


def test_every_branch_is_asked_at_once() -> None:
    assert after().step(COMMIT) == Effects(send=(SendPrepare(A), SendPrepare(B)))


def test_a_branch_that_enlists_twice_is_one_branch() -> None:
    machine = transaction(A, B, A)
    assert list(machine.branches) == [A, B]


def test_the_last_yes_offers_the_record_and_holds_the_commits_behind_it() -> None:
    machine = after(COMMIT, yes(A))
    record = CommitRecord(((A, f"xid of {A}"), (B, f"xid of {B}")))
    assert machine.step(yes(B)) == Effects(force=record, send_after_force=(TO_A, TO_B))
    assert machine.decision is None
    assert not machine.decided


def test_a_read_only_branch_is_in_no_record_and_hears_no_more() -> None:
    machine = after(COMMIT, read_only(A))
    assert machine.step(yes(B)) == Effects(force=CommitRecord(((B, f"xid of {B}"),)), send_after_force=(TO_B,))


def test_a_no_rolls_back_the_others_and_keeps_the_reason() -> None:
    machine = after(COMMIT, yes(A))
    assert machine.step(no(B)).send == (BACK_A,)
    assert (machine.cause, machine.reason) == (Cause.VOTE_NO, f"{B} voted no: {B} will not")
    assert machine.branches[B].reason_code == "OPERATION_FAILED"


def test_a_lost_vote_rolls_back_its_own_branch_too_for_it_may_be_prepared() -> None:
    machine = after(COMMIT, yes(A))
    assert machine.step(lost(B)).send == (BACK_A, SendRollback(B, ""))
    assert machine.cause is Cause.UNREACHABLE
    assert machine.branches[B].reason_code == "VOTE_LOST"


# -- short cuts --------------------------------------------------------------------------------------------------------


def test_no_branch_commits_at_once_and_without_a_record() -> None:
    machine = transaction()
    assert machine.step(COMMIT) is NOTHING
    assert (machine.state, machine.outcome) == (S.COMMITTED, Outcome.COMMITTED)


def test_only_read_only_branches_commit_without_a_record() -> None:
    machine = after(COMMIT, read_only(A))
    assert machine.step(read_only(B)) is NOTHING
    assert (machine.state, machine.offered) == (S.COMMITTED, False)


def test_only_read_only_branches_still_may_not_commit_past_the_deadline() -> None:
    machine = after(COMMIT, read_only(A), read_only(B, LATE_S))
    assert (machine.state, machine.cause) == (S.ABORTED, Cause.DEADLINE)


def test_one_branch_is_told_to_commit_in_one_phase_and_nothing_is_written() -> None:
    machine = transaction(A)
    assert machine.step(COMMIT) == Effects(send=(SendCommitOnePhase(A),))
    assert machine.step(one_phase(A, Outcome.COMMITTED)) is NOTHING
    assert (machine.state, machine.decision, machine.offered) == (S.COMMITTED, Decision.COMMIT, False)


def test_one_branch_that_rolled_back_is_an_abort() -> None:
    machine = after(COMMIT, one_phase(A, Outcome.ABORTED), of=(A,))
    assert (machine.state, machine.outcome, machine.cause) == (S.ABORTED, Outcome.ABORTED, Cause.VOTE_NO)
    assert machine.reason == f"{A} did not commit: it said so"


def test_one_branch_of_which_nobody_knows_is_a_hazard_and_that_is_written() -> None:
    machine = after(COMMIT, of=(A,))
    effects = machine.step(one_phase(A, Outcome.HEURISTIC_HAZARD))
    assert effects.end == EndRecord(Outcome.HEURISTIC_HAZARD, f"{A}: it said so")
    assert machine.outcome is Outcome.HEURISTIC_HAZARD


def test_one_branch_whose_participant_knows_no_one_phase_goes_through_both() -> None:
    machine = after(COMMIT, failed(A), of=(A,))
    assert machine.step(e.OnePhaseUnsupported(A)) == Effects(send=(SendPrepare(A),))
    assert machine.branches[A].last_error == ""
    effects = machine.step(yes(A))
    assert effects == Effects(force=CommitRecord(((A, f"xid of {A}"),)), send_after_force=(TO_A,))


def test_after_the_fallback_a_rollback_is_possible_again() -> None:
    machine = after(COMMIT, e.OnePhaseUnsupported(A), of=(A,))
    assert machine.step(ROLLBACK).send == (SendRollback(A, ""),)


@pytest.mark.parametrize("event", [ROLLBACK, DEADLINE])
def test_while_the_only_branch_decides_nobody_else_does(event: e.Event) -> None:
    machine = after(COMMIT, of=(A,))
    assert machine.step(event) is NOTHING
    assert (machine.state, machine.decision) == (S.PREPARING, None)


def test_a_one_phase_commit_without_an_answer_is_asked_again_for_ever() -> None:
    machine = after(COMMIT, of=(A,))
    for attempt in range(1, 100):
        assert machine.step(failed(A)) == Effects(retries=(ScheduleRetry(A, attempt),))
        assert machine.step(due(A)) == Effects(send=(SendCommitOnePhase(A),))


# -- decision ----------------------------------------------------------------------------------------------------------


def test_the_decision_is_commit_when_the_log_says_so_and_not_before() -> None:
    machine = after(COMMIT, yes(A), yes(B))
    assert machine.step(STOOD) is NOTHING  # the driver holds the messages and releases them now
    assert (machine.state, machine.decision) == (S.COMMITTING, Decision.COMMIT)


def test_an_abort_that_stood_before_ours_is_obeyed() -> None:
    machine = after(COMMIT, yes(A), yes(B))
    assert machine.step(ABORT_STOOD).send == (BACK_A, BACK_B)
    assert machine.cause is Cause.OPERATOR


def test_a_refused_record_is_an_abort() -> None:
    machine = after(COMMIT, yes(A), yes(B))
    assert machine.step(REFUSED).send == (BACK_A, BACK_B)
    assert (machine.cause, machine.reason) == (Cause.LOG_REFUSED, "disk full")


@pytest.mark.parametrize("event", [ROLLBACK, DEADLINE])
def test_once_the_record_is_offered_nothing_changes_the_decision(event: e.Event) -> None:
    machine = after(COMMIT, yes(A), yes(B))
    assert machine.step(event) is NOTHING
    machine.step(STOOD)
    assert machine.decision is Decision.COMMIT


# -- deadline ----------------------------------------------------------------------------------------------------------


def test_a_last_vote_past_the_deadline_aborts_although_every_branch_said_yes() -> None:
    """Invariant 5: a process that was paused and wakes up with every vote in its hands must abort."""
    machine = after(COMMIT, yes(A))
    assert machine.step(yes(B, LATE_S)) == Effects(send=(BACK_A, BACK_B))
    assert machine.cause is Cause.DEADLINE


def test_a_vote_at_the_deadline_is_in_time() -> None:
    assert after(COMMIT, yes(A)).step(yes(B, DEADLINE_S)).force is not None


def test_an_early_vote_that_is_late_does_no_harm_if_the_last_is_in_time() -> None:
    """Only the moment of the decision counts, and time never runs back; the driver gives the votes in order."""
    machine = after(COMMIT)
    assert machine.step(yes(A, DEADLINE_S)) is NOTHING
    assert machine.step(yes(B, DEADLINE_S)).force is not None


def test_commit_asked_for_past_the_deadline_aborts() -> None:
    machine = after()
    assert machine.step(COMMIT_LATE).send == (SendRollback(A, ""), SendRollback(B, ""))
    assert machine.cause is Cause.DEADLINE


def test_the_deadline_names_the_branches_that_did_not_vote() -> None:
    machine = after(COMMIT, yes(A), DEADLINE, of=(A, B, C))
    assert machine.reason == f"the deadline passed without the vote of {B}, {C}"
    assert after(DEADLINE).reason == "the deadline passed before Commit was asked for"


# -- abort with votes still awaited ------------------------------------------------------------------------------------


def test_a_transaction_ends_only_when_no_prepare_is_under_way() -> None:
    """vitess 20647: a race of prepare and rollback must not leave a prepared branch."""
    before = (COMMIT, DEADLINE, rolled_back(A), rolled_back(B), no(A))
    assert after(*before).state is S.ABORTING
    assert after(*before, lost(B)).state is S.ABORTED


def test_the_client_need_not_wait_for_those_votes() -> None:
    machine = after(COMMIT, DEADLINE)
    assert not machine.settled
    machine.step(rolled_back(A))
    machine.step(failed(B))
    assert machine.settled


@pytest.mark.parametrize("before", [(rolled_back(A),), ()], ids=["after its Rollback", "before its Rollback's answer"])
def test_a_late_yes_is_rolled_back_again(before: tuple[e.Event, ...]) -> None:
    """vitess 20647: Rollback passed Prepare, and a participant without tombstones has prepared after it."""
    machine = after(COMMIT, DEADLINE, *before)
    assert machine.step(yes(A)).send == (BACK_A,)
    assert machine.branches[A].state is BranchState.IN_DOUBT
    assert not machine.branches[A].ended
    machine.step(rolled_back(A))
    assert machine.branches[A].state is BranchState.ABORTED


def test_a_late_yes_after_its_rollback_was_given_up_is_rolled_back() -> None:
    machine = after(COMMIT, lost(B), rolled_back(B))
    for _ in range(ROLLBACK_ATTEMPTS_MAX - 1):
        machine.step(failed(A))
        machine.step(due(A))
    machine.step(failed(A))
    assert machine.branches[A].ended
    assert machine.step(yes(A)).send == (BACK_A,)
    assert machine.state is S.ABORTING


@pytest.mark.parametrize("late", [no(A), read_only(A)])
def test_another_late_vote_ends_its_branch(late: e.Event) -> None:
    machine = after(COMMIT, DEADLINE)
    machine.step(late)
    assert machine.branches[A].ended


# -- phase two ---------------------------------------------------------------------------------------------------------


def test_a_commit_is_sent_for_ever() -> None:
    """seata 2166: a limit on retries drops the transaction, and its locks stay."""
    machine = committing(A, B)
    machine.step(ended(B))
    for attempt in range(1, 1000):
        assert machine.step(failed(A)) == Effects(retries=(ScheduleRetry(A, attempt),))
        assert machine.step(due(A)) == Effects(send=(TO_A,))
    assert machine.state is S.COMMITTING


def test_a_rollback_is_sent_a_number_of_times_and_then_left_to_the_participants_asking() -> None:
    machine = aborting(A)
    for attempt in range(1, ROLLBACK_ATTEMPTS_MAX):
        assert machine.step(failed(A)) == Effects(retries=(ScheduleRetry(A, attempt),))
        assert machine.step(due(A)) == Effects(send=(BACK_A,))
    assert machine.step(failed(A)) is NOTHING
    assert (machine.state, machine.outcome) == (S.ABORTED, Outcome.ABORTED)


def test_the_last_acknowledgement_ends_a_commit_and_writes_that() -> None:
    machine = committing(A, B)
    assert machine.step(ended(A)) is NOTHING
    assert machine.step(ended(B)) == Effects(end=EndRecord(Outcome.COMMITTED, ""))
    assert (machine.state, machine.outcome, machine.pending) == (S.COMMITTED, Outcome.COMMITTED, [])


def test_a_second_acknowledgement_changes_nothing() -> None:
    machine = committing(A, B)
    machine.step(ended(A))
    assert machine.step(rolled_back(A)) is NOTHING
    assert machine.branches[A].outcome is Outcome.COMMITTED


def test_committed_is_settled_only_when_every_branch_has_applied_it() -> None:
    """citus 3780: commit reported while a branch is still prepared."""
    machine = committing(A, B)
    machine.step(ended(A))
    machine.step(failed(B))
    assert machine.decided
    assert not machine.settled
    assert [branch.bqual for branch in machine.pending] == [B]


@pytest.mark.parametrize("late", [failed(A), due(A)])
def test_what_fires_late_for_a_branch_that_ended_does_nothing(late: e.Event) -> None:
    machine = committing(A, B)
    machine.step(ended(A))
    assert machine.step(late) is NOTHING


# -- recovery ----------------------------------------------------------------------------------------------------------


def test_a_recovered_transaction_goes_on_with_its_commits() -> None:
    machine, effects = GlobalTransaction.recovered("t", [(A, f"xid of {A}"), (B, f"xid of {B}")])
    assert effects == Effects(send=(TO_A, TO_B))
    assert (machine.state, machine.decision) == (S.COMMITTING, Decision.COMMIT)
    machine.step(failed(A))
    assert machine.step(due(A)).send == (TO_A,)
    machine.step(ended(A))
    assert machine.step(ended(B)).end == EndRecord(Outcome.COMMITTED, "")


@pytest.mark.parametrize(
    ("decision", "outcome", "state"),
    [
        (Decision.COMMIT, Outcome.COMMITTED, S.COMMITTED),
        (Decision.COMMIT, Outcome.HEURISTIC_MIXED, S.COMMITTED),
        (Decision.ABORT, Outcome.HEURISTIC_COMMIT, S.ABORTED),
    ],
)
def test_an_ended_transaction_can_be_shown_from_its_records(decision: Decision, outcome: Outcome, state: S) -> None:
    machine = GlobalTransaction.ended("t", [(A, "proof")], decision, outcome, "evidence")
    assert (machine.state, machine.decision, machine.outcome) == (state, decision, outcome)
    assert machine.branches[A].vote is Vote.YES
    assert machine.settled
