"""What became of a transaction, as values: the wire's enums and messages, in the words an application reads."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass, field

from handfast.v1 import coordinator_pb2, types_pb2


class Outcome(enum.Enum):
    """What became of a transaction or of one branch."""

    COMMITTED = types_pb2.OUTCOME_COMMITTED
    ABORTED = types_pb2.OUTCOME_ABORTED
    HEURISTIC_COMMIT = types_pb2.OUTCOME_HEURISTIC_COMMIT
    HEURISTIC_ROLLBACK = types_pb2.OUTCOME_HEURISTIC_ROLLBACK
    HEURISTIC_MIXED = types_pb2.OUTCOME_HEURISTIC_MIXED
    HEURISTIC_HAZARD = types_pb2.OUTCOME_HEURISTIC_HAZARD

    @property
    def heuristic(self) -> bool:
        """Whether some branch ended, or may have ended, against the decision."""
        return self not in {Outcome.COMMITTED, Outcome.ABORTED}

    def __str__(self) -> str:
        return self.name


class AbortCause(enum.Enum):
    """Why a transaction was aborted."""

    VOTE_NO = types_pb2.ABORT_CAUSE_VOTE_NO
    DEADLINE = types_pb2.ABORT_CAUSE_DEADLINE
    CLIENT = types_pb2.ABORT_CAUSE_CLIENT
    UNREACHABLE = types_pb2.ABORT_CAUSE_UNREACHABLE
    OPERATOR = types_pb2.ABORT_CAUSE_OPERATOR
    PRESUMED = types_pb2.ABORT_CAUSE_PRESUMED
    LOG_REFUSED = types_pb2.ABORT_CAUSE_LOG_REFUSED

    def __str__(self) -> str:
        return self.name


class Standing(enum.Enum):
    """What stands in the coordinator's log about a transaction."""

    UNDECIDED = coordinator_pb2.STANDING_UNDECIDED
    COMMIT = coordinator_pb2.STANDING_COMMIT
    ABORT = coordinator_pb2.STANDING_ABORT
    UNKNOWN = coordinator_pb2.STANDING_UNKNOWN

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class BranchReport:
    """One branch, as the coordinator tells of it.

    Args:
        bqual: the branch, ``resource.instance``.
        state: where it stands, for example ``IN_DOUBT``.
        vote: its answer in phase one, for example ``NO``; empty when none came.
        reason: why it voted NO, or could not be reached.
        reason_code: the reason in the error catalog.
        outcome: what became of it; None while it has not ended.
        evidence: what proves a heuristic outcome.
        attempts: how many times its present message was sent.
        last_error: the last delivery error.
    """

    bqual: str
    state: str = ""
    vote: str = ""
    reason: str = ""
    reason_code: str = ""
    outcome: Outcome | None = None
    evidence: str = ""
    attempts: int = 0
    last_error: str = ""

    @property
    def pending(self) -> bool:
        """Whether it has yet to apply the decision."""
        return self.outcome is None and self.state not in {"COMMITTED", "ABORTED"}


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a transaction ended, whichever answer told it.

    Args:
        gtrid: the transaction.
        outcome: what became of it.
        cause: why it was aborted; None when it was not, or the cause is no longer known.
        reason: the cause in words.
        branches: the branches worth telling of.
        results: what each operation of a one-shot transaction returned; None when the answer that carried them was
            lost, and the outcome was learned by asking.
    """

    gtrid: str
    outcome: Outcome
    cause: AbortCause | None = None
    reason: str = ""
    branches: tuple[BranchReport, ...] = ()
    results: tuple[bytes, ...] | None = None

    @property
    def pending(self) -> tuple[BranchReport, ...]:
        """The branches that have yet to apply the decision; they will, by themselves."""
        return tuple([branch for branch in self.branches if branch.pending]) if self.branches else ()


@dataclass(frozen=True, slots=True)
class ExecuteResult:
    """A one-shot transaction that committed.

    Args:
        gtrid: the transaction.
        outcome: ``Outcome.COMMITTED``.
        results: what each operation returned, in the order of the operations; None when the coordinator's answer was
            lost on the way: the transaction is known to have committed, its results are not known.
        pending: branches that have yet to apply the decision; they will, by themselves.
    """

    gtrid: str
    outcome: Outcome
    results: tuple[bytes, ...] | None
    pending: tuple[BranchReport, ...] = ()


@dataclass(frozen=True, slots=True)
class OutcomeReport:
    """What the coordinator says of a transaction when asked.

    Args:
        gtrid: the transaction.
        standing: what stands in its log. UNDECIDED: ask again; UNKNOWN: nobody can tell any more.
        outcome: what became of it so far; None while nobody knows.
        cause: why it was aborted; None when it was not, or the cause is no longer known.
        reason: the cause in words.
        branches: the branches worth telling of.
        retry_after_s: when UNDECIDED, how long to wait before asking again, in seconds.
    """

    gtrid: str
    standing: Standing
    outcome: Outcome | None
    cause: AbortCause | None = None
    reason: str = ""
    branches: tuple[BranchReport, ...] = ()
    retry_after_s: float = field(default=0.0, compare=False)

    @property
    def pending(self) -> tuple[BranchReport, ...]:
        """The branches that have yet to apply the decision; they will, by themselves."""
        return tuple(branch for branch in self.branches if branch.pending)


def outcome_of(number: int) -> Outcome | None:
    """Read the wire's enum; None when unspecified, or newer than this program."""
    return _OUTCOMES.get(number)


