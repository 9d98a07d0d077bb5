"""A B A B …: two things measured in turn, and what the pairs say.

A machine's speed drifts while one measures: others use it, the clock rate changes. What runs within the same few
seconds meets the same machine, so each A is compared with the B right after it, and the median of those ratios is the
figure. The slowest and the fastest pair are told with it, for they show how much the machine wavered.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

A = TypeVar("A")
B = TypeVar("B")


@dataclass(frozen=True, slots=True)
class Summary:
    """Several measurements of one thing.

    Args:
        median: the middle one; of an even number, the mean of the two in the middle.
        min: the least.
        max: the greatest.
        values: all, in the order in which they were measured.
    """

    median: float
    min: float
    max: float
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Pair(Generic[A, B]):
    """One A and the B that ran right after it."""

    a: A
    b: B


def alternate(a: Callable[[], A], b: Callable[[], B], pairs: int) -> list[Pair[A, B]]:
    """Run A, B, A, B, …

    Args:
        a: measures the one.
        b: measures the other.
        pairs: how many of each, at least 1.

    Raises:
        ValueError: no pairs are asked for.
    """
    if pairs < 1:
        raise ValueError(f"at least one pair, not {pairs}")
    return [Pair(a(), b()) for _ in range(pairs)]


def summarize(values: Iterable[float]) -> Summary:
    """Sum up measurements.

    Raises:
        ValueError: there are none.
    """
    measured = tuple(float(value) for value in values)
    if not measured:
        raise ValueError("nothing was measured")
    return Summary(statistics.median(measured), min(measured), max(measured), measured)


def percentile(values: Sequence[float], percent: float) -> float:
    """The least value that at least so many percent of all values do not exceed (nearest rank).

    Args:
        values: in any order.
        percent: above 0 and at most 100.

    Raises:
        ValueError: there are no values, or the percentage is none.
    """
    if not values or not 0 < percent <= 100:
        raise ValueError(f"no {percent}th percentile of {len(values)} values")
    ranked = sorted(values)
    rank = -(-len(ranked) * percent // 100)
    return ranked[int(rank) - 1]
