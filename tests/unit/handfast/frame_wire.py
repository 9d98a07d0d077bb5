"""A wire between a caller and a frame port, for tests that hurt it."""

import asyncio
import contextlib

HOST = "127.0.0.1"


class Wire:
    """A proxy before a frame port, which can be cut, or swallow what comes."""

    def __init__(self) -> None:
        self.port = 0
        self.to = 0
        self.swallows = self.swallows_frames = False
        self.carried = 0
        self._ended = False
        self._server: asyncio.Server
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> "Wire":
        self._server = await asyncio.start_server(self._carry, HOST, 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._ended = True
        self._server.close()
        self.cut()
        await self._server.wait_closed()
        await asyncio.sleep(0)  # what was cut is closed with the loop's next turn

    def cut(self) -> None:
        """Break all that goes over it."""
        for writer in self._writers:
            writer.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.carried += 1
        self._writers.add(writer)
        if self._ended:
            writer.transport.abort()
            return
        try:
            far_reader, far_writer = await asyncio.open_connection(HOST, self.to)
        except OSError:
            writer.transport.abort()  # nobody is there
            return
        self._writers.add(far_writer)
        if not self.swallows:
            await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(2**16):
                if self.swallows_frames and not data.startswith(b"handfast"):
                    self.cut()
                writer.write(data)
                await writer.drain()
        writer.close()
