"""The report tells the verdicts to programs and people, and its page needs nothing beside it."""

import json
import re
from pathlib import Path

import pytest

from chaos.checkers import CHECKERS
from chaos.events import Event, FaultSpan
from chaos.observers import Blocked, InDoubt
from chaos.report import as_json, verdict, write
from chaos.runner import Result
from chaos.scenario import Finding, Run, Scenario
from chaos.scenarios import find
from tests.unit.chaos.runs import right_evidence

FINE = Finding(True, "it holds", "it held <5 s>")
WRONG = Finding(False, "it holds", "it did not")


def a_run(violations: dict[str, list[str]] | None = None) -> Run:
    evidence = right_evidence(3)
    return Run(
        seed=7,
        calls=evidence.calls,
        events=[],
        faults=[FaultSpan("coordinator dead", "It is dead.", ("coordinator",), 1.0, 5.0)],
        blocked=[Blocked("ledger", 1, 1.0, 5.5), Blocked("accounts", 1, 1.0, 2.0)],
        in_doubt=[InDoubt("ledger", "g-1", 1.0, 5.5)],
        half_seen=[],
        facts={},
        evidence=evidence,
        violations={**{rule: [] for rule in CHECKERS}, **(violations or {})},
    )


def a_result(
    scenario: Scenario | None = None, *, run: Run | None = None, finding: Finding = FINE, error: str = ""
) -> Result:
    events = [Event(1.0, "coordinator", "it <died>", "because")]
    chosen = scenario or find("coordinator-dies-after-decision")
    made = None if error else run or a_run()
    return Result(
        scenario=chosen, seed=7, run=made, findings=[finding], error=error, events=events, logs={"ledger": "x"}
    )


def test_report_json_has_the_agreed_form() -> None:
    result = a_result()
    calls = result.run.calls if result.run else []
    told = as_json([result])
    assert told == {
        "scenarios": [
            {
                "name": "coordinator-dies-after-decision",
                "verdict": "pass",
                "blocked_longest_s": 4.5,
                "blocked_total_s": 5.5,
                "transactions": len(calls),
                "committed": sum(call.known.value == "ok" for call in calls),
                "aborted": sum(call.known.value == "fail" for call in calls),
                "unknown_resolved": sum(call.status.value == "info" for call in calls),
                "lesson": result.scenario.teaches,
            }
        ],
        "verdict": "pass",
    }


@pytest.mark.parametrize(
    "failing",
    [
        a_result(finding=WRONG),
        a_result(run=a_run({"money is conserved": ["3 cents gone"]})),
        a_result(error="broke off: StartFailed"),
        a_result(find("operator-guesses-wrong")),
    ],
    ids=["a finding", "a broken rule", "a run that broke off", "a rule that should have been broken"],
)
def test_one_failure_fails_the_whole(failing: Result) -> None:
    assert (failing.passed, verdict([a_result(), failing])) == (False, "fail")


def test_a_rule_that_a_scenario_must_break_is_no_failure_when_broken() -> None:
    scenario = find("operator-guesses-wrong")
    broken = a_run({rule: ["seen"] for rule in scenario.breaks})
    assert a_result(scenario, run=broken).passed


def test_nothing_run_is_no_pass() -> None:
    assert verdict([]) == "fail"


def test_the_page_holds_its_pictures_and_nothing_from_elsewhere(tmp_path: Path) -> None:
    page = write([a_result(), a_result(error="broke off: <StartFailed>")], tmp_path).read_text()
    assert page.count("data:image/svg+xml;base64,") == 1
    assert re.findall(r'(?:src|href)="(?!data:|#)', page) == []
    assert "it &lt;died&gt;" in page
    assert "broke off: &lt;StartFailed&gt;" in page
    assert "<!-- " not in page
    assert json.loads((tmp_path / "report.json").read_text())["verdict"] == "fail"


def test_the_picture_is_twelve_hundred_pixels_wide(tmp_path: Path) -> None:
    write([a_result()], tmp_path)
    header = (tmp_path / "coordinator-dies-after-decision.png").read_bytes()[:24]
    assert int.from_bytes(header[16:20], "big") == 1200
