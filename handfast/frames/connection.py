"""A frame connection: the frames of one ``Connect`` stream over a socket of their own.

A frame costs each side some 180 µs to write and read through a gRPC stream, whatever is in it, and 14 µs through a
socket. So where both sides can, a stream's frames travel over a plain TCP connection beside it (TLS where gRPC has it),
or over a Unix socket when both are on one machine. Everything else stays with the stream: who calls, what they may, how
long it lasts, whether the peer is still there.

    ports.py       the serving side: a port, and the tickets that open a connection on it
    dialing.py     the calling side: how a ticket is used
    local.py       what both use between two processes of one machine
    carried.py     the serving side of one stream, on whichever way its frames come

On the wire, after the greeting (``MAGIC`` and the ticket one way, ``MAGIC`` the other): frames both ways, each its
length in four bytes, most significant first, and then the frame as the .proto describes it. A length of zero is no
frame: it says that no more will come. Whoever is told closes the connection, and until then nothing is lost: a socket
that is closed while something unread comes in takes back what the other end has not read (``finish``). The largest
length is none either: the dialing side asks by it whether the other is still there, and gets the same back. Whoever is
asked and reads nothing now, because what came waits to be taken, says it now and then unasked.
"""

from __future__ import annotations

import asyncio
import math
import socket
from collections import deque
from collections.abc import Awaitable, Callable
from struct import Struct
from typing import Any, cast

from handfast.frames.channels import KEEPALIVE_TIME_MS, KEEPALIVE_TIMEOUT_MS, MESSAGE_BYTES_MAX
from handfast.frames.gathering import Turn

MAGIC = b"handfast"
"""What both sides begin with, so that neither takes a stranger for the other."""

TICKET_BYTES = 32

GREETING_BYTES = len(MAGIC) + TICKET_BYTES

WAITING_BYTES_MAX = 256 * 1024
"""Past this nothing more is read until what has come is taken."""

KEPT_BYTES = 64
"""What a frame takes besides its own bytes, as long as it waits; so that a host of small ones counts for what it is."""

TURN_BYTES = 4 * 1024
"""After so much that was there already, whoever reads lets the loop turn: a peer that sends faster than it is read
would hold up everybody else for all that waits."""

_LENGTH = Struct(">I")

_END = _LENGTH.pack(0)

_PING_LENGTH = 2**32 - 1
_PING = _LENGTH.pack(_PING_LENGTH)


class FrameTooLarge(Exception):
    """The peer announced a frame larger than may be sent; said by ``read``, once what came before it is taken."""


