"""What counts as growth, which faults a soak brings, and what its judges may take for forgotten."""

from pathlib import Path

import pytest

from chaos.faults import Fault, Kill, Restart
from chaos.history import Call, Status
from chaos.scenarios import everything
from chaos.soak import picture
from chaos.soak.endure import COORDINATOR_FLAGS, DEATH_S_MAX, RETENTION_S, Soaked, blows, with_forgotten
from chaos.soak.flatness import SAMPLES_MIN, TOLERANCES, WARM_UP, Measure, is_judged, judge
from chaos.soak.samples import log_bytes
from coordinator.config import CoordinatorConfig

SECONDS = 400.0
WARM_UP_S = SECONDS * WARM_UP
MEMORY = Measure.MEMORY_MIB


def curve(early: float, late: float) -> list[tuple[float, float]]:
    """Something else in the warm-up, one value in the first third after it, then another."""
    middle_s = WARM_UP_S + (SECONDS - WARM_UP_S) / 3
    return [
        (float(at_s), 1.0 if at_s < WARM_UP_S else early if at_s < middle_s else late) for at_s in range(int(SECONDS))
    ]


def test_what_stays_is_flat() -> None:
    assert judge("coordinator", MEMORY, curve(100, 100), SECONDS).is_flat


def test_what_grows_past_its_tolerance_is_not() -> None:
    limit = 100 * (1 + TOLERANCES[MEMORY].share) + TOLERANCES[MEMORY].amount
    assert judge("coordinator", MEMORY, curve(100, limit), SECONDS).is_flat
    assert not judge("coordinator", MEMORY, curve(100, limit + 0.1), SECONDS).is_flat


def test_what_shrinks_is_flat() -> None:
    assert judge("coordinator", MEMORY, curve(100, 10), SECONDS).is_flat


def test_the_warm_up_is_not_judged() -> None:
    assert judge("coordinator", MEMORY, curve(100, 100), SECONDS).first == 100


def test_a_spike_is_no_growth() -> None:
    spiked = [(at_s, 900.0 if 380 <= at_s < 395 else value) for at_s, value in curve(100, 100)]
    judgement = judge("coordinator", MEMORY, spiked, SECONDS)
    assert judgement.is_flat
    assert judgement.most == 900


def test_what_was_hardly_seen_is_not_called_flat() -> None:
    few = [sample for sample in curve(100, 100) if sample[0] >= SECONDS - SAMPLES_MIN + 1]
    assert not judge("coordinator", MEMORY, few, SECONDS).is_flat


def test_a_servers_files_follow_the_age_of_its_sessions_and_are_not_judged_but_its_sessions_are() -> None:
    assert not is_judged("postgres-ledger", Measure.DESCRIPTORS)
    assert is_judged("postgres-ledger", Measure.SESSIONS)
    assert is_judged("ledger-1", Measure.DESCRIPTORS)


def drawn(slowness: float) -> list[tuple[float, Fault]]:
    """Every fault of a soak, and when it began, where each blow takes so many times as long as it was planned to."""
    clock, faults = [0.0], []
    for blow in blows(7, SECONDS, lambda: clock[0]):
        faults += [(clock[0], fault) for fault in blow.faults]
        clock[0] += slowness * (blow.seconds + blow.calm_s)
    return faults


@pytest.mark.parametrize("slowness", [1.0, 1.6])
def test_processes_die_in_the_warm_up_only_so_that_a_leak_has_time(slowness: float) -> None:
    deaths = [at_s for at_s, fault in drawn(slowness) if isinstance(fault, Kill | Restart)]
    assert deaths
    assert max(deaths) < WARM_UP_S - DEATH_S_MAX


def test_all_other_faults_are_those_of_everything() -> None:
    survived = [fault for _, fault in drawn(1.0) if not isinstance(fault, Kill | Restart)]
    planned = [fault for blow in everything.schedule(7, SECONDS) for fault in blow.faults]
    assert survived == [fault for fault in planned if not isinstance(fault, Kill | Restart)]


def test_the_coordinator_takes_the_soaks_settings() -> None:
    config = CoordinatorConfig(log=Path("x.db"), **COORDINATOR_FLAGS)
    assert config.retention_h * 3600 == pytest.approx(RETENTION_S, abs=0.1)


def test_of_a_forgotten_commit_the_clients_knowledge_stands_and_of_another_what_the_coordinator_says() -> None:
    calls = [Call(0, "pay", "t-0", 1, 1, 5, 0.0, "old", status=Status.OK), Call(1, "pay", "t-1", 1, 1, 5, 0.0, "new")]
    assert with_forgotten({"new": "ABORTED"}, calls) == {"old": "COMMITTED", "new": "ABORTED"}


def test_what_the_coordinator_says_wins_over_what_a_client_was_told() -> None:
    calls = [Call(0, "pay", "t-0", 1, 1, 5, 0.0, "g", status=Status.OK)]
    assert with_forgotten({"g": "ABORTED"}, calls) == {"g": "ABORTED"}


def test_the_logs_size_is_that_of_its_file_and_of_its_write_ahead_log(tmp_path: Path) -> None:
    (tmp_path / "handfast.db").write_bytes(bytes(100))
    assert log_bytes(tmp_path / "handfast.db") == 100
    (tmp_path / "handfast.db-wal").write_bytes(bytes(23))
    assert log_bytes(tmp_path / "handfast.db") == 123


def test_a_soak_passes_when_everything_is_flat_and_no_rule_is_broken() -> None:
    flat, grown = (judge("coordinator", MEMORY, curve(100, late), SECONDS) for late in (100, 200))
    verdicts = [
        Soaked(1, SECONDS, {}, judgements, violations, (), ()).passed
        for judgements, violations in (([flat], []), ([flat, grown], []), ([flat], ["money is conserved: no"]))
    ]
    assert verdicts == [True, False, False]


def test_the_picture_is_drawn(tmp_path: Path) -> None:
    judgement = judge("coordinator", MEMORY, curve(100, 200), SECONDS)
    soaked = Soaked(1, SECONDS, {("coordinator", MEMORY): curve(100, 200)}, [judgement], [], (), ())
    picture.draw(soaked, tmp_path / "soak.png")
    assert (tmp_path / "soak.png").read_bytes().startswith(b"\x89PNG")
