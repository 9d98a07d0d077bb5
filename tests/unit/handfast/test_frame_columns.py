"""Columns, seen from the caller's side: they mean what as many single calls mean, whatever becomes of them."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

import pytest
from google.protobuf.message import Message

from handfast.catalog import HandfastFault
from handfast.frames import (
    LOST,
    TIMEOUT,
    CallFailed,
    ColumnsReply,
    FramePort,
    Reply,
)
from handfast.frames.channels import FRAME_BYTES_MAX
from handfast.frames.columns import CELLS_MAX
from handfast.v1 import coordinator_pb2 as c
from handfast.v1 import participant_pb2 as p
from handfast.v1 import types_pb2 as t
from tests.unit.handfast.columns_of_calls import (
    HOST,
    WAIT_S,
    Taking,
    Told,
    asked_together,
    beginning,
    calling,
    committed,
    committed_columns,
    execute,
    executes,
    expected,
    never,
    open_to,
    taken_by,
)
from tests.unit.handfast.peers import served
from tests.waiting import eventually

# -- single calls that become columns ------------------------------------------------------------------------------


async def test_calls_of_one_shape_that_wait_together_travel_as_columns_and_nobody_knows() -> None:
    async with served(beginning(committed), frame_port=FramePort(HOST)) as peer, open_to(peer) as calls:
        requests = [execute(number, timeout_ms=7, wait=c.WAIT_DECIDED) for number in range(100)]
        answers = await asked_together(calls, requests)
        assert answers == [expected(number) for number in range(100)]
        assert peer.row_counts == [100]
        assert sum(peer.frame_sizes) == 0
        assert peer.asked == requests


async def test_calls_that_leave_the_gtrid_to_the_coordinator_are_of_one_shape_too() -> None:
    async with served(beginning(committed), frame_port=FramePort(HOST)) as peer, open_to(peer) as calls:
        requests = [execute(number, gtrid="") for number in range(5)]
        answers = await asked_together(calls, requests)
        assert [list(answer.results) for answer in answers] == [[b"%d" % number] * 2 for number in range(5)]
        assert (peer.row_counts, peer.asked) == ([5], requests)


@pytest.mark.parametrize(
    "requests",
    [
        [execute(number) for number in range(3)],
        [execute(number, operations=[t.Operation(resource="accounts", name="write")]) for number in range(9)],
        [execute(number, operations=2 * [t.Operation(resource="accounts", name="w")]) for number in range(9)],
        [execute(number, operations=[]) for number in range(9)],
        [execute(number, timeout_ms=number) for number in range(9)],
        [execute(number, wait=number % 3) for number in range(9)],
        [execute(number, gtrid="") for number in range(3)] + [execute(number) for number in range(3)],
    ],
    ids=["too few", "one branch", "two of one branch", "no operations", "timeouts", "waits", "some without gtrid"],
)
async def test_calls_that_are_not_alike_or_few_travel_by_themselves(requests: list[c.ExecuteRequest]) -> None:
    async with served(beginning(committed), frame_port=FramePort(HOST)) as peer, open_to(peer) as calls:
        await asked_together(calls, requests)
        assert peer.row_counts == []
        assert sorted(map(str, peer.asked)) == sorted(map(str, requests))


async def test_each_shape_has_columns_of_its_own() -> None:
    async with served(beginning(committed), frame_port=FramePort(HOST)) as peer, open_to(peer) as calls:
        requests = [execute(number, timeout_ms=1000 * (number % 3)) for number in range(15)]
        answers = await asked_together(calls, requests)
        assert answers == [expected(number) for number in range(15)]
        assert peer.row_counts == [5, 5, 5]


async def test_columns_hold_no_more_texts_than_a_peer_takes_in_one_message() -> None:
    branches = 30
    operations = [t.Operation(resource=f"r{number}", name="write") for number in range(branches)]
    requests = [execute(number, operations=operations) for number in range(200)]
    async with served(beginning(committed), frame_port=FramePort(HOST)) as peer, open_to(peer) as calls:
        answers = await asked_together(calls, requests)
        assert [answer.gtrid for answer in answers] == [request.gtrid for request in requests]
        rows_max = CELLS_MAX // (branches + 1)
        assert peer.row_counts == [rows_max, 200 - rows_max]


async def test_no_call_overtakes_columns_that_were_made_before_it() -> None:
    def answer(request: Any, reply: Reply) -> None:
        if isinstance(request, c.ExecuteRequest):
            committed(request, reply)
        else:
            reply(c.InquireResponse(gtrid=request.gtrid))

    async with served(beginning(answer), frame_port=FramePort(HOST)) as peer, open_to(peer) as calls:
        made: list[Any] = []
        for number in range(30):
            made += [execute(number)] if number % 6 else [c.InquireRequest(gtrid="early")]
        made += [c.InquireRequest(gtrid="t29"), execute(30)]
        await asked_together(calls, made)
        assert peer.asked == made
        assert peer.row_counts == [5] * 5


async def test_over_grpc_all_calls_are_single() -> None:
    async with served(beginning(committed)) as peer, open_to(peer, beside=False) as calls:
        assert not calls.takes_columns
        answers = [asyncio.ensure_future(calls.ask(execute(number), timeout_s=WAIT_S)) for number in range(9)]
        told = Told()
        calls.call_columns(executes(9), 9, told, timeout_s=WAIT_S)
        assert await asyncio.gather(*answers) == [expected(number) for number in range(9)]
        await eventually(lambda: len(told.rows) == 9)
        assert told.answers == {row: expected(row) for row in range(9)}
        assert peer.row_counts == []
        assert sum(peer.frame_sizes) == 18


async def test_to_a_peer_without_frames_rows_are_unary_calls() -> None:
    async with served(committed, framed=False) as peer, calling(peer) as calls:
        told = Told()
        calls.call_columns(executes(9), 9, told, timeout_s=WAIT_S)
        await eventually(lambda: len(told.rows) == 9)
        assert told.answers == {row: expected(row) for row in range(9)}
        assert peer.unary_calls == 9


async def test_rows_whose_columns_would_not_fit_travel_by_themselves() -> None:
    payload = bytes(FRAME_BYTES_MAX // 8)
    async with served(beginning(committed), frame_port=FramePort(HOST)) as peer, open_to(peer) as calls:
        told = Told()
        calls.call_columns(executes(5, payloads=[payload] * 10), 5, told, timeout_s=WAIT_S)
        many = Told()
        calls.call_columns(executes(CELLS_MAX), CELLS_MAX, many, timeout_s=WAIT_S)
        await eventually(lambda: len(told.rows) == 5 and len(many.rows) == CELLS_MAX, within_s=WAIT_S)
        assert {type(answer) for answer in (*told.answers.values(), *many.answers.values())} == {c.ExecuteResponse}
        assert max(peer.row_counts) <= 256  # and of these, as many as fit are columns again


# -- calls that are made as columns --------------------------------------------------------------------------------


async def test_rows_are_answered_in_columns_in_any_order_or_one_by_one() -> None:
    taking, told = Taking(), Told()
    async with taken_by(taking) as (peer, calls):
        calls.call_columns(executes(10), 10, told, timeout_s=WAIT_S)
        assert told.rows == {}
        await eventually(lambda: bool(taking.taken))
        columns, start, stop, reply = taking.taken[0]
        assert (start, stop, peer.row_counts, sum(peer.frame_sizes)) == (0, 10, [10], 0)
        taking.answer([4, 5, 6])
        taking.answer([9, 0])
        reply.single(columns.first_id + 2, HandfastFault("COORDINATOR_STOPPING"))
        reply.single(columns.first_id + 3, expected(3))
        taking.answer([1, 7, 8])
        await eventually(lambda: len(told.rows) == 10)
        answers = told.answers
        assert told.failures == {2: ("COORDINATOR_STOPPING", True)}
        assert {row: answers[row] for row in answers if row != 2} == {
            row: expected(row) for row in range(10) if row != 2
        }
        assert [4, 5, 6] in told.in_columns
        assert calls.last_error == ""


async def test_columns_that_the_service_does_not_take_come_as_ordinary_requests() -> None:
    told = Told()
    async with taken_by(lambda *_: False, committed) as (peer, calls):
        calls.call_columns(executes(7, timeout_ms=5), 7, told, timeout_s=WAIT_S)
        await eventually(lambda: len(told.rows) == 7)
        assert told.answers == {row: expected(row) for row in range(7)}
        assert peer.asked == [execute(row, timeout_ms=5) for row in range(7)]
        assert told.in_columns == [list(range(7))]  # as they would have been answered by who takes them


async def test_answers_that_say_more_than_columns_can_are_single() -> None:
    aborted = c.ExecuteResponse(gtrid="t1", outcome=t.OUTCOME_ABORTED, cause=t.ABORT_CAUSE_VOTE_NO, reason="no")
    pending = c.ExecuteResponse(gtrid="t2", outcome=t.OUTCOME_COMMITTED, branches=[t.Branch(bqual="a.b")])
    special = {"t1": aborted, "t2": pending}

    def answer(request: Any, reply: Reply) -> None:
        if request.gtrid == "t3":
            raise HandfastFault("TRANSACTION_UNKNOWN", gtrid="t3")
        reply(special[request.gtrid]) if request.gtrid in special else committed(request, reply)

    told = Told()
    async with taken_by(None, answer) as (_, calls):
        calls.call_columns(executes(6), 6, told, timeout_s=WAIT_S)
        await eventually(lambda: len(told.rows) == 6)
        assert (told.answers[1], told.answers[2]) == (aborted, pending)
        assert told.failures == {3: ("TRANSACTION_UNKNOWN", True)}
        assert told.in_columns == [[0, 4, 5]]


async def test_answers_with_more_or_fewer_results_stand_in_columns_of_their_own() -> None:
    def answer(request: Any, reply: Reply) -> None:
        count = int(request.gtrid[1:]) % 3
        reply(c.ExecuteResponse(gtrid=request.gtrid, outcome=t.OUTCOME_COMMITTED, results=[b"r"] * count))

    told = Told()
    async with taken_by(None, answer) as (_, calls):
        calls.call_columns(executes(9), 9, told, timeout_s=WAIT_S)
        await eventually(lambda: len(told.rows) == 9)
        assert [len(told.answers[row].results) for row in range(9)] == [0, 1, 2] * 3  # type: ignore[union-attr]
        assert told.in_columns == [[0, 3, 6], [1, 4, 7], [2, 5, 8]]


async def test_what_the_service_raises_is_told_of_each_row_that_has_no_answer(caplog: pytest.LogCaptureFixture) -> None:
    def stumble(columns: Any, start: int, stop: int, reply: ColumnsReply) -> bool:
        reply.columns(committed_columns(columns, [1]))
        if columns.timeout_ms:
            raise HandfastFault("COORDINATOR_STOPPING")
        raise ZeroDivisionError("oops")

    async with taken_by(stumble) as (_, calls):
        for timeout_ms, code in ((1, "COORDINATOR_STOPPING"), (0, "INTERNAL")):
            told = Told()
            calls.call_columns(executes(4, timeout_ms=timeout_ms), 4, told, timeout_s=WAIT_S)
            await eventually(lambda told=told: len(told.rows) == 4)  # type: ignore[misc]
            assert told.failures == dict.fromkeys((0, 2, 3), (code, True))
            assert told.answers[1] == expected(1)
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert "failed on ExecuteColumns of 4 rows" in record.getMessage()


async def test_a_callback_that_fails_is_logged_and_the_others_are_told(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(Told):
        def columns(self, rows: Sequence[int], answer: Message, start: int) -> None:
            raise ZeroDivisionError("rows")

        def single(self, row: int, reply: Message | CallFailed) -> None:
            raise ZeroDivisionError("row")

    taking, told = Taking(), Told()
    async with taken_by(taking) as (_, calls):
        calls.call_columns(executes(4), 4, Failing(), timeout_s=WAIT_S)
        calls.call_columns(executes(4), 4, told, timeout_s=WAIT_S)
        await eventually(lambda: len(taking.taken) == 2)
        for columns, _, _, reply in taking.taken:
            reply.columns(committed_columns(columns, [0, 1, 2]))
            reply.single(columns.first_id + 3, expected(3))
        await eventually(lambda: len(told.rows) == 4)
        assert told.answers == {row: expected(row) for row in range(4)}
    assert caplog.text.count("ZeroDivisionError: row") == 2
    assert "the callback of 3 Execute to the coordinator failed" in caplog.text


@pytest.mark.parametrize(
    ("columns", "count", "problem"),
    [
        (executes(0), 0, "it has no rows"),
        (executes(3), 4, "its rows are not 4"),
        (executes(3, payloads=[]), 3, "3 rows of 2 operations and 0 payloads"),
    ],
    ids=["no rows", "other rows", "no payloads"],
)
async def test_columns_that_are_none_are_the_callers_mistake(columns: Any, count: int, problem: str) -> None:
    async with taken_by(Taking()) as (_, calls):
        with pytest.raises(ValueError, match=problem):
            calls.call_columns(columns, count, Told(), timeout_s=WAIT_S)
        with pytest.raises(TypeError, match="has no columns of type PrepareColumns"):
            calls.call_columns(p.PrepareColumns(), 1, Told(), timeout_s=WAIT_S)


# -- when no answer comes ------------------------------------------------------------------------------------------


async def test_rows_without_an_answer_in_time_fail_and_one_that_comes_late_is_told_to_nobody() -> None:
    taking, told = Taking(), Told()
    async with taken_by(taking) as (_, calls):
        calls.call_columns(executes(6), 6, told, timeout_s=0.2)
        await eventually(lambda: bool(taking.taken))
        taking.answer([1, 2])
        await eventually(lambda: len(told.rows) == 6)
        assert told.failures == dict.fromkeys((0, 3, 4, 5), (TIMEOUT, True))
        taking.answer([0, 3])
        _, _, _, reply = taking.taken[0]
        reply.single(taking.taken[0][0].first_id + 4, expected(4))
        await calls.ask(c.BeginRequest(), timeout_s=WAIT_S)
        assert told.failures == dict.fromkeys((0, 3, 4, 5), (TIMEOUT, True))


async def test_rows_are_watched_beside_calls_that_time_out_before_them() -> None:
    taking, told, single = Taking(), Told(), list[Message | CallFailed]()
    async with taken_by(taking, lambda request, reply: None) as (_, calls):
        calls.call(c.InquireRequest(), single.append, timeout_s=0.05)
        calls.call_columns(executes(4), 4, told, timeout_s=0.1)
        await eventually(lambda: len(told.rows) == 4)
        assert told.failures == dict.fromkeys(range(4), (TIMEOUT, True))
        assert [getattr(failure, "code", "") for failure in single] == [TIMEOUT]


async def test_rows_that_time_out_before_they_are_written_were_certainly_not_done() -> None:
    async with taken_by(Taking()) as (_, calls):
        assert calls._sender is not None
        calls._sender.busy = True  # as while a frame is being written
        told = Told()
        calls.call_columns(executes(4), 4, told, timeout_s=0.05)
        await eventually(lambda: len(told.rows) == 4)
        assert told.failures == dict.fromkeys(range(4), (TIMEOUT, False))
        assert calls._filler.frame(in_columns=True) is None


async def test_when_the_stream_breaks_the_open_rows_are_lost() -> None:
    taking, told = Taking(), Told()
    async with taken_by(taking) as (peer, calls):
        calls.call_columns(executes(6), 6, told, timeout_s=WAIT_S)
        await eventually(lambda: bool(taking.taken))
        taking.answer([4, 2])
        await eventually(lambda: len(told.rows) == 2)
        await peer.kill()
        await eventually(lambda: len(told.rows) == 6)
        assert told.failures == dict.fromkeys((0, 1, 3, 5), (LOST, True))
        assert not calls.takes_columns


async def test_a_stream_that_this_side_closes_fails_its_rows_and_later_ones() -> None:
    taking, told, late = Taking(), Told(), Told()
    async with taken_by(taking) as (_, calls):
        calls.call_columns(executes(4), 4, told, timeout_s=WAIT_S)
        await eventually(lambda: bool(taking.taken))
        await calls.close()
        assert told.failures == dict.fromkeys(range(4), (LOST, True))
        calls.call_columns(executes(4), 4, late, timeout_s=WAIT_S)
        assert late.rows == {}
        await eventually(lambda: len(late.rows) == 4)
        assert late.failures == dict.fromkeys(range(4), ("UNREACHABLE", False))


@pytest.mark.parametrize("goes_on", [True, False], ids=["it is there again", "it ends each stream like that"])
async def test_rows_that_a_peer_in_good_order_left_unread_are_sent_again_once(goes_on: bool) -> None:
    taking, told, unread = Taking(), Told(), Told()
    async with taken_by(taking, committed) as (peer, calls):
        calls.call_columns(executes(4), 4, told, timeout_s=WAIT_S)
        await eventually(lambda: bool(taking.taken))
        peer.stop_streams.set()
        await asyncio.sleep(0)
        calls.call_columns(executes(5), 5, unread, timeout_s=WAIT_S)
        await eventually(lambda: not calls._queue)
        if goes_on:
            peer.stop_streams.clear()
        taking.answer(range(4))
        await eventually(lambda: len(told.rows) == 4)
        assert told.answers == {row: expected(row) for row in range(4)}
        if goes_on:
            await eventually(lambda: len(taking.taken) == 2, within_s=WAIT_S)
            del taking.taken[0]
            taking.answer(range(5))
        await eventually(lambda: len(unread.rows) == 5, within_s=WAIT_S)
        assert (peer.streams, len(taking.taken)) == (2, 1)
        if goes_on:
            assert unread.answers == {row: expected(row) for row in range(5)}
        else:
            assert len(unread.failures) == 5


async def test_a_caller_that_leaves_while_rows_are_owed_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    taking = Taking()
    async with served(beginning(never), frame_port=FramePort(HOST), columns=taking) as peer:
        async with open_to(peer) as calls:
            calls.call_columns(executes(4), 4, Told(), timeout_s=WAIT_S)
            await eventually(lambda: bool(taking.taken))
        await eventually(lambda: peer.streams_ended == 1)
        taking.answer([0, 1])
        columns, _, _, reply = taking.taken[0]
        reply.single(columns.first_id + 2, expected(2))
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []
