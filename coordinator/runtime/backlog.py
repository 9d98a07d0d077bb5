"""What a restart owes: decided transactions whose branches have not all heard, told a part at a time.

There may be thousands of them. Sent all at once, their Commit messages would lie in the participants' queues and memory
before whatever new work comes, and nothing would be told before all of it was read and built up. So a part is taken up,
and the next one when half of that has ended: while participants commit, the coordinator prepares what is next.

A participant that is away holds up no other: the next part is taken up after ``PAUSE_S`` in any case.

Until its part is due a transaction is in the log and not in memory. That is a state which exists anyway, when an end
was not durable at the crash: whoever asks about such a transaction has it taken up at once (``Requests``).
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Iterable

from coordinator.log.records import EndRecord, LoggedTransaction
from coordinator.protocol.states import Decision, Outcome
from coordinator.protocol.transaction import FINAL_STATES
from coordinator.runtime.clock import Timer
from coordinator.runtime.driver import Driver
from coordinator.runtime.running import Running

logger = logging.getLogger(__name__)

PART = 512
"""Enough to keep every participant's connections at work while the next part is built up."""

PAUSE_S = 0.25
QUIET_S = 0.5
"""After so many seconds without an end, what is left waits for participants that are away."""


class Backlog:
    """Takes up what is decided and not ended.

    Args:
        driver: drives it.
    """

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._left: deque[LoggedTransaction] = deque()
        self._telling: set[str] = set()  # taken up, and counted as under way
        self._unended: set[str] = set()
        self._timer: Timer | None = None
        self._look_up = asyncio.Event()

    def take_up(self, unended: Iterable[LoggedTransaction]) -> None:
        """Take up the first part; the others follow by themselves.

        Args:
            unended: what the log holds, in its order.
        """
        for logged in unended:
            if logged.decision.decision is Decision.ABORT:
                # It needs nothing more, but without an end it would never be cleaned up.
                now_unix_ms = self._driver.clock.unix_ms()
                self._driver.log.end(EndRecord(logged.decision.gtrid, Outcome.ABORTED, now_unix_ms))
            else:
                self._left.append(logged)
        self._unended = {logged.decision.gtrid for logged in self._left}
        if self._unended:
            self._driver.observers.append(self._on_moved)
            self._take_part()

    async def told(self) -> None:
        """Return when every participant that is there has heard all of it; at once when nothing was owed."""
        before = -1
        while self._unended and (self._left or len(self._unended) != before):
            before = len(self._unended)
            timer = self._driver.clock.call_later(QUIET_S, self._look_up.set)
            await self._look_up.wait()
            timer.cancel()
            self._look_up.clear()
        self.close()

    def close(self) -> None:
        """Take up nothing more; the next start does."""
        self._left.clear()
        self._call_off()
        if self._on_moved in self._driver.observers:
            self._driver.observers.remove(self._on_moved)

    # -- inside ----------------------------------------------------------------------------------------------------

    def _take_part(self) -> None:
        """Fill up what is under way to a part, and come back for more after the pause at the latest."""
        self._call_off()
        while self._left and len(self._telling) < PART:
            self._take(self._left.popleft())
        if self._left:
            self._timer = self._driver.clock.call_later(PAUSE_S, self._take_next_part)

    def _take_next_part(self) -> None:
        """Too little has ended in time: what is under way counts no more."""
        self._telling.clear()
        self._take_part()

    def _take(self, logged: LoggedTransaction) -> None:
        gtrid = logged.decision.gtrid
        if self._driver.find(gtrid) is not None:
            return  # somebody asked for it before its turn
        self._telling.add(gtrid)
        try:
            self._driver.recover(logged.decision)
        except Exception:
            # One record that can't be driven must not keep the others' branches in doubt.
            logger.exception("transaction %s could not be taken up", gtrid)

    def _on_moved(self, running: Running) -> None:
        if running.transaction.state not in FINAL_STATES or running.gtrid not in self._unended:
            return
        self._unended.discard(running.gtrid)
        self._telling.discard(running.gtrid)
        if not self._unended:
            self._look_up.set()
        elif self._left and len(self._telling) == PART // 2:
            # Not here: this is the middle of another transaction's step.
            self._call_off()
            self._timer = self._driver.clock.call_later(0.0, self._take_part)

    def _call_off(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
