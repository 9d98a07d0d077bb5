"""Transactions that stay open: begun, with their branches enlisted, and left alone until their deadline."""

from __future__ import annotations

import asyncio
import itertools
import time

import grpc.aio

from benchmarks.worker.load import closed_loop
from benchmarks.worker.spec import Load, Spec
from coordinator.runtime.directory import STATIC_INSTANCE
from handfast.frames import COORDINATOR, CallStream, channel_options
from handfast.v1 import coordinator_pb2 as c

TIMEOUT_MS = 3_600_000
PER_CLIENT = 10_000
"""So many by one name: a client may hold only so many open, by ``open_transactions_per_client_max``."""


async def hold_open(spec: Spec) -> Load:
    """Open ``count`` transactions with a branch on each resource."""
    began_s = time.perf_counter()
    async with grpc.aio.insecure_channel(spec.coordinator, options=channel_options()) as channel:
        stream = CallStream(channel, COORDINATOR)

        async def open_one(number: int) -> None:
            client = f"bench-{number // PER_CLIENT}"
            begun = await stream.ask(c.BeginRequest(timeout_ms=TIMEOUT_MS, client=client))
            gtrid = begun.gtrid if isinstance(begun, c.BeginResponse) else ""
            await asyncio.gather(
                *(
                    stream.ask(c.EnlistRequest(gtrid=gtrid, resource=resource, instance=STATIC_INSTANCE))
                    for resource in spec.resources
                )
            )

        done = await closed_loop(open_one, itertools.count(), spec.in_flight, float("inf"), spec.count)
        await stream.close()
    return Load(done=len(done), seconds=time.perf_counter() - began_s)
