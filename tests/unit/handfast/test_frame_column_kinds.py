"""Each kind of columns: what a row spells, which answers fit, and what is wrong with columns."""

from typing import Any

import pytest
from google.protobuf.message import Message

from handfast.frames import (
    COORDINATOR,
    PARTICIPANT,
)
from handfast.frames.columns import ColumnKind
from handfast.v1 import coordinator_pb2 as c
from handfast.v1 import participant_pb2 as p
from handfast.v1 import types_pb2 as t
from tests.unit.handfast.columns_of_calls import execute, executes, expected

PREPARES, COMMITS = PARTICIPANT.columns
(EXECUTES,) = COORDINATOR.columns


@pytest.mark.parametrize(
    ("kind", "columns", "requests"),
    [
        (EXECUTES, executes(3, wait=c.WAIT_DECIDED), [execute(row, wait=c.WAIT_DECIDED) for row in range(3)]),
        (
            PREPARES,
            p.PrepareColumns(bqual="accounts.a1", name="w", timeout_ms=9, gtrids=["x", "y"], payloads=[b"1", b"2"]),
            [
                p.PrepareRequest(
                    gtrid=gtrid,
                    bqual="accounts.a1",
                    operations=[t.Operation(resource="accounts", name="w", payload=payload)],
                    timeout_ms=9,
                )
                for gtrid, payload in (("x", b"1"), ("y", b"2"))
            ],
        ),
        (
            COMMITS,
            p.CommitColumns(bqual="accounts.a1", gtrids=["x", "y"], proofs=["1", "2"]),
            [
                p.ParticipantCommitRequest(gtrid="x", bqual="accounts.a1", proof="1"),
                p.ParticipantCommitRequest(gtrid="y", bqual="accounts.a1", proof="2"),
            ],
        ),
    ],
    ids=["Execute", "Prepare", "Commit"],
)
def test_a_row_is_the_request_that_it_spells(kind: ColumnKind, columns: Any, requests: list[Message]) -> None:
    assert kind.problem(columns) == ""
    assert [kind.request_of(columns, row) for row in range(kind.count(columns))] == requests


@pytest.mark.parametrize(
    ("kind", "responses"),
    [
        (EXECUTES, [expected(number) for number in range(3)]),
        (PREPARES, [p.PrepareResponse(vote=t.VOTE_YES, proof=proof, results=[b"r"]) for proof in ("1", "2", "")]),
        (COMMITS, [p.ParticipantCommitResponse(outcome=t.OUTCOME_COMMITTED)] * 3),
    ],
    ids=["Execute", "Prepare", "Commit"],
)
def test_answers_come_out_of_columns_as_they_went_in(kind: ColumnKind, responses: list[Message]) -> None:
    assert len({kind.answer_shape(response) for response in responses} - {None}) == 1
    answer: Any = kind.answer_of([7, 3, 5], responses)
    assert (kind.answer_problem(answer), list(answer.ids)) == ("", [7, 3, 5])
    assert [kind.response_of(answer, row) for row in range(3)] == responses


@pytest.mark.parametrize(
    ("kind", "response"),
    [
        (EXECUTES, c.ExecuteResponse(gtrid="t")),
        (EXECUTES, c.ExecuteResponse(outcome=t.OUTCOME_ABORTED)),
        (EXECUTES, c.ExecuteResponse(outcome=t.OUTCOME_COMMITTED, reason="why")),
        (EXECUTES, c.ExecuteResponse(outcome=t.OUTCOME_COMMITTED, cause=t.ABORT_CAUSE_VOTE_NO)),
        (EXECUTES, c.ExecuteResponse(outcome=t.OUTCOME_COMMITTED, branches=[t.Branch()])),
        (PREPARES, p.PrepareResponse(vote=t.VOTE_NO, results=[b""])),
        (PREPARES, p.PrepareResponse(vote=t.VOTE_READ_ONLY, results=[b""])),
        (PREPARES, p.PrepareResponse(vote=t.VOTE_YES)),
        (PREPARES, p.PrepareResponse(vote=t.VOTE_YES, results=[b"", b""])),
        (PREPARES, p.PrepareResponse(vote=t.VOTE_YES, results=[b""], reason="why")),
        (PREPARES, p.PrepareResponse(vote=t.VOTE_YES, results=[b""], reason_code="WHY")),
        (COMMITS, p.ParticipantCommitResponse()),
        (COMMITS, p.ParticipantCommitResponse(outcome=t.OUTCOME_HEURISTIC_ROLLBACK)),
        (COMMITS, p.ParticipantCommitResponse(outcome=t.OUTCOME_COMMITTED, evidence="seen")),
    ],
    ids=[
        *("no outcome", "aborted", "a reason", "a cause", "branches"),
        *("no", "read-only", "no result", "two results", "words", "a code"),
        *("no end", "heuristic", "evidence"),
    ],
)
def test_an_answer_that_says_anything_else_stands_in_no_columns(kind: ColumnKind, response: Message) -> None:
    assert kind.answer_shape(response) is None


@pytest.mark.parametrize(
    ("kind", "columns", "problem"),
    [
        (PREPARES, p.PrepareColumns(), "it has no rows"),
        (PREPARES, p.PrepareColumns(gtrids=["x"]), "it has 1 gtrids and 0 payloads"),
        (PREPARES, p.PrepareColumns(gtrids=["x"], payloads=[b"", b""]), "it has 1 gtrids and 2 payloads"),
        (COMMITS, p.CommitColumns(), "it has no rows"),
        (COMMITS, p.CommitColumns(gtrids=["x", "y"], proofs=["1"]), "it has 2 gtrids and 1 proofs"),
    ],
    ids=["no prepares", "few payloads", "many payloads", "no commits", "few proofs"],
)
def test_what_the_coordinator_sends_as_columns_has_as_many_of_each(
    kind: ColumnKind, columns: Message, problem: str
) -> None:
    assert kind.problem(columns) == problem
