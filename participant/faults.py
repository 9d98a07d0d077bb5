"""Between the protocol's causes and the catalog's faults: the words for why a branch ended as it did."""

from __future__ import annotations

import asyncio

from handfast.catalog import HandfastFault
from handfast.xid import Xid
from participant.protocol import DEADLINE_PASSED, ROLLED_BACK_FIRST, UNKNOWN, Branch, Cause, Message

_PLAIN = {DEADLINE_PASSED, ROLLED_BACK_FIRST, UNKNOWN}


def cause_of(fault: HandfastFault) -> Cause:
    """What a vote says of a fault: what happened. What to do, the client has from the catalog, by the code."""
    return Cause(fault.code, fault.message)


def reason_of(cause: Cause, gtrid: str, bqual: str) -> str:
    """A cause in words."""
    return cause.reason or HandfastFault(cause.code, gtrid=gtrid, bqual=bqual).message


def work_fault(problem: BaseException, xid: Xid) -> HandfastFault:
    """The vote for a branch whose work raised."""
    if isinstance(problem, HandfastFault) and problem.entry.kind == "vote":
        return problem
    return HandfastFault("BRANCH_FAILED", gtrid=xid.gtrid, bqual=xid.bqual, problem=describe(problem))


def operation_fault(
    problem: Exception, known: HandfastFault | None, xid: Xid, resource: str, operation: str
) -> HandfastFault:
    """The vote for a branch one of whose operations raised.

    Args:
        problem: what was raised.
        known: what the resource makes of it.
        xid: the branch.
        resource: the resource.
        operation: the operation.
    """
    if isinstance(problem, HandfastFault) and problem.entry.kind == "vote":
        return problem
    return known or HandfastFault(
        "OPERATION_FAILED",
        gtrid=xid.gtrid,
        bqual=xid.bqual,
        resource=resource,
        operation=operation,
        problem=describe(problem),
    )


def ended_fault(branch: Branch, bqual: str) -> HandfastFault:
    """What work gets that comes to a branch too late."""
    cause = branch.cause
    if cause in _PLAIN and cause is not None:
        return HandfastFault(cause.code, gtrid=branch.gtrid, bqual=bqual)
    state = branch.state.value if cause is None else f"rolled back ({(cause.reason or cause.code).rstrip('.')})"
    return HandfastFault("BRANCH_NOT_ACTIVE", gtrid=branch.gtrid, bqual=bqual, state=state)


def refusal(gtrid: str, bqual: str, message: Message, branch: Branch | None) -> HandfastFault:
    """What the coordinator gets for a message that contradicts what the branch did before."""
    state = branch.state.value if branch is not None else "not known"
    return HandfastFault("BRANCH_NOT_PREPARED", gtrid=gtrid, bqual=bqual, wish=message.value, state=state)


def describe(problem: BaseException) -> str:
    """An exception in one line, without its final stop."""
    if isinstance(problem, HandfastFault):
        return problem.message.rstrip(".")
    if isinstance(problem, asyncio.CancelledError):
        return "the call was cancelled"
    text = " ".join(str(problem).split()).rstrip(".")
    return f"{type(problem).__name__}: {text}" if text else type(problem).__name__
