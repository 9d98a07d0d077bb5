"""The serving side of one ``Connect`` stream, on whichever way its frames come.

The caller that knows of frame connections asks for one when it opens the stream, and is told a ticket. It uses it
before it sends anything, or never. So whichever of the two brings something first, the stream or the connection, is the
one on which all frames come and go from then on.

A stream beside a connection would carry nothing any more. A gRPC server with its usual settings takes three pings of
the caller's keepalive without data in between for an attack, and ends everything that comes from there
(``too_many_pings``). Whatever the server writes forgives them, so now and then it writes a frame with nothing in it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import grpc.aio
from google.protobuf.message import Message

from handfast.catalog import HandfastFault
from handfast.frames.channels import KEEPALIVE_TIME_MS
from handfast.frames.connection import FrameConnection, FrameTooLarge
from handfast.frames.dialing import HEADER, LOCAL_HEADER, NONE
from handfast.frames.local import is_near
from handfast.frames.ports import FramePort, Offer
from handfast.frames.reading import Context
from handfast.frames.service import FramedService

FINISH_S = 5.0
"""How long a caller may take for the last replies, in seconds. A server that stops may give it less."""

EMPTY_FRAMES_S = KEEPALIVE_TIME_MS / 2000
"""How long after the one empty frame the next is written, in seconds: before the caller's keepalive asks."""

log = logging.getLogger(__name__)


@contextlib.asynccontextmanager
async def carried(
    service: FramedService, port: FramePort | None, frames: Any, context: Context
) -> AsyncIterator[tuple[Any, Any]]:
    """Give what ``serve_frames`` needs: the frames that come, and where to write those that go.

    Args:
        service: what is served.
        port: where frame connections come in; None when there is none.
        frames: those that come over gRPC; a ``Readable`` when there is a port.
        context: the stream's context.

    Raises:
        grpc.aio.UsageError: something was written to the context before.
    """
    dialed = next((str(value) for key, value in context.invocation_metadata() or () if key == HEADER), None)
    if dialed is None:
        yield frames, context
        return
    offer = None
    if port is not None and port.secure == _is_secure(context):
        offer = port.offer(dialed, near=is_near(context.peer()))
    if port is None or offer is None:
        await context.send_initial_metadata(((HEADER, NONE),))
        yield frames, context
        return
    empty_frames = _EmptyFrames(context, service.reply_frame())
    ways = _Ways(frames.source, context, offer, port, empty_frames)
    try:
        local = () if offer.local is None else ((LOCAL_HEADER, offer.local),)
        await context.send_initial_metadata(((HEADER, offer.text), *local))
        yield frames.over(ways), ways
        await ways.finish()
    except HandfastFault:
        await ways.finish()
        raise
    finally:
        ways.close()


def _is_secure(context: Context) -> bool:
    return b"ssl" in context.auth_context().get("transport_security_type", ())


