"""The calling side of a batched stream.

One task and one ``Sender`` serve any number of calls. ``call`` puts its request into a queue and returns; the sender
takes what the queue holds, at most ``frame_messages_max``, writes it as one frame, and while that write is under
way the next frame gathers by itself. Replies are matched by id and handed to a callback, so a call costs no task.

What is certain about a call that failed rests on one rule: *nothing is written before the channel is READY*. A call
that was still queued when the connection failed has certainly not left this process (``maybe_executed`` False); a call
that went into a frame may have been done, whatever the failure says. One exception: a peer that ends a frame connection
in good order says so, and has by then answered all that it had read; what it left unread is sent again.

Two things are done once for many calls. A frame is held back while the loop's turns still add to it (``Sender``), and
one timer watches over all calls: it looks through them when the earliest could be due, which most have long been
answered by then.

Calls of one shape may be made as columns, by whoever has them so (``call_columns``); and those that wait together
become columns by themselves. When rows time out, fail, or have to be made again, they become single calls first.

A peer without ``Connect`` answers UNIMPLEMENTED; it has done nothing, so the calls of that stream are made again, as
unary calls, and so are all later ones on this channel. Calls that frames don't carry are unary from the start.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import Message

from handfast.frames.books import Books
from handfast.frames.channels import CALL_BYTES_MAX, FRAME_BYTES_MAX
from handfast.frames.columns import CELLS_MAX, ColumnReplies
from handfast.frames.dialing import FrameDialer
from handfast.frames.failure import (
    CallFailed,
    failure_of_rpc,
    lost,
    timed_out,
    too_large,
    unreachable,
)
from handfast.frames.filling import Filler
from handfast.frames.gathering import Sender, together
from handfast.frames.outstanding import Batch, Call, OnReply
from handfast.frames.reading import reader_or_none
from handfast.frames.service import FramedService
from handfast.frames.ways import Beside, OverGrpc

Metadata = tuple[tuple[str, str], ...]

CONNECT_TIMEOUT_S = 5.0
"""How long a connection attempt may take before its calls fail; an address that swallows packets gives no answer."""

TICK_S = 0.01
"""How far apart the looks at the calls' timeouts are at least, in seconds."""

log = logging.getLogger(__name__)


class _NoWay(Exception):
    """No connection, and why."""


