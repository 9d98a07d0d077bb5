"""Two-phase commit written by hand: psycopg's tpc_* calls, and nothing that would end what a crash leaves in doubt."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import psycopg

from benchmarks.work import UPDATE, row_of
from benchmarks.worker.load import Call
from benchmarks.worker.spec import Spec

Connection = psycopg.AsyncConnection[Any]


@asynccontextmanager
async def by_hand(spec: Spec) -> AsyncIterator[Call]:
    """One after the other: the least work for the process, and so the most throughput."""
    async with _sets(spec) as free:

        async def call(number: int) -> None:
            connections = free.pop()
            row = (row_of(number),)
            for place, connection in enumerate(connections):
                await connection.tpc_begin(_xid(connection, number, place))
                await connection.execute(UPDATE, row)
            for connection in connections:
                await connection.tpc_prepare()
            for connection in connections:
                await connection.tpc_commit()
            free.append(connections)

        yield call


@asynccontextmanager
async def by_hand_at_once(spec: Spec) -> AsyncIterator[Call]:
    """Each phase on all databases at once: the least time for one transaction."""
    async with _sets(spec) as free:

        async def prepare(connection: Connection, number: int, place: int) -> None:
            await connection.tpc_begin(_xid(connection, number, place))
            await connection.execute(UPDATE, (row_of(number),))
            await connection.tpc_prepare()

        async def call(number: int) -> None:
            connections = free.pop()
            await asyncio.gather(*(prepare(one, number, place) for place, one in enumerate(connections)))
            await asyncio.gather(*(connection.tpc_commit() for connection in connections))
            free.append(connections)

        yield call


@asynccontextmanager
async def _sets(spec: Spec) -> AsyncIterator[list[list[Connection]]]:
    """As many sets of connections, one to each database, as calls are in flight."""
    async with AsyncExitStack() as opened:
        yield [
            [await opened.enter_async_context(await Connection.connect(dsn)) for dsn in spec.dsns]
            for _ in range(spec.in_flight)
        ]


def _xid(connection: Connection, number: int, place: int) -> psycopg.Xid:
    return connection.xid(1, f"by-hand-{number}", f"branch-{place}")
