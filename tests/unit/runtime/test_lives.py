"""An old copy of the log is recognized by the names of the lives that it has never seen, and nothing is presumed."""

from __future__ import annotations

import copy

import pytest

from coordinator.log.memory import MemoryLog
from coordinator.runtime.lives import is_from_unseen_life
from coordinator.runtime.requests import Standing
from handfast.catalog import HandfastFault
from tests.clock import ManualClock
from tests.unit.runtime.scripted import A, B, Life, memory_log, restart, start


async def put_back(life: Life, saved: object) -> Life:
    """Kill the coordinator, put the log back as it was, and start on it."""
    life.driver.close()
    life.log.crash()
    life.log._durable = saved  # type: ignore[assignment]  # the disk, as it was saved
    life.clock.advance(1.0)
    return await start(life.log, life.clock)


@pytest.fixture
async def first() -> Life:
    clock = ManualClock()
    return await start(memory_log(unix_ms=clock.unix_ms), clock)


def saved(log: MemoryLog) -> object:
    return copy.deepcopy(log._durable)


def prepared_in(life: Life) -> str:
    """A transaction whose branches are prepared when its coordinator dies."""
    life.clock.advance(1.0)
    gtrid = life.begin(A, B)
    life.commit(gtrid)
    life.vote(A, B)
    return gtrid


async def test_what_the_lost_life_decided_is_unknown_although_its_epoch_is_ours(first: Life) -> None:
    old = saved(first.log)
    second = await restart(first)
    lost = prepared_in(second)
    after = await put_back(second, old)
    assert after.gtrids.epoch == second.gtrids.epoch
    assert after.requests.inquire(lost, A, 0).standing is Standing.UNKNOWN
    with pytest.raises(HandfastFault) as raised:
        after.commit(lost, branches=2)
    assert raised.value.code == "TRANSACTION_UNKNOWN"


async def test_several_lost_lives_stay_unknown_as_the_copy_lives_on(first: Life) -> None:
    old = saved(first.log)
    second = await restart(first)
    lost = [prepared_in(second)]
    third = await restart(second)
    lost.append(prepared_in(third))
    after = await put_back(third, old)
    for _ in range(3):
        assert [after.requests.inquire(gtrid, A, 0).standing for gtrid in lost] == [Standing.UNKNOWN] * 2
        after = await restart(after)


async def test_what_lives_before_the_copy_left_is_presumed_aborted_as_ever(first: Life) -> None:
    left = prepared_in(first)
    first.clock.advance(1.0)
    old = saved(first.log)
    second = await restart(first)
    after = await put_back(second, old)
    assert after.requests.inquire(left, A, 0).standing is Standing.ABORT
    own = prepared_in(after)
    assert (await restart(after)).requests.inquire(own, A, 0).standing is Standing.ABORT


async def test_lives_from_before_the_log_kept_their_start_count_as_seen(first: Life) -> None:
    left = prepared_in(first)
    del first.log._durable.lives[1]
    after = await restart(first)
    assert not is_from_unseen_life(after.log, after.gtrids.epoch, left)
    assert after.requests.inquire(left, A, 0).standing is Standing.ABORT
