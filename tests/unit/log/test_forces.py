"""How often the log forces: exactly, for a given order of events. What fsyncs_per_transaction measures under load."""

import asyncio
import queue
import threading
from pathlib import Path
from typing import Any

from coordinator.log.records import DecisionRecord, EndRecord, LoggedBranch
from coordinator.log.sqlite import SqliteLog
from coordinator.log.store import LogBroken, LogRefused
from coordinator.log.writer import Writer
from coordinator.protocol.states import Decision, Outcome
from handfast.xid import Gtrid
from tests.conformance.decision_logs import COORDINATOR_ID
from tests.unit.log.sqlite_logs import opened, sqlite_log
from tests.waiting import eventually

BRANCHES = (LoggedBranch("accounts.one", "pg:1"), LoggedBranch("ledger.one", "pg:2"))


def commit(number: int) -> DecisionRecord:
    return DecisionRecord(str(Gtrid(COORDINATOR_ID, 1, 1_700_000_000_000, number)), Decision.COMMIT, BRANCHES, 1)


def writer_of(log: SqliteLog) -> Writer:
    assert log._writer is not None
    return log._writer


async def decide(log: SqliteLog, *numbers: int) -> None:
    """Offer decisions at the same time, and wait until all of them are durable."""
    loop = asyncio.get_running_loop()
    waiting = []
    for number in numbers:
        durable: asyncio.Future[Decision | LogRefused | LogBroken] = loop.create_future()
        log.decide(commit(number), durable.set_result)
        waiting.append(durable)
    assert set(await asyncio.gather(*waiting)) == {Decision.COMMIT}


async def test_decisions_that_come_one_by_one_take_one_force_each(tmp_path: Path) -> None:
    async with opened(sqlite_log(tmp_path / "log.db")) as log:
        for number in range(5):
            await decide(log, number)
        assert log.counters() | {"records": 0} == {"forces": 5, "decisions": 5, "ends": 0, "records": 0}


async def test_all_that_gathers_during_one_force_takes_one_more(tmp_path: Path) -> None:
    forcing, gathered = threading.Event(), threading.Event()

    def before_force(records: int) -> None:
        forcing.set()
        assert gathered.wait(10)

    async with opened(sqlite_log(tmp_path / "log.db", before_force=before_force)) as log:
        first = asyncio.create_task(decide(log, 0))
        await asyncio.to_thread(forcing.wait, 10)
        others = asyncio.create_task(decide(log, *range(1, 100)))
        asyncio.get_running_loop().call_soon(gathered.set)  # after the task above has begun, so after its submissions
        await asyncio.gather(first, others)
        assert log.counters() == {"forces": 2, "decisions": 100, "ends": 0, "records": 100}


async def test_ends_travel_with_the_next_decision_and_take_no_force_of_their_own(tmp_path: Path) -> None:
    async with opened(sqlite_log(tmp_path / "log.db")) as log:
        await decide(log, *range(10))
        forces_before = log.counters()["forces"]
        for number in range(10):
            log.end(EndRecord(commit(number).gtrid, Outcome.COMMITTED, 2))
        await decide(log, 10)
        counters = log.counters()
        assert counters["forces"] - forces_before == 1
        assert (counters["decisions"], counters["ends"], counters["records"]) == (11, 10, 21)


async def test_the_end_of_a_lone_transaction_does_not_wake_the_writer(tmp_path: Path, monkeypatch: Any) -> None:
    async with opened(sqlite_log(tmp_path / "log.db")) as log:
        await decide(log, 0)
        await eventually(lambda: writer_of(log)._watching)
        woken: queue.SimpleQueue[None] = queue.SimpleQueue()
        monkeypatch.setattr(writer_of(log), "_woken", woken)
        log.end(EndRecord(commit(0).gtrid, Outcome.COMMITTED, 2))
        monkeypatch.undo()
        assert woken.empty()


async def test_an_end_that_comes_long_after_everything_else_is_written_all_the_same(tmp_path: Path) -> None:
    async with opened(sqlite_log(tmp_path / "log.db", lazy_flush_s=0.01)) as log:
        await decide(log, 0)
        await eventually(lambda: not writer_of(log)._watching)
        log.end(EndRecord(commit(0).gtrid, Outcome.COMMITTED, 2))
        await eventually(lambda: log.counters()["ends"] == 1)
        assert log.counters()["forces"] == 2
