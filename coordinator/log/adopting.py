"""Taking the records of an older log, which kept no chain, into the chain.

It happens once, when such a log is first opened, inside the migration: every record that is there gets a place, first
the decisions in their order, then their ends, the participants and the operators' interventions. Each that had a
checksum is compared with it on the way, so that damage is not blessed. From then on the chain vouches for them; that
nothing was changed before, it can't say, and ``head.adopted_seq`` keeps up to where that holds.

The positions are counted anew, without the gaps that earlier retention has left. A log of a million transactions takes
some twenty seconds.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterator
from itertools import islice
from typing import Any

from coordinator.log.chain import DECISION, END, GENESIS, LIFE, PARTICIPANT, RESOLUTION, Chain, Head, Row, write_head
from coordinator.log.identity import life_content, read_life
from coordinator.log.retention import append_checkpoint
from coordinator.log.rows import CHECKSUM, DamagedRow, decision_content, end_content, listed_content

ROWS_PER_STEP = 1000

_SELECT_DECISIONS = """
    SELECT gtrid, decision, decided_unix_ms, begun_unix_ms, client, branches, crc FROM decision_before ORDER BY seq
"""
_INSERT_DECISION = """
    INSERT INTO decision (seq, prev, crc, gtrid, decision, decided_unix_ms, begun_unix_ms, client, branches)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_SELECT_ENDS = """
    SELECT outcome, ended_unix_ms, evidence, gtrid, end_crc FROM decision_before WHERE ended_unix_ms IS NOT NULL
    ORDER BY ended_unix_ms, seq
"""
_UPDATE_END = """
    UPDATE decision SET end_seq = ?, end_prev = ?, end_crc = ?, outcome = ?, ended_unix_ms = ?, evidence = ?
    WHERE gtrid = ?
"""


def adopt(connection: sqlite3.Connection) -> None:
    """Move what stands in the tables ``…_before`` into the new ones, each record with its place.

    Args:
        connection: in a transaction, with the new tables empty.

    Raises:
        DamagedRow: a record fails the checksum that it has.
        DamagedIdentity: the coordinator's row does.
    """
    chain = Chain(Head(0, GENESIS))
    for rows in _in_steps(_decisions(connection)):
        connection.executemany(_INSERT_DECISION, chain.seal(DECISION, rows))
    for rows in _in_steps(_ends(connection)):
        connection.executemany(_UPDATE_END, chain.seal(END, rows))
    _adopt_participants_and_resolutions(connection, chain)
    _adopt_lives(connection, chain)
    connection.execute("INSERT INTO head (seq, hash, adopted_seq, crc) VALUES (0, x'', 0, 0)")
    write_head(connection, Head(chain.seq, chain.hash, chain.seq))


def _decisions(connection: sqlite3.Connection) -> Iterator[Row]:
    for *values, crc in connection.execute(_SELECT_DECISIONS):
        content = decision_content(*values)
        if zlib.crc32(content) != crc:
            raise DamagedRow(values[0], f"the decision of {values[0]}", CHECKSUM)
        yield tuple(values), content, crc


def _ends(connection: sqlite3.Connection) -> Iterator[Row]:
    for outcome, ended, evidence, gtrid, crc in connection.execute(_SELECT_ENDS):
        content = end_content(gtrid, outcome, ended, evidence)
        if zlib.crc32(content) != crc:
            raise DamagedRow(gtrid, f"the end of {gtrid}", CHECKSUM)
        yield (outcome, ended, evidence, gtrid), content, crc


def _adopt_participants_and_resolutions(connection: sqlite3.Connection, chain: Chain) -> None:
    participants = "resource, instance, address, kind, operations, registered_unix_ms"
    resolutions = "gtrid, action, heuristic, operator, reason, state_before, state_after, unix_ms"
    for kind, table, columns, order in (
        (PARTICIPANT, "participant", participants, "registered_unix_ms"),
        (RESOLUTION, "resolution", resolutions, "seq"),
    ):
        for values in connection.execute(f"SELECT {columns} FROM {table}_before ORDER BY {order}").fetchall():
            _insert(connection, table, chain, kind, values, listed_content(values))


def _adopt_lives(connection: sqlite3.Connection, chain: Chain) -> None:
    life = read_life(connection)
    if life is None:
        return
    select = "SELECT epoch, started_unix_ms, ? FROM life_before ORDER BY epoch"
    for values in connection.execute(select, (life.coordinator_id,)).fetchall():
        _insert(connection, "life", chain, LIFE, values, life_content(*values))
    if life.horizon_unix_ms:
        append_checkpoint(connection, chain, life.horizon_unix_ms)


def _insert(
    connection: sqlite3.Connection, table: str, chain: Chain, kind: bytes, values: tuple[Any, ...], content: bytes
) -> None:
    stored = chain.seal_one(kind, (values, content, zlib.crc32(content)))
    connection.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(stored))})", stored)


def _in_steps(rows: Iterator[Row]) -> Iterator[list[Row]]:
    while step := list(islice(rows, ROWS_PER_STEP)):
        yield step
