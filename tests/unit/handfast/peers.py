"""Coordinators to talk to in tests: real gRPC servers on loopback whose answers the test chooses."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import Message

from handfast.frames import (
    COORDINATOR,
    Dispatch,
    FramePort,
    TakeColumns,
    answer_unary,
    careful,
    carried,
    channel_options,
    serve_frames,
    server_options,
)
from handfast.frames.channels import Options
from handfast.v1 import coordinator_pb2_grpc

Wrap = Callable[[AsyncIterator[Any]], AsyncIterator[Any]]


class Peer:
    """A served coordinator: what it was asked, and how."""

    def __init__(
        self,
        dispatch: Dispatch,
        *,
        framed: bool,
        frame_port: FramePort | None = None,
        columns: TakeColumns | None = None,
        options: Options | None = None,
    ) -> None:
        self.framed = framed
        self.frame_port = frame_port
        self.columns = columns
        self.frame_sizes: list[int] = []
        self.row_counts: list[int] = []
        self.asked: list[Message] = []
        self.unary_calls = 0
        self.streams = 0
        self.streams_ended = 0
        self.port = 0
        self.server: grpc.aio.Server
        self.stop_streams = asyncio.Event()
        self._dispatch = dispatch
        self._options = server_options() if options is None else options

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Listen; after `kill` on the same port as before."""
        self.server = grpc.aio.server(options=self._options)
        coordinator_pb2_grpc.add_CoordinatorServicer_to_server(_Servicer(self), careful(self.server))
        self.port = self.server.add_insecure_port(f"127.0.0.1:{self.port}")
        await self.server.start()

    async def kill(self) -> None:
        """Break every connection and stop listening."""
        await self.server.stop(None)

    def dispatch(self, request: Message, reply: Callable[[Any], None]) -> None:
        """Note the request and pass it on."""
        self.asked.append(request)
        self._dispatch(request, reply)

    async def count_frames(self, frames: AsyncIterator[Any]) -> AsyncIterator[Any]:
        """Note how many single calls each frame holds, and how many rows each of its columns."""
        async for frame in frames:
            self.frame_sizes.append(len(frame.calls))
            self.row_counts += [columns.count for columns in frame.executes]
            yield frame


class _Servicer(coordinator_pb2_grpc.CoordinatorServicer):
    """Every method by the peer's one dispatch."""

    def __init__(self, peer: Peer) -> None:
        async def unary(request: Message, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            peer.unary_calls += 1
            return await answer_unary(peer.dispatch, request, context)

        async def connect(frames: AsyncIterator[Any], context: grpc.aio.ServicerContext[Any, Any]) -> None:
            peer.streams += 1
            try:
                async with carried(COORDINATOR, peer.frame_port, frames, context) as (calls, replies):
                    counted = peer.count_frames(calls)
                    await serve_frames(
                        COORDINATOR, counted, replies, peer.dispatch, stop=peer.stop_streams, columns=peer.columns
                    )
            finally:
                peer.streams_ended += 1

        for method in COORDINATOR.methods.values():
            setattr(self, method.name, unary)
        if peer.framed:
            self.Connect = connect  # type: ignore[assignment,method-assign] # the stub knows only the generator form


@asynccontextmanager
async def served(
    dispatch: Dispatch,
    *,
    framed: bool = True,
    frame_port: FramePort | None = None,
    columns: TakeColumns | None = None,
    options: Options | None = None,
) -> AsyncIterator[Peer]:
    """Serve a coordinator for as long as the block lasts."""
    peer = Peer(dispatch, framed=framed, frame_port=frame_port, columns=columns, options=options)
    await peer.start()
    try:
        yield peer
    finally:
        await peer.kill()
        if peer.frame_port is not None:
            peer.frame_port.close()


def channel_to(peer: Peer, **others: int) -> grpc.aio.Channel:
    """A channel as the SDKs make it, but for these options, without their ``grpc.``."""
    options = dict(channel_options()) | {f"grpc.{name}": value for name, value in others.items()}
    return grpc.aio.insecure_channel(peer.address, options=tuple(options.items()))
