"""The branches at work in this process: their connections, their locks and their deadlines.

Two rules. A branch's connection is used by one call at a time (``Held.lock``). And whoever has to roll back a branch
while a call works in it does not wait for that call: the statement is cancelled and the connection closed under it, so
that its locks are freed now and the call gets an error. Only PREPARE and COMMIT themselves are never interrupted
(``Held.ending``), because then nobody would know what became of them.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar

from handfast.catalog import HandfastFault
from handfast.context import TransactionContext, current, set_current
from handfast.xid import Gtrid, Xid, named_unix_ms, split_bqual
from participant.clock import Clock
from participant.config import ParticipantOptions
from participant.faults import cause_of, ended_fault, operation_fault, work_fault
from participant.limits import Limit, Limits
from participant.operations import Operations
from participant.protocol import Branch, Branches, Cause, State
from participant.resource import AnswerLost, OpenBranch, ResourceManager
from participant.tasks import Tasks

ConnectionT = TypeVar("ConnectionT")
Result = TypeVar("Result")

Enlist = Callable[[str, float], Coroutine[Any, Any, None]]
"""Enlists this instance's branch: gtrid, deadline by the monotonic clock."""

log = logging.getLogger(__name__)


class Operation(Protocol):
    """One operation to do: the wire's own message has this form."""

    @property
    def name(self) -> str:
        """Which."""

    @property
    def payload(self) -> bytes:
        """Its input."""


@dataclass(slots=True, eq=False)
class Held(Generic[ConnectionT]):
    """What the process holds of a branch that has not been prepared.

    Args:
        branch: its record in the protocol.
        xid: its name.
        opened: its transaction in the resource; None before it began.
        lock: held by the call that works in it.
        owner: the task of that call.
        enlisted: done when the coordinator knows of the branch; None for a branch that the coordinator itself began.
        limit: reached at its deadline.
        ending: PREPARE or COMMIT is on its way.
        dropped: it was given up; whoever still begins or uses it must let go.
    """

    branch: Branch
    xid: Xid
    opened: OpenBranch[ConnectionT] | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    owner: asyncio.Task[Any] | None = None
    enlisted: asyncio.Task[None] | None = None
    limit: Limit | None = None
    ending: bool = False
    dropped: bool = False


