"""The branch protocol: what one instance answers to Prepare, Commit, CommitOnePhase and Rollback. No I/O.

A participant is asked over a network that may lose, repeat, delay and reorder, by a coordinator that may die and come
back. Four rules make that harmless, and this module is those rules:

*One answer.* What a branch once answered it answers again. A duplicate waits for the first while that is under way, and
repeats it afterwards.

*No resurrection.* A Rollback for a branch that is not known leaves a tombstone, so that a Prepare which it overtook
votes NO. A Prepare for a branch that this process does not hold votes NO too: the process that held it has died, and
its work with it.

*Yes is a promise.* After YES the branch leaves IN_DOUBT only by a decision: one that was told (Commit, Rollback), asked
for (recovery), or found carried out by somebody else. Neither a deadline nor a lost connection ends it. When nobody can
tell whether PREPARE succeeded, the branch counts as IN_DOUBT although it has not voted: that assumes the least.

The state says where a branch stands; how it ended, and what proves it, are fields (``fate``, ``evidence``).

*The resource is right.* A branch that is remembered as ended and that the resource shows as prepared has come back: the
resource was restored to an earlier point. The memory of it is dropped.

Forgetting. Answers of ended branches are kept for ``memory_age_s`` and up to ``memory_count_max`` of them; branches in
doubt are always kept. That is safe, message by message:

- Commit and Rollback of a forgotten branch are answered from the resource, which has the branch, or its end by the
  proof that the message carries.
- Prepare of a forgotten branch votes NO, which never does harm.
- Only a Prepare or CommitOnePhase that carries operations could do its work twice. It is sent until the transaction's
  deadline and no longer, so a branch may be forgotten a while (``late_s``) after that. When too many branches ended too
  fast for that, the newest birth among those forgotten too early is remembered, and one-shot work for transactions born
  no later is refused: such a repeat is then always recognized, and an innocent transaction is at worst run again.
- CommitOnePhase without operations answers ABORTED only when the branch certainly never was here, UNPROVED otherwise.

Sources: Gray & Reuter, Transaction Processing, chapter 10; Mohan, Lindsay, Obermarck, Transaction Management in the R*
Distributed Database Management System (presumed abort); X/Open XA, table 2-3 (the states of a branch).
"""

from __future__ import annotations

from collections.abc import Iterator

from participant.protocol.answers import (
    DEADLINE_PASSED,
    ROLLED_BACK_FIRST,
    UNKNOWN,
    Branch,
    Cause,
    Ended,
    Step,
    Voted,
    end,
    no,
    one_phase_end,
)
from participant.protocol.memory import Memory
from participant.protocol.states import (
    DECISIONS,
    ENDED,
    ENDING,
    RESPONSES,
    TRANSITIONS,
    Action,
    Event,
    Fate,
    Message,
    Outcome,
    State,
    Vote,
)


class ProtocolViolated(Exception):
    """A transition that is not in the table: a defect of this program.

    Args:
        gtrid: the transaction.
        state: where the branch stood.
        event: what should not happen there.
    """

    def __init__(self, gtrid: str, state: State, event: Event) -> None:
        super().__init__(f"the branch of {gtrid} is {state.value}, where “{event.value}” can't happen")
        self.gtrid = gtrid


