"""When a frame leaves: when the loop's turns have stopped adding to it.

Writing a frame and reading one cost each process some 90 µs however many messages are in it, so a busy sender should
write few. It needs no timer for that. What wakes the sender is a message put into its queue; the next turns of the loop
may put in more, because the replies that bring them are on their way or waiting to be read. So it lets the loop turn,
which costs a few microseconds, until some turns in a row have brought nothing: as many as there are messages under way,
within reason. With nothing under way nothing can come, and the frame leaves at once, so that one transaction alone
waits for no one.
"""

from __future__ import annotations

from collections.abc import Generator, Sized

IDLE_TURNS_MAX = 10
"""More are not worth what they cost: a turn is some 5 µs, and a frame saved is some 180."""


class Turn:
    """Awaited, it lets everything else run once that is ready; what can be read from sockets is."""

    def __await__(self) -> Generator[None, None, None]:
        yield


async def gathered(waiting: Sized, under_way: int, messages_max: int) -> None:
    """Return when what waits should be written.

    Args:
        waiting: the messages to be written.
        under_way: how many others have no answer yet, whose answers may bring more of them; none at zero and below.
        messages_max: how many messages fill a frame.
    """
    turns_left = granted = min(under_way, IDLE_TURNS_MAX)
    while turns_left > 0 and 0 < (before := len(waiting)) < messages_max:
        await Turn()
        turns_left = turns_left - 1 if len(waiting) == before else granted
