"""The event loop of every process here: uvloop, for Handfast and for its baselines alike.

``HANDFAST_BENCH_LOOP=asyncio`` takes the standard one instead, to see what that costs.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine
from typing import Any, TypeVar

import uvloop

T = TypeVar("T")


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a program's main coroutine."""
    factory = asyncio.new_event_loop if os.environ.get("HANDFAST_BENCH_LOOP") == "asyncio" else uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main)
