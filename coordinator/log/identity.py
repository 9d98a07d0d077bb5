"""The one row that says whose log this is, in which of its lives, and how far back it remembers; and when each life
started.

An epoch that went back would make recovery take the living for the dead, an id that changed would leave every prepared
branch without a coordinator, and a horizon that went back would have commits that were dropped presumed to be aborts.
So the row has a checksum; and since it is replaced rather than appended, the chain has its content too: each life's
start is a record with the id and the epoch, and each checkpoint has the horizon (``retention``).
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace

from coordinator.log.chain import LIFE, Chain, Head, read_head, write_head
from coordinator.log.records import Identity
from handfast.catalog import HandfastFault
from handfast.xid import is_gtrid


@dataclass(frozen=True, slots=True)
class Life:
    """The row.

    Args:
        coordinator_id: made once.
        epoch: how many times the log was opened.
        horizon_unix_ms: since when every decision is remembered, in milliseconds since 1970.
    """

    coordinator_id: str
    epoch: int
    horizon_unix_ms: int

    @property
    def identity(self) -> Identity:
        """The part that others see."""
        return Identity(self.coordinator_id, self.epoch)

    def crc(self) -> int:
        """The row's checksum."""
        return zlib.crc32(f"{self.coordinator_id}\0{self.epoch}\0{self.horizon_unix_ms}".encode())


class DamagedIdentity(Exception):
    """The row is not what was written."""


def begin_life(
    connection: sqlite3.Connection,
    path: str,
    *,
    make_coordinator_id: Callable[[], str],
    unix_ms: Callable[[], int],
    expected_coordinator_id: str | None,
) -> Life:
    """Raise the epoch, durably; in a new log, make the coordinator's id first.

    Args:
        connection: in autocommit mode.
        path: the log's, for messages.
        make_coordinator_id: asked when the log is new.
        unix_ms: tells when the life starts, in milliseconds since 1970.
        expected_coordinator_id: whose log this must be; None accepts any.

    Raises:
        HandfastFault: LOG_OF_ANOTHER.
        DamagedIdentity: the row is missing or fails its checksum.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        life = read_life(connection)
        if expected_coordinator_id is not None and (life is None or life.coordinator_id != expected_coordinator_id):
            found = "nobody yet (it is new)" if life is None else life.coordinator_id
            raise HandfastFault("LOG_OF_ANOTHER", path=path, found=found, expected=expected_coordinator_id)
        life = Life(_check_id(make_coordinator_id()), 0, 0) if life is None else life
        life = replace(life, epoch=life.epoch + 1)
        _write_life(connection, life)
        _append_start(connection, life, unix_ms())
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return life


def raise_horizon(connection: sqlite3.Connection, horizon_unix_ms: int) -> bool:
    """Write the horizon, inside the caller's transaction; a lower one changes nothing.

    Returns:
        Whether it was raised.

    Raises:
        DamagedIdentity: the row is missing or fails its checksum.
    """
    life = read_life(connection)
    if life is None:
        raise DamagedIdentity("the log has lost its coordinator's id")
    if horizon_unix_ms <= life.horizon_unix_ms:
        return False
    _write_life(connection, replace(life, horizon_unix_ms=horizon_unix_ms))
    return True


def read_life(connection: sqlite3.Connection) -> Life | None:
    """Return the row; None in a log that has only just been created.

    Raises:
        DamagedIdentity: the row is missing, is not alone, or fails its checksum.
    """
    rows = connection.execute("SELECT coordinator_id, epoch, horizon_unix_ms, crc FROM coordinator").fetchall()
    if not rows and connection.execute("SELECT 1 FROM decision LIMIT 1").fetchall() == []:
        return None
    if len(rows) != 1:
        raise DamagedIdentity(f"it has {len(rows)} coordinator's ids instead of one")
    life = Life(*rows[0][:3])
    if life.crc() != rows[0][3]:
        raise DamagedIdentity("its coordinator's id, epoch or horizon fails the checksum")
    return life


def life_content(epoch: object, started_unix_ms: object, coordinator_id: object) -> bytes:
    """The start of a life as its seal covers it."""
    return f"{coordinator_id}\0{epoch}\0{started_unix_ms}".encode()


def _append_start(connection: sqlite3.Connection, life: Life, started_unix_ms: int) -> None:
    head = read_head(connection)
    chain = Chain(head)
    values = (life.epoch, started_unix_ms, life.coordinator_id)
    content = life_content(*values)
    connection.execute(
        "INSERT INTO life (seq, prev, crc, epoch, started_unix_ms, coordinator_id) VALUES (?, ?, ?, ?, ?, ?)",
        chain.seal_one(LIFE, (values, content, zlib.crc32(content))),
    )
    write_head(connection, Head(chain.seq, chain.hash, head.adopted_seq))


def _write_life(connection: sqlite3.Connection, life: Life) -> None:
    connection.execute("DELETE FROM coordinator")
    connection.execute(
        "INSERT INTO coordinator (coordinator_id, epoch, horizon_unix_ms, crc) VALUES (?, ?, ?, ?)",
        (life.coordinator_id, life.epoch, life.horizon_unix_ms, life.crc()),
    )


def _check_id(coordinator_id: str) -> str:
    if not is_gtrid(f"{coordinator_id}-1-1-1"):
        raise ValueError(f"no gtrid can begin with the coordinator id {coordinator_id!r}")
    return coordinator_id
