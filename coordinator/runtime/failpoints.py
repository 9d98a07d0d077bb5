"""Planned crashes: named points at which the process kills or stops itself, for tests and the chaos lab.

Off by default. ``HANDFAST_FAILPOINT=name``, ``name=kill``, ``name=stop`` or ``name=kill@3`` (the third time the point
is reached) arms one. A point is exact: what comes before it in the driver has happened, what comes after it has not.
A crash is SIGKILL, so that nothing of this process runs after it, no handler and no flush.
"""

from __future__ import annotations

import os
import re
import signal
from typing import Literal

ENVIRONMENT_VARIABLE = "HANDFAST_FAILPOINT"

POINTS = {
    "before-prepare": "Commit was asked for; no Prepare has been sent",
    "before-force": "the last vote is in; the decision has not been given to the log",
    "before-fsync": "the log is about to make a batch durable (reached in the log's thread)",
    "after-force": "the decision is durable; no Commit has been sent",
    "mid-commit": "one branch has acknowledged Commit; the others have been sent none",
    "before-end": "every branch has acknowledged; the end record has not been given to the log",
}

_SPELLING = re.compile(r"(?P<point>[a-z-]+)(?:=(?P<action>kill|stop))?(?:@(?P<hit>[1-9][0-9]*))?")


class Failpoints:
    """What is armed in this process: nothing, or one point.

    Args:
        spelling: as in the environment variable; empty arms nothing.

    Raises:
        ValueError: the spelling is wrong or names no point.
    """

    def __init__(self, spelling: str = "") -> None:
        self._point = ""
        self._action: Literal["kill", "stop"] = "kill"
        self._hits_left = 1
        if not spelling:
            return
        found = _SPELLING.fullmatch(spelling)
        if found is None or found["point"] not in POINTS:
            raise ValueError(f"{ENVIRONMENT_VARIABLE}={spelling!r} names no failpoint; there are: {', '.join(POINTS)}")
        self._point = found["point"]
        self._action = "stop" if found["action"] == "stop" else "kill"
        self._hits_left = int(found["hit"] or 1)

    @classmethod
    def from_environment(cls) -> Failpoints:
        """Arm what the environment variable says."""
        return cls(os.environ.get(ENVIRONMENT_VARIABLE, ""))

    def armed(self, point: str) -> bool:
        """Whether this point will act the next time it is reached."""
        return self._point == point and self._hits_left == 1

    def reach(self, point: str) -> None:
        """Say that the point is reached; a kill does not return."""
        if point != self._point:
            return
        self._hits_left -= 1
        if self._hits_left == 0:
            os.kill(os.getpid(), signal.SIGKILL if self._action == "kill" else signal.SIGSTOP)
