"""Frames of any bytes at all, down every side of both batched streams, without gRPC in between.

What holds for each: every call gets one answer, under its own id; an error is one of the catalog's; nothing is logged
as an error; and whoever got the frame serves the next.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from functools import partial
from typing import Any

import grpc
from google.protobuf.message import Message

from coordinator.rpc.coordinator_service import Dispatch
from coordinator.rpc.flow import Flow
from coordinator.rpc.shares import Shares
from handfast.catalog import ENTRIES, HandfastFault
from handfast.frames import COORDINATOR, PARTICIPANT, CallFailed, CallStream, FramedService, serve_frames
from handfast.frames.reading import Unreadable, reader
from handfast.v1 import coordinator_pb2 as c
from handfast.v1 import participant_pb2 as p
from participant.clock import SystemClock
from participant.config import ParticipantOptions
from participant.driver import Driver
from participant.operations import Operations
from participant.server import Host, ParticipantServicer
from participant.testing import Changes, MemoryResource
from tests.fuzz.loudness import quiet
from tests.unit.runtime.scripted import A, Life, start

GIVE_UP_S = 60.0
NEVER = "INTERNAL"
"""A code that a stranger must not be able to bring about."""


class Context:
    """gRPC's context, as far as frames are concerned."""

    def __init__(self) -> None:
        self.written: list[Any] = []

    async def write(self, frame: Any) -> None:
        self.written.append(frame)


# -- the serving sides ---------------------------------------------------------------------------------------------


async def check_coordinator_frame(data: bytes) -> None:
    """A frame to a coordinator whose participants never answer; its time passes as fast as it has to."""
    life = await start()
    context = Context()
    account = Shares(life.clock, 0.2).account("fuzz")

    async def serve(frames: AsyncIterator[Any]) -> None:
        flow: Any = Flow(_Sized(frames, len(data)), context, account, life.clock, calls_max=100, bytes_max=2**20)
        dispatch = Dispatch(life.requests, life.rows)
        await serve_frames(COORDINATOR, flow.calls(), flow, dispatch, columns=dispatch.columns)

    with quiet():
        await _check_served(COORDINATOR, data, context, serve, lambda: _pass_time(life))
        assert life.requests.begin(0, "after").gtrid
    life.driver.close()


class _Sized:
    """Frames, each of which came in so many bytes."""

    def __init__(self, frames: AsyncIterator[Any], size: int) -> None:
        self.size = size
        self._frames = frames

    def __aiter__(self) -> AsyncIterator[Any]:
        return self._frames


async def _pass_time(life: Life) -> None:
    await asyncio.sleep(0)
    if life.clock.waiting:
        life.clock.jump()


async def check_participant_frame(data: bytes) -> None:
    """A frame to a participant over a resource in memory."""
    servicer, driver = _participant()
    context: Any = Context()

    async def serve(frames: AsyncIterator[Any]) -> None:
        await serve_frames(PARTICIPANT, frames, context, servicer.dispatch)

    # A Commit of what was never prepared is a heuristic outcome, and has to be told to a person.
    with quiet(rightly="heuristic"):
        await _check_served(PARTICIPANT, data, context, serve, lambda: asyncio.sleep(0))
        frame = p.ParticipantConnectRequest(
            calls=[p.ParticipantCall(id=1, recover=p.RecoverRequest(resource="accounts"))]
        )
        context.written.clear()
        await _check_served(PARTICIPANT, frame.SerializeToString(), context, serve, lambda: asyncio.sleep(0))
        assert context.written[0].replies[0].WhichOneof("response") == "recover"
    await driver.close()


def _participant() -> tuple[ParticipantServicer, Driver[Changes]]:
    async def enlist(gtrid: str, deadline_s: float) -> None:
        pass

    async def write(changes: Changes, payload: bytes) -> bytes:
        changes["written"] = payload
        return payload

    operations = Operations[Changes]()
    operations.add("write", write)
    clock = SystemClock()
    driver = Driver(A, MemoryResource(), operations, ParticipantOptions(close_wait_s=0.01), clock, enlist)
    servicer = ParticipantServicer()
    recovery: Any = _NothingFound()
    servicer.attach(Host("accounts", driver, recovery, clock))
    return servicer, driver


class _NothingFound:
    def findings(self) -> list[Any]:
        return []


