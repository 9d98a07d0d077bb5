"""The lab notices when a safety rule is gone: each of four is taken out of the real processes, and a scenario fails.

What is shown is the lab's sharpness, not the product's: a scenario that passes whatever the product does proves
nothing. How a rule is taken out is in ``mutants/sitecustomize.py``, far from the product. The judge that must speak is
named, because a run that merely breaks off would prove nothing either.
"""

import asyncio
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path

import pytest

from chaos.runner import run_scenario
from chaos.scenario import Scenario
from chaos.scenarios import find, slow_network
from chaos.stack import Stack

MUTANTS = Path(__file__).parent / "mutants"
REPOSITORY = Path(__file__).resolve().parents[3]
SERVICES = ("accounts-1", "ledger-1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutation:
    """A rule that is taken out, and who must notice.

    Args:
        rule: as ``mutants/sitecustomize.py`` calls it.
        scenario: whose run must fail.
        broken: the rules of chaos/checkers.py that must be found broken.
        expectations: the scenario's own expectations that must not hold.
        shorter: times of the scenario, by the name of their constant, so that this test does not take as long as a run
            that a person watches.
    """

    rule: str
    scenario: Scenario
    broken: frozenset[str] = frozenset()
    expectations: frozenset[str] = frozenset()
    shorter: Mapping[str, float] = field(default_factory=dict)


MUTATIONS = (
    Mutation(
        rule="force-before-send",
        scenario=find("coordinator-dies-mid-phase-two"),
        broken=frozenset({"money is conserved", "one outcome everywhere"}),
        shorter={"OUTAGE_S": 1.0},
    ),
    Mutation(
        rule="deadline-check",
        scenario=find("coordinator-pauses"),
        expectations=frozenset({"every payment aborts"}),
        shorter={"TIMEOUT_S": 1.0, "PAUSE_S": 2.0},
    ),
    Mutation(
        rule="orphan-sweep",
        scenario=find("lost-vote"),
        expectations=frozenset({"ends by itself, before the fault is healed"}),
        shorter={"SWEPT_S_MAX": 3.0},
    ),
    Mutation(
        rule="tombstone",
        scenario=replace(find("slow-network"), act=slow_network.overtake, expect=slow_network.expect_overtaken),
        expectations=frozenset({"a Prepare that its Rollback overtook prepares nothing"}),
    ),
)


@pytest.fixture(scope="module")
def shared() -> Iterator[Path]:
    """What the stacks of this module share: initdb is made once."""
    with Stack() as stack:
        yield stack.path


@pytest.mark.parametrize("mutation", MUTATIONS, ids=[mutation.rule for mutation in MUTATIONS])
def test_a_scenario_fails_without(shared: Path, monkeypatch: pytest.MonkeyPatch, mutation: Mutation) -> None:
    for name, seconds in mutation.shorter.items():
        monkeypatch.setattr(import_module(mutation.scenario.act.__module__), name, seconds)
    result = asyncio.run(run_scenario(mutated(mutation.scenario, mutation.rule), shared, seed=1))
    run = result.run
    assert run is not None, result.error
    broken = {rule for rule, violations in run.violations.items() if violations}
    assert broken >= mutation.broken, result.observed
    failed = {finding.expected for finding in result.findings if not finding.holds}
    assert failed >= mutation.expectations, result.observed
    assert not result.passed


def mutated(scenario: Scenario, rule: str) -> Scenario:
    """The same scenario, on processes that lack a rule."""
    path = [str(MUTANTS), str(REPOSITORY), os.environ.get("PYTHONPATH", "")]
    env = {"HANDFAST_TEST_WITHOUT": rule, "PYTHONPATH": os.pathsep.join(filter(None, path))}
    plan = scenario.plan
    services: Mapping[str, Mapping[str, str]] = {name: {**plan.service_env.get(name, {}), **env} for name in SERVICES}
    return replace(scenario, plan=replace(plan, coordinator_env={**plan.coordinator_env, **env}, service_env=services))
