"""``python -m benchmarks.servers.service``: a service over a Postgres database, with one piece of work: an UPDATE.

The work can be asked for in three ways: as the operation ``change`` of a one-shot transaction, by the RPC
``/bench.Work/Change`` in the caller's global transaction, and by ``/bench.Work/ChangeLocally``, which commits by itself
and is the baseline of the interactive figure.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import Any

import grpc
import grpc.aio
import psycopg
from psycopg_pool import AsyncConnectionPool

from benchmarks.loop import run
from benchmarks.work import CHANGE, CHANGE_LOCALLY, SERVICE, UPDATE
from participant import Participant, ParticipantOptions, server_options

Connection = psycopg.AsyncConnection[Any]
LOCAL_CONNECTIONS = 48


class Work:
    """The RPCs; requests and answers are bare bytes.

    Args:
        participant: for work in the caller's transaction.
        pool: for work that commits by itself.
    """

    def __init__(self, participant: Participant[Any], pool: AsyncConnectionPool[Connection]) -> None:
        self._participant = participant
        self._pool = pool

    async def change(self, request: bytes, context: object) -> bytes:
        async with self._participant.branch() as connection:
            await connection.execute(UPDATE, (int(request),))
        return b""

    async def change_locally(self, request: bytes, context: object) -> bytes:
        async with self._pool.connection() as connection:
            await connection.execute(UPDATE, (int(request),))
        return b""


async def operation(connection: Connection, payload: bytes) -> bytes:
    """The same work, inside Prepare."""
    await connection.execute(UPDATE, (int(payload),))
    return b""


async def main(name: str, dsn: str, port: str, coordinator: str, connections: str, finish_connections: str) -> None:
    """Serve until SIGTERM."""
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    address = f"127.0.0.1:{port}"
    options = ParticipantOptions(
        connections_max=int(connections), finish_connections_max=int(finish_connections), connection_wait_s=30
    )
    participant = Participant(name, dsn, coordinator=coordinator, address=address, options=options, instance="bench")
    participant.operation("change")(operation)
    pool = AsyncConnectionPool[Connection](dsn, min_size=0, max_size=LOCAL_CONNECTIONS, open=False)
    server = grpc.aio.server(interceptors=participant.interceptors(), options=server_options())
    work = Work(participant, pool)
    handlers: dict[str, Any] = {
        CHANGE: grpc.unary_unary_rpc_method_handler(work.change),
        CHANGE_LOCALLY: grpc.unary_unary_rpc_method_handler(work.change_locally),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    participant.add_to_server(server)
    server.add_insecure_port(address)
    async with pool, participant:
        await server.start()
        print(f"{name} is ready", flush=True)
        await stopped.wait()
        await server.stop(1.0)


if __name__ == "__main__":
    run(main(*sys.argv[1:]))
