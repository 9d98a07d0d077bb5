"""The sweep on real processes, by the planned crashes, for which no strace is needed.

That it strikes, judges and passes is shown on the product; that it is sharp, on the product without its first rule: a
coordinator that answers before it has forced is killed between two Commit messages, and the sweep must say so.
"""

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from chaos.sweep import report
from chaos.sweep.__main__ import main
from chaos.sweep.endings import Ending
from chaos.sweep.points import Choice
from chaos.sweep.series import Swept, Wish, sweep

MUTANTS = Path(__file__).parent / "mutants"
REPOSITORY = Path(__file__).resolve().parents[3]


def swept(point: str, environment: Mapping[str, str] | None = None) -> tuple[Swept, Wish]:
    wish = Wish(choice=Choice.parse(point), lanes=1, environment=environment or {})
    return asyncio.run(sweep(wish, (), print)), wish


def without(rule: str) -> dict[str, str]:
    """The environment of processes that lack a rule; see ``mutants/sitecustomize.py``."""
    path = [str(MUTANTS), str(REPOSITORY), os.environ.get("PYTHONPATH", "")]
    return {"HANDFAST_TEST_WITHOUT": rule, "PYTHONPATH": os.pathsep.join(filter(None, path))}


def test_a_coordinator_killed_between_two_commits_loses_nothing_that_was_acknowledged() -> None:
    done, wish = swept("planned:mid-commit:kill:1")
    (result,) = done.results
    assert [one.ending for one in result.strikes] == [Ending.KILLED]
    assert report.findings(done, wish) == []
    assert done.acknowledged == done.asked == 3


def test_a_coordinator_that_answers_before_it_has_forced_is_found_out() -> None:
    done, wish = swept("planned:mid-commit:kill:1", without("force-before-send"))
    found = " ".join(report.findings(done, wish))
    assert "money is conserved" in found
    assert "one outcome everywhere" in found


def test_a_point_that_does_not_exist_is_told_by_the_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--only", "lunch"]) == 2
    assert "the stages are create" in " ".join(capsys.readouterr().err.split())
