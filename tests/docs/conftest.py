"""The pages' world: the bank on its stack, on other ports than the pages show."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from chaos.bank_stack import BankPlan, BankStack
from chaos.stack import Stack


@pytest.fixture(scope="package")
def running_bank() -> Iterator[BankStack]:
    with Stack() as stack:
        yield BankStack(stack, BankPlan(fsync=False)).start()


@pytest.fixture
def bank(running_bank: BankStack) -> BankStack:
    """The bank as it was at first: 1,000 cents in each account, and empty journals."""
    running_bank.wait_nothing_prepared()
    for database in running_bank.databases.values():
        database.execute("DELETE FROM journal; UPDATE account SET balance = 1000", database="bank")
    return running_bank


@pytest.fixture
def bank_ports(bank: BankStack) -> dict[str, str]:
    """The README's addresses, and where they are here."""
    here = bank.client_addresses()
    return {
        f"127.0.0.1:{port}": here[who] for port, who in ((7400, "coordinator"), (7501, "accounts"), (7502, "ledger"))
    }
