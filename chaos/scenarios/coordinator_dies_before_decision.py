"""All voted, nobody decided: the coordinator dies between the last vote and the log."""

from collections.abc import Iterator

from chaos.bank_stack import FAILPOINT, BankPlan
from chaos.faults import Crash
from chaos.lab import Lab
from chaos.scenario import Finding, Run, Scenario, all_aborted, blocked_as_long_as

OUTAGE_S = 4.0


async def act(lab: Lab) -> None:
    lab.say("client", "a customer pays a merchant: two databases, one transaction")
    payment = lab.begin_pay(timeout_s=4)
    crash = Crash("before-force", "All branches have voted YES; the coordinator dies before it writes a decision.")
    await lab.inject(crash)
    await lab.until_in_doubt(2)
    lab.say(
        "ledger",
        "both branches are in doubt",
        "they promised to commit, so neither may roll back; their rows stay locked until the coordinator answers",
    )
    await lab.rest(OUTAGE_S)
    lab.say("coordinator", "it starts again", "it finds no decision in its log: presumed abort")
    await lab.heal(crash)
    await payment


def expect(run: Run) -> Iterator[Finding]:
    yield all_aborted(run)
    yield blocked_as_long_as(run, run.fault("coordinator dead"), databases=("accounts", "ledger"))


SCENARIO = Scenario(
    name="coordinator-dies-before-decision",
    teaches=(
        "A coordinator that dies with all votes in hand blocks every participant until it is back; "
        "then no record means abort."
    ),
    expected="rows locked until the restart, then abort",
    why=(
        "A participant that voted YES has given its word: it can no longer abort by itself, and without a decision it "
        "may not commit. Nothing but the coordinator's log can free it. No record stands there, and a decision that "
        "was never written was never sent, so abort is the one answer that contradicts nobody."
    ),
    plan=BankPlan(coordinator_env={FAILPOINT: "before-force"}),
    act=act,
    expect=expect,
)
