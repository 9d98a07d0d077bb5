"""Ending branches by name: proof instead of guess, whoever prepared them, and whatever broke in between."""

import asyncio

import pytest

from chaos.stack import PostgresCluster
from handfast.catalog import HandfastFault
from handfast.xid import Xid
from participant.config import ParticipantOptions
from participant.postgres import PostgresResource
from participant.protocol import Fate
from participant.resource import Prepared, Stand
from tests.integration.participant.accounts_database import BQUAL, OPTIONS, Database, add, add_unseen
from tests.waiting import eventually

LONG_S = 30.0


async def prepare(resource: PostgresResource, xid: Xid, id: int = 1) -> str:
    branch = await resource.begin(xid, LONG_S)
    await add(branch.connection, 5, id)
    made = await branch.prepare()
    assert isinstance(made, Prepared)
    return made.proof


@pytest.mark.parametrize(("by_hand", "fate"), [("COMMIT", Fate.COMMITTED), ("ROLLBACK", Fate.ABORTED)])
@pytest.mark.parametrize("told", ["commit", "rollback"])
async def test_a_branch_that_is_gone_is_answered_by_proof(
    resource: PostgresResource, database: Database, by_hand: str, fate: Fate, told: str
) -> None:
    """COMMIT PREPARED says 42704, "does not exist", for opposite ends; dtm takes it for success."""
    xid = database.xid()
    proof = await prepare(resource, xid)
    database.execute(f"{by_hand} PREPARED '{xid.gid()}'")
    end = await (resource.commit_prepared if told == "commit" else resource.rollback_prepared)(xid, proof)
    assert end.fate is fate
    assert "pg_xact_status" in end.evidence


@pytest.mark.parametrize("proof", ["", "pg:", "pg:x", "xid:5", "pg:99999999999", "pg:99999999999999999999999"])
async def test_without_a_usable_proof_nothing_is_claimed(
    resource: PostgresResource, database: Database, proof: str
) -> None:
    end = await resource.commit_prepared(database.xid(), proof)
    assert end.fate is Fate.UNPROVED


async def test_a_branch_whose_session_still_works_is_not_ended(resource: PostgresResource, database: Database) -> None:
    xid = database.xid()
    branch = await resource.begin(xid, LONG_S)
    await add_unseen(branch.connection, 5)
    await branch.settle()
    with pytest.raises(HandfastFault) as refused:
        await resource.rollback_prepared(xid, f"pg:{branch._xid8}")
    assert refused.value.code == "BRANCH_BUSY"
    await branch.rollback()


async def test_another_instance_ends_what_a_dead_one_prepared(resource: PostgresResource, database: Database) -> None:
    xid = database.xid()
    proof = await prepare(resource, xid)
    await resource.close()
    other = PostgresResource(database.dsn, OPTIONS)
    await other.open("accounts.two")
    assert (await other.commit_prepared(xid, proof)).fate is Fate.COMMITTED
    assert database.value() == 105
    await other.close()


async def test_a_branch_in_another_database_is_an_error_not_an_end(
    resource: PostgresResource, database: Database, cluster: PostgresCluster
) -> None:
    """citus 6548: a branch that can't be finished from here. It is told apart, and nothing is concluded from it."""
    xid = database.xid()
    proof = await prepare(resource, xid)
    elsewhere = PostgresResource(cluster.dsn("postgres"), OPTIONS)
    await elsewhere.open("accounts.two")
    with pytest.raises(HandfastFault) as refused:
        await elsewhere.commit_prepared(xid, proof)
    assert refused.value.code == "BRANCH_IN_ANOTHER_DATABASE"
    assert await elsewhere.recover("accounts", "testcrd2", detail=False) == []
    assert database.prepared() == [xid.gid()]
    await elsewhere.close()


async def test_a_role_that_may_not_end_it_is_told_so(resource: PostgresResource, database: Database) -> None:
    database.execute("DROP ROLE IF EXISTS clerk")
    database.execute("CREATE ROLE clerk LOGIN")
    xid = database.xid()
    proof = await prepare(resource, xid)
    clerk = PostgresResource(database.cluster.dsn(database.name, user="clerk"), OPTIONS)
    await clerk.open("accounts.two")
    with pytest.raises(HandfastFault) as refused:
        await clerk.commit_prepared(xid, proof)
    findings = {finding.check: finding for finding in await clerk.inspect()}
    assert refused.value.code == "FINISH_FORBIDDEN"
    assert (findings["role"].severity.name, "same role" in findings["role"].mend) == ("ERROR", True)
    await clerk.close()


