"""The calling side of one ``Connect`` stream, on whichever way its frames go: over gRPC, or over a socket beside it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc.aio
from google.protobuf.message import Message

from handfast.frames.connection import FrameConnection

Take = Callable[[Any], bool]
"""Given each frame as it comes, and None for what is none; returns whether to go on."""

END_S = 1.0
"""How long after the one of stream and connection the other is waited for, in seconds."""


class OverGrpc:
    """A stream whose frames travel over itself.

    Args:
        stream: the ``grpc.aio`` call.
    """

    answered_all = False
    """Never known here: not every peer that ends a stream well has answered what it had read."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    async def receive(self, take: Take) -> None:
        """Give each frame to ``take``; return when the stream has ended, or when that wants no more.

        Raises:
            grpc.aio.AioRpcError: it has ended with an error.
        """
        async for frame in self._stream:
            if not take(frame):
                return

    def write(self, frame: Message) -> Awaitable[None] | None:
        """Send a frame; gives what to await before the next."""
        return self._stream.write(frame)  # type: ignore[no-any-return]  # gRPC's own

    def cancel(self) -> None:
        """End it, at once."""
        self._stream.cancel()


class Beside:
    """A stream whose frames travel over a connection beside it; in the stream's place.

    Args:
        stream: the ``grpc.aio`` call. Its end is the end of both; the empty frames before it mean nothing.
        connection: what its frames travel over.
        parse: makes a frame of bytes; None when they are none.
    """

    def __init__(self, stream: Any, connection: FrameConnection, parse: Callable[[bytes], Message | None]) -> None:
        self._stream = stream
        self._connection = connection
        self._parse = parse
        self.answered_all = False
        """Whether the peer ended it in good order: then it has answered all that it had read, and read nothing else."""
        self._end = asyncio.ensure_future(self._stream_end())
        self._end.add_done_callback(self._on_stream_end)

    async def _stream_end(self) -> None:
        """Return when the stream ends, or brings a frame with something in it, which would be against the order."""
        while (frame := await self._stream.read()) is not grpc.aio.EOF:
            if frame is None or frame.ByteSize():
                return

    def _on_stream_end(self, end: asyncio.Future[Any]) -> None:
        if not end.cancelled():
            end.exception()  # whoever reads is told it; when nobody does any more, it is nobody's
        # The peer writes what it still owes, and ends the connection. When it can't any more, nothing is to be had.
        asyncio.get_running_loop().call_later(END_S, self._connection.abort)

    async def receive(self, take: Take) -> None:
        """Give each frame to ``take`` as it comes, None for what is none; return when both have ended.

        Args:
            take: returns whether to go on.

        Raises:
            grpc.aio.AioRpcError: the stream has ended with an error.
        """

        def on_frame(data: bytes) -> None:
            if not take(self._parse(data)):
                self._connection.abort()

        self._connection.hand_over(on_frame)
        if await self._connection.end() is not None:
            take(None)
            return
        self._connection.close()
        await asyncio.wait({self._end}, timeout=END_S)
        if self._end.done():
            self._end.result()
            self.answered_all = self._connection.finished

    def write(self, frame: Message) -> Awaitable[None] | None:
        """Send a frame; gives what to await before the next."""
        return self._connection.write(frame.SerializeToString())

    def cancel(self) -> None:
        """End both, at once."""
        self._stream.cancel()
        self._end.cancel()
        self._connection.abort()
