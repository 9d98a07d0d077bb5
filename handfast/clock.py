"""Time, as the client and the wire see it. The only module of this package that asks the machine for it."""

from __future__ import annotations

import time


def monotonic_s() -> float:
    """Seconds since some fixed moment; never goes back, and goes on while the process is stopped."""
    return time.monotonic()


def unix_ms() -> int:
    """Milliseconds since 1970, as the machine believes."""
    return time.time_ns() // 1_000_000
