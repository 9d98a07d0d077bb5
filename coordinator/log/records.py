"""What the decision log holds.

Presumed abort (Mohan & Lindsay, 1983) decides what must be written: a commit is forced before anybody hears of it, an
end is written lazily once every branch has acknowledged, and an abort is not written at all; the absence of a record
says abort. The one exception is an abort that an operator or another coordinator must be kept from overturning:
``decide(..., ABORT)`` writes it, for the log is a write-once register.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from coordinator.protocol.states import Decision, Outcome
from coordinator.protocol.values import value


@value
class LoggedBranch:
    """A branch that voted YES and so waits for the decision.

    Args:
        bqual: ``resource.instance``.
        proof: the token from its vote, with which the participant can prove later what became of it.
    """

    bqual: str
    proof: str


@value
class DecisionRecord:
    """The one decision about a transaction; a ``CommitRecord`` when the decision is COMMIT.

    Args:
        gtrid: the transaction.
        decision: what was decided.
        branches: those that must learn it.
        decided_unix_ms: when it was offered to the log, in milliseconds since 1970.
        begun_unix_ms: when the transaction began, in milliseconds since 1970.
        client: the client that began it, as it named itself.
    """

    gtrid: str
    decision: Decision
    branches: tuple[LoggedBranch, ...]
    decided_unix_ms: int
    begun_unix_ms: int = 0
    client: str = ""


@value
class EndRecord:
    """Every branch of a decided transaction has acknowledged, or an operator ended it.

    Args:
        gtrid: the transaction.
        outcome: what became of it.
        ended_unix_ms: when the last branch acknowledged, in milliseconds since 1970; retention counts from here.
        evidence: what proves a heuristic outcome, branch by branch; empty otherwise.
    """

    gtrid: str
    outcome: Outcome
    ended_unix_ms: int
    evidence: str = ""


@value
class CommitRows:
    """The commit records of many transactions with the same branches, decided together.

    Args:
        gtrids: the transactions.
        bquals: their branches, which all voted YES.
        proofs: by branch, then by transaction: as in ``LoggedBranch``.
        decided_unix_ms: as in ``DecisionRecord``, for all of them.
        begun_unix_ms: likewise.
        client: likewise.
    """

    gtrids: Sequence[str]
    bquals: tuple[str, ...]
    proofs: Sequence[Sequence[str]]
    decided_unix_ms: int
    begun_unix_ms: int
    client: str

    def each(self) -> Iterator[DecisionRecord]:
        """Each of them by itself."""
        for gtrid, *proofs in zip(self.gtrids, *self.proofs, strict=True):
            branches = tuple(map(LoggedBranch, self.bquals, proofs))
            when = (self.decided_unix_ms, self.begun_unix_ms)
            yield DecisionRecord(gtrid, Decision.COMMIT, branches, *when, self.client)


@value
class EndRows:
    """The end records of many transactions that ended together, as every branch was told.

    Args:
        gtrids: the transactions.
        outcome: what became of all of them.
        ended_unix_ms: as in ``EndRecord``.
    """

    gtrids: Sequence[str]
    outcome: Outcome
    ended_unix_ms: int

    def each(self) -> Iterator[EndRecord]:
        """Each of them by itself."""
        return (EndRecord(gtrid, self.outcome, self.ended_unix_ms) for gtrid in self.gtrids)


@value
class LoggedTransaction:
    """What the log knows of one transaction.

    Args:
        decision: its decision record.
        end: its end record; None while some branch has not acknowledged.
    """

    decision: DecisionRecord
    end: EndRecord | None


@value
class ParticipantRecord:
    """A participant process that registered; recovery reaches its resource through it.

    Args:
        resource: what it changes.
        instance: the process.
        address: ``host:port`` of its Participant service.
        kind: what the resource is, for example ``postgres``.
        operations: what it can do in one-shot transactions.
        registered_unix_ms: when, in milliseconds since 1970.
    """

    resource: str
    instance: str
    address: str
    kind: str
    operations: tuple[str, ...]
    registered_unix_ms: int


@value
class ResolutionRecord:
    """An operator's intervention.

    Args:
        gtrid: the transaction.
        action: ``commit``, ``rollback``, ``retry-now`` or ``forget``.
        heuristic: whether it went against the decision.
        operator: who.
        reason: why.
        state_before: where the transaction stood.
        state_after: where it stood afterwards.
        unix_ms: when, in milliseconds since 1970.
    """

    gtrid: str
    action: str
    heuristic: bool
    operator: str
    reason: str
    state_before: str
    state_after: str
    unix_ms: int


@value
class Identity:
    """Who writes this log.

    Args:
        coordinator_id: made once, when the log was created.
        epoch: this life of the coordinator; greater than every one before, and durable before anybody sees it.
    """

    coordinator_id: str
    epoch: int
