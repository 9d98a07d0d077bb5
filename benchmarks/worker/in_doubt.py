"""Branches in doubt: left there as a crash between the phases would leave them, and committed without a coordinator."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
from psycopg import sql

from benchmarks.work import UPDATE, row_of
from benchmarks.worker.spec import Load, Spec
from coordinator.log.records import DecisionRecord, LoggedBranch
from coordinator.log.sqlite import SqliteLog
from coordinator.log.store import LogBroken, LogRefused
from coordinator.protocol.states import Decision
from handfast.clock import unix_ms
from handfast.xid import Gtrid, Xid, make_bqual
from participant.postgres.finish import make_proof

Connection = psycopg.AsyncConnection[Any]

PREPARING_CONNECTIONS = 16
INSTANCE = "bench"
"""The instance by which the services of a benchmark are registered."""


async def leave_in_doubt(spec: Spec) -> Load:
    """Prepare ``count`` branches on each database and write their commits into the log, whose owner is dead."""
    began_s = time.perf_counter()
    log = SqliteLog(spec.log, make_coordinator_id=_no_new_log, on_broken=_fail, unix_ms=unix_ms)
    identity = await log.open()
    now_ms = time.time_ns() // 1_000_000
    gtrids = [str(Gtrid(identity.coordinator_id, identity.epoch, now_ms, number)) for number in range(spec.count)]
    bquals = [make_bqual(resource, INSTANCE) for resource in spec.resources]
    proofs = await asyncio.gather(
        *(
            _prepare_all(dsn, [Xid(gtrid, bqual) for gtrid in gtrids])
            for dsn, bqual in zip(spec.dsns, bquals, strict=True)
        )
    )
    await _decide(log, gtrids, bquals, proofs, now_ms)
    await log.close()
    return Load(done=spec.count * len(bquals), seconds=time.perf_counter() - began_s)


async def _prepare_all(dsn: str, xids: list[Xid]) -> list[str]:
    """Prepare one branch for each name. Returns their proofs."""
    proofs = [""] * len(xids)
    left = iter(range(len(xids)))

    async def prepare_some(connection: Connection) -> None:
        for number in left:
            await connection.execute(UPDATE, (row_of(number),))
            row = await (await connection.execute("SELECT pg_current_xact_id()::text")).fetchone()
            proofs[number] = make_proof(row[0] if row else "")
            await connection.execute(sql.SQL("PREPARE TRANSACTION {}").format(sql.Literal(xids[number].gid())))

    await _on_connections(dsn, PREPARING_CONNECTIONS, prepare_some, autocommit=False)
    return proofs


async def _decide(log: SqliteLog, gtrids: list[str], bquals: list[str], proofs: list[list[str]], now_ms: int) -> None:
    written = asyncio.Event()
    left = len(gtrids)

    def on_decided(standing: Decision | LogRefused | LogBroken) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            written.set()

    for number, gtrid in enumerate(gtrids):
        branches = tuple(LoggedBranch(bqual, mine[number]) for bqual, mine in zip(bquals, proofs, strict=True))
        log.decide(DecisionRecord(gtrid, Decision.COMMIT, branches, now_ms, now_ms, "bench"), on_decided)
    await written.wait()


async def commit_prepared(spec: Spec) -> Load:
    """Prepare ``count`` branches of nobody's on each database, then commit all of them on ``in_flight`` connections."""
    names = [f"nobody-{number}" for number in range(spec.count)]
    await asyncio.gather(*(_prepare_named(dsn, names) for dsn in spec.dsns))
    seconds = 0.0
    async with asyncio.TaskGroup() as databases:
        ends = [databases.create_task(_commit_named(dsn, names, spec.in_flight)) for dsn in spec.dsns]
    seconds = max(end.result()[1] for end in ends) - min(end.result()[0] for end in ends)
    return Load(done=len(names) * len(spec.dsns), seconds=seconds)


async def _prepare_named(dsn: str, names: list[str]) -> None:
    left = iter(range(len(names)))

    async def prepare_some(connection: Connection) -> None:
        for number in left:
            await connection.execute(UPDATE, (row_of(number),))
            await connection.execute(sql.SQL("PREPARE TRANSACTION {}").format(sql.Literal(names[number])))

    await _on_connections(dsn, PREPARING_CONNECTIONS, prepare_some, autocommit=False)


async def _commit_named(dsn: str, names: list[str], connections: int) -> tuple[float, float]:
    """Commit them all. Returns when it began, all connections open, and when it ended."""
    left = iter(names)

    async def commit_some(connection: Connection) -> None:
        for name in left:
            await connection.execute(sql.SQL("COMMIT PREPARED {}").format(sql.Literal(name)))

    async with _connections(dsn, connections, autocommit=True) as opened:
        began_s = time.perf_counter()
        await asyncio.gather(*map(commit_some, opened))
        return began_s, time.perf_counter()


async def _on_connections(dsn: str, count: int, use: Any, *, autocommit: bool) -> None:
    async with _connections(dsn, count, autocommit=autocommit) as opened:
        await asyncio.gather(*map(use, opened))


@asynccontextmanager
async def _connections(dsn: str, count: int, *, autocommit: bool) -> AsyncIterator[list[Connection]]:
    opened = [await Connection.connect(dsn, autocommit=autocommit) for _ in range(count)]
    try:
        yield opened
    finally:
        for connection in opened:
            await connection.close()


def _no_new_log() -> str:
    raise RuntimeError("the log should be there: its coordinator ran before")


def _fail(broken: LogBroken) -> None:
    raise broken
