"""How a call fails, and how an error of the catalog crosses the wire.

A call that got no response is a ``CallFailed``. What its maker needs to know is not only why, but whether the peer may
have done the work all the same: a lost answer is not a failed call, and taking it for one is how transaction systems
report a rollback for what committed.
"""

from __future__ import annotations

from typing import Any, NoReturn

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from google.rpc import status_pb2

from handfast.catalog import HandfastFault
from handfast.masking import masked
from handfast.v1 import types_pb2

UNREACHABLE = "UNREACHABLE"
"""The call certainly never left this process: the peer was not connected."""
LOST = "LOST"
"""The connection broke after the call was sent, before its answer came."""
TIMEOUT = "TIMEOUT"
"""No answer came in time."""
UNIMPLEMENTED = "UNIMPLEMENTED"
"""The peer has no such method; it did nothing."""

DETAILS_KEY = "grpc-status-details-bin"
"""Where gRPC carries a ``google.rpc.Status``, by convention of all its languages."""

SAID_LENGTH_MAX = 2_048
"""What is taken of a peer's words, which nobody keeps from saying fourteen MiB."""

STATUS_BYTES_MAX = 1_024
"""What a unary call's status says, and each text in its details: all of it travels in headers of 8 KiB."""


class CallFailed(Exception):
    """A call that got no response.

    Args:
        code: an entry of the catalog when the peer answered with an Error; else ``UNREACHABLE``, ``LOST``,
            ``TIMEOUT``, ``UNIMPLEMENTED``, or the gRPC status by which a peer that knows no catalog refused.
        message: what happened.
        mend: what to do about it; may be empty.
        grpc_status: the number of the gRPC status code.
        maybe_executed: False only when the peer certainly did not do the work: the call never left this process,
            or the peer has no such method.
        gtrid: the transaction concerned, when the peer named it.
        bqual: the branch concerned, when the peer named it.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        mend: str = "",
        grpc_status: int,
        maybe_executed: bool,
        gtrid: str = "",
        bqual: str = "",
    ) -> None:
        message = masked(message[:SAID_LENGTH_MAX])  # a peer that is not ours may tell its secrets
        super().__init__(f"{message} {mend}".rstrip())
        self.code = code
        self.message = message
        self.mend = mend
        self.grpc_status = grpc_status
        self.maybe_executed = maybe_executed
        self.gtrid = gtrid
        self.bqual = bqual

    @property
    def answered(self) -> bool:
        """Whether the peer itself said no, as against: nobody knows what it did."""
        return self.code not in {UNREACHABLE, LOST, TIMEOUT}


def unreachable(peer: str, problem: str) -> CallFailed:
    """A call that never left this process."""
    return CallFailed(
        UNREACHABLE,
        f"{peer} can't be reached: {problem.rstrip('.')}.",
        mend="Start it, or check the address and the network.",
        grpc_status=_number(grpc.StatusCode.UNAVAILABLE),
        maybe_executed=False,
    )


def lost(peer: str, problem: str, *, written: bool, grpc_status: int | None = None) -> CallFailed:
    """A call whose stream broke; one that was still waiting to be written never left this process."""
    if not written:
        return unreachable(peer, problem)
    return CallFailed(
        LOST,
        f"The connection to {peer} broke before the answer came: {problem.rstrip('.')}.",
        mend="It may have been done: ask again.",
        grpc_status=_number(grpc.StatusCode.UNAVAILABLE) if grpc_status is None else grpc_status,
        maybe_executed=True,
    )


def timed_out(peer: str, timeout_s: float, *, written: bool) -> CallFailed:
    """A call whose answer did not come in time."""
    return CallFailed(
        TIMEOUT,
        f"{peer} did not answer within {timeout_s:g} s.",
        mend="It may have been done: ask again." if written else "It was not sent: try again.",
        grpc_status=_number(grpc.StatusCode.DEADLINE_EXCEEDED),
        maybe_executed=written,
    )


def too_large(kind: str, size: int, limit: int) -> CallFailed:
    """A call that would break the stream."""
    fault = HandfastFault("MESSAGE_TOO_LARGE", kind=kind, size=size, limit=limit)
    return CallFailed(
        fault.code,
        fault.message,
        mend=fault.mend,
        grpc_status=_number(grpc.StatusCode.INVALID_ARGUMENT),
        maybe_executed=False,
    )


def failure_of_error(error: types_pb2.Error) -> CallFailed:
    """The peer's own no."""
    return CallFailed(
        error.code,
        error.message,
        mend=error.mend,
        grpc_status=error.grpc_status,
        maybe_executed=True,
        gtrid=error.gtrid,
        bqual=error.bqual,
    )


def failure_of_rpc(problem: grpc.aio.AioRpcError, peer: str) -> CallFailed:
    """Read how a unary call failed.

    Args:
        problem: what the call raised.
        peer: whom it was made to, for the message.
    """
    error = _error_in(problem)
    if error is not None:
        return failure_of_error(error)
    status, details = problem.code(), problem.details() or "no reason given"
    if status in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}:
        return lost(peer, details, written=True, grpc_status=_number(status))
    code = TIMEOUT if status is grpc.StatusCode.DEADLINE_EXCEEDED else status.name
    return CallFailed(
        code,
        f"{peer} answered {status.name}: {details.rstrip('.')}.",
        grpc_status=_number(status),
        maybe_executed=status is not grpc.StatusCode.UNIMPLEMENTED,
    )


def error_of_fault(fault: HandfastFault) -> types_pb2.Error:
    """The wire's form of a fault."""
    return types_pb2.Error(
        code=fault.code,
        message=fault.message,
        mend=fault.mend,
        gtrid=fault.gtrid,
        bqual=fault.bqual,
        grpc_status=_number(grpc.StatusCode[fault.entry.grpc_status]),
    )


async def abort(context: grpc.aio.ServicerContext[Any, Any], fault: HandfastFault) -> NoReturn:
    """Answer a unary call with a fault: its gRPC status, its words, and the Error in the status details.

    Raises:
        grpc.aio.AbortError: always; gRPC's own way out of a handler.
    """
    details = _cut(str(fault))
    status = status_pb2.Status(code=_number(grpc.StatusCode[fault.entry.grpc_status]), message=details)
    error = error_of_fault(fault)
    error.message, error.mend = _cut(error.message), _cut(error.mend)
    status.details.add().Pack(error)
    await context.abort(grpc.StatusCode[fault.entry.grpc_status], details, ((DETAILS_KEY, status.SerializeToString()),))
    raise AssertionError("abort returned")  # it never does; the type checker is told so


def _error_in(problem: grpc.aio.AioRpcError) -> types_pb2.Error | None:
    trailing: Any = problem.trailing_metadata()  # a Metadata; its stub lacks the look-up
    carried = trailing.get(DETAILS_KEY) if trailing is not None else None
    if not isinstance(carried, bytes):
        return None
    error = types_pb2.Error()
    try:
        unpacked = any(detail.Unpack(error) for detail in status_pb2.Status.FromString(carried).details)
    except DecodeError:
        return None  # whoever answered is no peer of ours; the status itself still says no
    return error if unpacked else None


def _cut(text: str) -> str:
    """The text, or as much of its beginning as a header takes."""
    return text.encode()[:STATUS_BYTES_MAX].decode(errors="ignore")


def _number(status: grpc.StatusCode) -> int:
    number: int = status.value[0]
    return number
