"""A participant as a service runs it: gRPC, a real Postgres, and a coordinator that does what the test says."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import grpc
import psycopg
import pytest

from handfast.catalog import HandfastFault
from handfast.context import TransactionContext, current, within
from handfast.frames import CallFailed
from handfast.v1 import coordinator_pb2 as c
from handfast.v1 import participant_pb2 as p
from handfast.v1 import types_pb2 as t
from participant import Participant
from participant.clock import SystemClock
from participant.testing import FakeCoordinator, serving
from tests.integration.participant.accounts_database import OPTIONS, Database, add
from tests.waiting import eventually

Accounts = Participant[psycopg.AsyncConnection[Any]]

TIMEOUT_MS = 10_000


def in_transaction(gtrid: str, timeout_s: float = 10.0) -> Any:
    return within(TransactionContext(gtrid, SystemClock().monotonic_s() + timeout_s))


def make_accounts(database: Database, coordinator: FakeCoordinator, **changed: Any) -> Accounts:
    options = replace(OPTIONS, **changed)
    accounts: Accounts = Participant(
        "accounts", database.dsn, coordinator=coordinator.address, address="127.0.0.1:1", options=options
    )

    @accounts.operation("add")
    async def add_amount(connection: psycopg.AsyncConnection[Any], payload: bytes) -> bytes:
        await add(connection, int(payload))
        return b"added " + payload

    return accounts


@pytest.fixture
async def accounts(database: Database, coordinator: FakeCoordinator) -> AsyncIterator[Accounts]:
    accounts = make_accounts(database, coordinator)
    async with serving(accounts):
        yield accounts


def prepare(accounts: Accounts, gtrid: str, *amounts: int, bqual: str = "") -> p.PrepareRequest:
    operations = [t.Operation(resource="accounts", name="add", payload=str(amount).encode()) for amount in amounts]
    return p.PrepareRequest(gtrid=gtrid, bqual=bqual or accounts.bqual, operations=operations, timeout_ms=TIMEOUT_MS)


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


# -- duplicates, late and reordered messages ---------------------------------------------------------------------------


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
        voted, ended = await asyncio.gather(
            coordinator.ask(accounts.address, prepare(accounts, gtrid, 5)), coordinator.ask(accounts.address, rollback)
        )
        assert (voted.vote, ended.outcome) == (t.VOTE_NO, t.OUTCOME_ABORTED)
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


# -- instances and recovery --------------------------------------------------------------------------------------------


async def test_the_other_instance_finishes_what_one_prepared(database: Database, coordinator: FakeCoordinator) -> None:
    one, other = make_accounts(database, coordinator), make_accounts(database, coordinator)
    gtrid = coordinator.new_gtrid()
    async with serving(other):
        async with serving(one):
            voted = await coordinator.ask(one.address, prepare(one, gtrid, 5))
            assert voted.vote == t.VOTE_YES
        commit = p.ParticipantCommitRequest(gtrid=gtrid, bqual=one.bqual, proof=voted.proof)
        assert (await coordinator.ask(other.address, commit)).outcome == t.OUTCOME_COMMITTED
    assert database.value() == 105


@pytest.mark.parametrize(("standing", "value"), [(c.STANDING_COMMIT, 105), (c.STANDING_ABORT, 100)])
async def test_a_restarted_participant_asks_what_became_of_its_branches(
    database: Database, coordinator: FakeCoordinator, standing: c.Standing.ValueType, value: int
) -> None:
    gtrid = coordinator.new_gtrid()
    before = make_accounts(database, coordinator)
    async with serving(before):
        await coordinator.ask(before.address, prepare(before, gtrid, 5))
    coordinator.standings[gtrid] = standing
    async with serving(make_accounts(database, coordinator)):
        await eventually(lambda: database.prepared() == [])
    assert database.value() == value
    assert (coordinator.inquiries[0].gtrid, coordinator.inquiries[0].bqual) == (gtrid, before.bqual)


@pytest.mark.parametrize("standing", [c.STANDING_UNDECIDED, c.STANDING_UNKNOWN])
async def test_recovery_acts_on_nothing_less_than_a_decision(
    accounts: Accounts, database: Database, coordinator: FakeCoordinator, standing: c.Standing.ValueType
) -> None:
    gtrid = coordinator.new_gtrid()
    coordinator.standings[gtrid] = standing
    await coordinator.ask(accounts.address, prepare(accounts, gtrid, 5))
    await eventually(lambda: len(coordinator.inquiries) >= 3)  # asked again and again
    assert len(database.prepared()) == 1
    inspected = await coordinator.ask(accounts.address, p.InspectRequest(resource="accounts"))
    reported = any("beyond the log's memory" in finding.check for finding in inspected.findings)
    assert reported is (standing == c.STANDING_UNKNOWN)


async def test_recovery_touches_nothing_foreign(database: Database, coordinator: FakeCoordinator) -> None:
    foreign = [database.xid(coordinator_id="another1").gid(), "made with psql"]
    for id, gid in enumerate(foreign, start=2):
        with database.cluster.connect(database.name) as psql:
            psql.execute(f"BEGIN; UPDATE account SET value = 0 WHERE id = {id}; PREPARE TRANSACTION '{gid}'".encode())
    gtrid = coordinator.new_gtrid()
    before = make_accounts(database, coordinator)
    async with serving(before):
        await coordinator.ask(before.address, prepare(before, gtrid, 5))
    coordinator.standings[gtrid] = c.STANDING_ABORT
    async with serving(make_accounts(database, coordinator)):
        await eventually(lambda: sorted(database.prepared()) == sorted(foreign))
    assert {inquiry.gtrid for inquiry in coordinator.inquiries} == {gtrid}


async def test_a_branch_that_an_operator_ended_is_found_ended(
    accounts: Accounts, database: Database, coordinator: FakeCoordinator
) -> None:
    gtrid = coordinator.new_gtrid()
    await coordinator.ask(accounts.address, prepare(accounts, gtrid, 5))
    (gid,) = database.prepared()
    database.execute(f"ROLLBACK PREPARED '{gid}'")
    await eventually(lambda: accounts._driver.branches.in_doubt() == [])
    commit = p.ParticipantCommitRequest(gtrid=gtrid, bqual=accounts.bqual)
    ended = await coordinator.ask(accounts.address, commit)
    assert ended.outcome == t.OUTCOME_HEURISTIC_ROLLBACK
    assert "pg_xact_status" in ended.evidence


async def test_recover_and_inspect_speak_for_the_database(
    accounts: Accounts, database: Database, coordinator: FakeCoordinator
) -> None:
    gtrid = coordinator.new_gtrid()
    voted = await coordinator.ask(accounts.address, prepare(accounts, gtrid, 5))
    listed = await coordinator.ask(
        accounts.address, p.RecoverRequest(resource="accounts", coordinator_id="testcrd2", detail=True)
    )
    asked = p.BranchProof(gtrid=gtrid, bqual=accounts.bqual, proof=voted.proof)
    inspected = await coordinator.ask(accounts.address, p.InspectRequest(resource="accounts", branches=[asked]))
    assert [branch.gtrid for branch in listed.branches] == [gtrid]
    assert [end.state for end in inspected.ends] == [t.BRANCH_STATE_IN_DOUBT]
    assert {finding.subject for finding in inspected.findings} == {"accounts"}


# -- the service's own gRPC calls --------------------------------------------------------------------------------------


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
