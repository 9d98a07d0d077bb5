"""What one caller may take: streams, messages a second, the age of a connection."""

import asyncio

import pytest
from google.protobuf.message import Message

from coordinator.rpc.limits import AGE_OF_STREAM, StreamLimits, Streams
from coordinator.rpc.shares import BURST_S, EARNING_BRANCHES_MAX, EXPIRY_S, REFUSED_S, UNARY_S
from handfast.catalog import HandfastFault
from handfast.frames import Reply, server_options
from handfast.v1 import coordinator_pb2 as c
from handfast.v1 import types_pb2 as t
from tests.clock import ManualClock


def streams(clock: ManualClock, stop: asyncio.Event | None = None, **limits: float) -> Streams:
    return Streams(StreamLimits(**limits), clock, stop or asyncio.Event())  # type: ignore[arg-type]  # its own fields


async def test_a_caller_has_so_many_streams_and_no_more_until_one_ends() -> None:
    held = streams(ManualClock(), streams_per_peer_max=2)
    with held.counted("billing"):
        with held.counted("billing"):
            third = held.counted("billing")
            with pytest.raises(HandfastFault, match="billing has 2 batched streams"):
                third.__enter__()
            with held.counted("somebody else"):
                pass
        with held.counted("billing"):
            pass


class Pace:
    """A stream's dispatch, and what came through."""

    def __init__(self, clock: ManualClock, per_s: int) -> None:
        self.passed = 0
        self._dispatch = streams(clock, messages_per_s_max=per_s).paced(self._take, "billing")

    def _take(self, request: Message, reply: Reply) -> None:
        self.passed += 1

    def send(self, request: Message, times: int) -> int:
        """Send it so often; returns how often it was refused."""
        refused = 0
        for _ in range(times):
            try:
                self._dispatch(request, lambda answer: None)
            except HandfastFault as fault:
                refused += fault.code == "MESSAGES_TOO_MANY"
        return refused


async def test_messages_past_the_rate_are_refused_and_pass_again_as_time_goes_on() -> None:
    clock = ManualClock()
    pace = Pace(clock, per_s=10)
    assert pace.send(c.BeginRequest(), 15) == 5
    clock.advance(0.2)
    assert pace.send(c.BeginRequest(), 5) == 3
    assert pace.passed == 12


@pytest.mark.parametrize("request_", [c.CommitRequest(), c.RollbackRequest()], ids=["Commit", "Rollback"])
async def test_what_ends_a_transaction_is_never_refused(request_: Message) -> None:
    pace = Pace(ManualClock(), per_s=1)
    assert pace.send(c.BeginRequest(), 2) == 1
    assert pace.send(request_, 50) == 0


async def test_who_begins_and_leaves_alone_pays_for_the_end_as_well() -> None:
    held = streams(ManualClock())
    dispatch = held.paced(lambda request, reply: None, "greedy")
    held.shares.account("modest").charge(1.0)
    for _ in range(2 * int(BURST_S / EXPIRY_S)):
        dispatch(c.InquireRequest(), lambda answer: None)
    assert held.shares.account("greedy").wait_s() == 0.0
    for _ in range(2 * int(BURST_S / EXPIRY_S)):
        dispatch(c.BeginRequest(), lambda answer: None)
    assert held.shares.account("greedy").wait_s() > 0.0


async def test_a_unary_call_is_charged_and_one_that_is_refused_is_charged_more() -> None:
    held = streams(ManualClock())
    account = held.shares.account("greedy")
    await held.admit(lambda context: "greedy", None)
    assert account.used.at(held.shares.clock.now_s()) == UNARY_S
    refused = await held.admit(lambda context: "greedy", None)
    refused()
    assert account.used.at(held.shares.clock.now_s()) == 2 * UNARY_S + REFUSED_S


async def test_a_stream_ends_at_its_age_and_not_before() -> None:
    clock = ManualClock()
    async with streams(clock, age_max_s=100.0).ending() as end:
        clock.advance(100.0)
        assert not end.is_set()
        clock.advance(AGE_OF_STREAM * 100.0)
        assert end.is_set()


