"""What every benchmark is given: how long to measure, and the processes, started when first asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from benchmarks.figures import Figure
from benchmarks.lab import EmptyServer, NoopServices, Postgres, Services, run_worker
from benchmarks.pairs import summarize
from benchmarks.worker.spec import Load, Spec
from chaos.stack import Stack


@dataclass(frozen=True, slots=True)
class Plan:
    """How much to measure.

    Args:
        pairs: how many times each figure and its baseline run in turn.
        seconds: for how long a load is measured.
        warm_up_s: for how long it runs before.
        in_doubt: branches in doubt on each database.
        logged: finished transactions in the log.
        held: open transactions.
        drift: transactions at the two moments at which memory is read.
        drift_rounds: how many coordinators are followed over so many transactions.
    """

    pairs: int = 5
    seconds: float = 3.0
    warm_up_s: float = 1.0
    in_doubt: int = 5_000
    logged: int = 1_000_000
    held: int = 50_000
    drift: tuple[int, int] = (20_000, 200_000)
    drift_rounds: int = 1


QUICK = Plan(
    pairs=1,
    seconds=0.5,
    warm_up_s=0.3,
    in_doubt=1_000,
    logged=20_000,
    held=5_000,
    drift=(1_000, 2_000),
)
"""For a look of about a minute; its figures mean little."""


@dataclass
class Bench:
    """The means of all benchmarks.

    Args:
        stack: ends every process.
        plan: how much to measure.
        tell: shows a line to whoever waits.
    """

    stack: Stack
    plan: Plan
    tell: Callable[[str], None] = print
    details: dict[str, Any] = field(default_factory=dict)
    """What is reported beside the figures, by name."""

    @cached_property
    def postgres(self) -> Postgres:
        """The databases."""
        return Postgres.started(self.stack)

    @cached_property
    def services(self) -> Services:
        """A coordinator and two services over the databases."""
        return Services(self.stack, self.postgres)

    @cached_property
    def noop(self) -> NoopServices:
        """A coordinator and sixteen participants that do nothing."""
        return NoopServices(self.stack, "noop", 16)

    @cached_property
    def empty(self) -> EmptyServer:
        """A server of empty calls."""
        return EmptyServer(self.stack)

    @property
    def postgres_version(self) -> str:
        """The servers' version; empty when none was started."""
        return self.postgres.version if "postgres" in self.__dict__ else ""

    def run(self, spec: Spec) -> Load:
        """Run a worker for as long as the plan says."""
        return run_worker(self.stack, self.timed(spec))

    def timed(self, spec: Spec) -> Spec:
        """The spec with the plan's times."""
        return replace(spec, seconds=self.plan.seconds, warm_up_s=self.plan.warm_up_s)

    def loads(self, name: str, loads: list[Load]) -> None:
        """Report what several runs of one load measured: rates, times, and CPU time by process."""
        self.details[name] = load_summary(loads)
        summary = self.details[name]
        cpu = "  ".join(f"{process} {us['median']:.0f}" for process, us in summary["cpu_us"].items())
        self.tell(
            f"  {name}: {summary['per_second']['median']:.0f}/s, "
            f"p50 {summary['p50_ms']['median']:.2f} ms, p99 {summary['p99_ms']['median']:.2f} ms; CPU µs: {cpu}"
        )


def load_summary(loads: list[Load]) -> dict[str, Any]:
    """Sum up several runs of one load, for the report."""
    return {
        "per_second": _spread([load.per_second for load in loads]),
        "p50_ms": _spread([load.p50_ms for load in loads]),
        "p99_ms": _spread([load.p99_ms for load in loads]),
        "cpu_us": {name: _spread([load.cpu_us[name] for load in loads]) for name in loads[0].cpu_us},
    }


def _spread(values: list[float]) -> Mapping[str, float]:
    summary = summarize(values)
    return {name: round(getattr(summary, name), 3) for name in ("median", "min", "max")}


Run = Callable[[Bench], list[Figure]]
"""A benchmark: measures, and returns its figures."""
