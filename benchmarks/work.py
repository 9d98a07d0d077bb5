"""The work of all benchmarks over Postgres: one UPDATE of one row, and the names by which it is asked for."""

from __future__ import annotations

RESOURCES = ("accounts", "ledger")
DATABASE = "bench"
ROWS = 100_000

SCHEMA = f"""
    CREATE TABLE account (id bigint PRIMARY KEY, balance bigint NOT NULL);
    INSERT INTO account SELECT id, 0 FROM generate_series(1, {ROWS}) AS id;
"""
UPDATE = "UPDATE account SET balance = balance + 1 WHERE id = %s"

OPERATION = "change"
SERVICE = "bench.Work"
CHANGE = "Change"
CHANGE_LOCALLY = "ChangeLocally"


def row_of(number: int) -> int:
    """The row that the transaction of this number changes: no two that run at the same time share one."""
    return number % ROWS + 1
