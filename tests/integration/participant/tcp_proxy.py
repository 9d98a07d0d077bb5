"""A TCP proxy that can cut its connections at the moment a test chooses."""

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Self


class TcpProxy:
    """Forwards to 127.0.0.1.

    Args:
        port: where to forward to.

    Attributes:
        swallow_reply_after: asked for each chunk that a client sends; once true, the client's connection forwards the
            chunk, and cuts the client off without forwarding the server's reply.
        cut_before: likewise; the connection is cut without forwarding the chunk.
        keep_server_side: the server does not learn of a cut, as when the client's machine vanished.
        stalled: nothing is forwarded any more, and nothing is cut.
    """

    def __init__(self, port: int) -> None:
        self.port = 0
        self.swallow_reply_after: Callable[[bytes], bool] = lambda chunk: False
        self.cut_before: Callable[[bytes], bool] = lambda chunk: False
        self.keep_server_side = False
        self.stalled = False
        self._target = port
        self._tasks: set[asyncio.Task[None]] = set()
        self._kept: list[asyncio.StreamWriter] = []
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for server_writer in self._kept:
            server_writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._target)
        replies = asyncio.create_task(_pump(server_reader, writer))
        self._tasks |= {replies, self._own_task()}
        try:
            while chunk := await reader.read(65536):
                if self.stalled:
                    continue
                if self.cut_before(chunk):
                    break
                swallow = self.swallow_reply_after(chunk)
                if swallow:
                    replies.cancel()
                server_writer.write(chunk)
                await server_writer.drain()
                if swallow:
                    await server_reader.read(65536)  # the server has done it, and said so
                    break
        except (ConnectionError, asyncio.CancelledError):
            pass  # either side has gone, or the test has ended: both connections are closed below
        finally:
            replies.cancel()
            writer.transport.abort()
            if not self.keep_server_side:
                server_writer.transport.abort()
            self._kept.append(server_writer)

    def _own_task(self) -> asyncio.Task[None]:
        task = asyncio.current_task()
        assert task is not None
        return task


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while chunk := await reader.read(65536):
            writer.write(chunk)
            await writer.drain()
    except ConnectionError:
        pass  # the client has gone
    finally:
        writer.close()
