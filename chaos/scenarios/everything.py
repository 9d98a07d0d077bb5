"""A seeded random mix of all faults, under load."""

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from chaos.faults import (
    Cut,
    Fault,
    Kill,
    Pause,
    PausePostgres,
    Restart,
    StopPostgres,
    bandwidth,
    latency,
    limit_data,
    reset_peer,
    silence,
    slicer,
)
from chaos.history import Status
from chaos.lab import Lab
from chaos.scenario import Finding, Run, Scenario, some_as_rows, some_committed

ACCOUNTS = 20
CONCURRENCY = 4
TIMEOUT_S = 3.0
CALM_S = 2.0

_LINKS = (
    ("client", "coordinator"),
    ("client", "accounts"),
    ("client", "ledger"),
    ("coordinator", "accounts"),
    ("coordinator", "ledger"),
    ("accounts", "coordinator"),
    ("ledger", "coordinator"),
    ("accounts", "postgres-accounts"),
    ("ledger", "postgres-ledger"),
)
_PROCESSES = ("coordinator", "accounts", "ledger")
_DATABASES = ("accounts", "ledger")

Make = Callable[[random.Random], Fault]

_KINDS: tuple[Make, ...] = (
    lambda draw: Kill(draw.choice(_PROCESSES)),
    lambda draw: Kill(draw.choice(_PROCESSES)),
    lambda draw: Pause(draw.choice(_PROCESSES)),
    lambda draw: Restart(draw.choice(_PROCESSES)),
    lambda draw: StopPostgres(draw.choice(_DATABASES)),
    lambda draw: PausePostgres(draw.choice(_DATABASES)),
    lambda draw: Cut(*draw.choice(_LINKS)),
    lambda draw: Cut(*draw.choice(_LINKS)),
    lambda draw: silence(*draw.choice(_LINKS), draw.choice(("both", "to", "from"))),
    lambda draw: silence(*draw.choice(_LINKS), draw.choice(("both", "to", "from"))),
    lambda draw: latency(*draw.choice(_LINKS), draw.randint(20, 300), jitter_ms=draw.randint(0, 20)),
    lambda draw: bandwidth(*draw.choice(_LINKS), draw.randint(1, 16)),
    lambda draw: slicer(*draw.choice(_LINKS), size=draw.randint(16, 256), delay_us=draw.randint(100, 5000)),
    lambda draw: limit_data(*draw.choice(_LINKS), draw.randint(200, 5000), draw.choice(("to", "from"))),
    lambda draw: reset_peer(*draw.choice(_LINKS), after_ms=draw.randint(0, 500)),
)


@dataclass(frozen=True, slots=True)
class Blow:
    """One entry of the schedule: one or two faults at once.

    Args:
        faults: what happens; of two, no process is concerned by both.
        seconds: how long they act.
        calm_s: how long nothing happens afterwards.
    """

    faults: tuple[Fault, ...]
    seconds: float
    calm_s: float


def schedule(seed: int, seconds: float) -> list[Blow]:
    """Draw a schedule; the same seed gives the same one, and a longer one begins as the shorter does.

    Args:
        seed: of the schedule.
        seconds: how long it shall last, starts of processes not counted.
    """
    draw = random.Random(seed)
    blows: list[Blow] = []
    left_s = seconds
    while left_s > 0:
        first, second = draw.choice(_KINDS)(draw), draw.choice(_KINDS)(draw)
        apart = not set(first.lanes) & set(second.lanes)
        both = (first, second) if apart and draw.random() < 0.4 else (first,)
        blows.append(Blow(both, round(draw.uniform(0.3, 2.5), 2), round(draw.uniform(0.2, 1.5), 2)))
        left_s -= blows[-1].seconds + blows[-1].calm_s
    return blows


async def act(lab: Lab) -> None:
    seconds = lab.minutes * 60
    lab.say("", f"seed {lab.seed} draws the faults for {seconds:g} s", "the same seed draws the same ones")
    await endure(lab, schedule(lab.seed, seconds), seconds)


async def endure(lab: Lab, blows: Iterable[Blow], seconds: float) -> None:
    """Make transfers under a schedule of faults.

    Args:
        lab: where.
        blows: the schedule.
        seconds: when to begin no more blows; transfers go on a little longer.
    """
    load = lab.background(
        lab.load(seconds=seconds + CALM_S, accounts=ACCOUNTS, concurrency=CONCURRENCY, timeout_s=TIMEOUT_S)
    )
    started_s = lab.events.now_s()
    for blow in blows:
        if lab.events.now_s() - started_s > seconds:
            break  # starting what was killed takes time too
        await lab.count_rows()  # the coordinator may die now
        for fault in blow.faults:
            await lab.inject(fault)
        await lab.rest(blow.seconds)
        await lab.heal_all()
        await lab.rest(blow.calm_s)
    await load


def expect(run: Run) -> Iterator[Finding]:
    unknown = sum(call.status is Status.INFO for call in run.calls)
    yield some_committed(run, 20)
    yield some_as_rows(run)
    yield Finding(
        run.unknown_resolved == unknown,
        "every client that did not know has learned its outcome",
        f"{len(run.faults)} faults, {unknown} unknown at first, {run.unknown_resolved} resolved",
    )


SCENARIO = Scenario(
    name="everything",
    teaches="Whatever fails, in whatever order: blocked for a while, perhaps; wrong, never.",
    expected="aborts, waits and questions; every rule holds",
    why=(
        "The scenarios before this one choose their moments; this one does not. What it can't promise is when "
        "transactions end, for that depends on when the faults do. What it must show is that all of them end, once the "
        "faults have, and each in one way."
    ),
    act=act,
    expect=expect,
)
