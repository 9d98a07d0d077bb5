"""What is kept of a transaction that has ended says all that it said while it ran, and is nothing to collect."""

from __future__ import annotations

import gc
from collections.abc import Awaitable, Callable

import pytest

from coordinator.log.records import DecisionRecord
from coordinator.protocol import events as e
from coordinator.protocol.branch import Branch
from coordinator.protocol.states import Cause, Decision, Outcome, TransactionState
from coordinator.protocol.transaction import GlobalTransaction
from coordinator.runtime import in_memory
from coordinator.runtime.folded import folded, standing_of, unfolded
from coordinator.runtime.in_memory import FOLDED_TOGETHER, Finished
from coordinator.runtime.options import DriverOptions
from coordinator.runtime.running import HISTORY_MAX, Running
from handfast.frames import UNIMPLEMENTED, CallFailed
from handfast.v1 import participant_pb2 as p
from handfast.v1 import types_pb2 as t
from tests.unit.runtime.alike import every_field
from tests.unit.runtime.scripted import A, B, Life, forced, memory_log, refused, restart, start

S = TransactionState


async def committed(life: Life) -> str:
    answers = life.execute(("accounts", "withdraw"), ("ledger", "credit"), ("accounts", "note"))
    life.vote(A, results=[b"95", b""])
    life.vote(B, results=[b"105"])
    await forced()
    life.acknowledge(A, B)
    return answers.only.gtrid


async def read_only(life: Life) -> str:
    gtrid = life.begin(A, B)
    life.commit(gtrid)
    life.vote(A, B, said=t.VOTE_READ_ONLY)
    return gtrid


async def without_branches(life: Life) -> str:
    gtrid = life.begin()
    life.commit(gtrid)
    return gtrid


async def voted_no(life: Life) -> str:
    gtrid = life.begin(A, B)
    life.commit(gtrid)
    life.vote(A)
    life.vote(B, said=t.VOTE_NO)
    life.rolled_back(A)
    return gtrid


async def vote_lost(life: Life) -> str:
    gtrid = life.begin(A, B)
    life.commit(gtrid)
    life.transport.take(A, p.PrepareRequest).lose()
    life.vote(B)
    life.rolled_back(A, B)
    life.rolled_back(B)  # its YES came after the first Rollback had left
    return gtrid


async def too_late(life: Life) -> str:
    gtrid = life.begin(A, B)
    life.clock.advance(10.1)
    life.rolled_back(A, B)
    return gtrid


async def rolled_back(life: Life) -> str:
    gtrid = life.begin(A, B)
    life.requests.rollback(gtrid, "no money – für heute", 2, lambda _: None)
    life.rolled_back(A, B)
    return gtrid


async def told_again(life: Life) -> str:
    gtrid, _ = await life.decided(A, B)
    life.transport.take(A, p.ParticipantCommitRequest).lose()
    life.driver.retry_now()
    life.acknowledge(A, B)
    return gtrid


async def told_in_vain(life: Life) -> str:
    gtrid = life.begin(A)
    life.rollback(gtrid)
    while gtrid in life.driver.transactions:
        life.transport.take(A, p.ParticipantRollbackRequest).lose()
        life.driver.retry_now()
    return gtrid


async def in_one_phase(life: Life) -> str:
    answers = life.execute(("accounts", "withdraw"))
    only = life.transport.take(A, p.CommitOnePhaseRequest)
    only.answer(p.CommitOnePhaseResponse(outcome=t.OUTCOME_COMMITTED, results=[b"95"]))
    return answers.only.gtrid


async def in_one_phase_perhaps(life: Life) -> str:
    answers = life.execute(("accounts", "withdraw"))
    life.transport.take(A, p.CommitOnePhaseRequest).lose()
    life.driver.retry_now()
    gone = CallFailed("RESOURCE_UNKNOWN", "it is gone", grpc_status=5, maybe_executed=False)
    life.transport.take(A, p.CommitOnePhaseRequest).answer(gone)
    return answers.only.gtrid


async def in_two_phases_though_alone(life: Life) -> str:
    gtrid = life.begin(A)
    life.commit(gtrid)
    unknown = CallFailed(UNIMPLEMENTED, "no such method", grpc_status=12, maybe_executed=False)
    life.transport.take(A, p.CommitOnePhaseRequest).answer(unknown)
    life.vote(A)
    await forced()
    life.acknowledge(A)
    return gtrid


