"""Connections that break around PREPARE and COMMIT (pgjdbc 4438): unknown is not no, until somebody has looked."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import psycopg
import pytest

from chaos.stack import PostgresCluster, Stack
from handfast.catalog import HandfastFault
from participant.postgres import PostgresResource
from participant.postgres.branch import PostgresBranch
from participant.protocol import Fate
from participant.resource import AnswerLost, Prepared, Stand
from tests.integration.participant.accounts_database import BQUAL, OPTIONS, Database, add, add_unseen
from tests.integration.participant.tcp_proxy import TcpProxy
from tests.waiting import eventually

LONG_S = 30.0

Change = Callable[[psycopg.AsyncConnection[Any], int], Awaitable[None]]


@pytest.mark.parametrize("change", [add, add_unseen])  # the proof is known after PREPARE, and before
async def test_a_prepare_whose_answer_is_lost_is_yes_when_it_was_done(
    proxied: PostgresResource, proxy: TcpProxy, database: Database, change: Change
) -> None:
    xid = database.xid()
    branch = await proxied.begin(xid, LONG_S)
    await change(branch.connection, 5)
    proxy.swallow_reply_after = lambda chunk: b"PREPARE TRANSACTION" in chunk
    made = await branch.prepare()
    assert isinstance(made, Prepared)
    assert database.prepared() == [xid.gid()]
    assert (await proxied.commit_prepared(xid, made.proof)).fate is Fate.COMMITTED


@pytest.mark.parametrize("change", [add, add_unseen])  # the proof is known after PREPARE, and before
async def test_a_prepare_that_never_arrived_is_a_certain_no(
    proxied: PostgresResource, proxy: TcpProxy, database: Database, change: Change
) -> None:
    branch = await proxied.begin(database.xid(), LONG_S)
    await change(branch.connection, 5)
    proxy.cut_before = lambda chunk: b"PREPARE TRANSACTION" in chunk
    with pytest.raises(HandfastFault) as refused:
        await branch.prepare()
    assert (refused.value.code, database.prepared()) == ("PREPARE_FAILED", [])
    await eventually(lambda: database.sessions("idle in transaction") == 0)
    assert proxied.work_connections == 0


@pytest.mark.parametrize("change", [add, add_unseen])  # the proof is known after PREPARE, and before
async def test_a_session_that_has_not_noticed_is_ended_before_it_is_judged(
    proxied: PostgresResource, proxy: TcpProxy, database: Database, change: Change
) -> None:
    branch = await proxied.begin(database.xid(), LONG_S)
    await change(branch.connection, 5)
    proxy.cut_before, proxy.keep_server_side = lambda chunk: b"PREPARE TRANSACTION" in chunk, True
    with pytest.raises(HandfastFault) as refused:
        await branch.prepare()
    assert (refused.value.code, database.sessions("idle in transaction")) == ("PREPARE_FAILED", 0)


async def test_abandoning_needs_no_network(
    proxied: PostgresResource, proxy: TcpProxy, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("participant.postgres.branch._ROLLBACK_S", 60.0)  # it must not be this that ends the wait
    branch = await proxied.begin(database.xid(), LONG_S)
    working = asyncio.create_task(branch.connection.execute("SELECT pg_sleep(60)"))
    await eventually(lambda: database.sessions("active") == 2)
    proxy.stalled = True
    async with asyncio.timeout(20):
        await branch.abandon("the test says so")
    with pytest.raises(psycopg.OperationalError):
        await working
    assert proxied.work_connections == 0


async def test_an_interrupted_attempt_to_connect_leaves_no_session(
    resource: PostgresResource, database: Database
) -> None:
    for turns in range(1, 12):
        attempt = asyncio.create_task(resource.begin(database.xid(), LONG_S))
        for _ in range(turns):
            await asyncio.sleep(0)
        attempt.cancel()
        await asyncio.gather(attempt, return_exceptions=True)
    await resource.close()
    await eventually(lambda: database.sessions("idle") == 0)
    assert resource.work_connections == 0


async def test_a_session_killed_before_prepare_is_a_certain_no(resource: PostgresResource, database: Database) -> None:
    branch = await resource.begin(database.xid(), LONG_S)
    await add(branch.connection, 5)
    await branch.settle()
    database.end_sessions()
    with pytest.raises(HandfastFault) as refused:
        await branch.prepare()
    assert (refused.value.code, database.prepared(), database.value()) == ("PREPARE_FAILED", [], 100)


async def test_a_one_phase_commit_whose_answer_is_lost_is_proved(
    proxied: PostgresResource, proxy: TcpProxy, database: Database
) -> None:
    branch = await proxied.begin(database.xid(), LONG_S)
    await add(branch.connection, 5)
    proxy.swallow_reply_after = lambda chunk: b"COMMIT" in chunk
    proof = await branch.commit()
    assert (database.value(), proof.startswith("pg:")) == (105, True)


async def test_a_one_phase_commit_that_never_arrived_is_a_certain_abort(
    proxied: PostgresResource, proxy: TcpProxy, database: Database
) -> None:
    branch = await proxied.begin(database.xid(), LONG_S)
    await add(branch.connection, 5)
    proxy.cut_before = lambda chunk: b"COMMIT" in chunk
    with pytest.raises(HandfastFault):
        await branch.commit()
    assert database.value() == 100


INSERT = "INSERT INTO account VALUES (1, 100)"
INSERT_UNSEEN = f"WITH changed AS ({INSERT} RETURNING 1) SELECT 1 FROM changed"


async def crashed(cluster: PostgresCluster, resource: PostgresResource, insert: str = INSERT_UNSEEN) -> PostgresBranch:
    """A branch that has done its work on a server that has crashed since, before anything of it was on the disk."""
    database = Database(cluster, "postgres")
    database.execute("CREATE TABLE account (id int PRIMARY KEY, value int)")
    branch = await resource.begin(database.xid(), LONG_S)
    await branch.connection.execute(insert.encode())
    await branch.settle()
    cluster.stop("immediate")
    return branch


@pytest.fixture
async def fragile(stack: Stack) -> AsyncIterator[tuple[PostgresCluster, PostgresResource]]:
    """A server of its own that writes its log as late as it may, and the resource over it."""
    late = {"wal_writer_delay": "10s", "bgwriter_delay": "10s"}
    cluster = stack.start(PostgresCluster("fragile", stack.path, fsync=False, settings=late))
    resource = PostgresResource(cluster.dsn(), OPTIONS)
    await resource.open(BQUAL)
    yield cluster, resource
    await resource.close()
    cluster.close()


async def test_when_nobody_can_look_there_is_no_answer_at_all(
    fragile: tuple[PostgresCluster, PostgresResource],
) -> None:
    cluster, resource = fragile
    branch = await crashed(cluster, resource)
    with pytest.raises(AnswerLost) as lost:
        await branch.prepare()
    cluster.start()
    (found,) = await resource.ends_of([(branch._xid, lost.value.proof)])
    assert found.stand in {Stand.ABORTED, Stand.UNPROVED}  # the server may have forgotten that it gave the id out


async def test_when_nobody_can_look_and_there_is_no_proof_yet_there_is_no_answer_either(
    fragile: tuple[PostgresCluster, PostgresResource],
) -> None:
    cluster, resource = fragile
    branch = await crashed(cluster, resource, INSERT)
    with pytest.raises(AnswerLost) as lost:
        await branch.prepare()
    cluster.start()
    (found,) = await resource.ends_of([(branch._xid, lost.value.proof)])
    assert (lost.value.proof, found.stand) == ("", Stand.UNPROVED)


async def test_what_was_prepared_in_vain_and_can_not_be_taken_back_is_no_vote_but_a_no(
    proxied: PostgresResource, proxy: TcpProxy, database: Database
) -> None:
    xid = database.xid()
    branch = await proxied.begin(xid, LONG_S)
    await branch.connection.execute("COMMIT; BEGIN")
    await add(branch.connection, 5)
    proxy.cut_before = lambda chunk: b"ROLLBACK PREPARED" in chunk
    with pytest.raises(HandfastFault) as refused:
        await branch.prepare()
    assert (refused.value.code, database.prepared()) == ("PREPARE_FAILED", [xid.gid()])
    proxy.cut_before = lambda chunk: False
    orphan = (await proxied.recover("accounts", "testcrd2", detail=False))[0]
    assert (orphan.xid, (await proxied.rollback_prepared(xid, orphan.proof)).fate) == (xid, Fate.ABORTED)


@pytest.mark.parametrize("end", [PostgresBranch.prepare, PostgresBranch.commit])
async def test_an_id_that_a_crash_gave_out_again_proves_no_commit(
    fragile: tuple[PostgresCluster, PostgresResource], end: Callable[[PostgresBranch], Awaitable[object]]
) -> None:
    """Without the server's life in the proof, somebody else's COMMIT would pass for ours."""
    cluster, resource = fragile
    branch = await crashed(cluster, resource)
    with pytest.raises(AnswerLost) as lost:
        await end(branch)
    cluster.start()
    again = cluster.fetch("SELECT pg_current_xact_id()::text")[0][0]  # commits, with the id that was ours
    assert lost.value.proof.startswith(f"pg:{again}@")
    (found,) = await resource.ends_of([(branch._xid, lost.value.proof)])
    assert found.stand is Stand.UNPROVED
