"""Rows that do not go the common way: each becomes the transaction that it would have been, and the others go on."""

from __future__ import annotations

import pytest

from coordinator.protocol.states import Cause, Decision, Outcome, TransactionState
from coordinator.runtime.messages import PROOF_LENGTH_MAX
from coordinator.runtime.requests import Standing
from handfast.catalog import HandfastFault
from handfast.frames import CallFailed
from handfast.v1 import participant_pb2 as p
from handfast.v1 import types_pb2 as t
from tests.unit.runtime.alike import Pair, every_field, pair
from tests.unit.runtime.scripted import A, Answers, B, Life, RowAnswers, forced, start, timed_out

S = TransactionState

NO = p.PrepareResponse(vote=t.VOTE_NO, reason="no money", reason_code="POOR")
READ_ONLY = p.PrepareResponse(vote=t.VOTE_READ_ONLY, results=[b"seen"])
WITHOUT_RESULTS = p.PrepareResponse(vote=t.VOTE_YES, proof="xid 7")


async def begun(count: int = 3, *, at_decision: bool = False) -> tuple[Life, list[str], RowAnswers]:
    """A coordinator with rows, nothing of which is answered."""
    life = await start()
    gtrids = life.names(count)
    return life, gtrids, life.execute_rows(gtrids, A, B, at_decision=at_decision)


async def finish(both: Pair, *rows: int) -> None:
    """Let what is asked in columns of the others go well."""
    both.vote(A, *rows)
    both.vote(B, *rows)
    await both.forced()
    both.acknowledge(A, *rows)
    both.acknowledge(B, *rows)


# -- votes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "cause", "reason"),
    [
        (NO, Cause.VOTE_NO, f"{A} voted no: no money"),
        (timed_out(A), Cause.UNREACHABLE, f"the vote of {A} was lost: {A} did not answer."),
        (p.YesColumns(), Cause.UNREACHABLE, f"the vote of {A} was lost: answered with YesColumns"),
        (p.PrepareResponse(), Cause.VOTE_NO, f"{A} voted no: {A} answered Prepare without a vote"),
    ],
    ids=["NO", "lost", "no vote at all", "no vote in it"],
)
async def test_a_row_that_is_not_voted_for_aborts_alone_and_the_others_commit(
    reply: p.PrepareResponse | CallFailed, cause: Cause, reason: str
) -> None:
    both = await pair(3, A, B)
    both.answer(A, 1, reply)
    await finish(both, 0, 2)
    assert set(both.rows.together) == {0, 2}
    both.advance(2.0)
    machine = both.rows.alone(1).transaction
    assert (machine.decision, machine.cause, machine.reason) == (Decision.ABORT, cause, reason)
    assert both.rows.rows == [0, 2, 1]
    rollbacks = [one for one in both.alone.transport.shown() if one.startswith("Rollback")]
    assert both.together.transport.shown() == rollbacks
    both.assert_alike()
    assert both.together.driver.counters["committed"] == 2


async def test_an_aborted_row_takes_the_late_vote_that_its_columns_still_bring() -> None:
    """YES after a rollback: the branch is prepared, and is told again."""
    both = await pair(2, A, B)
    both.answer(A, 0, NO)
    for one in both.lives:
        one.rolled_back(B)
    assert both.rows.alone(0).outcome is Outcome.ABORTED
    assert len(both.together.driver.transactions) == 2, "a vote is missing"
    both.vote(B)
    assert both.together.transport.shown() == [f"Rollback {B}"]
    for one in both.lives:
        one.rolled_back(B)
    both.assert_alike(0)
    assert list(both.together.driver.transactions) == [both.gtrids[1]]


@pytest.mark.parametrize("reply", [READ_ONLY, WITHOUT_RESULTS], ids=["READ_ONLY", "YES without results"])
async def test_a_row_with_an_odd_vote_goes_on_alone_and_commits(reply: p.PrepareResponse) -> None:
    both = await pair(2, A, B)
    both.answer(A, 0, reply)
    both.vote(A, 1)
    both.vote(B)
    await both.forced()
    both.acknowledge(A, 1)
    both.acknowledge(B, 1)
    both.assert_alike()
    for life in both.lives:
        calls = [call for call in life.transport.calls if isinstance(call.request, p.ParticipantCommitRequest)]
        for call in calls:
            call.answer(p.ParticipantCommitResponse(outcome=t.OUTCOME_COMMITTED))
    assert both.rows.alone(0).outcome is Outcome.COMMITTED
    assert set(both.rows.together) == {1}
    both.assert_alike()


