"""Breadth-first search through everything that can happen, and the rules that hold in each state.

The rules are invariants of docs/ARCHITECTURE.md; each is asked of every state that can be reached, not of ends only.
The starts say how large a world is searched; their numbers of states are asserted exactly, so that whoever changes the
protocol sees that the reachable world has changed, and looks at it again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from coordinator.protocol.states import Decision, Outcome, TransactionState, Vote
from coordinator.protocol.transaction import FINAL_STATES
from tests.unit.protocol.small_world import Move, Share, World, begin, moves, replace
from tests.unit.protocol.whole_world import begin_whole, whole_moves

S = TransactionState
Rule = Callable[[World], bool]


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

    def broken(self, rule: Rule) -> str | None:
        """How the first state that breaks the rule came about."""
        return next((self.story(key) for key, world in self.worlds.items() if not rule(world)), None)


def search(start: World, moves: Callable[[World], Iterable[Move]]) -> Searched:
    """Search a world whole, breadth first.

    Args:
        start: the first state.
        moves: everything that can happen in a state.
    """
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


@dataclass(frozen=True, slots=True)
class Start:
    """Where a search begins.

    Args:
        world: the first state.
        moves: what can happen.
        rollbacks_max: attempts of a Rollback; fewer make fewer states, and what happens at the last one is the same.
        states: how many states can be reached.
    """

    world: World
    moves: Callable[[World], Iterable[Move]]
    rollbacks_max: int
    states: int


TWO = ("a.1", "b.1")
MODELS = {
    "one branch": Start(begin(("a.1",)), moves, 8, 2917),
    "two branches": Start(begin(TWO), moves, 1, 4313),
    "two branches that remember no Rollback": Start(replace(begin(TWO), tombstones=False, lives=0), moves, 1, 4182),
    "three branches, nothing lost": Start(
        replace(begin(("a.1", "b.1", "c.1")), losses=0, client_may_roll_back=False), moves, 1, 6815
    ),
}
"""The coordinator's step function, with participants that do what their contract lets them."""

WHOLE = {
    "one branch, whole": Start(begin_whole(("a.1",)), whole_moves, 2, 1065),
    "one branch, whole, in one shot": Start(begin_whole(("a.1",), one_shot=True), whole_moves, 2, 1106),
    "two branches, both sides may die": Start(replace(begin_whole(TWO), losses=0, repeats=0), whole_moves, 1, 18137),
    "two branches, one message comes twice": Start(
        replace(begin_whole(TWO), losses=0, crashes=0, lives=0, client_may_roll_back=False), whole_moves, 1, 16645
    ),
}
"""Both sides' step functions: one death of the coordinator and one of a participant."""

LARGE = {
    "two branches, any loss, both sides may die": Start(replace(begin_whole(TWO), repeats=0), whole_moves, 1, 32252),
    "two branches, one loss, one repeat, both sides may die": Start(
        replace(begin_whole(TWO), losses=1, client_may_roll_back=False), whole_moves, 1, 97385
    ),
}
"""Too large for every run of the tests; ``python -m tests.simulation`` searches it."""


def commit_waits_for_the_record(world: World) -> bool:
    """Invariant 2, and the reason for the type of the effects."""
    under_way = any("commit" in call.rstrip("!") for side in world.sides.values() for call in side.calls)
    return not under_way or world.log is Decision.COMMIT


def machine_agrees_with_log(world: World) -> bool:
    """Invariant 1: what two-phase commit decides is what the log's one record says; no record says abort."""
    machine = world.machine
    if machine is None or machine.decision is None:
        return True
    if machine.decision is Decision.ABORT:
        return world.log is not Decision.COMMIT
    voted_yes = any(branch.vote is Vote.YES for branch in machine.branches.values())
    return world.log is Decision.COMMIT or not voted_yes


def prepared_commits_under_a_record_only(world: World) -> bool:
    committed = any(side.share is Share.COMMITTED for side in world.sides.values())
    return not committed or world.log is Decision.COMMIT or len(world.sides) == 1


def atomic(world: World) -> bool:
    """In every state on the way, and not only at the end."""
    return not {Share.COMMITTED, Share.ABORTED} <= {side.share for side in world.sides.values()}


def committed_means_nobody_is_prepared(world: World) -> bool:
    """citus 3780: commit reported while a branch is still prepared."""
    if world.machine is None or world.machine.state is not S.COMMITTED:
        return True
    return {side.share for side in world.sides.values()} <= {Share.COMMITTED, Share.READ_ONLY}


def outcome_is_what_branches_did(world: World) -> bool:
    """A hazard claims nothing, and only an only branch that was never prepared may end in one."""
    machine, shares = world.machine, {side.share for side in world.sides.values()}
    if machine is None or machine.state not in FINAL_STATES:
        return True
    if machine.outcome is Outcome.COMMITTED:
        return Share.ABORTED not in shares
    if machine.outcome is Outcome.HEURISTIC_HAZARD:
        return len(world.sides) == 1 and world.crashes == 0
    return machine.outcome is Outcome.ABORTED and Share.COMMITTED not in shares


RULES: dict[str, Rule] = {
    "no branch hears Commit before the record is durable": commit_waits_for_the_record,
    "the machine never holds another decision than the log": machine_agrees_with_log,
    "a branch that was prepared commits only under a record": prepared_commits_under_a_record_only,
    "no branch commits beside one that rolled back": atomic,
    "COMMITTED is said only when no branch is prepared any more": committed_means_nobody_is_prepared,
    "an outcome is what every branch did": outcome_is_what_branches_did,
}


def held_at_an_end(searched: Searched) -> str | None:
    """How a state came about after which nothing happens, and in which somebody holds a lock or has no answer."""
    for key in searched.ends():
        end = searched.worlds[key]
        held = {side.share for side in end.sides.values()} & {Share.OPEN, Share.PREPARED}
        if held or not (end.machine is None or end.machine.state in FINAL_STATES):
            return searched.story(key)
    return None


def trap(searched: Searched) -> str | None:
    """How a state came about from which no end can be reached."""
    comes_after: dict[object, list[object]] = {}
    for key, after in searched.leads_to.items():
        for reached in after:
            comes_after.setdefault(reached, []).append(key)
    can_end, queue = set(searched.ends()), deque(searched.ends())
    while queue:
        for key in comes_after.get(queue.popleft(), ()):
            if key not in can_end:
                can_end.add(key)
                queue.append(key)
    return next((searched.story(key) for key in searched.worlds if key not in can_end), None)
