"""The application: it moves money between two databases that know nothing of each other.

    async with handfast.connect("127.0.0.1:7400") as tm, Bank(tm, accounts="127.0.0.1:7501", ledger=…) as bank:
        await bank.pay(Payment("t-1", customer=7, merchant=3, cents=250))

``pay`` and ``refund`` are interactive: they call the services one after another, and could look at an answer before the
next call. ``pay_at_once`` is one-shot: the work can be named up front, so it is sent in one call.
"""

from dataclasses import dataclass
from types import TracebackType
from typing import Self

import grpc.aio

import handfast
from examples.bank.v1 import accounts_pb2, ledger_pb2
from examples.bank.v1.accounts_pb2_grpc import AccountsStub
from examples.bank.v1.ledger_pb2_grpc import LedgerStub


@dataclass(frozen=True, slots=True)
class Payment:
    """Money from a customer to a merchant; a refund goes the other way.

    Args:
        transfer: its name in both journals; no two have the same.
        customer: the account at the accounts service.
        merchant: the account at the ledger service.
        cents: how much, above 0.
    """

    transfer: str
    customer: int
    merchant: int
    cents: int


class Bank:
    """The bank, as an application calls it. Its methods raise what `handfast` raises; an RPC that is refused raises
    ``grpc.aio.AioRpcError``, and the transaction around it is rolled back.

    Args:
        tm: the open way to the coordinator.
        accounts: where the accounts service listens, ``host:port``.
        ledger: where the ledger service listens.
        timeout: how long a transaction may stay undecided, in seconds.
    """

    def __init__(self, tm: handfast.TransactionManager, *, accounts: str, ledger: str, timeout: float = 5) -> None:
        self.tm = tm
        self.timeout = timeout
        # The interceptors carry the transaction to whatever is called over these channels.
        self._channels = [
            grpc.aio.insecure_channel(address, interceptors=handfast.client_interceptors())
            for address in (accounts, ledger)
        ]
        self.accounts = AccountsStub(self._channels[0])
        self.ledger = LedgerStub(self._channels[1])

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        for channel in self._channels:
            await channel.close(grace=None)

    async def ready(self) -> None:
        """Wait until both services are connected: after a service was restarted, its first calls would fail."""
        for channel in self._channels:
            await channel.channel_ready()

    async def pay(self, payment: Payment) -> str:
        """Move money from a customer to a merchant. Returns the gtrid."""
        async with self.tm.transaction(timeout=self.timeout) as txn:
            await self.accounts.Withdraw(withdraw_request(payment))
            await self.ledger.Credit(credit_request(payment))
        return txn.gtrid

    async def refund(self, payment: Payment) -> str:
        """Move money from a merchant back to a customer. Returns the gtrid."""
        async with self.tm.transaction(timeout=self.timeout) as txn:
            await self.ledger.Debit(debit_request(payment))
            await self.accounts.Deposit(deposit_request(payment))
        return txn.gtrid

    async def pay_at_once(self, payment: Payment) -> str:
        """The same as ``pay``, in one call. Returns the gtrid."""
        result = await self.tm.execute(
            [
                ("accounts", "withdraw", withdraw_request(payment).SerializeToString()),
                ("ledger", "credit", credit_request(payment).SerializeToString()),
            ],
            timeout=self.timeout,
        )
        return result.gtrid


def withdraw_request(payment: Payment) -> accounts_pb2.WithdrawRequest:
    """The customer's side of a payment."""
    return accounts_pb2.WithdrawRequest(account=payment.customer, amount=payment.cents, transfer=payment.transfer)


def deposit_request(payment: Payment) -> accounts_pb2.DepositRequest:
    """The customer's side of a refund."""
    return accounts_pb2.DepositRequest(account=payment.customer, amount=payment.cents, transfer=payment.transfer)


def credit_request(payment: Payment) -> ledger_pb2.CreditRequest:
    """The merchant's side of a payment."""
    return ledger_pb2.CreditRequest(account=payment.merchant, amount=payment.cents, transfer=payment.transfer)


def debit_request(payment: Payment) -> ledger_pb2.DebitRequest:
    """The merchant's side of a refund."""
    return ledger_pb2.DebitRequest(account=payment.merchant, amount=payment.cents, transfer=payment.transfer)
