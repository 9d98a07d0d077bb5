"""A coordinator in this process, and the ways to ask it."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Protocol, TypeVar

import grpc.aio
from google.protobuf.message import Message

from coordinator.config import CoordinatorConfig
from coordinator.log.memory import MemoryLog
from coordinator.log.store import LogBroken, LogStore
from coordinator.rpc.server import CoordinatorServer
from coordinator.runtime.entropy import SeededEntropy
from handfast.clock import unix_ms
from handfast.frames import COORDINATOR, CallFailed, CallStream, channel_options, failure_of_rpc
from handfast.v1 import admin_pb2_grpc
from handfast.v1 import coordinator_pb2 as c
from handfast.v1 import types_pb2 as t
from tests.integration.coordinator.participants import Scripted
from tests.waiting import eventually

R = TypeVar("R", bound=Message)


class Ask(Protocol):
    """Asks the coordinator and returns the response; raises CallFailed when it refuses."""

    async def __call__(self, request: Message) -> Any: ...


class Edge:
    """A coordinator that listens, with a channel to it.

    Args:
        settings: settings of CoordinatorConfig that differ from the defaults.
    """

    def __init__(self, log: LogStore | None = None, /, **settings: Any) -> None:
        self.broken: list[LogBroken] = []
        entropy = SeededEntropy(1)
        self.log = log or MemoryLog(
            make_coordinator_id=entropy.coordinator_id, on_broken=self.broken.append, unix_ms=unix_ms
        )
        config = CoordinatorConfig(**({"address": "127.0.0.1:0", "sweep_interval_s": 3600} | settings))
        self.server = CoordinatorServer(config, lambda on_broken: self.log, self.broken.append, entropy=entropy)
        self.channel: grpc.aio.Channel
        self.admin: admin_pb2_grpc.AdminStub

    async def start(self) -> None:
        """Serve."""
        await self.server.start()
        self.channel = grpc.aio.insecure_channel(self.server.address, options=channel_options())
        self.admin = admin_pb2_grpc.AdminStub(self.channel)

    def framed(self) -> Ask:
        """Ask through a batched stream."""
        return CallStream(self.channel, COORDINATOR).ask

    def unary(self) -> Ask:
        """Ask by unary calls."""

        async def ask(request: Message) -> Any:
            method = COORDINATOR.method(request)
            call: grpc.aio.UnaryUnaryMultiCallable[Any, Any] = self.channel.unary_unary(
                method.path, lambda message: message.SerializeToString(), method.response.FromString
            )
            try:
                return await call(request)
            except grpc.aio.AioRpcError as problem:
                raise failure_of_rpc(problem, "the coordinator") from problem

        return ask

    async def register(self, *participants: Scripted, operations: tuple[str, ...] = ()) -> None:
        """Make participants known, as each would itself."""
        ask = self.unary()
        for one in participants:
            await ask(
                c.RegisterRequest(
                    resource=one.resource,
                    instance=one.instance,
                    address=one.address,
                    kind="scripted",
                    operations=operations,
                )
            )


@asynccontextmanager
async def serving(
    *participants: Scripted, log: LogStore | None = None, sweeps: bool = False, **settings: Any
) -> AsyncIterator[Edge]:
    """Serve a coordinator that knows these participants, for as long as the block lasts.

    Without ``sweeps`` nobody ends what a test prepares behind the coordinator's back.
    """
    async with AsyncExitStack() as stack:
        for one in participants:
            await one.start()
            stack.push_async_callback(one.stop)
        edge = Edge(log, **({"stop_grace_s": 0} | settings))
        await edge.start()
        stack.push_async_callback(edge.server.stop)
        stack.push_async_callback(edge.channel.close, None)
        await edge.register(*participants)
        # A one-shot does not wait for the way to its participants: on a machine that crawls it would abort, rightly.
        served = {one.address for one in participants}
        known = [one for one in edge.server.requests.directory if one.address in served]
        await eventually(lambda: all(map(edge.server.links.reachable, known)), within_s=30)
        if not sweeps:
            await edge.server.recovery.close()
        yield edge


async def begin(ask: Ask, *participants: Scripted, timeout_ms: int = 10_000) -> str:
    """Begin a transaction in which these take part."""
    gtrid: str = (await ask(c.BeginRequest(timeout_ms=timeout_ms))).gtrid
    await enlist(ask, gtrid, *participants)
    return gtrid


async def enlist(ask: Ask, gtrid: str, *participants: Scripted) -> None:
    """Let these take part."""
    for one in participants:
        await ask(c.EnlistRequest(gtrid=gtrid, resource=one.resource, instance=one.instance))


async def refusal(ask: Ask, request: Message) -> CallFailed:
    """Ask what must be refused, and return the refusal."""
    try:
        response = await ask(request)
    except CallFailed as failure:
        return failure
    raise AssertionError(f"not refused: {response}")


def operation(resource: str, name: str = "work", payload: bytes = b"") -> t.Operation:
    """A piece of one-shot work."""
    return t.Operation(resource=resource, name=name, payload=payload)
