"""Forced, nobody told: the coordinator dies between its log and the first Commit message."""

from collections.abc import Iterator

from chaos.bank_stack import FAILPOINT, BankPlan
from chaos.faults import Crash
from chaos.lab import Lab
from chaos.scenario import Finding, Run, Scenario, all_committed, blocked_as_long_as

OUTAGE_S = 4.0


async def act(lab: Lab) -> None:
    lab.say("client", "a customer pays a merchant: two databases, one transaction")
    payment = lab.begin_pay(timeout_s=4)
    crash = Crash("after-force", "The decision to commit is on disk; the coordinator dies before it tells anybody.")
    await lab.inject(crash)
    await lab.until_in_doubt(2)
    lab.say(
        "ledger",
        "both branches are in doubt",
        "from outside this looks exactly like a death before the decision, which is why nobody may guess",
    )
    await lab.rest(OUTAGE_S)
    lab.say("coordinator", "it starts again", "its log holds the commit record, so it sends Commit until all have it")
    await lab.heal(crash)
    await payment


def expect(run: Run) -> Iterator[Finding]:
    yield all_committed(run)
    yield blocked_as_long_as(run, run.fault("coordinator dead"), databases=("accounts", "ledger"))


SCENARIO = Scenario(
    name="coordinator-dies-after-decision",
    teaches=(
        "The transaction is committed the moment its record is on disk: a crash right after it delays the commit, "
        "and can't undo it."
    ),
    expected="rows locked until the restart, then commit",
    why=(
        "Forced before sent: the commit record was durable before any Commit could leave. The restarted coordinator "
        "reads it, so the one decision stands although nobody had heard of it. The client, whose answer was lost, asks "
        "again with the same gtrid and learns the truth."
    ),
    plan=BankPlan(coordinator_env={FAILPOINT: "after-force"}),
    act=act,
    expect=expect,
)
