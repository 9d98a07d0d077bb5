"""The lab itself, against a real stack: what a scenario does is measured, judged, and ended whatever happens in it."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from chaos.faults import Cut, Pause, latency
from chaos.history import Status
from chaos.lab import Lab
from chaos.runner import Result, run_scenario
from chaos.scenario import Act, Expect, Finding, Run, Scenario, all_committed
from chaos.stack import Stack
from chaos.trace_lines import read
from handfast.trace import ENVIRONMENT_VARIABLE, TraceFile

HOLD_S = 1.0


@pytest.fixture(scope="module")
def shared() -> Iterator[Path]:
    """What the stacks of this module share: initdb is made once."""
    with Stack() as stack:
        yield stack.path


async def hold_a_row(lab: Lab) -> None:
    """One payment that thinks, one cut off from its ledger, and one over a slow link."""
    await lab.pay(hold_s=HOLD_S)
    async with lab.under(Cut("client", "ledger")):
        await lab.pay()
    async with lab.under(latency("client", "accounts", 200)), lab.under(Pause("ledger")):
        await lab.rest(0.1)
    await lab.pay(kind="refund at once")


async def fall_over(lab: Lab) -> None:
    await lab.inject(Cut("coordinator", "ledger"))
    raise RuntimeError("the scenario itself is wrong")


def nothing_expected(run: Run) -> Iterator[Finding]:
    yield Finding(True, "anything", "something")


def run(shared: Path, act: Act, expect: Expect = nothing_expected, *, trace: bool = False) -> Result:
    scenario = Scenario(
        name="a-test", teaches="It is a test.", expected="it works", why="because", act=act, expect=expect
    )
    return asyncio.run(run_scenario(scenario, shared, seed=1, trace=trace))


def test_a_run_is_measured_and_judged(shared: Path) -> None:
    result = run(shared, hold_a_row)
    made = result.run
    assert made is not None, result.error
    assert [call.known for call in made.calls] == [Status.OK, Status.FAIL, Status.OK]
    assert [rule for rule, violations in made.violations.items() if violations] == []
    assert HOLD_S - 0.3 < made.blocked_in("accounts") < HOLD_S + 3
    assert [fault.label for fault in made.faults] == [
        "cut client → ledger",
        "+200 ms client → accounts",
        "ledger paused",
    ]
    assert all(fault.end_s is not None for fault in made.faults)
    assert made.evidence.logged[made.calls[0].gtrid] == "COMMITTED"
    assert {one.database for one in made.in_doubt} <= {"accounts", "ledger"}
    assert result.passed


def test_an_expectation_that_does_not_hold_fails_the_verdict_and_ends_every_process(shared: Path) -> None:
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    result = run(shared, fall_over, lambda run: [all_committed(run)])
    left = [child for child in psutil.Process().children(recursive=True) if child.pid not in before]
    assert not result.passed
    assert result.error == "broke off: RuntimeError: the scenario itself is wrong"
    assert [event.what for event in result.events] == ["cut coordinator → ledger", "broke off"]
    assert left == []


def test_a_traced_run_has_the_events_of_every_process_and_breaks_no_rule(shared: Path) -> None:
    roles: set[str] = set()

    async def pay_and_look(lab: Lab) -> None:
        await lab.pay()
        assert lab.trace is not None
        roles.update(line.role for line in read([lab.trace]).lines)

    result = run(shared, pay_and_look, trace=True)
    assert result.run is not None, result.error
    assert roles == {"coordinator", "participant", "client"}
    assert result.run.violations["the traces hold"] == []
    assert ENVIRONMENT_VARIABLE not in os.environ


def test_a_trace_that_breaks_a_rule_fails_the_verdict(shared: Path) -> None:
    async def forge_a_line(lab: Lab) -> None:
        assert lab.trace is not None
        TraceFile(str(lab.trace)).write('{"v": 1, "event": "LinesLost", "lost": 1}')

    result = run(shared, forge_a_line, trace=True)
    assert not result.passed
    assert "complete" in result.observed
