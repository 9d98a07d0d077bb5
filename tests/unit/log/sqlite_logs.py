"""SQLite logs for tests that look at the file, and a second hand on it."""

import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path

import pytest

from coordinator.log.sqlite import SqliteLog
from coordinator.log.store import LogBroken
from coordinator.log.submitting import LAZY_FLUSH_S
from handfast.catalog import HandfastFault
from tests.conformance.decision_logs import COORDINATOR_ID


def beside(log: Path, suffix: str) -> Path:
    """A file that goes with a log."""
    return log.with_name(log.name + suffix)


def fail_on_broken(broken: LogBroken) -> None:
    raise AssertionError("the log broke") from broken


def sqlite_log(
    path: Path,
    *,
    coordinator_id: str = COORDINATOR_ID,
    expected_coordinator_id: str | None = None,
    on_broken: Callable[[LogBroken], None] = fail_on_broken,
    before_force: Callable[[int], None] | None = None,
    lazy_flush_s: float = LAZY_FLUSH_S,
    at_end: Callable[[Callable[[], None]], None] | None = None,
) -> SqliteLog:
    """A log that is not open yet."""
    return SqliteLog(
        path,
        make_coordinator_id=lambda: coordinator_id,
        on_broken=on_broken,
        unix_ms=lambda: 1,
        expected_coordinator_id=expected_coordinator_id,
        before_force=before_force,
        lazy_flush_s=lazy_flush_s,
        at_end=at_end,
    )


@asynccontextmanager
async def opened(log: SqliteLog) -> AsyncIterator[SqliteLog]:
    await log.open()
    try:
        yield log
    finally:
        await log.close()


@contextmanager
def sql(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection of our own to a log that is closed; what it does is committed."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        yield connection


def change(log: Path, *statements: str) -> None:
    """Lay hands on a closed log; each statement strikes one row."""
    with sql(log) as connection:
        for statement in statements:
            assert connection.execute(statement).rowcount == 1, statement


async def fault_at_open(log: SqliteLog) -> HandfastFault:
    """Open a log that can't be opened, and return why."""
    with pytest.raises(HandfastFault) as caught:
        await log.open()
    await log.close()
    return caught.value
