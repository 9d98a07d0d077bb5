"""SIGKILL of a participant, of Postgres and of the client: atomic, and no lock waits for an operator."""

import asyncio
from pathlib import Path

import pytest

import handfast
from chaos.bank_stack import BankStack
from chaos.stack import ManagedProcess, python_module, wait_until
from examples.bank.client import Bank, Payment
from examples.bank.client import credit_request as credit
from examples.bank.client import withdraw_request as withdraw
from handfast import Outcome
from tests.integration.e2e.bank_world import (
    client_of,
    moved,
    next_payment,
    off_loop,
    restart_service,
    restart_until_registered,
    wait_prepared,
    write_same_rows,
)

REPOSITORY = Path(__file__).resolve().parents[3]

# Where the ledger's process dies, and what must become of the transaction.
POINTS = [
    ("before-prepare", Outcome.ABORTED),
    ("after-prepare", Outcome.ABORTED),
    ("before-commit", Outcome.COMMITTED),
    ("after-commit", Outcome.COMMITTED),
]


# -- the participant ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("point", "outcome"), POINTS, ids=[point for point, _ in POINTS])
async def test_a_participant_killed_at_any_point_loses_nothing(bank: BankStack, point: str, outcome: Outcome) -> None:
    await off_loop(restart_service, bank, "ledger", point)
    payment = next_payment()
    async with client_of(bank) as client:
        paying = asyncio.create_task(told(client, payment))
        await off_loop(bank.service("ledger").wait, 10)
        await off_loop(restart_service, bank, "ledger")
        assert await paying is outcome
    await off_loop(bank.wait_nothing_prepared, 10)
    await off_loop(write_same_rows, bank, payment)
    assert await off_loop(moved, bank, payment) is (outcome is Outcome.COMMITTED)


async def test_a_participant_killed_while_its_work_is_open_aborts_the_transaction(
    bank: BankStack, client: Bank
) -> None:
    payment = next_payment()

    async def work() -> None:
        async with client.tm.transaction(timeout=10):
            await client.accounts.Withdraw(withdraw(payment))
            await client.ledger.Credit(credit(payment))
            await off_loop(restart_service, bank, "ledger")

    with pytest.raises(handfast.TransactionAborted, match="ledger"):
        await work()
    await off_loop(write_same_rows, bank, payment)
    assert not await off_loop(moved, bank, payment)


@pytest.mark.parametrize("point", ["before-commit", "after-commit"])
async def test_the_only_participant_killed_during_its_commit_leaves_no_guess(bank: BankStack, point: str) -> None:
    await off_loop(restart_service, bank, "ledger", point)
    payment = next_payment()
    async with client_of(bank, timeout=2, outcome_wait=1) as client:

        async def work() -> None:
            async with client.tm.transaction(timeout=2):
                await client.ledger.Credit(credit(payment))

        committing = asyncio.create_task(work())
        await off_loop(bank.service("ledger").wait, 10)
        await off_loop(restart_service, bank, "ledger")
        with pytest.raises((handfast.OutcomeUnknown, handfast.HeuristicOutcome)):
            await committing
    lines = [line for line in await off_loop(bank.journal) if line.transfer == payment.transfer]
    assert len(lines) == (1 if point == "after-commit" else 0)
    await off_loop(undo_credit, bank, payment, len(lines))


async def test_a_participant_can_be_used_as_soon_as_it_has_registered_again(bank: BankStack, client: Bank) -> None:
    for _ in range(3):
        bank.service("ledger").kill()
        await off_loop(wait_until, lambda: not reached(bank, "ledger"), 5, "its death was not noticed")
        await off_loop(restart_until_registered, bank, "ledger")
        payment = next_payment()
        await client.pay_at_once(payment)
        assert await off_loop(moved, bank, payment)


# -- Postgres ----------------------------------------------------------------------------------------------------------


async def test_postgres_stopped_at_once_after_prepare_and_before_the_vote_loses_nothing(bank: BankStack) -> None:
    await off_loop(restart_service, bank, "ledger", "after-prepare=stop")
    payment = next_payment()
    async with client_of(bank) as client:
        paying = asyncio.create_task(told(client, payment))
        await off_loop(crash_postgres_while_paused, bank)
        assert await paying is Outcome.COMMITTED
    await off_loop(bank.wait_nothing_prepared, 10)
    await off_loop(write_same_rows, bank, payment)
    assert await off_loop(moved, bank, payment)


