"""A branch that has ended is remembered as it was, and is nothing to collect."""

from __future__ import annotations

import gc
from collections.abc import Callable
from copy import copy

import pytest

from participant.protocol import Branches, Cause, Fate, State
from participant.protocol.answers import Branch, Voted
from participant.protocol.memory import FOLDED_TOGETHER, Memory, folded, unfolded

OURS = "accounts.one"
FAR_S = 1_000.0


def asked(branches: Branches, *results: bytes) -> Branch:
    branch = branches.on_prepare("g", OURS, 1_795_000_000_000, FAR_S, 1.5, operations=True).branch
    assert branch is not None
    branches.on_operated(branch, results)
    return branch


def committed(branches: Branches) -> Branch:
    branch = asked(branches, b"95", b"")
    branches.on_prepared(branch, "pg:7", 2.0)
    branches.on_ended(branch, Fate.COMMITTED, "", 2.5)
    return branch


def rolled_back(branches: Branches) -> Branch:
    branch = asked(branches, b"95")
    branches.on_prepared(branch, "pg:7", 2.0)
    branches.on_ended(branch, Fate.ABORTED, "the server says so", 2.5)
    return branch


def unproved(branches: Branches) -> Branch:
    branch = asked(branches)
    branches.on_answer_lost(branch, "pg:7", 2.0)
    branches.on_ended(branch, Fate.UNPROVED, "older than what the server remembers", 2.5)
    return branch


def failed(branches: Branches) -> Branch:
    branch = asked(branches)
    branches.on_prepare_failed(branch, Cause("BRANCH_FAILED", "no such account: größer"), 2.0)
    return branch


def overtaken(branches: Branches) -> Branch:
    branch = asked(branches, b"95")
    branches.on_rollback("g", OURS, 1, 1.6)
    branches.on_prepared(branch, "pg:7", 2.0)
    branches.on_ended(branch, Fate.ABORTED, "", 2.5)
    return branch


def too_late(branches: Branches) -> Branch:
    branch = asked(branches)
    branches.on_deadline(branch, 1.7)
    branches.on_prepare_failed(branch, Cause("BRANCH_FAILED", "it took too long"), 2.0)
    return branch


def read_only(branches: Branches) -> Branch:
    branch = asked(branches, b"95")
    branches.on_read_only(branch, 2.0)
    return branch


def in_one_phase(branches: Branches) -> Branch:
    branch = branches.on_commit_one_phase("g", OURS, 1, FAR_S, 1.5, operations=True).branch
    assert branch is not None
    branches.on_operated(branch, (b"95",))
    branches.on_committed_open(branch, "pg:7", 2.0)
    return branch


def buried(branches: Branches) -> Branch:
    branches.on_rollback("g", OURS, 1, 1.5)
    branch = branches.find("g")
    assert branch is not None
    branches.on_ended(branch, Fate.ABORTED, "nothing is prepared", 2.0)
    return branch


WAYS = (committed, rolled_back, unproved, failed, overtaken, too_late, read_only, in_one_phase, buried)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_a_branch_unfolds_to_what_it_was(way: Callable[[Branches], Branch]) -> None:
    branch = way(Branches(OURS))
    whole = folded(branch)
    assert whole is not None
    assert unfolded("g", whole) == branch


def test_every_field_was_set_in_some_of_these() -> None:
    ended = [way(Branches(OURS)) for way in WAYS]
    plain = Branch("g", 1, FAR_S)
    told = {slot for slot in Branch.__slots__ for one in ended if getattr(one, slot) != getattr(plain, slot)}
    assert told == set(Branch.__slots__) - {"gtrid"}


def many(count: int) -> Memory:
    kept = Memory()
    for number in range(count):
        branch = copy(committed(Branches(OURS)))
        branch.gtrid, branch.born_ms, branch.ended_s = f"g{number}", number, 2.5 + number
        branch.vote = Voted(branch.vote.vote, f"pg:{number}") if branch.vote else None
        kept.add(branch)
    return kept


def test_all_are_found_dropped_and_counted_folded_or_not() -> None:
    count = FOLDED_TOGETHER + 3
    kept = many(count)
    assert [branch.gtrid for branch in kept] == [f"g{number}" for number in range(count)]
    assert kept.find("g1") is not kept.find("g1")
    assert kept.find(f"g{count - 1}") is kept.find(f"g{count - 1}")
    for number in range(count):
        assert len(kept) == count - number
        gtrid, times = kept.oldest() or ("", None)
        assert (gtrid, times) == (f"g{number}", (number, FAR_S, 2.5 + number))
        found = kept.find(gtrid)
        assert found is not None
        assert found.vote is not None
        assert (found.gtrid, found.vote.proof, found.state) == (gtrid, f"pg:{number}", State.COMMITTED)
        assert kept.drop(gtrid) == times
        assert kept.find(gtrid) is None
    assert (kept.oldest(), kept.drop("g0")) == (None, None)


def test_one_whose_resource_is_still_to_be_asked_is_kept_as_it_is() -> None:
    branches = Branches(OURS)
    branches.on_rollback("buried", OURS, 1, 0.0)
    tombstone = branches.find("buried")
    for number in range(FOLDED_TOGETHER):
        branch = branches.begin(f"g{number}", 1, FAR_S)
        branches.on_work_failed(branch, Cause("BRANCH_FAILED"), 0.0)
    assert branches.find("g0") is not branches.find("g0")
    assert branches.find("buried") is tombstone


class SafeText(str):
    """As frameworks have for what they have escaped."""


def test_one_of_which_a_text_is_of_a_class_of_its_own_is_kept_as_it_is() -> None:
    branches = Branches(OURS)
    for number in range(FOLDED_TOGETHER):
        branch = branches.begin(f"g{number}", 1, FAR_S)
        reason = SafeText("no such account") if number == 3 else "no such account"
        branches.on_work_failed(branch, Cause("BRANCH_FAILED", reason), 0.0)
    kept = branches.find("g3")
    assert kept is branches.find("g3")
    assert kept is not None
    assert kept.cause == Cause("BRANCH_FAILED", "no such account")
    assert branches.find("g4") is not branches.find("g4")


def test_one_that_was_dropped_before_it_is_folded_stays_so() -> None:
    kept = many(FOLDED_TOGETHER - 1)
    kept.drop("g3")
    branch = committed(Branches(OURS))
    kept.add(branch)
    assert kept.find("g3") is None
    assert kept.find("g") == branch
    assert kept.find("g") is not branch


def test_what_has_ended_is_nothing_to_collect() -> None:
    branches = Branches(OURS)

    def to_look_at() -> int:
        gc.collect()
        return sum(isinstance(one, Branch | Voted) for one in gc.get_objects())

    def end(gtrid: str) -> None:
        branch = branches.begin(gtrid, 1, FAR_S)
        branches.on_prepare(gtrid, OURS, 1, FAR_S, 0.0, operations=False)
        branches.on_prepared(branch, f"pg:{gtrid}", 0.0)
        branches.on_ended(branch, Fate.COMMITTED, "", 0.0)

    before = to_look_at()
    for number in range(10 * FOLDED_TOGETHER):
        end(f"g{number}")
    assert to_look_at() == before
    assert branches.remembered_count() == 10 * FOLDED_TOGETHER
