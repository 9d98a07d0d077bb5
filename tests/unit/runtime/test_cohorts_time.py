"""Rows and time: deadlines, waits, retries; and a coordinator that stops."""

from __future__ import annotations

import pytest

from coordinator.protocol.states import Cause, Outcome
from coordinator.runtime.options import DriverOptions
from coordinator.runtime.requests import Standing
from handfast.v1 import participant_pb2 as p
from handfast.v1 import types_pb2 as t
from handfast.xid import named_unix_ms
from tests.unit.runtime.alike import begun, pair
from tests.unit.runtime.scripted import A, B, Life, RowAnswers, forced, start

DONE = p.ParticipantCommitResponse(outcome=t.OUTCOME_COMMITTED)


async def rows_in(life: Life, count: int = 3, *, at_decision: bool = False) -> tuple[list[str], RowAnswers]:
    gtrids = life.names(count)
    return gtrids, life.execute_rows(gtrids, A, B, at_decision=at_decision)


# -- deadlines ---------------------------------------------------------------------------------------------------------


async def test_rows_that_are_undecided_at_the_deadline_abort_and_the_others_do_not() -> None:
    both = await pair(4, A, B, timeout_s=10.0)
    both.advance(6.0)
    both.vote(A, 0, 1)
    both.vote(B, 0)
    await both.forced()
    both.advance(3.9)
    assert both.together.transport.shown() == []
    both.advance(0.2)
    both.assert_alike(1, 2, 3)
    assert list(both.together.driver.transactions.rows) == both.gtrids[:1]
    for life in both.lives:
        calls = [call for call in life.transport.calls if type(call.request) is p.ParticipantRollbackRequest]
        assert [call.request.gtrid for call in calls] == [gtrid for gtrid in both.gtrids[1:] for _ in (A, B)]
        for call in calls:
            life.transport.calls.remove(call)
            call.answer(p.ParticipantRollbackResponse(outcome=t.OUTCOME_ABORTED))
    both.acknowledge(A, 0)
    both.acknowledge(B, 0)
    assert both.rows.together.keys() == {0}
    assert [both.rows.alone(row).transaction.cause for row in (1, 2, 3)] == [Cause.DEADLINE] * 3
    assert both.rows.alone(1).transaction.reason == f"the deadline passed without the vote of {B}"
    both.assert_alike()


async def test_no_deadline_is_waited_for_when_all_rows_are_decided() -> None:
    life = await start(options=DriverOptions(apply_wait_s=5.0))
    await rows_in(life)
    life.vote_rows(A, B)
    assert len(life.rows.cohorts._deadlines) == 1
    await forced()
    assert len(life.rows.cohorts._deadlines) == 0
    assert len(life.rows.cohorts._waits) == 1


async def test_nobody_waits_for_rows_that_have_ended() -> None:
    life = await start()
    await rows_in(life)
    life.vote_rows(A, B)
    await forced()
    life.acknowledge_rows(A)
    assert len(life.rows.cohorts._waits) == 1
    life.acknowledge_rows(B)
    assert len(life.rows.cohorts._waits) == 0


async def test_a_row_that_left_is_aborted_at_the_deadline_too() -> None:
    both = await pair(1, A, B, timeout_s=10.0)
    both.vote(A)
    both.assert_alike()
    both.advance(10.1)
    for life in both.lives:
        life.rolled_back(A, B)
    assert both.rows.alone(0).transaction.cause is Cause.DEADLINE
    both.assert_alike()


async def test_no_end_is_noted_before_the_time_in_its_transactions_name() -> None:
    """A block's name may be ahead of the clock; the clean-up goes by the end, and by the name."""
    together, alone = await start(), await start()
    for life in (together, alone):
        for _ in range(50):
            life.names(1)
    both = begun(together, alone, 2, A, B)
    both.vote(A)
    both.vote(B)
    await both.forced()
    both.acknowledge(A)
    both.acknowledge(B)
    await both.forced()
    logged = [[life.log.lookup(gtrid) for gtrid in both.gtrids] for life in both.lives]
    assert logged[0] == logged[1]
    (first, *_) = logged[0]
    assert first is not None
    assert first.end is not None
    assert first.end.ended_unix_ms == named_unix_ms(both.gtrids[0]) > life.clock.unix_ms()


