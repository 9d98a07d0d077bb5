"""Transactions that go the common way as rows: what they ask of others, and what is left of them."""

from __future__ import annotations

import weakref

import pytest

from coordinator.protocol.states import Outcome, TransactionState
from coordinator.runtime.running_cohort import RowsWork
from handfast.v1 import participant_pb2 as p
from handfast.v1 import types_pb2 as t
from tests.clock import START_UNIX_MS
from tests.unit.runtime.alike import every_field, pair
from tests.unit.runtime.scripted import A, B, C, Life, RowAnswers, forced, start


async def begun(count: int = 3, *bquals: str, at_decision: bool = False) -> tuple[Life, list[str], RowAnswers]:
    """A coordinator with rows, nothing of which is answered."""
    life = await start()
    gtrids = life.names(count, "billing")
    return life, gtrids, life.execute_rows(gtrids, *(bquals or (A, B)), at_decision=at_decision)


# -- all well ----------------------------------------------------------------------------------------------------------


async def test_every_branch_is_asked_for_its_votes_with_one_message() -> None:
    life, gtrids, _ = await begun()
    assert life.transport.shown() == []
    to_a, to_b = life.transport.columns
    assert (to_a.bqual, to_b.bqual) == (A, B)
    assert to_a.count == 3
    assert to_a.timeout_s == pytest.approx(11.0)
    assert to_a.request == p.PrepareColumns(
        bqual=A,
        name="op",
        timeout_ms=10_000,
        gtrids=gtrids,
        payloads=[f"{row} at {A}".encode() for row in range(3)],
    )
    assert list(to_b.request.payloads) == [f"{row} at {B}".encode() for row in range(3)]


async def test_no_commit_leaves_before_the_records_of_its_rows_are_durable() -> None:
    """Invariant 2."""
    life, gtrids, answers = await begun()
    life.log.hold()
    life.vote_rows(A, B)
    await forced()
    assert life.transport.shown_columns() == []
    assert [life.log.lookup(gtrid) for gtrid in gtrids] == [None] * 3
    life.log.release()
    await forced()
    assert life.transport.shown_columns() == [f"3 Commit {A}", f"3 Commit {B}"]
    assert all(life.log.lookup(gtrid) for gtrid in gtrids)
    assert answers.told == []


async def test_commit_carries_each_rows_proof_in_that_branch() -> None:
    life, gtrids, _ = await begun()
    life.vote_rows(A, B)
    await forced()
    to_a, to_b = life.transport.columns
    assert to_a.request == p.CommitColumns(bqual=A, gtrids=gtrids, proofs=[f"xid of {A} in {one}" for one in gtrids])
    assert list(to_b.request.proofs) == [f"xid of {B} in {one}" for one in gtrids]
    assert to_a.timeout_s == life.driver.options.reply_timeout_s


async def test_the_records_say_what_those_of_transactions_by_themselves_say() -> None:
    both = await pair(3, A, B, client="billing")
    both.advance(1.0)
    both.vote(A)
    both.advance(0.5)
    both.vote(B)
    both.advance(0.25)
    await both.forced()
    records = [[life.log.lookup(gtrid) for gtrid in both.gtrids] for life in both.lives]
    assert records[0] == records[1]
    (first, *_) = records[0]
    assert first is not None
    assert (first.decision.client, first.decision.decided_unix_ms) == ("billing", START_UNIX_MS + 1500)


async def test_a_batch_of_rows_takes_one_force() -> None:
    life, _, _ = await begun(50)
    life.vote_rows(A, B)
    await forced()
    assert life.log.counters()["forces"] == 1
    assert life.log.counters()["decisions"] == 50


async def test_all_rows_are_answered_once_with_their_results_when_every_branch_has_applied_them() -> None:
    life, gtrids, answers = await begun()
    life.vote_rows(A, B)
    await forced()
    life.acknowledge_rows(A)
    assert answers.told == []
    life.acknowledge_rows(B)
    assert answers.rows == [0, 1, 2]
    assert answers.together == {
        row: (gtrid, [f"done: {row} at {A}".encode(), f"done: {row} at {B}".encode()])
        for row, gtrid in enumerate(gtrids)
    }


