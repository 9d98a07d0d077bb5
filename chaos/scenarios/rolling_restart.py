"""A rolling restart under load: the coordinator and both services, one after another, in good order."""

from collections.abc import Iterator

from chaos.faults import Restart
from chaos.history import Status
from chaos.lab import Lab
from chaos.scenario import Finding, Run, Scenario, some_as_rows, some_committed

BEFORE_S = 0.8
GRACE_S = 3.0
"""What the services give to calls that hang, and an orderly stop doesn't need."""
SLOWEST = "slowest stop, seconds"


async def act(lab: Lab) -> None:
    lab.say("client", "payments, all the time", "nobody stops the load for a new version")
    # Few accounts, so that payments deadlock across the two databases now and then: no stop may wait for their end.
    load = lab.background(lab.load(seconds=10, accounts=20, timeout_s=5))
    for name in ("coordinator", "accounts", "ledger"):
        await lab.rest(BEFORE_S)
        asked_s = lab.events.now_s()
        async with lab.under(Restart(name)):
            lab.facts[SLOWEST] = max(lab.facts.get(SLOWEST, 0.0), lab.events.now_s() - asked_s)
            lab.say(name, "it has stopped", "it finished what was decided, and refused what was new")
    await load


def expect(run: Run) -> Iterator[Finding]:
    unknown = sum(call.status is Status.INFO for call in run.calls)
    yield some_committed(run, 50)
    yield some_as_rows(run)
    yield Finding(
        run.facts[SLOWEST] < GRACE_S,
        f"nothing hangs when a part stops: it takes less than {GRACE_S:g} s",
        f"slowest stop {run.facts[SLOWEST]:.1f} s",
    )
    yield Finding(
        run.unknown_resolved == unknown,
        "no outcome stays unknown",
        f"{unknown} clients did not know at first, {run.unknown_resolved} learned it",
    )


SCENARIO = Scenario(
    name="rolling-restart",
    teaches="An orderly restart of every part under load loses nothing: some payments abort, none is half done.",
    expected="aborts while a part is away; nothing lost, nothing unknown in the end",
    why=(
        "A stopping coordinator refuses new transactions and finishes the decided ones; what has no decision after a "
        "second it rolls back. A stopping service finishes what is done within a second, rolls back what waits for a "
        "lock still, and what it has prepared waits in its database for its next start."
    ),
    act=act,
    expect=expect,
)
