"""``python -m tests.simulation``: run seeds, look for planted bugs, search the small worlds whole; or replay a seed."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from secrets import randbelow

from tests.simulation.exhaustive import search_all
from tests.simulation.mutants import MUTANTS, SEEDS_MAX, find
from tests.simulation.shrink import shrink
from tests.simulation.workload import scenario
from tests.simulation.world import Report, run


@dataclass(slots=True)
class Sums:
    """What many runs add up to."""

    seeds: int = 0
    steps: int = 0
    virtual_s: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)

    def add(self, report: Report) -> None:
        """Count a run."""
        self.seeds += 1
        self.steps += report.steps
        self.virtual_s += report.virtual_s
        self.faults += report.faults
        self.outcomes += report.outcomes

    def lines(self, wall_s: float, cpu_s: float) -> list[str]:
        """The sums in words."""
        told = ", ".join(f"{number} {outcome}" for outcome, number in sorted(self.outcomes.items()))
        return [
            f"{self.seeds} seeds in {wall_s:.1f} s ({60 * self.seeds / max(cpu_s, 1e-9):.0f} a minute of one core), "
            f"{self.virtual_s / 3600:.1f} virtual hours, {self.steps} steps",
            f"outcomes told: {told}",
            f"{sum(self.faults.values())} faults struck:",
            *(f"  {number:7d}  {kind}" for kind, number in sorted(self.faults.items())),
        ]


def main(arguments: list[str] | None = None) -> int:
    """Run the program; returns its exit code: 0 when no rule was broken and every planted bug was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many seeds to run")
    parser.add_argument("--seed", type=int, help="run this one only, and print its whole trace")
    parser.add_argument("--first", type=int, help="the first seed; by default some large one, so that each run is new")
    parser.add_argument("--minutes", type=float, help="run seeds for so long instead")
    parser.add_argument("--mutants", action="store_true", help="only look for every planted bug, from seed 0 on")
    parser.add_argument("--no-mutants", action="store_true", help="leave the planted bugs out")
    parser.add_argument("--no-exhaustive", action="store_true", help="leave the exhaustive search out")
    chosen = parser.parse_args(arguments)
    if chosen.mutants:
        return _find_mutants()
    if chosen.seed is not None:
        return _replay(chosen.seed)
    first = randbelow(10**9) if chosen.first is None else chosen.first
    counts: list[str] = []
    held = _run(first, chosen.seeds, chosen.minutes, counts)
    held = held and (chosen.no_mutants or _find_known_mutants(counts))
    held = held and (chosen.no_exhaustive or _search_exhaustively(counts))
    if held:
        print("\n".join(("", *counts, "no rule was broken")))
    return 0 if held else 1


def _run(first: int, seeds: int, minutes: float | None, counts: list[str]) -> bool:
    """Run seeds, and add to the counts."""
    print(f"first seed: {first}", flush=True)
    sums, wall_s, cpu_s = Sums(), time.monotonic(), time.process_time()
    seed = first
    while seed < first + seeds if minutes is None else time.monotonic() < wall_s + 60 * minutes:
        report = run(scenario(seed))
        sums.add(report)
        if report.violation is not None:
            _show_failure(report)
            return False
        seed += 1
    print("\n".join(sums.lines(time.monotonic() - wall_s, time.process_time() - cpu_s)), flush=True)
    counts += [
        f"seeds: {sums.seeds}",
        f"faults: {sum(sums.faults.values())}",
        f"virtual hours: {sums.virtual_s / 3600:.1f}",
    ]
    return True


def _find_known_mutants(counts: list[str]) -> bool:
    """Look for each planted bug from the seed on that is known to find it, and add to the counts."""
    missed = [mutant.name for mutant in MUTANTS if find(mutant, first=mutant.seed) is None]
    for name in missed:
        print(f"not found within {SEEDS_MAX} seeds: {name}")
    counts.append(f"mutants found: {len(MUTANTS) - len(missed)}/{len(MUTANTS)}")
    print(counts[-1], flush=True)
    return not missed


def _search_exhaustively(counts: list[str]) -> bool:
    """Search the small worlds whole, and add to the counts."""
    states, wrong = 0, 0
    for name, number, problem in search_all():
        states += number
        wrong += bool(problem)
        print(f"{number:9d} states of {name}" + (f": {problem}" if problem else ""), flush=True)
    counts.append(f"states visited: {states}")
    return not wrong


def _replay(seed: int) -> int:
    print(f"seed: {seed}", flush=True)
    report = run(scenario(seed))
    _show_scenario(report)
    print("\n".join(report.trace.lines()))
    if report.violation is None:
        print("no rule was broken")
        return 0
    _show_failure(report)
    return 1


def _show_failure(report: Report) -> None:
    print(f"\nseed {report.scenario.seed} breaks a rule: {report.violation}\nshrinking …", flush=True)
    smallest = shrink(report)
    print(f"\nthe shortest schedule found that still fails: {smallest.violation}\n")
    _show_scenario(smallest)
    gtrid = smallest.violation.gtrid if smallest.violation is not None else ""
    print("\n".join(smallest.trace.about(gtrid)))
    print(f"\nagain: python -m tests.simulation --seed {report.scenario.seed}")


def _show_scenario(report: Report) -> None:
    print(report.scenario.settings)
    for thing in (*report.scenario.plans, *report.scenario.faults):
        print(f"  {thing}")
    print()


def _find_mutants() -> int:
    print("| planted bug | found by seed | rule broken | what was seen |\n|---|---|---|---|", flush=True)
    found = 0
    for mutant in MUTANTS:
        answer = find(mutant)
        if answer is None:
            print(f"| {mutant.name} | **not within {SEEDS_MAX}** | | |", flush=True)
            continue
        seed, report = answer
        violation = report.violation
        assert violation is not None
        found += 1
        detail = violation.detail.replace("|", "/")
        print(f"| {mutant.name} | {seed} | {violation.rule} | {_short(detail)} |", flush=True)
    print(f"\n{found} of {len(MUTANTS)} found within {SEEDS_MAX} seeds")
    return 0 if found == len(MUTANTS) else 1


def _short(text: str) -> str:
    return text if len(text) <= 140 else f"{text[:139]}…"


if __name__ == "__main__":
    sys.exit(main())
