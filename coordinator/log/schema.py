"""The tables of a SQLite log, and how an older log becomes a current one.

One row per decided transaction holds its decision and, later, its end. Every record has its place in the chain
(``chain``): ``seq`` counts through all tables, so it also gives the order in which decisions were taken; ``prev`` is
the hash of the record before. The index on ``ended_unix_ms`` serves both ends of a transaction's life: what has not
ended stands under NULL, in the order of ``seq``, and what has ended long ago stands first after that. So neither
recovery nor retention reads what does not concern it, and opening a log takes the same time whatever it holds.
There is no index on ``end_seq``: it would cost every transaction more than it saves the few who walk the chain.

Migrations only ever go forward. A log that names a migration unknown here was written by a newer Handfast.
"""

from __future__ import annotations

import sqlite3

from coordinator.log.adopting import adopt
from coordinator.log.migrations import Migrations
from handfast.catalog import HandfastFault

APPLICATION_ID = 0x48464C47
"""Says in the file's header that it is ours ("HFLG")."""

migrations = Migrations("handfast-log")


@migrations.step
def m001_decision_log(connection: sqlite3.Connection) -> None:
    """The first schema."""
    for statement in (
        f"PRAGMA application_id = {APPLICATION_ID}",
        """
        CREATE TABLE decision (
            seq             INTEGER PRIMARY KEY,
            gtrid           TEXT NOT NULL UNIQUE,
            decision        TEXT NOT NULL,     -- commit | abort
            decided_unix_ms INTEGER NOT NULL,
            begun_unix_ms   INTEGER NOT NULL,
            client          TEXT NOT NULL,
            branches        TEXT NOT NULL,     -- JSON: bqual, proof, bqual, proof, ...
            crc             INTEGER NOT NULL,  -- CRC-32 over gtrid and all of the above
            outcome         TEXT,              -- these four are NULL until it has ended
            ended_unix_ms   INTEGER,
            evidence        TEXT,
            end_crc         INTEGER            -- CRC-32 over gtrid, outcome, ended_unix_ms and evidence
        )
        """,
        "CREATE INDEX decision_by_end ON decision (ended_unix_ms)",
        """
        CREATE TABLE participant (
            resource           TEXT NOT NULL,
            instance           TEXT NOT NULL,
            address            TEXT NOT NULL,
            kind               TEXT NOT NULL,
            operations         TEXT NOT NULL,  -- JSON: names
            registered_unix_ms INTEGER NOT NULL,
            PRIMARY KEY (resource, instance)
        )
        """,
        """
        CREATE TABLE resolution (
            seq          INTEGER PRIMARY KEY,
            gtrid        TEXT NOT NULL,
            action       TEXT NOT NULL,        -- commit | rollback | retry-now | forget
            heuristic    INTEGER NOT NULL,
            operator     TEXT NOT NULL,
            reason       TEXT NOT NULL,
            state_before TEXT NOT NULL,
            state_after  TEXT NOT NULL,
            unix_ms      INTEGER NOT NULL
        )
        """,
        "CREATE INDEX resolution_by_gtrid ON resolution (gtrid)",
        """
        CREATE TABLE coordinator (             -- exactly one row
            coordinator_id  TEXT NOT NULL,
            epoch           INTEGER NOT NULL,
            horizon_unix_ms INTEGER NOT NULL,
            crc             INTEGER NOT NULL   -- CRC-32 over the above
        )
        """,
    ):
        connection.execute(statement)


@migrations.step
def m002_lives(connection: sqlite3.Connection) -> None:
    """When each life started. Lives from before this migration have no row."""
    connection.execute(
        """
        CREATE TABLE life (
            epoch           INTEGER PRIMARY KEY,
            started_unix_ms INTEGER NOT NULL
        )
        """
    )


@migrations.step
def m003_chain(connection: sqlite3.Connection) -> None:
    """A place in the chain for each record."""
    execute = connection.execute
    for index in ("decision_by_end", "resolution_by_gtrid"):
        execute(f"DROP INDEX {index}")
    moved = ("decision", "participant", "resolution", "life")
    for table in moved:
        execute(f"ALTER TABLE {table} RENAME TO {table}_before")
    for statement in _CHAINED:
        execute(statement)
    adopt(connection)
    for table in moved:
        execute(f"DROP TABLE {table}_before")


