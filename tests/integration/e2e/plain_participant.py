"""A participant as somebody would write it in another language: grpcio, three unary calls, and nothing of our SDK.

Its one operation, ``take``, takes the payload's amount out of account 1. A branch's proof is left empty, so that nobody
can tell how a branch ended that somebody else ended by hand; that is all it misses.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import psycopg

from handfast.v1 import participant_pb2 as p
from handfast.v1 import types_pb2 as t


class PlainParticipant:
    """The three calls. Every branch is prepared under ``plain/gtrid/bqual``.

    Args:
        dsn: the database.
    """

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._lock = threading.Lock()
        self._rolled_back: set[str] = set()
        self.calls: list[str] = []

    def Prepare(self, request: p.PrepareRequest, context: Any) -> p.PrepareResponse:
        """Do the work and prepare it, once."""
        self.calls.append("Prepare")
        gid = _gid(request)
        with self._lock, self._connect() as connection:
            if gid in self._rolled_back:
                return p.PrepareResponse(vote=t.VOTE_NO, reason="it was rolled back before")
            if _is_prepared(connection, gid):
                return p.PrepareResponse(vote=t.VOTE_YES)
            try:
                connection.execute("BEGIN")
                for operation in request.operations:
                    cents = int(operation.payload)
                    connection.execute("UPDATE account SET balance = balance - %s WHERE id = 1", (cents,))
                connection.execute(f"PREPARE TRANSACTION '{gid}'".encode())
            except psycopg.Error as problem:
                connection.execute("ROLLBACK")
                return p.PrepareResponse(vote=t.VOTE_NO, reason=str(problem).splitlines()[0])
        return p.PrepareResponse(vote=t.VOTE_YES, results=[b"taken"] * len(request.operations))

    def Commit(self, request: p.ParticipantCommitRequest, context: Any) -> p.ParticipantCommitResponse:
        """Commit it, unless that is done."""
        self.calls.append("Commit")
        with self._lock, self._connect() as connection:
            if _is_prepared(connection, _gid(request)):
                connection.execute(f"COMMIT PREPARED '{_gid(request)}'".encode())
        return p.ParticipantCommitResponse(outcome=t.OUTCOME_COMMITTED)

    def Rollback(self, request: p.ParticipantRollbackRequest, context: Any) -> p.ParticipantRollbackResponse:
        """Roll it back, and remember it for a Prepare that comes late."""
        self.calls.append("Rollback")
        with self._lock, self._connect() as connection:
            self._rolled_back.add(_gid(request))
            if _is_prepared(connection, _gid(request)):
                connection.execute(f"ROLLBACK PREPARED '{_gid(request)}'".encode())
        return p.ParticipantRollbackResponse(outcome=t.OUTCOME_ABORTED)

    def _connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        return psycopg.connect(self._dsn, autocommit=True)


@contextmanager
def serving(participant: PlainParticipant, address: str) -> Iterator[None]:
    """Serve it for as long as the block lasts."""
    methods = {
        "Prepare": _unary(participant.Prepare, p.PrepareRequest),
        "Commit": _unary(participant.Commit, p.ParticipantCommitRequest),
        "Rollback": _unary(participant.Rollback, p.ParticipantRollbackRequest),
    }
    handler = grpc.method_handlers_generic_handler("handfast.v1.Participant", methods)
    server = grpc.server(ThreadPoolExecutor(4), handlers=[handler])
    server.add_insecure_port(address)
    server.start()
    yield
    server.stop(None).wait()


def _unary(behaviour: Any, request: Any) -> Any:
    return grpc.unary_unary_rpc_method_handler(
        behaviour,
        request_deserializer=request.FromString,
        response_serializer=lambda answer: answer.SerializeToString(),
    )


def _gid(request: Any) -> str:
    return f"plain/{request.gtrid}/{request.bqual}"


def _is_prepared(connection: psycopg.Connection[tuple[Any, ...]], gid: str) -> bool:
    return connection.execute("SELECT 1 FROM pg_prepared_xacts WHERE gid = %s", (gid,)).fetchone() is not None
