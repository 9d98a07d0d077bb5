"""What happens to a global transaction. Past tense: an event is a fact, and the machine may only react to it.

Times are seconds of the driver's monotonic clock; the machine compares them and never asks for them.
"""

from __future__ import annotations

from coordinator.protocol.states import Cause, Decision, Outcome, Vote
from coordinator.protocol.values import made_once, value


@value
class Enlisted:
    """A branch joined."""

    bqual: str


enlisted = made_once(Enlisted)


@value
class CommitRequested:
    """The client wants the commit."""

    now_s: float


@value
class RollbackRequested:
    """The client, or an operator, wants the rollback."""

    cause: Cause
    reason: str


@value
class VoteReceived:
    """A branch answered Prepare."""

    bqual: str
    vote: Vote
    now_s: float
    proof: str = ""
    reason: str = ""
    reason_code: str = ""


@value
class VoteLost:
    """Prepare got no answer. The branch may be prepared all the same."""

    bqual: str
    reason: str


@value
class DecisionStood:
    """The log made a decision durable: the one offered, or one that stood already."""

    decision: Decision


decision_stood = made_once(DecisionStood)


@value
class DecisionRefused:
    """The decision offered was certainly not written: the log refused it, or it was too late to offer it."""

    reason: str
    cause: Cause = Cause.LOG_REFUSED


@value
class OnePhaseAnswered:
    """The only branch said what became of it."""

    bqual: str
    outcome: Outcome
    reason: str = ""
    reason_code: str = ""


@value
class OnePhaseUnsupported:
    """The only branch's participant knows no CommitOnePhase; two phases it is."""

    bqual: str


@value
class BranchEnded:
    """A branch acknowledged Commit or Rollback."""

    bqual: str
    outcome: Outcome
    evidence: str = ""


@value
class DeliveryFailed:
    """Commit, Rollback or CommitOnePhase got no answer."""

    bqual: str
    reason: str


@value
class RetryDue:
    """It is time to send again what got no answer."""

    bqual: str


@value
class DeadlinePassed:
    """The time in which the transaction may decide commit is over."""


@value
class ResolvedAgainstDecision:
    """An operator ends the branches still in doubt the other way (X/Open: a heuristic decision)."""

    decision: Decision
    operator: str


@value
class Forgotten:
    """Retention has passed, or an operator dropped what is remembered."""


Event = (
    Enlisted
    | CommitRequested
    | RollbackRequested
    | VoteReceived
    | VoteLost
    | DecisionStood
    | DecisionRefused
    | OnePhaseAnswered
    | OnePhaseUnsupported
    | BranchEnded
    | DeliveryFailed
    | RetryDue
    | DeadlinePassed
    | ResolvedAgainstDecision
    | Forgotten
)
EVENT_TYPES: tuple[type, ...] = Event.__args__
