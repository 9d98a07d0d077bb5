"""Calls on the simulated network: a ``CallStream`` that needs no gRPC (call, ask, columns, the three ways to fail)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any, cast

import grpc
from google.protobuf.message import Message

from handfast.frames import PARTICIPANT, CallFailed, CallStream, ColumnReplies, OnReply
from handfast.frames.failure import lost, timed_out, unreachable
from tests.simulation.network import CONNECT_TIMEOUT_S, FAILED, LATENCY_S_MAX, READY, Call, Channel
from tests.simulation.together import shape_of

GATHERING_S = 0.001
"""How long a call that can travel in columns waits for others."""


class SimulatedStream(CallStream):
    """A CallStream over a simulated channel.

    Args:
        channel: the way to the peer.
        on_disconnect: as CallStream's.
    """

    def __init__(self, channel: Channel, on_disconnect: Callable[[], None] | None = None) -> None:
        # Not CallStream's: that one wants gRPC's channel.
        self._way = channel
        channel.on_disconnect = on_disconnect
        self._shut = False
        self._gathering: list[Call] = []

    @property
    def connected(self) -> bool:
        return self._way.state is READY

    @property
    def batched(self) -> bool | None:
        return True

    @property
    def takes_columns(self) -> bool:
        return self.connected and self._way.network.world.scenario.settings.columns

    def call(self, request: Any, on_reply: OnReply, *, timeout_s: float | None = None) -> None:
        self._wait_for(request, on_reply, timeout_s)

    def call_columns(self, columns: Any, count: int, replies: ColumnReplies, *, timeout_s: float) -> None:
        kind = PARTICIPANT.kind_of(columns)
        if problem := kind.problem(columns) or ("" if kind.count(columns) == count else f"its rows are not {count}"):
            raise ValueError(problem)
        calls = []
        for row in range(count):
            call = self._new_call(kind.request_of(columns, row), partial(replies.single, row), timeout_s)
            call.rows, call.row = replies, row
            calls.append(call)
        self._way.loop.call_soon(self._try_together, calls, self._way.loop.time() + CONNECT_TIMEOUT_S)

    async def ask(self, request: Any, *, timeout_s: float | None = None) -> Message:
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        call = self._wait_for(request, lambda reply: None if answer.done() else answer.set_result(reply), timeout_s)
        try:
            reply = await answer
        finally:
            call.settle(None)
        if isinstance(reply, CallFailed):
            raise reply
        return cast("Message", reply)

    async def close(self) -> None:
        self._shut = True
        for call in list(self._way.calls.values()):
            call.settle(lost(self._way.address, "this side closed it", written=call.written))

    def _wait_for(self, request: Any, on_reply: OnReply, timeout_s: float | None) -> Call:
        loop, call = self._way.loop, self._new_call(request, on_reply, timeout_s)
        if self.takes_columns and shape_of(request) is not None:
            self._gathering.append(call)
            if len(self._gathering) == 1:
                loop.call_later(GATHERING_S, self._leave_gathered)
        else:
            loop.call_soon(self._try_together, [call], loop.time() + CONNECT_TIMEOUT_S)
        return call

    def _new_call(self, request: Any, on_reply: OnReply, timeout_s: float | None) -> Call:
        loop, channel = self._way.loop, self._way
        call = Call(channel, request, on_reply, timeout_s)
        call.driven = channel.network.world.observe.is_driven(loop.name, request)
        channel.calls[id(call)] = call
        if timeout_s is not None:
            call.timer = loop.call_later(timeout_s, self._time_out, call)
        return call

    def _leave_gathered(self) -> None:
        """Calls of one shape leave together, as ``CallStream`` gathers those that wait for a frame."""
        gathered, self._gathering = self._gathering, []
        by_shape: dict[Hashable, list[Call]] = {}
        for call in gathered:
            by_shape.setdefault(shape_of(call.request), []).append(call)
        until_s = self._way.loop.time() + CONNECT_TIMEOUT_S
        for calls in by_shape.values():
            self._try_together(calls, until_s)

    def _time_out(self, call: Call) -> None:
        call.settle(timed_out(self._way.address, call.timeout_s or 0.0, written=call.written))

    def _try_together(self, calls: list[Call], until_s: float) -> None:
        """Write calls when the channel is READY, as ``CallStream._reach`` has it."""
        channel = self._way
        calls = [call for call in calls if not call.settled]
        if not calls:
            return
        state = channel.get_state(try_to_connect=True)
        if self._shut or state is grpc.ChannelConnectivity.SHUTDOWN:
            self._settle(calls, unreachable(channel.address, "its channel is closed"))
        elif state is READY:
            self._write(calls)
        elif state is FAILED or channel.loop.time() >= until_s:
            self._settle(calls, unreachable(channel.address, "nobody answers there"))
        else:
            channel.loop.call_later(LATENCY_S_MAX, self._try_together, calls, until_s)

    def _write(self, calls: list[Call]) -> None:
        if len(calls) > 1 and self.takes_columns:
            self._way.network.together.carry(calls)
            return
        for call in calls:
            self._way.network.carry(call)

    def _settle(self, calls: list[Call], failure: CallFailed) -> None:
        for call in calls:
            call.settle(failure)
