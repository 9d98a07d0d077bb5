"""Batched streams, seen from the serving side: each call is answered once, in batches, until the end."""

import asyncio
import logging
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.message import Message

from handfast.catalog import HandfastFault
from handfast.frames import COORDINATOR, CallFailed, CallStream, Reply
from handfast.v1 import coordinator_pb2 as wire
from tests.unit.handfast.peers import Peer, channel_to, served
from tests.waiting import eventually


class Held:
    """A dispatch that keeps every way to answer."""

    def __init__(self) -> None:
        self.replies: list[Reply] = []

    def __call__(self, request: Message, reply: Reply) -> None:
        self.replies.append(reply)


def begun(gtrid: str) -> wire.BeginResponse:
    return wire.BeginResponse(gtrid=gtrid)


def raw_stream(channel: grpc.aio.Channel) -> Any:
    """Connect as a program in another language would."""
    connect: Any = channel.stream_stream(
        COORDINATOR.connect_path,
        request_serializer=wire.CoordinatorConnectRequest.SerializeToString,
        response_deserializer=wire.CoordinatorConnectResponse.FromString,
    )
    return connect()


def calls_frame(*ids: int) -> wire.CoordinatorConnectRequest:
    return wire.CoordinatorConnectRequest(
        calls=[wire.CoordinatorCall(id=call_id, begin=wire.BeginRequest()) for call_id in ids]
    )


async def test_replies_that_become_ready_together_travel_in_one_frame() -> None:
    held = Held()
    async with served(held) as peer, channel_to(peer) as channel:
        stream = raw_stream(channel)
        await stream.write(calls_frame(1, 2, 3))
        await eventually(lambda: len(held.replies) == 3)
        for number, reply in enumerate(held.replies):
            reply(begun(f"t{number}"))
        frame = await stream.read()
        assert [(reply.id, reply.begin.gtrid) for reply in frame.replies] == [(1, "t0"), (2, "t1"), (3, "t2")]
        stream.cancel()


async def test_a_caller_that_ends_its_side_still_gets_what_it_is_owed() -> None:
    held = Held()
    async with served(held) as peer, channel_to(peer) as channel:
        stream = raw_stream(channel)
        await stream.write(calls_frame(1, 2))
        await stream.done_writing()
        await eventually(lambda: len(held.replies) == 2)
        held.replies[1](begun("second"))
        assert [reply.id for reply in (await stream.read()).replies] == [2]
        held.replies[0](begun("first"))
        assert [reply.id for reply in (await stream.read()).replies] == [1]
        assert await stream.code() is grpc.StatusCode.OK


async def test_a_call_that_names_no_request_is_refused_and_the_others_served() -> None:
    def answer(request: Message, reply: Reply) -> None:
        reply(begun("t"))

    async with served(answer) as peer, channel_to(peer) as channel:
        stream = raw_stream(channel)
        frame = calls_frame(1)
        frame.calls.add(id=2)
        await stream.write(frame)
        replies = {reply.id: reply for reply in (await stream.read()).replies}
        assert replies[1].begin.gtrid == "t"
        assert (replies[2].error.code, replies[2].error.grpc_status) == ("FIELD_INVALID", 3)
        stream.cancel()


async def test_answering_twice_is_the_services_mistake() -> None:
    held = Held()
    async with served(held) as peer, channel_to(peer) as channel:
        calls = CallStream(channel, COORDINATOR)
        asked = asyncio.create_task(calls.ask(wire.BeginRequest()))
        await eventually(lambda: len(held.replies) == 1)
        held.replies[0](begun("t1"))
        with pytest.raises(RuntimeError, match="answered twice"):
            held.replies[0](begun("t2"))
        assert await asked == begun("t1")
        await calls.close()


