"""A participant of the SDK that is asked in columns: it sees ordinary requests, and its plain answers go in columns."""

from collections.abc import Sequence
from typing import Any

import grpc.aio
from google.protobuf.message import Message

from handfast.frames import PARTICIPANT, CallFailed, CallStream, channel_options
from handfast.frames.dialing import FrameDialer
from handfast.v1 import participant_pb2 as p
from handfast.v1 import types_pb2 as t
from participant import Participant, ParticipantOptions
from participant.testing import Changes, FakeCoordinator, MemoryResource, serving
from tests.waiting import eventually


class Told:
    """What rows were told."""

    def __init__(self) -> None:
        self.answers: dict[int, Message | CallFailed] = {}
        self.in_columns: set[int] = set()

    def columns(self, rows: Sequence[int], answer: Message, start: int) -> None:
        """Note each row's response."""
        self.in_columns.update(rows)
        responses = PARTICIPANT.kind_of(answer).responses_in(answer)
        self.answers.update({row: responses(start + place) for place, row in enumerate(rows)})

    def single(self, row: int, reply: Message | CallFailed) -> None:
        """Note the row's answer."""
        assert row not in self.answers
        self.answers[row] = reply


async def write(changes: Changes, payload: bytes) -> bytes:
    if payload == b"bad":
        raise ValueError("it is bad")
    changes["written"] = payload
    return payload.upper()


async def test_a_participant_votes_and_commits_by_rows_and_knows_nothing_of_it() -> None:
    resource = MemoryResource()
    one = Participant(
        "stock",
        resource,
        coordinator="127.0.0.1:9",
        address="127.0.0.1:0",
        options=ParticipantOptions(close_wait_s=0.01),
    )
    one.operation("write")(write)
    gtrids = [FakeCoordinator().new_gtrid()[:-1] + digit for digit in "12345"]
    payloads = [b"a", b"b", b"bad", b"d", b"e"]
    async with serving(one) as address, grpc.aio.insecure_channel(address, options=channel_options()) as channel:
        calls = CallStream(channel, PARTICIPANT, dialer=FrameDialer(address))
        await calls.ask(p.RecoverRequest(resource="stock"), timeout_s=10)
        assert calls.takes_columns

        bqual = f"stock.{one.instance}"
        votes, ends = Told(), Told()
        columns = p.PrepareColumns(bqual=bqual, name="write", timeout_ms=9_000, gtrids=gtrids, payloads=payloads)
        calls.call_columns(columns, 5, votes, timeout_s=10)
        await eventually(lambda: len(votes.answers) == 5)
        good = [0, 1, 3, 4]
        assert votes.in_columns == set(good)
        said: list[Any] = [votes.answers[row] for row in range(5)]
        assert [list(said[row].results) for row in good] == [[b"A"], [b"B"], [b"D"], [b"E"]]
        assert (said[2].vote, said[2].reason_code) == (t.VOTE_NO, "OPERATION_FAILED")

        decided = p.CommitColumns(
            bqual=bqual, gtrids=[gtrids[row] for row in good], proofs=[said[row].proof for row in good]
        )
        calls.call_columns(decided, 4, ends, timeout_s=10)
        await eventually(lambda: len(ends.answers) == 4)
        assert ends.in_columns == {0, 1, 2, 3}
        assert list(ends.answers.values()) == [p.ParticipantCommitResponse(outcome=t.OUTCOME_COMMITTED)] * 4
        await calls.close()
