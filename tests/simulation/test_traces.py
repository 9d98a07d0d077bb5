"""Simulated runs, followed from their processes' traces alone by the checker that stands outside."""

import pytest

from chaos.trace_lines import parse
from chaos.trace_rules import Broken, judge
from tests.simulation.checkers import Checkers
from tests.simulation.mutants import MUTANTS, Mutant
from tests.simulation.workload import scenario
from tests.simulation.world import run_traced

SEEDS = 100
GROUPS = 5
LATER_MAX = 60

SEEN_FROM_OUTSIDE = {
    "Commit is sent before its record is forced": "forced before sent",
    "the deadline does not bind the decision": "expiry binds the coordinator",
    "a READ_ONLY branch counts as prepared": "commit needs every vote",
    "a lost vote counts as READ_ONLY": "the table",
    "the end is written before it is acknowledged": "the table",
    "the sweep does not look at what is active": "recovery never races the living",
    "abort is presumed of a one-phase commit": "one outcome for all",
    "a repeated Execute runs again": "one beginning",
    "an ended transaction is forgotten at once": "one outcome for all",
    "the epoch does not grow": "identity and epoch",
    "a Prepare after NO is begun again": "no resurrection",
    "YES is voted before PREPARE is done": "commit needs every vote",
}
"""Planted bugs that show in a trace, and the rule by which they are seen first."""


def broken_in(seed: int, *, at_rest: bool) -> list[Broken]:
    """What a run's traces break, where nobody meddled; that is what psql does, which writes no trace."""
    report, lines, meddled = run_traced(scenario(seed))
    unreadable: list[str] = []
    follower = judge(parse("\n".join(lines), f"seed {seed}", unreadable), at_rest=at_rest)
    assert (report.violation, unreadable) == (None, [])
    return [one for one in follower.broken if one.gtrid not in meddled]


@pytest.mark.parametrize("group", range(GROUPS))
def test_what_the_processes_say_of_themselves_breaks_no_rule(group: int) -> None:
    for seed in range(group * SEEDS // GROUPS, (group + 1) * SEEDS // GROUPS):
        assert [str(one) for one in broken_in(seed, at_rest=True)] == []


@pytest.mark.parametrize("name", SEEN_FROM_OUTSIDE)
def test_a_planted_bug_is_seen_from_outside(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mutant = next(mutant for mutant in MUTANTS if mutant.name == name)
    # The simulator's own checkers would end the run at the first harm, before the trace tells of it.
    monkeypatch.setattr(Checkers, "broken", lambda checkers, rule, gtrid, detail: None)
    assert SEEN_FROM_OUTSIDE[name] in rules_broken_by(mutant)


def rules_broken_by(mutant: Mutant) -> set[str]:
    """The rules that the first run with a broken one breaks, from the seed on that is known to find the bug."""
    with mutant.planted():
        for seed in range(mutant.seed, mutant.seed + LATER_MAX):
            broken = {one.rule for one in broken_in(seed, at_rest=False)}
            if broken:
                return broken
    return set()
