"""The scenarios are whole, and a seed repeats what it drew."""

from pathlib import Path

import pytest

import chaos.scenarios
from chaos.checkers import CHECKERS
from chaos.scenario import Scenario
from chaos.scenarios import NAMES, every, find
from chaos.scenarios.everything import schedule
from chaos.workload import AT_ONCE, BURST, Draws
from handfast.frames.columns import COLUMNS_MIN

SCENARIOS = every()


def test_the_twenty_four_are_there_and_no_file_is_forgotten() -> None:
    files = {path.stem.replace("_", "-") for path in Path(chaos.scenarios.__file__).parent.glob("[a-z]*.py")}
    assert len(NAMES) == 24
    assert set(NAMES) == files


@pytest.mark.parametrize("scenario", SCENARIOS, ids=NAMES)
def test_a_scenario_says_what_it_teaches_what_must_happen_and_why(scenario: Scenario) -> None:
    assert find(scenario.name) is scenario
    assert scenario.teaches.endswith(".")
    assert len(scenario.teaches) < 140
    assert len(scenario.expected) < 90
    assert len(scenario.why) > 100


@pytest.mark.parametrize("scenario", SCENARIOS, ids=NAMES)
def test_the_rules_that_a_scenario_breaks_exist(scenario: Scenario) -> None:
    assert scenario.breaks <= CHECKERS.keys()


def test_ci_runs_eight_that_need_no_file_system_of_their_own() -> None:
    short = [scenario for scenario in SCENARIOS if "short" in scenario.tags]
    assert len(short) == 8
    assert [scenario.name for scenario in short if scenario.log_kilobytes] == []


def test_an_unknown_name_points_to_the_list() -> None:
    with pytest.raises(LookupError, match="handfast chaos list"):
        find("no-such-scenario")


def test_a_seed_repeats_its_schedule_and_another_draws_another() -> None:
    assert schedule(7, 60) == schedule(7, 60)
    assert schedule(7, 60) != schedule(8, 60)


def test_a_longer_schedule_begins_as_the_shorter_one() -> None:
    short, long = schedule(7, 30), schedule(7, 120)
    assert long[: len(short)] == short


def test_two_faults_at_once_never_concern_one_process() -> None:
    pairs = [blow.faults for seed in range(50) for blow in schedule(seed, 60) if len(blow.faults) == 2]
    assert pairs
    assert [pair for pair in pairs if set(pair[0].lanes) & set(pair[1].lanes)] == []


def test_a_seed_repeats_its_transfers() -> None:
    first, again, other = (Draws(seed, accounts=10) for seed in (7, 7, 8))
    drawn = [[draws.next() for _ in range(20)] for draws in (first, again, other)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_burst_is_of_one_kind_sent_at_once_and_large_enough_for_columns() -> None:
    draws = Draws(7, accounts=10)
    kinds = [{transfer.kind for transfer in draws.burst(BURST)} for _ in range(20)]
    assert {len(one) for one in kinds} == {1}
    assert set[str]().union(*kinds) == set(AT_ONCE)
    assert BURST >= COLUMNS_MIN


def test_a_seed_repeats_its_bursts() -> None:
    first, again, other = (Draws(seed, accounts=10).burst(BURST) for seed in (7, 7, 8))
    assert first == again != other