async def test_a_deadline_during_the_force_changes_nothing() -> None:
    both = await pair(2, A, B, timeout_s=10.0)
    for life in both.lives:
        life.log.hold()
    both.vote(A)
    both.vote(B)
    both.advance(10.5)
    both.assert_alike()
    assert both.together.requests.inquire(both.gtrids[0], A, 0).standing is Standing.UNDECIDED
    for life in both.lives:
        life.log.release()
    await both.forced()
    both.assert_alike()
    for life in both.lives:
        life.acknowledge(A, B, A, B)
    assert [both.rows.alone(row).outcome for row in (0, 1)] == [Outcome.COMMITTED] * 2
    both.assert_alike()


async def test_a_deadline_that_came_during_the_force_does_not_come_again() -> None:
    both = await pair(1, A, B, timeout_s=10.0)
    for life in both.lives:
        life.log.hold()
    both.vote(A)
    both.vote(B)
    both.advance(30.0)
    both.assert_alike()
    assert both.rows.alone(0).outcome is None, "nobody knows yet, and no guess is made"
    assert [type(event).__name__ for _, event in both.rows.alone(0).history].count("DeadlinePassed") == 1


async def test_a_vote_that_comes_past_the_deadline_aborts_its_rows() -> None:
    """Invariant 5: the process was stopped, and no timer has told it; the votes are there first."""
    both = await pair(2, A, B, timeout_s=10.0)
    both.vote(A)
    for life in both.lives:
        life.clock.pause(3600.0)
    both.vote(B)
    await both.forced()
    both.assert_alike()
    assert [life.log.counters()["decisions"] for life in both.lives] == [0, 0]
    for life in both.lives:
        life.rolled_back(A, B, A, B)
    assert [both.rows.alone(row).transaction.cause for row in (0, 1)] == [Cause.DEADLINE] * 2
    both.assert_alike()


class StandsStill:
    """The time as it is looked at; between two looks this process is stopped for a while.

    Args:
        life: whose clock it is.
        looks: how many looks come before that.
        seconds: for how long.
    """

    def __init__(self, life: Life, looks: int, seconds: float) -> None:
        self._life, self._looks, self._seconds = life, looks, seconds

    def __call__(self) -> float:
        if self._looks == 0:
            self._life.clock.pause(self._seconds)
        self._looks -= 1
        return type(self._life.clock).now_s(self._life.clock)


