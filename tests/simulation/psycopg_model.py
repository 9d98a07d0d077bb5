"""Connections to the model of Postgres that look like psycopg's to participant.postgres, and the resource over them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus

from participant.clock import Clock
from participant.config import ParticipantOptions
from participant.postgres import PostgresResource, finish
from tests.simulation.loop import ProcessLoop
from tests.simulation.postgres import Database, Done, Session

UPDATE = "UPDATE account SET balance = balance + %s WHERE id = %s"
CONNECT_S = 0.002

_BRANCH = re.compile(r"BEGIN; .*lock_timeout = (?P<lock>\d+);.* = (?P<idle>\d+);.* = '(?P<gid>[^']*)'")
_ASK_AND_PREPARE = re.compile(r"SELECT pg_current_xact_id_if_assigned.*; PREPARE TRANSACTION '(?P<gid>[^']*)'")
_WITH_SETTINGS = "BEGIN; lock_timeout = {0}; idle = {1}; gid = '{2}'"


class SimulatedPostgres(PostgresResource):
    """PostgresResource, whose connections lead to the model.

    Args:
        database: the server.
        loop: the process.
        options: pools and timeouts.
        clock: where time comes from.
    """

    def __init__(self, database: Database, loop: ProcessLoop, options: ParticipantOptions, clock: Clock) -> None:
        super().__init__("host=simulated", options, clock)
        self._database = database
        self._loop = loop

    async def open(self, bqual: str) -> None:
        self._resource = bqual.partition(".")[0]
        self._finisher = finish.Finisher(self._finish, self._work, self._resource, self._options, self._clock)

    async def _connect_branch(self) -> Any:
        return await self._connect(autocommit=False)

    async def _connect_finish(self) -> Any:
        return await self._connect(autocommit=True)

    async def _connect(self, *, autocommit: bool) -> SimulatedConnection:
        await self._clock.sleep(CONNECT_S)
        connection = SimulatedConnection(self._database, self._loop, autocommit=autocommit)
        session = self._database.connect(self._loop, connection.on_broken)
        if session is None:
            raise psycopg.OperationalError("connection refused")
        connection.session = session
        return connection


class _Cursor:
    """What a statement gave."""

    def __init__(self, connection: SimulatedConnection, rows: Sequence[Any] = (), tag: str = "") -> None:
        self._connection = connection
        self._rows = rows
        self.statusmessage = tag

    async def execute(self, query: Any, params: Sequence[Any] = ()) -> _Cursor:
        return await self._connection.execute(query, params)

    async def fetchone(self) -> Any:
        return self._rows[0] if self._rows else None

    async def fetchall(self) -> list[Any]:
        return list(self._rows)


@dataclass(frozen=True, slots=True)
class _Answer:
    """What a command gave."""

    tag: str
    row: tuple[Any, ...]


class _Info:
    def __init__(self, connection: SimulatedConnection) -> None:
        self._connection = connection

    @property
    def transaction_status(self) -> TransactionStatus:
        connection = self._connection
        if connection.closed:
            return TransactionStatus.UNKNOWN
        if connection.lock.locked():
            return TransactionStatus.ACTIVE
        transaction = connection.session.transaction
        if transaction is None:
            return TransactionStatus.IDLE
        return TransactionStatus.INERROR if transaction.failed else TransactionStatus.INTRANS


class SimulatedConnection:
    """As much of psycopg.AsyncConnection as the participant uses.

    Args:
        database: the server.
        loop: the process.
        autocommit: as psycopg's.
    """

    session: Session

    def __init__(self, database: Database, loop: ProcessLoop, *, autocommit: bool) -> None:
        self._database = database
        self._loop = loop
        self._autocommit = autocommit
        self._answer: asyncio.Future[Any] | None = None
        self.lock = asyncio.Lock()
        self.closed = False
        self.broken = False
        self.info = _Info(self)
        self.row_factory: object = None
        self.pgconn = self
        self.changed = self.left = self.may_finish = False

    # -- what participant.postgres.session has ---------------------------------------------------------------------

    @property
    def backend_pid(self) -> int:
        """The number of the server's process."""
        return self.session.pid

    @property
    def is_idle(self) -> bool:
        """Nothing is open in it."""
        return self.info.transaction_status is TransactionStatus.IDLE

    @property
    def is_in_transaction(self) -> bool:
        """A transaction is open."""
        return self.info.transaction_status is TransactionStatus.INTRANS

    def begin_branch(self) -> None:
        """Forget what the branch before did."""
        self.changed = self.left = self.may_finish = False

    def on_settled(self, synchronous_commit: str | None) -> None:
        """Some of the sessions are not what they were, and end no branches."""
        self.may_finish = synchronous_commit == "on" and self.session.pid % 4 != 0

    def shut_down(self) -> None:
        """End the connection both ways."""
        self._hang_up("the connection was shut down")

    async def command(self, statements: str, limit_s: float | None = None) -> _Answer:
        """One or more statements in one message."""
        async with asyncio.timeout(limit_s):
            cursor = await self.execute(statements)
        row = await cursor.fetchone()
        return _Answer(cursor.statusmessage, row or ())

    def _on_changed(self, amount: int) -> None:
        """What a cursor of a branch would tell of the work: mostly the truth.

        One session in three works by statements that do not say that they change something; one in three says so of
        those that don't.
        """
        self.changed = self.changed or (self.session.pid % 3 != 0 if amount else self.session.pid % 3 == 1)

    # -- what psycopg has ------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def pipeline(self) -> AsyncIterator[None]:
        yield

    def cursor(self, row_factory: object = None) -> _Cursor:
        return _Cursor(self)

    async def execute(self, query: Any, params: Sequence[Any] = ()) -> _Cursor:
        text = query if isinstance(query, str) else query.as_string(None)
        if params and "lock_timeout" in text:
            text = _WITH_SETTINGS.format(*params)
        kind, perform = self._statement(text, params)
        async with self.lock:
            result = await self._ask(kind, perform)
        if isinstance(result, psycopg.Error):
            raise result
        if text == UPDATE:
            self._on_changed(params[0])
        if isinstance(result, str):
            return _Cursor(self, tag=result)
        if kind == "PREPARE":
            return _Cursor(self, [result[0]], result[1])
        return _Cursor(self, result if isinstance(result, list) else [] if result is None else [result])

    async def cancel_safe(self, *, timeout: float) -> None:
        await asyncio.sleep(0)

    def finish(self) -> None:
        self._hang_up("the connection is closed")

    async def close(self) -> None:
        self._hang_up("the connection is closed")

    # -- inside ----------------------------------------------------------------------------------------------------

    def on_broken(self) -> None:
        """The server, or the way to it, is gone."""
        self.broken = self.closed = True
        self._fail("server closed the connection unexpectedly")

    def _hang_up(self, problem: str) -> None:
        if not self.closed:
            self.closed = True
            self._database.world.later(0.001, self._database.end_session, self.session)
            self._fail(problem)

    def _fail(self, problem: str) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(psycopg.OperationalError(problem))

    async def _ask(self, kind: str, perform: Callable[[Done], None]) -> Any:
        if self.closed:
            raise psycopg.OperationalError("the connection is closed")
        answer: asyncio.Future[Any] = self._loop.create_future()
        self._answer = answer
        self._database.submit(
            self.session, kind, perform, lambda result: None if answer.done() else answer.set_result(result)
        )
        try:
            return await answer
        except asyncio.CancelledError:
            self._hang_up("the statement was cancelled")
            raise
        finally:
            self._answer = None

    def _statement(self, text: str, params: Sequence[Any]) -> tuple[str, Callable[[Done], None]]:
        """What kind of statement it is, and what it does at the server."""
        database, session = self._database, self.session
        settings = _BRANCH.match(text)
        if settings is not None:
            lock_s, idle_s, mark = int(settings["lock"]) / 1000, int(settings["idle"]) / 1000, settings["gid"]
            return "BEGIN", lambda done: database.begin(session, mark, lock_s, idle_s, done)
        if text == UPDATE:
            return "UPDATE", lambda done: database.update(session, params[1], params[0], done)
        prepared = _ASK_AND_PREPARE.match(text)
        if prepared is not None:
            return "PREPARE", lambda done: database.ask_and_prepare(session, prepared["gid"], done)
        if "pg_current_xact_id_if_assigned()" in text:
            return "STANDING", lambda done: database.standing(session, done)
        if "pg_xact_status(" in text:
            return "STATUS", lambda done: database.status(int(params[0]), done)
        if "pg_terminate_backend(" in text:
            xid8 = None if params[0] is None else int(params[0])
            return "END SESSION", lambda done: database.end_session_of(xid8, params[1], done)
        if "WHERE gid = ANY" in text:
            return "LIST", lambda done: done(self._listed(params[0]))
        if "FROM pg_prepared_xacts" in text:
            return "RECOVER", lambda done: done(self._prepared_rows())
        command, _, gid = text.partition(" '")
        gid = gid.rstrip("'")
        commands: dict[str, Callable[[Done], None]] = {
            "PREPARE TRANSACTION": lambda done: database.prepare(session, gid, done),
            "COMMIT PREPARED": lambda done: database.end_prepared(gid, commit=True, done=done),
            "ROLLBACK PREPARED": lambda done: database.end_prepared(gid, commit=False, done=done),
            "COMMIT": lambda done: database.end_open(session, commit=True, done=done),
            "ROLLBACK": lambda done: database.end_open(session, commit=False, done=done),
        }
        return "PREPARE" if command == "PREPARE TRANSACTION" else command, commands[command]

    def _listed(self, gids: Sequence[str]) -> list[tuple[str, str, str]]:
        database = self._database
        listed = [(gid, database.prepared[gid]) for gid in gids if gid in database.prepared]
        return [(gid, str(transaction.xid), str(database.next_xid)) for gid, transaction in listed]

    def _prepared_rows(self) -> list[tuple[Any, ...]]:
        database, now_s = self._database, self._database.world.now_s
        return [
            (
                *(gid, str(transaction.xid), "handfast", database.name, int(1000 * transaction.prepared_at_s)),
                *(int(1000 * (now_s - transaction.prepared_at_s)), 0, str(database.next_xid)),
            )
            for gid, transaction in database.prepared.items()
            if gid.startswith("handfast_")
        ]
