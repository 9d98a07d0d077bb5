"""Deadlines and retries, in few timers.

A timer per transaction would cost more than the transaction. Due times are rounded up to ticks; the keys that share a
tick share a bucket; a heap orders the ticks, and one timer of the clock waits for the first. Adding and cancelling are
constant time, and what is cancelled leaves no trace (hashed timing wheels: Varghese & Lauck, 1987).

Ticks only decide when a key is *looked at*. Whether a deadline has passed is decided by comparing exact times.
"""

from __future__ import annotations

import heapq
import logging
import math
from collections.abc import Callable, Hashable, Iterator
from typing import Generic, TypeVar

from coordinator.runtime.clock import Clock, Timer

logger = logging.getLogger(__name__)

K = TypeVar("K", bound=Hashable)


class Schedule(Generic[K]):
    """Keys with due times; ``on_due`` is called with each key when its time has come.

    Args:
        clock: where time comes from.
        on_due: called on the loop's thread, never before the due time and at most a tick (and the loop's lag) after.
        tick_s: the rounding, in seconds.
    """

    def __init__(self, clock: Clock, on_due: Callable[[K], None], tick_s: float = 0.01) -> None:
        self._clock = clock
        self._on_due = on_due
        self._tick_s = tick_s
        self._buckets: dict[int, dict[K, None]] = {}
        self._bucket_of: dict[K, dict[K, None]] = {}
        self._ticks: list[int] = []
        self._timer: Timer | None = None
        self._timer_tick = 0

    def __len__(self) -> int:
        return len(self._bucket_of)

    def __contains__(self, key: K) -> bool:
        return key in self._bucket_of

    def __iter__(self) -> Iterator[K]:
        return iter(list(self._bucket_of))

    def add(self, key: K, due_s: float) -> None:
        """Schedule a key; a key that is scheduled already moves.

        Args:
            key: what becomes due.
            due_s: when, by the clock's ``now_s``. Infinity means never.
        """
        if key in self._bucket_of:
            self.cancel(key)
        if due_s == math.inf:
            return
        tick = math.ceil(due_s / self._tick_s)
        bucket = self._buckets.get(tick)
        if bucket is None:
            bucket = self._buckets[tick] = {}
            heapq.heappush(self._ticks, tick)
        bucket[key] = None
        self._bucket_of[key] = bucket
        if self._timer is None or tick < self._timer_tick:
            self._wait_for_first()

    def cancel(self, key: K) -> None:
        """Call a key off; without effect when it is not scheduled."""
        bucket = self._bucket_of.pop(key, None)
        if bucket is not None:
            del bucket[key]

    def close(self) -> None:
        """Call everything off."""
        self._bucket_of.clear()
        for bucket in self._buckets.values():
            bucket.clear()
        self._buckets.clear()
        self._ticks.clear()
        self._stop_timer()

    def _wait_for_first(self) -> None:
        self._stop_timer()
        while self._ticks and not self._buckets[self._ticks[0]]:
            del self._buckets[heapq.heappop(self._ticks)]
        if not self._ticks:
            return
        self._timer_tick = self._ticks[0]
        delay_s = max(0.0, self._timer_tick * self._tick_s - self._clock.now_s())
        self._timer = self._clock.call_later(delay_s, self._fire)

    def _fire(self) -> None:
        self._timer = None
        now_s = self._clock.now_s()
        # Compared as it was waited for: a division here could round to the tick before, and wait for it again.
        while self._ticks and self._ticks[0] * self._tick_s <= now_s:
            tick = heapq.heappop(self._ticks)
            self._empty(self._buckets[tick])
            self._buckets.pop(tick, None)
        self._wait_for_first()

    def _empty(self, bucket: dict[K, None]) -> None:
        """Call back with each key of the bucket that is still in it when its turn comes."""
        while bucket:
            key = next(iter(bucket))
            del bucket[key]
            del self._bucket_of[key]
            try:
                self._on_due(key)
            except Exception:
                # The others in the bucket are due as well, and nothing would wake them again.
                logger.exception("what was due for %s failed", key)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
