"""Time and chance, as the client and the wire see them. The only module of this package that asks the machine."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Protocol


def monotonic_s() -> float:
    """Seconds since some fixed moment; never goes back, and goes on while the process is stopped."""
    return time.monotonic()


def unix_ms() -> int:
    """Milliseconds since 1970, as the machine believes."""
    return time.time_ns() // 1_000_000


def unix_us() -> int:
    """Microseconds since 1970, as the machine believes."""
    return time.time_ns() // 1_000


def secret(bytes_count: int) -> bytes:
    """So many bytes that nobody can guess."""
    return random.SystemRandom().randbytes(bytes_count)


class Clock(Protocol):
    """What waits and retries are made of; a test brings one that it moves by hand."""

    def monotonic_s(self) -> float:
        """Seconds since some fixed moment; never goes back."""

    async def sleep(self, delay_s: float) -> None:
        """Return after that many seconds."""

    def jitter(self) -> float:
        """Some number, 0 <= n < 1, by which clients that failed together don't retry together."""


class MachineClock:
    """The machine's own."""

    # No function of our own around it: each transaction asks several times.
    monotonic_s = staticmethod(time.monotonic)

    async def sleep(self, delay_s: float) -> None:
        """See Clock."""
        await asyncio.sleep(delay_s)

    def jitter(self) -> float:
        """See Clock."""
        return random.random()
