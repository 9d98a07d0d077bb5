"""What a restart owes, and the sweep that never races the living."""

from __future__ import annotations

from typing import Any

import pytest

from coordinator.log.records import DecisionRecord, LoggedBranch
from coordinator.protocol.states import Decision, Outcome, TransactionState
from coordinator.runtime.entropy import SeededEntropy
from coordinator.runtime.recovery import Recovery
from handfast.catalog import HandfastFault
from handfast.v1 import participant_pb2 as p
from handfast.v1 import types_pb2 as t
from tests.unit.runtime.databases import Databases
from tests.unit.runtime.scripted import COORDINATOR_ID, A, B, C, Life, forced, participant, restart, start
from tests.waiting import eventually

S = TransactionState


def databases(**prepared: set[tuple[str, str]]) -> Databases:
    return Databases(**{"accounts": set(), "ledger": set(), "audit": set(), **prepared})


def recovery_of(life: Life, there: Databases) -> Recovery:
    return Recovery(life.requests, there.as_links(), SeededEntropy(3), interval_s=60.0)


# -- start -------------------------------------------------------------------------------------------------------------


async def test_what_was_decided_goes_on_and_what_was_not_is_presumed_aborted() -> None:
    life = await start()
    decided, _ = await life.decided(A, B)
    undecided = life.begin(A, B)
    life.commit(undecided)
    life.vote(A)
    after = await restart(life)
    recovery = recovery_of(after, databases())
    recovery.start()
    assert after.transport.shown() == [f"Commit {A}", f"Commit {B}"]
    assert list(after.driver.transactions) == [decided]
    assert after.driver.transactions[decided].recovered
    after.acknowledge(A, B)
    await forced()
    assert list(after.log.unended()) == []
    await recovery.close()


async def test_a_crash_during_recovery_is_recovered_the_same_way() -> None:
    life = await start()
    gtrid, _ = await life.decided(A, B)
    for _ in range(3):
        life = await restart(life)
        recovery = recovery_of(life, databases())
        recovery.start()
        life.acknowledge(A)
        await recovery.close()
    life.acknowledge(B)
    assert life.driver.finished[gtrid].outcome is Outcome.COMMITTED


