"""The serving side of a batched stream.

``serve_frames`` is the body of a servicer's ``Connect``. It hands each call to a ``Dispatch``, which answers now or
later, in any order, through the ``Reply`` it was given. Replies gather while the last frame is being written, as calls
do on the other side. The same dispatch serves the unary methods through ``answer_unary``, so a service has one entry.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import Message

from handfast.catalog import HandfastFault
from handfast.frames.channels import CALL_BYTES_MAX, FRAME_BYTES_MAX
from handfast.frames.failure import abort, error_of_fault
from handfast.frames.gathering import Sender, together
from handfast.frames.service import FramedService

Reply = Callable[[Message | HandfastFault], None]
"""Answers one call; to be called exactly once, on the loop's thread."""

Dispatch = Callable[[Message, Reply], None]
"""Takes one call. Must not block; may reply before it returns."""

log = logging.getLogger(__name__)


class _Outbox:
    """The replies of one stream: owed, waiting to be written, and being written."""

    def __init__(
        self, service: FramedService, context: grpc.aio.ServicerContext[Any, Any], frame_messages_max: int
    ) -> None:
        self._service = service
        self._context = context
        self._frame_messages_max = frame_messages_max
        self._waiting: deque[tuple[int, Message | HandfastFault]] = deque()
        self._owed: set[int] = set()  # called, and not answered yet
        self._sender = Sender(
            self._waiting,
            self._owed.__len__,
            self._write,
            frame_messages_max,
            on_idle=self._look_whether_finished,
            on_failure=self._fail,
        )
        self._last = False
        self._gone = False
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def owe(self, call_id: int) -> Reply:
        """Take a call on the books, and give the way to answer it.

        Raises:
            HandfastFault: CALL_ID_REPEATED.
        """
        if call_id in self._owed:
            raise HandfastFault("CALL_ID_REPEATED", id=call_id)
        self._owed.add(call_id)
        return partial(self._reply, call_id)

    def _reply(self, call_id: int, answer: Message | HandfastFault) -> None:
        if self._gone:
            return  # the caller has left; it was told that its call is lost
        if call_id not in self._owed:
            raise RuntimeError(f"call {call_id} of {self._service.name} was answered twice")
        if type(answer) not in self._service.reply_fields and not isinstance(answer, HandfastFault):
            raise TypeError(f"{self._service.name} has no reply of type {type(answer).__name__}")
        self._owed.discard(call_id)
        self._waiting.append((call_id, answer))
        if not self._sender.busy:
            self._sender.wake()

    def no_more_calls(self) -> None:
        """Let it finish once everything owed is written."""
        self._last = True
        self._look_whether_finished()

    def _look_whether_finished(self) -> None:
        done = self._last and not self._owed and not self._waiting and not self._sender.busy
        if done and not self.finished.done():
            self.finished.set_result(None)

    def _fail(self, problem: BaseException) -> None:
        if not self.finished.done():
            self.finished.set_exception(problem)

    def leave(self) -> None:
        """The stream has ended: answers that come later have nowhere to go, and those that wait go nowhere."""
        self._gone = True
        self._owed.clear()
        self._waiting.clear()
        self.no_more_calls()

    def stop(self) -> None:
        """Write nothing more, not even what is being written."""
        self.leave()
        self._sender.stop()
        self.finished.cancel()

    def _write(self) -> Awaitable[None] | None:
        return self._context.write(self._gather())

    def _gather(self) -> Message:
        frame: Any = self._service.reply_frame()
        count = size = 0
        while self._waiting and count < self._frame_messages_max and size < FRAME_BYTES_MAX:
            call_id, answer = self._waiting.popleft()
            size += _fill(frame.replies.add(id=call_id), answer, self._service)
            count += 1
        return frame  # type: ignore[no-any-return]  # made from a descriptor; the checker can't know its class


