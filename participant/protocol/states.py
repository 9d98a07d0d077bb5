"""The states of a branch, the table of what may follow what, and the table of what each message asks for.

Every pair that is missing from a table is a defect: of this program (a transition), or of whoever adds a message.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum


class _Named(Enum):
    """A member is its own identity; Enum would hash its name, in Python, at every look-up in a table."""

    __hash__ = object.__hash__


class State(_Named):
    """Where a branch stands."""

    ACTIVE = "active"
    PREPARING = "preparing"
    IN_DOUBT = "in doubt"
    COMMITTED = "committed"
    ABORTED = "aborted"


class Event(_Named):
    """What happened to a branch."""

    WORK_FAILED = "work failed"
    DEADLINE_PASSED = "deadline passed"
    PREPARE_RECEIVED = "prepare received"
    ONE_PHASE_RECEIVED = "one-phase commit received"
    ROLLBACK_RECEIVED = "rollback received"
    PREPARED = "prepared"
    FOUND_READ_ONLY = "found read-only"
    PREPARE_FAILED = "prepare failed"
    ANSWER_LOST = "the resource's answer was lost"
    ENDED_COMMITTED = "ended: committed"
    ENDED_ABORTED = "ended: rolled back"
    ENDED_UNPROVED = "ended: nothing proves how"


TRANSITIONS: Mapping[tuple[State, Event], State] = {
    (State.ACTIVE, Event.WORK_FAILED): State.ABORTED,
    (State.ACTIVE, Event.DEADLINE_PASSED): State.ABORTED,
    (State.ACTIVE, Event.ROLLBACK_RECEIVED): State.ABORTED,
    (State.ACTIVE, Event.PREPARE_RECEIVED): State.PREPARING,
    (State.ACTIVE, Event.ONE_PHASE_RECEIVED): State.PREPARING,
    # While PREPARE may be under way neither can end the branch; both are kept in mind until it is done.
    (State.PREPARING, Event.ROLLBACK_RECEIVED): State.PREPARING,
    (State.PREPARING, Event.DEADLINE_PASSED): State.PREPARING,
    (State.PREPARING, Event.PREPARED): State.IN_DOUBT,
    (State.PREPARING, Event.ANSWER_LOST): State.IN_DOUBT,
    (State.PREPARING, Event.FOUND_READ_ONLY): State.COMMITTED,
    (State.PREPARING, Event.PREPARE_FAILED): State.ABORTED,
    (State.PREPARING, Event.ENDED_COMMITTED): State.COMMITTED,  # in one phase
    (State.PREPARING, Event.ENDED_UNPROVED): State.ABORTED,
    (State.IN_DOUBT, Event.PREPARED): State.IN_DOUBT,  # found so, after the answer was lost
    (State.IN_DOUBT, Event.PREPARE_FAILED): State.ABORTED,  # likewise
    (State.IN_DOUBT, Event.ENDED_COMMITTED): State.COMMITTED,
    (State.IN_DOUBT, Event.ENDED_ABORTED): State.ABORTED,
    # It holds nothing any more. That nobody knows how it ended is told by its fate, not by its state.
    (State.IN_DOUBT, Event.ENDED_UNPROVED): State.ABORTED,
}

ENDED = frozenset({State.COMMITTED, State.ABORTED})


class Vote(_Named):
    """A branch's answer in phase one."""

    YES = "yes"
    NO = "no"
    READ_ONLY = "read only"


class Decision(_Named):
    """The durable choice."""

    COMMIT = "commit"
    ABORT = "abort"


class Outcome(_Named):
    """What happened to a branch, measured against the decision."""

    COMMITTED = "committed"
    ABORTED = "aborted"
    HEURISTIC_COMMIT = "heuristic commit"
    HEURISTIC_ROLLBACK = "heuristic rollback"
    HEURISTIC_HAZARD = "heuristic hazard"


class Fate(_Named):
    """How a branch ended in its resource, whatever was decided."""

    COMMITTED = "committed"
    ABORTED = "aborted"
    UNPROVED = "unproved"


