"""The clients of a run: what an application does with transactions, and what it is told."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from handfast import context, errors
from handfast.client import Wait
from handfast.frames import CallFailed
from handfast.outcomes import Outcome
from handfast.transaction import Transaction
from tests.simulation.network import WorkDone, WorkRequest
from tests.simulation.processes import Process, SimulatedManager, address_of, manager_of
from tests.simulation.streams import SimulatedStream
from tests.simulation.workload import Piece, Plan

if TYPE_CHECKING:
    from tests.simulation.world import World

ASKS_MAX = 3


class ChangeOfMind(Exception):
    """What an application's block may raise."""


class ClientProcess(Process):
    """An application that runs the planned transactions, each in a task of its own.

    Args:
        world: where it is.
        name: its name.
        plans: the transactions; those that began before it died are not begun again.
    """

    def __init__(self, world: World, name: str, plans: tuple[Plan, ...]) -> None:
        super().__init__(world, name)
        self._left = list(plans)
        self.open_calls: dict[str, None] = {}

    async def main(self) -> None:
        self._tm = manager_of(self, self.world.scenario.settings.block_size)
        self._services: dict[str, SimulatedStream] = {}
        for plan in self._left:
            self.loop.call_at(max(plan.at_s, self.loop.time()), self._begin, plan)

    def on_dead(self) -> None:
        self.open_calls.clear()

    def _begin(self, plan: Plan) -> None:
        self._left = [left for left in self._left if left.number > plan.number or left.at_s > plan.at_s]
        self._left = [left for left in self._left if left.number != plan.number]
        self.loop.create_task(self._run(plan)).add_done_callback(self._on_main_done)

    async def _run(self, plan: Plan) -> None:
        name = f"transaction {plan.number}"
        self.open_calls[name] = None
        try:
            if plan.one_shot:
                await self._one_shot(plan)
            elif plan.ending == "vanish":
                await self._vanish(plan)
            else:
                await self._interactive(plan)
        finally:
            self.open_calls.pop(name, None)

    # -- one-shot --------------------------------------------------------------------------------------------------

    async def _one_shot(self, plan: Plan) -> None:
        operations = [(piece.resource, "change", f"{piece.row}:{piece.amount}".encode()) for piece in plan.pieces]
        try:
            done = await self._tm.execute(operations, timeout=plan.timeout_s, wait=_wait(plan))
        except errors.HandfastError as error:
            await self._on_error(plan, error, _gtrid_of(error))
        else:
            self._told(plan, done.gtrid, "COMMITTED")

    # -- interactive -----------------------------------------------------------------------------------------------

    async def _interactive(self, plan: Plan) -> None:
        transaction = self._tm.transaction(timeout=plan.timeout_s, wait=_wait(plan))
        try:
            async with transaction:
                self.world.observe.begun(plan.number, transaction.gtrid)
                for piece in plan.pieces:
                    await self._work(transaction, piece)
                if plan.ending == "change of mind":
                    raise ChangeOfMind
                if plan.ending in ("twice", "both"):
                    self.loop.create_task(self._meanwhile(plan, transaction))
        except (CallFailed, ChangeOfMind):
            if transaction.outcome is Outcome.ABORTED:
                self._told(plan, transaction.gtrid, "ABORTED")
        except errors.HandfastError as error:
            await self._on_error(plan, error, _gtrid_of(error) or _begun(transaction))
        else:
            self._told(plan, transaction.gtrid, "COMMITTED")

    async def _vanish(self, plan: Plan) -> None:
        """Work, and say nothing more, so that the deadline must end it."""
        transaction = self._tm.transaction(timeout=plan.timeout_s)
        try:
            await transaction.__aenter__()
            self.world.observe.begun(plan.number, transaction.gtrid)
            for piece in plan.pieces:
                await self._work(transaction, piece)
        except (CallFailed, errors.HandfastError) as problem:
            self.world.trace(self.name, "transaction %d vanishes early: %s", plan.number, type(problem).__name__)

    async def _work(self, transaction: Transaction, piece: Piece) -> None:
        address = address_of(f"{piece.resource}-{piece.instance}")
        if address not in self._services:
            self._services[address] = SimulatedStream(self.world.network.open(self.loop, address))
        now_s = self.clock.monotonic_s()
        request = WorkRequest(context.to_metadata(transaction.context, now_s=now_s), piece.row, piece.amount)
        left_s = max(0.0, transaction.context.time_left_s(now_s=now_s))
        answer: object = await self._services[address].ask(request, timeout_s=left_s)
        assert isinstance(answer, WorkDone)
        context.learn_joined(transaction.context, answer.metadata)

    async def _meanwhile(self, plan: Plan, transaction: Transaction) -> None:
        """Another task ends the same transaction by its gtrid."""
        name = f"second task of {plan.number}"
        self.open_calls[name] = None
        branches = len(transaction.context.branches)
        try:
            if plan.ending == "twice":
                report = await self._tm.commit(transaction.gtrid, branches=branches)
                self._told(plan, report.gtrid, str(report.outcome))
            else:
                report = await self._tm.rollback(transaction.gtrid, "the other task")
                self._told(plan, report.gtrid, str(report.outcome))
        except errors.HandfastError as error:
            if isinstance(error, errors.TransactionAborted):
                self._told(plan, transaction.gtrid, "ABORTED")
        finally:
            self.open_calls.pop(name, None)

    # -- what it is told -------------------------------------------------------------------------------------------

    async def _on_error(self, plan: Plan, error: errors.HandfastError, gtrid: str) -> None:
        if isinstance(error, errors.OutcomeUnknown):
            self._told(plan, gtrid, "UNKNOWN")
            await self._ask_again(plan, error)
            return
        if isinstance(error, errors.HeuristicOutcome):
            self._told(plan, gtrid, str(error.outcome))
            return
        self.world.trace(self.name, "%s: %s", gtrid or "(no gtrid)", type(error).__name__)
        # All of these say that certainly nothing was committed: by the call, unless they tell of an abort.
        # A refused request uses no name up, so that its repeat may be taken when what was missing is there.
        repeated = isinstance(error, errors.Refused) and gtrid in self.world.network.repeated
        alone = not repeated and (plan.one_shot or plan.ending not in ("twice", "both"))
        if isinstance(error, errors.TransactionAborted) or alone:
            self._told(plan, gtrid, "ABORTED")

    async def _ask_again(self, plan: Plan, unknown: errors.OutcomeUnknown) -> None:
        for _ in range(ASKS_MAX):
            await asyncio.sleep(1.0)
            try:
                report = await self._tm.outcome(unknown.gtrid, branches=unknown.branches)
            except errors.HandfastError:
                continue
            if report.outcome is not None:
                self._told(plan, unknown.gtrid, str(report.outcome))
                return

    def _told(self, plan: Plan, gtrid: str, outcome: str) -> None:
        if gtrid:
            self.world.observe.begun(plan.number, gtrid)
            self.world.observe.client_told(gtrid, outcome)


class Auditor(Process):
    """Asks, when all is over, what became of every transaction."""

    def __init__(self, world: World, name: str = "auditor") -> None:
        super().__init__(world, name)
        self.done = False

    async def main(self) -> None:
        self.done = False
        tm = manager_of(self, 1)
        for gtrid, branches in self.world.observe.everything_begun():
            await self._ask(tm, gtrid, branches)
        self.done = True

    async def _ask(self, tm: SimulatedManager, gtrid: str, branches: int) -> None:
        for _ in range(ASKS_MAX):
            try:
                report = await tm.outcome(gtrid, branches=branches)
            except errors.HandfastError as error:
                self.world.trace(self.name, "asking for %s: %s", gtrid, type(error).__name__)
                await asyncio.sleep(1.0)
            else:
                self.world.observe.audited(gtrid, report.standing.name, str(report.outcome))
                return


def _wait(plan: Plan) -> Wait:
    return "applied" if plan.applied else "decided"


def _gtrid_of(error: errors.HandfastError) -> str:
    gtrid: str = getattr(error, "gtrid", "")
    return gtrid


def _begun(transaction: Transaction) -> str:
    try:
        return transaction.gtrid
    except RuntimeError:
        return ""
