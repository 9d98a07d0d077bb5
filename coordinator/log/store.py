"""The log's contract.

A decision log is a write-once register per gtrid. ``decide`` offers a decision and learns which one stands; whoever
comes second learns the first one's choice. That is all that commit, recovery and, one day, takeover by another
coordinator need, and it is the reason why no other component ever chooses an outcome.

Writes are submitted, not awaited: the driver hands over a record with a callback and goes on; the log gathers what
came while its last force was running and forces it together (group commit: DeWitt et al., 1984). Callbacks run on the
event loop's thread, in the order of submission, and only when the record is durable. Dropping old transactions is the
one exception: it takes several forces, with others between them, and answers after the last.

A failed force is of one of two kinds. ``LogRefused`` says that the record is certainly not in the log (disk full, and
rolled back): the transaction may be aborted and the log goes on. Everything else leaves the log's content unknown: it
closes, reports ``LogBroken`` to every waiting callback and to ``on_broken``, and the process must stop rather than go
on with a log that it can't trust.

Reads go the other way: they answer at once, from what is durable. They raise HandfastFault LOG_RECORD_DAMAGED, naming
the record, for one that fails its checksum, LOG_CORRUPT for a file whose structure is broken, LOG_PATH_UNUSABLE when
the file can't be read, and ``LogBroken`` when the log is broken or not open.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from coordinator.log.records import (
    CommitRows,
    DecisionRecord,
    EndRecord,
    EndRows,
    Identity,
    LoggedTransaction,
    ParticipantRecord,
    ResolutionRecord,
)
from coordinator.protocol.states import Decision


class LogRefused(Exception):
    """The record was not written, certainly; the log goes on."""


class LogBroken(Exception):
    """The log's content is unknown; the coordinator must stop."""


OnDecided = Callable[[Decision | LogRefused | LogBroken], None]
"""Told which decision stands, durably, or why none was written."""

OnAllDecided = Callable[[Sequence[Decision | LogRefused | LogBroken]], None]
"""Told that of many, in their order."""

OnWritten = Callable[[LogRefused | LogBroken | None], None]
"""Told that a record is durable (None), or why it is not."""


