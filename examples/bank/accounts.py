"""The accounts service: customers' money.

Each piece of work is written once, as a function of a connection and a request. It is then offered twice: as an RPC,
which an application calls inside a transaction of several steps, and as an operation, which travels inside Prepare.
"""

from typing import Any

import grpc.aio

from examples.bank.answers import refusals_answered
from examples.bank.booking import Connection, NoSuchAccount, put_in, take_out
from examples.bank.v1 import accounts_pb2 as v1
from examples.bank.v1.accounts_pb2_grpc import AccountsServicer, add_AccountsServicer_to_server
from participant import Participant

Context = grpc.aio.ServicerContext[Any, Any]


async def withdraw(connection: Connection, request: v1.WithdrawRequest) -> v1.WithdrawResponse:
    """Take money out of a customer's account."""
    balance = await take_out(connection, request.account, request.amount, request.transfer)
    return v1.WithdrawResponse(balance=balance)


async def deposit(connection: Connection, request: v1.DepositRequest) -> v1.DepositResponse:
    """Put money into a customer's account."""
    balance = await put_in(connection, request.account, request.amount, request.transfer)
    return v1.DepositResponse(balance=balance)


async def get_balance(connection: Connection, request: v1.GetBalanceRequest) -> v1.GetBalanceResponse:
    """Tell what a customer's account holds."""
    found = await connection.execute("SELECT balance FROM account WHERE id = %s", (request.account,))
    row = await found.fetchone()
    if row is None:
        raise NoSuchAccount(f"there is no account {request.account}")
    return v1.GetBalanceResponse(balance=row[0])


class Accounts(AccountsServicer):
    """The RPCs. ``branch()`` joins the caller's transaction, and leaving it commits nothing: the coordinator does."""

    def __init__(self, participant: Participant[Connection]) -> None:
        self._participant = participant

    async def Withdraw(self, request: v1.WithdrawRequest, context: Context) -> v1.WithdrawResponse:
        async with refusals_answered(context), self._participant.branch() as connection:
            return await withdraw(connection, request)

    async def Deposit(self, request: v1.DepositRequest, context: Context) -> v1.DepositResponse:
        async with refusals_answered(context), self._participant.branch() as connection:
            return await deposit(connection, request)

    async def GetBalance(self, request: v1.GetBalanceRequest, context: Context) -> v1.GetBalanceResponse:
        async with refusals_answered(context), self._participant.branch() as connection:
            return await get_balance(connection, request)


def register(participant: Participant[Connection], server: grpc.aio.Server) -> None:
    """Offer the work: the RPCs on the server, the operations to one-shot transactions."""
    add_AccountsServicer_to_server(Accounts(participant), server)

    @participant.operation("withdraw")
    async def withdraw_operation(connection: Connection, payload: bytes) -> bytes:
        return (await withdraw(connection, v1.WithdrawRequest.FromString(payload))).SerializeToString()

    @participant.operation("deposit")
    async def deposit_operation(connection: Connection, payload: bytes) -> bytes:
        return (await deposit(connection, v1.DepositRequest.FromString(payload))).SerializeToString()