class CallStream:
    """Calls to one peer, in batches where the peer can and one by one where it can't.

    Args:
        channel: the way to the peer; stays the caller's to close.
        service: what the peer serves.
        frame_messages_max: how many calls a frame carries at most.
        peer: the peer's name for messages and logs, for example its address.
        connect_timeout_s: how long a connection attempt may take, in seconds.
        on_disconnect: told that an open stream has ended, before its calls are failed.
        metadata: gives what goes along with each stream and each unary call.
        dialer: the way to the peer's frame port; None sends all frames over gRPC.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        service: FramedService,
        *,
        frame_messages_max: int = 256,
        peer: str = "",
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        on_disconnect: Callable[[], None] | None = None,
        metadata: Callable[[], Metadata] = tuple,
        dialer: FrameDialer | None = None,
    ) -> None:
        self._channel = channel
        self._service = service
        self._frame_messages_max = frame_messages_max
        self._peer = peer or service.name
        self._connect_timeout_s = connect_timeout_s
        self._on_disconnect = on_disconnect
        self._metadata = metadata
        self._dialer = dialer
        self._next_id = 1
        self._books = Books(service, self._peer)
        self._outstanding = self._books.calls
        self._queue: deque[Call | Batch] = deque()
        self._filler = Filler(service, self._queue, self._outstanding, frame_messages_max, self._new_ids)
        self._sender: Sender | None = None
        self._loop: asyncio.AbstractEventLoop | None = None  # asking asyncio for it costs a system call
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due_s = math.inf
        self._life: asyncio.Task[None] | None = None
        self._open = self._beside = False
        self._answered = self._nonsense = False
        self._batched: bool | None = None
        self._closed = False

    @property
    def connected(self) -> bool:
        """Whether a call made now would be sent without connecting first."""
        return self._open or (
            self._batched is False and not self._closed and self._channel.get_state() is grpc.ChannelConnectivity.READY
        )

    @property
    def last_error(self) -> str:
        """Why the last call failed; empty when that one did not."""
        return self._books.last_error

    @property
    def batched(self) -> bool | None:
        """Whether the peer takes batches; None until it has shown it."""
        return self._batched

    @property
    def takes_columns(self) -> bool:
        """Whether columns sent now would travel as columns: frames travel beside gRPC."""
        return self._beside

    def call(self, request: Message, on_reply: OnReply, *, timeout_s: float | None = None) -> None:
        """Make a call; returns at once.

        Args:
            request: its type chooses the method. Must not be changed before the answer.
            on_reply: told the response or the failure, exactly once, never before this returns.
            timeout_s: how long to wait for the answer, in seconds; None waits as long as the connection lasts.

        Raises:
            TypeError: the service has no method that takes this request.
        """
        method = self._service.methods.get(type(request)) or self._service.method(request)
        call = Call(self._next_id, method, request, on_reply, timeout_s)
        self._next_id += 1
        self._begin(call)

    def call_columns(self, columns: Any, count: int, replies: ColumnReplies, *, timeout_s: float) -> None:
        """Make many calls, which travel as columns where they can, and one by one where not; returns at once.

        Args:
            columns: the calls; their first id is set here. Must not be changed before the last answer.
            count: how many rows they have.
            replies: told what became of each row.
            timeout_s: how long to wait for each answer, in seconds.

        Raises:
            TypeError: the service has no such columns.
            ValueError: they are not well-formed, or have another number of rows.
        """
        kind = self._service.kind_of(columns)
        columns.first_id = self._new_ids(count)
        if problem := kind.problem(columns) or ("" if kind.count(columns) == count else f"its rows are not {count}"):
            raise ValueError(f"{type(columns).__name__} is not well-formed: {problem}")
        size = columns.ByteSize()
        batch = Batch(kind, self._service.methods[kind.request], columns, count, size, replies, timeout_s)
        if self._sender is None or not self._beside or size > FRAME_BYTES_MAX or 2 * count > CELLS_MAX:
            for call in batch.singled_out():
                self._begin(call)
            return
        self._expect(batch)
        self._books.batches.add(batch)
        self._queue.append(batch)
        if not self._sender.busy:
            self._sender.wake()

    async def ask(self, request: Message, *, timeout_s: float | None = None) -> Message:
        """Make a call and wait for its response.

        Args:
            request: its type chooses the method.
            timeout_s: as in ``call``.

        Raises:
            CallFailed: there was none.
            TypeError: the service has no method that takes this request.
        """
        answer: asyncio.Future[Message | CallFailed] = asyncio.get_running_loop().create_future()

        def on_reply(reply: Message | CallFailed) -> None:
            if not answer.done():
                answer.set_result(reply)

        method = self._service.methods.get(type(request)) or self._service.method(request)
        call = Call(self._next_id, method, request, on_reply, timeout_s)
        self._next_id += 1
        with together:
            self._begin(call)
        try:
            reply = await answer
        finally:
            self._books.drop(call)
        if isinstance(reply, CallFailed):
            raise reply
        return reply

    async def close(self) -> None:
        """End the stream; every outstanding call gets CallFailed, and so does every later one."""
        self._closed = True
        tasks = [call.task for call in self._outstanding.values() if call.task is not None]
        if self._life is not None:
            tasks.append(self._life)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._fail_all("this side closed it", None)
        if self._timer is not None:
            self._timer.cancel()

    # -- starting and settling calls -------------------------------------------------------------------------------

    def _new_ids(self, count: int) -> int:
        first_id = self._next_id
        self._next_id += count
        return first_id

    def _begin(self, call: Call) -> None:
        if self._closed or call.size > CALL_BYTES_MAX:
            asyncio.get_running_loop().call_soon(self._books.tell, call, self._refusal(call))
            return
        self._outstanding[call.id] = call
        if call.timeout_s is not None:
            self._expect(call)
        if self._batched is False or call.method.field is None:
            call.task = asyncio.create_task(self._call_unary(call))
            return
        self._queue.append(call)
        if self._sender is not None:
            if not self._sender.busy:
                self._sender.wake()
        elif self._life is None:
            self._life = asyncio.create_task(self._live())

    def _refusal(self, call: Call) -> CallFailed:
        if self._closed:
            return unreachable(self._peer, "the connection was closed by this side")
        return too_large(type(call.request).__name__, call.size, CALL_BYTES_MAX)

    # -- timeouts --------------------------------------------------------------------------------------------------

    def _expect(self, call: Call | Batch) -> None:
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
        call.due_s = loop.time() + (call.timeout_s or 0.0)
        if call.due_s < self._timer_due_s:
            self._look_at(loop, call.due_s)

    def _look_at(self, loop: asyncio.AbstractEventLoop, due_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_due_s = due_s
        self._timer = loop.call_at(due_s, self._fail_overdue)

    def _fail_overdue(self) -> None:
        self._timer, self._timer_due_s = None, math.inf
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        self._books.single_out(now_s)
        for call in [call for call in self._outstanding.values() if call.due_s <= now_s]:
            self._books.settle(call, timed_out(self._peer, call.timeout_s or 0.0, written=call.written))
        due_s = min((call.due_s for call in self._outstanding.values()), default=math.inf)
        due_s = min(due_s, self._books.batches.due_s())
        if due_s < self._timer_due_s:
            self._look_at(loop, max(due_s, now_s + TICK_S))

    # -- one stream, from connecting to its end --------------------------------------------------------------------

    async def _live(self) -> None:
        problem, status, spared = "this side gave it up", None, False
        self._answered = self._nonsense = False  # of this stream
        try:
            await self._reach()
            way = await self._chosen_way(self._connect())
            self._open, self._beside = True, isinstance(way, Beside)
            sender = self._sender = self._sender_on(way)
            sender.wake()
            try:
                await way.receive(self._take)
                spared = way.answered_all
                problem = "it sent what is no frame" if self._nonsense else "the peer ended it"
            finally:
                self._sender, self._beside = None, False
                sender.stop()
                way.cancel()
        except _NoWay as failure:
            problem = str(failure)
        except grpc.aio.AioRpcError as failure:
            problem, status = failure.details() or failure.code().name, failure.code()
        finally:
            was_open, self._life, self._open = self._open, None, False
            if was_open and self._answered and self._on_disconnect is not None:
                self._on_disconnect()
            if status is grpc.StatusCode.UNIMPLEMENTED and not self._answered:
                self._fall_back()
            elif spared:
                self._make_again(problem)
            else:
                self._fail_all(problem, status)

    async def _reach(self) -> None:
        """Wait for the channel to be READY; nothing is written before it is.

        Raises:
            _NoWay: the peer can't be reached now.
        """
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                while (state := self._channel.get_state(try_to_connect=True)) is not grpc.ChannelConnectivity.READY:
                    if state in {grpc.ChannelConnectivity.TRANSIENT_FAILURE, grpc.ChannelConnectivity.SHUTDOWN}:
                        raise _NoWay("nobody answers there")
                    await self._channel.wait_for_state_change(state)
        except TimeoutError:
            raise _NoWay(f"no connection within {self._connect_timeout_s:g} s") from None
        except grpc.aio.UsageError as problem:
            raise _NoWay("its channel is closed") from problem

    async def _chosen_way(self, stream: grpc.aio.StreamStreamCall[Any, Any]) -> OverGrpc | Beside:
        """Where this stream's frames go: over a connection beside it where there can be one, else over itself."""
        if self._dialer is None:
            return OverGrpc(stream)
        try:
            connection = await self._dialer.open(stream)
        except asyncio.CancelledError:
            stream.cancel()
            raise
        if connection is None:
            return OverGrpc(stream)
        self._batched = True
        return Beside(stream, connection, self._service.parse_reply_frame)

    def _connect(self) -> grpc.aio.StreamStreamCall[Any, Any]:
        connect: grpc.aio.StreamStreamMultiCallable[Any, Any] = self._channel.stream_stream(
            self._service.connect_path,
            request_serializer=_serialize,
            response_deserializer=self._service.parse_reply_frame,
        )
        asked = () if self._dialer is None else self._dialer.question
        return connect(
            None, metadata=(*self._metadata(), *asked) or None
        )  # no iterator: frames are written as they gather

    def _sender_on(self, way: OverGrpc | Beside) -> Sender:
        def write() -> Awaitable[None] | None:
            frame = self._filler.frame(in_columns=self._beside)
            return None if frame is None else way.write(frame)

        def on_failure(problem: BaseException) -> None:
            if isinstance(problem, grpc.RpcError | grpc.aio.BaseError | asyncio.InvalidStateError):
                # The stream has ended; the reader learns why, and settles every call.
                log.debug("writing to %s ended: %r", self._peer, problem)
            else:
                log.error("writing to %s failed", self._peer, exc_info=problem)
            way.cancel()

        return Sender(self._queue, self._under_way, write, self._frame_messages_max, on_failure=on_failure)

    def _under_way(self) -> int:
        # What timed out is still in the queue, so this may come out too small.
        return len(self._outstanding) + len(self._books.batches.by_first_id) - len(self._queue)

    def _take(self, frame: Any) -> bool:
        """Settle the calls that a frame answers; False when it is none."""
        if frame is None:
            self._nonsense = True
            return False
        self._answered = self._batched = True
        with together:
            self._books.take(frame)
        return True

    def _fail_all(self, problem: str, status: grpc.StatusCode | None) -> None:
        """Settle every call of the stream that ended. Those that travel by themselves have an end of their own."""
        number = None if status is None else status.value[0]
        self._queue.clear()
        self._books.single_out()
        for call in [call for call in self._outstanding.values() if call.task is None or self._closed]:
            self._books.settle(call, lost(self._peer, problem, written=call.written, grpc_status=number))

    def _make_again(self, problem: str) -> None:
        """Make the calls on another stream that the peer has left unread; once each, for it may go on like that."""
        self._queue.clear()
        self._books.single_out()
        for call in [call for call in self._outstanding.values() if call.task is None]:
            if call.again:
                self._books.settle(call, lost(self._peer, problem, written=False))
            else:
                call.again, call.written = True, False
                self._queue.append(call)
        if self._queue and self._life is None:
            self._life = asyncio.create_task(self._live())

    # -- without frames --------------------------------------------------------------------------------------------

    def _fall_back(self) -> None:
        log.info("%s has no batched streams; calling it one by one", self._peer)
        self._batched = False
        self._queue.clear()
        for call in self._outstanding.values():
            if call.task is None:
                call.written = False
                call.task = asyncio.create_task(self._call_unary(call))

    async def _call_unary(self, call: Call) -> None:
        method: grpc.aio.UnaryUnaryMultiCallable[Any, Message | None] = self._channel.unary_unary(
            call.method.path,
            request_serializer=_serialize,
            response_deserializer=reader_or_none(call.method.response),
        )
        reply: Message | CallFailed | None
        try:
            await self._reach()
            call.written = True
            reply = await method(call.request, metadata=self._metadata() or None)
        except _NoWay as failure:
            reply = unreachable(self._peer, str(failure))
        except grpc.aio.AioRpcError as problem:
            reply = failure_of_rpc(problem, self._peer)
        except grpc.aio.UsageError as problem:
            log.debug("calling %s ended: %r", self._peer, problem)
            reply = unreachable(self._peer, "its channel is closed")
        call.task = None  # settling cancels a call's task, and this is it
        nothing = f"its answer is no {call.method.response.DESCRIPTOR.name}"
        self._books.settle(call, lost(self._peer, nothing, written=True) if reply is None else reply)


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()
