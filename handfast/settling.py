"""Asking until the truth is known: what the client does when an answer to Commit or Execute is lost.

A lost answer is not a failed commit (nor a committed one). Three rules follow, and this module is their only home:

1. *Ask by the same gtrid.* Commit is idempotent, so it is repeated; the coordinator gives its first answer again.
   Execute is not repeated, it is asked after (Inquire): a repeat that reached a coordinator which has forgotten the
   first could run the work twice.
2. *"No" to a repeat is not "no".* A refusal of the first request is final: it certainly did nothing. The same words in
   answer to a repeat only say what the coordinator knows now, so they become OutcomeUnknown.
3. *Stop in time, and never guess.* Asking ends at the transaction's deadline plus a grace, with one last question;
   then OutcomeUnknown carries the gtrid by which anybody can ask later.

Whether a request may have been executed is known from its failure (frames.CallFailed.maybe_executed). As long as none
may have been, the transaction certainly is not committed, since nobody else asks for its commit.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator

import grpc
from google.protobuf.message import Message

from handfast.clock import Clock
from handfast.errors import CoordinatorUnavailable, HandfastError, OutcomeUnknown, UnknownTransaction, refused
from handfast.frames import LOST, CallFailed, CallStream
from handfast.outcomes import (
    AbortCause,
    Outcome,
    OutcomeReport,
    Standing,
    Verdict,
    branches_of,
    outcome_of,
    report_of,
    verdict_of,
)
from handfast.v1 import coordinator_pb2 as wire

BACKOFF_S_MIN = 0.05
BACKOFF_S_MAX = 1.0
REASON_CHARACTERS_MAX = 1024
LAST_QUESTION_S = 1.0
"""The least that the last question gets, in seconds."""

_INDEFINITE = {
    status.value[0]
    for status in (
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.DATA_LOSS,
    )
}
"""Statuses that tell of trouble on the way or inside, not of a no."""

_INVALID = grpc.StatusCode.INVALID_ARGUMENT.value[0]
"""What is no valid request now never was one."""

_NOT_COMMITTED = "Transaction {gtrid} is not committed, and rolls back by itself at its deadline: "
_NOT_ROLLED_BACK = "Transaction {gtrid} rolls back by itself at its deadline, unless its commit was asked for: "

_DID_NOTHING = {"COORDINATOR_STOPPING"}
"""Entries by which the coordinator says that it did not even begin, and a repeat may fare better."""

log = logging.getLogger(__name__)


class Settler:
    """Asks one coordinator.

    Args:
        calls: the way to it.
        clock: for waits between questions.
        outcome_wait_s: how long to go on asking past a transaction's deadline, in seconds.
        on_stale: told a gtrid that the coordinator doesn't know, or presumes aborted: it has restarted.
        on_unknown: told of each outcome that nobody could tell in time.
    """

    def __init__(
        self,
        calls: CallStream,
        clock: Clock,
        outcome_wait_s: float,
        on_stale: Callable[[str], None],
        on_unknown: Callable[[OutcomeUnknown], None],
    ) -> None:
        self._calls = calls
        self._on_stale = on_stale
        self._on_unknown = on_unknown
        self._clock = clock
        self._outcome_wait_s = outcome_wait_s

    async def commit(
        self, gtrid: str, wait: wire.Wait.ValueType, deadline_s: float, *, branches: int = 0, repeat: bool = False
    ) -> Verdict:
        """Ask for the commit until it is answered.

        Args:
            gtrid: the transaction.
            wait: when the coordinator answers.
            deadline_s: the transaction's deadline on the clock; a repeat after it is asked as if it were now.
            branches: how many branches the transaction is known to have; 0 when that is not known.
            repeat: the commit was asked for before, by this call's maker or somebody else.

        Raises:
            CoordinatorUnavailable: it was not reached before the deadline; the transaction is not committed.
            Refused: the coordinator said no.
            OutcomeUnknown: nobody here can tell.
        """
        request = wire.CommitRequest(gtrid=gtrid, wait=wait, branches=branches)
        if repeat:
            deadline_s = max(deadline_s, self._clock.monotonic_s())
        asked = _Asked(request, send_until_s=deadline_s, maybe_executed=repeat)
        return await self._settle(asked, deadline_s + self._outcome_wait_s)

    async def execute(self, request: wire.ExecuteRequest, deadline_s: float) -> Verdict:
        """Send a one-shot transaction, and ask for its outcome until it is known.

        Args:
            request: the transaction, with a gtrid.
            deadline_s: its deadline on the clock.

        Raises:
            CoordinatorUnavailable: it was not reached; nothing was done.
            Refused: the coordinator said no to the only request it was sent; nothing was done.
            OutcomeUnknown: nobody here can tell.
        """
        asked = _Asked(request, send_until_s=-math.inf, maybe_executed=False)
        return await self._settle(asked, deadline_s + self._outcome_wait_s)

    async def rollback(
        self, gtrid: str, reason: str, timeout_s: float, *, branches: int = 0, commit_maybe_asked: bool = True
    ) -> Verdict:
        """Ask for the rollback.

        Args:
            gtrid: the transaction.
            reason: why, for the reports; cut to 1,024 characters.
            timeout_s: how long to wait for the answer. An unanswered rollback needs no more asking: what nobody
                commits rolls back at its deadline.
            branches: as in ``commit``.
            commit_maybe_asked: somebody may have asked for its commit. When certainly nobody did, a coordinator that
                knows nothing of it (any more) is as good as the rollback.

        Raises:
            CoordinatorUnavailable: there was no answer.
            Refused: the coordinator said no; AlreadyDecided when it is committed.
        """
        try:
            request = wire.RollbackRequest(gtrid=gtrid, reason=reason[:REASON_CHARACTERS_MAX], branches=branches)
            answer = await self.ask(request, timeout_s)
        except CallFailed as failure:
            if failure.code == "TRANSACTION_UNKNOWN" and not commit_maybe_asked:
                self._on_stale(gtrid)
                return Verdict(gtrid, Outcome.ABORTED, AbortCause.CLIENT, reason)
            raise no_answer(failure, gtrid, _NOT_ROLLED_BACK.format(gtrid=gtrid)) from failure
        if not isinstance(answer, wire.RollbackResponse):
            raise TypeError(f"the coordinator answered Rollback with a {type(answer).__name__}")
        outcome = outcome_of(answer.outcome) or Outcome.ABORTED
        return Verdict(gtrid, outcome, AbortCause.CLIENT, reason, branches_of(answer.branches))

    async def ask(self, request: Message, timeout_s: float) -> Message:
        """Ask what can be asked twice without harm: once more when the answer is lost, because a connection that
        broke while nobody used it shows that only now.

        Raises:
            CallFailed: there was no answer.
        """
        try:
            return await self._calls.ask(request, timeout_s=timeout_s)
        except CallFailed as failure:
            if failure.code != LOST:
                raise
            log.info("asking again: %s", failure)
        return await self._calls.ask(request, timeout_s=timeout_s)

    async def ask_patiently(self, request: Message, give_up_s: float) -> Message:
        """Ask until somebody answers: a coordinator that restarts is back in a moment.

        Args:
            request: what can be asked any number of times without harm.
            give_up_s: on the clock; past it the last failure is raised.

        Raises:
            CallFailed: the answer was a no, or there was none in time.
        """
        delays = backoff(self._clock)
        while True:
            left_s = give_up_s - self._clock.monotonic_s()
            try:
                return await self._calls.ask(request, timeout_s=max(left_s, LAST_QUESTION_S))
            except CallFailed as failure:
                left_s = give_up_s - self._clock.monotonic_s()
                if failure.answered or left_s <= 0:
                    raise
                log.info("asking again: %s", failure)
            await self._clock.sleep(min(next(delays), left_s))

    async def _settle(self, asked: _Asked, give_up_s: float) -> Verdict:
        try:
            verdict = await self._ask_until(asked, give_up_s)
        except UnknownTransaction:
            self._on_stale(asked.gtrid)
            raise
        except OutcomeUnknown as unknown:
            self._on_unknown(unknown)
            raise
        if verdict.cause is AbortCause.PRESUMED:
            self._on_stale(asked.gtrid)
        return verdict

    async def _ask_until(self, asked: _Asked, give_up_s: float) -> Verdict:
        delays: Iterator[float] | None = None
        while True:
            last = delays is not None and self._clock.monotonic_s() >= give_up_s
            timeout_s = max(give_up_s - self._clock.monotonic_s(), LAST_QUESTION_S)
            retry_after_s = 0.0
            try:
                # The last question is an Inquire, which is answered at once.
                answer = await self._calls.ask(asked.inquiry() if last else asked.next, timeout_s=timeout_s)
            except CallFailed as failure:
                log.info("transaction %s: %s", asked.gtrid, failure)
                asked.on_failure(failure, self._clock.monotonic_s())
            else:
                found = asked.on_answer(answer)
                if isinstance(found, Verdict):
                    return found
                retry_after_s = found
            if last:
                raise asked.unknown(asked.problem)
            if delays is None:
                delays = backoff(self._clock)
            # Not past the end: the last question is asked there.
            delay_s = max(retry_after_s, next(delays))
            await self._clock.sleep(max(min(delay_s, give_up_s - self._clock.monotonic_s()), 0.0))


class _Asked:
    """What was asked so far about one transaction, and what follows from each answer.

    ``next`` is what to ask now.

    Args:
        request: the first request. When its answer is lost a Commit is repeated, and an Execute asked after.
        send_until_s: until when to repeat a request that certainly was not executed.
        maybe_executed: whether the request may have been executed before.
    """

    def __init__(
        self, request: wire.CommitRequest | wire.ExecuteRequest, *, send_until_s: float, maybe_executed: bool
    ) -> None:
        self.gtrid = request.gtrid
        self.next: wire.CommitRequest | wire.ExecuteRequest | wire.InquireRequest = request
        self.problem = "the coordinator has not decided"
        self._request = request
        self._send_until_s = send_until_s
        self._maybe_executed = maybe_executed

    @property
    def branches(self) -> int:
        """How many branches the transaction is known to have; 0 when that is not known."""
        request = self._request
        if isinstance(request, wire.CommitRequest):
            return request.branches
        return len({operation.resource for operation in request.operations})

    def inquiry(self) -> wire.InquireRequest:
        """What asks for the outcome and nothing else."""
        return wire.InquireRequest(gtrid=self.gtrid, branches=self.branches)

    def unknown(self, problem: str) -> OutcomeUnknown:
        """The error for an outcome that nobody here can tell."""
        return OutcomeUnknown(self.gtrid, problem, self.branches)

    def on_failure(self, failure: CallFailed, now_s: float) -> None:
        """Take note, and choose the next question.

        Raises:
            HandfastError: there is no point in asking on.
        """
        self.problem = failure.message
        nothing_done = failure.code in _DID_NOTHING or not (failure.answered or failure.maybe_executed)
        if nothing_done:
            if not self._maybe_executed and now_s >= self._send_until_s:
                raise no_answer(failure, self.gtrid, _NOT_COMMITTED.format(gtrid=self.gtrid)) from failure
            return
        if failure.code == "ALREADY_DECIDED" and isinstance(self.next, wire.CommitRequest):
            # Decided abort, then, and Inquire tells why.
            self.next = self.inquiry()
            return
        if failure.answered and failure.grpc_status not in _INDEFINITE:
            raise self._no(failure) from failure
        self._maybe_executed = True
        if isinstance(self.next, wire.ExecuteRequest):
            self.next = self.inquiry()

    def on_answer(self, answer: Message) -> Verdict | float:
        """The verdict; or, when the answer is that nobody knows yet, how many seconds the coordinator asks us to wait.

        Raises:
            OutcomeUnknown: nobody will ever know.
        """
        if isinstance(answer, wire.CommitResponse | wire.ExecuteResponse):
            verdict = verdict_of(answer)
            if verdict is not None:
                return verdict
            self.problem = answer.reason or "the answer of the only branch was lost"
            self._maybe_executed = True
            self.next = self.inquiry()
            return 0.0
        if not isinstance(answer, wire.InquireResponse):
            raise TypeError(f"the coordinator answered with a {type(answer).__name__}")
        report = report_of(answer)
        if report.standing is Standing.UNKNOWN:
            raise self.unknown(report.reason or "the coordinator's log no longer reaches back to it")
        self._maybe_executed = True
        verdict = _verdict_of_report(report)
        return report.retry_after_s if verdict is None else verdict

    def _no(self, failure: CallFailed) -> HandfastError:
        if self._maybe_executed and failure.grpc_status != _INVALID:
            return self.unknown(failure.message)
        return refused(failure, self.gtrid)


def backoff(clock: Clock) -> Iterator[float]:
    """Delays in seconds that double up to a cap, each cut by up to half at random ("equal jitter", Brooker 2015)."""
    delay_s = BACKOFF_S_MIN
    while True:
        yield delay_s * (1 - clock.jitter() / 2)
        delay_s = min(delay_s * 2, BACKOFF_S_MAX)


def _verdict_of_report(report: OutcomeReport) -> Verdict | None:
    if report.standing is Standing.UNDECIDED or report.outcome is None:
        return None
    return Verdict(report.gtrid, report.outcome, report.cause, report.reason, report.branches)


def no_answer(failure: CallFailed, gtrid: str = "", consequence: str = "") -> HandfastError:
    """The error for a call that certainly committed nothing.

    Args:
        failure: how it failed.
        gtrid: the transaction concerned; empty when there is none.
        consequence: what follows for the transaction, as a sentence's beginning.
    """
    if failure.answered and failure.grpc_status not in _INDEFINITE:
        return refused(failure, gtrid)
    return CoordinatorUnavailable(f"{consequence}{failure}", gtrid=gtrid)