async def heuristic(life: Life) -> str:
    gtrid, _ = await life.decided(A, B)
    life.acknowledge(A)
    life.acknowledge(B, outcome=t.OUTCOME_HEURISTIC_ROLLBACK)
    await forced()
    return gtrid


async def resolved(life: Life) -> str:
    gtrid, _ = await life.decided(A, B)
    life.acknowledge(A)
    running = life.driver.transactions[gtrid]
    life.driver.feed(running, e.ResolvedAgainstDecision(Decision.ABORT, "ops"))
    life.rolled_back(B)
    await forced()
    return gtrid


async def aborted_by_the_log(life: Life) -> str:
    gtrid = life.begin(A, B)
    life.commit(gtrid)
    life.log.decide(DecisionRecord(gtrid, Decision.ABORT, (), 0), lambda _: None)
    life.vote(A, B)
    await forced()
    life.rolled_back(A, B)
    return gtrid


WAYS = (
    *(committed, read_only, without_branches, voted_no, vote_lost, too_late, rolled_back, told_again, told_in_vain),
    *(in_one_phase, in_one_phase_perhaps, in_two_phases_though_alone, heuristic, resolved, aborted_by_the_log),
)


def kept_whole(life: Life, gtrid: str) -> Running:
    """One that has ended and has not been folded yet."""
    assert gtrid not in life.driver.transactions
    running = life.driver.finished[gtrid]
    assert running is life.driver.finished[gtrid]
    return running


def assert_folds(running: Running) -> None:
    whole = folded(running)
    assert whole is not None
    assert every_field(unfolded(running.gtrid, whole)) == every_field(running)
    assert standing_of(whole) == (running.transaction.state, running.begun_unix_ms)


# -- nothing is lost ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
async def test_a_transaction_unfolds_to_what_it_was(way: Callable[[Life], Awaitable[str]]) -> None:
    life = await start()
    life.clock.advance(1.5)
    assert_folds(kept_whole(life, await way(life)))


async def test_one_that_the_log_refused_does_too() -> None:
    life = await start(memory_log(before_force=refused))
    gtrid = life.begin(A, B)
    life.commit(gtrid)
    life.vote(A, B)
    await forced()
    life.rolled_back(A, B)
    assert_folds(kept_whole(life, gtrid))


async def test_a_recovered_one_does_too() -> None:
    life = await start()
    gtrid, _ = await life.decided(A, B)
    life = await restart(life, forced=1)
    (logged,) = life.log.unended()
    life.driver.recover(logged.decision)
    life.transport.take(A, p.ParticipantCommitRequest).lose()
    life.driver.retry_now()
    life.acknowledge(A, B)
    running = kept_whole(life, gtrid)
    assert running.recovered
    assert_folds(running)


async def test_every_kind_of_event_was_among_these() -> None:
    seen: set[type] = set()
    for way in WAYS:
        life = await start()
        seen.update(type(event) for _, event in kept_whole(life, await way(life)).history)
    seen.add(e.DecisionRefused)  # in the one that the log refused
    assert seen == set(e.EVENT_TYPES) - {e.Forgotten}  # what is forgotten is not kept


async def test_many_that_have_ended_are_found_as_they_were() -> None:
    life = await start()
    gtrids = []
    for way in WAYS * 3:
        gtrids.append(await way(life))
        life.transport.calls.clear()  # what was overtaken is never answered
    whole = [gtrid for gtrid in gtrids if life.driver.finished[gtrid] is life.driver.finished[gtrid]]
    assert len(whole) == len(gtrids) % FOLDED_TOGETHER
    for gtrid, way in zip(gtrids, WAYS * 3, strict=True):
        other = await start()
        expected = other.driver.finished[await way(other)]
        assert life.driver.finished[gtrid].transaction.state is expected.transaction.state
        assert len(life.driver.finished[gtrid].history) == len(expected.history)
    assert list(life.driver.finished) == gtrids


async def test_a_client_who_asks_again_is_told_the_results_again() -> None:
    life = await start()
    gtrid = await committed(life)
    for _ in range(FOLDED_TOGETHER):
        await life.committed(A, B)
    answers = life.execute(("accounts", "withdraw"), ("ledger", "credit"), gtrid=gtrid)
    assert answers.only.ordered_results() == [b"95", b"105", b""]
    assert answers.only.outcome is Outcome.COMMITTED


