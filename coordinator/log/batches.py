"""What a batch of submissions does to the tables, inside a transaction that the caller begins and commits.

Decisions and ends make up nearly all of the traffic, so a run of them is written with one ``executemany`` each. Every
other submission is applied on its own, in its place between the runs.

The register is written once: ``ON CONFLICT DO NOTHING`` leaves the decision that stands, inside one batch as well. When
every row went in, each offer stands; only when some did not (a repeated Commit, an operator who was faster) does anyone
need to read which ones do.

Each record that goes in takes the next place in the chain. Whether it goes in is known only afterwards, so a run is
sealed as if all of it did; when some did not, the run is taken back and written one by one.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from itertools import groupby

from coordinator.log.chain import DECISION, END, PARTICIPANT, RESOLUTION, Chain, Head, Row, write_head
from coordinator.log.identity import raise_horizon
from coordinator.log.retention import close_gaps, drop_ended, drop_replaced, end_of
from coordinator.log.rows import (
    FORGOTTEN,
    STORED_COLUMNS,
    DecisionRow,
    EndRow,
    read_decision,
    read_transaction,
    tombstone_row,
)
from coordinator.log.store import LogRefused
from coordinator.log.submissions import (
    Applied,
    Decide,
    DecideAll,
    DropEnded,
    End,
    EndAll,
    Forget,
    RaiseHorizon,
    Register,
    Resolve,
    Result,
    Submission,
)
from coordinator.protocol.states import Decision

_INSERT_DECISION = """
    INSERT INTO decision (seq, prev, crc, gtrid, decision, decided_unix_ms, begun_unix_ms, client, branches)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (gtrid) DO NOTHING
"""
_DELETE_RUN = "DELETE FROM decision WHERE seq > ?"
_SELECT_DECISION = f"SELECT {STORED_COLUMNS} FROM decision WHERE gtrid = ?"
_UPDATE_TOMBSTONE = """
    UPDATE decision SET end_seq = ?, end_prev = ?, end_crc = ?, outcome = ?, ended_unix_ms = ?, evidence = ?
    WHERE gtrid = ?
"""
_UPDATE_END = f"{_UPDATE_TOMBSTONE} AND ended_unix_ms IS NULL"
_UNDO_END = """
    UPDATE decision SET end_seq = NULL, end_prev = NULL, end_crc = NULL,
        outcome = NULL, ended_unix_ms = NULL, evidence = NULL
    WHERE gtrid = ? AND end_seq > ?
"""
_FREQUENT = frozenset({Decide, End, DecideAll, EndAll})
_Frequent = Decide | End | DecideAll | EndAll
_INSERT_PARTICIPANT = "INSERT INTO participant VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
_INSERT_RESOLUTION = "INSERT INTO resolution VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"


def apply_batch(connection: sqlite3.Connection, batch: Sequence[Submission], head: Head) -> Applied:
    """Write a batch.

    Args:
        connection: in a transaction.
        batch: what to write, in order.
        head: where the chain ends before it.

    Raises:
        sqlite3.Error: SQLite can't; the transaction must be rolled back.
        DamagedRow: a decision that stood before fails its checksum.
        DamagedIdentity: the coordinator's row does.
    """
    results: list[Result] = []
    chain = Chain(head)
    decisions = ends = others = 0
    only_frequent = _FREQUENT.issuperset(map(type, batch))  # as in nearly every batch
    for frequent, group in ((True, batch),) if only_frequent else groupby(batch, key=_is_frequent):
        if frequent:
            run = [one for one in group if isinstance(one, _Frequent)]
            decisions += _insert_decisions(connection, chain, run, results)
            ends += _update_ends(connection, chain, run)
        else:
            for submission in group:
                results.append(_apply_alone(connection, chain, submission))
                others += type(submission) is Register or type(submission) is Resolve
    after = Head(chain.seq, chain.hash, head.adopted_seq)
    if after.seq != head.seq:
        write_head(connection, after)
    return Applied(results, decisions, ends, others, after)


def _is_frequent(submission: Submission) -> bool:
    return type(submission) in _FREQUENT


def _insert_decisions(
    connection: sqlite3.Connection, chain: Chain, run: Sequence[_Frequent], results: list[Result]
) -> int:
    """Insert a run's decisions, and append each submission's result; return how many decisions went in."""
    offered: list[DecisionRow] = []
    for one in run:
        if type(one) is Decide:
            offered.append(one.row)
        elif type(one) is DecideAll:
            offered.extend(one.rows)
    inserted = 0
    standing: dict[str, Decision] = {}
    if offered:
        seq_before = chain.seq
        rows = chain.seal(DECISION, offered)
        inserted = connection.executemany(_INSERT_DECISION, rows).rowcount
        if inserted != len(offered):
            connection.execute(_DELETE_RUN, (seq_before,))
            chain.rewind(rows[0])
            inserted = sum(_goes_in(connection, chain, DECISION, row, _INSERT_DECISION) for row in offered)
            standing = _standing(connection, [values[0] for values, _, _ in offered])
    results.extend([_result(one, standing) for one in run])
    return inserted


def _result(one: _Frequent, standing: Mapping[str, Decision]) -> Result:
    """What a submission's callback is told; ``standing`` is empty when everything offered stands."""
    if type(one) is Decide:
        return standing[one.record.gtrid] if standing else one.record.decision
    if type(one) is DecideAll:
        gtrids = one.records.gtrids
        return [standing[gtrid] for gtrid in gtrids] if standing else [Decision.COMMIT] * len(gtrids)
    return None


