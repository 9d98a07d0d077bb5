"""Two-phase commit searched whole: every order of every event, with losses, crashes and slow clocks.

Breadth first from an active transaction through all that can happen in ``small_world``. Each state that is reached is
checked once; nothing is sampled. The numbers of states are asserted exactly, so that whoever changes the protocol sees
that the reachable world has changed, and looks at it again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest

from coordinator.protocol import transaction
from coordinator.protocol.states import Decision, Outcome, TransactionState, Vote
from coordinator.protocol.transaction import FINAL_STATES
from tests.unit.protocol.small_world import Share, World, begin, moves

S = TransactionState


@dataclass(slots=True)
class Searched:
    """Every state that can be reached, and how.

    Args:
        worlds: by key.
        came_from: by key: the key before, and the move.
        leads_to: by key: the keys after.
    """

    worlds: dict[object, World] = field(default_factory=dict)
    came_from: dict[object, tuple[object, str]] = field(default_factory=dict)
    leads_to: dict[object, list[object]] = field(default_factory=dict)

    def story(self, key: object) -> str:
        """How the state came about, move by move."""
        told: list[str] = []
        while key in self.came_from:
            key, move = self.came_from[key]
            told.append(move)
        return " → ".join(reversed(told))

    def ends(self) -> list[object]:
        """The states after which nothing happens any more."""
        return [key for key, after in self.leads_to.items() if not after]

    def broken(self, rule: Callable[[World], bool]) -> str | None:
        """How the first state that breaks the rule came about."""
        return next((self.story(key) for key, world in self.worlds.items() if not rule(world)), None)


def search(start: World) -> Searched:
    searched = Searched()
    searched.worlds[start.key()] = start
    queue = deque([start.key()])
    while queue:
        key = queue.popleft()
        after = searched.leads_to[key] = []
        for move, world in moves(searched.worlds[key]):
            reached = world.key()
            after.append(reached)
            if reached not in searched.worlds:
                searched.worlds[reached] = world
                searched.came_from[reached] = (key, move)
                queue.append(reached)
    return searched


STARTS = {
    # name: (the first state, attempts of a Rollback, how many states can be reached)
    "one branch": (begin(("a.1",)), 8, 2917),
    "two branches": (begin(("a.1", "b.1")), 1, 4313),
    "two branches that remember no Rollback": (replace(begin(("a.1", "b.1")), tombstones=False, lives=0), 1, 4182),
    "three branches, nothing lost": (
        replace(begin(("a.1", "b.1", "c.1")), losses=0, client_may_roll_back=False),
        1,
        6815,
    ),
}


@pytest.fixture(scope="module", params=STARTS)
def searched(request: pytest.FixtureRequest) -> tuple[str, Searched]:
    start, attempts_max, _ = STARTS[request.param]
    with pytest.MonkeyPatch.context() as patch:
        # Fewer attempts, fewer states; what happens at the last one is the same.
        patch.setattr(transaction, "ROLLBACK_ATTEMPTS_MAX", attempts_max)
        return request.param, search(start)


def test_the_reachable_world_is_as_large_as_it_was(searched: tuple[str, Searched]) -> None:
    name, world = searched
    assert len(world.worlds) == STARTS[name][2]


def test_no_branch_hears_commit_before_the_record_is_durable(searched: tuple[str, Searched]) -> None:
    """Invariant 2, and the reason for the type of the effects."""

    def rule(world: World) -> bool:
        under_way = any("commit" in call.rstrip("!") for side in world.sides.values() for call in side.calls)
        return not under_way or world.log is Decision.COMMIT

    assert searched[1].broken(rule) is None


def test_the_machine_never_holds_another_decision_than_the_log(searched: tuple[str, Searched]) -> None:
    """Invariant 1: what two-phase commit decides is what the log's one record says; no record says abort."""

    def rule(world: World) -> bool:
        machine = world.machine
        if machine is None or machine.decision is None:
            return True
        if machine.decision is Decision.ABORT:
            return world.log is not Decision.COMMIT
        voted_yes = any(branch.vote is Vote.YES for branch in machine.branches.values())
        return world.log is Decision.COMMIT or not voted_yes

    assert searched[1].broken(rule) is None


def test_a_branch_that_was_prepared_commits_only_under_a_record(searched: tuple[str, Searched]) -> None:
    def rule(world: World) -> bool:
        committed = any(side.share is Share.COMMITTED for side in world.sides.values())
        return not committed or world.log is Decision.COMMIT or len(world.sides) == 1

    assert searched[1].broken(rule) is None


def test_no_branch_commits_beside_one_that_rolled_back(searched: tuple[str, Searched]) -> None:
    """Atomicity, in every state on the way and not only at the end."""

    def rule(world: World) -> bool:
        return not {Share.COMMITTED, Share.ABORTED} <= {side.share for side in world.sides.values()}

    assert searched[1].broken(rule) is None


def test_committed_is_said_only_when_no_branch_is_prepared_any_more(searched: tuple[str, Searched]) -> None:
    """citus 3780: commit reported while a branch is still prepared."""

    def rule(world: World) -> bool:
        if world.machine is None or world.machine.state is not S.COMMITTED:
            return True
        return {side.share for side in world.sides.values()} <= {Share.COMMITTED, Share.READ_ONLY}

    assert searched[1].broken(rule) is None


def test_an_outcome_is_what_every_branch_did(searched: tuple[str, Searched]) -> None:
    def rule(world: World) -> bool:
        machine, shares = world.machine, {side.share for side in world.sides.values()}
        if machine is None or machine.state not in FINAL_STATES:
            return True
        if machine.outcome is Outcome.COMMITTED:
            return Share.ABORTED not in shares
        return machine.outcome is Outcome.ABORTED and Share.COMMITTED not in shares

    assert searched[1].broken(rule) is None


def test_where_everything_ends_nobody_holds_a_lock(searched: tuple[str, Searched]) -> None:
    """No state in which nothing happens any more leaves a branch open or prepared, or a client without an answer."""
    _, world = searched
    assert world.ends()
    for key in world.ends():
        end = world.worlds[key]
        held = {side.share for side in end.sides.values()} & {Share.OPEN, Share.PREPARED}
        answered = end.machine is None or end.machine.state in FINAL_STATES
        assert not held, world.story(key)
        assert answered, world.story(key)


def test_from_everywhere_an_end_can_be_reached(searched: tuple[str, Searched]) -> None:
    """No state is a trap: whatever was lost so far, there is a way on to where nobody waits."""
    _, world = searched
    comes_after: dict[object, list[object]] = {}
    for key, after in world.leads_to.items():
        for reached in after:
            comes_after.setdefault(reached, []).append(key)
    can_end, queue = set(world.ends()), deque(world.ends())
    while queue:
        for key in comes_after.get(queue.popleft(), ()):
            if key not in can_end:
                can_end.add(key)
                queue.append(key)
    trapped = next((world.story(key) for key in world.worlds if key not in can_end), None)
    assert trapped is None
