"""The one loop: what is forced before what is sent, and who is told when."""

from __future__ import annotations

import pytest

from coordinator.protocol.states import Cause, Outcome, TransactionState
from coordinator.runtime.failpoints import Failpoints
from coordinator.runtime.options import DriverOptions
from coordinator.runtime.requests import Standing
from coordinator.runtime.running import Running
from handfast.v1 import types_pb2 as t
from tests.unit.runtime.scripted import A, B, Life, forced, start, timed_out

S = TransactionState

# -- force before send -------------------------------------------------------------------------------------------------


async def test_no_commit_leaves_before_its_record_is_durable() -> None:
    """Invariant 2."""
    life = await start()
    gtrid = life.begin(A, B)
    life.commit(gtrid)
    life.log.hold()
    life.vote(A, B)
    await forced()
    assert life.transport.shown() == []
    assert life.log.lookup(gtrid) is None
    life.log.release()
    await forced()
    assert life.transport.shown() == [f"Commit {A}", f"Commit {B}"]
    assert life.log.lookup(gtrid) is not None


async def test_a_commit_carries_the_proof_and_may_go_to_any_instance() -> None:
    life = await start()
    await life.decided(A, B)
    (to_a, _) = life.transport.calls
    assert (to_a.request.proof, to_a.any_instance, to_a.attempt) == (f"xid of {A}", True, 1)


async def test_a_prepare_goes_to_the_holder_alone_and_carries_the_time_left() -> None:
    life = await start()
    gtrid = life.begin(A, B, timeout_s=10.0)
    life.clock.advance(4.0)
    life.commit(gtrid)
    (to_a, _) = life.transport.calls
    assert (to_a.any_instance, to_a.request.timeout_ms) == (False, 6000)
    assert to_a.timeout_s == pytest.approx(7.0)


async def test_a_rollback_of_an_open_branch_goes_to_its_holder_and_of_a_prepared_one_to_any() -> None:
    life = await start()
    gtrid = life.begin(A, B)
    life.commit(gtrid)
    life.vote(A)
    life.clock.advance(10.5)
    to_a, to_b = life.transport.calls[-2:]
    assert [(call.bqual, call.any_instance) for call in (to_a, to_b)] == [(A, True), (B, False)]


async def test_a_transaction_without_a_record_leaves_nothing_in_the_log() -> None:
    """Invariant 3: aborts, read-only transactions and one-phase commits force nothing."""
    life = await start()
    aborted = life.begin(A, B)
    life.rollback(aborted)
    life.rolled_back(A, B)
    read_only = life.begin(A, B)
    life.commit(read_only)
    life.vote(A, B, said=t.VOTE_READ_ONLY)
    await forced()
    assert life.log.counters() == {"forces": 0, "decisions": 0, "ends": 0, "records": 0}