def _goes_in(connection: sqlite3.Connection, chain: Chain, kind: bytes, row: Row, statement: str) -> bool:
    """Write one record, if nothing stands in its way; tell whether it took its place in the chain."""
    stored = chain.seal_one(kind, row)
    if connection.execute(statement, stored).rowcount == 1:
        return True
    chain.rewind(stored)
    return False


def _standing(connection: sqlite3.Connection, gtrids: Sequence[str]) -> dict[str, Decision]:
    standing = {}
    for gtrid in gtrids:
        (row,) = connection.execute(_SELECT_DECISION, (gtrid,)).fetchall()
        standing[gtrid] = read_decision(row).decision
    return standing


def _update_ends(connection: sqlite3.Connection, chain: Chain, run: Sequence[_Frequent]) -> int:
    """Write a run's ends; return how many had a decision without one."""
    rows: list[EndRow] = []
    for one in run:
        if type(one) is End:
            rows.append(one.row)
        elif type(one) is EndAll:
            rows.extend(one.rows)
    if not rows:
        return 0
    seq_before = chain.seq
    stored = chain.seal(END, rows)
    updated = connection.executemany(_UPDATE_END, stored).rowcount
    if updated == len(rows):
        return updated
    connection.executemany(_UNDO_END, [(values[-1], seq_before) for values, _, _ in rows])
    chain.rewind(stored[0])
    return sum(_goes_in(connection, chain, END, row, _UPDATE_END) for row in rows)


def _apply_alone(connection: sqlite3.Connection, chain: Chain, submission: Submission) -> Result:
    match submission:
        case Register(record=participant, row=row):
            drop_replaced(connection, chain, participant.resource, participant.instance, participant.address)
            connection.execute(_INSERT_PARTICIPANT, chain.seal_one(PARTICIPANT, row))
        case Resolve(row=row):
            connection.execute(_INSERT_RESOLUTION, chain.seal_one(RESOLUTION, row))
        case Forget(gtrid=gtrid):
            return _forget(connection, chain, gtrid)
        case RaiseHorizon(horizon_unix_ms=horizon_unix_ms):
            if raise_horizon(connection, horizon_unix_ms):
                close_gaps(connection, chain, [])
        case DropEnded(horizon_unix_ms=horizon_unix_ms, limit=limit):
            return drop_ended(connection, chain, horizon_unix_ms, limit)
        case Decide() | End() | DecideAll() | EndAll():
            raise TypeError(f"applied in runs: {submission}")
    return None


def _forget(connection: sqlite3.Connection, chain: Chain, gtrid: str) -> LogRefused | None:
    rows = connection.execute(_SELECT_DECISION, (gtrid,)).fetchall()
    if not rows or rows[0][12] == FORGOTTEN:
        return LogRefused(f"{gtrid} is not in the log")
    known = read_transaction(rows[0])
    if known.end is None:
        return LogRefused(f"{gtrid} has not ended: some branch may still need its decision")
    connection.execute(_UPDATE_TOMBSTONE, chain.seal_one(END, tombstone_row(gtrid, known.end.ended_unix_ms)))
    close_gaps(connection, chain, end_of(rows[0]))
    return None
