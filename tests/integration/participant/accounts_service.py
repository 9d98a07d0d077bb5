"""A participant over the database of accounts, and the messages it is sent."""

from dataclasses import replace
from typing import Any

import psycopg

from handfast.context import TransactionContext, within
from handfast.v1 import participant_pb2 as p
from handfast.v1 import types_pb2 as t
from participant import Participant
from participant.clock import SystemClock
from participant.testing import FakeCoordinator
from tests.integration.participant.accounts_database import OPTIONS, Database, add

Accounts = Participant[psycopg.AsyncConnection[Any]]

TIMEOUT_MS = 10_000


def in_transaction(gtrid: str, timeout_s: float = 10.0) -> Any:
    return within(TransactionContext(gtrid, SystemClock().monotonic_s() + timeout_s))


def make_accounts(database: Database, coordinator: FakeCoordinator, **changed: Any) -> Accounts:
    options = replace(OPTIONS, **changed)
    accounts: Accounts = Participant(
        "accounts", database.dsn, coordinator=coordinator.address, address="127.0.0.1:1", options=options
    )

    @accounts.operation("add")
    async def add_amount(connection: psycopg.AsyncConnection[Any], payload: bytes) -> bytes:
        await add(connection, int(payload))
        return b"added " + payload

    return accounts


def prepare(accounts: Accounts, gtrid: str, *amounts: int, bqual: str = "") -> p.PrepareRequest:
    operations = [t.Operation(resource="accounts", name="add", payload=str(amount).encode()) for amount in amounts]
    return p.PrepareRequest(gtrid=gtrid, bqual=bqual or accounts.bqual, operations=operations, timeout_ms=TIMEOUT_MS)
