"""``python -m benchmarks.garbage.good ADDRESS TLS SECONDS``: transactions over two participants, 64 in flight.

The last line is JSON: how many a second, and how long they took.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from pathlib import Path

from benchmarks.garbage.lab import RESOURCES, tls_of
from benchmarks.loop import run
from benchmarks.pairs import percentile
from benchmarks.worker.load import closed_loop
from handfast.frames import COORDINATOR, CallFailed, CallStream
from handfast.tls import frame_dialer, open_channel
from handfast.v1 import coordinator_pb2 as c
from handfast.v1 import types_pb2 as t

IN_FLIGHT = 64
WARM_UP_S = 1.0
READY_S_MAX = 30.0
REQUEST = c.ExecuteRequest(
    operations=[t.Operation(resource=resource, name="change", payload=b"1") for resource in RESOURCES],
    timeout_ms=60_000,
)


async def main(address: str, tls: str, seconds: str) -> None:
    """Measure."""
    mine = tls_of(Path(tls), "client-good")
    channel = open_channel(address, mine)
    stream = CallStream(channel, COORDINATOR, dialer=frame_dialer(address, mine))

    async def call(number: int) -> None:
        answer = await stream.ask(REQUEST)
        if not isinstance(answer, c.ExecuteResponse) or answer.outcome != t.OUTCOME_COMMITTED:
            raise RuntimeError(f"a good transaction was not committed: {answer}")

    await _first(call)
    numbers = itertools.count()
    await closed_loop(call, numbers, IN_FLIGHT, WARM_UP_S, 0)
    print("good is ready", flush=True)
    began_s = time.perf_counter()
    times_s = await closed_loop(call, numbers, IN_FLIGHT, float(seconds), 0)
    per_second = len(times_s) / (time.perf_counter() - began_s)
    told = {"per_second": per_second, "done": len(times_s)}
    told |= {"p50_ms": 1e3 * percentile(times_s, 50), "p99_ms": 1e3 * percentile(times_s, 99)}
    await stream.close()
    await channel.close()
    print(json.dumps(told))


async def _first(call: object) -> None:
    """Until the coordinator has found its participants nothing commits."""
    give_up_s = time.perf_counter() + READY_S_MAX
    while True:
        try:
            await call(0)  # type: ignore[operator]  # the call above
        except (RuntimeError, CallFailed):
            if time.perf_counter() > give_up_s:
                raise
            await asyncio.sleep(0.1)
        else:
            return


if __name__ == "__main__":
    run(main(*sys.argv[1:]))
