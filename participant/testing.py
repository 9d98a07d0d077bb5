"""Aids for your own tests: a resource in memory, and a coordinator made of cardboard.

    async with FakeCoordinator() as coordinator:
        accounts = Participant("accounts", MemoryResource(), coordinator=coordinator.address, address=...)
        ...
        gtrid = coordinator.new_gtrid()
        vote = await coordinator.ask(address, p.PrepareRequest(gtrid=gtrid, bqual=accounts.bqual, timeout_ms=5000))

The cardboard coordinator keeps no log and makes no decision: it takes registrations and enlistments, answers inquiries
as the test told it, and sends what the test asks it to. MemoryResource keeps the contract of participant.resource; its
connection is a dict of changes, applied at commit.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Self

import grpc
import grpc.aio
from google.protobuf.message import Message

from handfast.catalog import HandfastFault
from handfast.context import GTRID_KEY, TIMEOUT_KEY
from handfast.frames import (
    COORDINATOR,
    PARTICIPANT,
    CallStream,
    Reply,
    answer_unary,
    carried,
    channel_options,
    serve_frames,
    server_options,
)
from handfast.v1 import coordinator_pb2 as c
from handfast.v1 import coordinator_pb2_grpc
from handfast.xid import Gtrid, Xid, make_bqual
from participant.clock import Clock, SystemClock
from participant.protocol import Fate
from participant.resource import (
    AnswerLost,
    End,
    Finding,
    Found,
    Prepared,
    PreparedBranch,
    ReadOnly,
    Severity,
    Stand,
)

Changes = dict[str, Any]


class FakeCoordinator(coordinator_pb2_grpc.CoordinatorServicer):
    """A coordinator that does what a test tells it.

    Args:
        coordinator_id: its id, eight characters.
        clock: where gtrids get their time from.

    Attributes:
        epoch: told at each registration.
        registrations: those taken.
        enlisted: those taken, by gtrid.
        inquiries: what was asked, in order.
        standings: what Inquire answers, by gtrid; STANDING_UNDECIDED for all others.
        refuse: when set, asked for each request; a fault it returns is the answer.
    """

    def __init__(self, coordinator_id: str = "testcrd2", clock: Clock | None = None) -> None:
        self.coordinator_id = coordinator_id
        self.epoch = 1
        self.address = ""
        self.registrations: list[c.RegisterRequest] = []
        self.enlisted: dict[str, list[c.EnlistRequest]] = {}
        self.inquiries: list[c.InquireRequest] = []
        self.standings: dict[str, c.Standing.ValueType] = {}
        self.refuse: Callable[[Message], HandfastFault | None] | None = None
        self._clock = clock or SystemClock()
        self._number = 0
        self._server: grpc.aio.Server | None = None
        self._streams: dict[str, tuple[grpc.aio.Channel, CallStream]] = {}

    async def __aenter__(self) -> Self:
        """Start on a free port; after it was left, on the same port again."""
        self._server = grpc.aio.server(options=server_options())
        coordinator_pb2_grpc.add_CoordinatorServicer_to_server(self, self._server)
        port = self._server.add_insecure_port(self.address or "127.0.0.1:0")
        self.address = f"127.0.0.1:{port}"
        await self._server.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop at once, as a crash would."""
        for channel, stream in self._streams.values():
            await stream.close()
            await channel.close(None)
        self._streams.clear()
        if self._server is not None:
            await self._server.stop(None)

    def new_gtrid(self) -> str:
        """A gtrid of this coordinator."""
        self._number += 1
        return str(Gtrid(self.coordinator_id, self.epoch, self._clock.unix_ms(), self._number))

    def metadata(self, gtrid: str, timeout_ms: int = 10_000) -> tuple[tuple[str, str], ...]:
        """What a call carries that belongs to the transaction."""
        return ((GTRID_KEY, gtrid), (TIMEOUT_KEY, str(timeout_ms)))

    async def ask(self, address: str, request: Message, *, timeout_s: float = 10.0) -> Any:
        """Send something to a participant.

        Args:
            address: the participant's, ``host:port``.
            request: a PrepareRequest, a ParticipantCommitRequest …
            timeout_s: how long to wait, in seconds.

        Raises:
            handfast.frames.CallFailed: there was no response.
        """
        if address not in self._streams:
            channel = grpc.aio.insecure_channel(address, options=channel_options())
            self._streams[address] = (channel, CallStream(channel, PARTICIPANT, peer=address))
        return await self._streams[address][1].ask(request, timeout_s=timeout_s)

    # -- what it serves --------------------------------------------------------------------------------------------

    def dispatch(self, request: Message, reply: Reply) -> None:
        """Take one call."""
        refusal = self.refuse(request) if self.refuse is not None else None
        if refusal is not None:
            reply(refusal)
        elif isinstance(request, c.RegisterRequest):
            self.registrations.append(request)
            reply(c.RegisterResponse(coordinator_id=self.coordinator_id, epoch=self.epoch))
        elif isinstance(request, c.EnlistRequest):
            self.enlisted.setdefault(request.gtrid, []).append(request)
            reply(c.EnlistResponse(bqual=make_bqual(request.resource, request.instance)))
        elif isinstance(request, c.InquireRequest):
            self.inquiries.append(request)
            standing = self.standings.get(request.gtrid, c.STANDING_UNDECIDED)
            reply(c.InquireResponse(gtrid=request.gtrid, standing=standing))
        else:
            reply(HandfastFault("INTERNAL", problem=f"a fake coordinator does not do {type(request).__name__}"))

    async def Register(self, request: Any, context: Any) -> Any:
        """Unary."""
        return await answer_unary(self.dispatch, request, context)

    Enlist = Inquire = Register

    async def Connect(self, request_iterator: Any, context: Any) -> None:  # type: ignore[override]  # it writes itself
        """Batched."""
        async with carried(COORDINATOR, None, request_iterator, context) as (frames, replies):
            await serve_frames(COORDINATOR, frames, replies, self.dispatch)


