"""A clock that stands still until a test moves it."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

START_UNIX_MS = 1_700_000_000_000


@dataclass(slots=True)
class ManualTimer:
    """A timer of a ``ManualClock``."""

    due_s: float
    callback: Callable[[], None] | None

    def cancel(self) -> None:
        """Call it off."""
        self.callback = None


class ManualClock:
    """Time in a test's hand: it jumps from timer to timer, so that an hour passes in no time and in the right order.

    Args:
        start_s: the first moment.
    """

    def __init__(self, start_s: float = 1000.0) -> None:
        self._now_s = start_s
        self._start_s = start_s
        self._timers: list[tuple[float, int, ManualTimer]] = []
        self._numbers = count()

    def now_s(self) -> float:
        """See Clock."""
        return self._now_s

    def unix_ms(self) -> int:
        """See Clock."""
        return START_UNIX_MS + round((self._now_s - self._start_s) * 1000)

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> ManualTimer:
        """See Clock."""
        timer = ManualTimer(self._now_s + delay_s, callback)
        heapq.heappush(self._timers, (timer.due_s, next(self._numbers), timer))
        return timer

    async def sleep(self, delay_s: float) -> None:
        """See Clock."""
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.call_later(delay_s, lambda: None if over.done() else over.set_result(None))
        await over

    # -- what a test does --------------------------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """How many timers are set."""
        return sum(timer.callback is not None for _, _, timer in self._timers)

    def advance(self, seconds: float) -> None:
        """Let so much time pass, and every timer fire at its moment."""
        until_s = self._now_s + seconds
        while (due_s := self._next_due_s()) is not None and due_s <= until_s:
            self.jump()
        self._now_s = max(self._now_s, until_s)

    def jump(self) -> float:
        """Go to the next timer and let it fire.

        Returns:
            How many seconds passed.

        Raises:
            AssertionError: nothing waits for any time to come.
        """
        due_s = self._next_due_s()
        assert due_s is not None, "no timer is set"
        _, _, timer = heapq.heappop(self._timers)
        passed_s = max(0.0, due_s - self._now_s)
        self._now_s = max(self._now_s, due_s)
        callback, timer.callback = timer.callback, None
        assert callback is not None
        callback()
        return passed_s

    def pause(self, seconds: float) -> None:
        """Let time pass without any timer firing: the process is stopped, or the machine asleep."""
        self._now_s += seconds

    def _next_due_s(self) -> float | None:
        while self._timers and self._timers[0][2].callback is None:
            heapq.heappop(self._timers)
        return self._timers[0][0] if self._timers else None
