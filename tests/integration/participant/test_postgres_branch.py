"""One branch over a real Postgres: what PREPARE promises, and how every failure of it becomes an honest answer."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from chaos.stack import PostgresCluster, Stack
from handfast.catalog import HandfastFault
from participant.config import ParticipantOptions
from participant.postgres import PostgresResource
from participant.protocol import Fate
from participant.resource import Prepared, ReadOnly
from tests.integration.participant.accounts_database import BQUAL, OPTIONS, Database, add, add_unseen
from tests.waiting import eventually

LONG_S = 30.0

Change = Callable[[psycopg.AsyncConnection[Any], int], Awaitable[None]]


async def test_a_prepared_branch_is_invisible_and_keeps_no_connection(
    resource: PostgresResource, database: Database
) -> None:
    xid = database.xid()
    branch = await resource.begin(xid, LONG_S)
    await add(branch.connection, 5)
    made = await branch.prepare()
    assert isinstance(made, Prepared)
    assert made.proof.startswith("pg:")
    assert database.prepared() == [xid.gid()]
    assert (database.value(), resource.work_connections) == (100, 0)


@pytest.mark.parametrize(
    ("decision", "fate", "value"), [("commit", Fate.COMMITTED, 105), ("rollback", Fate.ABORTED, 100)]
)
async def test_a_prepared_branch_ends_as_told(
    resource: PostgresResource, database: Database, decision: str, fate: Fate, value: int
) -> None:
    xid = database.xid()
    branch = await resource.begin(xid, LONG_S)
    await add(branch.connection, 5)
    made = await branch.prepare()
    assert isinstance(made, Prepared)
    finish = resource.commit_prepared if decision == "commit" else resource.rollback_prepared
    assert (await finish(xid, made.proof)).fate is fate
    assert (database.value(), database.prepared()) == (value, [])


async def test_a_branch_that_changed_nothing_is_read_only_and_takes_no_slot(
    resource: PostgresResource, database: Database
) -> None:
    branch = await resource.begin(database.xid(), LONG_S)
    await branch.connection.execute("SELECT value FROM account")
    assert await branch.prepare() == ReadOnly()
    assert (database.prepared(), database.sessions("idle in transaction")) == ([], 0)


async def test_prepare_of_a_failed_transaction_is_no_vote_although_postgres_raises_nothing(
    resource: PostgresResource, database: Database
) -> None:
    branch = await resource.begin(database.xid(), LONG_S)
    await add_unseen(branch.connection, 5)
    await branch.settle()  # sound so far
    held = branch._connection
    with pytest.raises(psycopg.errors.UndefinedTable):
        await held.execute("SELECT * FROM nowhere")
    with pytest.raises(HandfastFault) as refused:
        await branch.prepare()
    assert (refused.value.code, database.prepared()) == ("PREPARE_FAILED", [])
    assert "ROLLBACK" in refused.value.message


async def test_an_error_caught_inside_the_branch_is_found_before_prepare(
    resource: PostgresResource, database: Database
) -> None:
    branch = await resource.begin(database.xid(), LONG_S)
    with pytest.raises(psycopg.errors.CheckViolation):
        await add(branch.connection, -500)
    with pytest.raises(HandfastFault) as refused:
        await branch.settle()
    assert refused.value.code == "BRANCH_FAILED"
    await branch.rollback()


async def test_work_that_commits_by_itself_can_not_be_prepared(resource: PostgresResource, database: Database) -> None:
    branch = await resource.begin(database.xid(), LONG_S)
    await branch.connection.execute("COMMIT")
    await add(branch.connection, 5)  # psycopg has begun another transaction, quietly
    with pytest.raises(HandfastFault) as refused:
        await branch.prepare()
    assert (refused.value.code, database.prepared(), database.value()) == ("BRANCH_FAILED", [], 100)


async def test_a_transaction_that_took_the_place_of_the_branch_s_is_prepared_for_nobody(
    resource: PostgresResource, database: Database
) -> None:
    branch = await resource.begin(database.xid(), LONG_S)
    await branch.connection.execute("COMMIT; BEGIN")
    await add(branch.connection, 5)
    with pytest.raises(HandfastFault) as refused:
        await branch.prepare()
    assert (refused.value.code, database.prepared(), database.value()) == ("BRANCH_FAILED", [], 100)
    assert resource.work_connections == 0


async def test_a_statement_that_says_wrongly_that_it_changed_something_leaves_a_read_only_branch(
    resource: PostgresResource, database: Database
) -> None:
    database.execute("CREATE VIEW shown AS SELECT * FROM account")
    database.execute(
        "CREATE OR REPLACE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';"
        "CREATE TRIGGER nothing INSTEAD OF UPDATE ON shown FOR EACH ROW EXECUTE FUNCTION nothing()"
    )
    branch = await resource.begin(database.xid(), LONG_S)
    cursor = await branch.connection.execute("UPDATE shown SET value = 7 WHERE id = 1")
    assert cursor.statusmessage == "UPDATE 1"
    assert await branch.prepare() == ReadOnly()
    assert (database.prepared(), database.value(), resource.work_connections) == ([], 100, 0)


@pytest.mark.parametrize("change", [add, add_unseen])
async def test_what_changed_something_is_prepared_whether_its_statement_said_so_or_not(
    resource: PostgresResource, database: Database, change: Change
) -> None:
    xid = database.xid()
    branch = await resource.begin(xid, LONG_S)
    await change(branch.connection, 5)
    await branch.settle()
    made = await branch.prepare()
    assert isinstance(made, Prepared)
    assert (await resource.commit_prepared(xid, made.proof)).fate is Fate.COMMITTED
    assert (await resource.commit_prepared(xid, made.proof)).evidence.endswith("committed")  # the proof is its own


@pytest.mark.parametrize("method", ["commit", "rollback"])
async def test_commit_and_rollback_of_the_connection_are_refused(
    resource: PostgresResource, database: Database, method: str
) -> None:
    branch = await resource.begin(database.xid(), LONG_S)
    with pytest.raises(psycopg.ProgrammingError, match="branch"):
        await getattr(branch.connection, method)()
    await branch.rollback()


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("CREATE TEMP TABLE scratch (n int)", "temporary"),
        ("NOTIFY somebody", "NOTIFY"),
        ("DECLARE held CURSOR WITH HOLD FOR SELECT 1", "WITH HOLD"),
        ("SELECT pg_advisory_lock(7), pg_advisory_xact_lock(7)", "lock"),
    ],
)
async def test_what_postgres_can_not_prepare_is_a_no_that_names_the_cause(
    resource: PostgresResource, database: Database, statement: str, named: str
) -> None:
    branch = await resource.begin(database.xid(), LONG_S)
    await branch.connection.execute(statement.encode())
    await add(branch.connection, 5)
    with pytest.raises(HandfastFault) as refused:
        await branch.prepare()
    assert refused.value.code == "PREPARE_UNSUPPORTED"
    assert named in refused.value.message


async def test_a_deferred_constraint_that_fails_is_a_no(resource: PostgresResource, database: Database) -> None:
    database.execute("ALTER TABLE account ADD COLUMN boss int REFERENCES account DEFERRABLE INITIALLY DEFERRED")
    branch = await resource.begin(database.xid(), LONG_S)
    await branch.connection.execute("UPDATE account SET boss = 4711 WHERE id = 1")
    with pytest.raises(HandfastFault) as refused:
        await branch.prepare()
    assert (refused.value.code, database.prepared()) == ("CONSTRAINT_VIOLATED", [])


async def test_without_a_free_slot_the_vote_is_no_and_the_connection_is_free(stack: Stack) -> None:
    cluster = stack.start(PostgresCluster("one-slot", stack.path, max_prepared_transactions=1, fsync=False))
    database = Database(cluster, "postgres")
    database.execute("CREATE TABLE account (id int PRIMARY KEY, value int)")
    resource = PostgresResource(cluster.dsn(), OPTIONS)
    await resource.open(BQUAL)
    first, second = await resource.begin(database.xid(), LONG_S), await resource.begin(database.xid(), LONG_S)
    await first.connection.execute("INSERT INTO account VALUES (1)")
    await second.connection.execute("INSERT INTO account VALUES (2)")
    await first.prepare()
    with pytest.raises(HandfastFault) as refused:
        await second.prepare()
    assert (refused.value.code, resource.work_connections) == ("SLOTS_EXHAUSTED", 0)
    await resource.close()
    cluster.close()


async def test_with_prepared_transactions_disabled_the_vote_says_so(stack: Stack) -> None:
    cluster = stack.start(PostgresCluster("no-slots", stack.path, max_prepared_transactions=0, fsync=False))
    resource = PostgresResource(cluster.dsn(), OPTIONS)
    await resource.open(BQUAL)
    branch = await resource.begin(Database(cluster, "postgres").xid(), LONG_S)
    await branch.connection.execute("CREATE TABLE account (id int)")
    with pytest.raises(HandfastFault) as refused:
        await branch.prepare()
    findings = {finding.check: finding for finding in await resource.inspect()}
    assert refused.value.code == "PREPARED_DISABLED"
    assert findings["max_prepared_transactions"].severity.name == "ERROR"
    assert "restart" in findings["max_prepared_transactions"].mend
    await resource.close()
    cluster.close()


async def test_waiting_for_a_lock_ends_at_the_lock_timeout(resource: PostgresResource, database: Database) -> None:
    first, second = await resource.begin(database.xid(), LONG_S), await resource.begin(database.xid(), 0.3)
    await add(first.connection, 1)
    with pytest.raises(psycopg.errors.LockNotAvailable) as failed:
        await add(second.connection, 1)
    fault = resource.fault_of(failed.value, database.xid(), "accounts")
    assert fault is not None
    assert fault.code == "LOCK_TIMEOUT"
    await second.rollback()
    await first.rollback()


async def test_a_one_phase_commit_is_one_commit(resource: PostgresResource, database: Database) -> None:
    branch = await resource.begin(database.xid(), LONG_S)
    await add(branch.connection, 5)
    proof = await branch.commit()
    assert (database.value(), database.prepared()) == (105, [])
    assert proof.startswith("pg:")


async def test_the_work_pool_has_an_end_and_says_so(database: Database) -> None:
    resource = PostgresResource(database.dsn, ParticipantOptions(connections_max=1, connection_wait_s=0.05))
    await resource.open(BQUAL)
    branch = await resource.begin(database.xid(), LONG_S)
    with pytest.raises(HandfastFault) as refused:
        await resource.begin(database.xid(), LONG_S)
    assert refused.value.code == "CONNECTIONS_EXHAUSTED"
    await branch.rollback()
    await (await resource.begin(database.xid(), LONG_S)).rollback()
    await resource.close()


async def test_a_connection_that_died_while_idle_is_replaced(resource: PostgresResource, database: Database) -> None:
    await (await resource.begin(database.xid(), LONG_S)).rollback()
    database.end_sessions()
    branch = await resource.begin(database.xid(), LONG_S)
    await add(branch.connection, 1)
    assert isinstance(await branch.prepare(), Prepared)


async def test_a_missing_database_is_a_no_and_a_finding(resource: PostgresResource, database: Database) -> None:
    gone = PostgresResource(database.cluster.dsn("nowhere"), OPTIONS)
    await gone.open(BQUAL)
    with pytest.raises(HandfastFault) as refused:
        await gone.begin(database.xid(), LONG_S)
    assert refused.value.code == "DATABASE_UNREACHABLE"
    assert [finding.severity.name for finding in await gone.inspect()] == ["ERROR"]
    await gone.close()


async def test_abandoning_ends_the_statement_and_its_locks(resource: PostgresResource, database: Database) -> None:
    first, second = await resource.begin(database.xid(), LONG_S), await resource.begin(database.xid(), LONG_S)
    await add(first.connection, 1)
    await add(second.connection, 1, id=2)
    waiting = asyncio.create_task(add(second.connection, 1))
    await eventually(lambda: database.fetch("SELECT 1 FROM pg_locks WHERE NOT granted") != [])
    await second.abandon("the test says so")
    with pytest.raises(psycopg.Error):
        await waiting
    await eventually(lambda: database.sessions("idle in transaction") == 1)
    assert resource.work_connections == 1
    await first.rollback()


async def test_abandoning_too_late_leaves_the_next_user_of_the_connection_alone(database: Database) -> None:
    resource = PostgresResource(database.dsn, replace(OPTIONS, connections_max=1))
    await resource.open(BQUAL)
    for how in ("rollback", "prepare", "commit"):
        first = await resource.begin(database.xid(), LONG_S)
        await first.connection.execute("SELECT value FROM account")
        await getattr(first, how)()
        second = await resource.begin(database.xid(), LONG_S)
        working = asyncio.create_task(add(second.connection, 5))
        await first.abandon("too late")
        await working
        assert isinstance(await second.prepare(), Prepared)
        database.end_prepared()
    await resource.close()


async def test_abandoning_cancels_the_statement_where_the_server_would_not_notice(database: Database) -> None:
    resource = PostgresResource(database.dsn, ParticipantOptions(alive_check_ms=0))
    await resource.open(BQUAL)
    branch = await resource.begin(database.xid(), LONG_S)
    await add(branch.connection, 1)
    working = asyncio.create_task(branch.connection.execute("SELECT pg_sleep(60)"))
    await eventually(lambda: database.sessions("active") == 2)
    await branch.abandon("the test says so")
    await asyncio.gather(working, return_exceptions=True)
    await eventually(lambda: database.fetch("SELECT 1 FROM pg_locks WHERE relation = 'account'::regclass") == [])
    assert resource.work_connections == 0
    await resource.close()
