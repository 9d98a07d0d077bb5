"""The coordinator loses sight of one service before it can ask it to prepare."""

from collections.abc import Iterator

from chaos.faults import Cut
from chaos.lab import Lab
from chaos.scenario import Finding, Run, Scenario, all_aborted, blocked_at_most, ended_before_healing

TIMEOUT_S = 3.0
PARTITION_S = 6.0


async def act(lab: Lab) -> None:
    lab.say(
        "client", "it has paid on both sides, and thinks before it commits", "both rows are locked by open branches"
    )
    payment = lab.begin_pay(timeout_s=TIMEOUT_S, hold_s=0.8)
    await lab.until_blocked()
    cut = Cut("coordinator", "ledger")
    await lab.inject(cut)
    await lab.rest(PARTITION_S)
    await lab.heal(cut)
    await payment


def expect(run: Run) -> Iterator[Finding]:
    yield all_aborted(run)
    yield ended_before_healing(run, run.fault("cut coordinator"))
    yield blocked_at_most(run, TIMEOUT_S + 1)


SCENARIO = Scenario(
    name="partition-before-prepare",
    teaches="A partition before the vote ends by itself: the coordinator aborts, the branch out of reach times out.",
    expected="abort; both rows free by the deadline, though the partition lasts",
    why=(
        "No vote, no commit. The branch behind the partition has promised nothing, so it may end itself, and does so "
        "at the deadline that came with the call. Blocking needs a promise; there is none yet."
    ),
    act=act,
    expect=expect,
)
