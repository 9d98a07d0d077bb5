"""How the coordinator may end at which point, and what it means.

    killed     SIGKILL, as ordered
    fatal      it left at once with 70 (EX_SOFTWARE), for it can't trust its log any more
    refused    it did not start: 1, with an entry of the catalog
    stopped    it was told to stop, and did, with 0
    survived   it goes on

A force that fails must never be survived by a coordinator that runs: what the kernel has thrown away it will not write
when it is asked again, and a second force that succeeds would prove nothing (Rebello et al., "Can Applications Recover
from fsync Failures?", USENIX ATC 2020). A write that certainly did not happen for want of space may: the commit is
refused, its transaction aborts, and the next one finds space or does not.
"""

from __future__ import annotations

import enum
import signal

from chaos.sweep.points import STARTS, Fault, Point, Stage
from chaos.sweep.tracing import FORCES
from coordinator.cli.exit_codes import Exit
from coordinator.rpc.server import EXIT_LOG_BROKEN

SQLITE_FORCE = "fdatasync"
"""How SQLite forces. When it forces the folder of a file that it has made, it takes no notice of an error; so the
coordinator forces the folder itself before it uses the log, by ``fsync``, and that one must not fail."""


class Ending(enum.Enum):
    """How the coordinator ended."""

    KILLED = "killed"
    FATAL = "fatal"
    REFUSED = "refused"
    STOPPED = "stopped"
    SURVIVED = "survived"


_BY_EXIT_CODE = {
    None: Ending.SURVIVED,
    -signal.SIGKILL: Ending.KILLED,
    EXIT_LOG_BROKEN: Ending.FATAL,
    int(Exit.FINDING): Ending.REFUSED,
    0: Ending.STOPPED,
}


class UnknownEnding(Exception):
    """The coordinator ended in a way that is not documented."""


def ending(exit_code: int | None) -> Ending:
    """What an exit code says; None means that it runs.

    Raises:
        UnknownEnding: no ending has that code.
    """
    if exit_code not in _BY_EXIT_CODE:
        raise UnknownEnding(f"the coordinator ended with {exit_code}, which is not documented")
    return _BY_EXIT_CODE[exit_code]


def allowed(point: Point, *, on_folder: bool = False) -> frozenset[Ending]:
    """How it may end there.

    Args:
        point: where.
        on_folder: whether the call was made on the folder of the log.
    """
    series = point.series
    if series.fault.is_death:
        return frozenset({Ending.KILLED})
    if series.stage is Stage.STOP:
        # All was durable before it was told to stop: what fails now is tidying up, and is done at the next start.
        return frozenset({Ending.STOPPED, Ending.FATAL})
    must_end = Ending.REFUSED if series.stage in STARTS else Ending.FATAL
    if on_folder and series.call == SQLITE_FORCE:
        return frozenset({must_end, Ending.SURVIVED})
    if series.call in FORCES or series.fault is Fault.EIO:
        return frozenset({must_end})
    return frozenset({must_end, Ending.SURVIVED})
