"""Takes one safety rule out of a process of the product, for ``test_mutations``; the product knows nothing of it.

Python imports a module of this name, when it finds one, before a program begins. ``test_mutations`` puts this folder on
PYTHONPATH and names the rule in HANDFAST_TEST_WITHOUT. What is replaced here must exist, or the process does not start.
"""

import asyncio
import os
from collections.abc import Callable, Sequence
from typing import Any

WITHOUT = "HANDFAST_TEST_WITHOUT"
_WRITTEN_LATER_S = 3.0


def without_force_before_send() -> None:
    """The decision is told at once, and written when there is time for it."""
    from coordinator.log.submitting import SubmittingLog

    honest = SubmittingLog.decide

    def decide(log: Any, record: Any, on_decided: Callable[[Any], None]) -> None:
        loop = asyncio.get_running_loop()
        loop.call_soon(on_decided, record.decision)
        loop.call_later(_WRITTEN_LATER_S, honest, log, record, lambda standing: None)

    _replaced(SubmittingLog, "decide", decide)


def without_deadline_check() -> None:
    """Neither the machine nor its driver looks at the time before it commits."""
    from coordinator.protocol.transaction import GlobalTransaction
    from coordinator.runtime.driver import Driver

    honest = Driver._force

    def force(driver: Any, running: Any, branches: Sequence[Any]) -> None:
        running.transaction.deadline_s = float("inf")
        honest(driver, running, tuple(branches))

    _replaced(GlobalTransaction, "_is_late", lambda transaction, event: False)
    _replaced(Driver, "_force", force)


def without_orphan_sweep() -> None:
    """Nobody looks for prepared branches that the coordinator has forgotten."""
    from coordinator.runtime.recovery import Recovery

    async def sweep(recovery: Any) -> int:
        return 0

    _replaced(Recovery, "sweep", sweep)


def without_tombstone() -> None:
    """A Rollback for a branch that is not known leaves nothing behind."""
    from participant.protocol.branches import Branches

    _replaced(Branches, "_bury", lambda branches, gtrid, born_ms, now_s: None)


def _replaced(where: type, name: str, by: Callable[..., Any]) -> None:
    if not hasattr(where, name):
        raise AttributeError(f"{where.__name__} has no {name} any more: take the rule out where it is now")
    setattr(where, name, by)


RULES: dict[str, Callable[[], None]] = {
    "force-before-send": without_force_before_send,
    "deadline-check": without_deadline_check,
    "orphan-sweep": without_orphan_sweep,
    "tombstone": without_tombstone,
}

if rule := os.environ.get(WITHOUT):
    RULES[rule]()
