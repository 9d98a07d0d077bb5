"""The limits on a caller, at the edge of a coordinator that runs."""

import asyncio
from pathlib import Path

import grpc
import grpc.aio
import pytest

import handfast
from handfast.frames import COORDINATOR, CallFailed, CallStream
from handfast.v1 import coordinator_pb2 as c
from handfast.v1 import coordinator_pb2_grpc
from tests.integration.coordinator.edge import operation, refusal, serving
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
