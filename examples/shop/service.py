"""A service that owns a database: `python -m examples.shop.service stock DSN PORT`, and the same for `orders`."""

import asyncio
import json
import os
import sys
from contextlib import suppress
from typing import Any

import grpc.aio
import psycopg

from participant import Participant, server_options

Connection = psycopg.AsyncConnection[tuple[Any, ...]]


async def take(conn: Connection, payload: bytes) -> None:
    item = json.loads(payload)["item"]
    taken = await conn.execute("UPDATE stock SET amount = amount - 1 WHERE item = %s", (item,))
    if taken.rowcount == 0:
        raise LookupError(f"the shop has no {item}")  # any exception rolls this branch back, and all others with it


async def place(conn: Connection, payload: bytes) -> None:
    order = json.loads(payload)
    await conn.execute("INSERT INTO orders VALUES (%s, %s)", (order["id"], order["item"]))


WORK = {"stock": take, "orders": place}
TABLES = {
    "stock": b"""CREATE TABLE IF NOT EXISTS stock (item text PRIMARY KEY, amount int NOT NULL CHECK (amount >= 0));
                 INSERT INTO stock SELECT 'lamp', 3 WHERE NOT EXISTS (SELECT FROM stock)""",
    "orders": b"CREATE TABLE IF NOT EXISTS orders (id text PRIMARY KEY, item text NOT NULL)",
}


async def serve(name: str, dsn: str, port: str) -> None:
    address = f"127.0.0.1:{port}"
    coordinator = os.environ.get("HANDFAST_ADDRESS", "127.0.0.1:7400")
    participant = Participant(name, dsn, coordinator=coordinator, address=address)
    participant.operation(WORK[name].__name__)(WORK[name])
    server = grpc.aio.server(interceptors=participant.interceptors(), options=server_options())
    participant.add_to_server(server)  # the coordinator's way in: Prepare, Commit, Rollback
    server.add_insecure_port(address)
    await server.start()
    async with participant:  # registers; from here on, branches that a crash left in doubt are being resolved
        async with await psycopg.AsyncConnection.connect(dsn) as conn:
            await conn.execute(TABLES[name])
        print(f"{name} is ready on {address}", flush=True)
        await server.wait_for_termination()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(serve(*sys.argv[1:]))
