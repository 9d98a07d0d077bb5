"""What an operator may do by hand, and what is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine

import pytest

from coordinator.protocol.states import Outcome, TransactionState
from coordinator.runtime.options import DriverOptions
from coordinator.runtime.requests import Standing
from coordinator.runtime.resolution import Resolution
from coordinator.runtime.running import Running
from handfast.catalog import HandfastFault
from handfast.v1 import participant_pb2 as p
from tests.unit.runtime.databases import Databases
from tests.unit.runtime.scripted import A, B, Life, forced, memory_log, refused, restart, start
from tests.waiting import eventually

S = TransactionState
Resolved = tuple[Running | None, str]


class Operator:
    """Somebody with a terminal.

    Args:
        life: the coordinator.
        there: the participants' databases.
    """

    def __init__(self, life: Life, there: Databases | None = None) -> None:
        self.there = there or Databases(accounts=set(), audit=set(), ledger=set())
        self._resolution = Resolution(life.requests, self.there.as_links())

    def resolve(self, gtrid: str, action: str, *, heuristic: bool = False) -> Coroutine[None, None, Resolved]:
        return self._resolution.resolve(gtrid, action, heuristic, "ada", "because")

    async def refused(self, gtrid: str, action: str, *, heuristic: bool = False) -> HandfastFault:
        with pytest.raises(HandfastFault) as raised:
            await self.resolve(gtrid, action, heuristic=heuristic)
        return raised.value


async def in_doubt() -> tuple[Life, str]:
    """A decided transaction whose second branch has not heard of it."""
    life = await start(options=DriverOptions(apply_wait_s=5.0))
    gtrid, _ = await life.decided(A, B)
    life.acknowledge(A)
    life.transport.take(B, p.ParticipantCommitRequest).lose()
    return life, gtrid


def records(life: Life, gtrid: str) -> list[tuple[str, bool, str, str]]:
    found = life.log.resolutions(gtrid)
    return [(one.action, one.heuristic, one.state_before, one.state_after) for one in found]


async def test_retry_now_sends_at_once_and_tells_what_came_of_it() -> None:
    life, gtrid = await in_doubt()
    asked = asyncio.ensure_future(Operator(life).resolve(gtrid, "retry-now"))
    await eventually(lambda: bool(life.transport.calls))
    life.acknowledge(B)
    running, done = await asked
    assert running is not None
    assert (running.transaction.state, done) == (S.COMMITTED, "1 message(s) sent at once")
    assert records(life, gtrid) == [("retry-now", False, "committing", "committed")]


async def test_retry_now_of_one_that_stays_away_ends_with_the_apply_wait() -> None:
    life, gtrid = await in_doubt()
    asked = asyncio.ensure_future(Operator(life).resolve(gtrid, "retry-now"))
    await eventually(lambda: bool(life.transport.calls))
    life.clock.advance(5.1)
    running, _ = await asked
    assert running is not None
    assert [branch.bqual for branch in running.transaction.pending] == [B]


async def test_there_is_nothing_to_retry_in_a_transaction_that_is_not_decided() -> None:
    """An operator is told so, rather than kept until a deadline an hour away."""
    life = await start()
    gtrid = life.begin(A, B, timeout_s=3600)
    assert (await Operator(life).refused(gtrid, "retry-now")).code == "RESOLUTION_IMPOSSIBLE"
    life.commit(gtrid)
    assert (await Operator(life).refused(gtrid, "retry-now")).code == "RESOLUTION_IMPOSSIBLE"


async def test_an_operator_is_not_kept_by_a_lost_one_phase_answer() -> None:
    life = await start(options=DriverOptions(apply_wait_s=5.0))
    gtrid = life.begin(A, timeout_s=3600)
    life.commit(gtrid)
    life.transport.take(A, p.CommitOnePhaseRequest).lose()
    asked = asyncio.ensure_future(Operator(life).resolve(gtrid, "retry-now"))
    await eventually(lambda: bool(life.transport.calls))
    life.clock.advance(5.1)
    assert (await asked)[1] == "1 message(s) sent at once"
    fault = await Operator(life).refused(gtrid, "rollback")
    assert "its only branch decides" in str(fault)


async def test_an_undecided_transaction_can_be_rolled_back_but_not_committed() -> None:
    life = await start()
    gtrid = life.begin(A, B)
    operator = Operator(life)
    assert (await operator.refused(gtrid, "commit")).code == "RESOLUTION_IMPOSSIBLE"
    asked = asyncio.ensure_future(operator.resolve(gtrid, "rollback"))
    await eventually(lambda: len(life.transport.calls) == 2)
    life.rolled_back(A, B)
    running, done = await asked
    assert running is not None
    assert (running.outcome, done) == (Outcome.ABORTED, "rolled back")
    assert running.transaction.reason == "ada rolled it back: because"


async def test_what_is_being_forced_can_not_be_rolled_back() -> None:
    life = await start()
    gtrid = life.begin(A, B)
    life.commit(gtrid)
    life.log.hold()
    life.vote(A, B)
    fault = await Operator(life).refused(gtrid, "rollback")
    assert (fault.code, "made durable right now" in str(fault)) == ("RESOLUTION_IMPOSSIBLE", True)


async def test_against_the_decision_nothing_is_done_without_the_word() -> None:
    life, gtrid = await in_doubt()
    assert (await Operator(life).refused(gtrid, "rollback")).code == "RESOLUTION_CONTRADICTS"
    assert life.transport.calls == []
    assert records(life, gtrid) == []


async def test_against_the_decision_is_recorded_first_and_shows_for_good() -> None:
    life, gtrid = await in_doubt()
    life.log.hold()
    asked = asyncio.ensure_future(Operator(life).resolve(gtrid, "rollback", heuristic=True))
    await forced()
    assert life.transport.calls == [], "what is done by hand is written down before it is done"
    life.log.release()
    await eventually(lambda: bool(life.transport.calls))
    life.rolled_back(B)
    running, _ = await asked
    assert running is not None
    assert running.outcome is Outcome.HEURISTIC_MIXED
    await forced()
    after = await restart(life)
    assert after.commit(gtrid).only.outcome is Outcome.HEURISTIC_MIXED
    assert [record[:2] for record in records(after, gtrid)] == [("rollback", True), ("rollback", True)]


async def test_a_transaction_that_ends_while_its_resolution_is_recorded_is_left_as_it_is() -> None:
    """The record takes a force, and the branch's own answer may come meanwhile."""
    life, gtrid = await in_doubt()
    life.driver.retry_now()
    life.log.hold()
    asked = asyncio.ensure_future(Operator(life).resolve(gtrid, "rollback", heuristic=True))
    await forced()
    life.acknowledge(B)
    life.log.release()
    with pytest.raises(HandfastFault, match="it ended on every branch just now"):
        await asked
    ended = life.driver.finished[gtrid]
    assert (ended.outcome, ended.broken) == (Outcome.COMMITTED, "")


