"""Deadlines, paused processes and graceful stops: whoever wakes up late aborts, and whoever stops loses nothing."""

import asyncio
import time

import pytest

import handfast
from chaos.bank_stack import BankStack
from chaos.stack import wait_until
from examples.bank.client import Bank, Payment, withdraw_request
from tests.integration.e2e.bank_world import (
    client_of,
    moved,
    next_payment,
    off_loop,
    restart_service,
    wait_prepared,
    write_same_rows,
)


async def test_a_coordinator_that_sleeps_past_the_deadline_aborts_although_every_vote_came(bank: BankStack) -> None:
    await off_loop(restart_service, bank, "ledger", "after-prepare=stop")
    payment = next_payment()
    async with client_of(bank, timeout=2) as client:
        began_s = time.monotonic()
        paying = asyncio.create_task(client.pay(payment))
        await off_loop(wait_prepared, bank, 2)
        bank.coordinator.pause()
        bank.service("ledger").resume()  # its vote, YES, goes to a coordinator that stands still
        await off_loop(wait_until, lambda: time.monotonic() - began_s > 2.5, 5, "the deadline does not come")
        assert len(await off_loop(bank.prepared)) == 2
        bank.coordinator.resume()
        with pytest.raises(handfast.DeadlineExceeded):
            await paying
    await off_loop(bank.wait_nothing_prepared, 10)
    await off_loop(write_same_rows, bank, payment)
    assert not await off_loop(moved, bank, payment)


async def test_a_participant_that_sleeps_past_the_deadline_aborts_the_transaction(bank: BankStack) -> None:
    await off_loop(restart_service, bank, "ledger", "before-prepare=stop")
    payment = next_payment()
    async with client_of(bank, timeout=1.5) as client:
        with pytest.raises(handfast.DeadlineExceeded, match="ledger"):
            await client.pay(payment)
    bank.service("ledger").resume()
    await off_loop(bank.wait_nothing_prepared, 10)
    await off_loop(write_same_rows, bank, payment)
    assert not await off_loop(moved, bank, payment)


async def test_work_that_is_never_committed_ends_at_its_deadline(bank: BankStack, client: Bank) -> None:
    payment = next_payment()
    txn = client.tm.transaction(timeout=1)

    async def work() -> None:
        async with txn:
            await client.accounts.Withdraw(withdraw_request(payment))
            await off_loop(write_same_rows, bank, payment)  # returns when the branch has been rolled back

    with pytest.raises(handfast.DeadlineExceeded):
        await work()
    assert not await off_loop(moved, bank, payment)


async def test_a_graceful_stop_under_load_loses_nothing(bank: BankStack) -> None:
    async with client_of(bank, timeout=10) as client:
        told: dict[str, str] = {}
        stopping = asyncio.Event()

        async def pay_on_and_on() -> None:
            while not stopping.is_set():
                payment = next_payment()
                told[payment.transfer] = await _told(client, payment)

        paying = [asyncio.create_task(pay_on_and_on()) for _ in range(8)]
        await off_loop(wait_until, lambda: list(told.values()).count("committed") > 20, 10, "no load")
        assert await off_loop(bank.coordinator.stop, 15) == 0
        stopping.set()
        await off_loop(bank.start_coordinator)
        await asyncio.gather(*paying)

    await off_loop(bank.wait_nothing_prepared, 10)
    both_sides: dict[str, int] = {}
    for line in await off_loop(bank.journal):
        both_sides[line.transfer] = both_sides.get(line.transfer, 0) + 1
    assert "unknown" not in told.values()
    assert {name: both_sides.get(name, 0) for name in told} == {
        name: 2 if end == "committed" else 0 for name, end in told.items()
    }


async def test_a_second_signal_ends_a_stop_at_once_and_the_next_start_finishes(bank: BankStack) -> None:
    await off_loop(restart_service, bank, "ledger", "before-commit=stop")
    payment = next_payment()
    async with client_of(bank, timeout=10) as client:
        paying = asyncio.create_task(client.pay(payment))
        await off_loop(wait_until, lambda: bank.service("ledger").paused, 10, "the ledger does not pause")
        bank.coordinator.terminate()  # it waits for the ledger, which owes an acknowledgement
        await off_loop(bank.coordinator.wait_for_output, "to be finished", 5)
        bank.coordinator.terminate()
        assert await off_loop(bank.coordinator.wait, 5) == 128 + 15
        bank.service("ledger").resume()
        await off_loop(bank.start_coordinator)
        await paying
    assert await off_loop(moved, bank, payment)


async def _told(client: Bank, payment: Payment) -> str:
    try:
        await client.pay(payment)
    except handfast.OutcomeUnknown:
        return "unknown"
    except Exception:  # noqa: BLE001 - whatever else it is, it promises that nothing was committed
        return "not committed"
    return "committed"
