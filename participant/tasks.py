"""Tasks that belong to nobody who could be cancelled: kept until they end, waited for at the end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from handfast.catalog import HandfastFault

Result = TypeVar("Result")

log = logging.getLogger(__name__)


class Tasks:
    """A set of running tasks."""

    def __init__(self) -> None:
        self._running: dict[asyncio.Task[Any], Callable[[], object] | None] = {}

    def start(
        self, work: Coroutine[Any, Any, Result], then: Callable[[], object] | None = None
    ) -> asyncio.Task[Result]:
        """Start a task. Whoever wants its result waits for it, shielded; its failure is logged in any case.

        Args:
            work: what it does.
            then: called when it has ended, before anybody who waits for it goes on.
        """
        task = asyncio.get_running_loop().create_task(work)  # asyncio.create_task is two more calls
        self._running[task] = then
        task.add_done_callback(self._on_done)
        return task

    async def settle(self, wait_s: float) -> None:
        """Wait a while for those that are running now."""
        if self._running:
            await asyncio.wait(set(self._running), timeout=wait_s)

    async def finish(self, wait_s: float) -> None:
        """Wait for all of them, then cancel those that are still running."""
        await self.settle(wait_s)
        left = set(self._running)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    def _on_done(self, task: asyncio.Task[Any]) -> None:
        then = self._running.pop(task)
        if then is not None:
            then()
        if task.cancelled():
            return
        problem = task.exception()
        if problem is None:
            return
        if isinstance(problem, HandfastFault):
            log.info("%s of %s: %s", problem.bqual or "-", problem.gtrid or "-", problem.message)
        else:
            log.error("a task failed", exc_info=problem)