async def test_nothing_is_left_open_when_all_rows_have_ended() -> None:
    life, gtrids, _ = await begun()
    assert life.driver.open_by_client == {"billing": 3}
    assert (len(life.driver.transactions), life.driver.counters["begun"]) == (3, 3)
    life.vote_rows(A, B)
    await forced()
    life.acknowledge_rows(A, B)
    assert life.driver.open_by_client == {}
    assert len(life.driver.transactions) == 0
    assert (life.driver.counters["begun"], life.driver.counters["committed"]) == (3, 3)
    assert life.clock.waiting <= 2, "a timer may look once more; none for each row"
    await forced()
    assert [one.end is not None for one in map(life.log.lookup, gtrids) if one is not None] == [True] * 3


async def test_an_ended_row_is_what_it_would_be_had_it_gone_alone() -> None:
    """Times included: each vote and each acknowledgement has its own."""
    both = await pair(3, A, B, C, client="billing")
    for bqual in (B, A, C):
        both.advance(0.5)
        both.vote(bqual)
    both.advance(0.25)
    await both.forced()
    for bqual in (C, A, B):
        both.advance(0.5)
        both.acknowledge(bqual)
    both.assert_alike()
    shown = both.together.driver.find(both.gtrids[0])
    assert shown is not None
    assert (shown.outcome, shown.transaction.state) == (Outcome.COMMITTED, TransactionState.COMMITTED)
    assert [at - START_UNIX_MS for at, _ in shown.history] == [0, 0, 0, 0, 500, 1000, 1500, 1750, 2250, 2750, 3250]


async def test_what_is_shown_of_an_ended_row_can_be_asked_for_again() -> None:
    life, gtrids, answers = await begun(2)
    life.vote_rows(A, B)
    await forced()
    life.acknowledge_rows(A, B)
    first, second = life.driver.find(gtrids[1]), life.driver.find(gtrids[1])
    assert first is not None
    assert second is not None
    assert every_field(first) == every_field(second)
    assert life.commit(gtrids[1]).only.outcome is Outcome.COMMITTED
    assert answers.rows == [0, 1]


# -- at the decision ---------------------------------------------------------------------------------------------------


async def test_who_asks_for_the_decision_is_answered_when_it_is_durable_and_not_again() -> None:
    life, gtrids, answers = await begun(at_decision=True)
    life.log.hold()
    life.vote_rows(A, B)
    await forced()
    assert answers.told == []
    life.log.release()
    await forced()
    assert answers.rows == [0, 1, 2]
    told = answers.alone(2)
    assert (told.gtrid, told.outcome) == (gtrids[2], Outcome.COMMITTED)
    assert told.ordered_results() == [f"done: 2 at {A}".encode(), f"done: 2 at {B}".encode()]
    assert [branch.bqual for branch in told.transaction.pending] == [A, B], "they have not applied it yet"
    assert life.driver.transactions.single == {}
    life.acknowledge_rows(A, B)
    assert answers.rows == [0, 1, 2]
    assert len(life.driver.transactions) == 0


# -- in parts ----------------------------------------------------------------------------------------------------------


async def test_rows_whose_votes_come_apart_are_forced_and_told_as_they_are_complete() -> None:
    life, gtrids, _ = await begun(4)
    to_a, to_b = life.transport.columns
    life.transport.columns.clear()
    to_a.yes(0, 2, 3)
    to_b.yes(2, 1)
    to_b.yes(0)
    await forced()
    assert [list(call.request.gtrids) for call in life.transport.columns] == [
        [gtrids[2]],
        [gtrids[2]],
        [gtrids[0]],
        [gtrids[0]],
    ]
    assert life.log.counters()["forces"] == 1
    life.transport.columns.clear()
    to_a.yes(1)
    to_b.yes(3)
    await forced()
    assert [call.request.gtrids for call in life.transport.columns] == [[gtrids[1]], [gtrids[1]]] + [[gtrids[3]]] * 2


