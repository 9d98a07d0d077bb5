"""How often a branch asks its database for an answer: exactly. Each costs both sides CPU, and time with locks held."""

import struct
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import psycopg
import pytest

from participant.postgres import PostgresResource
from participant.resource import Prepared
from tests.integration.participant.accounts_database import BQUAL, OPTIONS, Database, add, add_unseen
from tests.integration.participant.tcp_proxy import TcpProxy

LONG_S = 30.0

Change = Callable[[psycopg.AsyncConnection[Any], int], Awaitable[None]]
QUERY, SYNC = b"Q", b"S"


class Tap:
    """Reads what goes to the server. A simple query or a Sync is what makes the server answer (ReadyForQuery)."""

    def __init__(self) -> None:
        self.messages: Counter[bytes] = Counter()

    def __call__(self, chunk: bytes) -> bool:
        """Count a chunk's messages: a type byte, a length that includes itself, and the rest."""
        while chunk:
            kind, length = chunk[:1], struct.unpack("!I", chunk[1:5])[0]
            assert len(chunk) > length, "a message in two chunks, or none of ours"
            self.messages[kind] += 1
            chunk = chunk[1 + length :]
        return False

    def round_trips(self) -> int:
        """How many since the last time."""
        found = self.messages[QUERY] + self.messages[SYNC]
        self.messages.clear()
        return found


@pytest.fixture
async def tapped(database: Database) -> AsyncIterator[tuple[PostgresResource, Tap]]:
    """A resource that is connected and has prepared statements, and a tap on its connections from then on."""
    tap = Tap()
    async with TcpProxy(database.cluster.port) as proxy:
        dsn = database.cluster.dsn(database.name, port=proxy.port) + "?sslmode=disable&gssencmode=disable"
        resource = PostgresResource(dsn, OPTIONS)
        await resource.open(BQUAL)
        for change in (add, add_unseen, add, add_unseen):
            await commit_one(resource, database, change)
        proxy.cut_before = tap
        yield resource, tap
        await resource.close()


async def commit_one(resource: PostgresResource, database: Database, change: Change) -> None:
    xid = database.xid()
    branch = await resource.begin(xid, LONG_S)
    await change(branch.connection, 5)
    made = await branch.prepare()
    assert isinstance(made, Prepared)
    await resource.commit_prepared(xid, made.proof)


@pytest.mark.parametrize(
    ("change", "settle"),
    [(add, 0), (add_unseen, 1)],
    ids=["four, as PREPARE brings along what settle would ask", "five, when nothing says that there is a change"],
)
async def test_a_branch_with_one_statement_takes_four_round_trips_or_five(
    tapped: tuple[PostgresResource, Tap], database: Database, change: Change, settle: int
) -> None:
    resource, tap = tapped
    xid = database.xid()
    taken = {}
    branch = await resource.begin(xid, LONG_S)
    taken["begin, with its settings"] = tap.round_trips()
    await change(branch.connection, 5)
    taken["the work"] = tap.round_trips()
    await branch.settle()
    taken["settle"] = tap.round_trips()
    made = await branch.prepare()
    taken["prepare"] = tap.round_trips()
    assert isinstance(made, Prepared)
    await resource.commit_prepared(xid, made.proof)
    taken["commit"] = tap.round_trips()
    assert taken == {"begin, with its settings": 1, "the work": 1, "settle": settle, "prepare": 1, "commit": 1}


async def test_a_branch_that_changed_nothing_takes_no_more_than_the_transaction_would(
    tapped: tuple[PostgresResource, Tap], database: Database
) -> None:
    resource, tap = tapped
    branch = await resource.begin(database.xid(), LONG_S)
    await branch.connection.execute("SELECT value FROM account")
    await branch.prepare()
    assert tap.round_trips() == 4  # begin with its settings, the work, settle, commit