async def test_phase_two_works_while_every_work_connection_waits_for_a_lock(database: Database) -> None:
    """With one pool, the COMMIT PREPARED that frees the lock would wait for a connection forever."""
    options = ParticipantOptions(connections_max=64, finish_connections_max=2, lock_timeout_s=20)
    resource = PostgresResource(database.dsn, options)
    await resource.open(BQUAL)
    holder = database.xid()
    proof = await prepare(resource, holder)
    branches = [await resource.begin(database.xid(), LONG_S) for _ in range(64)]
    waiting = [asyncio.create_task(add(branch.connection, 1)) for branch in branches]
    await eventually(lambda: len(database.fetch("SELECT 1 FROM pg_locks WHERE NOT granted")) == 64, within_s=20)
    assert resource.work_connections == 64
    assert (await resource.commit_prepared(holder, proof)).fate is Fate.COMMITTED
    done, _ = await asyncio.wait(waiting, timeout=20, return_when=asyncio.FIRST_COMPLETED)
    assert done  # the lock went on to the next
    for branch in branches:
        await branch.abandon("the test ends")
    await asyncio.gather(*waiting, return_exceptions=True)
    await resource.close()


async def test_ends_of_many_branches_are_told_in_order(resource: PostgresResource, database: Database) -> None:
    asked = [(xid := database.xid(), await prepare(resource, xid, id=id)) for id in (1, 2, 3)]
    await resource.commit_prepared(*asked[0])
    await resource.rollback_prepared(*asked[1])
    found = await resource.ends_of([*asked, (database.xid(), "")])
    assert [end.stand for end in found] == [Stand.COMMITTED, Stand.ABORTED, Stand.PREPARED, Stand.UNPROVED]
    assert not any(end.lost for end in found)


async def test_a_branch_from_beyond_what_the_server_has_come_to_is_lost(
    resource: PostgresResource, database: Database
) -> None:
    """So it is after a restore to an earlier point: the branch voted yes, and its id was on this server's disk."""
    ((current,),) = database.fetch("SELECT pg_current_xact_id()::text")
    (found,) = await resource.ends_of([(database.xid(), f"pg:{int(current) + 1_000_000}")])
    assert (found.stand, found.lost) == (Stand.UNPROVED, True)


async def test_recover_lists_only_this_coordinator_and_resource(resource: PostgresResource, database: Database) -> None:
    """A foreign prepared transaction, or another coordinator's, is never touched, for it is never seen."""
    ours, theirs, another = database.xid(), database.xid(coordinator_id="another1"), database.xid("ledger.one")
    for id, xid in enumerate((ours, theirs, another), start=1):
        await prepare(resource, xid, id)
    with database.cluster.connect(database.name) as psql:
        psql.execute("BEGIN; UPDATE account SET value = 0 WHERE id = 9; PREPARE TRANSACTION 'made with psql'")
    listed = await resource.recover("accounts", "testcrd2", detail=False)
    assert [branch.xid for branch in listed] == [ours]
    assert (listed[0].owner, listed[0].database, listed[0].age_ms < 60_000) == ("postgres", "accounts", True)


async def test_the_listed_proof_is_the_voted_one(resource: PostgresResource, database: Database) -> None:
    xid = database.xid()
    proof = await prepare(resource, xid)
    (listed,) = await resource.recover("accounts", "testcrd2", detail=False)
    assert listed.proof == proof


async def test_detail_tells_who_waits_for_a_prepared_branch(resource: PostgresResource, database: Database) -> None:
    await prepare(resource, database.xid())
    await prepare(resource, database.xid(), id=2)
    writers = [await resource.begin(database.xid(), LONG_S) for _ in range(2)]
    waiting = [
        asyncio.create_task(add(writer.connection, 1)) for writer in writers
    ]  # the second queues behind the first
    await eventually(lambda: len(database.fetch("SELECT 1 FROM pg_locks WHERE NOT granted")) == 2)
    blocking, innocent = await resource.recover("accounts", "testcrd2", detail=True)
    assert (len(blocking.blocked), len(innocent.blocked)) == (2, 0)
    assert "UPDATE account" in blocking.blocked[0].statement
    assert (blocking.locks_held > 0, blocking.xmin_age > 0) == (True, True)
    for writer in writers:
        await writer.abandon("the test ends")
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_inspect_finds_a_healthy_server_healthy(resource: PostgresResource, database: Database) -> None:
    findings = {finding.check: finding for finding in await resource.inspect()}
    assert findings["free slots"].severity.name == "OK"
    assert findings["oldest prepared transaction"].found == "none"
    assert all(finding.severity.name == "OK" or finding.mend for finding in findings.values())


async def test_inspect_warns_of_a_foreign_prepared_transaction_that_is_old(
    resource: PostgresResource, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("participant.postgres.health._OLDEST_S_MAX", -1.0)
    with database.cluster.connect(database.name) as psql:
        psql.execute("BEGIN; UPDATE account SET value = 0 WHERE id = 9; PREPARE TRANSACTION 'made with psql'")
    findings = {finding.check: finding for finding in await resource.inspect()}
    assert findings["oldest prepared transaction"].severity.name == "WARNING"
    assert "made with psql" in findings["oldest prepared transaction"].found