async def test_a_proof_that_is_too_long_aborts_its_row_and_no_other() -> None:
    life, gtrids, answers = await begun()
    to_a, to_b = life.transport.columns
    life.transport.columns.clear()
    proofs = ["xid", "x" * (PROOF_LENGTH_MAX + 1), "xid"]
    to_a.replies.columns([0, 1, 2], p.YesColumns(ids=[0, 1, 2], proofs=proofs, results=[b""] * 3), 0)
    assert life.transport.shown() == [f"Rollback {B}"]
    assert list(life.driver.transactions.single) == gtrids, "they go the way of the odd one, and that leads to the end"
    to_b.yes()
    await forced()
    commits = [call for call in life.transport.calls if isinstance(call.request, p.ParticipantCommitRequest)]
    assert [(call.bqual, call.request.gtrid) for call in commits] == [
        (A, gtrids[0]),
        (B, gtrids[0]),
        (A, gtrids[2]),
        (B, gtrids[2]),
    ]
    for call in commits:
        call.answer(p.ParticipantCommitResponse(outcome=t.OUTCOME_COMMITTED))
    assert [answers.alone(row).outcome for row in (0, 2)] == [Outcome.COMMITTED] * 2
    life.rolled_back(B, B)
    machine = answers.alone(1).transaction
    assert (machine.outcome, machine.cause) == (Outcome.ABORTED, Cause.VOTE_NO)


# -- whoever asks ------------------------------------------------------------------------------------------------------

STAGES = ("nothing", "one vote", "offered", "told", "one acknowledgement")


async def brought_to(stage: str, *, at_decision: bool = False) -> Pair:
    """Two transactions that have come so far, the logs' word held back if they are with it."""
    both = await pair(2, A, B, at_decision=at_decision)
    if stage == "nothing":
        return both
    both.advance(1.0)
    both.vote(A)
    if stage == "one vote":
        return both
    for life in both.lives:
        life.log.hold()
    both.advance(1.0)
    both.vote(B)
    if stage == "offered":
        return both
    for life in both.lives:
        life.log.release()
    await both.forced()
    if stage == "one acknowledgement":
        both.advance(1.0)
        both.acknowledge(A)
    return both


async def bring_on(both: Pair, stage: str, row: int = 0) -> None:
    """Let what is under way at this stage go well, and what follows from it; a row left at that stage."""
    left = STAGES.index(stage)
    if left < 1:
        both.vote(A)
    if left < 2:
        both.vote(B)
    for life in both.lives:
        life.log.release()
    await both.forced()
    if left < 3:
        # What left before its decision is told by itself.
        alone = [call for call in both.together.transport.calls if isinstance(call.request, p.ParticipantCommitRequest)]
        assert [(call.bqual, call.request.gtrid) for call in alone] == [(A, both.gtrids[row]), (B, both.gtrids[row])]
        for call in alone:
            both._answer_alone(call.bqual, type(call.request), call.request.gtrid, DONE)
            call.answer(DONE)
        both.acknowledge(A, 1 - row)
        both.acknowledge(B, 1 - row)
        return
    if left < 4:
        both.acknowledge(A)
    both.acknowledge(B)


DONE = p.ParticipantCommitResponse(outcome=t.OUTCOME_COMMITTED)


@pytest.mark.parametrize("stage", STAGES)
async def test_who_looks_at_a_row_finds_the_transaction_that_it_would_have_been(stage: str) -> None:
    """Every field of it: what is held back, under way and still to be done; when it was decided; who waits."""
    both = await brought_to(stage)
    both.assert_alike()
    assert both.together.driver.transactions.rows == {}


@pytest.mark.parametrize("at_decision", [False, True], ids=["applied", "decided"])
@pytest.mark.parametrize("stage", STAGES)
async def test_what_was_under_way_for_a_row_is_handed_on_and_its_asker_answered_once(
    stage: str, at_decision: bool
) -> None:
    both = await brought_to(stage, at_decision=at_decision)
    both.assert_alike(0)
    await bring_on(both, stage)
    both.assert_alike()
    assert sorted(both.rows.rows) == [0, 1]
    assert at_decision or 1 in both.rows.together
    assert both.rows.alone(0).outcome is Outcome.COMMITTED
    assert [len(one.told) for one in both.singles] == [1, 1]
    assert [len(life.driver.transactions) for life in both.lives] == [0, 0]
    assert both.together.driver.open_by_client == both.alone.driver.open_by_client == {}
    assert both.together.driver.counters == both.alone.driver.counters | {"begun_together": 2}


