"""Many decisions offered at once, and many ends: as good as one by one."""

from __future__ import annotations

from coordinator.log.records import LoggedTransaction
from coordinator.log.store import LogBroken, LogRefused
from coordinator.protocol.states import Decision
from tests.conformance.decision_logs import Answers, Rig, abort, commit, decide, ended, flush, gtrid
from tests.waiting import eventually


async def test_many_decisions_are_durable_when_they_are_answered_and_go_in_one_force(rig: Rig) -> None:
    heard: list[object] = []
    records = [commit(number) for number in range(1, 6)]
    rig.hold()
    rig.store.decide_all(records, heard.extend)
    assert [rig.store.lookup(record.gtrid) for record in records] == [None] * 5, "nothing is durable yet"
    assert heard == []
    rig.release()
    await eventually(lambda: heard != [])
    assert heard == [Decision.COMMIT] * 5
    assert [rig.store.lookup(record.gtrid) for record in records] == [LoggedTransaction(one, None) for one in records]
    assert rig.forces == [5]


async def test_each_of_many_learns_what_stands_for_it_alone(rig: Rig) -> None:
    heard: list[object] = []
    await decide(rig.store, abort(2))
    rig.store.decide_all([commit(1), commit(2), commit(3), commit(3)], heard.extend)
    await eventually(lambda: heard != [])
    assert heard == [Decision.COMMIT, Decision.ABORT, Decision.COMMIT, Decision.COMMIT]


async def test_many_keep_their_place_among_what_was_submitted_before_and_after(rig: Rig) -> None:
    answers = Answers()
    rig.hold()
    rig.store.decide(commit(1), answers.to(1))
    rig.store.decide_all([abort(1), commit(2)], answers.to(2))
    rig.store.decide(abort(2), answers.to(3))
    rig.release()
    await eventually(lambda: len(answers.heard) == 3)
    assert answers.labels() == [1, 2, 3]
    assert answers.values() == [Decision.COMMIT, [Decision.COMMIT, Decision.COMMIT], Decision.COMMIT]


async def test_many_that_are_refused_learn_it_together(rig: Rig) -> None:
    heard: list[object] = []
    rig.failures = [LogRefused("full")]
    rig.store.decide_all([commit(1), commit(2)], heard.extend)
    await eventually(lambda: heard != [])
    assert [type(one) for one in heard] == [LogRefused, LogRefused]
    assert await decide(rig.store, abort(1)) is Decision.ABORT, "nothing stood"


async def test_many_that_come_when_the_log_is_broken_learn_it_too(rig: Rig) -> None:
    before: list[object] = []
    after: list[object] = []
    rig.failures = [OSError("fsync failed")]
    rig.store.decide_all([commit(1), commit(2)], before.extend)
    await eventually(lambda: before != [])
    rig.store.decide_all([commit(3), commit(4)], after.extend)
    await eventually(lambda: after != [])
    assert [type(one) for one in (*before, *after)] == [LogBroken] * 4


async def test_many_ends_alone_are_forced_after_a_while(closed_rig: Rig) -> None:
    closed_rig.use_lazy_flush_s(0.02)
    await closed_rig.store.open()
    heard: list[object] = []
    closed_rig.store.decide_all([commit(1), commit(2)], heard.extend)
    await eventually(lambda: heard != [])
    await flush(closed_rig.store)
    closed_rig.store.end_all([ended(1), ended(2)])
    await eventually(lambda: closed_rig.store.unended() == [])
    known = [closed_rig.store.lookup(gtrid(number)) for number in (1, 2)]
    assert [one.end for one in known if one is not None] == [ended(1), ended(2)]


async def test_many_ends_that_are_refused_go_with_the_next_force(rig: Rig) -> None:
    await decide(rig.store, commit(1))
    rig.hold()
    rig.store.end_all([ended(1)])
    rig.failures = [LogRefused("full")]
    refused: list[object] = []
    rig.store.decide_all([commit(2)], refused.extend)
    rig.release()
    await eventually(lambda: refused != [])
    await decide(rig.store, commit(3))
    known = rig.store.lookup(gtrid(1))
    assert known is not None
    assert known.end == ended(1)
