"""What is answered to each message, and what is kept of a branch so that the same can be answered again."""

from __future__ import annotations

from dataclasses import dataclass

from participant.protocol.states import OUTCOMES, Action, Decision, Fate, Outcome, State, Vote
from participant.protocol.values import value


@value
class Cause:
    """Why a branch was rolled back before it was told to.

    Args:
        code: the entry of the error catalog.
        reason: in words; empty when the entry's own words, with gtrid and bqual, say it all.
    """

    code: str
    reason: str = ""


UNKNOWN = Cause("BRANCH_UNKNOWN")
ROLLED_BACK_FIRST = Cause("ROLLED_BACK_FIRST")
DEADLINE_PASSED = Cause("DEADLINE_PASSED")


@value
class Voted:
    """The answer to Prepare.

    Args:
        vote: the vote.
        proof: with YES, by which the branch's end can be proved later.
        cause: with NO, why.
        results: with YES and READ_ONLY, what the operations returned, in order.
    """

    vote: Vote
    proof: str = ""
    cause: Cause | None = None
    results: tuple[bytes, ...] = ()


@value
class Ended:
    """The answer to Commit, CommitOnePhase and Rollback.

    Args:
        outcome: measured against what was asked for.
        evidence: what proves a heuristic outcome.
        cause: why it was rolled back instead (CommitOnePhase).
        results: what the operations returned (CommitOnePhase).
    """

    outcome: Outcome
    evidence: str = ""
    cause: Cause | None = None
    results: tuple[bytes, ...] = ()


Answer = Voted | Ended


@dataclass(slots=True)
class Branch:
    """One branch of this instance.

    Args:
        gtrid: its transaction.
        born_ms: the time in its gtrid, in milliseconds since 1970 by the coordinator's clock.
        deadline_s: until when it may prepare, by the monotonic clock.
        state: where it stands.
        one_phase: it was asked to commit without preparing.
        read_only: it ended in phase one, because it had changed nothing.
        rollback_wanted: a Rollback came while it was preparing.
        expired: its deadline passed while it was preparing.
        tombstone: it was never here: a Rollback came for it, and perhaps overtook its Prepare.
        proof: by which its end can be proved; known before PREPARE or COMMIT is sent.
        vote: what it voted.
        cause: why it was rolled back before it was told to.
        fate: how it ended.
        evidence: what proves its fate.
        results: what its operations returned.
        ended_s: when it ended, by the monotonic clock.
    """

    gtrid: str
    born_ms: int
    deadline_s: float
    state: State = State.ACTIVE
    one_phase: bool = False
    read_only: bool = False
    rollback_wanted: bool = False
    expired: bool = False
    tombstone: bool = False
    proof: str = ""
    vote: Voted | None = None
    cause: Cause | None = None
    fate: Fate | None = None
    evidence: str = ""
    results: tuple[bytes, ...] = ()
    ended_s: float | None = None


@value
class Step:
    """What to do about a message.

    Args:
        action: what.
        branch: the branch concerned; None when this instance holds, and remembers, none.
        answer: the answer, when the action is ANSWER.
    """

    action: Action
    branch: Branch | None = None
    answer: Answer | None = None


def no(cause: Cause) -> Voted:
    """The vote NO."""
    return Voted(Vote.NO, cause=cause)


def end(decision: Decision, branch: Branch) -> Ended:
    """The answer to Commit or Rollback of a branch that has ended."""
    fate = branch.fate or Fate.UNPROVED
    if branch.read_only and decision is Decision.ABORT:
        return Ended(Outcome.ABORTED)  # it changed nothing: there is nothing that could differ
    outcome = OUTCOMES[decision, fate]
    as_decided = outcome in {Outcome.COMMITTED, Outcome.ABORTED}
    return Ended(outcome, "" if as_decided else branch.evidence or _own_evidence(branch))


def _own_evidence(branch: Branch) -> str:
    cause = branch.cause
    return f"this process rolled it back ({cause.code})" if cause is not None else ""


def one_phase_end(branch: Branch) -> Ended:
    """The answer to CommitOnePhase of a branch that has ended."""
    if branch.fate is Fate.COMMITTED:
        return Ended(Outcome.COMMITTED, results=branch.results)
    if branch.fate is Fate.ABORTED:
        return Ended(Outcome.ABORTED, cause=branch.cause or ROLLED_BACK_FIRST)
    return Ended(Outcome.HEURISTIC_HAZARD, branch.evidence)
