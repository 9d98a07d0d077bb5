"""Drives one-shot transactions that came together, as long as they go the common way together.

A ``Cohort`` knows what a row's transaction would want next; here it is done, for many rows with one message, one
reading of the clock and one answer: what ``Driver`` does for each transaction by itself. Nothing else is done here. As
soon as something else is to be done for a row, because of what came for it or because somebody asked for it, it is
taken out (``taken_out``): it becomes a ``Running`` like all others, with its history and with what is under way for it,
and the driver goes on from there. So this module has no retries, no aborts, no reports and no second opinion.

What is under way when a row is taken out still answers here, and is handed on: its votes, the log's word about its
record, its acknowledgements.

Whoever looks on (an observer, a trace) sees each transaction by itself. While there is an observer, no row stays a row.
With a trace each row has a machine beside it that takes every step as well; the trace is written from that, and where
the machine wants something else than the cohort, that is a defect, and the row is set aside.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

from google.protobuf.message import Message

from coordinator.log.records import CommitRows, EndRows
from coordinator.log.store import LogBroken, LogRefused
from coordinator.protocol import events as e
from coordinator.protocol.cohort import COMMITTING, ENDED, LEFT, OFFERED, VOTING, Cohort
from coordinator.protocol.effects import NOTHING
from coordinator.protocol.members import COMMIT, COMMITTED, YES
from coordinator.protocol.states import Decision, TransactionState
from coordinator.protocol.transaction import GlobalTransaction
from coordinator.protocol.values import made_once, value
from coordinator.runtime.answers import tell
from coordinator.runtime.driver import Driver
from coordinator.runtime.messages import PROOF_LENGTH_MAX, left_ms
from coordinator.runtime.running import Running, Waiter
from coordinator.runtime.shadows import Shadows
from handfast.catalog import HandfastFault
from handfast.frames import CallFailed
from handfast.v1 import participant_pb2 as p
from handfast.v1 import types_pb2 as t
from handfast.xid import named_unix_ms

logger = logging.getLogger(__name__)

_ended_as = made_once(e.BranchEnded)

_STATES = {
    VOTING: TransactionState.PREPARING,
    OFFERED: TransactionState.PREPARING,
    COMMITTING: TransactionState.COMMITTING,
    ENDED: TransactionState.COMMITTED,
    LEFT: TransactionState.FORGOTTEN,  # here, at least
}


class RowsAnswer(Protocol):
    """Tells whoever sent the rows what became of them, each once."""

    def committed(self, rows: Sequence[int], gtrids: Sequence[str], results: Sequence[bytes]) -> None:
        """These have committed; ``results`` has one for each operation of each, row by row."""

    def one(self, row: int, answer: Running | HandfastFault) -> None:
        """What became of this one."""


@value
class RowsWork:
    """What rows are to do: one operation for each branch.

    Args:
        bquals: the branches, in the order of the request.
        names: each one's operation.
        payloads: by branch, then by row.
    """

    bquals: tuple[str, ...]
    names: tuple[str, ...]
    payloads: Sequence[Sequence[bytes]]


class Keeper(Protocol):
    """Keeps the time of cohorts (``Cohorts``)."""

    driver: Driver

    def no_deadline(self, cohort: RunningCohort) -> None:
        """All of its rows are decided, or gone."""

    def limit_wait(self, decided: DecidedRows, due_s: float) -> None:
        """Nobody waits longer than that for these rows."""

    def no_wait(self, decided: DecidedRows) -> None:
        """Nobody waits for these rows any more."""


class _Votes:
    """Takes the votes of one branch."""

    __slots__ = ("_branch", "_cohort")

    def __init__(self, cohort: RunningCohort, branch: int) -> None:
        self._cohort = cohort
        self._branch = branch

    def columns(self, rows: Sequence[int], answer: Message, start: int) -> None:
        self._cohort.on_votes(self._branch, rows, answer, start)

    def single(self, row: int, reply: Message | CallFailed) -> None:
        self._cohort.on_vote(self._branch, row, reply)


class DecidedRows:
    """Rows whose commit stands, and who still has to acknowledge it."""

    __slots__ = ("cohort", "rows", "unfinished")

    def __init__(self, cohort: RunningCohort, rows: Sequence[int]) -> None:
        self.cohort = cohort
        self.rows = rows
        self.unfinished = len(rows)


class _Acknowledgements:
    """Takes those of one branch."""

    __slots__ = ("_branch", "_decided")

    def __init__(self, decided: DecidedRows, branch: int) -> None:
        self._decided = decided
        self._branch = branch

    def columns(self, rows: Sequence[int], answer: Message, start: int) -> None:
        decided = self._decided
        decided.cohort.on_acknowledged(decided, self._branch, [decided.rows[row] for row in rows])

    def single(self, row: int, reply: Message | CallFailed) -> None:
        decided = self._decided
        if type(reply) is p.ParticipantCommitResponse and reply.outcome == t.OUTCOME_COMMITTED and not reply.evidence:
            decided.cohort.on_acknowledged(decided, self._branch, (decided.rows[row],))
        else:
            decided.cohort.on_not_acknowledged(self._branch, decided.rows[row], reply)


class RunningCohort:
    """A cohort in memory, and what is kept beside it; made by ``Cohorts``."""

    def __init__(
        self,
        cohorts: Keeper,
        gtrids: Sequence[str],
        work: RowsWork,
        timeout_s: float,
        client: str,
        at_decision: bool,
        answer: RowsAnswer,
    ) -> None:
        driver = cohorts.driver
        now_s, self.begun_unix_ms = driver.clock.now_s(), driver.clock.unix_ms()
        self.cohort = Cohort(gtrids, work.bquals, now_s + timeout_s, now_s, self.begun_unix_ms)
        self._cohorts = cohorts
        self._driver = driver
        self._bquals = work.bquals
        self._names = work.names
        self._payloads = work.payloads  # dropped when all are decided
        self._timeout_s = timeout_s
        self._client = client
        self._at_decision = at_decision
        self._answer = answer
        self._results: tuple[list[bytes | None], ...] = tuple([None] * len(gtrids) for _ in work.bquals)
        self._undecided = self._open = len(gtrids)
        self._left: dict[int, Running] = {}
        self._shadows = Shadows(self.cohort, driver.trace, self.begun_unix_ms, client) if driver.trace else None
        # No end is noted before the time in its transaction's name, or the clean-up could drop it too early.
        self._named_unix_ms = max(map(named_unix_ms, {gtrid[: gtrid.rindex("-")] + "-0" for gtrid in gtrids}))

    # -- phase one -------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Send Prepare to every branch."""
        self._guarded(range(len(self.cohort.gtrids)), self._ask_for_votes)

    def _ask_for_votes(self) -> None:
        gtrids = self.cohort.gtrids
        # A little past the deadline: the abort comes from the deadline, and this only ends the wait for the vote.
        timeout_s = self._timeout_s + 1.0
        for branch, bqual in enumerate(self._bquals):
            columns = p.PrepareColumns(bqual=bqual, name=self._names[branch], timeout_ms=left_ms(self._timeout_s))
            columns.gtrids.extend(gtrids)
            columns.payloads.extend(self._payloads[branch])
            votes = _Votes(self, branch)
            self._driver.transport.send_columns(bqual, columns, len(gtrids), votes, timeout_s=timeout_s)

    def on_votes(self, branch: int, rows: Sequence[int], answer: Any, start: int) -> None:
        """A branch has voted YES in these rows: row ``i`` of them by row ``start + i`` of the answer."""
        driver, stop = self._driver, start + len(rows)
        if driver.closed:
            return
        proofs, results = answer.proofs[start:stop], answer.results[start:stop]
        now_s = driver.clock.now_s()
        odd = now_s > self.cohort.deadline_s or driver.observers or max(map(len, proofs)) > PROOF_LENGTH_MAX
        if odd or self._left:
            stay = [] if odd else [at for at, row in enumerate(rows) if row not in self._left]
            for at in set(range(len(rows))).difference(stay):
                vote = p.PrepareResponse(vote=t.VOTE_YES, proof=proofs[at], results=[results[at]])
                self.on_vote(branch, rows[at], vote)
            rows, proofs, results = ([of[at] for at in stay] for of in (rows, proofs, results))
            if not rows:
                return
        self._guarded(rows, partial(self._take_votes, branch, rows, proofs, results, now_s))

    def _take_votes(
        self, branch: int, rows: Sequence[int], proofs: Sequence[str], results: Sequence[bytes], now_s: float
    ) -> None:
        unix_ms = self._driver.clock.unix_ms()
        complete = self.cohort.voted(branch, rows, proofs, now_s, unix_ms)
        kept = self._results[branch]
        for row, result in zip(rows, results, strict=True):
            kept[row] = result
        bqual, kept_proofs = self._bquals[branch], self.cohort.proofs[branch]
        if self._shadows is not None:
            self._shadows.step(rows, complete, lambda row: e.VoteReceived(bqual, YES, now_s, kept_proofs[row]))
        if complete:
            self._offer(complete, unix_ms)

    def on_vote(self, branch: int, row: int, reply: Message | CallFailed) -> None:
        """A branch has answered Prepare in this row, by itself."""
        if not self._driver.closed:
            self._alone(row, self._driver.on_vote, self._bquals[branch], reply)

    # -- decision --------------------------------------------------------------------------------------------------

    def _offer(self, rows: Sequence[int], unix_ms: int) -> None:
        gtrids, begun, client = self.cohort.gtrids, self.begun_unix_ms, self._client
        proofs = [[of_branch[row] for row in rows] for of_branch in self.cohort.proofs]
        records = CommitRows([gtrids[row] for row in rows], self._bquals, proofs, unix_ms, begun, client)
        if self._driver.clock.now_s() > self.cohort.deadline_s:
            # The cohort went by the time of the votes, and this process may have stood still since then.
            for row in rows:
                self._alone(row, self._driver.on_too_late_to_force)
            return
        self._driver.log.decide_all(records, partial(self._on_standings, rows))

    def _on_standings(self, rows: Sequence[int], standings: Sequence[Decision | LogRefused | LogBroken]) -> None:
        driver, last = self._driver, standings[-1]
        if isinstance(last, LogBroken):
            driver.on_log_broken(last)
            return
        if driver.closed:
            return  # the next start finds what stands in the log
        # Single messages where columns can't go: their way may have broken since phase one.
        alone = bool(driver.observers) or not all(map(driver.transport.takes_columns, self._bquals))
        if alone or self._left or standings.count(COMMIT) != len(rows):
            for row, standing in zip(rows, standings, strict=True):
                if alone or row in self._left or standing is not COMMIT:
                    self._alone(row, driver.on_decided, standing)
            rows = [row for row in rows if row not in self._left]
        if rows:
            self._guarded(rows, partial(self._tell_decision, rows))

    def _tell_decision(self, rows: Sequence[int]) -> None:
        driver = self._driver
        now_s, unix_ms = driver.clock.now_s(), driver.clock.unix_ms()
        if self._shadows is not None:
            self._shadows.step(rows, (), lambda row: e.decision_stood(COMMIT))
        # At the decision there is more to be told of each than that it commits: its branches have not applied it.
        stood = unix_ms, e.decision_stood(COMMIT)
        shown = [self._shown(row, stood) for row in rows] if self._at_decision else ()
        self.cohort.decided(rows, now_s, unix_ms)
        self._fewer_undecided(len(rows))
        gtrids = [self.cohort.gtrids[row] for row in rows]
        if self._at_decision:
            # Before anything else can fail: from here on nobody waits for these rows.
            for row, running in zip(rows, shown, strict=True):
                tell(running, Waiter(partial(self._answer.one, row), True), running)
        decided = DecidedRows(self, rows)
        self._cohorts.limit_wait(decided, now_s + driver.options.apply_wait_s)
        for branch, bqual in enumerate(self._bquals):
            columns = p.CommitColumns(bqual=bqual)
            columns.gtrids.extend(gtrids)
            columns.proofs.extend([self.cohort.proofs[branch][row] for row in rows])
            told = _Acknowledgements(decided, branch)
            timeout_s = driver.options.reply_timeout_s
            driver.transport.send_columns(bqual, columns, len(rows), told, timeout_s=timeout_s)

    # -- phase two -------------------------------------------------------------------------------------------------

    def on_acknowledged(self, decided: DecidedRows, branch: int, rows: Sequence[int]) -> None:
        """A branch has committed in these rows."""
        if self._driver.closed:
            return
        if self._left or self._driver.observers:
            done = p.ParticipantCommitResponse(outcome=t.OUTCOME_COMMITTED)
            for row in rows:
                if row in self._left or self._driver.observers:
                    self.on_not_acknowledged(branch, row, done)
            rows = [row for row in rows if row not in self._left]
        if rows:
            self._guarded(rows, partial(self._take_acknowledgements, decided, branch, rows))

    def _take_acknowledgements(self, decided: DecidedRows, branch: int, rows: Sequence[int]) -> None:
        now_s, unix_ms = self._driver.clock.now_s(), self._driver.clock.unix_ms()
        ended = self.cohort.acknowledged(branch, rows, now_s, unix_ms)
        if self._shadows is not None:
            told = _ended_as(self._bquals[branch], COMMITTED)
            self._shadows.step(rows, ended, lambda row: told)
        if ended:
            decided.unfinished -= len(ended)
            if not decided.unfinished:
                self._cohorts.no_wait(decided)
            self._end(ended, unix_ms)

    def on_not_acknowledged(self, branch: int, row: int, reply: Message | CallFailed) -> None:
        """A branch has answered Commit in this row otherwise, or the row is none any more."""
        if not self._driver.closed:
            self._alone(row, self._driver.on_acknowledged, self._bquals[branch], reply)

    def _end(self, rows: Sequence[int], unix_ms: int) -> None:
        driver = self._driver
        gtrids = [self.cohort.gtrids[row] for row in rows]
        ended_unix_ms = max(unix_ms, self._named_unix_ms)
        driver.log.end_all(EndRows(gtrids, COMMITTED, ended_unix_ms))
        forget = driver.transactions.rows.__delitem__
        for gtrid in gtrids:
            forget(gtrid)
        driver.finished.keep_rows(gtrids, self)
        driver.counters["committed"] += len(rows)
        driver.count_out(self._client, len(rows))
        if not self._at_decision:
            self._tell_committed(rows, gtrids)
        self._fewer_open(len(rows))

    def _tell_committed(self, rows: Sequence[int], gtrids: Sequence[str]) -> None:
        columns = self._results
        try:
            self._answer.committed(rows, gtrids, [column[row] or b"" for row in rows for column in columns])
        except Exception:
            # Whoever asked may have a defect; the transactions go on, and can be asked for again.
            logger.exception("telling the outcome of %d transactions failed, %s the first", len(rows), gtrids[0])

    # -- time ------------------------------------------------------------------------------------------------------

    def on_deadline(self) -> None:
        """What is not decided now goes on by itself: to its abort, if the log has not got it yet."""
        if not self._driver.closed:
            for row, stage in enumerate(self.cohort.stages):
                if stage in (VOTING, OFFERED):
                    self._alone(row, self._on_deadline_alone)

    def _on_deadline_alone(self, running: Running) -> None:
        self._driver.deadlines.cancel(running.gtrid)  # it has come, and must not come again
        self._driver.on_deadline(running.gtrid)

    def on_wait_over(self, decided: DecidedRows) -> None:
        """Nobody waits for these any longer; whoever did is told which branches are pending."""
        if not self._driver.closed:
            for row in decided.rows:
                if self.cohort.stages[row] != ENDED:
                    self._alone(row, self._on_wait_over_alone)

    def _on_wait_over_alone(self, running: Running) -> None:
        self._driver.answers.forget(running.gtrid)  # the wait of somebody who has asked for it since
        self._driver.answers.wait_over(running.gtrid)

    def _fewer_undecided(self, count: int) -> None:
        self._undecided -= count
        if not self._undecided:
            self._payloads = ()
            self._cohorts.no_deadline(self)

    def _fewer_open(self, count: int) -> None:
        self._open -= count
        if not self._open:
            del self._answer  # the way to a client that may be gone, while rows that have ended are kept
            self._shadows = None

    # -- leaving ---------------------------------------------------------------------------------------------------

    def states(self) -> dict[str, TransactionState]:
        """See Rows."""
        return {gtrid: _STATES[stage] for gtrid, stage in zip(self.cohort.gtrids, self.cohort.stages, strict=True)}

    def taken_out(self, gtrid: str) -> Running:
        """See Rows."""
        return self._out(self.cohort.gtrids.index(gtrid))

    def _out(self, row: int) -> Running:
        """The row as a transaction by itself, which it is from now on."""
        running = self._left.get(row)
        if running is not None:
            return running
        stage, awaits = self.cohort.stages[row], self.cohort.awaits(row)
        defect: Exception | None = None
        try:
            machine, effects, history = self.cohort.leave(row)
        except Exception as problem:  # noqa: BLE001 - reported by set_aside
            defect = problem
            machine, effects, history = GlobalTransaction(self.cohort.gtrids[row], self.cohort.deadline_s), NOTHING, []
        running = self._left[row] = self._running(row, machine, history)
        driver, gtrid = self._driver, machine.gtrid
        del driver.transactions.rows[gtrid]
        driver.transactions.single[gtrid] = running
        if stage in (VOTING, OFFERED):
            running.held = effects.send_after_force  # none, while votes are missing
            running.deadline_unix_ms = self.begun_unix_ms + int(self._timeout_s * 1000)
            running.operations = self._operations(row)
            driver.deadlines.add(gtrid, machine.deadline_s)
            self._fewer_undecided(1)
        else:
            running.in_flight.update(awaits)
            running.decided_unix_ms = _decided_unix_ms(history)
        if stage in (VOTING, OFFERED) or not self._at_decision:
            running.waiters.append(Waiter(partial(self._answer.one, row), self._at_decision))
        self._fewer_open(1)
        if defect is not None:
            driver.set_aside(running, defect)
        return running

    def _operations(self, row: int) -> dict[str, list[t.Operation]]:
        return {
            bqual: [t.Operation(resource=bqual.partition(".")[0], name=name, payload=payloads[row])]
            for bqual, name, payloads in zip(self._bquals, self._names, self._payloads, strict=True)
        }

    def shown(self, gtrid: str) -> Running:
        """See Rows."""
        running = self._shown(self.cohort.gtrids.index(gtrid))
        running.ended_unix_ms = running.history[-1][0]
        return running

    def _shown(self, row: int, *more: tuple[int, e.Event]) -> Running:
        """What a row would be by itself that has been decided, or is so by what happens now; it stays a row."""
        history = [*self.cohort.history(row), *more]
        machine = GlobalTransaction(self.cohort.gtrids[row], self.cohort.deadline_s)
        for _, event in history:
            machine.step(event)
        running = self._running(row, machine, history)
        running.decided_unix_ms = _decided_unix_ms(history)
        return running

    def _running(self, row: int, machine: GlobalTransaction, history: list[tuple[int, e.Event]]) -> Running:
        running = Running(machine, self.begun_unix_ms, client=self._client)
        running.one_shot = True
        running.history = history
        running.result_places = tuple([(bqual, 0) for bqual in self._bquals])
        for bqual, results in zip(self._bquals, self._results, strict=True):
            result = results[row]
            if result is not None:
                running.results[bqual] = [result]
        return running

    def _guarded(self, rows: Sequence[int], step: Callable[[], None]) -> None:
        """Do something for these rows; when it shows a defect, they are set aside as any transaction is."""
        try:
            step()
        except Exception as defect:
            logger.exception("rows of a cohort are set aside")
            for row in rows:
                if row in self._left or self.cohort.gtrids[row] in self._driver.transactions.rows:
                    self._driver.set_aside(self._out(row), defect)

    def _alone(self, row: int, step: Callable[..., None], *told: object) -> None:
        """Do something for a row as for any other transaction; when it shows a defect, the other rows go on."""
        running = self._out(row)
        try:
            step(running, *told)
        except Exception as defect:  # noqa: BLE001 - reported by set_aside
            self._driver.set_aside(running, defect)


def _decided_unix_ms(history: list[tuple[int, e.Event]]) -> int:
    return next((at for at, event in history if type(event) is e.DecisionStood), 0)