async def test_postgres_stopped_at_once_during_commit_loses_nothing(bank: BankStack) -> None:
    await off_loop(restart_service, bank, "ledger", "before-commit=stop")
    payment = next_payment()
    async with client_of(bank) as client:
        paying = asyncio.create_task(told(client, payment))
        await off_loop(crash_postgres_while_paused, bank)
        assert await paying is Outcome.COMMITTED
    await off_loop(bank.wait_nothing_prepared, 10)
    await off_loop(write_same_rows, bank, payment)
    assert await off_loop(moved, bank, payment)


async def test_postgres_stopped_at_once_while_work_is_open_aborts_the_transaction(
    bank: BankStack, client: Bank
) -> None:
    payment = next_payment()

    async def work() -> None:
        async with client.tm.transaction(timeout=10):
            await client.accounts.Withdraw(withdraw(payment))
            await client.ledger.Credit(credit(payment))
            await off_loop(bank.databases["ledger"].restart, "immediate")

    with pytest.raises(handfast.TransactionAborted, match="ledger"):
        await work()
    await off_loop(write_same_rows, bank, payment)
    assert not await off_loop(moved, bank, payment)


# -- the client --------------------------------------------------------------------------------------------------------


async def test_a_client_killed_before_its_commit_leaves_no_lock(bank: BankStack, tmp_path: Path) -> None:
    payment = next_payment()
    process = client_process(bank, payment, tmp_path, "work-only")
    await off_loop(process.start)
    await off_loop(process.kill)
    # Nobody is left to roll back: the deadline does it.
    await off_loop(write_same_rows, bank, payment)
    assert not await off_loop(moved, bank, payment)


async def test_a_client_killed_during_its_commit_leaves_no_lock_and_the_decision_stands(
    bank: BankStack, tmp_path: Path
) -> None:
    await off_loop(restart_service, bank, "ledger", "after-prepare=stop")
    payment = next_payment()
    process = client_process(bank, payment, tmp_path, "commit")
    await off_loop(process.start)
    await off_loop(wait_prepared, bank, 2)
    await off_loop(process.kill)
    bank.service("ledger").resume()
    await off_loop(bank.wait_nothing_prepared, 10)
    await off_loop(write_same_rows, bank, payment)
    assert await off_loop(moved, bank, payment)


# -- shared ------------------------------------------------------------------------------------------------------------


async def told(client: Bank, payment: Payment) -> Outcome:
    """Pay, and say what the client was told."""
    try:
        await client.pay(payment)
    except handfast.TransactionAborted:
        return Outcome.ABORTED
    return Outcome.COMMITTED


def reached(bank: BankStack, service: str) -> bool:
    address = bank.listening(f"{service}-1")
    return any(one.reachable for one in bank.admin.participants() if one.address == address)


def crash_postgres_while_paused(bank: BankStack) -> None:
    """Crash the ledger's Postgres while the ledger's process stands still, and let both go on."""
    ledger = bank.service("ledger")
    wait_until(lambda: ledger.paused, 10, "the ledger did not reach its failpoint")
    bank.databases["ledger"].restart("immediate")
    assert bank.prepared(["ledger"]) != []
    ledger.resume()


def undo_credit(bank: BankStack, payment: Payment, times: int) -> None:
    """Take a credit without a withdrawal out again, so that the bank's money adds up for the next test."""
    ledger = bank.databases["ledger"]
    taken = (payment.cents * times, payment.merchant)
    ledger.execute("UPDATE account SET balance = balance - %s WHERE id = %s", taken, database="bank")
    ledger.execute("DELETE FROM journal WHERE transfer = %s", (payment.transfer,), database="bank")


def client_process(bank: BankStack, payment: Payment, folder: Path, how: str) -> ManagedProcess:
    """A client in a process of its own: it does the work of a payment, and then waits, or commits."""
    addresses = [f"{name}={address}" for name, address in bank.client_addresses().items()]
    numbers = [str(number) for number in (payment.customer, payment.merchant, payment.cents)]
    return ManagedProcess(
        "client",
        python_module("tests.integration.e2e.client_process", how, payment.transfer, *numbers, *addresses),
        log=folder / "client.log",
        cwd=REPOSITORY,
        ready="work is done",
        ready_timeout_s=20,
    )
