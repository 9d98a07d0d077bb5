"""The transition table: from each state, on each event, to which states.

A pair that is not here can't happen; ``GlobalTransaction.step`` raises when it does, and when a handler leaves the
machine in a state that its row does not name. docs/states.md is drawn from this table.

Three kinds of event need no row of their own in most states, for the network repeats and delays: a client that asks
again, an answer to a message that was sent twice, and a timer that fires late. They stand in the table all the same,
as transitions from a state to itself, so that what is harmless is written down and what is not raises.
"""

from __future__ import annotations

from types import MappingProxyType

from coordinator.protocol import events as e
from coordinator.protocol.states import TransactionState as S

Row = dict[type, tuple[S, ...]]

_ACTIVE: Row = {
    e.Enlisted: (S.ACTIVE,),
    # No branch at all: committed at once. Past the deadline: aborted, whoever asks.
    e.CommitRequested: (S.PREPARING, S.COMMITTED, S.ABORTING, S.ABORTED),
    e.RollbackRequested: (S.ABORTING, S.ABORTED),
    e.DeadlinePassed: (S.ABORTING, S.ABORTED),
}

_PREPARING: Row = {
    # COMMITTED: every branch was read-only, and there is nothing to decide.
    e.VoteReceived: (S.PREPARING, S.ABORTING, S.ABORTED, S.COMMITTED),
    e.VoteLost: (S.ABORTING,),
    # ABORTING: somebody else's abort stood in the log before our commit came.
    e.DecisionStood: (S.COMMITTING, S.ABORTING),
    e.DecisionRefused: (S.ABORTING,),
    e.OnePhaseAnswered: (S.COMMITTED, S.ABORTED),
    e.OnePhaseUnsupported: (S.PREPARING,),
    # PREPARING: the decision is in the log's hands, or the only branch's; it is too late to change our mind.
    e.RollbackRequested: (S.ABORTING, S.PREPARING),
    e.DeadlinePassed: (S.ABORTING, S.PREPARING),
    e.DeliveryFailed: (S.PREPARING,),
    e.RetryDue: (S.PREPARING,),
    e.CommitRequested: (S.PREPARING,),
}

_COMMITTING: Row = {
    e.BranchEnded: (S.COMMITTING, S.COMMITTED),
    e.DeliveryFailed: (S.COMMITTING,),
    e.RetryDue: (S.COMMITTING,),
    e.ResolvedAgainstDecision: (S.COMMITTING,),
    e.CommitRequested: (S.COMMITTING,),
    e.RollbackRequested: (S.COMMITTING,),
    e.DeadlinePassed: (S.COMMITTING,),
}

_ABORTING: Row = {
    e.BranchEnded: (S.ABORTING, S.ABORTED),
    # ABORTED: enough attempts; the participant will ask, and the absence of a record will answer it.
    e.DeliveryFailed: (S.ABORTING, S.ABORTED),
    e.RetryDue: (S.ABORTING,),
    # A late YES is rolled back again: a participant without tombstones may prepare after it rolled back.
    e.VoteReceived: (S.ABORTING, S.ABORTED),
    e.VoteLost: (S.ABORTING, S.ABORTED),
    e.ResolvedAgainstDecision: (S.ABORTING,),
    e.CommitRequested: (S.ABORTING,),
    e.RollbackRequested: (S.ABORTING,),
    e.DeadlinePassed: (S.ABORTING,),
}

_COMMITTED: Row = {
    e.BranchEnded: (S.COMMITTED,),
    e.DeliveryFailed: (S.COMMITTED,),
    e.RetryDue: (S.COMMITTED,),
    e.CommitRequested: (S.COMMITTED,),
    e.RollbackRequested: (S.COMMITTED,),
    e.DeadlinePassed: (S.COMMITTED,),
    e.Forgotten: (S.FORGOTTEN,),
}

_ABORTED: Row = {
    e.BranchEnded: (S.ABORTED,),
    e.DeliveryFailed: (S.ABORTED,),
    e.RetryDue: (S.ABORTED,),
    e.CommitRequested: (S.ABORTED,),
    e.RollbackRequested: (S.ABORTED,),
    e.DeadlinePassed: (S.ABORTED,),
    e.Forgotten: (S.FORGOTTEN,),
}

TRANSITIONS = MappingProxyType(
    {
        S.ACTIVE: _ACTIVE,
        S.PREPARING: _PREPARING,
        S.COMMITTING: _COMMITTING,
        S.ABORTING: _ABORTING,
        S.COMMITTED: _COMMITTED,
        S.ABORTED: _ABORTED,
        S.FORGOTTEN: {},
    }
)
"""State → event type → the states that may follow."""