OUTCOMES: Mapping[tuple[Decision, Fate], Outcome] = {
    (Decision.COMMIT, Fate.COMMITTED): Outcome.COMMITTED,
    (Decision.COMMIT, Fate.ABORTED): Outcome.HEURISTIC_ROLLBACK,
    (Decision.COMMIT, Fate.UNPROVED): Outcome.HEURISTIC_HAZARD,
    (Decision.ABORT, Fate.COMMITTED): Outcome.HEURISTIC_COMMIT,
    (Decision.ABORT, Fate.ABORTED): Outcome.ABORTED,
    # Gone, no trace of a commit, and abort is what was decided: with presumed abort this is the usual end.
    (Decision.ABORT, Fate.UNPROVED): Outcome.ABORTED,
}

ENDING: Mapping[Fate, Event] = {
    Fate.COMMITTED: Event.ENDED_COMMITTED,
    Fate.ABORTED: Event.ENDED_ABORTED,
    Fate.UNPROVED: Event.ENDED_UNPROVED,
}


class Message(_Named):
    """What the coordinator sends."""

    PREPARE = "prepare"
    COMMIT_ONE_PHASE = "commit in one phase"
    COMMIT = "commit"
    ROLLBACK = "rollback"


class Action(_Named):
    """What to do about a message."""

    ANSWER = "answer"
    """Now, with the step's answer."""
    REFUSE = "refuse"
    """Now, with an error: the message contradicts what the branch has done already."""
    WAIT = "wait"
    """The same thing is under way: its answer is this one's too. For Rollback: then look again."""
    START = "start"
    """Begin the branch, do the operations, then prepare it or commit it in one phase."""
    PREPARE = "prepare"
    COMMIT_OPEN = "commit the open branch"
    ROLL_BACK_OPEN = "roll back the open branch"
    FINISH = "finish the prepared branch"
    """Commit or roll back by name, whoever prepared it; the resource says what became of it."""
    LOOK = "look"
    """Ask the resource what became of a PREPARE or COMMIT whose answer was lost."""


RESPONSES: Mapping[tuple[Message, State | None], Action] = {
    (Message.PREPARE, None): Action.START,
    (Message.PREPARE, State.ACTIVE): Action.PREPARE,
    (Message.PREPARE, State.PREPARING): Action.WAIT,
    (Message.PREPARE, State.IN_DOUBT): Action.ANSWER,
    (Message.PREPARE, State.COMMITTED): Action.ANSWER,
    (Message.PREPARE, State.ABORTED): Action.ANSWER,
    (Message.COMMIT_ONE_PHASE, None): Action.START,
    (Message.COMMIT_ONE_PHASE, State.ACTIVE): Action.COMMIT_OPEN,
    (Message.COMMIT_ONE_PHASE, State.PREPARING): Action.WAIT,
    (Message.COMMIT_ONE_PHASE, State.IN_DOUBT): Action.LOOK,
    (Message.COMMIT_ONE_PHASE, State.COMMITTED): Action.ANSWER,
    (Message.COMMIT_ONE_PHASE, State.ABORTED): Action.ANSWER,
    (Message.COMMIT, None): Action.FINISH,
    (Message.COMMIT, State.ACTIVE): Action.REFUSE,
    (Message.COMMIT, State.PREPARING): Action.REFUSE,
    (Message.COMMIT, State.IN_DOUBT): Action.FINISH,
    (Message.COMMIT, State.COMMITTED): Action.ANSWER,
    (Message.COMMIT, State.ABORTED): Action.ANSWER,
    (Message.ROLLBACK, None): Action.FINISH,
    (Message.ROLLBACK, State.ACTIVE): Action.ROLL_BACK_OPEN,
    (Message.ROLLBACK, State.PREPARING): Action.WAIT,
    (Message.ROLLBACK, State.IN_DOUBT): Action.FINISH,
    (Message.ROLLBACK, State.COMMITTED): Action.ANSWER,
    (Message.ROLLBACK, State.ABORTED): Action.ANSWER,
}

DECISIONS: Mapping[Message, Decision] = {Message.COMMIT: Decision.COMMIT, Message.ROLLBACK: Decision.ABORT}
