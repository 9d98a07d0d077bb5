"""gtrids are drawn from blocks: no round trip for most transactions, and none of a life that is over."""

import asyncio
import logging

import pytest

import handfast
from handfast.blocks import GtridBlocks
from handfast.catalog import HandfastFault
from handfast.v1 import coordinator_pb2 as wire
from handfast.xid import Gtrid
from tests.unit.handfast.fake_coordinator import FakeCoordinator, SteppedClock, connected
from tests.waiting import POLL_S, eventually


async def draw(tm: handfast.TransactionManager, count: int = 1) -> list[str]:
    """Run that many transactions, one after the other."""
    gtrids = []
    for _ in range(count):
        async with tm.transaction() as txn:
            gtrids.append(txn.gtrid)
    return gtrids


async def draw_once_connected(tm: handfast.TransactionManager) -> str:
    """Draw from a coordinator that has just begun to listen again."""
    async with asyncio.timeout(10):
        while True:
            try:
                return (await draw(tm))[0]
            except handfast.CoordinatorUnavailable:  # the channel tries again in a moment
                await asyncio.sleep(POLL_S)


def blocks_asked(coordinator: FakeCoordinator) -> int:
    return len(coordinator.asked(wire.BeginRequest))


async def test_one_question_serves_half_a_block_of_transactions() -> None:
    async with connected(block_size=100, client="bank") as (coordinator, tm):
        gtrids = await draw(tm, 49)
        assert len(set(gtrids)) == 49
        assert coordinator.asked(wire.BeginRequest) == [wire.BeginRequest(block_size=100, client="bank")]


async def test_the_next_block_is_fetched_when_half_of_this_one_is_used_and_nobody_waits_for_it() -> None:
    async with connected(block_size=10) as (coordinator, tm):
        await draw(tm)
        coordinator.will_answer(wire.BeginRequest, coordinator.keep_waiting)
        gtrids = await draw(tm, 9)
        assert [Gtrid.parse(gtrid).number for gtrid in gtrids] == [*range(1, 10)]
        assert blocks_asked(coordinator) == 2


async def test_drawing_goes_on_from_block_to_block_without_a_gap_or_a_repeat() -> None:
    async with connected(block_size=7) as (_, tm):
        numbers = [Gtrid.parse(gtrid).number for gtrid in await draw(tm, 40)]
        assert numbers == [*range(40)]


async def test_many_that_wait_at_once_share_the_questions() -> None:
    async with connected(block_size=8) as (coordinator, tm):
        gtrids = await asyncio.gather(*(draw(tm) for _ in range(64)))
        assert len({gtrid for (gtrid,) in gtrids}) == 64
        assert blocks_asked(coordinator) <= 64 // 8 + 2


@pytest.mark.timeout(10)  # what is ruled out is a loop that never ends
async def test_who_draws_just_as_a_dropped_block_arrives_asks_for_another() -> None:
    arrives: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    asked = 0

    async def fetch() -> wire.BeginResponse:
        nonlocal asked
        asked += 1
        if asked == 1:
            await arrives
        return wire.BeginResponse(
            block=wire.GtridBlock(prefix=f"k3v9q2xw-{asked}-1-", first=0, count=10, lifetime_ms=60_000)
        )

    blocks = GtridBlocks(fetch, SteppedClock())
    before = asyncio.create_task(blocks.draw())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    blocks.drop()
    arrives.set_result(None)
    just_then = asyncio.create_task(blocks.draw())
    drawn = await asyncio.gather(before, just_then)
    assert sorted(gtrid for gtrid, _ in drawn) == ["k3v9q2xw-2-1-0", "k3v9q2xw-2-1-1"]


async def test_a_block_of_one_is_enough() -> None:
    async with connected(block_size=1) as (_, tm):
        assert len(set(await draw(tm, 5))) == 5


async def test_one_that_stops_waiting_does_not_stop_the_others() -> None:
    async with connected() as (coordinator, tm):
        waiting: list[object] = []
        coordinator.will_answer(wire.BeginRequest, lambda request, reply: waiting.append((request, reply)))
        impatient, patient = asyncio.create_task(draw(tm)), asyncio.create_task(draw(tm))
        await eventually(lambda: len(waiting) == 1)
        impatient.cancel()
        await asyncio.gather(impatient, return_exceptions=True)
        coordinator(*waiting.pop())  # type: ignore[misc] # the request and its reply, as they were put in
        assert len(await patient) == 1


async def test_nothing_is_drawn_late_in_a_blocks_life() -> None:
    clock = SteppedClock()
    async with connected(clock=clock) as (coordinator, tm):
        coordinator.lifetime_ms = 1000
        await draw(tm)
        clock.now_s += 0.7
        await draw(tm)
        assert blocks_asked(coordinator) == 1
        clock.now_s += 0.1
        await draw(tm)
        assert blocks_asked(coordinator) == 2


async def test_a_restart_of_the_coordinator_ends_its_blocks() -> None:
    async with connected() as (coordinator, tm):
        (before,) = await draw(tm)
        await coordinator.vanish(tm)
        with pytest.raises(handfast.CoordinatorUnavailable):
            await draw(tm)  # nothing is drawn from the old block any more
        await coordinator.restart()
        after = await draw_once_connected(tm)
        assert (Gtrid.parse(before).epoch, Gtrid.parse(after).epoch) == (1, 2)


async def test_an_unknown_gtrid_ends_the_block_it_was_drawn_from() -> None:
    async with connected(framed=False) as (coordinator, tm):
        await draw(tm)
        coordinator.epoch = 2  # as after a restart that the client did not notice
        unknown = HandfastFault("TRANSACTION_UNKNOWN", gtrid="t")
        coordinator.will_answer(wire.CommitRequest, unknown)
        with pytest.raises(handfast.UnknownTransaction):
            await draw(tm)
        (after,) = await draw(tm)
        assert Gtrid.parse(after).epoch == 2


async def test_a_block_that_could_not_be_fetched_ahead_is_logged_and_asked_for_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with connected(block_size=2) as (coordinator, tm):
        await draw(tm)  # half of the block: the next is being fetched
        await eventually(lambda: blocks_asked(coordinator) == 2)
        coordinator.will_answer(wire.BeginRequest, HandfastFault("COORDINATOR_STOPPING"))
        with caplog.at_level(logging.WARNING):
            await draw(tm, 2)
            await eventually(lambda: "no gtrids could be fetched ahead" in caplog.text)
        assert len(await draw(tm, 3)) == 3


async def test_a_coordinator_that_hands_out_nothing_is_named() -> None:
    async with connected() as (coordinator, tm):
        coordinator.will_answer(wire.BeginRequest, wire.BeginResponse())
        with pytest.raises(handfast.CoordinatorUnavailable, match="handed out no gtrids"):
            await draw(tm)
