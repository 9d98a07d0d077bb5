"""A service dies when the Commit reaches it: its branch stays in doubt until the service is back."""

from collections.abc import Iterator

from chaos.bank_stack import BankPlan
from chaos.faults import Crash
from chaos.lab import Lab
from chaos.scenario import Finding, Run, Scenario, all_committed
from participant.failpoints import ENVIRONMENT_VARIABLE as FAILPOINT

OUTAGE_S = 3.0


async def act(lab: Lab) -> None:
    lab.say("client", "a customer pays a merchant: two databases, one transaction")
    payment = lab.begin_pay()
    crash = Crash("before-commit", "The ledger voted YES; it dies as the Commit reaches it.", name="ledger")
    await lab.inject(crash)
    await lab.until_in_doubt(1)
    lab.say(
        "coordinator",
        "commit is decided, the accounts have it, and the ledger is dead",
        "it may not change its mind: it sends Commit again and again, for as long as it takes",
    )
    await lab.rest(OUTAGE_S)
    lab.say("ledger", "it starts again", "its branch is still prepared in its database, with the locks")
    await lab.heal(crash)
    await payment


def expect(run: Run) -> Iterator[Finding]:
    outage = run.fault("ledger dead")
    yield all_committed(run)
    waited_s, other_s = run.blocked_in("ledger"), run.blocked_in("accounts")
    yield Finding(
        outage.seconds - 0.5 <= waited_s <= outage.seconds + 8 and other_s < 1,
        "only the dead service's row is locked, as long as it is dead",
        f"outage {outage.seconds:.1f} s, blocked ledger {waited_s:.1f} s, accounts {other_s:.1f} s",
    )


SCENARIO = Scenario(
    name="participant-dies-after-vote",
    teaches="A vote outlives the process that gave it: the branch waits in the database for its decision.",
    expected="commit; the ledger's row locked until its service is back",
    why=(
        "PREPARE TRANSACTION put the branch on disk, so the death of the service loses nothing; but nobody is there to "
        "say COMMIT PREPARED. The coordinator never gives up on a decided commit, and delivers it on the return. A "
        "second instance of the service over the same database would have finished the branch at once."
    ),
    plan=BankPlan(service_env={"ledger-1": {FAILPOINT: "before-commit"}}),
    act=act,
    expect=expect,
)
