"""The shortest schedule that still fails: what is left of a failing scenario when everything needless is taken away.

Greedy, in the order in which it helps a reader: faults first, then transactions, then their parts, then settings that
differ from the plain ones. After each step that still breaks the same rule it begins again, until no step does ("delta
debugging", Zeller & Hildebrandt, 2002, in its simplest form). A scenario is values only, so each try is a run of its
own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from tests.simulation.workload import Scenario, Settings
from tests.simulation.world import Report, run

TRIES_MAX = 400


def shrink(report: Report) -> Report:
    """Shrink a failing run.

    Args:
        report: of the run; it broke a rule.

    Returns:
        The report of the smallest scenario found that breaks the same rule.
    """
    smallest, tries = report, 0
    while True:
        for candidate in _smaller(smallest.scenario):
            tries += 1
            tried = run(candidate)
            if _rule(tried) == _rule(report):
                smallest = tried
                break
            if tries >= TRIES_MAX:
                return smallest
        else:
            return smallest


def _rule(report: Report) -> str:
    return "" if report.violation is None else report.violation.rule


def _smaller(scenario: Scenario) -> Iterator[Scenario]:
    """Scenarios that are one step smaller."""
    for i in range(len(scenario.faults)):
        yield replace(scenario, faults=scenario.faults[:i] + scenario.faults[i + 1 :])
    if len(scenario.plans) > 1:
        for i in range(len(scenario.plans)):
            yield replace(scenario, plans=scenario.plans[:i] + scenario.plans[i + 1 :])
    for i, plan in enumerate(scenario.plans):
        if len(plan.pieces) > 1:
            for j in range(len(plan.pieces)):
                fewer = replace(plan, pieces=plan.pieces[:j] + plan.pieces[j + 1 :])
                yield replace(scenario, plans=(*scenario.plans[:i], fewer, *scenario.plans[i + 1 :]))
        if plan.ending != "commit":
            plain = replace(plan, ending="commit")
            yield replace(scenario, plans=(*scenario.plans[:i], plain, *scenario.plans[i + 1 :]))
    plain_settings = Settings(instances=scenario.settings.instances)
    if scenario.settings != plain_settings:
        yield replace(scenario, settings=plain_settings)
