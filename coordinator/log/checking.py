"""What is checked before a coordinator believes its log.

A start reads what it needs anyway: whose log it is, the decisions that branches still wait for, and the newest records,
which are where a crash or a copy made at the wrong moment leaves its marks. So it takes the same time whatever the log
holds. Everything else is compared with its checksum when it is read, and walked by ``handfast log verify``.

One wrong record stops the start. A coordinator that went on without it would presume an abort where there was a commit.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from coordinator.log.chain import DamagedHead, Head, read_head
from coordinator.log.chained import newest
from coordinator.log.identity import DamagedIdentity, Life, read_life
from coordinator.log.retention import gaps_digest, read_gaps
from coordinator.log.rows import STORED_COLUMNS, read_decision
from coordinator.log.walk import Finding, Walk, Wrong
from handfast.catalog import HandfastFault

TAIL_RECORDS = 1000
"""How many of the newest records a start walks; some 15 ms."""

_SELECT_UNENDED = f"SELECT {STORED_COLUMNS} FROM decision WHERE ended_unix_ms IS NULL"


def check_at_start(connection: sqlite3.Connection, path: str) -> None:
    """Refuse a log in which something that the start reads is not as it was written.

    Args:
        connection: to the log, migrated.
        path: the log's, for messages.

    Raises:
        DamagedRow: a decision that branches wait for fails its checksum.
        DamagedIdentity: the row that says whose log it is does.
        HandfastFault: LOG_RECORD_DAMAGED or LOG_CHAIN_BROKEN.
    """
    for row in connection.execute(_SELECT_UNENDED).fetchall():
        read_decision(row)
    try:
        head = read_head(connection)
        life = read_life(connection)
    except DamagedHead as error:
        raise HandfastFault("LOG_CHAIN_BROKEN", path=path, problem=error) from error
    from_seq = max(1, head.seq - TAIL_RECORDS + 1)
    records = newest(connection, head.seq, TAIL_RECORDS)
    for findings in (Walk(from_seq).along(records, head), check_books(connection, life)):
        for found in findings:
            raise as_fault(found, path)


def as_fault(found: Finding, path: str) -> HandfastFault:
    """The finding as an entry of the catalog."""
    code = "LOG_RECORD_DAMAGED" if found.wrong is Wrong.DAMAGED else "LOG_CHAIN_BROKEN"
    return HandfastFault(code, gtrid=found.gtrid, path=path, problem=found.problem)


def check_books(connection: sqlite3.Connection, life: Life | None) -> Iterator[Finding]:
    """Compare the rows that are replaced rather than appended with what the chain says of them.

    Args:
        connection: to the log.
        life: its coordinator's row; None in a log that has only just been created.
    """
    rows = connection.execute("SELECT epoch, coordinator_id FROM life ORDER BY epoch DESC LIMIT 1").fetchall()
    if life is not None and rows and rows[0] != (life.epoch, life.coordinator_id):
        yield _contradiction(
            f"the log's owner is coordinator {life.coordinator_id} in epoch {life.epoch}, and the start of its newest "
            f"life says {rows[0][1]} in epoch {rows[0][0]}"
        )
    checkpoints = connection.execute("SELECT horizon_unix_ms, digest FROM checkpoint").fetchall()
    horizon_unix_ms = 0 if life is None else life.horizon_unix_ms
    gaps = read_gaps(connection)
    if len(checkpoints) > 1:
        yield _contradiction(f"there are {len(checkpoints)} checkpoints instead of one")
    elif not checkpoints and (gaps or horizon_unix_ms):
        yield _contradiction("records were dropped, and no checkpoint says so")
    for horizon, digest in checkpoints[:1]:
        if horizon != horizon_unix_ms:
            yield _contradiction(f"the horizon is {horizon_unix_ms}, and the newest checkpoint says {horizon}")
        if digest != gaps_digest(gaps):
            yield _contradiction("the rows of `dropped` are not those of which the newest checkpoint made a digest")


def read_books(connection: sqlite3.Connection) -> tuple[Head | None, Life | None, list[Finding]]:
    """Read where the chain ends and whose log it is, and tell what of that is damaged."""
    found: list[Finding] = []
    head: Head | None = None
    life: Life | None = None
    try:
        head = read_head(connection)
    except DamagedHead as error:
        found.append(_contradiction(str(error)))
    try:
        life = read_life(connection)
    except DamagedIdentity as error:
        found.append(_contradiction(str(error)))
    return head, life, found


def _contradiction(problem: str) -> Finding:
    return Finding(Wrong.BOOKS, "", None, "", problem)
