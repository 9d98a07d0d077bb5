"""What costs nothing: read-only branches take no slot, one branch takes one phase, and neither writes to the log.

The proof that no slot is taken is a server that has none.
"""

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import pytest

import handfast
from chaos.stack import PostgresCluster, Stack
from examples.bank.v1.accounts_pb2 import GetBalanceRequest, WithdrawRequest
from tests.integration.e2e.bank_world import off_loop
from tests.integration.e2e.processes import Coordinator
from tests.integration.e2e.shops import BALANCE, OPTIONS, Shop, Shops

# A registration is a log record too; here none shall come by itself.
REGISTERS_ONCE = replace(OPTIONS, register_interval_s=3600)


@pytest.fixture(scope="module")
def coordinator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Coordinator]:
    with Stack() as stack:
        yield stack.start(Coordinator(tmp_path_factory.mktemp("cheap")))


@pytest.fixture
async def shops(coordinator: Coordinator, shop_databases: Shops) -> AsyncIterator[Shops]:
    async with shop_databases.at(coordinator.address) as shops:
        yield shops


@pytest.fixture
async def slotless_shop(shops: Shops, slotless: PostgresCluster) -> Shop:
    return await shops.open_one("slotless", cluster=slotless, options=REGISTERS_ONCE)


@pytest.fixture
async def shop(shops: Shops) -> Shop:
    return await shops.open_one("shop-1", options=REGISTERS_ONCE)


class Counted:
    """What the coordinator counted during a block."""

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator
        self.grown: dict[str, int] = {}

    async def __aenter__(self) -> "Counted":
        self._before = dict((await off_loop(self._coordinator.admin.status)).counters)
        return self

    async def __aexit__(self, *_: object) -> None:
        after = (await off_loop(self._coordinator.admin.status)).counters
        self.grown = {name: after[name] - self._before.get(name, 0) for name in after}


async def test_a_transaction_of_reads_takes_no_slot_and_writes_no_log(
    shops: Shops, coordinator: Coordinator, slotless_shop: Shop, shop: Shop
) -> None:
    async with Counted(coordinator) as counted:
        async with shops.tm.transaction(timeout=5) as txn:
            assert [await slotless_shop.balance(), await shop.balance()] == [BALANCE] * 2
    assert txn.outcome is handfast.Outcome.COMMITTED
    assert counted.grown["read_only"] == 1
    assert (counted.grown["log_forces"], counted.grown["log_records"]) == (0, 0)


async def test_a_branch_that_only_reads_takes_no_slot_beside_one_that_writes(
    shops: Shops, coordinator: Coordinator, slotless_shop: Shop, shop: Shop
) -> None:
    async with Counted(coordinator) as counted:
        async with shops.tm.transaction(timeout=5):
            await slotless_shop.balance()
            await shop.withdraw(10)
    assert shops.held(shop) == BALANCE - 10
    assert (counted.grown["committed"], counted.grown["one_phase"]) == (1, 0)


async def test_a_single_participant_takes_one_phase_no_slot_and_no_log(
    shops: Shops, coordinator: Coordinator, slotless_shop: Shop
) -> None:
    async with Counted(coordinator) as counted:
        async with shops.tm.transaction(timeout=5) as txn:
            await slotless_shop.withdraw(10)
            await slotless_shop.withdraw(10, account=2)
    assert txn.outcome is handfast.Outcome.COMMITTED
    assert [shops.held(slotless_shop, account) for account in (1, 2)] == [BALANCE - 10] * 2
    assert counted.grown["one_phase"] == 1
    assert (counted.grown["log_forces"], counted.grown["log_records"]) == (0, 0)


async def test_a_one_shot_at_a_single_participant_takes_one_phase_too(
    shops: Shops, coordinator: Coordinator, slotless_shop: Shop
) -> None:
    payload = WithdrawRequest(account=1, amount=10, transfer="one-shot").SerializeToString()
    async with Counted(coordinator) as counted:
        await shops.tm.execute([("slotless", "withdraw", payload)], timeout=5)
    assert shops.held(slotless_shop) == BALANCE - 10
    assert counted.grown["one_phase"] == 1
    assert (counted.grown["log_forces"], counted.grown["log_records"]) == (0, 0)


async def test_an_abort_writes_no_log(shops: Shops, coordinator: Coordinator, slotless_shop: Shop, shop: Shop) -> None:
    async with Counted(coordinator) as counted:
        async with shops.tm.transaction(timeout=5) as txn:
            await slotless_shop.withdraw(10)
            await shop.withdraw(10)
            await txn.rollback()
    assert counted.grown["aborted"] == 1
    assert (counted.grown["log_forces"], counted.grown["log_records"]) == (0, 0)


async def test_a_commit_of_two_writers_forces_the_log_once(shops: Shops, coordinator: Coordinator, shop: Shop) -> None:
    other = await shops.open_one("shop-2", options=REGISTERS_ONCE)
    async with Counted(coordinator) as counted:
        async with shops.tm.transaction(timeout=5):
            await shop.withdraw(10)
            await other.withdraw(10)
    assert counted.grown["log_forces"] >= 1
    assert counted.grown["log_records"] >= 1


async def test_reading_is_what_makes_a_branch_read_only_not_the_call_that_was_made(
    shops: Shops, slotless_shop: Shop, shop: Shop
) -> None:
    async def work() -> None:
        async with shops.tm.transaction(timeout=5):
            await slotless_shop.stub.GetBalance(GetBalanceRequest(account=1))
            await slotless_shop.withdraw(10)
            await shop.withdraw(10)

    with pytest.raises(handfast.TransactionAborted) as aborted:
        await work()
    assert aborted.value.reason_code == "PREPARED_DISABLED"
    assert [shops.held(one) for one in (slotless_shop, shop)] == [BALANCE] * 2
