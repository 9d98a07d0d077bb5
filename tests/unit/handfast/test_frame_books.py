"""The calling side's books: whichever way rows and calls are answered, each caller is told once, and what was said."""

from collections.abc import Sequence
from typing import Any

import pytest
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from handfast.frames import LOST, PARTICIPANT, CallFailed
from handfast.frames.books import Books
from handfast.frames.outstanding import Batch, Call
from handfast.v1 import participant_pb2 as p
from handfast.v1 import types_pb2 as t

PREPARES, COMMITS = PARTICIPANT.columns


class Noted:
    """What rows were told, in the order in which they were."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, str]] = []

    def columns(self, rows: Sequence[int], answer: Any, start: int) -> None:
        """Note each row with its proof."""
        self.rows += [(row, answer.proofs[start + place]) for place, row in enumerate(rows)]

    def single(self, row: int, reply: Message | CallFailed) -> None:
        """Note the row with its proof, or with why it failed."""
        self.rows.append((row, reply.message if isinstance(reply, CallFailed) else reply.proof))  # type: ignore[attr-defined]


def prepares(books: Books, first_id: int, count: int) -> Noted:
    """Rows on the books."""
    columns = p.PrepareColumns(first_id=first_id, bqual="a.b", gtrids=["x"] * count, payloads=[b""] * count)
    noted = Noted()
    books.batches.add(Batch(PREPARES, PARTICIPANT.methods[PREPARES.request], columns, count, 9, noted, 60.0))
    return noted


def prepare(books: Books, call_id: int) -> list[Message | CallFailed]:
    """A single call on the books."""
    told: list[Message | CallFailed] = []
    request = p.PrepareRequest(gtrid="x")
    books.calls[call_id] = Call(call_id, PARTICIPANT.method(request), request, told.append, None)
    return told


def yes(*ids: int) -> p.ParticipantConnectResponse:
    """Answers in columns; each proof is the call's id."""
    columns = p.YesColumns(ids=ids, proofs=[str(one) for one in ids], results=[b""] * len(ids))
    return p.ParticipantConnectResponse(yes=[columns])


@pytest.fixture
def books() -> Books:
    return Books(PARTICIPANT, "the participant")


@pytest.mark.parametrize(
    "frames",
    [
        [yes(*range(10, 14), *range(20, 25))],
        [yes(24, 10, 23, 11, 22, 12, 21, 13, 20)],
        [yes(10, 12, 13), yes(20, 24, 22), yes(11, 21, 23)],
        [yes(10, 10, 11, 11, 12, 13, 20), yes(10, 20, 21, 22, 23, 24, 24)],
        [yes(9, 10, 11, 12, 13, 14, 15), yes(0, 19, 20, 21, 22, 23, 24, 25, 2**64 - 1)],
        [yes(*range(5, 30))],
        [yes(*range(24, 9, -1))],
    ],
    ids=["in order", "alternating", "in parts", "repeated", "with unknown ones", "from before to after", "backwards"],
)
def test_each_row_is_told_its_own_answer_once(books: Books, frames: list[Message]) -> None:
    one, two = prepares(books, 10, 4), prepares(books, 20, 5)
    for frame in frames:
        books.take(frame)
    assert sorted(one.rows) == [(row, str(10 + row)) for row in range(4)]
    assert sorted(two.rows) == [(row, str(20 + row)) for row in range(5)]
    assert not books.calls
    assert not books.batches


def test_single_calls_and_rows_may_be_answered_by_the_same_columns(books: Books) -> None:
    before, rows, between = prepare(books, 9), prepares(books, 10, 3), prepare(books, 13)
    books.take(yes(13, 10, 9, 11, 12))
    assert rows.rows == [(0, "10"), (1, "11"), (2, "12")]
    assert before == [p.PrepareResponse(vote=t.VOTE_YES, proof="9", results=[b""])]
    assert between == [p.PrepareResponse(vote=t.VOTE_YES, proof="13", results=[b""])]
    assert not books.calls
    assert not books.batches


