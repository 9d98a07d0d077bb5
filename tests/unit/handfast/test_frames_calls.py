"""Batched streams, seen from the caller's side: batches, answers, failures."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.message import Message

from handfast.catalog import HandfastFault
from handfast.frames import COORDINATOR, PARTICIPANT, CallFailed, CallStream, Reply
from handfast.v1 import coordinator_pb2 as wire
from handfast.v1 import participant_pb2
from tests.unit.handfast.peers import Peer, channel_to, served
from tests.waiting import eventually

Answers = list[Message | CallFailed]


def echo(request: Message, reply: Reply) -> None:
    """Answer a Commit with its own gtrid, so that an answer shows which call it belongs to."""
    assert isinstance(request, wire.CommitRequest)
    reply(wire.CommitResponse(gtrid=request.gtrid, outcome=1))  # type: ignore[arg-type] # an int is an enum value


class Held:
    """A dispatch that answers nothing until it is told to."""

    def __init__(self) -> None:
        self.replies: list[tuple[Message, Reply]] = []

    def __call__(self, request: Message, reply: Reply) -> None:
        self.replies.append((request, reply))

    def release(self) -> None:
        """Answer all, last first."""
        while self.replies:
            echo(*self.replies.pop())


@asynccontextmanager
async def connected(dispatch: Callable[..., None], **stream: Any) -> AsyncIterator[tuple[Peer, CallStream]]:
    framed = stream.pop("framed", True)
    async with served(dispatch, framed=framed) as peer, channel_to(peer) as channel:
        calls = CallStream(channel, COORDINATOR, peer="the coordinator", **stream)
        try:
            yield peer, calls
        finally:
            await calls.close()


def commit(number: int) -> wire.CommitRequest:
    return wire.CommitRequest(gtrid=f"t{number}")


def gtrids(answers: Answers) -> list[str]:
    return [answer.gtrid if isinstance(answer, wire.CommitResponse) else repr(answer) for answer in answers]


def failures(answers: Answers) -> list[tuple[str, bool]]:
    return [(answer.code, answer.maybe_executed) for answer in answers if isinstance(answer, CallFailed)]


async def test_calls_made_together_travel_in_one_frame() -> None:
    async with connected(echo) as (peer, calls):
        answers: Answers = []
        for number in range(100):
            calls.call(commit(number), answers.append)
        await eventually(lambda: len(answers) == 100)
        assert peer.frame_sizes == [100]


async def test_calls_made_while_a_frame_is_being_written_travel_in_the_next_one() -> None:
    async with connected(echo) as (peer, calls):
        await calls.ask(commit(0))
        peer.frame_sizes.clear()
        answers: Answers = []
        big = wire.ExecuteRequest()
        big.operations.add(payload=bytes(8 * 1024 * 1024))  # flow control holds its frame for many turns of the loop

        async def make_calls() -> None:
            for number in range(50):
                calls.call(commit(number), answers.append)
                await asyncio.sleep(0)

        peer_dispatch = Held()
        peer._dispatch = lambda request, reply: (
            peer_dispatch(request, reply) if isinstance(request, wire.ExecuteRequest) else echo(request, reply)
        )
        calls.call(big, answers.append)
        await asyncio.sleep(0)
        await make_calls()
        await eventually(lambda: len(answers) == 50)
        assert peer.frame_sizes[0] == 1
        assert sum(peer.frame_sizes) == 51
        assert len(peer.frame_sizes) <= 5


async def test_a_frame_holds_no_more_calls_than_the_limit() -> None:
    async with connected(echo, frame_messages_max=8) as (peer, calls):
        answers: Answers = []
        for number in range(20):
            calls.call(commit(number), answers.append)
        await eventually(lambda: len(answers) == 20)
        assert peer.frame_sizes == [8, 8, 4]


async def test_large_calls_are_spread_over_frames_that_fit() -> None:
    held = Held()
    async with connected(held) as (peer, calls):
        answers: Answers = []
        for _ in range(6):
            request = wire.ExecuteRequest()
            request.operations.add(payload=bytes(4 * 1024 * 1024))
            calls.call(request, answers.append)
        await eventually(lambda: len(held.replies) == 6)
        assert peer.frame_sizes == [1] * 6
        assert answers == []


async def test_a_call_that_no_message_can_hold_fails_alone() -> None:
    async with connected(echo) as (_, calls):
        request = wire.ExecuteRequest()
        request.operations.add(payload=bytes(15 * 1024 * 1024))
        with pytest.raises(CallFailed, match="ExecuteRequest has 157") as refused:
            await calls.ask(request)
        assert (refused.value.code, refused.value.maybe_executed) == ("MESSAGE_TOO_LARGE", False)
        assert gtrids([await calls.ask(commit(1))]) == ["t1"]


async def test_calls_arrive_in_the_order_they_were_made() -> None:
    async with connected(echo, frame_messages_max=7) as (peer, calls):
        answers: Answers = []
        for number in range(50):
            calls.call(commit(number), answers.append)
        await eventually(lambda: len(answers) == 50)
        assert [getattr(request, "gtrid", "") for request in peer.asked] == [f"t{n}" for n in range(50)]


async def test_each_answer_finds_its_call_whatever_the_order() -> None:
    held = Held()
    async with connected(held) as (_, calls):
        asked = [asyncio.create_task(calls.ask(commit(number))) for number in range(20)]
        await eventually(lambda: len(held.replies) == 20)
        held.release()
        assert gtrids(list(await asyncio.gather(*asked))) == [f"t{n}" for n in range(20)]


@pytest.mark.parametrize("framed", [True, False])
async def test_a_fault_reaches_the_caller_with_its_words(framed: bool) -> None:
    def refuse(request: Message, reply: Reply) -> None:
        reply(HandfastFault("TRANSACTION_UNKNOWN", gtrid="t1"))

    async with connected(refuse, framed=framed) as (_, calls):
        with pytest.raises(CallFailed, match="Transaction t1 is not known") as failed:
            await calls.ask(commit(1))
        failure = failed.value
        assert (failure.code, failure.gtrid) == ("TRANSACTION_UNKNOWN", "t1")
        assert failure.grpc_status == grpc.StatusCode.NOT_FOUND.value[0]
        assert failure.mend.startswith("Begin a new transaction.")
        assert failure.answered


@pytest.mark.parametrize("framed", [True, False])
async def test_a_dispatch_that_raises_answers_internal_and_the_stream_goes_on(
    framed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    def stumble(request: Message, reply: Reply) -> None:
        if getattr(request, "gtrid", "") == "t1":
            raise ZeroDivisionError("oops")
        echo(request, reply)

    async with connected(stumble, framed=framed) as (_, calls):
        with pytest.raises(CallFailed, match="ZeroDivisionError: oops") as failed:
            await calls.ask(commit(1))
        assert failed.value.code == "INTERNAL"
        assert gtrids([await calls.ask(commit(2))]) == ["t2"]
        assert "failed on a CommitRequest of t1" in caplog.text


async def test_a_lost_stream_fails_every_outstanding_call_at_once() -> None:
    held = Held()
    async with connected(held) as (peer, calls):
        answers: Answers = []
        for number in range(5):
            calls.call(commit(number), answers.append)
        await eventually(lambda: len(held.replies) == 5)
        await peer.kill()
        await eventually(lambda: len(answers) == 5)
        assert failures(answers) == [("LOST", True)] * 5
        assert not calls.connected


async def test_the_next_call_after_a_lost_stream_reconnects() -> None:
    async with connected(echo) as (peer, calls):
        await calls.ask(commit(1))
        await peer.kill()
        await eventually(lambda: not calls.connected)
        await peer.start()
        answers: Answers = []

        def again(answer: Message | CallFailed) -> None:
            answers.append(answer)
            if isinstance(answer, CallFailed):
                assert not answer.maybe_executed
                calls.call(commit(2), again)

        calls.call(commit(2), again)
        await eventually(lambda: gtrids(answers)[-1:] == ["t2"])
        assert calls.connected
        assert peer.streams == 2


async def test_a_call_made_from_the_callback_of_a_lost_one_is_not_lost_with_it() -> None:
    held = Held()
    async with connected(held) as (peer, calls):
        answers: Answers = []

        def retry_once(answer: Message | CallFailed) -> None:
            answers.append(answer)
            calls.call(commit(2), answers.append)

        calls.call(commit(1), retry_once)
        await eventually(lambda: len(held.replies) == 1)
        await peer.kill()
        await eventually(lambda: len(answers) == 2)
        assert failures(answers) == [("LOST", True), ("UNREACHABLE", False)]


@pytest.mark.parametrize("framed", [True, False])
async def test_a_call_to_nobody_fails_at_once_and_certainly_did_nothing(framed: bool) -> None:
    async with connected(echo, framed=framed) as (peer, calls):
        await calls.ask(commit(0))
        await peer.kill()
        await eventually(lambda: not calls.connected)
        async with asyncio.timeout(2):
            with pytest.raises(CallFailed, match="the coordinator can't be reached") as failed:
                await calls.ask(commit(1))
        assert (failed.value.code, failed.value.maybe_executed) == ("UNREACHABLE", False)
        assert failed.value.grpc_status == grpc.StatusCode.UNAVAILABLE.value[0]


async def test_an_address_that_swallows_packets_fails_after_the_connect_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # the kernel accepts; nobody ever speaks
        port = silent.getsockname()[1]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            calls = CallStream(channel, COORDINATOR, connect_timeout_s=0.1)
            with pytest.raises(CallFailed, match=r"no connection within 0\.1 s") as failed:
                await calls.ask(commit(1))
            await calls.close()
    assert (failed.value.code, failed.value.maybe_executed) == ("UNREACHABLE", False)


async def test_a_peer_without_connect_is_called_one_by_one_for_good() -> None:
    async with connected(echo, framed=False) as (peer, calls):
        asked = [asyncio.create_task(calls.ask(commit(number))) for number in range(5)]
        assert gtrids(list(await asyncio.gather(*asked))) == [f"t{n}" for n in range(5)]
        assert calls.batched is False
        assert calls.connected
        assert gtrids([await calls.ask(commit(9))]) == ["t9"]
        assert (peer.unary_calls, peer.frame_sizes) == (6, [])


async def test_a_peer_with_connect_shows_that_it_takes_batches() -> None:
    async with connected(echo) as (peer, calls):
        assert (calls.batched, calls.connected) == (None, False)
        await calls.ask(commit(1))
        assert (calls.batched, calls.connected) == (True, True)
        assert peer.unary_calls == 0


async def test_a_method_that_frames_do_not_carry_is_called_by_itself() -> None:
    async with connected(echo) as (peer, _), channel_to(peer) as channel:
        calls = CallStream(channel, PARTICIPANT)
        with pytest.raises(CallFailed, match="UNIMPLEMENTED") as failed:
            await calls.ask(participant_pb2.InspectRequest(resource="accounts"))
        await calls.close()
        assert (failed.value.code, failed.value.maybe_executed) == ("UNIMPLEMENTED", False)
        assert peer.streams == 0


@pytest.mark.parametrize("framed", [True, False])
async def test_an_answer_that_does_not_come_in_time_fails_that_call_only(framed: bool) -> None:
    held = Held()
    async with connected(held, framed=framed) as (_, calls):
        slow: Answers = []
        calls.call(commit(1), slow.append, timeout_s=0.05)
        patient = asyncio.create_task(calls.ask(commit(2), timeout_s=10))
        await eventually(lambda: len(slow) == 1 and len(held.replies) == 2)
        assert failures(slow) == [("TIMEOUT", True)]
        held.release()
        assert gtrids([await patient]) == ["t2"]
        assert len(slow) == 1


async def test_each_call_fails_at_its_own_time_however_many_share_the_timer() -> None:
    held = Held()
    async with connected(held) as (_, calls):
        order: list[float] = []
        for timeout_s in (0.2, 0.05, 10.0, 0.1):

            def note(answer: Message | CallFailed, timeout_s: float = timeout_s) -> None:
                order.append(timeout_s)

            calls.call(commit(1), note, timeout_s=timeout_s)
        await eventually(lambda: len(order) == 3)
        assert order == [0.05, 0.1, 0.2]
        assert len(calls._outstanding) == 1


async def test_a_call_that_times_out_before_it_is_sent_certainly_did_nothing() -> None:
    async with connected(echo) as (peer, calls):
        answers: Answers = []
        calls.call(commit(1), answers.append, timeout_s=0)
        calls.call(commit(2), answers.append)
        await eventually(lambda: len(answers) == 2)
        assert failures(answers) == [("TIMEOUT", False)]
        assert [getattr(request, "gtrid", "") for request in peer.asked] == ["t2"]


@pytest.mark.parametrize("framed", [True, False])
async def test_closing_fails_every_outstanding_call(framed: bool) -> None:
    held = Held()
    async with connected(held, framed=framed) as (_, calls):
        answers: Answers = []
        for number in range(3):
            calls.call(commit(number), answers.append)
        await eventually(lambda: len(held.replies) == 3)
        await calls.close()
        assert failures(answers) == [("LOST", True)] * 3
        with pytest.raises(CallFailed, match="closed by this side"):
            await calls.ask(commit(4))


async def test_an_abandoned_ask_leaves_nothing_behind() -> None:
    held = Held()
    async with connected(held) as (_, calls):
        abandoned = asyncio.create_task(calls.ask(commit(1), timeout_s=10))
        await eventually(lambda: len(held.replies) == 1)
        abandoned.cancel()
        await asyncio.gather(abandoned, return_exceptions=True)
        held.release()
        last = asyncio.create_task(calls.ask(commit(2)))
        await eventually(lambda: len(held.replies) == 1)
        held.release()
        assert gtrids([await last]) == ["t2"]
        assert calls._outstanding == {}


async def test_a_callback_that_raises_is_logged_and_harms_no_other_call(caplog: pytest.LogCaptureFixture) -> None:
    def raise_at(answer: Message | CallFailed) -> None:
        raise ZeroDivisionError(repr(answer))

    async with connected(echo) as (_, calls):
        with caplog.at_level(logging.ERROR):
            calls.call(commit(1), raise_at)
            assert gtrids([await calls.ask(commit(2))]) == ["t2"]
        assert "the callback of a Commit to the coordinator failed" in caplog.text


async def test_a_request_of_another_service_is_the_callers_mistake() -> None:
    async with connected(echo) as (_, calls):
        with pytest.raises(TypeError, match="no method that takes a InspectRequest"):
            await calls.ask(participant_pb2.InspectRequest())
