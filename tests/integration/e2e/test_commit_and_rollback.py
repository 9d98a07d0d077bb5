"""Both change, or neither: commits, rollbacks, votes of NO and exceptions, over real services and databases."""

from collections.abc import Sequence

import grpc.aio
import pytest

import handfast
from chaos.bank_stack import BankStack
from examples.bank import accounts
from examples.bank.booking import Connection
from examples.bank.client import Bank, Payment, credit_request, withdraw_request
from examples.bank.v1.accounts_pb2 import WithdrawRequest, WithdrawResponse
from examples.bank.v1.accounts_pb2_grpc import add_AccountsServicer_to_server
from handfast.xid import Xid
from participant import Participant
from tests.integration.e2e.bank_world import MindChanged, moved, next_payment, off_loop
from tests.integration.e2e.shops import BALANCE, Shop, Shops

NAMES = ("shop-1", "shop-2", "shop-3", "shop-4", "shop-5")
COUNTS = pytest.mark.parametrize("count", [1, 2, 5])


def withdrawals(shops: Sequence[Shop], cents: int = 10) -> list[tuple[str, str, bytes]]:
    payload = WithdrawRequest(account=1, amount=cents, transfer="one-shot").SerializeToString()
    return [(shop.participant.resource, "withdraw", payload) for shop in shops]


def held(shops: Shops, opened: Sequence[Shop]) -> list[int]:
    return [shops.held(shop) for shop in opened]


@COUNTS
async def test_a_commit_changes_every_participant(shops: Shops, count: int) -> None:
    opened = await shops.open(*NAMES[:count])
    async with shops.tm.transaction(timeout=10) as txn:
        for shop in opened:
            await shop.withdraw(10)
        assert len(txn.context.branches) == count
    assert txn.outcome is handfast.Outcome.COMMITTED
    assert held(shops, opened) == [BALANCE - 10] * count


@COUNTS
async def test_a_one_shot_commit_changes_every_participant(shops: Shops, count: int) -> None:
    opened = await shops.open(*NAMES[:count])
    result = await shops.tm.execute(withdrawals(opened), timeout=10)
    assert result.outcome is handfast.Outcome.COMMITTED
    assert result.results is not None
    assert [WithdrawResponse.FromString(one).balance for one in result.results] == [BALANCE - 10] * count
    assert held(shops, opened) == [BALANCE - 10] * count


@COUNTS
async def test_a_rollback_changes_no_participant(shops: Shops, count: int) -> None:
    opened = await shops.open(*NAMES[:count])
    async with shops.tm.transaction(timeout=10) as txn:
        for shop in opened:
            await shop.withdraw(10)
        await txn.rollback("changed my mind")
    assert txn.outcome is handfast.Outcome.ABORTED
    assert held(shops, opened) == [BALANCE] * count


@COUNTS
async def test_an_exception_in_the_block_changes_no_participant(shops: Shops, count: int) -> None:
    opened = await shops.open(*NAMES[:count])

    async def work() -> None:
        async with shops.tm.transaction(timeout=10):
            for shop in opened:
                await shop.withdraw(10)
            raise MindChanged

    with pytest.raises(MindChanged):
        await work()
    assert held(shops, opened) == [BALANCE] * count
    assert shops.prepared() == []


@COUNTS
async def test_one_no_changes_no_participant_and_its_reason_reaches_the_client(shops: Shops, count: int) -> None:
    opened = await shops.open(*NAMES[:count])
    work = [*withdrawals(opened[:-1]), *withdrawals(opened[-1:], BALANCE + 1)]
    with pytest.raises(handfast.TransactionAborted, match="account 1 holds less than 1001") as aborted:
        await shops.tm.execute(work, timeout=10)
    guilty = opened[-1].participant.bqual
    assert (aborted.value.branch, aborted.value.reason_code) == (guilty, "OPERATION_FAILED")
    assert held(shops, opened) == [BALANCE] * count


