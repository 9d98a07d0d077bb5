"""A trace of rows: line by line that of the same transactions by themselves, and a second opinion on the cohort."""

from __future__ import annotations

from typing import Any

import pytest

from coordinator.protocol.cohort import Cohort
from handfast.v1 import participant_pb2 as p
from handfast.v1 import types_pb2 as t
from tests.unit.runtime.alike import Pair, begun
from tests.unit.runtime.scripted import A, B, Life, RowAnswers, forced, start
from tests.unit.runtime.test_trace import Kept, traced


async def pair_traced(count: int) -> tuple[Pair, Kept, Kept]:
    (together, with_rows), (alone, without) = await traced(), await traced()
    return begun(together, alone, count, A, B), with_rows, without


def lines_of(kept: Kept, gtrid: str) -> list[dict[str, Any]]:
    """What is told of a transaction; without the time of the machine that runs the test."""
    return [{**line, "unix_us": 0} for line in kept.lines if line["gtrid"] == gtrid]


def assert_told_alike(both: Pair, with_rows: Kept, without: Kept) -> None:
    for gtrid in both.gtrids:
        assert lines_of(with_rows, gtrid) == lines_of(without, gtrid)
    assert len(with_rows.lines) == len(without.lines)


async def test_the_trace_of_rows_is_that_of_the_same_transactions_alone() -> None:
    both, with_rows, without = await pair_traced(3)
    for bqual in (A, B):
        both.advance(0.5)
        both.vote(bqual)
    await both.forced()
    for row in (2, 0, 1):
        both.advance(0.5)
        both.acknowledge(A, row)
    both.acknowledge(B)
    assert_told_alike(both, with_rows, without)
    assert [line["event"] for line in lines_of(with_rows, both.gtrids[0])] == [
        "Begun",
        "Enlisted",
        "Enlisted",
        "CommitRequested",
        "VoteReceived",
        "VoteReceived",
        "DecisionStood",
        "BranchEnded",
        "BranchEnded",
    ]


@pytest.mark.parametrize("stage", range(5))
async def test_the_trace_of_a_row_that_leaves_goes_on_where_it_was(stage: int) -> None:
    both, with_rows, without = await pair_traced(2)
    for at in range(5):
        if at == stage:
            for life in both.lives:
                life.rollback(both.gtrids[0])
        if at < 2:
            both.vote((A, B)[at])
        elif at == 3 and stage > 2:
            both.acknowledge(A)
        both.advance(0.5)
        await both.forced()
    assert_told_alike(both, with_rows, without)


async def test_the_trace_of_a_row_that_aborts_tells_why() -> None:
    both, with_rows, without = await pair_traced(2)
    both.answer(A, 0, p.PrepareResponse(vote=t.VOTE_NO, reason="no money"))
    both.vote(A, 1)
    both.vote(B)
    await both.forced()
    both.advance(60.0)
    assert_told_alike(both, with_rows, without)


async def test_what_is_told_of_a_step_is_told_before_anything_is_done_about_it() -> None:
    life, kept = await traced()
    kept.sent = life.transport.columns
    life.execute_rows(life.names(2), A, B)
    life.vote_rows(A, B)
    await forced()
    sent_before = dict(zip([line["event"] for line in kept.lines], kept.sent_before, strict=True))
    assert sent_before["CommitRequested"] == 0
    assert sent_before["DecisionStood"] == 0, "what was sent before is answered, and Commit has not left"
    assert len(life.transport.columns) == 2


def forgets_a_vote(cohort: Cohort, branch: int, rows: list[int], *rest: Any) -> list[int]:
    """A cohort that offers a record when the first vote is in."""
    VOTED(cohort, branch, rows, *rest)
    return [row for row in rows if row == 1]


VOTED = Cohort.voted


async def test_a_row_for_which_its_machine_wants_something_else_is_set_aside_and_never_commits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    life, _ = await traced()
    gtrids = life.names(2)
    answers = life.execute_rows(gtrids, A, B)
    monkeypatch.setattr(Cohort, "voted", forgets_a_vote)
    to_a, to_b = life.transport.columns
    to_a.yes(1)
    assert answers.fault(1).code == "INTERNAL"
    assert "its machine wants" in answers.fault(1).message
    monkeypatch.undo()
    to_a.yes(0)
    to_b.yes()
    await forced()
    assert life.log.lookup(gtrids[1]) is None
    assert [list(call.request.gtrids) for call in life.transport.columns[2:]] == [[gtrids[0]]] * 2


async def test_a_decision_that_the_machine_does_not_know_is_not_told_to_anybody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The record is durable by then; a restart goes by it."""
    life, _ = await traced()
    answers = life.execute_rows(life.names(2), A, B, at_decision=True)
    life.vote_rows(A, B)
    (cohort,) = set(life.driver.transactions.rows.values())
    monkeypatch.setattr(shadows_of(cohort), "step", fails)
    await forced()
    assert life.transport.shown_columns() == []
    assert [answers.fault(row).code for row in (0, 1)] == ["INTERNAL"] * 2


def shadows_of(cohort: Any) -> Any:
    """The machines beside a cohort."""
    return cohort._shadows


def fails(*args: object) -> None:
    raise RuntimeError("a defect")


async def test_without_a_trace_there_is_no_machine_beside_a_row() -> None:
    life: Life = await start()
    answers: RowAnswers = life.execute_rows(life.names(2), A, B)
    (cohort,) = set(life.driver.transactions.rows.values())
    assert shadows_of(cohort) is None
    assert answers.told == []
