"""``python -m benchmarks.worker SPEC``: do what the spec says and print what came of it, as the last line, in JSON."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager

from benchmarks.loop import run
from benchmarks.worker import by_hand, grpc_calls, handfast_calls, hold, in_doubt, row_load
from benchmarks.worker.load import Call, measure
from benchmarks.worker.spec import Load, Spec

Opens = Callable[[Spec], AbstractAsyncContextManager[Call]]

CALLS: Mapping[str, Opens] = {
    "execute": handfast_calls.execute,
    "execute_frames": handfast_calls.execute_frames,
    "execute_unary": handfast_calls.execute_unary,
    "interactive": handfast_calls.interactive,
    "local": handfast_calls.local,
    "by_hand": by_hand.by_hand,
    "by_hand_at_once": by_hand.by_hand_at_once,
    "empty": grpc_calls.empty,
}
"""Kinds of calls, of which load is made."""

TASKS: Mapping[str, Callable[[Spec], Awaitable[Load]]] = {
    "leave_in_doubt": in_doubt.leave_in_doubt,
    "commit_prepared": in_doubt.commit_prepared,
    "hold_open": hold.hold_open,
    "execute_rows": row_load.execute_rows,
}
"""Kinds of work that see to their measurement themselves."""


async def work(spec: Spec) -> Load:
    """Do what the spec says.

    Raises:
        KeyError: there is no such kind.
    """
    if spec.kind in TASKS:
        return await TASKS[spec.kind](spec)
    async with CALLS[spec.kind](spec) as call:
        return await measure(call, spec)


if __name__ == "__main__":
    print(run(work(Spec.from_json(sys.argv[1]))).to_json())
