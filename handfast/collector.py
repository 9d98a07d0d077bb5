"""The garbage collector, told to look seldom and briefly."""

from __future__ import annotations

import gc

YOUNG_MAX = 2_000
"""How many new objects it looks at in one go; 5,000 held up a busy coordinator for 6 to 7 ms."""

YOUNG_PER_OLDER = 10
"""After how many such looks it takes those that were still there once more: 20,000 objects at most."""

OLDER_PER_ALL = 5
"""After how many of those it takes everything: what connections leave behind that were open for long, and broke."""


def calm() -> None:
    """Let the collector of this process never look at what is there now, and seldom and briefly at what is new.

    What is under way is no garbage, and is many objects. With Python's usual 700 allocations between two looks, looking
    at them took 40 % of a coordinator's processor time (256 transactions in flight). With 50,000 it took none, but
    each look held up everything for 10 to 26 ms, which was much of what the slowest of a hundred transactions had
    waited for.

    Garbage is what broken connections and failed tasks leave. It has to be looked for among what stayed, too: when that
    was done once in a million objects, what connections had left that were broken long ago was still there. It costs
    little where little stays, and in Handfast's own processes only what is under way does: what has ended is folded.

    To be called once, when the process is ready. The whole process feels it, so it is for whoever owns that.
    """
    gc.freeze()  # not after a collection: modules leave next to none, and somebody waits for this process
    gc.set_threshold(YOUNG_MAX, YOUNG_PER_OLDER, OLDER_PER_ALL)
