"""What may leave the log, and what stays in its place in the chain.

An ended transaction leaves after its retention, in the order of its end and not in that of its position; a participant
leaves when it registers again; an end makes way for the tombstone that an operator asked for. Each leaves a gap in the
positions of the chain. A row of the table ``dropped`` closes it: *from here to there records were lawfully dropped; the
hash before the first was this, and that of the last was this*. So the chain can be walked across the gap. Gaps that
touch become one, and since transactions leave roughly in the order in which they came, nearly everything that was ever
dropped is one gap at the beginning, and a few more around what has not ended.

A row of ``dropped`` by itself would be an easy excuse for any record that is missing. So whatever changes them appends
a checkpoint to the chain: a digest over all these rows, with the horizon up to which transactions may have been
dropped. The checkpoint before it, having been replaced, leaves in the same step.

All of this happens inside the transaction that drops, so that no crash comes between.
"""

from __future__ import annotations

import logging
import sqlite3
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from itertools import pairwise
from operator import itemgetter
from typing import Any

from coordinator.log.chain import CHECKPOINT, DECISION, END, PARTICIPANT, Chain, is_hash, sealed
from coordinator.log.rows import STORED_COLUMNS, StoredRow, decision_content, end_content, listed_content

logger = logging.getLogger(__name__)

_OLDEST = "FROM decision WHERE ended_unix_ms < ? ORDER BY ended_unix_ms, seq LIMIT ?"
DELETE_ENDED = f"DELETE FROM decision WHERE seq IN (SELECT seq {_OLDEST})"
_SELECT_PLACES = f"SELECT seq, prev, end_seq, end_prev {_OLDEST}"
_SELECT_ROW = f"SELECT {STORED_COLUMNS} FROM decision WHERE seq = ?"
_DELETE_REPLACED = """
    DELETE FROM participant WHERE resource = ? AND (instance = ? OR address = ?)
    RETURNING seq, prev, crc, resource, instance, address, kind, operations, registered_unix_ms
"""
_SELECT_GAPS = "SELECT first_seq, last_seq, before_hash, hash FROM dropped ORDER BY first_seq"
_INSERT_GAP = "INSERT INTO dropped (first_seq, last_seq, before_hash, hash) VALUES (?, ?, ?, ?)"


@dataclass(frozen=True, slots=True)
class Gap:
    """Positions whose records were dropped.

    Args:
        first_seq: the first of them.
        last_seq: the last.
        before_hash: the hash of the record before the first.
        hash: the hash of the last one.
    """

    first_seq: int
    last_seq: int
    before_hash: bytes
    hash: bytes


Leaving = tuple[int, bytes, Callable[[], bytes]]
"""A record that leaves: its position, the hash before it, and what computes its own hash. That is needed only where the
record after it stays."""


def drop_ended(connection: sqlite3.Connection, chain: Chain, horizon_unix_ms: int, limit: int) -> int:
    """Drop some of the transactions that ended before the horizon; return how many."""
    leaving: list[Leaving] = []
    for seq, prev, end_seq, end_prev in connection.execute(_SELECT_PLACES, (horizon_unix_ms, limit)).fetchall():
        if is_hash(prev):  # of what has no place that can be read, a gap will tell
            leaving.append((seq, prev, partial(_hash_in, connection, seq, decision_of)))
        if isinstance(end_seq, int) and is_hash(end_prev):
            leaving.append((end_seq, end_prev, partial(_hash_in, connection, seq, end_of)))
    if leaving:
        close_gaps(connection, chain, leaving)
    return connection.execute(DELETE_ENDED, (horizon_unix_ms, limit)).rowcount


def drop_replaced(connection: sqlite3.Connection, chain: Chain, resource: str, instance: str, address: str) -> None:
    """Drop the participants whose place a new one takes."""
    rows = connection.execute(_DELETE_REPLACED, (resource, instance, address)).fetchall()
    if rows:
        close_gaps(connection, chain, [one for row in rows for one in _participant_of(row)])


def close_gaps(connection: sqlite3.Connection, chain: Chain, leaving: Iterable[Leaving]) -> None:
    """Write down what stands for records that leave, and append a checkpoint that says so."""
    for gap in _runs(sorted([*leaving, *_take_checkpoint(connection)], key=itemgetter(0))):
        _write_gap(connection, gap)
    (horizon_unix_ms,) = connection.execute("SELECT horizon_unix_ms FROM coordinator").fetchone()
    append_checkpoint(connection, chain, horizon_unix_ms)


