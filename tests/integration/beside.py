"""Connections beside streams, as tests look at them from outside."""

import asyncio
from typing import Any

import grpc.aio

from handfast.frames import COORDINATOR, FramePort
from handfast.frames.connection import FrameConnection
from handfast.frames.dialing import HEADER, FrameDialer
from tests.frame_sockets import over_local, over_tcp


def callers(port: FramePort | int | None) -> set[str]:
    """The frame connections that stand at this port, or at the local socket beside it."""
    assert port is not None
    number = port if isinstance(port, int) else port.port
    return over_tcp(number) | over_local(number)


def connections(port: FramePort | int | None) -> int:
    """How many there are."""
    return len(callers(port))


def raw_stream(channel: grpc.aio.Channel, path: str, address: str, *metadata: tuple[str, str]) -> Any:
    """A stream of bytes that asks for a frame port."""
    method: Any = channel.stream_stream(path)
    return method(metadata=((HEADER, address), *metadata))


async def offer_of(stream: Any) -> str:
    """What it was offered."""
    return str(dict(await asyncio.wait_for(stream.initial_metadata(), 10)).get(HEADER, "no answer"))


async def raw_connection(channel: grpc.aio.Channel, address: str) -> tuple[Any, FrameConnection]:
    """A coordinator's stream, and a connection beside it."""
    dialer = FrameDialer(address)
    stream = raw_stream(channel, COORDINATOR.connect_path, address)
    connection = await dialer.open(stream)
    assert connection is not None
    return stream, connection
