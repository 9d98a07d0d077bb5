"""Calls over a frame connection beside a real gRPC stream: the same answers, failures and ends as without."""

import asyncio
import contextlib
import socket
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial
from typing import Any

import grpc.aio
import pytest
from google.protobuf.message import Message

from handfast.frames import COORDINATOR, LOST, CallFailed, CallStream, FramePort, dialing, local
from handfast.frames.channels import CALL_BYTES_MAX
from handfast.frames.connection import MAGIC, FrameConnection
from handfast.frames.dialing import HEADER, LOCAL_HEADER, FrameDialer
from handfast.v1 import coordinator_pb2 as c
from handfast.v1 import types_pb2 as t
from tests.frame_sockets import over_local, over_tcp
from tests.fuzz.loudness import quiet
from tests.unit.handfast.frame_callers import HOST, LOCAL, LOOPS, TCP, WAYS
from tests.unit.handfast.frame_transport import END, framed
from tests.unit.handfast.frame_wire import Wire
from tests.unit.handfast.peers import Peer, channel_to, served
from tests.waiting import eventually

WAIT_S = 20.0
NO_CALLS = b"\xfa\x01\xe0\xd4\x03" + bytes(60_000)
"""A frame with a large field that nobody knows."""

Answer = Callable[[Message], None]


def run(loop: Callable[[], asyncio.AbstractEventLoop], scenario: Coroutine[Any, Any, None]) -> None:
    """Run it; nothing may be said. That a stream was cut off at a kill is gRPC's own remark."""
    with quiet(rightly="CancelledError()"), asyncio.Runner(loop_factory=loop) as runner:
        runner.run(scenario)


def committed(request: Message, reply: Answer) -> None:
    """Answer each Commit."""
    assert isinstance(request, c.CommitRequest)
    reply(c.CommitResponse(gtrid=request.gtrid, outcome=t.OUTCOME_COMMITTED))


@contextlib.asynccontextmanager
async def calling(peer: Peer, **settings: Any) -> AsyncIterator[CallStream]:
    """Calls to it."""
    channel = channel_to(peer)
    calls = CallStream(channel, COORDINATOR, dialer=FrameDialer(peer.address), **settings)
    try:
        yield calls
    finally:
        await calls.close()
        await channel.close(None)


def connections(peer: Peer) -> int:
    """How many frame connections the peer has."""
    assert peer.frame_port is not None
    port = peer.frame_port.port
    return len(over_tcp(port) | over_local(port))


def way_of(peer: Peer) -> str:
    """Which way its one frame connection came."""
    assert connections(peer) == 1
    assert peer.frame_port is not None
    return LOCAL if over_local(peer.frame_port.port) else TCP


async def write(connection: FrameConnection, frame: bytes) -> None:
    """Send a frame, and wait until another may be."""
    pending = connection.write(frame)
    if pending is not None:
        await pending


@contextlib.asynccontextmanager
async def wired(dispatch: Callable[[Message, Any], None]) -> AsyncIterator[tuple[Peer, Wire]]:
    """A peer whose frame port is found behind a wire."""
    async with Wire() as wire, served(dispatch) as peer:
        peer.frame_port = FramePort(HOST, via={peer.address: f"{HOST}:{wire.port}"})
        wire.to = peer.frame_port.port
        yield peer, wire


@contextlib.asynccontextmanager
async def reached(way: str, dispatch: Callable[[Message, Any], None]) -> AsyncIterator[Peer]:
    """A peer whose frame connections come this way."""
    async with served(dispatch, frame_port=FramePort(HOST, near=way == LOCAL)) as peer:
        yield peer


# -- as without ----------------------------------------------------------------------------------------------------


