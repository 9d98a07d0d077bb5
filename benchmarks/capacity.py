"""What the coordinator can do when nobody else has anything to do: capacity_ratio and what goes with it, and
branches_scaling."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.bench import Bench
from benchmarks.figures import Figure
from benchmarks.lab import NoopServices
from benchmarks.pairs import alternate, summarize
from benchmarks.worker.spec import Load

IN_FLIGHT = 256
BRANCH_STEPS = (2, 4, 8, 16)
BRANCHES_IN_FLIGHT = 64


@dataclass(frozen=True, slots=True)
class Decided:
    """One run, with what the coordinator counted meanwhile.

    Args:
        load: what the client measured.
        forces_each: forces of the log for each commit.
    """

    load: Load
    forces_each: float


def capacity(bench: Bench) -> list[Figure]:
    """Transactions a second against empty unary calls a second."""
    empty = bench.empty.spec(in_flight=IN_FLIGHT)
    pairs = alternate(lambda: _decide(bench), lambda: bench.run(empty), bench.plan.pairs)
    ours = [pair.a.load for pair in pairs]
    bench.loads("capacity", ours)
    bench.loads("capacity baseline", [pair.b for pair in pairs])
    _for_comparison(bench)
    return [
        Figure("capacity_ratio", summarize(pair.a.load.per_second / pair.b.per_second for pair in pairs)),
        Figure("capacity_tps", summarize(load.per_second for load in ours)),
        Figure("coordinator_cpu_us_per_transaction", summarize(load.cpu_us["coordinator"] for load in ours)),
        Figure("fsyncs_per_transaction", summarize(pair.a.forces_each for pair in pairs)),
    ]


def branches(bench: Bench) -> list[Figure]:
    """Branches a second by the number of branches in a transaction."""
    rounds = [
        {
            count: bench.run(bench.noop.spec("execute_frames", count, in_flight=BRANCHES_IN_FLIGHT))
            for count in BRANCH_STEPS
        }
        for _ in range(bench.plan.pairs)
    ]
    for count in BRANCH_STEPS:
        bench.loads(f"{count} branches", [loads[count] for loads in rounds])
    first, last = BRANCH_STEPS[0], BRANCH_STEPS[-1]
    ratios = [last * loads[last].per_second / (first * loads[first].per_second) for loads in rounds]
    return [Figure("branches_scaling", summarize(ratios))]


def _decide(bench: Bench) -> Decided:
    before = bench.noop.coordinator.admin.status().counters
    load = bench.run(bench.noop.spec("execute_rows", in_flight=IN_FLIGHT))
    after = bench.noop.coordinator.admin.status().counters
    commits = after["committed"] - before["committed"]
    return Decided(load, (after["log_forces"] - before["log_forces"]) / commits)


def _for_comparison(bench: Bench) -> None:
    """The same asked for call by call, with the whole client around the calls, and without streams on any hop."""
    bench.loads("capacity, call by call", [bench.run(bench.noop.spec("execute_frames", in_flight=IN_FLIGHT))])
    bench.loads("capacity by tm.execute", [bench.run(bench.noop.spec("execute", in_flight=IN_FLIGHT))])
    unary = NoopServices(bench.stack, "unary", unary=True)
    bench.loads("capacity unary only", [bench.run(unary.spec("execute_unary", in_flight=IN_FLIGHT))])
    unary.close()
