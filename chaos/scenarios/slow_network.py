"""Thin and crumbling links: a few kilobytes a second one way, data in slices the other."""

from collections.abc import Iterator

from chaos.faults import bandwidth, slicer
from chaos.lab import Lab
from chaos.scenario import Finding, Run, Scenario, blocked_at_most, some_committed

LOAD_S = 5.0


async def act(lab: Lab) -> None:
    thin = bandwidth("coordinator", "ledger", kb_per_s=1)
    crumbling = slicer("coordinator", "accounts", size=64, delay_us=20_000)
    async with lab.under(thin), lab.under(crumbling):
        lab.say("client", f"payments for {LOAD_S:g} s", "every frame arrives in pieces, some of them late")
        await lab.load(seconds=LOAD_S, accounts=20)
    await lab.load(seconds=1, accounts=20)


def expect(run: Run) -> Iterator[Finding]:
    yield some_committed(run, 20)
    yield blocked_at_most(run, 8)  # the lock timeout is 5 s: hot rows deadlock across databases by chance


SCENARIO = Scenario(
    name="slow-network",
    teaches="A network that delivers in crumbs makes transactions slow, and never wrong.",
    expected="slower, and nothing else",
    why=(
        "Nothing in the protocol depends on how a message is cut up or how long it travels, except its deadline; and "
        "past that it aborts. Many messages share a frame, so a thin link carries more of them than it would singly."
    ),
    act=act,
    expect=expect,
)
