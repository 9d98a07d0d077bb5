"""How long one transaction takes: alone (latency_ratio), and the slowest ones under half the load (tail_ratio)."""

from __future__ import annotations

from benchmarks.bench import Bench
from benchmarks.figures import Figure
from benchmarks.pairs import alternate, summarize
from benchmarks.throughput import IN_FLIGHT
from benchmarks.worker.spec import Load


def latency(bench: Bench) -> list[Figure]:
    """One in flight, against by hand."""

    def run(kind: str) -> Load:
        return bench.run(bench.services.spec(kind))

    pairs = alternate(lambda: run("execute"), lambda: run("by_hand_at_once"), bench.plan.pairs)
    bench.loads("latency", [pair.a for pair in pairs])
    bench.loads("latency baseline", [pair.b for pair in pairs])
    return [Figure("latency_ratio", summarize(pair.a.p50_ms / pair.b.p50_ms for pair in pairs))]


def tail(bench: Bench) -> list[Figure]:
    """Open loop at half of the throughput that a closed loop has just reached."""
    halves = []
    for _ in range(bench.plan.pairs):
        full = bench.run(bench.services.spec("execute", in_flight=IN_FLIGHT))
        halves.append(bench.run(bench.services.spec("execute", in_flight=IN_FLIGHT, rate=full.per_second / 2)))
    bench.loads("tail", halves)
    return [Figure("tail_ratio", summarize(load.p99_ms / load.p50_ms for load in halves))]
