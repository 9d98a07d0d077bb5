"""A log's steps from schema to schema: each once, whole or not at all, in a book that earlier versions can read too."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest

from coordinator.log.migrations import TABLE, Migrations


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        yield connection


@pytest.fixture
def steps() -> Migrations:
    steps = Migrations("ours")

    @steps.step
    def m001(connection: sqlite3.Connection) -> None:
        connection.execute("CREATE TABLE one (number INTEGER)")

    @steps.step
    def m002(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO one VALUES (2)")

    return steps


def test_each_step_is_taken_once(connection: sqlite3.Connection, steps: Migrations) -> None:
    steps.apply(connection, stop_before="m002")
    assert steps.applied(connection) == ["m001"]
    for _ in range(2):
        steps.apply(connection)
    assert steps.applied(connection) == steps.names == ["m001", "m002"]
    assert connection.execute("SELECT number FROM one").fetchall() == [(2,)]


def test_a_step_that_fails_is_undone_with_its_line_in_the_book(
    connection: sqlite3.Connection, steps: Migrations
) -> None:
    @steps.step
    def m003(connection: sqlite3.Connection) -> None:
        connection.execute("CREATE TABLE three (number INTEGER)")
        connection.execute("INSERT INTO nowhere VALUES (3)")

    with pytest.raises(sqlite3.OperationalError, match="nowhere"):
        steps.apply(connection)
    assert steps.applied(connection) == ["m001", "m002"]
    assert not connection.in_transaction
    assert connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'three'").fetchall() == []


def test_to_look_at_a_file_writes_nothing_into_it(connection: sqlite3.Connection, steps: Migrations) -> None:
    assert steps.applied(connection) == []
    assert connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)


def test_the_book_that_sqlite_utils_has_kept_is_read_and_gone_on_with(
    connection: sqlite3.Connection, steps: Migrations
) -> None:
    for statement in (
        f'CREATE TABLE "{TABLE}" ("id" INTEGER PRIMARY KEY, "migration_set" TEXT, "name" TEXT, "applied_at" TEXT)',
        f'CREATE UNIQUE INDEX "idx_{TABLE}_migration_set_name" ON "{TABLE}" ("migration_set", "name")',
        f"INSERT INTO {TABLE} VALUES (1, 'ours', 'm001', '2026-11-20 12:14:21.863346+00:00')",
        f"INSERT INTO {TABLE} VALUES (2, 'of another', 'm002', '2026-11-20 12:14:21.863346+00:00')",
        "CREATE TABLE one (number INTEGER)",
    ):
        connection.execute(statement)
    steps.apply(connection)
    assert steps.applied(connection) == ["m001", "m002"]
    schema = connection.execute("SELECT count(*) FROM sqlite_master WHERE tbl_name = ?", (TABLE,)).fetchone()
    assert schema == (2,), "its own table and index, and no second ones"
