"""One global transaction, as an application holds it.

    async with tm.transaction(timeout=5) as txn:
        await accounts.Withdraw(request)
        await ledger.Credit(request)
    print(txn.outcome)

Leaving the block commits; an exception rolls back and goes on its way. Inside the block the transaction is ambient
(handfast.context). A block inside a block is a transaction of its own: it commits or rolls back whatever becomes of the
outer one, which is ambient again after it.

A transaction ends once. Commit and rollback after that give the first end again, and so do two tasks that commit at the
same time: the second waits for the first, under one lock.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

from handfast.catalog import HandfastFault
from handfast.context import TransactionContext, set_current
from handfast.errors import AlreadyDecided, HandfastError, HeuristicOutcome, raise_unless_committed
from handfast.outcomes import BranchReport, Outcome, Verdict
from handfast.settling import Settler
from handfast.v1 import coordinator_pb2 as wire

LEAVING_WAIT_S = 1.0
"""How long an exception on its way out of the block waits for the rollback's answer, in seconds."""

log = logging.getLogger(__name__)

Draw = Callable[[], Awaitable[TransactionContext]]
"""Gives a new transaction its id and deadline. Raises a HandfastError when there is none to be had."""


class Transaction:
    """A global transaction; made by ``tm.transaction()``.

    Args:
        draw: gives it its id.
        settler: asks the coordinator for its end.
        wait: when a commit answers.
        outcome_wait_s: how long an explicit rollback waits for its answer, in seconds.
    """

    def __init__(self, draw: Draw, settler: Settler, wait: wire.Wait.ValueType, outcome_wait_s: float) -> None:
        self._draw = draw
        self._settler = settler
        self._wait = wait
        self._outcome_wait_s = outcome_wait_s
        self._context: TransactionContext | None = None
        self._outer: TransactionContext | None = None
        self._ending = asyncio.Lock()
        self._verdict: Verdict | None = None
        self._commit_asked = False

    @property
    def context(self) -> TransactionContext:
        """Its id and deadline, for carrying it by other means than the client interceptors.

        Raises:
            RuntimeError: its block has not been entered.
        """
        if self._context is None:
            raise RuntimeError("a transaction begins where its block is entered: async with tm.transaction() as txn")
        return self._context

    @property
    def gtrid(self) -> str:
        """Its id."""
        return self.context.gtrid

    @property
    def outcome(self) -> Outcome | None:
        """What became of it; None while it has not ended, or nobody here can tell."""
        return None if self._verdict is None else self._verdict.outcome

    @property
    def pending(self) -> tuple[BranchReport, ...]:
        """After its end, the branches that have yet to apply it; they will, by themselves."""
        return () if self._verdict is None else self._verdict.pending

    async def __aenter__(self) -> Self:
        """Begin.

        Raises:
            CoordinatorUnavailable: there is no coordinator to begin it.
            Refused: it begins no transaction now.
        """
        if self._context is not None:
            raise RuntimeError(f"transaction {self.gtrid} has begun; make another with tm.transaction()")
        self._context = await self._draw()
        self._outer = set_current(self._context)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Commit, or roll back when an exception is on its way out."""
        set_current(self._outer)
        if problem is None:
            if self._verdict is None:
                await self.commit()
        elif self._verdict is None and not self._commit_asked:
            await self._leave(problem)

    async def commit(self) -> None:
        """Commit on every branch, or on none.

        Raises:
            TransactionAborted: no branch changed anything; says which said no, and why.
            DeadlineExceeded: the same, because the time ran out.
            HeuristicOutcome: a branch ended against the decision.
            OutcomeUnknown: nobody here can tell; ask later with ``tm.outcome(gtrid)``.
            CoordinatorUnavailable: it was not reached; the transaction is not committed.
            Refused: the coordinator said no.
        """
        async with self._ending:
            if self._verdict is None:
                # Asked before and not answered: whatever is said now is said to a repeat.
                repeat, self._commit_asked = self._commit_asked, True
                deadline_s = self.context.deadline_monotonic_s
                self._verdict = await self._settler.commit(
                    self.gtrid, self._wait, deadline_s, branches=len(self.context.branches), repeat=repeat
                )
        raise_unless_committed(self._verdict)

    async def rollback(self, reason: str = "") -> None:
        """Roll back on every branch.

        Args:
            reason: why, for the reports; cut to 1,024 characters.

        Raises:
            AlreadyDecided: it is committed.
            HeuristicOutcome: a branch ended against the decision.
            CoordinatorUnavailable: it was not reached; the transaction rolls back by itself at its deadline, unless
                a commit was asked for before.
            Refused: the coordinator said no.
        """
        async with self._ending:
            if self._verdict is None:
                self._verdict = await self._roll_back(reason, self._outcome_wait_s)
        if self._verdict.outcome is Outcome.COMMITTED:
            fault = HandfastFault("ALREADY_DECIDED", gtrid=self.gtrid, wish="roll back", state="COMMITTED")
            raise AlreadyDecided(fault.code, fault.message, fault.mend, gtrid=self.gtrid)
        if self._verdict.outcome.heuristic:
            raise HeuristicOutcome(self.gtrid, self._verdict.outcome, self._verdict.branches)

    async def _roll_back(self, reason: str, timeout_s: float) -> Verdict:
        branches = len(self.context.branches)
        return await self._settler.rollback(
            self.gtrid, reason, timeout_s, branches=branches, commit_maybe_asked=self._commit_asked
        )

    async def _leave(self, problem: BaseException) -> None:
        """Roll back because of an exception, which nothing that goes wrong here may hide."""
        try:
            async with self._ending:
                reason = f"{type(problem).__name__}: {problem}"
                self._verdict = await self._roll_back(reason, LEAVING_WAIT_S)
        except HandfastError as failure:
            log.warning("transaction %s could not be rolled back at once: %s", self.gtrid, failure)
            problem.add_note(f"handfast: {failure}")
            return
        if self._verdict.outcome.heuristic:
            heuristic = HeuristicOutcome(self.gtrid, self._verdict.outcome, self._verdict.branches)
            log.error("%s", heuristic)
            problem.add_note(f"handfast: {heuristic}")
