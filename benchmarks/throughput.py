"""Throughput over real databases: oneshot_ratio, interactive_ratio, and Execute at 1, 8, 64 and 256 in flight."""

from __future__ import annotations

from benchmarks.bench import Bench
from benchmarks.figures import Figure
from benchmarks.pairs import alternate, summarize
from benchmarks.worker.spec import Load

IN_FLIGHT = 48
IN_FLIGHT_STEPS = (1, 8, 64, 256)


def oneshot(bench: Bench) -> list[Figure]:
    """Execute against tpc_* by hand."""
    return [_ratio(bench, "oneshot_ratio", "execute", "by_hand")]


def interactive(bench: Bench) -> list[Figure]:
    """A transaction around two RPCs against the two RPCs."""
    return [_ratio(bench, "interactive_ratio", "interactive", "local")]


def in_flight(bench: Bench) -> list[Figure]:
    """Execute and capacity with few and with many in flight: no figure of its own, only for the report."""
    for count in IN_FLIGHT_STEPS:
        bench.loads(f"execute, {count} in flight", [bench.run(bench.services.spec("execute", in_flight=count))])
    for count in IN_FLIGHT_STEPS:
        bench.loads(f"no-op, {count} in flight", [bench.run(bench.noop.spec("execute_frames", in_flight=count))])
    return []


def _ratio(bench: Bench, key: str, ours: str, theirs: str) -> Figure:
    def run(kind: str) -> Load:
        return bench.run(bench.services.spec(kind, in_flight=IN_FLIGHT))

    pairs = alternate(lambda: run(ours), lambda: run(theirs), bench.plan.pairs)
    bench.loads(key.removesuffix("_ratio"), [pair.a for pair in pairs])
    bench.loads(f"{key.removesuffix('_ratio')} baseline", [pair.b for pair in pairs])
    return Figure(key, summarize(pair.a.per_second / pair.b.per_second for pair in pairs))