@LOOPS
@WAYS
def test_calls_travel_beside_the_stream(loop: Any, way: str) -> None:
    async def scenario() -> None:
        async with reached(way, committed) as peer, calling(peer) as calls:
            for number in range(3):
                answer: Any = await calls.ask(c.CommitRequest(gtrid=f"t{number}"), timeout_s=WAIT_S)
                assert answer.gtrid == f"t{number}"
            assert way_of(peer) == way
            assert calls.batched
            assert peer.streams == 1

    run(loop, scenario())


@LOOPS
@WAYS
def test_the_largest_call_and_the_largest_answer_pass(loop: Any, way: str) -> None:
    def echo(request: Any, reply: Answer) -> None:
        reply(c.ExecuteResponse(results=[request.operations[0].payload]))

    async def scenario() -> None:
        payload = bytes(CALL_BYTES_MAX - 64)
        async with reached(way, echo) as peer, calling(peer) as calls:
            request = c.ExecuteRequest(operations=[t.Operation(resource="a", payload=payload)])
            answer: Any = await calls.ask(request, timeout_s=WAIT_S)
            assert answer.results[0] == payload
            assert way_of(peer) == way

    run(loop, scenario())


@LOOPS
@WAYS
def test_whoever_closes_leaves_no_connection_behind(loop: Any, way: str) -> None:
    async def scenario() -> None:
        async with reached(way, committed) as peer:
            async with calling(peer) as calls:
                await calls.ask(c.CommitRequest(gtrid="t"), timeout_s=WAIT_S)
            await eventually(lambda: connections(peer) == 0 and peer.streams_ended == 1)

    run(loop, scenario())


@LOOPS
@WAYS
@pytest.mark.parametrize("goes_on", [True, False], ids=["it is there again", "it ends each stream like that"])
def test_a_call_that_a_peer_in_good_order_left_unread_is_made_again_once(loop: Any, way: str, goes_on: bool) -> None:
    read: list[str] = []
    owed: list[Answer] = []

    def later(request: Any, reply: Answer) -> None:
        read.append(request.gtrid)
        owed.append(reply)

    async def scenario() -> None:
        async with reached(way, later) as peer, calling(peer) as calls:
            first = asyncio.ensure_future(calls.ask(c.CommitRequest(gtrid="first"), timeout_s=WAIT_S))
            await eventually(lambda: read == ["first"])
            peer.stop_streams.set()
            await asyncio.sleep(0)
            second = asyncio.ensure_future(calls.ask(c.CommitRequest(gtrid="second"), timeout_s=WAIT_S))
            await eventually(lambda: calls._queue == deque() and len(calls._outstanding) == 2)
            owed[0](c.CommitResponse(gtrid="first"))
            assert isinstance(await first, c.CommitResponse)
            assert read == ["first"]
            if goes_on:
                peer.stop_streams.clear()
                await eventually(lambda: read == ["first", "second"], within_s=WAIT_S)
                owed[1](c.CommitResponse(gtrid="second"))
                assert isinstance(await second, c.CommitResponse)
                return
            with pytest.raises(CallFailed):
                await second
            assert peer.streams == 2
            assert read == ["first"]

    run(loop, scenario())


@LOOPS
@WAYS
@pytest.mark.parametrize("size", [1, 2**20], ids=["small", "large"])
def test_every_answer_owed_arrives_at_a_graceful_end_though_more_calls_come(loop: Any, way: str, size: int) -> None:
    """A socket that is closed while calls come in would take back the answers that are not read yet."""
    owed: list[tuple[str, Answer]] = []
    told: dict[str, Message | CallFailed] = {}

    def hold(request: Any, reply: Answer) -> None:
        owed.append((request.gtrid, reply))

    async def scenario() -> None:
        async with reached(way, hold) as peer, calling(peer) as calls:
            for number in range(20):
                gtrid = f"t{number}"
                calls.call(c.CommitRequest(gtrid=gtrid), partial(told.__setitem__, gtrid))
            await eventually(lambda: len(owed) == 20)
            assert way_of(peer) == way
            peer.stop_streams.set()
            more = asyncio.create_task(_call_on(calls))
            await asyncio.sleep(0)
            for gtrid, reply in owed:
                reply(c.CommitResponse(gtrid=gtrid, outcome=t.OUTCOME_COMMITTED, reason="x" * size))
            await eventually(lambda: len(told) == 20, within_s=WAIT_S)
            more.cancel()
            assert [type(answer) for answer in told.values()] == [c.CommitResponse] * 20
            await eventually(lambda: peer.streams_ended >= 1)

    run(loop, scenario())


