"""From the core's values to the messages of the wire.

The core and the wire name their enums apart: the core must not know protobuf, and the wire must be able to say "not
set". The tables here are total in both directions, which a test holds, so that a new value on either side can't be
forgotten.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from google.protobuf.message import Message

from coordinator.protocol.branch import Branch
from coordinator.protocol.members import COMMIT, COMMITTED
from coordinator.protocol.states import BranchState, Cause, Outcome, TransactionState, Vote
from coordinator.rpc.history import history_entries
from coordinator.runtime.requests import Inquiry, Standing
from coordinator.runtime.running import Running
from handfast.catalog import HandfastFault
from handfast.v1 import admin_pb2 as a
from handfast.v1 import coordinator_pb2 as c
from handfast.v1 import types_pb2 as t

logger = logging.getLogger(__name__)

TRANSACTION_STATES = {
    TransactionState.ACTIVE: t.TRANSACTION_STATE_ACTIVE,
    TransactionState.PREPARING: t.TRANSACTION_STATE_PREPARING,
    TransactionState.COMMITTING: t.TRANSACTION_STATE_COMMITTING,
    TransactionState.ABORTING: t.TRANSACTION_STATE_ABORTING,
    TransactionState.COMMITTED: t.TRANSACTION_STATE_COMMITTED,
    TransactionState.ABORTED: t.TRANSACTION_STATE_ABORTED,
    TransactionState.FORGOTTEN: t.TRANSACTION_STATE_FORGOTTEN,
}
BRANCH_STATES = {
    BranchState.ACTIVE: t.BRANCH_STATE_ACTIVE,
    BranchState.PREPARING: t.BRANCH_STATE_PREPARING,
    BranchState.IN_DOUBT: t.BRANCH_STATE_IN_DOUBT,
    BranchState.COMMITTED: t.BRANCH_STATE_COMMITTED,
    BranchState.ABORTED: t.BRANCH_STATE_ABORTED,
}
VOTES = {Vote.YES: t.VOTE_YES, Vote.NO: t.VOTE_NO, Vote.READ_ONLY: t.VOTE_READ_ONLY}
OUTCOMES = {
    Outcome.COMMITTED: t.OUTCOME_COMMITTED,
    Outcome.ABORTED: t.OUTCOME_ABORTED,
    Outcome.HEURISTIC_COMMIT: t.OUTCOME_HEURISTIC_COMMIT,
    Outcome.HEURISTIC_ROLLBACK: t.OUTCOME_HEURISTIC_ROLLBACK,
    Outcome.HEURISTIC_MIXED: t.OUTCOME_HEURISTIC_MIXED,
    Outcome.HEURISTIC_HAZARD: t.OUTCOME_HEURISTIC_HAZARD,
}
CAUSES = {
    Cause.VOTE_NO: t.ABORT_CAUSE_VOTE_NO,
    Cause.DEADLINE: t.ABORT_CAUSE_DEADLINE,
    Cause.CLIENT: t.ABORT_CAUSE_CLIENT,
    Cause.UNREACHABLE: t.ABORT_CAUSE_UNREACHABLE,
    Cause.OPERATOR: t.ABORT_CAUSE_OPERATOR,
    Cause.PRESUMED: t.ABORT_CAUSE_PRESUMED,
    Cause.LOG_REFUSED: t.ABORT_CAUSE_LOG_REFUSED,
}
STANDINGS = {
    Standing.UNDECIDED: c.STANDING_UNDECIDED,
    Standing.COMMIT: c.STANDING_COMMIT,
    Standing.ABORT: c.STANDING_ABORT,
    Standing.UNKNOWN: c.STANDING_UNKNOWN,
}
STATES_OF_WIRE = {number: state for state, number in TRANSACTION_STATES.items()}
ACTIONS_OF_WIRE = {
    a.RESOLVE_ACTION_COMMIT: "commit",
    a.RESOLVE_ACTION_ROLLBACK: "rollback",
    a.RESOLVE_ACTION_RETRY_NOW: "retry-now",
    a.RESOLVE_ACTION_FORGET: "forget",
}

RETRY_MS_MIN, RETRY_MS_MAX = 100, 1000
"""Between these lies when an asker should ask again about a transaction that is not decided."""


# -- answers to applications and participants ----------------------------------------------------------------------


def commit_response(running: Running) -> c.CommitResponse:
    """Tell what became of a transaction."""
    response = c.CommitResponse(gtrid=running.gtrid, outcome=outcome_of(running), branches=telling_branches(running))
    machine = running.transaction
    if machine.cause is not None:
        response.cause = CAUSES[machine.cause]
    if machine.reason:
        response.reason = machine.reason
    return response


def rollback_response(running: Running) -> c.RollbackResponse:
    """Tell that it was rolled back, and who has not confirmed it."""
    return c.RollbackResponse(gtrid=running.gtrid, outcome=outcome_of(running), branches=telling_branches(running))


def execute_response(running: Running) -> c.ExecuteResponse:
    """Tell what became of a one-shot transaction, with its operations' results when it committed."""
    machine = running.transaction
    response = c.ExecuteResponse()
    response.gtrid = machine.gtrid
    response.outcome = outcome_of(running)
    if branches := telling_branches(running):
        response.branches.extend(branches)
    if machine.cause is not None:
        response.cause = CAUSES[machine.cause]
    if machine.reason:
        response.reason = machine.reason
    if machine.decision is COMMIT and running.results:
        response.results.extend(running.ordered_results())
    return response


