"""Planted bugs: small changes to the product's code, made at run time, each of which the simulator must find.

A simulator that finds nothing proves nothing unless it is known to find what is there. Each mutant here is a mistake
that somebody has made, or could make, in the protocol, the log, recovery, the participant or the client.
``python -m tests.simulation --mutants`` looks for a seed that finds each; docs/testing.md has the table.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from coordinator.log.memory import MemoryLog, _Durable
from coordinator.log.records import DecisionRecord
from coordinator.log.store import LogRefused
from coordinator.protocol import events as e
from coordinator.protocol import table
from coordinator.protocol.effects import CommitRecord, Effects
from coordinator.protocol.states import Decision, Outcome, TransactionState, Vote
from coordinator.protocol.transaction import _HANDLERS, GlobalTransaction
from coordinator.runtime.driver import Driver
from coordinator.runtime.gtrids import Gtrids
from coordinator.runtime.in_memory import Transactions
from coordinator.runtime.recovery import Orphan, Recovery
from coordinator.runtime.requests import Requests, Standing
from coordinator.runtime.running_cohort import RunningCohort, _Acknowledgements, _Votes
from handfast.errors import CoordinatorUnavailable
from handfast.frames import CallFailed
from handfast.settling import _Asked
from handfast.v1 import coordinator_pb2 as c
from handfast.xid import Gtrid
from participant.driver import Driver as BranchDriver
from participant.postgres.finish import Finisher
from participant.protocol import Branches, Fate, Voted
from participant.protocol import Vote as BranchVote
from participant.recovery import Recovery as BranchRecovery
from participant.resource import End, Found, Stand
from tests.simulation import row_mutants
from tests.simulation.disk import SimulatedLog
from tests.simulation.workload import scenario
from tests.simulation.world import Report, run

SEEDS_MAX = 2000


@dataclass(frozen=True, slots=True)
class Change:
    """One function, or one row of a table, replaced.

    Args:
        owner: the class whose method it is, or the table in which it stands.
        key: its name, or its key.
        mutated: makes the wrong one from the right one.
    """

    owner: type | dict[Any, Any]
    key: Any
    mutated: Callable[[Any], Any]

    def put(self, function: Any) -> None:
        """Replace it; None takes a row away that was not there."""
        if not isinstance(self.owner, dict):
            setattr(self.owner, self.key, function)
        elif function is None:
            del self.owner[self.key]
        else:
            self.owner[self.key] = function

    @property
    def present(self) -> Any:
        """What stands there now; None when a table has no such row."""
        return self.owner.get(self.key) if isinstance(self.owner, dict) else self.owner.__dict__[self.key]


@dataclass(frozen=True, slots=True)
class Mutant:
    """One planted bug.

    Args:
        name: what is wrong, in a few words.
        seed: the one that is known to find it.
        changes: what is replaced; more than one where the product has a second guard against the same mistake.
    """

    name: str
    seed: int
    changes: tuple[Change, ...]

    @contextlib.contextmanager
    def planted(self) -> Iterator[None]:
        """Plant it for a while."""
        right = [change.present for change in self.changes]
        try:
            for change in self.changes:
                change.put(change.mutated(change.present))
            yield
        finally:
            for change, function in zip(self.changes, right, strict=True):
                change.put(function)


def may(*states: TransactionState) -> Callable[[Any], Any]:
    """A row of the transition table that allows what the right one does not."""
    return lambda right: (*right, *states)


def always(value: Any) -> Callable[[Any], Any]:
    """A function that answers the same to everything."""
    return lambda right: lambda *args, **rest: value


# -- the coordinator's protocol --------------------------------------------------------------------------------------


def _send_before_force(right: Any) -> Any:
    def _force(self: Driver, running: Any, branches: Any) -> None:
        self._send_decisions(running, running.held)
        right(self, running, branches)

    return _force


def _force_without_a_look_at_the_clock(right: Any) -> Any:
    def _force(self: Driver, running: Any, branches: Any) -> None:
        record = DecisionRecord(running.gtrid, Decision.COMMIT, branches, self.clock.unix_ms())
        self.log.decide(record, partial(self.on_decided, running))

    return _force


def _count_read_only(right: Any) -> Any:
    def _decide(self: GlobalTransaction, event: e.VoteReceived) -> Effects:
        if any(branch.vote is Vote.YES for branch in self.branches.values()) and not self._is_late(event):
            self.offered = True
            record = CommitRecord(tuple((branch.bqual, branch.proof) for branch in self.branches.values()))
            return Effects(force=record, send_after_force=tuple(self._send_commits()))
        effects: Effects = right(self, event)
        return effects

    return _decide


def _end_before_acknowledged(right: Any) -> Any:
    def on_delivery_failed(self: GlobalTransaction, event: e.DeliveryFailed) -> Effects:
        branch = self.branches[event.bqual]
        if self.state is TransactionState.COMMITTING and not branch.ended:
            branch.end(Outcome.COMMITTED)
            return self._end_when_done()
        effects: Effects = right(self, event)
        return effects

    return on_delivery_failed


def _lost_vote_is_read_only(right: Any) -> Any:
    def on_vote_lost(self: GlobalTransaction, event: e.VoteLost) -> Effects:
        if self.state is TransactionState.PREPARING:
            return self.on_vote_received(e.VoteReceived(event.bqual, Vote.READ_ONLY, 0.0))
        effects: Effects = right(self, event)
        return effects

    return on_vote_lost


def _retry_given_up(right: Any) -> Any:
    def on_delivery_failed(self: GlobalTransaction, event: e.DeliveryFailed) -> Effects:
        effects: Effects = right(self, event)
        late = any(retry.attempts >= 2 for retry in effects.retries)
        return Effects() if late else effects

    return on_delivery_failed


# -- the coordinator's runtime ---------------------------------------------------------------------------------------


def _lost_one_phase_is_abort(right: Any) -> Any:
    def _on_one_phase_failed(self: Driver, running: Any, bqual: str, failure: Any) -> None:
        self.feed(running, e.OnePhaseAnswered(bqual, Outcome.ABORTED, failure.message, "VOTE_LOST"))

    return _on_one_phase_failed


def _sweep_without_second_list(right: Any) -> Any:
    async def _sweep_resource(self: Recovery, resource: str) -> int:
        first = await self._prepared(resource)
        candidates = {key for key in first if key[0] not in self._driver.transactions}
        judged = [self._judge_guarded(resource, gtrid, bqual) for gtrid, bqual in sorted(candidates)]
        return sum([await self._end(orphan) for orphan in judged if orphan is not None])

    return _sweep_resource


class _NothingActive:
    """A driver that says of no transaction that it is at work on it."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self.transactions = Transactions()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._driver, name)


