"""The one place where a test waits for something that happens in its own time."""

import asyncio
from collections.abc import Callable

POLL_S = 0.01


async def eventually(condition: Callable[[], bool], *, within_s: float = 5.0) -> None:
    """Return as soon as the condition holds.

    Args:
        condition: asked again and again; should have no effect of its own.
        within_s: when to give up, in seconds.

    Raises:
        AssertionError: it did not hold in time.
    """
    loop = asyncio.get_running_loop()
    give_up_at = loop.time() + within_s
    while not condition():
        if loop.time() > give_up_at:
            raise AssertionError(f"not within {within_s:g} s: {condition}")
        await asyncio.sleep(POLL_S)
