"""Who watches transactions change, each with a queue that has an end.

The driver tells observers in the middle of its work, so an observer must neither wait nor grow without bound. A watcher
that does not keep up loses the oldest changes and is told how many; what it sees last is always the newest state.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self

from coordinator.rpc.codec import transaction_message
from coordinator.runtime.driver import Driver
from coordinator.runtime.running import Running
from handfast.v1 import admin_pb2 as a

QUEUE_MAX = 1024
"""Changes that wait for one watcher."""


class Watcher:
    """One who watches; a context manager, so that nobody is told who has left.

    Args:
        driver: whose transactions.
        gtrid: only this transaction; empty means all.
        queue_max: how many changes wait at most.
    """

    def __init__(self, driver: Driver, gtrid: str = "", queue_max: int = QUEUE_MAX) -> None:
        self._driver = driver
        self._gtrid = gtrid
        self._queue_max = queue_max
        self._queue: deque[a.Transaction] = deque()
        self._skipped = 0
        self._wake = asyncio.Event()

    def __enter__(self) -> Self:
        self._driver.observers.append(self._observe)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._driver.observers.remove(self._observe)

    def _observe(self, running: Running) -> None:
        if self._gtrid and running.gtrid != self._gtrid:
            return
        if len(self._queue) >= self._queue_max:
            self._queue.popleft()
            self._skipped += 1
        self._queue.append(transaction_message(running))
        self._wake.set()

    async def changes(self, stop: asyncio.Event) -> AsyncIterator[a.WatchTransactionsResponse]:
        """Yield each change, until ``stop`` is set."""
        stopped = asyncio.create_task(stop.wait())
        stopped.add_done_callback(lambda _: self._wake.set())
        try:
            while not stop.is_set():
                while self._queue:
                    skipped, self._skipped = self._skipped, 0
                    yield a.WatchTransactionsResponse(transaction=self._queue.popleft(), skipped=skipped)
                await self._wake.wait()
                self._wake.clear()
        finally:
            stopped.cancel()