def _fill(reply: Any, answer: Message | HandfastFault, service: FramedService) -> int:
    """Put the answer into its field; returns its size in bytes."""
    if not isinstance(answer, HandfastFault):
        size = answer.ByteSize()
        if size <= CALL_BYTES_MAX:
            getattr(reply, service.reply_fields[type(answer)]).CopyFrom(answer)
            return size
        # Not an error of the request: the work is done. INTERNAL tells the caller to ask what became of it.
        problem = f"the {type(answer).__name__} has {size} bytes, more than the {CALL_BYTES_MAX} that a reply carries"
        answer = HandfastFault("INTERNAL", problem=problem)
    reply.error.CopyFrom(error_of_fault(answer))
    return int(reply.error.ByteSize())


async def serve_frames(
    service: FramedService,
    request_iterator: AsyncIterator[Any],
    context: grpc.aio.ServicerContext[Any, Any],
    dispatch: Dispatch,
    *,
    stop: asyncio.Event | None = None,
    frame_messages_max: int = 256,
) -> None:
    """Serve one ``Connect`` stream until the caller ends it and has every answer.

    Args:
        service: what is served.
        request_iterator: the frames of calls, as gRPC gives them to the handler.
        context: the handler's context; must not be written to by others.
        dispatch: takes each call. A HandfastFault it raises is the answer; any other exception is logged and
            answered INTERNAL.
        stop: when set, no further frame is read, and the stream ends as soon as everything owed is written. For a
            graceful stop: without it a server waits for streams that never end by themselves.
        frame_messages_max: how many replies a frame carries at most.

    Raises:
        HandfastFault: CALL_ID_REPEATED, by which the stream is to be ended.
    """
    outbox = _Outbox(service, context, frame_messages_max)
    reader = asyncio.create_task(_read(service, request_iterator, outbox, dispatch))
    stopped = asyncio.create_task((stop or asyncio.Event()).wait())
    tasks = (reader, stopped)
    try:
        done, _ = await asyncio.wait((outbox.finished, *tasks), return_when=asyncio.FIRST_COMPLETED)
        if reader in done:
            if reader.exception() is not None:
                outbox.leave()
                # What is being written: gRPC can't end a stream with a status in the middle of it.
                await outbox.finished
            reader.result()
        reader.cancel()  # told to stop: as long as others came, a busy stream would never end
        outbox.no_more_calls()
        await outbox.finished
    finally:
        outbox.stop()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _read(
    service: FramedService, request_iterator: AsyncIterator[Any], outbox: _Outbox, dispatch: Dispatch
) -> None:
    async for frame in request_iterator:
        with together:
            _take(service, frame, outbox, dispatch)


def _take(service: FramedService, frame: Any, outbox: _Outbox, dispatch: Dispatch) -> None:
    for call in frame.calls:
        reply = outbox.owe(call.id)
        field = call.WhichOneof("request")
        if field is not None:
            _dispatch(dispatch, getattr(call, field), reply, service.name)
        else:
            reply(HandfastFault("FIELD_INVALID", field="request", problem="it is empty, or newer than this peer"))


def _dispatch(dispatch: Dispatch, request: Message, reply: Reply, service: str) -> None:
    try:
        dispatch(request, reply)
    except HandfastFault as fault:
        reply(fault)
    except Exception as problem:
        log.exception("%s failed on a %s of %s", service, type(request).__name__, getattr(request, "gtrid", "-"))
        reply(HandfastFault("INTERNAL", problem=f"{type(problem).__name__}: {problem}"))


async def answer_unary(
    dispatch: Dispatch, request: Message, context: grpc.aio.ServicerContext[Any, Any], *, service: str = "unary"
) -> Any:
    """Serve one unary call by the same dispatch.

    Args:
        dispatch: as in ``serve_frames``.
        request: the call's request.
        context: the handler's context, by which a fault is answered.
        service: the service's name, for the log.

    Returns:
        The response.

    Raises:
        grpc.aio.AbortError: the call was answered with a fault.
    """
    answer: asyncio.Future[Message | HandfastFault] = asyncio.get_running_loop().create_future()

    def reply(message: Message | HandfastFault) -> None:
        if answer.cancelled():
            return  # the caller has left
        if answer.done():
            raise RuntimeError(f"a {type(request).__name__} was answered twice")
        answer.set_result(message)

    _dispatch(dispatch, request, reply, service)
    given = await answer
    if isinstance(given, HandfastFault):
        await abort(context, given)
    return given
