"""A database crashes with a prepared branch in it, and the decision to commit is made meanwhile."""

from collections.abc import Iterator

from chaos.bank_stack import BankPlan
from chaos.faults import Crash, StopPostgres
from chaos.lab import Lab
from chaos.scenario import Finding, Run, Scenario, all_committed
from participant.failpoints import ENVIRONMENT_VARIABLE as FAILPOINT

OUTAGE_S = 3.0


async def act(lab: Lab) -> None:
    lab.say("client", "a customer pays a merchant: two databases, one transaction")
    payment = lab.begin_pay(timeout_s=10)
    held = Crash("after-prepare", "The ledger is held for a moment: its branch is prepared.", "stop", name="ledger")
    await lab.inject(held)
    await lab.until_in_doubt(2)
    crash = StopPostgres("ledger")
    await lab.inject(crash)
    lab.say("ledger", "it votes YES", "truthfully: the branch is on the crashed server's disk")
    await lab.heal(held)
    await lab.rest(OUTAGE_S)
    lab.say("postgres-ledger", "it starts again", "it replays its log, and the prepared branch is back with its locks")
    await lab.heal(crash)
    await payment


def expect(run: Run) -> Iterator[Finding]:
    outage = run.fault("postgres ledger down")
    yield all_committed(run)
    waited_s = run.blocked_in("ledger")
    yield Finding(
        outage.seconds - 0.5 <= waited_s <= outage.seconds + 10,
        "the ledger's row can't be written as long as its server is down",
        f"outage {outage.seconds:.1f} s, blocked ledger {waited_s:.1f} s",
    )
    # One whose end nobody saw was there at the last look.
    back_s = outage.end_s or run.ended_s
    survived = [one for one in run.in_doubt if one.start_s < outage.start_s and (one.end_s or run.ended_s) > back_s]
    yield Finding(
        any(one.database == "ledger" for one in survived),
        "the prepared branch survives the crash of its server",
        f"{len(survived)} branch in doubt before and after the crash",
    )


SCENARIO = Scenario(
    name="database-dies-after-prepare",
    teaches="Prepared means on disk: the server may crash, and the branch comes back with its locks and its promise.",
    expected="commit, once the server is back",
    why=(
        "PREPARE TRANSACTION returns after the branch is forced to the server's write-ahead log. The server's recovery "
        "restores it as prepared, locks included, so the YES that the coordinator relied on stays true."
    ),
    plan=BankPlan(service_env={"ledger-1": {FAILPOINT: "after-prepare=stop"}}),
    act=act,
    expect=expect,
    tags=frozenset({"short"}),
)
