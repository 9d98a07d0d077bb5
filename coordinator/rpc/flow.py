"""One batched stream, held to what its caller may take: of time, and of memory.

``serve_frames`` reads frames from an iterator and writes frames to a context. ``Flow`` stands in the place of both. On
the way in it gives large frames in slices, with a turn of the event loop after each, so that no frame holds up the
others for longer than a slice takes; a row of columns counts as the call that it is. And it reads no further frame
while the caller owes time (``shares``) or has too many calls that wait for an answer. That includes answers that the
caller does not read: gRPC stops taking them, they stay unwritten, and so a client that only ever writes comes to a stop
instead of filling the coordinator's memory.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable
from typing import Any, Protocol

from coordinator.rpc.shares import BROKEN_S, BYTE_S, CALL_S, FRAME_S, Account
from coordinator.runtime.clock import Clock
from handfast.catalog import HandfastFault
from handfast.frames import COORDINATOR
from handfast.frames.columns import Rows, Slice

SLICE_CALLS = 256
"""How many calls are handled in one go: as many as our own senders put into a frame."""

SLICE_CALLS_CONTESTED = 32
"""The same for a caller that has used up most of its share."""


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
        self._full = False  # somebody waits until some are answered
        self._drained = asyncio.Event()

    @property
    def waiting(self) -> int:
        """How many calls wait for their answers to be written."""
        return self._read - self._answered

    # -- in --------------------------------------------------------------------------------------------------------

    async def calls(self) -> AsyncIterator[Any]:
        """The frames, or slices of them, each when it is time for it.

        Raises:
            HandfastFault: what came is no frame, or columns in it are none. It is paid for all the same, and more than
                by its bytes: for whoever sends such a thing gRPC has unpacked all that came behind it.
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
            columns = COORDINATOR.rows_in(frame)
            count = len(frame.calls) + sum(map(len, columns))
            self._take(count, size)
            self._account.charge(FRAME_S + size * BYTE_S)
            whole, began_s = Slice(frame.calls, columns), self._clock.now_s()
            if count <= SLICE_CALLS_CONTESTED:
                yield whole  # comes back when the calls in it were handled
                self._charge_since(began_s, count)
            else:
                async for piece, calls in self._pieces(whole, count):
                    began_s = self._clock.now_s()
                    yield piece
                    self._charge_since(began_s, calls)
            await self._room()
            await self._account.admitted()

    async def _pieces(self, whole: Slice, count: int) -> AsyncIterator[tuple[Slice, int]]:
        """A frame in slices, and how many calls each has."""
        calls_max = self._slice_calls()
        if count <= calls_max:
            yield whole, count
            return
        cutter = _Cutter(whole)
        while count:
            yield cutter.next(calls_max), min(calls_max, count)
            count -= min(calls_max, count)
            await self._account.admitted()
            await self._clock.sleep(0)
            calls_max = self._slice_calls()

    def _charge_since(self, began_s: float, calls: int) -> None:
        self._account.charge(self._clock.now_s() - began_s + CALL_S * calls)

    def _slice_calls(self) -> int:
        return SLICE_CALLS_CONTESTED if self._account.nearly_used_up else SLICE_CALLS

    def _take(self, calls: int, size: int) -> None:
        self._read += calls
        self._bytes += size
        self._sizes.append((self._read, size))

    async def _room(self) -> None:
        """Return when the stream may hold another frame."""
        while self.waiting >= self._calls_max or (self._bytes >= self._bytes_max and self.waiting > 0):
            self._full = True
            self._drained.clear()
            await self._drained.wait()

    # -- out -------------------------------------------------------------------------------------------------------

    def write(self, frame: Any) -> Awaitable[None] | None:
        """Write a frame of replies, in gRPC's place; gives what to await before the next."""
        count = COORDINATOR.answers_in(frame)
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
        if self._full:
            self._full = False
            self._drained.set()


class _Cutter:
    """Cuts a frame: its single calls first, and then its columns by rows.

    Args:
        whole: the frame.
    """

    def __init__(self, whole: Slice) -> None:
        self._calls = whole.calls
        self._columns = whole.columns
        self._call = self._place = self._row = 0  # where to go on

    def next(self, calls_max: int) -> Slice:
        """The next so many calls, or those that are left."""
        calls = self._calls[self._call : self._call + calls_max]
        self._call += len(calls)
        left, columns = calls_max - len(calls), list[Rows]()
        while left and self._place < len(self._columns):
            rows = self._columns[self._place]
            stop = min(self._row + left, rows.stop)
            columns.append(Rows(rows.kind, rows.columns, self._row, stop))
            left -= stop - self._row
            self._row = stop
            if stop == rows.stop:
                self._place, self._row = self._place + 1, 0
        return Slice(calls, columns)