async def test_one_bad_transaction_does_not_block_the_start(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """btm 59: one bad transaction blocks start-up."""
    life = await start()
    bad, _ = await life.decided(A, B)
    good, _ = await life.decided(A, B)
    after = await restart(life)
    send = after.transport.send

    def fails_for_the_bad(bqual: str, request: p.ParticipantCommitRequest, *rest: Any, **named: Any) -> None:
        if request.gtrid == bad:
            raise ValueError("a name that can't be sent")
        send(bqual, request, *rest, **named)

    monkeypatch.setattr(after.transport, "send", fails_for_the_bad)
    recovery = recovery_of(after, databases())
    recovery.start()
    assert {call.request.gtrid for call in after.transport.calls} == {good}
    assert f"transaction {bad} is set aside" in caplog.text
    assert after.requests.inquire(bad, A, 0).standing.value == "commit"
    await recovery.close()


async def test_an_abort_record_without_an_end_is_ended_so_that_it_can_be_cleaned_up() -> None:
    """citus 1614: finished log rows are never cleaned up."""
    life = await start()
    gtrid = life.begin(A, B)
    life.log.decide(DecisionRecord(gtrid, Decision.ABORT, (LoggedBranch(A, ""),), 1), lambda _: None)
    await forced()
    after = await restart(life)
    recovery = recovery_of(after, databases())
    recovery.start()
    await eventually(lambda: not after.log.unended())
    logged = after.log.lookup(gtrid)
    assert logged is not None
    assert logged.end is not None
    assert logged.end.outcome is Outcome.ABORTED
    assert after.transport.calls == []
    await recovery.close()


# -- the four looks ----------------------------------------------------------------------------------------------------


async def orphan() -> tuple[Life, str]:
    """A restarted coordinator, and a gtrid of its earlier life that was never decided."""
    life = await start()
    gtrid = life.begin(A, B)
    life.commit(gtrid)
    life.vote(A)
    return await restart(life), gtrid


async def test_an_orphan_of_an_earlier_life_is_rolled_back() -> None:
    life, gtrid = await orphan()
    there = databases(accounts={(gtrid, A)})
    assert await recovery_of(life, there).sweep() == 1
    assert there.told == [("rollback", gtrid, A)]


async def test_a_branch_of_a_life_that_the_log_has_never_seen_is_left_alone_and_told_of_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The log is an old copy, in the epoch of the life that was lost: what looks like an orphan may have committed."""
    life = await start()
    of_lost_life = f"{COORDINATOR_ID}-1-1-1"
    there = databases(accounts={(of_lost_life, A)})
    recovery = recovery_of(life, there)
    for _ in range(3):
        assert await recovery.sweep() == 0
    assert there.told == []
    assert caplog.text.count(f"{A} of {of_lost_life} comes from a life") == 1


async def test_an_orphan_of_a_commit_that_has_ended_is_committed_with_its_record() -> None:
    life = await start()
    gtrid = await life.committed(A, B)
    await forced()
    there = databases(accounts={(gtrid, A)})
    assert await recovery_of(life, there).sweep() == 1
    assert there.told == [("commit", gtrid, A)]


async def test_a_branch_that_the_commit_record_does_not_name_is_rolled_back() -> None:
    life = await start()
    gtrid = await life.committed(A, B)
    await forced()
    there = databases(audit={(gtrid, C)})
    await recovery_of(life, there).sweep()
    assert there.told == [("rollback", gtrid, C)]


async def test_a_transaction_that_is_just_being_prepared_is_left_alone() -> None:
    """citus 1030, 2095: recovery rolls back transactions that are just being prepared."""
    life = await start()
    gtrid = life.begin(A, B)
    life.commit(gtrid)
    there = databases(accounts={(gtrid, A)})
    assert await recovery_of(life, there).sweep() == 0
    assert there.told == []
    assert there.listings == ["accounts", "audit", "ledger"], "after the second look there is nothing more to ask"


async def test_one_that_begins_and_prepares_while_the_database_is_being_asked_is_left_alone() -> None:
    """citus 1030, 2095: who is active must be looked up after the listing; looked up before, this one is missing."""
    life = await start()
    there = databases()

    def begins_and_prepares() -> None:
        gtrid = life.begin(A, B)
        life.commit(gtrid)
        there.prepared["accounts"].add((gtrid, A))

    there.before_listing = [begins_and_prepares]
    assert await recovery_of(life, there).sweep() == 0
    assert there.told == []
    assert there.prepared["accounts"]


async def test_one_that_commits_between_the_looks_is_left_alone_or_committed() -> None:
    """Listed while in doubt, ended when looked for: the log says commit, and the last listing that it is gone."""
    life = await start()
    gtrid, _ = await life.decided(A, B)
    there = databases(accounts={(gtrid, A)})

    def commits() -> None:
        there.prepared["accounts"].clear()
        life.acknowledge(A, B)

    there.after_listing = [commits]
    assert await recovery_of(life, there).sweep() == 0
    assert there.told == []
    assert gtrid not in life.driver.transactions


async def test_retry_and_sweep_do_not_run_together() -> None:
    """seata 7004: retry and decision run together. What is driven is the driver's alone."""
    life = await start()
    gtrid, _ = await life.decided(A, B)
    life.transport.take(A, p.ParticipantCommitRequest).lose()
    there = databases(accounts={(gtrid, A)}, ledger={(gtrid, B)})
    assert await recovery_of(life, there).sweep() == 0
    life.driver.retry_now()
    assert there.told == []
    assert sorted(life.transport.shown()) == [f"Commit {A}", f"Commit {B}"]


async def test_a_transaction_that_comes_back_to_be_driven_before_the_end_is_left_alone() -> None:
    """The last look is at the active ones again: a client's question may have taken the transaction up meanwhile."""
    life = await start()
    gtrid, _ = await life.decided(A, B)
    after = await restart(life)
    there = databases(accounts={(gtrid, A)})

    def asked() -> None:
        after.requests.inquire(gtrid, A, 0)

    there.after_listing = [lambda: None, asked]
    recovery = recovery_of(after, there)
    assert await recovery.sweep() == 0
    assert there.told == []
    assert after.transport.shown() == [f"Commit {A}", f"Commit {B}"]


async def test_a_prepare_that_lands_after_the_scan_is_swept_by_the_next() -> None:
    """greenplum 10393: a PREPARE that lands after the recovery scan stays as an orphan."""
    life, gtrid = await orphan()
    there = databases()
    recovery = recovery_of(life, there)
    assert await recovery.sweep() == 0
    there.prepared["accounts"].add((gtrid, A))
    assert await recovery.sweep() == 1
    assert there.told == [("rollback", gtrid, A)]


@pytest.mark.parametrize(
    "foreign",
    [
        ("another2-1-lp0000-1", A),
        (f"{COORDINATOR_ID}-zz-lp0000-1", A),
        ("not a gtrid", A),
    ],
    ids=["another coordinator's", "a later epoch's", "nobody's"],
)
async def test_what_is_not_ours_is_never_touched(foreign: tuple[str, str], caplog: pytest.LogCaptureFixture) -> None:
    """citus 8855: a node that inherits another's identity rolls back its commits."""
    life = await start()
    there = databases(accounts={foreign})
    assert await recovery_of(life, there).sweep() == 0
    assert there.told == []
    assert "accounts" in caplog.text


async def test_a_branch_that_a_wrong_resource_lists_is_not_touched_there() -> None:
    """citus 6548: a branch finished in the wrong database stalls recovery."""
    life, gtrid = await orphan()
    there = databases(ledger={(gtrid, A)})
    assert await recovery_of(life, there).sweep() == 0
    assert there.told == []


async def test_a_resource_that_fails_does_not_stall_the_others(caplog: pytest.LogCaptureFixture) -> None:
    """citus 6548."""
    life, gtrid = await orphan()
    there = databases(accounts={(gtrid, A)}, ledger={(gtrid, B)})
    there.away = {"accounts"}
    assert await recovery_of(life, there).sweep() == 1
    assert there.told == [("rollback", gtrid, B)]
    assert "resource accounts could not be swept" in caplog.text


async def test_a_record_that_can_not_be_read_does_not_stall_the_other_orphans(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """btm 59, in the sweep."""
    life, gtrid = await orphan()
    damaged = gtrid[:-1] + "zz"
    there = databases(accounts={(gtrid, A), (damaged, A)})
    lookup = life.log.lookup

    def fails_for_the_damaged(asked: str) -> object:
        if asked == damaged:
            raise HandfastFault("LOG_CORRUPT", path=":memory:", problem="a checksum")
        return lookup(asked)

    monkeypatch.setattr(life.log, "lookup", fails_for_the_damaged)
    assert await recovery_of(life, there).sweep() == 1
    assert there.told == [("rollback", gtrid, A)]
    assert f"branch {A} of {damaged} could not be judged" in caplog.text


async def test_a_participant_without_recover_is_no_problem(caplog: pytest.LogCaptureFixture) -> None:
    life, gtrid = await orphan()
    there = databases(accounts={(gtrid, A)}, ledger={(gtrid, B)})
    there.without_recover = {"accounts"}
    assert await recovery_of(life, there).sweep() == 1
    assert caplog.text == ""


async def test_what_nobody_can_tell_is_left_to_an_operator() -> None:
    life = await start()
    gtrid = await life.committed(A, B)
    await forced()
    life.log.forget(gtrid, lambda _: None)
    await forced()
    after = await restart(life)
    there = databases(accounts={(gtrid, A)})
    assert await recovery_of(after, there).sweep() == 0
    assert there.told == []


async def test_an_orphan_that_ended_otherwise_is_reported_with_its_evidence(caplog: pytest.LogCaptureFixture) -> None:
    """dtm: “does not exist” taken as success. What a participant says against the decision is not swallowed."""
    life, gtrid = await orphan()
    there = databases(accounts={(gtrid, A)})
    there.says[A] = t.OUTCOME_HEURISTIC_COMMIT
    await recovery_of(life, there).sweep()
    assert f"orphan {A} of {gtrid} has ended: heuristic commit as found" in caplog.text


# -- the loop ----------------------------------------------------------------------------------------------------------


async def test_the_sweep_is_repeated_and_a_registration_wakes_it() -> None:
    life, gtrid = await orphan()
    there = databases()
    recovery = recovery_of(life, there)
    recovery.start()
    await eventually(lambda: recovery.counters["sweeps"] == 1)
    there.prepared["accounts"].add((gtrid, A))
    await eventually(lambda: life.clock.waiting > 0)
    life.clock.advance(60.0 * 1.25)
    await eventually(lambda: recovery.counters["sweeps"] == 2)
    assert there.told == [("rollback", gtrid, A)]
    there.prepared["ledger"].add((gtrid, B))
    life.requests.register(participant("ledger.b2"), lambda _: None)
    await eventually(lambda: recovery.counters["swept_orphans"] == 2)
    assert there.connects == 1
    await recovery.close()


async def test_a_participant_that_comes_back_gets_at_once_what_waits_for_it() -> None:
    life = await start()
    await life.decided(A, B)
    life.transport.take(A, p.ParticipantCommitRequest).lose()
    recovery = recovery_of(life, databases())
    recovery.on_link_up(f"{B}:7401")
    assert life.transport.shown() == [f"Commit {B}"]
    recovery.on_link_up(f"{A}:7401")
    assert life.transport.shown() == [f"Commit {B}", f"Commit {A}"]
