"""What is kept of transactions that have ended.

What must outlive the process is in the log and nowhere else. Kept in memory are the last ones with their history, for
whoever asks again or looks on; and, by name, those that committed without a record (one branch, or read-only ones), for
of such a one the absence of a record proves nothing.
"""

from __future__ import annotations

from collections import OrderedDict

from coordinator.protocol.members import COMMITTED
from coordinator.protocol.states import Outcome
from coordinator.protocol.transaction import GlobalTransaction
from coordinator.runtime.in_memory import Finished
from coordinator.runtime.options import DriverOptions
from coordinator.runtime.running import Running


class Ended:
    """The transactions that have ended, as long as somebody may ask for them.

    Args:
        options: how many are kept.
    """

    def __init__(self, options: DriverOptions) -> None:
        self.finished = Finished(options.finished_kept_max)
        self.unrecorded: OrderedDict[str, Outcome] = OrderedDict()
        self._unrecorded_kept_max = options.unrecorded_kept_max

    def keep(self, running: Running) -> None:
        """Keep one that has just ended."""
        machine = running.transaction
        self.finished[machine.gtrid] = running
        if machine.outcome is not COMMITTED:
            running.results = {}  # of an abort nobody asks for them
        elif not machine.offered and machine.branches:
            self.unrecorded[machine.gtrid] = machine.outcome
            if len(self.unrecorded) > self._unrecorded_kept_max:
                self.unrecorded.popitem(last=False)


def count_end(counters: dict[str, int], machine: GlobalTransaction) -> None:
    """Count how one ended, and which short cut it took."""
    if machine.outcome is COMMITTED:
        counters["committed"] += 1
        if not machine.offered:
            counters["one_phase" if machine.one_phase else "read_only"] += 1
    elif machine.outcome is Outcome.ABORTED:
        counters["aborted"] += 1
    else:
        counters["heuristic"] += 1
