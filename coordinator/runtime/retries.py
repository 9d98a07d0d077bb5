"""What got no answer and is sent again: when, after which backoff."""

from __future__ import annotations

from collections.abc import Callable

from coordinator.protocol.effects import ScheduleRetry
from coordinator.runtime.backoff import Backoff
from coordinator.runtime.clock import Clock
from coordinator.runtime.running import Running
from coordinator.runtime.schedule import Schedule
from handfast.xid import split_bqual


class Retries:
    """The messages that wait for their next attempt, by gtrid and bqual.

    Args:
        clock: where time comes from.
        backoff: how long each waits.
        on_due: told of each when its time has come.
    """

    def __init__(self, clock: Clock, backoff: Backoff, on_due: Callable[[tuple[str, str]], None]) -> None:
        self._clock = clock
        self._backoff = backoff
        self._on_due = on_due
        self._schedule: Schedule[tuple[str, str]] = Schedule(clock, on_due)

    def __len__(self) -> int:
        return len(self._schedule)

    def add(self, running: Running, retry: ScheduleRetry) -> None:
        """Let a message wait."""
        delay_s = self._backoff.delay_s(retry.attempts)
        at_unix_ms = self._clock.unix_ms() + int(delay_s * 1000)
        running.next_attempt_unix_ms = {**running.next_attempt_unix_ms, retry.bqual: at_unix_ms}
        self._schedule.add((running.gtrid, retry.bqual), self._clock.now_s() + delay_s)

    def cancel(self, running: Running, bqual: str) -> None:
        """One that waits is sent for another reason, or need not be sent any more."""
        waiting = running.next_attempt_unix_ms
        running.next_attempt_unix_ms = {other: waiting[other] for other in waiting if other != bqual}
        self._schedule.cancel((running.gtrid, bqual))

    def cancel_all(self, running: Running) -> None:
        """Nothing of this transaction is sent any more."""
        for bqual in running.next_attempt_unix_ms:
            self._schedule.cancel((running.gtrid, bqual))

    def hurry(self, resource: str, gtrid: str) -> int:
        """Let all be due now that are of the resource and of the transaction; an empty name stands for any.

        Returns:
            How many there were.
        """
        due = [
            key
            for key in self._schedule
            if (not gtrid or key[0] == gtrid) and (not resource or split_bqual(key[1])[0] == resource)
        ]
        for key in due:
            self._schedule.cancel(key)
            self._on_due(key)
        return len(due)

    def close(self) -> None:
        """Nothing is due any more."""
        self._schedule.close()
