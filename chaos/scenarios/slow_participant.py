"""One service is far away: every message to it takes its time, and its rows are held that much longer."""

from collections.abc import Iterator
from statistics import median

from chaos.faults import latency
from chaos.lab import Lab
from chaos.scenario import Finding, Run, Scenario, blocked_at_most, some_committed

LATENCY_MS = 150
LOAD_S = 3.0
MEDIAN_BEFORE, MEDIAN_SLOW = "median payment, seconds", "median payment with a slow ledger, seconds"


async def act(lab: Lab) -> None:
    lab.say("client", f"payments on few rows, undisturbed for {LOAD_S:g} s")
    await _payments(lab)
    before = len(lab.history.calls)
    slow = [latency(source, "ledger", LATENCY_MS, direction="both") for source in ("coordinator", "client")]
    for fault in slow:
        await lab.inject(fault)
    await _payments(lab)
    for fault in slow:
        await lab.heal(fault)
    lab.facts[MEDIAN_BEFORE] = _median_s(lab, 0, before)
    lab.facts[MEDIAN_SLOW] = _median_s(lab, before, len(lab.history.calls))


async def _payments(lab: Lab) -> None:
    """One after another, on few rows but not on very few: deadlocks across the databases say nothing of the link, each
    stands until the lock timeout, and on ten rows two of them in a row now and then left no time for anything else."""
    await lab.load(seconds=LOAD_S, accounts=40, bursts=False)


def _median_s(lab: Lab, first: int, last: int) -> float:
    return median([call.end_s - call.start_s for call in lab.history.calls[first:last] if call.end_s] or [0.0])


def expect(run: Run) -> Iterator[Finding]:
    before_s, slow_s = run.facts[MEDIAN_BEFORE], run.facts[MEDIAN_SLOW]
    yield some_committed(run, 20)
    yield Finding(
        slow_s > before_s + 2 * LATENCY_MS / 1000,
        f"a payment takes at least two slow round trips more ({2 * LATENCY_MS} ms)",
        f"median payment {before_s * 1000:.0f} ms, with a slow ledger {slow_s * 1000:.0f} ms",
    )
    yield blocked_at_most(run, 8)  # the lock timeout is 5 s: hot rows deadlock across databases by chance


SCENARIO = Scenario(
    name="slow-participant",
    teaches="A transaction is as slow as its slowest branch, and all its rows are locked for as long.",
    expected="slower, and nothing else",
    why=(
        "Phase one waits for every vote and phase two for every acknowledgement, so the slow branch's round trips are "
        "everybody's. Locks are held from the first write to the end of phase two: on hot rows the wait adds up."
    ),
    act=act,
    expect=expect,
)
