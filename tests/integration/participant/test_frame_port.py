"""A participant's frame port: opened as it is entered, closed as it is left, and where its options say."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc.aio
import pytest

from chaos.stack import free_port
from handfast.catalog import HandfastFault
from handfast.frames import PARTICIPANT, CallStream, channel_options
from handfast.frames.dialing import FrameDialer
from handfast.v1 import participant_pb2 as p
from participant import Participant, ParticipantOptions
from participant.testing import MemoryResource, serving
from tests.frame_sockets import local_name, over_local
from tests.integration.beside import connections, offer_of, raw_stream
from tests.waiting import eventually

NOBODY = "127.0.0.1:9"


class Watched(MemoryResource):
    """A resource that tells whether it is open."""

    opened = False

    async def open(self, bqual: str) -> None:
        """See ResourceManager."""
        self.opened = True

    async def close(self) -> None:
        """See ResourceManager."""
        self.opened = False


def stock(resource: MemoryResource | None = None, **options: Any) -> Participant[Any]:
    """A participant."""
    return Participant(
        "stock",
        resource or MemoryResource(),
        coordinator=NOBODY,
        address="127.0.0.1:0",
        options=ParticipantOptions(close_wait_s=0.01, **options),
    )


@asynccontextmanager
async def added(one: Participant[Any]) -> AsyncIterator[str]:
    """A server that serves it, as soon as it is entered; gives its address."""
    server = grpc.aio.server()
    one.add_to_server(server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(None)


async def test_the_coordinator_s_frames_come_in_beside_grpc_until_it_is_left() -> None:
    port = free_port()
    one = stock(frame_address=f"127.0.0.1:{port}")
    async with serving(one) as address:
        channel = grpc.aio.insecure_channel(address, options=channel_options())
        calls = CallStream(channel, PARTICIPANT, dialer=FrameDialer(address))
        await calls.ask(p.RecoverRequest(resource="stock"), timeout_s=10)
        assert len(over_local(port)) == connections(port) == 1
    await eventually(lambda: connections(port) == 0)
    assert local_name(port) is None
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)
    await calls.close()
    await channel.close(None)


async def test_one_that_is_entered_again_has_its_port_again() -> None:
    port = free_port()
    one = stock(frame_address=f"127.0.0.1:{port}")
    async with added(one) as address:
        for _ in range(2):
            async with one, grpc.aio.insecure_channel(address) as channel:
                stream = raw_stream(channel, PARTICIPANT.connect_path, address)
                assert (await offer_of(stream)).startswith(f":{port} ")
                stream.cancel()


async def test_two_resources_of_one_process_share_a_port() -> None:
    port = free_port()
    options = ParticipantOptions(close_wait_s=0.01, frame_address=f"127.0.0.1:{port}")
    both: list[Participant[Any]] = [
        Participant(name, MemoryResource(), coordinator=NOBODY, address="127.0.0.1:0", options=options)
        for name in ("stock", "orders")
    ]
    async with serving(*both) as address, grpc.aio.insecure_channel(address) as channel:
        stream = raw_stream(channel, PARTICIPANT.connect_path, address)
        assert (await offer_of(stream)).startswith(f":{port} ")
        stream.cancel()


async def test_who_dialed_a_proxy_is_told_where_it_is_behind_it() -> None:
    one = stock(frame_via={"proxy:7501": "proxy:7511"})
    async with serving(one) as address, grpc.aio.insecure_channel(address) as channel:
        stream = raw_stream(channel, PARTICIPANT.connect_path, "proxy:7501")
        assert (await offer_of(stream)).startswith("proxy:7511 ")
        stream.cancel()


async def test_switched_off_it_is_offered_to_nobody() -> None:
    async with serving(stock(frame_address="off")) as address, grpc.aio.insecure_channel(address) as channel:
        stream = raw_stream(channel, PARTICIPANT.connect_path, address)
        assert await offer_of(stream) == "none"
        stream.cancel()


async def test_one_that_was_asked_for_and_is_taken_is_told_and_nothing_stays_open() -> None:
    resource = Watched()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        one = stock(resource, frame_address=f"127.0.0.1:{taken.getsockname()[1]}")
        async with added(one):
            with pytest.raises(HandfastFault, match="frame_address"):
                await one.__aenter__()
            assert not resource.opened
            taken.close()
            async with one:
                assert resource.opened


async def test_an_address_of_another_machine_leaves_frames_to_grpc(caplog: pytest.LogCaptureFixture) -> None:
    """Behind NAT the participant's address is none of its own, and nobody said where frames may come in."""
    one = stock()
    one.address = "192.0.2.1:7501"
    async with added(one), one:
        assert "so frames travel over gRPC" in caplog.text
