"""Short words for bringing a machine where a test wants it."""

from __future__ import annotations

from coordinator.protocol import events as e
from coordinator.protocol.states import Cause, Decision, Outcome, Vote
from coordinator.protocol.transaction import GlobalTransaction

DEADLINE_S = 10.0
IN_TIME_S = 1.0
LATE_S = 10.001

A, B, C = "a.1", "b.1", "c.1"

COMMIT = e.CommitRequested(IN_TIME_S)
COMMIT_LATE = e.CommitRequested(LATE_S)
ROLLBACK = e.RollbackRequested(Cause.CLIENT, "changed my mind")
DEADLINE = e.DeadlinePassed()
STOOD = e.DecisionStood(Decision.COMMIT)
ABORT_STOOD = e.DecisionStood(Decision.ABORT)
REFUSED = e.DecisionRefused("disk full")
FORGOTTEN = e.Forgotten()


def vote(bqual: str, said: Vote, now_s: float = IN_TIME_S) -> e.VoteReceived:
    proof = f"xid of {bqual}" if said is Vote.YES else ""
    reason = f"{bqual} will not" if said is Vote.NO else ""
    return e.VoteReceived(bqual, said, now_s, proof, reason, "OPERATION_FAILED" if said is Vote.NO else "")


def yes(bqual: str, now_s: float = IN_TIME_S) -> e.VoteReceived:
    return vote(bqual, Vote.YES, now_s)


def no(bqual: str) -> e.VoteReceived:
    return vote(bqual, Vote.NO)


def read_only(bqual: str, now_s: float = IN_TIME_S) -> e.VoteReceived:
    return vote(bqual, Vote.READ_ONLY, now_s)


def lost(bqual: str) -> e.VoteLost:
    return e.VoteLost(bqual, "connection reset")


def ended(bqual: str, outcome: Outcome = Outcome.COMMITTED, evidence: str = "") -> e.BranchEnded:
    return e.BranchEnded(bqual, outcome, evidence)


def rolled_back(bqual: str) -> e.BranchEnded:
    return e.BranchEnded(bqual, Outcome.ABORTED)


def failed(bqual: str) -> e.DeliveryFailed:
    return e.DeliveryFailed(bqual, "connection refused")


def due(bqual: str) -> e.RetryDue:
    return e.RetryDue(bqual)


def one_phase(bqual: str, outcome: Outcome) -> e.OnePhaseAnswered:
    return e.OnePhaseAnswered(bqual, outcome, "it said so")


def against(decision: Decision) -> e.ResolvedAgainstDecision:
    return e.ResolvedAgainstDecision(decision, "ada")


def transaction(*bquals: str) -> GlobalTransaction:
    """An active transaction with these branches."""
    machine = GlobalTransaction("t", DEADLINE_S)
    for bqual in bquals:
        machine.step(e.Enlisted(bqual))
    return machine


def after(*events: e.Event, of: tuple[str, ...] = (A, B)) -> GlobalTransaction:
    """A transaction with these branches, to which all this has happened."""
    machine = transaction(*of)
    for event in events:
        machine.step(event)
    return machine


def committing(*bquals: str) -> GlobalTransaction:
    """A transaction whose branches voted yes and whose commit is durable."""
    return after(COMMIT, *map(yes, bquals), STOOD, of=bquals)


def aborting(*bquals: str) -> GlobalTransaction:
    """A transaction whose branches voted yes and whose commit the log refused."""
    return after(COMMIT, *map(yes, bquals), REFUSED, of=bquals)
