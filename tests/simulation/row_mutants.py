"""Planted bugs of cohorts: what could go wrong because many transactions are rows of a few lists (see ``mutants``)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, cast

from coordinator.runtime.driver import Driver
from coordinator.runtime.gtrids import Gtrids
from coordinator.runtime.running_cohort import RunningCohort, _Acknowledgements, _Votes


def decided_before_durable(right: Any) -> Any:
    def _offer(self: RunningCohort, rows: Sequence[int], unix_ms: int) -> None:
        right(self, rows, unix_ms)
        self._guarded(rows, partial(self._tell_decision, rows))

    return _offer


def votes_of_other_rows(right: Any) -> Any:
    def columns(self: _Votes, rows: Sequence[int], answer: Any, start: int) -> None:
        last = len(self._cohort.cohort.gtrids) - 1
        right(self, [last - row for row in rows], answer, start)

    return columns


def acknowledgements_of_other_rows(right: Any) -> Any:
    def columns(self: _Acknowledgements, rows: Sequence[int], answer: Any, start: int) -> None:
        cohort, told = self._decided.cohort.cohort, self._decided.rows
        waiting = [at for at, row in enumerate(told) if cohort.bquals[self._branch] in cohort.awaits(row)]
        right(self, waiting[-len(rows) :], answer, start)

    return columns


def log_speaks_to_rows_only(right: Any) -> Any:
    def _on_standings(self: RunningCohort, rows: Sequence[int], standings: Sequence[Any]) -> None:
        heard = [(row, standing) for row, standing in zip(rows, standings, strict=True) if row not in self._left]
        if heard:
            right(self, [row for row, _ in heard], [standing for _, standing in heard])

    return _on_standings


def clock_stands_at_the_deadline(right: Any) -> Any:
    def __init__(self: RunningCohort, *args: Any) -> None:
        right(self, *args)
        clock, deadline_s = self._driver.clock, self.cohort.deadline_s
        slow = _Instead(clock, now_s=lambda: min(clock.now_s(), deadline_s))
        self._driver = cast("Driver", _Instead(self._driver, clock=slow))

    return __init__


class _Instead:
    """Something with a few of its parts replaced."""

    def __init__(self, right: Any, **parts: Any) -> None:
        self._right = right
        self.__dict__.update(parts)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._right, name)


def claims_of_rows_mark_nothing(right: Any) -> Any:
    def claim_rows(self: Gtrids, gtrids: Sequence[str], client: str) -> list[int]:
        return [row for row, gtrid in enumerate(gtrids) if self.is_claimable(gtrid)]

    return claim_rows