def _sweep_ignores_active(right: Any) -> Any:
    async def _sweep_resource(self: Recovery, resource: str) -> int:
        judged = [(key, self._driver.log.lookup(key[0])) for key in sorted(await self._prepared(resource))]
        there = await self._prepared(resource)
        driver: Any = self._driver
        self._driver = cast("Driver", _NothingActive(driver))
        try:
            ours = [key for key, logged in judged if logged is None and key in there and "-zz-" not in key[0]]
            return sum([await self._end(Orphan(*key, Standing.ABORT, "")) for key in ours])
        finally:
            self._driver = driver

    return _sweep_resource


def _presume_abort_of_one_phase(right: Any) -> Any:
    def _standing_without_record(self: Requests, gtrid: str, two_phase: bool) -> Standing:
        standing: Standing = right(self, gtrid, True)
        return standing

    return _standing_without_record


def _presume_abort_past_the_horizon(right: Any) -> Any:
    def _standing_without_record(self: Requests, gtrid: str, two_phase: bool) -> Standing:
        standing: Standing = right(self, gtrid, two_phase)
        forgotten = two_phase and Gtrid.parse(gtrid).epoch <= self.gtrids.epoch
        return Standing.ABORT if forgotten and standing is Standing.UNKNOWN else standing

    return _standing_without_record


def _presume_abort_of_later_epochs(right: Any) -> Any:
    def _standing_without_record(self: Requests, gtrid: str, two_phase: bool) -> Standing:
        standing: Standing = right(self, gtrid, two_phase)
        later = two_phase and Gtrid.parse(gtrid).epoch > self.gtrids.epoch
        return Standing.ABORT if later else standing

    return _standing_without_record


def _claim_marks_nothing(right: Any) -> Any:
    def claim(self: Gtrids, gtrid: str) -> bool:
        return self.is_claimable(gtrid)

    return claim


def _execute_again(right: Any) -> Any:
    def execute(self: Any, *args: Any, **rest: Any) -> None:
        self.driver.find = lambda gtrid: None
        self.gtrids.is_claimable = lambda gtrid: True
        try:
            right(self, *args, **rest)
        finally:
            del self.driver.find, self.gtrids.is_claimable

    return execute


# -- the log ---------------------------------------------------------------------------------------------------------


def _answer_before_forced(right: Any) -> Any:
    def _submit(self: SimulatedLog, submission: Any) -> None:
        right(self, submission)
        if type(submission).__name__ == "Decide":
            callback, submission.callback = submission.callback, lambda result: None
            self._loop().call_soon(callback, submission.record.decision)

    return _submit