def append_checkpoint(connection: sqlite3.Connection, chain: Chain, horizon_unix_ms: int) -> None:
    """Append a checkpoint over the gaps as they are; there must be none."""
    digest = gaps_digest(read_gaps(connection))
    content = checkpoint_content(horizon_unix_ms, digest)
    row = ((horizon_unix_ms, digest), content, zlib.crc32(content))
    connection.execute(
        "INSERT INTO checkpoint (seq, prev, crc, horizon_unix_ms, digest) VALUES (?, ?, ?, ?, ?)",
        chain.seal_one(CHECKPOINT, row),
    )


def checkpoint_content(horizon_unix_ms: object, digest: object) -> bytes:
    """A checkpoint as its seal covers it."""
    return listed_content((horizon_unix_ms, digest.hex() if isinstance(digest, bytes) else digest))


def read_gaps(connection: sqlite3.Connection) -> list[Gap]:
    """Read what was dropped, in order."""
    return [Gap(*row) for row in connection.execute(_SELECT_GAPS)]


def gaps_digest(gaps: Sequence[Gap]) -> bytes:
    """The digest that a checkpoint keeps."""
    digest = sha256()
    for gap in gaps:
        digest.update(listed_content((gap.first_seq, gap.last_seq, _hex(gap.before_hash), _hex(gap.hash))))
    return digest.digest()


def decision_of(row: StoredRow) -> list[Leaving]:
    """The decision in a row, as it leaves."""
    return _leaving(DECISION, f"the decision of {row[3]}", row[:3], decision_content(*row[3:9]))


def end_of(row: StoredRow) -> list[Leaving]:
    """The end in a row, as it leaves."""
    return _leaving(END, f"the end of {row[3]}", row[9:12], end_content(row[3], row[12], row[13], row[14]))


def _participant_of(row: tuple[Any, ...]) -> list[Leaving]:
    return _leaving(PARTICIPANT, f"the participant of {row[3]}.{row[4]}", row[:3], listed_content(row[3:]))


def _take_checkpoint(connection: sqlite3.Connection) -> list[Leaving]:
    """Remove the checkpoint that is about to be replaced."""
    rows = connection.execute("DELETE FROM checkpoint RETURNING seq, prev, crc, horizon_unix_ms, digest").fetchall()
    return [one for row in rows for one in _leaving(CHECKPOINT, "a checkpoint", row[:3], checkpoint_content(*row[3:]))]


def _leaving(kind: bytes, name: str, stored: tuple[Any, ...], content: bytes) -> list[Leaving]:
    """What leaves; nothing when its place can't be read: a gap will tell of it. Damage must not go unsaid."""
    seq, prev, crc = stored
    if not isinstance(seq, int) or not is_hash(prev):
        return []

    def own_hash() -> bytes:
        right_crc, computed = sealed(kind, seq, prev, content)
        if right_crc != crc:
            logger.warning("%s at position %d, which leaves the log, fails its checksum", name, seq)
        return computed

    return [(seq, prev, own_hash)]


def _hash_in(connection: sqlite3.Connection, seq: int, leaves: Callable[[StoredRow], list[Leaving]]) -> bytes:
    """Compute the hash of a decision, or of its end, that is still there."""
    (row,) = connection.execute(_SELECT_ROW, (seq,)).fetchall()
    ((_, _, own_hash),) = leaves(row)
    return own_hash()


def _runs(leaving: Sequence[Leaving]) -> Iterator[Gap]:
    """Make one gap of each run of neighbours."""
    first_seq, before_hash = leaving[0][:2] if leaving else (0, b"")
    for (seq, _, own_hash), (next_seq, next_prev, _) in pairwise([*leaving, _AFTER_ALL]):
        if next_seq != seq + 1:
            yield Gap(first_seq, seq, before_hash, own_hash())
            first_seq, before_hash = next_seq, next_prev


_AFTER_ALL: Leaving = (-1, b"", bytes)


def _write_gap(connection: sqlite3.Connection, gap: Gap) -> None:
    """Write a gap, joined with those that it touches."""
    first_seq, last_seq, before_hash, hash_at_end = gap.first_seq, gap.last_seq, gap.before_hash, gap.hash
    touching = "DELETE FROM dropped WHERE last_seq = ? RETURNING first_seq, before_hash"
    for earlier_seq, earlier_hash in connection.execute(touching, (first_seq - 1,)).fetchall():
        first_seq, before_hash = earlier_seq, earlier_hash
    touching = "DELETE FROM dropped WHERE first_seq = ? RETURNING last_seq, hash"
    for later_seq, later_hash in connection.execute(touching, (last_seq + 1,)).fetchall():
        last_seq, hash_at_end = later_seq, later_hash
    connection.execute(_INSERT_GAP, (first_seq, last_seq, before_hash, hash_at_end))


def _hex(value: object) -> object:
    return value.hex() if isinstance(value, bytes) else value
