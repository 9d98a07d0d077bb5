"""A transaction in memory: the machine, and what the driver keeps beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from coordinator.log.records import LoggedTransaction
from coordinator.protocol.effects import SendCommit
from coordinator.protocol.events import Event
from coordinator.protocol.states import Decision, Outcome
from coordinator.protocol.transaction import GlobalTransaction
from handfast.catalog import HandfastFault
from handfast.v1.types_pb2 import Operation

HISTORY_MAX = 200
"""Entries kept of one transaction's history; past it the middle is dropped, for the beginning and the end tell most."""


@dataclass(frozen=True, slots=True)
class Waiter:
    """Somebody who wants to be told the outcome.

    Args:
        on_answer: told the transaction, or the fault that kept it from an outcome.
        at_decision: told as soon as the decision is durable; otherwise when every branch has applied it, or the apply
            wait is over.
    """

    on_answer: OnAnswer
    at_decision: bool


@dataclass(slots=True)
class Running:
    """A transaction in memory.

    Args:
        transaction: the machine.
        begun_unix_ms: when it began, in milliseconds since 1970.
        deadline_unix_ms: when it must be decided, likewise; for reports, the machine holds the exact one.
        client: the client that began it, as it named itself.
        one_shot: whether its operations came with Execute.
        recovered: whether it was read from the log, which doesn't keep that.
        operations: what each branch is to do inside Prepare, by bqual.
        result_places: for each operation of the request, in order: its branch and its index there.
        results: what each branch's operations returned, by bqual.
        waiters: who wants to be told.
        history: (when, what), oldest first; when is in milliseconds since 1970.
        held: Commit messages that wait for the force.
        in_flight: branches with a Commit or Rollback under way.
        next_attempt_unix_ms: when each failed message is sent again, by bqual.
        decided_unix_ms: when it was decided; 0 before.
        ended_unix_ms: when it ended; 0 before.
        apply_wait_over: whether waiters are answered although branches have not applied yet.
        one_phase_maybe_done: whether some CommitOnePhase may have been carried out, its answer lost.
        broken: why the transaction is set aside: a defect was found while it was driven. Empty when it is not.
    """

    transaction: GlobalTransaction
    begun_unix_ms: int
    deadline_unix_ms: int = 0
    client: str = ""
    one_shot: bool = False
    recovered: bool = False
    operations: dict[str, list[Operation]] = field(default_factory=dict)
    result_places: tuple[tuple[str, int], ...] = ()
    results: dict[str, Sequence[bytes]] = field(default_factory=dict)
    waiters: list[Waiter] = field(default_factory=list)
    history: list[tuple[int, Event]] = field(default_factory=list)
    held: tuple[SendCommit, ...] = ()
    in_flight: set[str] = field(default_factory=set)
    next_attempt_unix_ms: dict[str, int] = field(default_factory=dict)
    decided_unix_ms: int = 0
    ended_unix_ms: int = 0
    apply_wait_over: bool = False
    one_phase_maybe_done: bool = False
    broken: str = ""

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

    def note(self, unix_ms: int, event: Event) -> None:
        """Add to the history."""
        if len(self.history) >= HISTORY_MAX:
            del self.history[HISTORY_MAX // 2]
        self.history.append((unix_ms, event))

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
