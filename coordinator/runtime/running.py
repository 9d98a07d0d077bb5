"""A transaction in memory: the machine, and what the driver keeps beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from coordinator.log.records import LoggedTransaction
from coordinator.protocol.effects import SendCommit
from coordinator.protocol.events import Event
from coordinator.protocol.states import Decision, Outcome
from coordinator.protocol.transaction import GlobalTransaction
from coordinator.protocol.values import value
from handfast.catalog import HandfastFault
from handfast.v1.types_pb2 import Operation

HISTORY_MAX = 200
"""Entries kept of one transaction's history; past it the middle is dropped, for the beginning and the end tell most."""


# What few transactions have for long, or ever, is replaced rather than changed; so they share the empty ones.
NOTHING_TO_DO: Mapping[str, Sequence[Operation]] = MappingProxyType({})
NO_ATTEMPTS: Mapping[str, int] = MappingProxyType({})


@value
class Waiter:
    """Somebody who wants to be told the outcome.

    Args:
        on_answer: told the transaction, or the fault that kept it from an outcome.
        at_decision: told as soon as the decision is durable; otherwise when every branch has applied it, or the apply
            wait is over.
    """

    on_answer: OnAnswer
    at_decision: bool


@value
class Work:
    """What a one-shot transaction is to do.

    Args:
        operations: what each branch is to do inside Prepare, by bqual.
        places: for each operation of the request, in order: its branch and its index there.
    """

    operations: Mapping[str, Sequence[Operation]]
    places: tuple[tuple[str, int], ...]


class Running:
    """A transaction in memory: made at its beginning, or from the log.

    Besides what it is made with, it has:

    - ``one_shot``: whether its operations came with Execute; ``operations`` and ``result_places``: as in ``Work``.
    - ``results``: what each branch's operations returned, by bqual.
    - ``waiters``: who wants to be told.
    - ``history``: (when, what), oldest first; when is in milliseconds since 1970.
    - ``held``: Commit messages that wait for the force.
    - ``in_flight``: branches with a Commit or Rollback under way.
    - ``next_attempt_unix_ms``: when each failed message is sent again, by bqual.
    - ``apply_wait_over``: whether waiters are answered although branches have not applied yet.
    - ``one_phase_maybe_done``: whether some CommitOnePhase may have been carried out, its answer lost.
    - ``broken``: why the transaction is set aside: a defect was found while it was driven. Empty when it is not.

    Args:
        transaction: the machine.
        begun_unix_ms: when it began, in milliseconds since 1970.
        deadline_unix_ms: when it must be decided, likewise; for reports, the machine holds the exact one.
        client: the client that began it, as it named itself.
        recovered: whether it was read from the log, which doesn't keep that.
        decided_unix_ms: when it was decided; 0 before.
        ended_unix_ms: when it ended; 0 before.
    """

    __slots__ = (
        "apply_wait_over",
        "begun_unix_ms",
        "broken",
        "client",
        "deadline_unix_ms",
        "decided_unix_ms",
        "ended_unix_ms",
        "held",
        "history",
        "in_flight",
        "next_attempt_unix_ms",
        "one_phase_maybe_done",
        "one_shot",
        "operations",
        "recovered",
        "result_places",
        "results",
        "transaction",
        "waiters",
    )

    def __init__(
        self,
        transaction: GlobalTransaction,
        begun_unix_ms: int,
        deadline_unix_ms: int = 0,
        client: str = "",
        recovered: bool = False,
        decided_unix_ms: int = 0,
        ended_unix_ms: int = 0,
    ) -> None:
        self.transaction = transaction
        self.begun_unix_ms = begun_unix_ms
        self.deadline_unix_ms = deadline_unix_ms
        self.client = client
        self.recovered = recovered
        self.decided_unix_ms = decided_unix_ms
        self.ended_unix_ms = ended_unix_ms
        self.one_shot = False
        self.operations = NOTHING_TO_DO
        self.result_places: tuple[tuple[str, int], ...] = ()
        self.results: dict[str, Sequence[bytes]] = {}
        self.waiters: list[Waiter] = []
        self.history: list[tuple[int, Event]] = []
        self.held: tuple[SendCommit, ...] = ()
        self.in_flight: set[str] = set()
        self.next_attempt_unix_ms = NO_ATTEMPTS
        self.apply_wait_over = False
        self.one_phase_maybe_done = False
        self.broken = ""

    @property
    def gtrid(self) -> str:
        """Its name."""
        return self.transaction.gtrid

    @property
    def outcome(self) -> Outcome | None:
        """What became of it, or will for certain; None while nobody knows."""
        if self.transaction.outcome is not None:
            return self.transaction.outcome
        match self.transaction.decision:
            case Decision.COMMIT:
                return Outcome.COMMITTED
            case Decision.ABORT:
                return Outcome.ABORTED
        return None

    def shorten_history(self) -> None:
        """Make room for one more entry."""
        del self.history[HISTORY_MAX // 2]

    def ordered_results(self) -> list[bytes]:
        """What the operations returned, in the order of the request; empty when some branch returned none."""
        try:
            return [self.results[bqual][index] for bqual, index in self.result_places]
        except (KeyError, IndexError):
            return []


OnAnswer = Callable[[Running | HandfastFault], None]


def running_from_log(logged: LoggedTransaction) -> Running:
    """Show a logged transaction that nobody needs to drive in the form of one in memory.

    An abort needs no end: whoever hears of none of its messages asks, and is told.

    Raises:
        ValueError: it is a commit that has not ended; that one is driven.
    """
    record, end = logged.decision, logged.end
    if end is None and record.decision is Decision.COMMIT:
        raise ValueError(f"{record.gtrid} has not ended; recovery drives it")
    branches = [(branch.bqual, branch.proof) for branch in record.branches]
    outcome, evidence = (end.outcome, end.evidence) if end else (Outcome.ABORTED, "")
    machine = GlobalTransaction.ended(record.gtrid, branches, record.decision, outcome, evidence)
    return Running(
        machine,
        record.begun_unix_ms,
        client=record.client,
        recovered=True,
        decided_unix_ms=record.decided_unix_ms,
        ended_unix_ms=end.ended_unix_ms if end else 0,
    )