_PLACE = """
            seq             INTEGER PRIMARY KEY,  -- position in the chain, counted through all tables
            prev            BLOB NOT NULL,        -- hash of the record before
            crc             INTEGER NOT NULL,     -- CRC-32 over the record, its position and prev
"""
_CHAINED = (
    f"""
        CREATE TABLE decision ({_PLACE}
            gtrid           TEXT NOT NULL UNIQUE,
            decision        TEXT NOT NULL,        -- commit | abort
            decided_unix_ms INTEGER NOT NULL,
            begun_unix_ms   INTEGER NOT NULL,
            client          TEXT NOT NULL,
            branches        TEXT NOT NULL,        -- JSON: bqual, proof, bqual, proof, ...
            end_seq         INTEGER,              -- from here on: the end, a record of its own; NULL until then
            end_prev        BLOB,
            end_crc         INTEGER,
            outcome         TEXT,
            ended_unix_ms   INTEGER,
            evidence        TEXT
        )
    """,
    "CREATE INDEX decision_by_end ON decision (ended_unix_ms)",
    f"""
        CREATE TABLE participant ({_PLACE}
            resource           TEXT NOT NULL,
            instance           TEXT NOT NULL,
            address            TEXT NOT NULL,
            kind               TEXT NOT NULL,
            operations         TEXT NOT NULL,     -- JSON: names
            registered_unix_ms INTEGER NOT NULL,
            UNIQUE (resource, instance)
        )
    """,
    f"""
        CREATE TABLE resolution ({_PLACE}
            gtrid        TEXT NOT NULL,
            action       TEXT NOT NULL,           -- commit | rollback | retry-now | forget
            heuristic    INTEGER NOT NULL,
            operator     TEXT NOT NULL,
            reason       TEXT NOT NULL,
            state_before TEXT NOT NULL,
            state_after  TEXT NOT NULL,
            unix_ms      INTEGER NOT NULL
        )
    """,
    "CREATE INDEX resolution_by_gtrid ON resolution (gtrid)",
    f"""
        CREATE TABLE life ({_PLACE}
            epoch           INTEGER NOT NULL UNIQUE,
            started_unix_ms INTEGER NOT NULL,
            coordinator_id  TEXT NOT NULL
        )
    """,
    f"""
        CREATE TABLE checkpoint ({_PLACE}         -- one row, or none
            horizon_unix_ms INTEGER NOT NULL,     -- as in coordinator
            digest          BLOB NOT NULL         -- of all rows of dropped
        )
    """,
    """
        CREATE TABLE dropped (                    -- positions whose records were lawfully dropped
            first_seq   INTEGER PRIMARY KEY,
            last_seq    INTEGER NOT NULL UNIQUE,
            before_hash BLOB NOT NULL,            -- hash of the record before the first
            hash        BLOB NOT NULL             -- hash of the last
        )
    """,
    """
        CREATE TABLE head (                       -- exactly one row: where the chain ends
            seq         INTEGER NOT NULL,
            hash        BLOB NOT NULL,
            adopted_seq INTEGER NOT NULL,         -- up to here there was no chain when it was written
            crc         INTEGER NOT NULL          -- CRC-32 over the above
        )
    """,
)


def refuse_foreign(connection: sqlite3.Connection, path: str) -> None:
    """Keep our hands off a database that some other application made.

    Raises:
        HandfastFault: LOG_PATH_UNUSABLE.
    """
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if application_id != APPLICATION_ID and tables - {migrations.migrations_table}:
        raise HandfastFault("LOG_PATH_UNUSABLE", path=path, problem="it is a database of another application")


def migrate(connection: sqlite3.Connection, path: str) -> None:
    """Bring the log to the current schema; create it in an empty file.

    Args:
        connection: in autocommit mode.
        path: the log's, for messages.

    Raises:
        HandfastFault: LOG_SCHEMA_NEWER.
    """
    applied, known = refuse_newer(connection, path)
    if applied != known:
        migrations.apply(connection)


def refuse_newer(connection: sqlite3.Connection, path: str) -> tuple[list[str], list[str]]:
    """Compare the migrations that a log has had with those known here; return both.

    Raises:
        HandfastFault: LOG_SCHEMA_NEWER.
    """
    applied, known = migrations.applied(connection), migrations.names
    unknown = [name for name in applied if name not in known]
    if unknown:
        raise HandfastFault("LOG_SCHEMA_NEWER", path=path, found=unknown[-1], known=known[-1])
    return applied, known
