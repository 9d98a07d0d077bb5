"""A coordinator's frame port: found where it is said to be, and as bounded as gRPC."""

import asyncio
import contextlib
from pathlib import Path

import grpc.aio
import pytest

import handfast
from chaos.stack import free_port
from handfast.catalog import HandfastFault
from handfast.frames import COORDINATOR, CallFailed, CallStream, failure_of_rpc
from handfast.frames.dialing import FrameDialer
from handfast.v1 import coordinator_pb2 as c
from handfast.v1 import participant_pb2 as p
from tests.frame_sockets import over_local, over_tcp
from tests.integration.beside import callers, connections, offer_of, raw_connection, raw_stream
from tests.integration.coordinator.edge import Edge, serving
from tests.integration.coordinator.participants import Scripted
from tests.waiting import eventually

HOST = "127.0.0.1"


def asking(edge: Edge) -> CallStream:
    """Calls as the client makes them."""
    return CallStream(edge.channel, COORDINATOR, dialer=FrameDialer(edge.server.address))


async def test_a_transaction_travels_beside_grpc_all_the_way() -> None:
    accounts = Scripted("accounts")
    async with serving(accounts) as edge, handfast.connect(edge.server.address) as tm:
        result = await tm.execute([("accounts", "work", b"")])
        assert result.outcome is handfast.Outcome.COMMITTED
        assert connections(edge.server.frame_port) == 1
        assert connections(accounts.frame_port) == 1


async def test_on_one_machine_it_travels_over_local_sockets_all_the_way() -> None:
    accounts = Scripted("accounts")
    async with serving(accounts) as edge, handfast.connect(edge.server.address) as tm:
        results = await asyncio.gather(*(tm.execute([("accounts", "work", b"")]) for _ in range(64)))
        assert {result.outcome for result in results} == {handfast.Outcome.COMMITTED}
        for port in (edge.server.frame_port, accounts.frame_port):
            assert port is not None
            assert len(over_local(port.port)) == 1
            assert not over_tcp(port.port)


async def test_where_a_proxy_stands_in_front_nothing_goes_past_it() -> None:
    address, port = f"{HOST}:{free_port()}", free_port()
    via = {address: f"{HOST}:{port}"}
    async with (
        serving(address=address, frame_address=f"{HOST}:{port}", frame_via=via) as edge,
        handfast.connect(address) as tm,
        tm.transaction(),
    ):
        assert len(over_tcp(port)) == 1
        assert not over_local(port)
        assert edge.server.frame_port is not None
        assert edge.server.frame_port.local is not None, "others may use it"


async def test_when_the_coordinator_has_stopped_none_is_left() -> None:
    accounts = Scripted("accounts")
    async with serving(accounts) as edge, handfast.connect(edge.server.address) as tm:
        await tm.execute([("accounts", "work", b"")])
        await edge.server.stop()
        await eventually(lambda: connections(edge.server.frame_port) == 0 == connections(accounts.frame_port))


# -- settings ------------------------------------------------------------------------------------------------------


async def test_switched_off_it_is_offered_to_nobody() -> None:
    async with serving(frame_address="off") as edge:
        assert edge.server.frame_port is None
        stream = raw_stream(edge.channel, COORDINATOR.connect_path, edge.server.address)
        assert await offer_of(stream) == "none"
        stream.cancel()
        assert (await asking(edge).ask(c.BeginRequest(), timeout_s=10)).gtrid  # type: ignore[attr-defined] # BeginResponse


async def test_it_is_where_the_setting_says() -> None:
    port = free_port()
    async with serving(frame_address=f"{HOST}:{port}") as edge:
        assert edge.server.frame_port is not None
        assert edge.server.frame_port.port == port


@pytest.mark.parametrize(
    ("address", "dialed"),
    [("[::1]:0", "[::1]"), ("[::]:0", HOST), ("[::]:0", "[::1]"), ("0.0.0.0:0", "[::1]"), ("localhost:0", "localhost")],
)
async def test_left_to_chance_it_is_found_wherever_grpc_is(address: str, dialed: str) -> None:
    async with serving(address=address, insecure=True) as edge:
        async with handfast.connect(f"{dialed}:{edge.server.address.rpartition(':')[2]}") as tm, tm.transaction():
            assert connections(edge.server.frame_port) == 1


async def test_one_that_was_asked_for_and_is_taken_ends_the_start() -> None:
    async with serving() as edge:
        assert edge.server.frame_port is not None
        with pytest.raises(HandfastFault, match="in use"):
            async with serving(frame_address=f"{HOST}:{edge.server.frame_port.port}"):
                pass


