"""What a restart owes is told a part at a time, and nobody is kept waiting by a participant that is away."""

from __future__ import annotations

from coordinator.runtime.backlog import PART, PAUSE_S, QUIET_S, Backlog
from coordinator.runtime.requests import Standing
from handfast.v1 import participant_pb2 as p
from handfast.v1 import types_pb2 as t
from tests.unit.runtime.databases import Databases
from tests.unit.runtime.scripted import A, B, Life, forced, restart, start
from tests.unit.runtime.test_recovery import recovery_of
from tests.waiting import eventually

OWED = PART + 10


async def owing(count: int = OWED) -> tuple[Life, list[str]]:
    """A restarted coordinator, and the transactions that its earlier life decided."""
    life = await start()
    gtrids = [life.begin(A, B) for _ in range(count)]
    for gtrid in gtrids:
        life.commit(gtrid)
    while life.transport.calls:
        life.vote(life.transport.calls[0].bqual)
    await forced()
    return await restart(life), gtrids


def taken_up(life: Life) -> list[str]:
    """Whose Commit messages were sent, in order."""
    return list(dict.fromkeys(call.request.gtrid for call in life.transport.calls))


def backlog_of(life: Life) -> Backlog:
    backlog = Backlog(life.driver)
    backlog.take_up(life.log.unended())
    return backlog


async def test_the_first_part_is_told_at_once_and_the_next_when_half_of_it_has_ended() -> None:
    life, gtrids = await owing()
    backlog_of(life)
    assert taken_up(life) == gtrids[:PART]
    for _ in range(PART // 2 - 1):
        life.acknowledge(A, B)
    life.clock.advance(0.0)
    assert len(life.driver.transactions) == PART // 2 + 1, "more than half is under way"
    life.acknowledge(A, B)
    life.clock.advance(0.0)
    assert taken_up(life) == gtrids[PART // 2 :]


async def test_participants_that_are_away_hold_up_the_rest_for_no_longer_than_the_pause() -> None:
    life, gtrids = await owing()
    backlog_of(life)
    life.clock.advance(PAUSE_S)
    assert taken_up(life) == gtrids


async def test_one_that_is_asked_for_before_its_turn_is_told_once() -> None:
    life, gtrids = await owing()
    backlog_of(life)
    assert life.requests.inquire(gtrids[-1], A, 0).standing is Standing.COMMIT
    for call in [call for call in life.transport.calls if call.request.gtrid == gtrids[-1]]:
        life.transport.calls.remove(call)
        call.answer(p.ParticipantCommitResponse(outcome=t.OUTCOME_COMMITTED))
    life.clock.advance(PAUSE_S)
    assert taken_up(life) == gtrids[:-1]


async def test_nobody_is_listed_before_those_that_are_there_have_heard() -> None:
    """What a sweep would list meanwhile is on its way to be committed."""
    life, _ = await owing(2)
    recovery = recovery_of(life, Databases(accounts=set(), ledger=set(), audit=set()))
    recovery.start()
    await eventually(lambda: life.clock.waiting > 0)
    life.acknowledge(A, B)
    life.clock.advance(QUIET_S)
    await eventually(lambda: life.clock.waiting > 0)
    assert recovery.counters["sweeps"] == 0
    life.acknowledge(A, B)
    await eventually(lambda: recovery.counters["sweeps"] == 1)
    await recovery.close()


async def test_a_participant_that_is_away_does_not_keep_the_orphans_of_others() -> None:
    life, gtrids = await owing(2)
    recovery = recovery_of(life, Databases(accounts=set(), ledger=set(), audit=set()))
    recovery.start()
    for _ in gtrids:
        life.transport.take(A, p.ParticipantCommitRequest).lose()
    await eventually(lambda: life.clock.waiting > 1)  # the retries, and the look at whether anything moves
    life.clock.advance(QUIET_S)
    await eventually(lambda: recovery.counters["sweeps"] == 1)
    await recovery.close()


async def test_nothing_more_is_taken_up_after_the_close() -> None:
    life, gtrids = await owing()
    backlog = backlog_of(life)
    backlog.close()
    life.clock.advance(PAUSE_S)
    assert taken_up(life) == gtrids[:PART]
    assert life.driver.observers == []
