"""The mischief, by name. Each runs until it is cancelled, as fast as it can, and survives whatever is done to it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from benchmarks.garbage.frame_kinds import FRAME_KINDS
from benchmarks.garbage.lab import tls_of
from handfast.frames import COORDINATOR
from handfast.tls import open_channel
from handfast.v1 import coordinator_pb2 as c

STREAMS = 8
CALLS_IN_FRAME = 256
UNARY_AT_ONCE = 256
HALF_OPEN = 200
PAUSE_S = 0.05
MIB = 2**20
UNKNOWN = "zzzzzzzz-1-1-1"

Kind = Callable[[str, Path], Awaitable[None]]


def _frame(fill: Callable[[Any], None]) -> bytes:
    frame = c.CoordinatorConnectRequest()
    for number in range(CALLS_IN_FRAME):
        fill(frame.calls.add(id=number + 1))
    return frame.SerializeToString()


def _begin(call: Any) -> None:
    call.begin.timeout_ms = 5_000


def _inquire(call: Any) -> None:
    call.inquire.gtrid = UNKNOWN


BEGINS = _frame(_begin)
INQUIRIES = _frame(_inquire)


async def begin_flood(address: str, tls: Path) -> None:
    """Begin without Commit; the answers are read."""
    await _streams(address, tls, BEGINS, reads=True)


async def message_flood(address: str, tls: Path) -> None:
    """Questions about transactions of nobody; the answers are read."""
    await _streams(address, tls, INQUIRIES, reads=True)


async def slow_reader(address: str, tls: Path) -> None:
    """The same questions, and no answer is ever read."""
    await _streams(address, tls, INQUIRIES, reads=False)


async def empty_calls(address: str, tls: Path) -> None:
    """Frames as dense as they come: calls that ask nothing, two bytes each."""
    await _streams(address, tls, b"\x0a\x00" * (32 * 1024), reads=True)


async def dense_frames(address: str, tls: Path) -> None:
    """The same in frames of almost 16 MiB."""
    await _streams(address, tls, b"\x0a\x00" * (8 * MIB - 1024), reads=True, streams=2)


async def huge_frames(address: str, tls: Path) -> None:
    """Frames of almost 16 MiB that hold one operation, for nobody."""
    frame = c.CoordinatorConnectRequest()
    frame.calls.add(id=1).execute.operations.add(resource="nobody", name="x", payload=bytes(16 * MIB - 1024))
    await _streams(address, tls, frame.SerializeToString(), reads=True, streams=2)


async def malformed_frames(address: str, tls: Path) -> None:
    """Bytes that are no frame, on ever new streams."""
    await _streams(address, tls, os.urandom(1024), reads=True)


async def half_open_streams(address: str, tls: Path) -> None:
    """Streams without a word, as many as there may be, opened again whenever one is refused."""
    channel = open_channel(address, tls_of(tls, "client-garbage"))

    async def hold() -> None:
        while True:
            with contextlib.suppress(grpc.aio.AioRpcError):
                stream: Any = _connect(channel)
                await stream.read()
            await asyncio.sleep(PAUSE_S)

    await _all([hold() for _ in range(2 * HALF_OPEN)])


async def unary_flood(address: str, tls: Path) -> None:
    """Unary questions, 256 at once."""
    channel = open_channel(address, tls_of(tls, "client-garbage"))
    question = c.InquireRequest(gtrid=UNKNOWN).SerializeToString()

    async def ask() -> None:
        method: Any = channel.unary_unary("/handfast.v1.Coordinator/Inquire")
        while True:
            with contextlib.suppress(grpc.aio.AioRpcError):
                await method(question)

    await _all([ask() for _ in range(UNARY_AT_ONCE)])


async def half_open_tcp(address: str, tls: Path) -> None:
    """TCP connections without a word, and some with half a TLS handshake."""

    async def hold(number: int) -> None:
        while True:
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_connection(*address.split(":"))
                writer.write(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" if number % 2 else b"")
                await reader.read()
                writer.close()
            await asyncio.sleep(PAUSE_S)

    await _all([hold(number) for number in range(HALF_OPEN)])


async def raw_bytes(address: str, tls: Path) -> None:
    """TCP connections that say something that is neither TLS nor HTTP/2, one after the other."""

    async def shout() -> None:
        while True:
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_connection(*address.split(":"))
                writer.write(os.urandom(4096))
                await reader.read()
                writer.close()

    await _all([shout() for _ in range(STREAMS)])


async def handshakes(address: str, tls: Path) -> None:
    """Whole TLS handshakes with a valid certificate, and nothing after them."""
    files = tls_of(tls, "client-garbage")
    context = ssl.create_default_context(cafile=str(files.ca_file))
    context.load_cert_chain(str(files.cert_file), str(files.key_file))
    context.set_alpn_protocols(["h2"])

    async def shake() -> None:
        host, port = address.split(":")
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection(host, port, ssl=context)
                writer.close()
                await writer.wait_closed()

    await _all([shake() for _ in range(STREAMS)])


KINDS: Mapping[str, Kind] = {
    kind.__name__.replace("_", "-"): kind
    for kind in (
        begin_flood,
        message_flood,
        slow_reader,
        empty_calls,
        dense_frames,
        huge_frames,
        malformed_frames,
        half_open_streams,
        unary_flood,
        half_open_tcp,
        raw_bytes,
        handshakes,
        *FRAME_KINDS,
    )
}


def _connect(channel: grpc.aio.Channel) -> Any:
    method: Any = channel.stream_stream(COORDINATOR.connect_path)
    return method()


async def _streams(address: str, tls: Path, frame: bytes, *, reads: bool, streams: int = STREAMS) -> None:
    """Write the same frame down several streams for ever."""

    async def flood() -> None:
        channel = open_channel(address, tls_of(tls, "client-garbage"))
        while True:
            with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                stream = _connect(channel)
                reader = asyncio.create_task(_read(stream)) if reads else None
                try:
                    while True:
                        await stream.write(frame)
                finally:
                    if reader is not None:
                        reader.cancel()
            await asyncio.sleep(0)

    await _all([flood() for _ in range(streams)])


async def _read(stream: Any) -> None:
    with contextlib.suppress(grpc.aio.AioRpcError):
        while await stream.read() is not grpc.aio.EOF:
            pass


async def _all(tasks: list[Awaitable[None]]) -> None:
    await asyncio.gather(*tasks)
