"""One stream held to what its caller may take: frames in slices, and none while too much is unanswered or owed."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from google.protobuf.message import Message

from coordinator.rpc.flow import SLICE_CALLS, SLICE_CALLS_CONTESTED, Flow
from coordinator.rpc.shares import BROKEN_S, BYTE_S, CALL_S, FRAME_S, Shares
from coordinator.runtime.clock import SystemClock
from handfast.catalog import HandfastFault
from handfast.frames import COORDINATOR, Reply, serve_frames
from handfast.v1 import coordinator_pb2 as c
from handfast.v1 import types_pb2 as t
from tests.clock import ManualClock


def columns(count: int, **different: Any) -> c.ExecuteColumns:
    shape: dict[str, Any] = {"count": count, "resources": ["a"], "names": ["b"], "payloads": [b""] * count}
    return c.ExecuteColumns(**{**shape, **different})


class Wire:
    """gRPC's ends of a stream: frames as they are asked for, and what was written.

    Args:
        sizes: how many calls each frame holds; it goes on for ever.
        rows: how many rows each frame's columns have, besides.
    """

    def __init__(self, *sizes: int, payload: bytes = b"", rows: Sequence[int] = ()) -> None:
        self.asked = 0
        self.size = 0
        self.open = asyncio.Event()
        self.open.set()
        self._sizes = sizes
        self._payload = payload
        self._rows = rows

    async def __aiter__(self) -> AsyncIterator[c.CoordinatorConnectRequest]:
        """What comes."""
        while True:
            frame = c.CoordinatorConnectRequest()
            for number in range(self._sizes[self.asked % len(self._sizes)]):
                frame.calls.add(id=number).execute.operations.add(payload=self._payload)
            for place, count in enumerate(self._rows):
                frame.executes.append(columns(count, first_id=1_000_000 * (place + 1)))
            self.asked += 1
            self.size = frame.ByteSize()
            yield frame

    async def write(self, frame: Any) -> None:
        """What goes, as fast as the other side reads."""
        await self.open.wait()


def flow(wire: Wire, shares: Shares | None = None, *, calls_max: int = 1_000, bytes_max: int = 2**20) -> Flow:
    clock = SystemClock()
    account = (shares or Shares(clock, 0.2)).account("greedy")
    return Flow(wire, wire, account, clock, calls_max=calls_max, bytes_max=bytes_max)


def replies(count: int) -> c.CoordinatorConnectResponse:
    return c.CoordinatorConnectResponse(replies=[c.CoordinatorReply(id=number) for number in range(count)])


async def written(flowing: Flow, count: int) -> None:
    """Write so many replies, and return when the next may be written."""
    pending = flowing.write(replies(count))
    if pending is not None:
        await pending


async def read_all(flowing: Flow, read: list[int]) -> None:
    async for piece in flowing.calls():
        read += [len(piece.calls) + sum(len(rows) for rows in piece.columns)]


async def turns(count: int = 50) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_stream_whose_answers_are_not_taken_is_read_no_further() -> None:
    wire = Wire(100)
    wire.open.clear()
    flowing, read = flow(wire, calls_max=1_000), list[int]()
    reader = asyncio.create_task(read_all(flowing, read))
    writer = asyncio.create_task(written(flowing, 100))
    await turns(200)
    assert sum(read) == 1_000
    assert wire.asked == 10

    wire.open.set()  # it reads again
    await writer
    await turns()
    assert sum(read) == 1_100
    reader.cancel()


async def test_a_stream_with_too_many_bytes_unanswered_is_read_no_further() -> None:
    wire = Wire(1, payload=bytes(300_000))
    flowing, read = flow(wire, bytes_max=2**20), list[int]()
    reader = asyncio.create_task(read_all(flowing, read))
    await turns(200)
    assert len(read) == 4
    await written(flowing, 1)
    await turns()
    assert len(read) == 5
    reader.cancel()


async def test_answers_that_go_at_once_make_room_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    wire = Wire(100)
    monkeypatch.setattr(wire, "write", lambda frame: None)  # as a frame connection does that takes all it is given
    flowing, read = flow(wire, calls_max=1_000), list[int]()
    reader = asyncio.create_task(read_all(flowing, read))
    await turns(200)
    assert sum(read) == 1_000
    assert flowing.write(replies(100)) is None
    assert flowing.waiting == 900
    await turns()
    assert sum(read) == 1_100
    reader.cancel()


async def test_one_call_may_be_larger_than_all_that_may_wait() -> None:
    wire = Wire(1, payload=bytes(3 * 2**20))
    flowing, read = flow(wire, bytes_max=2**20), list[int]()
    reader = asyncio.create_task(read_all(flowing, read))
    await turns()
    assert read == [1]
    for done in (2, 3):
        await written(flowing, 1)
        await turns()
        assert len(read) == done
    reader.cancel()


async def test_a_large_frame_comes_in_slices_and_others_get_their_turn_between_them() -> None:
    wire = Wire(4 * SLICE_CALLS)
    flowing, read, others = flow(wire, calls_max=1), list[int](), list[int]()

    async def other() -> None:
        while True:
            others.append(len(read))
            await asyncio.sleep(0)

    tasks = [asyncio.create_task(read_all(flowing, read)), asyncio.create_task(other())]
    await turns()
    assert read == [SLICE_CALLS] * 4
    assert {1, 2, 3} <= set(others)
    for task in tasks:
        task.cancel()


async def test_a_caller_over_its_share_is_read_in_small_slices_and_waits_between_them() -> None:
    clock = ManualClock()
    shares = Shares(clock, 0.2)
    wire = Wire(SLICE_CALLS)
    account = shares.account("greedy")
    flowing, read = Flow(wire, wire, account, clock, calls_max=10_000, bytes_max=2**20), list[int]()
    shares.account("modest").charge(1.0)
    account.charge(0.1)
    reader = asyncio.create_task(read_all(flowing, read))
    await turns()
    assert read == [SLICE_CALLS_CONTESTED]
    for count in (2, 3):
        clock.advance(account.wait_s() + 1e-6)
        await turns()
        clock.advance(0.0)  # the turn that it gives away after each slice is a sleep of no time
        await turns()
        assert read == [SLICE_CALLS_CONTESTED] * count
        account.charge(0.1)
    reader.cancel()


# -- columns -------------------------------------------------------------------------------------------------------


async def test_rows_count_as_the_calls_that_they_are_until_they_are_answered() -> None:
    wire = Wire(10, rows=(50, 40))
    flowing, read = flow(wire, calls_max=1_000), list[int]()
    reader = asyncio.create_task(read_all(flowing, read))
    await turns(200)
    assert (sum(read), wire.asked) == (1_000, 10)
    committed = c.CommittedColumns(ids=range(100))
    pending = flowing.write(c.CoordinatorConnectResponse(committed=[committed]))
    assert pending is not None
    await pending
    await turns()
    assert sum(read) == 1_100
    reader.cancel()


@pytest.mark.parametrize("wire", [Wire(10), Wire(0, rows=(6, 4)), Wire(3, rows=(7,))], ids=["calls", "rows", "both"])
async def test_rows_are_paid_for_as_calls_are_on_the_way_in_and_back(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "write", lambda frame: None)
    clock = ManualClock()
    account = Shares(clock, 0.2).account("greedy")
    flowing, read = Flow(wire, wire, account, clock, calls_max=1, bytes_max=2**20), list[int]()
    reader = asyncio.create_task(read_all(flowing, read))
    await turns()
    reader.cancel()
    came = FRAME_S + 10 * CALL_S + wire.size * BYTE_S
    assert account.used.at(clock.now_s()) == pytest.approx(came)

    committed = [c.CommittedColumns(ids=range(4)), c.CommittedColumns(ids=range(3))]
    assert flowing.write(c.CoordinatorConnectResponse(replies=replies(3).replies, committed=committed)) is None
    assert account.used.at(clock.now_s()) == pytest.approx(came + FRAME_S + 10 * CALL_S)
    assert flowing.waiting == 0


@pytest.mark.parametrize("contested", [False, True])
async def test_columns_are_cut_by_rows_behind_the_calls_of_their_frame(contested: bool) -> None:
    clock = ManualClock()
    shares = Shares(clock, 0.2)
    account = shares.account("greedy")
    if contested:
        shares.account("modest").charge(1.0)
        account.charge(0.04)
    wire = Wire(SLICE_CALLS + 10, rows=(100, 300))
    flowing = Flow(wire, wire, account, clock, calls_max=1, bytes_max=2**20)
    calls, rows, sizes = list[int](), list[int](), list[int]()

    async def read() -> None:
        async for piece in flowing.calls():
            assert not (rows and piece.calls)
            calls.extend(call.id for call in piece.calls)
            rows.extend(call_id for part in piece.columns for call_id in part.ids)
            sizes.append(len(piece.calls) + sum(map(len, piece.columns)))

    reader = asyncio.create_task(read())
    for _ in range(200):
        clock.advance(1e-3)
        await turns(5)
    reader.cancel()
    assert calls == list(range(SLICE_CALLS + 10))
    assert rows == [*range(1_000_000, 1_000_100), *range(2_000_000, 2_000_300)]
    size = SLICE_CALLS_CONTESTED if contested else SLICE_CALLS
    assert (sizes[0], max(sizes)) == (size, SLICE_CALLS) if not contested else sizes[0] == size


async def test_each_row_of_a_frame_in_slices_is_served_once(monkeypatch: pytest.MonkeyPatch) -> None:
    class OneFrame(Wire):
        async def __aiter__(self) -> AsyncIterator[c.CoordinatorConnectRequest]:
            async for frame in super().__aiter__():
                yield frame
                return

    answered: list[int] = []

    def write(frame: c.CoordinatorConnectResponse) -> None:
        answered.extend(reply.id for reply in frame.replies)
        answered.extend(call_id for answer in frame.committed for call_id in answer.ids)

    def commit(request: Message, reply: Reply) -> None:
        reply(c.ExecuteResponse(outcome=t.OUTCOME_COMMITTED))

    wire = OneFrame(10, rows=(100, 300, 50))
    monkeypatch.setattr(wire, "write", write)
    flowing: Any = flow(wire)
    await serve_frames(COORDINATOR, flowing.calls(), flowing, commit)
    rows = [*range(1_000_000, 1_000_100), *range(2_000_000, 2_000_300), *range(3_000_000, 3_000_050)]
    assert sorted(answered) == [*range(10), *rows]
    assert flowing.waiting == 0


async def test_columns_that_are_none_are_paid_for_as_what_is_no_frame() -> None:
    class Hostile:
        size = 1_000

        async def __aiter__(self) -> AsyncIterator[c.CoordinatorConnectRequest]:
            yield c.CoordinatorConnectRequest(
                executes=[c.ExecuteColumns(count=2**32 - 1, resources=["a"], names=["b"])]
            )

    clock = ManualClock()
    account = Shares(clock, 0.2).account("greedy")
    hostile: Any = Hostile()
    flowing = Flow(hostile, hostile, account, clock, calls_max=10, bytes_max=10)
    with pytest.raises(HandfastFault, match="4294967295 rows of 1 operations and 0 payloads") as refused:
        await read_all(flowing, [])
    assert refused.value.code == "MESSAGE_MALFORMED"
    assert account.used.at(clock.now_s()) == BROKEN_S + Hostile.size * BYTE_S
    assert flowing.waiting == 0


# -- what is no frame ----------------------------------------------------------------------------------------------


class Broken:
    """A stream whose first frame is none, of so many bytes."""

    size = 16 * 2**20

    def __aiter__(self) -> "Broken":
        return self

    async def __anext__(self) -> Any:
        raise HandfastFault("MESSAGE_MALFORMED", kind="frame", problem="it is none")


async def test_what_is_no_frame_is_paid_for_by_its_bytes_and_more() -> None:
    clock = ManualClock()
    account = Shares(clock, 0.2).account("greedy")
    broken: Any = Broken()
    with pytest.raises(HandfastFault):
        await read_all(Flow(broken, broken, account, clock, calls_max=10, bytes_max=10), [])
    assert account.used.at(clock.now_s()) == BROKEN_S + Broken.size * BYTE_S
