"""Participants to coordinate in tests: real gRPC servers on loopback, whose answers the test chooses."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc.aio
from google.protobuf.message import Message

from handfast.catalog import HandfastFault
from handfast.frames import PARTICIPANT, FramePort, Reply, answer_unary, careful, carried, serve_frames, server_options
from handfast.v1 import participant_pb2 as p
from handfast.v1 import participant_pb2_grpc
from handfast.v1 import types_pb2 as t

Context = grpc.aio.ServicerContext[Any, Any]
Answer = Callable[[Any], Message | HandfastFault | None]
"""What a participant says to a request; None says nothing, ever."""

CLOCK_UNIX_MS = 1_700_000_000_000


class Scripted:
    """A participant in batches that says yes to everything, except where a test sets another answer.

    Its branches are real in one respect: what it votes YES on is prepared until Commit or Rollback comes, and Recover
    and Inspect tell so.
    """

    def __init__(self, resource: str, instance: str = "one") -> None:
        self.resource = resource
        self.instance = instance
        self.asked: list[Message] = []
        self.answers: dict[type[Message], Answer] = {}
        self.prepared: dict[tuple[str, str], p.PreparedBranch] = {}
        self.ends: dict[tuple[str, str], t.BranchState.ValueType] = {}
        self.findings: list[p.Finding] = []
        self.clock_unix_ms = 0
        self.port = 0
        self.frame_port: FramePort | None = None
        self.server: grpc.aio.Server

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self.port}"

    @property
    def bqual(self) -> str:
        """The name of its branches."""
        return f"{self.resource}.{self.instance}"

    async def start(self) -> None:
        """Listen; after `stop` on the same port as before."""
        self.server = grpc.aio.server(options=server_options())
        participant_pb2_grpc.add_ParticipantServicer_to_server(self.servicer(), careful(self.server))
        self.port = self.server.add_insecure_port(f"127.0.0.1:{self.port}")
        self.frame_port = FramePort("127.0.0.1")
        await self.server.start()

    async def stop(self) -> None:
        """Break every connection."""
        await self.server.stop(None)
        if self.frame_port is not None:
            self.frame_port.close()

    def servicer(self) -> participant_pb2_grpc.ParticipantServicer:
        """The servicer that is served."""
        return _Framed(self)

    def count(self, kind: type[Message]) -> int:
        """How many requests of this kind came."""
        return sum(type(request) is kind for request in self.asked)

    def dispatch(self, request: Message, reply: Reply) -> None:
        """Answer one request."""
        self.asked.append(request)
        answer = self.answers.get(type(request), self.usual)(request)
        if answer is not None:
            reply(answer)

    def usual(self, request: Any) -> Message | HandfastFault | None:
        """What it says when the test sets nothing else."""
        match request:
            case p.PrepareRequest():
                self.prepare(request.gtrid, request.bqual)
                results = [operation.name.encode() for operation in request.operations]
                return p.PrepareResponse(vote=t.VOTE_YES, proof=f"xid of {request.gtrid}", results=results)
            case p.CommitOnePhaseRequest():
                results = [operation.name.encode() for operation in request.operations]
                return p.CommitOnePhaseResponse(outcome=t.OUTCOME_COMMITTED, results=results)
            case p.ParticipantCommitRequest():
                self.end(request.gtrid, request.bqual, t.BRANCH_STATE_COMMITTED)
                return p.ParticipantCommitResponse(outcome=t.OUTCOME_COMMITTED)
            case p.ParticipantRollbackRequest():
                self.end(request.gtrid, request.bqual, t.BRANCH_STATE_ABORTED)
                return p.ParticipantRollbackResponse(outcome=t.OUTCOME_ABORTED)
            case p.RecoverRequest():
                return p.RecoverResponse(branches=self.prepared.values())
            case p.ForgetRequest():
                return p.ForgetResponse()
            case p.InspectRequest():
                return self._inspect(request)
        raise AssertionError(f"a participant is not asked {request}")

    def prepare(self, gtrid: str, bqual: str = "", age_ms: int = 5) -> None:
        """Hold a prepared branch."""
        bqual = bqual or self.bqual
        branch = p.PreparedBranch(gtrid=gtrid, bqual=bqual, prepared_unix_ms=CLOCK_UNIX_MS - age_ms, age_ms=age_ms)
        self.prepared[gtrid, bqual] = branch

    def end(self, gtrid: str, bqual: str, state: t.BranchState.ValueType) -> None:
        """End a branch."""
        self.prepared.pop((gtrid, bqual), None)
        self.ends[gtrid, bqual] = state

    def _inspect(self, request: p.InspectRequest) -> p.InspectResponse:
        response = p.InspectResponse(findings=self.findings, clock_unix_ms=self.clock_unix_ms)
        for asked in request.branches:
            key = asked.gtrid, asked.bqual
            state = t.BRANCH_STATE_IN_DOUBT if key in self.prepared else self.ends.get(key, 0)
            response.ends.add(gtrid=asked.gtrid, bqual=asked.bqual, state=state, evidence="its own books")
        return response


class Locked(Scripted):
    """A participant whose work, once it is ``locked``, waits until a Rollback interrupts it, and then votes NO."""

    def __init__(self, resource: str) -> None:
        super().__init__(resource)
        self.locked = False
        self.waiting: dict[str, Reply] = {}

    def dispatch(self, request: Message, reply: Reply) -> None:
        """Answer one request."""
        if self.locked and isinstance(request, p.PrepareRequest):
            self.waiting[request.gtrid] = reply
            return
        super().dispatch(request, reply)
        if isinstance(request, p.ParticipantRollbackRequest) and request.gtrid in self.waiting:
            self.waiting.pop(request.gtrid)(p.PrepareResponse(vote=t.VOTE_NO, reason="a Rollback came"))


class Plain(Scripted):
    """A participant as another language would write it: Prepare, Commit and Rollback, unary, and nothing else."""

    def servicer(self) -> participant_pb2_grpc.ParticipantServicer:
        return _Plain(self)


class _Framed(participant_pb2_grpc.ParticipantServicer):
    def __init__(self, scripted: Scripted) -> None:
        async def unary(request: Message, context: Context) -> Any:
            return await answer_unary(scripted.dispatch, request, context)

        async def connect(frames: AsyncIterator[Any], context: Context) -> None:
            async with carried(PARTICIPANT, scripted.frame_port, frames, context) as (calls, replies):
                await serve_frames(PARTICIPANT, calls, replies, scripted.dispatch)

        for method in PARTICIPANT.methods.values():
            setattr(self, method.name, unary)
        self.Connect = connect  # type: ignore[assignment,method-assign] # the stub knows only the generator form


class _Plain(participant_pb2_grpc.ParticipantServicer):
    def __init__(self, scripted: Scripted) -> None:
        self._scripted = scripted

    async def Prepare(self, request: p.PrepareRequest, context: Context) -> Any:
        return await answer_unary(self._scripted.dispatch, request, context)

    async def Commit(self, request: p.ParticipantCommitRequest, context: Context) -> Any:
        return await answer_unary(self._scripted.dispatch, request, context)

    async def Rollback(self, request: p.ParticipantRollbackRequest, context: Context) -> Any:
        return await answer_unary(self._scripted.dispatch, request, context)
