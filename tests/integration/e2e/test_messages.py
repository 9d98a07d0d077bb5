"""Duplicate, late and reordered messages, over the coordinator's real edge and the SDK's real servicer."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.message import Message

import handfast
from examples.bank.v1.accounts_pb2 import WithdrawRequest
from handfast import clock
from handfast.context import TransactionContext, within
from handfast.v1 import coordinator_pb2 as c
from handfast.v1 import participant_pb2 as p
from handfast.v1 import types_pb2 as t
from handfast.v1.coordinator_pb2_grpc import CoordinatorStub
from handfast.v1.participant_pb2_grpc import ParticipantStub
from handfast.xid import Gtrid
from tests.integration.e2e.bank_world import off_loop
from tests.integration.e2e.shops import BALANCE, Shop, Shops


@dataclass(frozen=True, slots=True)
class Wire:
    """The two protocols spoken by hand: unary, over plain channels."""

    coordinator: Any
    first: Any
    second: Any
    shops: tuple[Shop, Shop]

    async def begin(self, timeout_ms: int = 10_000) -> str:
        answer: c.BeginResponse = await self.coordinator.Begin(c.BeginRequest(timeout_ms=timeout_ms))
        return answer.gtrid

    async def begin_with_work(self) -> str:
        """A transaction with work in both shops."""
        gtrid = await self.begin()
        with within(TransactionContext(gtrid, clock.monotonic_s() + 10)):
            for shop in self.shops:
                await shop.withdraw(10)
        return gtrid


@pytest.fixture
async def wire(shops: Shops) -> AsyncIterator[Wire]:
    first, second = await shops.open("shop-1", "shop-2")
    addresses = (shops.coordinator, first.address, second.address)
    channels = [grpc.aio.insecure_channel(address) for address in addresses]
    yield Wire(
        CoordinatorStub(channels[0]), ParticipantStub(channels[1]), ParticipantStub(channels[2]), (first, second)
    )
    for channel in channels:
        await channel.close()


def operation(resource: str, cents: int = 10) -> t.Operation:
    payload = WithdrawRequest(account=1, amount=cents, transfer="by-hand").SerializeToString()
    return t.Operation(resource=resource, name="withdraw", payload=payload)


async def twice(call: Callable[[Any], Awaitable[Any]], request: Message) -> Any:
    """Send a message twice; both answers must be the same, and are returned as one."""
    first, second = await call(request), await call(request)
    assert first == second
    return first


async def refused(call: Callable[[Any], Awaitable[Any]], request: Message, code: grpc.StatusCode, words: str) -> None:
    """Send a message twice; it must be refused so both times."""
    for _ in range(2):
        with pytest.raises(grpc.aio.AioRpcError, match=words) as no:
            await call(request)
        assert no.value.code() is code


# -- each RPC twice ----------------------------------------------------------------------------------------------------


async def test_each_rpc_of_a_committed_transaction_twice(wire: Wire, shops: Shops) -> None:
    gtrid = await wire.begin_with_work()
    for shop in wire.shops:
        resource, instance = shop.participant.resource, shop.participant.instance
        enlist = c.EnlistRequest(gtrid=gtrid, resource=resource, instance=instance)
        assert (await twice(wire.coordinator.Enlist, enlist)).bqual == shop.participant.bqual

    # Phase one and phase two by hand, each message before and after the coordinator's own.
    bqual = wire.shops[0].participant.bqual
    prepare = p.PrepareRequest(gtrid=gtrid, bqual=bqual, timeout_ms=5_000)
    vote = await twice(wire.first.Prepare, prepare)
    assert vote.vote == t.VOTE_YES
    assert (await twice(wire.coordinator.Commit, c.CommitRequest(gtrid=gtrid))).outcome == t.OUTCOME_COMMITTED
    commit = p.ParticipantCommitRequest(gtrid=gtrid, bqual=bqual, proof=vote.proof)
    assert (await twice(wire.first.Commit, commit)).outcome == t.OUTCOME_COMMITTED
    assert (await wire.first.Prepare(prepare)) == vote

    assert (await twice(wire.coordinator.Inquire, c.InquireRequest(gtrid=gtrid))).standing == c.STANDING_COMMIT
    rollback = c.RollbackRequest(gtrid=gtrid)
    await refused(wire.coordinator.Rollback, rollback, grpc.StatusCode.FAILED_PRECONDITION, "can't roll back")
    assert [shops.held(shop) for shop in wire.shops] == [BALANCE - 10] * 2


async def test_each_rpc_of_a_rolled_back_transaction_twice(wire: Wire, shops: Shops) -> None:
    gtrid = await wire.begin_with_work()
    assert (await twice(wire.coordinator.Rollback, c.RollbackRequest(gtrid=gtrid))).outcome == t.OUTCOME_ABORTED
    rollback = p.ParticipantRollbackRequest(gtrid=gtrid, bqual=wire.shops[0].participant.bqual)
    assert (await twice(wire.first.Rollback, rollback)).outcome == t.OUTCOME_ABORTED
    assert (await twice(wire.coordinator.Commit, c.CommitRequest(gtrid=gtrid))).outcome == t.OUTCOME_ABORTED
    assert (await twice(wire.coordinator.Inquire, c.InquireRequest(gtrid=gtrid))).standing == c.STANDING_ABORT
    assert [shops.held(shop) for shop in wire.shops] == [BALANCE] * 2


async def test_a_one_shot_transaction_sent_twice_is_done_once(wire: Wire, shops: Shops) -> None:
    block = (await wire.coordinator.Begin(c.BeginRequest(block_size=8))).block
    work = [operation("shop-1"), operation("shop-2")]
    execute = c.ExecuteRequest(gtrid=f"{block.prefix}0", timeout_ms=5_000, operations=work)
    answers = await asyncio.gather(*(wire.coordinator.Execute(execute) for _ in range(5)))
    assert {answer.outcome for answer in answers} == {t.OUTCOME_COMMITTED}
    assert (await wire.coordinator.Execute(execute)).outcome == t.OUTCOME_COMMITTED
    assert [shops.held(shop) for shop in wire.shops] == [BALANCE - 10] * 2


async def test_a_one_phase_commit_asked_for_twice_is_done_once(wire: Wire, shops: Shops) -> None:
    gtrid = await wire.begin()
    bqual = wire.shops[0].participant.bqual
    request = p.CommitOnePhaseRequest(gtrid=gtrid, bqual=bqual, operations=[operation("shop-1")], timeout_ms=5_000)
    assert (await twice(wire.first.CommitOnePhase, request)).outcome == t.OUTCOME_COMMITTED
    assert shops.held(wire.shops[0]) == BALANCE - 10


async def test_questions_and_announcements_twice(wire: Wire) -> None:
    shop = wire.shops[0]
    register = c.RegisterRequest(resource="shop-1", instance=shop.participant.instance, address=shop.address)
    answer = await twice(wire.coordinator.Register, register)
    recover = p.RecoverRequest(resource="shop-1", coordinator_id=answer.coordinator_id)
    assert (await twice(wire.first.Recover, recover)).branches == []
    gtrid = await wire.begin()
    assert await twice(wire.first.Forget, p.ForgetRequest(gtrid=gtrid, bqual=shop.participant.bqual)) is not None
    findings = (await wire.first.Inspect(p.InspectRequest(resource="shop-1"))).findings
    assert [one.check for one in findings] == [
        one.check for one in (await wire.first.Inspect(p.InspectRequest(resource="shop-1"))).findings
    ]


async def test_fifty_commits_at_once_get_one_answer(wire: Wire, shops: Shops) -> None:
    gtrid = await wire.begin_with_work()
    answers = await asyncio.gather(*(wire.coordinator.Commit(c.CommitRequest(gtrid=gtrid)) for _ in range(50)))
    assert {answer.outcome for answer in answers} == {t.OUTCOME_COMMITTED}
    assert [shops.held(shop) for shop in wire.shops] == [BALANCE - 10] * 2


async def test_commit_and_rollback_at_once_agree_on_one_end(wire: Wire, shops: Shops) -> None:
    gtrid = await wire.begin_with_work()
    commit = asyncio.create_task(_answer(wire.coordinator.Commit(c.CommitRequest(gtrid=gtrid))))
    rollback = asyncio.create_task(_answer(wire.coordinator.Rollback(c.RollbackRequest(gtrid=gtrid))))
    answers = {await commit, await rollback}
    assert answers in ({t.OUTCOME_ABORTED}, {t.OUTCOME_COMMITTED, grpc.StatusCode.FAILED_PRECONDITION})
    end = BALANCE if t.OUTCOME_ABORTED in answers else BALANCE - 10
    assert [shops.held(shop) for shop in wire.shops] == [end] * 2


async def _answer(call: Awaitable[Any]) -> object:
    """The outcome in the answer, or the status of the refusal."""
    try:
        return (await call).outcome
    except grpc.aio.AioRpcError as refusal:
        return refusal.code()


# -- out of order ------------------------------------------------------------------------------------------------------


async def test_a_rollback_that_overtakes_its_prepare_makes_the_late_prepare_vote_no(wire: Wire, shops: Shops) -> None:
    gtrid = await wire.begin()
    bqual = wire.shops[0].participant.bqual
    rollback = p.ParticipantRollbackRequest(gtrid=gtrid, bqual=bqual)
    assert (await wire.first.Rollback(rollback)).outcome == t.OUTCOME_ABORTED
    prepare = p.PrepareRequest(gtrid=gtrid, bqual=bqual, operations=[operation("shop-1")], timeout_ms=5_000)
    vote = await twice(wire.first.Prepare, prepare)
    assert (vote.vote, vote.reason_code) == (t.VOTE_NO, "ROLLED_BACK_FIRST")
    assert shops.prepared() == []
    assert shops.held(wire.shops[0]) == BALANCE


async def test_work_that_comes_after_the_commit_is_refused_and_changes_nothing(wire: Wire, shops: Shops) -> None:
    gtrid = await wire.begin_with_work()
    await wire.coordinator.Commit(c.CommitRequest(gtrid=gtrid))
    with within(TransactionContext(gtrid, clock.monotonic_s() + 5)):
        with pytest.raises(grpc.aio.AioRpcError, match="takes no more work") as late:
            await wire.shops[0].withdraw(10, account=2)
    assert late.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    third = c.EnlistRequest(gtrid=gtrid, resource="accounts", instance="late")
    await refused(wire.coordinator.Enlist, third, grpc.StatusCode.FAILED_PRECONDITION, "takes no more branches")
    assert shops.held(wire.shops[0], account=2) == BALANCE


async def test_work_that_comes_after_the_rollback_is_refused(wire: Wire, shops: Shops) -> None:
    gtrid = await wire.begin()
    await wire.coordinator.Rollback(c.RollbackRequest(gtrid=gtrid))
    with within(TransactionContext(gtrid, clock.monotonic_s() + 5)):
        with pytest.raises(grpc.aio.AioRpcError, match="could not be enlisted"):
            await wire.shops[0].withdraw(10)
    assert shops.held(wire.shops[0]) == BALANCE


# -- unknown -----------------------------------------------------------------------------------------------------------


async def test_a_commit_of_an_unknown_transaction_is_answered_by_what_its_absence_proves(wire: Wire) -> None:
    known = Gtrid.parse(await wire.begin())
    unknown = str(Gtrid(known.coordinator_id, known.epoch, known.time_ms - 1, 5))
    call = wire.coordinator.Commit
    await refused(call, c.CommitRequest(gtrid=unknown), grpc.StatusCode.NOT_FOUND, "is not known")
    await refused(call, c.CommitRequest(gtrid=unknown, branches=1), grpc.StatusCode.NOT_FOUND, "is not known")
    presumed = await twice(call, c.CommitRequest(gtrid=unknown, branches=2))
    assert (presumed.outcome, presumed.cause) == (t.OUTCOME_ABORTED, t.ABORT_CAUSE_PRESUMED)

    foreign = c.CommitRequest(gtrid=str(Gtrid("otherone", 1, known.time_ms, 5)), branches=2)
    await refused(call, foreign, grpc.StatusCode.NOT_FOUND, "was not made by this coordinator")
    await refused(call, c.CommitRequest(gtrid="'; --"), grpc.StatusCode.INVALID_ARGUMENT, "is not a gtrid")


async def test_a_participant_told_to_commit_what_it_never_saw_calls_it_a_hazard(wire: Wire) -> None:
    request = p.ParticipantCommitRequest(gtrid=await wire.begin(), bqual=wire.shops[0].participant.bqual)
    answer = await twice(wire.first.Commit, request)
    assert (answer.outcome, answer.evidence) == (t.OUTCOME_HEURISTIC_HAZARD, "there is no proof")


async def row_is_free(shops: Shops) -> None:
    """Wait until another session gets the row: the deadline has passed, and the branch been rolled back."""
    await off_loop(partial(shops.cluster.execute, b"UPDATE account SET balance = 0 + balance", database="shop-1"))


# -- late --------------------------------------------------------------------------------------------------------------


async def test_a_prepare_after_the_deadline_votes_no(wire: Wire, shops: Shops) -> None:
    gtrid = await wire.begin(timeout_ms=60_000)  # so that no Rollback of the coordinator's own deadline comes first
    with within(TransactionContext(gtrid, clock.monotonic_s() + 0.3)):
        await wire.shops[0].withdraw(10)
    await row_is_free(shops)
    prepare = p.PrepareRequest(gtrid=gtrid, bqual=wire.shops[0].participant.bqual, timeout_ms=5_000)
    vote = await twice(wire.first.Prepare, prepare)
    assert (vote.vote, vote.reason_code) == (t.VOTE_NO, "DEADLINE_PASSED")
    assert shops.held(wire.shops[0]) == BALANCE


async def test_a_commit_after_the_deadline_is_an_abort_that_says_so(wire: Wire, shops: Shops) -> None:
    async def work() -> None:
        async with shops.tm.transaction(timeout=0.3):
            for shop in wire.shops:
                await shop.withdraw(10)
            await row_is_free(shops)

    with pytest.raises(handfast.DeadlineExceeded, match="deadline"):
        await work()
    assert [shops.held(shop) for shop in wire.shops] == [BALANCE] * 2
