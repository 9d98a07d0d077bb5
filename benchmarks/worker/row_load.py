"""One-shot transactions sent as columns: the leanest load on a coordinator that there is.

As many are kept in flight as the spec says. Whatever has been answered is sent again at once, as rows of one request:
so a client does that has much to do. Each row is timed from the moment at which it was sent.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import grpc.aio

from benchmarks.work import OPERATION
from benchmarks.worker.cpu import cpu_seconds
from benchmarks.worker.handfast_calls import TIMEOUT_S, NotCommitted
from benchmarks.worker.load import load_of
from benchmarks.worker.spec import Load, Spec
from handfast.frames import COORDINATOR, CallFailed, CallStream, channel_options
from handfast.frames.dialing import FrameDialer
from handfast.v1 import coordinator_pb2 as c
from handfast.v1 import types_pb2 as t

CONNECTED_WITHIN_S = 10.0


async def execute_rows(spec: Spec) -> Load:
    """Make the load, and measure it.

    Raises:
        NotCommitted: a transaction ended otherwise, or there is no frame port.
    """
    async with grpc.aio.insecure_channel(spec.coordinator, options=channel_options()) as channel:
        stream = CallStream(channel, COORDINATOR, dialer=FrameDialer(spec.coordinator))
        await stream.ask(c.BeginRequest(block_size=1), timeout_s=CONNECTED_WITHIN_S)  # so that it is connected
        if not stream.takes_columns:
            raise NotCommitted("the coordinator has no frame port")
        flood = _Flood(stream, spec)
        try:
            return await flood.measured(spec)
        finally:
            await stream.close()


class _Flood:
    """Keeps rows in flight.

    Args:
        stream: the way to the coordinator.
        spec: what each of them is.
    """

    def __init__(self, stream: CallStream, spec: Spec) -> None:
        self._stream = stream
        self._resources = spec.resources
        self._answered = 0  # and not sent again yet
        self._in_flight = 0
        self._ending = False
        self.times_s: list[float] = []
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def measured(self, spec: Spec) -> Load:
        self._send(spec.in_flight)
        await self._while_it_lasts(spec.warm_up_s)
        self.times_s.clear()
        before, began_s = cpu_seconds(spec.watch), time.perf_counter()
        await self._while_it_lasts(spec.seconds)
        times_s, self.times_s = self.times_s, []
        took_s, after = time.perf_counter() - began_s, cpu_seconds(spec.watch)
        self._ending = True
        await self._over
        return load_of(times_s, took_s, before, after)

    async def _while_it_lasts(self, seconds: float) -> None:
        done, _ = await asyncio.wait({self._over}, timeout=seconds)
        if done:
            self._over.result()

    def _send(self, count: int) -> None:
        width = len(self._resources)
        columns = c.ExecuteColumns(count=count, timeout_ms=int(1000 * TIMEOUT_S))
        columns.resources.extend(self._resources)
        columns.names.extend([OPERATION] * width)
        columns.payloads.extend([b"1"] * (count * width))
        self._in_flight += count
        self._stream.call_columns(columns, count, _Sent(self), timeout_s=TIMEOUT_S)

    def take(self, count: int, began_s: float) -> None:
        """So many have committed that were sent then."""
        self.times_s.extend([time.perf_counter() - began_s] * count)
        self._in_flight -= count
        if self._ending:
            if not self._in_flight and not self._over.done():
                self._over.set_result(None)
            return
        if not self._answered:
            # Whatever else the same frame brings goes with it.
            asyncio.get_running_loop().call_soon(self._send_again)
        self._answered += count

    def _send_again(self) -> None:
        count, self._answered = self._answered, 0
        self._send(count)

    def fail(self, reply: object) -> None:
        """One did not commit."""
        if not self._over.done():
            self._over.set_exception(NotCommitted(str(reply)))


class _Sent:
    """Rows that were sent together."""

    def __init__(self, flood: _Flood) -> None:
        self._flood = flood
        self._began_s = time.perf_counter()

    def columns(self, rows: Sequence[int], answer: Any, start: int) -> None:
        self._flood.take(len(rows), self._began_s)

    def single(self, row: int, reply: Any | CallFailed) -> None:
        if isinstance(reply, c.ExecuteResponse) and reply.outcome == t.OUTCOME_COMMITTED:
            self._flood.take(1, self._began_s)
        else:
            self._flood.fail(reply)