class FrameConnection(asyncio.Protocol):
    """One connection, from either end.

    Args:
        on_greeting: given the first ``greeting_bytes`` bytes that come; returns whether frames may follow.
        greeting_bytes: how many bytes the peer's greeting has.
        frame_bytes_max: the largest frame that is taken.
        on_end: told that it has ended.
    """

    def __init__(
        self,
        on_greeting: Callable[[FrameConnection, bytes], bool],
        greeting_bytes: int,
        frame_bytes_max: int = MESSAGE_BYTES_MAX,
        on_end: Callable[[FrameConnection], None] | None = None,
    ) -> None:
        self._on_greeting: Callable[[FrameConnection, bytes], bool] | None = on_greeting
        self._greeting_bytes = greeting_bytes
        self._frame_bytes_max = frame_bytes_max
        self._on_end = on_end
        self._on_frame: Callable[[bytes], None] | None = None
        self._transport: asyncio.Transport | None = None
        self._part = bytearray()  # the beginning of what has not come whole
        self._frames: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._reading_paused = False
        self._too_large = 0
        self._reader: asyncio.Future[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._unbroken_bytes = 0
        self._no_more = False
        self._deaf = False
        self._aborted = False
        self._over: asyncio.Future[None] | None = None
        self.finished = False
        """Whether the peer has said that no more will come."""
        self.ended = False
        self.used = False
        """Whether any frame has come."""
        self._written = False
        self._loop = asyncio.get_running_loop()
        self._asks: asyncio.TimerHandle | None = None
        self._says: asyncio.TimerHandle | None = None
        self._heard_s = self._loop.time()
        self._asked = False
        self._pinged_s = -math.inf

    @property
    def failed(self) -> bool:
        """Whether it broke by itself before anything came back for what was written."""
        return self.ended and self._written and not (self.used or self.finished or self._aborted)

    # -- the loop's side -------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = cast("asyncio.Transport", transport)
        _watch_over(transport.get_extra_info("socket"))
        if self._aborted:
            self._transport.abort()

    def data_received(self, new: bytes) -> None:
        """See asyncio.Protocol."""
        if self._deaf:
            return
        self._heard_s, self._asked = self._loop.time(), False
        data: bytes | bytearray = new
        if self._part:
            self._part += new
            data = self._part
        if self._on_greeting is not None:
            if len(data) < self._greeting_bytes:
                self._part = bytearray(data)
                return
            greet, self._on_greeting = self._on_greeting, None
            greeting, data = bytes(data[: self._greeting_bytes]), data[self._greeting_bytes :]
            self._part = bytearray()
            if not greet(self, greeting):
                self.abort()
                return
        self._split(data)

    def _split(self, data: bytes | bytearray) -> None:
        position, end = 0, len(data)
        pinged = False
        while end - position >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(data, position)
            if length == _PING_LENGTH and self._may_ping():
                pinged = True
                position += _LENGTH.size
                continue
            if length > self._frame_bytes_max:
                self._too_large = length
                position = end
                self._deaf = True
                self.abort()
                break
            if length == 0:
                position = end
                self._deaf = self.finished = True
                self.end_reading()
                break
            stop = position + _LENGTH.size + length
            if stop > end:
                break
            self._frames.append(bytes(data[position + _LENGTH.size : stop]))
            self._waiting_bytes += length + KEPT_BYTES
            position = stop
        if data is self._part:
            del self._part[:position]
        elif position < end:
            self._part = bytearray(data[position:])
        if pinged and self._asks is None:
            self._say_alive()
        if self._frames:
            self.used = True
            if self._on_frame is not None:
                self.hand_over(self._on_frame)
                return
            self._wake_reader()
            if self._waiting_bytes > WAITING_BYTES_MAX and not self._reading_paused and self._transport is not None:
                self._reading_paused = True
                self._transport.pause_reading()
                self._says = self._loop.call_later(KEEPALIVE_TIME_MS / 2000, self._say_alive_in_pause)

    def eof_received(self) -> bool:
        """See asyncio.Protocol. A peer that writes no more is one that has gone."""
        return False

    def connection_lost(self, problem: Exception | None) -> None:
        """See asyncio.Protocol."""
        self.ended = True
        for timer in (self._asks, self._says):
            if timer is not None:
                timer.cancel()
        self.end_reading()
        self.resume_writing()
        if self._over is not None and not self._over.done():
            self._over.set_result(None)
        if self._on_end is not None:
            self._on_end(self)

    def pause_writing(self) -> None:
        """See asyncio.Protocol."""
        if self._writable is None:
            self._writable = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        """See asyncio.Protocol."""
        writable, self._writable = self._writable, None
        if writable is not None and not writable.done():
            writable.set_result(None)

    def _wake_reader(self) -> None:
        reader = self._reader
        if reader is not None and not reader.done():
            reader.set_result(None)

    # -- the stream's side -----------------------------------------------------------------------------------------

    async def read(self) -> bytes | None:
        """The next frame's bytes; None when there will be none. For one reader at a time.

        Raises:
            FrameTooLarge: the peer announced a larger one than may be sent.
        """
        if self._frames and self._unbroken_bytes > TURN_BYTES:
            self._unbroken_bytes = 0
            await Turn()
        while not self._frames:
            if (problem := self._too_large_frame()) is not None:
                raise problem
            if self._no_more:
                return None
            self._unbroken_bytes = 0
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        frame = self._frames.popleft()
        self._waiting_bytes -= len(frame) + KEPT_BYTES
        self._unbroken_bytes += len(frame) + KEPT_BYTES
        if self._reading_paused and not self._frames:
            self._resume_reading()
        return frame

    def _resume_reading(self) -> None:
        self._reading_paused = False
        if self._says is not None:
            self._says.cancel()
        if self._transport is not None and not self.ended:
            self._transport.resume_reading()

    def end_reading(self) -> None:
        """Let ``read`` say None once what has come is taken."""
        self._no_more = True
        self._wake_reader()

    async def end(self) -> FrameTooLarge | None:
        """Return when there will be no more frames; with why, when that is the peer's fault."""
        while not self._no_more:
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        return self._too_large_frame()

    def _too_large_frame(self) -> FrameTooLarge | None:
        if not self._too_large:
            return None
        return FrameTooLarge(f"a frame of {self._too_large} bytes, more than {self._frame_bytes_max}")

    def hand_over(self, on_frame: Callable[[bytes], None]) -> None:
        """Give each frame, as it comes, to a callback; instead of ``read``."""
        self._on_frame = on_frame
        while self._frames:
            on_frame(self._frames.popleft())
        self._waiting_bytes = 0
        if self._reading_paused:
            self._resume_reading()

    def write(self, frame: bytes) -> Awaitable[None] | None:
        """Send a frame; gives what to await before the next. On a connection that has ended it goes nowhere."""
        if self._transport is None or self.ended or self._transport.is_closing():
            return None
        self._written = True
        self._transport.write(_LENGTH.pack(len(frame)) + frame)
        return None if self._writable is None else asyncio.shield(self._writable)

    def greet(self, greeting: bytes) -> None:
        """Send what comes before the first frame."""
        if self._transport is not None:
            self._transport.write(greeting)

    def keep_asking(self) -> None:
        """Ask the other end, whenever nothing has come from it for a while, whether it is there, and end the connection
        when it does not answer; for the dialing side alone.

        The stream beside the connection can't show that: its pings travel another way, on which all may be well.
        """
        self._asks = self._loop.call_later(KEEPALIVE_TIME_MS / 1000, self._ask)

    def _may_ping(self) -> bool:
        """Whether to take it for a question. One comes after a long silence; whoever asks without end asks nothing, and
        would take time and memory that nobody charges for."""
        if self._asks is not None:
            return True  # an answer
        now_s = self._loop.time()
        often = now_s - self._pinged_s < KEEPALIVE_TIMEOUT_MS / 1000
        self._pinged_s = now_s
        return not often

    def _say_alive(self) -> None:
        # Somebody who does not read what was written before will not read this.
        if self._transport is not None and self._writable is None and not self.ended and not self._aborted:
            self._transport.write(_PING)

    def _say_alive_in_pause(self) -> None:
        if self._asks is None:
            self._say_alive()
        self._says = self._loop.call_later(KEEPALIVE_TIME_MS / 2000, self._say_alive_in_pause)

    def _ask(self) -> None:
        now_s = self._loop.time()
        if self._reading_paused:
            self._heard_s, self._asked = now_s, False  # what came waits to be taken, so that nothing can be heard
        due_s = self._heard_s + KEEPALIVE_TIME_MS / 1000
        if self._asked:
            self.abort()
            return
        if now_s >= due_s and self._transport is not None:
            self._asked = True
            self._transport.write(_PING)
            due_s = now_s + KEEPALIVE_TIMEOUT_MS / 1000
        self._asks = self._loop.call_at(due_s, self._ask)

    async def finish(self, within_s: float) -> None:
        """Say that no more will come, and return when the peer has taken all there was, and ended the connection.

        Args:
            within_s: when to end it here, in seconds.
        """
        if self._transport is None or self.ended:
            return
        self._deaf = True
        self._frames.clear()
        self.end_reading()
        if self._reading_paused:
            self._resume_reading()
        self._over = asyncio.get_running_loop().create_future()
        self._transport.write(_END)
        try:
            await asyncio.wait({self._over}, timeout=within_s)
        finally:
            self.abort()

    def close(self) -> None:
        """End it when what was written has gone out."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """End it at once, or as soon as it begins."""
        self._aborted = True
        # Not once it has ended: asyncio's transport raises then, when it was closed before all of it had gone out.
        if self._transport is not None and not self.ended:
            self._transport.abort()


def _watch_over(connected: Any) -> None:
    """Have the system find out when the other end has vanished, in the time that gRPC takes to.

    Normally the stream beside the connection shows that first. This is for a way on which only the frames get lost; no
    such thing lies between the ends of a Unix socket.
    """
    if connected.family not in (socket.AF_INET, socket.AF_INET6):
        return
    vanished_ms = KEEPALIVE_TIME_MS + KEEPALIVE_TIMEOUT_MS
    settings = {
        "TCP_KEEPIDLE": KEEPALIVE_TIME_MS // 1000,
        "TCP_KEEPINTVL": KEEPALIVE_TIMEOUT_MS // 1000,
        "TCP_KEEPCNT": 1,
        "TCP_USER_TIMEOUT": vanished_ms,
    }
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in settings.items():
        option = getattr(socket, name, None)  # not every system has all of them
        if option is not None:
            connected.setsockopt(socket.IPPROTO_TCP, option, value)