def cause_of(number: int) -> AbortCause | None:
    """Read the wire's enum; None when unspecified, or newer than this program."""
    return _CAUSES.get(number)


def branches_of(branches: Iterable[types_pb2.Branch]) -> tuple[BranchReport, ...]:
    """Read the wire's branches."""
    return tuple(
        BranchReport(
            bqual=branch.bqual,
            state=_short(types_pb2.BranchState, branch.state, "BRANCH_STATE_"),
            vote=_short(types_pb2.Vote, branch.vote, "VOTE_"),
            reason=branch.reason,
            reason_code=branch.reason_code,
            outcome=outcome_of(branch.outcome),
            evidence=branch.evidence,
            attempts=branch.attempts,
            last_error=branch.last_error,
        )
        for branch in branches
    )


def verdict_of(answer: coordinator_pb2.CommitResponse | coordinator_pb2.ExecuteResponse) -> Verdict | None:
    """Read an answer to Commit or Execute; None when it says that nobody knows the outcome yet."""
    outcome = outcome_of(answer.outcome)
    if outcome is None:
        return None
    results = tuple(answer.results) if isinstance(answer, coordinator_pb2.ExecuteResponse) else None
    branches = branches_of(answer.branches) if answer.branches else ()
    return Verdict(answer.gtrid, outcome, cause_of(answer.cause), answer.reason, branches, results)


def report_of(answer: coordinator_pb2.InquireResponse) -> OutcomeReport:
    """Read an answer to Inquire. A standing newer than this program reads as UNDECIDED: it is no decision."""
    standing = Standing(answer.standing) if answer.standing in _STANDINGS else Standing.UNDECIDED
    return OutcomeReport(
        gtrid=answer.gtrid,
        standing=standing,
        outcome=outcome_of(answer.outcome) or _OUTCOME_BY_STANDING.get(standing),
        cause=cause_of(answer.cause),
        reason=answer.reason,
        branches=branches_of(answer.branches),
        retry_after_s=answer.retry_after_ms / 1000,
    )


_OUTCOMES: dict[int, Outcome] = {outcome.value: outcome for outcome in Outcome}
_CAUSES: dict[int, AbortCause] = {cause.value: cause for cause in AbortCause}
_STANDINGS = {standing.value for standing in Standing}
_OUTCOME_BY_STANDING = {Standing.COMMIT: Outcome.COMMITTED, Standing.ABORT: Outcome.ABORTED}


def _short(kind: type[types_pb2.BranchState] | type[types_pb2.Vote], number: int, prefix: str) -> str:
    name = kind.DESCRIPTOR.values_by_number[number].name if number in kind.DESCRIPTOR.values_by_number else ""
    short = name.removeprefix(prefix)
    return "" if short == "UNSPECIFIED" else short
