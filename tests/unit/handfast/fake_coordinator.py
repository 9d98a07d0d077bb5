"""A coordinator that answers as the test tells it, over real gRPC, and the clock by which its client waits."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from google.protobuf.message import Message

import handfast
from handfast import clock
from handfast.catalog import HandfastFault
from handfast.frames import Reply
from handfast.v1 import coordinator_pb2 as wire
from handfast.v1 import types_pb2
from handfast.xid import Gtrid
from tests.unit.handfast.peers import Peer, served
from tests.waiting import eventually

Answer = Message | HandfastFault | Callable[[Any, Reply], None]


class SteppedClock:
    """Waits pass at once, and are remembered."""

    def __init__(self) -> None:
        self.now_s = clock.monotonic_s()
        self.slept: list[float] = []

    def monotonic_s(self) -> float:
        """See Clock."""
        return self.now_s

    async def sleep(self, delay_s: float) -> None:
        """See Clock."""
        self.slept.append(delay_s)
        self.now_s += delay_s
        await asyncio.sleep(0.01)  # let the connection's own work go on: after a failed attempt gRPC waits for 0.1 s

    def jitter(self) -> float:
        """See Clock."""
        return 0.0


class FakeCoordinator:
    """Commits everything, unless the test gave other answers: for each kind of request, in order, then the default."""

    def __init__(self) -> None:
        self.epoch = 1
        self.block_count_max = 1000
        self.lifetime_ms = 60_000
        self.next_number = 0
        self.answers: dict[type[Message], list[Answer]] = {}
        self.peer: Peer
        self.tasks: list[asyncio.Task[None]] = []

    def __call__(self, request: Message, reply: Reply) -> None:
        """Dispatch."""
        scripted = self.answers.get(type(request))
        answer: Answer = scripted.pop(0) if scripted else self._default(request)
        if isinstance(answer, Message | HandfastFault):
            reply(_addressed(answer, request))
        else:
            answer(request, reply)

    def will_answer(self, kind: type[Message], *answers: Answer) -> None:
        """The next answers to requests of this kind."""
        self.answers[kind] = [*answers]

    def asked(self, *kinds: type[Message]) -> list[Any]:
        """The requests that came, of these kinds, or all but Begin."""
        wanted = kinds or (wire.CommitRequest, wire.RollbackRequest, wire.ExecuteRequest, wire.InquireRequest)
        return [request for request in self.peer.asked if isinstance(request, wanted)]

    def lose(self, request: Message, reply: Reply) -> None:
        """An answer: the coordinator restarts instead of answering."""
        self.tasks.append(asyncio.create_task(self.restart()))

    def leave(self, request: Message, reply: Reply) -> None:
        """An answer: the coordinator dies instead of answering."""
        self.tasks.append(asyncio.create_task(self.peer.kill()))

    @staticmethod
    def keep_waiting(request: Message, reply: Reply) -> None:
        """An answer: none."""

    async def restart(self) -> None:
        """Begin another life on the same port."""
        await self.peer.kill()
        self.epoch += 1
        await self.peer.start()

    async def vanish(self, tm: handfast.TransactionManager) -> None:
        """Die, and return once the client has noticed."""
        await self.peer.kill()
        await eventually(lambda: not tm.connected)

    def _default(self, request: Message) -> Message:
        if isinstance(request, wire.BeginRequest):
            return self._begin(request)
        if isinstance(request, wire.CommitRequest):
            return committed()
        if isinstance(request, wire.RollbackRequest):
            return wire.RollbackResponse(outcome=types_pb2.OUTCOME_ABORTED)
        if isinstance(request, wire.ExecuteRequest):
            results = [operation.name.encode() for operation in request.operations]
            return wire.ExecuteResponse(outcome=types_pb2.OUTCOME_COMMITTED, results=results)
        return wire.InquireResponse(standing=wire.STANDING_COMMIT)

    def _begin(self, request: wire.BeginRequest) -> wire.BeginResponse:
        count = min(request.block_size, self.block_count_max)
        first, self.next_number = self.next_number, self.next_number + count
        prefix = Gtrid("k3v9q2xw", self.epoch, 1_700_000_000_000, 0).prefix()
        block = wire.GtridBlock(prefix=prefix, first=first, count=count, lifetime_ms=self.lifetime_ms)
        return wire.BeginResponse(block=block, timeout_ms=30_000)


def committed(**fields: Any) -> wire.CommitResponse:
    """Commit's answer: yes."""
    return wire.CommitResponse(outcome=types_pb2.OUTCOME_COMMITTED, **fields)


def said_no(bqual: str, reason_code: str, reason: str) -> wire.CommitResponse:
    """Commit's answer: a branch voted NO."""
    branch = types_pb2.Branch(bqual=bqual, vote=types_pb2.VOTE_NO, reason=reason, reason_code=reason_code)
    return wire.CommitResponse(
        outcome=types_pb2.OUTCOME_ABORTED, cause=types_pb2.ABORT_CAUSE_VOTE_NO, branches=[branch]
    )


@asynccontextmanager
async def serving(*, framed: bool = True) -> AsyncIterator[FakeCoordinator]:
    """A coordinator for as long as the block lasts."""
    coordinator = FakeCoordinator()
    async with served(coordinator, framed=framed) as coordinator.peer:
        yield coordinator
        await asyncio.gather(*coordinator.tasks)


@asynccontextmanager
async def connected(
    *, framed: bool = True, **settings: Any
) -> AsyncIterator[tuple[FakeCoordinator, handfast.TransactionManager]]:
    """A coordinator and a client of it."""
    async with serving(framed=framed) as coordinator:
        async with handfast.connect(coordinator.peer.address, **settings) as tm:
            yield coordinator, tm


def _addressed(answer: Message | HandfastFault, request: Message) -> Message | HandfastFault:
    """Put the request's gtrid into the answer."""
    if isinstance(answer, HandfastFault) or "gtrid" not in answer.DESCRIPTOR.fields_by_name:
        return answer
    addressed: Any = type(answer)()
    addressed.CopyFrom(answer)
    addressed.gtrid = getattr(request, "gtrid", "")
    return addressed  # type: ignore[no-any-return] # made by the answer's own class
