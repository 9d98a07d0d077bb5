"""A participant as a service runs it: gRPC, a real Postgres, and a coordinator that does what the test says."""

import asyncio
from typing import Any

import grpc
import pytest

from handfast.catalog import HandfastFault
from handfast.context import current
from handfast.v1 import coordinator_pb2 as c
from handfast.v1 import participant_pb2 as p
from handfast.v1 import types_pb2 as t
from participant import Participant
from participant.testing import FakeCoordinator, serving
from tests.integration.participant.accounts_database import OPTIONS, Database, add
from tests.integration.participant.accounts_service import TIMEOUT_MS, Accounts, in_transaction, make_accounts, prepare
from tests.waiting import eventually


async def test_it_registers_with_its_operations(accounts: Accounts, coordinator: FakeCoordinator) -> None:
    await eventually(lambda: accounts.registered)
    registration = coordinator.registrations[0]
    assert (registration.resource, registration.kind, registration.address) == (
        "accounts",
        "postgres",
        accounts.address,
    )
    assert list(registration.operations) == ["add"]


async def test_it_registers_again_when_the_coordinator_comes_back(
    accounts: Accounts, coordinator: FakeCoordinator
) -> None:
    await eventually(lambda: accounts.registered)
    await coordinator.__aexit__(None, None, None)
    coordinator.registrations.clear()
    coordinator.epoch = 2
    await coordinator.__aenter__()
    await eventually(lambda: coordinator.registrations != [])
    assert coordinator.registrations[0].instance == accounts.instance


async def test_work_enlists_votes_and_commits(
    accounts: Accounts, coordinator: FakeCoordinator, database: Database
) -> None:
    gtrid = coordinator.new_gtrid()
    with in_transaction(gtrid):
        async with accounts.branch() as connection:
            await add(connection, 5)
        assert [request.resource for request in coordinator.enlisted[gtrid]] == ["accounts"]
    voted = await coordinator.ask(accounts.address, prepare(accounts, gtrid))
    assert (voted.vote, voted.proof != "") == (t.VOTE_YES, True)
    commit = p.ParticipantCommitRequest(gtrid=gtrid, bqual=accounts.bqual, proof=voted.proof)
    assert (await coordinator.ask(accounts.address, commit)).outcome == t.OUTCOME_COMMITTED
    assert (database.value(), database.prepared()) == (105, [])


async def test_two_calls_of_one_transaction_share_one_branch(
    accounts: Accounts, coordinator: FakeCoordinator, database: Database
) -> None:
    gtrid = coordinator.new_gtrid()

    async def call() -> int:
        with in_transaction(gtrid):
            async with accounts.branch() as connection, accounts.branch() as again:
                assert again is connection
                await add(connection, 5)
                return connection.info.backend_pid

    assert len(set(await asyncio.gather(call(), call()))) == 1
    assert len(coordinator.enlisted[gtrid]) == 1
    await coordinator.ask(accounts.address, prepare(accounts, gtrid))
    await coordinator.ask(accounts.address, p.ParticipantCommitRequest(gtrid=gtrid, bqual=accounts.bqual))
    assert database.value() == 110


async def test_outside_a_transaction_branch_says_what_to_do(accounts: Accounts) -> None:
    with pytest.raises(HandfastFault, match="interceptors") as refused:
        accounts.branch()
    assert refused.value.code == "OUTSIDE_TRANSACTION"


async def test_an_error_rolls_back_at_once_and_makes_the_vote_no(
    accounts: Accounts, coordinator: FakeCoordinator, database: Database
) -> None:
    gtrid = coordinator.new_gtrid()

    async def work() -> None:
        with in_transaction(gtrid):
            async with accounts.branch() as connection:
                await add(connection, 5)
                raise ValueError("no such account")

    with pytest.raises(ValueError, match="no such account"):
        await work()
    assert database.sessions("idle in transaction") == 0
    voted = await coordinator.ask(accounts.address, prepare(accounts, gtrid))
    assert (voted.vote, voted.reason_code) == (t.VOTE_NO, "BRANCH_FAILED")
    assert "no such account" in voted.reason


async def test_a_branch_that_can_not_enlist_is_rolled_back_and_the_caller_is_told(
    accounts: Accounts, coordinator: FakeCoordinator, database: Database
) -> None:
    await eventually(lambda: accounts.registered)
    gtrid = coordinator.new_gtrid()
    coordinator.refuse = lambda request: (
        HandfastFault("TRANSACTION_NOT_ACTIVE", gtrid=gtrid, state="committing")
        if isinstance(request, c.EnlistRequest)
        else None
    )

    async def work() -> None:
        with in_transaction(gtrid):
            async with accounts.branch() as connection:
                await add(connection, 5)

    with pytest.raises(HandfastFault, match="committing") as refused:
        await work()
    assert refused.value.code == "ENLIST_FAILED"
    assert database.sessions("idle in transaction") == 0


async def test_operations_run_in_order_and_return_their_results(
    accounts: Accounts, coordinator: FakeCoordinator, database: Database
) -> None:
    gtrid = coordinator.new_gtrid()
    voted = await coordinator.ask(accounts.address, prepare(accounts, gtrid, 5, 7))
    assert (voted.vote, list(voted.results)) == (t.VOTE_YES, [b"added 5", b"added 7"])
    await coordinator.ask(accounts.address, p.ParticipantCommitRequest(gtrid=gtrid, bqual=accounts.bqual))
    assert database.value() == 112


