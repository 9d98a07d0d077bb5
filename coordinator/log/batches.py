"""What a batch of submissions does to the tables, inside a transaction that the caller begins and commits.

Decisions and ends make up nearly all of the traffic, so a run of them is written with one ``executemany`` each. Every
other submission is applied on its own, in its place between the runs.

The register is written once: ``ON CONFLICT DO NOTHING`` leaves the decision that stands, inside one batch as well. When
every row went in, each offer stands; only when some did not (a repeated Commit, an operator who was faster) does anyone
need to read which ones do.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from itertools import groupby

from coordinator.log.identity import raise_horizon
from coordinator.log.rows import EndRow, read_decision, read_transaction, tombstone_row
from coordinator.log.store import LogRefused
from coordinator.log.submissions import (
    Applied,
    Decide,
    DropEnded,
    End,
    Forget,
    RaiseHorizon,
    Register,
    Resolve,
    Result,
    Submission,
)
from coordinator.protocol.states import Decision

FORGOTTEN = "forgotten"
"""Stands for the outcome of an ended transaction that an operator had forgotten. The row stays, so that its decision
still stands against a later offer and nobody takes its absence for an abort; retention removes it in time."""

STORED_COLUMNS = (
    "gtrid, decision, decided_unix_ms, begun_unix_ms, client, branches, crc, outcome, ended_unix_ms, evidence, end_crc"
)

_INSERT_DECISION = """
    INSERT INTO decision (gtrid, decision, decided_unix_ms, begun_unix_ms, client, branches, crc)
    VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (gtrid) DO NOTHING
"""
_SELECT_DECISION = f"SELECT {STORED_COLUMNS} FROM decision WHERE gtrid = ?"
_UPDATE_END = """
    UPDATE decision SET outcome = ?, ended_unix_ms = ?, evidence = ?, end_crc = ?
    WHERE gtrid = ? AND ended_unix_ms IS NULL
"""
_UPDATE_TOMBSTONE = "UPDATE decision SET outcome = ?, ended_unix_ms = ?, evidence = ?, end_crc = ? WHERE gtrid = ?"
DELETE_ENDED = """
    DELETE FROM decision WHERE seq IN
        (SELECT seq FROM decision WHERE ended_unix_ms < ? ORDER BY ended_unix_ms LIMIT ?)
"""
_DELETE_REPLACED = "DELETE FROM participant WHERE resource = ? AND (instance = ? OR address = ?)"
_INSERT_PARTICIPANT = "INSERT INTO participant VALUES (?, ?, ?, ?, ?, ?)"
_INSERT_RESOLUTION = """
    INSERT INTO resolution (gtrid, action, heuristic, operator, reason, state_before, state_after, unix_ms)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?)
"""


def apply_batch(connection: sqlite3.Connection, batch: Sequence[Submission]) -> Applied:
    """Write a batch.

    Raises:
        sqlite3.Error: SQLite can't; the transaction must be rolled back.
        DamagedRow: a decision that stood before fails its checksum.
        DamagedIdentity: the coordinator's row does.
    """
    results: list[Result] = []
    decisions = ends = others = 0
    for frequent, group in groupby(batch, key=_is_frequent):
        if frequent:
            run = [one for one in group if isinstance(one, Decide | End)]
            decisions += _insert_decisions(connection, run, results)
            ends += _update_ends(connection, run)
        else:
            for submission in group:
                results.append(_apply_alone(connection, submission))
                others += type(submission) is Register or type(submission) is Resolve
    return Applied(results, decisions, ends, others)


def last_seq(connection: sqlite3.Connection) -> int:
    """Return the newest decision's number. It tells whether a batch with decisions is in the log."""
    seq: int = connection.execute("SELECT coalesce(max(seq), 0) FROM decision").fetchone()[0]
    return seq


def _is_frequent(submission: Submission) -> bool:
    return type(submission) is Decide or type(submission) is End


def _insert_decisions(connection: sqlite3.Connection, run: Sequence[Decide | End], results: list[Result]) -> int:
    """Insert a run's decisions, and append each submission's result; return how many decisions went in."""
    offered = [one for one in run if type(one) is Decide]
    inserted = 0
    if offered:
        inserted = connection.executemany(_INSERT_DECISION, [one.row for one in offered]).rowcount
    standing = {} if inserted == len(offered) else _standing(connection, offered)
    results.extend(standing.get(one.record.gtrid, one.record.decision) if type(one) is Decide else None for one in run)
    return inserted


def _standing(connection: sqlite3.Connection, offered: Sequence[Decide]) -> dict[str, Decision]:
    standing = {}
    for one in offered:
        (row,) = connection.execute(_SELECT_DECISION, (one.record.gtrid,)).fetchall()
        standing[one.record.gtrid] = read_decision(row).decision
    return standing


def _update_ends(connection: sqlite3.Connection, run: Sequence[Decide | End]) -> int:
    rows: list[EndRow] = [one.row for one in run if type(one) is End]
    return connection.executemany(_UPDATE_END, rows).rowcount if rows else 0


def _apply_alone(connection: sqlite3.Connection, submission: Submission) -> Result:
    match submission:
        case Register(record=participant, row=row):
            connection.execute(_DELETE_REPLACED, (participant.resource, participant.instance, participant.address))
            connection.execute(_INSERT_PARTICIPANT, row)
        case Resolve():
            connection.execute(_INSERT_RESOLUTION, submission.row)
        case Forget(gtrid=gtrid):
            return _forget(connection, gtrid)
        case RaiseHorizon(horizon_unix_ms=horizon_unix_ms):
            raise_horizon(connection, horizon_unix_ms)
        case DropEnded(horizon_unix_ms=horizon_unix_ms, limit=limit):
            return connection.execute(DELETE_ENDED, (horizon_unix_ms, limit)).rowcount
        case Decide() | End():
            raise TypeError(f"applied in runs: {submission}")
    return None


def _forget(connection: sqlite3.Connection, gtrid: str) -> LogRefused | None:
    rows = connection.execute(_SELECT_DECISION, (gtrid,)).fetchall()
    if not rows or rows[0][7] == FORGOTTEN:
        return LogRefused(f"{gtrid} is not in the log")
    known = read_transaction(rows[0])
    if known.end is None:
        return LogRefused(f"{gtrid} has not ended: some branch may still need its decision")
    connection.execute(_UPDATE_TOMBSTONE, tombstone_row(gtrid, FORGOTTEN, known.end.ended_unix_ms))
    return None
