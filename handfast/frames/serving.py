"""The serving side of a batched stream.

``serve_frames`` is the body of a servicer's ``Connect``. It hands each call to a ``Dispatch``, which answers now or
later, in any order, through the ``Reply`` it was given. Replies gather while the last frame is being written, as calls
do on the other side. The same dispatch serves the unary methods through ``answer_unary``, so a service has one entry.

Calls that came as columns go to a ``TakeColumns`` first, where the service has one; those that it does not take, and
all where there is none, go to the dispatch one by one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import Message

from handfast.catalog import HandfastFault
from handfast.frames.columns import Rows, Slice, TakeColumns
from handfast.frames.failure import abort
from handfast.frames.gathering import together
from handfast.frames.outbox import Outbox, Reply
from handfast.frames.service import FramedService

Dispatch = Callable[[Message, Reply], None]
"""Takes one call. Must not block; may reply before it returns."""

log = logging.getLogger(__name__)


async def serve_frames(
    service: FramedService,
    request_iterator: AsyncIterator[Any],
    context: grpc.aio.ServicerContext[Any, Any],
    dispatch: Dispatch,
    *,
    stop: asyncio.Event | None = None,
    frame_messages_max: int = 256,
    columns: TakeColumns | None = None,
) -> None:
    """Serve one ``Connect`` stream until the caller ends it and has every answer.

    Args:
        service: what is served.
        request_iterator: the frames of calls, as gRPC gives them to the handler, or slices of them.
        context: the handler's context; must not be written to by others.
        dispatch: takes each call. A HandfastFault it raises is the answer; any other exception is logged and
            answered INTERNAL.
        stop: when set, no further frame is read, and the stream ends as soon as everything owed is written. For a
            graceful stop: without it a server waits for streams that never end by themselves.
        frame_messages_max: how many replies a frame carries at most.
        columns: takes columns whole; what it raises is answered for all of their rows that have no answer yet.

    Raises:
        HandfastFault: CALL_ID_REPEATED or MESSAGE_MALFORMED, by which the stream is to be ended.
    """
    outbox = Outbox(service, context, frame_messages_max)
    reader = asyncio.create_task(_read(service, request_iterator, outbox, dispatch, columns))
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
    service: FramedService,
    request_iterator: AsyncIterator[Any],
    outbox: Outbox,
    dispatch: Dispatch,
    columns: TakeColumns | None,
) -> None:
    async for frame in request_iterator:
        with together:
            rows_in_frame = frame.columns if type(frame) is Slice else service.rows_in(frame)
            for call in frame.calls:
                _take(service, call, outbox, dispatch)
            for rows in rows_in_frame:
                _take_rows(service, rows, outbox, dispatch, columns)


def _take(service: FramedService, call: Any, outbox: Outbox, dispatch: Dispatch) -> None:
    reply = outbox.owe(call.id)
    field = call.WhichOneof("request")
    if field is not None:
        _dispatch(dispatch, getattr(call, field), reply, service.name)
    else:
        reply(HandfastFault("FIELD_INVALID", field="request", problem="it is empty, or newer than this peer"))


def _take_rows(
    service: FramedService, rows: Rows, outbox: Outbox, dispatch: Dispatch, columns: TakeColumns | None
) -> None:
    outbox.owe_rows(rows)
    try:
        if columns is not None and columns(rows.columns, rows.start, rows.stop, outbox):
            return
    except HandfastFault as fault:
        outbox.fail(rows, fault)
        return
    except Exception as problem:
        log.exception("%s failed on %s of %d rows", service.name, type(rows.columns).__name__, len(rows))
        outbox.fail(rows, HandfastFault("INTERNAL", problem=f"{type(problem).__name__}: {problem}"))
        return
    for call_id in rows.ids:
        _dispatch(dispatch, rows.request(call_id), partial(outbox.single, call_id), service.name)


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
