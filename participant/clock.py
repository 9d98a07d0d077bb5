"""Time and chance. The only module of this package that asks the machine for either; everything else takes a Clock."""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections.abc import Callable
from typing import Protocol

from handfast.xid import ID_ALPHABET

_INSTANCE_LENGTH = 8


class Timer(Protocol):
    """A callback that is due later."""

    def cancel(self) -> None:
        """Don't call it any more."""


class Clock(Protocol):
    """Where time and chance come from."""

    def monotonic_s(self) -> float:
        """Seconds since some fixed moment; never goes back."""

    def unix_ms(self) -> int:
        """Milliseconds since 1970, as the machine believes."""

    async def sleep(self, delay_s: float) -> None:
        """Wait for so many seconds."""

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        """Call back in so many seconds, on the loop's thread."""

    def jittered(self, delay_s: float) -> float:
        """A delay between half and all of this one, so that many who wait do not come back at once."""

    def instance_name(self) -> str:
        """A new name for an instance; no two are the same."""


class SystemClock:
    """The machine's."""

    monotonic_s = staticmethod(time.monotonic)

    def unix_ms(self) -> int:
        return time.time_ns() // 1_000_000

    async def sleep(self, delay_s: float) -> None:
        await asyncio.sleep(delay_s)

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        return asyncio.get_running_loop().call_later(max(0.0, delay_s), callback)

    def jittered(self, delay_s: float) -> float:
        return delay_s * random.uniform(0.5, 1.0)

    def instance_name(self) -> str:
        return "".join(secrets.choice(ID_ALPHABET) for _ in range(_INSTANCE_LENGTH))
