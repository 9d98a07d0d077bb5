"""The limits on a caller, at the edge of a coordinator that runs."""

import asyncio
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

import handfast
from handfast.frames import COORDINATOR, CallFailed, CallStream, channel_options
from handfast.v1 import coordinator_pb2 as c
from handfast.v1 import coordinator_pb2_grpc
from tests.integration.coordinator.edge import Edge, operation, refusal, serving
from tests.integration.security.secured import pki_in, secured
from tests.waiting import eventually


async def test_a_client_has_so_many_open_transactions_and_the_others_have_theirs(tmp_path: Path) -> None:
    pki = pki_in(tmp_path)
    async with secured(pki, open_transactions_per_client_max=2) as edge:
        greedy, other = (edge.as_(pki.client(name)).framed() for name in ("greedy", "other"))
        first = (await greedy(c.BeginRequest())).gtrid
        await greedy(c.BeginRequest())
        assert (await refusal(greedy, c.BeginRequest())).code == "TRANSACTIONS_OF_CLIENT_TOO_MANY"
        assert (await other(c.BeginRequest())).gtrid
        await greedy(c.RollbackRequest(gtrid=first))
        assert (await greedy(c.BeginRequest())).gtrid


async def test_names_drawn_in_a_block_count_as_well() -> None:
    async with serving(open_transactions_per_client_max=1) as edge:
        ask = edge.framed()
        prefix = (await ask(c.BeginRequest(block_size=5, client="greedy"))).block.prefix
        assert (await ask(c.BeginRequest(client="greedy"))).gtrid
        refused = await refusal(ask, c.CommitRequest(gtrid=prefix + "0"))
        assert refused.code == "TRANSACTIONS_OF_CLIENT_TOO_MANY"


async def test_a_client_without_a_name_shares_no_limit_with_all_others_without_one() -> None:
    async with serving(open_transactions_per_client_max=1) as edge:
        for _ in range(3):
            assert (await edge.framed()(c.BeginRequest())).gtrid


async def test_a_stream_too_many_is_refused_by_name() -> None:
    async with serving(streams_per_peer_max=2) as edge:
        one, two, three = (CallStream(edge.channel, COORDINATOR) for _ in range(3))
        await one.ask(c.BeginRequest())
        await two.ask(c.BeginRequest())
        with pytest.raises(CallFailed, match="2 batched streams"):
            await three.ask(c.BeginRequest(), timeout_s=10)
        await one.close()
        for _ in range(100):
            if await _answers(three):
                break
        else:
            raise AssertionError("the place of a stream that ended was not given to another")
        await two.close()
        await three.close()


async def _answers(stream: CallStream) -> bool:
    try:
        await stream.ask(c.BeginRequest(), timeout_s=10)
    except CallFailed:
        return False
    return True


async def test_a_flood_on_one_stream_is_refused_and_another_stream_goes_on() -> None:
    async with serving(messages_per_s_max=50) as edge:
        flood, calm = edge.framed(), edge.framed()
        answers = await asyncio.gather(*(flood(c.BeginRequest()) for _ in range(500)), return_exceptions=True)
        refused = [answer for answer in answers if isinstance(answer, CallFailed)]
        assert {failure.code for failure in refused} == {"MESSAGES_TOO_MANY"}
        assert len(refused) > 300
        assert (await calm(c.BeginRequest())).gtrid


async def test_the_size_of_a_frame_is_a_setting() -> None:
    async with serving(frame_bytes_max=64 * 1024) as edge:
        large = c.ExecuteRequest(operations=[operation("accounts", payload=b"x" * 100_000)])
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await coordinator_pb2_grpc.CoordinatorStub(edge.channel).Execute(large)
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_at_its_age_a_connection_is_made_anew_and_work_goes_on() -> None:
    async with serving(connection_age_max_s=0.2) as edge:
        async with handfast.connect(edge.server.address) as tm:
            async with tm.transaction():
                pass
            await eventually(lambda: not tm.connected)
            async with tm.transaction() as txn:
                pass
        assert txn.outcome is handfast.Outcome.COMMITTED


@pytest.mark.parametrize(
    "address", ["", "here", "unix:/run/x.sock", "xds:///x", "h:0", "h:99999", "h:1\n", "h:٧", "a b:1"]
)
async def test_an_address_that_is_not_host_and_port_is_refused_and_nobody_connects_to_it(address: str) -> None:
    async with serving() as edge:
        asked = c.RegisterRequest(resource="accounts", instance="one", address=address)
        assert (await refusal(edge.framed(), asked)).code == "FIELD_INVALID"
        assert len(edge.server.requests.directory) == 0


