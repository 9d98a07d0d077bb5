"""One slow transaction on a hot row, and everyone who wants that row queues up behind it."""

import asyncio
from collections.abc import Iterator

from chaos.history import Status
from chaos.lab import Lab
from chaos.scenario import Finding, Run, Scenario

HOLD_S = 3.0
FOLLOWERS = 6


async def act(lab: Lab) -> None:
    lab.say("client", f"one payment on the hot row thinks for {HOLD_S:g} s before it commits")
    slow = lab.begin_pay(timeout_s=10, hold_s=HOLD_S)
    await lab.until_blocked()
    lab.say("accounts", f"{FOLLOWERS} more want the same row", "each holds nothing yet, and waits for the one in front")
    followers = [lab.begin_pay(merchant=2 + number, cents=10, timeout_s=10) for number in range(FOLLOWERS)]
    await asyncio.gather(slow, *followers)


def expect(run: Run) -> Iterator[Finding]:
    waits_s = [call.end_s - call.start_s for call in run.calls[1:] if call.end_s]
    yield Finding(
        run.count(Status.OK) == len(run.calls),
        "all commit in the end, one after another",
        f"{run.count(Status.OK)} of {len(run.calls)} committed",
    )
    yield Finding(
        min(waits_s, default=0) > HOLD_S - 1,
        "each follower waits about as long as the one in front thinks",
        f"one thinks for {HOLD_S:g} s: {len(waits_s)} others wait {sum(waits_s):.1f} s together, a writer "
        f"{run.blocked_in('accounts'):.1f} s",
    )


SCENARIO = Scenario(
    name="hot-row-convoy",
    teaches="Locks are held until the end of phase two, so one slow transaction on a hot row makes everybody slow.",
    expected="one thinks, all wait, all commit",
    why=(
        "No fault at all: this is what two-phase commit costs on hot rows even when nothing fails. The row is locked "
        "from the first write until the branch commits, the client's thinking included. Keep transactions short, "
        "write hot rows last, or send the work in one shot."
    ),
    act=act,
    expect=expect,
)
