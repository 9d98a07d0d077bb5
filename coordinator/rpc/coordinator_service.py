"""What applications and participants ask: one dispatch, reached by unary calls and by batched streams alike.

A request is handled on the spot and without a task: a dictionary finds its handler by type, the handler calls
``Requests``, and the answer goes into the reply that came with it, now or when the transaction has got so far.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import grpc.aio
from google.protobuf.message import Message

from coordinator.config import split_address
from coordinator.log.records import ParticipantRecord
from coordinator.log.store import LogBroken, LogRefused
from coordinator.rpc import codec
from coordinator.rpc.limits import Streams
from coordinator.rpc.rows import execute_columns
from coordinator.rpc.shares import EARNED_UNARY_S
from coordinator.runtime.requests import Requests
from coordinator.runtime.row_requests import RowRequests
from coordinator.runtime.running import Running
from handfast.catalog import HandfastFault
from handfast.frames import COORDINATOR, ColumnsReply, FramePort, Reply, abort, answer_unary, carried, serve_frames
from handfast.v1 import coordinator_pb2 as c
from handfast.v1.coordinator_pb2_grpc import CoordinatorServicer

logger = logging.getLogger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]

KIND_LENGTH_MAX = 64
OPERATIONS_MAX = 1_024
NAME_LENGTH_MAX = 256
"""What a registration may hold: it is kept durably, and shown in reports."""


class Dispatch:
    """Takes each request of the Coordinator service and sees to its one reply.

    Args:
        requests: what the coordinator can be asked.
        rows: takes transactions that come as columns; without it each of them is a request.
    """

    def __init__(self, requests: Requests, rows: RowRequests | None = None) -> None:
        self._requests = requests
        self._rows = rows
        # Any: each handler takes its own kind of request, which is the key it stands under.
        self._handlers: dict[type[Message], Callable[[Any, Reply], None]] = {
            c.BeginRequest: self._begin,
            c.EnlistRequest: self._enlist,
            c.CommitRequest: self._commit,
            c.RollbackRequest: self._rollback,
            c.ExecuteRequest: self._execute,
            c.InquireRequest: self._inquire,
            c.RegisterRequest: self._register,
        }

    @property
    def caller(self) -> str:
        """Whose requests these are; empty when nobody had to say."""
        return ""

    def __call__(self, request: Message, reply: Reply) -> None:
        """Handle one request.

        Raises:
            HandfastFault: it is refused; whoever called answers with it.
        """
        self._handlers[type(request)](request, reply)

    def columns(self, columns: Message, start: int, stop: int, reply: ColumnsReply) -> bool:
        """Handle rows of columns; False when they must be handled one by one (see ``TakeColumns``)."""
        if self._rows is None or not isinstance(columns, c.ExecuteColumns):
            return False
        owner = self._requests.gtrids.client_of(columns.gtrids[start]) if columns.gtrids else ""
        if not self._may_execute(owner):
            return False
        return execute_columns(self._rows, columns, start, stop, reply, self._client(""), self)

    def _may_execute(self, owner: str) -> bool:
        """Whether the caller may execute transactions, under names that were drawn by ``owner``."""
        return True

    def _client(self, named_itself: str) -> str:
        """Who asks, as far as anybody knows."""
        return self._requests.checked_client(named_itself) if named_itself else ""

    def _begin(self, request: c.BeginRequest, reply: Reply) -> None:
        if request.block_size:
            reply(self._hand_out(request))
            return
        running = self._requests.begin(request.timeout_ms, self._client(request.client))
        timeout_ms = running.deadline_unix_ms - running.begun_unix_ms
        reply(c.BeginResponse(gtrid=running.gtrid, timeout_ms=timeout_ms))

    def _hand_out(self, request: c.BeginRequest) -> c.BeginResponse:
        block = self._requests.hand_out(request.block_size, self._client(request.client))
        options = self._requests.driver.options
        return c.BeginResponse(
            block=c.GtridBlock(
                prefix=block.prefix,
                first=0,
                count=len(block.claimed),
                lifetime_ms=int(options.block_lifetime_s * 1000),
            ),
            timeout_ms=int(self._requests.timeout_s(request.timeout_ms) * 1000),
        )

    def _enlist(self, request: c.EnlistRequest, reply: Reply) -> None:
        bqual = self._requests.enlist(request.gtrid, request.resource, request.instance, request.timeout_ms)
        reply(c.EnlistResponse(bqual=bqual))

    def _commit(self, request: c.CommitRequest, reply: Reply) -> None:
        at_decision = request.wait == c.WAIT_DECIDED
        on_answer = partial(_answer, reply, codec.commit_response)
        self._requests.commit(request.gtrid, request.branches, at_decision, on_answer)

    def _rollback(self, request: c.RollbackRequest, reply: Reply) -> None:
        on_answer = partial(_answer, reply, codec.rollback_response)
        self._requests.rollback(request.gtrid, request.reason, request.branches, on_answer)

    def _execute(self, request: c.ExecuteRequest, reply: Reply) -> None:
        at_decision = request.wait == c.WAIT_DECIDED
        on_answer = partial(_answer, reply, codec.execute_response)
        client = self._client("")
        self._requests.execute(request.gtrid, request.timeout_ms, request.operations, at_decision, on_answer, client)

    def _inquire(self, request: c.InquireRequest, reply: Reply) -> None:
        inquiry = self._requests.inquire(request.gtrid, request.bqual, request.branches)
        reply(codec.inquire_response(request.gtrid, inquiry, self._requests.driver.clock.unix_ms()))

    def _register(self, request: c.RegisterRequest, reply: Reply) -> None:
        self._check_registration(request)
        gtrids = self._requests.gtrids

        def on_written(problem: LogRefused | LogBroken | None) -> None:
            if problem is None:
                reply(c.RegisterResponse(coordinator_id=gtrids.coordinator_id, epoch=gtrids.epoch))
            else:
                reply(HandfastFault("LOG_REFUSED", problem=str(problem)))

        participant = ParticipantRecord(
            request.resource,
            request.instance,
            request.address,
            request.kind,
            tuple(request.operations),
            self._requests.driver.clock.unix_ms(),
        )
        self._requests.register(participant, on_written)

    def _check_registration(self, request: c.RegisterRequest) -> None:
        """Refuse what would be kept for ever, or be connected to, and is no participant.

        Raises:
            HandfastFault: FIELD_INVALID or PARTICIPANTS_TOO_MANY.
        """
        try:
            _, port = split_address(request.address)
        except ValueError:
            port = 0
        if not port:
            raise _invalid("address", "it is not host:port")
        if len(request.kind) > KIND_LENGTH_MAX:
            raise _invalid("kind", f"longer than {KIND_LENGTH_MAX} characters")
        if len(request.operations) > OPERATIONS_MAX or any(len(one) > NAME_LENGTH_MAX for one in request.operations):
            raise _invalid("operations", f"more than {OPERATIONS_MAX}, or one longer than {NAME_LENGTH_MAX} characters")
        directory, limit = self._requests.directory, self._requests.driver.options.participants_max
        if not directory.knows(request.resource, request.instance) and len(directory) >= limit:
            raise HandfastFault("PARTICIPANTS_TOO_MANY", limit=limit)


def _invalid(field: str, problem: str) -> HandfastFault:
    return HandfastFault("FIELD_INVALID", field=field, problem=problem)


def _answer(reply: Reply, encode: Callable[[Running], Message], answer: Running | HandfastFault) -> None:
    reply(codec.answered(encode, answer))


class CoordinatorService(CoordinatorServicer):
    """The servicer: every unary method and every stream by the one dispatch.

    Args:
        dispatch_for: gives the dispatch for whoever makes a call; asked once for each stream and each unary call.
        streams: holds streams to their limits, and ends them.
        frame_port: where streams may have their frames come in; None lets them come over gRPC.
    """

    def __init__(
        self, dispatch_for: Callable[[Context], Dispatch], streams: Streams, frame_port: FramePort | None = None
    ) -> None:
        self._dispatch_for = dispatch_for
        self._streams = streams
        self._frame_port = frame_port

    async def Begin(self, request: c.BeginRequest, context: Context) -> Any:
        return await self._unary(request, context)

    async def Enlist(self, request: c.EnlistRequest, context: Context) -> Any:
        return await self._unary(request, context)

    async def Commit(self, request: c.CommitRequest, context: Context) -> Any:
        return await self._unary(request, context)

    async def Rollback(self, request: c.RollbackRequest, context: Context) -> Any:
        return await self._unary(request, context)

    async def Execute(self, request: c.ExecuteRequest, context: Context) -> Any:
        return await self._unary(request, context)

    async def Inquire(self, request: c.InquireRequest, context: Context) -> Any:
        return await self._unary(request, context)

    async def Register(self, request: c.RegisterRequest, context: Context) -> Any:
        return await self._unary(request, context)

    # The stub knows only the generator form of a stream's handler; gRPC takes this one as well.
    async def Connect(  # type: ignore[override]
        self, request_iterator: AsyncIterator[c.CoordinatorConnectRequest], context: Context
    ) -> None:
        dispatch = await self._dispatch(context)
        try:
            with self._streams.counted(dispatch.caller or _host(context.peer())):
                async with self._streams.ending() as end:
                    caller = dispatch.caller or context.peer()
                    pace = self._streams.pace()
                    paced = self._streams.paced(dispatch, caller, pace)
                    columns = self._streams.paced_columns(dispatch.columns, caller, pace)
                    async with carried(COORDINATOR, self._frame_port, request_iterator, context) as (frames, replies):
                        flow = self._streams.flow(frames, replies, caller)
                        await serve_frames(COORDINATOR, flow.calls(), flow, paced, stop=end, columns=columns)
        except HandfastFault as fault:
            await abort(context, fault)

    async def _unary(self, request: Message, context: Context) -> Any:
        dispatch = await self._dispatch(context)
        earning = self._streams.earning(dispatch, dispatch.caller or context.peer(), EARNED_UNARY_S)
        return await answer_unary(earning, request, context, service=COORDINATOR.name)

    async def _dispatch(self, context: Context) -> Dispatch:
        try:
            return self._dispatch_for(context)
        except HandfastFault as fault:
            await abort(context, fault)


def _host(peer: str) -> str:
    """A peer's address without its port, which is another for each connection."""
    return peer.rpartition(":")[0]
