"""Who waits for the outcome of a transaction, and when each is told.

As a rule a client is told when every branch has applied the decision, and of an abort when each has been tried once.
Nobody waits for that for ever: from the decision on its wait is limited, and what is told when it is over names the
branches that are still pending. Whoever asked for it (``at_decision``) is told as soon as the decision stands.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from coordinator.protocol.members import ABORT
from coordinator.protocol.transaction import FINAL_STATES
from coordinator.runtime.clock import Clock
from coordinator.runtime.options import DriverOptions
from coordinator.runtime.running import Running, Waiter
from coordinator.runtime.schedule import Schedule
from handfast.catalog import HandfastFault

logger = logging.getLogger(__name__)


class Answers:
    """Tells those who wait for transactions.

    Args:
        clock: where time comes from.
        options: how long anybody waits.
        transactions: those in memory, by gtrid.
    """

    def __init__(self, clock: Clock, options: DriverOptions, transactions: Mapping[str, Running]) -> None:
        self._clock = clock
        self._options = options
        self._transactions = transactions
        self.waits: Schedule[str] = Schedule(clock, self.wait_over)

    def limit_wait(self, running: Running) -> None:
        """From now on those who wait do so for a limited time, if it is not limited already."""
        machine = running.transaction
        if machine.gtrid not in self.waits and machine.state not in FINAL_STATES:
            aborting = machine.decision is ABORT
            wait_s = self._options.abort_wait_s if aborting else self._options.apply_wait_s
            self.waits.add(machine.gtrid, self._clock.now_s() + wait_s)

    def forget(self, gtrid: str) -> None:
        """Nobody waits for this transaction any more."""
        self.waits.cancel(gtrid)

    def close(self) -> None:
        """Nobody's wait will end any more."""
        self.waits.close()

    def tell_ready(self, running: Running) -> None:
        """Tell those for whom it is time."""
        machine = running.transaction
        if machine.settled or running.apply_wait_over:
            ready, running.waiters = running.waiters, []
        elif machine.decided:
            ready = [waiter for waiter in running.waiters if waiter.at_decision]
            if ready:
                running.waiters = [waiter for waiter in running.waiters if not waiter.at_decision]
        else:
            return
        for waiter in ready:
            tell(running, waiter, running)

    def wait_over(self, gtrid: str) -> None:
        """Tell those who wait for this transaction where it stands now."""
        running = self._transactions.get(gtrid)
        if running is not None:
            running.apply_wait_over = True
            self.tell_ready(running)
            running.apply_wait_over = False


def tell(running: Running, waiter: Waiter, answer: Running | HandfastFault) -> None:
    """Tell one who waits."""
    try:
        waiter.on_answer(answer)
    except Exception:
        # Whoever asked may have a defect; the transaction goes on, and can be asked for again.
        logger.exception("telling the outcome of transaction %s failed", running.gtrid)