def _drop_unended(right: Any) -> Any:
    def _drop(self: _Durable, order: Any) -> int:
        old = [g for g, known in self.transactions.items() if known.decision.decided_unix_ms < order.horizon_unix_ms]
        for gtrid in old:
            del self.transactions[gtrid]
        return len(old)

    return _drop


def _drop_at_end(right: Any) -> Any:
    def _end(self: _Durable, record: Any) -> bool:
        return self.transactions.pop(record.gtrid, None) is not None

    return _end


def _same_epoch(right: Any) -> Any:
    async def open(self: MemoryLog) -> Any:
        self._durable.epoch = min(self._durable.epoch, 0)
        return await right(self)

    return open


def _survive_failed_fsync(right: Any) -> Any:
    def _fail(self: MemoryLog, batch: Any, error: Exception) -> None:
        self._deliver_failure(batch, LogRefused(str(error)))
        self._set_alarm()

    return _fail


# -- the participant -------------------------------------------------------------------------------------------------


def _prepare_again_after_no(right: Any) -> Any:
    def on_prepare(self: Branches, gtrid: str, *args: Any, **rest: Any) -> Any:
        branch = self._ended.find(gtrid)
        if branch is not None and branch.fate is not Fate.COMMITTED:
            self._ended.drop(gtrid)
        return right(self, gtrid, *args, **rest)

    return on_prepare


def _vote_before_prepared(right: Any) -> Any:
    async def _prepare(self: BranchDriver[Any], branch: Any, operations: Any) -> Voted:
        self._tasks.start(right(self, branch, operations))
        return Voted(BranchVote.YES, "")

    return _prepare


def _missing_is_success(right: Any) -> Any:
    async def _proved_end(self: Finisher, xid: Any, proof: str) -> End:
        return End(Fate.COMMITTED, "")

    return _proved_end


def _lost_prepare_is_no(right: Any) -> Any:
    async def settle_lost(self: Finisher, xid: Any, *how: Any) -> Found:
        return Found(Stand.ABORTED, "")

    return settle_lost


def _act_on(standing: int) -> Callable[[Any], Any]:
    """Take a standing for an abort."""

    def misread(answer: c.InquireResponse) -> c.InquireResponse:
        if answer.standing == standing:
            answer.standing = c.STANDING_ABORT
        return answer

    return _hearing(misread, lambda failure: failure)


def _hearing(answered: Callable[[Any], Any], failed: Callable[[CallFailed], Any]) -> Callable[[Any], Any]:
    """A recovery that hears other answers than it is given."""

    def mutated(right: Any) -> Any:
        def __init__(self: Any, resource: Any, driver: Any, inquire: Any, *rest: Any) -> None:
            async def heard(gtrid: str, bqual: str) -> Any:
                try:
                    return answered(await inquire(gtrid, bqual))
                except CallFailed as failure:
                    instead = failed(failure)
                if isinstance(instead, CallFailed):
                    raise instead
                return instead

            right(self, resource, driver, heard, *rest)

        return __init__

    return mutated


_silence_is_abort = _hearing(lambda answer: answer, lambda failure: c.InquireResponse(standing=c.STANDING_ABORT))


# -- the client ------------------------------------------------------------------------------------------------------


def _lost_answer_is_abort(right: Any) -> Any:
    def on_failure(self: _Asked, failure: Any, now_s: float) -> None:
        raise CoordinatorUnavailable(str(failure), gtrid=self.gtrid)

    return on_failure


S = TransactionState


def _mutant(name: str, seed: int, owner: Any, key: Any, mutated: Callable[[Any], Any], *more: Change) -> Mutant:
    return Mutant(name, seed, (Change(owner, key, mutated), *more))