class _Ways:
    """The bytes of a stream's frames, from where they come; and frames written to where they go.

    Args:
        stream: the bytes of frames that come over gRPC.
        context: where they go over gRPC.
        offer: the ticket that the caller was told.
        port: where it is good.
        empty_frames: what is written to the stream while frames travel beside it.
    """

    def __init__(
        self,
        stream: AsyncIterator[bytes],
        context: Context,
        offer: Offer,
        port: FramePort,
        empty_frames: _EmptyFrames,
    ) -> None:
        self._stream = stream
        self._context = context
        self._offer = offer
        self._port = port
        self._empty_frames = empty_frames
        self._next: asyncio.Task[bytes | None] | None = None
        self._connection: FrameConnection | None = None
        self._chosen = False

    def __aiter__(self) -> _Ways:
        return self

    async def __anext__(self) -> bytes:
        if not self._chosen:
            await self._choose()
        frame = await (self._from_stream() if self._connection is None else self._from(self._connection))
        if frame is None:
            raise StopAsyncIteration
        return frame

    async def _choose(self) -> None:
        """Wait for the first sign of either; the stream's end is one."""
        self._next = asyncio.ensure_future(anext(self._stream, None))
        signs: set[asyncio.Future[Any]] = {self._next, self._offer.taken}
        await asyncio.wait(signs, return_when=asyncio.FIRST_COMPLETED)
        if self._offer.taken.done():
            self._connection = self._offer.taken.result()
            # It stands until the stream beside it ends, or brings a frame, which would be against the order.
            self._next.add_done_callback(self._on_stream)
            self._empty_frames.start()
        self._port.withdraw(self._offer)
        self._chosen = True

    def _on_stream(self, came: asyncio.Task[bytes | None]) -> None:
        if not came.cancelled():
            came.exception()  # the stream's handler is cancelled too, and says what there is to say
        if self._connection is not None:
            self._connection.end_reading()

    async def _from_stream(self) -> bytes | None:
        if self._next is None:
            return await anext(self._stream, None)
        came, self._next = self._next, None
        return await came

    async def _from(self, connection: FrameConnection) -> bytes | None:
        try:
            frame = await connection.read()
        except FrameTooLarge as problem:
            raise HandfastFault("MESSAGE_MALFORMED", kind="frame", problem=str(problem)) from problem
        if frame is not None:
            return frame
        if connection.finished:
            return None
        if self._next is not None and self._next.done() and not _has_failed(self._next):
            if self._next.result() is None:
                return None  # the caller has ended its side of the stream
            if connection.used:
                raise HandfastFault("MESSAGE_MALFORMED", kind="frame", problem="it came beside the frame connection")
        elif connection.used:
            raise HandfastFault("FRAME_CONNECTION_LOST")
        # The caller gave it up before it was used: it never saw that it was taken.
        self._connection = None
        await self._empty_frames.finish(None)
        return await self._from_stream()

    def write(self, frame: Message) -> Awaitable[None] | None:
        """Write a frame of replies, in the context's place; gives what to await before the next."""
        if self._connection is not None:
            return self._connection.write(frame.SerializeToString())
        return self._context.write(frame)

    async def finish(self) -> None:
        """Return when the caller has everything that was written, before the stream's end tells it to look no more."""
        self._empty_frames.stop()
        connection = self._connection
        if connection is None and not self._chosen and self._offer.taken.done():
            connection = self._offer.taken.result()  # the stream ended before anything was looked at
        if connection is not None:
            await connection.finish(FINISH_S)
        await self._empty_frames.finish(FINISH_S)

    def close(self) -> None:
        """Leave nothing open."""
        self._port.withdraw(self._offer)
        self._empty_frames.close()
        if self._offer.taken.done():
            self._offer.taken.result().abort()
        if self._next is not None:
            self._next.cancel()


def _has_failed(came: asyncio.Task[bytes | None]) -> bool:
    return came.cancelled() or came.exception() is not None


class _EmptyFrames:
    """Frames with nothing in them, written to a stream now and then for as long as nobody else writes to it.

    Args:
        context: the stream's.
        frame: one of them.
    """

    def __init__(self, context: Context, frame: Message) -> None:
        self._context = context
        self._frame = frame
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.Task[None] | None = None
        self._stopped = False

    def start(self) -> None:
        """Write the first after a while."""
        self._timer = asyncio.get_running_loop().call_later(EMPTY_FRAMES_S, self._write)

    def _write(self) -> None:
        self._writing = asyncio.ensure_future(self._context.write(self._frame))
        self._writing.add_done_callback(self._on_written)

    def _on_written(self, written: asyncio.Task[None]) -> None:
        problem = None if written.cancelled() else written.exception()
        if isinstance(problem, grpc.aio.BaseError | asyncio.InvalidStateError):
            log.debug("an empty frame went nowhere: %r", problem)  # the stream has ended; its handler is told as well
        elif problem is not None:
            log.error("an empty frame could not be written", exc_info=problem)
        elif not (self._stopped or written.cancelled()):
            self.start()

    def stop(self) -> None:
        """Begin no other."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()

    async def finish(self, within_s: float | None) -> None:
        """Return when others may write to the stream, or end it: gRPC takes one thing at a time.

        Args:
            within_s: how long to wait for what is being written, in seconds; None waits as long as the stream lasts.
        """
        self.stop()
        if self._writing is not None:
            await asyncio.wait({self._writing}, timeout=within_s)

    def close(self) -> None:
        """Leave nothing behind."""
        self.stop()
        if self._writing is not None:
            self._writing.cancel()
