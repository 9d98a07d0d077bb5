"""The network parts the coordinator and one service between the decision and its delivery."""

from collections.abc import Iterator

from chaos.bank_stack import FAILPOINT, BankPlan
from chaos.faults import Crash, Cut
from chaos.lab import Lab
from chaos.scenario import Finding, Run, Scenario, all_committed

PARTITION_S = 5.0


async def act(lab: Lab) -> None:
    lab.say("client", "a customer pays a merchant: two databases, one transaction")
    payment = lab.begin_pay()
    held = Crash("after-force", "Commit is decided; the coordinator is held for a moment.", "stop")
    await lab.inject(held)
    there, back = Cut("coordinator", "ledger"), Cut("ledger", "coordinator")
    await lab.inject(there)
    await lab.inject(back)
    await lab.heal(held)
    lab.say("ledger", "its branch is in doubt", "it can't hear the decision, and it can't ask for it either")
    await lab.rest(PARTITION_S)
    await lab.heal(back)
    await lab.heal(there)
    await payment


def expect(run: Run) -> Iterator[Finding]:
    partition = run.fault("cut coordinator")
    yield all_committed(run)
    waited_s, other_s = run.blocked_in("ledger"), run.blocked_in("accounts")
    yield Finding(
        partition.seconds - 0.5 <= waited_s <= partition.seconds + 8 and other_s < 2,
        "only the row behind the partition is locked, as long as it lasts",
        f"partition {partition.seconds:.1f} s, blocked ledger {waited_s:.1f} s, accounts {other_s:.1f} s",
    )


SCENARIO = Scenario(
    name="partition-during-phase-two",
    teaches="A partition after the vote blocks whoever is behind it: the price of atomicity, without a discount.",
    expected="commit; the row behind the partition locked until it heals",
    why=(
        "The ledger has promised to do as decided and can't learn what was decided. Guessing commit or abort would be "
        "right half the time. The other side goes on undisturbed, and the first message after the healing ends it."
    ),
    plan=BankPlan(coordinator_env={FAILPOINT: "after-force=stop"}),
    act=act,
    expect=expect,
)
