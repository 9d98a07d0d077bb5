"""When a frame leaves, counted in turns of the loop; and what becomes of it."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Iterable

import pytest

from handfast.frames.gathering import IDLE_TURNS_MAX, Sender, together


class Sent:
    """A sender whose frames are kept, each with the turn in which it was written."""

    def __init__(self, waiting: Iterable[int], *, under_way: int = 1, messages_max: int = 8) -> None:
        self.waiting = deque(waiting)
        self.frames: list[list[int]] = []
        self.idle = 0
        self.failures: list[BaseException] = []
        self.pending: deque[asyncio.Future[None] | Exception] = deque()
        self.messages_max = messages_max
        self.sender = Sender(
            self.waiting,
            lambda: under_way,
            self.write,
            messages_max,
            on_idle=self.on_idle,
            on_failure=self.failures.append,
        )

    def on_idle(self) -> None:
        self.idle += 1

    def write(self) -> Awaitable[None] | None:
        self.frames.append([self.waiting.popleft() for _ in range(min(self.messages_max, len(self.waiting)))])
        outcome = self.pending.popleft() if self.pending else None
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


async def turns_waited(waiting: list[int], brought: Iterable[int], *, under_way: int = 1, messages_max: int = 8) -> int:
    """How many turns pass, after the one that every frame waits, when each brings so many more messages."""
    sent = Sent(waiting, under_way=under_way, messages_max=messages_max)
    sent.sender.wake()
    await asyncio.sleep(0)  # it begins
    turns = 0
    more = iter(brought)
    while not sent.frames:
        sent.waiting.extend(range(next(more, 0)))
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
    assert await turns_waited([1], [2, 1, 0, 1]) == 3


async def test_a_turn_that_brings_something_grants_all_the_others_anew() -> None:
    assert await turns_waited([1], [0, 1, 0, 0, 1], under_way=2) == 4


async def test_a_full_frame_waits_no_longer() -> None:
    assert await turns_waited([1], [3, 4, 5, 6]) == 2
    assert await turns_waited(list(range(8)), [1]) == 0


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_nothing_is_written_when_nothing_waits_any_more() -> None:
    sent = Sent([1])
    sent.sender.wake()
    sent.waiting.clear()
    await turns(5)
    assert sent.frames == []
    assert not sent.sender.busy


async def test_more_than_a_frame_holds_leaves_in_several_in_order() -> None:
    sent = Sent(range(20), messages_max=8)
    sent.sender.wake()
    await turns(3)
    assert sent.frames == [[*range(8)], [*range(8, 16)], [*range(16, 20)]]
    assert sent.idle == 1


async def test_the_next_frame_waits_until_the_last_one_is_written() -> None:
    sent = Sent([1], under_way=0)
    writing: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    sent.pending.append(writing)
    sent.sender.wake()
    await turns(3)
    sent.waiting.append(2)
    sent.sender.wake()
    await turns(5)
    assert sent.frames == [[1]]
    assert sent.sender.busy
    writing.set_result(None)
    await turns(5)
    assert sent.frames == [[1], [2]]
    assert not sent.sender.busy


@pytest.mark.parametrize("at_once", [True, False])
async def test_a_frame_that_could_not_be_written_is_told_and_is_the_last(at_once: bool) -> None:
    sent = Sent([1], under_way=0)
    problem = OSError("gone")
    failing: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    if not at_once:
        failing.set_exception(problem)
    sent.pending.append(problem if at_once else failing)
    sent.sender.wake()
    await turns(5)
    sent.waiting.append(2)
    sent.sender.wake()
    await turns(5)
    assert sent.frames == [[1]]
    assert sent.failures == [problem]


async def test_stopped_it_writes_nothing_more_and_gives_up_what_it_was_writing() -> None:
    sent = Sent([1], under_way=0)
    writing: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    sent.pending.append(writing)
    sent.sender.wake()
    await turns(3)
    sent.sender.stop()
    await turns(3)
    assert writing.cancelled()
    assert sent.failures == []
    waiting = Sent([1], under_way=3)
    waiting.sender.wake()
    await turns(2)
    waiting.sender.stop()
    await turns(10)
    assert waiting.frames == []


async def test_what_is_sent_together_leaves_at_once_in_one_frame_for_each_stream() -> None:
    one, other = Sent([], under_way=0), Sent([], under_way=0)
    with together:
        for number in range(3):
            for sent in (one, other):
                with together:
                    sent.waiting.append(number)
                    sent.sender.wake()
        assert (one.frames, other.frames) == ([], [])
    assert (one.frames, other.frames) == ([[0, 1, 2]], [[0, 1, 2]])


async def test_what_is_sent_together_waits_for_others_that_are_under_way() -> None:
    sent = Sent([1], under_way=2)
    with together:
        sent.sender.wake()
    assert sent.frames == []
    await turns(3)
    assert sent.frames == [[1]]


async def test_what_was_sent_together_leaves_though_the_rest_failed() -> None:
    sent = Sent([1], under_way=0)

    def fail() -> None:
        with together:
            sent.sender.wake()
            raise ValueError("this frame")

    with pytest.raises(ValueError, match="this frame"):
        fail()
    assert sent.frames == [[1]]


async def test_what_is_left_for_the_end_of_a_block_is_done_though_a_stream_failed() -> None:
    done: list[str] = []

    def under_way() -> int:
        raise ValueError("a defect")

    def leave() -> None:
        with together:
            together.at_end(lambda: done.append("at the end"))
            Sender([], under_way, lambda: None, 8, on_failure=lambda problem: None).wake()

    with pytest.raises(ValueError, match="a defect"):
        leave()
    assert done == ["at the end"]


async def test_what_is_left_for_the_end_of_a_block_is_done_after_what_was_sent_in_it() -> None:
    done: list[str] = []
    waiting = ["message"]

    def write() -> None:
        done.append(waiting.pop())

    sender = Sender(waiting, lambda: 0, write, 8, on_failure=lambda problem: done.append(repr(problem)))
    with together:
        together.at_end(lambda: done.append("at the end"))
        with together:
            sender.wake()
        assert done == []
    assert done == ["message", "at the end"]
    together.at_end(lambda: done.append("at once"))
    assert done[-1] == "at once"
