"""Phase two on a work connection that is free: never waited for, never trusted with what only its own can tell."""

from collections.abc import Awaitable, Callable
from typing import Any

import psycopg
import pytest

from handfast.catalog import HandfastFault
from handfast.xid import Xid
from participant.config import ParticipantOptions
from participant.postgres import PostgresResource
from participant.protocol import Fate
from participant.resource import Prepared
from tests.integration.participant.accounts_database import BQUAL, Database, add, add_unseen
from tests.integration.participant.tcp_proxy import TcpProxy

LONG_S = 30.0

Change = Callable[[psycopg.AsyncConnection[Any], int], Awaitable[None]]


async def prepare(resource: PostgresResource, xid: Xid, *statements: str, change: Change = add) -> tuple[str, int]:
    """Prepare a branch; returns its proof, and the server's process that has prepared it."""
    branch = await resource.begin(xid, LONG_S)
    backend_pid = branch.connection.info.backend_pid
    for statement in statements:
        await branch.connection.execute(statement.encode())
    await change(branch.connection, 5)
    made = await branch.prepare()
    assert isinstance(made, Prepared)
    return made.proof, backend_pid


def processes(database: Database) -> dict[int, str]:
    """The server's processes for us, each with its last statement's first word."""
    rows = database.fetch(
        "SELECT pid, split_part(query, ' ', 1) FROM pg_stat_activity"
        " WHERE datname = current_database() AND application_name LIKE 'handfast %'"
    )
    return dict(rows)


@pytest.mark.parametrize("change", [add, add_unseen])
@pytest.mark.parametrize("told", ["COMMIT", "ROLLBACK"])
async def test_the_process_that_prepared_a_lone_branch_ends_it(
    resource: PostgresResource, database: Database, change: Change, told: str
) -> None:
    xid = database.xid()
    proof, backend_pid = await prepare(resource, xid, change=change)
    finish = resource.commit_prepared if told == "COMMIT" else resource.rollback_prepared
    assert (await finish(xid, proof)).fate is (Fate.COMMITTED if told == "COMMIT" else Fate.ABORTED)
    assert (processes(database), database.prepared()) == ({backend_pid: told}, [])
    assert resource.work_connections == 0


async def test_what_work_has_not_left_free_is_not_waited_for(database: Database) -> None:
    resource = PostgresResource(database.dsn, ParticipantOptions(connections_max=2, finish_connections_max=1))
    await resource.open(BQUAL)
    xid = database.xid()
    proof, _ = await prepare(resource, xid)
    at_work = [await resource.begin(database.xid(), LONG_S) for _ in range(2)]
    pids = {branch.connection.info.backend_pid for branch in at_work}
    assert (await resource.commit_prepared(xid, proof)).fate is Fate.COMMITTED
    assert [pid in pids for pid, word in processes(database).items() if word == "COMMIT"] == [False]
    for branch in at_work:
        await branch.rollback()
    await resource.close()


async def test_a_session_whose_commits_are_less_durable_ends_no_branch(
    resource: PostgresResource, database: Database
) -> None:
    """Under another synchronous_commit, COMMIT PREPARED would not wait for a standby, and nothing would show it."""
    first, second = database.xid(), database.xid()
    proof, lax_pid = await prepare(resource, first, "SET synchronous_commit = local")
    await resource.commit_prepared(first, proof)
    assert processes(database)[lax_pid] != "COMMIT"
    proof, backend_pid = await prepare(resource, second, "RESET synchronous_commit")
    await resource.commit_prepared(second, proof)
    assert (backend_pid, processes(database)[lax_pid]) == (lax_pid, "COMMIT")


async def test_what_a_session_may_not_do_a_connection_of_phase_two_does(
    resource: PostgresResource, database: Database
) -> None:
    """A SET outlives its branch, so work's sessions may have lost the right to end it."""
    database.execute("DROP ROLE IF EXISTS waiter")
    database.execute("CREATE ROLE waiter")
    xid = database.xid()
    proof, backend_pid = await prepare(resource, xid)
    branch = await resource.begin(database.xid(), LONG_S)
    assert branch.connection.info.backend_pid == backend_pid
    await branch.connection.execute("SET ROLE waiter")
    await branch.prepare()  # it has changed nothing, and commits
    assert (await resource.commit_prepared(xid, proof)).fate is Fate.COMMITTED
    assert (database.value(), resource.work_connections) == (105, 0)


@pytest.mark.parametrize("done", [True, False], ids=["carried out", "not arrived"])
async def test_a_borrowed_connection_that_breaks_decides_nothing(
    proxied: PostgresResource, proxy: TcpProxy, database: Database, done: bool
) -> None:
    """The second COMMIT PREPARED, on a connection of phase two, ends the branch or has it proved."""
    xid = database.xid()
    proof, _ = await prepare(proxied, xid)
    told: list[bytes] = []

    def first(chunk: bytes) -> bool:
        told.extend([chunk] if b"COMMIT PREPARED" in chunk else [])
        return b"COMMIT PREPARED" in chunk and len(told) == 1

    if done:
        proxy.swallow_reply_after = first
    else:
        proxy.cut_before = first
    end = await proxied.commit_prepared(xid, proof)
    assert (end.fate, "committed" in end.evidence, len(told)) == (Fate.COMMITTED, done, 2)
    assert (database.value(), database.prepared(), proxied.work_connections) == (105, [], 0)


async def test_a_borrowed_connection_that_does_not_answer_in_time_is_closed(
    proxy: TcpProxy, database: Database
) -> None:
    options = ParticipantOptions(connections_max=8, finish_connections_max=2, finish_wait_s=0.2)
    resource = PostgresResource(database.cluster.dsn(database.name, port=proxy.port), options)
    await resource.open(BQUAL)
    xid = database.xid()
    proof, _ = await prepare(resource, xid)
    proxy.stalled = True
    with pytest.raises(HandfastFault, match="did not answer in time"):
        await resource.commit_prepared(xid, proof)
    assert resource.work_connections == 0
    proxy.stalled = False
    assert (await resource.commit_prepared(xid, proof)).fate is Fate.COMMITTED
    await resource.close()
