"""Execute calls that come as columns: what a caller is told of each row is what a single call would be told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from google.protobuf.message import Message

from coordinator.log.records import DecisionRecord
from coordinator.protocol.states import Decision
from coordinator.rpc.access import Access
from coordinator.rpc.coordinator_service import Dispatch
from coordinator.rpc.guarded import GuardedDispatch
from coordinator.rpc.limits import StreamLimits, Streams
from coordinator.rpc.shares import EARNED_BRANCH_S, EARNED_S, Account
from coordinator.rpc.trail import Trail
from coordinator.runtime.options import DriverOptions
from handfast.frames import COORDINATOR, serve_frames
from handfast.identity import Identity
from handfast.v1 import coordinator_pb2 as c
from handfast.v1 import participant_pb2 as p
from handfast.v1 import types_pb2 as t
from tests.unit.runtime.scripted import A, B, C, Life, forced, start

FIRST_ID = 100


class Stream:
    """A stream of one caller, whose frames are written by hand; what it is told, by call id.

    Args:
        life: the coordinator.
        dispatch: takes the caller's calls.
        messages_per_s_max: how many of them a second.
    """

    def __init__(self, life: Life, dispatch: Dispatch, messages_per_s_max: int = 1_000) -> None:
        limits = StreamLimits(messages_per_s_max=messages_per_s_max)
        streams = Streams(limits, life.clock, asyncio.Event())
        pace = streams.pace()
        self.account = streams.shares.account("a caller")
        self._paced = streams.paced(dispatch, "a caller", pace)
        self._columns = streams.paced_columns(dispatch.columns, "a caller", pace)
        self._frames: asyncio.Queue[c.CoordinatorConnectRequest | None] = asyncio.Queue()
        self.told: list[tuple[int, Any]] = []
        self.in_columns: list[c.CommittedColumns] = []

    async def serve(self) -> None:
        frames: Any = self._read()
        context: Any = self
        await serve_frames(COORDINATOR, frames, context, self._paced, columns=self._columns)

    async def _read(self) -> AsyncIterator[c.CoordinatorConnectRequest]:
        while (frame := await self._frames.get()) is not None:
            yield frame

    async def write(self, frame: c.CoordinatorConnectResponse) -> None:
        """See grpc.aio.ServicerContext."""
        for reply in frame.replies:
            self.told.append((reply.id, getattr(reply, str(reply.WhichOneof("response")))))
        for columns in frame.committed:
            self.in_columns.append(columns)
            kind = COORDINATOR.kind_of(columns)
            self.told += [(row_id, kind.response_of(columns, row)) for row, row_id in enumerate(columns.ids)]

    async def send(self, frame: c.CoordinatorConnectRequest) -> None:
        """Let a frame arrive, and what is answered at once be written."""
        self._frames.put_nowait(frame)
        await settled()

    def end(self) -> None:
        self._frames.put_nowait(None)

    def of(self, row: int) -> Any:
        """What was told of the row of the first columns; once."""
        (answer,) = [answer for call_id, answer in self.told if call_id == FIRST_ID + row]
        return answer

    @property
    def codes(self) -> list[str]:
        """The faults that were told, or else the outcome, in the order of the calls."""
        return [
            answer.code if hasattr(answer, "code") else t.Outcome.Name(answer.outcome)
            for _, answer in sorted(self.told, key=lambda one: one[0])
        ]


async def settled() -> None:
    """Let what is ready happen."""
    for _ in range(20):
        await asyncio.sleep(0)


@asynccontextmanager
async def stream(
    life: Life, dispatch: Dispatch | None = None, messages_per_s_max: int = 1_000
) -> AsyncIterator[Stream]:
    """A stream to a coordinator that can send columns to its participants."""
    life.transport.by_columns.update((A, B, C))
    opened = Stream(life, dispatch or Dispatch(life.requests, life.rows), messages_per_s_max)
    serving = asyncio.create_task(opened.serve())
    try:
        yield opened
    finally:
        opened.end()
        life.close()
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


def columns_of(
    gtrids: list[str], count: int = 0, *bquals: str, payload: bytes = b"", wait: c.Wait.ValueType = c.WAIT_APPLIED
) -> c.CoordinatorConnectRequest:
    """A frame with rows alone."""
    count = count or len(gtrids)
    bquals = bquals or (A, B)
    columns = c.ExecuteColumns(
        first_id=FIRST_ID,
        count=count,
        timeout_ms=10_000,
        wait=wait,
        resources=[bqual.partition(".")[0] for bqual in bquals],
        names=["op"] * len(bquals),
        gtrids=gtrids,
        payloads=[payload or f"{row} at {bqual}".encode() for row in range(count) for bqual in bquals],
    )
    return c.CoordinatorConnectRequest(executes=[columns])


def singles_of(frame: c.CoordinatorConnectRequest) -> c.CoordinatorConnectRequest:
    """The same as calls by themselves."""
    (columns,) = frame.executes
    kind = COORDINATOR.kind_of(columns)
    calls = c.CoordinatorConnectRequest()
    for row in range(columns.count):
        request: Any = kind.request_of(columns, row)
        calls.calls.add(id=columns.first_id + row).execute.CopyFrom(request)
    return calls


async def commit_all(life: Life) -> None:
    """Let everything that was sent go well."""
    while life.transport.columns or life.transport.calls:
        for columns in list(life.transport.columns):
            life.transport.columns.remove(columns)
            if isinstance(columns.request, p.PrepareColumns):
                columns.yes()
            else:
                columns.done()
        for call in list(life.transport.calls):
            life.transport.calls.remove(call)
            call.answer(well(call.request))
        await settled()


def well(request: Any) -> Message:
    """The answer of a participant where all is well."""
    if isinstance(request, p.ParticipantCommitRequest):
        return p.ParticipantCommitResponse(outcome=t.OUTCOME_COMMITTED)
    if isinstance(request, p.ParticipantRollbackRequest):
        return p.ParticipantRollbackResponse(outcome=t.OUTCOME_ABORTED)
    results = [b"done: " + operation.payload for operation in request.operations]
    if isinstance(request, p.CommitOnePhaseRequest):
        return p.CommitOnePhaseResponse(outcome=t.OUTCOME_COMMITTED, results=results)
    return p.PrepareResponse(vote=t.VOTE_YES, proof="xid", results=results)


# -- all well ----------------------------------------------------------------------------------------------------------


async def test_rows_that_commit_together_are_answered_together() -> None:
    life = await start()
    gtrids = life.names(5)
    async with stream(life) as caller:
        await caller.send(columns_of(gtrids))
        assert life.transport.shown_columns() == [f"5 Prepare {A}", f"5 Prepare {B}"]
        await commit_all(life)
        (answer,) = caller.in_columns
    assert list(answer.ids) == [FIRST_ID + row for row in range(5)]
    assert list(answer.gtrids) == gtrids
    assert answer.results_each == 2
    assert list(answer.results) == [f"done: {row} at {bqual}".encode() for row in range(5) for bqual in (A, B)]


async def test_a_part_of_the_rows_is_answered_by_its_own_ids() -> None:
    life = await start()
    life.transport.by_columns.update((A, B))
    gtrids = life.names(5)
    reply = Replies()
    (columns,) = columns_of(gtrids).executes
    assert Dispatch(life.requests, life.rows).columns(columns, 2, 4, reply)
    assert list(life.transport.columns[0].request.payloads) == [f"{row} at {A}".encode() for row in (2, 3)]
    life.transport.columns[0].answer(1, p.PrepareResponse(vote=t.VOTE_NO))
    life.transport.columns[0].yes(0)
    life.transport.columns[1].yes()
    await forced()
    life.rolled_back(B)
    for call in life.transport.columns[2:]:
        call.done()
    assert [(call_id, answer.gtrid) for call_id, answer in reply.single_answers] == [(FIRST_ID + 3, gtrids[3])]
    assert [list(one.ids) for one in reply.column_answers] == [[FIRST_ID + 2]]


async def test_a_row_of_a_part_that_goes_by_itself_is_the_one_that_was_asked_for() -> None:
    life = await start()
    life.transport.by_columns.update((A, B))
    gtrids = life.names(5)
    life.requests.inquire(gtrids[3], "", 2)
    reply = Replies()
    (columns,) = columns_of(gtrids).executes
    assert Dispatch(life.requests, life.rows).columns(columns, 1, 5, reply)
    ((call_id, answer),) = reply.single_answers
    assert (call_id, answer.gtrid, answer.outcome) == (FIRST_ID + 3, gtrids[3], t.OUTCOME_ABORTED)
    assert life.transport.shown_columns() == [f"3 Prepare {A}", f"3 Prepare {B}"]


async def test_who_may_run_a_part_of_the_rows_is_found_out_by_its_own_names() -> None:
    life = await start()
    life.transport.by_columns.update((A, B))
    (columns,) = columns_of([*life.names(2, "billing"), *life.names(2, "shipping")]).executes
    dispatch = guarded(life, BILLING, Trail(life.clock))
    assert not dispatch.columns(columns, 2, 4, Replies())
    assert dispatch.columns(columns, 0, 2, Replies())
    assert life.driver.open_by_client == {"billing": 2}


class Replies:
    """A way to answer that keeps the answers."""

    def __init__(self) -> None:
        self.column_answers: list[Any] = []
        self.single_answers: list[tuple[int, Any]] = []

    def columns(self, answer: Any) -> None:
        self.column_answers.append(answer)

    def single(self, call_id: int, answer: Any) -> None:
        self.single_answers.append((call_id, answer))


async def test_who_waits_for_the_decision_is_told_what_is_pending_in_columns_too() -> None:
    life = await start()
    async with stream(life) as caller:
        await caller.send(columns_of(life.names(2), wait=c.WAIT_DECIDED))
        life.vote_rows(A, B)
        await settled()
        assert caller.codes == ["OUTCOME_COMMITTED"] * 2
        pending = [(branch.bqual, branch.vote, branch.outcome) for branch in caller.of(1).branches]
        assert pending == [(A, t.VOTE_YES, t.OUTCOME_UNSPECIFIED), (B, t.VOTE_YES, t.OUTCOME_UNSPECIFIED)]


# -- as single calls ---------------------------------------------------------------------------------------------------


async def told_in_both_ways(
    ask: Callable[[Life], c.CoordinatorConnectRequest],
    options: DriverOptions | None = None,
    answer: Callable[[Life], None] | None = None,
) -> tuple[Stream, Stream]:
    """Ask one coordinator in columns and another in single calls, with everything else the same."""
    both = []
    for as_columns in (True, False):
        life = await start(options=options)
        async with stream(life) as caller:
            frame = ask(life)
            await caller.send(frame if as_columns else singles_of(frame))
            if answer is not None:
                answer(life)
            await commit_all(life)
        both.append(caller)
    return both[0], both[1]


def used_up(life: Life) -> c.CoordinatorConnectRequest:
    """Five names: of one it was said that it is aborted, one ended before, one is no name, one stands there twice."""
    gtrids = life.names(5)
    life.requests.inquire(gtrids[1], "", 2)
    life.log.decide(DecisionRecord(gtrids[3], Decision.ABORT, (), 1, 1, ""), lambda standing: None)
    life.requests.rollback(gtrids[3], "", 2, lambda answer: None)
    return columns_of([gtrids[0], gtrids[1], "no name", gtrids[3], gtrids[2], gtrids[2], "zzzzzzzz-1-0-0"])


@pytest.mark.parametrize(
    ("ask", "options"),
    [
        (used_up, None),
        (lambda life: columns_of([], 5), None),
        (lambda life: columns_of([], 5), DriverOptions(open_transactions_max=3)),
        (lambda life: columns_of(life.names(5, "billing")), DriverOptions(open_transactions_per_client_max=3)),
        (lambda life: columns_of([], 4, A, B, C), DriverOptions(branches_max=2)),
        (lambda life: columns_of([], 4, payload=b"12345"), DriverOptions(payload_bytes_max=4)),
        (lambda life: columns_of([], 4, A, "nobody.n1"), None),
        (lambda life: columns_of([], 4, A, "no name.n1"), None),
        (lambda life: columns_of([], 4, A, A), None),
    ],
    ids=[
        "names",
        "none given",
        "room",
        "room of the client",
        "branches",
        "payload",
        "unknown",
        "malformed",
        "one resource twice",
    ],
)
async def test_each_row_is_told_what_a_single_call_is_told(
    ask: Callable[[Life], c.CoordinatorConnectRequest], options: DriverOptions | None
) -> None:
    in_columns, alone = await told_in_both_ways(ask, options)
    assert sorted(in_columns.told, key=lambda one: one[0]) == sorted(alone.told, key=lambda one: one[0])
    assert len(alone.told) >= 4


@pytest.mark.parametrize("row", [0, 2])
async def test_a_row_that_aborts_is_told_why_as_a_single_call_is(row: int) -> None:
    def refuse(life: Life) -> None:
        no = p.PrepareResponse(vote=t.VOTE_NO, reason="no money", reason_code="POOR")
        gtrid = list(life.driver.transactions)[row]
        for columns in list(life.transport.columns):
            life.transport.columns.remove(columns)
            columns.yes(*[other for other in range(columns.count) if other != row])
            columns.answer(row, no)
        for call in [call for call in life.transport.calls if call.request.gtrid == gtrid]:
            if isinstance(call.request, p.PrepareRequest):
                life.transport.calls.remove(call)
                call.answer(no)

    in_columns, alone = await told_in_both_ways(lambda life: columns_of(life.names(3)), answer=refuse)
    assert in_columns.codes == alone.codes
    assert in_columns.of(row) == alone.of(row)
    assert alone.of(row).reason == f"{A} voted no: no money"


async def test_whoever_keeps_no_rows_is_asked_by_single_calls() -> None:
    life = await start()
    async with stream(life, Dispatch(life.requests)) as caller:
        await caller.send(columns_of(life.names(4)))
        assert life.transport.shown_columns() == []
        assert life.transport.shown() == [f"Prepare {A}", f"Prepare {B}"] * 4
        await commit_all(life)
        assert caller.codes == ["OUTCOME_COMMITTED"] * 4


async def test_a_row_that_fails_by_itself_leaves_the_others_their_answers(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    life = await start()
    gtrids = life.names(4)
    life.requests.inquire(gtrids[2], "", 2)

    def fails(*args: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(life.requests, "execute", fails)
    async with stream(life) as caller:
        await caller.send(columns_of(gtrids))
        await commit_all(life)
        assert caller.codes == ["OUTCOME_COMMITTED"] * 2 + ["INTERNAL", "OUTCOME_COMMITTED"]
    assert "a row of ExecuteColumns failed" in caplog.text


# -- who may -----------------------------------------------------------------------------------------------------------

BILLING = Identity("billing", client=True)


def guarded(life: Life, caller: Identity, trail: Trail) -> Dispatch:
    return GuardedDispatch(life.requests, caller, Access(trail), "ipv4:1", life.rows)


async def test_who_is_no_client_is_refused_row_by_row_and_that_is_written_down() -> None:
    life = await start()
    trail = Trail(life.clock)
    async with stream(life, guarded(life, Identity("accounts", frozenset({"accounts"})), trail)) as caller:
        await caller.send(columns_of([], 3))
        assert caller.codes == ["PERMISSION_DENIED"] * 3
    assert [entry.who for entry in trail.entries(10, refused_only=True)] == ["accounts"] * 3
    assert len(life.driver.transactions) == 0


async def test_a_client_runs_rows_under_its_own_names_and_owns_those_that_have_none() -> None:
    life = await start()
    async with stream(life, guarded(life, BILLING, Trail(life.clock))) as caller:
        await caller.send(columns_of(life.names(2, "billing")))
        assert life.driver.open_by_client == {"billing": 2}
        await commit_all(life)
        assert caller.codes == ["OUTCOME_COMMITTED"] * 2
        await caller.send(columns_of([], 3))
        assert life.driver.open_by_client == {"billing": 3}


@pytest.mark.parametrize("first", ["ours", "theirs", "nobody's"])
async def test_a_name_that_another_has_drawn_is_refused_wherever_it_stands(first: str) -> None:
    """Its transaction may have ended, and its results would be told to who only guessed its name."""
    life = await start()
    ours, theirs = life.names(4, "billing"), life.names(3, "shipping")
    life.execute_rows(theirs[:2], A, B)
    await commit_all(life)
    trail = Trail(life.clock)
    before = {"ours": ours[:1], "theirs": [], "nobody's": ["k3v9q2xw-1-0-0"]}[first]
    asked = [*before, theirs[0], ours[1], theirs[2], ours[2]]
    async with stream(life, guarded(life, BILLING, trail)) as caller:
        await caller.send(columns_of(asked))
        await commit_all(life)
        told = {call_id - FIRST_ID: answer for call_id, answer in caller.told}
        refused = [row for row, gtrid in enumerate(asked) if gtrid in theirs]
        assert [told[row].code for row in refused] == ["PERMISSION_DENIED"] * 2
        assert [told[row].outcome for row, gtrid in enumerate(asked) if gtrid in ours] == [t.OUTCOME_COMMITTED] * (
            len(asked) - 2 - (first == "nobody's")
        )
    assert sorted(entry.gtrid for entry in trail.entries(10, refused_only=True)) == sorted([theirs[0], theirs[2]])
    assert life.gtrids.is_claimable(theirs[2])


async def test_an_admin_runs_rows_under_others_names_which_stay_theirs() -> None:
    life = await start()
    async with stream(life, guarded(life, Identity("alice", admin=True), Trail(life.clock))) as caller:
        await caller.send(columns_of(life.names(2, "billing")))
        assert life.transport.shown_columns() == [f"2 Prepare {A}", f"2 Prepare {B}"]
        assert life.driver.open_by_client == {"billing": 2}
        await commit_all(life)
        assert caller.codes == ["OUTCOME_COMMITTED"] * 2


# -- how much ----------------------------------------------------------------------------------------------------------


async def test_each_row_counts_as_a_message() -> None:
    life = await start()
    async with stream(life, messages_per_s_max=10) as caller:
        await caller.send(columns_of([], 7))
        assert life.transport.shown_columns() == [f"7 Prepare {A}", f"7 Prepare {B}"]
        frame = columns_of([], 5)
        frame.executes[0].first_id = 200
        await caller.send(frame)
        assert caller.codes == ["MESSAGES_TOO_MANY"] * 2
        assert [call_id for call_id, _ in caller.told] == [203, 204]
        assert life.transport.shown() == [f"Prepare {A}", f"Prepare {B}"] * 3


async def test_rows_that_become_single_calls_count_once() -> None:
    life = await start()
    async with stream(life, Dispatch(life.requests), messages_per_s_max=10) as caller:
        await caller.send(columns_of([], 10))
        assert caller.told == []
        assert len(life.transport.calls) == 20
        frame = columns_of([], 1)
        frame.executes[0].first_id = 200
        await caller.send(frame)
        assert caller.codes == ["MESSAGES_TOO_MANY"]


async def test_each_row_that_commits_earns_once_what_a_single_call_earns(monkeypatch: pytest.MonkeyPatch) -> None:
    earned: list[tuple[str, float]] = []
    monkeypatch.setattr(Account, "earn", lambda account, gtrid, seconds: earned.append((gtrid, seconds)))
    monkeypatch.setattr(
        Account, "earn_all", lambda account, gtrids, each_s: earned.extend((gtrid, each_s) for gtrid in gtrids)
    )
    life = await start()
    gtrids = life.names(4)
    life.requests.inquire(gtrids[3], "", 2)
    async with stream(life) as caller:
        await caller.send(columns_of(gtrids))
        life.driver.find(gtrids[1])
        life.transport.columns[0].answer(2, p.PrepareResponse(vote=t.VOTE_NO))
        life.rolled_back(B)
        for call in [life.transport.columns.pop(0), life.transport.columns.pop(0)]:
            call.yes(0, 1, *([2] if call.bqual == B else []))
        await forced()
        life.rolled_back(B)
        await commit_all(life)
        assert caller.codes == ["OUTCOME_COMMITTED"] * 2 + ["OUTCOME_ABORTED"] * 2
    assert sorted(earned) == [(gtrid, EARNED_S + 2 * EARNED_BRANCH_S) for gtrid in gtrids[:2]]


async def test_an_answer_that_is_there_at_once_earns_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is of a transaction that has ended, and may be asked for again and again."""
    life = await start()
    ended, fresh = life.names(2), life.names(2)
    life.execute_rows(ended, A, B)
    await commit_all(life)
    earned: list[str] = []
    monkeypatch.setattr(Account, "earn", lambda account, gtrid, seconds: earned.append(gtrid))
    monkeypatch.setattr(Account, "earn_all", lambda account, gtrids, each_s: earned.extend(gtrids))
    async with stream(life) as caller:
        await caller.send(columns_of([fresh[0], *ended, fresh[1]]))
        assert caller.codes == ["OUTCOME_COMMITTED"] * 2
        await commit_all(life)
    assert earned == fresh
