"""``python -m benchmarks.servers.empty PORT``: a grpc.aio server whose only call takes nothing and returns nothing."""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import Any

import grpc
import grpc.aio

from benchmarks.loop import run
from handfast.frames import server_options

EMPTY = "/bench.Empty/Call"


async def call(request: bytes, context: object) -> bytes:
    """Do nothing."""
    return b""


async def main(port: str) -> None:
    """Serve until SIGTERM."""
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    server = grpc.aio.server(options=server_options())
    handlers: dict[str, Any] = {"Call": grpc.unary_unary_rpc_method_handler(call)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Empty", handlers),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    print("empty is ready", flush=True)
    await stopped.wait()
    await server.stop(None)


if __name__ == "__main__":
    run(main(*sys.argv[1:]))
