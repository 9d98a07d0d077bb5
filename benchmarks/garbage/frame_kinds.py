"""Mischief at the frame port. A ticket is kept out all the while, for without one nobody is let in there."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from benchmarks.garbage.lab import tls_of
from handfast.frames import COORDINATOR
from handfast.frames.connection import MAGIC, TICKET_BYTES
from handfast.frames.dialing import HEADER
from handfast.tls import open_channel

CONNECTIONS = 200
AT_ONCE = 8
PAUSE_S = 0.05
TICKET_KEPT_S = 8.0
NONSENSE = (
    (0xFFFF_FFFF).to_bytes(4, "big") + os.urandom(1024),
    (1024).to_bytes(4, "big") + os.urandom(1024),
    (16 * 2**20).to_bytes(4, "big") + bytes(2**20),
)
"""A frame of four GiB, one of bytes that are none, and the beginning of one that never ends."""


async def frame_silence(address: str, tls: Path) -> None:
    """Connections to the frame port without a word."""

    async def hold(host: str, port: int) -> None:
        reader, writer = await asyncio.open_connection(host, port)
        await reader.read()
        writer.close()
        await asyncio.sleep(PAUSE_S)

    await _beside_tickets(address, tls, hold, CONNECTIONS)


async def frame_raw_bytes(address: str, tls: Path) -> None:
    """Connections to the frame port that say something that is no TLS, one after the other."""

    async def shout(host: str, port: int) -> None:
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(os.urandom(4096))
        await reader.read()
        writer.close()

    await _beside_tickets(address, tls, shout, AT_ONCE)


async def frame_no_ticket(address: str, tls: Path) -> None:
    """Whole TLS handshakes with a valid certificate at the frame port, and then a ticket that was made up."""
    context = _context(tls)

    async def guess(host: str, port: int) -> None:
        reader, writer = await asyncio.open_connection(host, port, ssl=context)
        writer.write(MAGIC + os.urandom(TICKET_BYTES))
        await reader.read()
        writer.close()

    await _beside_tickets(address, tls, guess, AT_ONCE)


async def frame_nonsense(address: str, tls: Path) -> None:
    """Frames with absurd lengths, and such as are none, from a caller with a ticket, on ever new streams."""
    channel = open_channel(address, tls_of(tls, "client-garbage"))
    context = _context(tls)

    async def talk(number: int) -> None:
        while True:
            with contextlib.suppress(OSError, grpc.aio.AioRpcError, asyncio.IncompleteReadError, ValueError):
                stream, host, port, ticket = await _offer(channel, address)
                try:
                    reader, writer = await asyncio.open_connection(host, port, ssl=context)
                    writer.write(MAGIC + ticket)
                    await reader.readexactly(len(MAGIC))
                    writer.write(NONSENSE[number % len(NONSENSE)])
                    await reader.read()
                    writer.close()
                finally:
                    stream.cancel()

    await asyncio.gather(*(talk(number) for number in range(AT_ONCE)))


FRAME_KINDS = (frame_silence, frame_raw_bytes, frame_no_ticket, frame_nonsense)


async def _beside_tickets(
    address: str, tls: Path, mischief: Callable[[str, int], Awaitable[None]], at_once: int
) -> None:
    """Do it over and over, while a stream has a ticket and does not use it."""
    channel = open_channel(address, tls_of(tls, "client-garbage"))
    stream, host, port, _ = await _offer(channel, address)

    async def over_and_over() -> None:
        while True:
            with contextlib.suppress(OSError):
                await mischief(host, port)

    async def keep_a_ticket_out() -> None:
        nonlocal stream
        while True:
            await asyncio.sleep(TICKET_KEPT_S)
            with contextlib.suppress(grpc.aio.AioRpcError, ValueError):
                kept, stream = stream, (await _offer(channel, address))[0]
                kept.cancel()

    await asyncio.gather(keep_a_ticket_out(), *(over_and_over() for _ in range(at_once)))


async def _offer(channel: grpc.aio.Channel, address: str) -> tuple[Any, str, int, bytes]:
    """A stream, and where its frame port is, and the ticket.

    Raises:
        ValueError: there is no such offer.
    """
    method: Any = channel.stream_stream(COORDINATOR.connect_path)
    stream = method(metadata=((HEADER, address),))
    for key, value in await stream.initial_metadata():
        if key == HEADER:
            where, _, ticket = str(value).partition(" ")
            return stream, address.partition(":")[0], int(where.rpartition(":")[2]), bytes.fromhex(ticket)
    raise ValueError("no frame port was offered")


def _context(tls: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    tls_of(tls, "client-garbage").files().load_into(context)
    return context