MUTANTS = (
    _mutant("Commit is sent before its record is forced", 0, Driver, "_force", _send_before_force),
    _mutant(
        "the deadline does not bind the decision",
        *(91, GlobalTransaction, "_is_late", always(False)),
        Change(Driver, "_force", _force_without_a_look_at_the_clock),
    ),
    _mutant("a READ_ONLY branch counts as prepared", 3, GlobalTransaction, "_decide", _count_read_only),
    _mutant(
        "a lost vote counts as READ_ONLY",
        *(73, _HANDLERS, e.VoteLost, _lost_vote_is_read_only),
        Change(table._PREPARING, e.VoteLost, may(S.PREPARING, S.COMMITTED)),
    ),
    _mutant(
        "the end is written before it is acknowledged",
        *(7, _HANDLERS, e.DeliveryFailed, _end_before_acknowledged),
        Change(table._COMMITTING, e.DeliveryFailed, may(S.COMMITTED)),
    ),
    _mutant("a decided commit is retried twice, then no more", 7, _HANDLERS, e.DeliveryFailed, _retry_given_up),
    _mutant(
        "rollback is possible while the record is being forced",
        *(167, GlobalTransaction, "_out_of_our_hands", lambda right: property(lambda self: self.one_phase)),
        Change(table._ABORTING, e.DecisionStood, lambda right: (S.COMMITTING,)),
        Change(table._ABORTED, e.DecisionStood, lambda right: (S.COMMITTING,)),
    ),
    _mutant("a lost one-phase answer is an abort", 12, Driver, "_on_one_phase_failed", _lost_one_phase_is_abort),
    _mutant("the sweep lists only once", 20, Recovery, "_sweep_resource", _sweep_without_second_list),
    _mutant("the sweep does not look at what is active", 2, Recovery, "_sweep_resource", _sweep_ignores_active),
    _mutant(
        "abort is presumed of a one-phase commit",
        *(0, Requests, "_standing_without_record", _presume_abort_of_one_phase),
    ),
    _mutant(
        "abort is presumed past the log's horizon",
        *(318, Requests, "_standing_without_record", _presume_abort_past_the_horizon),
    ),
    _mutant(
        "abort is presumed of a later epoch",
        *(0, Requests, "_standing_without_record", _presume_abort_of_later_epochs),
    ),
    _mutant("a claimed name can be claimed again", 31, Gtrids, "claim", _claim_marks_nothing),
    _mutant("a repeated Execute runs again", 78, Requests, "execute", _execute_again),
    _mutant("the log answers before it forces", 0, SimulatedLog, "_submit", _answer_before_forced),
    _mutant("old transactions are dropped though not ended", 355, _Durable, "_drop", _drop_unended),
    _mutant("an ended transaction is forgotten at once", 0, _Durable, "_end", _drop_at_end),
    _mutant("the epoch does not grow", 0, MemoryLog, "open", _same_epoch),
    _mutant("a failed fsync is taken for a refusal", 425, MemoryLog, "_fail", _survive_failed_fsync),
    _mutant("a Rollback leaves no tombstone", 46, Branches, "_bury", always(None)),
    _mutant("a Prepare after NO is begun again", 46, Branches, "on_prepare", _prepare_again_after_no),
    _mutant("YES is voted before PREPARE is done", 0, BranchDriver, "_prepare", _vote_before_prepared),
    _mutant("42704 is taken for success", 26, Finisher, "_proved_end", _missing_is_success),
    _mutant("a lost answer to PREPARE is taken for NO", 85, Finisher, "settle_lost", _lost_prepare_is_no),
    _mutant("UNDECIDED is taken for an abort", 1, BranchRecovery, "__init__", _act_on(c.STANDING_UNDECIDED)),
    _mutant("UNKNOWN is taken for an abort", 0, BranchRecovery, "__init__", _act_on(c.STANDING_UNKNOWN)),
    _mutant("silence is taken for an abort", 0, BranchRecovery, "__init__", _silence_is_abort),
    _mutant("a client takes a lost answer for an abort", 7, _Asked, "on_failure", _lost_answer_is_abort),
    _mutant(
        "a row's decision is taken before it is durable",
        *(2, RunningCohort, "_offer", row_mutants.decided_before_durable),
        Change(RunningCohort, "_on_standings", always(None)),
    ),
    _mutant("a vote of one row counts for another", 2, _Votes, "columns", row_mutants.votes_of_other_rows),
    _mutant(
        "an acknowledgement of one row counts for another",
        *(181, _Acknowledgements, "columns", row_mutants.acknowledgements_of_other_rows),
    ),
    _mutant(
        "a row that has left does not hear of its record",
        *(120, RunningCohort, "_on_standings", row_mutants.log_speaks_to_rows_only),
    ),
    _mutant(
        "the deadline does not bind a cohort",
        *(242, RunningCohort, "__init__", row_mutants.clock_stands_at_the_deadline),
        Change(RunningCohort, "on_deadline", always(None)),
    ),
    _mutant(
        "a row's claimed name can be claimed again",
        *(36, Gtrids, "claim_rows", row_mutants.claims_of_rows_mark_nothing),
    ),
)


def find(mutant: Mutant, first: int = 0) -> tuple[int, Report] | None:
    """Look for a seed that finds a mutant, from one on; None when ``SEEDS_MAX`` of them don't."""
    with mutant.planted():
        for seed in range(first, first + SEEDS_MAX):
            report = run(scenario(seed))
            if report.violation is not None:
                return seed, report
    return None
