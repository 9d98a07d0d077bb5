"""Any bytes at all at both ends of a frame connection, and any text where an offer of one should be.

What holds for each: what comes out is what a model of ten lines reads out of the same bytes, however they are cut;
nothing is raised but what is meant to be; and what is no offer leaves the frames to gRPC.
"""

import asyncio
import socket
from collections.abc import Callable, Coroutine
from typing import Any
from unittest.mock import patch

from handfast.frames.connection import FrameConnection, FrameTooLarge
from handfast.frames.dialing import HEADER, LOCAL_HEADER, FrameDialer
from tests.fuzz.loudness import quiet
from tests.unit.handfast.frame_transport import FakeTransport

FRAME_BYTES_MAX = 300
PING = 2**32 - 1
GREETING = b"a greeting"
NOBODY = "127.0.0.1:1"


def model(data: bytes) -> tuple[list[bytes], str]:
    """The frames that these bytes hold, and why there are no more."""
    frames: list[bytes] = []
    asked = False
    while len(data) >= 4:
        length = int.from_bytes(data[:4], "big")
        if length == PING and not asked:
            data, asked = data[4:], True
            continue
        if length > FRAME_BYTES_MAX:
            return frames, "too large"
        if length == 0:
            return frames, "finished"
        if len(data) < 4 + length:
            break
        frames.append(data[4 : 4 + length])
        data = data[4 + length :]
    return frames, "cut off"


async def check_connection(data: bytes) -> None:
    """A peer that says this; the first byte tells in what pieces."""
    size, said = (data[0] % 64 + 1, data[1:]) if data else (1, b"")
    greeted = []

    def greet(_: FrameConnection, greeting: bytes) -> bool:
        greeted.append(greeting)
        return greeting == GREETING

    connection = FrameConnection(greet, len(GREETING), FRAME_BYTES_MAX)
    transport = FakeTransport(connection)
    for begin in range(0, len(said), size):
        if not transport.aborted:
            connection.data_received(said[begin : begin + size])
    connection.connection_lost(None)
    welcome = said.startswith(GREETING)
    expected, why = model(said[len(GREETING) :]) if welcome else ([], "cut off")
    read, too_large = await _all_of(connection)
    assert greeted == ([said[: len(GREETING)]] if len(said) >= len(GREETING) else [])
    assert read == expected
    assert too_large is (why == "too large")
    assert connection.finished is (why == "finished")
    assert len(transport.written) <= 4, "one question is answered, and not another right after it"
    assert transport.aborted is (too_large or (bool(greeted) and not welcome))


async def _all_of(connection: FrameConnection) -> tuple[list[bytes], bool]:
    read = []
    try:
        while (frame := await connection.read()) is not None:
            read.append(frame)
    except FrameTooLarge:
        return read, True
    return read, False


class _Stream:
    def __init__(self, offer: str, name: str) -> None:
        self._offer = offer
        self._name = name

    async def initial_metadata(self) -> list[tuple[str, str]]:
        return [(HEADER, self._offer), (LOCAL_HEADER, self._name)]


async def _know_nobody(*_: Any, **__: Any) -> Any:
    raise socket.gaierror("no names are looked up here")


async def check_offer(data: bytes) -> None:
    """A server that offers this, and after a tab a local socket. Where anybody could be, nobody is."""
    dialer, loop = FrameDialer(NOBODY), asyncio.get_running_loop()
    offer, _, name = data.decode("utf-8", "replace").partition("\t")
    with quiet(), patch.object(loop, "getaddrinfo", _know_nobody):
        assert await dialer.open(_Stream(offer, name)) is None


CHECKS: dict[int, Callable[[bytes], Coroutine[Any, Any, None]]] = {0: check_connection, 1: check_offer}


def check(data: bytes) -> None:
    """Bytes from a fuzzer: the first chooses the end, the others are what it is told."""
    end = data[0] % len(CHECKS) if data else 0
    asyncio.run(CHECKS[end](data[1:]))