async def test_a_process_that_stood_still_past_the_deadline_with_all_votes_in_hand_aborts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Invariant 5: the pause falls between the look at the clock and the log, where no timer can tell of it."""
    life = await start()
    gtrid = life.begin(A, B, timeout_s=10.0)
    answers = life.commit(gtrid)
    life.vote(A)
    monkeypatch.setattr(life.driver, "failpoints", StandsStill(life, seconds=11.0))
    life.vote(B)
    life.clock.advance(0.0)
    await forced()
    assert life.transport.shown() == [f"Rollback {A}", f"Rollback {B}"]
    assert life.log.lookup(gtrid) is None
    life.rolled_back(A, B)
    assert answers.only.transaction.cause is Cause.DEADLINE


class StandsStill(Failpoints):
    """Lets time pass where the real one would stop the process."""

    def __init__(self, life: Life, seconds: float) -> None:
        super().__init__()
        self._life, self._seconds = life, seconds

    def reach(self, point: str) -> None:
        """Stand still just before the record is given to the log, while no timer runs."""
        if point == "before-force":
            self._life.clock.pause(self._seconds)


# -- answers -----------------------------------------------------------------------------------------------------------


async def test_commit_is_answered_when_every_branch_has_applied_it() -> None:
    """citus 3780: commit reported while a branch is still prepared."""
    life = await start()
    _, answers = await life.decided(A, B)
    life.acknowledge(A)
    assert answers.told == []
    life.acknowledge(B)
    assert answers.only.outcome is Outcome.COMMITTED
    assert answers.only.transaction.pending == []


async def test_commit_is_answered_at_the_decision_for_who_wants_that() -> None:
    life = await start()
    gtrid = life.begin(A, B)
    answers = life.commit(gtrid, at_decision=True)
    life.vote(A)
    life.log.hold()
    life.vote(B)
    await forced()
    assert answers.told == []
    life.log.release()
    await forced()
    assert answers.only.outcome is Outcome.COMMITTED


async def test_the_apply_wait_is_bounded_and_names_what_is_pending() -> None:
    life = await start(options=DriverOptions(apply_wait_s=5.0))
    _, answers = await life.decided(A, B)
    life.acknowledge(A)
    life.clock.advance(4.9)
    assert answers.told == []
    life.clock.advance(0.2)
    assert answers.only.outcome is Outcome.COMMITTED
    assert [branch.bqual for branch in answers.only.transaction.pending] == [B]


async def test_the_client_of_an_abort_waits_a_second_for_silent_branches_and_no_longer() -> None:
    """It has waited for the deadline already; a participant that is frozen must not make it wait for the apply wait."""
    life = await start(options=DriverOptions(apply_wait_s=5.0, abort_wait_s=1.0))
    gtrid = life.begin(A, B, timeout_s=10.0)
    answers = life.commit(gtrid)
    life.vote(A)
    life.clock.advance(10.1)
    life.rolled_back(A)
    assert answers.told == []
    life.clock.advance(1.0)
    assert answers.only.outcome is Outcome.ABORTED
    assert [branch.bqual for branch in answers.only.transaction.pending] == [B]


async def test_whoever_asks_again_waits_no_longer_than_the_apply_wait_either() -> None:
    life = await start(options=DriverOptions(apply_wait_s=5.0))
    gtrid, first = await life.decided(A, B)
    life.clock.advance(6.0)
    again = life.commit(gtrid)
    assert again.told == []
    life.clock.advance(6.0)
    assert again.only is first.only


async def test_a_client_is_answered_although_the_log_never_does() -> None:
    """seata 7975: the console says committed, it rolled back. A wait that runs out is no outcome."""
    life = await start(options=DriverOptions(apply_wait_s=5.0))
    gtrid = life.begin(A, B, timeout_s=10.0)
    answers = life.commit(gtrid)
    life.log.hold()
    life.vote(A, B)
    life.clock.advance(15.1)
    assert answers.only.outcome is None, "nobody knows yet, and no guess is made"


async def test_a_client_that_asks_past_the_deadline_of_an_undecided_transaction_is_answered_too() -> None:
    """Its deadline has fired and fires no more: nothing else would ever answer this one."""
    life = await start(options=DriverOptions(apply_wait_s=5.0))
    gtrid = life.begin(A, B, timeout_s=10.0)
    life.commit(gtrid)
    life.log.hold()
    life.vote(A, B)
    life.clock.advance(60.0)
    late = life.commit(gtrid)
    rollback = life.rollback(gtrid)
    life.clock.advance(5.1)
    assert late.only.outcome is None
    assert rollback.fault.code == "ALREADY_DECIDED"


async def test_an_abort_is_answered_when_each_branch_has_been_tried_once() -> None:
    life = await start()
    gtrid = life.begin(A, B)
    answers = life.rollback(gtrid)
    life.rolled_back(A)
    assert answers.told == []
    life.transport.calls[0].lose()
    assert answers.only.outcome is Outcome.ABORTED


async def test_a_no_vote_reaches_the_client_with_its_reason() -> None:
    life = await start()
    answers = life.commit(life.begin(A, B))
    life.vote(A, said=t.VOTE_NO)
    life.rolled_back(B)
    life.vote(B)
    life.rolled_back(B)
    machine = answers.only.transaction
    assert (machine.cause, machine.reason) == (Cause.VOTE_NO, f"{A} voted no: no money")


async def test_somebody_who_fails_to_take_an_answer_keeps_nobody_else_from_theirs(
    caplog: pytest.LogCaptureFixture,
) -> None:
    life = await start()
    gtrid = life.begin(A, B)

    def broken(answer: object) -> None:
        raise RuntimeError("a defect")

    life.requests.commit(gtrid, 0, False, broken)
    answers = life.commit(gtrid)
    life.vote(A, B)
    await forced()
    life.acknowledge(A, B)
    assert answers.only.outcome is Outcome.COMMITTED
    assert f"telling the outcome of transaction {gtrid} failed" in caplog.text


async def test_an_observer_that_fails_holds_up_no_commit(caplog: pytest.LogCaptureFixture) -> None:
    """The step from durable to sent passes the observers: one that raised there would leave every branch in doubt."""
    life = await start()

    def broken(running: Running) -> None:
        raise RuntimeError("a defect")

    life.driver.observers.append(broken)
    gtrid, answers = await life.decided(A, B)
    life.acknowledge(A, B)
    assert answers.only.outcome is Outcome.COMMITTED
    assert f"an observer of transaction {gtrid} failed" in caplog.text


# -- deadlines ---------------------------------------------------------------------------------------------------------


async def test_a_deadline_during_the_force_changes_nothing() -> None:
    life = await start()
    gtrid = life.begin(A, B, timeout_s=10.0)
    answers = life.commit(gtrid)
    life.log.hold()
    life.vote(A, B)
    life.clock.advance(11.0)
    assert life.requests.inquire(gtrid, A, 0).standing is Standing.UNDECIDED
    life.log.release()
    await forced()
    life.acknowledge(A, B)
    assert answers.only.outcome is Outcome.COMMITTED


async def test_a_process_that_wakes_up_past_the_deadline_with_every_vote_aborts() -> None:
    """Invariant 5: the timer has not fired, for the process was stopped; the votes are there first."""
    life = await start()
    answers = life.commit(life.begin(A, B, timeout_s=10.0))
    life.clock.pause(3600.0)
    life.vote(A, B)
    await forced()
    life.rolled_back(A, B)
    assert answers.only.outcome is Outcome.ABORTED
    assert answers.only.transaction.cause is Cause.DEADLINE
    assert life.log.counters()["decisions"] == 0


async def test_an_active_transaction_is_rolled_back_at_its_deadline() -> None:
    life = await start()
    gtrid = life.begin(A, B, timeout_s=10.0)
    life.clock.advance(9.9)
    assert life.transport.shown() == []
    life.clock.advance(0.2)
    assert life.transport.shown() == [f"Rollback {A}", f"Rollback {B}"]
    assert life.requests.inquire(gtrid, "", 0).standing is Standing.ABORT


async def test_a_prepare_without_an_answer_is_given_up_only_after_the_deadline() -> None:
    """vitess 20647: what was lost may be prepared, so its branch is rolled back as well."""
    life = await start()
    answers = life.commit(life.begin(A, B))
    prepare = life.transport.calls[0]
    assert prepare.timeout_s > 10.0
    prepare.answer(timed_out(A))
    assert life.transport.shown()[-2:] == [f"Rollback {A}", f"Rollback {B}"]
    life.rolled_back(A, B)
    assert answers.only.transaction.cause is Cause.UNREACHABLE


# -- planned crashes ---------------------------------------------------------------------------------------------------


async def test_mid_commit_holds_the_other_commits_until_one_is_acknowledged(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is only stopped there goes on afterwards: nothing may be left unsent."""
    signals: list[int] = []
    monkeypatch.setattr("os.kill", lambda pid, number: signals.append(number))
    life = await start(failpoint="mid-commit=stop")
    _, answers = await life.decided(A, B)
    assert life.transport.shown() == [f"Commit {A}"]
    life.acknowledge(A)
    assert len(signals) == 1
    assert life.transport.shown() == [f"Commit {B}"]
    life.acknowledge(B)
    assert answers.only.outcome is Outcome.COMMITTED


async def test_after_close_nothing_starts() -> None:
    life: Life = await start()
    gtrid = life.begin(A, B)
    life.commit(gtrid)
    life.driver.close()
    life.vote(A, B)
    await forced()
    life.clock.advance(60.0)
    assert (life.transport.shown(), life.clock.waiting) == ([], 0)


async def test_a_process_that_stood_still_between_the_last_vote_and_the_force_aborts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Invariant 5: the vote was in time, and the moment at which the record would be written is not."""
    life = await start(failpoint="before-force=stop")
    monkeypatch.setattr("os.kill", lambda pid, number: life.clock.pause(3600.0))
    answers = life.commit(life.begin(A, B, timeout_s=10.0))
    life.vote(A, B)
    life.clock.advance(0.0)
    await forced()
    life.rolled_back(A, B)
    machine = answers.only.transaction
    assert (machine.outcome, machine.cause) == (Outcome.ABORTED, Cause.DEADLINE)
    assert life.log.counters()["decisions"] == 0
