"""A transaction of one branch: its participant decides, and its answer can get lost."""

from __future__ import annotations

import pytest

from coordinator.protocol.states import Cause, Decision, Outcome
from coordinator.runtime.directory import STATIC_INSTANCE
from coordinator.runtime.options import DriverOptions
from coordinator.runtime.requests import Standing
from handfast.frames import UNIMPLEMENTED, CallFailed
from handfast.v1 import participant_pb2 as p
from handfast.v1 import types_pb2 as t
from tests.unit.runtime.scripted import A, Answers, Life, forced, participant, restart, start


async def asked() -> tuple[Life, str, Answers]:
    """A coordinator that has told the only branch to commit."""
    life = await start(options=DriverOptions(apply_wait_s=5.0))
    gtrid = life.begin(A)
    return life, gtrid, life.commit(gtrid)


def reply(life: Life, outcome: t.Outcome.ValueType, reason_code: str = "") -> None:
    answer = p.CommitOnePhaseResponse(outcome=outcome, reason="as it said", reason_code=reason_code)
    life.transport.take(A, p.CommitOnePhaseRequest).answer(answer)


def lose(life: Life, *, maybe_executed: bool = True) -> None:
    life.transport.take(A, p.CommitOnePhaseRequest).lose(maybe_executed=maybe_executed)


async def test_it_is_committed_in_one_phase_and_remembered_by_name() -> None:
    life, gtrid, answers = await asked()
    reply(life, t.OUTCOME_COMMITTED)
    assert answers.only.outcome is Outcome.COMMITTED
    assert life.driver.unrecorded == {gtrid: Outcome.COMMITTED}
    await forced()
    assert life.log.counters()["records"] == 0


async def test_a_lost_answer_is_asked_for_until_it_comes() -> None:
    """pgjdbc 4438: a lost answer must not be reported as a definite failure."""
    life, _, answers = await asked()
    for _ in range(20):
        lose(life)
        assert answers.told == []
        life.driver.retry_now()
    reply(life, t.OUTCOME_COMMITTED)
    assert answers.only.outcome is Outcome.COMMITTED


async def test_the_client_is_told_that_nobody_knows_when_the_answer_stays_away() -> None:
    """Invariant 10: unknown is an answer."""
    life, gtrid, answers = await asked()
    lose(life)
    life.clock.advance(15.1)
    assert answers.only.outcome is None
    assert life.requests.inquire(gtrid, "", 1).standing is Standing.UNDECIDED


async def test_a_message_that_never_left_is_a_plain_abort() -> None:
    life, _, answers = await asked()
    lose(life, maybe_executed=False)
    assert (answers.only.outcome, answers.only.transaction.cause) == (Outcome.ABORTED, Cause.VOTE_NO)


async def test_after_a_lost_answer_one_that_never_left_proves_nothing() -> None:
    life, _, answers = await asked()
    lose(life)
    life.driver.retry_now()
    lose(life, maybe_executed=False)
    assert answers.told == []


async def test_an_answer_that_stays_away_for_as_long_as_anything_is_remembered_is_a_hazard() -> None:
    """Else each participant that dies in the middle of one and comes back elsewhere leaves a transaction for good."""
    life, gtrid, _ = await asked()
    lose(life)
    while gtrid in life.driver.transactions:
        assert life.clock.now_s() < 1000.0 + 10.0 + 24 * 3600 + 60.0
        life.clock.jump()
        for call in [*life.transport.calls]:
            life.transport.calls.remove(call)
            call.lose(maybe_executed=False)
    assert life.clock.now_s() > 1000.0 + 10.0 + 24 * 3600
    assert life.driver.finished[gtrid].outcome is Outcome.HEURISTIC_HAZARD


