"""A branch is prepared, its YES is lost, and then everybody who knew of it forgets: an orphan, until it is swept."""

from collections.abc import Iterator

from chaos.bank_stack import BankPlan
from chaos.faults import Cut, Kill, silence
from chaos.lab import Lab
from chaos.scenario import Finding, Run, Scenario, all_aborted, ended_before_healing

TIMEOUT_S = 2.5
SWEEP_INTERVAL_S = 1.0
SWEPT_S_MAX = 6.0


async def act(lab: Lab) -> None:
    lab.say("client", "it has paid on both sides, and thinks before it commits")
    payment = lab.begin_pay(timeout_s=TIMEOUT_S, hold_s=0.8)
    await lab.until_blocked()
    unheard, deaf, mute = (
        silence("coordinator", "ledger", "from"),
        silence("coordinator", "ledger", "to"),
        Cut("ledger", "coordinator"),
    )
    await lab.inject(unheard)
    await lab.inject(mute)
    await lab.until(lambda: any(one.database == "ledger" for one in lab.in_doubt()), 5, "the ledger is not prepared")
    lab.say("ledger", "it is prepared, and its YES is lost", "the coordinator counts one vote too few")
    await lab.inject(deaf)
    await payment
    lab.say("coordinator", "it has aborted, and its Rollback is lost too")
    amnesia = Kill("coordinator")
    await lab.inject(amnesia)
    await lab.heal(amnesia)
    lab.say(
        "coordinator",
        "it knows nothing of the transaction any more",
        "an abort leaves no record: the branch is an orphan",
    )
    await lab.heal(deaf)
    await lab.heal(unheard)
    if await lab.comes_true(lambda: not lab.in_doubt(), SWEPT_S_MAX):
        lab.say(
            "ledger",
            "the orphan is gone",
            "the coordinator asked for prepared branches, and knew that it never committed it",
        )
    await lab.rest(0.3)
    await lab.heal(mute)


def expect(run: Run) -> Iterator[Finding]:
    yield all_aborted(run)
    # The ledger can't ask while its own way to the coordinator is cut: only the sweep can have found it.
    yield ended_before_healing(run, run.fault("cut ledger"))


SCENARIO = Scenario(
    name="lost-vote",
    teaches="A lost YES leaves a prepared branch that nobody remembers; the sweep finds it, and no record means abort.",
    expected="abort; the orphan is swept, while the ledger still can't ask",
    why=(
        "Presumed abort keeps no record of aborts, so after a restart the coordinator can't know whom it owes a "
        "Rollback. It need not: it lists the prepared branches that carry its name, and one that it did not commit and "
        "is not driving was aborted. Four looks make sure that the sweep never races a transaction that is alive."
    ),
    plan=BankPlan(coordinator_flags={"sweep_interval_s": SWEEP_INTERVAL_S}),
    act=act,
    expect=expect,
    tags=frozenset({"short"}),
)
