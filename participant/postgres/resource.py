"""The Postgres resource manager: the contract of participant.resource, put together from this package's parts."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from functools import partial
from typing import Any

import psycopg

from handfast.catalog import HandfastFault
from handfast.xid import Xid, split_bqual
from participant.clock import Clock, SystemClock
from participant.config import ParticipantOptions
from participant.limits import Limits
from participant.postgres import branch, health, recover
from participant.postgres.branch import PostgresBranch
from participant.postgres.errors import text_of, work_fault
from participant.postgres.finish import Finisher
from participant.postgres.pools import Pool, PoolFull, connect_branch, connect_finish, conninfo
from participant.postgres.session import BranchConnection, Session
from participant.resource import End, Finding, Found, PreparedBranch


class PostgresResource:
    """A Postgres database as a resource; see ResourceManager.

    Args:
        dsn: the database; connections are made when needed.
        options: pools and timeouts.
        clock: where time comes from.
    """

    kind = "postgres"

    def __init__(self, dsn: str, options: ParticipantOptions | None = None, clock: Clock | None = None) -> None:
        self._dsn = dsn
        self._options = options or ParticipantOptions()
        self._clock: Clock = clock or SystemClock()
        self._limits = Limits(self._clock)
        self._resource = ""
        self._info = dsn
        self._work = Pool(self._connect_branch, self._options.connections_max, self._limits)
        self._finish = Pool(self._connect_finish, self._options.finish_connections_max, self._limits)
        self._finisher = Finisher(self._finish, self._work, "", self._options, self._clock)

    @property
    def work_connections(self) -> int:
        """How many connections branches hold now."""
        return self._work.busy_count

    async def open(self, bqual: str) -> None:
        """See ResourceManager.

        Raises:
            HandfastFault: SETTING_INVALID, the DSN can't be read.
        """
        self._resource = split_bqual(bqual)[0]
        try:
            self._info = conninfo(self._dsn, self._options, bqual)
        except psycopg.ProgrammingError as problem:
            raise HandfastFault("SETTING_INVALID", setting="dsn", problem=text_of(problem)) from problem
        self._finisher = Finisher(self._finish, self._work, self._resource, self._options, self._clock)

    async def close(self) -> None:
        """See ResourceManager."""
        await self._work.close()
        await self._finish.close()

    async def begin(self, xid: Xid, time_left_s: float) -> PostgresBranch:
        """See ResourceManager."""
        wait_s = min(self._options.connection_wait_s, time_left_s)
        gid = xid.gid()
        first = partial(branch.begin, gid=gid, time_left_s=time_left_s, options=self._options)
        try:
            connection, _ = await self._work.take(wait_s, first, max(0.0, time_left_s))
        except PoolFull as problem:
            raise self._fault("CONNECTIONS_EXHAUSTED", xid, problem) from problem
        except TimeoutError as problem:
            raise self._fault("DATABASE_UNREACHABLE", xid, problem) from problem
        except psycopg.Error as problem:
            fault = work_fault(problem, xid, self._resource) or self._fault("DATABASE_UNREACHABLE", xid, problem)
            raise fault from problem
        return PostgresBranch(xid, gid, connection, self._work, self._finisher, self._resource)

    def commit_prepared(self, xid: Xid, proof: str) -> Coroutine[Any, Any, End]:
        """See ResourceManager."""
        return self._finisher.commit_prepared(xid, proof)

    def rollback_prepared(self, xid: Xid, proof: str) -> Coroutine[Any, Any, End]:
        """See ResourceManager."""
        return self._finisher.rollback_prepared(xid, proof)

    async def ends_of(self, branches: Sequence[tuple[Xid, str]]) -> list[Found]:
        """See ResourceManager."""
        return await self._finisher.ends_of(branches)

    async def recover(self, resource: str, coordinator_id: str, *, detail: bool) -> list[PreparedBranch]:
        """See ResourceManager."""

        async def look(connection: Session) -> list[PreparedBranch]:
            return await recover.list_prepared(connection, resource, coordinator_id, detail=detail)

        try:
            return await self._finisher.run(look)
        except (psycopg.Error, PoolFull, TimeoutError) as problem:
            raise HandfastFault("RESOURCE_UNREACHABLE", resource=resource, problem=text_of(problem)) from problem

    async def inspect(self) -> list[Finding]:
        """See ResourceManager."""

        async def look(connection: Session) -> list[Finding]:
            return await health.check(connection, self._options, self._clock.unix_ms())

        try:
            return await self._finisher.run(look)
        except (psycopg.Error, PoolFull, TimeoutError) as problem:
            return health.unreachable(text_of(problem))

    def fault_of(self, problem: BaseException, xid: Xid, resource: str) -> HandfastFault | None:
        """See ResourceManager."""
        return work_fault(problem, xid, resource)

    def _fault(self, code: str, xid: Xid, problem: BaseException) -> HandfastFault:
        return HandfastFault(code, gtrid=xid.gtrid, bqual=xid.bqual, resource=self._resource, problem=text_of(problem))

    async def _connect_branch(self) -> BranchConnection:
        return await connect_branch(self._info, self._options, self._limits)

    async def _connect_finish(self) -> Session:
        return await connect_finish(self._info, self._limits)
