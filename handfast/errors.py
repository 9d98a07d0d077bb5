"""What can go wrong for an application, as one tree.

    HandfastError
    ├── TransactionError               what became of one transaction; has its gtrid
    │   ├── TransactionAborted         no branch changed anything; says which branch said no, and why
    │   │   └── DeadlineExceeded       … because its time ran out
    │   ├── OutcomeUnknown             committed or aborted, nobody here can tell; ask again by gtrid
    │   └── HeuristicOutcome           a branch ended against the decision, by hand, or nothing proves how it ended
    ├── CoordinatorUnavailable         the coordinator was not reached; certainly nothing was committed by the call
    └── Refused                        the coordinator said no; has the catalog's code
        ├── TooManyTransactions        … for now: retry with backoff
        ├── UnknownTransaction         … it never made that gtrid, or has forgotten it
        └── AlreadyDecided             … the transaction was decided the other way

What matters after an error is whether the work may have been done. It certainly was not after TransactionAborted,
CoordinatorUnavailable and Refused; it may have been after OutcomeUnknown and HeuristicOutcome.
"""

from __future__ import annotations

from handfast.catalog import ENTRIES
from handfast.frames import CallFailed
from handfast.outcomes import AbortCause, BranchReport, Outcome, Verdict

_MENDS = {
    None: "Run the transaction again.",
    AbortCause.VOTE_NO: "Read the branch's reason; then run the transaction again.",
    AbortCause.DEADLINE: "Give the transaction more time, or find what is slow.",
    AbortCause.CLIENT: "The application asked for it.",
    AbortCause.UNREACHABLE: "Start the participant, or mend the network; `handfast doctor` checks all of them.",
    AbortCause.OPERATOR: "Run the transaction again when the coordinator was stopping; else ask the operator why.",
    AbortCause.PRESUMED: "The coordinator restarted before it decided; run the transaction again.",
    AbortCause.LOG_REFUSED: "Make room on the disk of the coordinator's log; then run the transaction again.",
}


class HandfastError(Exception):
    """The root of everything that Handfast raises at an application."""


class TransactionError(HandfastError):
    """What became of one transaction.

    Args:
        gtrid: the transaction.
        message: what happened, and what to do.
    """

    def __init__(self, gtrid: str, message: str) -> None:
        super().__init__(message)
        self.gtrid = gtrid


class TransactionAborted(TransactionError):
    """No branch changed anything.

    Args:
        gtrid: the transaction.
        branch: the bqual of the branch that is the cause; empty when none is.
        reason_code: the reason in the error catalog; empty when there is none.
        reason: why, in words.
        cause: the kind of reason; None when it is no longer known.
        mend: what to do about it.
        branches: all the branches worth telling of.
    """

    def __init__(
        self,
        gtrid: str,
        *,
        branch: str = "",
        reason_code: str = "",
        reason: str = "",
        cause: AbortCause | None = None,
        mend: str = "",
        branches: tuple[BranchReport, ...] = (),
    ) -> None:
        who = f"{branch} {'gave no vote' if reason_code == 'VOTE_LOST' else 'said no'}: " if branch else ""
        why = reason or (f"{cause}" if cause else "the cause is no longer known")
        code = f" [{reason_code}]" if reason_code else ""
        super().__init__(gtrid, f"Transaction {gtrid} was aborted: {who}{_sentence(why)}{code} {mend}".rstrip())
        self.branch = branch
        self.reason_code = reason_code
        self.reason = reason
        self.cause = cause
        self.mend = mend
        self.branches = branches


class DeadlineExceeded(TransactionAborted):
    """The transaction's time ran out before every branch had voted; no branch changed anything."""


class OutcomeUnknown(TransactionError):
    """The transaction committed or was aborted, and nobody here can tell which.

    Args:
        gtrid: the transaction.
        problem: why it is not known.
        branches: how many branches it is known to have; pass this on when asking. 0 when that is not known.
    """

    def __init__(self, gtrid: str, problem: str, branches: int = 0) -> None:
        how_many = f", branches={branches}" if branches else ""
        super().__init__(
            gtrid,
            f"The outcome of transaction {gtrid} is not known: {_sentence(problem)} It may have committed. "
            f'Ask for it with `await tm.outcome("{gtrid}"{how_many})` before doing the work again.',
        )
        self.problem = problem
        self.branches = branches


