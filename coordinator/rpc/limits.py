"""What one caller may take of the coordinator, so that no caller can take it from the others.

Nothing here refuses what ends a transaction: a client that is over its rate must still be able to commit or roll back,
for until then it holds locks.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from google.protobuf.message import Message

from coordinator.rpc.flow import Flow
from coordinator.rpc.shares import (
    EARNED_BRANCH_S,
    EARNED_S,
    EARNING_BRANCHES_MAX,
    EXPIRY_S,
    REFUSED_S,
    UNARY_S,
    Account,
    Shares,
)
from coordinator.runtime.clock import Clock
from handfast.catalog import HandfastFault
from handfast.frames import ColumnsReply, Reply, TakeColumns
from handfast.v1 import coordinator_pb2 as c
from handfast.v1 import types_pb2 as t

Dispatch = Callable[[Message, Reply], None]

ENDING = (c.CommitRequest, c.RollbackRequest)
"""What is never refused for coming too often."""

AGE_OF_STREAM = 1.1
"""A stream ends after this many times the connection's age: after gRPC, which adds up to a tenth of chance to the age,
has told the client to connect anew, so that its next stream is on the new connection."""


@dataclass(frozen=True, slots=True)
class StreamLimits:
    """Limits on batched streams.

    Args:
        streams_per_peer_max: streams of one caller at once.
        messages_per_s_max: messages a second on one stream; as many may come at once after a pause.
        age_max_s: how old a connection gets; 0 means any age.
        calls_max: calls on one stream whose answers are not written; no more are read until some are.
        bytes_max: the bytes that such calls came in, likewise.
        share_max: the share of the coordinator's time that one caller gets while others want some.
    """

    streams_per_peer_max: int = 256
    messages_per_s_max: int = 200_000
    age_max_s: float = 0.0
    calls_max: int = 4_096
    bytes_max: int = 64 * 2**20
    share_max: float = 0.15


_TELLING = (c.CommitResponse, c.ExecuteResponse)
"""What tells a client that its transaction has committed."""


class Pace:
    """A token bucket.

    Args:
        rate: how many tokens come in a second; as many may be in it.
        clock: where time comes from.
    """

    __slots__ = ("_filled_s", "_now_s", "_rate", "_tokens")

    def __init__(self, rate: float, clock: Clock) -> None:
        self._rate = self._tokens = rate
        self._now_s = clock.now_s
        self._filled_s = clock.now_s()

    def take(self, count: int) -> bool:
        """Take so many tokens, or none when there are fewer."""
        if self._tokens < count:
            now_s = self._now_s()
            self._tokens = min(self._rate, self._tokens + (now_s - self._filled_s) * self._rate)
            self._filled_s = now_s
            if self._tokens < count:
                return False
        self._tokens -= count
        return True

    def give_back(self, count: int) -> None:
        """Put tokens back that were not needed."""
        self._tokens += count


class EarningRows:
    """The way to answer rows of Execute calls, by which those that commit pay for their messages.

    Args:
        reply: the way.
        columns: the calls.
        account: the caller's.
    """

    __slots__ = ("_account", "_earned_s", "_reply", "at_once")

    def __init__(self, reply: ColumnsReply, columns: Message, account: Account) -> None:
        self._reply = reply
        self._account = account
        self.at_once = True
        branches = len(columns.resources) if isinstance(columns, c.ExecuteColumns) else 0
        self._earned_s = EARNED_S + EARNED_BRANCH_S * min(branches, EARNING_BRANCHES_MAX)

    def columns(self, answer: Message) -> None:
        """See ColumnsReply. None of these rows was answered at once: each has been through both phases."""
        if isinstance(answer, c.CommittedColumns):
            self._account.earn_all(answer.gtrids, self._earned_s)
        self._reply.columns(answer)

    def single(self, call_id: int, answer: Message | HandfastFault) -> None:
        """See ColumnsReply."""
        if not self.at_once and isinstance(answer, c.ExecuteResponse) and answer.outcome == t.OUTCOME_COMMITTED:
            self._account.earn(answer.gtrid, self._earned_s)
        self._reply.single(call_id, answer)


class Streams:
    """The streams that are open, and how each is held to the limits.

    Args:
        limits: the limits.
        clock: where time comes from.
        stop: when set, every stream ends.
    """

    def __init__(self, limits: StreamLimits, clock: Clock, stop: asyncio.Event) -> None:
        self._limits = limits
        self._clock = clock
        self._stop = stop
        self._open: Counter[str] = Counter()
        self.shares = Shares(clock, limits.share_max)

    def flow(self, frames: Any, context: Any, caller: str) -> Any:
        """A stream's frames, and where its replies go, held to its caller's limits: a ``Flow``.

        Args:
            frames: as gRPC gives them.
            context: as gRPC gives it.
            caller: whose account is charged.
        """
        limits = self._limits
        return Flow(
            frames,
            context,
            self.shares.account(caller),
            self._clock,
            calls_max=limits.calls_max,
            bytes_max=limits.bytes_max,
        )

    async def admit(self, caller_of: Callable[[Any], str], context: Any) -> Callable[[], None]:
        """Return when a unary call, or a new stream, may be handled.

        Args:
            caller_of: tells whom to hold it against.
            context: the call's.

        Returns:
            What to call when it was refused.
        """
        account = self.shares.account(caller_of(context))
        account.charge(UNARY_S)
        await account.admitted()
        return partial(account.charge, REFUSED_S)

    @contextmanager
    def counted(self, caller: str) -> Iterator[None]:
        """Count a stream of this caller for as long as the block lasts.

        Raises:
            HandfastFault: STREAMS_TOO_MANY.
        """
        if self._open[caller] >= self._limits.streams_per_peer_max:
            raise HandfastFault("STREAMS_TOO_MANY", caller=caller, limit=self._limits.streams_per_peer_max)
        self._open[caller] += 1
        try:
            yield
        finally:
            self._open[caller] -= 1
            if not self._open[caller]:
                del self._open[caller]

    def earning(self, dispatch: Dispatch, caller: str, each_s: float = EARNED_S) -> Dispatch:
        """The dispatch, by which each transaction that commits pays for its messages.

        An answer that is there at once earns nothing: it is of a transaction that had ended, or had nothing in it.

        Args:
            dispatch: takes each call.
            caller: whose account it is.
            each_s: what a transaction earns, in seconds, without what its branches add.
        """
        account = self.shares.account(caller)

        def earning_dispatch(request: Message, reply: Reply) -> None:
            if isinstance(request, c.ExecuteRequest):
                branches = len(request.operations)
            elif isinstance(request, c.CommitRequest):
                branches = request.branches
            else:
                dispatch(request, reply)
                return
            at_once = True
            earned_s = each_s + EARNED_BRANCH_S * min(branches, EARNING_BRANCHES_MAX)

            def answer(message: Message | HandfastFault) -> None:
                if not at_once and isinstance(message, _TELLING) and message.outcome == t.OUTCOME_COMMITTED:
                    account.earn(message.gtrid, earned_s)
                reply(message)

            dispatch(request, answer)
            at_once = False

        return earning_dispatch

    def pace(self) -> Pace:
        """A stream's token bucket."""
        return Pace(float(self._limits.messages_per_s_max), self._clock)

    def paced(self, dispatch: Dispatch, caller: str, pace: Pace | None = None) -> Dispatch:
        """The dispatch, for one stream, with its token bucket.

        Args:
            dispatch: takes each call.
            caller: whose account is charged for what will come of a call.
            pace: the bucket, when others take from it too.
        """
        charge = self.shares.account(caller).charge
        dispatch = self.earning(dispatch, caller)
        pace = pace or self.pace()

        def paced_dispatch(request: Message, reply: Reply) -> None:
            if type(request) is c.BeginRequest:
                charge(EXPIRY_S)
            if not pace.take(1) and not isinstance(request, ENDING):
                raise HandfastFault("MESSAGES_TOO_MANY", limit=self._limits.messages_per_s_max)
            dispatch(request, reply)

        return paced_dispatch

    def paced_columns(self, take: TakeColumns, caller: str, pace: Pace) -> TakeColumns:
        """The same for columns. Where there are not tokens enough for all rows, they are handled as calls.

        Args:
            take: takes each column.
            caller: whose account is paid for transactions that commit.
            pace: the stream's token bucket.
        """
        account = self.shares.account(caller)

        def paced_take(columns: Message, start: int, stop: int, reply: ColumnsReply) -> bool:
            if not pace.take(stop - start):
                return False
            earning = EarningRows(reply, columns, account)
            if take(columns, start, stop, earning):
                earning.at_once = False
                return True
            pace.give_back(stop - start)
            return False

        return paced_take

    @asynccontextmanager
    async def ending(self) -> AsyncIterator[asyncio.Event]:
        """Give the event that ends one stream: at a stop, or at the stream's age."""
        if not self._limits.age_max_s:
            yield self._stop
            return
        end = asyncio.Event()
        stopped = asyncio.create_task(self._stop.wait())
        stopped.add_done_callback(lambda _: end.set())
        timer = self._clock.call_later(AGE_OF_STREAM * self._limits.age_max_s, end.set)
        try:
            yield end
        finally:
            timer.cancel()
            stopped.cancel()
