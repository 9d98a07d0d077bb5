"""Each production check fires when its rule is broken, and names the rule, the transaction and the states."""

from __future__ import annotations

import pytest

from coordinator.protocol import transaction as transaction_module
from coordinator.protocol.branch import Branch
from coordinator.protocol.effects import (
    NOTHING,
    CommitRecord,
    Effects,
    EndRecord,
    SendCommit,
    SendCommitOnePhase,
    SendPrepare,
    SendRollback,
)
from coordinator.protocol.invariants import InvariantViolated, broken_rule
from coordinator.protocol.states import BranchState, Decision, Outcome, TransactionState, Vote
from coordinator.protocol.transaction import GlobalTransaction
from tests.unit.protocol.machines import COMMIT, A, B, after, due, yes

S = TransactionState

RECORD = CommitRecord(((A, "proof"),))


def branches(*votes: Vote | None, outcome: Outcome | None = None) -> dict[str, Branch]:
    names = (A, B)
    return {
        name: Branch(name, BranchState.IN_DOUBT, vote=vote, outcome=outcome)
        for name, vote in zip(names, votes, strict=False)
    }


ALL_YES = branches(Vote.YES, Vote.YES)


@pytest.mark.parametrize(
    ("rule", "state", "decision", "late", "known", "effects"),
    [
        ("a second decision", S.COMMITTING, Decision.COMMIT, False, ALL_YES, Effects(force=RECORD)),
        ("a second decision", S.ABORTING, Decision.ABORT, False, ALL_YES, Effects(force=RECORD)),
        ("past the deadline", S.PREPARING, None, True, ALL_YES, Effects(force=RECORD)),
        (
            "does not wait for the force beside it",
            S.PREPARING,
            None,
            False,
            ALL_YES,
            Effects(send=(SendCommit(A, ""),), force=RECORD),
        ),
        ("without every vote", S.PREPARING, None, False, branches(Vote.YES, None), Effects(force=RECORD)),
        ("without every vote", S.PREPARING, None, False, branches(Vote.YES, Vote.NO), Effects(force=RECORD)),
        (
            "messages wait for a force, and there is none",
            S.PREPARING,
            None,
            False,
            ALL_YES,
            Effects(send_after_force=(SendCommit(A, ""),)),
        ),
        ("without a durable decision", S.PREPARING, None, False, ALL_YES, Effects(send=(SendCommit(A, ""),))),
        ("without a durable decision", S.ABORTING, Decision.ABORT, False, ALL_YES, Effects(send=(SendCommit(A, ""),))),
        (
            "which did not vote yes",
            S.COMMITTING,
            Decision.COMMIT,
            False,
            branches(Vote.READ_ONLY, Vote.YES),
            Effects(send=(SendCommit(A, ""),)),
        ),
        (
            "against the decision",
            S.COMMITTING,
            Decision.COMMIT,
            False,
            ALL_YES,
            Effects(send=(SendRollback(A, ""),)),
        ),
        ("phase one", S.ABORTING, Decision.ABORT, False, ALL_YES, Effects(send=(SendPrepare(A),))),
        ("phase one", S.COMMITTING, Decision.COMMIT, False, ALL_YES, Effects(send=(SendCommitOnePhase(A),))),
        (
            "an end record while a branch has not ended",
            S.COMMITTED,
            Decision.COMMIT,
            False,
            ALL_YES,
            Effects(end=EndRecord(Outcome.COMMITTED, "")),
        ),
    ],
)
def test_a_broken_rule_is_named(
    rule: str, state: S, decision: Decision | None, late: bool, known: dict[str, Branch], effects: Effects
) -> None:
    assert rule in (broken_rule(state, decision, late, known, effects) or "")


@pytest.mark.parametrize(
    ("state", "decision", "known", "effects"),
    [
        (S.PREPARING, None, ALL_YES, Effects(force=RECORD, send_after_force=(SendCommit(A, ""),))),
        (S.PREPARING, None, branches(None, None), Effects(send=(SendPrepare(A), SendPrepare(B)))),
        (S.COMMITTING, Decision.COMMIT, ALL_YES, Effects(send=(SendCommit(A, ""),))),
        (S.ABORTING, Decision.ABORT, branches(Vote.YES, Vote.NO), Effects(send=(SendRollback(A, ""),))),
        (
            S.COMMITTED,
            Decision.COMMIT,
            branches(Vote.YES, outcome=Outcome.COMMITTED),
            Effects(end=EndRecord(Outcome.COMMITTED, "")),
        ),
        (S.PREPARING, None, ALL_YES, NOTHING),
    ],
)
def test_what_keeps_the_rules_passes(
    state: S, decision: Decision | None, known: dict[str, Branch], effects: Effects
) -> None:
    assert broken_rule(state, decision, False, known, effects) is None


def test_an_operator_may_send_against_the_decision() -> None:
    known = branches(Vote.YES, Vote.YES)
    known[A].override = Decision.COMMIT
    known[B].override = Decision.ABORT
    commit, rollback = Effects(send=(SendCommit(A, ""),)), Effects(send=(SendRollback(B, ""),))
    assert broken_rule(S.ABORTING, Decision.ABORT, False, known, commit) is None
    assert broken_rule(S.COMMITTING, Decision.COMMIT, False, known, rollback) is None


def test_a_step_that_breaks_a_rule_raises_with_the_transaction_and_its_states(monkeypatch: pytest.MonkeyPatch) -> None:
    hasty = lambda machine, event: Effects(send=(SendCommit(A, ""),))  # noqa: E731
    monkeypatch.setitem(transaction_module._HANDLERS, type(due(A)), hasty)
    machine = after(COMMIT, yes(A), yes(B))
    with pytest.raises(InvariantViolated) as raised:
        machine.step(due(A))
    assert raised.value.gtrid == "t"
    assert raised.value.rule == f"Commit to {A} without a durable decision"
    assert "state preparing; a.1: in doubt, vote yes, b.1: in doubt, vote yes" in str(raised.value)


def test_recovery_is_checked_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        GlobalTransaction, "_send_commits", lambda machine: [SendRollback(bqual, "") for bqual in machine.branches]
    )
    with pytest.raises(InvariantViolated, match="against the decision"):
        GlobalTransaction.recovered("t", [(A, "proof")])
