"""When a frame leaves: when the loop's turns have stopped adding to it.

Writing a frame and reading one cost each process the same however many messages are in it, so a busy sender should
write few. It needs no timer for that. What wakes the sender is a message put among those that wait; the next turns of
the loop may bring more, because the replies that bring them are on their way or waiting to be read. So it lets the
loop turn, which costs a few microseconds, until some turns in a row have brought nothing: as many as there are messages
under way, within reason. With nothing under way nothing can come, and the frame leaves with the next turn; or at once,
when all that comes of a frame that was read has been put among those that wait (``together``). So one transaction alone
waits for no one.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Generator, Sized

IDLE_TURNS_MAX = 4
"""More are not worth what they cost."""


class Turn:
    """Awaited, it lets everything else run once that is ready; what can be read from sockets is."""

    def __await__(self) -> Generator[None, None, None]:
        yield


class Together(threading.local):
    """``with together:`` what is sent inside leaves at its end, in one frame for each stream.

    For whoever takes a frame, or anything else that brings many messages at once. One for each thread, as loops are.
    """

    def __init__(self) -> None:
        self.depth = 0
        self.woken: list[Sender] = []
        self._later: list[Callable[[], None]] = []

    def __enter__(self) -> None:
        self.depth += 1

    def __exit__(self, *_: object) -> None:
        self.depth -= 1
        if not self.depth and self.woken:
            woken, self.woken = self.woken, []
            try:
                for sender in woken:
                    sender.begin()
            finally:
                self._call_later()
        elif not self.depth and self._later:
            self._call_later()

    def _call_later(self) -> None:
        later, self._later = self._later, []
        for call in later:
            call()

    def at_end(self, call: Callable[[], None]) -> None:
        """Call this when the block ends, after what was sent inside has left; at once where there is no block."""
        if self.depth:
            self._later.append(call)
        else:
            call()


together = Together()


class Sender:
    """Writes what waits, one frame after another.

    It is woken, and then looks once in each turn of the loop, by a callback and not by a task: a frame is written for
    every few messages, and a task would cost as much again as the turn.

    Args:
        waiting: the messages that wait.
        under_way: tells how many others have no answer yet, whose answers may bring more of them.
        write: writes as many of what waits as fill a frame; returns what to await before the next, if anything.
        messages_max: how many messages fill a frame.
        on_idle: told when everything is written; None tells nobody.
        on_failure: told why a frame could not be written. No other is written after that.
    """

    __slots__ = (
        "_granted",
        "_left",
        "_loop",
        "_messages_max",
        "_on_failure",
        "_seen",
        "_under_way",
        "_waiting",
        "_write",
        "_writing",
        "busy",
        "on_idle",
    )

    def __init__(
        self,
        waiting: Sized,
        under_way: Callable[[], int],
        write: Callable[[], Awaitable[None] | None],
        messages_max: int,
        *,
        on_idle: Callable[[], None] | None = None,
        on_failure: Callable[[BaseException], None],
    ) -> None:
        self._waiting = waiting
        self._under_way = under_way
        self._write = write
        self._messages_max = messages_max
        self.on_idle = on_idle
        self._on_failure = on_failure
        self._loop = asyncio.get_running_loop()
        self._granted = self._left = self._seen = 0
        self._writing: asyncio.Future[None] | None = None
        self.busy = False

    def wake(self) -> None:
        """Say that something waits. To be called when something does that did not before; more often does no harm."""
        if not self.busy:
            self.busy = True
            if together.depth:
                together.woken.append(self)
            else:
                self._loop.call_soon(self.begin)

    def stop(self) -> None:
        """Write nothing more, and give up what is being written."""
        self.busy = True  # so that nothing wakes it
        self._left = -1
        if self._writing is not None:
            self._writing.cancel()

    def begin(self) -> None:
        """Write what waits, at once or after some turns; for ``wake`` and ``together``."""
        if self._left < 0:
            return
        self._seen = len(self._waiting)
        self._granted = self._left = max(0, min(self._under_way(), IDLE_TURNS_MAX))
        if self._granted and self._seen < self._messages_max:
            self._loop.call_soon(self._turn)
        else:
            self._flush()

    def _turn(self) -> None:
        if self._left < 0:
            return
        count = len(self._waiting)
        self._left = self._left - 1 if count == self._seen else self._granted
        self._seen = count
        if self._left and 0 < count < self._messages_max:
            self._loop.call_soon(self._turn)
        else:
            self._flush()

    def _flush(self) -> None:
        try:
            while self._waiting:
                pending = self._write()
                if pending is not None:
                    self._writing = asyncio.ensure_future(pending)
                    self._writing.add_done_callback(self._written)
                    return
        except Exception as problem:  # noqa: BLE001  # handed on, to be told by whoever knows whose frame it was
            self.stop()
            self._on_failure(problem)
            return
        self.busy = False
        if self.on_idle is not None:
            self.on_idle()

    def _written(self, writing: asyncio.Future[None]) -> None:
        self._writing = None
        if writing.cancelled():
            return
        problem = writing.exception()
        if problem is not None:
            self.stop()
            self._on_failure(problem)
        elif self._left >= 0:
            self.begin()
