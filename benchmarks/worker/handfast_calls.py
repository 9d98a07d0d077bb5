"""Calls that are transactions: by the client, by frames alone, one RPC after another."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc.aio

import handfast
from benchmarks.work import CHANGE, CHANGE_LOCALLY, OPERATION, SERVICE, row_of
from benchmarks.worker.load import Call
from benchmarks.worker.spec import Spec
from handfast.frames import COORDINATOR, CallStream, channel_options
from handfast.frames.dialing import FrameDialer
from handfast.v1 import coordinator_pb2 as c
from handfast.v1 import types_pb2 as t

TIMEOUT_S = 60.0


class NotCommitted(Exception):
    """A transaction of a benchmark ended otherwise; the measurement would mean nothing."""


@asynccontextmanager
async def execute(spec: Spec) -> AsyncIterator[Call]:
    """``tm.execute``: one operation on each resource."""
    async with handfast.connect(spec.coordinator, client="bench") as tm:

        async def call(number: int) -> None:
            payload = b"%d" % row_of(number)
            await tm.execute([(resource, OPERATION, payload) for resource in spec.resources], timeout=TIMEOUT_S)

        yield call


@asynccontextmanager
async def execute_frames(spec: Spec) -> AsyncIterator[Call]:
    """Execute by the batched stream that the client uses, without the client around it: the leanest load there is."""
    async with grpc.aio.insecure_channel(spec.coordinator, options=channel_options()) as channel:
        stream = CallStream(channel, COORDINATOR, dialer=FrameDialer(spec.coordinator))
        request = _request(spec)

        async def call(number: int) -> None:
            _check(await stream.ask(request))

        yield call
        await stream.close()


@asynccontextmanager
async def execute_unary(spec: Spec) -> AsyncIterator[Call]:
    """Execute by unary calls."""
    async with grpc.aio.insecure_channel(spec.coordinator, options=channel_options()) as channel:
        request = _request(spec)
        method: grpc.aio.UnaryUnaryMultiCallable[Any, Any] = channel.unary_unary(
            "/handfast.v1.Coordinator/Execute",
            request_serializer=c.ExecuteRequest.SerializeToString,
            response_deserializer=c.ExecuteResponse.FromString,
        )

        async def call(number: int) -> None:
            _check(await method(request))

        yield call


@asynccontextmanager
async def interactive(spec: Spec) -> AsyncIterator[Call]:
    """Begin, a call to each service, commit."""
    async with handfast.connect(spec.coordinator, client="bench") as tm, AsyncExitStack() as channels:
        services = [await _service(channels, address, CHANGE, in_transaction=True) for address in spec.addresses]

        async def call(number: int) -> None:
            async with tm.transaction(timeout=TIMEOUT_S):
                for service in services:
                    await service(b"%d" % row_of(number))

        yield call


@asynccontextmanager
async def local(spec: Spec) -> AsyncIterator[Call]:
    """The same calls to the same services, each of which commits by itself."""
    async with AsyncExitStack() as channels:
        services = [await _service(channels, one, CHANGE_LOCALLY, in_transaction=False) for one in spec.addresses]

        async def call(number: int) -> None:
            for service in services:
                await service(b"%d" % row_of(number))

        yield call


async def _service(
    channels: AsyncExitStack, address: str, method: str, *, in_transaction: bool
) -> grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]:
    interceptors = handfast.client_interceptors() if in_transaction else []
    channel = await channels.enter_async_context(grpc.aio.insecure_channel(address, interceptors=interceptors))
    call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"/{SERVICE}/{method}")
    return call


def _request(spec: Spec) -> c.ExecuteRequest:
    operations = [t.Operation(resource=resource, name=OPERATION, payload=b"1") for resource in spec.resources]
    return c.ExecuteRequest(operations=operations, timeout_ms=int(1000 * TIMEOUT_S))


def _check(answer: object) -> None:
    if not isinstance(answer, c.ExecuteResponse) or answer.outcome != t.OUTCOME_COMMITTED:
        raise NotCommitted(str(answer))
