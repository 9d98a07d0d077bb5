"""Recovery asks no more than it has to: a coordinator that comes back has much to do, and so have its participants."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from handfast.frames import CallFailed
from handfast.v1 import coordinator_pb2 as c
from handfast.xid import Gtrid, Xid
from participant.clock import SystemClock
from participant.config import ParticipantOptions
from participant.driver import Driver
from participant.operations import Operations
from participant.recovery import Recovery
from participant.testing import Changes, MemoryResource
from tests.waiting import eventually

COORDINATOR, OURS, COUNT = "testcrd2", "accounts.one", 100


@pytest.fixture
def resource() -> MemoryResource:
    """With many branches in doubt."""
    resource = MemoryResource()
    for number in range(COUNT):
        resource.prepared[Xid(str(Gtrid(COORDINATOR, 1, 0, number)), OURS)] = {}
    return resource


class Asked:
    """A coordinator that answers as it is told, and the recovery that asks it.

    Args:
        resource: what has the branches.
    """

    def __init__(self, resource: MemoryResource) -> None:
        options, clock = ParticipantOptions(), SystemClock()
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
async def asked(resource: MemoryResource) -> AsyncIterator[Asked]:
    asked = Asked(resource)
    yield asked
    await asked.driver.close()


async def test_nobody_is_asked_about_a_branch_that_the_coordinator_ended_meanwhile(
    asked: Asked, resource: MemoryResource
) -> None:
    looking = asyncio.create_task(asked.recovery.look())
    await eventually(lambda: asked.gtrids != [])
    for xid in list(resource.prepared):
        await asked.driver.commit(xid.gtrid, xid.bqual, "")
    asked.answered.set()
    assert await looking
    assert 0 < len(asked.gtrids) < COUNT


async def test_a_coordinator_that_can_not_be_reached_is_not_asked_about_each_branch(
    asked: Asked, resource: MemoryResource
) -> None:
    asked.failing = {xid.gtrid for xid in resource.prepared}
    asked.answered.set()
    assert not await asked.recovery.look()
    assert 0 < len(asked.gtrids) < COUNT
    asked.failing.clear()
    assert await asked.recovery.look()  # and all are asked about when it is back, old or not
    assert resource.prepared == {}


async def test_one_branch_without_an_answer_keeps_no_other_waiting(asked: Asked, resource: MemoryResource) -> None:
    silent = next(iter(resource.prepared))
    asked.failing = {silent.gtrid}
    asked.answered.set()
    assert not await asked.recovery.look()
    assert list(resource.prepared) == [silent]
