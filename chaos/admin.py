"""The coordinator's Admin service for programs that block: one call on a connection of its own, and no retry.

A connection that outlives a call would, after the coordinator was killed, wait out gRPC's backoff before it noticed
that the coordinator is back, and the lab measures exactly that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import grpc
from google.protobuf.message import Message

from handfast.v1 import admin_pb2

_OPTIONS = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]

Response = TypeVar("Response", bound=Message)


class Admin:
    """Asks one coordinator.

    Args:
        address: where it listens, ``host:port``.
        timeout_s: the longest that an answer may take, in seconds.

    Each call raises grpc.RpcError when there is no answer.
    """

    def __init__(self, address: str, *, timeout_s: float = 10.0) -> None:
        self.address = address
        self.timeout_s = timeout_s

    def answers(self) -> bool:
        """Whether it answers now."""
        try:
            self.status()
        except grpc.RpcError:
            return False
        return True

    def status(self) -> admin_pb2.GetStatusResponse:
        """Who it is and how it is doing."""
        return self._ask("GetStatus", admin_pb2.GetStatusRequest(), admin_pb2.GetStatusResponse.FromString)

    def participants(self) -> list[admin_pb2.ParticipantInfo]:
        """The participant processes that it knows."""
        request = admin_pb2.ListParticipantsRequest()
        answer = self._ask("ListParticipants", request, admin_pb2.ListParticipantsResponse.FromString)
        return list(answer.participants)

    def in_doubt(self) -> admin_pb2.ListInDoubtResponse:
        """The branches in doubt, as its participants tell of them."""
        return self._ask("ListInDoubt", admin_pb2.ListInDoubtRequest(), admin_pb2.ListInDoubtResponse.FromString)

    def transaction(self, gtrid: str) -> admin_pb2.Transaction:
        """One transaction with its history."""
        request = admin_pb2.GetTransactionRequest(gtrid=gtrid)
        return self._ask("GetTransaction", request, admin_pb2.GetTransactionResponse.FromString).transaction

    def transactions(self, limit: int = 100) -> list[admin_pb2.Transaction]:
        """The latest transactions, newest first, without their history."""
        request = admin_pb2.ListTransactionsRequest(limit=limit)
        answer = self._ask("ListTransactions", request, admin_pb2.ListTransactionsResponse.FromString)
        return list(answer.transactions)

    def audit(self) -> admin_pb2.AuditResponse:
        """Its log, compared with every participant."""
        return self._ask("Audit", admin_pb2.AuditRequest(), admin_pb2.AuditResponse.FromString)

    def _ask(self, method: str, request: Message, parse: Callable[[bytes], Response]) -> Response:
        with grpc.insecure_channel(self.address, options=_OPTIONS) as channel:
            call: grpc.UnaryUnaryMultiCallable[Message, Response] = channel.unary_unary(
                f"/handfast.v1.Admin/{method}",
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=parse,
            )
            answer = call(request, timeout=self.timeout_s)
        return answer