async def test_an_answer_of_a_foreign_type_is_the_services_mistake() -> None:
    held = Held()
    async with served(held) as peer, channel_to(peer) as channel:
        calls = CallStream(channel, COORDINATOR)
        asked = asyncio.create_task(calls.ask(wire.BeginRequest()))
        await eventually(lambda: len(held.replies) == 1)
        with pytest.raises(TypeError, match="no reply of type BeginRequest"):
            held.replies[0](wire.BeginRequest())
        held.replies[0](begun("t1"))
        assert await asked == begun("t1")
        await calls.close()


async def test_an_answer_after_the_caller_left_goes_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    held = Held()
    async with served(held) as peer, channel_to(peer) as channel:
        stream = raw_stream(channel)
        await stream.write(calls_frame(1))
        await eventually(lambda: len(held.replies) == 1)
        stream.cancel()
        calls = CallStream(channel, COORDINATOR)
        asked = asyncio.create_task(calls.ask(wire.BeginRequest()))
        await eventually(lambda: len(held.replies) == 2)
        held.replies[0](begun("late"))
        held.replies[1](begun("t2"))
        assert await asked == begun("t2")
        await calls.close()
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_a_caller_that_leaves_while_it_is_owed_answers_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    held = Held()
    async with served(held) as peer:
        async with channel_to(peer) as channel:
            stream = raw_stream(channel)
            await stream.write(calls_frame(1, 2))
            await eventually(lambda: len(held.replies) == 2)
            held.replies[0](begun("t1"))
        await eventually(lambda: peer.streams_ended == 1)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_a_fault_may_be_the_answer_or_be_raised() -> None:
    def refuse(request: Message, reply: Reply) -> None:
        fault = HandfastFault("COORDINATOR_STOPPING")
        if isinstance(request, wire.BeginRequest):
            raise fault
        reply(fault)

    async with served(refuse) as peer, channel_to(peer) as channel:
        calls = CallStream(channel, COORDINATOR)
        for request in (wire.BeginRequest(), wire.InquireRequest()):
            with pytest.raises(CallFailed, match="is stopping") as failed:
                await calls.ask(request)
            assert failed.value.grpc_status == grpc.StatusCode.UNAVAILABLE.value[0]
        await calls.close()


async def test_a_reply_that_no_message_can_hold_tells_the_caller_to_ask_for_the_outcome() -> None:
    def answer(request: Message, reply: Reply) -> None:
        reply(wire.ExecuteResponse(results=[bytes(15 * 1024 * 1024)]))

    async with served(answer) as peer, channel_to(peer) as channel:
        calls = CallStream(channel, COORDINATOR)
        with pytest.raises(CallFailed, match="ask for its outcome") as failed:
            await calls.ask(wire.ExecuteRequest())
        assert (failed.value.code, failed.value.maybe_executed) == ("INTERNAL", True)
        await calls.close()


async def test_a_stop_ends_idle_streams_and_lets_busy_ones_finish() -> None:
    held = Held()
    async with served(held) as peer, channel_to(peer) as channel:
        idle, busy = raw_stream(channel), raw_stream(channel)
        await busy.write(calls_frame(1))
        await idle.write(wire.CoordinatorConnectRequest())
        await eventually(lambda: len(held.replies) == 1 and peer.streams == 2)
        peer.stop_streams.set()
        assert await idle.code() is grpc.StatusCode.OK
        stopping = asyncio.create_task(peer.server.stop(30))
        await busy.write(calls_frame(2))  # it comes too late, or the stream would go on as long as others come
        held.replies[0](begun("t1"))
        assert (await busy.read()).replies[0].begin.gtrid == "t1"
        assert await busy.code() is grpc.StatusCode.OK
        async with asyncio.timeout(5):
            await stopping
        assert len(held.replies) == 1


async def test_a_killed_server_leaves_no_error_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    held = Held()
    peer = Peer(held, framed=True)
    await peer.start()
    async with channel_to(peer) as channel:
        stream = raw_stream(channel)
        await stream.write(calls_frame(1))
        await eventually(lambda: len(held.replies) == 1)
        with caplog.at_level(logging.WARNING):
            await peer.kill()
        with pytest.raises(grpc.aio.AioRpcError):
            await stream.read()
    assert caplog.records == []
