"""The chain: each record vouches for all that were written before it.

A checksum tells that a record is not what was written. It can't tell that a record is gone, was put in, or was changed
by somebody who knows how checksums are made. So every record takes the next position, counted from 1 through all
tables, and its *seal* covers its content, its position, and the hash of the record before it; its own hash is the next
record's ``prev``. The last hash stands in the table ``head``, written in the same force. Whoever walks the positions in
order and finds each ``prev`` to be the hash of its predecessor, and the head to be the hash of the last, has read
exactly what was written, in the order in which it was written (Haber & Stornetta, 1991).

The seal is a CRC-32 and a SHA-256 over the same bytes. The CRC is stored with the record, so that a single one can be
judged without its neighbours: that is what a lookup does. The hash is stored only where it is needed, in the successor.

What may be dropped leaves a gap in the positions. It is closed by a row of the table ``dropped``, which keeps the hash
before the gap and the hash at its end, and by a *checkpoint*: a record in the chain whose content is a digest of all
these rows (``retention``). So a gap can't be widened, moved or made without the chain telling.

Positions are given in the writer's thread, in write order, right before the rows go to SQLite: a batch that is rolled
back takes its positions back with it. A lazily written end takes its position when it is written, not when it was
offered.

The chain has no key. Who can write the file and knows this page can make a new chain from any record on. What he can't
do is to make it end in a head that somebody noted elsewhere; ``docs/security.md`` says how far that goes.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from struct import Struct
from typing import Any, TypeGuard
from zlib import crc32

GENESIS = bytes(32)
"""What stands before the first record."""

DECISION, END, PARTICIPANT, RESOLUTION, LIFE, CHECKPOINT = b"D", b"E", b"P", b"R", b"L", b"C"
"""What a record is, as its seal spells it."""


@dataclass(frozen=True, slots=True)
class Head:
    """Where the chain ends.

    Args:
        seq: the last record's position; 0 when there is none.
        hash: its hash.
        adopted_seq: up to here the records were there before the log kept a chain; it vouches for them only from the
            moment on when they were taken in.
    """

    seq: int
    hash: bytes
    adopted_seq: int = 0

    def crc(self) -> int:
        """The row's checksum."""
        return crc32(f"{self.seq}\0{self.hash.hex()}\0{self.adopted_seq}".encode())


class DamagedHead(Exception):
    """The row that says where the chain ends is missing, or is not what was written."""


Row = tuple[tuple[Any, ...], bytes, int]
"""A record that waits for its place: its values, its content as bytes, and the content's CRC-32."""

_place = Struct(">cq32s").pack
"""What a seal adds to the content: kind, position, and the hash before; as many bytes for each record, so that no two
records are sealed over the same bytes."""


class Chain:
    """The end of the chain while a batch is being written.

    Args:
        head: where the chain ended before the batch.
    """

    __slots__ = ("hash", "seq")

    def __init__(self, head: Head) -> None:
        self.seq = head.seq
        self.hash = head.hash

    def seal(self, kind: bytes, rows: Iterable[Row]) -> list[tuple[Any, ...]]:
        """Append records.

        Args:
            kind: what they are.
            rows: each one's values; its content, spelled so that no other record is spelled the same; and the content's
                CRC-32.

        Returns:
            What to store for each: its seal, then its values.
        """
        # Every decision and every end comes by here, so this makes no call that it can do without.
        seq, prev, stored = self.seq, self.hash, []
        for values, content, content_crc in rows:
            seq += 1
            place = _place(kind, seq, prev)
            stored.append((seq, prev, crc32(place, content_crc), *values))
            prev = sha256(content + place).digest()
        self.seq, self.hash = seq, prev
        return stored

    def seal_one(self, kind: bytes, row: Row) -> tuple[Any, ...]:
        """Append a record; return what to store for it."""
        (stored,) = self.seal(kind, (row,))
        return stored

    def rewind(self, stored: tuple[Any, ...]) -> None:
        """Take back a record that did not go in, and everything after it."""
        self.seq, self.hash = stored[0] - 1, stored[1]


def sealed(kind: bytes, seq: int, prev: bytes, content: bytes) -> tuple[int, bytes]:
    """Compute the checksum and the hash that a stored record must have.

    Args:
        kind: what it is.
        seq: its position, as stored.
        prev: the hash before it, as stored.
        content: the record, spelled from what is stored.
    """
    whole = content + _place(kind, seq, prev)
    return crc32(whole), sha256(whole).digest()


def is_hash(value: object) -> TypeGuard[bytes]:
    """Whether a stored value can be a hash."""
    return isinstance(value, bytes) and len(value) == len(GENESIS)


def read_head(connection: sqlite3.Connection) -> Head:
    """Read where the chain ends.

    Raises:
        DamagedHead: the row is missing, is not alone, or fails its checksum.
    """
    rows: Sequence[tuple[int, bytes, int, int]]
    rows = connection.execute("SELECT seq, hash, adopted_seq, crc FROM head").fetchall()
    if len(rows) != 1:
        raise DamagedHead(f"the table head, where the chain of records ends, has {len(rows)} rows instead of one")
    seq, digest, adopted_seq, crc = rows[0]
    if not is_hash(digest) or (head := Head(seq, digest, adopted_seq)).crc() != crc:
        raise DamagedHead("the row of the table head, where the chain of records ends, fails its checksum")
    return head


def write_head(connection: sqlite3.Connection, head: Head) -> None:
    """Write where the chain ends, in the caller's transaction."""
    connection.execute(
        "UPDATE head SET seq = ?, hash = ?, adopted_seq = ?, crc = ?",
        (head.seq, head.hash, head.adopted_seq, head.crc()),
    )
