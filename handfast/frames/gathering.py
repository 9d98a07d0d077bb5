"""When a frame leaves: as soon as the loop's turns add nothing more to it.

Writing a frame and reading one cost each process some 90 µs however many messages are in it, so a busy sender should
write few. It needs no timer for that. What wakes the sender is a message put into its queue; the next turn of the loop
may put in more, because the replies that bring them are waiting to be read. So it lets the loop turn, which costs a few
microseconds, for as long as each turn brings something. When nothing else is under way, nothing can come, and the frame
leaves at once: one transaction alone waits for no one.
"""

from __future__ import annotations

from collections.abc import Generator, Sized


class _Turn:
    """Awaited, it lets everything else run once that is ready; what can be read from sockets is."""

    def __await__(self) -> Generator[None, None, None]:
        yield


async def gathered(waiting: Sized, expected: bool, messages_max: int) -> None:
    """Return when what waits should be written.

    Args:
        waiting: the messages to be written.
        expected: whether something is under way that may bring more of them.
        messages_max: how many messages fill a frame.
    """
    before = 0
    while expected and before < len(waiting) < messages_max:
        before = len(waiting)
        await _Turn()
