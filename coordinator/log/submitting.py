"""The half of a log that does not depend on where it writes: turning calls into submissions, and results into answers.

A store adds one method, which takes a submission and sees to it that, once it is durable or has failed, ``_deliver``
is called with its result on the loop's thread.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from coordinator.log.records import (
    CommitRows,
    DecisionRecord,
    EndRecord,
    EndRows,
    ParticipantRecord,
    ResolutionRecord,
)
from coordinator.log.rows import decision_row, end_row, participant_row, resolution_row
from coordinator.log.store import LogBroken, LogRefused, OnAllDecided, OnDecided, OnWritten
from coordinator.log.submissions import (
    Applied,
    Decide,
    DropEnded,
    End,
    Forget,
    RaiseHorizon,
    Register,
    Resolve,
    Submission,
)
from coordinator.protocol.states import Decision

DROPPED_PER_FORCE_MAX = 1000
"""How many old transactions go in one force. Decisions wait behind it, for some 15 ms."""

LAZY_FLUSH_S = 1.0
"""How long an end record waits for a force to travel with, in seconds."""


class SubmittingLog(ABC):
    """Base of the stores.

    Args:
        on_broken: called once, on the loop's thread, when the log must no longer be used.
        around: entered while the callbacks of a batch are run.
    """

    def __init__(
        self, on_broken: Callable[[LogBroken], None], around: AbstractContextManager[object] | None = None
    ) -> None:
        self._on_broken = on_broken
        self._around = around or nullcontext()
        self._broken: LogBroken | None = LogBroken("the decision log is not open")
        self._horizon_unix_ms = 0
        self._counts: dict[str, int] = {}
        self._reset_counts()

    @abstractmethod
    def _submit(self, submission: Submission) -> None:
        """Take a submission while the log is open."""

    @abstractmethod
    def _loop(self) -> asyncio.AbstractEventLoop:
        """The loop on whose thread the log is used."""

    # -- writes --------------------------------------------------------------------------------------------------

    def decide(self, record: DecisionRecord, on_decided: OnDecided) -> None:
        """See LogStore."""
        self._offer(Decide(record, decision_row(record), on_decided))

    def decide_all(self, records: CommitRows, on_decided: OnAllDecided) -> None:
        """See LogStore."""
        standings: list[Decision | LogRefused | LogBroken] = []
        keep = standings.append

        def on_last(standing: Decision | LogRefused | LogBroken) -> None:
            keep(standing)
            on_decided(standings)

        # Callbacks run in the order of the offers, so with the last one all are there.
        submissions = [Decide(record, decision_row(record), keep) for record in records.each()]
        submissions[-1].callback = on_last
        for submission in submissions:
            self._offer(submission)

    def end_all(self, records: EndRows) -> None:
        """See LogStore."""
        for record in records.each():
            self.end(record)

    def end(self, record: EndRecord, on_written: OnWritten | None = None) -> None:
        """See LogStore."""
        self._offer(End(record, end_row(record), on_written))

    def register(self, record: ParticipantRecord, on_written: OnWritten) -> None:
        """See LogStore."""
        self._offer(Register(record, participant_row(record), on_written))

    def record_resolution(self, record: ResolutionRecord, on_written: OnWritten) -> None:
        """See LogStore."""
        self._offer(Resolve(record, resolution_row(record), on_written))

    def forget(self, gtrid: str, on_written: OnWritten) -> None:
        """See LogStore."""
        self._offer(Forget(gtrid, on_written))

    def forget_before(self, horizon_unix_ms: int, on_forgotten: Callable[[int | LogRefused | LogBroken], None]) -> None:
        """See LogStore.

        Each step is submitted when the loop has heard of the one before. So the loop's thread knows the new horizon
        before the first record can be missing, and what others submitted meanwhile is forced between two steps.
        """
        dropped_in_all = 0

        def on_raised(failure: LogRefused | LogBroken | None) -> None:
            if failure is not None:
                on_forgotten(failure)
            else:
                self._horizon_unix_ms = max(self._horizon_unix_ms, horizon_unix_ms)
                drop_some()

        def drop_some() -> None:
            if self._broken is not None:
                on_forgotten(dropped_in_all)
            else:
                self._submit(DropEnded(horizon_unix_ms, DROPPED_PER_FORCE_MAX, on_dropped))

        def on_dropped(dropped: int | LogRefused | LogBroken) -> None:
            nonlocal dropped_in_all
            if not isinstance(dropped, int):
                on_forgotten(dropped)
                return
            dropped_in_all += dropped
            if dropped == DROPPED_PER_FORCE_MAX:
                drop_some()
            else:
                on_forgotten(dropped_in_all)

        self._offer(RaiseHorizon(horizon_unix_ms, on_raised))

    def _offer(self, submission: Submission) -> None:
        if self._broken is None:
            self._submit(submission)
        else:
            asyncio.get_running_loop().call_soon(self._answer, submission, self._broken)

    # -- answers -------------------------------------------------------------------------------------------------

    def _deliver(self, batch: Sequence[Submission], applied: Applied) -> None:
        """Run the callbacks of a batch that is durable."""
        counts = self._counts
        counts["forces"] += 1
        counts["decisions"] += applied.decisions
        counts["ends"] += applied.ends
        counts["records"] += applied.decisions + applied.ends + applied.others
        with self._around:
            for submission, result in zip(batch, applied.results, strict=True):
                if submission.callback is not None:
                    self._answer(submission, result)

    def _deliver_failure(self, batch: Sequence[Submission], failure: LogRefused | LogBroken) -> None:
        """Tell a whole batch why none of it was written."""
        for submission in batch:
            self._answer(submission, failure)

    def _answer(self, submission: Submission, result: Any) -> None:
        # Any: which results a kind of submission can get is said by its callback's type, and kept by who applied it.
        if submission.callback is None:
            return
        try:
            submission.callback(result)
        except Exception as error:  # noqa: BLE001 - the callbacks after this one must still run; the error is reported
            message = f"the decision log's answer {result!r} could not be taken by the callback of {submission}"
            self._loop().call_exception_handler({"message": message, "exception": error})

    def _break(self, broken: LogBroken) -> None:
        """Refuse everything from now on, and have the process stopped. Called once in a life of the log."""
        self._broken = broken
        self._on_broken(broken)

    # -- state ---------------------------------------------------------------------------------------------------

    @property
    def horizon_unix_ms(self) -> int:
        """See LogStore."""
        return self._horizon_unix_ms

    def counters(self) -> dict[str, int]:
        """See LogStore."""
        return dict(self._counts)

    def _reset_counts(self) -> None:
        self._counts = {"forces": 0, "decisions": 0, "ends": 0, "records": 0}

    def _check_readable(self) -> None:
        if self._broken is not None:
            raise self._broken
