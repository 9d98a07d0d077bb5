"""SIGKILL of the coordinator at each point of the protocol: atomic, nothing left in doubt, and the client learns it."""

import asyncio

import pytest

import handfast
from chaos.bank_stack import BankStack
from examples.bank.client import Bank, Payment
from examples.bank.client import credit_request as credit
from examples.bank.client import withdraw_request as withdraw
from handfast import Outcome, Standing
from tests.integration.e2e.bank_world import (
    MindChanged,
    client_of,
    moved,
    next_payment,
    off_loop,
    restart_coordinator,
    restart_coordinator_only,
    write_same_rows,
)

# Where it dies, how many branches it leaves prepared, and what must become of the transaction.
POINTS = [
    ("before-prepare", 0, Outcome.ABORTED),
    ("before-force", 2, Outcome.ABORTED),
    ("after-force", 2, Outcome.COMMITTED),
    ("mid-commit", 1, Outcome.COMMITTED),
    ("before-end", 0, Outcome.COMMITTED),
]
HOW = pytest.mark.parametrize("how", ["interactive", "one-shot"])


async def pay(client: Bank, how: str, payment: Payment) -> tuple[str, Outcome]:
    """Pay, and say under which gtrid and what the client was told."""
    try:
        return await (client.pay if how == "interactive" else client.pay_at_once)(payment), Outcome.COMMITTED
    except handfast.TransactionAborted as aborted:
        return aborted.gtrid, Outcome.ABORTED


@HOW
@pytest.mark.parametrize(("point", "in_doubt", "outcome"), POINTS, ids=[point for point, _, _ in POINTS])
async def test_a_coordinator_killed_at_any_point_loses_nothing(
    bank: BankStack, how: str, point: str, in_doubt: int, outcome: Outcome
) -> None:
    await off_loop(restart_coordinator, bank, point)
    payment = next_payment()
    async with client_of(bank) as client:
        paying = asyncio.create_task(pay(client, how, payment))
        await off_loop(bank.coordinator.wait, 10)
        assert len(await off_loop(bank.prepared)) == in_doubt

        await off_loop(bank.start_coordinator)
        gtrid, told = await paying
        assert told is outcome

        await off_loop(bank.wait_nothing_prepared, 10)
        assert await off_loop(moved, bank, payment) is (outcome is Outcome.COMMITTED)
        await off_loop(write_same_rows, bank, payment)

    # Whoever asks later, from wherever, gets the same answer: by asking, and by repeating the commit.
    async with client_of(bank) as later:
        assert (await later.tm.outcome(gtrid, branches=2)).outcome is outcome
        if outcome is Outcome.COMMITTED:
            assert (await later.tm.commit(gtrid, branches=2)).outcome is Outcome.COMMITTED
        else:
            with pytest.raises(handfast.TransactionAborted):
                await later.tm.commit(gtrid, branches=2)


@pytest.mark.parametrize(("point", "outcome"), [("before-force", Outcome.ABORTED), ("after-force", Outcome.COMMITTED)])
async def test_an_outcome_that_is_unknown_for_now_can_be_asked_for_later(
    bank: BankStack, point: str, outcome: Outcome
) -> None:
    await off_loop(restart_coordinator, bank, point)
    payment = next_payment()
    async with client_of(bank, timeout=1.5, outcome_wait=0) as client:
        with pytest.raises(handfast.OutcomeUnknown, match="may have committed") as unknown:
            await client.pay(payment)
    await off_loop(bank.start_coordinator)
    async with client_of(bank) as later:
        report = await later.tm.outcome(unknown.value.gtrid, branches=unknown.value.branches)
    assert report.outcome is outcome
    await off_loop(bank.wait_nothing_prepared, 10)
    assert await off_loop(moved, bank, payment) is (outcome is Outcome.COMMITTED)


async def test_who_does_not_say_how_many_branches_there_are_is_not_told_a_guess(bank: BankStack) -> None:
    await off_loop(restart_coordinator, bank, "before-force")
    async with client_of(bank, timeout=1.5, outcome_wait=0) as client:
        with pytest.raises(handfast.OutcomeUnknown) as unknown:
            await client.pay(next_payment())
    await off_loop(bank.start_coordinator)
    async with client_of(bank) as later:
        assert (await later.tm.outcome(unknown.value.gtrid)).standing is Standing.UNKNOWN
        assert (await later.tm.outcome(unknown.value.gtrid, branches=2)).standing is Standing.ABORT


async def test_a_transaction_whose_coordinator_restarted_under_it_is_aborted_and_the_next_one_commits(
    bank: BankStack, client: Bank
) -> None:
    lost, next_one = next_payment(), next_payment()

    async def work() -> None:
        async with client.tm.transaction(timeout=10):
            await client.accounts.Withdraw(withdraw(lost))
            await client.ledger.Credit(credit(lost))
            await off_loop(restart_coordinator_only, bank)

    with pytest.raises(handfast.TransactionAborted) as aborted:
        await work()
    assert aborted.value.cause is handfast.AbortCause.PRESUMED
    assert not await off_loop(moved, bank, lost)
    await client.pay(next_one)
    assert await off_loop(moved, bank, next_one)


async def test_a_rollback_after_the_coordinator_restarted_is_a_rollback(bank: BankStack, client: Bank) -> None:
    payment = next_payment()
    txn = client.tm.transaction(timeout=3)

    async def work() -> None:
        async with txn:
            await client.accounts.Withdraw(withdraw(payment))
            await off_loop(restart_coordinator_only, bank)
            raise MindChanged

    with pytest.raises(MindChanged) as leaving:
        await work()
    assert txn.outcome is Outcome.ABORTED
    assert not hasattr(leaving.value, "__notes__")  # nothing went wrong on the way out
    await off_loop(write_same_rows, bank, payment)
    assert not await off_loop(moved, bank, payment)
