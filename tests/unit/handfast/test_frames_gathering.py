"""When a frame leaves, counted in turns of the loop."""

import asyncio
from collections.abc import Iterable

import pytest

from handfast.frames.gathering import IDLE_TURNS_MAX, gathered


async def turns_waited(waiting: list[int], brought: Iterable[int], *, under_way: int = 1, messages_max: int = 8) -> int:
    """How many turns of the loop pass before what waits is written, when each brings so many more messages."""
    writing = asyncio.ensure_future(gathered(waiting, under_way, messages_max))
    await asyncio.sleep(0)  # it begins
    turns = 0
    more = iter(brought)
    while not writing.done():
        waiting.extend(range(next(more, 0)))
        turns += 1
        await asyncio.sleep(0)
    return turns


async def test_what_can_bring_nothing_more_leaves_at_once() -> None:
    assert await turns_waited([1], [5, 5], under_way=0) == 0
    assert await turns_waited([1], [5, 5], under_way=-1) == 0


@pytest.mark.parametrize(("under_way", "turns"), [(1, 1), (2, 2), (1000, IDLE_TURNS_MAX)])
async def test_the_more_is_under_way_the_more_turns_may_bring_nothing(under_way: int, turns: int) -> None:
    assert await turns_waited([1], [], under_way=under_way) == turns


async def test_a_frame_waits_as_long_as_each_turn_brings_something() -> None:
    waiting = [1]
    assert await turns_waited(waiting, [2, 1, 0, 1]) == 3
    assert len(waiting) == 4


async def test_a_turn_that_brings_something_grants_all_the_others_anew() -> None:
    assert await turns_waited([1], [0, 1, 0, 0, 1], under_way=2) == 4


async def test_a_full_frame_waits_no_longer() -> None:
    assert await turns_waited([1], [3, 4, 5, 6]) == 2
    assert await turns_waited(list(range(8)), [1]) == 0


async def test_nothing_is_waited_for_when_nothing_waits() -> None:
    assert await turns_waited([], [1]) == 0