class HeuristicOutcome(TransactionError):
    """A branch ended against the decision, by hand, or nothing proves how it ended.

    Args:
        gtrid: the transaction.
        outcome: which of the four.
        branches: the branches, each with its outcome and the evidence.
    """

    def __init__(self, gtrid: str, outcome: Outcome, branches: tuple[BranchReport, ...] = ()) -> None:
        ended = [branch for branch in branches if branch.outcome is not None and branch.outcome.heuristic]
        told = "; ".join(f"{branch.bqual}: {branch.outcome}, {branch.evidence or 'no evidence'}" for branch in ended)
        super().__init__(
            gtrid,
            f"Transaction {gtrid} ended {outcome}{f' ({told})' if told else ''}. "
            f"Its branches may differ: `handfast transactions show {gtrid}` and `handfast audit` tell what to mend.",
        )
        self.outcome = outcome
        self.branches = branches


class CoordinatorUnavailable(HandfastError):
    """The coordinator was not reached, or takes no work; certainly nothing was committed by the call.

    Args:
        message: what happened, and what to do.
        gtrid: the transaction concerned; empty when none had begun.
    """

    def __init__(self, message: str, *, gtrid: str = "") -> None:
        super().__init__(message)
        self.gtrid = gtrid


class Refused(HandfastError):
    """The coordinator said no.

    Args:
        code: the entry of the error catalog; a gRPC status when something between answered.
        message: what happened.
        mend: what to do about it.
        gtrid: the transaction concerned; empty when there is none.
    """

    def __init__(self, code: str, message: str, mend: str = "", *, gtrid: str = "") -> None:
        super().__init__(f"{message} {mend}".rstrip())
        self.code = code
        self.message = message
        self.mend = mend
        self.gtrid = gtrid


class TooManyTransactions(Refused):
    """The coordinator holds as many open transactions as it may; retry with backoff."""


class UnknownTransaction(Refused):
    """The coordinator never made that gtrid, or its log no longer reaches back to it."""


class AlreadyDecided(Refused):
    """The transaction was decided the other way before; the first decision stands."""


_REFUSALS: dict[str, type[Refused]] = {
    "TRANSACTIONS_TOO_MANY": TooManyTransactions,
    "TRANSACTION_UNKNOWN": UnknownTransaction,
    "TRANSACTION_FOREIGN": UnknownTransaction,
    "ALREADY_DECIDED": AlreadyDecided,
}


def refused(failure: CallFailed, gtrid: str = "") -> Refused:
    """The error for a coordinator's no."""
    kind = _REFUSALS.get(failure.code, Refused)
    return kind(failure.code, failure.message, failure.mend, gtrid=failure.gtrid or gtrid)


def aborted(verdict: Verdict) -> TransactionAborted:
    """The error for an abort: names the branch that is its cause, and what to do."""
    said_why = [branch for branch in verdict.branches if branch.reason_code or branch.reason]
    # A branch that the abort itself overtook says no as well, and is not its cause.
    guilty = min(said_why, key=lambda branch: branch.reason_code == "ROLLED_BACK_FIRST", default=None)
    reason_code = guilty.reason_code if guilty else ""
    late = verdict.cause is AbortCause.DEADLINE or reason_code == "DEADLINE_PASSED"
    return (DeadlineExceeded if late else TransactionAborted)(
        verdict.gtrid,
        branch=guilty.bqual if guilty else "",
        reason_code=reason_code,
        reason=(guilty.reason if guilty else "") or verdict.reason,
        cause=verdict.cause,
        mend=_mend(reason_code, verdict, guilty),
        branches=verdict.branches,
    )


def raise_unless_committed(verdict: Verdict) -> None:
    """Turn every end but the wished one into its error.

    Raises:
        TransactionAborted: it was aborted.
        HeuristicOutcome: a branch ended against the decision.
    """
    if verdict.outcome is Outcome.ABORTED:
        raise aborted(verdict)
    if verdict.outcome is not Outcome.COMMITTED:
        raise HeuristicOutcome(verdict.gtrid, verdict.outcome, verdict.branches)


def _mend(reason_code: str, verdict: Verdict, guilty: BranchReport | None) -> str:
    entry = ENTRIES.get(reason_code)
    bqual = guilty.bqual if guilty else ""
    if entry is not None:
        try:
            return entry.mend.format(gtrid=verdict.gtrid, bqual=bqual, resource=bqual.partition(".")[0])
        except KeyError:
            # A code that is no vote's: its words need what only the participant knew.
            return f"`handfast transactions show {verdict.gtrid}` tells more."
    return _MENDS[verdict.cause]


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."
