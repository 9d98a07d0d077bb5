"""Machines beside the rows of a cohort, for the trace.

A trace tells each step of each transaction as its machine took it, and a row has no machine. So with a trace each row
gets one, which takes every step as well. Where it wants something else than the cohort, that is a defect.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from coordinator.protocol import events as e
from coordinator.protocol.cohort import Cohort, CohortViolated
from coordinator.protocol.effects import Effects
from coordinator.protocol.transaction import GlobalTransaction
from coordinator.runtime.running import Running
from coordinator.runtime.trace import ProtocolTrace


class Shadows:
    """The machines of one cohort, which take at once what has happened to it so far.

    Args:
        cohort: the rows.
        trace: where each step is told.
        begun_unix_ms: when they began, in milliseconds since 1970.
        client: who began them.
    """

    def __init__(self, cohort: Cohort, trace: ProtocolTrace, begun_unix_ms: int, client: str) -> None:
        self._cohort = cohort
        self._trace = trace
        self._all = []
        for row, gtrid in enumerate(cohort.gtrids):
            shadow = Running(GlobalTransaction(gtrid, cohort.deadline_s), begun_unix_ms, client=client)
            shadow.one_shot = True
            self._all.append(shadow)
            for _, event in cohort.history(row):
                self._step_one(shadow, event)

    def step(self, rows: Sequence[int], wanted: Sequence[int], event_of: Callable[[int], e.Event]) -> None:
        """Have the machines of these rows take a step.

        Args:
            rows: which.
            wanted: those of them for which the cohort wants a record written.
            event_of: what happened to each.

        Raises:
            CohortViolated: a machine wants something else.
        """
        recorded = set(wanted)
        for row in rows:
            effects = self._step_one(self._all[row], event_of(row))
            if (effects.force is not None or effects.end is not None) != (row in recorded):
                raise CohortViolated(self._cohort.gtrids[row], f"its machine wants {effects}")

    def _step_one(self, shadow: Running, event: e.Event) -> Effects:
        before = shadow.transaction.state
        effects = shadow.transaction.step(event)
        self._trace.stepped(shadow, event, before, effects)
        return effects
