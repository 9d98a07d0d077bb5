"""The rule by which something is flat: the median of the last third against the median of the first.

Both thirds are of the time after the warm-up, which is the first quarter. Medians, because a fault makes spikes: a
server that stands still gathers sessions, and an outage gathers transactions. What may be more is a share and an
amount, so that neither 3 descriptors nor 1 % of a large log counts as growth:

    last ≤ first × (1 + share) + amount
"""

from __future__ import annotations

import enum
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

WARM_UP = 0.25
"""Which part of the run is not judged: caches fill, retention begins to bite, and processes still die."""

SAMPLES_MIN = 5
"""Fewer samples in a third tell nothing."""


class Measure(enum.Enum):
    """What is looked at."""

    MEMORY_MIB = "memory, MiB"
    DESCRIPTORS = "descriptors"
    THREADS = "threads"
    SESSIONS = "sessions"
    PREPARED = "prepared"
    LOG_KIB = "log, KiB"


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How much more is not growth.

    Args:
        share: of the first third's median.
        amount: besides, in the measure's unit.
    """

    share: float
    amount: float


TOLERANCES: Mapping[Measure, Tolerance] = {
    Measure.MEMORY_MIB: Tolerance(0.10, 4),
    Measure.DESCRIPTORS: Tolerance(0.10, 4),
    Measure.THREADS: Tolerance(0.10, 2),
    Measure.SESSIONS: Tolerance(0.10, 3),
    Measure.PREPARED: Tolerance(0.0, 2),
    Measure.LOG_KIB: Tolerance(0.10, 1024),
}


@dataclass(frozen=True, slots=True)
class Judgement:
    """Whether one curve is flat.

    Args:
        process: whose.
        measure: of what.
        first: the median of the first third after the warm-up; None when there are too few samples.
        last: the median of the last third, likewise.
        most: the most that was seen after the warm-up.
        limit: what the last third's median may be.
    """

    process: str
    measure: Measure
    first: float | None
    last: float | None
    most: float
    limit: float

    @property
    def is_flat(self) -> bool:
        """Whether it is. What could not be seen is not."""
        return self.first is not None and self.last is not None and self.last <= self.limit


def is_judged(process: str, measure: Measure) -> bool:
    """Whether growth would be a fault of ours.

    A server's session keeps the files open that it has touched, so that a server's descriptors follow the age of its
    sessions; its processes are its sessions. What there must not be more of is sessions.
    """
    return not process.startswith("postgres-") or measure not in (Measure.DESCRIPTORS, Measure.THREADS)


def judge(process: str, measure: Measure, samples: Sequence[tuple[float, float]], seconds: float) -> Judgement:
    """Judge one curve.

    Args:
        process: whose.
        measure: of what.
        samples: when, in seconds since the run began, and what was seen.
        seconds: how long the run took.
    """
    begin_s = seconds * WARM_UP
    third_s = (seconds - begin_s) / 3
    first = _median([seen for at_s, seen in samples if begin_s <= at_s < begin_s + third_s])
    last = _median([seen for at_s, seen in samples if at_s >= seconds - third_s])
    most = max((seen for at_s, seen in samples if at_s >= begin_s), default=0.0)
    tolerance = TOLERANCES[measure]
    limit = 0.0 if first is None else first * (1 + tolerance.share) + tolerance.amount
    return Judgement(process, measure, first, last, most, limit)


def _median(seen: Sequence[float]) -> float | None:
    return statistics.median(seen) if len(seen) >= SAMPLES_MIN else None
