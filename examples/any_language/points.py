"""Customers' loyalty points in SQLite, as a participant in plain grpcio: four unary calls, and nothing of the SDK.

python -m examples.any_language.points points.db 7600
"""

import asyncio
import json
import sqlite3
import sys
from contextlib import suppress
from typing import Any

import grpc.aio

from handfast.v1 import participant_pb2 as p
from handfast.v1 import types_pb2 as t
from handfast.v1.participant_pb2_grpc import ParticipantServicer, add_ParticipantServicer_to_server

SCHEMA = """
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    CREATE TABLE IF NOT EXISTS account (customer TEXT PRIMARY KEY, points INTEGER NOT NULL);
    CREATE TABLE IF NOT EXISTS branch (
        gtrid TEXT, bqual TEXT, state TEXT, customer TEXT, points INTEGER, PRIMARY KEY (gtrid, bqual)
    );
    -- A prepared branch keeps everybody else away from its customer: this index is the lock.
    CREATE UNIQUE INDEX IF NOT EXISTS lock ON branch (customer) WHERE state = 'prepared';
"""
YES = p.PrepareResponse(vote=t.VOTE_YES)


def no(code: str, reason: str) -> p.PrepareResponse:
    return p.PrepareResponse(vote=t.VOTE_NO, reason_code=code, reason=reason)


class Points(ParticipantServicer):
    """Each call is one SQLite transaction, so that whatever it answered is on the disk before it answers."""

    def __init__(self, path: str) -> None:
        self.db = sqlite3.connect(path)
        self.db.executescript(SCHEMA)

    async def Prepare(self, request: p.PrepareRequest, context: Any) -> p.PrepareResponse:
        with self.db:
            match self._state(request):
                case "prepared" | "committed":
                    return YES  # a duplicate: the first answer again
                case "aborted":
                    return no("ROLLED_BACK_FIRST", "the branch was rolled back before it was asked to prepare")
            return self._vote(request)

    async def Commit(self, request: p.ParticipantCommitRequest, context: Any) -> p.ParticipantCommitResponse:
        with self.db:
            match self._state(request):
                case "prepared":
                    self.db.execute(
                        "INSERT INTO account SELECT customer, points FROM branch WHERE (gtrid, bqual) = (?, ?)"
                        " ON CONFLICT DO UPDATE SET points = points + excluded.points",
                        (request.gtrid, request.bqual),
                    )
                    self._end(request, "committed")
                case None | "aborted":
                    evidence = "the branch was rolled back, or never prepared"
                    return p.ParticipantCommitResponse(outcome=t.OUTCOME_HEURISTIC_ROLLBACK, evidence=evidence)
            return p.ParticipantCommitResponse(outcome=t.OUTCOME_COMMITTED)

    async def Rollback(self, request: p.ParticipantRollbackRequest, context: Any) -> p.ParticipantRollbackResponse:
        with self.db:
            if self._state(request) == "committed":
                return p.ParticipantRollbackResponse(outcome=t.OUTCOME_HEURISTIC_COMMIT, evidence="it is committed")
            self._end(request, "aborted")  # also when nothing is known of it: a late Prepare must find this
            return p.ParticipantRollbackResponse(outcome=t.OUTCOME_ABORTED)

    async def Recover(self, request: p.RecoverRequest, context: Any) -> p.RecoverResponse:
        query = "SELECT gtrid, bqual FROM branch WHERE state = 'prepared' AND gtrid LIKE ? || '-%'"
        found = self.db.execute(query, (request.coordinator_id,)).fetchall()
        return p.RecoverResponse(branches=[p.PreparedBranch(gtrid=one, bqual=other) for one, other in found])

    def _vote(self, request: p.PrepareRequest) -> p.PrepareResponse:
        if len(request.operations) != 1 or request.operations[0].name != "add":
            return no("OPERATION_UNKNOWN", "points can do one `add` in a transaction")
        wish = json.loads(request.operations[0].payload)
        branch = (request.gtrid, request.bqual, wish["customer"], wish["points"])
        has = self.db.execute("SELECT points FROM account WHERE customer = ?", (wish["customer"],)).fetchone()
        if (has[0] if has else 0) + wish["points"] < 0:
            return no("OPERATION_FAILED", f"{wish['customer']} has not so many points")
        try:
            self.db.execute("INSERT INTO branch VALUES (?, ?, 'prepared', ?, ?)", branch)
        except sqlite3.IntegrityError:
            return no("LOCK_TIMEOUT", f"another transaction works on {wish['customer']}")
        return YES

    def _state(self, request: Any) -> str | None:
        query = "SELECT state FROM branch WHERE (gtrid, bqual) = (?, ?)"
        row = self.db.execute(query, (request.gtrid, request.bqual)).fetchone()
        return row[0] if row else None

    def _end(self, request: Any, state: str) -> None:
        self.db.execute(
            "INSERT INTO branch (gtrid, bqual, state) VALUES (?, ?, ?)"
            " ON CONFLICT DO UPDATE SET state = excluded.state",
            (request.gtrid, request.bqual, state),
        )


async def serve(path: str, port: str) -> None:
    server = grpc.aio.server()
    add_ParticipantServicer_to_server(Points(path), server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    print(f"points is ready on 127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(serve(*sys.argv[1:]))
