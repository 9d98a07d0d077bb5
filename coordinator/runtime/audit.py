"""The audit: does every branch agree with the log?

The log says what was decided; each resource says, from its own books, what became of each branch (Postgres: from
``pg_xact_status`` of the xid that the branch gave with its vote). The audit lays the two side by side.

It runs while transactions run, so it must never take one that is just being finished for one that differs. Three rules
see to that. What is called different is a fact that can't change any more: a branch that *ended* against a decision
that *stands*. A branch that is prepared can only make the verdict ``pending``, except when the log had said before it
was asked that the branch acknowledged its end. And an orphan is named only by the sweep's four looks: prepared, not
active, not logged, still prepared.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field

from coordinator.log.records import LoggedTransaction
from coordinator.protocol.states import Decision, Outcome, Vote
from coordinator.protocol.transaction import FINAL_STATES
from coordinator.runtime.links import Links
from coordinator.runtime.lives import OLD_COPY, OLD_COPY_MEND
from coordinator.runtime.requests import Requests
from coordinator.runtime.survey import ASK_TIMEOUT_S, BranchKey, Survey, not_asked, survey
from handfast.frames import CallFailed
from handfast.v1 import admin_pb2 as a
from handfast.v1 import participant_pb2 as p
from handfast.v1 import types_pb2 as t

CHUNK = 500
"""Branches asked for in one Inspect."""

PAGE = 1000
"""Transactions read from the log at a time; reading them holds the event loop up for some milliseconds."""

ATOMIC, PENDING, DIFFERS = "atomic", "pending", "differs"

_PROVEN_HEURISTIC = {Outcome.HEURISTIC_COMMIT, Outcome.HEURISTIC_ROLLBACK, Outcome.HEURISTIC_MIXED}


@dataclass(frozen=True, slots=True)
class Claim:
    """What the coordinator says of one branch that voted yes.

    Args:
        gtrid: its transaction.
        bqual: the branch.
        proof: the token from its vote.
        decision: what was decided.
        acknowledged: whether the branch acknowledged the decision, by a record older than the question.
        ended: whether its transaction had ended by then.
    """

    gtrid: str
    bqual: str
    proof: str
    decision: Decision
    acknowledged: bool
    ended: bool


@dataclass(slots=True)
class _Findings:
    """What the audit has found so far."""

    transactions: int = 0
    branches: int = 0
    unproved: int = 0
    in_doubt: set[BranchKey] = field(default_factory=set)
    against: list[a.AuditDifference] = field(default_factory=list)
    open: list[a.AuditDifference] = field(default_factory=list)
    foreign: list[a.AuditDifference] = field(default_factory=list)
    unended_unproved: bool = False
    unreachable: dict[str, p.Finding] = field(default_factory=dict)

    def verdict(self) -> str:
        if self.against:
            return DIFFERS
        return PENDING if self.in_doubt or self.open or self.unended_unproved or self.unreachable else ATOMIC


class Audit:
    """Compares the log with every participant.

    Args:
        requests: the coordinator's requests, for the log and who we are.
        links: the way to participants.
    """

    def __init__(self, requests: Requests, links: Links) -> None:
        self._requests = requests
        self._driver = requests.driver
        self._links = links

    async def run(self, since_unix_ms: int = 0) -> a.AuditResponse:
        """Audit once.

        Args:
            since_unix_ms: look at transactions decided since then; 0 means all that the log still holds.

        Raises:
            HandfastFault: LOG_CORRUPT; an audit of a damaged log would prove nothing.
        """
        found = _Findings()
        before = await survey(self._requests, self._links)
        unrecorded = list(self._claims_of_memory(since_unix_ms))
        found.transactions = len({claim.gtrid for claim in unrecorded})
        await self._compare(unrecorded, found)
        async for logged in self._pages(since_unix_ms):
            found.transactions += len(logged)
            await self._compare(list(_claims_of_log(logged)), found)
            _name_heuristics(logged, found)
        after = await survey(self._requests, self._links, foreign=True)
        self._look_at_prepared(before, after, {(claim.gtrid, claim.bqual) for claim in unrecorded}, found)
        return a.AuditResponse(
            verdict=found.verdict(),
            transactions=found.transactions,
            branches=found.branches,
            in_doubt=len(found.in_doubt),
            unproved=found.unproved,
            differences=[*found.against, *found.open, *found.foreign],
            unreachable=[found.unreachable[name] for name in sorted(found.unreachable)],
        )

    async def _pages(self, since_unix_ms: int) -> AsyncIterator[list[LoggedTransaction]]:
        """Read the log page by page, for it may be long, and transactions run meanwhile."""
        last = ""
        while page := self._driver.log.recent(PAGE, before=last):
            last = page[-1].decision.gtrid
            wanted = [one for one in page if one.decision.decided_unix_ms >= since_unix_ms]
            if not wanted:
                return
            yield wanted
            await self._driver.clock.sleep(0)

    def _claims_of_memory(self, since_unix_ms: int) -> Iterable[Claim]:
        """Aborts that memory still holds. They have no record, and may be contradicted all the same."""
        # What is kept as rows is no abort.
        for running in [*self._driver.transactions.single.values(), *self._driver.finished.aborted()]:
            machine = running.transaction
            if machine.decision is not Decision.ABORT or running.decided_unix_ms < since_unix_ms:
                continue
            if self._driver.log.lookup(machine.gtrid) is not None:
                continue
            ended = machine.state in FINAL_STATES
            for branch in machine.branches.values():
                if branch.vote is Vote.YES:
                    # An abort may end without having been acknowledged; the sweep does the rest.
                    yield Claim(machine.gtrid, branch.bqual, branch.proof, Decision.ABORT, False, ended)

    # -- what became of each branch --------------------------------------------------------------------------------

    async def _compare(self, claims: Sequence[Claim], found: _Findings) -> None:
        by_resource: dict[str, list[Claim]] = {}
        for claim in claims:
            by_resource.setdefault(claim.bqual.partition(".")[0], []).append(claim)
        await asyncio.gather(*(self._compare_resource(*one, found) for one in by_resource.items()))

    async def _compare_resource(self, resource: str, claims: Sequence[Claim], found: _Findings) -> None:
        for start in range(0, len(claims), CHUNK):
            chunk = claims[start : start + CHUNK]
            proofs = [p.BranchProof(gtrid=one.gtrid, bqual=one.bqual, proof=one.proof) for one in chunk]
            request = p.InspectRequest(resource=resource, branches=proofs)
            try:
                response = await self._links.ask_resource(resource, request, ASK_TIMEOUT_S)
            except CallFailed as failure:
                found.unreachable[resource] = not_asked(resource, failure, "Inspect")
                return
            if not isinstance(response, p.InspectResponse):
                raise TypeError(f"{resource} answered Inspect with {type(response).__name__}")
            ends = {(end.gtrid, end.bqual): end for end in response.ends}
            for claim in chunk:
                found.branches += 1
                _judge(claim, ends.get((claim.gtrid, claim.bqual), p.BranchEnd()), found)

    # -- what is prepared ------------------------------------------------------------------------------------------

    def _look_at_prepared(self, before: Survey, after: Survey, claimed: set[BranchKey], found: _Findings) -> None:
        for finding in (*before.unreachable, *after.unreachable):
            found.unreachable.setdefault(finding.subject, finding)
        found.foreign = [_foreign(branch) for _, branch in sorted(after.foreign.items())]
        for key in sorted(before.prepared.keys() & after.prepared.keys()):
            found.in_doubt.add(key)
            if key not in claimed:
                self._name_stray(*key, found)

    def _name_stray(self, gtrid: str, bqual: str, found: _Findings) -> None:
        """A branch that stays prepared and that no decision names: an orphan, unless its transaction is active."""
        if gtrid in self._driver.transactions:
            return
        logged = self._driver.log.lookup(gtrid)
        if logged is not None and bqual in {branch.bqual for branch in logged.decision.branches}:
            return  # decided while we looked, or before the time we look at
        if logged is None and self._requests.is_from_unseen_life(gtrid):
            found.against.append(
                a.AuditDifference(
                    gtrid=gtrid,
                    bqual=bqual,
                    log=f"no record: it {OLD_COPY}",
                    resource="prepared",
                    evidence="it was listed at both looks",
                    mend=OLD_COPY_MEND,
                )
            )
            return
        says = (
            "no record, and not active: presumed aborted" if logged is None else "its record does not name the branch"
        )
        found.open.append(
            a.AuditDifference(
                gtrid=gtrid,
                bqual=bqual,
                log=says,
                resource="prepared (an orphan)",
                evidence="it was listed at both looks",
                mend=f"The next sweep ends it; by hand: handfast resolve {gtrid} --rollback",
            )
        )


def _claims_of_log(logged: Sequence[LoggedTransaction]) -> Iterable[Claim]:
    for one in logged:
        record, end = one.decision, one.end
        # A heuristic end is told of as a whole, by its record.
        acknowledged = end is not None and end.outcome in (Outcome.COMMITTED, Outcome.ABORTED)
        for branch in record.branches:
            yield Claim(record.gtrid, branch.bqual, branch.proof, record.decision, acknowledged, end is not None)


def _judge(claim: Claim, end: p.BranchEnd, found: _Findings) -> None:
    """Lay what the coordinator says beside what the resource says."""
    commit = claim.decision is Decision.COMMIT
    match end.state:
        case t.BRANCH_STATE_COMMITTED | t.BRANCH_STATE_ABORTED:
            if commit != (end.state == t.BRANCH_STATE_COMMITTED):
                says = "committed" if end.state == t.BRANCH_STATE_COMMITTED else "rolled back"
                mend = "It ended against the decision: mend the data by hand; it can't be undone by the coordinator"
                found.against.append(_difference(claim, says, end.evidence, mend))
        case t.BRANCH_STATE_IN_DOUBT | t.BRANCH_STATE_PREPARING | t.BRANCH_STATE_ACTIVE:
            found.in_doubt.add((claim.gtrid, claim.bqual))
            if claim.acknowledged:
                mend = f"Was the database restored from a backup? The next sweep ends it; look at {claim.gtrid}"
                found.against.append(_difference(claim, "still prepared", end.evidence, mend))
        case _ if end.lost and commit and claim.acknowledged:
            # It voted yes and acknowledged, so its id was on that server's disk: the server that has not come to that
            # id has lost the commit.
            mend = (
                "The database was restored to a point before the commit, or another one is there in its place: compare "
                "it with the others by the data, and trust no audit of it from then on, for it uses its ids again"
            )
            found.against.append(_difference(claim, "lost: it does not hold the commit", end.evidence, mend))
        case _:
            found.unproved += 1
            found.unended_unproved |= not claim.ended


def _foreign(branch: p.PreparedBranch) -> a.AuditDifference:
    """A branch that is not ours to judge; it is named, for whoever lost a log looks for it, and decides nothing."""
    return a.AuditDifference(
        gtrid=branch.gtrid,
        bqual=branch.bqual,
        log=f"not ours: coordinator {branch.gtrid.partition('-')[0]} made it",
        resource="prepared",
        evidence=f"its participant lists it ({branch.gid})",
        mend="Nothing is done to it here; `handfast indoubt` tells what a person can do",
    )


def _difference(claim: Claim, says: str, evidence: str, mend: str) -> a.AuditDifference:
    log = f"{claim.decision.value}, acknowledged" if claim.acknowledged else claim.decision.value
    return a.AuditDifference(gtrid=claim.gtrid, bqual=claim.bqual, log=log, resource=says, evidence=evidence, mend=mend)


def _name_heuristics(logged: Sequence[LoggedTransaction], found: _Findings) -> None:
    """Outcomes that are recorded as heuristic, unless a branch has told of them already."""
    told = {difference.gtrid for difference in found.against}
    for one in logged:
        gtrid, end = one.decision.gtrid, one.end
        if end is None or end.outcome in (Outcome.COMMITTED, Outcome.ABORTED) or gtrid in told:
            continue
        difference = a.AuditDifference(
            gtrid=gtrid,
            log=f"{one.decision.decision.value} was decided; the outcome is recorded as {end.outcome.value}",
            resource="as the record's evidence says",
            evidence=end.evidence,
            mend=f"Mend the data by hand, then: handfast resolve {gtrid} --forget",
        )
        (found.against if end.outcome in _PROVEN_HEURISTIC else found.open).append(difference)
