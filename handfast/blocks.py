"""gtrids without a round trip: the client draws them from a block that the coordinator handed out.

The coordinator holds nothing for a gtrid that was drawn and never used, so a block costs it a number. The next block is
fetched in the background when half of the present one is used, and a busy client never waits for it.

A block belongs to one life of the coordinator: after a restart its gtrids are refused. So a block is dropped when the
connection that it came over is lost, and when the coordinator says that it doesn't know a gtrid of it. Nothing is drawn
in the last quarter of a block's lifetime, because a transaction begins at the coordinator only when its first branch
enlists, some time after its gtrid was drawn.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from handfast.clock import Clock
from handfast.v1 import coordinator_pb2
from handfast.xid import base36

LIFETIME_USED = 0.75

log = logging.getLogger(__name__)

Fetch = Callable[[], Awaitable[coordinator_pb2.BeginResponse]]
"""Asks the coordinator for a block. Raises a HandfastError when there is none to be had."""


@dataclass(slots=True)
class _Block:
    """What is left of a block."""

    prefix: str
    next: int
    end: int
    refill_at: int
    expires_s: float
    default_timeout_s: float


class GtridBlocks:
    """Draws gtrids, and fetches blocks ahead of need.

    Args:
        fetch: asks the coordinator for a block.
        clock: measures lifetimes.
    """

    def __init__(self, fetch: Fetch, clock: Clock) -> None:
        self._fetch = fetch
        self._clock = clock
        self._block: _Block | None = None
        self._spare: _Block | None = None
        self._refill: asyncio.Task[None] | None = None
        self._generation = 0

    async def draw(self) -> tuple[str, float]:
        """Take a gtrid that nobody else has.

        Returns:
            The gtrid, and the coordinator's default timeout in seconds; 0 when it told none.

        Raises:
            HandfastError: there is no block, and none is to be had.
        """
        while (block := self._usable()) is None:
            # Shared by everyone who waits, so one of them giving up must not cancel it for the others.
            await asyncio.shield(self._refilling())
        gtrid = block.prefix + base36(block.next)
        block.next += 1
        if block.next >= block.refill_at and self._spare is None and self._refill is None:
            self._refilling().add_done_callback(_log_failure)
        return gtrid, block.default_timeout_s

    def drop(self) -> None:
        """Forget every block: what is left of them is no longer known to the coordinator."""
        self._generation += 1
        self._block = self._spare = None

    def drop_block_of(self, gtrid: str) -> None:
        """Forget the blocks if this gtrid is of one of them; others may be newer than the coordinator's restart."""
        if any(block is not None and gtrid.startswith(block.prefix) for block in (self._block, self._spare)):
            self.drop()

    async def close(self) -> None:
        """Stop fetching."""
        if self._refill is not None:
            self._refill.cancel()
            await asyncio.gather(self._refill, return_exceptions=True)

    def _usable(self) -> _Block | None:
        for block in (self._block, self._spare):
            if block is not None and block.next < block.end and self._clock.monotonic_s() < block.expires_s:
                if block is self._spare:
                    self._block, self._spare = block, None
                return block
        self._block = self._spare = None
        return None

    def _refilling(self) -> asyncio.Task[None]:
        # One that is done and has not been cleared away yet brings nothing any more: awaiting it would return at once,
        # and whoever draws would go round for ever without letting the loop clear it away.
        if self._refill is None or self._refill.done():
            self._refill = asyncio.create_task(self._fetch_spare())
            self._refill.add_done_callback(self._on_refilled)
        return self._refill

    def _on_refilled(self, task: asyncio.Task[None]) -> None:
        if self._refill is task:
            self._refill = None
        if not task.cancelled():
            task.exception()  # seen: told to those who wait, or logged when it was fetched ahead

    async def _fetch_spare(self) -> None:
        generation, asked_s = self._generation, self._clock.monotonic_s()
        answer = await self._fetch()
        if generation == self._generation:  # else it may be of the life that was lost meanwhile
            self._spare = _block_of(answer, asked_s)


def _block_of(answer: coordinator_pb2.BeginResponse, asked_s: float) -> _Block:
    first, count = answer.block.first, answer.block.count
    return _Block(
        prefix=answer.block.prefix,
        next=first,
        end=first + count,
        refill_at=first + (count + 1) // 2,
        expires_s=asked_s + LIFETIME_USED * answer.block.lifetime_ms / 1000,
        default_timeout_s=answer.timeout_ms / 1000,
    )


def _log_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (problem := task.exception()) is not None:
        log.warning("no gtrids could be fetched ahead of need; the next transaction asks again: %s", problem)