async def _call_on(calls: CallStream) -> None:
    while True:
        calls.call(c.CommitRequest(gtrid="later" * 1_000), lambda _: None)
        await asyncio.sleep(0)


@LOOPS
@WAYS
def test_a_slow_caller_gets_all_of_the_last_answer_though_it_sent_more_than_is_read(loop: Any, way: str) -> None:
    """With something unread in it a socket that is closed takes back what the other end has not read yet."""
    owed: list[Answer] = []

    async def scenario() -> None:
        async with (
            served(lambda _, reply: owed.append(reply), frame_port=FramePort(HOST)) as peer,
            grpc.aio.insecure_channel(peer.address) as channel,
        ):
            stream, reader, writer = await _by_hand(channel, peer, way)
            call = c.CoordinatorCall(id=1, commit=c.CommitRequest(gtrid="t"))
            writer.write(framed(c.CoordinatorConnectRequest(calls=[call]).SerializeToString()))
            await eventually(lambda: bool(owed))
            peer.stop_streams.set()
            more = asyncio.create_task(_go_on(writer, framed(NO_CALLS)))
            owed[0](c.CommitResponse(gtrid="t", reason="x" * 2**20))
            said = bytearray()
            while len(said) < 2**20 or not said.endswith(END):
                new = await asyncio.wait_for(reader.read(1024), WAIT_S)
                assert new, f"cut off after {len(said)} bytes"
                said += new
            more.cancel()
            writer.close()
            assert await asyncio.wait_for(stream.read(), WAIT_S) is grpc.aio.EOF

    run(loop, scenario())


async def _go_on(writer: asyncio.StreamWriter, data: bytes) -> None:
    while True:
        writer.write(data)
        await writer.drain()


async def _by_hand(
    channel: grpc.aio.Channel, peer: Peer, way: str
) -> tuple[Any, asyncio.StreamReader, asyncio.StreamWriter]:
    """A stream, and a connection beside it that takes little at once."""
    method: Any = channel.stream_stream(COORDINATOR.connect_path)
    stream = method(metadata=((HEADER, peer.address),))
    told = dict(await stream.initial_metadata())
    where, _, ticket = told[HEADER].partition(" ")
    if way == LOCAL:
        reader, writer = await asyncio.open_unix_connection(sock=local.connected(told[LOCAL_HEADER]), limit=4096)
    else:
        narrow = socket.socket()
        narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        narrow.setblocking(False)
        await asyncio.get_running_loop().sock_connect(narrow, (HOST, int(where[1:])))
        reader, writer = await asyncio.open_connection(sock=narrow, limit=4096)
    writer.write(MAGIC + bytes.fromhex(ticket))
    assert await asyncio.wait_for(reader.readexactly(len(MAGIC)), WAIT_S) == MAGIC
    return stream, reader, writer


@LOOPS
def test_a_peer_that_ends_its_stream_is_connected_to_anew(loop: Any) -> None:
    async def scenario() -> None:
        async with served(committed, frame_port=FramePort(HOST)) as peer, calling(peer) as calls:
            await calls.ask(c.CommitRequest(gtrid="one"), timeout_s=WAIT_S)
            peer.stop_streams.set()
            await eventually(lambda: not calls.connected)
            peer.stop_streams.clear()
            await calls.ask(c.CommitRequest(gtrid="two"), timeout_s=WAIT_S)
            assert connections(peer) == 1
            assert peer.streams == 2

    run(loop, scenario())


