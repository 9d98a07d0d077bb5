"""From effects to the Participant service's requests, and from its responses to events."""

from __future__ import annotations

from collections.abc import Sequence

from coordinator.protocol import events as e
from coordinator.protocol.effects import SendCommit, SendRollback
from coordinator.protocol.states import Outcome, Vote
from coordinator.protocol.values import made_once
from handfast.masking import masked
from handfast.v1 import participant_pb2 as p
from handfast.v1 import types_pb2 as t

_VOTES = {t.VOTE_YES: Vote.YES, t.VOTE_NO: Vote.NO, t.VOTE_READ_ONLY: Vote.READ_ONLY}
_OUTCOMES = {
    t.OUTCOME_COMMITTED: Outcome.COMMITTED,
    t.OUTCOME_ABORTED: Outcome.ABORTED,
    t.OUTCOME_HEURISTIC_COMMIT: Outcome.HEURISTIC_COMMIT,
    t.OUTCOME_HEURISTIC_ROLLBACK: Outcome.HEURISTIC_ROLLBACK,
    t.OUTCOME_HEURISTIC_MIXED: Outcome.HEURISTIC_MIXED,
    t.OUTCOME_HEURISTIC_HAZARD: Outcome.HEURISTIC_HAZARD,
}

SAID_LENGTH_MAX = 2_048
"""What is taken of a participant's words: they are kept with the transaction, logged, and told to its client."""

PROOF_LENGTH_MAX = 1_024
"""A longer proof is none: it stands in the decision log, and ours have some twenty characters."""

_ended_as = made_once(e.BranchEnded)


def prepare_request(gtrid: str, bqual: str, operations: Sequence[t.Operation], time_left_ms: int) -> p.PrepareRequest:
    """Ask for a vote."""
    # Field by field, for naming the fields to the constructor costs twice as much.
    request = p.PrepareRequest()
    request.gtrid = gtrid
    request.bqual = bqual
    request.timeout_ms = time_left_ms
    if operations:
        request.operations.extend(operations)
    return request


def one_phase_request(
    gtrid: str, bqual: str, operations: Sequence[t.Operation], time_left_ms: int
) -> p.CommitOnePhaseRequest:
    """Tell the only branch to commit."""
    return p.CommitOnePhaseRequest(gtrid=gtrid, bqual=bqual, operations=operations, timeout_ms=time_left_ms)


def decision_request(
    gtrid: str, message: SendCommit | SendRollback
) -> p.ParticipantCommitRequest | p.ParticipantRollbackRequest:
    """Tell the decision."""
    committing = type(message) is SendCommit
    request = p.ParticipantCommitRequest() if committing else p.ParticipantRollbackRequest()
    request.gtrid = gtrid
    request.bqual = message.bqual
    request.proof = message.proof
    return request


def vote_received(bqual: str, response: p.PrepareResponse, now_s: float) -> e.VoteReceived:
    """Read a vote. One that is not set counts as NO: nobody has promised anything."""
    vote = _VOTES.get(response.vote)
    if vote is None:
        reason = f"{bqual} answered Prepare without a vote"
        return e.VoteReceived(bqual, Vote.NO, now_s, reason=reason, reason_code="VOTE_LOST")
    proof = response.proof
    if len(proof) > PROOF_LENGTH_MAX:
        reason = f"{bqual} gave a proof of {len(proof)} characters; {PROOF_LENGTH_MAX} are the most"
        return e.VoteReceived(bqual, Vote.NO, now_s, reason=reason, reason_code="VOTE_LOST")
    reason, code = response.reason, response.reason_code
    if reason or code:
        reason, code = _said(reason), _said(code)
    return e.VoteReceived(bqual, vote, now_s, proof, reason, code)


def one_phase_answered(bqual: str, response: p.CommitOnePhaseResponse) -> e.OnePhaseAnswered:
    """Read what became of the only branch. An answer that says neither committed nor aborted leaves it a hazard."""
    outcome = _OUTCOMES.get(response.outcome, Outcome.HEURISTIC_HAZARD)
    if outcome not in (Outcome.COMMITTED, Outcome.ABORTED):
        outcome = Outcome.HEURISTIC_HAZARD
    return e.OnePhaseAnswered(bqual, outcome, _said(response.reason), _said(response.reason_code))


def branch_ended(bqual: str, response: p.ParticipantCommitResponse | p.ParticipantRollbackResponse) -> e.BranchEnded:
    """Read an acknowledgement. One without an outcome says: done as told."""
    outcome = _OUTCOMES.get(response.outcome)
    if outcome is None:
        outcome = Outcome.COMMITTED if type(response) is p.ParticipantCommitResponse else Outcome.ABORTED
    evidence = response.evidence
    return e.BranchEnded(bqual, outcome, _said(evidence)) if evidence else _ended_as(bqual, outcome)


def _said(text: str) -> str:
    """What a participant says, without secrets, and not more of it than anybody reads."""
    return masked(text[:SAID_LENGTH_MAX])


def left_ms(seconds: float) -> int:
    """The time left, as requests tell it: 0 would mean that nothing was said."""
    return max(1, int(seconds * 1000))
