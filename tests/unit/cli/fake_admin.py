"""An Admin service that answers from a script, on a real gRPC server, and remembers what it was asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import Message

from handfast.catalog import HandfastFault
from handfast.frames import abort
from handfast.v1 import admin_pb2, admin_pb2_grpc

Answer = Message | HandfastFault | grpc.StatusCode | None


@dataclass
class FakeAdmin(admin_pb2_grpc.AdminServicer):
    """Answers each call by its name.

    A message is the answer; a fault is answered as the coordinator's edge does it; a gRPC status comes without an entry
    of the catalog; None is never answered.
    """

    answers: dict[str, Answer | list[Message]] = field(default_factory=dict)
    asked: list[Message] = field(default_factory=list)
    address: str = ""
    time_left_s: float | None = None
    """What the last call allowed."""

    async def _answer(self, name: str, request: Message, context: Any) -> Any:
        self.asked.append(request)
        self.time_left_s = context.time_remaining()
        answer = self.answers[name]
        if answer is None:
            await asyncio.Event().wait()
        if isinstance(answer, grpc.StatusCode):
            await context.abort(answer, "disk on fire")
        if isinstance(answer, HandfastFault):
            await abort(context, answer)
        return answer

    async def GetStatus(self, request: admin_pb2.GetStatusRequest, context: Any) -> Any:
        return await self._answer("GetStatus", request, context)

    async def ListTransactions(self, request: admin_pb2.ListTransactionsRequest, context: Any) -> Any:
        return await self._answer("ListTransactions", request, context)

    async def GetTransaction(self, request: admin_pb2.GetTransactionRequest, context: Any) -> Any:
        return await self._answer("GetTransaction", request, context)

    async def WatchTransactions(
        self, request: admin_pb2.WatchTransactionsRequest, context: Any
    ) -> AsyncIterator[admin_pb2.WatchTransactionsResponse]:
        for change in await self._answer("WatchTransactions", request, context):
            yield change

    async def ListInDoubt(self, request: admin_pb2.ListInDoubtRequest, context: Any) -> Any:
        return await self._answer("ListInDoubt", request, context)

    async def ListParticipants(self, request: admin_pb2.ListParticipantsRequest, context: Any) -> Any:
        return await self._answer("ListParticipants", request, context)

    async def Resolve(self, request: admin_pb2.ResolveRequest, context: Any) -> Any:
        return await self._answer("Resolve", request, context)

    async def Audit(self, request: admin_pb2.AuditRequest, context: Any) -> Any:
        return await self._answer("Audit", request, context)

    async def Diagnose(self, request: admin_pb2.DiagnoseRequest, context: Any) -> Any:
        return await self._answer("Diagnose", request, context)

    async def ListOperations(self, request: admin_pb2.ListOperationsRequest, context: Any) -> Any:
        return await self._answer("ListOperations", request, context)


@asynccontextmanager
async def serving(admin: FakeAdmin) -> AsyncIterator[FakeAdmin]:
    """Serve on a free loopback port for the length of the block."""
    server = grpc.aio.server()
    admin_pb2_grpc.add_AdminServicer_to_server(admin, server)
    admin.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        yield admin
    finally:
        await server.stop(None)