async def test_an_operation_that_fails_is_a_no_with_its_reason(
    accounts: Accounts, coordinator: FakeCoordinator, database: Database
) -> None:
    voted = await coordinator.ask(accounts.address, prepare(accounts, coordinator.new_gtrid(), 5, -500))
    assert (voted.vote, voted.reason_code) == (t.VOTE_NO, "CONSTRAINT_VIOLATED")
    assert (database.value(), database.sessions("idle in transaction")) == (100, 0)


async def test_an_operation_nobody_registered_is_named(accounts: Accounts, coordinator: FakeCoordinator) -> None:
    request = prepare(accounts, coordinator.new_gtrid(), 5)
    request.operations[0].name = "subtract"
    voted = await coordinator.ask(accounts.address, request)
    assert (voted.vote, voted.reason_code) == (t.VOTE_NO, "OPERATION_UNKNOWN")
    assert "add" in voted.reason


async def test_a_one_shot_commit_in_one_phase(
    accounts: Accounts, coordinator: FakeCoordinator, database: Database
) -> None:
    gtrid = coordinator.new_gtrid()
    work = prepare(accounts, gtrid, 5)
    request = p.CommitOnePhaseRequest(gtrid=gtrid, bqual=work.bqual, operations=work.operations, timeout_ms=TIMEOUT_MS)
    first = await coordinator.ask(accounts.address, request)
    again = await coordinator.ask(accounts.address, request)
    assert (first.outcome, list(first.results)) == (t.OUTCOME_COMMITTED, [b"added 5"])
    assert (again, database.value()) == (first, 105)


class Echo(grpc.GenericRpcHandler):
    """A service with one unary method, without a .proto: adds the amount it is sent."""

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts

    def service(self, details: Any) -> Any:
        return grpc.unary_unary_rpc_method_handler(self._add) if details.method == "/test.Accounts/Add" else None

    async def _add(self, request: bytes, context: Any) -> bytes:
        async with self._accounts.branch() as connection:
            await add(connection, int(request))
        transaction = current()
        return transaction.gtrid.encode() if transaction else b""


async def test_the_interceptor_joins_the_callers_transaction(database: Database, coordinator: FakeCoordinator) -> None:
    accounts = make_accounts(database, coordinator)
    gtrid = coordinator.new_gtrid()
    async with serving(accounts, add=lambda server: server.add_generic_rpc_handlers((Echo(accounts),))) as address:
        async with grpc.aio.insecure_channel(address) as channel:
            call: Any = channel.unary_unary("/test.Accounts/Add")
            assert await call(b"5", metadata=coordinator.metadata(gtrid)) == gtrid.encode()
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call(b"5")
        voted = await coordinator.ask(address, prepare(accounts, gtrid))
    assert voted.vote == t.VOTE_YES
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "outside a global transaction" in (refused.value.details() or "")


async def test_a_unary_caller_is_served_too(accounts: Accounts, coordinator: FakeCoordinator) -> None:
    async with grpc.aio.insecure_channel(accounts.address) as channel:
        call: Any = channel.unary_unary(
            "/handfast.v1.Participant/Prepare",
            request_serializer=p.PrepareRequest.SerializeToString,
            response_deserializer=p.PrepareResponse.FromString,
        )
        assert (await call(prepare(accounts, coordinator.new_gtrid(), 5))).vote == t.VOTE_YES


async def test_several_participants_share_one_server(database: Database, coordinator: FakeCoordinator) -> None:
    accounts = make_accounts(database, coordinator)
    audit: Accounts = Participant(
        "audit", database.dsn, coordinator=coordinator.address, address="127.0.0.1:1", options=OPTIONS
    )
    gtrid = coordinator.new_gtrid()
    async with serving(accounts, audit) as address:
        with in_transaction(gtrid):
            async with accounts.branch() as connection:
                await add(connection, 5, id=1)
            async with audit.branch() as connection:
                await add(connection, 5, id=2)
        votes = [
            (await coordinator.ask(address, prepare(accounts, gtrid, bqual=bqual))).vote
            for bqual in (accounts.bqual, audit.bqual)
        ]
    assert votes == [t.VOTE_YES, t.VOTE_YES]


async def test_closing_rolls_back_what_is_active_and_leaves_what_is_prepared(
    database: Database, coordinator: FakeCoordinator
) -> None:
    accounts = make_accounts(database, coordinator)
    async with serving(accounts):
        await coordinator.ask(accounts.address, prepare(accounts, coordinator.new_gtrid(), 5))
        with in_transaction(coordinator.new_gtrid()):
            async with accounts.branch() as connection:
                await add(connection, 5, id=2)
    await eventually(lambda: database.sessions("idle in transaction") + database.sessions("idle") == 0)
    assert len(database.prepared()) == 1


async def test_closing_ends_what_waits_for_a_lock_and_its_vote_is_heard(
    coordinator: FakeCoordinator, database: Database
) -> None:
    """Whoever holds the lock may be waiting for the coordinator, and that one for this vote."""
    first, second = coordinator.new_gtrid(), coordinator.new_gtrid()
    accounts = make_accounts(database, coordinator, lock_timeout_s=60.0, close_wait_s=60.0)
    async with serving(accounts):
        assert (await coordinator.ask(accounts.address, prepare(accounts, first, 5))).vote == t.VOTE_YES
        voting = asyncio.create_task(coordinator.ask(accounts.address, prepare(accounts, second, 5)))
        await eventually(lambda: database.fetch("SELECT 1 FROM pg_locks WHERE NOT granted") != [])
    voted = await voting
    assert (voted.vote, voted.reason_code) == (t.VOTE_NO, "PARTICIPANT_CLOSED")
    assert [gid.partition("_")[2].partition("_")[0] for gid in database.prepared()] == [first]
