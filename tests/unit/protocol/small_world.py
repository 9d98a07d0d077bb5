"""A world small enough to be searched whole: one coordinator, its log, a lossy network and up to three participants.

The coordinator's part is the production step function and nothing else; log, network and participants are models of
their contracts. Each ``Move`` is one thing that can happen: a message is carried out, an answer arrives or is lost, a
timer fires, the log answers, the process dies and comes back. Messages overtake one another freely.

What a participant may do is its contract's: it votes once, remembers what it answered, leaves a tombstone for a
Rollback that overtook its Prepare, and asks when it is in doubt.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator
from dataclasses import replace as copied
from enum import Enum
from typing import Any, NamedTuple, TypeVar

from coordinator.protocol import events as e
from coordinator.protocol.effects import Effects, SendCommit, SendCommitOnePhase, SendPrepare, SendRollback
from coordinator.protocol.states import Cause, Decision, Outcome, TransactionState, Vote
from coordinator.protocol.transaction import FINAL_STATES, GlobalTransaction

DEADLINE_S = 10.0
IN_TIME_S = 1.0
LATE_S = 11.0


class Share(Enum):
    """What a participant holds."""

    OPEN = 1
    PREPARED = 2
    COMMITTED = 3
    ABORTED = 4
    READ_ONLY = 5


class Side(NamedTuple):
    """A participant and everything under way between it and the coordinator.

    Args:
        share: what it holds.
        calls: requests on their way to it: ``prepare``, ``one phase``, ``commit``, ``rollback``; those of a dead
            coordinator end in ``!``, for nobody hears their answers.
        answers: (call, what it answered), on their way back.
        retry: whether a timer will send its message again.
        maybe_done: whether some CommitOnePhase may have been carried out, its answer lost.
        process: what else its process holds, where that is more than its share (``whole_world``).
    """

    share: Share = Share.OPEN
    calls: tuple[str, ...] = ()
    answers: tuple[tuple[str, str], ...] = ()
    retry: bool = False
    maybe_done: bool = False
    process: Hashable = None


class World(NamedTuple):
    """One global state.

    Args:
        machine: the coordinator's machine; None when it died and no record brings the transaction back.
        sides: by bqual.
        log: the standing decision, durably; None when there is none.
        offered: whether a commit record is in the log's hands.
        late: whether the deadline has passed.
        client_may_roll_back: whether the client has not used its one Rollback yet.
        lives: how many more times the coordinator may die.
        losses: how many more messages may be lost; None means any number.
        crashes: how many more times a participant may die.
        repeats: how many more messages may arrive twice.
        tombstones: whether a participant remembers a Rollback that overtook its Prepare. One that does not breaks its
            contract, and must do no harm by it.
    """

    machine: GlobalTransaction | None
    sides: dict[str, Side]
    log: Decision | None = None
    offered: bool = False
    late: bool = False
    client_may_roll_back: bool = True
    lives: int = 1
    losses: int | None = None
    crashes: int = 0
    repeats: int = 0
    tombstones: bool = True

    def key(self) -> object:
        """What tells it from other states. Branches that only their names tell apart count once."""
        budgets = (self.lives, self.losses, self.crashes, self.repeats)
        whole = (_name(self.log), self.offered, self.late, self.client_may_roll_back, budgets)
        told: tuple[object, ...] = ()
        if self.machine is not None:
            machine = self.machine
            named = (_name(machine.state), _name(machine.decision), _name(machine.outcome))
            told = (*named, machine.offered, machine.one_phase)
        return whole, told, frozenset(Counter(self.branch_key(bqual) for bqual in self.sides).items())

    def branch_key(self, bqual: str) -> tuple[tuple[object, ...], ...]:
        """What tells a branch from the others."""
        side, machine = self.sides[bqual], self.machine
        seen = (side.share.value, side.calls, side.answers, side.retry, side.maybe_done, side.process)
        branch = machine.branches.get(bqual) if machine is not None else None
        if branch is None:
            return seen, ()
        # How often something was sent decides nothing, except when a Rollback is given up.
        counts = machine is not None and machine.state is TransactionState.ABORTING and branch.outcome is None
        attempts = branch.attempts if counts else 0
        return seen, (_name(branch.state), _name(branch.vote), _name(branch.outcome), branch.vote_awaited, attempts)


def _name(member: Enum | None) -> str:
    return "" if member is None else member._name_  # an Enum's own hash is slow


Move = tuple[str, World]
T = TypeVar("T")
ValueT = TypeVar("ValueT", World, Side)


def replace(value: ValueT, **changes: Any) -> ValueT:
    """The value with some of its parts changed; tens of thousands of states are made so."""
    return value._replace(**changes)


def begin(bquals: tuple[str, ...]) -> World:
    """The first state: every branch is enlisted and its work is done."""
    machine = GlobalTransaction("t", DEADLINE_S)
    for bqual in bquals:
        machine.step(e.Enlisted(bqual))
    return World(machine, dict.fromkeys(bquals, Side()))


def moves(world: World) -> Iterator[Move]:
    """Everything that can happen next."""
    if world.machine is not None:
        yield from client_and_clock(world, world.machine)
        yield from log_answers(world, world.machine)
    # What is alike leads to what is alike.
    for bqual in {world.branch_key(bqual): bqual for bqual in world.sides}.values():
        yield from _network(world, bqual, world.sides[bqual])
        yield from _participant_alone(world, bqual, world.sides[bqual])
    if world.lives:
        yield from deaths(world)


# -- the coordinator -------------------------------------------------------------------------------------------------


def feed(world: World, event: e.Event) -> World:
    """Step the machine, and do with its effects what the driver does."""
    assert world.machine is not None
    machine = _clone(world.machine)
    return _obey(replace(world, machine=machine), machine.step(event))


def _obey(world: World, effects: Effects) -> World:
    sides = dict(world.sides)
    for message in effects.send:
        sides[message.bqual] = _sent(sides[message.bqual], message)
    for retry in effects.retries:
        sides[retry.bqual] = replace(sides[retry.bqual], retry=True)
    return replace(world, sides=sides, offered=world.offered or effects.force is not None)


def _sent(side: Side, message: object) -> Side:
    kinds = {SendPrepare: "prepare", SendCommitOnePhase: "one phase", SendCommit: "commit", SendRollback: "rollback"}
    return replace(side, calls=added(side.calls, kinds[type(message)]), retry=False)


def client_and_clock(world: World, machine: GlobalTransaction) -> Iterator[Move]:
    now_s = LATE_S if world.late else IN_TIME_S
    if machine.state is TransactionState.ACTIVE:
        yield "the client asks for the commit", feed(world, e.CommitRequested(now_s))
    if world.client_may_roll_back and not machine.decided:
        wish = e.RollbackRequested(Cause.CLIENT, "")
        yield "the client asks for the rollback", feed(replace(world, client_may_roll_back=False), wish)
    if not world.late and not machine.decided:
        # A paused process learns the time from its next event, before its timer fires.
        yield "time passes unnoticed", replace(world, late=True)
        yield "the deadline's timer fires", feed(replace(world, late=True), e.DeadlinePassed())


def log_answers(world: World, machine: GlobalTransaction) -> Iterator[Move]:
    if not world.offered:
        return
    if world.log is None:
        answered = replace(world, offered=False)
        stood = feed(replace(answered, log=Decision.COMMIT), e.DecisionStood(Decision.COMMIT))
        commits = Effects(send=tuple(SendCommit(b.bqual, "") for b in machine.branches.values() if b.vote is Vote.YES))
        yield "the log has the commit", _obey(stood, commits)
        yield "the log refuses", feed(answered, e.DecisionRefused(""))
        yield "another's abort stood", feed(replace(answered, log=Decision.ABORT), e.DecisionStood(Decision.ABORT))


def deaths(world: World) -> Iterator[Move]:
    dead = replace(world, machine=None, offered=False, lives=world.lives - 1)
    dead = replace(dead, sides={bqual: _orphaned(side) for bqual, side in world.sides.items()})
    if world.offered:
        yield "the coordinator dies, its record written", _reborn(replace(dead, log=Decision.COMMIT), world)
    yield "the coordinator dies", _reborn(dead, world)


def _reborn(dead: World, before: World) -> World:
    if dead.log is not Decision.COMMIT:
        return dead
    assert before.machine is not None
    record = [(branch.bqual, "") for branch in before.machine.branches.values() if branch.vote is Vote.YES]
    machine, effects = GlobalTransaction.recovered("t", record)
    return _obey(replace(dead, machine=machine), effects)


def _orphaned(side: Side) -> Side:
    calls = tuple(sorted({call.rstrip("!") + "!" for call in side.calls}))
    return replace(side, calls=calls, answers=(), retry=False)


# -- network and participants ----------------------------------------------------------------------------------------


def _network(world: World, bqual: str, side: Side) -> Iterator[Move]:
    for call in sorted(set(side.calls)):
        rest = replace(side, calls=taken(side.calls, call))
        for answer, share in _carry_out(call.rstrip("!"), side.share, world.tombstones):
            heard = () if call.endswith("!") else ((call, answer),)
            done = replace(rest, share=share, answers=tuple(sorted((*rest.answers, *heard))))
            yield f"{bqual} carries out {call}: {answer}", put(world, bqual, done)
        if world.losses != 0:
            yield f"{call} to {bqual} is lost", lose(put(world, bqual, rest), bqual, call, sent=False)
    for call, answer in sorted(set(side.answers)):
        rest = replace(side, answers=taken(side.answers, (call, answer)))
        yield f"{bqual} answers {call}: {answer}", hear(put(world, bqual, rest), bqual, call, answer)
        if world.losses != 0:
            yield f"{bqual}'s answer to {call} is lost", lose(put(world, bqual, rest), bqual, call, sent=True)
    if side.retry and world.machine is not None and not in_flight(side):
        yield f"{bqual}'s timer fires", feed(put(world, bqual, replace(side, retry=False)), e.RetryDue(bqual))


def in_flight(side: Side) -> bool:
    decisions = ("commit", "rollback")
    return any(call in decisions for call in side.calls) or any(call in decisions for call, _ in side.answers)


def _carry_out(call: str, share: Share, tombstones: bool) -> list[tuple[str, Share]]:
    """What a participant may answer, and what it holds afterwards."""
    match call, share:
        case "prepare", Share.OPEN:
            return [("yes", Share.PREPARED), ("no", Share.ABORTED), ("read only", Share.READ_ONLY)]
        case "prepare", Share.ABORTED:
            return [("no", Share.ABORTED)] if tombstones else [("yes", Share.PREPARED)]
        case "prepare", _:
            return [("yes", share)]
        case "one phase", Share.OPEN:
            return [("committed", Share.COMMITTED), ("aborted", Share.ABORTED), ("unsupported", Share.OPEN)]
        case "one phase", Share.COMMITTED:
            return [("committed", share)]
        case "one phase", _:
            return [("aborted", share)]
        case "commit", Share.PREPARED | Share.COMMITTED:
            return [("committed", Share.COMMITTED)]
        case "rollback", Share.OPEN | Share.PREPARED | Share.ABORTED | Share.READ_ONLY:
            return [("aborted", Share.READ_ONLY if share is Share.READ_ONLY else Share.ABORTED)]
    raise AssertionError(f"{call} reaches a branch that is {share.name}")


def hear(world: World, bqual: str, call: str, answer: str) -> World:
    now_s = LATE_S if world.late else IN_TIME_S
    match call, answer:
        case "prepare", _:
            return feed(world, e.VoteReceived(bqual, Vote(answer), now_s))
        case "one phase", "unsupported":
            return feed(world, e.OnePhaseUnsupported(bqual))
        case "one phase", _:
            return feed(world, e.OnePhaseAnswered(bqual, Outcome(answer)))
    return feed(world, e.BranchEnded(bqual, Outcome(answer)))


def lose(world: World, bqual: str, call: str, *, sent: bool) -> World:
    world = world if world.losses is None else replace(world, losses=world.losses - 1)
    if call.endswith("!"):
        return world
    if call == "prepare":
        return feed(world, e.VoteLost(bqual, "lost"))
    side = world.sides[bqual]
    if call == "one phase" and not sent and not side.maybe_done:
        return feed(world, e.OnePhaseAnswered(bqual, Outcome.ABORTED, "never left"))
    maybe_done = side.maybe_done or call == "one phase"
    return feed(put(world, bqual, replace(side, maybe_done=maybe_done)), e.DeliveryFailed(bqual, "lost"))


def _participant_alone(world: World, bqual: str, side: Side) -> Iterator[Move]:
    """What a participant does when nobody tells it anything."""
    decision = world.machine.decision if world.machine is not None else world.log or Decision.ABORT
    if side.share is Share.PREPARED and decision is not None:
        share = Share.COMMITTED if decision is Decision.COMMIT else Share.ABORTED
        yield f"{bqual} asks", put(world, bqual, replace(side, share=share))
    if side.share is Share.OPEN and (world.machine is None or world.machine.state in FINAL_STATES):
        yield f"{bqual} times out", put(world, bqual, replace(side, share=Share.ABORTED))


# -- values ----------------------------------------------------------------------------------------------------------


def put(world: World, bqual: str, side: Side) -> World:
    return replace(world, sides={**world.sides, bqual: side})


def added(calls: tuple[str, ...], call: str) -> tuple[str, ...]:
    return tuple(sorted((*calls, call)))


def taken(items: tuple[T, ...], item: T) -> tuple[T, ...]:
    index = items.index(item)
    return items[:index] + items[index + 1 :]


def _clone(machine: GlobalTransaction) -> GlobalTransaction:
    clone = GlobalTransaction(machine.gtrid, machine.deadline_s)
    for slot in GlobalTransaction.__slots__:
        setattr(clone, slot, getattr(machine, slot))
    clone.branches = {bqual: copied(branch) for bqual, branch in machine.branches.items()}
    return clone