async def test_a_branch_that_failed_votes_no_whatever_the_application_makes_of_the_error(
    bank: BankStack, client: Bank
) -> None:
    payment = next_payment()
    too_much = Payment(payment.transfer, payment.customer, payment.merchant, cents=10**12)

    async def work() -> None:
        async with client.tm.transaction(timeout=5):
            await client.ledger.Credit(credit_request(too_much))
            with pytest.raises(grpc.aio.AioRpcError, match="holds less"):
                await client.accounts.Withdraw(withdraw_request(too_much))

    with pytest.raises(handfast.TransactionAborted, match=r"account \d+ holds less than 10{12}") as aborted:
        await work()
    assert aborted.value.reason_code == "BRANCH_FAILED"
    assert aborted.value.branch.startswith("accounts.")
    assert not await off_loop(moved, bank, too_much)


async def test_what_postgres_cannot_prepare_is_a_no_that_names_the_cause(shops: Shops) -> None:
    def with_temporary_table(participant: Participant[Connection], server: grpc.aio.Server) -> None:
        accounts.register(participant, server)

        @participant.operation("scribble")
        async def scribble(connection: Connection, payload: bytes) -> None:
            await connection.execute("CREATE TEMPORARY TABLE scribble ON COMMIT DROP AS SELECT 1")

    (other,) = await shops.open("shop-1")
    await shops.open_one("shop-2", setup=with_temporary_table)
    with pytest.raises(handfast.TransactionAborted, match="temporary") as aborted:
        await shops.tm.execute([*withdrawals([other]), ("shop-2", "scribble", b"")], timeout=10)
    assert aborted.value.reason_code == "PREPARE_UNSUPPORTED"
    assert shops.held(other) == BALANCE


async def test_a_service_that_calls_a_service_carries_the_transaction_on(shops: Shops) -> None:
    inner, outer = await open_nested(shops)
    async with shops.tm.transaction(timeout=10) as txn:
        await outer.withdraw(10)
    assert txn.context.branches == {inner.participant.bqual, outer.participant.bqual}
    assert held(shops, [inner, outer]) == [BALANCE - 10] * 2


async def test_a_nested_call_is_rolled_back_with_the_call_that_made_it(shops: Shops) -> None:
    inner, outer = await open_nested(shops)

    async def work() -> None:
        async with shops.tm.transaction(timeout=10):
            await outer.withdraw(10)
            raise MindChanged

    with pytest.raises(MindChanged):
        await work()
    assert held(shops, [inner, outer]) == [BALANCE] * 2


async def test_a_read_sees_what_its_own_transaction_wrote_and_nobody_else_does(shops: Shops) -> None:
    (shop,) = await shops.open("shop-1")
    async with shops.tm.transaction(timeout=10):
        await shop.withdraw(10)
        assert await shop.balance() == BALANCE - 10
        assert shops.held(shop) == BALANCE
    assert shops.held(shop) == BALANCE - 10


async def test_branches_carry_names_that_a_person_can_read(bank: BankStack, client: Bank) -> None:
    payment = next_payment()
    gtrid = await client.pay(payment)
    shown = await off_loop(bank.admin.transaction, gtrid)
    assert sorted(branch.resource for branch in shown.branches) == ["accounts", "ledger"]
    assert all(Xid(gtrid, branch.bqual).gid().startswith(f"handfast_{gtrid}_") for branch in shown.branches)
    assert await off_loop(moved, bank, payment)


async def open_nested(shops: Shops) -> tuple[Shop, Shop]:
    """Two shops; a withdrawal from the second makes one from the first too."""
    (inner,) = await shops.open("shop-1")

    class Nested(accounts.Accounts):
        async def Withdraw(self, request: WithdrawRequest, context: accounts.Context) -> WithdrawResponse:
            await inner.stub.Withdraw(request)
            return await super().Withdraw(request, context)

    def nested(participant: Participant[Connection], server: grpc.aio.Server) -> None:
        add_AccountsServicer_to_server(Nested(participant), server)

    return inner, await shops.open_one("shop-2", setup=nested)