@pytest.mark.parametrize("code", ["RESOURCE_UNKNOWN", "BRANCH_UNKNOWN"])
async def test_when_whoever_knew_is_gone_it_is_a_hazard_and_says_so(code: str) -> None:
    life, gtrid, answers = await asked()
    lose(life)
    life.driver.retry_now()
    if code == "RESOURCE_UNKNOWN":
        gone = CallFailed(code, "Nobody serves it.", grpc_status=9, maybe_executed=False)
        life.transport.take(A, p.CommitOnePhaseRequest).answer(gone)
    else:
        reply(life, t.OUTCOME_ABORTED, code)
    assert answers.only.outcome is Outcome.HEURISTIC_HAZARD
    assert life.requests.inquire(gtrid, "", 1).standing is Standing.UNKNOWN


async def test_a_hazard_is_still_one_after_a_restart_and_not_an_abort() -> None:
    life, gtrid, _ = await asked()
    reply(life, t.OUTCOME_HEURISTIC_HAZARD)
    await forced()
    after = await restart(life)
    assert after.requests.inquire(gtrid, "", 1).standing is Standing.UNKNOWN
    assert after.commit(gtrid, branches=1).only.outcome is Outcome.HEURISTIC_HAZARD


@pytest.mark.parametrize("odd", [t.OUTCOME_UNSPECIFIED, t.OUTCOME_HEURISTIC_COMMIT, t.OUTCOME_HEURISTIC_MIXED])
async def test_an_answer_that_is_no_answer_is_a_hazard(odd: t.Outcome.ValueType) -> None:
    life, _, answers = await asked()
    reply(life, odd)
    assert answers.only.outcome is Outcome.HEURISTIC_HAZARD


async def test_a_participant_without_one_phase_gets_two() -> None:
    life, gtrid, answers = await asked()
    unknown = CallFailed(UNIMPLEMENTED, "no such method", grpc_status=12, maybe_executed=False)
    life.transport.take(A, p.CommitOnePhaseRequest).answer(unknown)
    life.vote(A)
    await forced()
    life.acknowledge(A)
    assert answers.only.outcome is Outcome.COMMITTED
    logged = life.log.lookup(gtrid)
    assert logged is not None
    assert logged.decision.decision is Decision.COMMIT


async def test_a_fallback_past_the_deadline_aborts_in_the_end() -> None:
    life, _, answers = await asked()
    life.clock.advance(12.0)
    unknown = CallFailed(UNIMPLEMENTED, "no such method", grpc_status=12, maybe_executed=False)
    life.transport.take(A, p.CommitOnePhaseRequest).answer(unknown)
    assert life.transport.calls[-1].timeout_s > 0
    life.vote(A)
    life.rolled_back(A)
    assert answers.only.transaction.cause is Cause.DEADLINE


async def test_a_restart_can_not_tell_how_a_single_branch_ended_and_does_not_guess() -> None:
    life, gtrid, _ = await asked()
    reply(life, t.OUTCOME_COMMITTED)
    after = await restart(life)
    assert after.requests.inquire(gtrid, "", 1).standing is Standing.UNKNOWN
    assert after.requests.inquire(gtrid, "", 0).standing is Standing.UNKNOWN


# -- one-shot: the work travels along, and must not be done twice ------------------------------------------------------


async def test_the_work_is_sent_again_while_the_participant_surely_remembers() -> None:
    life = await start()
    life.execute(("accounts", "withdraw"))
    lose(life)
    life.driver.retry_now()
    (call,) = life.transport.calls
    assert [operation.name for operation in call.request.operations] == ["withdraw"]


async def test_past_the_deadline_only_the_question_is_sent_again_and_not_the_work() -> None:
    """A participant remembers what it did until the deadline and not much longer."""
    life = await start()
    life.execute(("accounts", "withdraw"), timeout_s=10.0)
    lose(life)
    life.clock.pause(10.1)
    life.driver.retry_now()
    (call,) = life.transport.calls
    assert list(call.request.operations) == []


async def test_a_participant_that_may_restart_under_its_old_name_never_gets_the_work_twice() -> None:
    life = await start()
    only = f"billing.{STATIC_INSTANCE}"
    life.directory.add(participant(only))
    life.execute(("billing", "charge"))
    life.transport.take(only, p.CommitOnePhaseRequest).lose()
    life.driver.retry_now()
    (call,) = life.transport.calls
    assert list(call.request.operations) == []
