"""Client interceptors that carry the ambient transaction to the services an application calls.

    channel = grpc.aio.insecure_channel(address, interceptors=handfast.client_interceptors())

Inside ``async with tm.transaction()`` each call made over such a channel gets the transaction in its metadata, and a
timeout no longer than the time left to the transaction. Outside, calls pass untouched. Metadata that the application
gave itself stays; a transaction that it named there itself wins over the ambient one. From an answer that is no stream
the transaction learns which branches have joined it.
"""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from handfast import clock, context

if TYPE_CHECKING:
    # Stubs give these classes type parameters that they don't have at run time.
    _UnaryUnaryBase = object
    _UnaryStreamBase = object
    _StreamUnaryBase = object
    _StreamStreamBase = object
else:
    _UnaryUnaryBase = grpc.aio.UnaryUnaryClientInterceptor
    _UnaryStreamBase = grpc.aio.UnaryStreamClientInterceptor
    _StreamUnaryBase = grpc.aio.StreamUnaryClientInterceptor
    _StreamStreamBase = grpc.aio.StreamStreamClientInterceptor


def client_interceptors() -> list[Any]:
    """One interceptor for each of gRPC's four kinds of call, for ``grpc.aio.insecure_channel(interceptors=...)``."""
    return [_UnaryUnary(), _UnaryStream(), _StreamUnary(), _StreamStream()]


def carry(details: grpc.aio.ClientCallDetails) -> grpc.aio.ClientCallDetails:
    """The call's details with the ambient transaction added; unchanged when there is none."""
    transaction = context.current()
    if transaction is None:
        return details
    given: Any = tuple(details.metadata or ())
    if any(key == context.GTRID_KEY for key, _ in given):
        return details
    now_s = clock.monotonic_s()
    return grpc.aio.ClientCallDetails(
        details.method,
        _timeout_s(details.timeout, transaction.time_left_s(now_s=now_s)),
        grpc.aio.Metadata(*given, *context.to_metadata(transaction, now_s=now_s)),
        details.credentials,
        details.wait_for_ready,
    )


def _timeout_s(given_s: float | None, left_s: float) -> float | None:
    left_s = max(left_s, 0.0)  # past the deadline gRPC ends the call as late
    nearer_s = left_s if given_s is None else min(given_s, left_s)
    return None if math.isinf(nearer_s) else nearer_s


async def _learn_joined(call: Any) -> Any:
    """Wait for the answer, and learn from it which branches joined the ambient transaction. Returns the call."""
    transaction = context.current()
    if transaction is not None:
        try:
            context.learn_joined(transaction, await call.trailing_metadata())
        except asyncio.CancelledError:
            call.cancel()
            raise
    return call


class _UnaryUnary(_UnaryUnaryBase):
    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        carried = carry(client_call_details)
        call = await continuation(carried, request)
        return call if carried is client_call_details else await _learn_joined(call)


class _UnaryStream(_UnaryStreamBase):
    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await continuation(carry(client_call_details), request)


class _StreamUnary(_StreamUnaryBase):
    async def intercept_stream_unary(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        carried = carry(client_call_details)
        call = await continuation(carried, request_iterator)
        return call if carried is client_call_details else await _learn_joined(call)


class _StreamStream(_StreamStreamBase):
    async def intercept_stream_stream(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return await continuation(carry(client_call_details), request_iterator)
