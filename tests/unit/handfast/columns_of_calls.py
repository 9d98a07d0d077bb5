"""Columns of Executes, peers that take them, and what was told of their rows; for tests."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

from google.protobuf.message import Message

from handfast.frames import (
    COORDINATOR,
    CallFailed,
    CallStream,
    ColumnsReply,
    FramePort,
    Reply,
    together,
)
from handfast.frames.columns import ColumnKind
from handfast.frames.dialing import FrameDialer
from handfast.v1 import coordinator_pb2 as c
from handfast.v1 import types_pb2 as t
from tests.unit.handfast.peers import Peer, channel_to, served

HOST = "127.0.0.1"
WAIT_S = 20.0


def execute(number: int, **different: Any) -> c.ExecuteRequest:
    operations = [t.Operation(resource=one, name="write", payload=b"%d" % number) for one in ("accounts", "ledger")]
    return c.ExecuteRequest(**{"gtrid": f"t{number}", "operations": operations, **different})


def executes(count: int, **different: Any) -> c.ExecuteColumns:
    shape: dict[str, Any] = {
        "count": count,
        "resources": ["accounts", "ledger"],
        "names": ["write", "write"],
        "gtrids": [f"t{row}" for row in range(count)],
        "payloads": [b"%d" % row for row in range(count) for _ in range(2)],
    }
    return c.ExecuteColumns(**{**shape, **different})


def committed(request: Message, reply: Reply) -> None:
    """Answer an Execute with its gtrid and payloads, so that an answer shows which call it belongs to."""
    assert isinstance(request, c.ExecuteRequest)
    payloads = [operation.payload for operation in request.operations]
    reply(c.ExecuteResponse(gtrid=request.gtrid, outcome=t.OUTCOME_COMMITTED, results=payloads))


def expected(number: int) -> c.ExecuteResponse:
    return c.ExecuteResponse(gtrid=f"t{number}", outcome=t.OUTCOME_COMMITTED, results=[b"%d" % number] * 2)


def committed_columns(columns: Any, rows: Sequence[int]) -> c.CommittedColumns:
    return c.CommittedColumns(
        ids=[columns.first_id + row for row in rows],
        gtrids=[columns.gtrids[row] for row in rows],
        results=[columns.payloads[2 * row + place] for row in rows for place in range(2)],
        results_each=2,
    )


class Told:
    """What was told of rows, as ``ColumnReplies``."""

    def __init__(self, kind: ColumnKind = COORDINATOR.columns[0]) -> None:
        self.kind = kind
        self.rows: dict[int, list[Message | CallFailed]] = {}
        self.in_columns: list[list[int]] = []

    def columns(self, rows: Sequence[int], answer: Message, start: int) -> None:
        """Note the rows, each with its response."""
        self.in_columns.append(list(rows))
        for place, row in enumerate(rows, start):
            self.rows.setdefault(row, []).append(self.kind.response_of(answer, place))

    def single(self, row: int, reply: Message | CallFailed) -> None:
        """Note the row."""
        self.rows.setdefault(row, []).append(reply)

    @property
    def answers(self) -> dict[int, Message | CallFailed]:
        """What each row was told, which was only once."""
        for told in self.rows.values():
            assert len(told) == 1, told
        return {row: told for row, (told,) in self.rows.items()}

    @property
    def failures(self) -> dict[int, tuple[str, bool]]:
        """Of those that failed: how, and whether they may have been done."""
        answers = self.answers.items()
        return {row: (one.code, one.maybe_executed) for row, one in answers if isinstance(one, CallFailed)}


class Taking:
    """A service that takes columns whole, and answers when it is told to."""

    def __init__(self) -> None:
        self.taken: list[tuple[Any, int, int, ColumnsReply]] = []

    def __call__(self, columns: Message, start: int, stop: int, reply: ColumnsReply) -> bool:
        self.taken.append((columns, start, stop, reply))
        return True

    def answer(self, rows: Sequence[int]) -> None:
        """Answer rows of the first columns that came, in columns."""
        columns, _, _, reply = self.taken[0]
        reply.columns(committed_columns(columns, rows))


async def asked_together(calls: CallStream, requests: Sequence[Message]) -> list[Any]:
    """Make calls that wait for the same frame; the answers, in their order."""
    answers: list[asyncio.Future[Any]] = [asyncio.get_running_loop().create_future() for _ in requests]
    with together:
        for request, answer in zip(requests, answers, strict=True):
            calls.call(request, answer.set_result, timeout_s=WAIT_S)
    return await asyncio.gather(*answers)


def never(request: Message, reply: Reply) -> None:
    raise AssertionError(f"a {type(request).__name__} came by itself")


@contextlib.asynccontextmanager
async def calling(peer: Peer, *, beside: bool = True, **settings: Any) -> AsyncIterator[CallStream]:
    """Calls to it, over its frame port, on a stream that is open."""
    channel = channel_to(peer)
    dialer = FrameDialer(peer.address) if beside else None
    calls = CallStream(channel, COORDINATOR, peer="the coordinator", dialer=dialer, **settings)
    try:
        yield calls
    finally:
        await calls.close()
        await channel.close(None)


@contextlib.asynccontextmanager
async def open_to(peer: Peer, **settings: Any) -> AsyncIterator[CallStream]:
    """The same, on a stream that has been used."""
    async with calling(peer, **settings) as calls:
        await calls.ask(c.BeginRequest(), timeout_s=WAIT_S)
        peer.asked.clear()
        peer.frame_sizes.clear()
        yield calls


def beginning(dispatch: Any) -> Any:
    """A dispatch that also answers the Begin by which a stream is opened."""
    return lambda request, reply: (
        reply(c.BeginResponse()) if isinstance(request, c.BeginRequest) else dispatch(request, reply)
    )


@contextlib.asynccontextmanager
async def taken_by(taking: Any, dispatch: Any = never) -> AsyncIterator[tuple[Peer, CallStream]]:
    """A peer that takes columns, and calls to it."""
    async with served(beginning(dispatch), frame_port=FramePort(HOST), columns=taking) as peer, open_to(peer) as calls:
        assert calls.takes_columns
        yield peer, calls