@pytest.mark.parametrize("stage", STAGES)
async def test_who_asks_to_commit_or_execute_a_row_waits_beside_the_first_asker(stage: str) -> None:
    both = await brought_to(stage)
    asked = []
    for life in both.lives:
        again = Answers()
        life.requests.execute(both.gtrids[0], 0, [], False, again)
        asked += [life.commit(both.gtrids[0]), again]
    assert [one.told for one in asked] == [[]] * 4
    await bring_on(both, stage)
    assert [one.only.outcome for one in asked] == [Outcome.COMMITTED] * 4
    assert both.rows.alone(0).outcome is Outcome.COMMITTED
    both.assert_alike()


@pytest.mark.parametrize("stage", STAGES)
async def test_who_asks_for_what_stands_is_told_it(stage: str) -> None:
    both = await brought_to(stage)
    expected = Standing.UNDECIDED if STAGES.index(stage) < 3 else Standing.COMMIT
    for life in both.lives:
        assert life.requests.inquire(both.gtrids[0], A, 0).standing is expected
    shown = both.together.requests.show(both.gtrids[0])
    assert shown is both.together.driver.transactions.single[both.gtrids[0]]
    both.assert_alike()


@pytest.mark.parametrize("stage", STAGES)
async def test_who_rolls_a_row_back_may_until_its_record_is_offered(stage: str) -> None:
    both = await brought_to(stage)
    asked = [life.rollback(both.gtrids[0]) for life in both.lives]
    if STAGES.index(stage) < 2:
        assert both.together.transport.shown() == [f"Rollback {A}", f"Rollback {B}"]
        for life in both.lives:
            life.rolled_back(A, B)
        await bring_on_others(both, stage)
        for life in both.lives:
            rollbacks = [call for call in life.transport.calls if type(call.request) is p.ParticipantRollbackRequest]
            for call in rollbacks:
                life.transport.calls.remove(call)
                call.answer(p.ParticipantRollbackResponse(outcome=t.OUTCOME_ABORTED))
        assert both.rows.alone(0).transaction.cause is Cause.CLIENT
        assert [one.only.outcome for one in asked] == [Outcome.ABORTED] * 2
    else:
        await bring_on(both, stage)
        assert [one.fault.code for one in asked] == ["ALREADY_DECIDED"] * 2
        assert both.rows.alone(0).outcome is Outcome.COMMITTED
    assert set(both.rows.together) == {1}
    both.assert_alike()


async def bring_on_others(both: Pair, stage: str) -> None:
    """Let votes come for both, of which the first has been rolled back, and the second commit."""
    if stage == "nothing":
        both.vote(A)
    both.vote(B)
    await both.forced()
    both.acknowledge(A, 1)
    both.acknowledge(B, 1)


async def test_a_row_takes_no_further_branches() -> None:
    both = await brought_to("one vote")
    for life in both.lives:
        assert life.requests.enlist(both.gtrids[0], "ledger", "b1", 0) == B, "it is there"
        with pytest.raises(HandfastFault, match="takes no more branches"):
            life.requests.enlist(both.gtrids[0], "audit", "c1", 0)
    await bring_on(both, "one vote")
    both.assert_alike()


async def test_whether_a_row_is_there_and_how_many_are_can_be_asked_without_taking_one_out() -> None:
    """The sweep for orphans asks so for each prepared branch that a participant lists."""
    life, gtrids, _ = await begun()
    assert gtrids[1] in life.driver.transactions
    assert "k3v9q2xw-1-0-0" not in life.driver.transactions
    assert (len(life.driver.transactions), list(life.driver.transactions)) == (3, gtrids)
    assert life.driver.transactions.single == {}


async def test_a_row_that_left_counts_as_before() -> None:
    life = await start()
    gtrids = life.names(3, "billing")
    life.execute_rows(gtrids, A, B)
    life.driver.find(gtrids[1])
    assert life.driver.open_by_client == {"billing": 3}
    assert len(life.driver.transactions) == 3
    assert set(life.driver.transactions) == set(gtrids)
    assert life.driver.counters["begun"] == 3


async def test_all_rows_can_be_looked_at_one_after_the_other() -> None:
    """As reports do, and a coordinator that stops."""
    both = await brought_to("offered")
    seen = [[every_field(running) for running in life.driver.transactions.values()] for life in both.lives]
    assert seen[0] == seen[1]
    assert len(seen[0]) == 2


async def test_a_read_of_a_row_that_has_ended_leaves_it_where_it_is() -> None:
    life, gtrids, _ = await begun(1)
    life.vote_rows(A, B)
    await forced()
    life.acknowledge_rows(A, B)
    shown = life.requests.show(gtrids[0])
    assert shown is not None
    assert shown.transaction.state is S.COMMITTED
    assert life.requests.inquire(gtrids[0], "", 2).standing is Standing.COMMIT
    assert gtrids[0] not in life.driver.transactions
    assert life.driver.open_by_client == {}