async def test_each_rows_proof_and_result_are_its_own_in_whatever_order_they_come() -> None:
    life, gtrids, answers = await begun(4)
    to_a, to_b = life.transport.columns
    life.transport.columns.clear()
    to_b.yes(3, 0)
    to_a.yes(2, 0, 3, 1)
    to_b.yes(1, 2)
    await forced()
    told = {
        (call.bqual, gtrid): proof
        for call in life.transport.columns
        for gtrid, proof in zip(call.request.gtrids, call.request.proofs, strict=True)
    }
    assert told == {(bqual, gtrid): f"xid of {bqual} in {gtrid}" for bqual in (A, B) for gtrid in gtrids}
    while life.transport.columns:
        life.transport.columns.pop().done()
    assert answers.together == {
        row: (gtrid, [f"done: {row} at {A}".encode(), f"done: {row} at {B}".encode()])
        for row, gtrid in enumerate(gtrids)
    }


async def test_rows_whose_acknowledgements_come_apart_are_answered_as_they_end() -> None:
    life, gtrids, answers = await begun(4)
    life.vote_rows(A, B)
    await forced()
    to_a, to_b = life.transport.columns
    to_a.done(0, 3)
    to_b.done(3, 1)
    assert answers.rows == [3]
    to_b.done(0)
    assert answers.rows == [3, 0]
    to_a.answer(1, p.ParticipantCommitResponse(outcome=t.OUTCOME_COMMITTED))
    assert answers.rows == [3, 0, 1]
    assert set(answers.together) == {0, 1, 3}
    assert list(life.driver.transactions) == [gtrids[2]]
    to_a.done(2)
    to_b.done(2)
    assert answers.rows == [3, 0, 1, 2]


async def test_an_acknowledgement_by_itself_leaves_a_row_a_row() -> None:
    life, gtrids, answers = await begun(2)
    life.vote_rows(A, B)
    await forced()
    to_a, to_b = life.transport.columns
    to_a.answer(0, p.ParticipantCommitResponse(outcome=t.OUTCOME_COMMITTED))
    assert life.driver.transactions.single == {}
    to_b.done(0)
    assert answers.together.keys() == {0}
    assert gtrids[0] not in life.driver.transactions


# -- memory ------------------------------------------------------------------------------------------------------------


async def test_what_the_rows_were_to_do_is_forgotten_when_all_are_decided() -> None:
    """A payload may have megabytes, and ended rows are kept by the thousand."""
    life = await start()
    gtrids = life.names(2)
    work = RowsWork((A, B), ("op", "op"), [Payloads([b"1", b"2"]), [b"3", b"4"]])
    gone = weakref.ref(work.payloads[0])
    life.rows.cohorts.begin(gtrids, work, 10.0, "", False, RowAnswers())
    del work
    to_a, to_b = life.transport.columns
    life.transport.columns.clear()
    to_a.yes(0)
    to_b.yes(0)
    await forced()
    assert gone() is not None, "one is not decided, and may have to be sent again by itself"
    to_a.yes(1)
    to_b.yes(1)
    await forced()
    assert gone() is None


class Payloads(list[bytes]):
    """A list can't be referred to weakly; this one can."""


async def test_the_way_to_who_asked_is_dropped_when_all_rows_have_ended() -> None:
    """The cohort is kept as long as somebody may ask for what has ended; the stream it came on is gone by then."""
    life, _, answers = await begun(2)
    life.vote_rows(A, B)
    await forced()
    gone = weakref.ref(answers)
    life.transport.columns[0].lose(1)
    life.transport.columns[0].done(0)
    life.transport.columns[1].done()
    life.driver.retry_now()
    life.acknowledge(A)
    assert answers.rows == [0, 1]
    life.transport.columns.clear()
    del answers
    assert gone() is None


async def test_nothing_holds_a_cohort_but_what_is_kept_of_its_rows() -> None:
    life, gtrids, _ = await begun(2)
    life.vote_rows(A, B)
    await forced()
    (cohort,) = set(life.driver.transactions.rows.values())
    gone = weakref.ref(cohort)
    del cohort
    life.acknowledge_rows(A, B)
    assert gone() is not None
    for gtrid in gtrids:
        del life.driver.finished[gtrid]
    life.clock.advance(60.0)
    assert gone() is None
