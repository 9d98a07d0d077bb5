"""``python -m benchmarks [NAME…] [--quick]``: measure, show a table, draw a picture, write the results."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from benchmarks import capacity, chart, latency, memory, recovery, report, throughput
from benchmarks.bench import QUICK, Bench, Plan, Run
from benchmarks.figures import Figure
from benchmarks.machine import machine_facts
from chaos.stack import Stack

FOLDER = Path(__file__).parent

BENCHMARKS: Mapping[str, Run] = {
    "oneshot": throughput.oneshot,
    "interactive": throughput.interactive,
    "latency": latency.latency,
    "tail": latency.tail,
    "capacity": capacity.capacity,
    "branches": capacity.branches,
    "in-flight": throughput.in_flight,
    "recovery": recovery.recovery,
    "open-log": recovery.open_log,
    "memory": memory.per_open,
    "drift": memory.drift,
}

app = App(name="python -m benchmarks", help="Measure the speed figures, each against its baseline in the same run.")


@app.default
def measure(
    *names: str,
    quick: bool = False,
    pairs: Annotated[int | None, Parameter(help="How many pairs.")] = None,
    output: Path = FOLDER,
) -> int:
    """Measure.

    Args:
        names: which benchmarks, of oneshot, interactive, latency, tail, capacity, branches, in-flight, recovery,
            open-log, memory and drift; all of them when none is named.
        quick: less and shorter, the whole in about a minute: a look, no measurement.
        pairs: how many pairs; five, and with --quick one, when it is not given.
        output: the folder for results.json and results.png.
    """
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        print(f"There is no benchmark {unknown[0]!r}. There are: {', '.join(BENCHMARKS)}.", file=sys.stderr)
        return 2
    plan = plan_of(quick=quick, pairs=pairs)
    output.mkdir(parents=True, exist_ok=True)
    machine = machine_facts(postgres="") | {"quick": quick}
    figures: list[Figure] = []
    with Stack() as stack:
        bench = Bench(stack, plan)
        for name in names or BENCHMARKS:
            figures += _timed(name, bench)
            machine["postgres"] = bench.postgres_version
            # After each, so that a run which is broken off leaves what it has measured.
            report.write_results(output / "results.json", report.as_json(figures, machine, bench.details))
    chart.draw(figures, machine, output / "results.png")
    report.print_table(figures, machine)
    return 0


def plan_of(*, quick: bool, pairs: int | None) -> Plan:
    """How much to measure."""
    plan = QUICK if quick else Plan()
    return plan if pairs is None else replace(plan, pairs=pairs)


def _timed(name: str, bench: Bench) -> list[Figure]:
    began_s = time.perf_counter()
    print(f"{name} …", flush=True)
    figures = BENCHMARKS[name](bench)
    for figure in figures:
        print(f"  {figure.key}: {report.shown(figure.measured.median)} {report.reach_words(figure)}")
    print(f"  {time.perf_counter() - began_s:.0f} s", flush=True)
    return figures


if __name__ == "__main__":
    sys.exit(app())
