"""The branch protocol, sans-IO: no clock, no network, no database; the standard library only.

states.py     states, events, and the two tables: what may follow what, and what each message asks for
answers.py    votes, ends, and what is kept of a branch
branches.py   the theory of operation, and Branches: all branches of one instance
"""

from participant.protocol.answers import (
    DEADLINE_PASSED,
    ROLLED_BACK_FIRST,
    UNKNOWN,
    Answer,
    Branch,
    Cause,
    Ended,
    Step,
    Voted,
    end,
    one_phase_end,
)
from participant.protocol.branches import Branches, ProtocolViolated
from participant.protocol.states import (
    DECISIONS,
    ENDED,
    OUTCOMES,
    RESPONSES,
    TRANSITIONS,
    Action,
    Decision,
    Event,
    Fate,
    Message,
    Outcome,
    State,
    Vote,
)

__all__ = [
    "DEADLINE_PASSED",
    "DECISIONS",
    "ENDED",
    "OUTCOMES",
    "RESPONSES",
    "ROLLED_BACK_FIRST",
    "TRANSITIONS",
    "UNKNOWN",
    "Action",
    "Answer",
    "Branch",
    "Branches",
    "Cause",
    "Decision",
    "Ended",
    "Event",
    "Fate",
    "Message",
    "Outcome",
    "ProtocolViolated",
    "State",
    "Step",
    "Vote",
    "Voted",
    "end",
    "one_phase_end",
]
