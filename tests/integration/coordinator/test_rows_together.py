"""Many one-shot transactions at once over real connections: most go as rows, whatever becomes of the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from coordinator.runtime.row_requests import ExecuteRows
from coordinator.runtime.running_cohort import RowsAnswer
from handfast.frames import COORDINATOR, CallFailed, CallStream
from handfast.tls import frame_dialer
from handfast.v1 import coordinator_pb2 as c
from handfast.v1 import participant_pb2 as p
from handfast.v1 import types_pb2 as t
from tests.integration.coordinator.edge import Edge, serving
from tests.integration.coordinator.participants import Locked, Scripted
from tests.waiting import eventually

COUNT = 300
POOR = b"poor"


class Together:
    """A coordinator, two participants, and a client with frames beside gRPC.

    Args:
        edge: the coordinator.
        accounts: a participant, which votes NO on what is POOR.
        ledger: another.
        calls: the client's stream.
    """

    def __init__(self, edge: Edge, accounts: Scripted, ledger: Scripted, calls: CallStream) -> None:
        self.edge, self.accounts, self.ledger, self.calls = edge, accounts, ledger, calls
        self.rows_taken = 0
        execute = edge.server.rows.execute

        def counted(rows: ExecuteRows, answer: RowsAnswer, client: str = "") -> Sequence[int]:
            taken = execute(rows, answer, client)
            self.rows_taken += len(taken)
            return taken

        edge.server.rows.execute = counted  # type: ignore[method-assign]

    async def execute(self, payload: bytes = b"", wait: c.Wait.ValueType = c.WAIT_APPLIED) -> Any:
        """Run one transaction on both; its answer, or how the call failed."""
        operations = [t.Operation(resource=one, name="book", payload=payload) for one in ("accounts", "ledger")]
        try:
            return await self.calls.ask(c.ExecuteRequest(operations=operations, timeout_ms=10_000, wait=wait))
        except CallFailed as failure:
            return failure

    def assert_atomic(self, answers: Sequence[Any]) -> None:
        """What was told as committed is so at both, and nothing else is; and nothing is left prepared."""
        asked = {answer.gtrid for answer in answers}
        told = {answer.gtrid for answer in answers if answer.outcome == t.OUTCOME_COMMITTED}
        assert len(asked) == len(answers)
        for one in (self.accounts, self.ledger):
            committed = {gtrid for (gtrid, _), state in one.ends.items() if state == t.BRANCH_STATE_COMMITTED}
            assert committed & asked == told
            assert not one.prepared

    @property
    def is_over(self) -> bool:
        driver = self.edge.server.requests.driver
        return len(driver.transactions) == 0 and not driver.open_by_client


@asynccontextmanager
async def together(ledger: Scripted | None = None, **settings: Any) -> AsyncIterator[Together]:
    accounts, ledger = Scripted("accounts"), ledger or Scripted("ledger")

    def vote(request: p.PrepareRequest) -> Any:
        if request.operations[0].payload == POOR:
            return p.PrepareResponse(vote=t.VOTE_NO, reason="no money")
        return accounts.usual(request)

    accounts.answers[p.PrepareRequest] = vote
    async with serving(accounts, ledger, **settings) as edge:
        address = edge.server.address
        calls = CallStream(edge.channel, COORDINATOR, peer=address, dialer=frame_dialer(address, None))
        served = Together(edge, accounts, ledger, calls)
        try:
            assert (await served.execute()).outcome == t.OUTCOME_COMMITTED
            links = edge.server.links
            await eventually(lambda: all(links.takes_columns(one.bqual) for one in (accounts, ledger)))
            await eventually(lambda: calls.takes_columns)
            yield served
        finally:
            await calls.close()


async def test_rows_among_which_some_abort_come_each_to_its_own_end() -> None:
    async with together() as served:
        payloads = [POOR if number % 7 == 3 else b"%d" % number for number in range(COUNT)]
        answers = await asyncio.gather(*map(served.execute, payloads))
        for payload, answer in zip(payloads, answers, strict=True):
            if payload == POOR:
                assert (answer.outcome, answer.cause) == (t.OUTCOME_ABORTED, t.ABORT_CAUSE_VOTE_NO)
                assert answer.reason == "accounts.one voted no: no money"
            else:
                assert (answer.outcome, list(answer.results)) == (t.OUTCOME_COMMITTED, [b"book", b"book"])
        await eventually(lambda: served.is_over)
        assert served.rows_taken > COUNT // 2
        served.assert_atomic(answers)


async def test_who_waits_for_the_decision_is_told_what_is_pending() -> None:
    async with together() as served:
        answers = await asyncio.gather(*[served.execute(wait=c.WAIT_DECIDED) for _ in range(40)])
        assert served.rows_taken > 20
        for answer in answers:
            assert answer.outcome == t.OUTCOME_COMMITTED
            assert [branch.bqual for branch in answer.branches] == ["accounts.one", "ledger.one"]
        await eventually(lambda: served.is_over)


async def test_rows_whose_participant_goes_away_in_the_middle_end_everywhere_alike_when_it_is_back() -> None:
    async with together() as served:
        silent = served.ledger.answers[p.ParticipantCommitRequest] = lambda request: None
        asked = [asyncio.create_task(served.execute(b"%d" % number)) for number in range(COUNT)]
        await eventually(lambda: len(served.ledger.prepared) == COUNT)
        await eventually(lambda: served.ledger.count(p.ParticipantCommitRequest) > 0)
        await served.ledger.stop()
        assert served.ledger.answers.pop(p.ParticipantCommitRequest) is silent
        await served.ledger.start()
        answers = await asyncio.gather(*asked)
        assert {answer.outcome for answer in answers} == {t.OUTCOME_COMMITTED}
        await eventually(lambda: served.is_over, within_s=15.0)
        assert served.rows_taken > COUNT // 2
        served.assert_atomic(answers)


async def test_rows_that_time_out_because_a_participant_says_nothing_abort_and_free_what_is_prepared() -> None:
    async with together() as served:
        served.ledger.answers[p.PrepareRequest] = lambda request: None
        operations = [t.Operation(resource=one, name="book") for one in ("accounts", "ledger")]
        request = c.ExecuteRequest(operations=operations, timeout_ms=300)
        answers: list[Any] = await asyncio.gather(*[served.calls.ask(request) for _ in range(40)])
        assert {(answer.outcome, answer.cause) for answer in answers} == {
            (t.OUTCOME_ABORTED, t.ABORT_CAUSE_DEADLINE),
        }
        assert served.rows_taken > 20
        await eventually(lambda: served.is_over)
        served.assert_atomic(answers)


async def test_a_coordinator_that_stops_lets_rows_that_are_under_way_come_to_their_end() -> None:
    async with together(stop_grace_s=5) as served:
        under_way = asyncio.Event()

        def vote(request: p.PrepareRequest) -> Any:
            under_way.set()
            return served.ledger.usual(request)

        served.ledger.answers[p.PrepareRequest] = vote
        asked = [asyncio.create_task(served.execute(b"%d" % number)) for number in range(COUNT)]
        await under_way.wait()
        await served.edge.server.stop()
        answers = await asyncio.gather(*asked)
        assert served.is_over
        done = [answer for answer in answers if not isinstance(answer, CallFailed)]
        assert done
        served.assert_atomic(done)


async def test_a_coordinator_that_stops_rolls_back_rows_whose_votes_do_not_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("coordinator.rpc.server.VOTES_WAIT_S", 0.05)
    ledger = Locked("ledger")
    async with together(ledger, stop_grace_s=30) as served:
        ledger.locked = True
        asked = [asyncio.create_task(served.execute(b"%d" % number)) for number in range(COUNT)]
        await eventually(lambda: len(served.accounts.prepared) == len(ledger.waiting) == COUNT)
        assert served.rows_taken > COUNT // 2
        await served.edge.server.stop()
        answers = await asyncio.gather(*asked)
        assert {(answer.outcome, answer.cause) for answer in answers} == {
            (t.OUTCOME_ABORTED, t.ABORT_CAUSE_OPERATOR),
        }
        served.assert_atomic(answers)
