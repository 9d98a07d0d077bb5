"""``python -m benchmarks.servers.noop PORT…``: participants without a database, which say yes to everything at once.

Written on ``serve_frames`` itself: the SDK keeps a branch's state, a task and a lock for each message, which a
participant that promises nothing has no use for. What is measured with it is the coordinator. With ``--unary`` it has
no batched stream, as a participant written in another language may not.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
from google.protobuf.message import Message

from benchmarks.loop import run
from handfast.frames import (
    PARTICIPANT,
    ColumnsReply,
    FramePort,
    Reply,
    careful,
    carried,
    serve_frames,
    server_options,
)
from handfast.v1 import participant_pb2 as p
from handfast.v1 import participant_pb2_grpc
from handfast.v1 import types_pb2 as t

Context = grpc.aio.ServicerContext[Any, Any]

PROOF = "pg:123456789"

_ANSWERS: dict[type[Message], Message] = {
    p.PrepareRequest: p.PrepareResponse(vote=t.VOTE_YES, proof=PROOF, results=[b""]),
    p.ParticipantCommitRequest: p.ParticipantCommitResponse(outcome=t.OUTCOME_COMMITTED),
    p.ParticipantRollbackRequest: p.ParticipantRollbackResponse(outcome=t.OUTCOME_ABORTED),
    p.RecoverRequest: p.RecoverResponse(),
    p.ForgetRequest: p.ForgetResponse(),
}


def dispatch(request: Message, reply: Reply) -> None:
    """Answer at once."""
    reply(_ANSWERS[type(request)])


def take_columns(columns: Message, start: int, stop: int, reply: ColumnsReply) -> bool:
    """Answer at once, in columns."""
    if isinstance(columns, p.PrepareColumns):
        count = stop - start
        ids = range(columns.first_id + start, columns.first_id + stop)
        reply.columns(p.YesColumns(ids=ids, proofs=[PROOF] * count, results=[b""] * count))
    elif isinstance(columns, p.CommitColumns):
        reply.columns(p.DoneColumns(ids=range(columns.first_id + start, columns.first_id + stop)))
    else:
        return False
    return True


class Unary(participant_pb2_grpc.ParticipantServicer):
    """The unary methods."""

    async def Prepare(self, request: p.PrepareRequest, context: Context) -> Any:
        return _ANSWERS[p.PrepareRequest]

    async def Commit(self, request: p.ParticipantCommitRequest, context: Context) -> Any:
        return _ANSWERS[p.ParticipantCommitRequest]

    async def Rollback(self, request: p.ParticipantRollbackRequest, context: Context) -> Any:
        return _ANSWERS[p.ParticipantRollbackRequest]

    async def Recover(self, request: p.RecoverRequest, context: Context) -> Any:
        return _ANSWERS[p.RecoverRequest]


class Batched(Unary):
    """These and the batched stream, whose frames come beside it."""

    def __init__(self) -> None:
        self._frame_port = FramePort("127.0.0.1")

    # The stub knows only the generator form of a stream's handler; gRPC takes this one as well.
    async def Connect(  # type: ignore[override]
        self, request_iterator: AsyncIterator[p.ParticipantConnectRequest], context: Context
    ) -> None:
        async with carried(PARTICIPANT, self._frame_port, request_iterator, context) as (frames, replies):
            await serve_frames(PARTICIPANT, frames, replies, dispatch, columns=take_columns)


async def main(ports: list[str], servicer: Unary) -> None:
    """Serve until SIGTERM."""
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    server = grpc.aio.server(options=server_options())
    participant_pb2_grpc.add_ParticipantServicer_to_server(servicer, careful(server))
    for port in ports:
        server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    print("no-op is ready", flush=True)
    await stopped.wait()
    await server.stop(None)


if __name__ == "__main__":
    given = sys.argv[1:]
    run(main([one for one in given if one != "--unary"], Unary() if "--unary" in given else Batched()))