async def test_a_process_that_stood_still_between_the_votes_and_the_force_aborts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Invariant 5: the votes were in time, and the moment at which the records would be written is not."""
    life = await start()
    gtrids, answers = await rows_in(life)
    life.vote_rows(A)
    monkeypatch.setattr(life.clock, "now_s", StandsStill(life, looks=1, seconds=11.0))
    life.vote_rows(B)
    await forced()
    assert life.log.counters()["decisions"] == 0
    assert life.transport.shown() == [f"Rollback {A}", f"Rollback {B}"] * 3
    life.rolled_back(A, B, A, B, A, B)
    causes = [answers.alone(row).transaction.cause for row in range(3)]
    assert causes == [Cause.DEADLINE] * 3
    assert [life.driver.find(gtrid) is not None for gtrid in gtrids] == [True] * 3
    assert len(life.driver.transactions) == 0


# -- waits -------------------------------------------------------------------------------------------------------------


async def test_the_wait_for_acknowledgements_is_bounded_and_names_what_is_pending() -> None:
    both = await pair(3, A, B)
    both.advance(1.0)
    both.vote(A)
    both.vote(B)
    await both.forced()
    both.acknowledge(A)
    both.acknowledge(B, 1)
    both.advance(4.9)
    assert both.rows.rows == [1]
    both.advance(0.2)
    assert sorted(both.rows.rows) == [0, 1, 2]
    for row in (0, 2):
        told = both.rows.alone(row)
        assert told.outcome is Outcome.COMMITTED
        assert [branch.bqual for branch in told.transaction.pending] == [B]
    both.acknowledge(B, 0, 2)
    assert sorted(both.rows.rows) == [0, 1, 2]
    both.assert_alike()
    both.advance(10.0)
    assert [life.clock.waiting for life in both.lives] == [0, 0]


async def test_who_asks_again_for_a_row_that_waits_is_answered_when_its_first_asker_is() -> None:
    """As for any transaction: from the decision on there is one wait, and one who asks after it has a whole one."""
    both = await pair(1, A, B)
    both.vote(A)
    both.vote(B)
    await both.forced()
    both.advance(3.0)
    asked = [life.commit(both.gtrids[0]) for life in both.lives]
    both.advance(2.1)
    assert [len(one.told) for one in asked] == [1, 1]
    assert both.rows.rows == [0]
    late = [life.commit(both.gtrids[0]) for life in both.lives]
    both.advance(4.8)
    assert [len(one.told) for one in late] == [0, 0]
    both.advance(0.3)
    assert [len(one.told) for one in late] == [1, 1]
    both.assert_alike()


async def test_rows_that_were_answered_at_the_decision_are_not_answered_when_their_wait_is_over() -> None:
    both = await pair(2, A, B, at_decision=True)
    both.vote(A)
    both.vote(B)
    await both.forced()
    assert both.rows.rows == [0, 1]
    both.advance(30.0)
    both.acknowledge(A)
    both.acknowledge(B)
    assert both.rows.rows == [0, 1]
    both.assert_alike()
    assert both.together.driver.open_by_client == {}


async def test_a_row_that_left_at_the_decision_waits_from_then_on() -> None:
    life = await start(options=DriverOptions(apply_wait_s=5.0))
    gtrids, answers = await rows_in(life, 2)
    life.driver.find(gtrids[0])
    life.vote_rows(A, B)
    await forced()
    life.clock.advance(4.9)
    assert answers.told == []
    life.clock.advance(0.2)
    assert [answers.alone(row).outcome for row in (0, 1)] == [Outcome.COMMITTED] * 2


# -- retries -----------------------------------------------------------------------------------------------------------


async def test_a_commit_that_got_no_answer_is_sent_again_until_it_is_applied() -> None:
    life = await start()
    gtrids, answers = await rows_in(life, 2)
    life.vote_rows(A, B)
    await forced()
    to_a, to_b = life.transport.columns
    to_a.lose(1)
    to_a.done(0)
    to_b.done()
    assert answers.rows == [0]
    assert life.transport.shown() == []
    life.clock.advance(1.0)
    (again,) = life.transport.calls
    assert (again.bqual, again.attempt, again.any_instance) == (A, 2, True)
    assert again.request == p.ParticipantCommitRequest(gtrid=gtrids[1], bqual=A, proof=f"xid of {A} in {gtrids[1]}")
    life.acknowledge(A)
    assert answers.rows == [0, 1]
    assert answers.alone(1).transaction.pending == []
    assert (life.driver.counters["retries"], life.driver.counters["committed"]) == (1, 2)
    assert len(life.driver.transactions) == 0


async def test_a_lost_commit_leaves_the_row_as_it_leaves_any_transaction() -> None:
    both = await pair(2, A, B)
    both.vote(A)
    both.vote(B)
    await both.forced()
    both.advance(0.5)
    lost = [call for call in both.alone.transport.calls if call.bqual == A and call.request.gtrid == both.gtrids[0]]
    lost[0].lose()
    both.together.transport.columns[2].lose(0)
    both.assert_alike(0)
    assert [life.driver.retry_now(gtrid=both.gtrids[0]) for life in both.lives] == [1, 1]
    both.assert_alike(0)


BY_HAND = p.ParticipantCommitResponse(outcome=t.OUTCOME_HEURISTIC_ROLLBACK, evidence="by hand")


@pytest.mark.parametrize(
    ("reply", "outcome"),
    [
        (p.ParticipantCommitResponse(), Outcome.COMMITTED),
        (p.ParticipantCommitResponse(outcome=t.OUTCOME_COMMITTED, evidence="by hand"), Outcome.COMMITTED),
        (BY_HAND, Outcome.HEURISTIC_MIXED),
    ],
    ids=["without an outcome", "with evidence", "heuristic"],
)
async def test_an_odd_acknowledgement_ends_its_row_as_it_ends_any_transaction(
    reply: p.ParticipantCommitResponse, outcome: Outcome
) -> None:
    both = await pair(2, A, B)
    both.vote(A)
    both.vote(B)
    await both.forced()
    both.acknowledge(A)
    both.answer(B, 0, reply)
    assert both.rows.alone(0).outcome is outcome
    both.acknowledge(B, 1)
    both.assert_alike()
    await both.forced()
    logged = [life.log.lookup(both.gtrids[0]) for life in both.lives]
    assert logged[0] == logged[1]


# -- the way to participants -------------------------------------------------------------------------------------------


async def test_rows_whose_way_has_broken_since_phase_one_are_told_one_by_one() -> None:
    life = await start()
    gtrids, answers = await rows_in(life, 2)
    life.vote_rows(A, B)
    life.transport.by_columns.discard(B)
    await forced()
    assert life.transport.shown_columns() == []
    assert [(call.bqual, call.request.gtrid, call.any_instance) for call in life.transport.calls] == [
        (bqual, gtrid, True) for gtrid in gtrids for bqual in (A, B)
    ]
    life.acknowledge(A, B, A, B)
    assert [answers.alone(row).outcome for row in (0, 1)] == [Outcome.COMMITTED] * 2


# -- the end -----------------------------------------------------------------------------------------------------------


async def at_stage(stage: str) -> tuple[Life, RowAnswers]:
    life = await start()
    _, answers = await rows_in(life)
    if stage in ("offered", "told"):
        life.vote_rows(A)
    if stage == "offered":
        life.log.hold()
    if stage != "asked":
        life.vote_rows("accounts.a1" if stage == "one vote" else B)
    await forced()
    return life, answers


@pytest.mark.parametrize("stage", ["asked", "one vote", "offered", "told"])
async def test_after_close_nothing_happens_whatever_still_arrives(stage: str) -> None:
    life, answers = await at_stage(stage)
    life.close()
    assert life.clock.waiting == 0
    columns = list(life.transport.columns)
    sent, kept = life.transport.shown_columns(), dict(life.driver.transactions.rows)
    counters = life.log.counters()
    for call in columns:
        if isinstance(call.request, p.PrepareColumns):
            call.yes(0)
            call.lose(1)
        else:
            call.done(0)
            call.lose(1)
            call.answer(2, DONE)
    life.log.release()
    await forced()
    life.clock.advance(3600.0)
    assert (life.transport.shown_columns(), life.transport.shown()) == (sent, [])
    assert (answers.told, life.clock.waiting) == ([], 0)
    assert life.driver.transactions.rows == kept
    assert life.log.counters()["ends"] == counters["ends"]


async def test_no_row_begins_after_close() -> None:
    life = await start()
    life.transport.by_columns.update((A, B))
    life.close()
    assert not life.rows.cohorts.can_take((A, B))


async def test_rows_that_were_durable_before_a_crash_are_taken_up_and_the_others_presumed_aborted() -> None:
    life = await start()
    gtrids, answers = await rows_in(life)
    to_a, to_b = life.transport.columns
    to_a.yes()
    to_b.yes(2)
    await forced()
    to_b.yes(0)
    life.close()
    life.log.crash()
    after = await start(life.log, life.clock)
    (logged,) = after.log.unended()
    assert logged.decision.gtrid == gtrids[2]
    assert [branch.proof for branch in logged.decision.branches] == [f"xid of {one} in {gtrids[2]}" for one in (A, B)]
    after.driver.recover(logged.decision)
    assert after.transport.shown() == [f"Commit {A}", f"Commit {B}"]
    standings = [after.requests.inquire(gtrid, A, 0).standing for gtrid in gtrids]
    assert standings == [Standing.ABORT, Standing.ABORT, Standing.COMMIT]
    assert answers.told == []
