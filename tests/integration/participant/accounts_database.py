"""A database of accounts, as the tests see it from outside."""

from typing import Any

import psycopg

from chaos.stack import PostgresCluster
from handfast.xid import Gtrid, Xid
from participant.config import ParticipantOptions

OPTIONS = ParticipantOptions(
    connections_max=8,
    finish_connections_max=2,
    lock_timeout_s=2,
    retry_max_s=0.5,
    recovery_interval_s=0.1,
    inquire_after_s=0,
)
BQUAL = "accounts.one"


class Database:
    """One database with a table of accounts, and a way to ask it from outside.

    Args:
        cluster: the server.
        name: the database.
    """

    def __init__(self, cluster: PostgresCluster, name: str) -> None:
        self.cluster = cluster
        self.name = name
        self.dsn = cluster.dsn(name)
        self._numbers = 0

    def xid(self, bqual: str = BQUAL, coordinator_id: str = "testcrd2") -> Xid:
        self._numbers += 1
        return Xid(str(Gtrid(coordinator_id, 1, 1_700_000_000_000, self._numbers)), bqual)

    def execute(self, statement: str) -> str:
        return self.cluster.execute(statement.encode(), database=self.name)

    def fetch(self, query: str) -> list[tuple[Any, ...]]:
        return self.cluster.fetch(query.encode(), database=self.name)

    def value(self, id: int = 1) -> int:
        return int(self.fetch(f"SELECT value FROM account WHERE id = {id}")[0][0])

    def prepared(self) -> list[str]:
        rows = self.fetch("SELECT gid FROM pg_prepared_xacts WHERE database = current_database() ORDER BY gid")
        return [gid for (gid,) in rows]

    def sessions(self, state: str) -> int:
        rows = self.fetch(f"SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND state = '{state}'")
        return len(rows)

    def end_prepared(self) -> None:
        for gid in self.prepared():
            self.execute(f"ROLLBACK PREPARED '{gid}'")

    def end_sessions(self) -> None:
        """End every other session of the database, as a crash of their clients would."""
        self.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


async def add(connection: psycopg.AsyncConnection[Any], amount: int, id: int = 1) -> None:
    """The work of these tests: add an amount to an account."""
    await connection.execute("UPDATE account SET value = value + %s WHERE id = %s", (amount, id))


async def add_unseen(connection: psycopg.AsyncConnection[Any], amount: int, id: int = 1) -> None:
    """The same, by a statement that does not say that it has changed something."""
    changing = "WITH changed AS (UPDATE account SET value = value + %s WHERE id = %s RETURNING 1) SELECT 1 FROM changed"
    await connection.execute(changing, (amount, id))
