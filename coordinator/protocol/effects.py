"""What the machine wants done. Imperative: the driver does exactly this, in exactly this order.

The order is in the type (after etcd raft's ``Ready``): what stands in ``send`` may leave at once; what stands in
``send_after_force`` leaves only when the log says that ``force`` is durable *and* that it is the decision which stands.
A batch can't hold messages of the second kind without a record, so a Commit can't overtake its CommitRecord by
somebody's oversight.
"""

from __future__ import annotations

from coordinator.protocol.states import Outcome
from coordinator.protocol.values import value


@value
class SendPrepare:
    """Ask the branch for its vote."""

    bqual: str


@value
class SendCommitOnePhase:
    """Tell the only branch to commit, and let it decide."""

    bqual: str


@value
class SendCommit:
    """Tell a prepared branch to commit. ``proof`` is the token from its vote."""

    bqual: str
    proof: str


@value
class SendRollback:
    """Tell a branch to roll back. ``proof`` is the token from its vote, empty when it gave none."""

    bqual: str
    proof: str


Send = SendPrepare | SendCommitOnePhase | SendCommit | SendRollback


@value
class CommitRecord:
    """The decision to offer to the log: commit, to be learned by these branches.

    Args:
        branches: (bqual, proof) of each branch that voted YES.
    """

    branches: tuple[tuple[str, str], ...]


@value
class EndRecord:
    """To be written lazily: every branch has ended.

    Args:
        outcome: what became of the transaction.
        evidence: what proves a heuristic outcome, branch by branch.
    """

    outcome: Outcome
    evidence: str


@value
class ScheduleRetry:
    """Report ``RetryDue`` for the branch after a backoff that grows with ``attempts``, the attempts made so far."""

    bqual: str
    attempts: int


@value
class Effects:
    """What one step wants done.

    Args:
        send: messages that may leave now.
        force: the decision to make durable.
        send_after_force: messages that may leave once ``force`` is durable and stands; dropped otherwise.
        retries: what to send again later.
        end: the end record to write, lazily.
    """

    send: tuple[Send, ...] = ()
    force: CommitRecord | None = None
    send_after_force: tuple[SendCommit, ...] = ()
    retries: tuple[ScheduleRetry, ...] = ()
    end: EndRecord | None = None


NOTHING = Effects()
