"""The states of two-phase commit, and what may follow what.

Names are X/Open XA's and Gray & Reuter's. Cause, attempt and retry are fields of the machines, never states.
"""

from __future__ import annotations

from enum import Enum


class _Named(Enum):
    """A member is its own identity; Enum would hash its name, in Python, at every look-up in a table."""

    __hash__ = object.__hash__


class TransactionState(_Named):
    """Where a global transaction stands."""

    ACTIVE = "active"
    PREPARING = "preparing"
    COMMITTING = "committing"
    ABORTING = "aborting"
    COMMITTED = "committed"
    ABORTED = "aborted"
    FORGOTTEN = "forgotten"


class BranchState(_Named):
    """Where one branch stands, as the coordinator knows it."""

    ACTIVE = "active"
    PREPARING = "preparing"
    IN_DOUBT = "in doubt"
    COMMITTED = "committed"
    ABORTED = "aborted"


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
    """What happened."""

    COMMITTED = "committed"
    ABORTED = "aborted"
    HEURISTIC_COMMIT = "heuristic commit"
    HEURISTIC_ROLLBACK = "heuristic rollback"
    HEURISTIC_MIXED = "heuristic mixed"
    HEURISTIC_HAZARD = "heuristic hazard"


class Cause(_Named):
    """Why a transaction was aborted."""

    VOTE_NO = "a branch voted no"
    DEADLINE = "deadline passed"
    CLIENT = "rolled back by the client"
    UNREACHABLE = "a participant could not be reached"
    OPERATOR = "rolled back by an operator"
    PRESUMED = "no commit record (presumed abort)"
    LOG_REFUSED = "the decision log refused the commit"
