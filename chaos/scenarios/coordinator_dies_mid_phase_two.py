"""One committed, one in doubt: the coordinator dies between two Commit messages, and a reader sees half a payment."""

from collections.abc import Iterator

from chaos.bank_stack import FAILPOINT, BankPlan
from chaos.faults import Crash
from chaos.lab import Lab
from chaos.scenario import Finding, Run, Scenario, all_committed

OUTAGE_S = 4.0
HALF_VISIBLE = "half a payment was visible, seconds"


async def act(lab: Lab) -> None:
    lab.say("client", "a customer pays a merchant: two databases, one transaction")
    payment = lab.begin_pay(timeout_s=4)
    crash = Crash("mid-commit", "One branch has committed; the coordinator dies before the other hears of it.")
    await lab.inject(crash)
    await lab.until_in_doubt(1)
    lab.say(
        lab.in_doubt()[0].database,
        "this branch is still in doubt, the other has committed",
        "a reader who adds up both databases now misses the money, or sees it twice",
    )
    await lab.rest(OUTAGE_S)
    lab.say("coordinator", "it starts again", "its log holds the commit record: the second branch gets its Commit")
    await lab.heal(crash)
    await payment


def expect(run: Run) -> Iterator[Finding]:
    outage = run.fault("coordinator dead")
    yield all_committed(run)
    held = max((one for one in run.in_doubt if one.end_s is not None), key=lambda one: one.end_s or 0.0)
    waited_s, free_s = run.blocked_in(held.database), _other(run, held.database)
    yield Finding(
        outage.seconds - 0.5 <= waited_s <= outage.seconds + 8 and free_s < outage.seconds / 2,
        "only the branch in doubt blocks, as long as the outage",
        f"outage {outage.seconds:.1f} s, blocked {held.database} {waited_s:.1f} s, the other {free_s:.1f} s",
    )
    seen_s = max((one.end_s - one.start_s for one in run.half_seen), default=0.0)
    yield Finding(
        seen_s >= outage.seconds - 0.5,
        "a reader sees half the payment as long as the outage",
        f"half of it visible for {seen_s:.1f} s",
    )


def _other(run: Run, database: str) -> float:
    return run.blocked_in("ledger" if database == "accounts" else "accounts")


SCENARIO = Scenario(
    name="coordinator-dies-mid-phase-two",
    teaches=(
        "Atomic commitment is not atomic visibility: between two COMMIT PREPAREDs a reader of both databases sees "
        "half a transaction."
    ),
    expected="one branch blocked until the restart, half the payment visible meanwhile, then commit",
    why=(
        "Each database makes its branch visible when it commits it, and no two databases do so at the same instant. "
        "Usually the gap is a millisecond; a crash in it makes it as long as the outage. No money is lost, for the "
        "decision stands in the log; but whoever reads both sides without a transaction of their own can see the gap."
    ),
    plan=BankPlan(coordinator_env={FAILPOINT: "mid-commit"}),
    watch_total=True,
    act=act,
    expect=expect,
)
