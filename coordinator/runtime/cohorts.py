"""The cohorts of one coordinator: one-shot transactions that came together, and are driven together.

See ``coordinator.protocol.cohort`` for what a cohort is, and ``running_cohort`` for how one is driven.
"""

from __future__ import annotations

from collections.abc import Sequence

from coordinator.runtime.driver import Driver
from coordinator.runtime.running_cohort import DecidedRows, RowsAnswer, RowsWork, RunningCohort
from coordinator.runtime.schedule import Schedule


class Cohorts:
    """All rows.

    Args:
        driver: whose transactions they are.
    """

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        driver.counters["begun_together"] = 0  # of those begun
        self._deadlines: Schedule[RunningCohort] = Schedule(driver.clock, lambda cohort: cohort.on_deadline())
        self._waits: Schedule[DecidedRows] = Schedule(
            driver.clock, lambda decided: decided.cohort.on_wait_over(decided)
        )

    def can_take(self, bquals: Sequence[str]) -> bool:
        """Whether transactions with these branches may begin as rows now."""
        driver = self.driver
        if driver.closed or driver.observers or not driver.failpoints.idle:
            return False
        return len(bquals) >= 2 and all(driver.transport.takes_columns(bqual) for bqual in bquals)

    def begin(
        self,
        gtrids: Sequence[str],
        work: RowsWork,
        timeout_s: float,
        client: str,
        at_decision: bool,
        answer: RowsAnswer,
    ) -> None:
        """Hold new transactions, and start to commit them. The names were claimed by the caller.

        Args:
            gtrids: their names; a row each.
            work: what they are to do.
            timeout_s: how long they may stay undecided.
            client: who begins them.
            at_decision: whether the answer is wanted at the decision.
            answer: told what becomes of each row.
        """
        cohort = RunningCohort(self, gtrids, work, timeout_s, client, at_decision, answer)
        driver = self.driver
        driver.transactions.rows.update(dict.fromkeys(gtrids, cohort))
        driver.open_by_client[client] += len(gtrids)
        driver.counters["begun"] += len(gtrids)
        driver.counters["begun_together"] += len(gtrids)
        self._deadlines.add(cohort, cohort.cohort.deadline_s)
        cohort.begin()

    def close(self) -> None:
        """Call off every timer."""
        self._deadlines.close()
        self._waits.close()

    # -- for the cohorts -------------------------------------------------------------------------------------------

    def no_deadline(self, cohort: RunningCohort) -> None:
        """All of its rows are decided, or gone."""
        self._deadlines.cancel(cohort)

    def limit_wait(self, decided: DecidedRows, due_s: float) -> None:
        """Nobody waits longer than that for these rows."""
        self._waits.add(decided, due_s)

    def no_wait(self, decided: DecidedRows) -> None:
        """Nobody waits for these rows any more."""
        self._waits.cancel(decided)
