"""Two-phase commit searched whole: every order of every event, with losses, repeats, deaths and slow clocks.

Breadth first from an active transaction through all that can happen. Each state that is reached is checked once;
nothing is sampled. ``small_world`` has the coordinator's step function and models of what participants may do;
``whole_world`` has the participants' step functions too.
"""

from __future__ import annotations

import pytest

from coordinator.protocol import transaction
from participant.protocol import Branch, Branches, Cause, Vote, Voted
from tests.unit.protocol.searching import MODELS, RULES, WHOLE, Searched, Start, held_at_an_end, search, trap

STARTS = MODELS | WHOLE


@pytest.fixture(scope="module", params=STARTS)
def searched(request: pytest.FixtureRequest) -> tuple[Start, Searched]:
    start = STARTS[request.param]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transaction, "ROLLBACK_ATTEMPTS_MAX", start.rollbacks_max)
        return start, search(start.world, start.moves)


def test_the_reachable_world_is_as_large_as_it_was(searched: tuple[Start, Searched]) -> None:
    start, world = searched
    assert len(world.worlds) == start.states


@pytest.mark.parametrize("rule", RULES)
def test_in_every_state(rule: str, searched: tuple[Start, Searched]) -> None:
    assert searched[1].broken(RULES[rule]) is None


def test_where_everything_ends_nobody_holds_a_lock(searched: tuple[Start, Searched]) -> None:
    """No state in which nothing happens any more leaves a branch open or prepared, or a client without an answer."""
    assert searched[1].ends()
    assert held_at_an_end(searched[1]) is None


def test_from_everywhere_an_end_can_be_reached(searched: tuple[Start, Searched]) -> None:
    """No state is a trap: whatever was lost so far, there is a way on to where nobody waits."""
    assert trap(searched[1]) is None


def test_a_participant_that_votes_yes_after_prepare_failed_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The search sees what the participants' step function does: with this bug in it, a rule breaks."""
    failed = Branches.on_prepare_failed

    def votes_yes(branches: Branches, branch: Branch, cause: Cause, now_s: float) -> Voted:
        failed(branches, branch, cause, now_s)
        return Voted(Vote.YES)

    monkeypatch.setattr(Branches, "on_prepare_failed", votes_yes)
    monkeypatch.setattr(transaction, "ROLLBACK_ATTEMPTS_MAX", 1)
    start = WHOLE["two branches, one message comes twice"]
    world = start.world._replace(repeats=0, lives=0)
    assert search(world, start.moves).broken(RULES["no branch commits beside one that rolled back"]) is not None
