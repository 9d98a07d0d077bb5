"""What must hold after every step, checked in production.

``assert`` vanishes under ``-O``; these checks do not. Each looks only at what the step produced, so that they cost
next to nothing, and each raises with the transaction and its states rather than let a wrong message leave.
"""

from __future__ import annotations

from collections.abc import Mapping

from coordinator.protocol.branch import Branch
from coordinator.protocol.effects import Effects, Send, SendCommit, SendCommitOnePhase, SendPrepare
from coordinator.protocol.members import ABORT, COMMIT, PREPARING, READ_ONLY, YES
from coordinator.protocol.states import Decision, TransactionState


class InvariantViolated(Exception):
    """The protocol core produced something that must never happen. A bug in Handfast; nothing was sent.

    Args:
        gtrid: the transaction.
        rule: what was broken.
        state: the transaction's state.
        branches: its branches.
    """

    def __init__(self, gtrid: str, rule: str, state: TransactionState, branches: Mapping[str, Branch]) -> None:
        shown = ", ".join(f"{b.bqual}: {b.state.value}, vote {b.vote and b.vote.value}" for b in branches.values())
        super().__init__(f"invariant broken in {gtrid}: {rule} (state {state.value}; {shown})")
        self.gtrid = gtrid
        self.rule = rule


def broken_rule(
    state: TransactionState,
    decision: Decision | None,
    deadline_missed: bool,
    branches: Mapping[str, Branch],
    effects: Effects,
) -> str | None:
    """Return the rule that the step's effects break; None when they break none.

    Args:
        state: the transaction's state after the step.
        decision: the decision that stands, durably; None while none does.
        deadline_missed: whether the event that was stepped came after the deadline.
        branches: the branches after the step, by bqual.
        effects: what the step wants done.
    """
    if effects.force is not None:
        return _broken_by_force(decision, deadline_missed, branches, effects)
    if effects.send_after_force:
        return "messages wait for a force, and there is none"
    for message in effects.send:
        rule = _broken_by_send(message, state, decision, branches)
        if rule is not None:
            return rule
    if effects.end is not None:
        for branch in branches.values():
            if branch.outcome is None:
                return "an end record while a branch has not ended"
    return None


def _broken_by_force(
    decision: Decision | None, deadline_missed: bool, branches: Mapping[str, Branch], effects: Effects
) -> str | None:
    if decision is not None:
        return "a second decision"
    if deadline_missed:
        return "a decision to commit past the deadline"
    if effects.send:
        return "a message that does not wait for the force beside it"
    for branch in branches.values():
        if branch.vote is not YES and branch.vote is not READ_ONLY:
            return "a decision to commit without every vote"
    return None


def _broken_by_send(
    message: Send, state: TransactionState, decision: Decision | None, branches: Mapping[str, Branch]
) -> str | None:
    kind, bqual = type(message), message.bqual
    if kind is SendPrepare or kind is SendCommitOnePhase:
        if state is not PREPARING or decision is not None:
            return f"phase one to {bqual} in state {state.value}"
    elif kind is SendCommit:
        if branches[bqual].override is not COMMIT and decision is not COMMIT:
            return f"Commit to {bqual} without a durable decision"
        if branches[bqual].vote is not YES:
            return f"Commit to {bqual}, which did not vote yes"
    elif branches[bqual].override is not ABORT and decision is COMMIT:
        return f"Rollback to {bqual} against the decision"
    return None
