"""Columns, seen from the serving side: each row is answered once; and columns that are none, from strangers."""

from typing import Any

import grpc
import grpc.aio
import pytest

from handfast.frames import (
    COORDINATOR,
    CallStream,
    failure_of_rpc,
)
from handfast.v1 import coordinator_pb2 as c
from handfast.v1 import participant_pb2 as p
from tests.unit.handfast.columns_of_calls import (
    WAIT_S,
    Taking,
    Told,
    beginning,
    committed,
    committed_columns,
    execute,
    executes,
    expected,
    never,
    taken_by,
)
from tests.unit.handfast.peers import channel_to, served
from tests.waiting import eventually

# -- the way to answer ---------------------------------------------------------------------------------------------


async def test_answering_what_is_not_owed_or_in_no_shape_is_the_services_mistake() -> None:
    taking, told = Taking(), Told()
    async with taken_by(taking) as (_, calls):
        calls.call_columns(executes(4), 4, told, timeout_s=WAIT_S)
        await eventually(lambda: bool(taking.taken))
        columns, _, _, reply = taking.taken[0]
        taking.answer([0])
        for rows in ([0, 1], [1, 1]):
            with pytest.raises(RuntimeError, match="answers a call twice, or none"):
                taking.answer(rows)
        with pytest.raises(RuntimeError, match="answered twice"):
            reply.single(columns.first_id, expected(0))
        with pytest.raises(TypeError, match="no columns of type YesColumns"):
            reply.columns(p.YesColumns())
        with pytest.raises(TypeError, match="ExecuteColumns answers nothing"):
            reply.columns(executes(1))
        with pytest.raises(TypeError, match="no reply of type BeginRequest"):
            reply.single(columns.first_id + 1, c.BeginRequest())
        with pytest.raises(ValueError, match="2 ids and 1 gtrids"):
            reply.columns(c.CommittedColumns(ids=[columns.first_id + 1, columns.first_id + 2], gtrids=["t1"]))
        taking.answer([1, 2, 3])
        await eventually(lambda: len(told.rows) == 4)
        assert told.answers == {row: expected(row) for row in range(4)}


async def test_answers_too_large_for_one_frame_are_spread_over_frames() -> None:
    taking, told = Taking(), Told()
    async with taken_by(taking) as (_, calls):
        calls.call_columns(executes(6), 6, told, timeout_s=WAIT_S)
        await eventually(lambda: bool(taking.taken))
        columns, _, _, reply = taking.taken[0]
        large = committed_columns(columns, range(6))
        large.results[:] = [bytes([row]) * (4 * 2**20) for row in range(6)]
        large.results_each = 1
        reply.columns(large)
        await eventually(lambda: len(told.rows) == 6, within_s=WAIT_S)
        assert [set(told.answers[row].results[0]) for row in range(6)] == [{row} for row in range(6)]  # type: ignore[union-attr]


def by_hand(channel: grpc.aio.Channel) -> Any:
    """A stream that is written to as a program in another language would."""
    connect: Any = channel.stream_stream(
        COORDINATOR.connect_path,
        request_serializer=c.CoordinatorConnectRequest.SerializeToString,
        response_deserializer=c.CoordinatorConnectResponse.FromString,
    )
    return connect()


async def test_only_calls_that_came_in_columns_are_answered_in_columns() -> None:
    async with served(committed) as peer, channel_to(peer) as channel:
        stream = by_hand(channel)
        singles = [c.CoordinatorCall(id=number, execute=execute(number)) for number in range(3)]
        await stream.write(c.CoordinatorConnectRequest(calls=singles, executes=[executes(4, first_id=10)]))
        frame = await stream.read()
        assert [reply.id for reply in frame.replies] == [0, 1, 2]
        assert [list(answer.ids) for answer in frame.committed] == [[10, 11, 12, 13]]
        stream.cancel()


