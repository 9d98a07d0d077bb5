"""The walk along the chain, and what it finds wrong.

The start of a coordinator walks the newest records, ``handfast log verify`` all of them. Both have the same eyes: each
record by itself, then whether it follows from the one before, then whether the last is the one that the head names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from coordinator.log.chain import GENESIS, Head
from coordinator.log.chained import DROPPED, Chained


class Wrong(StrEnum):
    """What kind of thing is wrong."""

    DAMAGED = "damaged"
    """A record fails its own checksum."""

    CHANGED = "changed"
    """Two records pass their checksums, and the later one was not written after the earlier one."""

    MISSING = "missing"
    """Positions without a record."""

    INSERTED = "inserted"
    """A record at a position that is taken, or past the end."""

    BOOKS = "books"
    """The rows that say whose log it is, where it ends and what was dropped contradict the records, or each other."""

    FILE = "file"
    """SQLite finds its own structure broken."""

    OTHER_LOG = "other log"
    """The log does not continue the one whose head was noted elsewhere."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it was written.

    Args:
        wrong: of which kind.
        kind: the record's kind, as in ``Chained``; empty when it is about none.
        seq: the position; None when it is about none.
        gtrid: the transaction; empty when it is about none, or is not known.
        problem: a sentence without its full stop.
    """

    wrong: Wrong
    kind: str
    seq: int | None
    gtrid: str
    problem: str


class Walk:
    """One walk; the records are to be given in order.

    Args:
        from_seq: the position at which it begins.
    """

    def __init__(self, from_seq: int = 1) -> None:
        self._next_seq = from_seq
        self._hash: bytes | None = GENESIS if from_seq == 1 else None
        self._before: Chained | None = None

    def along(self, records: Iterable[Chained], head: Head) -> Iterator[Finding]:
        """Walk to the end of the records, and compare it with the head."""
        for record in records:
            yield from self.step(record)
        yield from self.finish(head)

    def step(self, record: Chained) -> Iterator[Finding]:
        """Look at one record."""
        starts_inside = self._before is None and record.kind == DROPPED and record.last_seq >= self._next_seq
        if record.first_seq < self._next_seq and not starts_inside:
            yield _finding(Wrong.INSERTED, record, f"{record.name} stands where another record stands already")
            return
        if record.first_seq > self._next_seq:
            yield self._missing(self._next_seq, record.first_seq - 1)
            self._hash = None
        if record.problem:
            yield _finding(Wrong.DAMAGED, record, f"{record.name} {record.problem}")
        elif self._hash is not None and record.prev != self._hash:
            yield self._not_following(record)
        self._next_seq = record.last_seq + 1
        self._hash = None if record.problem else record.hash
        self._before = record

    def finish(self, head: Head) -> Iterator[Finding]:
        """Look at the end."""
        last_seq = self._next_seq - 1
        if last_seq < head.seq:
            yield self._missing(self._next_seq, head.seq)
        elif last_seq > head.seq:
            problem = f"the log says that it ends at position {head.seq}, and has records up to {last_seq}"
            yield Finding(Wrong.INSERTED, "", last_seq, "", problem)
        elif self._hash is not None and self._hash != head.hash:
            name = "the first record" if self._before is None else self._before.name
            problem = f"{name} is the last, and is not the one that was written there: the head has another hash"
            gtrid = "" if self._before is None else self._before.gtrid
            yield Finding(Wrong.CHANGED, "" if self._before is None else self._before.kind, head.seq, gtrid, problem)

    def _not_following(self, record: Chained) -> Finding:
        before = self._before
        if before is None:
            return _finding(Wrong.CHANGED, record, f"{record.name} is the first, and was not written as the first")
        problem = (
            f"{before.name} was changed or exchanged after {record.name} was written: both pass their checksums, and "
            "the later one was written after another record"
        )
        return _finding(Wrong.CHANGED, before, problem)

    def _missing(self, first_seq: int, last_seq: int) -> Finding:
        after = "" if self._before is None else f", after {self._before.name}"
        if first_seq == last_seq:
            problem = f"the record at position {first_seq} is gone{after}"
        else:
            problem = f"the records at positions {first_seq} to {last_seq} are gone{after}"
        return Finding(Wrong.MISSING, "", first_seq, "", problem)


def _finding(wrong: Wrong, record: Chained, problem: str) -> Finding:
    return Finding(wrong, record.kind, record.first_seq, record.gtrid, problem)
