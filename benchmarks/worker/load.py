"""Load on anything that is called: closed loop, and open loop.

*Closed*: so many callers, each of which makes its next call when its last one is answered. It shows the throughput, and
hides what a stall costs, for nobody calls while it lasts.

*Open*: calls begin at a fixed rate, whatever has become of the earlier ones, and each is timed from the moment at which
it should have begun. A stall then counts in every call that it delays (Tene: "coordinated omission").
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Mapping

from benchmarks.pairs import percentile
from benchmarks.worker.cpu import cpu_seconds
from benchmarks.worker.spec import Load, Spec

Call = Callable[[int], Awaitable[object]]
"""Makes one call, given its number. An exception ends the measurement: calls that fail are no throughput."""


async def measure(call: Call, spec: Spec) -> Load:
    """Warm up, then measure.

    Args:
        call: what to call.
        spec: how.
    """
    numbers = itertools.count()
    await closed_loop(call, numbers, spec.in_flight, spec.warm_up_s, 0)
    before, began_s = cpu_seconds(spec.watch), time.perf_counter()
    if spec.rate:
        times_s = await open_loop(call, numbers, spec.rate, spec.seconds)
    else:
        times_s = await closed_loop(call, numbers, spec.in_flight, spec.seconds, spec.count)
    took_s, after = time.perf_counter() - began_s, cpu_seconds(spec.watch)
    return load_of(times_s, took_s, before, after)


def load_of(times_s: list[float], took_s: float, before: Mapping[str, float], after: Mapping[str, float]) -> Load:
    """Sum up the times of all calls."""
    return Load(
        done=len(times_s),
        seconds=took_s,
        p50_ms=1000 * percentile(times_s, 50),
        p99_ms=1000 * percentile(times_s, 99),
        max_ms=1000 * max(times_s),
        cpu_us={name: 1e6 * (after[name] - before[name]) / len(times_s) for name in after},
    )


async def closed_loop(
    call: Call, numbers: itertools.count[int], in_flight: int, seconds: float, count: int
) -> list[float]:
    """Keep so many calls in flight.

    Args:
        call: what to call.
        numbers: numbers the calls.
        in_flight: how many callers.
        seconds: after how long no call begins any more.
        count: after how many calls, likewise; 0 for no such limit.

    Returns:
        How long each call took, in seconds.
    """
    clock = time.perf_counter
    end_s = clock() + seconds
    times_s: list[float] = []
    left = iter(range(count)) if count else itertools.repeat(0)

    async def caller() -> None:
        began_s = clock()
        while began_s < end_s and next(left, None) is not None:
            await call(next(numbers))
            now_s = clock()
            times_s.append(now_s - began_s)
            began_s = now_s

    async with asyncio.TaskGroup() as callers:
        for _ in range(in_flight):
            callers.create_task(caller())
    return times_s


async def open_loop(call: Call, numbers: itertools.count[int], rate: float, seconds: float) -> list[float]:
    """Begin so many calls a second.

    Args:
        call: what to call.
        numbers: numbers the calls.
        rate: calls a second.
        seconds: for how long.

    Returns:
        How long after its intended start each call was answered, in seconds.
    """
    clock = time.perf_counter
    began_s = clock()
    times_s: list[float] = []

    async def one(due_s: float) -> None:
        await call(next(numbers))
        times_s.append(clock() - due_s)

    async with asyncio.TaskGroup() as calls:
        for number in range(max(1, int(rate * seconds))):
            due_s = began_s + number / rate
            if (early_s := due_s - clock()) > 0:
                await asyncio.sleep(early_s)
            calls.create_task(one(due_s))
    return times_s
