"""What Postgres's errors mean: SQLSTATE to the error catalog.

A NO vote should say what to do about it, and a phase two that fails should say whether trying again can help. The
SQLSTATEs are those of the manual's appendix A.
"""

from __future__ import annotations

from collections.abc import Mapping

import psycopg

from handfast.catalog import HandfastFault
from handfast.xid import Xid

_VOTES: Mapping[str, str] = {
    "40001": "SERIALIZATION_FAILURE",
    "40P01": "DEADLOCK",
    "55P03": "LOCK_TIMEOUT",
    "0A000": "PREPARE_UNSUPPORTED",
    "42501": "ROLE_LACKS_RIGHTS",
    "53300": "CONNECTIONS_EXHAUSTED",
    "25P03": "DEADLINE_PASSED",  # idle_in_transaction_session_timeout, which we set from the deadline
    "25P04": "DEADLINE_PASSED",  # transaction_timeout
}
_VOTE_CLASSES: Mapping[str, str] = {
    "23": "CONSTRAINT_VIOLATED",
    "08": "DATABASE_UNREACHABLE",
    "57P": "DATABASE_UNREACHABLE",
}
_PREPARE: Mapping[str, str] = {
    "53200": "SLOTS_EXHAUSTED",
    "55000": "PREPARED_DISABLED",
}
_FINISH: Mapping[str, str] = {
    "0A000": "BRANCH_IN_ANOTHER_DATABASE",
    "42501": "FINISH_FORBIDDEN",
    "55000": "BRANCH_BUSY",
}

NO_SUCH_PREPARED = "42704"
"""COMMIT PREPARED and ROLLBACK PREPARED of a branch that is not prepared: never was, or committed, or rolled back."""


def text_of(problem: BaseException) -> str:
    """An error in one line, without its final stop."""
    return " ".join(str(problem).split()).rstrip(".") or type(problem).__name__


def vote_code(problem: BaseException) -> str | None:
    """The catalog's code for an error in a branch's work; None when Postgres can't tell more than its text."""
    if not isinstance(problem, psycopg.Error):
        return None
    state = problem.sqlstate
    if state is None:
        # libpq's own: the connection is gone, or was never made.
        return "DATABASE_UNREACHABLE" if isinstance(problem, psycopg.OperationalError) else None
    return _VOTES.get(state) or _VOTE_CLASSES.get(state[:2]) or _VOTE_CLASSES.get(state[:3])


def work_fault(problem: BaseException, xid: Xid, resource: str) -> HandfastFault | None:
    """The NO vote that an error in a branch's work amounts to; None when Postgres can't tell more than its text."""
    code = vote_code(problem)
    return None if code is None else _fault(code, xid, resource, problem)


def prepare_fault(problem: BaseException, xid: Xid, resource: str) -> HandfastFault:
    """The NO vote that an error of PREPARE TRANSACTION, or of a one-phase COMMIT, amounts to."""
    state = problem.sqlstate if isinstance(problem, psycopg.Error) else None
    code = _PREPARE.get(state or "") or vote_code(problem) or "PREPARE_FAILED"
    return _fault(code, xid, resource, problem)


def finish_fault(problem: BaseException, xid: Xid, resource: str) -> HandfastFault:
    """What an error of COMMIT PREPARED or ROLLBACK PREPARED amounts to; the branch stays as it was."""
    state = problem.sqlstate if isinstance(problem, psycopg.Error) else None
    return _fault(_FINISH.get(state or "", "RESOURCE_UNREACHABLE"), xid, resource, problem)


def _fault(code: str, xid: Xid, resource: str, problem: BaseException) -> HandfastFault:
    return HandfastFault(code, gtrid=xid.gtrid, bqual=xid.bqual, resource=resource, problem=text_of(problem))
