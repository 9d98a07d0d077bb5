"""Callers of a frame port made by hand, over whichever way, and scenarios with a port."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import psutil
import pytest
import uvloop

from handfast.frames import FramePort, local, ports
from handfast.frames.connection import MAGIC, FrameConnection
from tests.fuzz.loudness import quiet
from tests.waiting import eventually

Scenario = Callable[[FramePort], Coroutine[Any, Any, None]]
LOOPS = pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
TCP, LOCAL = "TCP", "local"
WAYS = pytest.mark.parametrize("way", [TCP, LOCAL])
HOST = "127.0.0.1"
ADDRESS = f"{HOST}:7400"
WAIT_S = 5.0


def on(loop: Callable[[], asyncio.AbstractEventLoop], scenario: Scenario, **settings: Any) -> None:
    """Run a scenario with a port; nothing is said, and nothing stays open."""

    async def run() -> None:
        before = sockets()
        port = FramePort(HOST, **settings)
        try:
            await scenario(port)
        finally:
            port.close()
        await eventually(lambda: sockets() <= before)

    with quiet(), asyncio.Runner(loop_factory=loop) as runner:
        runner.run(run())


def sockets() -> int:
    """How many this process has open."""
    return len(psutil.Process().net_connections("all"))


class Caller:
    """A connection made by hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    @classmethod
    async def to(cls, port: FramePort, host: str = HOST, *, way: str = TCP, **settings: Any) -> "Caller":
        """Connect."""
        if way == LOCAL:
            assert port.local is not None
            return cls(*await asyncio.open_unix_connection(sock=local.connected(port.local)))
        return cls(*await asyncio.open_connection(host, port.port, **settings))

    async def says(self, data: bytes) -> "Caller":
        """Send this."""
        self.writer.write(data)
        await self.writer.drain()
        return self

    async def is_cut_off(self) -> bool:
        """Wait for that; False when anything was said before."""
        try:
            said = await asyncio.wait_for(self._reader.read(1), WAIT_S)
        except ConnectionError:
            return True
        finally:
            self.leave()
        return not said

    async def is_welcome(self) -> bool:
        """Wait for the greeting."""
        try:
            return await asyncio.wait_for(self._reader.readexactly(len(MAGIC)), WAIT_S) == MAGIC
        except (asyncio.IncompleteReadError, ConnectionError):
            return False

    def leave(self) -> None:
        """Leave at once."""
        self.writer.transport.abort()


def offered(port: FramePort) -> ports.Offer:
    """A ticket."""
    offer = port.offer(ADDRESS)
    assert offer is not None
    return offer


async def taken(offer: ports.Offer) -> FrameConnection:
    """The connection that it opened."""
    return await asyncio.wait_for(asyncio.shield(offer.taken), WAIT_S)
