"""Connections: the ones branches work on, and the few that end them.

Two pools, and never one. Branches that wait for row locks can hold every connection there is, and the COMMIT PREPARED
that would free those locks would then wait for a connection, forever.

A branch that is alone leaves its connection free between its vote and its end, and the server's process at its other
end is the one whose memory still has all of it, so phase two borrows it (``Pool.lend``). It never waits for one, and it
never takes more than one, and not the last: however long a COMMIT PREPARED takes, work goes on. Where many branches
are at work nothing is lent: the few processes of phase two are busy then, and so no colder than any other.

The pool is our own because of what a branch needs from it: an error in connecting reaches the branch that waited, with
its cause and at once; nothing reconnects in the background with delays of its own; and a connection that is not clean
is closed, never handed on.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, Generic, TypeVar

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from participant.config import ParticipantOptions
from participant.limits import Limits
from participant.postgres.session import SYNCHRONOUS_COMMIT, BranchConnection, Session

log = logging.getLogger(__name__)

ConnectionT = TypeVar("ConnectionT", bound=Session)
Result = TypeVar("Result")


class PoolFull(Exception):
    """No connection came free in time."""


class Pool(Generic[ConnectionT]):
    """Connections made when needed and kept.

    Args:
        connect: makes one.
        connections_max: how many at most.
        limits: watches over those who wait for one.
    """

    def __init__(
        self, connect: Callable[[], Coroutine[Any, Any, ConnectionT]], connections_max: int, limits: Limits
    ) -> None:
        self._connect = connect
        self._limits = limits
        self._room = connections_max  # how many more may be in use
        self._room_to_lend = max(2, connections_max)
        self._waiting: deque[asyncio.Future[None]] = deque()  # for room, in order
        self._idle: list[ConnectionT] = []
        self._busy: set[ConnectionT] = set()
        self._connecting: set[asyncio.Task[ConnectionT]] = set()
        self._closed = False

    @property
    def busy_count(self) -> int:
        """How many connections are in use."""
        return len(self._busy)

    async def take(
        self, wait_s: float, first: Callable[[ConnectionT], Awaitable[Result]], limit_s: float | None = None
    ) -> tuple[ConnectionT, Result]:
        """Take a connection and do the first thing on it, which must be harmless when done twice.

        A connection that died while it was idle shows it only now; it is replaced by another.

        Args:
            wait_s: how long to wait for a free one, in seconds.
            first: the first thing; limits its time itself.
            limit_s: how long connecting may take, in seconds; None leaves that to the connection's own limit.

        Returns:
            The connection, to be given back or dropped, and what ``first`` returned.

        Raises:
            PoolFull: none came free in time.
            TimeoutError: connecting took too long.
            psycopg.Error: connecting failed, or ``first`` did.
        """
        while True:
            connection, fresh = await self._take(wait_s, limit_s)
            try:
                return connection, await first(connection)
            except psycopg.OperationalError:
                dead = connection.broken or connection.closed
                await self.drop(connection)
                if fresh or not dead:
                    raise
                await self._drop_idle()  # they most likely died together
            except BaseException:
                await self.drop(connection)
                raise

    def lend(self) -> ConnectionT | None:
        """Take the connection that was given back last, for something short that is not what the pool is for.

        Returns:
            The connection, to be given back or dropped; None when any is in use, when there can be no other beside it,
            or when it is not fit.
        """
        idle = self._idle
        if not idle or self._room < self._room_to_lend or not idle[-1].may_finish:
            return None
        self._room -= 1
        connection = idle.pop()
        self._busy.add(connection)
        return connection

    async def give(self, connection: ConnectionT) -> None:
        """Give a connection back; one that is not clean is closed."""
        if self._closed or not connection.is_idle:
            await self.drop(connection)
        elif connection in self._busy:
            self._busy.discard(connection)
            self._idle.append(connection)
            self._make_room()

    async def drop(self, connection: ConnectionT) -> None:
        """Close a connection and make room for another."""
        if connection in self._busy:
            self._busy.discard(connection)
            self._make_room()
        await connection.close()

    async def close(self) -> None:
        """Close all, also those in use."""
        self._closed = True
        await self._drop_idle()
        for connection in list(self._busy):
            await self.drop(connection)
        if self._connecting:
            await asyncio.wait(self._connecting)

    async def _connected(self) -> ConnectionT:
        """Connect. Psycopg leaves the session of an interrupted attempt open until the garbage is collected, so an
        attempt is never interrupted: it has a time limit of its own, and its connection is closed when nobody wants it.
        """
        attempt = asyncio.create_task(self._connect())
        self._connecting.add(attempt)
        attempt.add_done_callback(self._connecting.discard)
        try:
            return await asyncio.shield(attempt)
        except asyncio.CancelledError:
            attempt.add_done_callback(_close_unwanted)
            raise

    async def _take(self, wait_s: float, limit_s: float | None) -> tuple[ConnectionT, bool]:
        if self._room:
            self._room -= 1
        else:
            await self._wait_for_room(wait_s)
        fresh = not self._idle
        if not fresh:
            connection = self._idle.pop()
        else:
            try:
                async with asyncio.timeout(limit_s):
                    connection = await self._connected()
            except BaseException:
                self._make_room()
                raise
        self._busy.add(connection)
        return connection, fresh

    async def _wait_for_room(self, wait_s: float) -> None:
        room: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(room)
        limit = self._limits.start(wait_s, partial(_give_up, room, wait_s))
        try:
            await room
        except asyncio.CancelledError:
            if room.done() and not room.cancelled() and room.exception() is None:
                self._make_room()  # it came this very moment, too late
            raise
        finally:
            self._limits.end(limit)

    def _make_room(self) -> None:
        """One less is in use: for whoever has waited longest, so that nobody who comes later overtakes."""
        while self._waiting:
            room = self._waiting.popleft()
            if not room.done():
                room.set_result(None)
                return
        self._room += 1

    async def _drop_idle(self) -> None:
        while self._idle:
            await self._idle.pop().close()


def _give_up(room: asyncio.Future[None], wait_s: float) -> None:
    """Tell whoever waits for room that there was none in time."""
    if not room.done():
        room.set_exception(PoolFull(f"none came free within {wait_s:g} s"))


def _close_unwanted(attempt: asyncio.Task[ConnectionT]) -> None:
    if attempt.cancelled():
        return
    if (problem := attempt.exception()) is not None:
        log.info("connecting failed, for a caller that had gone: %s", problem)
    else:
        attempt.result().finish()


def conninfo(dsn: str, options: ParticipantOptions, name: str) -> str:
    """Add to a DSN what every connection should have and the DSN does not say itself.

    Args:
        dsn: the user's.
        options: for keepalives and timeouts.
        name: how the session is called in pg_stat_activity.

    Raises:
        psycopg.ProgrammingError: the DSN can't be read.
    """
    wanted: dict[str, Any] = {
        "connect_timeout": max(2, round(options.connect_timeout_s)),  # libpq takes 1 for 2
        "keepalives": 1,
        "keepalives_idle": options.keepalive_s,
        "keepalives_interval": max(1, options.keepalive_s // 3),
        "keepalives_count": 3,
        "tcp_user_timeout": 2_000 * options.keepalive_s,
        "fallback_application_name": f"handfast {name}",
    }
    said = conninfo_to_dict(dsn)
    return make_conninfo(dsn, **{key: value for key, value in wanted.items() if key not in said})


async def connect_branch(info: str, options: ParticipantOptions, limits: Limits) -> BranchConnection:
    """Connect for branches: autocommit off, and the server looks after the client's life during a statement.

    Args:
        info: from ``conninfo``.
        options: how often the server looks.
        limits: watches over commands.

    Raises:
        psycopg.Error: it did not work.
    """
    connection = await BranchConnection.connect(info, autocommit=True)
    connection.limits, connection.backend_pid = limits, connection.info.backend_pid
    try:
        (connection.synchronous_commit,) = (await connection.command(f"SELECT {SYNCHRONOUS_COMMIT}")).row
        if options.alive_check_ms:
            await _check_alive(connection, options.alive_check_ms)
        await connection.set_autocommit(False)
    except BaseException:
        await connection.close()
        raise
    return connection


async def connect_finish(info: str, limits: Limits) -> Session:
    """Connect for phase two: autocommit, for COMMIT PREPARED runs in no transaction. Arguments as above.

    Raises:
        psycopg.Error: it did not work.
    """
    session = await Session.connect(info, autocommit=True)
    session.limits = limits
    return session


async def _check_alive(connection: Session, alive_check_ms: int) -> None:
    try:
        await connection.execute(f"SET client_connection_check_interval = {alive_check_ms:d}")
    except (psycopg.errors.InvalidParameterValue, psycopg.errors.UndefinedObject) as problem:
        # A server before 14, or on a system that can't do it. Then a dead client's statement runs to its lock timeout.
        log.info("the server can't check during a statement whether its client lives: %s", problem)
