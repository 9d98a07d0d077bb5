"""The participant's failpoints, armed by ``HANDFAST_PARTICIPANT_FAILPOINT`` (see handfast.failpoints)."""

from __future__ import annotations

import os

from handfast.failpoints import ArmedFailpoint

ENVIRONMENT_VARIABLE = "HANDFAST_PARTICIPANT_FAILPOINT"

POINTS = {
    "before-prepare": "Prepare came; its operations have not begun, and the database has not been asked to prepare",
    "after-prepare": "the branch is prepared; its vote has not been sent",
    "before-commit": "Commit came, in one phase or in phase two; the database has not been asked to commit",
    "after-commit": "the branch is committed, in one phase or in phase two; nothing has been acknowledged",
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
