"""What goes wrong inside: a log that refuses or breaks, and a transaction with a defect."""

from __future__ import annotations

import pytest

from coordinator.log.records import DecisionRecord
from coordinator.log.store import LogRefused
from coordinator.protocol import events as e
from coordinator.protocol.states import Cause, Decision, Outcome, TransactionState
from coordinator.runtime.requests import Standing
from handfast.v1 import types_pb2 as t
from tests.unit.runtime.scripted import A, B, forced, memory_log, refused, restart, start

S = TransactionState

# -- the log goes wrong ------------------------------------------------------------------------------------------------


async def test_a_refused_record_is_an_abort_and_the_log_goes_on() -> None:
    """atomikos: a failed log write swallowed, the record gone."""
    life = await start(memory_log(before_force=refused))
    answers = life.commit(life.begin(A, B))
    life.vote(A, B)
    await forced()
    life.rolled_back(A, B)
    machine = answers.only.transaction
    assert (machine.outcome, machine.cause) == (Outcome.ABORTED, Cause.LOG_REFUSED)
    assert "no space for 1 record(s)" in machine.reason
    assert life.broken == []


async def test_a_broken_log_stops_the_coordinator_and_nothing_is_sent_or_said() -> None:
    def fails(count: int) -> None:
        raise OSError("input/output error")

    life = await start(memory_log(before_force=fails))
    gtrid = life.begin(A, B)
    answers = life.commit(gtrid)
    life.vote(A, B)
    await forced()
    assert "input/output error" in str(life.broken[0])
    assert life.transport.shown() == []
    assert answers.told == []
    assert life.requests.inquire(gtrid, A, 0).standing is Standing.UNDECIDED


async def test_an_abort_that_stands_in_the_log_is_obeyed() -> None:
    """Invariant 1: the log says which decision stands, and it may not be the one that was offered."""
    life = await start()
    gtrid = life.begin(A, B)
    answers = life.commit(gtrid)
    life.log.decide(DecisionRecord(gtrid, Decision.ABORT, (), 0), lambda _: None)
    life.vote(A, B)
    await forced()
    assert life.transport.shown() == [f"Rollback {A}", f"Rollback {B}"]
    life.rolled_back(A, B)
    assert answers.only.outcome is Outcome.ABORTED


async def test_a_refused_end_is_written_with_a_later_force() -> None:
    """citus 1614: finished log rows are never cleaned up, for a row without an end is never dropped."""
    full = [False]

    def sometimes(count: int) -> None:
        if full[0]:
            raise LogRefused("disk full")

    life = await start(memory_log(before_force=sometimes))
    gtrid, _ = await life.decided(A, B)
    full[0] = True
    life.acknowledge(A, B)
    await forced()
    full[0] = False
    await life.committed(A, B)
    await forced()
    logged = life.log.lookup(gtrid)
    assert logged is not None
    assert logged.end is not None


async def test_a_heuristic_end_of_an_abort_outlives_a_restart() -> None:
    life = await start()
    gtrid = life.begin(A, B)
    life.commit(gtrid)
    life.vote(A)
    life.vote(B, said=t.VOTE_NO)
    life.rolled_back(A, outcome=t.OUTCOME_HEURISTIC_COMMIT)
    await forced()
    after = await restart(life)
    shown = after.requests.show(gtrid)
    assert shown is not None
    assert (shown.transaction.decision, shown.outcome) == (Decision.ABORT, Outcome.HEURISTIC_MIXED)


async def test_a_heuristic_end_after_a_refused_commit_is_kept_too() -> None:
    """The commit was offered and never written: the end needs an abort record to belong to."""
    refusals = iter([True])

    def first(count: int) -> None:
        if next(refusals, False):
            raise LogRefused("disk full")

    life = await start(memory_log(before_force=first))
    gtrid = life.begin(A, B)
    life.commit(gtrid)
    life.vote(A, B)
    await forced()
    life.rolled_back(A)
    life.rolled_back(B, outcome=t.OUTCOME_HEURISTIC_COMMIT)
    await forced()
    logged = life.log.lookup(gtrid)
    assert logged is not None
    assert logged.end is not None
    assert logged.end.outcome is Outcome.HEURISTIC_MIXED


async def test_an_end_is_never_older_than_the_time_in_its_name() -> None:
    """The clean-up drops by the time of the end and the horizon is compared with the name: with the clock set back in
    between, a commit could be dropped and its absence taken for an abort."""
    life = await start()
    gtrid, _ = await life.decided(A, B)
    life.clock._start_s += 3600.0  # the machine's clock is set back an hour
    life.acknowledge(A, B)
    await forced()
    logged = life.log.lookup(gtrid)
    assert logged is not None
    assert logged.end is not None
    life.log.forget_before(logged.end.ended_unix_ms, lambda _: None)
    await forced()
    await forced()
    assert life.log.lookup(gtrid) is not None


# -- one bad transaction -----------------------------------------------------------------------------------------------


async def test_one_transaction_with_a_defect_is_set_aside_and_the_others_go_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """btm 59: one bad transaction blocks everything."""
    life = await start()
    bad, good = life.begin(A, B), life.begin(A, B)
    asked = life.commit(bad)
    life.driver.feed(life.driver.transactions[bad], e.Forgotten())
    assert asked.fault.code == "INTERNAL"
    assert "Forgotten in state preparing" in str(asked.fault)
    assert f"transaction {bad} is set aside" in caplog.text
    life.transport.calls.clear()
    answers = life.commit(good)
    life.vote(A, B)
    await forced()
    life.acknowledge(A, B)
    assert answers.only.outcome is Outcome.COMMITTED


async def test_whoever_asks_for_a_transaction_that_was_set_aside_is_told_so_at_once() -> None:
    life = await start()
    gtrid = life.begin(A)
    life.driver.feed(life.driver.transactions[gtrid], e.Forgotten())
    assert life.commit(gtrid).fault.code == "INTERNAL"
    assert life.rollback(gtrid).fault.code == "INTERNAL"
    assert life.requests.inquire(gtrid, A, 0).standing is Standing.UNDECIDED
    life.clock.advance(60.0)
    assert life.transport.shown() == []


async def test_of_a_transaction_that_was_set_aside_the_record_still_speaks() -> None:
    life = await start()
    gtrid, _ = await life.decided(A, B)
    life.driver.feed(life.driver.transactions[gtrid], e.Forgotten())
    assert life.requests.inquire(gtrid, A, 0).standing is Standing.COMMIT


async def test_a_message_that_can_not_be_sent_sets_only_its_transaction_aside(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    life = await start()
    gtrid = life.begin(A, B)

    def fails(*args: object, **named: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(life.transport, "send", fails)
    assert "a defect" in str(life.commit(gtrid).fault)
