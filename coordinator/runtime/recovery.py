"""Recovery: what a restart owes, and the sweep for orphans.

At start the log says which transactions are decided commit and not ended; each is taken up where it was, and its
Commit messages go out again (``backlog``). That is all that *decided* transactions need. The rest is presumed aborted,
and for the rest there are orphans: branches that are prepared in some database although nobody will ever tell them
anything, because the coordinator died before it decided, because a Prepare landed after its transaction was given up,
or because a Rollback was given up. Each participant asks about its own (Inquire); the sweep asks the participants, for
the case that their asking is what is broken.

The sweep must never roll back a transaction that is just being prepared or committed. It lists the prepared branches,
*then* looks at what is active, *then* at the log, and then lists again, and acts on what all four agree on. A branch of
an active transaction is left alone at the second look. One whose transaction ended between the looks is found in the
log, or was aborted; and a name that is neither active nor logged can't come back to life, because answering for it uses
it up. Branches whose gtrid is not ours, or comes from a life that the log has never seen (this is a restored copy of
the log: see ``lives``), are never touched.

One transaction, resource or participant that can't be recovered holds up no other, and never the start.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from coordinator.log.records import ParticipantRecord
from coordinator.protocol.effects import SendCommit, SendRollback
from coordinator.protocol.outcomes import measured
from coordinator.protocol.states import Decision, Outcome
from coordinator.runtime import messages
from coordinator.runtime.backlog import Backlog
from coordinator.runtime.entropy import Entropy
from coordinator.runtime.links import Links
from coordinator.runtime.lives import OLD_COPY, OLD_COPY_MEND
from coordinator.runtime.requests import Requests, Standing
from handfast.frames import UNIMPLEMENTED, CallFailed
from handfast.v1 import participant_pb2 as p
from handfast.xid import Gtrid, MalformedName, split_bqual

logger = logging.getLogger(__name__)

ASK_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Orphan:
    """A prepared branch that all four looks agree on.

    Args:
        gtrid: its transaction.
        bqual: the branch.
        standing: COMMIT or ABORT.
        proof: the token from its vote; empty when there is no record of it.
    """

    gtrid: str
    bqual: str
    standing: Standing
    proof: str


class Recovery:
    """Takes up decided transactions at start, and sweeps for orphans.

    Args:
        requests: the coordinator's requests, for what stands.
        links: the way to participants.
        entropy: spreads the sweeps of several coordinators over one database.
        interval_s: the time between two sweeps, in seconds.
    """

    def __init__(self, requests: Requests, links: Links, entropy: Entropy, interval_s: float) -> None:
        self._requests = requests
        self._driver = requests.driver
        self._links = links
        self._entropy = entropy
        self._interval_s = interval_s
        self._backlog = Backlog(self._driver)
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._warned: set[tuple[str, str]] = set()
        self.counters = {"swept_orphans": 0, "sweeps": 0}

    def start(self) -> None:
        """Take up what the log says is decided and not ended, then begin to sweep."""
        self._backlog.take_up(self._driver.log.unended())
        self._requests.on_registered.append(self._on_registered)
        self._task = asyncio.create_task(self._sweep_for_ever())

    async def close(self) -> None:
        """Stop sweeping."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._backlog.close()

    def on_link_up(self, address: str) -> None:
        """A participant can be reached again: send what waits for it."""
        for participant in self._requests.directory:
            if participant.address == address:
                self._driver.retry_now(resource=participant.resource)

    def _on_registered(self, participant: ParticipantRecord) -> None:
        self._links.connect()
        self._links.connect_now(participant)
        self._driver.retry_now(resource=participant.resource)
        self._wake.set()

    async def _sweep_for_ever(self) -> None:
        # Before that, most of what a participant would list is on its way to be committed.
        await self._backlog.told()
        while True:
            await self.sweep()
            wait_s = self._interval_s * (0.75 + 0.5 * self._entropy.jitter())
            timer = self._driver.clock.call_later(wait_s, self._wake.set)
            await self._wake.wait()
            timer.cancel()
            self._wake.clear()

    async def sweep(self) -> int:
        """Sweep every resource once.

        Returns:
            How many orphans were ended.
        """
        swept = await asyncio.gather(*(self._sweep_guarded(name) for name in self._requests.directory.resources()))
        self.counters["sweeps"] += 1
        return sum(swept)

    async def _sweep_guarded(self, resource: str) -> int:
        try:
            return await self._sweep_resource(resource)
        except CallFailed as failure:
            if failure.code != UNIMPLEMENTED:
                logger.warning("resource %s could not be swept for orphans: %s", resource, failure.message)
        except Exception:
            logger.exception("sweeping resource %s failed", resource)
        return 0

    async def _sweep_resource(self, resource: str) -> int:
        first = await self._prepared(resource)
        candidates = {key for key in first if key[0] not in self._driver.transactions}
        if not candidates:
            return 0
        judged = [self._judge_guarded(resource, gtrid, bqual) for gtrid, bqual in sorted(candidates)]
        orphans = [orphan for orphan in judged if orphan is not None]
        if not orphans:
            return 0
        still_there = await self._prepared(resource)
        ended = [await self._end(orphan) for orphan in orphans if (orphan.gtrid, orphan.bqual) in still_there]
        return sum(ended)

    async def _prepared(self, resource: str) -> set[tuple[str, str]]:
        request = p.RecoverRequest(resource=resource, coordinator_id=self._requests.gtrids.coordinator_id)
        response = await self._links.ask_resource(resource, request, ASK_TIMEOUT_S)
        if not isinstance(response, p.RecoverResponse):
            raise TypeError(f"{resource} answered Recover with {type(response).__name__}")
        return {(branch.gtrid, branch.bqual) for branch in response.branches}

    def _judge_guarded(self, resource: str, gtrid: str, bqual: str) -> Orphan | None:
        try:
            return self._judge(resource, gtrid, bqual)
        except Exception:
            # One record that can't be read must not keep the resource's other orphans.
            logger.exception("branch %s of %s could not be judged", bqual, gtrid)
            return None

    def _judge(self, resource: str, gtrid: str, bqual: str) -> Orphan | None:
        """Decide what an inactive transaction's prepared branch is owed; None when it must be left alone."""
        try:
            Gtrid.parse(gtrid)
            of_resource = split_bqual(bqual)[0] == resource
        except MalformedName as problem:
            logger.warning("resource %s listed a branch that is none of ours: %s", resource, problem)
            return None
        if not self._requests.gtrids.is_ours(gtrid) or not of_resource:
            logger.warning("branch %s of %s is prepared and not this coordinator's to end", bqual, gtrid)
            return None
        logged = self._driver.log.lookup(gtrid)
        if logged is not None and logged.decision.decision is Decision.COMMIT:
            proofs = {branch.bqual: branch.proof for branch in logged.decision.branches}
            if bqual in proofs:
                return Orphan(gtrid, bqual, Standing.COMMIT, proofs[bqual])
            return Orphan(gtrid, bqual, Standing.ABORT, "")
        if logged is None and self._requests.is_from_unseen_life(gtrid):
            self._warn_of_old_copy(gtrid, bqual)
            return None
        standing = self._requests.inquire(gtrid, bqual, 0).standing
        if standing is not Standing.ABORT:
            logger.warning("branch %s of %s is prepared and its outcome is %s", bqual, gtrid, standing.value)
            return None
        return Orphan(gtrid, bqual, Standing.ABORT, "")

    def _warn_of_old_copy(self, gtrid: str, bqual: str) -> None:
        """Say it once of each branch, for each sweep finds it again."""
        if (gtrid, bqual) not in self._warned:
            self._warned.add((gtrid, bqual))
            logger.error("prepared branch %s of %s %s. %s", bqual, gtrid, OLD_COPY, OLD_COPY_MEND)

    async def _end(self, orphan: Orphan) -> bool:
        if orphan.gtrid in self._driver.transactions:
            return False
        decision = Decision.COMMIT if orphan.standing is Standing.COMMIT else Decision.ABORT
        message: SendCommit | SendRollback
        message = (SendCommit if decision is Decision.COMMIT else SendRollback)(orphan.bqual, orphan.proof)
        request = messages.decision_request(orphan.gtrid, message)
        if self._driver.trace is not None:
            self._driver.trace.swept(orphan.gtrid, orphan.bqual, decision)
        try:
            reply = await self._links.ask_resource(split_bqual(orphan.bqual)[0], request, ASK_TIMEOUT_S)
        except CallFailed as failure:
            logger.warning("orphan %s of %s could not be ended: %s", orphan.bqual, orphan.gtrid, failure.message)
            return False
        if not isinstance(reply, p.ParticipantCommitResponse | p.ParticipantRollbackResponse):
            logger.error("orphan %s of %s: answered with %s", orphan.bqual, orphan.gtrid, type(reply).__name__)
            return False
        said = messages.branch_ended(orphan.bqual, reply)
        outcome = measured(decision, said.outcome)
        level = logging.INFO if outcome in (Outcome.COMMITTED, Outcome.ABORTED) else logging.ERROR
        logger.log(level, "orphan %s of %s has ended: %s %s", orphan.bqual, orphan.gtrid, outcome.value, said.evidence)
        self.counters["swept_orphans"] += 1
        return True
