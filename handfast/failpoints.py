"""Planned crashes: named points at which a process kills or stops itself, for tests and the chaos lab.

Off by default. A process arms one point by its environment variable: ``name``, ``name=kill``, ``name=stop`` or
``name=kill@3`` (the third time the point is reached). A point is exact: what comes before it in the code has happened,
what comes after it has not. A crash is SIGKILL, so that nothing of the process runs after it, no handler and no flush.

Which points there are is told where they are reached: coordinator.runtime.failpoints, participant.failpoints.

This module imports the standard library only.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterable

_SPELLING = re.compile(r"(?P<point>[a-z-]+)(?:=(?P<action>kill|stop))?(?:@(?P<hit>[1-9][0-9]*))?")


class ArmedFailpoint:
    """What is armed in this process: nothing, or one point.

    Args:
        variable: the environment variable, for messages.
        points: the names that there are.
        spelling: the variable's value; empty arms nothing.

    Raises:
        ValueError: the spelling is wrong or names no point.
    """

    def __init__(self, variable: str, points: Iterable[str], spelling: str = "") -> None:
        self._point = ""
        self._signal = signal.SIGKILL
        self._hits_left = 1
        if not spelling:
            return
        found = _SPELLING.fullmatch(spelling)
        if found is None or found["point"] not in points:
            raise ValueError(f"{variable}={spelling!r} names no failpoint; there are: {', '.join(points)}")
        self._point = found["point"]
        self._signal = signal.SIGSTOP if found["action"] == "stop" else signal.SIGKILL
        self._hits_left = int(found["hit"] or 1)

    @property
    def idle(self) -> bool:
        """Whether nothing is armed."""
        return not self._point

    def armed(self, point: str) -> bool:
        """Whether this point will act the next time it is reached."""
        return self._point == point and self._hits_left == 1

    def reach(self, point: str) -> None:
        """Say that the point is reached; a kill does not return."""
        if point != self._point:
            return
        self._hits_left -= 1
        if self._hits_left == 0:
            os.kill(os.getpid(), self._signal)
