"""The driver over a resource in memory: lost answers, contrary decisions, and what the SDK's own test aids promise."""

import asyncio
import gc
from collections.abc import AsyncIterator

import pytest

from handfast.catalog import HandfastFault
from handfast.context import TransactionContext, within
from handfast.v1 import types_pb2 as t
from handfast.xid import Xid
from participant.clock import SystemClock
from participant.config import ParticipantOptions
from participant.driver import Driver
from participant.operations import Operations, Work
from participant.protocol import Fate, Outcome, State, Vote
from participant.resource import AnswerLost
from participant.testing import Changes, MemoryResource
from tests.waiting import eventually

OURS = "accounts.one"
GTRID = "testcrd2-1-0-1"
XID = Xid(GTRID, OURS)
WRITE = (t.Operation(name="write", payload=b"5"),)


@pytest.fixture
def resource() -> MemoryResource:
    return MemoryResource()


@pytest.fixture
async def driver(resource: MemoryResource) -> AsyncIterator[Driver[Changes]]:
    async def write(changes: Changes, payload: bytes) -> None:
        changes["written"] = int(payload)

    driver = _driver_with(resource, write)
    yield driver
    await driver.close()


async def test_a_lost_prepare_is_an_error_first_and_the_truth_when_asked_again(
    driver: Driver[Changes], resource: MemoryResource
) -> None:
    resource.failures["prepare"] = AnswerLost("memory:lost", "the connection broke")
    with pytest.raises(HandfastFault) as unknown:
        await driver.prepare(GTRID, OURS, 5.0, WRITE)
    assert unknown.value.code == "ANSWER_LOST"
    voted = await driver.prepare(GTRID, OURS, 5.0, WRITE)
    assert (voted.vote, voted.results) == (Vote.YES, (b"",))
    assert voted.proof == f"memory:{GTRID}"  # as the resource shows it now, not as it was before the answer was lost


async def test_a_lost_prepare_can_be_rolled_back_without_looking(
    driver: Driver[Changes], resource: MemoryResource
) -> None:
    resource.failures["prepare"] = AnswerLost("memory:lost", "the connection broke")
    with pytest.raises(HandfastFault):
        await driver.prepare(GTRID, OURS, 5.0, WRITE)
    assert (await driver.rollback(GTRID, OURS, "")).outcome is Outcome.ABORTED
    assert (resource.prepared, resource.rows) == ({}, {})


async def test_a_lost_one_phase_commit_is_told_when_asked_again(
    driver: Driver[Changes], resource: MemoryResource
) -> None:
    resource.failures["commit"] = AnswerLost("memory:lost", "the connection broke")
    with pytest.raises(HandfastFault):
        await driver.commit_one_phase(GTRID, OURS, 5.0, WRITE)
    assert (await driver.commit_one_phase(GTRID, OURS, 5.0, WRITE)).outcome is Outcome.COMMITTED
    assert resource.rows == {"written": 5}


async def test_a_certain_failure_of_prepare_is_a_no_that_stays(
    driver: Driver[Changes], resource: MemoryResource
) -> None:
    resource.failures["prepare"] = HandfastFault("SLOTS_EXHAUSTED", resource="accounts", problem="none left")
    votes = [await driver.prepare(GTRID, OURS, 5.0, WRITE) for _ in range(2)]
    assert [(vote.vote, vote.cause and vote.cause.code) for vote in votes] == 2 * [(Vote.NO, "SLOTS_EXHAUSTED")]


async def test_a_commit_that_fails_is_repeated_until_it_works(
    driver: Driver[Changes], resource: MemoryResource
) -> None:
    await driver.prepare(GTRID, OURS, 5.0, WRITE)
    resource.failures["commit prepared"] = HandfastFault("RESOURCE_UNREACHABLE", resource="accounts", problem="down")
    with pytest.raises(HandfastFault):
        await driver.commit(GTRID, OURS, "")
    assert (await driver.commit(GTRID, OURS, "")).outcome is Outcome.COMMITTED


async def test_contrary_decisions_at_once_end_the_branch_once(
    driver: Driver[Changes], resource: MemoryResource
) -> None:
    """seata 7004: retry and decision run together."""
    await driver.prepare(GTRID, OURS, 5.0, WRITE)
    commit, rollback = await asyncio.gather(driver.commit(GTRID, OURS, ""), driver.rollback(GTRID, OURS, ""))
    assert (commit.outcome, rollback.outcome) == (Outcome.COMMITTED, Outcome.HEURISTIC_COMMIT)
    assert resource.rows == {"written": 5}


async def test_a_caller_that_leaves_cancels_nothing(driver: Driver[Changes], resource: MemoryResource) -> None:
    preparing = asyncio.create_task(driver.prepare(GTRID, OURS, 5.0, WRITE))
    await asyncio.sleep(0)
    preparing.cancel()
    await asyncio.gather(preparing, return_exceptions=True)
    assert (await driver.prepare(GTRID, OURS, 5.0, WRITE)).vote is Vote.YES
    assert list(resource.prepared) == [XID]


async def test_work_after_the_end_is_refused(driver: Driver[Changes]) -> None:
    await driver.rollback(GTRID, OURS, "")
    with pytest.raises(HandfastFault) as refused:
        async with driver.floor.join(GTRID, 1e12):
            pass
    assert refused.value.code == "ROLLED_BACK_FIRST"


