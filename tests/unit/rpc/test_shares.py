"""How much of the coordinator's time one caller may have: all of it alone, and its share when others want some."""

import asyncio

import pytest

from coordinator.rpc.shares import (
    ACCOUNTS_MAX,
    BURST_S,
    DEBT_S_MAX,
    LOOK_AGAIN_S,
    OTHERS_S_MIN,
    PAID_MAX,
    TELL_AGAIN_S,
    Account,
    Shares,
)
from tests.clock import ManualClock

SHARE = 0.2


def accounts(clock: ManualClock) -> tuple[Account, Account]:
    shares = Shares(clock, SHARE)
    return shares.account("greedy"), shares.account("modest")


def test_alone_a_caller_never_waits() -> None:
    clock = ManualClock()
    greedy, _ = accounts(clock)
    for _ in range(100):
        greedy.charge(0.1)
        assert greedy.wait_s() == 0.0


def test_when_another_wants_time_whoever_used_more_than_a_share_waits_and_the_other_does_not() -> None:
    clock = ManualClock()
    greedy, modest = accounts(clock)
    greedy.charge(0.1)
    modest.charge(2 * OTHERS_S_MIN)
    assert greedy.wait_s() > 0.0
    assert modest.wait_s() == 0.0


def test_over_a_while_it_gets_its_share_and_no_more() -> None:
    clock = ManualClock()
    greedy, modest = accounts(clock)
    used_s = 0.0
    began_s = clock.now_s()
    while clock.now_s() < began_s + 20.0:
        modest.charge(2 * OTHERS_S_MIN)
        if greedy.wait_s() == 0.0:
            greedy.charge(0.005)
            used_s += 0.005
        clock.advance(0.005)
    assert SHARE * 20.0 <= used_s <= SHARE * 20.0 + BURST_S + 0.01


def test_after_others_are_gone_it_need_not_wait_any_more() -> None:
    clock = ManualClock()
    greedy, modest = accounts(clock)
    modest.charge(0.01)
    for _ in range(10):
        greedy.charge(1.0)
    assert greedy.wait_s() > 1.0
    clock.advance(3.0)
    greedy.charge(1.0)
    assert greedy.wait_s() == 0.0


def test_no_single_message_shuts_its_sender_out_for_long() -> None:
    clock = ManualClock()
    greedy, modest = accounts(clock)
    modest.charge(1.0)
    greedy.charge(3600.0)
    assert greedy.wait_s() == DEBT_S_MAX / SHARE


async def test_those_who_wait_go_on_in_the_order_in_which_they_came() -> None:
    clock = ManualClock()
    greedy, modest = accounts(clock)
    modest.charge(1.0)
    greedy.charge(0.1)
    went: list[int] = []

    async def call(number: int) -> None:
        await greedy.admitted()
        greedy.charge(0.1)
        went.append(number)

    calls = [asyncio.create_task(call(number)) for number in range(3)]
    await _turns(5)
    assert went == []
    for expected in ([0], [0, 1], [0, 1, 2]):
        modest.charge(1.0)
        clock.advance(greedy.wait_s() + 1e-6)
        await _turns(5)
        assert went == expected
    await asyncio.gather(*calls)


def test_accounts_that_nobody_uses_are_closed() -> None:
    clock = ManualClock()
    shares = Shares(clock, SHARE)
    kept = shares.account("greedy")
    for number in range(2 * ACCOUNTS_MAX):
        clock.advance(0.01)
        kept.charge(0.01)
        shares.account(f"stranger {number}")
    assert shares.account("greedy") is kept
    assert len(shares._accounts) <= ACCOUNTS_MAX


async def _turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def test_what_is_earned_is_saved_up_to_the_burst_only_and_forgotten_in_time() -> None:
    clock = ManualClock()
    greedy, modest = accounts(clock)
    modest.charge(0.1)
    greedy.earn("a", 1.0)
    greedy.charge(BURST_S + 0.01)
    assert greedy.wait_s() > 0.0
    for number in range(PAID_MAX):
        greedy.earn(str(number), 0.0)
    greedy.earn("a", 1.0)
    assert greedy.wait_s() == 0.0


def test_many_earn_what_each_would_and_each_once() -> None:
    clock = ManualClock()
    greedy, modest = accounts(clock)
    modest.charge(0.1)
    greedy.earn("a", 0.004)
    greedy.charge(BURST_S + 0.01)
    owed_s = greedy.wait_s()
    greedy.earn_all(["a"], 1.0)
    assert greedy.wait_s() == owed_s, "it has had its pay"
    greedy.earn_all(["b", "c"], 0.0049)
    assert 0.0 < greedy.wait_s() < owed_s
    greedy.earn_all(["a", "b", "c"], 1.0)
    greedy.earn("c", 1.0)
    assert greedy.wait_s() > 0.0
    greedy.earn_all(["d", "a"], 0.0003)
    assert greedy.wait_s() == 0.0
    for start in range(0, PAID_MAX, 64):
        greedy.earn_all([str(number) for number in range(start, start + 64)], 0.0)
    greedy.charge(BURST_S + 0.01)
    greedy.earn_all(["a"], 1.0)
    assert greedy.wait_s() == 0.0, "so long ago is not remembered"


async def test_whoever_waits_goes_on_when_enough_was_earned() -> None:
    clock = ManualClock()
    greedy, modest = accounts(clock)
    modest.charge(1.0)
    greedy.charge(BURST_S + 0.2)
    waiting = asyncio.create_task(greedy.admitted())
    await asyncio.sleep(0)
    greedy.earn("a", 0.2)
    clock.advance(LOOK_AGAIN_S)
    await asyncio.wait_for(waiting, 1)  # and not only after what was owed at first
    assert greedy.wait_s() == 0.0


async def test_the_log_tells_who_is_held_up_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    clock = ManualClock()
    greedy, modest = accounts(clock)
    for minutes in (0.0, 0.5, 1.5):
        clock.advance(minutes * TELL_AGAIN_S)
        modest.charge(1.0)
        greedy.charge(BURST_S + 0.001)
        waiting = asyncio.create_task(greedy.admitted())
        await asyncio.sleep(0)
        for _ in range(100):
            clock.advance(LOOK_AGAIN_S)
            await asyncio.sleep(0)
        await asyncio.wait_for(waiting, 1)
    told = [record.message for record in caplog.records]
    assert [message.split()[0] for message in told] == ["greedy", "greedy"]
    assert "share_max is 0.2" in told[0]
