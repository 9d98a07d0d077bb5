"""What waits for the next force: one small object per write, with the callback that learns how it went.

A submission carries its row ready to be written, but for its place in the chain. Encoding happens when the record is
offered, so that one that can't be written fails there, at its author, and never inside a force that it shares with
others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from coordinator.log.chain import Head
from coordinator.log.records import CommitRows, DecisionRecord, EndRecord, EndRows, ParticipantRecord, ResolutionRecord
from coordinator.log.rows import DecisionRow, EndRow, ParticipantRow, ResolutionRow
from coordinator.log.store import LogBroken, LogRefused, OnDecided, OnWritten
from coordinator.protocol.states import Decision


@dataclass(slots=True)
class Decide:
    """Offer a decision."""

    record: DecisionRecord
    row: DecisionRow
    callback: OnDecided


@dataclass(slots=True)
class End:
    """Write that a transaction has ended; the one submission that hurries nobody."""

    record: EndRecord
    row: EndRow
    callback: OnWritten | None


@dataclass(slots=True)
class DecideAll:
    """Offer many decisions to commit."""

    records: CommitRows
    rows: Sequence[DecisionRow] = field(repr=False)
    callback: Callable[[Sequence[Decision] | LogRefused | LogBroken], None]


@dataclass(slots=True)
class EndAll:
    """Write that many transactions have ended; it hurries nobody either."""

    records: EndRows
    rows: Sequence[EndRow] = field(repr=False)
    callback: None = None


ENDS = frozenset({End, EndAll})


@dataclass(slots=True)
class Register:
    """Keep a participant."""

    record: ParticipantRecord
    row: ParticipantRow
    callback: OnWritten


@dataclass(slots=True)
class Resolve:
    """Keep an operator's intervention."""

    record: ResolutionRecord
    row: ResolutionRow
    callback: OnWritten


@dataclass(slots=True)
class Forget:
    """Drop what is known of one ended transaction."""

    gtrid: str
    callback: OnWritten


@dataclass(slots=True)
class RaiseHorizon:
    """Say durably that transactions older than this may have been dropped."""

    horizon_unix_ms: int
    callback: OnWritten


@dataclass(slots=True)
class DropEnded:
    """Drop some of the transactions that ended before the horizon; the callback learns how many it were."""

    horizon_unix_ms: int
    limit: int
    callback: Callable[[int | LogRefused | LogBroken], None]


Submission = Decide | End | DecideAll | EndAll | Register | Resolve | Forget | RaiseHorizon | DropEnded

Result = Decision | Sequence[Decision] | int | LogRefused | LogBroken | None
"""What a callback is told; each kind of submission gets some of these."""


def commits(submission: Submission) -> bool:
    """Whether it offers decisions to commit, and nothing else."""
    return type(submission) is DecideAll or (
        type(submission) is Decide and submission.record.decision is Decision.COMMIT
    )


def records_in(submissions: Iterable[Submission]) -> int:
    """How many records they are."""
    return sum([len(one.rows) if isinstance(one, DecideAll | EndAll) else 1 for one in submissions])


@dataclass(frozen=True, slots=True)
class Applied:
    """What a batch did.

    Args:
        results: one for each submission, in order.
        decisions: how many decision records were written.
        ends: how many end records were written.
        others: how many other records were written.
        head: where the chain ends afterwards; None in a store without one.
    """

    results: list[Result]
    decisions: int
    ends: int
    others: int
    head: Head | None = None
