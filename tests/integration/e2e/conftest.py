"""Real Postgres servers and real processes, started once for all tests of this folder."""

from collections.abc import AsyncIterator, Iterator

import pytest

from chaos.bank_stack import BankPlan, BankStack
from chaos.stack import PostgresCluster, Stack
from examples.bank.client import Bank
from tests.integration.e2e.bank_world import ACCOUNTS, BALANCE, MONEY, client_of, make_whole
from tests.integration.e2e.shops import Shops

QUICK = {"apply_wait_s": 2, "retry_cap_s": 0.5, "sweep_interval_s": 0.5, "stop_grace_s": 10}


@pytest.fixture(scope="session")
def e2e_stack() -> Iterator[Stack]:
    with Stack() as stack:
        yield stack


@pytest.fixture(scope="session")
def shared_bank(e2e_stack: Stack) -> Iterator[BankStack]:
    plan = BankPlan(accounts=ACCOUNTS, balance=BALANCE, fsync=False, coordinator_flags=QUICK)
    bank = BankStack(e2e_stack, plan).start()
    yield bank
    for process in bank.services.values():
        process.kill()  # an orderly stop has tests of its own, and takes longer


@pytest.fixture
def bank(shared_bank: BankStack) -> Iterator[BankStack]:
    """The bank, whole. After the test it is made whole again, and must have lost nothing."""
    make_whole(shared_bank)
    yield shared_bank
    make_whole(shared_bank)
    shared_bank.wait_nothing_prepared(10)
    assert shared_bank.half_transfers() == {}
    assert sum(shared_bank.money().values()) == MONEY


@pytest.fixture
async def client(bank: BankStack) -> AsyncIterator[Bank]:
    async with client_of(bank) as client:
        yield client


@pytest.fixture(scope="session")
def slotless(e2e_stack: Stack) -> PostgresCluster:
    """A server that can't prepare: max_prepared_transactions = 0, as Postgres comes."""
    return e2e_stack.start(PostgresCluster("slotless", e2e_stack.path, max_prepared_transactions=0, fsync=False))


@pytest.fixture(scope="session")
def shop_databases(shared_bank: BankStack, slotless: PostgresCluster) -> Shops:
    return Shops(shared_bank.databases["accounts"], slotless)


@pytest.fixture
async def shops(bank: BankStack, shop_databases: Shops) -> AsyncIterator[Shops]:
    """Participants in this process, at the bank's coordinator."""
    async with shop_databases.at(bank.listening("coordinator")) as shops:
        yield shops
    assert shop_databases.prepared() == []
