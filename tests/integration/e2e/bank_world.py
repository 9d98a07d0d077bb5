"""The bank as these tests see it: made whole before each test, and asked by plain SQL afterwards."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import handfast
from chaos.bank_stack import DATABASE, FAILPOINT, SERVICES, BankStack
from chaos.stack import wait_until
from examples.bank.client import Bank, Payment
from participant.failpoints import ENVIRONMENT_VARIABLE as PARTICIPANT_FAILPOINT

ACCOUNTS = 100
BALANCE = 1_000_000
MONEY = 2 * ACCOUNTS * BALANCE
CENTS = 250

Answer = TypeVar("Answer")
_numbers = itertools.count(1)


class MindChanged(Exception):
    """What an application raises in its block."""


def next_payment() -> Payment:
    """A payment of its own name, between accounts that the tests use in turn."""
    number = next(_numbers)
    return Payment(f"t-{number}", customer=number % ACCOUNTS + 1, merchant=number * 7 % ACCOUNTS + 1, cents=CENTS)


async def off_loop(work: Callable[..., Answer], *arguments: object) -> Answer:
    """Do something that blocks while the clients in this process go on."""
    return await asyncio.to_thread(work, *arguments)


@asynccontextmanager
async def client_of(
    bank: BankStack, *, timeout: float = 15, outcome_wait: float = 5, **settings: str
) -> AsyncIterator[Bank]:
    """A client of the bank; a transaction's outcome is asked for until ``outcome_wait`` s past its ``timeout``."""
    addresses = bank.client_addresses()
    async with handfast.connect(
        addresses["coordinator"], outcome_wait=outcome_wait, client=settings.get("name", "")
    ) as tm:
        async with Bank(tm, accounts=addresses["accounts"], ledger=addresses["ledger"], timeout=timeout) as client:
            yield client


# -- hurting and mending -----------------------------------------------------------------------------------------------


def restart_coordinator(bank: BankStack, failpoint: str = "") -> None:
    """Kill the coordinator and start it again, to crash at this point when one is named."""
    bank.coordinator.kill()
    bank.start_coordinator(failpoint=failpoint)
    bank.wait_reachable()


def restart_service(bank: BankStack, service: str, failpoint: str = "") -> None:
    """Kill a service and start it again, to crash at this point when one is named."""
    restart_until_registered(bank, service, failpoint)
    bank.wait_reachable()


def restart_until_registered(bank: BankStack, service: str, failpoint: str = "") -> None:
    """The same, and return as soon as it has registered."""
    process = bank.service(service)
    before = _registrations(bank, service)
    process.kill()
    process.env[PARTICIPANT_FAILPOINT] = failpoint
    process.start()
    wait_until(lambda: _registrations(bank, service) - before, 10, f"{service} did not register again")


def make_whole(bank: BankStack) -> None:
    """Everything runs, and nothing is about to crash."""
    for database in bank.databases.values():
        if not database.alive:
            database.start()
    if bank.coordinator.paused or bank.coordinator.env[FAILPOINT] or not _takes_work(bank):
        restart_coordinator_only(bank)
    for service in SERVICES:
        process = bank.service(service)
        if not process.alive or process.paused or process.env.get(PARTICIPANT_FAILPOINT):
            restart_service(bank, service)
    bank.wait_reachable()


def _takes_work(bank: BankStack) -> bool:
    return bank.coordinator.alive and bank.admin.answers() and not bank.admin.status().stopping


def restart_coordinator_only(bank: BankStack) -> None:
    """Kill the coordinator and start it again, whether or not the services can be reached."""
    bank.coordinator.kill()
    bank.start_coordinator()


def _registrations(bank: BankStack, service: str) -> set[str]:
    return {one.instance for one in bank.admin.participants() if one.address == bank.listening(f"{service}-1")}


# -- the truth ---------------------------------------------------------------------------------------------------------


def moved(bank: BankStack, payment: Payment) -> bool:
    """Whether the payment was made, by both journals; fails when it was made by half."""
    sides = sorted(line.database for line in bank.journal() if line.transfer == payment.transfer)
    assert sides in ([], ["accounts", "ledger"]), f"{payment.transfer} was made by half: {sides}"
    return sides != []


def write_same_rows(bank: BankStack, payment: Payment) -> None:
    """Write to the rows that the payment touches, as anybody might; fails when they are locked for long."""
    for service, account in (("accounts", payment.customer), ("ledger", payment.merchant)):
        with bank.databases[service].connect(DATABASE) as connection:
            connection.execute("SET lock_timeout = '8s'")
            changed = connection.execute("UPDATE account SET balance = balance WHERE id = %s", (account,))
            assert changed.rowcount == 1


def wait_prepared(bank: BankStack, count: int, within_s: float = 10) -> None:
    """Wait until so many branches are prepared."""
    wait_until(lambda: len(bank.prepared()) == count, within_s, lambda: f"prepared: {bank.prepared()}, not {count}")