class WorkFloor(Generic[ConnectionT]):
    """All branches at work.

    Args:
        bqual: the name of this instance's branches.
        branches: the protocol.
        manager: the resource.
        operations: the resource's operations.
        options: timeouts.
        clock: where time comes from.
        tasks: keeps what is under way.
        enlist: tells the coordinator of a branch.
    """

    def __init__(
        self,
        bqual: str,
        branches: Branches,
        manager: ResourceManager[ConnectionT],
        operations: Operations[ConnectionT],
        options: ParticipantOptions,
        clock: Clock,
        tasks: Tasks,
        enlist: Enlist,
    ) -> None:
        self._bqual = bqual
        self._resource = split_bqual(bqual)[0]
        self._branches = branches
        self._manager = manager
        self._operations = operations
        self._options = options
        self._clock = clock
        self._limits = Limits(clock)
        self._tasks = tasks
        self._enlist = enlist
        self._held: dict[str, Held[ConnectionT]] = {}
        self._closed = False

    # -- the service's own calls -----------------------------------------------------------------------------------

    def join(self, gtrid: str, deadline_s: float) -> AbstractAsyncContextManager[ConnectionT]:
        """Work in the branch of this transaction; begins it when this is the first work.

        Args:
            gtrid: the transaction.
            deadline_s: its deadline by the monotonic clock; infinite gives it the default time.

        Raises:
            HandfastFault: on entering or leaving: the branch could not begin or enlist, takes no more work, or was
                ended meanwhile.
        """
        return _Work(self, gtrid, deadline_s)

    async def enter(self, gtrid: str, deadline_s: float) -> tuple[Held[ConnectionT], bool]:
        """Begin a piece of work. Returns the branch, and whether this is a piece within a piece, which is no other."""
        held, caller = self._held.get(gtrid), asyncio.current_task()
        if held is not None and held.owner is caller and held.opened is not None:
            return held, True  # a block within a block, or within an operation
        held = self._joined(gtrid, deadline_s)
        await held.lock.acquire()
        held.owner = caller
        try:
            await self._open(held)
        except BaseException as problem:
            if (fault := await self._fail(held, problem)) is None:
                raise
            raise fault from problem
        return held, False

    async def leave(self, held: Held[ConnectionT], problem: BaseException | None) -> None:
        """End a piece of work, well or by an exception, which goes on its way unless another is raised instead."""
        if problem is not None:
            if (fault := await self._fail(held, problem)) is None:
                return
            raise fault from problem
        try:
            await self._settle(held)
        except BaseException as found:
            if (fault := await self._fail(held, found)) is None:
                raise
            raise fault from found
        self._tell_joined()
        self._release(held)

    async def _fail(self, held: Held[ConnectionT], problem: BaseException) -> HandfastFault | None:
        """Roll back what the work did, and let go of the branch. Returns what to raise instead of the problem."""
        try:
            return await self._on_work_failed(held, problem)
        finally:
            self._release(held)

    def _release(self, held: Held[ConnectionT]) -> None:
        held.owner = None
        held.lock.release()

    def _tell_joined(self) -> None:
        """Let the answer say that this branch has joined; only once it is enlisted, for it must never count in vain."""
        transaction = current()
        if transaction is not None:
            transaction.branches.add(self._bqual)

    # -- what the coordinator's messages need ----------------------------------------------------------------------

    def busy(self, gtrid: str) -> Branch | None:
        """The active branch in which a call works just now."""
        held = self._held.get(gtrid)
        busy = held is not None and held.branch.state is State.ACTIVE and held.lock.locked()
        return held.branch if held is not None and busy else None

    async def end(
        self,
        branch: Branch,
        operations: Sequence[Operation],
        how: Callable[[OpenBranch[ConnectionT]], Awaitable[Result]],
    ) -> Result:
        """Do the operations, in a new branch if need be, and then prepare or commit it.

        Args:
            branch: PREPARING.
            operations: the work to do first.
            how: prepares or commits.

        Returns:
            What ``how`` returned; the operations' results are the branch's.

        Raises:
            HandfastFault: it failed, and the branch is rolled back, for certain.
            AnswerLost: nobody can tell.
        """
        held = self._held.get(branch.gtrid)
        if held is None:
            if self._closed:
                raise HandfastFault("PARTICIPANT_CLOSED", gtrid=branch.gtrid, bqual=self._bqual)
            held = self._hold(branch)
        await held.lock.acquire()
        try:
            opened, results = await self._operate(held, operations)
            self._check(held)
            held.ending = True
            self._branches.on_operated(branch, results)
            return await how(opened)
        except HandfastFault as fault:
            if held.dropped and self._closed:  # what the operations met is only the echo of that
                raise HandfastFault("PARTICIPANT_CLOSED", gtrid=branch.gtrid, bqual=self._bqual) from fault
            raise
        except AnswerLost:
            raise
        except Exception as problem:
            log.exception("%s of %s: ending it failed in an unforeseen way", self._bqual, branch.gtrid)
            raise AnswerLost(branch.proof, f"{type(problem).__name__}: {problem}") from problem
        finally:
            self._let_go(held)
            held.lock.release()

    async def drop(self, gtrid: str, reason: str) -> None:
        """Roll back a branch that the protocol has ended, also under its work.

        Args:
            gtrid: the transaction; nothing happens when it has no branch at work.
            reason: why, for the log.
        """
        held = self._held.get(gtrid)
        if held is None:
            return
        self._let_go(held)
        if not held.lock.locked():
            async with held.lock:
                if held.opened is not None:
                    await held.opened.rollback()
        elif held.opened is not None:
            await held.opened.abandon(reason)
        # Otherwise it is just beginning, and whoever begins it sees that it was dropped.

    async def interrupt(self, gtrid: str, reason: str) -> None:
        """Stop the operations of a branch that is preparing; once PREPARE or COMMIT is on its way it is too late."""
        held = self._held.get(gtrid)
        if held is not None and not held.ending and not held.dropped:
            held.dropped = True
            if held.opened is not None:
                await held.opened.abandon(reason)

    def close(self) -> None:
        """Take no more work, and begin to roll back what is active."""
        self._closed = True
        for held in list(self._held.values()):
            self._give_up(held, "the process that held it was stopped")

    def interrupt_all(self) -> None:
        """Begin to stop the operations of every branch that is preparing: they vote NO. To be called after closing."""
        for gtrid in list(self._held):
            self._tasks.start(self.interrupt(gtrid, "the process that held it was stopped"))

    def on_epoch(self, coordinator_id: str, epoch: int) -> None:
        """Begin to roll back what is active and belongs to an earlier life of this coordinator.

        A coordinator keeps what is undecided in memory only. One that has restarted will never ask such a branch to
        prepare, and its locks need not wait for the deadline.
        """
        for held in list(self._held.values()):
            named = Gtrid.parse(held.xid.gtrid)
            if named.coordinator_id == coordinator_id and named.epoch < epoch:
                self._give_up(held, "the coordinator restarted before it asked for the vote")

    def _give_up(self, held: Held[ConnectionT], why: str) -> None:
        if held.branch.state is State.ACTIVE:
            cause = Cause("BRANCH_FAILED", f"{self._bqual} of {held.xid.gtrid} was rolled back: {why}.")
            self._branches.on_work_failed(held.branch, cause, self._clock.monotonic_s())
            self._tasks.start(self.drop(held.xid.gtrid, why))

    # -- beginning -------------------------------------------------------------------------------------------------

    def _joined(self, gtrid: str, deadline_s: float) -> Held[ConnectionT]:
        if self._closed:
            raise HandfastFault("PARTICIPANT_CLOSED", gtrid=gtrid, bqual=self._bqual)
        branch, held = self._branches.find(gtrid), self._held.get(gtrid)
        if branch is not None:
            if held is None or branch.state is not State.ACTIVE:
                raise ended_fault(branch, self._bqual)
            return held
        now_s = self._clock.monotonic_s()
        if math.isinf(deadline_s):
            deadline_s = now_s + self._options.timeout_default_s
        if deadline_s <= now_s:
            raise HandfastFault("DEADLINE_PASSED", gtrid=gtrid, bqual=self._bqual)
        held = self._hold(self._branches.begin(gtrid, named_unix_ms(gtrid), deadline_s))
        held.enlisted = self._tasks.start(self._enlist(gtrid, deadline_s))
        return held

    def _hold(self, branch: Branch) -> Held[ConnectionT]:
        held: Held[ConnectionT] = Held(branch, Xid(branch.gtrid, self._bqual))
        self._held[branch.gtrid] = held
        held.limit = self._limits.start_until(branch.deadline_s, partial(self._on_deadline, held))
        return held

    async def _open(self, held: Held[ConnectionT]) -> OpenBranch[ConnectionT]:
        """Begin the branch in the resource unless that was done; to be called with the lock."""
        self._check(held)
        if held.opened is not None:
            return held.opened
        opened = await self._manager.begin(held.xid, held.branch.deadline_s - self._clock.monotonic_s())
        try:
            self._check(held)  # a Rollback may have come, or the deadline, while it began
        except HandfastFault:
            await opened.rollback()
            raise
        held.opened = opened
        return opened

    def _check(self, held: Held[ConnectionT]) -> None:
        """Raise when the branch was given up."""
        if held.dropped:
            raise ended_fault(held.branch, self._bqual)

    # -- ending a piece of work ------------------------------------------------------------------------------------

    async def _settle(self, held: Held[ConnectionT]) -> None:
        """The coordinator knows of the branch, and the resource finds it sound: both at the same time."""
        self._check(held)
        if held.opened is not None:
            await held.opened.settle()
        if held.enlisted is not None:
            await asyncio.shield(held.enlisted)
        self._check(held)

    async def _on_work_failed(self, held: Held[ConnectionT], problem: BaseException) -> HandfastFault | None:
        """Roll the branch back at once. Returns what to raise instead of the problem; None to raise it as it is."""
        branch = held.branch
        if branch.state is not State.ACTIVE:
            # It was rolled back under the work; the error that the work met is only the echo of that.
            echo = isinstance(problem, Exception) and not isinstance(problem, HandfastFault)
            return ended_fault(branch, self._bqual) if echo else None
        fault = work_fault(problem, held.xid)
        log.info("%s of %s: rolled back: %s", self._bqual, branch.gtrid, fault.message)
        self._branches.on_work_failed(branch, cause_of(fault), self._clock.monotonic_s())
        self._let_go(held)
        if held.opened is not None:
            await asyncio.shield(self._tasks.start(held.opened.rollback()))
        if held.enlisted is not None and isinstance(problem, Exception):
            await asyncio.wait({held.enlisted})  # so that a client which commits all the same will hear our NO
        return None

    async def _operate(
        self, held: Held[ConnectionT], operations: Sequence[Operation]
    ) -> tuple[OpenBranch[ConnectionT], tuple[bytes, ...]]:
        """Begin the branch if need be, and do the operations in order.

        Raises:
            HandfastFault: one failed, and the branch is rolled back.
        """
        opened = await self._open(held)
        if not operations:
            return opened, ()
        results, name = [], ""
        held.owner = asyncio.current_task()
        set_current(TransactionContext(held.xid.gtrid, held.branch.deadline_s))  # in this task, the branch's own
        try:
            for operation in operations:
                name = operation.name
                work = self._operations.find(name, self._resource)
                results.append(await work(opened.connection, operation.payload) or b"")
        except Exception as problem:
            if not held.dropped:
                await opened.rollback()
            known = self._manager.fault_of(problem, held.xid, held.xid.resource)
            raise operation_fault(problem, known, held.xid, held.xid.resource, name) from problem
        finally:
            held.owner = None
        return opened, tuple(results)

    # -- letting go ------------------------------------------------------------------------------------------------

    def _let_go(self, held: Held[ConnectionT]) -> None:
        held.dropped = True
        self._held.pop(held.xid.gtrid, None)
        if held.limit is not None:
            self._limits.end(held.limit)
            held.limit = None  # it refers back; no garbage collector should have to find what every branch leaves

    def _on_deadline(self, held: Held[ConnectionT]) -> None:
        branch = held.branch
        if held.dropped or branch.state not in {State.ACTIVE, State.PREPARING}:
            return
        active = branch.state is State.ACTIVE
        self._branches.on_deadline(branch, self._clock.monotonic_s())
        reason = "its deadline passed"
        self._tasks.start(self.drop(branch.gtrid, reason) if active else self.interrupt(branch.gtrid, reason))


class _Work(Generic[ConnectionT]):
    """One piece of work, as a block."""

    __slots__ = ("_deadline_s", "_floor", "_gtrid", "_held")

    def __init__(self, floor: WorkFloor[ConnectionT], gtrid: str, deadline_s: float) -> None:
        self._floor = floor
        self._gtrid = gtrid
        self._deadline_s = deadline_s
        self._held: Held[ConnectionT] | None = None

    async def __aenter__(self) -> ConnectionT:
        held, within = await self._floor.enter(self._gtrid, self._deadline_s)
        if held.opened is None:
            raise RuntimeError(f"the branch of {self._gtrid} was entered, and is not open")
        self._held = None if within else held
        return held.opened.connection

    async def __aexit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._held is not None:
            await self._floor.leave(self._held, problem)