@LOOPS
def test_a_peer_that_starts_again_is_found_on_its_new_frame_port(loop: Any) -> None:
    async def scenario() -> None:
        async with served(committed, frame_port=FramePort(HOST)) as peer, calling(peer) as calls:
            await calls.ask(c.CommitRequest(gtrid="one"), timeout_s=WAIT_S)
            old = peer.frame_port
            await peer.kill()
            peer.frame_port = FramePort(HOST)
            assert old is not None
            old.close()
            await eventually(lambda: not calls.connected)
            await peer.start()
            await _reached(calls)
            assert connections(peer) == 1

    run(loop, scenario())


async def _reached(calls: CallStream) -> None:
    """Ask until there is an answer."""
    async with asyncio.timeout(WAIT_S):
        while True:
            with contextlib.suppress(CallFailed):
                await calls.ask(c.CommitRequest(gtrid="again"), timeout_s=WAIT_S)
                return
            await asyncio.sleep(0.01)


# -- when it breaks ------------------------------------------------------------------------------------------------


@LOOPS
def test_when_the_connection_alone_breaks_its_calls_are_lost_and_the_next_stream_has_one_again(loop: Any) -> None:
    held: list[Answer] = []

    def hold_first(request: Any, reply: Answer) -> None:
        if request.gtrid == "held":
            held.append(reply)
        else:
            committed(request, reply)

    async def scenario() -> None:
        async with wired(hold_first) as (peer, wire), calling(peer) as calls:
            await calls.ask(c.CommitRequest(gtrid="one"), timeout_s=WAIT_S)
            asking = asyncio.ensure_future(calls.ask(c.CommitRequest(gtrid="held"), timeout_s=WAIT_S))
            await eventually(lambda: bool(held))
            wire.cut()
            with pytest.raises(CallFailed) as lost:
                await asking
            assert (lost.value.code, lost.value.maybe_executed) == (LOST, True)
            assert "connection broke on which this stream's frames travelled" in lost.value.message
            await calls.ask(c.CommitRequest(gtrid="two"), timeout_s=WAIT_S)
            assert wire.carried == 2
            assert connections(peer) == 1

    run(loop, scenario())


@LOOPS
def test_a_way_that_lets_only_greetings_through_is_left_alone_for_a_while(loop: Any) -> None:
    async def scenario() -> None:
        async with wired(committed) as (peer, wire), calling(peer) as calls:
            wire.swallows_frames = True
            with pytest.raises(CallFailed) as lost:
                await calls.ask(c.CommitRequest(gtrid="one"), timeout_s=WAIT_S)
            assert lost.value.maybe_executed
            await calls.ask(c.CommitRequest(gtrid="two"), timeout_s=WAIT_S)
            assert wire.carried == 1
            assert peer.frame_sizes[-1:] == [1]

    run(loop, scenario())


