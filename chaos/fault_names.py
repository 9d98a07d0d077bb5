"""Where the names of the faults stand in the picture: at their beginnings, and never one over another.

Each lane has a strip of a few lines at its top. A name goes into the first line, of a lane that its fault concerns,
where it meets no other name: to the right of the fault's beginning, or else to the left of it. One that fits nowhere is
left out; its fault is shaded all the same, and the report's list of events has it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from chaos.events import FaultSpan

LINES_MAX = 3

_CHARACTER = 0.0060
_GAP = 0.006
"""Widths of a character and of a gap, as fractions of the picture's width."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a fault's name stands.

    Args:
        fault: whose.
        lane: in which lane.
        line: in which line of the lane's strip, from 0 at the top.
        at_s: where it begins, or ends when it stands to the left of its fault's beginning.
        leftwards: whether it stands to the left.
    """

    fault: FaultSpan
    lane: str
    line: int
    at_s: float
    leftwards: bool


def place(faults: Sequence[FaultSpan], lanes: Sequence[str], start_s: float, end_s: float) -> list[Place]:
    """Find a place for each fault's name, where there is one.

    Args:
        faults: the faults.
        lanes: the lanes of the picture.
        start_s: where the picture begins.
        end_s: where it ends.
    """
    taken: dict[tuple[str, int], list[tuple[float, float]]] = defaultdict(list)
    gap_s = _GAP * (end_s - start_s)
    places = []
    for fault in sorted(faults, key=lambda one: one.start_s):
        width_s = _CHARACTER * (end_s - start_s) * len(fault.label)
        right, left = fault.start_s + gap_s, fault.start_s - gap_s
        options = [
            (Place(fault, lane, line, left if leftwards else right, leftwards), extent)
            for leftwards, extent in ((False, (right, right + width_s)), (True, (left - width_s, left)))
            if start_s <= extent[0] and extent[1] <= end_s
            for line in range(LINES_MAX)
            for lane in fault.lanes
            if lane in lanes
        ]
        for option, (begin_s, stop_s) in options:
            others = taken[option.lane, option.line]
            if all(stop_s + gap_s < one_s or other_s + gap_s < begin_s for one_s, other_s in others):
                others.append((begin_s, stop_s))
                places.append(option)
                break
    return places
