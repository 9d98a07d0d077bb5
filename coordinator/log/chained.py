"""Everything in the log in the order of the chain, read from whatever the tables hold now.

Nothing here trusts what it reads: a record that fails its checksum is returned with the problem, so that the walk can
go on and tell of the next.
"""

from __future__ import annotations

import heapq
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from coordinator.log.chain import CHECKPOINT, DECISION, END, LIFE, PARTICIPANT, RESOLUTION, is_hash, sealed
from coordinator.log.identity import life_content
from coordinator.log.retention import checkpoint_content
from coordinator.log.rows import CHECKSUM, decision_content, end_content, listed_content, named

DROPPED = "dropped"
"""The table of what was lawfully dropped; its rows stand in the chain for records that are gone."""


@dataclass(frozen=True, slots=True)
class Chained:
    """A record in its place, or a row that stands for records that were dropped.

    Args:
        kind: ``decision``, ``end``, ``participant``, ``resolution``, ``life``, ``checkpoint`` or ``dropped``.
        first_seq: its position.
        last_seq: the same, except for ``dropped``.
        prev: the hash before it, as stored.
        hash: the hash that the record after it must keep.
        gtrid: the transaction that it is about; empty when it is about none.
        name: what it is and where it stands, for a person.
        problem: what is wrong with it by itself; empty when nothing is.
        fields: what it says, by name.
    """

    kind: str
    first_seq: int
    last_seq: int
    prev: bytes
    hash: bytes
    gtrid: str
    name: str
    problem: str
    fields: dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Source:
    """Where the records of one kind are, and how their content is spelled.

    Args:
        mark: the kind, as seals spell it.
        select: gives seq, prev, crc and the fields, in order, from a position on.
        fields: the fields' names.
        content: spells them.
        about: names what a record is about, from the fields.
    """

    mark: bytes
    select: str
    fields: tuple[str, ...]
    content: Callable[..., bytes]
    about: Callable[[dict[str, Any]], str]


def _source(mark: bytes, table: str, names: str, content: Callable[..., bytes], about: Callable[..., str]) -> _Source:
    select = f"SELECT seq, prev, crc, {names} FROM {table} WHERE seq >= ? ORDER BY seq"
    return _Source(mark, select, tuple(names.split(", ")), content, about)


def _gtrid(fields: dict[str, Any]) -> str:
    return str(fields["gtrid"])


def _listed(*values: object) -> bytes:
    return listed_content(values)


_SOURCES = {
    "decision": _source(
        DECISION,
        "decision",
        "gtrid, decision, decided_unix_ms, begun_unix_ms, client, branches",
        decision_content,
        _gtrid,
    ),
    "end": _Source(
        END,
        """
        SELECT end_seq, end_prev, end_crc, gtrid, outcome, ended_unix_ms, evidence FROM decision
        WHERE end_seq >= ? AND typeof(end_seq) = 'integer' ORDER BY end_seq
        """,
        ("gtrid", "outcome", "ended_unix_ms", "evidence"),
        end_content,
        _gtrid,
    ),
    "participant": _source(
        PARTICIPANT,
        "participant",
        "resource, instance, address, kind, operations, registered_unix_ms",
        _listed,
        "{resource}.{instance}".format_map,
    ),
    "resolution": _source(
        RESOLUTION,
        "resolution",
        "gtrid, action, heuristic, operator, reason, state_before, state_after, unix_ms",
        _listed,
        _gtrid,
    ),
    "life": _source(LIFE, "life", "epoch, started_unix_ms, coordinator_id", life_content, "epoch {epoch}".format_map),
    "checkpoint": _source(
        CHECKPOINT, "checkpoint", "horizon_unix_ms, digest", checkpoint_content, "horizon {horizon_unix_ms}".format_map
    ),
}


def chained(connection: sqlite3.Connection, from_seq: int = 1) -> Iterator[Chained]:
    """Read records in the order of the chain.

    Args:
        connection: in a read transaction, if others write; reading goes through several statements.
        from_seq: the first position wanted. A row of ``dropped`` that reaches it comes whole.

    Raises:
        sqlite3.Error: SQLite can't go on reading.
    """
    sources = [_read(connection, kind, source, source.select, from_seq) for kind, source in _SOURCES.items()]
    return heapq.merge(_dropped(connection, from_seq), *sources, key=lambda one: one.first_seq)


def newest(connection: sqlite3.Connection, head_seq: int, count: int) -> list[Chained]:
    """Read the newest records in the order of the chain, without looking at all that is older.

    No index says where the newest ends are, but they are nearly always those that ended last by the clock. Where they
    are not, because a clock jumped or a record is missing, everything is looked through.

    Args:
        connection: as in ``chained``.
        head_seq: where the chain ends.
        count: how many positions.
    """
    from_seq = max(1, head_seq - count + 1)
    ended_last = f"(SELECT * FROM decision WHERE ended_unix_ms NOTNULL ORDER BY ended_unix_ms DESC LIMIT {2 * count})"
    selects = {kind: source.select for kind, source in _SOURCES.items()}
    selects["end"] = selects["end"].replace("FROM decision", f"FROM {ended_last}")
    sources = [_read(connection, kind, source, selects[kind], from_seq) for kind, source in _SOURCES.items()]
    found = list(heapq.merge(_dropped(connection, from_seq), *sources, key=lambda one: one.first_seq))
    covered = sum(one.last_seq - max(one.first_seq, from_seq) + 1 for one in found)
    return found if covered == head_seq - from_seq + 1 else list(chained(connection, from_seq))


def without_place(connection: sqlite3.Connection) -> list[tuple[str, str]]:
    """Find ends that have no position, which ``chained`` can't return; their gtrids, and their names."""
    select = "SELECT gtrid, end_seq FROM decision WHERE ended_unix_ms IS NOT NULL AND typeof(end_seq) != 'integer'"
    return [(str(gtrid), named("end", repr(seq), gtrid)) for gtrid, seq in connection.execute(select)]


def _read(connection: sqlite3.Connection, kind: str, source: _Source, select: str, from_seq: int) -> Iterator[Chained]:
    for seq, prev, crc, *values in connection.execute(select, (from_seq,)):
        fields = dict(zip(source.fields, values, strict=True))
        prev_hash = prev if is_hash(prev) else b""
        right_crc, own_hash = sealed(source.mark, seq, prev_hash, source.content(*values))
        about = source.about(fields)
        yield Chained(
            kind,
            seq,
            seq,
            prev_hash,
            own_hash,
            fields.get("gtrid", ""),
            named(kind, seq, about),
            "" if crc == right_crc and prev is prev_hash else CHECKSUM,
            fields,
        )


def _dropped(connection: sqlite3.Connection, from_seq: int) -> Iterator[Chained]:
    select = "SELECT first_seq, last_seq, before_hash, hash FROM dropped WHERE last_seq >= ? ORDER BY first_seq"
    for first_seq, last_seq, before_hash, own_hash in connection.execute(select, (from_seq,)):
        name = f"the row of `dropped` for positions {first_seq} to {last_seq}"
        sound = isinstance(last_seq, int) and is_hash(before_hash) and is_hash(own_hash)
        if sound and last_seq >= first_seq:
            yield Chained(DROPPED, first_seq, last_seq, before_hash, own_hash, "", name, "", {})
        else:
            yield Chained(DROPPED, first_seq, first_seq, b"", b"", "", name, "makes no sense", {})
