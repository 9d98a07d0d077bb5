"""The names of faults stand at their beginnings and never one over another."""

import random

from chaos.events import FaultSpan
from chaos.fault_names import LINES_MAX, place

LANES = ("coordinator", "ledger")


def fault(start_s: float, label: str = "coordinator dead", *lanes: str) -> FaultSpan:
    return FaultSpan(label, "It is dead.", lanes or ("coordinator",), start_s, start_s + 1)


def test_a_name_begins_at_its_fault_in_the_first_line_of_its_lane() -> None:
    (name,) = place([fault(2)], LANES, 0, 10)
    assert (name.lane, name.line, name.leftwards) == ("coordinator", 0, False)
    assert 2 < name.at_s < 2.1


def test_a_second_name_goes_beneath_one_that_is_in_its_way_and_beside_one_that_is_not() -> None:
    names = place([fault(2), fault(2.2), fault(7)], LANES, 0, 10)
    assert [name.line for name in names] == [0, 1, 0]


def test_a_link_that_fails_is_named_at_either_of_its_ends() -> None:
    names = place([fault(2), fault(2.2, "cut", "coordinator", "ledger")], LANES, 0, 10)
    assert [name.lane for name in names] == ["coordinator", "ledger"]


def test_at_the_right_edge_a_name_stands_to_the_left() -> None:
    (name,) = place([fault(9.8)], LANES, 0, 10)
    assert name.leftwards
    assert name.at_s < 9.8


def test_a_fault_that_no_lane_shows_has_no_name() -> None:
    assert place([fault(2, "cut", "toxiproxy")], LANES, 0, 10) == []


def test_however_many_there_are_none_meets_another_in_its_line() -> None:
    draw = random.Random(7)
    names = place([fault(draw.uniform(0, 60), "cut client → ledger") for _ in range(80)], LANES, 0, 60)
    width_s = 0.005 * 60 * len("cut client → ledger")
    extents = [
        (one.line, one.at_s - width_s * one.leftwards, one.at_s + width_s * (not one.leftwards)) for one in names
    ]
    clashes = [
        (one, other)
        for one in extents
        for other in extents
        if one is not other and one[0] == other[0] and one[1] < other[2] and other[1] < one[2]
    ]
    assert clashes == []
    assert len(names) > 3 * LINES_MAX
