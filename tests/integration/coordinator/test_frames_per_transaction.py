"""How many frames and log writes a transaction takes: exactly, one by one and in a batch."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from coordinator.log.memory import MemoryLog
from handfast.frames import COORDINATOR, PARTICIPANT, serve_frames
from handfast.v1 import coordinator_pb2 as c
from handfast.v1 import participant_pb2_grpc
from handfast.v1 import types_pb2 as t
from tests.integration.coordinator.edge import Edge, operation, serving
from tests.integration.coordinator.participants import Scripted
from tests.waiting import eventually

BATCH = 64


class Counted(Scripted):
    """A participant that counts the frames which come and go."""

    def __init__(self, resource: str) -> None:
        super().__init__(resource)
        self.frames_in = self.frames_out = 0

    def servicer(self) -> participant_pb2_grpc.ParticipantServicer:
        servicer = super().servicer()

        async def connect(frames: AsyncIterator[Any], context: Any) -> None:
            writing: Any = _Context(self, context)
            await serve_frames(PARTICIPANT, self._counted(frames), writing, self.dispatch)

        servicer.Connect = connect  # type: ignore[assignment,method-assign]  # the stub knows only the generator form
        return servicer

    async def _counted(self, frames: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for frame in frames:
            self.frames_in += 1
            yield frame

    def taken(self) -> tuple[int, int]:
        """Frames in and out since the last time."""
        found = self.frames_in, self.frames_out
        self.frames_in = self.frames_out = 0
        return found


class _Context:
    """The part of a handler's context that frames use."""

    def __init__(self, counted: Counted, context: Any) -> None:
        self._counted = counted
        self._context = context

    async def write(self, message: Any) -> None:
        self._counted.frames_out += 1
        await self._context.write(message)


@pytest.fixture
async def edge() -> AsyncIterator[tuple[Edge, list[Counted]]]:
    participants = [Counted("accounts"), Counted("ledger")]
    async with serving(*participants) as edge:
        await send(edge, [1])  # so that every connection is made
        for one in participants:
            one.taken()
        yield edge, participants


async def send(edge: Edge, ids: Sequence[int]) -> int:
    """Execute so many transactions out of one frame. Returns in how many frames the answers came."""
    operations = [operation("accounts"), operation("ledger")]
    calls = [c.CoordinatorCall(id=id, execute=c.ExecuteRequest(operations=operations)) for id in ids]
    connect: Any = edge.channel.stream_stream(
        COORDINATOR.connect_path,
        request_serializer=c.CoordinatorConnectRequest.SerializeToString,
        response_deserializer=c.CoordinatorConnectResponse.FromString,
    )
    stream = connect()
    await stream.write(c.CoordinatorConnectRequest(calls=calls))
    frames, answered = 0, 0
    while answered < len(ids):
        replies = (await stream.read()).replies
        assert {reply.execute.outcome for reply in replies} == {t.OUTCOME_COMMITTED}
        frames, answered = frames + 1, answered + len(replies)
    stream.cancel()
    return frames


async def test_one_transaction_takes_two_frames_to_each_participant_and_two_back(
    edge: tuple[Edge, list[Counted]],
) -> None:
    served, participants = edge
    assert await send(served, [1]) == 1
    assert [one.taken() for one in participants] == [(2, 2), (2, 2)]


async def test_many_transactions_that_come_together_take_as_few_frames_as_one(
    edge: tuple[Edge, list[Counted]],
) -> None:
    served, participants = edge
    assert await send(served, range(1, BATCH + 1)) == 1
    assert [one.taken() for one in participants] == [(2, 2), (2, 2)]


async def test_a_transaction_writes_its_decision_and_its_end_and_nothing_else(
    edge: tuple[Edge, list[Counted]],
) -> None:
    served, _ = edge
    log = served.log
    assert isinstance(log, MemoryLog)
    await eventually(lambda: log.counters()["ends"] == 1)  # the fixture's own transaction
    before = log.counters()
    await send(served, range(1, BATCH + 1))
    await eventually(lambda: log.counters()["ends"] == BATCH + 1)
    grown = {name: count - before[name] for name, count in log.counters().items() if name != "forces"}
    assert grown == {"decisions": BATCH, "ends": BATCH, "records": 2 * BATCH}
