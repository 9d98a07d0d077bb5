"""The example bank, whole: two services, two Postgres clusters and a coordinator, each a real process."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace

import grpc
import grpc.aio
import pytest

import handfast
from chaos.bank_stack import DATABASE, BankStack
from chaos.stack import Stack
from examples.bank.client import Bank, Payment, withdraw_request
from examples.bank.v1 import accounts_pb2, ledger_pb2
from handfast.xid import split_bqual

Pay = Callable[[Bank, Payment], Awaitable[str]]

PAYMENT = Payment("payment", customer=1, merchant=1, cents=250)
BALANCE = 1000


@pytest.fixture(scope="module")
def running() -> Iterator[BankStack]:
    with Stack() as stack:
        yield stack.start(BankStack(stack))


@pytest.fixture
def stack(running: BankStack) -> BankStack:
    """The running stack, with every account as it was at first."""
    for database in running.databases.values():
        database.execute("TRUNCATE journal", database=DATABASE)
        database.execute("UPDATE account SET balance = %s", [BALANCE], database=DATABASE)
    return running


@pytest.fixture
async def tm(stack: BankStack) -> AsyncIterator[handfast.TransactionManager]:
    async with handfast.connect(stack.address("coordinator"), outcome_wait=1) as tm:
        yield tm


@pytest.fixture
async def bank(stack: BankStack, tm: handfast.TransactionManager) -> AsyncIterator[Bank]:
    addresses = stack.client_addresses()
    async with Bank(tm, accounts=addresses["accounts"], ledger=addresses["ledger"]) as bank:
        yield bank


def balances(stack: BankStack) -> tuple[int, int]:
    """What customer 1 and merchant 1 hold."""
    held = [
        database.fetch("SELECT balance FROM account WHERE id = 1", database=DATABASE)[0][0]
        for database in stack.databases.values()
    ]
    return held[0], held[1]


def untouched(stack: BankStack) -> bool:
    """Whether no balance changed, no journal has a line and nothing is prepared."""
    return balances(stack) == (BALANCE, BALANCE) and not stack.journal() and not stack.prepared()


# -- what happens ------------------------------------------------------------------------------------------------------


async def test_an_interactive_payment_changes_both_databases(bank: Bank, stack: BankStack) -> None:
    await bank.pay(PAYMENT)
    assert balances(stack) == (BALANCE - 250, BALANCE + 250)


async def test_a_refund_goes_the_other_way(bank: Bank, stack: BankStack) -> None:
    await bank.refund(PAYMENT)
    assert balances(stack) == (BALANCE + 250, BALANCE - 250)


async def test_a_one_shot_payment_changes_both_databases(bank: Bank, stack: BankStack) -> None:
    await bank.pay_at_once(PAYMENT)
    assert balances(stack) == (BALANCE - 250, BALANCE + 250)


async def test_a_payment_leaves_one_line_in_each_journal(bank: Bank, stack: BankStack) -> None:
    await bank.pay(PAYMENT)
    lines = {line.database: (line.transfer, line.cents) for line in stack.journal()}
    assert lines == {"accounts": ("payment", -250), "ledger": ("payment", 250)}
    assert stack.half_transfers() == {}


async def test_a_transaction_reads_its_own_changes(bank: Bank, tm: handfast.TransactionManager) -> None:
    async with tm.transaction():
        await bank.accounts.Withdraw(withdraw_request(PAYMENT))
        answer = await bank.accounts.GetBalance(accounts_pb2.GetBalanceRequest(account=1))
    assert answer.balance == BALANCE - 250


async def test_a_reading_transaction_sees_what_others_committed(bank: Bank, tm: handfast.TransactionManager) -> None:
    await bank.pay(PAYMENT)
    async with tm.transaction() as txn:
        listed = await bank.ledger.ListEntries(ledger_pb2.ListEntriesRequest(account=1))
    assert [(entry.transfer, entry.amount) for entry in listed.entries] == [("payment", 250)]
    assert txn.outcome is handfast.Outcome.COMMITTED


# -- what is refused, and changes nothing ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payment", "status", "words"),
    [
        (replace(PAYMENT, cents=BALANCE + 1), grpc.StatusCode.FAILED_PRECONDITION, "account 1 holds less than 1001"),
        (replace(PAYMENT, merchant=777), grpc.StatusCode.NOT_FOUND, "there is no account 777"),
        (replace(PAYMENT, cents=0), grpc.StatusCode.INVALID_ARGUMENT, "an amount is above 0, not 0"),
    ],
    ids=["insufficient funds", "no such account", "no amount"],
)
async def test_an_interactive_payment_that_is_refused_changes_nothing(
    bank: Bank, stack: BankStack, payment: Payment, status: grpc.StatusCode, words: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await bank.pay(payment)
    assert (refused.value.code(), refused.value.details()) == (status, words)
    assert untouched(stack)


@pytest.mark.parametrize(
    ("payment", "resource", "words"),
    [
        (replace(PAYMENT, cents=BALANCE + 1), "accounts", "account 1 holds less than 1001"),
        (replace(PAYMENT, merchant=777), "ledger", "there is no account 777"),
    ],
    ids=["insufficient funds", "no such account"],
)
async def test_a_one_shot_payment_that_is_refused_says_which_branch_said_no_and_why(
    bank: Bank, stack: BankStack, payment: Payment, resource: str, words: str
) -> None:
    with pytest.raises(handfast.TransactionAborted) as aborted:
        await bank.pay_at_once(payment)
    assert split_bqual(aborted.value.branch)[0] == resource
    assert words in aborted.value.reason
    assert aborted.value.reason_code == "OPERATION_FAILED"
    assert untouched(stack)


async def test_the_same_transfer_is_not_made_twice(bank: Bank, stack: BankStack) -> None:
    await bank.pay_at_once(PAYMENT)
    with pytest.raises(handfast.TransactionAborted, match="CONSTRAINT_VIOLATED"):
        await bank.pay_at_once(PAYMENT)
    assert balances(stack) == (BALANCE - 250, BALANCE + 250)


async def test_an_application_that_fails_half_way_has_changed_nothing(
    bank: Bank, tm: handfast.TransactionManager, stack: BankStack
) -> None:
    async def fail_half_way() -> None:
        async with tm.transaction():
            await bank.accounts.Withdraw(withdraw_request(PAYMENT))
            raise RuntimeError("half-way")

    with pytest.raises(RuntimeError, match="half-way"):
        await fail_half_way()
    assert untouched(stack)


async def test_an_application_that_goes_on_after_a_refusal_can_not_commit(
    bank: Bank, tm: handfast.TransactionManager, stack: BankStack
) -> None:
    async def go_on_after_refusal() -> None:
        async with tm.transaction():
            await bank.ledger.Credit(ledger_pb2.CreditRequest(account=1, amount=5, transfer="t"))
            with pytest.raises(grpc.aio.AioRpcError):
                await bank.accounts.Withdraw(withdraw_request(replace(PAYMENT, cents=BALANCE + 1)))

    with pytest.raises(handfast.TransactionAborted, match="holds less"):
        await go_on_after_refusal()
    assert untouched(stack)


async def test_a_change_outside_a_transaction_is_refused(bank: Bank, stack: BankStack) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await bank.accounts.Withdraw(withdraw_request(PAYMENT))
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert untouched(stack)


# -- processes that end ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pay", [Bank.pay, Bank.pay_at_once], ids=["interactive", "one-shot"])
@pytest.mark.parametrize(
    ("failpoint", "outcome", "held"),
    [
        ("before-force", handfast.Outcome.ABORTED, (BALANCE, BALANCE)),
        ("after-force", handfast.Outcome.COMMITTED, (BALANCE - 250, BALANCE + 250)),
    ],
)
async def test_a_coordinator_that_dies_with_both_branches_in_doubt_tells_the_truth_when_it_is_back(
    stack: BankStack, pay: Pay, failpoint: str, outcome: handfast.Outcome, held: tuple[int, int]
) -> None:
    stack.coordinator.stop()
    stack.start_coordinator(failpoint=failpoint)
    stack.wait_reachable()
    addresses = stack.client_addresses()
    async with (
        handfast.connect(addresses["coordinator"], outcome_wait=0) as tm,
        Bank(tm, accounts=addresses["accounts"], ledger=addresses["ledger"], timeout=1) as bank,
    ):
        with pytest.raises(handfast.OutcomeUnknown) as unknown:
            await pay(bank, PAYMENT)
    assert {branch.database for branch in stack.prepared()} == {"accounts", "ledger"}

    stack.coordinator.wait(5)
    stack.start_coordinator()
    stack.wait_nothing_prepared()
    async with handfast.connect(addresses["coordinator"]) as tm:
        report = await tm.outcome(unknown.value.gtrid, branches=unknown.value.branches)
    assert report.outcome is outcome
    assert balances(stack) == held


def test_a_service_stops_in_good_order_and_finds_its_accounts_as_it_left_them(stack: BankStack) -> None:
    stack.databases["ledger"].execute("UPDATE account SET balance = 5 WHERE id = 1", database=DATABASE)
    ledger = stack.service("ledger")
    assert ledger.stop() == 0
    ledger.start()
    stack.wait_reachable()
    assert balances(stack) == (BALANCE, 5)