class LogStore(Protocol):
    """A durable, write-once register of decisions, with the few other things recovery needs.

    ``open`` first, ``close`` last. Methods are called from one event loop's thread; none of them blocks it for longer
    than a lookup takes.
    """

    async def open(self) -> Identity:
        """Open or create the log, migrate it, raise the epoch durably, together with the moment at which the new life
        starts, and start the writer.

        Returns:
            The coordinator's id and its new epoch.

        Raises:
            HandfastFault: LOG_PATH_UNUSABLE, LOG_LOCKED, LOG_CORRUPT, LOG_RECORD_DAMAGED, LOG_CHAIN_BROKEN,
                LOG_SCHEMA_NEWER or LOG_OF_ANOTHER.
        """

    async def close(self) -> None:
        """Write what was submitted, run its callbacks, then release the log. Idempotent.

        What is submitted afterwards is told ``LogBroken``; a later ``open`` begins a new epoch.
        """

    def decide(self, record: DecisionRecord, on_decided: OnDecided) -> None:
        """Offer a decision; learn, once it is durable, which one stands for this gtrid.

        Args:
            record: the decision offered. It stands if none stood before.
            on_decided: called on the loop's thread with the standing decision.

        Raises:
            UnicodeEncodeError: a text in the record can't be written; nothing was submitted.
        """

    def decide_all(self, records: CommitRows, on_decided: OnAllDecided) -> None:
        """Offer many decisions, as ``decide`` does, and learn once all of them are durable which ones stand.

        Args:
            records: the decisions offered; one at least.
            on_decided: called on the loop's thread with the standing decisions, or why there are none, in that order.

        Raises:
            UnicodeEncodeError: as from ``decide``; nothing was submitted.
        """

    def end_all(self, records: EndRows) -> None:
        """Write, lazily, that many transactions have ended, as ``end`` does without a callback."""

    def end(self, record: EndRecord, on_written: OnWritten | None = None) -> None:
        """Write, lazily, that a decided transaction has ended. The first end stands.

        To be offered when the decision's callback has run; without effect when the gtrid has no decision. The record
        travels with the next force; alone it waits for no longer than a second. Losing it in a crash costs one round of
        Commit messages at recovery. When it is refused and has no callback, the log keeps it for the next force.
        """

    def register(self, record: ParticipantRecord, on_written: OnWritten) -> None:
        """Keep a participant durably. It replaces the one with the same resource and instance, and any other that
        registered the same resource at the same address earlier: that process is gone."""

    def record_resolution(self, record: ResolutionRecord, on_written: OnWritten) -> None:
        """Keep an operator's intervention durably."""

    def lookup(self, gtrid: str) -> LoggedTransaction | None:
        """Return what the log durably knows of a transaction; None when it has no record.

        What was submitted but is not durable yet is not seen.
        """

    def unended(self) -> Sequence[LoggedTransaction]:
        """Return the decided transactions without an end record, oldest first; recovery drives them on."""

    def recent(self, limit: int, since_unix_ms: int = 0, before: str = "") -> Sequence[LoggedTransaction]:
        """Return decided transactions, those decided last first.

        Args:
            limit: how many at most; 0 means all. A log may hold millions: whoever wants all of them asks page by page.
            since_unix_ms: only those decided at or after, in milliseconds since 1970.
            before: only those decided before this one, a gtrid that the last page ended with; empty means no bound. One
                that is gone meanwhile ends the paging.
        """

    def was_forgotten(self, gtrid: str) -> bool:
        """Tell whether ``forget`` dropped this transaction: ``lookup`` returns None then, and yet it was decided.

        Whoever would presume abort because there is no record asks this too: the answer is UNKNOWN, never ABORTED. It
        is known until the horizon passes the transaction's end.
        """

    def life_started_unix_ms(self, epoch: int) -> int | None:
        """Tell when a life of this log started, in milliseconds since 1970.

        None when the log does not hold it: it is still to come, or it passed before logs kept this.
        """

    def participants(self) -> Sequence[ParticipantRecord]:
        """Return the registered participants, by resource, then time of registration, newest first."""

    def resolutions(self, gtrid: str) -> Sequence[ResolutionRecord]:
        """Return what operators did to a transaction, oldest first. Kept for good, whatever becomes of the
        transaction: they are few, and they are the trail of who did what."""

    def forget_before(self, horizon_unix_ms: int, on_forgotten: Callable[[int | LogRefused | LogBroken], None]) -> None:
        """Raise ``horizon_unix_ms`` durably, then drop the transactions that ended before it.

        The order matters: whoever finds no record must already see, in the property, that there may have been one. The
        dropping goes in steps, so that other writes need not wait for it; ``close`` ends it after the current step.

        Args:
            horizon_unix_ms: in milliseconds since 1970; never lowered.
            on_forgotten: told how many transactions were dropped.
        """

    def forget(self, gtrid: str, on_written: OnWritten) -> None:
        """Drop one ended transaction (an operator's --forget); refused with LogRefused when it has not ended, or is not
        known. What was decided stays in force against a later ``decide``."""

    @property
    def horizon_unix_ms(self) -> int:
        """The log remembers every decision of transactions begun at or after this moment; 0 when nothing was dropped.

        A transaction older than that may have been committed and forgotten: without a record, its outcome is unknown.
        """

    @property
    def path(self) -> str:
        """Where the log is, for reports; ``":memory:"`` when nowhere."""

    def counters(self) -> dict[str, int]:
        """Return counts since open: ``forces``; ``decisions`` and ``ends`` written; ``records`` of any kind written.

        A decision that lost to one that stood before is not counted, nor is the raising of the epoch.
        """
