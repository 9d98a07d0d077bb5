"""What must never be otherwise: the rules, applied to what an outsider can see of a run.

The checkers look at the wire, at the log's disk and at the databases, and hear what clients are told. They share
nothing with what injects the faults, and take no part's word for anything that they can see for themselves. The first
broken rule ends a run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from coordinator.log.records import DecisionRecord, Identity, LoggedTransaction
from coordinator.protocol.states import Decision, Outcome
from handfast.v1 import coordinator_pb2 as c
from handfast.v1 import participant_pb2 as p
from handfast.v1 import types_pb2 as t
from handfast.xid import Xid
from tests.simulation import injectors
from tests.simulation.network import KINDS

if TYPE_CHECKING:
    from tests.simulation.world import World

COORDINATOR = "coordinator"
SURE = {"COMMITTED", "ABORTED"}


@dataclass(frozen=True, slots=True)
class Violation:
    """A broken rule.

    Args:
        rule: which, in a few words.
        gtrid: the transaction; empty when none is concerned.
        detail: what was seen.
        at_s: when.
    """

    rule: str
    gtrid: str
    detail: str
    at_s: float

    def __str__(self) -> str:
        return f"{self.rule}: {self.detail} (at {self.at_s:.6f} s)"


@dataclass(slots=True)
class BranchTruth:
    """A branch, as its database knows it.

    Args:
        xid: its name.
        changed: whether it changed anything.
        prepared: whether it was ever prepared.
        ended: ``COMMITTED``, ``ABORTED``, or empty while it is open or prepared.
        commits: how often it was committed.
    """

    xid: Xid
    changed: bool = False
    prepared: bool = False
    ended: str = ""
    commits: int = 0


@dataclass(slots=True)
class Checkers:
    """Sees what happens, and judges it.

    Args:
        world: what is looked at.

    Attributes:
        violations: what was broken.
        branches: every branch, by gid.
        decided: every commit record that was ever durable, by gtrid.
        told: what was ever told of a transaction for certain, by gtrid, and by whom to whom.
        resolved: transactions that an operator's command was about.
        by_hand: transactions in which somebody meddled; they are judged by what they may claim, not by atomicity.
    """

    world: World
    violations: list[Violation] = field(default_factory=list)
    branches: dict[str, BranchTruth] = field(default_factory=dict)
    decided: dict[str, DecisionRecord] = field(default_factory=dict)
    dropped: dict[str, None] = field(default_factory=dict)
    told: dict[str, dict[str, str]] = field(default_factory=dict)
    by_hand: dict[str, None] = field(default_factory=dict)
    resolved: dict[str, None] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)
    _votes: dict[tuple[str, str], str] = field(default_factory=dict)
    _rolled_back: dict[str, None] = field(default_factory=dict)
    _prefixes: dict[str, None] = field(default_factory=dict)
    _listed: Counter[tuple[str, str]] = field(default_factory=Counter)
    _epoch: int = 0

    def broken(self, rule: str, gtrid: str, detail: str) -> None:
        """Report a broken rule, and end the run."""
        if not self.world.over:
            self.violations.append(Violation(rule, gtrid, detail, self.world.now_s))
            self.world.trace("CHECK", "BROKEN: %s: %s", rule, detail)
            self.world.scheduler.stopped = True

    def of(self, gtrid: str) -> list[BranchTruth]:
        """A transaction's branches."""
        return [branch for branch in self.branches.values() if branch.xid.gtrid == gtrid]

    # -- the wire --------------------------------------------------------------------------------------------------

    def request_left(self, sender: str, address: str, request: Any, number: int, *, driven: bool) -> None:
        """A request is on its way."""
        gtrid, bqual = getattr(request, "gtrid", ""), getattr(request, "bqual", "")
        self.world.trace(sender, "→ %s %s %d %s %s", address[:-2], KINDS[type(request)], number, gtrid, bqual)
        if sender != COORDINATOR or gtrid in self.by_hand:
            return
        record = self.decided.get(gtrid)
        names = record is not None and any(branch.bqual == bqual for branch in record.branches)
        if isinstance(request, p.ParticipantCommitRequest) and not names:
            self.broken("forced before sent", gtrid, f"Commit to {bqual} leaves, and no durable record names it")
        if isinstance(request, p.ParticipantRollbackRequest):
            if names:
                self.broken("one decision", gtrid, f"Rollback to {bqual} leaves, and its commit is decided")
            coordinator = self.world.coordinator
            active = gtrid in coordinator.driver.transactions
            if active and coordinator.decision_of(gtrid) is not Decision.ABORT:
                self.broken("recovery never races the living", gtrid, f"Rollback to {bqual}, which is still active")
        decides = isinstance(request, p.ParticipantCommitRequest | p.ParticipantRollbackRequest)
        if decides and not driven and self._listed[gtrid, bqual] < 2:
            detail = f"the orphan {bqual} is ended, and was not listed twice"
            self.broken("recovery never races the living", gtrid, detail)

    def is_driven(self, sender: str, request: Any) -> bool:
        """Whether the coordinator's driver, or an operator, may be the one who makes a request.

        Asked as it is made, for when it leaves its transaction may have ended, and others have followed it.
        """
        gtrid = getattr(request, "gtrid", "")
        return sender == COORDINATOR and (self.world.coordinator.drives(gtrid) or gtrid in self.resolved)

    def reply_left(self, server: str, asker: str, request: Any, answer: Any) -> None:
        """An answer is on its way."""
        gtrid, bqual = getattr(request, "gtrid", ""), getattr(request, "bqual", "")
        said = _said(answer)
        self.world.trace(server, "← %s %s %s %s: %s", asker, KINDS[type(request)], gtrid, bqual, said)
        match answer:
            case c.CommitResponse() | c.ExecuteResponse() | c.RollbackResponse():
                self._tell(answer.gtrid, t.Outcome.Name(answer.outcome)[8:], f"{server} to {asker}")
            case c.InquireResponse() if request.bqual:
                self._tell_branch(request, answer)
            case c.InquireResponse():
                self._tell(gtrid, t.Outcome.Name(answer.outcome)[8:], f"{server} to {asker}, asked")
            case p.RecoverResponse():
                self._listed.update((branch.gtrid, branch.bqual) for branch in answer.branches)
            case c.BeginResponse():
                self._on_block(answer.block.prefix)
            case p.PrepareResponse():
                self._on_vote(request, answer)
            case p.ParticipantCommitResponse():
                self._on_commit_acknowledged(request, answer)
            case p.ParticipantRollbackResponse():
                self._on_rollback_acknowledged(server, request, answer)
            case p.CommitOnePhaseResponse():
                self._on_one_phase(request, answer)

    def _on_block(self, prefix: str) -> None:
        if prefix in self._prefixes:
            self.broken("identity and epoch", "", f"the names {prefix}… are handed out a second time")
        self._prefixes[prefix] = None

    def _on_vote(self, request: p.PrepareRequest, answer: p.PrepareResponse) -> None:
        vote, truth = t.Vote.Name(answer.vote)[5:], self.branches.get(_gid(request))
        key = (request.gtrid, request.bqual)
        first = self._votes.setdefault(key, vote)
        if first != vote:
            self.broken("one answer", request.gtrid, f"{request.bqual} votes {vote} and voted {first}")
        if vote == "YES" and (truth is None or not truth.prepared):
            self.broken("yes is a promise", request.gtrid, f"{request.bqual} votes YES and is not prepared")
        if vote == "READ_ONLY" and truth is not None and truth.changed:
            self.broken("yes is a promise", request.gtrid, f"{request.bqual} votes READ_ONLY and changed something")

    def _on_commit_acknowledged(self, request: p.ParticipantCommitRequest, answer: p.ParticipantCommitResponse) -> None:
        truth = self.branches.get(_gid(request))
        committed = truth is not None and truth.ended == "COMMITTED"
        if (answer.outcome == t.OUTCOME_COMMITTED) != committed and answer.outcome != t.OUTCOME_HEURISTIC_HAZARD:
            ended = truth.ended if truth is not None else "not known"
            outcome = t.Outcome.Name(answer.outcome)
            self.broken("proof, not guess", request.gtrid, f"{request.bqual} says {outcome} to Commit and is {ended}")

    def _on_rollback_acknowledged(
        self, server: str, request: p.ParticipantRollbackRequest, answer: p.ParticipantRollbackResponse
    ) -> None:
        gid = _gid(request)
        truth = self.branches.get(gid)
        if answer.outcome != t.OUTCOME_ABORTED:
            return
        if self.world.process_of(server).bqual == request.bqual:
            self._rolled_back[gid] = None
        # A branch that changed nothing may be left prepared when the database fails: see ``PostgresBranch._take_back``.
        prepared = truth is not None and truth.prepared and truth.changed and not truth.ended
        if truth is not None and (truth.ended == "COMMITTED" or prepared):
            ended = truth.ended or "prepared"
            self.broken("proof, not guess", request.gtrid, f"{request.bqual} says ABORTED and is {ended}")

    def _on_one_phase(self, request: p.CommitOnePhaseRequest, answer: p.CommitOnePhaseResponse) -> None:
        truth = self.branches.get(_gid(request))
        changed = truth is not None and truth.changed
        ended = truth.ended if truth is not None else ""
        if answer.outcome == t.OUTCOME_COMMITTED and changed and ended != "COMMITTED":
            self.broken(
                "proof, not guess", request.gtrid, f"{request.bqual} says it committed and is {ended or 'open'}"
            )
        if answer.outcome == t.OUTCOME_ABORTED and ended == "COMMITTED":
            self.broken("proof, not guess", request.gtrid, f"{request.bqual} says it rolled back and committed")

    def _tell_branch(self, request: c.InquireRequest, answer: c.InquireResponse) -> None:
        standing = c.Standing.Name(answer.standing)[9:]
        record = self.decided.get(request.gtrid)
        if request.gtrid in self.by_hand:
            return
        if standing == "COMMIT" and record is None:
            self.broken("forced before sent", request.gtrid, f"{request.bqual} is told COMMIT without a record")
        if standing == "ABORT":
            if record is not None and any(branch.bqual == request.bqual for branch in record.branches):
                self.broken("never forget a commit", request.gtrid, f"{request.bqual} is told ABORT; commit is decided")
            self._tell(request.gtrid, "ABORTED", f"the branch {request.bqual}")

    # -- who is told what --------------------------------------------------------------------------------------------

    def _tell(self, gtrid: str, outcome: str, whom: str) -> None:
        if not gtrid or outcome in ("UNSPECIFIED", "None", ""):
            return
        told = self.told.setdefault(gtrid, {})
        told.setdefault(outcome, whom)
        if gtrid in self.by_hand:
            return
        # Where nothing was changed, committed and aborted are one and the same: a read-only transaction leaves no
        # record, so a coordinator that died after it said "committed" presumes the abort in its next life.
        if len(SURE.intersection(told)) == 2 and any(branch.changed for branch in self.of(gtrid)):
            both = "; ".join(f"{one} ({whom})" for one, whom in sorted(told.items()))
            self.broken("one outcome for all", gtrid, f"told {both}")
        if outcome not in SURE and outcome != "HEURISTIC_HAZARD":
            self.broken("one outcome for all", gtrid, f"{whom} is told {outcome}, and nobody meddled")
        if outcome == "HEURISTIC_HAZARD" and gtrid in self.decided:
            self.broken("proof, not guess", gtrid, f"{whom} is told {outcome} of a prepared transaction")
        for branch in self.of(gtrid):
            if outcome == "ABORTED" and branch.ended == "COMMITTED":
                self.broken("told ABORTED, committed", gtrid, f"{whom} is told ABORTED; {branch.xid.bqual} committed")
            if outcome == "COMMITTED" and branch.changed and branch.ended == "ABORTED":
                self.broken("told COMMITTED, aborted", gtrid, f"{whom} is told COMMITTED; {branch.xid.bqual} is gone")

    def begun(self, number: int, gtrid: str) -> None:
        """A client's transaction has a name."""
        if gtrid not in self.numbers:
            self.numbers[gtrid] = number
            self.world.trace("client", "transaction %d is %s", number, gtrid)
            injectors.on_begun(self.world, number, gtrid)

    def client_told(self, gtrid: str, outcome: str) -> None:
        """A client's call ended."""
        self.world.trace("client", "is told %s of %s", outcome, gtrid)
        if outcome != "UNKNOWN":
            self._tell(gtrid, outcome, "the client, in the end")

    def audited(self, gtrid: str, standing: str, outcome: str) -> None:
        """Asked after all was over."""
        self.world.trace("auditor", "%s: %s %s", gtrid, standing, outcome)
        if standing == "ABORT" and outcome == "ABORTED":
            self._tell(gtrid, "ABORTED", "the auditor")
        if standing == "COMMIT" and gtrid not in self.by_hand:
            self._tell(gtrid, "COMMITTED", "the auditor")
        if gtrid in self.decided and gtrid not in self.dropped and standing != "COMMIT":
            self.broken("never forget a commit", gtrid, f"a decided commit is said to be {standing}")

    # -- the log -----------------------------------------------------------------------------------------------------

    def log_opened(self, identity: Identity) -> None:
        """A coordinator begins a life."""
        if identity.epoch <= self._epoch:
            self.broken("identity and epoch", "", f"epoch {identity.epoch} comes after epoch {self._epoch}")
        self._epoch = identity.epoch
        self._listed.clear()

    def decision_offered(self, record: DecisionRecord) -> None:
        """The coordinator gives a decision to the log."""
        if record.decision is not Decision.COMMIT:
            if record.gtrid not in self.by_hand and len(self.of(record.gtrid)) > 1:
                self.broken("presumed abort", record.gtrid, "an abort is written to the log")
            return
        late_s = self.world.coordinator.clock.now_s() - self.world.coordinator.deadline_s(record.gtrid)
        if late_s > 0:
            self.broken("expiry binds the coordinator", record.gtrid, f"it decides commit {late_s:.3f} s past its time")
        named = {branch.bqual for branch in record.branches}
        for bqual in sorted(named):
            truth = self.branches.get(Xid(record.gtrid, bqual).gid())
            if record.gtrid not in self.by_hand and (truth is None or not truth.prepared or truth.ended):
                self.broken("commit needs every vote", record.gtrid, f"the record names {bqual}, which is not prepared")
        for branch in self.of(record.gtrid):
            if branch.changed and branch.xid.bqual not in named and record.gtrid not in self.by_hand:
                self.broken("commit needs every vote", record.gtrid, f"the record leaves out {branch.xid.bqual}")

    def log_forced(self, before: Mapping[str, LoggedTransaction], after: Mapping[str, LoggedTransaction]) -> None:
        """A force has reached the disk."""
        for gtrid, now in after.items():
            then = before.get(gtrid)
            if then is None:
                self._on_decided(now.decision)
            elif then.decision.decision is not now.decision.decision:
                self.broken("one decision", gtrid, "the log's decision has changed")
            if now.end is not None and (then is None or then.end is None):
                self._on_end_written(now)
        for gtrid, then in before.items():
            if gtrid not in after:
                self._on_dropped(gtrid, then)

    def _on_decided(self, record: DecisionRecord) -> None:
        self.world.trace("log", "%s of %s is durable", record.decision.value, record.gtrid)
        if record.decision is Decision.COMMIT:
            self.decided[record.gtrid] = record

    def _on_end_written(self, now: LoggedTransaction) -> None:
        record = now.decision
        self.world.trace("log", "the end of %s is durable: %s", record.gtrid, now.end.outcome.value if now.end else "")
        for branch in record.branches:
            truth = self.branches.get(Xid(record.gtrid, branch.bqual).gid())
            in_doubt = truth is not None and truth.prepared and not truth.ended
            if in_doubt and now.end is not None and now.end.outcome is Outcome.COMMITTED:
                self.broken("never forget a commit", record.gtrid, f"its end is written and {branch.bqual} is prepared")

    def _on_dropped(self, gtrid: str, then: LoggedTransaction) -> None:
        self.world.trace("log", "%s is dropped", gtrid)
        self.dropped[gtrid] = None
        prepared = [branch.xid.bqual for branch in self.of(gtrid) if branch.prepared and not branch.ended]
        if then.decision.decision is Decision.COMMIT and (then.end is None or prepared):
            waits = ", ".join(prepared) or "its end"
            self.broken("never forget a commit", gtrid, f"its record is dropped, and {waits} still needs it")

    def forgotten(self, gtrid: str) -> None:
        """An operator had a transaction forgotten."""
        self.dropped[gtrid] = None

    # -- the databases -----------------------------------------------------------------------------------------------

    def branch_changed(self, resource: str, gid: str) -> None:
        """A branch has changed its first row."""
        branch = self._branch(gid)
        if branch is not None:
            if branch.commits:
                self.broken("once", branch.xid.gtrid, f"{branch.xid.bqual} committed and does its work again")
            branch.changed, branch.ended = True, ""

    def branch_prepared(self, resource: str, gid: str) -> None:
        """A branch is prepared."""
        branch = self._branch(gid)
        if branch is not None:
            branch.prepared = True
            if gid in self._rolled_back:
                self.broken("no resurrection", branch.xid.gtrid, f"{branch.xid.bqual} is prepared after its Rollback")

    def branch_ended(self, resource: str, gid: str, *, committed: bool) -> None:
        """A branch is committed or rolled back."""
        branch = self._branch(gid)
        if branch is None:
            return
        branch.ended = "COMMITTED" if committed else "ABORTED"
        branch.commits += committed
        gtrid, bqual = branch.xid.gtrid, branch.xid.bqual
        if gtrid in self.by_hand:
            return
        record = self.decided.get(gtrid)
        names = record is not None and any(one.bqual == bqual for one in record.branches)
        if not committed and names:
            self.broken("atomic", gtrid, f"{bqual} is rolled back; its commit is decided")
        if committed and branch.prepared and not names:
            self.broken("atomic", gtrid, f"{bqual} commits; no record says so")
        if committed and "ABORTED" in self.told.get(gtrid, {}):
            whom = self.told[gtrid]["ABORTED"]
            self.broken("told ABORTED, committed", gtrid, f"{bqual} commits; {whom} was told ABORTED")
        twins = [one for one in self.of(gtrid) if one.xid.resource == branch.xid.resource and one.commits]
        if committed and not branch.prepared and len(twins) > 1:
            self.broken("once", gtrid, f"{bqual} does on {branch.xid.resource} what was done already")

    def _branch(self, gid: str) -> BranchTruth | None:
        if gid not in self.branches:
            xid = Xid.from_gid(gid)
            if xid is None:
                return None
            self.branches[gid] = BranchTruth(xid)
        return self.branches[gid]

    # -- the end -----------------------------------------------------------------------------------------------------

    def everything_begun(self) -> list[tuple[str, int]]:
        """Every transaction that anybody heard of, and how many of its branches were certainly two-phase."""
        names = dict.fromkeys((*self.numbers, *self.told, *(branch.xid.gtrid for branch in self.branches.values())))
        return [(gtrid, sum(branch.prepared for branch in self.of(gtrid))) for gtrid in names]

    def at_rest(self) -> None:
        """Judge what is left when nothing moves any more."""
        for gtrid, _ in self.everything_begun():
            # What a person is to decide, as documented, can still end as the others did.
            judged = [one for one in self.of(gtrid) if one.changed and not self.world.is_left_to_a_person(one.xid)]
            ends = {branch.ended for branch in judged}
            if gtrid in self.by_hand:
                continue
            if len(ends) > 1:
                seen = ", ".join(f"{b.xid.bqual} {b.ended or 'open'}" for b in self.of(gtrid) if b.changed)
                self.broken("atomic", gtrid, seen)
            if "COMMITTED" in self.told.get(gtrid, {}) and ends - {"COMMITTED"}:
                self.broken("told COMMITTED, aborted", gtrid, f"its branches are {ends}")
            if gtrid in self.decided and ends != {"COMMITTED"}:
                self.broken("never forget a commit", gtrid, f"commit is decided, and its branches are {ends}")


def _gid(request: Any) -> str:
    return Xid(request.gtrid, request.bqual).gid()


def _said(answer: Any) -> str:
    """An answer in a word or two."""
    match answer:
        case p.PrepareResponse():
            return f"{t.Vote.Name(answer.vote)[5:]} {answer.reason_code}".rstrip()
        case c.InquireResponse():
            return c.Standing.Name(answer.standing)[9:]
        case p.RecoverResponse():
            return ", ".join(f"{branch.gtrid} {branch.bqual}" for branch in answer.branches) or "none"
    outcome = getattr(answer, "outcome", None)
    if outcome is not None:
        return t.Outcome.Name(outcome)[8:]
    return str(getattr(answer, "code", "done"))