async def _check_served(
    service: FramedService,
    data: bytes,
    context: Context,
    serve: Callable[[AsyncIterator[Any]], Awaitable[None]],
    pass_time: Callable[[], Awaitable[None]],
) -> None:
    frame: Any = reader(type(service.call_frame()))(data)
    if isinstance(frame, Unreadable):
        assert frame.fault().code == "MESSAGE_MALFORMED"
        return

    async def frames() -> AsyncIterator[Any]:
        yield frame

    async with asyncio.timeout(GIVE_UP_S):
        serving = asyncio.ensure_future(serve(frames()))
        while not serving.done():
            await pass_time()
    ended = serving.exception()
    if ended is not None:
        assert isinstance(ended, HandfastFault), ended
        repeated = len(set(ids := _ids(service, frame))) < len(ids) if _problem(service, frame) is None else False
        assert ended.code == ("CALL_ID_REPEATED" if repeated else _problem(service, frame))
        return
    assert _problem(service, frame) is None
    replies = [reply for written in context.written for reply in written.replies]
    answered = Counter(reply.id for reply in replies)
    for kind in service.columns:
        for answer in [answer for written in context.written for answer in getattr(written, kind.answer_field)]:
            assert kind.answer_problem(answer) == ""
            answered.update(answer.ids)
    assert answered == Counter(_ids(service, frame))
    for reply in replies:
        field = reply.WhichOneof("response")
        assert field is not None
        if field == "error":
            assert reply.error.code in ENTRIES
            assert reply.error.code != NEVER, reply.error.message
            assert len(reply.error.message) < 4_096


def _problem(service: FramedService, frame: Any) -> str | None:
    """The code by which the columns of a frame end its stream; None when they don't."""
    try:
        service.rows_in(frame)
    except HandfastFault as fault:
        return fault.code
    return None


def _ids(service: FramedService, frame: Any) -> list[int]:
    return [call.id for call in frame.calls] + [call_id for rows in service.rows_in(frame) for call_id in rows.ids]


# -- the calling sides ---------------------------------------------------------------------------------------------


class _Stream:
    """A peer that answers the first frame of calls with whatever bytes, and ends."""

    def __init__(self, parse: Callable[[bytes], Any], data: bytes) -> None:
        self._parse = parse
        self._data = data
        self._asked = asyncio.Event()

    async def write(self, frame: Message) -> None:
        self._asked.set()

    def cancel(self) -> None:
        self._asked.set()

    async def __aiter__(self) -> AsyncIterator[Any]:
        await self._asked.wait()
        yield self._parse(self._data)


class _Channel:
    def __init__(self, data: bytes) -> None:
        self._data = data

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        return grpc.ChannelConnectivity.READY

    def stream_stream(self, path: str, *, request_serializer: Any, response_deserializer: Any) -> Any:
        return lambda iterator, metadata=None: _Stream(response_deserializer, self._data)


COORDINATOR_ASKS = [
    c.BeginRequest(),
    c.CommitRequest(gtrid="x"),
    c.InquireRequest(gtrid="x"),
    c.ExecuteRequest(),
    c.RegisterRequest(),
]
PARTICIPANT_ASKS = [
    p.PrepareRequest(),
    p.ParticipantCommitRequest(),
    p.ParticipantRollbackRequest(),
    p.RecoverRequest(),
]


async def check_coordinator_replies(data: bytes) -> None:
    """A frame of replies to an application."""
    await _check_replies(COORDINATOR, COORDINATOR_ASKS, data)


async def check_participant_replies(data: bytes) -> None:
    """A frame of replies to the coordinator."""
    await _check_replies(PARTICIPANT, PARTICIPANT_ASKS, data)


async def _check_replies(service: FramedService, asks: list[Any], data: bytes) -> None:
    told: dict[int, list[Message | CallFailed]] = {number: [] for number in range(len(asks))}
    everybody = asyncio.Event()

    def tell(number: int, answer: Message | CallFailed) -> None:
        told[number].append(answer)
        if all(told.values()):
            everybody.set()

    channel: Any = _Channel(data)
    with quiet():
        stream = CallStream(channel, service)
        for number, request in enumerate(asks):
            stream.call(request, partial(tell, number), timeout_s=GIVE_UP_S)
        async with asyncio.timeout(GIVE_UP_S):
            await everybody.wait()
        await stream.close()
    for number, request in enumerate(asks):
        (answer,) = told[number]
        assert isinstance(answer, CallFailed | service.method(request).response)


CHECKS: dict[int, Callable[[bytes], Coroutine[Any, Any, None]]] = {
    0: check_coordinator_frame,
    1: check_participant_frame,
    2: check_coordinator_replies,
    3: check_participant_replies,
}


def check(data: bytes) -> None:
    """Bytes from a fuzzer: the first chooses the side, the others are the frame."""
    side = data[0] % len(CHECKS) if data else 0
    asyncio.run(CHECKS[side](data[1:]))
