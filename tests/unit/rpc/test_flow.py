"""One stream held to what its caller may take: frames in slices, and none while too much is unanswered or owed."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from coordinator.rpc.flow import SLICE_CALLS, SLICE_CALLS_CONTESTED, Flow
from coordinator.rpc.shares import BROKEN_S, BYTE_S, Shares
from coordinator.runtime.clock import SystemClock
from handfast.catalog import HandfastFault
from handfast.v1 import coordinator_pb2 as c
from tests.clock import ManualClock


class Wire:
    """gRPC's ends of a stream: frames as they are asked for, and what was written.

    Args:
        sizes: how many calls each frame holds; it goes on for ever.
    """

    def __init__(self, *sizes: int, payload: bytes = b"") -> None:
        self.asked = 0
        self.size = 0
        self.open = asyncio.Event()
        self.open.set()
        self._sizes = sizes
        self._payload = payload

    async def __aiter__(self) -> AsyncIterator[c.CoordinatorConnectRequest]:
        """What comes."""
        while True:
            frame = c.CoordinatorConnectRequest()
            for number in range(self._sizes[self.asked % len(self._sizes)]):
                frame.calls.add(id=number).execute.operations.add(payload=self._payload)
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
        read += [len(piece.calls)]


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
