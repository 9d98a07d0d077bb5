"""What is swept: a stage of the workload, a kind of call, the number of the call, and what happens there."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from chaos.sweep.tracing import CALLS, FORCES, NAMES
from coordinator.runtime.failpoints import POINTS

HELD_US = 60_000_000
"""For how long a call's return is held up, in which the process is killed: a minute, in microseconds."""


class Fault(enum.Enum):
    """What happens at the call."""

    KILL = "killed before"
    KILL_AFTER = "killed after"
    EIO = "EIO"
    ENOSPC = "ENOSPC"

    @property
    def is_death(self) -> bool:
        """Whether the process dies of it at once."""
        return self in (Fault.KILL, Fault.KILL_AFTER)


_INJECTED = {
    Fault.KILL: "signal=KILL",
    Fault.KILL_AFTER: f"delay_exit={HELD_US}",
    Fault.EIO: "error=EIO",
    Fault.ENOSPC: "error=ENOSPC",
}


class Stage(enum.Enum):
    """A piece of the coordinator's life in which one thread writes the log, with what happens in it."""

    CREATE = "create"
    OPEN = "open"
    REOPEN = "reopen"
    REGISTER = "register"
    WORK = "work"
    CHECKPOINT = "checkpoint"
    STOP = "stop"
    PLANNED = "planned"


WORDS: Mapping[Stage, str] = {
    Stage.CREATE: "the first start: the log is made",
    Stage.OPEN: "a start after a crash, transactions under way",
    Stage.REOPEN: "a start after an orderly stop",
    Stage.REGISTER: "participants register, recovery ends what was decided",
    Stage.WORK: "transactions commit and end",
    Stage.CHECKPOINT: "the same, each force followed by a checkpoint",
    Stage.STOP: "an orderly stop: checkpoint, write-ahead log removed",
    Stage.PLANNED: "all of it, killed at the failpoints of the coordinator's own code (no strace)",
}

STARTS = frozenset({Stage.CREATE, Stage.OPEN, Stage.REOPEN})
"""The stages in which the log is being opened: what fails there must keep the coordinator from starting."""


@dataclass(frozen=True, slots=True)
class Series:
    """All points of one stage, kind of call and fault."""

    stage: Stage
    call: str
    fault: Fault

    def __str__(self) -> str:
        return f"{self.stage.value}:{self.call}:{self.fault.name.lower()}"


@dataclass(frozen=True, slots=True)
class Point:
    """One place at which something happens.

    Args:
        series: where and what.
        number: at which of these calls in that stage, from 1.
    """

    series: Series
    number: int

    @property
    def injection(self) -> str:
        """As strace is told."""
        return f"{self.series.call}:{_INJECTED[self.series.fault]}:when={self.number}"

    def __str__(self) -> str:
        return f"{self.series}:{self.number}"


def applies(call: str, fault: Fault) -> bool:
    """Whether the fault at that kind of call is a crash of its own.

    A death after a write leaves the files as a death before the next call does, since between two calls nothing leaves
    the log's thread. After a force or a change of names something does: somebody may be told.
    """
    return fault is not Fault.KILL_AFTER or call in (*FORCES, *NAMES)


def planned_series() -> list[Series]:
    """The failpoints of the coordinator's own code, which need no strace."""
    return [Series(Stage.PLANNED, point, Fault.KILL) for point in POINTS]


def all_series(counts: Mapping[Stage, Mapping[str, int]], faults: Iterable[Fault]) -> list[Series]:
    """The series to sweep, the longest first, so that what runs side by side ends together."""
    chosen = [
        Series(stage, call, fault)
        for stage, calls in counts.items()
        for call in CALLS
        for fault in faults
        if calls.get(call) and applies(call, fault)
    ]
    return sorted(chosen, key=lambda series: -counts[series.stage][series.call])


@dataclass(frozen=True, slots=True)
class Choice:
    """Which points a person wants, as ``work``, ``work:fdatasync``, ``work:fdatasync:eio`` or ``work:fdatasync:eio:3``.

    Args:
        stage: the stage; None for all.
        call: the kind of call; empty for all.
        fault: the fault; None for all.
        number: the number; 0 for all.
    """

    stage: Stage | None = None
    call: str = ""
    fault: Fault | None = None
    number: int = 0

    @classmethod
    def parse(cls, words: str) -> Choice:
        """Read it; empty chooses everything. Raises ValueError, which says what is wrong."""
        if not words:
            return cls()
        stage, call, fault, number = (*words.split(":"), "", "", "")[:4]
        if words.count(":") > 3:
            raise ValueError(f"{words!r} is not STAGE:CALL:FAULT:NUMBER")
        try:
            return cls(Stage(stage), call, Fault[fault.upper()] if fault else None, int(number or 0))
        except (KeyError, ValueError):
            stages, faults = ", ".join(one.value for one in Stage), ", ".join(one.name.lower() for one in Fault)
            raise ValueError(f"{words!r}: the stages are {stages}; the faults are {faults}") from None

    def holds(self, series: Series) -> bool:
        """Whether the series is among them."""
        return (
            self.stage in (None, series.stage) and self.call in ("", series.call) and self.fault in (None, series.fault)
        )


QUICK_STEP = 5
"""A quick sweep takes every fifth write."""

FURTHER_MAX = 20
"""How many calls a stage may make beyond those counted: pages split, and ends travel together or alone."""

PLANNED_MAX = 40
"""No failpoint is reached more often in the workload."""


def numbers(counted: int, series: Series, choice: Choice, *, quick: bool) -> Iterable[int]:
    """Which calls of a series to strike: each, and where the process dies of it, on and on until none was struck.

    Args:
        counted: how many there were when they were counted; 0 when they were not.
        series: which.
        choice: when it names a number, only that one.
        quick: only every fifth, unless the call is a force.
    """
    if choice.number:
        return [choice.number]
    if series.stage is Stage.PLANNED:
        return range(1, PLANNED_MAX)
    if quick and series.call not in FORCES:
        return range(1, counted + 1, QUICK_STEP)
    further = FURTHER_MAX if series.fault is Fault.KILL else 0
    return range(1, counted + further + 1)
