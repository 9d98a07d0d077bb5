"""Empty frames: what keeps a gRPC server from taking offence at the pings of a stream that carries nothing else."""

import asyncio
import contextlib
import importlib
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import grpc.aio
import pytest
import uvloop
from google.protobuf.message import Message

from handfast.catalog import HandfastFault
from handfast.frames import COORDINATOR, LOST, CallFailed, CallStream, FramePort, carried, ways
from handfast.frames.connection import MAGIC, FrameConnection
from handfast.frames.dialing import HEADER, FrameDialer
from handfast.frames.reading import Readable, reader
from handfast.v1 import coordinator_pb2 as c
from handfast.v1 import types_pb2 as t
from tests.fuzz.loudness import quiet
from tests.unit.handfast import peers
from tests.unit.handfast.peers import Peer, channel_to, served
from tests.waiting import eventually

SERVING = importlib.import_module("handfast.frames.carried")
LOOPS = pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
HOST = "127.0.0.1"
WAIT_S = 20.0
ONE_STRIKE = (("grpc.http2.max_ping_strikes", 1),)
"""A server as gRPC makes it without options, but for that two strikes are enough and not three."""

FRAME = c.CoordinatorConnectRequest(calls=[c.CoordinatorCall(id=1)]).SerializeToString()

Answer = Callable[[Message], None]


def committed(request: Message, reply: Answer) -> None:
    """Answer each Commit."""
    assert isinstance(request, c.CommitRequest)
    reply(c.CommitResponse(gtrid=request.gtrid, outcome=t.OUTCOME_COMMITTED))


def run(loop: Callable[[], asyncio.AbstractEventLoop], scenario: Any) -> None:
    """Run it; nothing may be said. That a stream was cut off at a kill is gRPC's own remark."""
    with quiet(rightly="CancelledError()"), asyncio.Runner(loop_factory=loop) as runner:
        runner.run(scenario)


class Calling:
    """Calls to a peer, and how many empty frames came over their streams."""

    def __init__(self, peer: Peer, channel: grpc.aio.Channel) -> None:
        service = replace(COORDINATOR, parse_reply_frame=self._parse)
        self.calls = CallStream(channel, service, dialer=FrameDialer(peer.address))
        self.empty_frames = 0

    def _parse(self, data: bytes) -> Message | None:
        self.empty_frames += not data
        return COORDINATOR.parse_reply_frame(data)

    async def commit(self, gtrid: str = "t") -> str:
        """Make a call."""
        answer: Any = await self.calls.ask(c.CommitRequest(gtrid=gtrid), timeout_s=WAIT_S)
        return str(answer.gtrid)

    async def more_come(self, count: int = 3) -> None:
        """Wait for some more empty frames."""
        until = self.empty_frames + count
        await eventually(lambda: self.empty_frames >= until, within_s=WAIT_S)


@contextlib.asynccontextmanager
async def calling(peer: Peer, **others: int) -> AsyncIterator[Calling]:
    """Calls to it."""
    channel = channel_to(peer, **others)
    one = Calling(peer, channel)
    try:
        yield one
    finally:
        await one.calls.close()
        await channel.close(None)


# -- over real streams ---------------------------------------------------------------------------------------------


async def test_a_server_without_our_options_takes_no_offence_at_the_keepalive(monkeypatch: pytest.MonkeyPatch) -> None:
    keepalive_ms, offence_s = 400, 3.4  # gRPC pings no more than once a second
    every_s = keepalive_ms / 2000
    monkeypatch.setattr(SERVING, "EMPTY_FRAMES_S", every_s)
    async with (
        served(committed, frame_port=FramePort(HOST), options=ONE_STRIKE) as peer,
        calling(peer, keepalive_time_ms=keepalive_ms) as one,
    ):
        await one.commit()
        await one.more_come(int(1.3 * offence_s / every_s))
        assert await one.commit("later") == "later"
        assert peer.streams == 1
        assert one.calls.takes_columns


