"""Everything that the checkers judge, collected from three witnesses that know nothing of each other: the clients'
histories, the databases by plain SQL, and the coordinator's own reports.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from chaos.bank_stack import JournalLine
from chaos.history import Call
from chaos.observers import InDoubt


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What was found after a run.

    Args:
        calls: what the clients did and know.
        journal: every line of both journals, in order for each database.
        money_before: what each database held at the start, in cents.
        money_after: what each holds at the end.
        logged: what the coordinator says of each transaction that it knows: ``COMMITTED``, ``ABORTED``, a heuristic
            outcome, or the name of the state in which it hangs.
        in_doubt: when which branch was prepared.
        left_prepared: the names of branches that are still prepared at the end.
        healed_s: when the last fault was healed, in seconds since the run began.
        ended_s: when the run ended.
        audit_verdict: ``atomic``, ``pending`` or ``differs``.
        audit_differences: what the audit found, in words.
        trace_broken: what the processes' own traces break, in words; nothing when none was written.
    """

    calls: Sequence[Call]
    journal: Sequence[JournalLine]
    money_before: Mapping[str, int]
    money_after: Mapping[str, int]
    logged: Mapping[str, str]
    in_doubt: Sequence[InDoubt] = ()
    left_prepared: Sequence[str] = ()
    healed_s: float = 0.0
    ended_s: float = 0.0
    audit_verdict: str = "atomic"
    audit_differences: Sequence[str] = field(default=())
    trace_broken: Sequence[str] = field(default=())
