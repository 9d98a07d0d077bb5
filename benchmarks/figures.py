"""The figures: what each shall reach, against what it is measured, and how it came out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from benchmarks.pairs import Summary

Direction = Literal["at least", "at most"]


@dataclass(frozen=True, slots=True)
class Aim:
    """One figure, before it is measured.

    Args:
        reach: what it shall reach; None for one that is only told.
        direction: on which side of ``reach`` it is well.
        unit: what its values count.
        what: what runs.
        baseline: what it is measured against; empty for one that stands by itself.
    """

    reach: float | None
    direction: Direction
    unit: str
    what: str
    baseline: str = ""


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure, measured.

    Args:
        key: its name, one of ``AIMS``.
        measured: the values of all rounds, with median, min and max.
        note: what one should know of this run; empty when there is nothing.
    """

    key: str
    measured: Summary
    note: str = ""

    @property
    def aim(self) -> Aim:
        """What it shall reach."""
        return AIMS[self.key]

    @property
    def reached(self) -> bool | None:
        """Whether the median is on the right side of what it shall reach; None when it shall reach nothing."""
        return is_reached(self.measured.median, self.aim)


def is_reached(value: float, aim: Aim) -> bool | None:
    """Whether a value is on the right side of its aim; None when there is no side. The limit itself is reached."""
    if aim.reach is None:
        return None
    return value >= aim.reach if aim.direction == "at least" else value <= aim.reach


_BY_HAND = (
    "by hand: psycopg tpc_begin, the same UPDATEs, tpc_prepare, tpc_commit in one asyncio process, a connection to "
    "each database for each transaction in flight, no coordinator, no log"
)

AIMS: Mapping[str, Aim] = {
    "oneshot_ratio": Aim(
        0.75,
        "at least",
        "×",
        "throughput of Execute over two Postgres databases, one UPDATE each, 48 in flight, everything durable",
        f"throughput {_BY_HAND}",
    ),
    "interactive_ratio": Aim(
        0.5,
        "at least",
        "×",
        "throughput of begin, two business RPCs one after the other, commit; 48 in flight",
        "throughput of the same two business RPCs (grpc.aio unary), each committing locally (BEGIN, UPDATE, COMMIT), "
        "no atomicity",
    ),
    "capacity_ratio": Aim(
        5.0,
        "at least",
        "×",
        "transactions a second with two participants that do nothing, 256 in flight, asked for in columns by one "
        "client; SQLite log synchronous=FULL",
        "empty grpc.aio unary calls a second, one client process, one server process, 256 in flight",
    ),
    "capacity_tps": Aim(None, "at least", "tx/s", "the transactions a second of capacity_ratio"),
    "coordinator_cpu_us_per_transaction": Aim(None, "at most", "µs", "the coordinator's CPU time in the same runs"),
    "fsyncs_per_transaction": Aim(0.05, "at most", "", "forces of the log in the same runs, for each commit"),
    "latency_ratio": Aim(
        2.5,
        "at most",
        "×",
        "median time of Execute over two Postgres databases, one in flight",
        f"median time {_BY_HAND}, each phase on both databases at once",
    ),
    "tail_ratio": Aim(
        4.0,
        "at most",
        "×",
        "99th percentile over median of Execute's time at half of the full throughput, open loop, counted from the "
        "intended start",
    ),
    "recovery_ratio": Aim(
        0.5,
        "at least",
        "×",
        "branches in doubt that are resolved a second after a crash, 5,000 on each of two databases, decisions in the "
        "log, counted from the start of the coordinator's process",
        "plain COMMIT PREPARED of as many on as many connections, counted from when these are open",
    ),
    "open_log_s": Aim(
        2.0,
        "at most",
        "s more",
        "time from start to ready with 1,000,000 finished transactions in the log",
        "the same with an empty log",
    ),
    "memory_kib_per_open": Aim(
        6.0,
        "at most",
        "KiB",
        "growth of the coordinator's resident memory by 50,000 open transactions of two branches, for each",
        "its resident memory with none",
    ),
    "memory_drift": Aim(
        1.1,
        "at most",
        "×",
        "the coordinator's resident memory after 200,000 transactions",
        "the same after 20,000",
    ),
    "branches_scaling": Aim(
        0.8,
        "at least",
        "×",
        "branches a second in transactions of 16 branches that do nothing, 64 in flight",
        "branches a second in transactions of 2",
    ),
}
