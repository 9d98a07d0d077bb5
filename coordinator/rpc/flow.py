"""One batched stream, held to what its caller may take: of time, and of memory.

``serve_frames`` reads frames from an iterator and writes frames to a context. ``Flow`` stands in the place of both. On
the way in it gives large frames in slices, with a turn of the event loop after each, so that no frame holds up the
others for longer than a slice takes; and it reads no further frame while the caller owes time (``shares``) or has
too many calls that wait for an answer. That includes answers that the caller does not read: gRPC stops taking them,
they stay unwritten, and so a client that only ever writes comes to a stop instead of filling the coordinator's memory.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from coordinator.rpc.shares import BROKEN_S, BYTE_S, CALL_S, FRAME_S, Account
from coordinator.runtime.clock import Clock
from handfast.catalog import HandfastFault

SLICE_CALLS = 256
"""How many calls are handled in one go: as many as our own senders put into a frame."""

SLICE_CALLS_CONTESTED = 32
"""The same for a caller that has used up most of its share."""


@dataclass(frozen=True, slots=True)
class Slice:
    """A part of a frame.

    Args:
        calls: its calls.
    """

    calls: Sequence[Any]


class SizedFrames(Protocol):
    """Frames that come, and how many bytes the last one had (``handfast.frames.reading.Readable``)."""

    size: int

    def __aiter__(self) -> AsyncIterator[Any]: ...


class Flow:
    """The frames of one stream.

    Args:
        frames: the frames that come.
        context: where frames of replies are written.
        account: the caller's.
        clock: where time comes from.
        calls_max: how many calls may wait for their answers to be written.
        bytes_max: how many bytes such calls may have come in.
    """

    def __init__(
        self,
        frames: SizedFrames,
        context: Any,
        account: Account,
        clock: Clock,
        *,
        calls_max: int,
        bytes_max: int,
    ) -> None:
        self._frames = frames
        self._context = context
        self._account = account
        self._clock = clock
        self._calls_max = calls_max
        self._bytes_max = bytes_max
        self._read = self._answered = self._bytes = 0
        self._sizes: deque[tuple[int, int]] = deque()  # how many calls were read with a frame, and its bytes
        self._drained = asyncio.Event()

    @property
    def waiting(self) -> int:
        """How many calls wait for their answers to be written."""
        return self._read - self._answered

    # -- in --------------------------------------------------------------------------------------------------------

    async def calls(self) -> AsyncIterator[Any]:
        """The frames, or slices of them, each when it is time for it.

        Raises:
            HandfastFault: what came is no frame. It is paid for all the same, and more than by its bytes: for whoever
                sends such a thing gRPC has unpacked all that came behind it.
        """
        try:
            async for piece in self._timely():
                yield piece
        except HandfastFault:
            self._account.charge(BROKEN_S + self._frames.size * BYTE_S)
            raise

    async def _timely(self) -> AsyncIterator[Any]:
        async for frame in self._frames:
            size = self._frames.size
            self._take(len(frame.calls), size)
            self._account.charge(FRAME_S + size * BYTE_S)
            async for piece in self._pieces(frame):
                began_s = self._clock.now_s()
                yield piece  # comes back when the calls in it were handled
                self._account.charge(self._clock.now_s() - began_s + CALL_S * len(piece.calls))
            await self._room()
            await self._account.admitted()

    async def _pieces(self, frame: Any) -> AsyncIterator[Any]:
        calls = frame.calls
        if len(calls) <= SLICE_CALLS_CONTESTED:
            yield frame
            return
        position = 0
        while position < len(calls):
            count = SLICE_CALLS_CONTESTED if self._account.nearly_used_up else SLICE_CALLS
            if not position and len(calls) <= count:
                yield frame
                return
            yield Slice(calls[position : position + count])
            position += count
            await self._account.admitted()
            await self._clock.sleep(0)

    def _take(self, calls: int, size: int) -> None:
        self._read += calls
        self._bytes += size
        self._sizes.append((self._read, size))

    async def _room(self) -> None:
        """Return when the stream may hold another frame."""
        while self.waiting >= self._calls_max or (self._bytes >= self._bytes_max and self.waiting > 0):
            self._drained.clear()
            await self._drained.wait()

    # -- out -------------------------------------------------------------------------------------------------------

    def write(self, frame: Any) -> Awaitable[None] | None:
        """Write a frame of replies, in gRPC's place; gives what to await before the next."""
        count = len(frame.replies)
        self._account.charge(FRAME_S + CALL_S * count)
        pending = self._context.write(frame)
        if pending is not None:
            return self._written(pending, count)
        self._let_go(count)
        return None

    async def _written(self, pending: Awaitable[None], count: int) -> None:
        await pending
        self._let_go(count)

    def _let_go(self, count: int) -> None:
        self._answered += count
        # Answers come in any order; that the bytes of a frame are let go when as many calls were answered as had come
        # by then is true in the long run.
        while self._sizes and self._sizes[0][0] <= self._answered:
            self._bytes -= self._sizes.popleft()[1]
        self._drained.set()
