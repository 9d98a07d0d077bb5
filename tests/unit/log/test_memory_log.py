"""What a crash does to the log in memory: what simulation and the driver's tests build on."""

import asyncio

import pytest

from coordinator.log.memory import MemoryLog
from coordinator.log.records import Identity
from coordinator.log.store import LogBroken
from tests.conformance.decision_logs import COORDINATOR_ID, Answers, commit, decide


@pytest.fixture
async def log() -> MemoryLog:
    made = MemoryLog(make_coordinator_id=lambda: COORDINATOR_ID, on_broken=lambda _: None, unix_ms=lambda: 1)
    await made.open()
    return made


async def turn_of_the_loop() -> None:
    """Let everything run that is due."""
    done = asyncio.Event()
    asyncio.get_running_loop().call_soon(done.set)
    await done.wait()


async def test_a_crash_loses_what_waited_and_keeps_what_was_answered(log: MemoryLog) -> None:
    answers = Answers()
    await decide(log, commit(1))
    log.decide(commit(2), answers.to(2))
    log.crash()
    await turn_of_the_loop()
    assert answers.heard == []
    assert await log.open() == Identity(COORDINATOR_ID, 2)
    assert [known.decision for known in log.recent(0)] == [commit(1)]


async def test_a_crash_can_come_after_the_force_and_before_anyone_hears_of_it(log: MemoryLog) -> None:
    answers = Answers()
    for number in (1, 2, 3):
        log.decide(commit(number), answers.to(number))
    log.crash(forced=2)
    await turn_of_the_loop()
    await log.open()
    assert answers.heard == []
    assert [known.decision for known in log.unended()] == [commit(1), commit(2)]


async def test_a_crashed_log_is_not_open(log: MemoryLog) -> None:
    log.crash()
    with pytest.raises(LogBroken, match="crashed"):
        log.lookup(commit(1).gtrid)
    await log.close()  # and needs no closing
