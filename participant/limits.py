"""Limits in time that hardly anything ever reaches, watched by one timer.

A branch's deadline, the time that a statement may take: nearly all of them are over long before they are due. A timer
of the event loop for each costs more than what it watches over. So there is one timer, set for the earliest; when it
goes off, it looks through those that still run, and most that were there when it was set have long been ended.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from participant.clock import Clock, Timer

_APART_S = 0.001
"""How far apart two looks are at least, in seconds."""


class Limit:
    """One limit that runs.

    Args:
        due_s: when it is reached, by the monotonic clock.
        on_reached: called then, once.
    """

    __slots__ = ("due_s", "on_reached")

    def __init__(self, due_s: float, on_reached: Callable[[], None]) -> None:
        self.due_s = due_s
        self.on_reached = on_reached


class Limits:
    """All limits of one participant.

    Args:
        clock: where time comes from.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._running: dict[Limit, None] = {}  # in the order in which they began
        self._timer: Timer | None = None
        self._look_s = math.inf

    def start(self, limit_s: float, on_reached: Callable[[], None]) -> Limit:
        """Begin a limit.

        Args:
            limit_s: when it is reached, in seconds from now.
            on_reached: called then, on the loop's thread, unless it is ended before.
        """
        return self.start_until(self._clock.monotonic_s() + limit_s, on_reached)

    def start_until(self, due_s: float, on_reached: Callable[[], None]) -> Limit:
        """The same, for a limit that is reached at a moment by the monotonic clock."""
        limit = Limit(due_s, on_reached)
        self._running[limit] = None
        if due_s < self._look_s:
            self._look_at(due_s, self._clock.monotonic_s())
        return limit

    def end(self, limit: Limit) -> None:
        """End it; nothing happens when it was reached, or ended before."""
        self._running.pop(limit, None)

    def _look_at(self, due_s: float, now_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._look_s = due_s
        self._timer = self._clock.call_later(max(due_s - now_s, _APART_S), self._look)

    def _look(self) -> None:
        self._timer, self._look_s = None, math.inf
        now_s = self._clock.monotonic_s()
        for limit in [limit for limit in self._running if limit.due_s <= now_s]:
            if limit in self._running:  # the one before may have ended it
                del self._running[limit]
                limit.on_reached()
        due_s = min((limit.due_s for limit in self._running), default=math.inf)
        if due_s < self._look_s:
            self._look_at(due_s, now_s)
