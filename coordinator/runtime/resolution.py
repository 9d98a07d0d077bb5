"""What an operator may do by hand.

Everything here is written to the log before it is done. Against the decision nothing is done unless the operator says
``heuristic`` (X/Open XA's word for a decision that a participant takes on its own); then the branches still in doubt
end the other way, and the transaction's outcome says so for as long as it is remembered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from coordinator.log.records import ResolutionRecord
from coordinator.log.store import LogBroken, LogRefused, OnWritten
from coordinator.protocol import events as e
from coordinator.protocol.states import Cause, Decision, TransactionState
from coordinator.protocol.transaction import FINAL_STATES
from coordinator.runtime.links import Links
from coordinator.runtime.requests import Requests, Standing
from coordinator.runtime.running import Running
from handfast.catalog import HandfastFault
from handfast.frames import UNIMPLEMENTED, CallFailed
from handfast.masking import masked
from handfast.v1 import participant_pb2 as p
from handfast.xid import split_bqual

S = TransactionState
ACTIONS = ("commit", "rollback", "retry-now", "forget")
_ACTION_OF = {Decision.COMMIT: "commit", Decision.ABORT: "rollback"}
ASK_TIMEOUT_S = 10.0


class Resolution:
    """Carries out operators' wishes.

    Args:
        requests: the coordinator's requests.
        links: the way to participants.
    """

    def __init__(self, requests: Requests, links: Links) -> None:
        self._requests = requests
        self._driver = requests.driver
        self._links = links

    async def resolve(
        self, gtrid: str, action: str, heuristic: bool, operator: str, reason: str
    ) -> tuple[Running | None, str]:
        """Do what an operator wants.

        Args:
            gtrid: the transaction.
            action: one of ``ACTIONS``.
            heuristic: do it even against the decision.
            operator: who wants it.
            reason: why.

        Returns:
            The transaction afterwards (None when it is not known any more, or never was), and what was done, in words.

        Raises:
            HandfastFault: RESOLUTION_CONTRADICTS, RESOLUTION_IMPOSSIBLE, LOG_REFUSED, or what is wrong with the gtrid.
        """
        reason = masked(reason)
        running = self._requests.show(gtrid)
        if running is not None and running.broken:
            raise HandfastFault("RESOLUTION_IMPOSSIBLE", gtrid=gtrid, problem=f"it was set aside: {running.broken}")
        before = running.transaction.state.value if running else "no record"
        if action == "retry-now":
            done = await self._retry_now(gtrid, running)
        elif action == "forget":
            done = await self._forget(gtrid, running, operator, reason)
            return None, done
        elif action in ("commit", "rollback"):
            decision = Decision.COMMIT if action == "commit" else Decision.ABORT
            done = await self._decide(gtrid, running, decision, heuristic, operator, reason)
        else:
            raise HandfastFault("FIELD_INVALID", field="action", problem=f"{action!r} is not one of {ACTIONS}")
        after = self._requests.show(gtrid)
        state_after = after.transaction.state.value if after else "no record"
        await self._record(gtrid, action, heuristic, operator, reason, before, state_after)
        return after, done

    async def _retry_now(self, gtrid: str, running: Running | None) -> str:
        if running is None or running.transaction.state in FINAL_STATES:
            raise HandfastFault("RESOLUTION_IMPOSSIBLE", gtrid=gtrid, problem="nothing is waiting to be sent")
        sent = self._driver.retry_now(gtrid=gtrid)
        if not sent and not running.transaction.decided:
            raise HandfastFault("RESOLUTION_IMPOSSIBLE", gtrid=gtrid, problem="nothing is waiting to be sent")
        await self._settle(running)
        return f"{sent} message(s) sent at once"

    async def _decide(
        self, gtrid: str, running: Running | None, wish: Decision, heuristic: bool, operator: str, reason: str
    ) -> str:
        if running is None:
            return await self._decide_unrecorded(gtrid, wish, heuristic, operator, reason)
        machine = running.transaction
        if machine.state in FINAL_STATES:
            raise HandfastFault(
                "RESOLUTION_IMPOSSIBLE", gtrid=gtrid, problem=f"it has ended on every branch ({machine.state.value})"
            )
        if not machine.decided:
            return await self._decide_undecided(running, wish, operator, reason)
        if machine.decision is wish:
            if any(branch.override is not None for branch in machine.pending):
                # Back to the decision, for the branches that an earlier resolution has not reached.
                self._driver.feed(running, e.ResolvedAgainstDecision(wish, operator or "an operator"))
            return await self._retry_now(gtrid, running)
        assert machine.decision is not None
        if not heuristic:
            raise HandfastFault("RESOLUTION_CONTRADICTS", gtrid=gtrid, decision=machine.decision.value)
        state = machine.state.value
        await self._record(gtrid, _ACTION_OF[wish], True, operator, reason, state, "heuristic, under way")
        if running.transaction.state in FINAL_STATES:
            raise HandfastFault("RESOLUTION_IMPOSSIBLE", gtrid=gtrid, problem="it ended on every branch just now")
        self._driver.feed(running, e.ResolvedAgainstDecision(wish, operator or "an operator"))
        await self._settle(running)
        return f"branches in doubt were told to {_in_words(wish)}, against the decision"

    async def _decide_undecided(self, running: Running, wish: Decision, operator: str, reason: str) -> str:
        machine = running.transaction
        if wish is Decision.COMMIT:
            problem = "it is not decided yet; only its client can ask for the commit"
            raise HandfastFault("RESOLUTION_IMPOSSIBLE", gtrid=machine.gtrid, problem=problem)
        said = f"{operator or 'an operator'} rolled it back" + (f": {reason}" if reason else "")
        self._driver.feed(running, e.RollbackRequested(Cause.OPERATOR, said))
        if not machine.decided:
            problem = "its decision is being made durable right now; look again in a moment"
            if machine.one_phase:
                problem = "its only branch decides, and has not answered; its participant knows"
            raise HandfastFault("RESOLUTION_IMPOSSIBLE", gtrid=machine.gtrid, problem=problem)
        await self._settle(running)
        return "rolled back"

    async def _decide_unrecorded(self, gtrid: str, wish: Decision, heuristic: bool, operator: str, reason: str) -> str:
        """End prepared branches of a transaction that the log does not know: presumed aborted, or too old to tell."""
        standing = self._requests.inquire(gtrid, "any", 0).standing
        against = wish is Decision.COMMIT or standing is not Standing.ABORT
        if against and not heuristic:
            said = "abort (there is no commit record)" if standing is Standing.ABORT else standing.value
            raise HandfastFault("RESOLUTION_CONTRADICTS", gtrid=gtrid, decision=said)
        await self._record(gtrid, _ACTION_OF[wish], against, operator, reason, "no record", "under way")
        ended, failures = 0, []
        for resource in self._requests.directory.resources():
            try:
                ended += await self._end_prepared(resource, gtrid, wish)
            except CallFailed as failure:
                # A resource that is away may have nothing to do with it, and must not keep the others' locks.
                failures.append(f"{resource} could not be asked: {failure.message}")
        if not ended:
            problem = "; ".join(["no branch of it was found prepared", *failures])
            raise HandfastFault("RESOLUTION_IMPOSSIBLE", gtrid=gtrid, problem=problem)
        return "; ".join([f"{ended} prepared branch(es) were told to {_in_words(wish)}", *failures])

    async def _end_prepared(self, resource: str, gtrid: str, wish: Decision) -> int:
        """Tell a resource's prepared branches of the transaction to end so; return how many there were.

        Raises:
            CallFailed: the resource could not be asked, or told.
        """
        listing = p.RecoverRequest(resource=resource, coordinator_id=self._requests.gtrids.coordinator_id)
        try:
            response = await self._links.ask_resource(resource, listing, ASK_TIMEOUT_S)
            listed = response.branches if isinstance(response, p.RecoverResponse) else []
            branches = [b for b in listed if b.gtrid == gtrid and split_bqual(b.bqual)[0] == resource]
            for branch in branches:
                kind = p.ParticipantCommitRequest if wish is Decision.COMMIT else p.ParticipantRollbackRequest
                await self._links.ask_resource(resource, kind(gtrid=gtrid, bqual=branch.bqual), ASK_TIMEOUT_S)
        except CallFailed as failure:
            if failure.code == UNIMPLEMENTED:
                return 0
            raise
        return len(branches)

    async def _forget(self, gtrid: str, running: Running | None, operator: str, reason: str) -> str:
        if running is None or running.transaction.state not in FINAL_STATES:
            raise HandfastFault("RESOLUTION_IMPOSSIBLE", gtrid=gtrid, problem="only an ended transaction is forgotten")
        before = running.transaction.state.value
        await self._record(gtrid, "forget", False, operator, reason, before, "forgotten")
        if self._driver.log.lookup(gtrid) is not None:
            await self._write(lambda on_written: self._driver.log.forget(gtrid, on_written))
        for bqual in running.transaction.branches:
            await self._forget_branch(gtrid, bqual)
        self._driver.finished.pop(gtrid, None)
        return "forgotten"

    async def _forget_branch(self, gtrid: str, bqual: str) -> None:
        try:
            request = p.ForgetRequest(gtrid=gtrid, bqual=bqual)
            await self._links.ask_resource(split_bqual(bqual)[0], request, ASK_TIMEOUT_S)
        except CallFailed:
            # The participant's memory is a courtesy that it drops by itself in time; nothing depends on this.
            return

    async def _settle(self, running: Running) -> None:
        """Wait until every branch has ended, or the apply wait is over."""
        settled: asyncio.Future[object] = asyncio.get_running_loop().create_future()

        def on_settled(answer: object = None) -> None:
            if not settled.done():
                settled.set_result(answer)

        # An undecided transaction is answered for at its deadline only, and an operator is not to wait for that.
        timer = self._driver.clock.call_later(self._driver.options.apply_wait_s, on_settled)
        self._driver.wait_for(running, on_settled)
        await settled
        timer.cancel()

    async def _record(
        self, gtrid: str, action: str, heuristic: bool, operator: str, reason: str, before: str, after: str
    ) -> None:
        if self._driver.trace is not None:
            self._driver.trace.resolved(gtrid, action, heuristic, operator)
        now = self._driver.clock.unix_ms()
        record = ResolutionRecord(gtrid, action, heuristic, operator, reason, before, after, now)
        await self._write(lambda on_written: self._driver.log.record_resolution(record, on_written))

    async def _write(self, submit: Callable[[OnWritten], None]) -> None:
        """Wait until the log has something durably.

        Raises:
            HandfastFault: LOG_REFUSED.
        """
        written: asyncio.Future[LogRefused | LogBroken | None] = asyncio.get_running_loop().create_future()
        submit(lambda result: None if written.done() else written.set_result(result))
        problem = await written
        if problem is not None:
            raise HandfastFault("LOG_REFUSED", problem=str(problem))


def _in_words(wish: Decision) -> str:
    return "commit" if wish is Decision.COMMIT else "roll back"
