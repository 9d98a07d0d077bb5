"""A decision log in memory, for tests and simulation: the contract without a disk.

It groups as the real one does: what is submitted waits until the loop comes round, then is forced together. What has
been forced is durable in the sense that it survives ``crash`` and a new ``open`` of the same object; what waits does
not. Nothing here takes time by itself, so that a simulated loop decides what happens when.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from itertools import dropwhile, islice

from coordinator.log.records import (
    DecisionRecord,
    EndRecord,
    Identity,
    LoggedTransaction,
    ParticipantRecord,
    ResolutionRecord,
)
from coordinator.log.store import LogBroken, LogRefused
from coordinator.log.submissions import (
    Applied,
    Decide,
    DropEnded,
    End,
    Forget,
    RaiseHorizon,
    Register,
    Resolve,
    Result,
    Submission,
)
from coordinator.log.submitting import LAZY_FLUSH_S, SubmittingLog


class MemoryLog(SubmittingLog):
    """A LogStore that lives as long as this object.

    Args:
        make_coordinator_id: asked once, at the first open.
        on_broken: called once, on the loop's thread, when the log must no longer be used.
        unix_ms: where the time comes from, in milliseconds since 1970.
        before_force: called before each force with the number of its records. What it raises is how the force fails:
            LogRefused refuses it, anything else breaks the log.
        lazy_flush_s: how long an end record waits for a force to travel with, in seconds.
    """

    def __init__(
        self,
        *,
        make_coordinator_id: Callable[[], str],
        on_broken: Callable[[LogBroken], None],
        unix_ms: Callable[[], int],
        before_force: Callable[[int], None] | None = None,
        lazy_flush_s: float = LAZY_FLUSH_S,
    ) -> None:
        super().__init__(on_broken)
        self._make_coordinator_id = make_coordinator_id
        self._unix_ms = unix_ms
        self._before_force = before_force
        self._lazy_flush_s = lazy_flush_s
        self._durable = _Durable()
        self._waiting: list[Submission] = []
        self._soon: asyncio.Handle | None = None
        self._later: asyncio.TimerHandle | None = None
        self._urgent = False
        self._held = False
        self._running_loop: asyncio.AbstractEventLoop | None = None

    async def open(self) -> Identity:
        """See LogStore; fails with RuntimeError when it is open."""
        if self._broken is None:
            raise RuntimeError("the log is open already")
        self._running_loop = asyncio.get_running_loop()
        self._durable.coordinator_id = self._durable.coordinator_id or self._make_coordinator_id()
        self._durable.epoch += 1
        self._durable.lives[self._durable.epoch] = self._unix_ms()
        self._horizon_unix_ms = self._durable.horizon_unix_ms
        self._reset_counts()
        self._broken = None
        return Identity(self._durable.coordinator_id, self._durable.epoch)

    async def close(self) -> None:
        """See LogStore."""
        if self._broken is not None:
            return
        self._broken = LogBroken("the decision log is closed")
        self._held = False
        self._force()
        self._drop_waiting()

    # -- what tests do to it -------------------------------------------------------------------------------------

    def crash(self, forced: int = 0) -> None:
        """Lose what a crash of the process would lose. The log is not open afterwards; ``open`` recovers it.

        No callback runs: a dead process hears nothing.

        Args:
            forced: how many of the waiting submissions had become durable, unheard; the first ones.
        """
        self._durable.apply(self._waiting[:forced])
        self._broken = LogBroken("the decision log has crashed")
        self._drop_waiting()

    def hold(self) -> None:
        """Force nothing until ``release``: a disk that takes its time."""
        self._held = True

    def release(self) -> None:
        """Force again."""
        self._held = False
        self._set_alarm()

    # -- writes --------------------------------------------------------------------------------------------------

    def _submit(self, submission: Submission) -> None:
        self._waiting.append(submission)
        self._urgent = self._urgent or type(submission) is not End
        self._set_alarm()

    def _set_alarm(self) -> None:
        """See to it that what waits is forced: when the loop comes round, or later if all of it can wait."""
        if self._held or not self._waiting:
            return
        if self._urgent and self._soon is None:
            self._soon = self._loop().call_soon(self._force)
        elif not self._urgent and self._later is None:
            self._later = self._loop().call_later(self._lazy_flush_s, self._force)

    def _cancel_alarms(self) -> None:
        for alarm in (self._soon, self._later):
            if alarm is not None:
                alarm.cancel()
        self._soon = self._later = None

    def _force(self) -> None:
        self._cancel_alarms()
        if self._held or not self._waiting:
            return
        batch, self._waiting, self._urgent = self._waiting, [], False
        try:
            if self._before_force is not None:
                self._before_force(len(batch))
        except LogRefused as refused:
            self._keep_refused_ends(batch)
            self._deliver_failure(batch, refused)
        except Exception as error:  # noqa: BLE001 - any failure that is no refusal breaks the log, and is reported so
            self._fail(batch, error)
        else:
            self._deliver(batch, self._durable.apply(batch))

    def _keep_refused_ends(self, batch: Sequence[Submission]) -> None:
        if self._broken is None:
            self._waiting = [one for one in batch if type(one) is End and one.callback is None]
            self._set_alarm()

    def _fail(self, batch: Sequence[Submission], error: Exception) -> None:
        broken = LogBroken(f"the decision log failed: {error}")
        gathered = [*batch, *self._waiting]
        self._drop_waiting()
        self._broken = broken
        self._deliver_failure(gathered, broken)
        self._break(broken)

    def _drop_waiting(self) -> None:
        self._cancel_alarms()
        self._waiting, self._urgent, self._held = [], False, False

    def _loop(self) -> asyncio.AbstractEventLoop:
        return self._running_loop or asyncio.get_running_loop()

    # -- reads ---------------------------------------------------------------------------------------------------

    def lookup(self, gtrid: str) -> LoggedTransaction | None:
        """See LogStore."""
        self._check_readable()
        return None if gtrid in self._durable.forgotten else self._durable.transactions.get(gtrid)

    def unended(self) -> Sequence[LoggedTransaction]:
        """See LogStore."""
        self._check_readable()
        return [known for known in self._durable.transactions.values() if known.end is None]

    def recent(self, limit: int, since_unix_ms: int = 0, before: str = "") -> Sequence[LoggedTransaction]:
        """See LogStore."""
        self._check_readable()
        every = iter(reversed(self._durable.transactions.items()))
        if before:
            every = iter(list(dropwhile(lambda one: one[0] != before, every))[1:])
        newest_first = (
            known
            for gtrid, known in every
            if known.decision.decided_unix_ms >= since_unix_ms and gtrid not in self._durable.forgotten
        )
        return list(islice(newest_first, limit or None))

    def was_forgotten(self, gtrid: str) -> bool:
        """See LogStore."""
        self._check_readable()
        return gtrid in self._durable.forgotten

    def life_started_unix_ms(self, epoch: int) -> int | None:
        """See LogStore."""
        self._check_readable()
        return self._durable.lives.get(epoch)

    def participants(self) -> Sequence[ParticipantRecord]:
        """See LogStore."""
        self._check_readable()
        newest_first = sorted(self._durable.participants, key=lambda one: -one.registered_unix_ms)
        return sorted(newest_first, key=lambda one: one.resource)

    def resolutions(self, gtrid: str) -> Sequence[ResolutionRecord]:
        """See LogStore."""
        self._check_readable()
        return [one for one in self._durable.resolutions if one.gtrid == gtrid]

    @property
    def path(self) -> str:
        """See LogStore."""
        return ":memory:"


class _Durable:
    """What a crash leaves."""

    def __init__(self) -> None:
        self.coordinator_id = ""
        self.epoch = 0
        self.lives: dict[int, int] = {}
        self.horizon_unix_ms = 0
        self.transactions: dict[str, LoggedTransaction] = {}
        self.forgotten: set[str] = set()
        self.participants: list[ParticipantRecord] = []
        self.resolutions: list[ResolutionRecord] = []

    def apply(self, batch: Sequence[Submission]) -> Applied:
        written = {"decisions": 0, "ends": 0, "others": 0}
        results = [self._apply(submission, written) for submission in batch]
        return Applied(results, written["decisions"], written["ends"], written["others"])

    def _apply(self, submission: Submission, written: dict[str, int]) -> Result:
        match submission:
            case Decide(record=decision):
                written["decisions"] += decision.gtrid not in self.transactions
                return self._decide(decision)
            case End(record=end):
                written["ends"] += self._end(end)
            case Register(record=participant):
                written["others"] += 1
                self._register(participant)
            case Resolve(record=resolution):
                written["others"] += 1
                self.resolutions.append(resolution)
            case Forget(gtrid=gtrid):
                return self._forget(gtrid)
            case RaiseHorizon(horizon_unix_ms=horizon_unix_ms):
                self.horizon_unix_ms = max(self.horizon_unix_ms, horizon_unix_ms)
            case DropEnded():
                return self._drop(submission)
        return None

    def _decide(self, record: DecisionRecord) -> Result:
        return self.transactions.setdefault(record.gtrid, LoggedTransaction(record, None)).decision.decision

    def _end(self, record: EndRecord) -> bool:
        known = self.transactions.get(record.gtrid)
        if known is None or known.end is not None:
            return False
        self.transactions[record.gtrid] = LoggedTransaction(known.decision, record)
        return True

    def _register(self, record: ParticipantRecord) -> None:
        self.participants = [
            one
            for one in self.participants
            if one.resource != record.resource or (one.instance != record.instance and one.address != record.address)
        ]
        self.participants.append(record)

    def _forget(self, gtrid: str) -> LogRefused | None:
        known = self.transactions.get(gtrid)
        if known is None or gtrid in self.forgotten:
            return LogRefused(f"{gtrid} is not in the log")
        if known.end is None:
            return LogRefused(f"{gtrid} has not ended: some branch may still need its decision")
        self.forgotten.add(gtrid)
        return None

    def _drop(self, order: DropEnded) -> int:
        ended = (
            gtrid
            for gtrid, known in self.transactions.items()
            if known.end is not None and known.end.ended_unix_ms < order.horizon_unix_ms
        )
        gone = list(islice(ended, order.limit))
        for gtrid in gone:
            del self.transactions[gtrid]
        self.forgotten.difference_update(gone)
        return len(gone)
