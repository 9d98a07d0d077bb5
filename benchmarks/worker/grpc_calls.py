"""Calls that are nothing but calls."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc.aio

from benchmarks.servers.empty import EMPTY
from benchmarks.worker.load import Call
from benchmarks.worker.spec import Spec
from handfast.frames import channel_options


@asynccontextmanager
async def empty(spec: Spec) -> AsyncIterator[Call]:
    """An empty unary call."""
    async with grpc.aio.insecure_channel(spec.address, options=channel_options()) as channel:
        method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(EMPTY)

        async def call(number: int) -> None:
            await method(b"")

        yield call