@pytest.mark.parametrize(
    "kept",
    [{"kind": "k" * 65}, {"operations": ["o" * 257]}, {"operations": ["o"] * 1025}],
    ids=["kind", "name", "names"],
)
async def test_a_registration_keeps_no_more_than_reports_need(kept: dict[str, Any]) -> None:
    async with serving() as edge:
        asked = c.RegisterRequest(resource="accounts", instance="one", address="127.0.0.1:9", **kept)
        assert (await refusal(edge.framed(), asked)).code == "FIELD_INVALID"
        assert len(edge.server.requests.directory) == 0


async def test_so_many_participants_are_known_and_one_that_is_may_register_again() -> None:
    async with serving(participants_max=2) as edge:
        ask = edge.framed()
        first, second, third = (
            c.RegisterRequest(resource="accounts", instance=f"i{number}", address=f"127.0.0.1:{number}")
            for number in range(7, 10)
        )
        await ask(first)
        await ask(second)
        assert (await refusal(ask, third)).code == "PARTICIPANTS_TOO_MANY"
        await ask(first)


async def test_a_client_that_never_reads_comes_to_a_stop_and_others_go_on() -> None:
    async with serving(calls_per_stream_max=512) as edge:
        calm = edge.framed()
        other = another(edge)
        connect: Any = other.stream_stream(COORDINATOR.connect_path)
        mute = connect()
        frame = c.CoordinatorConnectRequest()
        for number in range(256):
            frame.calls.add(id=number).inquire.gtrid = "x" * 80
        data = frame.SerializeToString()
        written = 0
        while written < 2_000:
            try:
                await asyncio.wait_for(mute.write(data), timeout=2.0)
            except TimeoutError:
                break
            written += 1
        assert written < 2_000, "half a million calls were taken, and no answer to any"
        assert (await calm(c.BeginRequest())).gtrid
        mute.cancel()
        await other.close()


async def test_a_flood_of_unary_calls_leaves_the_others_their_share() -> None:
    """Counted, not timed: while the flood waits for its turn, a stream is answered at once."""
    async with serving(share_max=0.01) as edge:
        calm, other = edge.framed(), another(edge)
        await calm(c.BeginRequest())
        flood: Any = other.unary_unary(COORDINATOR.methods[c.InquireRequest].path)
        calls = [flood(c.InquireRequest(gtrid="x").SerializeToString()) for _ in range(300)]
        for _ in range(20):
            assert (await calm(c.BeginRequest())).gtrid
        assert not all(call.done() for call in calls)
        await other.close(None)


def another(edge: Edge) -> grpc.aio.Channel:
    """A connection of its own: where nobody is asked who they are, that is what tells callers apart."""
    return grpc.aio.insecure_channel(edge.server.address, options=channel_options())


async def test_a_connection_too_many_is_closed_and_those_that_stand_go_on() -> None:
    async with serving(connections_max=3) as edge:
        calm = edge.framed()
        assert (await calm(c.BeginRequest())).gtrid
        host, port = edge.server.address.split(":")
        opened = [await asyncio.open_connection(host, int(port)) for _ in range(6)]
        closed = [asyncio.create_task(reader.read()) for reader, _ in opened]
        await eventually(lambda: sum(_is_over(task) for task in closed) >= 4)
        assert sum(_is_over(task) for task in closed) == 4
        assert (await calm(c.BeginRequest())).gtrid
        for task, (_, writer) in zip(closed, opened, strict=True):
            task.cancel()
            writer.close()
        await asyncio.gather(*closed, return_exceptions=True)


def _is_over(reading: asyncio.Task[bytes]) -> bool:
    return reading.done()


async def test_more_calls_than_a_connection_may_have_at_once_wait_at_their_sender() -> None:
    async with serving(calls_per_connection_max=2) as edge:
        silent = [CallStream(edge.channel, COORDINATOR) for _ in range(2)]
        for stream in silent:
            await stream.ask(c.BeginRequest())
        waiting = asyncio.ensure_future(_unary(edge.channel))
        other = another(edge)
        for _ in range(20):  # a connection of its own is answered meanwhile
            await _unary(other)
        assert not waiting.done()
        await silent[0].close()
        assert await waiting
        await silent[1].close()
        await other.close()


async def _unary(channel: grpc.aio.Channel) -> bytes:
    method: Any = channel.unary_unary(COORDINATOR.methods[c.BeginRequest].path)
    answer: bytes = await method(b"")
    return answer