def inquire_response(gtrid: str, inquiry: Inquiry, now_unix_ms: int) -> c.InquireResponse:
    """Tell what stands.

    Args:
        gtrid: the transaction.
        inquiry: what is known of it.
        now_unix_ms: the time, for when to ask again.
    """
    response = c.InquireResponse(gtrid=gtrid, standing=STANDINGS[inquiry.standing])
    running = inquiry.running
    if inquiry.standing is Standing.UNDECIDED and running is not None:
        left_ms = running.deadline_unix_ms - now_unix_ms
        response.retry_after_ms = min(max(left_ms, RETRY_MS_MIN), RETRY_MS_MAX)
    if running is None:
        _fill_unrecorded(response, inquiry.standing)
        return response
    response.outcome = outcome_of(running)
    response.reason = running.transaction.reason
    response.branches.extend(telling_branches(running))
    if running.transaction.cause is not None:
        response.cause = CAUSES[running.transaction.cause]
    return response


def _fill_unrecorded(response: c.InquireResponse, standing: Standing) -> None:
    if standing is Standing.COMMIT:
        response.outcome = t.OUTCOME_COMMITTED
    elif standing is Standing.ABORT:
        response.outcome = t.OUTCOME_ABORTED
        response.cause = t.ABORT_CAUSE_PRESUMED
        response.reason = Cause.PRESUMED.value


def outcome_of(running: Running) -> t.Outcome.ValueType:
    """What became of it, or will for certain; not set while nobody knows."""
    outcome = running.transaction.outcome or running.outcome
    return t.OUTCOME_UNSPECIFIED if outcome is None else OUTCOMES[outcome]


def telling_branches(running: Running) -> list[t.Branch]:
    """The branches that the asker should hear of: those that voted NO, failed, ended heuristically or are pending."""
    return [
        branch_message(branch, running)
        for branch in running.transaction.branches.values()
        if branch.outcome is not COMMITTED and _is_telling(branch)
    ]


def _is_telling(branch: Branch) -> bool:
    return branch.outcome is not Outcome.ABORTED or branch.vote is Vote.NO or bool(branch.reason)


# -- reports -------------------------------------------------------------------------------------------------------


def branch_message(branch: Branch, running: Running) -> t.Branch:
    """Show one branch."""
    resource, _, instance = branch.bqual.partition(".")
    return t.Branch(
        bqual=branch.bqual,
        resource=resource,
        instance=instance,
        state=BRANCH_STATES[branch.state],
        vote=t.VOTE_UNSPECIFIED if branch.vote is None else VOTES[branch.vote],
        reason=branch.reason,
        reason_code=branch.reason_code,
        outcome=t.OUTCOME_UNSPECIFIED if branch.outcome is None else OUTCOMES[branch.outcome],
        evidence=branch.evidence,
        attempts=branch.attempts,
        next_attempt_unix_ms=0 if branch.ended else running.next_attempt_unix_ms.get(branch.bqual, 0),
        last_error=branch.last_error,
        proof=branch.proof,
    )


def transaction_message(running: Running) -> a.Transaction:
    """Show a transaction, without its history."""
    machine = running.transaction
    return a.Transaction(
        gtrid=machine.gtrid,
        state=TRANSACTION_STATES[machine.state],
        outcome=outcome_of(running),
        cause=t.ABORT_CAUSE_UNSPECIFIED if machine.cause is None else CAUSES[machine.cause],
        reason=running.broken or machine.reason,
        begun_unix_ms=running.begun_unix_ms,
        deadline_unix_ms=running.deadline_unix_ms,
        decided_unix_ms=running.decided_unix_ms,
        ended_unix_ms=running.ended_unix_ms,
        branches=[branch_message(branch, running) for branch in machine.branches.values()],
        one_shot=running.one_shot,
        client=running.client,
        recovered=running.recovered,
    )


def transaction_with_history(running: Running, interventions: list[a.HistoryEntry]) -> a.Transaction:
    """Show a transaction with its history, operators' interventions in their places."""
    message = transaction_message(running)
    entries = [*history_entries(running), *interventions]
    message.history.extend(sorted(entries, key=lambda entry: entry.unix_ms))
    return message


def answered(encode: Callable[[Running], Message], answer: Running | HandfastFault) -> Message | HandfastFault:
    """Spell an answer; what can't be spelled is answered INTERNAL."""
    if isinstance(answer, HandfastFault):
        return answer
    try:
        return encode(answer)
    except Exception as defect:
        # The transaction has its outcome; that it can't be told must not leave the asker waiting for ever.
        logger.exception("the outcome of %s could not be told", answer.gtrid)
        return HandfastFault("INTERNAL", gtrid=answer.gtrid, problem=f"{type(defect).__name__}: {defect}")
