"""The pool: room is given in the order in which it was asked for, and none of it is ever lost."""

import asyncio
from typing import Any

import pytest

from participant.clock import SystemClock
from participant.limits import Limits
from participant.postgres.pools import Pool, PoolFull


class Connection:
    """As much of one as the pool looks at."""

    is_idle = True
    may_finish = True
    closed = broken = False

    async def close(self) -> None:
        self.closed = True


def make_pool(connections_max: int) -> Pool[Any]:
    async def connect() -> Connection:
        return Connection()

    return Pool[Any](connect, connections_max, Limits(SystemClock()))


async def nothing(connection: Connection) -> None:
    pass


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_room_goes_to_whoever_has_waited_longest() -> None:
    pool, order = make_pool(1), []
    held, _ = await pool.take(1.0, nothing)

    async def use(name: str) -> None:
        connection, _ = await pool.take(60.0, nothing)
        order.append(name)
        await pool.give(connection)

    waiting = [asyncio.create_task(use(name)) for name in ("first", "second")]
    await turns()
    await pool.give(held)
    await use("came later")  # there is nothing free in this moment: it was given away already
    await asyncio.gather(*waiting)
    assert order == ["first", "second", "came later"]


async def test_who_waits_too_long_is_told_so_and_takes_no_room() -> None:
    pool = make_pool(1)
    held, _ = await pool.take(1.0, nothing)
    with pytest.raises(PoolFull):
        await pool.take(0.0, nothing)
    await pool.give(held)
    again, _ = await pool.take(0.0, nothing)
    assert again is held


async def test_room_that_came_for_one_who_left_this_moment_is_not_lost() -> None:
    pool = make_pool(1)
    held, _ = await pool.take(1.0, nothing)
    leaving = asyncio.create_task(pool.take(60.0, nothing))
    await turns()
    await pool.give(held)  # the room is the other's now …
    leaving.cancel()  # … who has gone before hearing of it
    await asyncio.gather(leaving, return_exceptions=True)
    again, _ = await pool.take(0.0, nothing)
    assert (again is held, pool.busy_count) == (True, 1)


async def test_an_attempt_to_connect_that_fails_leaves_its_room() -> None:
    pool = make_pool(1)

    async def refuse(connection: Connection) -> None:
        raise ValueError("no")

    for _ in range(3):
        with pytest.raises(ValueError, match="no"):
            await pool.take(0.0, refuse)
    assert (await pool.take(0.0, nothing))[0].closed is False


async def test_one_is_lent_while_none_is_in_use_and_it_is_the_one_that_was_given_back_last() -> None:
    pool = make_pool(3)
    taken = [(await pool.take(1.0, nothing))[0] for _ in range(3)]
    for connection in taken:
        await pool.give(connection)
    assert [pool.lend(), pool.lend()] == [taken[2], None]
    assert await pool.take(0.0, nothing) == (taken[1], None)


async def test_nothing_is_lent_while_any_is_in_use_or_being_made() -> None:
    pool = make_pool(3)
    held, again = (await pool.take(1.0, nothing))[0], (await pool.take(1.0, nothing))[0]
    await pool.give(again)
    assert pool.lend() is None
    await pool.give(held)
    making = asyncio.create_task(pool.take(1.0, nothing))
    pool._idle.clear()  # so that it has to be made
    await asyncio.sleep(0)
    pool._idle.append(held)
    assert pool.lend() is None
    await making


async def test_the_only_connection_that_there_may_be_is_not_lent() -> None:
    pool = make_pool(1)
    held, _ = await pool.take(1.0, nothing)
    await pool.give(held)
    assert pool.lend() is None


async def test_a_connection_that_is_not_fit_is_not_lent() -> None:
    pool = make_pool(2)
    connection, _ = await pool.take(1.0, nothing)
    connection.may_finish = False
    await pool.give(connection)
    assert pool.lend() is None


async def test_what_was_lent_is_room_again_when_it_comes_back() -> None:
    pool = make_pool(2)
    held, _ = await pool.take(1.0, nothing)
    await pool.give(held)
    for _ in range(3):
        lent = pool.lend()
        assert (lent, pool.busy_count) == (held, 1)
        await pool.give(lent)
    assert pool.busy_count == 0
