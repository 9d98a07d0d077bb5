"""Two processes over one database: the one that holds a prepared branch dies, and the other finishes the branch."""

import asyncio
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import handfast
from chaos.bank_stack import BankStack
from chaos.stack import ManagedProcess, PostgresCluster, Stack, wait_until
from examples.bank.client import Bank, Payment
from participant.failpoints import ENVIRONMENT_VARIABLE
from tests.integration.e2e.bank_world import off_loop
from tests.integration.e2e.processes import Coordinator, bank_service

_numbers = itertools.count(1)
PAYMENT = Payment("two-instances", customer=1, merchant=2, cents=250)


@dataclass(frozen=True, slots=True)
class Pair:
    """A coordinator, accounts, and two instances of the ledger."""

    coordinator: Coordinator
    accounts: str
    ledgers: tuple[tuple[ManagedProcess, str], tuple[ManagedProcess, str]]
    cluster: PostgresCluster
    name: str

    def prepared(self) -> list[str]:
        query = "SELECT gid FROM pg_prepared_xacts WHERE database = %s"
        return [gid for (gid,) in self.cluster.fetch(query, (self.name,))]

    def balance(self) -> int:
        return int(self.cluster.fetch(b"SELECT balance FROM account WHERE id = 2", database=self.name)[0][0])

    def start(self, failpoint: str) -> None:
        """Start the first ledger, to crash at this point, and the second."""
        for (process, _), point in zip(self.ledgers, (failpoint, ""), strict=True):
            process.env[ENVIRONMENT_VARIABLE] = point
            process.start()
        reached = lambda: sum(one.reachable for one in self.coordinator.admin.participants()) == 3  # noqa: E731
        wait_until(reached, 10, "not all are reached")


@pytest.fixture
def pair(shared_bank: BankStack, tmp_path: Path) -> Iterator[Pair]:
    cluster = shared_bank.databases["ledger"]
    name = f"pair-{next(_numbers)}"
    with Stack() as stack:
        coordinator = stack.start(Coordinator(tmp_path, "--retry-cap-s", "0.5"))
        accounts, at = bank_service(
            tmp_path, "accounts", cluster.create_database(f"{name}-accounts"), coordinator.address
        )
        stack.start(accounts)
        dsn = cluster.create_database(name)
        ledgers = [bank_service(tmp_path, "ledger", dsn, coordinator.address) for _ in range(2)]
        for process, _ in ledgers:
            stack.add(process)
        yield Pair(coordinator, at, (ledgers[0], ledgers[1]), cluster, name)
        for process in (accounts, *(process for process, _ in ledgers)):
            process.kill()


@pytest.mark.parametrize(
    ("failpoint", "commits"), [("after-prepare", False), ("before-commit", True), ("after-commit", True)]
)
async def test_the_other_instance_finishes_what_the_dead_one_prepared(
    pair: Pair, failpoint: str, commits: bool
) -> None:
    await off_loop(pair.start, failpoint)
    (holder, address), (other, _) = pair.ledgers
    async with handfast.connect(pair.coordinator.address) as tm:
        async with Bank(tm, accounts=pair.accounts, ledger=address) as client:
            paying = asyncio.create_task(client.pay(PAYMENT))
            await off_loop(holder.wait, 10)
            if commits:
                await paying
            else:
                with pytest.raises(handfast.TransactionAborted):
                    await paying
    await off_loop(wait_until, lambda: pair.prepared() == [], 10, "the branch is still prepared")
    assert (holder.alive, other.alive) == (False, True)
    assert await off_loop(pair.balance) == 1000 + (PAYMENT.cents if commits else 0)