@pytest.mark.parametrize("age_max_s", [0.0, 100.0])
async def test_a_stop_ends_every_stream(age_max_s: float) -> None:
    stop = asyncio.Event()
    async with streams(ManualClock(), stop, age_max_s=age_max_s).ending() as end:
        stop.set()
        await asyncio.wait_for(end.wait(), 5)
    assert end.is_set()


def test_the_settings_reach_the_server() -> None:
    options = dict(server_options(frame_bytes_max=70_000, keepalive_s=7, age_max_s=100))
    assert options["grpc.max_receive_message_length"] == 70_000
    assert options["grpc.keepalive_time_ms"] == 7_000
    assert options["grpc.max_connection_age_ms"] == 100_000
    grace_ms = options["grpc.max_connection_age_grace_ms"]
    assert isinstance(grace_ms, int)
    assert grace_ms > AGE_OF_STREAM * 100_000, "a stream must be able to end in good order"
    assert "grpc.max_connection_age_ms" not in dict(server_options())


class Client:
    """A client that owes a second, beside another who wants time, and the answers that its requests wait for."""

    def __init__(self) -> None:
        clock = ManualClock()
        held = streams(clock)
        self.account = held.shares.account("billing")
        held.shares.account("somebody else").charge(0.1)
        self.account.charge(1.0)
        self.waiting: list[Reply] = []
        self.answered: list[Message | HandfastFault] = []
        self._dispatch = held.earning(lambda request, reply: self.waiting.append(reply), "billing", 0.1)

    def ask(self, request: Message, answer: Message) -> bool:
        """Ask, and be answered later; tells whether less is owed then."""
        owed_s = self.account.wait_s()
        self._dispatch(request, self.answered.append)
        self.waiting.pop()(answer)
        assert self.answered.pop() is answer
        return self.account.wait_s() < owed_s


def committed(gtrid: str) -> c.CommitResponse:
    return c.CommitResponse(gtrid=gtrid, outcome=t.OUTCOME_COMMITTED)


async def test_a_transaction_that_commits_gives_back_what_it_cost_once() -> None:
    client = Client()
    assert client.ask(c.CommitRequest(), committed("a"))
    assert client.ask(c.ExecuteRequest(), c.ExecuteResponse(gtrid="b", outcome=t.OUTCOME_COMMITTED))
    assert not client.ask(c.CommitRequest(), committed("a"))


async def test_nothing_is_given_back_for_an_abort_or_for_another_call() -> None:
    client = Client()
    assert not client.ask(c.CommitRequest(), c.CommitResponse(gtrid="a", outcome=t.OUTCOME_ABORTED))
    assert not client.ask(c.InquireRequest(), c.InquireResponse(gtrid="a", outcome=t.OUTCOME_COMMITTED))


async def test_nothing_is_given_back_for_what_had_been_committed_before() -> None:
    clock = ManualClock()
    held = streams(clock)
    account = held.shares.account("billing")
    held.shares.account("somebody else").charge(0.1)
    account.charge(1.0)
    owed_s = account.wait_s()
    held.paced(lambda request, reply: reply(committed("a")), "billing")(c.CommitRequest(), lambda answer: None)
    assert account.wait_s() == owed_s


async def test_a_stream_earns_too() -> None:
    clock, waiting = ManualClock(), list[Reply]()
    held = streams(clock)
    account = held.shares.account("billing")
    held.shares.account("somebody else").charge(0.1)
    account.charge(1.0)
    owed_s = account.wait_s()
    held.paced(lambda request, reply: waiting.append(reply), "billing")(c.CommitRequest(), lambda answer: None)
    waiting.pop()(committed("a"))
    assert account.wait_s() < owed_s


async def test_more_branches_give_back_more_up_to_a_number() -> None:
    owed_s = []
    for branches in (0, 2, EARNING_BRANCHES_MAX, 4_000_000):
        client = Client()
        client.ask(c.CommitRequest(branches=branches), committed("a"))
        owed_s.append(client.account.wait_s())
    none, two, most, too_many = owed_s
    assert none > two > most == too_many
