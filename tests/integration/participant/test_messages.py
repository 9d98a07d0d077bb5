"""Duplicate, late and reordered messages, and deadlines: over gRPC and a real Postgres."""

import asyncio
from typing import Any

import psycopg
import pytest

from handfast.catalog import HandfastFault
from handfast.frames import CallFailed
from handfast.v1 import participant_pb2 as p
from handfast.v1 import types_pb2 as t
from participant.testing import FakeCoordinator
from tests.integration.participant.accounts_database import Database, add
from tests.integration.participant.accounts_service import TIMEOUT_MS, Accounts, in_transaction, prepare
from tests.waiting import eventually


async def test_each_message_twice_gets_the_first_answer(
    accounts: Accounts, coordinator: FakeCoordinator, database: Database
) -> None:
    gtrid = coordinator.new_gtrid()
    request = prepare(accounts, gtrid, 5)
    first, second = await asyncio.gather(
        coordinator.ask(accounts.address, request), coordinator.ask(accounts.address, request)
    )
    assert (first.vote, second) == (t.VOTE_YES, first)
    assert await coordinator.ask(accounts.address, request) == first
    commit = p.ParticipantCommitRequest(gtrid=gtrid, bqual=accounts.bqual, proof=first.proof)
    ends = await asyncio.gather(*(coordinator.ask(accounts.address, commit) for _ in range(3)))
    ends.append(await coordinator.ask(accounts.address, commit))
    assert {end.outcome for end in ends} == {t.OUTCOME_COMMITTED}
    assert database.value() == 105


async def test_a_prepare_that_its_rollback_overtook_votes_no(
    accounts: Accounts, coordinator: FakeCoordinator, database: Database
) -> None:
    gtrid = coordinator.new_gtrid()
    rollback = p.ParticipantRollbackRequest(gtrid=gtrid, bqual=accounts.bqual)
    assert (await coordinator.ask(accounts.address, rollback)).outcome == t.OUTCOME_ABORTED
    voted = await coordinator.ask(accounts.address, prepare(accounts, gtrid, 5))
    assert (voted.vote, voted.reason_code) == (t.VOTE_NO, "ROLLED_BACK_FIRST")
    assert (await coordinator.ask(accounts.address, rollback)).outcome == t.OUTCOME_ABORTED
    assert (database.value(), database.prepared()) == (100, [])


async def test_a_rollback_during_prepare_leaves_nothing_prepared(
    accounts: Accounts, coordinator: FakeCoordinator, database: Database
) -> None:
    """vitess 20647: a prepare/rollback race leaves a prepared branch."""
    for _ in range(20):
        gtrid = coordinator.new_gtrid()
        rollback = p.ParticipantRollbackRequest(gtrid=gtrid, bqual=accounts.bqual)
        _, ended = await asyncio.gather(
            coordinator.ask(accounts.address, prepare(accounts, gtrid, 5)), coordinator.ask(accounts.address, rollback)
        )
        assert ended.outcome == t.OUTCOME_ABORTED, "whichever came first"
    assert (database.value(), database.prepared()) == (100, [])


async def test_a_rollback_while_prepare_does_the_work_makes_it_vote_no(
    accounts: Accounts, coordinator: FakeCoordinator, database: Database
) -> None:
    gtrid = coordinator.new_gtrid()
    with psycopg.connect(database.dsn) as other:
        other.execute("SELECT * FROM account FOR UPDATE")
        voting = asyncio.create_task(coordinator.ask(accounts.address, prepare(accounts, gtrid, 5)))
        await eventually(lambda: database.fetch("SELECT 1 FROM pg_locks WHERE NOT granted") != [])
        rollback = p.ParticipantRollbackRequest(gtrid=gtrid, bqual=accounts.bqual)
        assert (await coordinator.ask(accounts.address, rollback)).outcome == t.OUTCOME_ABORTED
        assert (await voting).vote == t.VOTE_NO
    assert (database.value(), database.prepared()) == (100, [])


async def test_a_rollback_stops_the_statement_that_is_running(
    accounts: Accounts, coordinator: FakeCoordinator, database: Database
) -> None:
    gtrid = coordinator.new_gtrid()

    async def work() -> None:
        with in_transaction(gtrid):
            async with accounts.branch() as connection:
                await connection.execute("SELECT pg_sleep(60)")

    working = asyncio.create_task(work())
    await eventually(lambda: database.fetch("SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'") != [])
    rollback = p.ParticipantRollbackRequest(gtrid=gtrid, bqual=accounts.bqual)
    assert (await coordinator.ask(accounts.address, rollback)).outcome == t.OUTCOME_ABORTED
    with pytest.raises(HandfastFault) as told:
        await working
    assert told.value.code == "ROLLED_BACK_FIRST"
    await eventually(lambda: database.fetch("SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'") == [])


async def test_a_rollback_stops_the_operation_that_is_running(
    accounts: Accounts, coordinator: FakeCoordinator, database: Database
) -> None:
    @accounts.operation("sleep")
    async def sleep(connection: psycopg.AsyncConnection[Any], payload: bytes) -> None:
        await connection.execute("SELECT pg_sleep(60)")

    gtrid = coordinator.new_gtrid()
    request = prepare(accounts, gtrid, 5)
    request.operations.add(resource="accounts", name="sleep")
    voting = asyncio.create_task(coordinator.ask(accounts.address, request))
    await eventually(lambda: database.fetch("SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'") != [])
    rollback = p.ParticipantRollbackRequest(gtrid=gtrid, bqual=accounts.bqual)
    assert (await coordinator.ask(accounts.address, rollback)).outcome == t.OUTCOME_ABORTED
    voted = await voting
    assert (voted.vote, voted.reason_code) == (t.VOTE_NO, "ROLLED_BACK_FIRST")