async def test_work_of_an_earlier_life_of_the_coordinator_is_rolled_back_at_once(driver: Driver[Changes]) -> None:
    prepared = "testcrd2-1-0-2"
    await driver.prepare(prepared, OURS, 5.0, WRITE)
    async with driver.floor.join(GTRID, float("inf")) as changes:
        changes["written"] = 5
    driver.floor.on_epoch("testcrd2", 1)
    driver.floor.on_epoch("othercrd", 9)
    branch = driver.branches.find(GTRID)
    assert branch is not None
    assert branch.state is State.ACTIVE

    driver.floor.on_epoch("testcrd2", 2)
    voted = await driver.prepare(GTRID, OURS, 5.0)
    assert (voted.vote, voted.cause) == (Vote.NO, branch.cause)
    assert voted.cause is not None
    assert "the coordinator restarted" in voted.cause.reason
    assert (await driver.prepare(prepared, OURS, 5.0)).vote is Vote.YES  # what is prepared stays


def _driver_with(resource: MemoryResource, write: Work[Changes], close_wait_s: float = 5.0) -> Driver[Changes]:
    async def enlist(gtrid: str, deadline_s: float) -> None:
        pass

    operations = Operations[Changes]()
    operations.add("write", write)
    return Driver(OURS, resource, operations, ParticipantOptions(close_wait_s=close_wait_s), SystemClock(), enlist)


@pytest.mark.parametrize("one_phase", [False, True])
async def test_closing_ends_an_operation_that_waits_for_a_lock(
    resource: MemoryResource, monkeypatch: pytest.MonkeyPatch, one_phase: bool
) -> None:
    """Its branch has promised nothing, and in a deadlock across databases it would wait until its time is over."""
    monkeypatch.setattr("participant.driver._OPERATIONS_WAIT_S", 0.01)
    at_work = asyncio.Event()

    async def wait_for_lock(changes: Changes, payload: bytes) -> None:
        at_work.set()
        await eventually(lambda: resource.abandoned != [])
        raise ConnectionError("the connection is closed")

    driver = _driver_with(resource, wait_for_lock, close_wait_s=60.0)
    start = driver.start_commit_one_phase if one_phase else driver.start_prepare
    start(GTRID, OURS, 60.0, WRITE)
    await at_work.wait()
    await driver.close()
    branch = driver.branches.find(GTRID)
    assert branch is not None
    assert branch.vote is not None
    assert branch.vote.cause is not None
    assert (branch.vote.vote, branch.vote.cause.code) == (Vote.NO, "PARTICIPANT_CLOSED")
    assert (resource.ended, resource.rows, resource.prepared) == ({XID: Fate.ABORTED}, {}, {})


async def test_closing_gives_operations_a_moment(resource: MemoryResource) -> None:
    at_work, go = asyncio.Event(), asyncio.Event()

    async def write(changes: Changes, payload: bytes) -> None:
        at_work.set()
        await go.wait()
        changes["written"] = int(payload)

    driver = _driver_with(resource, write)
    asked = asyncio.ensure_future(driver.prepare(GTRID, OURS, 5.0, WRITE))
    await at_work.wait()
    closing = asyncio.create_task(driver.close())
    await asyncio.sleep(0)
    go.set()
    await closing
    assert (await asked).vote is Vote.YES


async def test_no_operation_is_begun_after_closing(driver: Driver[Changes], resource: MemoryResource) -> None:
    await driver.close()
    voted = await driver.prepare(GTRID, OURS, 5.0, WRITE)
    assert voted.cause is not None
    assert (voted.vote, voted.cause.code) == (Vote.NO, "PARTICIPANT_CLOSED")
    assert (resource.ended, resource.prepared) == ({}, {})


@pytest.mark.parametrize("one_phase", [False, True])
async def test_a_branch_that_closing_cuts_off_in_the_middle_can_still_be_rolled_back(
    resource: MemoryResource, one_phase: bool
) -> None:
    at_work = asyncio.Event()

    async def hang(changes: Changes, payload: bytes) -> None:
        at_work.set()
        await asyncio.Event().wait()

    driver = _driver_with(resource, hang, close_wait_s=0.01)
    ask = driver.commit_one_phase if one_phase else driver.prepare
    asked = asyncio.ensure_future(ask(GTRID, OURS, 5.0, WRITE))
    await at_work.wait()
    await driver.close()
    with pytest.raises(asyncio.CancelledError):
        await asked
    branch = driver.branches.find(GTRID)
    assert branch is not None
    assert branch.state is State.IN_DOUBT
    assert (await driver.rollback(GTRID, OURS, "")).outcome is Outcome.ABORTED


async def test_a_branch_that_has_ended_leaves_nothing_for_the_garbage_collector(driver: Driver[Changes]) -> None:
    async def commit_one(number: int) -> None:
        gtrid = f"testcrd2-1-0-{number}"
        with within(TransactionContext(gtrid, SystemClock().monotonic_s() + 5)):
            async with driver.floor.join(gtrid, SystemClock().monotonic_s() + 5) as changes:
                changes["written"] = number
        voted = await driver.prepare(gtrid, OURS, 5.0)
        await driver.commit(gtrid, OURS, voted.proof)
        one_shot = f"testcrd2-1-1-{number}"
        voted = await driver.prepare(one_shot, OURS, 5.0, WRITE)
        await driver.commit(one_shot, OURS, voted.proof)

    await commit_one(0)
    gc.collect()
    gc.disable()
    try:
        for number in range(1, 21):
            await commit_one(number)
        await asyncio.sleep(0)  # the last tasks' callbacks let go of them
        assert gc.collect() < 20  # less than one object for each of the forty branches
    finally:
        gc.enable()
