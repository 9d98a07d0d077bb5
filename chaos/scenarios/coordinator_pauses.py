"""The coordinator stands still past the deadline, with all votes in hand, and wakes up: it must abort."""

from collections.abc import Iterator

from chaos.bank_stack import FAILPOINT, BankPlan
from chaos.faults import Crash
from chaos.lab import Lab
from chaos.scenario import Finding, Run, Scenario, all_aborted, blocked_as_long_as

TIMEOUT_S = 2.0
PAUSE_S = 4.0


async def act(lab: Lab) -> None:
    lab.say("client", f"a payment that must be decided within {TIMEOUT_S:g} s")
    payment = lab.begin_pay(timeout_s=TIMEOUT_S)
    pause = Crash("before-force", "All votes are YES; the coordinator is stopped (SIGSTOP) at that moment.", "stop")
    await lab.inject(pause)
    await lab.until_in_doubt(2)
    lab.say("coordinator", f"it stands still for {PAUSE_S:g} s", "the deadline passes while its clock is not looked at")
    await lab.rest(PAUSE_S)
    lab.say("coordinator", "it goes on (SIGCONT)", "the votes would allow a commit; the deadline forbids it")
    await lab.heal(pause)
    await payment


def expect(run: Run) -> Iterator[Finding]:
    yield all_aborted(run)
    yield blocked_as_long_as(run, run.fault("coordinator paused"), databases=("accounts", "ledger"))


SCENARIO = Scenario(
    name="coordinator-pauses",
    teaches="Expiry binds the coordinator too: waking up past the deadline it aborts, however many votes it holds.",
    expected="rows locked during the pause, then abort",
    why=(
        "A process can stand still for any time: a full garbage collection, a paused virtual machine, a SIGSTOP. When "
        "it wakes up it must not act on what was true before. The client was promised an end by the deadline, and may "
        "have told a customer so; a commit after it would be a surprise. The clock is read again before the decision."
    ),
    plan=BankPlan(coordinator_env={FAILPOINT: "before-force=stop"}),
    act=act,
    expect=expect,
    tags=frozenset({"short"}),
)
