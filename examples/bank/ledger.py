"""The ledger service: merchants' money, in a database that the accounts service can't reach. Built as that one is."""

from typing import Any

import grpc.aio

from examples.bank.answers import refusals_answered
from examples.bank.booking import Connection, put_in, take_out
from examples.bank.v1 import ledger_pb2 as v1
from examples.bank.v1.ledger_pb2_grpc import LedgerServicer, add_LedgerServicer_to_server
from participant import Participant

Context = grpc.aio.ServicerContext[Any, Any]

ENTRIES_DEFAULT = 100


async def credit(connection: Connection, request: v1.CreditRequest) -> v1.CreditResponse:
    """Put money into a merchant's account."""
    balance = await put_in(connection, request.account, request.amount, request.transfer)
    return v1.CreditResponse(balance=balance)


async def debit(connection: Connection, request: v1.DebitRequest) -> v1.DebitResponse:
    """Take money out of a merchant's account."""
    balance = await take_out(connection, request.account, request.amount, request.transfer)
    return v1.DebitResponse(balance=balance)


async def list_entries(connection: Connection, request: v1.ListEntriesRequest) -> v1.ListEntriesResponse:
    """Give the latest lines of a merchant's journal."""
    latest = "SELECT transfer, amount FROM journal WHERE account = %s ORDER BY line DESC LIMIT %s"
    rows = await (await connection.execute(latest, (request.account, request.limit or ENTRIES_DEFAULT))).fetchall()
    return v1.ListEntriesResponse(entries=[v1.Entry(transfer=transfer, amount=amount) for transfer, amount in rows])


class Ledger(LedgerServicer):
    """The RPCs."""

    def __init__(self, participant: Participant[Connection]) -> None:
        self._participant = participant

    async def Credit(self, request: v1.CreditRequest, context: Context) -> v1.CreditResponse:
        async with refusals_answered(context), self._participant.branch() as connection:
            return await credit(connection, request)

    async def Debit(self, request: v1.DebitRequest, context: Context) -> v1.DebitResponse:
        async with refusals_answered(context), self._participant.branch() as connection:
            return await debit(connection, request)

    async def ListEntries(self, request: v1.ListEntriesRequest, context: Context) -> v1.ListEntriesResponse:
        async with refusals_answered(context), self._participant.branch() as connection:
            return await list_entries(connection, request)


def register(participant: Participant[Connection], server: grpc.aio.Server) -> None:
    """Offer the work: the RPCs on the server, the operations to one-shot transactions."""
    add_LedgerServicer_to_server(Ledger(participant), server)

    @participant.operation("credit")
    async def credit_operation(connection: Connection, payload: bytes) -> bytes:
        return (await credit(connection, v1.CreditRequest.FromString(payload))).SerializeToString()

    @participant.operation("debit")
    async def debit_operation(connection: Connection, payload: bytes) -> bytes:
        return (await debit(connection, v1.DebitRequest.FromString(payload))).SerializeToString()
