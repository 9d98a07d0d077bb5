"""Time. The only module of the coordinator that asks the machine for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Protocol


class Timer(Protocol):
    """Something that will happen, and can be called off."""

    def cancel(self) -> None:
        """Call it off; without effect when it has happened."""


class Clock(Protocol):
    """Where time comes from: the machine in production, a test's hand in tests."""

    def now_s(self) -> float:
        """Seconds since some fixed moment. Never goes back; goes on while the process or the machine sleeps."""

    def unix_ms(self) -> int:
        """Milliseconds since 1970, as the machine believes. May jump."""

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        """Call back once, on the loop's thread, after so many seconds."""

    async def sleep(self, delay_s: float) -> None:
        """Return after so many seconds."""


class SystemClock:
    """The machine's clocks and the running event loop's timers."""

    # CLOCK_MONOTONIC stands still while a laptop or a virtual machine is suspended, and a transaction that slept
    # through its deadline must notice.
    # A partial, and no method: every step of a transaction asks, and C answers C.
    now_s = staticmethod(partial(time.clock_gettime, getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)))

    def unix_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        return asyncio.get_running_loop().call_later(delay_s, callback)

    async def sleep(self, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
