"""The garbage collector, told to look seldom and briefly."""

from __future__ import annotations

import gc

YOUNG_MAX = 2_000
"""How many new objects it looks at in one go; 5,000 held up a busy coordinator for 6 to 7 ms."""

YOUNG_PER_OLDER = 500
"""After how many such looks it takes those that were still there once more: after a million objects."""


def calm() -> None:
    """Let the collector of this process never look at what is there now, seldom at anything, and briefly when it does.

    Ten thousand transactions under way are a million objects that are no garbage. With Python's usual 700 allocations
    between two looks, looking at them took 40 % of a coordinator's processor time (256 transactions in flight). With
    50,000 it took none, but each look held up everything for 10 to 26 ms, which was much of what the slowest of a
    hundred transactions had waited for. What counts for the time of a look is how many new objects there are; what
    counts for the work is how often those that stay are looked at again. So both are set apart.

    To be called once, when the process is ready. The whole process feels it, so it is for whoever owns that.
    """
    gc.freeze()  # not after a collection: modules leave next to none, and somebody waits for this process
    gc.set_threshold(YOUNG_MAX, YOUNG_PER_OLDER, 20)
