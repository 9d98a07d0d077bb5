"""The bank's refusals as gRPC statuses."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio

from examples.bank.booking import AmountInvalid, InsufficientFunds, NoSuchAccount, Refused

_STATUSES = {
    AmountInvalid: grpc.StatusCode.INVALID_ARGUMENT,
    InsufficientFunds: grpc.StatusCode.FAILED_PRECONDITION,
    NoSuchAccount: grpc.StatusCode.NOT_FOUND,
}


@asynccontextmanager
async def refusals_answered(context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[None]:
    """Answer the call with a status when its work is refused.

    Outside of ``branch()``, so that the branch sees the refusal first: it rolls back, and votes NO whatever the
    application makes of the answer.
    """
    try:
        yield
    except Refused as refusal:
        await context.abort(_STATUSES.get(type(refusal), grpc.StatusCode.FAILED_PRECONDITION), str(refusal))
