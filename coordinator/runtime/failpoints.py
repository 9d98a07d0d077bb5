"""The coordinator's failpoints, armed by ``HANDFAST_FAILPOINT`` (see handfast.failpoints)."""

from __future__ import annotations

import os

from handfast.failpoints import ArmedFailpoint

ENVIRONMENT_VARIABLE = "HANDFAST_FAILPOINT"

POINTS = {
    "before-prepare": "Commit was asked for; no Prepare has been sent",
    "before-force": "the last vote is in; the decision has not been given to the log",
    "before-fsync": "the log is about to make a batch durable (reached in the log's thread)",
    "after-force": "the decision is durable; no Commit has been sent",
    "mid-commit": "one branch has acknowledged Commit; the others have been sent none",
    "before-end": "every branch has acknowledged; the end record has not been given to the log",
}


class Failpoints(ArmedFailpoint):
    """What is armed in this process: nothing, or one of ``POINTS``.

    Args:
        spelling: as in the environment variable; empty arms nothing.

    Raises:
        ValueError: the spelling is wrong or names no point.
    """

    def __init__(self, spelling: str = "") -> None:
        super().__init__(ENVIRONMENT_VARIABLE, POINTS, spelling)

    @classmethod
    def from_environment(cls) -> Failpoints:
        """Arm what the environment variable says."""
        return cls(os.environ.get(ENVIRONMENT_VARIABLE, ""))
