"""What the absence of a record proves, and what it does not: nobody is told abort where a commit is possible."""

from __future__ import annotations

import pytest

from coordinator.log.records import DecisionRecord, EndRecord, LoggedBranch
from coordinator.log.store import LogRefused
from coordinator.protocol.states import Cause, Decision, Outcome
from coordinator.runtime.options import DriverOptions
from coordinator.runtime.requests import Standing
from handfast.catalog import HandfastFault
from handfast.v1 import participant_pb2 as p
from handfast.v1 import types_pb2 as t
from handfast.xid import base36
from tests.unit.runtime.scripted import A, B, Life, forced, restart, start


def standing(life: Life, gtrid: str, *, bqual: str = "", branches: int = 0) -> Standing:
    return life.requests.inquire(gtrid, bqual, branches).standing


async def test_the_standing_follows_the_transaction() -> None:
    life = await start()
    gtrid = life.begin(A, B)
    seen = [standing(life, gtrid, bqual=A)]
    life.commit(gtrid)
    seen.append(standing(life, gtrid, bqual=A))
    life.log.hold()
    life.vote(A, B)
    await forced()
    seen.append(standing(life, gtrid, bqual=A))
    life.log.release()
    await forced()
    seen.append(standing(life, gtrid, bqual=A))
    life.acknowledge(A, B)
    seen.append(standing(life, gtrid, bqual=A))
    assert seen == [Standing.UNDECIDED] * 3 + [Standing.COMMIT] * 2


async def test_a_prepared_branch_of_an_earlier_life_without_a_record_is_told_abort() -> None:
    """Invariant 3, presumed abort."""
    life = await start()
    gtrid = life.begin(A, B)
    life.commit(gtrid)
    life.vote(A, B)
    after = await restart(life, forced=0)
    assert standing(after, gtrid, bqual=A) is Standing.ABORT
    assert after.commit(gtrid, branches=2).only.transaction.cause is Cause.PRESUMED


async def test_a_record_that_nobody_heard_of_before_the_crash_is_a_commit() -> None:
    life = await start()
    gtrid = life.begin(A, B)
    unanswered = life.commit(gtrid)
    life.vote(A, B)
    after = await restart(life, forced=1)
    assert unanswered.told == []
    assert standing(after, gtrid, bqual=A) is Standing.COMMIT
    assert after.commit(gtrid, branches=2).told == [], "it is driven again, and answered when it is applied"
    after.acknowledge(A, B)
    assert after.commit(gtrid, branches=2).only.outcome is Outcome.COMMITTED


async def test_an_ended_commit_whose_end_was_not_durable_yet_is_no_abort_when_memory_has_let_it_go() -> None:
    """Evicted from memory before the lazy end record was written: there is a record, so nothing is presumed."""
    life = await start(options=DriverOptions(finished_kept_max=0))
    gtrid, _ = await life.decided(A, B)
    life.log.hold()
    life.acknowledge(A, B)
    assert life.driver.find(gtrid) is None
    assert standing(life, gtrid, bqual=A) is Standing.COMMIT
    assert life.rollback(gtrid, branches=2).told == []


async def test_a_commit_that_recovery_has_not_taken_up_yet_is_no_abort_and_is_driven_once() -> None:
    life = await start()
    gtrid, _ = await life.decided(A, B)
    after = await restart(life)
    assert standing(after, gtrid, branches=2) is Standing.COMMIT
    record = after.log.lookup(gtrid)
    assert record is not None
    after.driver.recover(record.decision)
    assert after.transport.shown() == [f"Commit {A}", f"Commit {B}"]


async def test_to_answer_for_an_unused_name_uses_it_up() -> None:
    """A name that somebody was told is aborted must never begin a transaction."""
    life = await start()
    gtrid = life.requests.hand_out(10).prefix + base36(3)
    assert standing(life, gtrid, bqual=A) is Standing.ABORT
    with pytest.raises(HandfastFault, match=gtrid):
        life.requests.enlist(gtrid, "accounts", "a1", 0)
    assert life.driver.transactions == {}


@pytest.mark.parametrize(("branches", "expected"), [(0, Standing.UNKNOWN), (1, Standing.UNKNOWN), (2, Standing.ABORT)])
async def test_only_two_branches_make_no_record_a_proof(branches: int, expected: Standing) -> None:
    life = await start()
    gtrid = life.begin(A)
    after = await restart(life)
    assert standing(after, gtrid, branches=branches) is expected
    if expected is Standing.UNKNOWN:
        with pytest.raises(HandfastFault) as raised:
            after.commit(gtrid, branches=branches)
        assert raised.value.code == "TRANSACTION_UNKNOWN"