@LOOPS
@pytest.mark.parametrize("way", ["blocked", "swallowed"])
def test_without_a_way_to_the_port_frames_go_over_grpc_and_it_is_said_once(
    loop: Any, way: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(dialing, "DIAL_S", 0.1)
    caplog.set_level("INFO", "handfast.frames.dialing")

    async def scenario() -> None:
        async with wired(committed) as (peer, wire), calling(peer) as calls:
            wire.swallows = way == "swallowed"
            if way == "blocked":
                await wire.__aexit__()
            for number in range(2):
                await calls.ask(c.CommitRequest(gtrid=f"t{number}"), timeout_s=WAIT_S)
                assert connections(peer) <= (way == "swallowed")
                await peer.kill()
                await eventually(lambda: not calls.connected)
                await peer.start()
                await _reached(calls)
            assert wire.carried == (way == "swallowed"), "it was tried again at once"

    run(loop, scenario())
    assert caplog.text.count("so frames travel over gRPC") == 1


@LOOPS
def test_a_call_that_was_not_sent_before_the_peer_was_gone_is_certainly_not_executed(loop: Any) -> None:
    async def scenario() -> None:
        async with served(committed, frame_port=FramePort(HOST)) as peer, calling(peer) as calls:
            await calls.ask(c.CommitRequest(gtrid="one"), timeout_s=WAIT_S)
            await peer.kill()
            await eventually(lambda: not calls.connected)
            with pytest.raises(CallFailed) as failed:
                await calls.ask(c.CommitRequest(gtrid="two"), timeout_s=WAIT_S)
            assert not failed.value.maybe_executed
            assert [getattr(request, "gtrid", None) for request in peer.asked] == ["one"]

    run(loop, scenario())


@LOOPS
def test_a_stream_that_ends_with_a_status_tells_it_whichever_way_its_frames_went(loop: Any) -> None:
    async def status(frame_port: FramePort | None) -> tuple[Any, Any]:
        async with served(committed, frame_port=frame_port) as peer, grpc.aio.insecure_channel(peer.address) as channel:
            method: Any = channel.stream_stream(COORDINATOR.connect_path)
            dialer = FrameDialer(peer.address)
            stream = method(metadata=dialer.question)
            connection = await dialer.open(stream)
            assert (connection is None) is (frame_port is None)
            call = c.CoordinatorCall(id=7, begin=c.BeginRequest())
            frame = b"\xff\xff\xff" + call.SerializeToString()
            if connection is None:
                await stream.write(frame)
            else:
                await write(connection, frame)
                assert await asyncio.wait_for(connection.read(), WAIT_S) is None
                connection.close()
            with pytest.raises(grpc.aio.AioRpcError) as ended:
                await asyncio.wait_for(stream.read(), WAIT_S)
            return ended.value.code(), ended.value.details()

    async def scenario() -> None:
        assert await status(FramePort(HOST)) == await status(None)

    run(loop, scenario())


@LOOPS
def test_a_frame_over_the_stream_after_the_connection_was_used_ends_it(loop: Any) -> None:
    async def scenario() -> None:
        async with (
            served(committed, frame_port=FramePort(HOST)) as peer,
            grpc.aio.insecure_channel(peer.address) as channel,
        ):
            method: Any = channel.stream_stream(COORDINATOR.connect_path)
            dialer = FrameDialer(peer.address)
            stream = method(metadata=dialer.question)
            connection = await dialer.open(stream)
            assert connection is not None
            call = c.CoordinatorCall(id=1, commit=c.CommitRequest(gtrid="t"))
            frame = c.CoordinatorConnectRequest(calls=[call]).SerializeToString()
            await write(connection, frame)
            assert await asyncio.wait_for(connection.read(), WAIT_S)
            await stream.write(frame)
            assert await asyncio.wait_for(connection.read(), WAIT_S) is None
            connection.close()
            with pytest.raises(grpc.aio.AioRpcError, match="beside the frame connection"):
                await asyncio.wait_for(stream.read(), WAIT_S)
            assert len(peer.asked) == 1

    run(loop, scenario())


@LOOPS
@pytest.mark.parametrize("used", [False, True])
def test_a_stream_that_is_given_up_takes_its_connection_along(loop: Any, used: bool) -> None:
    async def scenario() -> None:
        async with (
            served(committed, frame_port=FramePort(HOST)) as peer,
            grpc.aio.insecure_channel(peer.address) as channel,
        ):
            method: Any = channel.stream_stream(COORDINATOR.connect_path)
            dialer = FrameDialer(peer.address)
            stream = method(metadata=dialer.question)
            connection = await dialer.open(stream)
            assert connection is not None
            if used:
                call = c.CoordinatorCall(id=1, commit=c.CommitRequest(gtrid="t"))
                await write(connection, c.CoordinatorConnectRequest(calls=[call]).SerializeToString())
                assert await asyncio.wait_for(connection.read(), WAIT_S)
            stream.cancel()
            assert await asyncio.wait_for(connection.read(), WAIT_S) is None
            connection.abort()

    run(loop, scenario())
