"""Finding transactions for reports: in memory, among the lately ended, and in the log."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from coordinator.protocol.states import Decision, TransactionState
from coordinator.runtime.driver import Driver
from coordinator.runtime.in_memory import Standing
from coordinator.runtime.running import Running, running_from_log

LIMIT_DEFAULT = 100
LIMIT_MAX = 10_000


def list_transactions(driver: Driver, states: Collection[TransactionState], limit: int) -> tuple[list[Running], int]:
    """List transactions, newest first.

    The log is read only as far as the list needs it, so that asking is cheap on a log of millions.

    Args:
        driver: whose transactions.
        states: only these; empty means all.
        limit: how many at most; 0 means ``LIMIT_DEFAULT``.

    Returns:
        The transactions, and how many more were found: all of those in memory, and of those in the log no fewer than
        that.
    """
    limit = min(limit or LIMIT_DEFAULT, LIMIT_MAX)
    found: list[tuple[int, str | Running]] = [
        (begun_unix_ms, gtrid) for gtrid, state, begun_unix_ms in _in_memory(driver) if not states or state in states
    ]
    if len(found) <= limit:
        logged = [running for running in _in_log(driver, limit) if not states or running.transaction.state in states]
        found += [(running.begun_unix_ms, running) for running in logged]
    found.sort(key=lambda one: one[0], reverse=True)
    listed = [driver.find(one) if isinstance(one, str) else one for _, one in found[:limit]]
    return [running for running in listed if running is not None], max(0, len(found) - limit)


def _in_memory(driver: Driver) -> Iterator[Standing]:
    """Only those that are listed are looked at: many are rows, which would have to be shown one by one."""
    yield from driver.transactions.standings()
    yield from driver.finished.standings()


def _in_log(driver: Driver, limit: int) -> Iterator[Running]:
    """The newest of the log that memory does not hold."""
    in_memory = len(driver.transactions) + len(driver.finished)
    for logged in driver.log.recent(limit + in_memory + 1):
        gtrid = logged.decision.gtrid
        in_memory_too = gtrid in driver.transactions or gtrid in driver.finished
        if not in_memory_too and (logged.end is not None or logged.decision.decision is Decision.ABORT):
            yield running_from_log(logged)