async def test_a_single_branch_that_committed_is_remembered_past_its_history() -> None:
    life = await start(options=DriverOptions(finished_kept_max=0))
    gtrid = life.begin(A)
    life.commit(gtrid)
    done = p.CommitOnePhaseResponse(outcome=t.OUTCOME_COMMITTED)
    life.transport.take(A, p.CommitOnePhaseRequest).answer(done)
    assert life.driver.find(gtrid) is None
    assert standing(life, gtrid, branches=2) is Standing.COMMIT
    assert life.commit(gtrid).only.outcome is Outcome.COMMITTED


async def test_past_the_horizon_nobody_can_tell() -> None:
    """Invariant 4: asked about one older than the retention horizon, the answer is UNKNOWN, never ABORTED."""
    life = await start()
    gtrid = await life.committed(A, B)
    await forced()
    life.clock.advance(60.0)
    life.log.forget_before(life.clock.unix_ms(), lambda _: None)
    await forced()
    await forced()
    after = await restart(life)
    assert after.log.lookup(gtrid) is None
    assert standing(after, gtrid, bqual=A) is Standing.UNKNOWN
    assert standing(after, after.begin(A, B), bqual=A) is Standing.UNDECIDED


async def test_what_an_operator_had_forgotten_is_not_presumed_aborted() -> None:
    life = await start()
    gtrid = await life.committed(A, B)
    await forced()
    told: list[object] = []
    life.log.forget(gtrid, told.append)
    await forced()
    assert told == [None]
    after = await restart(life)
    assert standing(after, gtrid, bqual=A) is Standing.UNKNOWN
    assert standing(after, gtrid, branches=2) is Standing.UNKNOWN


async def test_a_name_from_a_later_epoch_is_unknown() -> None:
    """citus 8855: this is a copy of the log that was restored, and the other one went on."""
    life = await start()
    gtrid = life.begin(A, B)
    later = gtrid.replace("-1-", "-z-", 1)
    assert standing(life, later, bqual=A) is Standing.UNKNOWN


async def test_a_name_of_another_coordinator_is_refused() -> None:
    """citus 8855: a node that inherits another's identity rolls back its commits."""
    life = await start()
    with pytest.raises(HandfastFault) as raised:
        standing(life, life.begin(A).replace("k3v9q2xw", "another2"), bqual=A)
    assert raised.value.code == "TRANSACTION_FOREIGN"


async def test_a_hazard_beside_a_durable_commit_is_still_a_commit() -> None:
    life = await start()
    gtrid, answers = await life.decided(A, B)
    life.acknowledge(A, outcome=t.OUTCOME_HEURISTIC_HAZARD)
    life.acknowledge(B)
    assert answers.only.outcome is Outcome.HEURISTIC_HAZARD
    assert standing(life, gtrid, bqual=A) is Standing.COMMIT


async def test_a_prepared_branch_of_an_abort_with_a_hazard_is_told_abort() -> None:
    life = await start()
    gtrid = life.begin(A, B)
    life.commit(gtrid)
    life.vote(A)
    life.vote(B, said=t.VOTE_NO)
    life.rolled_back(A, outcome=t.OUTCOME_HEURISTIC_HAZARD)
    assert standing(life, gtrid, bqual=A) is Standing.ABORT


async def test_an_abort_record_without_an_end_is_an_abort() -> None:
    life = await start()
    gtrid = life.begin(A, B)
    life.log.decide(DecisionRecord(gtrid, Decision.ABORT, (LoggedBranch(A, ""),), 1), lambda _: None)
    await forced()
    after = await restart(life)
    assert standing(after, gtrid, bqual=A) is Standing.ABORT
    assert after.commit(gtrid).only.outcome is Outcome.ABORTED


async def test_a_heuristic_end_is_told_after_a_restart_as_before() -> None:
    life = await start()
    gtrid, answers = await life.decided(A, B)
    life.acknowledge(A)
    life.acknowledge(B, outcome=t.OUTCOME_HEURISTIC_ROLLBACK)
    await forced()
    after = await restart(life)
    asked = after.commit(gtrid)
    assert asked.only.outcome is answers.only.outcome is Outcome.HEURISTIC_MIXED
    ends = [logged.end for logged in after.log.recent(0)]
    assert [type(end) for end in ends] == [EndRecord]


async def test_a_refused_log_answers_for_nothing_it_did_not_write() -> None:
    life = await start()

    def refuses(count: int) -> None:
        raise LogRefused("disk full")

    life.log._before_force = refuses
    gtrid = life.begin(A, B)
    life.commit(gtrid)
    life.vote(A, B)
    await forced()
    assert standing(life, gtrid, bqual=A) is Standing.ABORT
    after = await restart(life)
    assert standing(after, gtrid, bqual=A) is Standing.ABORT
