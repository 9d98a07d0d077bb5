"""A transport for frame connections that goes nowhere, and is moved by hand."""

import asyncio
import socket
from struct import Struct
from typing import Any

from handfast.frames.connection import FrameConnection

_LENGTH = Struct(">I")


class FakeTransport(asyncio.Transport):
    """What was done to it."""

    def __init__(self, connection: FrameConnection) -> None:
        super().__init__()
        self._connection = connection
        self.written = bytearray()
        self._reading = True
        self.closed = self.aborted = False
        connection.connection_made(self)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """See asyncio.Transport."""
        return _Socket()

    def write(self, data: Any) -> None:
        """See asyncio.Transport."""
        self.written += data

    def pause_reading(self) -> None:
        """See asyncio.Transport."""
        self._reading = False

    def resume_reading(self) -> None:
        """See asyncio.Transport."""
        self._reading = True

    def is_reading(self) -> bool:
        """See asyncio.Transport."""
        return self._reading

    def is_closing(self) -> bool:
        """See asyncio.Transport."""
        return self.closed or self.aborted

    def close(self) -> None:
        """See asyncio.Transport."""
        self.closed = True

    def abort(self) -> None:
        """See asyncio.Transport."""
        self.aborted = True


class _Socket:
    family = socket.AF_INET

    def setsockopt(self, *_: Any) -> None:
        """Taken note of by nobody."""


def framed(*frames: bytes) -> bytes:
    """The bytes of these frames on the wire."""
    return b"".join(_LENGTH.pack(len(frame)) + frame for frame in frames)


def announced(length: int) -> bytes:
    """The beginning of a frame of this length."""
    return _LENGTH.pack(length)


END = announced(0)


def greeted(greeting_bytes: int = 0, frame_bytes_max: int = 1024) -> tuple[FrameConnection, FakeTransport]:
    """A connection whose greeting is welcome whatever it is."""
    connection = FrameConnection(lambda _, greeting: True, greeting_bytes, frame_bytes_max)
    return connection, FakeTransport(connection)
