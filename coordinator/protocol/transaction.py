"""Two-phase commit with presumed abort, without I/O.

Theory of operation
-------------------
A ``GlobalTransaction`` takes one event at a time and returns what is to be done about it. It reads no clock, opens no
socket and knows no log; the driver feeds it and obeys. What is argued here therefore holds whatever the driver runs on.

*Phase one.* On CommitRequested every branch is asked to prepare, all at once. A branch that votes YES has promised to
obey either decision through any crash; NO and READ_ONLY branches have ended and hear no more.

*Decision.* When the last vote is in, and it is not past the deadline, the machine offers a CommitRecord to the log. The
record names the branches that voted YES. From that moment on the decision is the log's: neither a deadline nor a
rollback request changes it, because the record may be durable already. Any NO, lost vote, missed deadline or rollback
request before that moment makes it an abort, and an abort is written nowhere: whoever finds no record presumes it
(Mohan & Lindsay, "Efficient commit protocols for the tree of processes model of distributed transactions", 1983).

*Phase two.* Commit messages leave when the record is durable and stands, not before (Gray & Reuter, 10.4). They are
repeated for ever: every branch voted YES, so every branch can obey. Rollback messages are repeated for a while only,
for a branch that never hears one asks, and is told abort.

*Short cuts.* No branch: committed. One branch: it is told to commit in one phase and decides itself. Only read-only
branches: committed without a record.

Atomicity follows: a branch commits only on Commit, Commit is sent only under a durable commit record, the record is
written only when all voted YES, and the log is a write-once register, so no abort can be decided beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from coordinator.protocol import events as e
from coordinator.protocol.branch import Branch
from coordinator.protocol.effects import (
    NOTHING,
    CommitRecord,
    Effects,
    EndRecord,
    ScheduleRetry,
    Send,
    SendCommit,
    SendCommitOnePhase,
    SendPrepare,
    SendRollback,
)
from coordinator.protocol.invariants import InvariantViolated, broken_rule
from coordinator.protocol.members import ABORT, ABORTING, ACTIVE, COMMIT, COMMITTED, COMMITTING, NO, PREPARING, YES
from coordinator.protocol.outcomes import measured, summed_up
from coordinator.protocol.states import BranchState, Cause, Decision, Outcome, TransactionState, Vote
from coordinator.protocol.table import TRANSITIONS
from coordinator.protocol.values import made_once

S = TransactionState

ROLLBACK_ATTEMPTS_MAX = 8
"""How often a Rollback is sent before the branch is left to ask by itself."""

FINAL_STATES = frozenset({S.COMMITTED, S.ABORTED, S.FORGOTTEN})

_prepare = made_once(SendPrepare)
_ASKED, _IN_DOUBT, _DONE = BranchState.PREPARING, BranchState.IN_DOUBT, S.COMMITTED  # as ``members``
_COMMITTED_BY_ALL = Effects(end=EndRecord(Outcome.COMMITTED, ""))


class ProtocolViolated(Exception):
    """An event came in a state for which the table has no row, or a handler left the table. A bug in Handfast.

    Args:
        gtrid: the transaction.
        state: the state it was in.
        event: what came.
        after: the state that the handler chose; None when there was no row.
    """

    def __init__(self, gtrid: str, state: S, event: e.Event, after: S | None = None) -> None:
        came = f"{type(event).__name__} in state {state.value}"
        super().__init__(f"{gtrid}: {came} is not in the table" + (f" with {after.value} after it" if after else ""))
        self.gtrid = gtrid


class GlobalTransaction:
    """One global transaction: its state, its branches, and ``step``, the only way to move it.

    Args:
        gtrid: its name; opaque here.
        deadline_s: past this moment of the driver's monotonic clock it may not decide commit.
    """

    __slots__ = (
        "branches",
        "cause",
        "deadline_s",
        "decision",
        "gtrid",
        "heuristic_operator",
        "offered",
        "one_phase",
        "outcome",
        "reason",
        "state",
    )

    def __init__(self, gtrid: str, deadline_s: float) -> None:
        self.gtrid = gtrid
        self.deadline_s = deadline_s
        self.state = ACTIVE
        self.branches: dict[str, Branch] = {}
        self.decision: Decision | None = None
        self.offered = False
        self.one_phase = False
        self.outcome: Outcome | None = None
        self.cause: Cause | None = None
        self.reason = ""
        self.heuristic_operator = ""

    @classmethod
    def recovered(cls, gtrid: str, branches: Iterable[tuple[str, str]]) -> tuple[GlobalTransaction, Effects]:
        """Rebuild a transaction from its durable commit record.

        Args:
            gtrid: its name.
            branches: (bqual, proof) of each branch in the record.

        Returns:
            The transaction, committing, and the Commit messages to send.
        """
        transaction = cls(gtrid, deadline_s=float("inf"))
        for bqual, proof in branches:
            transaction.branches[bqual] = Branch(bqual, BranchState.IN_DOUBT, vote=YES, proof=proof)
        transaction.offered = True
        transaction.decision = COMMIT
        transaction.state = COMMITTING
        effects = Effects(transaction._send_commits())
        transaction._check_invariants(effects, e.DecisionStood(COMMIT))
        return transaction, effects

    @classmethod
    def ended(
        cls, gtrid: str, branches: Iterable[tuple[str, str]], decision: Decision, outcome: Outcome, evidence: str
    ) -> GlobalTransaction:
        """Rebuild a transaction that has ended, from its records; it needs nothing any more.

        Args:
            gtrid: its name.
            branches: (bqual, proof) of each branch in its decision record.
            decision: what was decided.
            outcome: what became of it.
            evidence: what proves a heuristic outcome.
        """
        transaction = cls(gtrid, deadline_s=float("inf"))
        for bqual, proof in branches:
            branch = transaction.branches[bqual] = Branch(bqual, vote=YES, proof=proof)
            branch.end(outcome, evidence)
        transaction.offered = True
        transaction.decision = decision
        transaction.outcome = outcome
        transaction.state = S.COMMITTED if decision is COMMIT else S.ABORTED
        return transaction

    def step(self, event: e.Event) -> Effects:
        """Take one event and return what is to be done.

        Args:
            event: what happened.

        Returns:
            The effects, to be carried out in the order that their type says.

        Raises:
            ProtocolViolated: the table has no such transition.
            InvariantViolated: the step would break an invariant; its effects must not be carried out.
        """
        before = self.state
        kind = type(event)
        allowed = TRANSITIONS[before].get(kind)
        if allowed is None:
            raise ProtocolViolated(self.gtrid, before, event)
        effects = _HANDLERS[kind](self, event)
        if self.state not in allowed:
            raise ProtocolViolated(self.gtrid, before, event, self.state)
        if effects is not NOTHING:
            self._check_invariants(effects, event)
        return effects

    # -- what others may ask ---------------------------------------------------------------------------------------

    @property
    def decided(self) -> bool:
        """Whether the outcome can't change any more."""
        return self.state not in (ACTIVE, PREPARING)

    @property
    def settled(self) -> bool:
        """Whether the client may be told: every branch has ended; for an abort, or at least been tried once."""
        if self.state is ABORTING:
            return all(branch.ended or branch.last_error for branch in self.branches.values())
        return self.state in FINAL_STATES

    @property
    def pending(self) -> list[Branch]:
        """The branches that have not ended."""
        return [branch for branch in self.branches.values() if not branch.ended]

    # -- phase one -------------------------------------------------------------------------------------------------

    def on_enlisted(self, event: e.Enlisted) -> Effects:
        if event.bqual not in self.branches:
            self.branches[event.bqual] = Branch(event.bqual)
        return NOTHING

    def on_commit_requested(self, event: e.CommitRequested) -> Effects:
        if self.state is not ACTIVE:
            return NOTHING
        if self._is_late(event):
            return self._abort(Cause.DEADLINE, "the deadline had passed when Commit was asked for")
        if not self.branches:
            return self._commit_without_record()
        self.state = PREPARING
        if len(self.branches) == 1:
            return self._ask_for_one_phase(next(iter(self.branches.values())))
        return Effects(tuple([self._send_prepare(branch) for branch in self.branches.values()]))

    def on_vote_received(self, event: e.VoteReceived) -> Effects:
        branch = self.branches[event.bqual]
        branch.vote_awaited = False
        if self.state is ABORTING:
            return self._take_late_vote(branch, event)
        self._take_vote(branch, event)
        if event.vote is NO:
            return self._abort(Cause.VOTE_NO, f"{branch.bqual} voted no: {event.reason}")
        for other in self.branches.values():
            if other.vote is None:
                return NOTHING
        return self._decide(event)

    def on_vote_lost(self, event: e.VoteLost) -> Effects:
        branch = self.branches[event.bqual]
        branch.vote_awaited = False
        branch.reason = branch.reason or event.reason
        branch.reason_code = branch.reason_code or "VOTE_LOST"
        if self.state is ABORTING:
            return self._end_when_done()
        return self._abort(Cause.UNREACHABLE, f"the vote of {branch.bqual} was lost: {event.reason}")

    def _send_prepare(self, branch: Branch) -> SendPrepare:
        branch.state = _ASKED
        branch.last_error = ""
        branch.vote_awaited = True
        branch.attempts = 1
        return _prepare(branch.bqual)

    def _take_vote(self, branch: Branch, event: e.VoteReceived) -> None:
        branch.vote = event.vote
        branch.proof = event.proof
        branch.reason = event.reason
        branch.reason_code = event.reason_code
        branch.attempts = 0
        if event.vote is YES:
            branch.state = _IN_DOUBT
        else:
            branch.end(Outcome.ABORTED if event.vote is NO else COMMITTED)

    def _take_late_vote(self, branch: Branch, event: e.VoteReceived) -> Effects:
        """A vote that arrives when the abort is decided. YES means: prepared, perhaps after our Rollback passed it."""
        if event.vote is YES:
            # Even when the first Rollback is still unanswered: its answer may be older than this YES, and overtaken.
            self._take_vote(branch, event)
            branch.outcome = None
            return Effects(send=(self._send_rollback(branch),))
        if not branch.ended:
            self._take_vote(branch, event)
        return self._end_when_done()

    # -- decision --------------------------------------------------------------------------------------------------

    def _decide(self, event: e.VoteReceived) -> Effects:
        if self._is_late(event):
            return self._abort(Cause.DEADLINE, "the deadline passed before every vote was in")
        commits = self._send_commits()
        if not commits:
            return self._commit_without_record()
        self.offered = True
        return Effects((), CommitRecord(tuple([(one.bqual, one.proof) for one in commits])), commits)

    def on_decision_stood(self, event: e.DecisionStood) -> Effects:
        if event.decision is ABORT:
            return self._abort(Cause.OPERATOR, "an abort stood in the log already")
        self.decision = COMMIT
        self.state = COMMITTING
        return NOTHING

    def on_decision_refused(self, event: e.DecisionRefused) -> Effects:
        return self._abort(event.cause, event.reason)

    def on_rollback_requested(self, event: e.RollbackRequested) -> Effects:
        if self.state is ACTIVE or (self.state is PREPARING and not self._out_of_our_hands):
            return self._abort(event.cause, event.reason)
        return NOTHING

    def on_deadline_passed(self, event: e.DeadlinePassed) -> Effects:
        if self.state is ACTIVE or (self.state is PREPARING and not self._out_of_our_hands):
            return self._abort(Cause.DEADLINE, self._what_was_missing())
        return NOTHING

    @property
    def _out_of_our_hands(self) -> bool:
        return self.offered or self.one_phase

    def _what_was_missing(self) -> str:
        if self.state is ACTIVE:
            return "the deadline passed before Commit was asked for"
        missing = ", ".join(branch.bqual for branch in self.branches.values() if branch.vote is None)
        return f"the deadline passed without the vote of {missing}"

    def _commit_without_record(self) -> Effects:
        """Nothing was changed anywhere, so there is nothing to remember."""
        self.decision = COMMIT
        self.state = S.COMMITTED
        self.outcome = COMMITTED
        return NOTHING

    def _abort(self, cause: Cause, reason: str) -> Effects:
        self.cause = cause
        self.reason = reason
        self.decision = ABORT
        self.state = ABORTING
        sends = tuple(self._send_rollback(branch) for branch in self.branches.values() if not branch.ended)
        if sends:
            return Effects(send=sends)
        return self._end_when_done()

    # -- one phase -------------------------------------------------------------------------------------------------

    def _ask_for_one_phase(self, branch: Branch) -> Effects:
        self.one_phase = True
        branch.state = BranchState.PREPARING
        branch.attempts = 1
        return Effects(send=(SendCommitOnePhase(branch.bqual),))

    def on_one_phase_answered(self, event: e.OnePhaseAnswered) -> Effects:
        branch = self.branches[event.bqual]
        branch.reason = event.reason
        branch.reason_code = event.reason_code
        branch.end(event.outcome, event.reason)
        self.outcome = event.outcome
        if event.outcome is COMMITTED:
            self.decision = COMMIT
            self.state = S.COMMITTED
            return NOTHING
        self.decision = ABORT
        self.state = S.ABORTED
        self.reason = f"{branch.bqual} did not commit: {event.reason}"
        if event.outcome is Outcome.ABORTED:
            self.cause = Cause.VOTE_NO
            return NOTHING
        # Nobody knows how it ended; without a record an inquiry would presume abort.
        return Effects(end=EndRecord(event.outcome, self._evidence()))

    def on_one_phase_unsupported(self, event: e.OnePhaseUnsupported) -> Effects:
        self.one_phase = False
        return Effects(send=(self._send_prepare(self.branches[event.bqual]),))

    # -- phase two -------------------------------------------------------------------------------------------------

    def on_branch_ended(self, event: e.BranchEnded) -> Effects:
        branch = self.branches[event.bqual]
        if branch.ended:
            return NOTHING
        outcome = event.outcome
        if outcome is not COMMITTED or self.decision is not COMMIT:
            outcome = measured(self._decided, outcome)
        if outcome is COMMITTED or outcome is Outcome.ABORTED:
            branch.end(outcome)
        else:
            branch.end(outcome, event.evidence or self._by_whom(branch))
        return self._end_when_done()

    @property
    def _decided(self) -> Decision:
        return COMMIT if self.decision is COMMIT else ABORT

    def _by_whom(self, branch: Branch) -> str:
        if branch.override is None:
            return "its participant said so"
        return f"{self.heuristic_operator} resolved it so, against the decision"

    def on_delivery_failed(self, event: e.DeliveryFailed) -> Effects:
        branch = self.branches[event.bqual]
        if branch.ended or self.state in FINAL_STATES:
            return NOTHING
        branch.last_error = event.reason
        gives_up = self.state is ABORTING and branch.attempts >= ROLLBACK_ATTEMPTS_MAX and branch.override is None
        if gives_up:
            branch.end(Outcome.ABORTED, "")
            return self._end_when_done()
        return Effects(retries=(ScheduleRetry(branch.bqual, branch.attempts),))

    def on_retry_due(self, event: e.RetryDue) -> Effects:
        branch = self.branches[event.bqual]
        if branch.ended or self.state in FINAL_STATES:
            return NOTHING
        if self.state is PREPARING:
            branch.attempts += 1
            return Effects(send=(SendCommitOnePhase(branch.bqual),)) if self.one_phase else NOTHING
        return Effects(send=(self._send_decision(branch),))

    def on_resolved_against_decision(self, event: e.ResolvedAgainstDecision) -> Effects:
        self.heuristic_operator = event.operator
        sends: list[Send] = []
        for branch in self.branches.values():
            # A branch that never voted YES is not prepared: there is nothing that could be committed by hand.
            if not branch.ended and branch.vote is YES:
                # An operator who thinks better of it returns to the decision.
                branch.override = None if event.decision is self.decision else event.decision
                sends.append(self._send_decision(branch))
        return Effects(send=tuple(sends))

    def on_forgotten(self, event: e.Forgotten) -> Effects:
        self.state = S.FORGOTTEN
        return NOTHING

    def _send_commits(self) -> tuple[SendCommit, ...]:
        commits = []
        for branch in self.branches.values():
            if branch.vote is YES:
                branch.attempts = 1
                commits.append(SendCommit(branch.bqual, branch.proof))
        return tuple(commits)

    def _send_rollback(self, branch: Branch) -> SendRollback:
        branch.attempts = 1
        return SendRollback(branch.bqual, branch.proof)

    def _send_decision(self, branch: Branch) -> Send:
        branch.attempts += 1
        if (branch.override or self.decision) is COMMIT:
            return SendCommit(branch.bqual, branch.proof)
        return SendRollback(branch.bqual, branch.proof)

    def _end_when_done(self) -> Effects:
        committed_by_all = self.decision is COMMIT
        for branch in self.branches.values():
            if branch.outcome is None:
                return NOTHING
            if branch.outcome is not COMMITTED:
                committed_by_all = False
        if committed_by_all:  # as nearly always; what follows would come to the same
            self.outcome = COMMITTED
            self.state = _DONE
            return _COMMITTED_BY_ALL
        if self.decision is ABORT and any(branch.vote_awaited for branch in self.branches.values()):
            return NOTHING
        ends = [branch.outcome for branch in self.branches.values() if branch.vote is not Vote.READ_ONLY]
        self.outcome = summed_up(self._decided, ends)
        self.state = S.COMMITTED if self.decision is COMMIT else S.ABORTED
        if self.outcome is Outcome.ABORTED:
            return NOTHING
        return Effects(end=EndRecord(self.outcome, self._evidence()))

    def _evidence(self) -> str:
        return "; ".join([f"{branch.bqual}: {branch.evidence}" for branch in self.branches.values() if branch.evidence])

    # -- rules -----------------------------------------------------------------------------------------------------

    def _is_late(self, event: e.Event) -> bool:
        now_s: float = getattr(event, "now_s", 0.0)
        return now_s > self.deadline_s

    def _check_invariants(self, effects: Effects, event: e.Event) -> None:
        missed = effects.force is not None and self._is_late(event)
        rule = broken_rule(self.state, self.decision, missed, self.branches, effects)
        if rule is not None:
            raise InvariantViolated(self.gtrid, rule, self.state, self.branches)


_HANDLERS: dict[type, Callable[[GlobalTransaction, e.Event], Effects]] = {
    kind: getattr(GlobalTransaction, handler)
    for kind, handler in {
        e.Enlisted: "on_enlisted",
        e.CommitRequested: "on_commit_requested",
        e.RollbackRequested: "on_rollback_requested",
        e.VoteReceived: "on_vote_received",
        e.VoteLost: "on_vote_lost",
        e.DecisionStood: "on_decision_stood",
        e.DecisionRefused: "on_decision_refused",
        e.OnePhaseAnswered: "on_one_phase_answered",
        e.OnePhaseUnsupported: "on_one_phase_unsupported",
        e.BranchEnded: "on_branch_ended",
        e.DeliveryFailed: "on_delivery_failed",
        e.RetryDue: "on_retry_due",
        e.DeadlinePassed: "on_deadline_passed",
        e.ResolvedAgainstDecision: "on_resolved_against_decision",
        e.Forgotten: "on_forgotten",
    }.items()
}