class MemoryBranch:
    """An open branch of a MemoryResource; see OpenBranch."""

    def __init__(self, resource: MemoryResource, xid: Xid) -> None:
        self._resource = resource
        self._xid = xid
        self.connection: Changes = {}

    async def settle(self) -> None:
        """See OpenBranch."""

    async def prepare(self) -> Prepared | ReadOnly:
        """See OpenBranch."""
        if not self.connection:
            return ReadOnly()
        lost = self._resource.fail("prepare")
        self._resource.prepared[self._xid] = self.connection
        if lost:
            raise lost
        return Prepared(f"memory:{self._xid.gtrid}")

    async def commit(self) -> str:
        """See OpenBranch."""
        lost = self._resource.fail("commit")
        self._resource.end(self._xid, self.connection, Fate.COMMITTED)
        if lost:
            raise lost
        return f"memory:{self._xid.gtrid}"

    async def rollback(self) -> None:
        """See OpenBranch."""
        self._resource.end(self._xid, {}, Fate.ABORTED)

    async def abandon(self, reason: str) -> None:
        """See OpenBranch."""
        self._resource.abandoned.append(reason)
        await self.rollback()


class MemoryResource:
    """A resource in memory. Survives its participants, so that one can restart over it.

    Attributes:
        rows: what is committed.
        prepared: the prepared branches and their changes.
        ended: how branches ended.
        abandoned: why branches were taken from under their work.
        failures: by "prepare", "commit", "commit prepared" and "rollback prepared": raised at the next such call. An
            AnswerLost is raised after the thing was done, all others before.
    """

    kind = "memory"

    def __init__(self) -> None:
        self.rows: Changes = {}
        self.prepared: dict[Xid, Changes] = {}
        self.ended: dict[Xid, Fate] = {}
        self.abandoned: list[str] = []
        self.failures: dict[str, HandfastFault | AnswerLost] = {}

    def fail(self, what: str) -> AnswerLost | None:
        """Raise the failure that is due, or return it when it only hides the answer."""
        failure = self.failures.pop(what, None)
        if failure is None or isinstance(failure, AnswerLost):
            return failure
        raise failure

    def end(self, xid: Xid, changes: Changes, fate: Fate) -> None:
        """End a branch."""
        self.prepared.pop(xid, None)
        self.rows |= changes
        self.ended[xid] = fate

    async def open(self, bqual: str) -> None:
        """See ResourceManager."""

    async def close(self) -> None:
        """See ResourceManager."""

    async def begin(self, xid: Xid, time_left_s: float) -> MemoryBranch:
        """See ResourceManager."""
        return MemoryBranch(self, xid)

    async def commit_prepared(self, xid: Xid, proof: str) -> End:
        """See ResourceManager."""
        return self._finish(xid, "commit prepared", Fate.COMMITTED)

    async def rollback_prepared(self, xid: Xid, proof: str) -> End:
        """See ResourceManager."""
        return self._finish(xid, "rollback prepared", Fate.ABORTED)

    def _finish(self, xid: Xid, what: str, fate: Fate) -> End:
        self.fail(what)
        if xid in self.prepared:
            self.end(xid, self.prepared[xid] if fate is Fate.COMMITTED else {}, fate)
        return End(self.ended.get(xid, Fate.UNPROVED), "the memory says so")

    async def recover(self, resource: str, coordinator_id: str, *, detail: bool) -> list[PreparedBranch]:
        """See ResourceManager."""
        ours = [xid for xid in self.prepared if xid.resource == resource and xid.coordinator_id == coordinator_id]
        return [PreparedBranch(xid, f"memory:{xid.gtrid}", 0, 0, "memory", "memory") for xid in ours]

    async def ends_of(self, branches: Sequence[tuple[Xid, str]]) -> list[Found]:
        """See ResourceManager."""
        return [Found(self._stand(xid), "the memory says so", proof=f"memory:{xid.gtrid}") for xid, _ in branches]

    def _stand(self, xid: Xid) -> Stand:
        if xid in self.prepared:
            return Stand.PREPARED
        fate = self.ended.get(xid)
        return Stand.UNPROVED if fate is None else Stand[fate.name]

    async def inspect(self) -> list[Finding]:
        """See ResourceManager."""
        return [Finding("memory", Severity.OK, f"{len(self.prepared)} prepared")]

    def fault_of(self, problem: BaseException, xid: Xid, resource: str) -> HandfastFault | None:
        """See ResourceManager."""
        return None


@asynccontextmanager
async def serving(*participants: Any, add: Callable[[grpc.aio.Server], None] | None = None) -> AsyncIterator[str]:
    """Serve participants on a free port, which becomes their address, for a block.

    Args:
        participants: not opened yet.
        add: adds the service's own servicers to the server.

    Yields:
        The address, ``host:port``.
    """
    server = grpc.aio.server(interceptors=participants[0].interceptors(), options=server_options())
    for participant in participants:
        participant.add_to_server(server)
    if add is not None:
        add(server)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        for participant in participants:
            participant.address = address
            await participant.__aenter__()
        yield address
    finally:
        await asyncio.gather(*(participant.__aexit__(None, None, None) for participant in participants))
        await server.stop(None)
