"""The participants of the benchmarks that do nothing: what they answer columns is what they answer as many calls."""

from typing import Any

import pytest
from google.protobuf.message import Message

from benchmarks.servers.noop import dispatch, take_columns
from handfast.catalog import HandfastFault
from handfast.frames import PARTICIPANT
from handfast.v1 import participant_pb2 as p


class Noted:
    """Answers in columns."""

    def __init__(self) -> None:
        self.answers: list[Any] = []

    def columns(self, answer: Message) -> None:
        """Note it."""
        self.answers.append(answer)

    def single(self, call_id: int, answer: Message | HandfastFault) -> None:
        """Never used."""
        raise AssertionError(f"{call_id} was answered by itself")


@pytest.mark.parametrize(
    "columns",
    [
        p.PrepareColumns(first_id=10, bqual="a.b", name="w", gtrids=["x"] * 5, payloads=[b""] * 5),
        p.CommitColumns(first_id=10, bqual="a.b", gtrids=["x"] * 5, proofs=["1"] * 5),
    ],
    ids=["Prepare", "Commit"],
)
def test_rows_are_answered_as_calls_are(columns: Any) -> None:
    kind, noted = PARTICIPANT.kind_of(columns), Noted()
    assert take_columns(columns, 1, 4, noted)
    (answer,) = noted.answers
    assert (kind.answer_problem(answer), list(answer.ids)) == ("", [11, 12, 13])
    for row in range(3):
        singly: list[Message | HandfastFault] = []
        dispatch(kind.request_of(columns, row), singly.append)
        assert singly == [kind.response_of(answer, row)]
