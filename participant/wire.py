"""Between the wire's messages and the SDK's own values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from handfast.masking import masked
from handfast.v1 import participant_pb2 as p
from handfast.v1 import types_pb2 as t
from handfast.xid import Xid
from participant.faults import reason_of
from participant.protocol import Ended, Outcome, Vote, Voted
from participant.resource import Finding, Found, PreparedBranch, Severity, Stand

_VOTES: Mapping[Vote, t.Vote.ValueType] = {
    Vote.YES: t.VOTE_YES,
    Vote.NO: t.VOTE_NO,
    Vote.READ_ONLY: t.VOTE_READ_ONLY,
}
_OUTCOMES: Mapping[Outcome, t.Outcome.ValueType] = {
    Outcome.COMMITTED: t.OUTCOME_COMMITTED,
    Outcome.ABORTED: t.OUTCOME_ABORTED,
    Outcome.HEURISTIC_COMMIT: t.OUTCOME_HEURISTIC_COMMIT,
    Outcome.HEURISTIC_ROLLBACK: t.OUTCOME_HEURISTIC_ROLLBACK,
    Outcome.HEURISTIC_HAZARD: t.OUTCOME_HEURISTIC_HAZARD,
}
_STANDS: Mapping[Stand, t.BranchState.ValueType] = {
    Stand.PREPARED: t.BRANCH_STATE_IN_DOUBT,
    Stand.COMMITTED: t.BRANCH_STATE_COMMITTED,
    Stand.ABORTED: t.BRANCH_STATE_ABORTED,
    Stand.OPEN: t.BRANCH_STATE_UNSPECIFIED,
    Stand.UNPROVED: t.BRANCH_STATE_UNSPECIFIED,
}
_SEVERITIES: Mapping[Severity, p.Severity.ValueType] = {
    Severity.OK: p.SEVERITY_OK,
    Severity.WARNING: p.SEVERITY_WARNING,
    Severity.ERROR: p.SEVERITY_ERROR,
}


def timeout_s(request: p.PrepareRequest | p.CommitOnePhaseRequest) -> float | None:
    """The time left that a message gives, in seconds; None when it gives none."""
    return request.timeout_ms / 1000 if request.timeout_ms else None


def prepare_response(voted: Voted, request: p.PrepareRequest) -> p.PrepareResponse:
    """A vote."""
    cause = voted.cause
    if cause is None:
        return p.PrepareResponse(vote=_VOTES[voted.vote], proof=voted.proof, results=voted.results)
    reason = reason_of(cause, request.gtrid, request.bqual)
    return p.PrepareResponse(vote=_VOTES[voted.vote], reason=reason, reason_code=cause.code)


def one_phase_response(ended: Ended, request: p.CommitOnePhaseRequest) -> p.CommitOnePhaseResponse:
    """How the only branch ended."""
    cause = ended.cause
    reason = ended.evidence or (reason_of(cause, request.gtrid, request.bqual) if cause is not None else "")
    code = cause.code if cause is not None else ""
    return p.CommitOnePhaseResponse(
        outcome=_OUTCOMES[ended.outcome], results=ended.results, reason=reason, reason_code=code
    )


def commit_response(ended: Ended, _: object = None) -> p.ParticipantCommitResponse:
    """How a branch ended that was told to commit."""
    return p.ParticipantCommitResponse(outcome=_OUTCOMES[ended.outcome], evidence=ended.evidence)


def rollback_response(ended: Ended, _: object = None) -> p.ParticipantRollbackResponse:
    """How a branch ended that was told to roll back."""
    return p.ParticipantRollbackResponse(outcome=_OUTCOMES[ended.outcome], evidence=ended.evidence)


def recover_response(branches: Iterable[PreparedBranch]) -> p.RecoverResponse:
    """The prepared branches."""
    return p.RecoverResponse(branches=[_prepared(branch) for branch in branches])


def finding(found: Finding, resource: str) -> p.Finding:
    """One thing that was checked."""
    return p.Finding(
        check=found.check,
        severity=_SEVERITIES[found.severity],
        found=masked(found.found),
        mend=masked(found.mend),
        subject=resource,
    )


def branch_end(xid: Xid, found: Found) -> p.BranchEnd:
    """What became of one branch."""
    return p.BranchEnd(
        gtrid=xid.gtrid, bqual=xid.bqual, state=_STANDS[found.stand], evidence=found.evidence, lost=found.lost
    )


def _prepared(branch: PreparedBranch) -> p.PreparedBranch:
    return p.PreparedBranch(
        gtrid=branch.xid.gtrid,
        bqual=branch.xid.bqual,
        gid=branch.xid.gid(),
        prepared_unix_ms=branch.prepared_unix_ms,
        age_ms=branch.age_ms,
        owner=branch.owner,
        database=branch.database,
        locks_held=branch.locks_held,
        blocked=[
            p.BlockedSession(pid=blocked.pid, waiting_ms=blocked.waiting_ms, statement=blocked.statement)
            for blocked in branch.blocked
        ],
        xmin_age=branch.xmin_age,
    )
