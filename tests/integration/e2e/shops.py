"""Participants in the test's own process: as many as a test wants, each over a database of its own.

A shop does what the accounts service of the bank does, under another resource's name.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc.aio

import handfast
from chaos.admin import Admin
from chaos.stack import PostgresCluster, free_port, wait_until
from examples.bank import accounts, database
from examples.bank.booking import Connection
from examples.bank.v1.accounts_pb2 import GetBalanceRequest, WithdrawRequest
from examples.bank.v1.accounts_pb2_grpc import AccountsStub
from participant import Participant, ParticipantOptions
from tests.integration.e2e.bank_world import off_loop

ACCOUNTS = 20
BALANCE = 1000

OPTIONS = ParticipantOptions(
    connections_max=8, lock_timeout_s=2, register_interval_s=1, recovery_interval_s=0.2, inquire_after_s=0.2
)

Setup = Callable[[Participant[Connection], grpc.aio.Server], None]


@dataclass(frozen=True, slots=True)
class Shop:
    """One participant, and a client's way to it.

    Args:
        participant: the participant.
        address: where it listens.
        stub: the service, over a channel that carries the transaction.
    """

    participant: Participant[Connection]
    address: str
    stub: AccountsStub

    async def withdraw(self, cents: int = 10, account: int = 1, transfer: str = "") -> None:
        """Take money out of an account, in the ambient transaction."""
        gtrid = handfast.current_transaction()
        name = transfer or (gtrid.gtrid if gtrid else "none")
        await self.stub.Withdraw(WithdrawRequest(account=account, amount=cents, transfer=name))

    async def balance(self, account: int = 1) -> int:
        """What the account holds, asked in the ambient transaction."""
        return (await self.stub.GetBalance(GetBalanceRequest(account=account))).balance


class Shops:
    """The databases, and where each shop listens; a shop that comes back is found where it was.

    Args:
        cluster: the server of most shops.
        slotless: a server without slots for prepared transactions.
    """

    def __init__(self, cluster: PostgresCluster, slotless: PostgresCluster) -> None:
        self.cluster = cluster
        self.slotless = slotless
        self._databases: dict[str, PostgresCluster] = {}
        self._ports: dict[str, int] = {}
        self.coordinator = ""
        self._open = AsyncExitStack()
        self.tm: handfast.TransactionManager

    @asynccontextmanager
    async def at(self, coordinator: str) -> AsyncIterator[Shops]:
        """Open shops at this coordinator for the length of a block, with a client (``tm``)."""
        self.coordinator = coordinator
        async with AsyncExitStack() as self._open:
            self.tm = await self._open.enter_async_context(handfast.connect(coordinator, outcome_wait=2))
            yield self

    async def open(self, *names: str, cluster: PostgresCluster | None = None) -> list[Shop]:
        """Open shops with fresh accounts."""
        return await asyncio.gather(*(self.open_one(name, cluster=cluster) for name in names))

    async def open_one(
        self,
        name: str,
        *,
        cluster: PostgresCluster | None = None,
        dsn: str = "",
        options: ParticipantOptions = OPTIONS,
        setup: Setup = accounts.register,
    ) -> Shop:
        """Open one shop.

        Args:
            name: the resource.
            cluster: where its database is.
            dsn: how to connect, when that is not as the owner of everything.
            options: of the participant.
            setup: adds the service to the server.
        """
        own_dsn = await self._fresh(name, cluster or self.cluster)
        address = f"127.0.0.1:{self._ports[name]}"
        participant = Participant(name, dsn or own_dsn, coordinator=self.coordinator, address=address, options=options)
        await self._open.enter_async_context(served(participant, address, setup))
        await off_loop(wait_until, lambda: self._reached(participant.instance), 10, f"{name} is not reached")
        interceptors = handfast.client_interceptors()
        channel = await self._open.enter_async_context(grpc.aio.insecure_channel(address, interceptors=interceptors))
        return Shop(participant, address, AccountsStub(channel))

    def _reached(self, instance: str) -> bool:
        known = Admin(self.coordinator).participants()
        return any(one.instance == instance and one.reachable for one in known)

    async def _fresh(self, name: str, cluster: PostgresCluster) -> str:
        if name not in self._databases:
            self._databases[name] = cluster
            self._ports[name] = free_port()
            cluster.create_database(name)
        else:
            cluster.execute(b"DROP TABLE account, journal", database=name)
        dsn = cluster.dsn(name)
        await database.set_up(dsn, accounts=ACCOUNTS, balance=BALANCE)
        return dsn

    def fetch(self, shop: Shop, query: str) -> list[tuple[Any, ...]]:
        """Ask a shop's database."""
        name = shop.participant.resource
        return self._databases[name].fetch(query.encode(), database=name)

    def held(self, shop: Shop, account: int = 1) -> int:
        """What an account holds, by its database."""
        return int(self.fetch(shop, f"SELECT balance FROM account WHERE id = {account}")[0][0])

    def prepared(self) -> list[str]:
        """The branches that are prepared in the shops' databases."""
        query = b"SELECT gid FROM pg_prepared_xacts WHERE database <> 'bank'"
        return [gid for (gid,) in self.cluster.fetch(query)]


@asynccontextmanager
async def served(participant: Participant[Connection], address: str, setup: Setup) -> AsyncIterator[None]:
    """Serve a participant for as long as the block lasts."""
    server = grpc.aio.server(interceptors=participant.interceptors())
    setup(participant, server)
    participant.add_to_server(server)
    server.add_insecure_port(address)
    async with participant:
        await server.start()
        yield
    await server.stop(None)
