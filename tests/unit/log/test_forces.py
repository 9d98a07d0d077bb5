"""How often the log forces: exactly, for a given order of events. What fsyncs_per_transaction measures under load."""

import asyncio
import queue
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from coordinator.log.records import DecisionRecord, EndRecord, LoggedBranch
from coordinator.log.sqlite import SqliteLog
from coordinator.log.store import LogBroken, LogRefused
from coordinator.log.writer import ENDS_MIN, Writer
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


def end(log: SqliteLog, *numbers: int) -> None:
    """Say that transactions have ended."""
    for number in numbers:
        log.end(EndRecord(commit(number).gtrid, Outcome.COMMITTED, 2))


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
        await decide(log, *range(ENDS_MIN))
        forces_before = log.counters()["forces"]
        end(log, *range(ENDS_MIN))
        await decide(log, ENDS_MIN)
        counters = log.counters()
        assert counters["forces"] - forces_before == 1
        assert (counters["decisions"], counters["ends"]) == (ENDS_MIN + 1, ENDS_MIN)


async def test_a_few_ends_hold_up_no_decision(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    async with opened(sqlite_log(path, lazy_flush_s=60)) as log:
        await decide(log, *range(ENDS_MIN))
        end(log, *range(ENDS_MIN - 1))
        await decide(log, ENDS_MIN)
        assert log.counters()["ends"] == 0
        end(log, ENDS_MIN - 1)
        await decide(log, ENDS_MIN + 1)
        assert log.counters()["ends"] == ENDS_MIN
        end(log, ENDS_MIN)
        await decide(log, ENDS_MIN + 2)
    async with opened(sqlite_log(path)) as log:
        assert [one.decision.gtrid for one in log.unended()] == [
            commit(number).gtrid for number in (ENDS_MIN + 1, ENDS_MIN + 2)
        ]


async def test_an_end_is_not_left_behind_for_ever_while_decisions_go_on(tmp_path: Path) -> None:
    async with opened(sqlite_log(tmp_path / "log.db", lazy_flush_s=0.05)) as log:
        await decide(log, 0)
        end(log, 0)
        began_s = asyncio.get_running_loop().time()
        number = 0
        while not log.counters()["ends"]:
            number += 1
            await decide(log, number)
            assert asyncio.get_running_loop().time() < began_s + 10
        assert log.counters()["forces"] == log.counters()["decisions"]  # none was made for the end alone


async def test_what_is_about_a_transaction_is_not_written_before_its_end(tmp_path: Path) -> None:
    async with opened(sqlite_log(tmp_path / "log.db", lazy_flush_s=60)) as log:
        await decide(log, 0)
        end(log, 0)
        await decide(log, 1)
        forgotten: asyncio.Future[LogRefused | LogBroken | None] = asyncio.get_running_loop().create_future()
        log.forget(commit(0).gtrid, forgotten.set_result)
        assert await forgotten is None
        assert log.counters()["ends"] == 1


async def test_the_writer_is_woken_at_the_end_of_what_the_loop_is_doing(tmp_path: Path) -> None:
    later: list[Callable[[], None]] = []
    async with opened(sqlite_log(tmp_path / "log.db", at_end=later.append)) as log:
        deciding = asyncio.create_task(decide(log, 0, 1))
        await eventually(lambda: later != [])
        assert (len(later), log.counters()["forces"]) == (1, 0)
        later.pop()()
        await deciding
        assert log.counters()["forces"] == 1


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
