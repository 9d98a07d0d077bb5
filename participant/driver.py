"""The driver: carries out, for one resource in one process, what the branch protocol asks for.

The protocol (participant.protocol) decides and remembers, the work floor (participant.work) holds the branches at work,
the resource manager acts; the driver takes the coordinator's messages through all three:

- A message is decided before anything is awaited, so messages are decided in the order in which they came: the calls
  ``start_…`` decide, and return the answer, or the task that will give it.
- What is under way for a branch is one task, which duplicates share. It belongs to the branch, not to the message: a
  caller that leaves does not cancel it.
- Ending a prepared branch needs no memory of it: any instance can do it, by name. The same decision is carried out once
  at a time; a contrary one (an operator's, say) waits and looks again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Generic, TypeVar, cast

from handfast.catalog import HandfastFault
from handfast.trace import Trace
from handfast.xid import Xid, named_unix_ms
from participant.clock import Clock
from participant.config import ParticipantOptions
from participant.failpoints import Failpoints
from participant.faults import cause_of, refusal
from participant.operations import Operations
from participant.protocol import (
    OUTCOMES,
    Action,
    Branch,
    Branches,
    Cause,
    Decision,
    Ended,
    Fate,
    Message,
    Outcome,
    State,
    Vote,
    Voted,
    one_phase_end,
)
from participant.resource import (
    AnswerLost,
    Found,
    OpenBranch,
    Prepared,
    PreparedBranch,
    ReadOnly,
    ResourceManager,
    Stand,
)
from participant.tasks import Tasks
from participant.trace import TracedBranches
from participant.work import Enlist, Operation, WorkFloor

ConnectionT = TypeVar("ConnectionT")
Result = TypeVar("Result")

_OPERATIONS_WAIT_S = 1.0
"""How long closing waits for operations, in seconds."""

log = logging.getLogger(__name__)


class Driver(Generic[ConnectionT]):
    """All branches of one resource in this process.

    Args:
        bqual: the name of this instance's branches.
        manager: the resource.
        operations: the resource's operations.
        options: limits and timeouts.
        clock: where time comes from.
        enlist: tells the coordinator of a branch.
        failpoints: planned crashes, for tests.
        trace: is told of every message and of what became of it; None tells nobody.
    """

    def __init__(
        self,
        bqual: str,
        manager: ResourceManager[ConnectionT],
        operations: Operations[ConnectionT],
        options: ParticipantOptions,
        clock: Clock,
        enlist: Enlist,
        failpoints: Failpoints | None = None,
        trace: Trace | None = None,
    ) -> None:
        self.bqual = bqual
        self.manager = manager
        self._traced = TracedBranches(trace, bqual, **_memory(options)) if trace is not None else None
        self.branches = self._traced or Branches(bqual, **_memory(options))
        self._close_wait_s = options.close_wait_s
        self._clock = clock
        self._failpoints = failpoints or Failpoints()
        self._tasks = Tasks()
        self.floor = WorkFloor(bqual, self.branches, manager, operations, options, clock, self._tasks, enlist)
        self._under_way: dict[str, asyncio.Task[Any]] = {}
        self._finishing: dict[Xid, tuple[Decision, asyncio.Task[Ended]]] = {}
        self._noted_ends: set[Xid] | None = None

    # -- messages --------------------------------------------------------------------------------------------------

    def start_prepare(
        self, gtrid: str, bqual: str, timeout_s: float | None, operations: Sequence[Operation] = ()
    ) -> Voted | asyncio.Task[Voted]:
        """Vote.

        Args:
            gtrid: the transaction.
            bqual: the branch.
            timeout_s: the time left to the transaction, in seconds; None when the message gives none.
            operations: the work to do first.

        Raises:
            HandfastFault: there is no vote: nobody can tell whether PREPARE succeeded, or the message contradicts what
                the branch did before. The task may raise it too.
        """
        if (cause := self._fail_busy(gtrid, bqual)) is not None:
            dropped = self._drop(gtrid, "it was asked to prepare while at work", Voted(Vote.NO, cause=cause))
            return self._tasks.start(dropped)
        deadline_s, now_s = self._times(timeout_s, operations)
        born_ms = named_unix_ms(gtrid)
        step = self.branches.on_prepare(gtrid, bqual, born_ms, deadline_s, now_s, operations=bool(operations))
        match step.action, step.branch:
            case ((Action.START | Action.PREPARE), Branch() as branch):
                return self._run(gtrid, self._prepare(branch, operations))
            case Action.LOOK, Branch() as branch:
                return self._run(gtrid, self._look_prepared(branch))
            case Action.WAIT, _:
                return cast("asyncio.Task[Voted]", self._under_way[gtrid])
            case Action.ROLL_BACK_OPEN, Branch() as branch:
                late = Voted(Vote.NO, cause=branch.cause)
                return self._run(gtrid, self._drop(gtrid, "its deadline passed", late))
            case _ if isinstance(step.answer, Voted):
                return step.answer
        raise refusal(gtrid, bqual, Message.PREPARE, step.branch)

    def start_commit_one_phase(
        self, gtrid: str, bqual: str, timeout_s: float | None, operations: Sequence[Operation] = ()
    ) -> Ended | asyncio.Task[Ended]:
        """Commit the only branch of a transaction; arguments as in ``start_prepare``.

        Raises:
            HandfastFault: nobody can tell yet whether COMMIT succeeded, or the message contradicts what the branch did.
                The task may raise it too.
        """
        if (cause := self._fail_busy(gtrid, bqual)) is not None:
            dropped = self._drop(gtrid, "it was asked to commit while at work", Ended(Outcome.ABORTED, cause=cause))
            return self._tasks.start(dropped)
        deadline_s, now_s = self._times(timeout_s, operations)
        born_ms = named_unix_ms(gtrid)
        step = self.branches.on_commit_one_phase(gtrid, bqual, born_ms, deadline_s, now_s, operations=bool(operations))
        match step.action, step.branch:
            case ((Action.START | Action.COMMIT_OPEN), Branch() as branch):
                return self._run(gtrid, self._commit_open(branch, operations))
            case Action.LOOK, Branch() as branch:
                return self._run(gtrid, self._look_committed(branch))
            case Action.WAIT, _:
                return cast("asyncio.Task[Ended]", self._under_way[gtrid])
            case Action.ROLL_BACK_OPEN, Branch() as branch:
                return self._run(gtrid, self._drop(gtrid, "its deadline passed", one_phase_end(branch)))
            case _ if isinstance(step.answer, Ended):
                return step.answer
        raise refusal(gtrid, bqual, Message.COMMIT_ONE_PHASE, step.branch)

    def start_commit(self, gtrid: str, bqual: str, proof: str) -> Ended | asyncio.Task[Ended]:
        """Commit a prepared branch of whichever instance.

        Args:
            gtrid: the transaction.
            bqual: the branch.
            proof: the token from its vote; empty when not known.

        Raises:
            HandfastFault: it is not committed yet; to be repeated. The task may raise it too.
        """
        step = self.branches.on_commit(gtrid, bqual)
        if step.action is Action.FINISH:
            return self._finish(Decision.COMMIT, Xid(gtrid, bqual), proof)
        if isinstance(step.answer, Ended):
            return step.answer
        raise refusal(gtrid, bqual, Message.COMMIT, step.branch)

    def start_rollback(self, gtrid: str, bqual: str, proof: str) -> Ended | asyncio.Task[Ended]:
        """Roll a branch back, prepared or not; otherwise as ``start_commit``."""
        step = self.branches.on_rollback(gtrid, bqual, named_unix_ms(gtrid), self._clock.monotonic_s())
        match step.action:
            case Action.FINISH:
                return self._finish(Decision.ABORT, Xid(gtrid, bqual), proof)
            case Action.WAIT:
                return self._tasks.start(self._rollback_after(gtrid, bqual, proof))
            case Action.ROLL_BACK_OPEN:
                return self._run(gtrid, self._drop(gtrid, "a Rollback came", Ended(Outcome.ABORTED)))
        if not isinstance(step.answer, Ended):
            raise refusal(gtrid, bqual, Message.ROLLBACK, step.branch)
        if gtrid in self._under_way:  # it may be a duplicate, while the first is still rolling back
            return self._tasks.start(self._answer_when_quiet(gtrid, step.answer))
        return step.answer

    # -- the same, for those who wait for the answer ---------------------------------------------------------------

    async def prepare(
        self, gtrid: str, bqual: str, timeout_s: float | None, operations: Sequence[Operation] = ()
    ) -> Voted:
        """See ``start_prepare``."""
        return await _answer_of(self.start_prepare(gtrid, bqual, timeout_s, operations))

    async def commit_one_phase(
        self, gtrid: str, bqual: str, timeout_s: float | None, operations: Sequence[Operation] = ()
    ) -> Ended:
        """See ``start_commit_one_phase``."""
        return await _answer_of(self.start_commit_one_phase(gtrid, bqual, timeout_s, operations))

    async def commit(self, gtrid: str, bqual: str, proof: str) -> Ended:
        """See ``start_commit``."""
        return await _answer_of(self.start_commit(gtrid, bqual, proof))

    async def rollback(self, gtrid: str, bqual: str, proof: str) -> Ended:
        """See ``start_rollback``."""
        return await _answer_of(self.start_rollback(gtrid, bqual, proof))

    def forget(self, gtrid: str, bqual: str) -> None:
        """Drop what is remembered of a branch that has ended."""
        if bqual == self.bqual:
            self.branches.forget(gtrid)

    # -- recovery --------------------------------------------------------------------------------------------------

    def is_working_on(self, xid: Xid) -> bool:
        """Whether something is under way for this branch just now, so that recovery should keep off."""
        if xid in self._finishing:
            return True
        branch = self.branches.find(xid.gtrid) if xid.bqual == self.bqual else None
        return branch is not None and (branch.state is State.PREPARING or xid.gtrid in self._under_way)

    @contextmanager
    def noting_ends(self) -> Iterator[set[Xid]]:
        """Note the prepared branches that are ended by name meanwhile, also those that this process does not know."""
        self._noted_ends = set()
        try:
            yield self._noted_ends
        finally:
            self._noted_ends = None

    async def list_prepared(self, resource: str, coordinator_id: str, *, detail: bool) -> list[PreparedBranch]:
        """See ResourceManager.recover; what this process remembers otherwise of a branch that is listed, it drops."""
        asked_s = self._clock.monotonic_s()
        listed = await self.manager.recover(resource, coordinator_id, detail=detail)
        for branch in listed:
            xid = branch.xid
            if xid.bqual == self.bqual and self.branches.on_found_prepared(xid.gtrid, asked_s):
                log.warning(
                    "%s of %s had ended and is prepared again: was the database restored to an earlier point? "
                    "It will be ended again, as decided",
                    xid.bqual,
                    xid.gtrid,
                )
        return listed

    def on_ended_elsewhere(self, branch: Branch, fate: Fate, evidence: str) -> None:
        """A branch of ours in doubt was ended by somebody else: another instance, or an operator."""
        if branch.state is State.IN_DOUBT and not self.is_working_on(Xid(branch.gtrid, self.bqual)):
            self.branches.on_ended(branch, fate, evidence, self._clock.monotonic_s())

    async def close(self) -> None:
        """Take no more work, roll back what is active, and wait a while for what is under way.

        Operations get only a moment of that, for their branches have promised nothing yet. One that takes longer waits
        for a lock most likely, perhaps in a deadlock across databases, which its end resolves.
        """
        self.floor.close()
        operations_wait_s = min(_OPERATIONS_WAIT_S, self._close_wait_s)
        await self._tasks.settle(operations_wait_s)
        self.floor.interrupt_all()
        await self._tasks.finish(self._close_wait_s - operations_wait_s)

    # -- inside: phase one -----------------------------------------------------------------------------------------

    def _times(self, timeout_s: float | None, operations: Sequence[Operation]) -> tuple[float, float]:
        """The deadline as the message gives it, and now. Without one, an open branch keeps its own."""
        now_s = self._clock.monotonic_s()
        if timeout_s is None:
            return (now_s if operations else float("inf")), now_s
        return now_s + timeout_s, now_s

    def _fail_busy(self, gtrid: str, bqual: str) -> Cause | None:
        """A branch that is asked to end while a call still works in it has failed; the call's work would be half in."""
        branch = self.floor.busy(gtrid) if bqual == self.bqual else None
        if branch is None:
            return None
        cause = cause_of(HandfastFault("BRANCH_STILL_AT_WORK", gtrid=gtrid, bqual=bqual))
        self.branches.on_work_failed(branch, cause, self._clock.monotonic_s())
        return cause

    def _run(self, gtrid: str, work: Coroutine[Any, Any, Result]) -> asyncio.Task[Result]:
        """Do something for a branch, once; duplicates find it in ``_under_way``."""

        def done() -> None:
            if self._under_way.get(gtrid) is task:
                del self._under_way[gtrid]

        task = self._under_way[gtrid] = self._tasks.start(work, done)
        return task

    async def _drop(self, gtrid: str, reason: str, answer: Result) -> Result:
        await self.floor.drop(gtrid, reason)
        return answer

    async def _rollback_after(self, gtrid: str, bqual: str, proof: str) -> Ended:
        """Roll back a branch that is just being prepared: its operations stop, its PREPARE does not."""
        await self.floor.interrupt(gtrid, "a Rollback came")
        await self._quiet(gtrid)
        return await self.rollback(gtrid, bqual, proof)

    async def _answer_when_quiet(self, gtrid: str, answer: Result) -> Result:
        await self._quiet(gtrid)
        return answer

    async def _quiet(self, gtrid: str) -> None:
        """Wait until nothing is under way for a branch."""
        while (task := self._under_way.get(gtrid)) is not None:
            await asyncio.wait({task})

    async def _prepare(self, branch: Branch, operations: Sequence[Operation]) -> Voted:
        self._failpoints.reach("before-prepare")
        try:
            made = await self.floor.end(branch, operations, _prepare_it)
        except asyncio.CancelledError:
            self._on_cut_off(branch)
            raise
        except AnswerLost as lost:
            raise self._on_answer_lost(branch, lost) from lost
        except HandfastFault as fault:
            return self.branches.on_prepare_failed(branch, cause_of(fault), self._clock.monotonic_s())
        now_s = self._clock.monotonic_s()
        if isinstance(made, ReadOnly):
            return self.branches.on_read_only(branch, now_s)
        self._failpoints.reach("after-prepare")
        return self.branches.on_prepared(branch, made.proof, now_s)

    async def _commit_open(self, branch: Branch, operations: Sequence[Operation]) -> Ended:
        self._failpoints.reach("before-commit")
        try:
            proof = await self.floor.end(branch, operations, _commit_it)
        except asyncio.CancelledError:
            self._on_cut_off(branch)
            raise
        except AnswerLost as lost:
            raise self._on_answer_lost(branch, lost) from lost
        except HandfastFault as fault:
            self.branches.on_prepare_failed(branch, cause_of(fault), self._clock.monotonic_s())
            return one_phase_end(branch)
        self._failpoints.reach("after-commit")
        return self.branches.on_committed_open(branch, proof, self._clock.monotonic_s())

    def _on_cut_off(self, branch: Branch) -> None:
        """This process stops, and waits no longer: nobody here will learn what became of the command."""
        self.branches.on_answer_lost(branch, branch.proof, self._clock.monotonic_s())

    def _on_answer_lost(self, branch: Branch, lost: AnswerLost) -> HandfastFault:
        log.warning("%s of %s: %s", self.bqual, branch.gtrid, lost.problem)
        self.branches.on_answer_lost(branch, lost.proof, self._clock.monotonic_s())
        return self._unknown(branch, lost.problem)

    def _unknown(self, branch: Branch, problem: str) -> HandfastFault:
        return HandfastFault("ANSWER_LOST", gtrid=branch.gtrid, bqual=self.bqual, problem=problem.rstrip("."))

    async def _look_prepared(self, branch: Branch) -> Voted:
        """Vote after all, for a branch whose PREPARE had no answer."""
        found = await self._look(branch)
        now_s = self._clock.monotonic_s()
        if found.stand is Stand.PREPARED:
            return self.branches.on_prepared(branch, found.proof or branch.proof, now_s)
        if found.stand is Stand.ABORTED:
            fault = HandfastFault("PREPARE_FAILED", gtrid=branch.gtrid, bqual=self.bqual, problem=found.evidence)
            return self.branches.on_prepare_failed(branch, cause_of(fault), now_s)
        raise self._unknown(branch, found.evidence)

    async def _look_committed(self, branch: Branch) -> Ended:
        """Answer after all, for a branch whose one-phase COMMIT had no answer."""
        found = await self._look(branch)
        now_s = self._clock.monotonic_s()
        if found.stand in {Stand.OPEN, Stand.PREPARED}:
            raise self._unknown(branch, found.evidence)
        if found.stand is Stand.ABORTED:
            fault = HandfastFault("BRANCH_FAILED", gtrid=branch.gtrid, bqual=self.bqual, problem=found.evidence)
            self.branches.on_prepare_failed(branch, cause_of(fault), now_s)
        else:
            fate = Fate.COMMITTED if found.stand is Stand.COMMITTED else Fate.UNPROVED
            self.branches.on_ended(branch, fate, found.evidence, now_s)
        return one_phase_end(branch)

    async def _look(self, branch: Branch) -> Found:
        (found,) = await self.manager.ends_of([(Xid(branch.gtrid, self.bqual), branch.proof)])
        if branch.state is not State.IN_DOUBT:
            raise self._unknown(branch, "it was ended meanwhile")
        return found

    # -- inside: phase two -----------------------------------------------------------------------------------------

    def _finish(self, decision: Decision, xid: Xid, proof: str) -> asyncio.Task[Ended]:
        running = self._finishing.get(xid)
        if running is None:
            task = self._tasks.start(self._finish_once(decision, xid, proof), lambda: self._finishing.pop(xid, None))
            self._finishing[xid] = (decision, task)
            return task
        if running[0] is decision:
            return running[1]
        return self._tasks.start(self._finish_after(running[1], decision, xid, proof))

    async def _finish_after(self, first: asyncio.Task[Ended], decision: Decision, xid: Xid, proof: str) -> Ended:
        """Carry out a decision that contradicts one which is being carried out."""
        await asyncio.wait({first})
        again = self.commit if decision is Decision.COMMIT else self.rollback
        return await again(xid.gtrid, xid.bqual, proof)

    async def _finish_once(self, decision: Decision, xid: Xid, proof: str) -> Ended:
        branch = self.branches.find(xid.gtrid) if xid.bqual == self.bqual else None
        known = proof or (branch.proof if branch is not None else "")
        commit = decision is Decision.COMMIT
        if commit:
            self._failpoints.reach("before-commit")
        finish = self.manager.commit_prepared if commit else self.manager.rollback_prepared
        end = await finish(xid, known)
        outcome = OUTCOMES[decision, end.fate]
        if self._traced is not None:
            self._traced.finished(decision, xid, end.fate, outcome, end.evidence)
        if self._noted_ends is not None:
            self._noted_ends.add(xid)
        if commit:
            self._failpoints.reach("after-commit")
        if branch is not None:
            self.branches.on_ended(branch, end.fate, end.evidence, self._clock.monotonic_s())
        if outcome in {Outcome.COMMITTED, Outcome.ABORTED}:
            return _AS_DECIDED[outcome]
        log.error("%s of %s: %s: %s", xid.bqual, xid.gtrid, outcome.value, end.evidence)
        return Ended(outcome, end.evidence)


def _memory(options: ParticipantOptions) -> dict[str, Any]:
    return {"memory_count_max": options.memory_count_max, "memory_age_s": options.memory_age_s}


_AS_DECIDED = {outcome: Ended(outcome) for outcome in (Outcome.COMMITTED, Outcome.ABORTED)}


async def _answer_of(found: Result | asyncio.Task[Result]) -> Result:
    return await asyncio.shield(found) if isinstance(found, asyncio.Task) else found


def _prepare_it(opened: OpenBranch[Any]) -> Awaitable[Prepared | ReadOnly]:
    return opened.prepare()


def _commit_it(opened: OpenBranch[Any]) -> Awaitable[str]:
    return opened.commit()
