"""One branch as the coordinator knows it: plain data that ``GlobalTransaction`` moves."""

from __future__ import annotations

from dataclasses import dataclass

from coordinator.protocol.members import COMMITTED
from coordinator.protocol.states import BranchState, Decision, Outcome, Vote

_COMMITTED = BranchState.COMMITTED


@dataclass(slots=True)
class Branch:
    """One participant's share of a global transaction.

    Args:
        bqual: its name, ``resource.instance``.
        state: where it stands.
        vote: its answer in phase one; None when none came.
        proof: the token from its vote.
        reason: why it voted NO, or why its vote was lost.
        reason_code: the same, as the error catalog names it.
        outcome: what became of it; None while it has not ended.
        evidence: what proves a heuristic outcome.
        vote_awaited: whether a Prepare is under way that has neither been answered nor given up.
        attempts: how many times the present message was sent without an answer, or is being sent.
        last_error: the last delivery error.
        override: the end that an operator chose against the decision.
    """

    bqual: str
    state: BranchState = BranchState.ACTIVE
    vote: Vote | None = None
    proof: str = ""
    reason: str = ""
    reason_code: str = ""
    outcome: Outcome | None = None
    evidence: str = ""
    vote_awaited: bool = False
    attempts: int = 0
    last_error: str = ""
    override: Decision | None = None

    @property
    def ended(self) -> bool:
        """Whether the branch needs no more messages."""
        return self.outcome is not None

    def end(self, outcome: Outcome, evidence: str = "") -> None:
        """Take the branch to its end."""
        self.outcome = outcome
        self.evidence = evidence
        committed = outcome is COMMITTED or outcome is Outcome.HEURISTIC_COMMIT
        self.state = _COMMITTED if committed else BranchState.ABORTED