def test_rows_may_be_answered_by_replies_of_their_own(books: Books) -> None:
    rows = prepares(books, 10, 3)
    replies = [p.ParticipantReply(id=number, prepare=p.PrepareResponse(proof=str(number))) for number in (12, 10, 10)]
    replies += [p.ParticipantReply(id=number) for number in (9, 13, 11)]
    books.take(p.ParticipantConnectResponse(replies=replies))
    assert rows.rows[:2] == [(2, "12"), (0, "10")]
    assert rows.rows[2][0] == 1
    assert "it answered Prepare with nothing" in rows.rows[2][1]
    assert not books.calls
    assert not books.batches


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"done": [p.DoneColumns(ids=[10, 11])]}, "it answered Prepare with DoneColumns"),
        (
            {"yes": [p.YesColumns(ids=[10, 11], proofs=["1"], results=[b"", b""])]},
            "it answered Prepare with YesColumns: it has 2 ids and 1 proofs and 2 results",
        ),
        (
            {"yes": [p.YesColumns(ids=[10, 11], proofs=["1", "2"])]},
            "it answered Prepare with YesColumns: it has 2 ids and 2 proofs and 0 results",
        ),
    ],
    ids=["of another kind", "too few proofs", "no results"],
)
def test_columns_that_do_not_fit_fail_the_calls_that_they_name(books: Books, answer: Any, said: str) -> None:
    rows, single = prepares(books, 10, 1), prepare(books, 11)
    left = prepares(books, 12, 1)
    books.take(p.ParticipantConnectResponse(**answer))
    ((row, why),) = rows.rows
    assert row == 0
    assert said in why
    (failure,) = single
    assert isinstance(failure, CallFailed)
    assert (failure.code, failure.maybe_executed, said in failure.message) == (LOST, True, True)
    assert said in books.last_error
    assert left.rows == []
    books.take(yes(12))
    assert (left.rows, books.last_error) == ([(0, "12")], "")


def test_open_rows_become_calls_of_their_own_and_no_others(books: Books) -> None:
    rows, later = prepares(books, 10, 4), prepares(books, 20, 2)
    for batch, due_s in zip(books.batches, (1.0, 3.0), strict=True):
        batch.due_s, batch.written = due_s, True
    books.take(yes(11, 12))
    books.single_out(2.0)
    assert sorted(books.calls) == [10, 13]
    assert [(call.due_s, call.written, call.timeout_s) for call in books.calls.values()] == [(1.0, True, 60.0)] * 2
    assert [call.request for call in books.calls.values()] == [
        p.PrepareRequest(gtrid="x", bqual="a.b", operations=[t.Operation(resource="a")])
    ] * 2
    books.take(yes(10, 13, 20, 21))
    assert sorted(rows.rows) == [(row, str(10 + row)) for row in range(4)]
    assert later.rows == [(0, "20"), (1, "21")]
    assert not books.calls
    assert not books.batches


@given(
    counts=st.lists(st.integers(1, 6), max_size=4),
    gaps=st.lists(st.integers(0, 3), min_size=4, max_size=4),
    frames=st.lists(st.lists(st.integers(0, 30), max_size=12), max_size=6),
)
def test_whatever_ids_come_in_whatever_order_each_open_row_is_told_once(
    counts: list[int], gaps: list[int], frames: list[list[int]]
) -> None:
    books, first_id = Books(PARTICIPANT, "the participant"), 1
    expected: dict[int, tuple[Noted, int]] = {}
    for count, gap in zip(counts, gaps, strict=False):
        first_id += gap
        noted = prepares(books, first_id, count)
        expected |= {first_id + row: (noted, row) for row in range(count)}
        first_id += count
    for ids in frames:
        books.take(yes(*ids))
    named = {call_id for ids in frames for call_id in ids}
    for call_id, (noted, row) in expected.items():
        told = [said for of, said in noted.rows if of == row]
        assert told == ([str(call_id)] if call_id in named else [])
    books.single_out()
    assert sorted(books.calls) == sorted(expected.keys() - named)
