"""A service dies when it is asked to prepare: no vote, no commit."""

from collections.abc import Iterator

from chaos.bank_stack import BankPlan
from chaos.faults import Crash
from chaos.lab import Lab
from chaos.scenario import Finding, Run, Scenario, all_aborted, blocked_at_most, ended_before_healing
from participant.failpoints import ENVIRONMENT_VARIABLE as FAILPOINT

TIMEOUT_S = 3.0
OUTAGE_S = 4.0


async def act(lab: Lab) -> None:
    lab.say("client", "a customer pays a merchant: two databases, one transaction")
    payment = lab.begin_pay(timeout_s=TIMEOUT_S)
    crash = Crash("before-prepare", "The ledger service is asked to prepare, and dies.", name="ledger")
    await lab.inject(crash)
    lab.say(
        "coordinator", "the ledger's vote will never come", "without every vote there is no commit, so it may abort"
    )
    await payment
    await lab.rest(OUTAGE_S)
    await lab.heal(crash)


def expect(run: Run) -> Iterator[Finding]:
    yield all_aborted(run)
    yield ended_before_healing(run, run.fault("ledger dead"))
    yield blocked_at_most(run, TIMEOUT_S + 1)


SCENARIO = Scenario(
    name="participant-dies-before-vote",
    teaches="Before the vote a death costs nothing: no vote means no, and everybody else is free at once.",
    expected="abort at once, while the service is still dead",
    why=(
        "Until it votes, a branch is an open transaction in a session; the session ends with the process, and its "
        "database rolls back by itself. The coordinator has one vote too few, so abort is safe without asking anybody."
    ),
    plan=BankPlan(service_env={"ledger-1": {FAILPOINT: "before-prepare"}}),
    act=act,
    expect=expect,
    tags=frozenset({"short"}),
)