# -- what is kept as it is ---------------------------------------------------------------------------------------------


async def test_one_for_which_something_may_still_come_is_kept_as_it_is() -> None:
    life = await start()
    gtrid = life.begin(A, B)
    life.commit(gtrid)
    life.vote(A, said=t.VOTE_NO)
    life.vote(B, said=t.VOTE_NO)  # while the Rollback is on its way
    assert gtrid not in life.driver.transactions
    for _ in range(FOLDED_TOGETHER):
        await read_only(life)
    assert life.driver.finished[gtrid].in_flight == {B}
    life.rolled_back(B)
    assert type(life.driver.finished[gtrid].history[-1][1]) is e.BranchEnded


async def test_one_whose_history_is_not_whole_is_kept_as_it_is() -> None:
    life = await start()
    gtrid, _ = await life.decided(A, B)
    while len(life.driver.transactions[gtrid].history) < HISTORY_MAX - 1:
        life.transport.take(A, p.ParticipantCommitRequest).lose()
        life.driver.retry_now()
    life.acknowledge(A, B)
    running = kept_whole(life, gtrid)
    assert len(running.history) == HISTORY_MAX
    assert folded(running) is None
    for _ in range(FOLDED_TOGETHER):
        await read_only(life)
    assert life.driver.finished[gtrid] is running


async def test_one_on_which_a_defect_showed_is_kept_as_it_is() -> None:
    life = await start()
    gtrid = await committed(life)
    running = kept_whole(life, gtrid)
    life.driver.feed(running, e.VoteLost(A, "an answer that nobody asked for"))
    assert "VoteLost" in running.broken
    assert folded(running) is None


async def test_one_of_which_a_text_is_of_a_class_of_its_own_is_kept_as_it_is() -> None:
    class SafeText(str):
        """As frameworks have for what they have escaped."""

    life = await start()
    gtrid = life.begin(A, B)
    life.driver.feed(life.driver.transactions[gtrid], e.RollbackRequested(Cause.CLIENT, SafeText("no money")))
    life.rolled_back(A, B)
    for _ in range(FOLDED_TOGETHER):
        await read_only(life)
    assert life.driver.finished[gtrid].transaction.reason == "no money"
    assert life.driver.finished[gtrid] is life.driver.finished[gtrid]


# -- what it is for ----------------------------------------------------------------------------------------------------


async def test_what_has_ended_is_nothing_to_collect() -> None:
    life = await start()
    kinds = (Running, GlobalTransaction, Branch, *e.EVENT_TYPES)

    def to_look_at() -> int:
        gc.collect()
        return sum(isinstance(one, kinds) for one in gc.get_objects())

    for _ in range(FOLDED_TOGETHER):
        await committed(life)
    before = to_look_at()
    for _ in range(10 * FOLDED_TOGETHER):
        await committed(life)
    assert to_look_at() == before
    assert len(life.driver.finished) == 11 * FOLDED_TOGETHER


async def test_where_each_stands_is_told_without_unfolding_it(monkeypatch: pytest.MonkeyPatch) -> None:
    life = await start()
    gtrids = [await (voted_no if n % 2 else committed)(life) for n in range(2 * FOLDED_TOGETHER)]

    def not_wanted(gtrid: str, whole: bytes) -> Running:
        raise AssertionError(f"{gtrid} was unfolded")

    monkeypatch.setattr(in_memory, "unfolded", not_wanted)
    standings = list(life.driver.finished.standings())
    assert [gtrid for gtrid, _, _ in standings] == gtrids
    assert [state for _, state, _ in standings] == [S.COMMITTED, S.ABORTED] * FOLDED_TOGETHER


async def test_what_was_aborted_is_found_among_the_folded() -> None:
    life = await start()
    gtrids = [await (voted_no if n % 3 else committed)(life) for n in range(2 * FOLDED_TOGETHER + 5)]
    aborted = [gtrid for n, gtrid in enumerate(gtrids) if n % 3]
    assert [running.gtrid for running in life.driver.finished.aborted()] == aborted


async def test_one_that_is_forgotten_before_it_is_folded_stays_so() -> None:
    life = await start(options=DriverOptions(finished_kept_max=3))
    finished: Finished = life.driver.finished
    first = await committed(life)
    del finished[first]
    rest = [await committed(life) for _ in range(FOLDED_TOGETHER)]
    assert list(finished) == rest[-3:]