@LOOPS
def test_calls_and_a_graceful_end_go_as_without(loop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SERVING, "EMPTY_FRAMES_S", 0.001)
    owed: list[Answer] = []

    def hold(_: Message, reply: Answer) -> None:
        owed.append(reply)

    async def scenario() -> None:
        async with served(hold, frame_port=FramePort(HOST)) as peer, calling(peer) as one:
            asked = asyncio.ensure_future(one.commit("first"))
            await eventually(lambda: len(owed) == 1)
            await one.more_come()
            peer.stop_streams.set()
            await asyncio.sleep(0)
            unread = asyncio.ensure_future(one.commit("second"))
            await one.more_come()
            owed[0](c.CommitResponse(gtrid="first"))
            assert await asked == "first", "the last answer arrives"
            peer.stop_streams.clear()
            await eventually(lambda: len(owed) == 2, within_s=WAIT_S)
            owed[1](c.CommitResponse(gtrid="second"))
            assert await unread == "second", "what was left unread is made again, for the end was a good one"
            assert [request.gtrid for request in peer.asked if isinstance(request, c.CommitRequest)] == [
                "first",
                "second",
            ]

    run(loop, scenario())


@LOOPS
def test_a_frame_that_holds_something_beside_the_connection_ends_the_stream(
    loop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be lost, or taken out of its order."""

    def answer_to_nobody() -> Message:
        return c.CoordinatorConnectResponse(replies=[c.CoordinatorReply(id=99)])

    monkeypatch.setattr(SERVING, "EMPTY_FRAMES_S", 0.05)
    monkeypatch.setattr(ways, "END_S", 0.01)
    monkeypatch.setattr(peers, "COORDINATOR", replace(COORDINATOR, reply_frame=answer_to_nobody))

    async def scenario() -> None:
        async with served(lambda _, __: None, frame_port=FramePort(HOST)) as peer, calling(peer) as one:
            with pytest.raises(CallFailed) as failed:
                await one.commit()
            assert failed.value.code == LOST

    run(loop, scenario())


# -- when they are written -----------------------------------------------------------------------------------------


class Context:
    """A stream's context whose writes take until they are let through."""

    def __init__(self) -> None:
        self.offer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.let_through = asyncio.Event()
        self.written: list[Message] = []
        self.writing = 0
        self.problem: Exception | None = None

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        """As from a caller that asks for a frame port."""
        return ((HEADER, f"{HOST}:1"),)

    def auth_context(self) -> dict[str, Any]:
        """Plain text."""
        return {}

    def peer(self) -> str:
        """From another machine."""
        return "ipv4:192.0.2.1:40000"

    async def send_initial_metadata(self, metadata: Any) -> None:
        """Note the offer."""
        self.offer.set_result(dict(metadata)[HEADER])

    async def write(self, frame: Message) -> None:
        """Note what is written, once it is."""
        self.writing += 1
        assert self.writing == 1, "gRPC takes one frame at a time"
        try:
            await self.let_through.wait()
            if self.problem is not None:
                raise self.problem
            self.written.append(frame)
        finally:
            self.writing -= 1


class Stream:
    """The serving side of a stream by itself; the test is its handler, and has the caller's end of the connection."""

    def __init__(
        self,
        context: Context,
        over_grpc: asyncio.Queue[bytes],
        first: asyncio.Future[Any],
        replies: Any,
        caller: FrameConnection,
    ) -> None:
        self.context = context
        self.over_grpc = over_grpc
        self.first = first
        self.replies = replies
        self.caller = caller


async def _each(frames: asyncio.Queue[bytes]) -> AsyncIterator[bytes]:
    while True:
        yield await frames.get()


@contextlib.asynccontextmanager
async def stream() -> AsyncIterator[Stream]:
    """One with a connection beside it, from which its first frame is awaited."""
    port, context = FramePort(HOST), Context()
    over_grpc: asyncio.Queue[bytes] = asyncio.Queue()
    requests = Readable(_each(over_grpc), reader(c.CoordinatorConnectRequest))
    try:
        async with carried(COORDINATOR, port, requests, context) as (frames, replies):  # type: ignore[arg-type] # what carried needs of one
            ticket = (await context.offer).partition(" ")[2]
            caller = FrameConnection(lambda _, __: True, len(MAGIC))
            await asyncio.get_running_loop().create_connection(lambda: caller, HOST, port.port)
            caller.greet(MAGIC + bytes.fromhex(ticket))
            first = asyncio.ensure_future(anext(frames))
            try:
                yield Stream(context, over_grpc, first, replies, caller)
            finally:
                first.cancel()
    finally:
        caller.abort()
        port.close()


async def _ends(caller: FrameConnection) -> None:
    """Be a caller that is told the end, and closes."""
    assert await asyncio.wait_for(caller.read(), WAIT_S) is None
    caller.close()


@LOOPS
@pytest.mark.parametrize("fault", [False, True], ids=["in good order", "with a fault"])
def test_the_end_waits_for_what_is_being_written_and_no_other_comes(
    loop: Any, fault: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SERVING, "EMPTY_FRAMES_S", 0.001)
    contexts: list[Context] = []

    async def handler() -> None:
        async with stream() as one:
            contexts.append(one.context)
            await eventually(lambda: one.context.writing == 1)
            ending.append(asyncio.ensure_future(_ends(one.caller)))
            if fault:
                raise HandfastFault("FRAME_CONNECTION_LOST")

    ending: list[asyncio.Task[None]] = []

    async def scenario() -> None:
        handling = asyncio.ensure_future(handler())
        await eventually(lambda: bool(ending) and ending[0].done())
        for _ in range(20):
            await asyncio.sleep(0)
        assert not handling.done(), "a status in the middle of a frame"
        (context,) = contexts
        context.let_through.set()
        await asyncio.wait({handling}, timeout=WAIT_S)
        assert isinstance(handling.exception(), HandfastFault) is fault
        assert context.written == [COORDINATOR.reply_frame()]

    run(loop, scenario())


@LOOPS
def test_none_is_begun_once_the_end_is(loop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SERVING, "EMPTY_FRAMES_S", 0.0)

    async def caller_of(one: Stream) -> None:
        assert await asyncio.wait_for(one.caller.read(), WAIT_S) is None
        one.context.let_through.set()
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(one.context.written) == 1
        one.caller.close()

    async def scenario() -> None:
        async with stream() as one:
            await eventually(lambda: one.context.writing == 1)
            ending = asyncio.ensure_future(caller_of(one))
        await ending

    run(loop, scenario())


@LOOPS
def test_when_frames_go_over_the_stream_after_all_there_are_no_more(loop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SERVING, "EMPTY_FRAMES_S", 0.0)
    reply = c.CoordinatorConnectResponse(replies=[c.CoordinatorReply(id=1)])

    async def scenario() -> None:
        async with stream() as one:
            await eventually(lambda: one.context.writing == 1)
            one.over_grpc.put_nowait(FRAME)
            await eventually(one.over_grpc.empty)
            one.caller.abort()
            await eventually(lambda: one.caller.ended)
            for _ in range(20):
                await asyncio.sleep(0)
            assert not one.first.done(), "its answer would be written in the middle of an empty frame"
            one.context.let_through.set()
            assert len((await asyncio.wait_for(one.first, WAIT_S)).calls) == 1
            for _ in range(20):
                await asyncio.sleep(0)
            await one.replies.write(reply)
            assert one.context.written == [COORDINATOR.reply_frame(), reply]

    run(loop, scenario())


@LOOPS
def test_nothing_is_left_of_them_when_the_stream_is_cut_off(loop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SERVING, "EMPTY_FRAMES_S", 0.001)
    contexts: list[Context] = []

    async def handler() -> None:
        async with stream() as one:
            contexts.append(one.context)
            await asyncio.Event().wait()

    async def scenario() -> None:
        handling = asyncio.ensure_future(handler())
        await eventually(lambda: bool(contexts) and contexts[0].writing == 1)
        handling.cancel()
        await asyncio.wait({handling}, timeout=WAIT_S)
        assert handling.cancelled()
        await eventually(lambda: len(asyncio.all_tasks()) == 1)
        assert contexts[0].writing == 0
        assert contexts[0].written == []

    run(loop, scenario())


@LOOPS
def test_a_stream_that_has_ended_is_written_to_no_more_and_that_is_no_error(
    loop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SERVING, "EMPTY_FRAMES_S", 0.0)

    async def scenario() -> None:
        async with stream() as one:
            one.context.problem = grpc.aio.UsageError("RPC already finished.")
            await eventually(lambda: one.context.writing == 1)
            one.context.let_through.set()
            await eventually(lambda: one.context.writing == 0)
            one.context.problem = None
            for _ in range(20):
                await asyncio.sleep(0)
            assert one.context.written == []
            ending = asyncio.ensure_future(_ends(one.caller))
        await ending

    run(loop, scenario())