async def test_who_dialed_a_proxy_is_told_where_it_is_behind_it() -> None:
    async with serving(frame_via={"proxy.example:7400": "proxy.example:7411"}) as edge:
        for dialed, where in (("proxy.example:7400", "proxy.example:7411"), (edge.server.address, ":")):
            stream = raw_stream(edge.channel, COORDINATOR.connect_path, dialed)
            assert (await offer_of(stream)).startswith(where)
            stream.cancel()


# -- limits --------------------------------------------------------------------------------------------------------


async def test_a_client_that_never_reads_comes_to_a_stop_and_others_go_on() -> None:
    async with serving(calls_per_stream_max=512) as edge:
        calm = edge.framed()
        other = grpc.aio.insecure_channel(edge.server.address)
        _, mute = await raw_connection(other, edge.server.address)
        assert mute._transport is not None
        mute._transport.pause_reading()
        frame = c.CoordinatorConnectRequest()
        for number in range(256):
            frame.calls.add(id=number).inquire.gtrid = "x" * 80
        data, written = frame.SerializeToString(), 0
        while written < 2_000:
            pending = mute.write(data)
            if pending is not None:
                try:
                    await asyncio.wait_for(pending, timeout=2.0)
                except TimeoutError:
                    break
            written += 1
        assert written < 2_000, "half a million calls were taken, and no answer to any"
        assert (await calm(c.BeginRequest())).gtrid
        mute.abort()
        await other.close(None)


async def test_small_frames_by_the_thousand_leave_the_others_their_turn() -> None:
    async with serving() as edge:
        calm, other = edge.framed(), grpc.aio.insecure_channel(edge.server.address)
        await calm(c.BeginRequest())
        _, flood = await raw_connection(other, edge.server.address)
        frame = c.CoordinatorConnectRequest()
        frame.calls.add().inquire.gtrid = "x"
        answered = 0

        async def go_on() -> None:
            number = 0
            while True:
                number = frame.calls[0].id = number + 1
                pending = flood.write(frame.SerializeToString())
                if pending is not None:
                    await pending
                elif not number % 100:
                    await asyncio.sleep(0)

        async def read() -> None:
            nonlocal answered
            while await flood.read() is not None:
                answered += 1

        tasks = [asyncio.create_task(go_on()), asyncio.create_task(read())]
        for _ in range(20):
            assert (await asyncio.wait_for(calm(c.BeginRequest()), 10)).gtrid
        assert answered
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        flood.abort()
        await other.close(None)


async def test_a_frame_that_is_too_large_ends_the_stream_and_says_so() -> None:
    async with serving(frame_bytes_max=2**20) as edge:
        stream, connection = await raw_connection(edge.channel, edge.server.address)
        pending = connection.write(bytes(2**20 + 1))
        if pending is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait_for(pending, 10)
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await asyncio.wait_for(stream.read(), 10)
        failure = failure_of_rpc(ended.value, "the coordinator")
        assert failure.code == "MESSAGE_MALFORMED"
        assert "more than 1048576" in failure.message
        assert (await edge.framed()(c.BeginRequest())).gtrid


# -- ends ----------------------------------------------------------------------------------------------------------


async def test_a_stream_of_age_is_renewed_with_its_connection() -> None:
    accounts = Scripted("accounts")
    async with serving(accounts, connection_age_max_s=0.3) as edge, handfast.connect(edge.server.address) as tm:
        seen: set[str] = set()
        committed: set[str] = set()
        async with asyncio.timeout(30):
            while len(seen) < 3:
                committed.add((await tm.execute([("accounts", "work", b"")])).gtrid)
                seen |= callers(edge.server.frame_port)
                assert len(callers(edge.server.frame_port)) <= 2, "one that ends, and the next"
        ended = {request.gtrid for request in accounts.asked if isinstance(request, p.CommitOnePhaseRequest)}
        assert committed
        assert committed <= ended


async def test_a_coordinator_that_starts_again_elsewhere_is_found_with_its_new_port(tmp_path: Path) -> None:
    address = f"{HOST}:{free_port()}"
    async with handfast.connect(address) as tm:
        for _ in range(2):
            async with serving(address=address) as edge:
                async with asyncio.timeout(20):
                    while True:
                        with contextlib.suppress(handfast.CoordinatorUnavailable, CallFailed):
                            async with tm.transaction():
                                break
                assert connections(edge.server.frame_port) == 1
            # Until then it takes names for its own that only the coordinator which is gone has handed out.
            await eventually(lambda: not tm.connected)
