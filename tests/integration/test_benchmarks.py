"""The benchmark runs and writes what it promises; whether it is fast is not a matter for tests."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.__main__ import BENCHMARKS, plan_of
from benchmarks.recovery import fill_log
from coordinator.log.sqlite import SqliteLog
from handfast.clock import unix_ms
from tests.architecture.source_tree import REPOSITORY

RUN_S_MAX = 100


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=RUN_S_MAX, check=False)


def test_a_quick_run_writes_the_figures_it_was_asked_for(tmp_path: Path) -> None:
    finished = run("oneshot", "open-log", "--quick", "--output", str(tmp_path))
    assert finished.returncode == 0, finished.stderr
    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert results["figures"].keys() == {"oneshot_ratio", "open_log_s"}
    for figure in results["figures"].values():
        assert figure["min"] <= figure["value"] <= figure["max"]
        assert isinstance(figure["reached"], bool)
    assert {"client", "coordinator", "accounts", "ledger"} < results["details"]["oneshot"]["cpu_us"].keys()
    assert {"cores", "python", "postgres", "date"} <= results["machine"].keys()
    assert (tmp_path / "results.png").read_bytes().startswith(b"\x89PNG")


def test_an_unknown_name_is_refused_with_those_that_there_are(tmp_path: Path) -> None:
    finished = run("speed", "--output", str(tmp_path))
    assert finished.returncode == 2
    assert all(name in finished.stderr for name in BENCHMARKS)
    assert not (tmp_path / "results.json").exists()


@pytest.mark.parametrize(("quick", "pairs", "expected"), [(False, None, 5), (True, None, 1), (True, 3, 3)])
def test_a_measurement_has_five_pairs_and_a_look_has_one(quick: bool, pairs: int | None, expected: int) -> None:
    assert plan_of(quick=quick, pairs=pairs).pairs == expected


def fail(problem: object) -> None:
    raise AssertionError(problem)


async def test_a_filled_log_is_one_that_the_coordinator_reads(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    fill_log_in_a_process_of_its_own(path, 25)
    log = SqliteLog(path, make_coordinator_id=lambda: "another2", on_broken=fail, unix_ms=unix_ms)
    await log.open()
    recent = log.recent(0)
    unended = log.unended()
    await log.close()
    assert len(recent) == 25
    assert all(one.end is not None for one in recent)
    assert list(unended) == []


def fill_log_in_a_process_of_its_own(path: Path, count: int) -> None:
    """It runs a loop itself, which a test with a loop can't."""
    code = (
        f"from pathlib import Path; from {fill_log.__module__} import fill_log; fill_log(Path({str(path)!r}), {count})"
    )
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, timeout=RUN_S_MAX, check=True)
