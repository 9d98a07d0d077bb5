"""The contract between the branch protocol and what a branch changes: X/Open calls that a resource manager.

A resource manager knows nothing of messages, votes repeated or coordinators. It begins branches, prepares them, ends
them by name, and above all tells the truth about failures. Three kinds of no are kept apart throughout:

- ``HandfastFault`` from an open branch: certain. The branch is rolled back and holds nothing.
- ``AnswerLost``: the resource may have done it. Nobody may act on a guess; ask again with ``ends_of``.
- ``HandfastFault`` from a call by name (``commit_prepared`` …): nothing is known, try again.

The Postgres one is participant.postgres; participant.testing has one in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol, TypeVar

from handfast.catalog import HandfastFault
from handfast.xid import Xid
from participant.protocol import Fate

ConnectionT_co = TypeVar("ConnectionT_co", covariant=True)


class AnswerLost(Exception):
    """The connection broke while the branch was being prepared or committed, and looking did not help either.

    Args:
        proof: by which ``ends_of`` can tell later; empty when there was none yet.
        problem: what happened.
    """

    def __init__(self, proof: str, problem: str) -> None:
        super().__init__(problem)
        self.proof = proof
        self.problem = problem


@dataclass(frozen=True, slots=True)
class Prepared:
    """The branch is prepared: it can commit or roll back, through any crash.

    Args:
        proof: by which any instance can later prove how the branch ended.
    """

    proof: str


@dataclass(frozen=True, slots=True)
class ReadOnly:
    """The branch had changed nothing and has ended."""


@dataclass(frozen=True, slots=True)
class End:
    """How a branch ended.

    Args:
        fate: how.
        evidence: what proves it, or why nothing does.
    """

    fate: Fate
    evidence: str


class Stand(Enum):
    """Where the resource itself says that a branch stands."""

    PREPARED = "prepared"
    COMMITTED = "committed"
    ABORTED = "aborted"
    OPEN = "open"
    """A session still works on it, or is just now preparing or ending it."""
    UNPROVED = "unproved"


@dataclass(frozen=True, slots=True)
class Found:
    """What the resource says about one branch.

    Args:
        stand: where it stands.
        evidence: what proves it.
        lost: with UNPROVED, the resource certainly does not hold what the branch did: it was restored to a point before
            the branch, or is another one.
        proof: with PREPARED, the branch's proof, for whoever has not had it yet; empty when the resource can't tell.
    """

    stand: Stand
    evidence: str
    lost: bool = False
    proof: str = ""


@dataclass(frozen=True, slots=True)
class Blocked:
    """A session that waits for a prepared branch's lock.

    Args:
        pid: the session.
        waiting_ms: for how long, in milliseconds.
        statement: what waits, cut to 200 characters.
    """

    pid: int
    waiting_ms: int
    statement: str


@dataclass(frozen=True, slots=True)
class PreparedBranch:
    """A branch that is prepared now.

    Args:
        xid: its name.
        proof: by which its end can be proved.
        prepared_unix_ms: since when, by the resource's clock, in milliseconds since 1970.
        age_ms: for how long, in milliseconds.
        owner: the role that owns it.
        database: the database it is in.
        locks_held: with detail, how many locks it holds.
        blocked: with detail, who waits for them.
        xmin_age: with detail, how many transaction ids old it is.
    """

    xid: Xid
    proof: str
    prepared_unix_ms: int
    age_ms: int
    owner: str
    database: str
    locks_held: int = 0
    blocked: tuple[Blocked, ...] = ()
    xmin_age: int = 0


class Severity(Enum):
    """How bad a finding is."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was checked.

    Args:
        check: what, for example ``max_prepared_transactions``.
        severity: how it stands.
        found: what was found.
        mend: how to mend it; empty when all is well.
    """

    check: str
    severity: Severity
    found: str
    mend: str = ""


class OpenBranch(Protocol[ConnectionT_co]):
    """A branch at work. Its calls are never made at the same time, except ``abandon``."""

    @property
    def connection(self) -> ConnectionT_co:
        """What the work uses."""

    async def settle(self) -> None:
        """End one piece of work: see that the branch is sound, and learn its proof.

        Raises:
            HandfastFault: it is not; the caller rolls back.
        """

    async def prepare(self) -> Prepared | ReadOnly:
        """Prepare the branch. Whatever comes of it, the branch has given up its connection.

        Raises:
            HandfastFault: it could not be prepared and is rolled back, for certain; the code is a vote's.
            AnswerLost: nobody can tell.
        """

    async def commit(self) -> str:
        """Commit the branch in one phase. Whatever comes of it, the branch has given up its connection.

        Returns:
            The proof; empty when the branch had changed nothing.

        Raises:
            HandfastFault: it could not be committed and is rolled back, for certain; the code is a vote's.
            AnswerLost: nobody can tell.
        """

    async def rollback(self) -> None:
        """Roll the branch back and give up its connection. One that fails at it is closed, which is as good."""

    async def abandon(self, reason: str) -> None:
        """Roll the branch back although somebody is using its connection: stop the statement, close the connection.

        Args:
            reason: why, for the log.
        """


class ResourceManager(Protocol[ConnectionT_co]):
    """What holds a resource's branches."""

    @property
    def kind(self) -> str:
        """What it is, for reports: for example ``postgres``."""

    async def open(self, bqual: str) -> None:
        """Make ready. The resource need not be reachable yet.

        Args:
            bqual: the name of this instance's branches, to mark sessions with.
        """

    async def close(self) -> None:
        """Close every connection. Open branches roll back by that."""

    async def begin(self, xid: Xid, time_left_s: float) -> OpenBranch[ConnectionT_co]:
        """Begin a branch.

        Args:
            xid: its name.
            time_left_s: the time left to its deadline, in seconds.

        Raises:
            HandfastFault: it did not begin; the code is a vote's.
        """

    async def commit_prepared(self, xid: Xid, proof: str) -> End:
        """Commit a prepared branch, whichever instance prepared it.

        Args:
            xid: its name.
            proof: the token from its vote; empty when not known.

        Raises:
            HandfastFault: nothing is known; try again.
        """

    async def rollback_prepared(self, xid: Xid, proof: str) -> End:
        """Roll a prepared branch back; otherwise as ``commit_prepared``."""

    async def recover(self, resource: str, coordinator_id: str, *, detail: bool) -> list[PreparedBranch]:
        """List the branches of this resource and coordinator that are prepared now, oldest first.

        Args:
            resource: the resource.
            coordinator_id: the coordinator; empty for all.
            detail: also tell what each blocks.

        Raises:
            HandfastFault: the resource can't be asked.
        """

    async def ends_of(self, branches: Sequence[tuple[Xid, str]]) -> list[Found]:
        """Tell what became of branches, given with their proofs; in the same order.

        Raises:
            HandfastFault: the resource can't be asked.
        """

    async def inspect(self) -> list[Finding]:
        """Check the resource's health. An unreachable resource is a finding, not an exception."""

    def fault_of(self, problem: BaseException, xid: Xid, resource: str) -> HandfastFault | None:
        """Say which NO vote an error in the work amounts to; None when the resource can't tell more than its text.

        Args:
            problem: what the work raised.
            xid: the branch.
            resource: the resource.
        """
