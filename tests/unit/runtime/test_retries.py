"""What is sent again, when, and for how long."""

from __future__ import annotations

import gc

import pytest

from coordinator.protocol.states import Outcome, TransactionState
from coordinator.protocol.transaction import ROLLBACK_ATTEMPTS_MAX, GlobalTransaction
from coordinator.runtime.options import DriverOptions
from handfast.v1 import participant_pb2 as p
from handfast.v1 import types_pb2 as t
from tests.unit.runtime.scripted import COORDINATOR_ID, A, B, C, Life, start

BASE_S, CAP_S = 0.05, 30.0


def wait_for_next_send(life: Life) -> float:
    """Move the clock from timer to timer until something is sent; return how long that took."""
    before_s = life.clock.now_s()
    while not life.transport.calls:
        life.clock.jump()
    return life.clock.now_s() - before_s


async def test_a_commit_is_retried_with_a_growing_capped_wait_and_never_given_up() -> None:
    """seata 2166 (a retry timeout drops the transaction and its locks stay) and dtm 143 (backoff with no cap)."""
    life = await start(options=DriverOptions(retry_base_s=BASE_S, retry_cap_s=CAP_S))
    gtrid, _ = await life.decided(A, B)
    life.acknowledge(B)
    for attempt in range(1, 600):
        call = life.transport.take(A, p.ParticipantCommitRequest)
        assert call.attempt == attempt
        call.lose()
        bound_s = min(CAP_S, BASE_S * 2 ** min(attempt - 1, 30))
        waited_s = wait_for_next_send(life)
        assert bound_s / 2 - 0.001 <= waited_s <= bound_s + 0.011
    assert life.clock.now_s() - 1000.0 > 3 * 3600
    assert life.driver.transactions[gtrid].transaction.state is TransactionState.COMMITTING
    life.acknowledge(A)
    assert gtrid not in life.driver.transactions


async def test_a_rollback_is_given_up_after_so_many_attempts_and_the_client_is_not_kept() -> None:
    life = await start()
    gtrid = life.begin(A)
    answers = life.rollback(gtrid)
    for _ in range(ROLLBACK_ATTEMPTS_MAX):
        life.transport.take(A, p.ParticipantRollbackRequest).lose()
        assert answers.only.outcome is Outcome.ABORTED
        if gtrid in life.driver.transactions:
            wait_for_next_send(life)
    assert gtrid not in life.driver.transactions
    assert life.transport.calls == []
    assert (len(life.driver._retries), len(life.driver.answers.waits)) == (0, 0)


async def test_no_two_messages_to_one_branch_are_under_way_because_a_timer_fired() -> None:
    """seata 7004: retry and decision run together."""
    life = await start()
    await life.decided(A, B)
    life.clock.advance(3600.0)
    assert life.driver.retry_now() == 0
    assert life.transport.shown() == [f"Commit {A}", f"Commit {B}"]


async def test_a_retry_can_be_asked_for_at_once_for_one_resource_or_one_transaction() -> None:
    life = await start()
    first, _ = await life.decided(A, B)
    second, _ = await life.decided(A, B)
    for call in [*life.transport.calls]:
        life.transport.calls.remove(call)
        call.lose()
    assert life.driver.retry_now(resource="accounts") == 2
    assert life.transport.shown() == [f"Commit {A}", f"Commit {A}"]
    assert life.driver.retry_now(gtrid=second) == 1
    assert life.driver.retry_now(gtrid=first) == 1
    assert life.driver.retry_now() == 0
    assert life.transport.shown()[2:] == [f"Commit {B}", f"Commit {B}"]


async def test_a_retry_that_was_asked_for_is_not_repeated_by_its_timer() -> None:
    life = await start()
    await life.decided(A, B)
    life.acknowledge(B)
    life.transport.take(A, p.ParticipantCommitRequest).lose()
    life.driver.retry_now()
    life.clock.advance(60.0)
    assert life.transport.shown() == [f"Commit {A}"]


async def test_the_next_attempt_is_shown() -> None:
    life = await start()
    gtrid, _ = await life.decided(A, B)
    life.transport.take(A, p.ParticipantCommitRequest).lose()
    running = life.driver.transactions[gtrid]
    assert life.clock.unix_ms() < running.next_attempt_unix_ms[A] <= life.clock.unix_ms() + 50
    wait_for_next_send(life)
    life.driver.retry_now()
    assert A not in running.next_attempt_unix_ms


async def test_a_late_yes_is_rolled_back_by_the_driver_too() -> None:
    """vitess 20647: Rollback overtook Prepare, and the participant prepared all the same."""
    life = await start()
    gtrid = life.begin(A, B)
    life.commit(gtrid)
    life.clock.advance(10.1)
    life.rolled_back(A, B)
    assert gtrid in life.driver.transactions
    life.vote(A)
    call = life.transport.take(A, p.ParticipantRollbackRequest)
    assert call.any_instance
    call.answer(p.ParticipantRollbackResponse(outcome=t.OUTCOME_ABORTED))
    life.vote(B, said=t.VOTE_NO)
    assert gtrid not in life.driver.transactions


def machines_in_memory() -> list[GlobalTransaction]:
    gc.collect()
    return [
        one for one in gc.get_objects() if isinstance(one, GlobalTransaction) and one.gtrid.startswith(COORDINATOR_ID)
    ]


# -- memory ------------------------------------------------------------------------------------------------------------


async def test_an_ended_transaction_leaves_no_timer_and_is_forgotten_after_a_while() -> None:
    life = await start(options=DriverOptions(finished_kept_max=10, unrecorded_kept_max=5))
    for n in range(30):
        match n % 3:
            case 0:
                await life.committed(A, B)
            case 1:
                gtrid = life.begin(A, B)
                life.rollback(gtrid)
                life.rolled_back(A, B)
            case _:
                gtrid = life.begin(A)
                life.commit(gtrid)
                done = p.CommitOnePhaseResponse(outcome=t.OUTCOME_COMMITTED)
                life.transport.take(A, p.CommitOnePhaseRequest).answer(done)
    assert (len(life.driver.transactions), len(life.driver.finished), len(life.driver.unrecorded)) == (0, 10, 5)
    schedules = (life.driver.deadlines, life.driver.answers.waits, life.driver._retries)
    assert [len(schedule) for schedule in schedules] == [0, 0, 0]


async def test_what_was_evicted_is_freed() -> None:
    life = await start(options=DriverOptions(finished_kept_max=1))
    gtrid = await life.committed(A, B)
    assert [one.gtrid for one in machines_in_memory()] == [gtrid]
    second = await life.committed(A, B)
    assert [one.gtrid for one in machines_in_memory()] == [second]


async def test_an_abort_keeps_no_results() -> None:
    life = await start()
    answers = life.execute(("accounts", "withdraw"), ("ledger", "credit"))
    life.vote(A, results=[b"x" * 1000])
    life.vote(B, said=t.VOTE_NO)
    life.rolled_back(A)
    assert answers.only.results == {}
    assert answers.only.operations == {}


@pytest.mark.parametrize("branches", [(A, B), (A, B, C)])
async def test_a_history_is_kept_in_bounds(branches: tuple[str, ...]) -> None:
    life = await start()
    gtrid, _ = await life.decided(*branches)
    for _ in range(300):
        life.transport.take(A, p.ParticipantCommitRequest).lose()
        life.driver.retry_now()
    history = life.driver.transactions[gtrid].history
    assert len(history) == 200
    assert type(history[0][1]).__name__ == "Enlisted"
