"""``python -m benchmarks.garbage [KIND…]``: rounds of alone, garbage, burner, and the table."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import psutil
from cyclopts import App, Parameter
from rich.console import Console
from rich.table import Table

from benchmarks.garbage.kinds import KINDS
from benchmarks.garbage.lab import Lab
from benchmarks.machine import machine_facts
from benchmarks.pairs import Summary, summarize
from chaos.stack import ManagedProcess, Stack

LEAST = 2 / 3
SETTLE_S = 1.0
GOOD_S_MAX = 90.0

app = App(name="python -m benchmarks.garbage", help="Measure what a garbage client costs a good one.")


@dataclass(frozen=True, slots=True)
class Measured:
    """One measurement of the good client.

    Args:
        per_second: transactions a second.
        p99_ms: how long the slowest hundredth took at least, in milliseconds.
        coordinator_us: the coordinator's CPU time by good transactions, in microseconds for each.
        other_share: the share of a core that the other process took.
        coordinator_mib: the coordinator's memory afterwards.
    """

    per_second: float
    p99_ms: float
    coordinator_us: float
    other_share: float
    coordinator_mib: float


@dataclass(frozen=True, slots=True)
class Result:
    """What one kind of garbage did, by rounds.

    Args:
        kind: the mischief.
        to_burner: throughput with garbage by throughput with the burner.
        to_alone: the same by throughput alone.
        cpu_to_alone: the coordinator's CPU per good transaction, alone by with garbage.
        garbage: the measurements with garbage.
        burner: with the burner.
        alone: alone.
    """

    kind: str
    to_burner: Summary
    to_alone: Summary
    cpu_to_alone: Summary
    garbage: tuple[Measured, ...]
    burner: tuple[Measured, ...]
    alone: tuple[Measured, ...]


@app.default
def measure(
    *kinds: str,
    rounds: Annotated[int, Parameter(help="How many rounds of each kind.")] = 5,
    seconds: float = 3.0,
    flag: Annotated[tuple[str, ...], Parameter(help="A setting of the coordinator, as --flag=--share-max=1.")] = (),
    output: Path | None = None,
) -> int:
    """Measure.

    Args:
        kinds: which mischief; all of them when none is named.
        rounds: how many rounds of each.
        seconds: how long each measurement takes.
        flag: a setting of the coordinator that differs from its default; may be repeated.
        output: a file for the results, JSON.
    """
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        print(f"There is no kind {unknown[0]!r}. There are: {', '.join(KINDS)}.", file=sys.stderr)
        return 2
    results = []
    with Stack() as stack:
        lab = Lab(stack, flag)
        for kind in kinds or KINDS:
            results.append(_rounds(lab, kind, rounds, seconds))
            _print_line(results[-1])
            if output is not None:
                told = {"machine": machine_facts(postgres=""), "results": [asdict(result) for result in results]}
                output.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    _print(results)
    return 0 if all(result.to_burner.median >= LEAST for result in results) else 1


def _rounds(lab: Lab, kind: str, rounds: int, seconds: float) -> Result:
    alone, garbage, burner = [], [], []
    for _ in range(rounds):
        alone.append(_good(lab, seconds, None))
        garbage.append(_beside(lab, seconds, "benchmarks.garbage.client", kind, lab.address, str(lab.tls)))
        burner.append(_beside(lab, seconds, "benchmarks.garbage.burner", str(garbage[-1].other_share)))
    threes = list(zip(alone, garbage, burner, strict=True))
    return Result(
        kind,
        summarize(with_it.per_second / burning.per_second for _, with_it, burning in threes),
        summarize(with_it.per_second / without.per_second for without, with_it, _ in threes),
        summarize(without.coordinator_us / with_it.coordinator_us for without, with_it, _ in threes),
        tuple(garbage),
        tuple(burner),
        tuple(alone),
    )


def _beside(lab: Lab, seconds: float, module: str, *arguments: str) -> Measured:
    other = lab.run(module, *arguments, ready="is ready")
    time.sleep(SETTLE_S)
    try:
        return _good(lab, seconds, other)
    finally:
        other.kill()


def _good(lab: Lab, seconds: float, other: ManagedProcess | None) -> Measured:
    """Run the good client, and look at the others' CPU time while it measures."""
    coordinator = psutil.Process(lab.coordinator.process.pid)
    beside = psutil.Process(other.pid) if other else None
    good = lab.run("benchmarks.garbage.good", lab.address, str(lab.tls), str(seconds), ready="good is ready")
    began_s, before, before_other = time.perf_counter(), _used_s(coordinator), _used_s(beside)
    code = good.wait(GOOD_S_MAX)
    if code != 0:
        raise RuntimeError(good.report(f"ended with {code}"))
    took_s, used_s = time.perf_counter() - began_s, _used_s(coordinator) - before
    told = json.loads(good.output().splitlines()[-1])
    return Measured(
        told["per_second"],
        told["p99_ms"],
        1e6 * used_s / took_s / told["per_second"],
        (_used_s(beside) - before_other) / took_s,
        coordinator.memory_info().rss / 2**20,
    )


def _used_s(process: psutil.Process | None) -> float:
    if process is None:
        return 0.0
    times = process.cpu_times()
    return float(times.user + times.system)


COLUMNS = (
    "kind",
    "of burner (min … max)",
    "of alone",
    "by coordinator CPU",
    "of a core",
    "its own CPU",
    "p99 ms",
    "RSS MiB",
)


def _cells(result: Result) -> tuple[str, ...]:
    ratio = result.to_burner
    return (
        result.kind,
        f"{ratio.median:.2f} ({ratio.min:.2f} … {ratio.max:.2f})",
        f"{result.to_alone.median:.2f}",
        f"{result.cpu_to_alone.median:.2f}",
        f"{summarize(map(_core_taken, result.alone, result.garbage)).median:.2f}",
        f"{summarize(one.other_share for one in result.garbage).median:.2f}",
        f"{_p99(result.alone):.0f} → {_p99(result.garbage):.0f}",
        f"{max(one.coordinator_mib for one in result.garbage):.0f}",
    )


def _print_line(result: Result) -> None:
    """One kind at a time, for a run takes its time: as a row of a table in Markdown."""
    print(f"| {' | '.join(_cells(result))} |", flush=True)


def _print(results: Sequence[Result]) -> None:
    table = Table(title="The good client's throughput, with garbage")
    for column in COLUMNS:
        table.add_column(column, justify="left" if column == "kind" else "right")
    for result in results:
        table.add_row(*_cells(result))
    Console(width=120).print(table)


def _core_taken(alone: Measured, garbage: Measured) -> float:
    """What the coordinator spent on garbage, as a share of a core: all that its good transactions did not cost."""
    return max(0.0, (garbage.coordinator_us - alone.coordinator_us) * garbage.per_second / 1e6)


def _p99(measured: Sequence[Measured]) -> float:
    return summarize(one.p99_ms for one in measured).median


if __name__ == "__main__":
    raise SystemExit(app())