class Branches:
    """All branches of one instance: those at work, those in doubt, and the remembered ends of the others.

    Args:
        bqual: the name of this instance's branches.
        memory_count_max: how many ended branches are remembered at most.
        memory_age_s: for how long, in seconds.
        late_s: how long after a transaction's deadline a message sent before it may still arrive, in seconds.
    """

    def __init__(
        self, bqual: str, *, memory_count_max: int = 100_000, memory_age_s: float = 3_600.0, late_s: float = 60.0
    ) -> None:
        self.bqual = bqual
        self._memory_count_max = memory_count_max
        self._memory_age_s = memory_age_s
        self._late_s = late_s
        self._open: dict[str, Branch] = {}
        self._ended = Memory()
        self._forgotten_ms = -1
        self._forgotten_early_ms = -1

    def find(self, gtrid: str) -> Branch | None:
        """The branch in this transaction, open or remembered."""
        return self._open.get(gtrid) or self._ended.find(gtrid)

    def in_doubt(self) -> list[Branch]:
        """The branches that wait for a decision."""
        return [branch for branch in self._open.values() if branch.state is State.IN_DOUBT]

    def open_count(self) -> int:
        """How many branches have not ended."""
        return len(self._open)

    def remembered_count(self) -> int:
        """How many ended branches are remembered."""
        return len(self._ended)

    def __iter__(self) -> Iterator[Branch]:
        return iter([*self._open.values(), *self._ended])

    def begin(self, gtrid: str, born_ms: int, deadline_s: float) -> Branch:
        """Add a branch whose work begins.

        Raises:
            ValueError: there is one already.
        """
        if self.find(gtrid) is not None:
            raise ValueError(f"{self.bqual} has a branch of {gtrid} already")
        branch = self._open[gtrid] = Branch(gtrid, born_ms, deadline_s)
        return branch

    # -- messages --------------------------------------------------------------------------------------------------

    def on_prepare(
        self, gtrid: str, bqual: str, born_ms: int, deadline_s: float, now_s: float, *, operations: bool
    ) -> Step:
        """Take a Prepare. START and PREPARE have moved the branch to PREPARING.

        Args:
            gtrid: the transaction.
            bqual: the branch as the message names it.
            born_ms: the time in the gtrid.
            deadline_s: the deadline as the message gives it, by the monotonic clock.
            now_s: now, by the same clock.
            operations: whether the message carries work.
        """
        if bqual != self.bqual:
            return Step(Action.ANSWER, answer=no(UNKNOWN))
        branch = self.find(gtrid)
        action = RESPONSES[Message.PREPARE, branch.state if branch else None]
        if branch is None:
            return self._start(Event.PREPARE_RECEIVED, gtrid, born_ms, deadline_s, now_s, operations)
        if action is Action.PREPARE:
            return self._close(branch, Event.PREPARE_RECEIVED, deadline_s, now_s, action)
        if action is Action.WAIT:
            return Step(Action.REFUSE if branch.one_phase else Action.WAIT, branch)
        if branch.vote is not None:
            return Step(Action.ANSWER, branch, branch.vote)
        if branch.state is State.ABORTED and (branch.tombstone or branch.fate is Fate.ABORTED):
            return Step(Action.ANSWER, branch, no(branch.cause or ROLLED_BACK_FIRST))
        lost = branch.state is State.IN_DOUBT and not branch.one_phase
        return Step(Action.LOOK if lost else Action.REFUSE, branch)

    def on_commit_one_phase(
        self, gtrid: str, bqual: str, born_ms: int, deadline_s: float, now_s: float, *, operations: bool
    ) -> Step:
        """Take a CommitOnePhase; arguments as in ``on_prepare``. START and COMMIT_OPEN have moved the branch."""
        if bqual != self.bqual:
            evidence = "another process held the branch, and only that one could tell"
            return Step(Action.ANSWER, answer=Ended(Outcome.HEURISTIC_HAZARD, evidence, UNKNOWN))
        branch = self.find(gtrid)
        action = RESPONSES[Message.COMMIT_ONE_PHASE, branch.state if branch else None]
        if branch is None:
            return self._start(Event.ONE_PHASE_RECEIVED, gtrid, born_ms, deadline_s, now_s, operations)
        if action is Action.COMMIT_OPEN:
            return self._close(branch, Event.ONE_PHASE_RECEIVED, deadline_s, now_s, action)
        if action is Action.ANSWER:
            return Step(action, branch, one_phase_end(branch))
        return Step(action if branch.one_phase else Action.REFUSE, branch)

    def on_commit(self, gtrid: str, bqual: str) -> Step:
        """Take a Commit, for a branch of whichever instance."""
        return self._decide(Message.COMMIT, gtrid, bqual)

    def on_rollback(self, gtrid: str, bqual: str, born_ms: int, now_s: float) -> Step:
        """Take a Rollback. A branch of ours that is not known has a tombstone now; ROLL_BACK_OPEN has ended it."""
        step = self._decide(Message.ROLLBACK, gtrid, bqual)
        if step.branch is None and bqual == self.bqual:
            self._bury(gtrid, born_ms, now_s)
        elif step.branch is not None and step.action in {Action.ROLL_BACK_OPEN, Action.WAIT}:
            self._step(step.branch, Event.ROLLBACK_RECEIVED, now_s)
        return step

    # -- what the work and the resource report ---------------------------------------------------------------------

    def on_work_failed(self, branch: Branch, cause: Cause, now_s: float) -> None:
        """The work of an active branch raised; it is rolled back and will vote NO."""
        branch.cause = cause
        self._step(branch, Event.WORK_FAILED, now_s)

    def on_deadline(self, branch: Branch, now_s: float) -> None:
        """The deadline passed: an active branch is rolled back, a preparing one keeps it in mind."""
        self._step(branch, Event.DEADLINE_PASSED, now_s)

    def on_operated(self, branch: Branch, results: tuple[bytes, ...]) -> None:
        """The operations are done; kept now, for the answer to what follows may be lost."""
        branch.results = results

    def on_prepared(self, branch: Branch, proof: str, now_s: float) -> Voted:
        """PREPARE succeeded. Returns the vote: YES, or NO when a Rollback came meanwhile (it will be carried out)."""
        branch.proof = proof
        branch.vote = (
            no(ROLLED_BACK_FIRST) if branch.rollback_wanted else Voted(Vote.YES, proof, results=branch.results)
        )
        self._step(branch, Event.PREPARED, now_s)
        return branch.vote

    def on_read_only(self, branch: Branch, now_s: float) -> Voted:
        """The branch had changed nothing and has ended."""
        branch.read_only, branch.fate = True, Fate.COMMITTED
        branch.evidence = "it changed nothing and ended in phase one"
        branch.vote = Voted(Vote.READ_ONLY, results=branch.results)
        self._step(branch, Event.FOUND_READ_ONLY, now_s)
        return branch.vote

    def on_prepare_failed(self, branch: Branch, cause: Cause, now_s: float) -> Voted:
        """The operations, PREPARE or the one-phase COMMIT failed for certain. Returns the vote: NO."""
        if branch.rollback_wanted:
            cause = ROLLED_BACK_FIRST
        elif branch.expired:
            cause = DEADLINE_PASSED
        branch.cause, branch.fate, branch.vote = cause, Fate.ABORTED, no(cause)
        self._step(branch, Event.PREPARE_FAILED, now_s)
        return branch.vote

    def on_answer_lost(self, branch: Branch, proof: str, now_s: float) -> None:
        """Nobody can tell now whether PREPARE, or the one-phase COMMIT, succeeded."""
        branch.proof = proof
        self._step(branch, Event.ANSWER_LOST, now_s)

    def on_ended(self, branch: Branch, fate: Fate, evidence: str, now_s: float) -> None:
        """The branch has ended in its resource. Only the first end counts."""
        if branch.fate is not None:
            return
        branch.fate, branch.evidence = fate, evidence
        if branch.state not in ENDED:  # a tombstone has ended already
            self._step(branch, ENDING[fate], now_s)

    def on_committed_open(self, branch: Branch, proof: str, now_s: float) -> Ended:
        """The one-phase COMMIT succeeded."""
        branch.proof = proof
        self.on_ended(branch, Fate.COMMITTED, "it committed in one phase", now_s)
        return one_phase_end(branch)

    def on_found_prepared(self, gtrid: str, asked_s: float) -> bool:
        """The resource shows a branch of ours as prepared; returns whether it contradicts what is remembered.

        A branch that had ended before the resource was asked has come back: the resource was restored to an earlier
        point. What is remembered of it is dropped, so that the next decision reaches the resource.

        Args:
            gtrid: the transaction.
            asked_s: when the resource was asked, by the monotonic clock; a branch that ended later was only overtaken.
        """
        branch = self._ended.find(gtrid)
        if branch is None or branch.fate is None or branch.ended_s is None or branch.ended_s >= asked_s:
            return False
        self.forget(gtrid)
        return True

    def forget(self, gtrid: str) -> None:
        """Drop what is remembered of a branch that has ended; nothing happens when there is none."""
        times = self._ended.drop(gtrid)
        if times is not None:
            self._note_forgotten(times.born_ms, early=True)

    def forget_old(self, now_s: float) -> None:
        """Drop what is remembered past its age, or beyond the count."""
        while oldest := self._ended.oldest():
            gtrid, times = oldest
            too_many = len(self._ended) > self._memory_count_max
            still_late_s = max(times.deadline_s, times.ended_s) + self._late_s
            if not too_many and now_s < max(times.ended_s + self._memory_age_s, still_late_s):
                return
            self._ended.drop(gtrid)
            self._note_forgotten(times.born_ms, early=now_s < still_late_s)

    # -- inside ----------------------------------------------------------------------------------------------------

    def _start(self, event: Event, gtrid: str, born_ms: int, deadline_s: float, now_s: float, operations: bool) -> Step:
        """A Prepare or CommitOnePhase for a branch that is not known."""
        one_phase = event is Event.ONE_PHASE_RECEIVED
        late = now_s >= deadline_s
        if not operations or late or born_ms <= self._forgotten_early_ms:
            cause = DEADLINE_PASSED if operations and late else UNKNOWN
            return Step(Action.ANSWER, answer=self._denied(cause, born_ms) if one_phase else no(cause))
        branch = self.begin(gtrid, born_ms, deadline_s)
        branch.one_phase = one_phase
        self._step(branch, event, now_s)
        return Step(Action.START, branch)

    def _denied(self, cause: Cause, born_ms: int) -> Ended:
        """The answer to CommitOnePhase of a branch that is not known: did we ever hold it?"""
        if born_ms > self._forgotten_ms:
            return Ended(Outcome.ABORTED, cause=cause)
        evidence = "what this process may have known of the branch is forgotten"
        return Ended(Outcome.HEURISTIC_HAZARD, evidence, cause)

    def _close(self, branch: Branch, event: Event, deadline_s: float, now_s: float, action: Action) -> Step:
        """Prepare or commit an active branch, unless its time is over."""
        branch.deadline_s = min(branch.deadline_s, deadline_s)
        branch.one_phase = event is Event.ONE_PHASE_RECEIVED
        if now_s >= branch.deadline_s:
            self.on_deadline(branch, now_s)
            return Step(Action.ROLL_BACK_OPEN, branch)
        self._step(branch, event, now_s)
        return Step(action, branch)

    def _decide(self, message: Message, gtrid: str, bqual: str) -> Step:
        branch = self.find(gtrid) if bqual == self.bqual else None
        action = RESPONSES[message, branch.state if branch else None]
        if branch is None or action is not Action.ANSWER:
            return Step(action, branch)
        if branch.fate is None:  # a tombstone: the resource has not been asked yet, or could not answer
            return Step(Action.FINISH, branch)
        return Step(action, branch, end(DECISIONS[message], branch))

    def _step(self, branch: Branch, event: Event, now_s: float) -> None:
        """The only place where a state changes."""
        state = TRANSITIONS.get((branch.state, event))
        if state is None:
            raise ProtocolViolated(branch.gtrid, branch.state, event)
        if event is Event.ROLLBACK_RECEIVED:
            branch.rollback_wanted = True
            branch.cause = branch.cause or ROLLED_BACK_FIRST
        elif event is Event.DEADLINE_PASSED:
            branch.expired = True
            branch.cause = branch.cause or DEADLINE_PASSED
        branch.state = state
        if state in ENDED:
            branch.fate = branch.fate or (None if branch.tombstone else Fate.ABORTED)
            self._remember(branch, now_s)

    def _bury(self, gtrid: str, born_ms: int, now_s: float) -> None:
        """Leave a tombstone: the Prepare that this Rollback overtook will find it."""
        branch = self.begin(gtrid, born_ms, now_s)
        branch.tombstone = True
        self._step(branch, Event.ROLLBACK_RECEIVED, now_s)

    def _remember(self, branch: Branch, now_s: float) -> None:
        branch.ended_s = now_s
        self._open.pop(branch.gtrid, None)
        self._ended.add(branch)
        self.forget_old(now_s)

    def _note_forgotten(self, born_ms: int, *, early: bool) -> None:
        self._forgotten_ms = max(self._forgotten_ms, born_ms)
        if early:
            self._forgotten_early_ms = max(self._forgotten_early_ms, born_ms)
