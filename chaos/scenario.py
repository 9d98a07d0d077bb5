"""What a scenario is: a stack, what is done to it, and what must then be true, each said in words and as code.

    SCENARIO = Scenario(
        name="coordinator-dies-before-decision",
        teaches="…one sentence…",
        expected="…what the table says…",
        why="…the argument…",
        plan=BankPlan(…),
        act=act,            # async: does the damage and the healing, through the Lab
        expect=expect,      # judges the Run; yields Findings
    )

The checkers (chaos/checkers.py) judge every run besides. A scenario in which a rule must break, for that is its lesson,
names the rule in ``breaks``; it then fails unless the rule is seen broken.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from chaos.bank_stack import BankPlan
from chaos.events import Event, FaultSpan
from chaos.evidence import Evidence
from chaos.history import Call, Status
from chaos.observers import Blocked, HalfSeen, InDoubt, joined

if TYPE_CHECKING:
    from chaos.lab import Lab

DECIDED = "Decided"
"""Among a transaction's phases: the moment at which its decision was made, which a restart does not change."""


AS_ROWS = "transactions that began as rows of a cohort"
"""Among the facts of each run: see ``Lab.count_rows``."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that must be true of a run, and what was seen.

    Args:
        holds: whether it is.
        expected: what must be true.
        observed: what was seen, with its numbers.
    """

    holds: bool
    expected: str
    observed: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What happened in one run of a scenario. Times are seconds since it began.

    Args:
        seed: of the load and of the schedule.
        calls: what the clients did.
        events: what happened, oldest first.
        faults: what was done to the stack.
        blocked: when the probes could not write their rows.
        in_doubt: when branches were prepared.
        half_seen: when a reader saw half a payment; only when the scenario looked for it.
        facts: what the scenario measured besides, in words, by name.
        evidence: what the checkers judged.
        violations: what they found, by rule.
        phases: moments of transactions as the coordinator tells them, by gtrid: seconds and event.
        healed_s: when the last fault was healed.
        ended_s: when it was over.
    """

    seed: int
    calls: Sequence[Call]
    events: Sequence[Event]
    faults: Sequence[FaultSpan]
    blocked: Sequence[Blocked]
    in_doubt: Sequence[InDoubt]
    half_seen: Sequence[HalfSeen]
    facts: Mapping[str, float]
    evidence: Evidence
    violations: Mapping[str, Sequence[str]]
    phases: Mapping[str, Sequence[tuple[float, str]]] = field(default_factory=dict)
    healed_s: float = 0.0
    ended_s: float = 0.0

    @property
    def blocked_longest_s(self) -> float:
        """The longest that one writer waited for one row."""
        return max((one.seconds for one in joined(self.blocked)), default=0.0)

    @property
    def blocked_total_s(self) -> float:
        """What all writers waited together."""
        return sum(one.seconds for one in joined(self.blocked))

    def blocked_in(self, database: str) -> float:
        """The longest that the writer of one database waited, in seconds."""
        return max((one.seconds for one in joined(self.blocked) if one.database == database), default=0.0)

    def count(self, status: Status) -> int:
        """How many calls ended so, what was learned later included."""
        return sum(call.known is status for call in self.calls)

    @property
    def unknown_resolved(self) -> int:
        """How many clients did not know, and learned it by asking."""
        return sum(call.status is Status.INFO and call.resolved is not None for call in self.calls)

    def fault(self, label: str) -> FaultSpan:
        """The first fault whose label begins so. Raises LookupError when there is none."""
        for one in self.faults:
            if one.label.startswith(label):
                return one
        raise LookupError(f"no fault {label!r}; there are: {', '.join(one.label for one in self.faults)}")


Act = Callable[["Lab"], Awaitable[None]]
Expect = Callable[[Run], Iterable[Finding]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One experiment.

    Args:
        name: in words joined by hyphens.
        teaches: the lesson, one sentence.
        expected: what must happen, short enough for a table.
        why: why it must.
        act: does it.
        expect: judges it.
        plan: the stack.
        rows: the rows that probes want to write, as database and account.
        log_kilobytes: when above 0, the decision log is on a file system of this size.
        late_links: links that can deliver late, as source and target (see chaos/late.py).
        watch_total: whether a reader adds up all the money all the time.
        breaks: the checkers' rules that must be seen broken.
        tags: ``short`` for those that run in CI.
    """

    name: str
    teaches: str
    expected: str
    why: str
    act: Act
    expect: Expect
    plan: BankPlan = field(default_factory=BankPlan)
    rows: tuple[tuple[str, int], ...] = (("accounts", 1), ("ledger", 1))
    log_kilobytes: int = 0
    late_links: frozenset[tuple[str, str]] = frozenset()
    watch_total: bool = False
    breaks: frozenset[str] = frozenset()
    tags: frozenset[str] = frozenset()


# -- findings that many scenarios share --------------------------------------------------------------------------------


def all_committed(run: Run) -> Finding:
    """Every payment committed."""
    done = run.count(Status.OK)
    return Finding(done == len(run.calls) > 0, "every payment commits", f"{done} of {len(run.calls)} committed")


def all_aborted(run: Run) -> Finding:
    """Every payment was aborted."""
    done = run.count(Status.FAIL)
    return Finding(done == len(run.calls) > 0, "every payment aborts", f"{done} of {len(run.calls)} aborted")


def blocked_as_long_as(run: Run, fault: FaultSpan, *, databases: Iterable[str], more_s_max: float = 8.0) -> Finding:
    """A writer in each of these databases waited at least as long as the fault lasted, and not much longer."""
    waits = {database: run.blocked_in(database) for database in databases}
    slack_s = 0.5  # the writer arrives a moment after the lock is taken
    holds = all(fault.seconds - slack_s <= waited <= fault.seconds + more_s_max for waited in waits.values())
    told = ", ".join(f"{database} {waited:.1f} s" for database, waited in waits.items())
    return Finding(
        holds,
        f"rows locked as long as the outage ({fault.seconds:.1f} s)",
        f"outage {fault.seconds:.1f} s, blocked {told}",
    )


def blocked_at_most(run: Run, seconds_max: float) -> Finding:
    """No writer waited longer."""
    waited_s = run.blocked_longest_s
    return Finding(waited_s <= seconds_max, f"nobody waits over {seconds_max:g} s", f"longest wait {waited_s:.1f} s")


def ended_before_healing(run: Run, fault: FaultSpan) -> Finding:
    """Every client had its answer, and every row was free, while the fault still acted: it ended by itself."""
    healed_s = run.ended_s if fault.end_s is None else fault.end_s
    answered_s = max((call.end_s or run.ended_s for call in run.calls), default=0.0)
    free_s = max((one.end_s for one in run.blocked), default=0.0)
    return Finding(
        max(answered_s, free_s) < healed_s,
        "ends by itself, before the fault is healed",
        f"answered after {max(0.0, answered_s - fault.start_s):.1f} s, "
        f"rows free after {max(0.0, free_s - fault.start_s):.1f} s "
        f"of a fault of {fault.seconds:.1f} s",
    )


def some_committed(run: Run, at_least: int = 1) -> Finding:
    """The load went on."""
    done = run.count(Status.OK)
    words = f"{done} of {len(run.calls)} committed, {run.count(Status.FAIL)} aborted"
    return Finding(done >= at_least, f"at least {at_least} commit", words)


def some_as_rows(run: Run) -> Finding:
    """The bursts of the load went through the coordinator as rows of cohorts, and so through the faults."""
    rows = run.facts[AS_ROWS]
    return Finding(rows > 0, "some of them begin together, as rows of a cohort", f"{rows:g} began as rows of a cohort")
