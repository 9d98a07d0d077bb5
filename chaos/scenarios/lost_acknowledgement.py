"""A branch commits and its acknowledgement is lost: the coordinator asks again, and twice is once."""

from collections.abc import Iterator

from chaos.bank_stack import FAILPOINT, BankPlan
from chaos.faults import Crash, silence
from chaos.lab import Lab
from chaos.scenario import Finding, Run, Scenario, all_committed, blocked_at_most, ended_before_healing

SILENCE_S = 6.5


async def act(lab: Lab) -> None:
    lab.say("client", "a customer pays a merchant: two databases, one transaction")
    payment = lab.begin_pay()
    held = Crash("after-force", "Commit is decided; the coordinator is held for a moment.", "stop")
    await lab.inject(held)
    unheard = silence("coordinator", "ledger", "from")
    await lab.inject(unheard)
    await lab.heal(held)
    await lab.until_in_doubt(0)
    lab.say(
        "ledger", "it has committed, and its acknowledgement is lost", "the coordinator must assume that it has not"
    )
    await lab.rest(SILENCE_S)
    await lab.heal(unheard)
    await payment


def expect(run: Run) -> Iterator[Finding]:
    yield all_committed(run)
    yield ended_before_healing(run, run.fault("mute coordinator"))
    yield blocked_at_most(run, 3)


SCENARIO = Scenario(
    name="lost-acknowledgement",
    teaches="A lost acknowledgement blocks nobody: the work is done, and Commit sent twice commits once.",
    expected="commit; nobody waits, the client is told which branch is still unconfirmed",
    why=(
        "The branch is committed and its locks are gone; only the coordinator's bookkeeping is unfinished. After the "
        "apply wait it answers COMMITTED and names the branch it has not heard of. The repeated Commit finds no "
        "prepared branch, and the transaction id in the vote proves that it committed, and was not rolled back."
    ),
    plan=BankPlan(coordinator_env={FAILPOINT: "after-force=stop"}),
    act=act,
    expect=expect,
)
