"""Recovery asks no more than it has to: a coordinator that comes back has much to do, and so have its participants."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from handfast.frames import CallFailed
from handfast.v1 import coordinator_pb2 as c
from handfast.xid import Gtrid, Xid
from participant.config import ParticipantOptions
from participant.driver import Driver
from participant.operations import Operations
from participant.recovery import Recovery
from participant.resource import PreparedBranch
from participant.testing import Changes, MemoryResource
from tests.clock import ManualClock
from tests.waiting import eventually

COORDINATOR, OURS, COUNT = "testcrd2", "accounts.one", 100


class StandingClock(ManualClock):
    """The participant's contract on a clock that stands still until it is moved."""

    monotonic_s = ManualClock.now_s

    def jittered(self, delay_s: float) -> float:
        return delay_s

    def instance_name(self) -> str:
        raise AssertionError("the instance has its name")


class Listed(MemoryResource):
    """A resource that counts how often it is listed."""

    listings = 0

    async def recover(self, resource: str, coordinator_id: str, *, detail: bool) -> list[PreparedBranch]:
        self.listings += 1
        return await super().recover(resource, coordinator_id, detail=detail)


@pytest.fixture
def resource() -> Listed:
    """With many branches in doubt."""
    resource = Listed()
    for number in range(COUNT):
        resource.prepared[Xid(str(Gtrid(COORDINATOR, 1, 0, number)), OURS)] = {}
    return resource


class Asked:
    """A coordinator that answers as it is told, and the recovery that asks it.

    Args:
        resource: what has the branches.
    """

    def __init__(self, resource: Listed) -> None:
        options, clock = ParticipantOptions(), StandingClock()
        self.clock = clock
        self.gtrids: list[str] = []
        self.failing: set[str] = set()
        self.answered = asyncio.Event()
        self.driver = Driver(OURS, resource, Operations[Changes](), options, clock, self._enlist)
        self.recovery = Recovery("accounts", self.driver, self._inquire, options, clock)
        self.recovery.on_registered(COORDINATOR, 1)

    async def _enlist(self, gtrid: str, deadline_s: float) -> None:
        raise AssertionError("nothing enlists here")

    async def _inquire(self, gtrid: str, bqual: str) -> c.InquireResponse:
        self.gtrids.append(gtrid)
        await self.answered.wait()
        if gtrid in self.failing:
            raise CallFailed("UNREACHABLE", "Nobody is there.", grpc_status=14, maybe_executed=False)
        return c.InquireResponse(gtrid=gtrid, standing=c.STANDING_COMMIT)


@pytest.fixture
async def asked(resource: Listed) -> AsyncIterator[Asked]:
    asked = Asked(resource)
    yield asked
    await asked.recovery.close()
    await asked.driver.close()


async def test_nobody_is_asked_about_a_branch_that_the_coordinator_ended_meanwhile(
    asked: Asked, resource: Listed
) -> None:
    looking = asyncio.create_task(asked.recovery.look())
    await eventually(lambda: asked.gtrids != [])
    for xid in list(resource.prepared):
        await asked.driver.commit(xid.gtrid, xid.bqual, "")
    asked.answered.set()
    assert await looking
    assert 0 < len(asked.gtrids) < COUNT


async def test_a_coordinator_that_can_not_be_reached_is_not_asked_about_each_branch(
    asked: Asked, resource: Listed
) -> None:
    asked.failing = {xid.gtrid for xid in resource.prepared}
    asked.answered.set()
    assert not await asked.recovery.look()
    assert 0 < len(asked.gtrids) < COUNT
    asked.failing.clear()
    assert await asked.recovery.look()  # and all are asked about when it is back, old or not
    assert resource.prepared == {}


async def test_one_branch_without_an_answer_keeps_no_other_waiting(asked: Asked, resource: Listed) -> None:
    silent = next(iter(resource.prepared))
    asked.failing = {silent.gtrid}
    asked.answered.set()
    assert not await asked.recovery.look()
    assert list(resource.prepared) == [silent]


async def test_while_the_coordinator_is_away_one_branch_is_asked_about_and_nothing_is_listed(
    asked: Asked, resource: Listed
) -> None:
    asked.failing = {xid.gtrid for xid in resource.prepared}
    asked.answered.set()
    await asked.recovery.look()
    asked.gtrids.clear()
    for _ in range(3):
        assert not await asked.recovery.look()
    assert len(asked.gtrids) == 3
    assert len(set(asked.gtrids)) == 1
    assert resource.listings == 1


async def test_a_coordinator_that_has_come_back_is_let_to_tell_before_it_is_asked(
    asked: Asked, resource: Listed
) -> None:
    asked.answered.set()
    asked.recovery.open()
    told = list(resource.prepared)
    for xid in told[:3]:
        await eventually(lambda: asked.clock.waiting > 0)
        await asked.driver.commit(xid.gtrid, xid.bqual, "")
        asked.clock.jump()
    await eventually(lambda: asked.clock.waiting > 0)
    assert resource.listings == 0
    asked.clock.jump()  # nothing was told since the last look
    await eventually(lambda: resource.prepared == {})
    assert asked.gtrids == [xid.gtrid for xid in told[3:]]


async def test_a_coordinator_that_goes_on_telling_is_not_waited_for_for_ever(asked: Asked, resource: Listed) -> None:
    """It may be telling of new transactions, while an old one is left in doubt."""
    asked.recovery.open()
    told, began_s = iter(list(resource.prepared)), asked.clock.now_s()
    while asked.clock.now_s() - began_s < ParticipantOptions().inquire_after_s:
        await eventually(lambda: asked.clock.waiting > 0)
        xid = next(told)
        await asked.driver.commit(xid.gtrid, xid.bqual, "")
        asked.clock.jump()
    await eventually(lambda: asked.gtrids != [])
