"""The small world with real participants: the production step functions of both sides, searched together.

``small_world`` holds the coordinator's part, its log and its client. Here a participant is no model of its contract but
``participant.protocol.Branches`` itself, driven as ``participant.driver`` drives it, over a resource that is as simple
as the contract of a resource manager allows: it prepares or not, its answer may be lost, and what is prepared survives.

Beside what the small world does, a message may arrive twice, work may be overtaken by what comes meanwhile, and the
process of a participant may die: its open work is gone then, what it prepared is not, and another instance, which
remembers nothing, takes its place.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Any, NamedTuple

from coordinator.protocol import events as e
from coordinator.protocol.states import Decision
from coordinator.protocol.transaction import FINAL_STATES
from participant.protocol import (
    DECISIONS,
    ENDED,
    OUTCOMES,
    Action,
    Answer,
    Branch,
    Branches,
    Cause,
    Ended,
    Fate,
    Message,
    Outcome,
    State,
    Step,
    Vote,
    Voted,
    one_phase_end,
)
from tests.unit.protocol.small_world import (
    DEADLINE_S,
    IN_TIME_S,
    LATE_S,
    Move,
    Share,
    Side,
    World,
    added,
    begin,
    client_and_clock,
    deaths,
    feed,
    hear,
    log_answers,
    lose,
    put,
    replace,
    taken,
)

GTRID = "t"
FAILED = Cause("PREPARE_FAILED")
_BRANCH_FIELDS = tuple(field.name for field in fields(Branch))
_ENDINGS = {Share.COMMITTED: Fate.COMMITTED, Share.ABORTED: Fate.ABORTED, Share.READ_ONLY: Fate.COMMITTED}


class Process(NamedTuple):
    """A participant's process.

    Args:
        first: whether it is the instance that began the branch; the one after it has another name.
        branch: what it remembers of the branch, field by field; None when nothing.
        at_work: ``prepare`` or ``one phase`` while the resource has that in hand; else empty.
        waiting: the calls that get their answers when that is done.
    """

    first: bool = True
    branch: tuple[Any, ...] | None = None
    at_work: str = ""
    waiting: tuple[str, ...] = ()


def begin_whole(bquals: tuple[str, ...], *, one_shot: bool = False) -> World:
    """The first state: every branch is enlisted, and its work is done; or, in one shot, travels with what ends it."""
    open_branch = Branch(GTRID, 1, DEADLINE_S)
    process = Process(branch=None if one_shot else _frozen(open_branch))
    world = begin(bquals)
    sides = {bqual: replace(side, process=process) for bqual, side in world.sides.items()}
    return replace(world, sides=sides, crashes=1, repeats=1)


def whole_moves(world: World) -> Iterator[Move]:
    """Everything that can happen next."""
    if world.machine is not None:
        yield from client_and_clock(world, world.machine)
        yield from log_answers(world, world.machine)
    for bqual in {world.branch_key(bqual): bqual for bqual in world.sides}.values():
        at = At(world, bqual)
        yield from at.arrivals()
        yield from at.losses()
        yield from at.work()
        yield from at.alone()
        if world.crashes:
            yield from at.deaths()
    if world.lives:
        for move, dead in deaths(world):
            yield move, _unheard(dead)


class At:
    """One participant in a state of the world, and what can happen there.

    Args:
        world: the state.
        bqual: the branch.
    """

    def __init__(self, world: World, bqual: str) -> None:
        self.world = world
        self.bqual = bqual
        self.side = world.sides[bqual]
        assert isinstance(self.side.process, Process)
        self.process = self.side.process
        self.now_s = LATE_S if world.late else IN_TIME_S

    # -- messages --------------------------------------------------------------------------------------------------

    def arrivals(self) -> Iterator[Move]:
        """A message reaches the process, for the first time or again."""
        for call in sorted(set(self.side.calls)):
            rest = replace(self.side, calls=taken(self.side.calls, call))
            yield f"{self.bqual} takes {call}", self._take(self.world, rest, call)
            if self.world.repeats:
                again = replace(rest, calls=added(rest.calls, call.rstrip("!") + "!"))
                fewer = replace(self.world, repeats=self.world.repeats - 1)
                yield f"{self.bqual} takes {call}, which will come again", self._take(fewer, again, call)
        for call, answer in sorted(set(self.side.answers)):
            rest = replace(self.side, answers=taken(self.side.answers, (call, answer)))
            yield (
                f"{self.bqual} answers {call}: {answer}",
                _heard(put(self.world, self.bqual, rest), self, call, answer),
            )

    def losses(self) -> Iterator[Move]:
        """A message is lost on its way, or the answer to it; and what is lost is sent again, later."""
        if self.world.losses != 0:
            for call in sorted(set(self.side.calls)):
                rest = replace(self.side, calls=taken(self.side.calls, call))
                yield f"{call} to {self.bqual} is lost", lose(self._put(rest), self.bqual, call, sent=False)
            for call, answer in sorted(set(self.side.answers)):
                rest = replace(self.side, answers=taken(self.side.answers, (call, answer)))
                yield f"the answer to {call} is lost", lose(self._put(rest), self.bqual, call, sent=True)
        if self.side.retry and self.world.machine is not None and not self._in_flight():
            rest = replace(self.side, retry=False)
            yield f"{self.bqual}'s timer fires", feed(self._put(rest), e.RetryDue(self.bqual))

    def _in_flight(self) -> bool:
        under_way = (*self.side.calls, *self.process.waiting, *(call for call, _ in self.side.answers))
        return any(call in ("commit", "rollback") for call in under_way)

    # -- what the process does about a message: participant.driver, without its tasks ------------------------------

    def _take(self, world: World, side: Side, call: str) -> World:
        branches = _thawed(self.process)
        named, message = "first", call.rstrip("!")
        match message:
            case "prepare":
                step = branches.on_prepare(GTRID, named, 1, DEADLINE_S, self.now_s, operations=self._carries_work())
            case "one phase":
                step = branches.on_commit_one_phase(
                    GTRID, named, 1, DEADLINE_S, self.now_s, operations=self._carries_work()
                )
            case "commit":
                step = branches.on_commit(GTRID, named)
            case _:
                step = branches.on_rollback(GTRID, named, 1, self.now_s)
        return put(world, self.bqual, self._act(side, branches, step, call))

    def _carries_work(self) -> bool:
        """One-shot work is begun by the message that ends it."""
        return self.process.branch is None and self.process.first and self.side.share is Share.OPEN

    def _act(self, side: Side, branches: Branches, step: Step, call: str) -> Side:
        process = self.process._replace(branch=_frozen(branches.find(GTRID)))
        match step.action:
            case Action.START | Action.PREPARE | Action.COMMIT_OPEN:
                process = process._replace(at_work=call.rstrip("!"), waiting=(call,))
            case Action.WAIT:
                process = process._replace(waiting=added(process.waiting, call))
            case Action.ROLL_BACK_OPEN:
                side = replace(side, share=Share.ABORTED)
                branch = branches.find(GTRID)
                assert branch is not None
                gone: Answer = Ended(Outcome.ABORTED)
                if call.startswith("one phase"):
                    gone = one_phase_end(branch)
                elif call.startswith("prepare"):
                    gone = Voted(Vote.NO, cause=branch.cause)
                side = _answered(side, call, gone)
            case Action.FINISH:
                return self._finish(side, process, branches, call)
            case Action.LOOK:
                return self._look(side, process, branches, call)
            case Action.ANSWER:
                assert step.answer is not None
                side = _answered(side, call, step.answer)
            case Action.REFUSE:
                side = _answered(side, call, None)
        return replace(side, process=process)

    def _finish(self, side: Side, process: Process, branches: Branches, call: str) -> Side:
        """End a branch by name, whoever prepared it."""
        message = Message.COMMIT if call.startswith("commit") else Message.ROLLBACK
        share = side.share
        if share is Share.PREPARED:
            share = Share.COMMITTED if message is Message.COMMIT else Share.ABORTED
        fate = _ENDINGS.get(share, Fate.UNPROVED)
        branch = branches.find(GTRID)
        if branch is not None and process.first:
            branches.on_ended(branch, fate, "", self.now_s)
        answer = Ended(OUTCOMES[DECISIONS[message], fate])
        if share is Share.READ_ONLY:
            answer = Ended(Outcome.ABORTED if message is Message.ROLLBACK else Outcome.COMMITTED)
        process = process._replace(branch=_frozen(branch) if process.first else None)
        return replace(_answered(side, call, answer), share=share, process=process)

    def _look(self, side: Side, process: Process, branches: Branches, call: str) -> Side:
        """Ask the resource what became of a PREPARE or COMMIT whose answer was lost."""
        branch = branches.find(GTRID)
        assert branch is not None
        if call.startswith("prepare"):
            prepared = side.share is Share.PREPARED
            answer: Answer = (
                branches.on_prepared(branch, "", self.now_s)
                if prepared
                else branches.on_prepare_failed(branch, FAILED, self.now_s)
            )
        else:
            branches.on_ended(branch, _ENDINGS[side.share], "", self.now_s)
            answer = one_phase_end(branch)
        return replace(_answered(side, call, answer), process=process._replace(branch=_frozen(branch)))

    # -- what the resource does ------------------------------------------------------------------------------------

    def work(self) -> Iterator[Move]:
        """PREPARE or COMMIT comes to its end."""
        if self.process.at_work == "prepare":
            for done, share in (
                ("prepared", Share.PREPARED),
                ("read only", Share.READ_ONLY),
                ("failed", Share.ABORTED),
            ):
                yield f"{self.bqual} is {done}", self._worked(done, share)
            for share in (Share.PREPARED, Share.ABORTED):
                yield f"{self.bqual} loses the answer to PREPARE: {share.name}", self._worked("lost", share)
        elif self.process.at_work == "one phase":
            for done, share in (("committed", Share.COMMITTED), ("failed", Share.ABORTED)):
                yield f"{self.bqual} has {done}", self._worked(done, share)
            for share in (Share.COMMITTED, Share.ABORTED):
                yield f"{self.bqual} loses the answer to COMMIT: {share.name}", self._worked("lost", share)

    def _worked(self, done: str, share: Share) -> World:
        branches = _thawed(self.process)
        branch = branches.find(GTRID)
        assert branch is not None
        answer: Answer | None = None
        match done:
            case "prepared":
                answer = branches.on_prepared(branch, "", self.now_s)
            case "read only":
                answer = branches.on_read_only(branch, self.now_s)
            case "committed":
                answer = branches.on_committed_open(branch, "", self.now_s)
            case "failed":
                voted = branches.on_prepare_failed(branch, FAILED, self.now_s)
                answer = voted if self.process.at_work == "prepare" else one_phase_end(branch)
            case "lost":
                branches.on_answer_lost(branch, "", self.now_s)
        process = self.process._replace(branch=_frozen(branch), at_work="", waiting=())
        side = replace(self.side, share=share, process=process)
        again = [call for call in self.process.waiting if call.startswith("rollback")]
        for call in self.process.waiting:
            if call not in again:
                side = _answered(side, call, answer)
        world = self._put(side)
        for call in again:  # it waited for this, and looks again
            world = At(world, self.bqual)._take(world, world.sides[self.bqual], call)
        return world

    def alone(self) -> Iterator[Move]:
        """What a participant does when nobody tells it anything."""
        if self.process.at_work:
            return
        machine = self.world.machine
        decision = machine.decision if machine is not None else self.world.log or Decision.ABORT
        prepared = self.side.share is Share.PREPARED
        if prepared and decision is not None:
            call = "commit!" if decision is Decision.COMMIT else "rollback!"
            yield f"{self.bqual} asks", self._take(self.world, self.side, call)
        branches = _thawed(self.process)
        branch = branches.find(GTRID)
        if branch is not None and branch.state is State.IN_DOUBT and not prepared:
            branches.on_ended(branch, _ENDINGS[self.side.share], "", self.now_s)
            found = replace(self.side, process=self.process._replace(branch=_frozen(branch)))
            yield f"{self.bqual} finds it ended", self._put(found)
        if self.side.share is Share.OPEN and (machine is None or machine.state in FINAL_STATES):
            if branch is not None and branch.state is State.ACTIVE:
                branches.on_deadline(branch, LATE_S)
            gone = replace(self.side, share=Share.ABORTED, process=self.process._replace(branch=_frozen(branch)))
            yield f"{self.bqual} times out", self._put(gone)

    def deaths(self) -> Iterator[Move]:
        """The process dies, and another instance takes its place."""
        shares = {
            "prepare": (Share.PREPARED, Share.ABORTED),
            "one phase": (Share.COMMITTED, Share.ABORTED),
            "": (Share.ABORTED if self.side.share is Share.OPEN else self.side.share,),
        }
        for share in shares[self.process.at_work]:
            side = replace(self.side, share=share, process=Process(first=False))
            world = put(replace(self.world, crashes=self.world.crashes - 1), self.bqual, side)
            for call in self.process.waiting:
                world = _lost(world, self.bqual, call)
            yield f"{self.bqual}'s process dies: {share.name}", world

    def _put(self, side: Side) -> World:
        return put(self.world, self.bqual, side)


# -- answers -----------------------------------------------------------------------------------------------------------


def _answered(side: Side, call: str, answer: Answer | None) -> Side:
    """An answer is on its way, unless nobody hears it any more. None is an error: nobody knows, or it contradicts."""
    if call.endswith("!"):
        return side
    said = "refused"
    if answer is not None:
        said = answer.vote.value if isinstance(answer, Voted) else answer.outcome.value
    return replace(side, answers=tuple(sorted((*side.answers, (call, said)))))


def _heard(world: World, at: At, call: str, answer: str) -> World:
    if answer == "refused":
        return _lost(world, at.bqual, call)
    return hear(world, at.bqual, call, answer)


def _lost(world: World, bqual: str, call: str) -> World:
    """A call failed in a way that tells nothing; that is no loss of the network's."""
    return replace(lose(replace(world, losses=None), bqual, call, sent=True), losses=world.losses)


def _unheard(world: World) -> World:
    """The coordinator has died: nobody hears the answers that participants are working on."""
    sides = {}
    for bqual, side in world.sides.items():
        process = side.process
        assert isinstance(process, Process)
        waiting = tuple(sorted({call.rstrip("!") + "!" for call in process.waiting}))
        sides[bqual] = replace(side, process=process._replace(waiting=waiting))
    return replace(world, sides=sides)


# -- values ------------------------------------------------------------------------------------------------------------


def _frozen(branch: Branch | None) -> tuple[Any, ...] | None:
    """A branch as a value. When it ended decides nothing here, for nobody forgets."""
    if branch is None:
        return None
    return tuple(None if name == "ended_s" else getattr(branch, name) for name in _BRANCH_FIELDS)


def _thawed(process: Process) -> Branches:
    """The production object, remembering what the process remembers."""
    branches = Branches("first" if process.first else "second")
    if process.branch is not None:
        branch = Branch(**dict(zip(_BRANCH_FIELDS, process.branch, strict=True)))
        if branch.state in ENDED:
            branches._ended.add(branch)
        else:
            branches._open[GTRID] = branch
    return branches
