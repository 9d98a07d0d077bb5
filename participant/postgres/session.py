"""Connections to Postgres that cost little for each statement.

A branch asks Postgres three things and does its work; at psycopg's usual price that is most of what a service spends on
a transaction. Two things make it cheaper, without a second way to talk to the server:

*Waiting* (``Session.wait``). Psycopg registers the socket with the event loop for each statement, sets a timer beside
it, and takes both away again. Here the socket stays registered. That binds us to one rule: it is taken out of the loop
before anybody closes it, for its number may be another socket's the next moment. Libpq closes it itself when the
connection breaks, which shows in the connection's status before the loop runs again. Whatever is not a plain wait for
an answer (a full send buffer, a time limit, an interruption) is left to psycopg's own way.

*Commands* (``Session.command``). Statements that are ours, with no parameters and an answer of one row at most, go to
libpq as one simple query, several of them in one message when they belong together. They need no cursor, no adaption
of values and no cache of prepared statements.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Generator, Iterable
from typing import Any, NamedTuple, Self, TypeVar

import psycopg
from psycopg import errors, generators
from psycopg.abc import Params, PQGen, Query, QueryNoTemplate
from psycopg.pq import ConnStatus, ExecStatus, TransactionStatus
from psycopg.pq.abc import PGresult
from psycopg.rows import TupleRow, tuple_row
from psycopg.waiting import Ready, Wait

from participant.limits import Limits

Result = TypeVar("Result")

log = logging.getLogger(__name__)

_INTERVAL_S = 0.1
"""Psycopg's default: how often its own waiting looks up. Ours has no need to."""
_READ, _READY = int(Wait.R), int(Ready.R)
_FINE = frozenset({int(ExecStatus.COMMAND_OK), int(ExecStatus.TUPLES_OK)})
_OK = int(ConnStatus.OK)
_IDLE = int(TransactionStatus.IDLE)
_IN_TRANSACTION = int(TransactionStatus.INTRANS)
SYNCHRONOUS_COMMIT = "current_setting('synchronous_commit')"
"""SQL for how durable a session's commits are: the one setting that would weaken a COMMIT PREPARED, and silently."""
_CHANGING = (b"UPDATE", b"INSERT", b"DELETE", b"MERGE")


class Answer(NamedTuple):
    """What Postgres answered to a command.

    Args:
        tag: of its last statement, for example ``PREPARE TRANSACTION``.
        row: the first row that its first statement gave, as text; empty when it gave none.
    """

    tag: str
    row: tuple[str | None, ...] = ()