async def test_prepare_while_a_call_is_at_work_votes_no(
    accounts: Accounts, coordinator: FakeCoordinator, database: Database
) -> None:
    gtrid, go_on = coordinator.new_gtrid(), asyncio.Event()

    async def work() -> None:
        with in_transaction(gtrid):
            async with accounts.branch() as connection:
                await add(connection, 5)
                await go_on.wait()

    working = asyncio.create_task(work())
    await eventually(lambda: database.sessions("idle in transaction") == 1)
    voted = await coordinator.ask(accounts.address, prepare(accounts, gtrid))
    assert (voted.vote, voted.reason_code) == (t.VOTE_NO, "BRANCH_STILL_AT_WORK")
    await eventually(lambda: database.sessions("idle in transaction") == 0)
    go_on.set()
    with pytest.raises(HandfastFault):
        await working


@pytest.mark.parametrize("instance", ["gone", "own"])
async def test_prepare_of_a_branch_that_is_not_held_votes_no(
    accounts: Accounts, coordinator: FakeCoordinator, instance: str
) -> None:
    bqual = accounts.bqual if instance == "own" else "accounts.gone"
    voted = await coordinator.ask(accounts.address, prepare(accounts, coordinator.new_gtrid(), bqual=bqual))
    assert (voted.vote, voted.reason_code) == (t.VOTE_NO, "BRANCH_UNKNOWN")


async def test_commit_of_an_unknown_branch_is_a_hazard_not_a_success(
    accounts: Accounts, coordinator: FakeCoordinator
) -> None:
    commit = p.ParticipantCommitRequest(gtrid=coordinator.new_gtrid(), bqual=accounts.bqual)
    assert (await coordinator.ask(accounts.address, commit)).outcome == t.OUTCOME_HEURISTIC_HAZARD


async def test_commit_of_a_branch_that_is_still_active_is_refused(
    accounts: Accounts, coordinator: FakeCoordinator, database: Database
) -> None:
    gtrid = coordinator.new_gtrid()
    with in_transaction(gtrid):
        async with accounts.branch() as connection:
            await add(connection, 5)
    with pytest.raises(CallFailed) as refused:
        await coordinator.ask(accounts.address, p.ParticipantCommitRequest(gtrid=gtrid, bqual=accounts.bqual))
    assert (refused.value.code, database.value()) == ("BRANCH_NOT_PREPARED", 100)


@pytest.mark.parametrize(
    ("gtrid", "bqual", "code"),
    [
        ("nonsense'; DROP TABLE account", "accounts.one", "GTRID_MALFORMED"),
        ("testcrd2-1-0-1", "accounts.one'; --", "NAME_MALFORMED"),
        ("testcrd2-1-0-1", "ledger.one", "RESOURCE_NOT_HERE"),
    ],
)
async def test_malformed_names_never_reach_the_database(
    accounts: Accounts, coordinator: FakeCoordinator, gtrid: str, bqual: str, code: str
) -> None:
    with pytest.raises(CallFailed) as refused:
        await coordinator.ask(accounts.address, p.PrepareRequest(gtrid=gtrid, bqual=bqual, timeout_ms=TIMEOUT_MS))
    assert refused.value.code == code


# -- deadlines ---------------------------------------------------------------------------------------------------------


async def test_the_deadline_frees_the_connection_even_under_its_work(
    accounts: Accounts, coordinator: FakeCoordinator, database: Database
) -> None:
    """seata 6492, 2166: a timed-out branch's connection goes back to the pool, or its locks stay."""
    gtrid = coordinator.new_gtrid()

    async def work() -> None:
        with in_transaction(gtrid, timeout_s=0.3):
            async with accounts.branch() as connection:
                await add(connection, 5)
                await connection.execute("SELECT pg_sleep(60)")

    with pytest.raises(HandfastFault) as told:
        await work()
    assert told.value.code == "DEADLINE_PASSED"
    await eventually(lambda: database.fetch("SELECT 1 FROM pg_locks WHERE relation = 'account'::regclass") == [])
    voted = await coordinator.ask(accounts.address, prepare(accounts, gtrid))
    assert (voted.vote, voted.reason_code) == (t.VOTE_NO, "DEADLINE_PASSED")
    assert accounts._manager.work_connections == 0  # type: ignore[attr-defined]  # it is the Postgres one


async def test_the_deadline_ends_an_idle_branch(
    accounts: Accounts, coordinator: FakeCoordinator, database: Database
) -> None:
    gtrid = coordinator.new_gtrid()
    with in_transaction(gtrid, timeout_s=0.3):
        async with accounts.branch() as connection:
            await add(connection, 5)
    await eventually(lambda: database.sessions("idle in transaction") == 0)
    voted = await coordinator.ask(accounts.address, prepare(accounts, gtrid))
    assert (voted.vote, voted.reason_code) == (t.VOTE_NO, "DEADLINE_PASSED")


async def test_the_deadline_ends_a_one_shot_operation(
    accounts: Accounts, coordinator: FakeCoordinator, database: Database
) -> None:
    with database.cluster.connect(database.name) as other, other.transaction():
        other.execute("SELECT * FROM account FOR UPDATE")
        request = prepare(accounts, coordinator.new_gtrid(), 5)
        request.timeout_ms = 300
        voted = await coordinator.ask(accounts.address, request)
    assert voted.vote == t.VOTE_NO
    assert voted.reason_code in {"DEADLINE_PASSED", "LOCK_TIMEOUT"}
