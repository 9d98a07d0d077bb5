"""The coordinator's resident memory: with many transactions open, and after many have ended."""

from __future__ import annotations

from dataclasses import replace

import psutil

from benchmarks.bench import Bench
from benchmarks.figures import Figure
from benchmarks.lab import NoopServices, run_worker
from benchmarks.pairs import summarize

KIB = 1024
IN_FLIGHT = 256
SECONDS_MAX = 3600.0


def per_open(bench: Bench) -> list[Figure]:
    """Growth by open transactions, of a fresh coordinator each time."""
    return [Figure("memory_kib_per_open", summarize(_kib_per_open(bench) for _ in range(bench.plan.pairs)))]


def _kib_per_open(bench: Bench) -> float:
    services = NoopServices(bench.stack, "held")
    with_none = _rss(services)
    run_worker(bench.stack, services.spec("hold_open", in_flight=IN_FLIGHT, count=bench.plan.held))
    grown = _rss(services) - with_none
    held = services.coordinator.admin.status().transactions_by_state["ACTIVE"]
    services.close()
    return grown / KIB / held


def drift(bench: Bench) -> list[Figure]:
    """Growth by transactions that have ended."""
    return [Figure("memory_drift", summarize(_drift(bench) for _ in range(bench.plan.drift_rounds)), _DRIFT_NOTE)]


_DRIFT_NOTE = "memory wavers little, so one coordinator is followed rather than five"


def _drift(bench: Bench) -> float:
    services = NoopServices(bench.stack, "drift")
    early, late = bench.plan.drift
    spec = replace(services.spec("execute_frames", in_flight=IN_FLIGHT), seconds=SECONDS_MAX, warm_up_s=0.0)
    run_worker(bench.stack, replace(spec, count=early))
    rss_early = _rss(services)
    run_worker(bench.stack, replace(spec, count=late - early))
    rss_late = _rss(services)
    services.close()
    bench.details["memory_drift, MiB"] = {str(early): rss_early / KIB**2, str(late): rss_late / KIB**2}
    return rss_late / rss_early


def _rss(services: NoopServices) -> float:
    return float(psutil.Process(services.coordinator.process.pid).memory_info().rss)