class Session(psycopg.AsyncConnection[TupleRow]):
    """A psycopg connection whose socket stays registered with the event loop."""

    limits: Limits | None = None
    """Watches over commands that have a limit in time."""
    may_finish: bool = False
    """It may be lent to phase two when it is idle."""
    _loop: asyncio.AbstractEventLoop | None = None  # asking asyncio for it costs a system call
    _reading_fd: int | None = None
    _waiter: asyncio.Future[None] | None = None
    _strayed: bool = False

    async def command(self, statements: str, limit_s: float | None = None) -> Answer:
        """Run statements of our own in one round trip.

        Args:
            statements: one or more, separated by semicolons. Nothing in them may come from outside unchecked. While
                another statement is under way they are refused, not kept waiting.
            limit_s: how long they may take, in seconds. When it is reached the session is of no use any more.

        Raises:
            psycopg.Error: one failed, so that those after it were not run; or the connection broke.
            TimeoutError: there was no answer in time.
        """
        self._send(statements)
        limit = None if limit_s is None or self.limits is None else self.limits.start(limit_s, self._on_overdue)
        try:
            results = await self.wait(generators.execute(self.pgconn))
        finally:
            if limit is not None and self.limits is not None:
                self.limits.end(limit)
        last = results[-1]  # after one that failed there is none
        if last.status not in _FINE:
            raise errors.error_from_result(last, encoding=self.info.encoding)
        return Answer((last.command_status or b"").decode(), _first_row(results[0]))

    async def wait(self, gen: PQGen[Result], interval: float = _INTERVAL_S, timeout: float | None = None) -> Result:
        """Drive one of psycopg's generators; see ``psycopg.AsyncConnection.wait``."""
        if timeout is None:
            waited = False
            try:
                wanted = next(gen)
                while wanted == _READ:
                    await self._readable()
                    waited = True
                    wanted = gen.send(_READY)
            except StopIteration as done:
                value: Result = done.value
                if waited:
                    return value
                gen = _finished(value)  # psycopg sees to it that a loop of such calls lets others have their turn
            except asyncio.CancelledError as problem:
                gen = _Interrupted(gen, problem)
            except TimeoutError:
                raise
            except OSError as problem:
                raise psycopg.OperationalError("connection socket closed") from problem
            finally:
                self._waiter = None
                if self.pgconn.status != _OK:
                    self._stop_reading()
        self._stop_reading()
        return await super().wait(gen, interval, timeout)

    async def close(self) -> None:
        """Close it. A statement that waits for its answer fails."""
        self._give_up_reading()
        await super().close()

    def finish(self) -> None:
        """Close it now. A statement that waits for its answer fails."""
        self._give_up_reading()
        self.pgconn.finish()

    @property
    def is_idle(self) -> bool:
        """Nothing is open in it, and it is not closed."""
        return self.pgconn.transaction_status == _IDLE

    @property
    def is_in_transaction(self) -> bool:
        """A transaction is open, none of whose statements has failed, and none is under way."""
        return self.pgconn.transaction_status == _IN_TRANSACTION

    def shut_down(self) -> None:
        """End the connection both ways, without closing the descriptor on which the event loop may be waiting."""
        try:
            with socket.socket(fileno=socket.dup(self.fileno())) as twin:
                twin.shutdown(socket.SHUT_RDWR)
        except (OSError, psycopg.Error) as problem:
            log.debug("a connection was down already: %s", problem)

    # -- inside ----------------------------------------------------------------------------------------------------

    def _send(self, statements: str) -> None:
        try:
            self.pgconn.send_query(statements.encode())
        except psycopg.Error:
            if self.pgconn.status != _OK:
                self._stop_reading()
            raise

    def _readable(self) -> asyncio.Future[None]:
        """What is done when the socket has something to read."""
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
        fd = self.pgconn.socket
        try:
            loop.add_reader(fd, self._on_readable)  # registered already, this costs no call of the system
        except RuntimeError:
            # uvloop gives a socket up after an error on it, though there may be something left to read.
            loop.remove_reader(fd)
            loop.add_reader(fd, self._on_readable)
        self._reading_fd, self._strayed = fd, False
        self._waiter = waiter = loop.create_future()
        return waiter

    def _on_overdue(self) -> None:
        """Tell whoever waits for an answer that it did not come in time."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(TimeoutError("the database did not answer in time"))
        else:
            self.shut_down()  # psycopg waits, in a way of its own

    def _on_readable(self) -> None:
        waiter = self._waiter
        if waiter is not None:
            if not waiter.done():
                waiter.set_result(None)
        elif self._strayed:
            self._stop_reading()  # the server says something unasked; whoever speaks to it next will hear it
        else:
            self._strayed = True  # asyncio's own loop looks at the socket once more before the waiter has read it

    def _give_up_reading(self) -> None:
        """Leave the loop, and tell whoever waits, for the loop will not."""
        self._stop_reading()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(psycopg.OperationalError("the connection was closed under its statement"))

    def _stop_reading(self) -> None:
        if self._reading_fd is not None:
            asyncio.get_running_loop().remove_reader(self._reading_fd)
            self._reading_fd = None


class BranchCursor(psycopg.AsyncCursor[TupleRow]):
    """A cursor that tells its connection what its statements did."""

    _conn: BranchConnection

    async def execute(  # type: ignore[override]  # the overloads for template strings come to the same
        self,
        query: QueryNoTemplate,
        params: Params | None = None,
        *,
        prepare: bool | None = None,
        binary: bool | None = None,
    ) -> Self:
        """See ``psycopg.AsyncCursor.execute``."""
        await super().execute(query, params, prepare=prepare, binary=binary)
        self._conn.on_statement(self.pgresult)
        return self

    async def executemany(self, query: Query, params_seq: Iterable[Params], *, returning: bool = False) -> None:
        """See ``psycopg.AsyncCursor.executemany``."""
        await super().executemany(query, params_seq, returning=returning)
        self._conn.on_statement(self.pgresult)


class BranchConnection(Session):
    """A connection whose transaction is a branch: only the coordinator commits it or rolls it back.

    It watches the statements that pass through its cursors, so that ``PREPARE TRANSACTION`` can be sent without asking
    before whether there is anything to prepare. That is a forecast; what decides is what the server says.
    """

    backend_pid: int = 0
    """The server's process at its other end; libpq forgets it with the connection."""
    synchronous_commit: str | None = None
    """What it was before any work used the connection."""
    changed: bool = False
    """A statement of the branch has changed rows."""
    left: bool = False
    """A statement has ended the branch's transaction."""

    def begin_branch(self) -> None:
        """Forget what the branch before did, and chose."""
        self.changed = self.left = self.may_finish = False
        self.row_factory = tuple_row
        self.cursor_factory = BranchCursor

    def on_settled(self, synchronous_commit: str | None) -> None:
        """Take note of what the work has made of its session, for a SET outlives its branch.

        What else work may have set, a role or a time limit, makes a COMMIT PREPARED fail, which shows.

        Args:
            synchronous_commit: how it is set now.
        """
        self.may_finish = synchronous_commit == self.synchronous_commit

    def on_statement(self, result: PGresult | None) -> None:
        """Take note of a statement of the branch."""
        if self.is_idle:
            self.left = True
        if not self.changed and result is not None:
            tag = result.command_status or b""
            self.changed = tag.startswith(_CHANGING) and not tag.endswith(b" 0")

    async def commit(self) -> None:
        """Refuse.

        Raises:
            psycopg.ProgrammingError: always.
        """
        raise psycopg.ProgrammingError("commit() can't be used in a branch: the coordinator decides")

    async def rollback(self) -> None:
        """Refuse.

        Raises:
            psycopg.ProgrammingError: always.
        """
        raise psycopg.ProgrammingError(
            "rollback() can't be used in a branch: raise an exception to abort it, or use conn.transaction() for a part"
        )


def _finished(value: Result) -> PQGen[Result]:
    """A generator that is done at once."""
    yield from ()
    return value


class _Interrupted(Generator[Wait, "Ready | int", Result]):
    """A generator in the middle of which its waiter was cancelled.

    Psycopg's own waiting knows how to end that (it cancels the statement at the server and reads what is left, or
    closes the connection), so it is let to meet the interruption itself.

    Args:
        rest: what is left of the generator.
        problem: the cancellation.
    """

    def __init__(self, rest: PQGen[Result], problem: asyncio.CancelledError) -> None:
        self._rest = rest
        self._problem: asyncio.CancelledError | None = problem

    def send(self, value: Any) -> Wait:
        problem, self._problem = self._problem, None
        if problem is not None:
            raise problem
        return self._rest.send(value)

    def throw(self, *problem: Any) -> Wait:
        return self._rest.throw(*problem)


def _first_row(result: PGresult) -> tuple[str | None, ...]:
    if not result.ntuples:
        return ()
    values = [result.get_value(0, column) for column in range(result.nfields)]
    return tuple([None if value is None else value.decode() for value in values])