async def test_a_stream_ends_when_the_rows_that_are_owed_have_their_answers() -> None:
    taking = Taking()
    async with served(never, columns=taking) as peer, channel_to(peer) as channel:
        stream = by_hand(channel)
        await stream.write(c.CoordinatorConnectRequest(executes=[executes(4, first_id=2**64 - 4)]))
        await stream.done_writing()
        await eventually(lambda: bool(taking.taken))
        taking.answer([0, 1, 3])
        assert list((await stream.read()).committed[0].ids) == [2**64 - 4, 2**64 - 3, 2**64 - 1]
        taking.answer([2])
        assert list((await stream.read()).committed[0].ids) == [2**64 - 2]
        assert await stream.code() is grpc.StatusCode.OK


# -- hostile columns -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        (c.ExecuteColumns(), "it has no rows"),
        (executes(3, gtrids=["t"]), "it has 3 rows and 1 gtrids"),
        (executes(3, gtrids=["t"] * 4), "it has 3 rows and 4 gtrids"),
        (executes(3, payloads=[b""] * 5), "it has 3 rows of 2 operations and 5 payloads"),
        (executes(3, payloads=[b""] * 7), "it has 3 rows of 2 operations and 7 payloads"),
        (executes(3, names=["write"]), "it has 2 resources and 1 names"),
        (executes(3, resources=[], names=[], payloads=[]), "it names no operations"),
        (c.ExecuteColumns(count=2**32 - 1), "it names no operations"),
        (c.ExecuteColumns(count=2**32 - 1, resources=["a"], names=["b"]), "4294967295 rows of 1 operations and 0"),
        (executes(3, first_id=2**64 - 2), "the ids of 3 rows from 18446744073709551614 on are more than 64 bits hold"),
        (
            executes(4_097, resources=["a"], names=["b"], gtrids=[], payloads=[b""] * 4_097),
            "the frame has more than 4096 rows",
        ),
    ],
    ids=[
        "nothing",
        "few gtrids",
        "many gtrids",
        "few payloads",
        "many payloads",
        "few names",
        "no resources",
        "rows of nothing",
        "rows that are not there",
        "ids past the last",
        "rows without end",
    ],
)
async def test_columns_that_do_not_fit_together_end_their_stream_and_no_other(columns: Any, problem: str) -> None:
    async with served(beginning(committed)) as peer, channel_to(peer) as channel:
        calm = CallStream(channel, COORDINATOR)
        stream = by_hand(channel)
        await stream.write(c.CoordinatorConnectRequest(executes=[columns]))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stream.read()
        failure = failure_of_rpc(refused.value, "it")
        assert failure.code == "MESSAGE_MALFORMED"
        assert problem in failure.message
        assert peer.asked == []
        assert await calm.ask(c.BeginRequest(), timeout_s=WAIT_S) == c.BeginResponse()
        await calm.close()


@pytest.mark.parametrize(
    "frame",
    [
        c.CoordinatorConnectRequest(executes=[executes(4, first_id=5), executes(4, first_id=8)]),
        c.CoordinatorConnectRequest(
            calls=[c.CoordinatorCall(id=8, execute=execute(8))], executes=[executes(4, first_id=5)]
        ),
    ],
    ids=["two columns", "a call and columns"],
)
async def test_an_id_whose_row_or_call_has_no_answer_yet_can_not_be_used_again(frame: Any) -> None:
    async with served(lambda request, reply: None, columns=None) as peer, channel_to(peer) as channel:
        stream = by_hand(channel)
        await stream.write(frame)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stream.read()
        failure = failure_of_rpc(refused.value, "it")
        assert (failure.code, "has a call 8 already" in failure.message) == ("CALL_ID_REPEATED", True)


async def test_a_call_can_not_have_the_id_of_a_row_that_has_no_answer_yet() -> None:
    async with served(lambda request, reply: None) as peer, channel_to(peer) as channel:
        stream = by_hand(channel)
        await stream.write(c.CoordinatorConnectRequest(executes=[executes(4, first_id=5)]))
        await stream.write(c.CoordinatorConnectRequest(calls=[c.CoordinatorCall(id=6, execute=execute(6))]))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stream.read()
        assert failure_of_rpc(refused.value, "it").code == "CALL_ID_REPEATED"
