"""Ctrl-C and SIGTERM as an orderly end.

Ctrl-C already unwinds a program: as KeyboardInterrupt, or under asyncio by cancelling the main task. SIGTERM and SIGHUP
(the terminal was closed) would end it on the spot, with everything it started left behind. While a stack is open they
unwind it too. While a stack is closing, all three wait: a second, impatient Ctrl-C must not stop the cleaning half-way,
and the cleaning is bounded in time.
"""

import asyncio
import signal
import threading
from collections.abc import Callable
from signal import Signals
from types import FrameType
from typing import Any

_ENDING = (signal.SIGTERM, signal.SIGHUP)
_DEFERRED = (signal.SIGINT, *_ENDING)

_Handler = Callable[[int, FrameType | None], Any] | int | None


class StopSignals:
    """The handlers of one open stack. Does nothing outside the main thread, where Python has no handlers."""

    def __init__(self) -> None:
        self.received: Signals | None = None
        self._deferred: Signals | None = None
        self._task: asyncio.Task[Any] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._before: dict[Signals, _Handler] = {}

    def install(self, task: asyncio.Task[Any] | None = None) -> None:
        """From now on SIGTERM and SIGHUP unwind the program. A handler that somebody else has set is left alone.

        Args:
            task: what to cancel, under asyncio; without, SystemExit is raised.
        """
        self._task, self._loop = task, task.get_loop() if task else None
        self._replace([number for number in _ENDING if signal.getsignal(number) is signal.SIG_DFL], self._unwind)

    def defer(self) -> None:
        """From now on stop signals wait. One that is ignored stays ignored."""
        handled = [number for number in _DEFERRED if signal.getsignal(number) not in (signal.SIG_IGN, None)]
        self._replace(handled, self._remember)

    def restore(self) -> None:
        """Put back the handlers found at first, and deliver a signal that waited."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()
        if self._deferred is not None:
            signal.raise_signal(self._deferred)

    def _replace(self, numbers: list[Signals], handler: Callable[[int, FrameType | None], None]) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        for number in numbers:
            self._before.setdefault(number, signal.getsignal(number))
            signal.signal(number, handler)

    def _unwind(self, number: int, frame: FrameType | None) -> None:
        self.received = Signals(number)
        if self._task is None or self._loop is None:
            raise SystemExit(exit_code(self.received))
        self._task.cancel()
        self._loop.call_soon_threadsafe(lambda: None)  # wakes a loop that waits for I/O

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self._deferred = Signals(number)


def exit_code(number: Signals) -> int:
    """The exit code by which shells tell of a signal: 128 and its number."""
    return 128 + number
