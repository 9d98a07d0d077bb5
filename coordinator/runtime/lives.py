"""Whether a name comes from a life of this coordinator that its log has seen.

No record means abort only while the log holds every record. A log that was put back from a copy does not: the lives
between the copy and the loss are missing from it, with what was committed in them. The epoch alone does not show that,
for the first life on the copy gets the number of the first life that was lost. The moment does: a name carries the time
at which it was handed out, the log knows when each of its own lives started, and the lives that were lost handed out
their names before the copy was started.

What is lost of the life in which the copy was made can't be recognized so: its names look like those from before.
"""

from __future__ import annotations

from coordinator.log.store import LogStore
from handfast.xid import Gtrid

OLD_COPY = "comes from a life of this coordinator that its log has never seen: the log is probably an old copy"
"""Said of a branch, in every report."""

OLD_COPY_MEND = (
    "Nobody here can tell what was decided, and nothing is done to these branches. Stop the coordinator and find the "
    "newer log; if there is none, ask the applications what they were told, then choose for each: `handfast resolve "
    "GTRID --commit --heuristic` or `--rollback --heuristic`."
)
"""What to do about them."""


def is_from_unseen_life(log: LogStore, epoch: int, gtrid: str) -> bool:
    """Tell whether a name was handed out in a life that this log knows nothing of.

    Args:
        log: the log.
        epoch: its present life.
        gtrid: a name of this coordinator's.

    Raises:
        MalformedName: it is no gtrid.
    """
    named = Gtrid.parse(gtrid)
    if named.epoch > epoch:
        return True
    started_unix_ms = log.life_started_unix_ms(named.epoch)
    # A past life without a start is one from before logs kept them.
    return started_unix_ms is not None and named.time_ms <= started_unix_ms
