"""A bystander: a writer that knows nothing of Handfast, and waits for a row that a branch in doubt holds locked."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import psycopg

from chaos.stack import wait_until

_WRITE = "UPDATE account SET balance = balance WHERE id = %s"
_BLOCKERS = "SELECT pg_blocking_pids(%s)"
_BLOCKED_S_MAX = 5.0

Connection = psycopg.AsyncConnection[tuple[Any, ...]]


class Writer:
    """One statement in a session of its own.

    Args:
        dsn: the database.
        account: the account whose row it writes.
    """

    def __init__(self, dsn: str, account: int) -> None:
        self.account = account
        self.statement = _WRITE.replace("%s", str(account))
        self._dsn = dsn
        self._started_s = 0.0
        self._ended_s: float | None = None
        self._pid = 0
        self._task: asyncio.Task[None] | None = None

    @property
    def ended(self) -> bool:
        """Whether it has written."""
        return self._ended_s is not None

    @property
    def waited_s(self) -> float:
        """How long it has waited, or had waited when its turn came, in seconds."""
        return (self._ended_s or time.monotonic()) - self._started_s

    async def start(self) -> bool:
        """Send the statement, and see whether a branch in doubt blocks it.

        Postgres gives process id 0 for a lock that a prepared transaction holds: nobody is there who could be asked, or
        killed.

        Returns:
            True once it is blocked so; False when it has written, because nothing blocked it.

        Raises:
            NotInTime: neither.
        """
        connection = await psycopg.AsyncConnection.connect(self._dsn, autocommit=True)
        self._started_s = time.monotonic()
        self._task = asyncio.create_task(self._write(connection))
        await asyncio.to_thread(self._look_on, connection.info.backend_pid)
        return not self.ended

    async def finish(self, timeout_s: float) -> float:
        """Wait until it has written. Returns how long it was blocked, in seconds.

        Raises:
            TimeoutError: it is blocked still.
        """
        if self._task is not None:
            async with asyncio.timeout(timeout_s):
                await self._task
        return self.waited_s

    async def stop(self) -> None:
        """Give up waiting."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)  # what became of it is for `finish` to tell

    async def _write(self, connection: Connection) -> None:
        async with connection:
            await connection.execute(_WRITE, (self.account,))
            self._ended_s = time.monotonic()

    def _look_on(self, pid: int) -> None:
        with psycopg.connect(self._dsn, autocommit=True) as onlooker:
            wait_until(
                lambda: self.ended or 0 in onlooker.execute(_BLOCKERS, (pid,)).fetchall()[0][0],
                _BLOCKED_S_MAX,
                f"account {self.account} is neither written nor held by a branch in doubt",
            )