async def test_an_operator_may_return_to_the_decision() -> None:
    life, gtrid = await in_doubt()
    operator = Operator(life)
    first = asyncio.ensure_future(operator.resolve(gtrid, "rollback", heuristic=True))
    await eventually(lambda: bool(life.transport.calls))
    life.transport.take(B, p.ParticipantRollbackRequest).lose()
    life.clock.advance(0.001)
    second = asyncio.ensure_future(operator.resolve(gtrid, "commit"))
    await eventually(lambda: bool(life.transport.calls))
    life.acknowledge(B)
    assert life.driver.finished[gtrid].outcome is Outcome.COMMITTED
    await first
    await second


async def test_what_is_not_written_is_not_done() -> None:
    life, gtrid = await in_doubt()
    life.log._before_force = refused
    assert (await Operator(life).refused(gtrid, "rollback", heuristic=True)).code == "LOG_REFUSED"
    assert life.transport.calls == []


async def test_an_ended_transaction_is_forgotten_everywhere_and_then_unknown() -> None:
    life = await start()
    gtrid = await life.committed(A, B)
    operator = Operator(life)
    assert await operator.resolve(gtrid, "forget") == (None, "forgotten")
    assert operator.there.forgotten == [(gtrid, A), (gtrid, B)]
    assert life.requests.inquire(gtrid, A, 0).standing is Standing.UNKNOWN
    assert records(life, gtrid) == [("forget", False, "committed", "forgotten")]


async def test_what_has_not_ended_is_not_forgotten() -> None:
    life, gtrid = await in_doubt()
    assert (await Operator(life).refused(gtrid, "forget")).code == "RESOLUTION_IMPOSSIBLE"
    assert (await Operator(life).refused(life.begin(), "commit-please")).code == "FIELD_INVALID"


# -- without a record --------------------------------------------------------------------------------------------------


async def unrecorded() -> tuple[Life, str]:
    life = await start()
    gtrid = life.begin(A, B)
    return await restart(life), gtrid


async def test_prepared_branches_without_a_record_are_rolled_back_by_hand() -> None:
    life, gtrid = await unrecorded()
    operator = Operator(life, Databases(accounts={(gtrid, A)}, audit=set(), ledger={(gtrid, B)}))
    running, done = await operator.resolve(gtrid, "rollback")
    assert (running, done) == (None, "2 prepared branch(es) were told to roll back")
    assert operator.there.told == [("rollback", gtrid, A), ("rollback", gtrid, B)]


async def test_to_commit_them_by_hand_takes_the_word() -> None:
    life, gtrid = await unrecorded()
    operator = Operator(life, Databases(accounts={(gtrid, A)}, audit=set(), ledger=set()))
    assert (await operator.refused(gtrid, "commit")).code == "RESOLUTION_CONTRADICTS"
    assert operator.there.told == []
    await operator.resolve(gtrid, "commit", heuristic=True)
    assert operator.there.told == [("commit", gtrid, A)]


async def test_a_resource_that_is_away_does_not_keep_the_locks_of_the_others() -> None:
    """citus 6548, by hand."""
    life, gtrid = await unrecorded()
    operator = Operator(life, Databases(accounts=set(), audit=set(), ledger={(gtrid, B)}))
    operator.there.away = {"accounts"}
    _, done = await operator.resolve(gtrid, "rollback")
    assert operator.there.told == [("rollback", gtrid, B)]
    assert "accounts could not be asked: accounts is away." in done


async def test_when_nothing_is_found_the_operator_hears_who_could_not_be_asked() -> None:
    life, gtrid = await unrecorded()
    operator = Operator(life)
    operator.there.away = {"accounts"}
    fault = await operator.refused(gtrid, "rollback")
    assert fault.code == "RESOLUTION_IMPOSSIBLE"
    assert "accounts could not be asked" in str(fault)


async def test_a_refusing_log_is_reported_for_what_has_no_record_too() -> None:
    life = await start(memory_log(before_force=refused))
    gtrid = life.begin(A, B)
    life.driver.transactions.clear()
    operator = Operator(life, Databases(accounts={(gtrid, A)}, audit=set(), ledger=set()))
    assert (await operator.refused(gtrid, "rollback")).code == "LOG_REFUSED"
    assert operator.there.told == []
