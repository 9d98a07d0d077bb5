"""Waiting for a condition, with a bound. The only place in the stack that reads a clock or sleeps."""

import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from chaos.stack.errors import NotInTime

Answer = TypeVar("Answer")

_PAUSE_S_FIRST = 0.002
_PAUSE_S_MAX = 0.05


def wait_until(condition: Callable[[], Answer], timeout_s: float, what: str | Callable[[], str]) -> Answer:
    """Ask `condition` until its answer is true.

    It is asked at least twice, at the start and at the end of the time, however small `timeout_s` is: a paused or
    starved machine must not turn a condition that holds into a failure.

    Args:
        condition: what to ask; its exceptions pass through.
        timeout_s: how long to go on asking, in seconds.
        what: what did not happen, as a sentence; or a function that says so, asked at the end.

    Returns:
        The first true answer.

    Raises:
        NotInTime: no answer was true in time.
    """
    for _ in _pauses(timeout_s):
        if answer := condition():
            return answer
    if answer := condition():
        return answer
    raise NotInTime(f"Waited {timeout_s:g} s: {what if isinstance(what, str) else what()}")


def _pauses(timeout_s: float) -> Iterator[None]:
    """Yield, pausing after each turn a little longer than before, until the time is over."""
    deadline = time.monotonic() + timeout_s
    pause_s = _PAUSE_S_FIRST
    while True:
        yield
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            return
        time.sleep(min(pause_s, left_s))
        pause_s = min(pause_s * 1.5, _PAUSE_S_MAX)
