"""How every process here is run, for Handfast and for its baselines alike: on uvloop, and with a garbage collector that
looks seldom and briefly.

That is what the guide advises a service that wants to be fast (``docs/guide-service.md``).
``HANDFAST_BENCH_LOOP=asyncio`` takes the standard loop instead, and ``HANDFAST_BENCH_GC=default`` leaves the collector
as it is, to see what that costs.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine
from typing import Any, TypeVar

import uvloop

from handfast import collector

T = TypeVar("T")


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a program's main coroutine."""
    if os.environ.get("HANDFAST_BENCH_GC") != "default":
        collector.calm()
    factory = asyncio.new_event_loop if os.environ.get("HANDFAST_BENCH_LOOP") == "asyncio" else uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main)
